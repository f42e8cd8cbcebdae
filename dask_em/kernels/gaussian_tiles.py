"""Rows of any dtype and order, as the compiled loops want them: groups of sixteen, column by column, float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dask_em.kernels.softmax import GROUP

_SLAB_BYTES = 1 << 18  # of one copy of the rows: it stays in a core's second-level cache


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
    return min(max(_SLAB_BYTES // (8 * width * GROUP), 16), -(-n // GROUP))


def slabs(x: np.ndarray, weight: np.ndarray | None, pivot: np.ndarray, columns: int, step: int) -> Iterator[Rows]:
    """All rows, `step` groups at a time. A slab is overwritten by the next."""
    n, d = x.shape
    xs, zs, ws = aligned(step * columns * GROUP), aligned(step * columns * GROUP), aligned(step * GROUP)
    if columns > d:
        xs[:], zs[:] = 0.0, 0.0
    for start in range(0, n, step * GROUP):
        rows = slice(start, min(start + step * GROUP, n))
        groups = -(-(rows.stop - start) // GROUP)
        shape = (groups, columns, GROUP)
        raw, centred = (a[: groups * columns * GROUP].reshape(shape) for a in (xs, zs))
        w = ws[: groups * GROUP]
        w[: rows.stop - start] = 1.0 if weight is None else weight[rows]
        w[rows.stop - start :] = 0.0
        _fill(raw[:, :d], x[rows], pivot)
        if weight is not None and not w.all():  # whatever stands in rows that do not count
            g, i = np.divmod(np.flatnonzero(w == 0), GROUP)
            raw[g, :d, i] = pivot
        np.subtract(raw[:, :d], pivot[:, None], out=centred[:, :d])
        yield Rows(xs, zs, ws, groups, columns)


def _fill(groups: np.ndarray, x: np.ndarray, pivot: np.ndarray) -> None:
    whole = len(x) // GROUP
    by_row = groups.transpose(0, 2, 1)  # (groups, 16, d)
    by_row[:whole] = x[: whole * GROUP].reshape(whole, GROUP, -1)
    rest = len(x) - whole * GROUP
    if rest:
        by_row[whole, :rest] = x[whole * GROUP :]
        by_row[whole, rest:] = pivot
