"""Rows of any dtype and order, as the compiled loops want them: groups of sixteen, column by column, float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numba import types

from dask_em.kernels.simd import compiled_for, inlined, load, splat, store, transpose
from dask_em.kernels.softmax import GROUP

_SLAB_BYTES = 1 << 19  # of one copy of the rows: it stays in a core's second-level cache


class Rows(NamedTuple):
    """Some rows. Column j of row i of group g is at ((g columns + j) 16 + i); columns beyond d are zero."""

    x: np.ndarray  # as they are
    z: np.ndarray  # minus the pivot
    weight: np.ndarray  # zero for rows that only fill up the last group
    groups: int
    columns: int


def aligned(size: int) -> np.ndarray:
    """Uninitialised float64, beginning at a cache line."""
    raw = np.empty(size + 8)
    skip = (-raw.ctypes.data // 8) % 8
    return raw[skip : skip + size]


def slab_groups(n: int, width: int) -> int:
    """Groups of a slab, for `width` numbers a row."""
    return min(max(_SLAB_BYTES // (8 * width * GROUP), 16), max(-(-n // GROUP), 1))


def slabs(x: np.ndarray, weight: np.ndarray | None, pivot: np.ndarray, columns: int, step: int) -> Iterator[Rows]:
    """All rows, `step` groups at a time. A slab is overwritten by the next."""
    n, d = x.shape
    xs, zs, ws = aligned(step * columns * GROUP), aligned(step * columns * GROUP), aligned(step * GROUP)
    as_is = x.dtype == np.float64 and x.flags.c_contiguous and x.flags.aligned
    converted = None if as_is else np.empty((step * GROUP, d))
    for start in range(0, n, step * GROUP):
        rows = slice(start, min(start + step * GROUP, n))
        n_rows = rows.stop - start
        groups = -(-n_rows // GROUP)
        ws[:n_rows] = 1.0 if weight is None else weight[rows]
        ws[n_rows : groups * GROUP] = 0.0
        source = x[rows]
        if converted is not None:
            source = converted[:n_rows]
            source[...] = x[rows]
        into_groups(np.asarray(source).reshape(-1), n_rows, pivot, columns, ws, xs, zs)
        yield Rows(xs, zs, ws, groups, columns)


@inlined
def move(source, at, d, i, n, pivot, xs, zs, to):  # type: ignore[no-untyped-def]
    """n columns of eight rows, one number at a time."""
    for c in range(i, i + n):
        for row in range(8):
            v = source[at + row * d + c]
            xs[to + c * GROUP + row] = v
            zs[to + c * GROUP + row] = v - pivot[c]


@inlined
def move_8(source, at, d, i, pivot, xs, zs, to):  # type: ignore[no-untyped-def]
    """Eight columns of eight rows."""
    at += i
    columns = transpose(
        load(source, at),
        load(source, at + d),
        load(source, at + 2 * d),
        load(source, at + 3 * d),
        load(source, at + 4 * d),
        load(source, at + 5 * d),
        load(source, at + 6 * d),
        load(source, at + 7 * d),
    )
    for c in range(8):
        store(xs, to + (i + c) * GROUP, columns[c])
        store(zs, to + (i + c) * GROUP, columns[c] - splat(pivot[i + c]))


_NUMBERS = types.Array(types.float64, 1, "C", aligned=True)
_READ_ONLY = types.Array(types.float64, 1, "C", readonly=True, aligned=True)


@compiled_for(types.void(_READ_ONLY, types.intp, _NUMBERS, types.intp, _NUMBERS, _NUMBERS, _NUMBERS))
def into_groups(source, n, pivot, columns, weight, xs, zs):  # type: ignore[no-untyped-def]
    """Lay n rows out in groups; rows without weight, whatever stands in them, are put at the pivot."""
    d = pivot.size
    for start in range(0, n - 7, 8):
        to = (start // GROUP) * columns * GROUP + start % GROUP
        if d < 8:
            move(source, start * d, d, 0, d, pivot, xs, zs, to)
        else:
            for i in range(0, d - 7, 8):
                move_8(source, start * d, d, i, pivot, xs, zs, to)
            if d % 8:
                move_8(source, start * d, d, d - 8, pivot, xs, zs, to)
    for row in range(n - n % 8, n):
        for c in range(d):
            at = ((row // GROUP) * columns + c) * GROUP + row % GROUP
            xs[at] = source[row * d + c]
            zs[at] = source[row * d + c] - pivot[c]
    for row in range(-(-n // GROUP) * GROUP):
        for c in range(d, columns):
            at = ((row // GROUP) * columns + c) * GROUP + row % GROUP
            xs[at], zs[at] = 0.0, 0.0
        if weight[row] == 0.0:
            for c in range(d):
                at = ((row // GROUP) * columns + c) * GROUP + row % GROUP
                xs[at], zs[at] = pivot[c], 0.0
