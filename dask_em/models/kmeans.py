"""k-means as hard-assignment EM: each row belongs to its nearest centre, and the centres are means.

The log-likelihood is minus the inertia Σ_i w_i min_k |x_i - c_k|², divided by a unit, so that it never falls:
E-step: the nearest centres; M-step: c_k = Σ w_i x_i / Σ w_i over the rows of cluster k (Lloyd 1982).  Given the
assignment it is  -(Σ w|z|² - 2 Σ_k f_k·c_k + Σ_k N_k |c_k|²),  linear in the counts N_k, the sums f_k and Σ w|z|²,
all about a pivot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dask_em import store
from dask_em.distributions.base import possible_counts
from dask_em.errors import ConfigurationError, DataError, check_want
from dask_em.kernels import kmeans as kernel
from dask_em.kernels import seeding
from dask_em.kernels.seeding import refuse_small_sample
from dask_em.measure import Measure
from dask_em.model import Chunk, Model, Statistics

_SPARE = 16  # rows kept for empty clusters; more of those are refilled in the steps that follow
_NOTHING = 1e-13  # of the largest count: what is left where a solver's combination of sums takes a whole cluster away


store.register(kernel.Farthest)  # a part of sums, which checkpoints hold


@store.register
@dataclass(frozen=True)
class KMeansParams:
    """Centres (K, d), and the weight of the rows that each was taken as the mean of; None: not known."""

    centers: np.ndarray
    counts: np.ndarray | None = None


@store.register
@dataclass(frozen=True)
class KMeansStatistics(Statistics):
    """Weight (K,) and sum about the pivot (K, d) of each cluster's rows, Σ w|z|², and the rows farthest off."""

    counts: np.ndarray
    first: np.ndarray
    square: float
    farthest: kernel.Farthest


@dataclass(frozen=True)
class KMeansModel(Model):
    """k-means with `n_clusters` clusters.

    Parameters
    ----------
    n_clusters : int
    pivot : ndarray of shape (n_features,), optional
        The point that sums are taken about.
    unit : float
        The log-likelihood is minus the inertia divided by this.
    """

    n_clusters: int
    pivot: np.ndarray | None = None
    unit: float = 1.0

    def __post_init__(self) -> None:
        whole = isinstance(self.n_clusters, (int, np.integer)) and not isinstance(self.n_clusters, (bool, np.bool_))
        if not (whole and self.n_clusters >= 1):
            raise ConfigurationError(f"n_clusters={self.n_clusters!r} must be a whole number of at least 1")

    @property
    def n_components(self) -> int:
        """The number of clusters, by the name that mixtures have for it."""
        return self.n_clusters

    def check_data(self, n_rows: int, low: np.ndarray, high: np.ndarray) -> None:
        """Refuse fewer rows than clusters."""
        if n_rows < self.n_clusters:
            raise DataError(
                f"n_samples={n_rows} rows are fewer than n_clusters={self.n_clusters}: use at most as many clusters "
                "as rows"
            )

    def nbytes(self, n_features: int) -> int:
        """Bytes of one set of centres."""
        return 8 * self.n_clusters * (n_features + 1)

    def about(self, center: np.ndarray) -> KMeansModel:
        """The same model, its sums taken about a centre."""
        return replace(self, pivot=np.asarray(center, dtype=np.float64))

    def in_units_of(self, variance: np.ndarray) -> KMeansModel:
        """The same model, its log-likelihood that of spherical Gaussians about as wide as all of the data.

        The unit is a power of two: it costs no digit.
        """
        mean = float(np.mean(variance))
        return replace(self, unit=2.0 ** round(np.log2(2 * mean)) if 0 < mean < np.inf else 1.0)

    # ---- start

    def start(self, sample: Chunk, rng: np.random.Generator) -> KMeansParams:
        """Rows that greedy k-means++ spreads out."""
        refuse_small_sample(sample, self.n_clusters, "n_clusters")
        x = np.asarray(sample.x, dtype=np.float64)
        w = np.ones(len(x)) if sample.weight is None else np.asarray(sample.weight, dtype=np.float64)
        seeds = seeding.kmeans_plusplus(x - w @ x / w.sum(), sample.weight, self.n_clusters, rng)
        return KMeansParams(x[seeds])

    # ---- EM

    def e_step(self, params: Sequence[KMeansParams], chunk: Chunk) -> list[KMeansStatistics]:
        """Counts and sums of the clusters, for each set of centres."""
        weight = float(chunk.n_rows if chunk.weight is None else chunk.weight.sum())
        pivot = self._pivot(chunk.x.shape[1])
        room = min(self.n_clusters, _SPARE)
        found = kernel.hard_sums(chunk.x, chunk.weight, pivot, [p.centers for p in params], room)
        return [self._statistics(p, s, pivot, weight) for p, s in zip(params, found, strict=True)]

    def _statistics(
        self, params: KMeansParams, sums: kernel.HardSums, pivot: np.ndarray, weight: float
    ) -> KMeansStatistics:
        c = params.centers - pivot
        # |x - c|² multiplied out and summed gives Σ w|z|² without another look at the rows
        square = sums.inertia + 2 * float(np.vdot(sums.first, c)) - float(sums.counts @ (c * c).sum(axis=1))
        return KMeansStatistics(
            weight, -sums.inertia / self.unit, sums.counts, sums.first, square, sums.farthest,
            loglik_low=-sums.inertia_low / self.unit,
        )  # fmt: skip

    def m_step(self, stats: KMeansStatistics) -> KMeansParams:
        """Means of the clusters; those without rows take the rows that are farthest from their centres.

        A cluster for which there is no such row goes to the pivot.
        """
        counts = possible_counts(stats.counts)
        pivot = self._pivot(stats.first.shape[1])
        own = counts > _NOTHING * counts.max()
        centers = pivot + np.where(own[:, None], stats.first, 0.0) / np.where(own, counts, 1.0)[:, None]
        empty = np.flatnonzero(~own)[: len(stats.farthest.rows)]
        centers[empty] = stats.farthest.rows[: len(empty)]
        return KMeansParams(centers, np.where(own, counts, 0.0))

    def expected_loglik(self, params: KMeansParams, stats: KMeansStatistics) -> float:
        """Minus the inertia of the rows about the centres that they were assigned to, in units."""
        c = params.centers - self._pivot(params.centers.shape[1])
        inertia = stats.square - 2 * float(np.vdot(stats.first, c)) + float(stats.counts @ (c * c).sum(axis=1))
        return -inertia / self.unit

    def _pivot(self, n_features: int) -> np.ndarray:
        return np.zeros(n_features) if self.pivot is None else self.pivot

    # ---- vectors

    def to_vector(self, params: KMeansParams) -> np.ndarray:
        """The centres, one after the other."""
        return params.centers.ravel()

    def from_vector(self, vector: np.ndarray) -> KMeansParams:
        """Inverse of `to_vector`; what the clusters weigh is not known there."""
        return KMeansParams(vector.reshape(self.n_clusters, -1).copy())

    def vector_scale(self, params: KMeansParams) -> np.ndarray:
        """√(2 N_k / N) in units; where the counts are not known, as if all were equal."""
        k, d = params.centers.shape
        share = np.full(k, 1 / k) if params.counts is None else params.counts / params.counts.sum()
        return np.repeat(np.sqrt(2 * share / self.unit), d)

    def permuted(self, params: KMeansParams, order: np.ndarray) -> KMeansParams:
        """The same clusters in another order."""
        return KMeansParams(params.centers[order], None if params.counts is None else params.counts[order])

    # ---- after the fit

    @property
    def measure(self) -> Measure:
        """The log-likelihood is told as an inertia."""
        return Measure("inertia", "of inertia", -self.unit, relative=True)

    def degeneracies(self, params: KMeansParams) -> list[str]:
        """Clusters without rows."""
        if params.counts is None:
            _, first = np.unique(params.centers, axis=0, return_index=True)
            empty = np.setdiff1d(np.arange(self.n_clusters), first)
        else:
            empty = np.flatnonzero(params.counts <= 0)
        if not len(empty):
            return []
        names = ", ".join(str(int(k)) for k in empty[:8]) + (", ..." if len(empty) > 8 else "")
        has = "clusters ({}) have" if len(empty) > 1 else "cluster ({}) has"
        return [f"{len(empty)} {has.format(names)} no rows: there are too few distinct rows; use fewer clusters"]

    def posteriors(self, params: KMeansParams, x: np.ndarray, want: str) -> np.ndarray:
        """For each row its "labels" (n,), "distances" (n, K), or "loglik" (n,), minus its squared distance in units."""
        check_want(want, ("labels", "distances", "loglik"))
        if want == "labels":
            return kernel.labels(x, params.centers)
        if want == "distances":
            return np.sqrt(kernel.squared_distances(x, params.centers))
        return -kernel.nearest_rows(x, params.centers)[1] / self.unit
