"""Sums of Gaussian components over rows with holes: the loops of whole rows, one pattern of holes after another.

Rows of one pattern lie together, and begin a group of sixteen.  What is missing stands at the pivot, and has no say:
the factors of a pattern's precisions are zero in the columns that are missing, and what is summed there is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dask_em.kernels.gaussian_axes import distances_diag
from dask_em.kernels.gaussian_far import squares, subtracted
from dask_em.kernels.gaussian_full import TILE, Density, Work, count, distances, n_blocks, outer, packed, scale
from dask_em.kernels.gaussian_tiles import Rows, aligned, slab_groups, slabs
from dask_em.kernels.simd import compiled
from dask_em.kernels.softmax import GROUP, add_compensated, responsibilities


class Holed(NamedTuple):
    """K components in each of P patterns of holes."""

    constant: np.ndarray  # (P, K): log weights minus the logs of the densities' norms
    mean: np.ndarray  # (K columns,), flat
    factor: np.ndarray  # (P, K columns columns), flat: U, or (P, K columns): one over the standard deviations
    center: np.ndarray  # (K columns,), flat: what sums are about, where that is not the pivot
    far: np.ndarray  # (K,) bool: where it is not


def holed(constant: np.ndarray, means: np.ndarray, factor: np.ndarray, center: np.ndarray, far: np.ndarray) -> Holed:
    """Components laid out for the loops: constant (P, K), means and center (K, d), factor (P, K, d, d) or (P, K, d)."""
    k, d = means.shape
    columns = -(-d // 4) * 4

    def wide(a: np.ndarray) -> np.ndarray:
        out = np.zeros((*a.shape[:-1], columns))
        out[..., :d] = a
        return out

    if factor.ndim == 4:
        filled = np.zeros((len(factor), k, columns, columns))
        filled[:, :, :d, :d] = factor
    else:
        filled = wide(factor)
    flat = filled.reshape(len(factor), -1)
    return Holed(np.ascontiguousarray(constant), wide(means).ravel(), flat, wide(center).ravel(), far)


class HoledTotals(NamedTuple):
    """What is summed into, by pattern."""

    loglik: np.ndarray  # (2,): the sum and its compensation
    counts: np.ndarray  # (P, K)
    first: np.ndarray  # (P, K columns)
    second: np.ndarray  # (P, K stride)


class Layout(NamedTuple):
    """Where the rows of some patterns go."""

    take: np.ndarray  # (groups of sixteen): the row in each place
    real: np.ndarray  # whether it is more than filling
    bounds: np.ndarray  # (P + 1,): first group of each pattern


def layout(rows: list[np.ndarray]) -> Layout:
    """The rows of each pattern, filled up to whole groups."""
    sizes = np.array([len(r) for r in rows])
    groups = -(-sizes // GROUP)
    bounds = np.concatenate([[0], np.cumsum(groups)]).astype(np.int64)
    take = np.zeros(bounds[-1] * GROUP, dtype=np.intp)
    real = np.zeros(len(take), dtype=bool)
    places = np.repeat(bounds[:-1] * GROUP - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes) + np.arange(
        sizes.sum()
    )
    take[places], real[places] = np.concatenate(rows), True
    return Layout(take, real, bounds)


def pattern_sums(
    x: np.ndarray, weight: np.ndarray | None, pivot: np.ndarray, where: Layout, holed: Holed, by_column: bool
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Log-likelihood of the rows, and the sums of each pattern.

    Parameters
    ----------
    x : ndarray of shape (n, d)
        NaN where a value is missing.
    weight : ndarray of shape (n,) or None
    pivot : ndarray of shape (d,)
    where : Layout
    holed : Holed
    by_column : bool
        Whether components have variances only.

    Returns
    -------
    loglik : float
    counts, first, second : ndarray
        (P, K), (P, K, d), and (P, K, d(d+1)/2) upper triangles by row or (P, K, d); what stands in columns that
        are missing means nothing.
    """
    n_patterns, k = holed.constant.shape
    columns = len(holed.mean) // k
    stride = columns if by_column else n_blocks(columns) * 16
    totals = HoledTotals(
        np.zeros(2), np.zeros((n_patterns, k)), np.zeros((n_patterns, k * columns)), np.zeros((n_patterns, k * stride))
    )
    work = Work(aligned(TILE * k * GROUP), aligned(TILE * columns * GROUP))
    room = aligned(TILE * columns * GROUP)
    step = slab_groups(len(where.take), columns)
    for start, slab, _, _ in pattern_slabs(x, weight, pivot, where, columns, step):
        _sums(slab, start, where.bounds, holed, by_column, stride, work, room, totals)
    d = len(pivot)
    first = totals.first.reshape(n_patterns, k, columns)[:, :, :d]
    second = totals.second.reshape(n_patterns, k, stride)
    second = second[:, :, :d] if by_column else packed(second, d, columns)
    return float(totals.loglik.sum()), totals.counts, first, second


def pattern_densities(
    x: np.ndarray, pivot: np.ndarray, where: Layout, holed: Holed, by_column: bool, out: np.ndarray
) -> None:
    """Write the joint log densities of the rows of some patterns into their rows of `out`, (n, K)."""
    k, columns = holed.constant.shape[1], len(holed.mean) // holed.constant.shape[1]
    step = slab_groups(len(where.take), max(k, columns))
    joint, scaled = aligned(step * k * GROUP), aligned(TILE * columns * GROUP)
    for start, slab, real, take in pattern_slabs(x, None, pivot, where, columns, step):
        _joint(slab, start, where.bounds, holed, by_column, Work(joint, scaled), aligned(TILE * k * GROUP))
        found = joint[: slab.groups * k * GROUP].reshape(slab.groups, k, GROUP).transpose(0, 2, 1).reshape(-1, k)
        out[take[real]] = found[real]


def pattern_slabs(
    x: np.ndarray, weight: np.ndarray | None, pivot: np.ndarray, where: Layout, columns: int, step: int
) -> Iterator[tuple[int, Rows, np.ndarray, np.ndarray]]:
    """First group, rows in groups, which of them are real, and their numbers, `step` groups at a time."""
    for start in range(0, int(where.bounds[-1]), step):
        places = slice(start * GROUP, (start + step) * GROUP)
        take, real = where.take[places], where.real[places]
        rows = np.asarray(x[take], dtype=np.float64)
        rows = np.where(np.isnan(rows), pivot, rows)
        w = real.astype(np.float64)
        if weight is not None:
            w *= weight[take]
        for slab in slabs(rows, w, pivot, columns, step):  # there is one
            yield start, slab, real, take


@compiled
def _joint(rows, first, bounds, holed, by_column, work, room):  # type: ignore[no-untyped-def]
    """Joint log densities of a slab, whose first group has the number `first`, into `work.joint`."""
    columns, k_all = rows.columns, holed.far.size
    tile = Work(room, work.scaled)
    for p in range(bounds.size - 1):
        begin, end = max(bounds[p] - first, 0), min(bounds[p + 1] - first, rows.groups)
        density = Density(holed.constant[p], holed.mean, holed.factor[p])
        for start in range(begin, end, TILE):
            groups, at = min(TILE, end - start), start * columns * GROUP
            if by_column:
                distances_diag(rows.x, at, groups, columns, density.constant, density.mean, density.factor, room)
            else:
                distances(rows, start, groups, density, tile)
            for i in range(groups * k_all * GROUP):
                work.joint[start * k_all * GROUP + i] = room[i]


@compiled
def _sums(rows, first, bounds, holed, by_column, stride, work, room, totals):  # type: ignore[no-untyped-def]
    """Add the sums of a slab, whose first group has the number `first`."""
    columns, k_all = rows.columns, holed.far.size
    step = k_all * GROUP
    for p in range(bounds.size - 1):
        begin, end = max(bounds[p] - first, 0), min(bounds[p + 1] - first, rows.groups)
        density = Density(holed.constant[p], holed.mean, holed.factor[p])
        for start in range(begin, end, TILE):
            groups, at = min(TILE, end - start), start * columns * GROUP
            if by_column:
                distances_diag(rows.x, at, groups, columns, density.constant, density.mean, density.factor, work.joint)
            else:
                distances(rows, start, groups, density, work)
            loglik = responsibilities(work.joint, groups, k_all, rows.weight, start * GROUP)
            add_compensated(totals.loglik, loglik)
            for k in range(k_all):
                totals.counts[p, k] += count(work.joint, k * GROUP, groups, k_all)
                z, at_z = rows.z, at
                if holed.far[k]:
                    subtracted(rows, start, groups, holed.center, k * columns, room)
                    z, at_z = room, 0
                scale(z, at_z, groups, columns, work.joint, k * GROUP, step, work.scaled, totals.first[p], k * columns)
                if by_column:
                    squares(work.scaled, z, at_z, groups, columns, totals.second[p], k * stride)
                else:
                    outer(work.scaled, z, at_z, groups, columns, totals.second[p], k * stride)
