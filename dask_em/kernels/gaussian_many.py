"""Gaussian components with a matrix each, of many columns: work only where a row has something to say.

In many columns most rows belong to one component beyond doubt.  The distance over the first few
columns, |(U_kᵀ (x - μ_k))_{j < h}|², costs little and bounds the whole distance from below; a component
whose density stays below e^-60 of the likeliest one's is cut short there.  The moments likewise take only
rows whose responsibility is above 1e-26 of the component's own count.  Both thresholds are relative to
what the component has, so that one that is nearly dead keeps every row.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dask_em.kernels.gaussian_full import count, differences, distance, outer, scale
from dask_em.kernels.gaussian_full import distances as all_distances
from dask_em.kernels.simd import called, compiled, fma, inlined, load, maximum, splat, store
from dask_em.kernels.softmax import GROUP, add_compensated, responsibilities

_TILE_BYTES = 1 << 19  # a tile has many rows, so that each component has enough of them to be worth gathering
_DENSE = 16  # groups: how many go together where all rows are taken, so that they stay in the cache
_PATIENCE = 31  # tiles that are done in full after one in which bounds ruled nothing out
_CUT = -60.0  # in nats: e^-60 = 9e-27
_SMALL = 1e-26


class Room(NamedTuple):
    """Room to work in: a tile's joint densities, and rows gathered from it."""

    joint: np.ndarray  # groups of (K, 16), as many as a tile has
    scaled: np.ndarray  # groups of (columns, 16)
    gathered: np.ndarray  # groups of (columns, 16)
    resp: np.ndarray  # (rows,) of what was gathered
    top: np.ndarray  # (rows,): joint density of the component that looks likeliest
    chosen: np.ndarray  # (rows,) int64: rows of a tile
    likeliest: np.ndarray  # (rows,) int64
    in_full: np.ndarray  # (1,) int64: tiles still to be done without bounds


def tile(columns: int) -> int:
    """Groups of a tile."""
    return max(_TILE_BYTES // (8 * columns * GROUP), 16)


@called
def bounds(rows, start, groups, density, few, room):  # type: ignore[no-untyped-def]
    """Joint log densities by the first `few` columns alone: not below the whole ones. The highest in `top`."""
    k_all, columns = density.constant.size, rows.columns
    half = splat(-0.5)
    for k in range(k_all):
        constant = splat(density.constant[k])
        for g in range(groups):
            differences(rows, (start + g) * columns * GROUP, few, density.mean, k * columns, room.scaled)
            q0, q1 = distance(room.scaled, density.factor, k * columns * columns, columns, 0, few)
            at = (g * k_all + k) * GROUP
            a0, a1 = fma(half, q0, constant), fma(half, q1, constant)
            store(room.joint, at, a0)
            store(room.joint, at + 8, a1)
            if k > 0:
                a0, a1 = maximum(a0, load(room.top, g * GROUP)), maximum(a1, load(room.top, g * GROUP + 8))
            store(room.top, g * GROUP, a0)
            store(room.top, g * GROUP + 8, a1)


@inlined
def gather(source, at, columns, chosen, n, mean, at_mean, out):  # type: ignore[no-untyped-def]
    """Some rows of a tile, minus a mean, as groups; the last group is filled up with zeros."""
    for m in range(n):
        row = chosen[m]
        x = at + (row // GROUP) * columns * GROUP + row % GROUP
        y = (m // GROUP) * columns * GROUP + m % GROUP
        for i in range(columns):
            out[y + i * GROUP] = source[x + i * GROUP] - mean[at_mean + i]
    for m in range(n, -(-n // GROUP) * GROUP):
        y = (m // GROUP) * columns * GROUP + m % GROUP
        for i in range(columns):
            out[y + i * GROUP] = 0.0


@called
def finish(rows, start, density, few, room, k, n):  # type: ignore[no-untyped-def]
    """Complete the bounds of component k for the n chosen rows of a tile."""
    k_all, columns = density.constant.size, rows.columns
    for m in range(0, n, GROUP):
        some = min(GROUP, n - m)
        at = start * columns * GROUP
        gather(rows.x, at, columns, room.chosen[m:], some, density.mean, k * columns, room.scaled)
        q0, q1 = distance(room.scaled, density.factor, k * columns * columns, columns, few, columns)
        store(room.resp, 0, q0)
        store(room.resp, 8, q1)
        for i in range(some):
            row = room.chosen[m + i]
            room.joint[((row // GROUP) * k_all + k) * GROUP + row % GROUP] -= 0.5 * room.resp[i]


@called
def finish_all(rows, start, groups, density, few, room, k):  # type: ignore[no-untyped-def]
    """Complete the bounds of component k, of all rows but those whose likeliest component it is: they are."""
    k_all, columns = density.constant.size, rows.columns
    for g in range(groups):
        differences(rows, (start + g) * columns * GROUP, columns, density.mean, k * columns, room.scaled)
        q0, q1 = distance(room.scaled, density.factor, k * columns * columns, columns, few, columns)
        store(room.resp, 0, q0)
        store(room.resp, 8, q1)
        for i in range(GROUP):
            if room.likeliest[g * GROUP + i] != k:
                room.joint[(g * k_all + k) * GROUP + i] -= 0.5 * room.resp[i]


@called
def finish_likeliest(rows, start, groups, density, few, room):  # type: ignore[no-untyped-def]
    """For each row, the component that looks likeliest, completed: `likeliest`, and its density in `top`."""
    k_all = density.constant.size
    for row in range(groups * GROUP):
        room.likeliest[row] = -1
    for k in range(k_all):
        n = 0
        for row in range(groups * GROUP):
            bound = room.joint[((row // GROUP) * k_all + k) * GROUP + row % GROUP]
            room.chosen[n] = row
            if bound >= room.top[row] and room.likeliest[row] < 0:
                room.likeliest[row] = k
                n += 1
        finish(rows, start, density, few, room, k, n)
    for row in range(groups * GROUP):
        k = max(room.likeliest[row], 0)
        room.top[row] = room.joint[((row // GROUP) * k_all + k) * GROUP + row % GROUP]


@called
def distances(rows, start, groups, density, few, room, counts):  # type: ignore[no-untyped-def]
    """Joint log densities of a tile; minus infinity where that changes nothing."""
    k_all, whole = density.constant.size, 0
    bounds(rows, start, groups, density, few, room)
    finish_likeliest(rows, start, groups, density, few, room)
    heaviest = 0.0
    for row in range(groups * GROUP):
        heaviest = max(heaviest, rows.weight[start * GROUP + row])
    for k in range(k_all):
        share = min(counts[k] / max(heaviest, 1e-300), 1.0)
        cut = _CUT + np.log(share) if share > 0 else -np.inf
        n = 0
        for row in range(groups * GROUP):
            at = ((row // GROUP) * k_all + k) * GROUP + row % GROUP
            room.chosen[n] = row
            if room.likeliest[row] != k and not room.joint[at] <= room.top[row] + cut:
                n += 1
        if 4 * n > groups * GROUP:
            finish_all(rows, start, groups, density, few, room, k)
            whole += share > 0  # at first nothing has a count yet, and nothing is ruled out
            continue
        finish(rows, start, density, few, room, k, n)
        for row in range(groups * GROUP):
            at = ((row // GROUP) * k_all + k) * GROUP + row % GROUP
            if room.likeliest[row] != k and room.joint[at] <= room.top[row] + cut:
                room.joint[at] = -np.inf
    if 2 * whole > k_all:
        room.in_full[0] = _PATIENCE


@called
def moments(rows, start, groups, room, sums, nowhere):  # type: ignore[no-untyped-def]
    """Sums of a tile, given its responsibilities."""
    columns, k_all = rows.columns, sums.counts.size
    size, at = sums.second.size // k_all, start * columns * GROUP
    for k in range(k_all):
        sums.counts[k] += count(room.joint, k * GROUP, groups, k_all)
        small = _SMALL * sums.counts[k]
        n = 0
        for row in range(groups * GROUP):
            r = room.joint[((row // GROUP) * k_all + k) * GROUP + row % GROUP]
            room.chosen[n], room.resp[n] = row, r
            if not r <= small:
                n += 1
        first, second = k * columns, k * size
        if 2 * n > groups * GROUP:
            for g in range(0, groups, _DENSE):
                some = min(_DENSE, groups - g)
                z, r = at + g * columns * GROUP, (g * k_all + k) * GROUP
                scale(rows.z, z, some, columns, room.joint, r, k_all * GROUP, room.scaled, sums.first, first)
                outer(room.scaled, rows.z, z, some, columns, sums.second, second)
        elif n > 0:
            some = -(-n // GROUP)
            room.resp[n : some * GROUP] = 0.0
            gather(rows.z, at, columns, room.chosen, n, nowhere, 0, room.gathered)
            scale(room.gathered, 0, some, columns, room.resp, 0, GROUP, room.scaled, sums.first, first)
            outer(room.scaled, room.gathered, 0, some, columns, sums.second, second)


@compiled
def sums_many(rows, density, few, room, sums, nowhere):  # type: ignore[no-untyped-def]
    """Add the sums of a slab. nowhere: (columns,) zeros."""
    most = room.top.size // GROUP
    for start in range(0, rows.groups, most):
        groups = min(most, rows.groups - start)
        if room.in_full[0] > 0:
            room.in_full[0] -= 1
            all_distances(rows, start, groups, density, room)
        else:
            distances(rows, start, groups, density, few, room, sums.counts)
        loglik = responsibilities(room.joint, groups, density.constant.size, rows.weight, start * GROUP)
        add_compensated(sums.loglik, loglik)
        moments(rows, start, groups, room, sums, nowhere)
