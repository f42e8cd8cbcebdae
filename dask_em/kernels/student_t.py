"""Sums of Student-t components: the loops of Gaussian ones, with a weight more for each row and component.

With δ the squared distance of what is observed of a row, d its number of columns and ν the degrees of freedom, the
log density is  constant - (ν + d)/2 log(1 + δ/ν),  and the weight  u = (ν + d) / (ν + δ).  Rows come in patterns of
holes, one after another, as in `gaussian_holes`; rows that are whole are one pattern.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dask_em.kernels.gaussian_axes import distances_diag
from dask_em.kernels.gaussian_far import squares, subtracted
from dask_em.kernels.gaussian_full import TILE, Density, distances, n_blocks, outer, packed, scale
from dask_em.kernels.gaussian_holes import Holed, Layout, pattern_slabs
from dask_em.kernels.gaussian_tiles import aligned, slab_groups, slabs
from dask_em.kernels.simd import compiled, fma, inlined, load, log, splat, store, total
from dask_em.kernels.softmax import GROUP, add_compensated, responsibilities


class Tails(NamedTuple):
    """What makes K Gaussian components Student-t ones, in each of P patterns."""

    df: np.ndarray  # (K,)
    power: np.ndarray  # (P, K): (ν + d) / 2
    none: np.ndarray  # (K,) zeros, in place of the Gaussians' constants


class Room(NamedTuple):
    """Room to work in, for a tile."""

    joint: np.ndarray  # groups of (K, 16), as the others but two
    scaled: np.ndarray  # groups of (columns, 16)
    rows: np.ndarray  # groups of (columns, 16)
    weights: np.ndarray  # u
    logs: np.ndarray  # log(1 + δ/ν)


class PatternSums(NamedTuple):
    """Sums of r, r u, r log(1 + δ/ν), r u z and r u z zᵀ, by pattern; z is a row minus the component's centre."""

    loglik: np.ndarray  # (2,): the sum and its compensation
    counts: np.ndarray  # (P, K)
    weights: np.ndarray  # (P, K)
    logs: np.ndarray  # (P, K)
    first: np.ndarray  # (P, K, d)
    second: np.ndarray  # (P, K, d(d+1)/2) upper triangles by row, or (P, K, d)


def pattern_sums(
    x: np.ndarray,
    weight: np.ndarray | None,
    pivot: np.ndarray,
    where: Layout | None,
    holed: Holed,
    tails: Tails,
    by_column: bool,
) -> PatternSums:
    """The E-step's sums of one parameter set.

    Parameters
    ----------
    x : ndarray of shape (n, d)
        NaN where a value is missing.
    weight : ndarray of shape (n,) or None
    pivot : ndarray of shape (d,)
    where : Layout or None
        Of the patterns; None: all rows are whole.
    holed : Holed
        Its constants are those of the t densities, the components' log weights added.
    tails : Tails
    by_column : bool
        Whether components have variances only.
    """
    n_patterns, k = holed.constant.shape
    columns, d = len(holed.mean) // k, len(pivot)
    stride = columns if by_column else n_blocks(columns) * 16
    counts, weights, logs = np.zeros((3, n_patterns, k))
    first, second = np.zeros((n_patterns, k * columns)), np.zeros((n_patterns, k * stride))
    totals = PatternSums(np.zeros(2), counts, weights, logs, first, second)
    by_component, by_axis = (TILE * width * GROUP for width in (k, columns))
    room = Room(*(aligned(size) for size in (by_component, by_axis, by_axis, by_component, by_component)))
    if where is None:
        step = slab_groups(len(x), columns)
        for rows in slabs(x, weight, pivot, columns, step):
            _sums(rows, 0, np.array([0, rows.groups]), holed, tails, by_column, stride, room, totals)
    else:
        step = slab_groups(len(where.take), columns)
        for start, rows, _, _ in pattern_slabs(x, weight, pivot, where, columns, step):
            _sums(rows, start, where.bounds, holed, tails, by_column, stride, room, totals)
    first = first.reshape(n_patterns, k, columns)[:, :, :d].copy()
    second = second.reshape(n_patterns, k, stride)
    second = second[:, :, :d].copy() if by_column else packed(second, d, columns)
    return totals._replace(first=first, second=second)


@inlined
def heavy(room, groups, constant, power, df):  # type: ignore[no-untyped-def]
    """Turn -δ/2, which `room.joint` holds, into joint log densities; write the weights and logarithms."""
    k_all = df.size
    for k in range(k_all):
        c, p, nu = splat(constant[k]), splat(power[k]), splat(df[k])
        for g in range(groups):
            for at in range((g * k_all + k) * GROUP, (g * k_all + k + 1) * GROUP, 8):
                delta = splat(-2.0) * load(room.joint, at)
                logarithm = log(splat(1.0) + delta / nu)
                store(room.logs, at, logarithm)
                store(room.weights, at, splat(2.0) * p / (nu + delta))
                store(room.joint, at, c - p * logarithm)


@inlined
def weighed(room, k, groups, k_all):  # type: ignore[no-untyped-def]
    """Turn a component's responsibilities r into r u; the sums of r, r u and r log(1 + δ/ν) over a tile."""
    n, a, b = splat(0.0), splat(0.0), splat(0.0)
    for g in range(groups):
        for at in range((g * k_all + k) * GROUP, (g * k_all + k + 1) * GROUP, 8):
            r = load(room.joint, at)
            w = r * load(room.weights, at)
            n, a, b = n + r, a + w, fma(r, load(room.logs, at), b)
            store(room.joint, at, w)
    return total(n), total(a), total(b)


@compiled
def _sums(rows, first, bounds, holed, tails, by_column, stride, room, totals):  # type: ignore[no-untyped-def]
    """Add the sums of a slab, whose first group has the number `first`."""
    columns, k_all = rows.columns, tails.df.size
    for p in range(bounds.size - 1):
        begin, end = max(bounds[p] - first, 0), min(bounds[p + 1] - first, rows.groups)
        density = Density(tails.none, holed.mean, holed.factor[p])
        for start in range(begin, end, TILE):
            groups, at = min(TILE, end - start), start * columns * GROUP
            if by_column:
                distances_diag(rows.x, at, groups, columns, tails.none, density.mean, density.factor, room.joint)
            else:
                distances(rows, start, groups, density, room)
            heavy(room, groups, holed.constant[p], tails.power[p], tails.df)
            loglik = responsibilities(room.joint, groups, k_all, rows.weight, start * GROUP)
            add_compensated(totals.loglik, loglik)
            for k in range(k_all):
                n, a, b = weighed(room, k, groups, k_all)
                totals.counts[p, k] += n
                totals.weights[p, k] += a
                totals.logs[p, k] += b
                z, at_z = rows.z, at
                if holed.far[k]:
                    subtracted(rows, start, groups, holed.center, k * columns, room.rows)
                    z, at_z = room.rows, 0
                step, to = k_all * GROUP, k * columns
                scale(z, at_z, groups, columns, room.joint, k * GROUP, step, room.scaled, totals.first[p], to)
                if by_column:
                    squares(room.scaled, z, at_z, groups, columns, totals.second[p], k * stride)
                else:
                    outer(room.scaled, z, at_z, groups, columns, totals.second[p], k * stride)
