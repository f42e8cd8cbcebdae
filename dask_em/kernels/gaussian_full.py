"""Gaussian components with a covariance matrix each: distances and moments, in compiled loops.

With U_k the factor of the precision, the distance is |U_kᵀ (x - μ_k)|²: differences first, so that
components that are narrow and far from the pivot lose no digits.  Columns are taken four at a time:
`distances` holds four outputs of sixteen rows in registers, `moments` four by four sums.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dask_em.kernels.simd import called, compiled, fma, inlined, load, splat, store, total, totals
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
def differences(rows, at, columns, mean, mean_at, out):  # type: ignore[no-untyped-def]
    """The first columns of one group, minus a mean."""
    for i in range(columns):
        m = splat(mean[mean_at + i])
        store(out, i * GROUP, load(rows.x, at + i * GROUP) - m)
        store(out, i * GROUP + 8, load(rows.x, at + i * GROUP + 8) - m)


@inlined
def distance(diff, factor, at, columns, first, last):  # type: ignore[no-untyped-def]
    """Squared distances of a group in the output columns first <= j < last."""
    q0, q1 = splat(0.0), splat(0.0)
    for j in range(first, last, 4):
        a0, a1, a2, a3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
        b0, b1, b2, b3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
        u = at + j
        for i in range(j + 4):  # U is upper triangular
            x0, x1 = load(diff, i * GROUP), load(diff, i * GROUP + 8)
            u0, u1 = splat(factor[u]), splat(factor[u + 1])
            u2, u3 = splat(factor[u + 2]), splat(factor[u + 3])
            a0, b0 = fma(u0, x0, a0), fma(u0, x1, b0)
            a1, b1 = fma(u1, x0, a1), fma(u1, x1, b1)
            a2, b2 = fma(u2, x0, a2), fma(u2, x1, b2)
            a3, b3 = fma(u3, x0, a3), fma(u3, x1, b3)
            u += columns
        q0 = fma(a3, a3, fma(a2, a2, fma(a1, a1, fma(a0, a0, q0))))
        q1 = fma(b3, b3, fma(b2, b2, fma(b1, b1, fma(b0, b0, q1))))
    return q0, q1


@called
def distances(rows, start, groups, density, work):  # type: ignore[no-untyped-def]
    """Joint log densities of a tile."""
    k_all, columns = density.constant.size, rows.columns
    half = splat(-0.5)
    for k in range(k_all):
        constant = splat(density.constant[k])
        for g in range(groups):
            differences(rows, (start + g) * columns * GROUP, columns, density.mean, k * columns, work.scaled)
            q0, q1 = distance(work.scaled, density.factor, k * columns * columns, columns, 0, columns)
            at = (g * k_all + k) * GROUP
            store(work.joint, at, fma(half, q0, constant))
            store(work.joint, at + 8, fma(half, q1, constant))


@inlined
def count(joint, at, groups, n_components):  # type: ignore[no-untyped-def]
    """Sum of one component's responsibilities over a tile."""
    n = splat(0.0)
    for g in range(groups):
        r = at + g * n_components * GROUP
        n += load(joint, r) + load(joint, r + 8)
    return total(n)


@called
def scale(z, at_z, groups, columns, resp, at_r, step_r, scaled, first, at_first):  # type: ignore[no-untyped-def]
    """scaled = r z, and its sums, added to `first`; a group's responsibilities are `step_r` after the last one's."""
    for i in range(columns):
        f0, f1 = splat(0.0), splat(0.0)
        for g in range(groups):
            r, at = at_r + g * step_r, (g * columns + i) * GROUP
            a0 = load(resp, r) * load(z, at_z + at)
            a1 = load(resp, r + 8) * load(z, at_z + at + 8)
            store(scaled, at, a0)
            store(scaled, at + 8, a1)
            f0, f1 = f0 + a0, f1 + a1
        first[at_first + i] += total(f0 + f1)


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


@called
def outer(scaled, z, at_z, groups, columns, out, at):  # type: ignore[no-untyped-def]
    """Add Σ scaled zᵀ over a tile: blocks of four by four on and above the diagonal."""
    for i in range(0, columns, 4):
        for j in range(i, columns, 4):
            block(scaled, i * GROUP, z, at_z + j * GROUP, groups, columns, out, at)
            at += 16


@inlined
def moments(rows, start, groups, work, sums):  # type: ignore[no-untyped-def]
    """Sums of a tile, given its responsibilities."""
    columns, n_components = rows.columns, sums.counts.size
    at, step = start * columns * GROUP, n_components * GROUP
    for k in range(n_components):
        sums.counts[k] += count(work.joint, k * GROUP, groups, n_components)
        scale(rows.z, at, groups, columns, work.joint, k * GROUP, step, work.scaled, sums.first, k * columns)
        outer(work.scaled, rows.z, at, groups, columns, sums.second, k * (sums.second.size // n_components))


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


def n_blocks(columns: int) -> int:
    """Blocks of four by four on and above the diagonal."""
    return (columns // 4) * (columns // 4 + 1) // 2


def packed(blocks: np.ndarray, d: int, columns: int) -> np.ndarray:
    """(..., d(d+1)/2) upper triangles by row, from (..., pairs of blocks, 4, 4)."""
    return blocks[..., _places(d, columns)]


@lru_cache(maxsize=16)  # small, and asked for at every block
def _places(d: int, columns: int) -> np.ndarray:
    i, j = np.triu_indices(d)
    number = np.zeros((columns // 4, columns // 4), dtype=np.intp)
    number[np.triu_indices(columns // 4)] = np.arange(n_blocks(columns))
    return number[i // 4, j // 4] * 16 + (i % 4) * 4 + j % 4


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
