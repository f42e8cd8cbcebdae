"""A finite mixture: each row comes from one of K components, and which one is hidden.

E-step:  r_ik = w_i π_k p(x_i | k) / Σ_j π_j p(x_i | j);   M-step:  π_k = Σ_i r_ik / Σ_i w_i, and the
components' own estimates (Dempster, Laird and Rubin 1977, section 4.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_em import store
from dask_em.distributions.base import alike, components_have, possible_counts
from dask_em.errors import DataError, DegenerateError, check_want
from dask_em.kernels import seeding
from dask_em.kernels.seeding import refuse_small_sample
from dask_em.model import Chunk, Model, Params, Statistics
from dask_em.models import splitting
from dask_em.models.components import ComponentModel
from dask_em.models.weights import from_logits, to_logits

_TILE = 2048  # rows at a time, so that nothing of size n x K ever exists
_TILE_NUMBERS = 1 << 17  # of rows and their shares: an E-step takes as many rows at a time as stay in cache
_LLOYD_STEPS = 10
_BLUR = 0.01  # share of a start's responsibilities that is spread over all rows, so that no component is a point


@store.register
@dataclass(frozen=True)
class MixtureParams:
    """Weights (K,), which sum to one, and the components' own parameters."""

    weights: np.ndarray
    components: Params


@store.register
@dataclass(frozen=True)
class MixtureStatistics(Statistics):
    """Expected number of rows (K,) of each component, and the components' own sums."""

    counts: np.ndarray
    components: Any


@dataclass(frozen=True)
class MixtureModel(ComponentModel):
    """A mixture of `n_components` components of one observation distribution.

    Parameters
    ----------
    n_components : int
    distribution : Distribution
        For instance `dask_em.Gaussian` or `dask_em.Poisson`.
    """

    @property
    def summary(self) -> Callable[[Chunk], Any] | None:
        """What the distribution says: the distinct rows, if there may be few, or the moments of a single component."""
        return self.distribution.summary(self.n_components)

    def check_data(self, n_rows: int, low: np.ndarray, high: np.ndarray) -> None:
        """Refuse fewer rows than components, and rows that are all the same."""
        if n_rows < self.n_components:
            raise DataError(
                f"n_samples={n_rows} rows of positive weight are fewer than n_components={self.n_components}: "
                "use at most as many components as rows"
            )
        if n_rows > 1 and (low == high).all():
            raise DataError(f"all {n_rows} rows are identical ({_row(low)}): there is no spread to fit a mixture to")

    def nbytes(self, n_features: int) -> int:
        """Bytes of one parameter set."""
        return 8 * self.n_components + self.distribution.nbytes(self.n_components, n_features)

    # ---- start

    def start(self, sample: Chunk, rng: np.random.Generator) -> MixtureParams:
        """One M-step on clusters: the distribution's own, or k-means++ and a few Lloyd steps on scaled columns."""
        refuse_small_sample(sample, self.n_components, "n_components")
        w = np.ones(sample.n_rows) if sample.weight is None else sample.weight
        own = self.distribution.partition(sample.x, w, self.n_components, rng)
        if own is not None:
            return self.from_labels(Chunk(sample.x[own >= 0], w[own >= 0]), own[own >= 0])
        z = seeding.scaled(self.distribution.embedded(sample.x), sample.weight)
        seeds = seeding.kmeans_plusplus(z, sample.weight, self.n_components, rng)
        labels = seeding.lloyd(z, sample.weight, z[seeds], _LLOYD_STEPS)
        return self.from_labels(sample, labels)

    def grown(
        self, smaller: Model, params: MixtureParams, sample: Chunk, rng: np.random.Generator
    ) -> list[MixtureParams]:
        """Starts in which two components share what was one of a smaller mixture of the same distribution.

        Each way to split gives two: the components' shares of the rows are divided, which keeps the smaller mixture's
        likelihood; or every row belongs to one cluster, which leaves it, at times for a better optimum.
        """
        if not isinstance(smaller, MixtureModel) or not alike(smaller.distribution, self.distribution):
            return []
        return splitting.grown(self, smaller, params, sample, rng)

    def moved(self, params: MixtureParams, sample: Chunk, rng: np.random.Generator) -> list[MixtureParams]:
        """The mixture with two of its components in one, and another in two, in several ways; two starts each."""
        return splitting.moved(self, params, sample, 0, rng)

    def from_labels(self, sample: Chunk, labels: np.ndarray) -> MixtureParams:
        """The M-step on rows that are nearly certain of their component.

        Clusters may be so far apart that a component of one, blurred over all, is a line in floating
        point, or becomes one in the next step; they are taken as they are then, if that is any better.
        """
        w = np.ones(sample.n_rows) if sample.weight is None else np.asarray(sample.weight, dtype=np.float64)
        components = self.distribution.from_labels(sample.x, w, labels, self.n_components)
        if components is not None:
            shares = (1 - _BLUR) * np.bincount(labels, w, self.n_components) / w.sum() + _BLUR / self.n_components
            return MixtureParams(shares, components)
        blurred = None
        try:
            blurred = self.m_step(self._sums_of_labels(sample, labels, _BLUR))
            self.m_step(self.e_step([blurred], sample)[0].close())
            return blurred
        except DegenerateError:
            pass
        try:
            return self.m_step(self._sums_of_labels(sample, labels, 0.0))
        except DegenerateError:
            if blurred is None:
                raise
            return blurred

    def _sums_of_labels(self, sample: Chunk, labels: np.ndarray, blur: float) -> MixtureStatistics:
        k = self.n_components
        share = np.bincount(labels, sample.weight, k)
        spread = np.where(share < blur / k * share.sum(), 0.0, blur)  # a few rows far away are not spread over all

        def shares(rows: slice) -> np.ndarray:
            own = labels[rows]
            resp = np.repeat(spread[own][:, None] / k, k, axis=1)
            resp[np.arange(len(own)), own] += 1 - spread[own]
            return resp

        return self.sums_of_shares(sample, shares)

    def sums_of_shares(self, sample: Chunk, shares: Callable[[slice], np.ndarray]) -> MixtureStatistics:
        """Sums of rows, of which the components have the given shares (n_rows, K)."""
        total: MixtureStatistics | None = None
        for rows in _tiles(sample.n_rows, _TILE):
            resp = shares(rows)
            w = np.ones(len(resp)) if sample.weight is None else sample.weight[rows]
            resp = resp * w[:, None]
            part = MixtureStatistics(
                float(w.sum()), 0.0, resp.sum(axis=0), self.distribution.statistics(sample.x[rows], resp)
            )
            total = part if total is None else total + part
        assert total is not None  # there is a tile even of no rows
        return total

    # ---- EM

    def e_step(self, params: Sequence[MixtureParams], chunk: Chunk) -> list[MixtureStatistics]:
        """Expected counts and component sums, at each parameter set."""
        if not isinstance(chunk, Chunk):  # a summary
            each = [self.distribution.sums_of_summary(chunk, p.components) for p in params]
            return [MixtureStatistics(chunk.weight, loglik, counts, sums) for loglik, counts, sums in each]
        weight = float(chunk.n_rows if chunk.weight is None else chunk.weight.sum())
        fused = self.distribution.mixture_sums(chunk.x, chunk.weight, [(log_weights(p), p.components) for p in params])
        if fused is not None:
            return [MixtureStatistics(weight, loglik, counts, sums) for loglik, counts, sums in fused]
        x, w = chunk.x, chunk.weight
        if w is not None and not w.all():  # zero times minus infinity is not zero
            x, w = x[w > 0], w[w > 0]
        return [replace(self._e_step_by_tiles(p, x, w), weight=weight) for p in params]

    def _e_step_by_tiles(self, params: MixtureParams, x: np.ndarray, weight: np.ndarray | None) -> MixtureStatistics:
        total: MixtureStatistics | None = None
        step = max(_TILE, _TILE_NUMBERS // (x.shape[1] + self.n_components))
        for rows in _tiles(x.shape[0], step):
            joint = self.distribution.log_density(params.components, x[rows]) + log_weights(params)  # (rows, K)
            loglik, resp = _shares(joint)
            if weight is not None:
                resp *= weight[rows][:, None]
                loglik = loglik * weight[rows]
            sums = self.distribution.expected_statistics(params.components, x[rows], resp)
            part = MixtureStatistics(0.0, float(loglik.sum()), resp.sum(axis=0), sums)
            total = part if total is None else total + part
        assert total is not None  # there is a tile even of no rows
        return total

    def m_step(self, stats: MixtureStatistics) -> MixtureParams:
        """Shares of the expected counts, and the components' estimates."""
        counts = possible_counts(stats.counts)
        return MixtureParams(counts / counts.sum(), self.distribution.estimate(stats.components))

    def expected_loglik(self, params: MixtureParams, stats: MixtureStatistics) -> float:
        """Σ_k N_k log π_k plus the components' part."""
        own = stats.counts != 0
        return float(stats.counts[own] @ log_weights(params)[own]) + self.distribution.expected_loglik(
            params.components, stats.components
        )

    # ---- vectors

    def to_vector(self, params: MixtureParams) -> np.ndarray:
        """Log weights, then the components'."""
        return np.concatenate([to_logits(params.weights), self.distribution.to_vector(params.components)])

    def from_vector(self, vector: np.ndarray) -> MixtureParams:
        """Inverse of `to_vector`; the log weights may be off by a constant."""
        k = self.n_components
        return MixtureParams(from_logits(vector[:k]), self.distribution.from_vector(vector[k:], k))

    def vector_scale(self, params: MixtureParams) -> np.ndarray:
        """Of log weights √π_k: along directions in which the weights still sum to one, this is the information."""
        components = self.distribution.vector_scale(params.components, params.weights)
        return np.concatenate([np.sqrt(params.weights), components])

    def permuted(self, params: MixtureParams, order: np.ndarray) -> MixtureParams:
        """The same mixture with its components in another order."""
        return MixtureParams(params.weights[order], self.distribution.permuted(params.components, order))

    # ---- after the fit

    def n_parameters(self, n_features: int) -> int:
        """Free parameters, for information criteria."""
        return self.n_components - 1 + self.distribution.n_parameters(self.n_components, n_features)

    def degeneracies(self, params: MixtureParams) -> list[str]:
        """Components that died, or that only `reg_covar` holds up."""
        said = []
        dead = [int(k) for k in np.flatnonzero(params.weights <= 0)]
        if dead:
            said.append(f"{components_have(dead)} no weight left: use fewer components or another start")
        return said + self.distribution.degeneracies(params.components)

    def observed(self, params: MixtureParams, rows: Any) -> np.ndarray | None:
        """Those of each component, as far as it is the rows' own."""
        if not isinstance(rows, Chunk):
            return self.distribution.observed(rows.seen.astype(np.float64), rows.counts[:, None])
        resp = self.posteriors(params, rows.x, "proba")
        resp = resp if rows.weight is None else resp * rows.weight[:, None]
        return self.distribution.observed((~np.isnan(rows.x)).astype(np.float64), resp)

    def row_loglik(self, params: MixtureParams, x: Any) -> np.ndarray:
        """Of each row (n,)."""
        return self.posteriors(params, x, "loglik")

    def posteriors(self, params: MixtureParams, x: np.ndarray, want: str) -> np.ndarray:
        """For each row its "labels" (n,), "proba" (n, K) or "loglik" (n,)."""
        check_want(want, ("labels", "proba", "loglik"))
        self.distribution.check_rows(x)
        fused = self.distribution.posteriors(log_weights(params), params.components, x, want)
        if fused is not None:
            return fused
        joint = self.distribution.log_density(params.components, x) + log_weights(params)
        if want == "labels":
            return joint.argmax(axis=1)
        loglik, resp = _shares(joint)
        return loglik if want == "loglik" else resp

    def sample(self, params: MixtureParams, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """n draws and the component of each, in order of component."""
        labels = np.repeat(np.arange(self.n_components), rng.multinomial(n, params.weights / params.weights.sum()))
        return self.distribution.sample(params.components, labels, rng), labels


def log_weights(params: MixtureParams) -> np.ndarray:
    """Log weights; a component without weight has minus infinity."""
    with np.errstate(divide="ignore"):
        return np.log(params.weights)


def _shares(joint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log density of each row, and its components' shares of it, from joint log densities (n, K).

    A row that no component can have made belongs to none of them.
    """
    top = joint.max(axis=1, keepdims=True)
    top[np.isneginf(top)] = 0.0
    resp = np.exp(joint - top)
    mass = resp.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        loglik = (np.log(mass) + top)[:, 0]
    return loglik, resp / np.where(mass > 0, mass, 1.0)


def _tiles(n: int, step: int) -> list[slice]:
    """Pieces of n rows; one, which is empty, of none."""
    return [slice(i, min(i + step, n)) for i in range(0, max(n, 1), step)]


def _row(x: np.ndarray) -> str:
    return ", ".join(f"{v:g}" for v in x[:5]) + (", ..." if len(x) > 5 else "")
