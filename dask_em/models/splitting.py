"""Clusters in two, and two in one: starts that are made of the components of another mixture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from dask_em.errors import DataError, DegenerateError
from dask_em.kernels import seeding
from dask_em.model import Chunk, Params

if TYPE_CHECKING:
    from dask_em.models.mixture import MixtureModel

_SPLITS = 8  # of a smaller mixture's components, one at a time
_PAIRS = 6  # of components that may become one,
_HALVES = 6  # and others that may become two then
_STEPS = 10  # of Lloyd's, within the rows of a cluster
_LEAN = 0.9  # of a row's share that goes to the half that it is in, so that no half is a point


@dataclass(frozen=True)
class Split:
    """A cluster and the centres (2, d) of its halves; the second half becomes a cluster of its own, the last.

    Rows are nearer to the one or the other in units (d,) of the cluster: across all rows a column may be so wide that
    nothing is seen of what parts the cluster along it.
    """

    cluster: int
    centers: np.ndarray
    units: np.ndarray | float = 1.0

    def second(self, z: np.ndarray) -> np.ndarray:
        """(n,) bool: which rows are nearer to the second half."""
        first, apart = (z - self.centers[0]) / self.units, (self.centers - self.centers[0]) / self.units
        return seeding.nearest(first, apart)[0] == 1


def grown(
    model: MixtureModel, smaller: MixtureModel, params: Params, sample: Chunk, rng: np.random.Generator
) -> list[Params]:
    """Starts of a mixture, in which components of a smaller one have become two."""
    k, (resp, z) = smaller.n_components, _shares(smaller, params, sample)
    labels = resp.argmax(axis=1)
    ways = ways_to_split(z, sample.weight, labels, k, model.n_components - k, _SPLITS, rng)
    return _started(model, sample, [(divided(resp, z, s), relabelled(labels, z, s, k)) for s in ways])


def moved(model: MixtureModel, params: Params, sample: Chunk, known: int, rng: np.random.Generator) -> list[Params]:
    """Starts of the same mixture, in which two components have become one, and another two.

    So many of the components, the first, are `known` and stay what they are; others may become part of them.
    """
    (resp, z), k, ways = _shares(model, params, sample), model.n_components, []
    for joined, one in _mergers(resp, sample.weight, known):
        labels = one.argmax(axis=1)
        splits = ways_to_split(z, sample.weight, labels, k - 1, 1, _HALVES, rng)
        others = [s for s in splits if s[0].cluster != joined]  # that one would be the two again
        ways += [(divided(one, z, s), relabelled(labels, z, s, k - 1)) for s in others]
    return _started(model, sample, ways)


def _shares(model: MixtureModel, params: Params, sample: Chunk) -> tuple[np.ndarray, np.ndarray]:
    """Shares (n, K) of the components in a few rows, and the rows as points (n, d)."""
    z = seeding.scaled(model.distribution.embedded(sample.x), sample.weight)
    return model.posteriors(params, sample.x, "proba"), z


def _started(model: MixtureModel, sample: Chunk, ways: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[Params]:
    """Two starts for each way, as far as there are any: of the shares (n, K) of the rows, and of their labels (n,).

    Shares keep the likelihood of where they come from; labels leave it, at times for a better optimum.
    """
    starts = list[Params]()
    for resp, labels in ways:
        with suppress(DegenerateError):
            starts.append(model.m_step(model.sums_of_shares(sample, resp.__getitem__)))
        with suppress(DegenerateError):
            starts.append(model.from_labels(sample, labels))
    return starts


def _mergers(resp: np.ndarray, weight: np.ndarray | None, known: int) -> Iterator[tuple[int, np.ndarray]]:
    """Which component two of them became, and all shares (n, K - 1) then: those without rows, or most alike, first."""
    common = (resp if weight is None else resp * weight[:, None]).T @ resp
    size = np.sqrt(np.diagonal(common))
    with np.errstate(invalid="ignore", divide="ignore"):
        alike = np.nan_to_num(common / np.outer(size, size), nan=1.0)  # their cosine (Ueda and others 2000)
    first, second = np.triu_indices(len(size), 1)
    first, second = first[second >= known], second[second >= known]
    for pair in np.argsort(-alike[first, second], kind="stable")[:_PAIRS]:
        i, j = int(first[pair]), int(second[pair])
        one = np.delete(resp, j, axis=1)
        one[:, i] += resp[:, j]
        yield i, one


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
        units = np.sqrt(weight @ rows**2 / weight.sum())
        units = np.where(units > 0, units, 1.0)
        try:
            seeds = seeding.kmeans_plusplus(rows / units, weight, 2, rng)
        except DataError:
            continue
        second = seeding.lloyd(rows / units, weight, rows[seeds] / units, _STEPS) == 1
        halves = [centers[j] + weight[which] @ rows[which] / weight[which].sum() for which in (~second, second)]
        yield Split(int(j), np.array(halves), units)
