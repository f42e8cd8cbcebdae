"""Seeds for components: k-means++ and a few Lloyd steps on a sample in memory."""

from __future__ import annotations

import numpy as np

from dask_em.errors import DataError
from dask_em.kernels.kmeans import Field
from dask_em.model import Chunk

_TILE_NUMBERS = 1 << 20  # distances held at a time


def refuse_small_sample(sample: Chunk, k: int, name: str) -> None:
    """Raise `DataError` for fewer rows than so many components; `name` is that of their number."""
    counted = sample.n_rows if sample.weight is None else int(np.count_nonzero(sample.weight))
    if counted < k:
        rows = f"{counted} row{'s' if counted != 1 else ''} of positive weight"
        raise DataError(
            f"the sample holds {rows}, too few to start {name}={k} from: use fewer, or a larger sample_bytes, as far "
            "as to 65,536 rows or one of 32"
        )


def scaled(x: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """Columns less their median and divided by their standard deviation, as float64; constant columns become zero.

    A mean would follow a row that is far away, and leave the others where differences between them are rounding.
    """
    x = np.asarray(x, dtype=np.float64)
    w = np.ones(len(x)) if weight is None else weight
    w = w / w.sum()
    spread = np.sqrt(w @ (x - w @ x) ** 2)
    return (x - np.median(x[w > 0], axis=0)) / np.where(spread > 0, spread, 1.0)


def squared_distances(x: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """(n, K) squared Euclidean distances, never negative."""
    d = -2.0 * (x @ centers.T)
    d += np.einsum("ij,ij->i", x, x)[:, None]
    d += np.einsum("ij,ij->i", centers, centers)
    return np.maximum(d, 0.0, out=d)


def kmeans_plusplus(x: np.ndarray, weight: np.ndarray | None, k: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of k rows, spread out: greedy k-means++ (Arthur and Vassilvitskii 2007).

    Each seed is the best of 2 + log k draws with probability proportional to weight times squared
    distance to the nearest seed so far.

    Parameters
    ----------
    x : ndarray of shape (n, d)
        About its middle: distances are found by products.
    weight : ndarray of shape (n,) or None
    k : int
    rng : Generator

    Raises
    ------
    DataError
        There are fewer than k distinct rows.
    """
    n = len(x)
    w = np.ones(n) if weight is None else np.asarray(weight, dtype=np.float64)
    trials = 2 + int(np.log(k))
    field = Field(x, w)
    chosen = [_draw(w, 1, rng)[0]]
    field.add(x[chosen[0]])
    rounding = w * 1e-13 * np.einsum("ij,ij->i", x, x)  # of a distance to a seed that equals the row
    for _ in range(1, k):
        if not (w * field.near[:n] > rounding).any():
            raise DataError(
                f"{k} components or clusters are more than the {len(chosen)} distinct rows of the sample of "
                f"{np.count_nonzero(w)}: ask for at most so many, or, if the data has more of them, a larger "
                "sample_bytes or a start of your own"
            )
        candidates = _draw(w * field.near[:n], trials, rng)
        best = int(np.argmin(field.potentials(x[candidates])))
        chosen.append(candidates[best])
        field.add(x[candidates[best]])
    return np.array(chosen)


def _draw(mass: np.ndarray, size: int, rng: np.random.Generator) -> list[int]:
    total = np.cumsum(mass)
    if not total[-1] > 0:  # every row coincides with a seed
        return [int(i) for i in rng.integers(len(mass), size=size)]
    at = np.searchsorted(total, rng.random(size) * total[-1], side="right")
    return [int(i) for i in np.minimum(at, len(mass) - 1)]


def nearest(x: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row its nearest centre and the squared distance to it, some rows at a time: never n x K numbers."""
    labels, distances = np.empty(len(x), dtype=np.intp), np.empty(len(x))
    step = max(_TILE_NUMBERS // max(len(centers), 1), 1)
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        tile = squared_distances(x[rows], centers)
        labels[rows] = tile.argmin(axis=1)
        distances[rows] = tile[np.arange(len(tile)), labels[rows]]
    return labels, distances


def lloyd(x: np.ndarray, weight: np.ndarray | None, centers: np.ndarray, iterations: int) -> np.ndarray:
    """Labels after a few Lloyd steps from the centres; an empty cluster takes the farthest row that counts."""
    w = np.ones(len(x)) if weight is None else np.asarray(weight, dtype=np.float64)
    k = len(centers)
    labels = np.zeros(0, dtype=np.intp)
    for _ in range(iterations):
        new, distances = nearest(x, centers)
        if np.array_equal(new, labels):
            break
        labels = new
        mass = np.bincount(labels, w, minlength=k)
        empty = np.flatnonzero(mass == 0)
        if len(empty):
            far = np.argsort(np.where(w > 0, distances, -1.0))[::-1][: np.count_nonzero(w)]
            n = min(len(far), len(empty))
            labels[far[:n]] = empty[:n]
            mass = np.bincount(labels, w, minlength=k)
        sums = np.column_stack([np.bincount(labels, w * column, minlength=k) for column in x.T])
        centers = sums / np.where(mass > 0, mass, 1.0)[:, None]
    return labels
