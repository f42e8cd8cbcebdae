"""Gaussian components with a covariance matrix each: distances and moments, in compiled loops.

With U_k the factor of the precision, the distance is |U_kᵀ (x - μ_k)|²: differences first, so that
components that are narrow and far from the pivot lose no digits.  Columns are taken four at a time:
`distances` holds four outputs of sixteen rows in registers, `moments` four by four sums.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dask_em.kernels.simd import compiled, fma, inlined, load, splat, store, total, totals
from dask_em.kernels.softmax import GROUP, add_compensated, responsibilities

TILE = 16  # groups that go through all steps together


class Density(NamedTuple):
    """K components. `constant` is log π_k minus the log of the density's norm."""

    constant: np.ndarray  # (K,)
    mean: np.ndarray  # (K, columns)
    factor: np.ndarray  # (K, columns, columns), flat: U; rows and columns beyond d are zero


class Work(NamedTuple):
    """Room to work in, nothing more."""

    joint: np.ndarray  # TILE groups of (K, 16)
    scaled: np.ndarray  # TILE groups of (columns, 16)


class Totals(NamedTuple):
    """What is summed into."""

    loglik: np.ndarray  # (2,): the sum and its compensation
    counts: np.ndarray  # (K,)
    first: np.ndarray  # (K, columns)
    second: np.ndarray  # flat: for d <= 2 see `moments_2`, else (K, pairs of blocks, 4, 4)


# ---------------------------------------------------------------- any number of columns


@inlined
def differences(rows, at, mean, mean_at, out):  # type: ignore[no-untyped-def]
    """One group minus a mean."""
    for i in range(rows.columns):
        m = splat(mean[mean_at + i])
        store(out, i * GROUP, load(rows.x, at + i * GROUP) - m)
        store(out, i * GROUP + 8, load(rows.x, at + i * GROUP + 8) - m)


@inlined
def distances(rows, start, groups, density, work):  # type: ignore[no-untyped-def]
    """Joint log densities of a tile."""
    k_all, columns = density.constant.size, rows.columns
    half = splat(-0.5)
    for k in range(k_all):
        constant = splat(density.constant[k])
        for g in range(groups):
            differences(rows, (start + g) * columns * GROUP, density.mean, k * columns, work.scaled)
            q0, q1 = splat(0.0), splat(0.0)
            for j in range(0, columns, 4):
                a0, a1, a2, a3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
                b0, b1, b2, b3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
                u = k * columns * columns + j
                for i in range(j + 4):  # U is upper triangular
                    x0, x1 = load(work.scaled, i * GROUP), load(work.scaled, i * GROUP + 8)
                    u0, u1 = splat(density.factor[u]), splat(density.factor[u + 1])
                    u2, u3 = splat(density.factor[u + 2]), splat(density.factor[u + 3])
                    a0, b0 = fma(u0, x0, a0), fma(u0, x1, b0)
                    a1, b1 = fma(u1, x0, a1), fma(u1, x1, b1)
                    a2, b2 = fma(u2, x0, a2), fma(u2, x1, b2)
                    a3, b3 = fma(u3, x0, a3), fma(u3, x1, b3)
                    u += columns
                q0 = fma(a3, a3, fma(a2, a2, fma(a1, a1, fma(a0, a0, q0))))
                q1 = fma(b3, b3, fma(b2, b2, fma(b1, b1, fma(b0, b0, q1))))
            at = (g * k_all + k) * GROUP
            store(work.joint, at, fma(half, q0, constant))
            store(work.joint, at + 8, fma(half, q1, constant))


@inlined
def scale(rows, start, groups, k, n_components, work, sums):  # type: ignore[no-untyped-def]
    """Scaled = r_k z, and the counts and first moments of component k."""
    columns = rows.columns
    count = splat(0.0)
    for g in range(groups):
        at = (g * n_components + k) * GROUP
        count += load(work.joint, at) + load(work.joint, at + 8)
    sums.counts[k] += total(count)
    for i in range(columns):
        f0, f1 = splat(0.0), splat(0.0)
        for g in range(groups):
            r, z = (g * n_components + k) * GROUP, ((start + g) * columns + i) * GROUP
            a0 = load(work.joint, r) * load(rows.z, z)
            a1 = load(work.joint, r + 8) * load(rows.z, z + 8)
            store(work.scaled, (g * columns + i) * GROUP, a0)
            store(work.scaled, (g * columns + i) * GROUP + 8, a1)
            f0, f1 = f0 + a0, f1 + a1
        sums.first[k * columns + i] += total(f0 + f1)


@inlined
def block(left, at_left, right, at_right, groups, columns, out, at):  # type: ignore[no-untyped-def]
    """out[4 p + q] += Σ left_p right_q, four columns by four, over all rows of a tile."""
    a0, a1, a2, a3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    b0, b1, b2, b3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    c0, c1, c2, c3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    d0, d1, d2, d3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    for g in range(groups):
        for half in range(0, GROUP, 8):
            x = at_left + g * columns * GROUP + half
            y = at_right + g * columns * GROUP + half
            y0, y1 = load(right, y), load(right, y + GROUP)
            y2, y3 = load(right, y + 2 * GROUP), load(right, y + 3 * GROUP)
            x0 = load(left, x)
            a0, a1, a2, a3 = fma(x0, y0, a0), fma(x0, y1, a1), fma(x0, y2, a2), fma(x0, y3, a3)
            x1 = load(left, x + GROUP)
            b0, b1, b2, b3 = fma(x1, y0, b0), fma(x1, y1, b1), fma(x1, y2, b2), fma(x1, y3, b3)
            x2 = load(left, x + 2 * GROUP)
            c0, c1, c2, c3 = fma(x2, y0, c0), fma(x2, y1, c1), fma(x2, y2, c2), fma(x2, y3, c3)
            x3 = load(left, x + 3 * GROUP)
            d0, d1, d2, d3 = fma(x3, y0, d0), fma(x3, y1, d1), fma(x3, y2, d2), fma(x3, y3, d3)
    store(out, at, load(out, at) + totals(a0, a1, a2, a3, b0, b1, b2, b3))
    store(out, at + 8, load(out, at + 8) + totals(c0, c1, c2, c3, d0, d1, d2, d3))


@inlined
def moments(rows, start, groups, work, sums):  # type: ignore[no-untyped-def]
    """Sums of a tile, given its responsibilities."""
    columns, n_components = rows.columns, sums.counts.size
    at = 0
    for k in range(n_components):
        scale(rows, start, groups, k, n_components, work, sums)
        for i in range(0, columns, 4):
            for j in range(i, columns, 4):
                right = (start * columns + j) * GROUP
                block(work.scaled, i * GROUP, rows.z, right, groups, columns, sums.second, at)
                at += 16


@compiled
def sums_any(rows, density, work, sums):  # type: ignore[no-untyped-def]
    """Add the sums of a slab."""
    for start in range(0, rows.groups, TILE):
        groups = min(TILE, rows.groups - start)
        distances(rows, start, groups, density, work)
        loglik = responsibilities(work.joint, groups, density.constant.size, rows.weight, start * GROUP)
        add_compensated(sums.loglik, loglik)
        moments(rows, start, groups, work, sums)


@compiled
def joint_any(rows, density, work):  # type: ignore[no-untyped-def]
    """Joint log densities of a slab, into `work.joint`."""
    distances(rows, 0, rows.groups, density, work)


# ---------------------------------------------------------------- one or two columns


@inlined
def distances_2(rows, start, groups, density, work):  # type: ignore[no-untyped-def]
    """Joint log densities of a tile of two columns."""
    k_all = density.constant.size
    half = splat(-0.5)
    for k in range(k_all):
        constant = splat(density.constant[k])
        m0, m1 = splat(density.mean[2 * k]), splat(density.mean[2 * k + 1])
        u00, u01, u11 = (
            splat(density.factor[4 * k]),
            splat(density.factor[4 * k + 1]),
            splat(density.factor[4 * k + 3]),
        )
        for g in range(groups):
            for lane in range(0, GROUP, 8):
                at = (start + g) * 2 * GROUP + lane
                a, b = load(rows.x, at) - m0, load(rows.x, at + GROUP) - m1
                y0, y1 = u00 * a, fma(u11, b, u01 * a)
                q = fma(y1, y1, y0 * y0)
                store(work.joint, (g * k_all + k) * GROUP + lane, fma(half, q, constant))


@inlined
def moments_2(rows, start, groups, work, sums):  # type: ignore[no-untyped-def]
    """Sums of a tile of two columns: eight numbers for each component, (n, f0, f1, s00, s01, s11, 0, 0)."""
    k_all = sums.counts.size
    none = splat(0.0)
    for k in range(k_all):
        n, f0, f1 = none, none, none
        s00, s01, s11 = none, none, none
        for g in range(groups):
            for lane in range(0, GROUP, 8):
                at = (start + g) * 2 * GROUP + lane
                z0, z1 = load(rows.z, at), load(rows.z, at + GROUP)
                r = load(work.joint, (g * k_all + k) * GROUP + lane)
                a0, a1 = r * z0, r * z1
                n, f0, f1 = n + r, f0 + a0, f1 + a1
                s00, s01, s11 = fma(a0, z0, s00), fma(a0, z1, s01), fma(a1, z1, s11)
        store(sums.second, 8 * k, load(sums.second, 8 * k) + totals(n, f0, f1, s00, s01, s11, none, none))


@compiled
def sums_2(rows, density, work, sums):  # type: ignore[no-untyped-def]
    """Add the sums of a slab of two columns."""
    for start in range(0, rows.groups, TILE):
        groups = min(TILE, rows.groups - start)
        distances_2(rows, start, groups, density, work)
        loglik = responsibilities(work.joint, groups, density.constant.size, rows.weight, start * GROUP)
        add_compensated(sums.loglik, loglik)
        moments_2(rows, start, groups, work, sums)


@compiled
def joint_2(rows, density, work):  # type: ignore[no-untyped-def]
    """Joint log densities of a slab of two columns, into `work.joint`."""
    distances_2(rows, 0, rows.groups, density, work)
