"""Gaussian components whose covariances are diagonal, or one matrix for all: distances and moments.

Diagonal: |u_k (x - μ_k)|², column by column.  Tied: rows are whitened once, y = Uᵀ (x - pivot), and the
distances are |y - ν_k|² with ν_k = Uᵀ (μ_k - pivot); where rounding could show, the caller asks for
whitened differences instead, as for a matrix each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dask_em.kernels.gaussian_full import TILE, distances, outer
from dask_em.kernels.simd import compiled, fma, inlined, load, splat, store, total, totals
from dask_em.kernels.softmax import GROUP, add_compensated, responsibilities


class Tied(NamedTuple):
    """One covariance matrix for all components."""

    constant: np.ndarray  # (K,)
    factor: np.ndarray  # (columns, columns), flat
    origin: np.ndarray  # (columns,): the pivot
    white: np.ndarray  # (K, columns): ν
    safe: bool  # whether distances may be taken between whitened rows and ν


@inlined
def distances_diag(x, at, groups, columns, constant, mean, factor, joint):  # type: ignore[no-untyped-def]
    """Joint log densities; factor (K, columns) holds one over the standard deviation."""
    k_all = constant.size
    half = splat(-0.5)
    for k in range(k_all):
        c = splat(constant[k])
        for g in range(groups):
            q0, q1 = splat(0.0), splat(0.0)
            for i in range(columns):
                m, u = splat(mean[k * columns + i]), splat(factor[k * columns + i])
                a = at + (g * columns + i) * GROUP
                y0, y1 = u * (load(x, a) - m), u * (load(x, a + 8) - m)
                q0, q1 = fma(y0, y0, q0), fma(y1, y1, q1)
            out = (g * k_all + k) * GROUP
            store(joint, out, fma(half, q0, c))
            store(joint, out + 8, fma(half, q1, c))


@inlined
def moments_diag(rows, start, groups, work, sums):  # type: ignore[no-untyped-def]
    """Counts, and for four columns at a time eight numbers: f0 to f3, then the squares' s0 to s3."""
    columns, k_all = rows.columns, sums.counts.size
    for k in range(k_all):
        count = splat(0.0)
        for g in range(groups):
            at = (g * k_all + k) * GROUP
            count += load(work.joint, at) + load(work.joint, at + 8)
        sums.counts[k] += total(count)
        for i in range(0, columns, 4):
            f0, f1, f2, f3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            s0, s1, s2, s3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            for g in range(groups):
                for lane in range(0, GROUP, 8):
                    r = load(work.joint, (g * k_all + k) * GROUP + lane)
                    at = ((start + g) * columns + i) * GROUP + lane
                    z0, z1 = load(rows.z, at), load(rows.z, at + GROUP)
                    z2, z3 = load(rows.z, at + 2 * GROUP), load(rows.z, at + 3 * GROUP)
                    a0, a1, a2, a3 = r * z0, r * z1, r * z2, r * z3
                    f0, f1, f2, f3 = f0 + a0, f1 + a1, f2 + a2, f3 + a3
                    s0, s1, s2, s3 = fma(a0, z0, s0), fma(a1, z1, s1), fma(a2, z2, s2), fma(a3, z3, s3)
            at = 2 * (k * columns + i)
            store(sums.second, at, load(sums.second, at) + totals(f0, f1, f2, f3, s0, s1, s2, s3))


@compiled
def sums_diag(rows, density, work, sums):  # type: ignore[no-untyped-def]
    """Add the sums of a slab."""
    for start in range(0, rows.groups, TILE):
        groups = min(TILE, rows.groups - start)
        at = start * rows.columns * GROUP
        distances_diag(rows.x, at, groups, rows.columns, density.constant, density.mean, density.factor, work.joint)
        loglik = responsibilities(work.joint, groups, density.constant.size, rows.weight, start * GROUP)
        add_compensated(sums.loglik, loglik)
        moments_diag(rows, start, groups, work, sums)


@compiled
def joint_diag(rows, density, work):  # type: ignore[no-untyped-def]
    """Joint log densities of a slab, into `work.joint`."""
    distances_diag(rows.x, 0, rows.groups, rows.columns, density.constant, density.mean, density.factor, work.joint)


# ---------------------------------------------------------------- one matrix for all


@inlined
def whiten(rows, start, groups, factor, out):  # type: ignore[no-untyped-def]
    """Out = Uᵀ z for a tile."""
    columns = rows.columns
    for g in range(groups):
        at = (start + g) * columns * GROUP
        for j in range(0, columns, 2):
            a0, a1 = splat(0.0), splat(0.0)
            b0, b1 = splat(0.0), splat(0.0)
            for i in range(j + 2):
                x0, x1 = load(rows.z, at + i * GROUP), load(rows.z, at + i * GROUP + 8)
                u0, u1 = splat(factor[i * columns + j]), splat(factor[i * columns + j + 1])
                a0, b0 = fma(u0, x0, a0), fma(u0, x1, b0)
                a1, b1 = fma(u1, x0, a1), fma(u1, x1, b1)
            to = (g * columns + j) * GROUP
            store(out, to, a0)
            store(out, to + 8, b0)
            store(out, to + GROUP, a1)
            store(out, to + GROUP + 8, b1)


@inlined
def distances_white(y, groups, columns, tied, joint):  # type: ignore[no-untyped-def]
    """Joint log densities from whitened rows."""
    k_all = tied.constant.size
    half = splat(-0.5)
    for k in range(k_all):
        c = splat(tied.constant[k])
        for g in range(groups):
            q0, q1 = splat(0.0), splat(0.0)
            for i in range(columns):
                m = splat(tied.white[k * columns + i])
                a = (g * columns + i) * GROUP
                y0, y1 = load(y, a) - m, load(y, a + 8) - m
                q0, q1 = fma(y0, y0, q0), fma(y1, y1, q1)
            out = (g * k_all + k) * GROUP
            store(joint, out, fma(half, q0, c))
            store(joint, out + 8, fma(half, q1, c))


@inlined
def moments_first(rows, start, groups, work, sums):  # type: ignore[no-untyped-def]
    """Counts and first moments, four columns at a time."""
    columns, k_all = rows.columns, sums.counts.size
    none = splat(0.0)
    for k in range(k_all):
        for i in range(0, columns, 4):
            n = splat(0.0)
            f0, f1, f2, f3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            for g in range(groups):
                for lane in range(0, GROUP, 8):
                    r = load(work.joint, (g * k_all + k) * GROUP + lane)
                    at = ((start + g) * columns + i) * GROUP + lane
                    n += r
                    f0, f1 = fma(r, load(rows.z, at), f0), fma(r, load(rows.z, at + GROUP), f1)
                    f2 = fma(r, load(rows.z, at + 2 * GROUP), f2)
                    f3 = fma(r, load(rows.z, at + 3 * GROUP), f3)
            if i == 0:
                sums.counts[k] += total(n)
            at = 2 * (k * columns + i)
            store(sums.second, at, load(sums.second, at) + totals(f0, f1, f2, f3, none, none, none, none))


@inlined
def joint_tile(rows, start, groups, tied, density, work):  # type: ignore[no-untyped-def]
    """Joint log densities of a tile by the cheap way where it is safe."""
    if tied.safe:
        whiten(rows, start, groups, tied.factor, work.scaled)
        distances_white(work.scaled, groups, rows.columns, tied, work.joint)
    else:
        distances(rows, start, groups, density, work)


@compiled
def sums_tied(rows, tied, density, work, sums):  # type: ignore[no-untyped-def]
    """Add the sums of a slab, the second moments apart."""
    for start in range(0, rows.groups, TILE):
        groups = min(TILE, rows.groups - start)
        joint_tile(rows, start, groups, tied, density, work)
        loglik = responsibilities(work.joint, groups, density.constant.size, rows.weight, start * GROUP)
        add_compensated(sums.loglik, loglik)
        moments_first(rows, start, groups, work, sums)


@compiled
def weighted_squares(rows, scaled, out):  # type: ignore[no-untyped-def]
    """Add Σ_i w_i z_i z_iᵀ of a slab: blocks of four by four."""
    columns = rows.columns
    for start in range(0, rows.groups, TILE):
        groups = min(TILE, rows.groups - start)
        for g in range(groups):
            for lane in range(0, GROUP, 8):
                w = load(rows.weight, (start + g) * GROUP + lane)
                for i in range(columns):
                    z = load(rows.z, ((start + g) * columns + i) * GROUP + lane)
                    store(scaled, (g * columns + i) * GROUP + lane, w * z)
        outer(scaled, rows.z, start * columns * GROUP, groups, columns, out, 0)


@compiled
def joint_tied(rows, tied, density, work):  # type: ignore[no-untyped-def]
    """Joint log densities of a slab, into `work.joint`; `work.scaled` holds a slab."""
    joint_tile(rows, 0, rows.groups, tied, density, work)
