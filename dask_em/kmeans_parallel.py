"""k-means||: seeds from a few passes over all rows, for data of which a sample misses the rare clusters.

A round draws rows with probability proportional to weight times squared distance from the nearest candidate so
far, several at once: those with the largest keys log(u) / (w d²), which is sampling without replacement
(Efraimidis and Spirakis 2006).  u is a hash of (seed, block, row), and the largest keys of parts of the data merge
to the largest of all, so that no rows are gathered and the draw depends on nobody who reads.  At the end each
candidate is weighed by the rows nearest to it, and the candidates are clustered in memory (Bahmani, Moseley,
Vattani, Kumar and Vassilvitskii 2012).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_em.engine import Witness, one_pass
from dask_em.errors import DataError
from dask_em.hashing import hashes
from dask_em.history import Record, add
from dask_em.kernels import seeding
from dask_em.kernels.kmeans import hard_sums, nearest_rows
from dask_em.model import Chunk, Executor, Source
from dask_em.sums import Sums

_ROUNDS = 5
_OVERSAMPLING = 2  # candidates of a round, times the number of clusters
_LLOYD_STEPS = 100  # on the candidates
_ROUND_SEED = 0x9E3779B97F4A7C15  # sets the rounds' hashes apart


@dataclass(frozen=True)
class Drawn:
    """Rows with the largest keys so far, the largest first, and the sum of the masses that they were drawn by."""

    room: int
    keys: np.ndarray  # (m,) negative
    place: np.ndarray  # (m, 2): block and row, which decide between equal keys
    rows: np.ndarray  # (m, d) float64
    mass: float

    def merge(self, right: Drawn) -> Drawn:
        """The largest keys of both."""
        keys = np.concatenate([self.keys, right.keys])
        place, rows = np.concatenate([self.place, right.place]), np.concatenate([self.rows, right.rows])
        first = np.lexsort((place[:, 1], place[:, 0], -keys))[: self.room]
        return Drawn(self.room, keys[first], place[first], rows[first], self.mass + right.mass)

    def close(self) -> Drawn:
        """The rows drawn from all."""
        return self


@dataclass(frozen=True)
class Round:
    """Asks for a round's rows.

    Parameters
    ----------
    seed : int
    size : int
        Rows to draw.
    centers : ndarray of shape (m, d) or None
        Candidates so far; None: all rows of one weight are equally probable.
    """

    seed: int
    size: int
    centers: np.ndarray | None

    @property
    def accepts_nan(self) -> bool:
        """Distances need every value."""
        return False

    def map(self, chunk: Chunk) -> Drawn:
        """One block's rows with the largest keys."""
        w = np.ones(chunk.n_rows) if chunk.weight is None else np.asarray(chunk.weight, dtype=np.float64)
        own = np.flatnonzero(w > 0)
        x = chunk.x if len(own) == len(w) else chunk.x[own]
        mass = w[own]
        if self.centers is not None and len(own):
            mass = mass * nearest_rows(x, self.centers)[1]
        u = (hashes(self.seed, chunk.block, chunk.n_rows)[own] >> np.uint64(11)) + 0.5
        with np.errstate(divide="ignore", over="ignore"):
            keys = np.where(mass > 0, np.log(u * 2.0**-53) / mass, -np.inf)
        size = min(self.size, len(keys))
        first = np.argpartition(-keys, size - 1)[:size] if size else np.zeros(0, dtype=np.intp)
        first = first[np.isfinite(keys[first])]
        first = first[np.lexsort((first, -keys[first]))]
        place = np.column_stack([np.full(len(first), chunk.block), own[first]])
        return Drawn(self.size, keys[first], place, np.asarray(x[first], dtype=np.float64), float(mass.sum()))


@dataclass(frozen=True)
class Weights(Sums):
    """Weight (m,) of the rows nearest to each candidate."""

    counts: np.ndarray


@dataclass(frozen=True)
class Weigh:
    """Asks what each candidate weighs."""

    centers: np.ndarray

    @property
    def accepts_nan(self) -> bool:
        """Distances need every value."""
        return False

    def map(self, chunk: Chunk) -> Weights:
        """One block's weights."""
        (sums,) = hard_sums(chunk.x, chunk.weight, self.centers.mean(axis=0), [self.centers])
        return Weights(sums.counts)


@dataclass(frozen=True)
class Seeds:
    """What k-means|| found.

    Attributes
    ----------
    centers : ndarray of shape (K, d)
    candidates : ndarray of shape (m, d)
    counts : ndarray of shape (m,)
        Weight of the rows nearest to each candidate.
    history : list of dict
        One record a pass.
    """

    centers: np.ndarray
    candidates: np.ndarray
    counts: np.ndarray
    history: list[Record]


def kmeans_parallel(
    source: Source,
    executor: Executor,
    n_clusters: int,
    seed: int,
    *,
    tries: int = 8,
    witness: Witness | None = None,
    progress: Any = None,
) -> Seeds:
    """Centres to begin k-means at, from seven passes over the data.

    Parameters
    ----------
    source : Source
    executor : Executor
    n_clusters : int
    seed : int
    tries : int
        Clusterings of the candidates, of which the best is taken.
    witness : Witness, optional
        What an earlier pass saw of the data.
    progress : callable, optional
        Hears of blocks and rows done.

    Returns
    -------
    Seeds

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> x = np.repeat([[0.0], [50.0]], [9990, 10], axis=0)
    >>> seeds = kmeans_parallel(em.open(x), em.ThreadsExecutor(1), 2, seed=0)
    >>> np.sort(seeds.centers.ravel()).round().tolist()
    [0.0, 50.0]
    """
    history: list[Record] = []

    def asked(request: Any) -> Any:
        nonlocal witness
        result = one_pass(source, [request], executor, witness=witness, progress=progress)
        witness = Witness(result.rows, result.checksum)
        add(history, "k-means||", result, resident=False)
        return result.answers[0]

    candidates = asked(Round(seed, 1, None)).rows
    if not len(candidates):
        raise DataError(f"all {history[0]['rows']} weights are zero: no row counts; give positive weights")
    for number in range(1, _ROUNDS + 1):
        drawn = asked(Round((seed + number * _ROUND_SEED) % 2**64, _OVERSAMPLING * n_clusters, candidates))
        if not len(drawn.rows):  # every row is a candidate already
            break
        candidates = np.concatenate([candidates, drawn.rows])
    counts = asked(Weigh(candidates)).counts
    return Seeds(_clustered(candidates, counts, n_clusters, seed, tries), candidates, counts, history)


def _clustered(x: np.ndarray, weight: np.ndarray, k: int, seed: int, tries: int) -> np.ndarray:
    """Centres of the best of several weighted clusterings in memory."""
    pivot = weight @ x / weight.sum()
    best, least = x[:0], np.inf
    for number in range(tries):
        centers = x[seeding.kmeans_plusplus(x - pivot, weight, k, np.random.default_rng([seed, number]))]
        inertia = np.inf
        for _ in range(_LLOYD_STEPS):
            (sums,) = hard_sums(x, weight, pivot, [centers], k)
            own = sums.counts > 0
            new = pivot + sums.first / np.where(own, sums.counts, 1.0)[:, None]
            empty = np.flatnonzero(~own)
            new[empty] = centers[empty]
            far = sums.farthest.rows[: len(empty)]
            new[empty[: len(far)]] = far
            inertia = sums.inertia
            if np.array_equal(new, centers):
                break
            centers = new
        if inertia < least:
            best, least = centers, inertia
    return best
