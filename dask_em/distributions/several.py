"""Components that are mixtures themselves, as the states of a GMM-HMM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from scipy.special import logsumexp

from dask_em import store
from dask_em.distributions.base import Distribution, possible_counts
from dask_em.distributions.columns import finite_log
from dask_em.errors import ConfigurationError
from dask_em.kernels import seeding
from dask_em.model import Params
from dask_em.sums import Sums

_LLOYD_STEPS = 10
_BLUR = 0.02  # share of a row that a start gives to the other parts of its component


@store.register
@dataclass(frozen=True)
class SeveralParams:
    """Shares of the parts of each component (K, M), and the parts' parameters, those of component 0 first."""

    shares: np.ndarray
    parts: Params


@store.register
@dataclass(frozen=True)
class SeveralSums(Sums):
    """Expected rows of each part (K, M), and the parts' sums."""

    counts: np.ndarray
    parts: Any


@store.register
@dataclass(frozen=True)
class Several(Distribution):
    """Each component a mixture of its own, of several parts of one distribution.

    p(x | k) = Σ_m c_km p_km(x): of states of a hidden Markov chain that is a "GMM-HMM" (Rabiner 1989, section IV.B).

    Parameters
    ----------
    n_parts : int
        Of each component.
    distribution : Distribution
        Of the parts.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> rng = np.random.default_rng(0)
    >>> high = np.repeat(rng.integers(2, size=60), 10)
    >>> x = rng.normal(8.0 * high + 3 * rng.integers(2, size=600), 0.5)[:, None]
    >>> hmm = em.HiddenMarkov(2, em.Several(2, em.Gaussian()), random_state=0, verbose=0).fit(x)
    >>> np.sort(hmm.components_.parts.means.ravel()).round().tolist()
    [0.0, 3.0, 8.0, 11.0]
    """

    n_parts: int
    distribution: Distribution

    def __post_init__(self) -> None:
        n = self.n_parts
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
            raise ConfigurationError(f"n_parts={n!r} must be a whole number of at least 1")
        if not isinstance(self.distribution, Distribution) or isinstance(self.distribution, Several):
            raise ConfigurationError(
                f"distribution={self.distribution!r} must be a distribution, such as dask_em.Gaussian(), and no "
                "Several itself"
            )

    # ---- columns, which the parts know

    @property
    def accepts_nan(self) -> bool:  # type: ignore[override]
        """Whether the parts do."""
        return self.distribution.accepts_nan

    @property
    def accepts_sparse(self) -> bool:  # type: ignore[override]
        """Whether the parts do."""
        return self.distribution.accepts_sparse

    @property
    def discrete(self) -> bool:
        """Whether the parts are."""
        return self.distribution.discrete

    @property
    def exact(self) -> bool:
        """Whether the parts' estimates are."""
        return self.distribution.exact

    @property
    def bounded(self) -> bool:
        """Whether the parts are."""
        return self.distribution.bounded

    @property
    def accelerates(self) -> bool:
        """Whether the parts do."""
        return self.distribution.accelerates

    def hides(self, missing: bool) -> bool:
        """The part that a row is of."""
        return True

    def _with(self, distribution: Distribution) -> Self:
        return replace(self, distribution=distribution)

    def resolved(self, names: Sequence[str] | None) -> Self:
        """With the parts' columns by position."""
        return self._with(self.distribution.resolved(names))

    def takes_text(self, name: str, position: int) -> bool:
        """What the parts say."""
        return self.distribution.takes_text(name, position)

    def with_levels(self, names: Sequence[str] | None, levels: Mapping[str, tuple[str, ...]]) -> Self:
        """With the parts given the levels."""
        return self._with(self.distribution.with_levels(names, levels))

    def levels_of(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Those of the parts."""
        return self.distribution.levels_of(names)

    def categories_of(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Those of the parts."""
        return self.distribution.categories_of(names)

    def modelled(self, names: Sequence[str]) -> list[str]:
        """Those of the parts."""
        return self.distribution.modelled(names)

    def within(self, low: np.ndarray, high: np.ndarray) -> Self:
        """With the parts given the columns' extremes."""
        return self._with(self.distribution.within(low, high))

    def in_units_of(self, variance: np.ndarray) -> Self:
        """With the parts given the columns' variances."""
        return self._with(self.distribution.in_units_of(variance))

    def about(self, center: np.ndarray) -> Self:
        """With the parts' sums taken about a centre."""
        return self._with(self.distribution.about(center))

    def check_rows(self, x: np.ndarray) -> None:
        """Raise `RowError` for what no part can have made."""
        self.distribution.check_rows(x)

    def embedded(self, x: np.ndarray) -> np.ndarray:
        """As the parts have it."""
        return self.distribution.embedded(x)

    # ---- EM

    def log_density(self, params: SeveralParams, x: np.ndarray) -> np.ndarray:
        """(n_rows, K): log Σ_m c_km p_km(x)."""
        density: np.ndarray = logsumexp(self._joint(params, x), axis=2)
        return density

    def _joint(self, params: SeveralParams, x: np.ndarray) -> np.ndarray:
        """(n_rows, K, M) log densities of rows and parts."""
        each = self.distribution.log_density(params.parts, x)
        return each.reshape(len(each), *params.shares.shape) + finite_log(params.shares)

    def statistics(self, x: np.ndarray, resp: np.ndarray) -> SeveralSums:
        """Sums where nothing is known of the parts: every row is of all of them alike."""
        n, k = resp.shape
        return self._sums(x, np.broadcast_to(resp[:, :, None] / self.n_parts, (n, k, self.n_parts)))

    def expected_statistics(self, params: SeveralParams, x: np.ndarray, resp: np.ndarray) -> SeveralSums:
        """Sums of rows and parts, as `params` expect them."""
        joint = self._joint(params, x)
        top = joint.max(axis=2, keepdims=True)
        shares = np.exp(joint - np.where(np.isfinite(top), top, 0.0))
        total = shares.sum(axis=2, keepdims=True)
        return self._sums(x, resp[:, :, None] * shares / np.where(total > 0, total, 1.0), params.parts)

    def _sums(self, x: np.ndarray, resp: np.ndarray, parts: Params = None) -> SeveralSums:
        n, k, m = resp.shape
        flat = np.ascontiguousarray(resp.reshape(n, k * m))
        own = self.distribution
        sums = own.statistics(x, flat) if parts is None else own.expected_statistics(parts, x, flat)
        return SeveralSums(resp.sum(axis=0), sums)

    def estimate(self, stats: SeveralSums) -> SeveralParams:
        """Shares of the expected counts, and the parts' estimates."""
        counts = possible_counts(stats.counts.ravel()).reshape(stats.counts.shape)
        total = counts.sum(axis=1, keepdims=True)
        shares = np.where(total > 0, counts / np.where(total > 0, total, 1.0), 1 / self.n_parts)
        return SeveralParams(shares, self.distribution.estimate(stats.parts))

    def from_labels(self, x: np.ndarray, weight: np.ndarray, labels: np.ndarray, n_components: int) -> SeveralParams:
        """Each cluster of rows in as many clusters as there are parts."""
        z = seeding.scaled(self.distribution.embedded(x), weight)
        rng, m = np.random.default_rng(len(x)), self.n_parts
        resp = np.zeros((len(x), n_components, m))
        for k in range(n_components):
            rows = np.flatnonzero((labels == k) & (weight > 0))
            own = np.arange(len(rows)) % m
            if len(np.unique(z[rows], axis=0)) >= m:
                seeds = seeding.kmeans_plusplus(z[rows], weight[rows], m, rng)
                own = seeding.lloyd(z[rows], weight[rows], z[rows][seeds], _LLOYD_STEPS)
            resp[rows, k, own] = weight[rows]
        everywhere = weight[:, None, None] / resp[0].size
        return self.estimate(self._sums(x, (1 - _BLUR) * resp + _BLUR * everywhere))

    def expected_loglik(self, params: SeveralParams, stats: SeveralSums) -> float:
        """Σ N log c, plus the parts' own."""
        own = float(np.vdot(stats.counts, finite_log(params.shares)))
        return own + self.distribution.expected_loglik(params.parts, stats.parts)

    def log_prior(self, params: SeveralParams) -> float:
        """Of the parts."""
        return self.distribution.log_prior(params.parts)

    def within_bounds(self, params: SeveralParams) -> SeveralParams:
        """With parts as near as they may be estimated."""
        return replace(params, parts=self.distribution.within_bounds(params.parts))

    # ---- vectors

    def to_vector(self, params: SeveralParams) -> np.ndarray:
        """Roots of the shares, then the parts'."""
        return np.concatenate([np.sqrt(params.shares).ravel(), self.distribution.to_vector(params.parts)])

    def from_vector(self, vector: np.ndarray, n_components: int) -> SeveralParams:
        """Inverse of `to_vector`; roots may be off by a factor."""
        size = n_components * self.n_parts
        squares = vector[:size].reshape(n_components, self.n_parts) ** 2
        shares = squares / squares.sum(axis=1, keepdims=True)
        return SeveralParams(shares, self.distribution.from_vector(vector[size:], size))

    def vector_size(self, n_components: int, n_features: int) -> int:
        """One for each part's share, and the parts'."""
        size = n_components * self.n_parts
        return size + self.distribution.vector_size(size, n_features)

    def vector_scale(self, params: SeveralParams, weights: np.ndarray) -> np.ndarray:
        """Of roots twice the root of the component's share of the rows."""
        roots = np.repeat(2 * np.sqrt(weights), self.n_parts)
        parts = self.distribution.vector_scale(params.parts, (weights[:, None] * params.shares).ravel())
        return np.concatenate([roots, parts])

    # ---- what is asked of a fit

    def nbytes(self, n_components: int, n_features: int) -> int:
        """Bytes of the parameters."""
        size = n_components * self.n_parts
        return 8 * size + self.distribution.nbytes(size, n_features)

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Shares that are free, and the parts'."""
        shares = n_components * (self.n_parts - 1)
        return shares + self.distribution.n_parameters(n_components * self.n_parts, n_features)

    def loglik_error(self, params: SeveralParams) -> float:
        """That of the parts."""
        return self.distribution.loglik_error(params.parts)

    def degeneracies(self, params: SeveralParams) -> list[str]:
        """Those of the parts, which are numbered through all components."""
        return self.distribution.degeneracies(params.parts)

    def permuted(self, params: SeveralParams, order: np.ndarray) -> SeveralParams:
        """The components in another order, each with its parts."""
        parts = (np.asarray(order)[:, None] * self.n_parts + np.arange(self.n_parts)).ravel()
        return SeveralParams(params.shares[order], self.distribution.permuted(params.parts, parts))

    def sample(self, params: SeveralParams, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, d) draws."""
        edges = np.cumsum(params.shares, axis=1)[labels]
        part = (rng.random((len(labels), 1)) * edges[:, -1:] >= edges).sum(axis=1)
        return self.distribution.sample(params.parts, labels * self.n_parts + part, rng)
