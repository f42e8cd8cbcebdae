"""Clusters in two: how a mixture with fewer components becomes the start of one with more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from dask_em.errors import DataError
from dask_em.kernels import seeding

_STEPS = 10  # of Lloyd's, within the rows of a cluster
_LEAN = 0.9  # of a row's share that goes to the half that it is in, so that no half is a point


@dataclass(frozen=True)
class Split:
    """A cluster and the centres (2, d) of its halves; the second half becomes a cluster of its own, the last."""

    cluster: int
    centers: np.ndarray

    def second(self, z: np.ndarray) -> np.ndarray:
        """(n,) bool: which rows are nearer to the second half."""
        return seeding.nearest(z - self.centers[0], self.centers - self.centers[0])[0] == 1


def ways_to_split(
    z: np.ndarray, weight: np.ndarray | None, labels: np.ndarray, k: int, more: int, most: int, rng: np.random.Generator
) -> list[list[Split]]:
    """Splits that make so many more clusters: the widest is halved each time, and in the end any of the widest.

    Parameters
    ----------
    z : ndarray of shape (n, d)
    weight : ndarray of shape (n,) or None
    labels : ndarray of shape (n,)
        Numbers of k clusters.
    k, more : int
    most : int
        Ways at most.
    rng : Generator

    Returns
    -------
    list of list of Split
        None, where more < 1, or rows that are equal are all that is left to halve.
    """
    w = np.ones(len(z)) if weight is None else np.asarray(weight, dtype=np.float64)
    splits = list[Split]()
    for new in range(k, k + more - 1):
        split = next(_halvings(z, w, labels, new, rng), None)
        if split is None:
            return []
        splits.append(split)
        labels = relabelled(labels, z, [split], new)
    if more < 1:
        return []
    return [[*splits, last] for last in islice(_halvings(z, w, labels, k + more - 1, rng), most)]


def divided(resp: np.ndarray, z: np.ndarray, splits: list[Split]) -> np.ndarray:
    """Shares (n, k + more) of the clusters in rows, from those (n, k) before the splits."""
    for split in splits:
        part = resp[:, split.cluster] * np.where(split.second(z), _LEAN, 1 - _LEAN)
        resp = np.column_stack([resp, part])
        resp[:, split.cluster] -= part
    return resp


def relabelled(labels: np.ndarray, z: np.ndarray, splits: list[Split], k: int) -> np.ndarray:
    """The cluster that each row (n,) is in after the splits, from those of k before."""
    labels = labels.copy()
    for new, split in enumerate(splits, start=k):
        labels[(labels == split.cluster) & split.second(z)] = new
    return labels


def _halvings(z: np.ndarray, w: np.ndarray, labels: np.ndarray, k: int, rng: np.random.Generator) -> Iterator[Split]:
    """A split of each cluster, the widest first; one that is empty, or whose rows are all equal, has none."""
    mass = np.bincount(labels, w, k)
    sums = np.column_stack([np.bincount(labels, w * column, k) for column in z.T])
    centers = sums / np.where(mass > 0, mass, 1.0)[:, None]
    width = np.bincount(labels, w * ((z - centers[labels]) ** 2).sum(axis=1), k)
    for j in np.argsort(-width, kind="stable"):
        if mass[j] <= 0:
            continue
        own = (labels == j) & (w > 0)
        rows, weight = z[own] - centers[j], w[own]
        try:
            seeds = seeding.kmeans_plusplus(rows, weight, 2, rng)
        except DataError:
            continue
        second = seeding.lloyd(rows, weight, rows[seeds], _STEPS) == 1
        halves = [centers[j] + weight[which] @ rows[which] / weight[which].sum() for which in (~second, second)]
        yield Split(int(j), np.array(halves))
