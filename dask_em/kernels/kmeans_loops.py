"""Nearest centres in compiled loops: products to find them, differences to measure them.

Rows lie in groups of sixteen, column by column (`dask_em.kernels.gaussian_tiles`), and centres in *tiles* of
four: column i of centre q of tile t is at (t d + i) 4 + q.  Four centres by sixteen rows stay in registers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dask_em.kernels.simd import compiled, fma, inlined, load, maximum, splat, store, total, totals, where_less
from dask_em.kernels.softmax import GROUP, add_compensated

_LANE = np.arange(8.0)
_PIECE = 256  # rows whose inertia is summed without compensation


class Tiled(NamedTuple):
    """K centres, filled up to whole tiles with such as no row is nearest to."""

    tiles: np.ndarray  # flat: about the pivot
    offset: np.ndarray  # -|c|²/2 about the pivot; minus infinity for what fills up


class Near(NamedTuple):
    """For each row of a slab, what is known of its nearest centre."""

    merit: np.ndarray  # z·c - |c|²/2 of the best centre so far (by differences: minus the squared distance)
    which: np.ndarray  # its number; float64, so that it lives in the same registers
    squared: np.ndarray  # exact squared distance


class HardTotals(NamedTuple):
    """What is summed into; rows of `first` are as wide as a whole number of vectors."""

    inertia: np.ndarray  # (2,): the sum and its compensation
    counts: np.ndarray  # (K,)
    first: np.ndarray  # (K, wide) flat: Σ w (x - pivot)


@inlined
def better(merit, which, a0, a1, a2, a3, k):  # type: ignore[no-untyped-def]
    """The best of what was and four more; the first of equals."""
    which = where_less(merit, a0, splat(k), which)
    merit = maximum(a0, merit)
    which = where_less(merit, a1, splat(k + 1.0), which)
    merit = maximum(a1, merit)
    which = where_less(merit, a2, splat(k + 2.0), which)
    merit = maximum(a2, merit)
    which = where_less(merit, a3, splat(k + 3.0), which)
    return maximum(a3, merit), which


@inlined
def by_products(z, at, d, tiled, t):  # type: ignore[no-untyped-def]
    """z·c - |c|²/2 of sixteen rows and the four centres of a tile."""
    o, c = 4 * t, 4 * t * d
    a0, a1, a2, a3 = (
        splat(tiled.offset[o]), splat(tiled.offset[o + 1]), splat(tiled.offset[o + 2]), splat(tiled.offset[o + 3]),
    )  # fmt: skip
    b0, b1, b2, b3 = a0, a1, a2, a3
    for i in range(d):
        x0, x1 = load(z, at + i * GROUP), load(z, at + i * GROUP + 8)
        c0, c1 = splat(tiled.tiles[c + 4 * i]), splat(tiled.tiles[c + 4 * i + 1])
        c2, c3 = splat(tiled.tiles[c + 4 * i + 2]), splat(tiled.tiles[c + 4 * i + 3])
        a0, b0 = fma(c0, x0, a0), fma(c0, x1, b0)
        a1, b1 = fma(c1, x0, a1), fma(c1, x1, b1)
        a2, b2 = fma(c2, x0, a2), fma(c2, x1, b2)
        a3, b3 = fma(c3, x0, a3), fma(c3, x1, b3)
    return a0, a1, a2, a3, b0, b1, b2, b3


@inlined
def by_differences(x, at, d, tiled, t):  # type: ignore[no-untyped-def]
    """Squared distances of sixteen rows from the four centres of a tile, which is not about the pivot."""
    c = 4 * t * d
    a0, a1, a2, a3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    b0, b1, b2, b3 = a0, a1, a2, a3
    for i in range(d):
        x0, x1 = load(x, at + i * GROUP), load(x, at + i * GROUP + 8)
        c0, c1 = splat(tiled.tiles[c + 4 * i]), splat(tiled.tiles[c + 4 * i + 1])
        c2, c3 = splat(tiled.tiles[c + 4 * i + 2]), splat(tiled.tiles[c + 4 * i + 3])
        e0, f0 = x0 - c0, x1 - c0
        e1, f1 = x0 - c1, x1 - c1
        e2, f2 = x0 - c2, x1 - c2
        e3, f3 = x0 - c3, x1 - c3
        a0, b0 = fma(e0, e0, a0), fma(f0, f0, b0)
        a1, b1 = fma(e1, e1, a1), fma(f1, f1, b1)
        a2, b2 = fma(e2, e2, a2), fma(f2, f2, b2)
        a3, b3 = fma(e3, e3, a3), fma(f3, f3, b3)
    return a0, a1, a2, a3, b0, b1, b2, b3


@compiled
def nearest(z, groups, d, tiled, block, near):  # type: ignore[no-untyped-def]
    """The nearest centre of each row by products; `block` tiles at a time, which a first-level cache holds."""
    n_tiles = tiled.offset.size // 4
    for row in range(0, groups * GROUP, 8):
        store(near.merit, row, splat(-np.inf))
        store(near.which, row, splat(0.0))
    for start in range(0, n_tiles, block):
        for g in range(groups):
            m0, m1 = load(near.merit, g * GROUP), load(near.merit, g * GROUP + 8)
            w0, w1 = load(near.which, g * GROUP), load(near.which, g * GROUP + 8)
            for t in range(start, min(start + block, n_tiles)):
                a0, a1, a2, a3, b0, b1, b2, b3 = by_products(z, g * d * GROUP, d, tiled, t)
                m0, w0 = better(m0, w0, a0, a1, a2, a3, 4.0 * t)
                m1, w1 = better(m1, w1, b0, b1, b2, b3, 4.0 * t)
            store(near.merit, g * GROUP, m0)
            store(near.merit, g * GROUP + 8, m1)
            store(near.which, g * GROUP, w0)
            store(near.which, g * GROUP + 8, w1)


@compiled
def nearest_exact(x, groups, d, tiled, near):  # type: ignore[no-untyped-def]
    """The nearest centre of each row by differences, where products would lose too many digits."""
    none = splat(0.0)
    for g in range(groups):
        m0, m1, w0, w1 = splat(-np.inf), splat(-np.inf), none, none
        for t in range(tiled.offset.size // 4):
            a0, a1, a2, a3, b0, b1, b2, b3 = by_differences(x, g * d * GROUP, d, tiled, t)
            f0, f1 = splat(tiled.offset[4 * t]), splat(tiled.offset[4 * t + 1])
            f2, f3 = splat(tiled.offset[4 * t + 2]), splat(tiled.offset[4 * t + 3])
            m0, w0 = better(m0, w0, f0 - a0, f1 - a1, f2 - a2, f3 - a3, 4.0 * t)
            m1, w1 = better(m1, w1, f0 - b0, f1 - b1, f2 - b2, f3 - b3, 4.0 * t)
        store(near.which, g * GROUP, w0)
        store(near.which, g * GROUP + 8, w1)


@compiled
def all_squared(x, groups, d, tiled, out):  # type: ignore[no-untyped-def]
    """Exact squared distances of a slab from every centre: out (groups, tiles * 4, 16)."""
    n_tiles = tiled.offset.size // 4
    for g in range(groups):
        for t in range(n_tiles):
            a0, a1, a2, a3, b0, b1, b2, b3 = by_differences(x, g * d * GROUP, d, tiled, t)
            at = (g * n_tiles + t) * 4 * GROUP
            store(out, at, a0)
            store(out, at + 8, b0)
            store(out, at + 16, a1)
            store(out, at + 24, b1)
            store(out, at + 32, a2)
            store(out, at + 40, b2)
            store(out, at + 48, a3)
            store(out, at + 56, b3)


# ---------------------------------------------------------------- sums, row by row


@inlined
def take(source, row, d, wide, weight, which, centers, pivot, counts, first):  # type: ignore[no-untyped-def]
    """Add one row to its cluster; its squared differences, eight at a time."""
    w = weight[row]
    squares = splat(0.0)
    if w > 0.0:  # whatever stands in a row without weight
        k, at = int(which[row]), row * d
        own, ws, none = k * wide, splat(w), splat(0.0)
        counts[k] += w
        whole = d - d % 8
        for i in range(0, whole, 8):
            x = load(source, at + i)
            e = x - load(centers, own + i)
            squares = fma(e, e, squares)
            store(first, own + i, fma(ws, x - load(pivot, i), load(first, own + i)))
        if whole < d:  # lanes beyond the row hold the next one
            inside, x = splat(float(d - whole)), load(source, at + whole)
            e = where_less(load(_LANE, 0), inside, x - load(centers, own + whole), none)
            z = where_less(load(_LANE, 0), inside, x - load(pivot, whole), none)
            squares = fma(e, e, squares)
            store(first, own + whole, fma(ws, z, load(first, own + whole)))
    return squares


@compiled
def add_rows(source, n, d, weight, which, squared, centers, pivot, counts, first, sums):  # type: ignore[no-untyped-def]
    """Add n rows, which lie one after the other, to the clusters that they are nearest to."""
    # arrays one by one: to take one out of a tuple counts a reference, which costs more than a row's arithmetic
    wide, inertia = first.size // counts.size, splat(0.0)
    for row in range(0, n - 7, 8):
        s = totals(
            take(source, row, d, wide, weight, which, centers, pivot, counts, first),
            take(source, row + 1, d, wide, weight, which, centers, pivot, counts, first),
            take(source, row + 2, d, wide, weight, which, centers, pivot, counts, first),
            take(source, row + 3, d, wide, weight, which, centers, pivot, counts, first),
            take(source, row + 4, d, wide, weight, which, centers, pivot, counts, first),
            take(source, row + 5, d, wide, weight, which, centers, pivot, counts, first),
            take(source, row + 6, d, wide, weight, which, centers, pivot, counts, first),
            take(source, row + 7, d, wide, weight, which, centers, pivot, counts, first),
        )
        store(squared, row, s)
        inertia = fma(load(weight, row), s, inertia)
        if row % _PIECE == 0:
            add_compensated(sums, total(inertia))
            inertia = splat(0.0)
    rest, none = 0.0, splat(0.0)
    for row in range(n - n % 8, n):  # by the same sum, so that equal rows are equally far wherever they stand
        s = take(source, row, d, wide, weight, which, centers, pivot, counts, first)
        store(squared, row, totals(s, none, none, none, none, none, none, none))
        rest += weight[row] * squared[row]
    add_compensated(sums, total(inertia) + rest)


@compiled
def only_squared(source, n, d, which, squared, centers, wide):  # type: ignore[no-untyped-def]
    """Exact squared distances of n rows from the centres that they are nearest to."""
    for row in range(n):
        own, s = int(which[row]) * wide, 0.0
        for i in range(d):
            e = source[row * d + i] - centers[own + i]
            s += e * e
        squared[row] = s


# ---------------------------------------------------------------- k-means++


@compiled
def potentials(z, groups, d, norm, weight, near, tiled, out):  # type: ignore[no-untyped-def]
    """Σ w min(near, |z - c|²) for each of several centres, were it a seed too; norm: |z|², near: to the seeds."""
    none, two = splat(0.0), splat(-2.0)
    for t in range(tiled.offset.size // 4):
        p0, p1, p2, p3 = none, none, none, none
        for g in range(groups):
            a0, a1, a2, a3, b0, b1, b2, b3 = by_products(z, g * d * GROUP, d, tiled, t)
            for half in range(2):
                if half == 1:
                    a0, a1, a2, a3 = b0, b1, b2, b3
                at = g * GROUP + half * 8
                s, w, n = load(norm, at), load(weight, at), load(near, at)
                p0 = fma(w, closer(fma(two, a0, s), n), p0)
                p1 = fma(w, closer(fma(two, a1, s), n), p1)
                p2 = fma(w, closer(fma(two, a2, s), n), p2)
                p3 = fma(w, closer(fma(two, a3, s), n), p3)
        out[4 * t], out[4 * t + 1], out[4 * t + 2], out[4 * t + 3] = total(p0), total(p1), total(p2), total(p3)


@inlined
def closer(squared, near):  # type: ignore[no-untyped-def]
    """The smaller of two squared distances, the first of which rounding may have made negative."""
    s = maximum(squared, splat(0.0))
    return where_less(s, near, s, near)


@compiled
def come_closer(z, groups, d, norm, near, center):  # type: ignore[no-untyped-def]
    """Lower `near` to the squared distances from one more seed."""
    for g in range(groups):
        for half in range(0, GROUP, 8):
            a, two = splat(0.0), splat(-2.0)
            b = splat(0.0)
            for i in range(d):
                c = splat(center[i])
                a, b = fma(c, load(z, (g * d + i) * GROUP + half), a), fma(c, c, b)
            at = g * GROUP + half
            store(near, at, closer(fma(two, a, load(norm, at) + b), load(near, at)))
