"""A finite mixture: each row comes from one of K components, and which one is hidden.

E-step:  r_ik = w_i π_k p(x_i | k) / Σ_j π_j p(x_i | j);   M-step:  π_k = Σ_i r_ik / Σ_i w_i, and the
components' own estimates (Dempster, Laird and Rubin 1977, section 4.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import logsumexp

from dask_em.errors import ConfigurationError, DataError
from dask_em.kernels import seeding
from dask_em.model import Chunk, Model, Params, Statistics

_TILE = 2048  # rows at a time, so that nothing of size n x K ever exists
_LLOYD_STEPS = 10
_BLUR = 0.01  # share of a start's responsibilities that is spread over all rows, so that no component is a point


@dataclass(frozen=True)
class MixtureParams:
    """Weights (K,), which sum to one, and the components' own parameters."""

    weights: np.ndarray
    components: Params


@dataclass(frozen=True)
class MixtureStatistics(Statistics):
    """Expected number of rows (K,) of each component, and the components' own sums."""

    counts: np.ndarray
    components: Any


@dataclass(frozen=True)
class Mixture(Model):
    """A mixture of `n_components` components of one observation distribution.

    Parameters
    ----------
    n_components : int
    distribution : Distribution
        For instance `dask_em.distributions.gaussian.Gaussian`.
    """

    n_components: int
    distribution: Any

    def __post_init__(self) -> None:
        if not (isinstance(self.n_components, (int, np.integer)) and self.n_components >= 1):
            raise ConfigurationError(f"n_components={self.n_components!r} must be a whole number of at least 1")

    def check_data(self, n_rows: int, low: np.ndarray, high: np.ndarray) -> None:
        """Refuse fewer rows than components, and rows that are all the same."""
        if n_rows < self.n_components:
            raise DataError(
                f"n_samples={n_rows} rows are fewer than n_components={self.n_components}: use at most as many "
                "components as rows"
            )
        if n_rows > 1 and (low == high).all():
            raise DataError(f"all {n_rows} rows are identical ({_row(low)}): there is no spread to fit a mixture to")

    def nbytes(self, n_features: int) -> int:
        """Bytes of one parameter set."""
        return 8 * self.n_components * (1 + self.distribution.n_parameters(1, n_features))

    def about(self, center: np.ndarray) -> Mixture:
        """The same mixture, its components' sums taken about a centre."""
        return replace(self, distribution=self.distribution.about(center))

    @property
    def exact_m_step(self) -> bool:
        """Whether the components' estimates maximise the likelihood itself."""
        return self.distribution.exact

    # ---- start

    def start(self, sample: Chunk, rng: np.random.Generator) -> MixtureParams:
        """K-means++ and a few Lloyd steps on scaled columns, then one M-step on those clusters."""
        z = seeding.scaled(sample.x, sample.weight)
        seeds = seeding.kmeans_plusplus(z, sample.weight, self.n_components, rng)
        labels = seeding.lloyd(z, sample.weight, z[seeds], _LLOYD_STEPS)
        return self.from_labels(sample, labels)

    def from_labels(self, sample: Chunk, labels: np.ndarray) -> MixtureParams:
        """The M-step on rows that are nearly certain of their component."""
        k = self.n_components
        total: MixtureStatistics | None = None
        for rows in _tiles(sample.n_rows):
            w = np.ones(rows.stop - rows.start) if sample.weight is None else sample.weight[rows]
            resp = np.full((len(w), k), _BLUR / k)
            resp[np.arange(len(w)), labels[rows]] += 1 - _BLUR
            resp *= w[:, None]
            part = MixtureStatistics(
                float(w.sum()), 0.0, resp.sum(axis=0), self.distribution.statistics(sample.x[rows], resp)
            )
            total = part if total is None else total + part
        assert total is not None  # a sample is never empty
        return self.m_step(total)

    # ---- EM

    def e_step(self, params: Sequence[MixtureParams], chunk: Chunk) -> list[MixtureStatistics]:
        """Expected counts and component sums, at each parameter set."""
        weight = float(chunk.n_rows if chunk.weight is None else chunk.weight.sum())
        fused = getattr(self.distribution, "mixture_sums", None)
        if fused is None:
            return [self._e_step_by_tiles(p, chunk, weight) for p in params]
        runs = [(log_weights(p), p.components) for p in params]
        return [
            MixtureStatistics(weight, loglik, counts, sums)
            for loglik, counts, sums in fused(chunk.x, chunk.weight, runs)
        ]

    def _e_step_by_tiles(self, params: MixtureParams, chunk: Chunk, weight: float) -> MixtureStatistics:
        total: MixtureStatistics | None = None
        for rows in _tiles(chunk.n_rows):
            x, w = chunk.x[rows], None if chunk.weight is None else chunk.weight[rows]
            joint = self.distribution.log_density(params.components, x) + log_weights(params)  # (rows, K)
            loglik = logsumexp(joint, axis=1)
            resp = np.exp(joint - loglik[:, None])
            if w is not None:
                resp *= w[:, None]
                loglik = loglik * w
            part = MixtureStatistics(0.0, float(loglik.sum()), resp.sum(axis=0), self.distribution.statistics(x, resp))
            total = part if total is None else total + part
        assert total is not None  # the engine never maps an empty chunk
        return replace(total, weight=weight)

    def m_step(self, stats: MixtureStatistics) -> MixtureParams:
        """Shares of the expected counts, and the components' estimates."""
        return MixtureParams(stats.counts / stats.counts.sum(), self.distribution.estimate(stats.components))

    def expected_loglik(self, params: MixtureParams, stats: MixtureStatistics) -> float:
        """Σ_k N_k log π_k plus the components' part."""
        own = stats.counts != 0
        return float(stats.counts[own] @ log_weights(params)[own]) + self.distribution.expected_loglik(
            params.components, stats.components
        )

    # ---- vectors

    def to_vector(self, params: MixtureParams) -> np.ndarray:
        """Log weights, then the components'."""
        smallest = np.finfo(np.float64).tiny
        return np.concatenate(
            [np.log(np.maximum(params.weights, smallest)), self.distribution.to_vector(params.components)]
        )

    def from_vector(self, vector: np.ndarray) -> MixtureParams:
        """Inverse of `to_vector`; the log weights may be off by a constant."""
        k = self.n_components
        logits = vector[:k]
        return MixtureParams(np.exp(logits - logsumexp(logits)), self.distribution.from_vector(vector[k:], k))

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
            said.append(f"{_count(dead)} no weight left: use fewer components or another start")
        collapsed = self.distribution.collapsed(params.components)
        if collapsed:
            said.append(
                f"{_count(collapsed)} collapsed to the width that reg_covar sets: such spikes come from repeated or "
                "rounded values; use fewer components, add jitter of the size of the rounding, or raise reg_covar"
            )
        return said

    def posteriors(self, params: MixtureParams, x: np.ndarray, want: str) -> np.ndarray:
        """For each row its "labels" (n,), "proba" (n, K) or "loglik" (n,)."""
        fused = getattr(self.distribution, "posteriors", None)
        if fused is not None:
            return fused(log_weights(params), params.components, x, want)
        joint = self.distribution.log_density(params.components, x) + log_weights(params)
        if want == "labels":
            return joint.argmax(axis=1)
        loglik = logsumexp(joint, axis=1)
        return loglik if want == "loglik" else np.exp(joint - loglik[:, None])

    def sample(self, params: MixtureParams, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """n draws and the component of each, in order of component."""
        labels = np.repeat(np.arange(self.n_components), rng.multinomial(n, params.weights / params.weights.sum()))
        return self.distribution.sample(params.components, labels, rng), labels


def log_weights(params: MixtureParams) -> np.ndarray:
    """Log weights; a component without weight has minus infinity."""
    with np.errstate(divide="ignore"):
        return np.log(params.weights)


def _tiles(n: int) -> list[slice]:
    return [slice(i, min(i + _TILE, n)) for i in range(0, n, _TILE)]


def _row(x: np.ndarray) -> str:
    return ", ".join(f"{v:g}" for v in x[:5]) + (", ..." if len(x) > 5 else "")


def _count(which: list[int]) -> str:
    names = ", ".join(map(str, which[:8])) + (", ..." if len(which) > 8 else "")
    return f"{len(which)} component{'s' if len(which) > 1 else ''} ({names}) {'have' if len(which) > 1 else 'has'}"
