"""Data of few distinct rows, summed up by them: with their weights they are all that EM needs of it.

Counts and codes repeat: a million answers to seven questions of yes or no are at most 128 rows.  What the
distinct rows of blocks have in common is joined as blocks merge, and given up once there are too many.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dask_em.model import Chunk

CAPACITY = 1 << 16  # distinct rows, beyond which they are no summary
_CELLS = 1 << 20  # of a table that counts a block's rows directly


@dataclass(frozen=True)
class Distinct:
    """The distinct rows of some data in a fixed order, and their weights; None: there are more than `CAPACITY`."""

    x: np.ndarray | None  # (m, d), the data's own dtype
    weight: np.ndarray | None  # (m,)

    @classmethod
    def of(cls, chunk: Chunk) -> Distinct:
        """The distinct rows of a chunk that have weight."""
        x = np.asarray(chunk.x)
        w = np.ones(len(x)) if chunk.weight is None else np.asarray(chunk.weight, dtype=np.float64)
        if chunk.weight is not None:
            x, w = x[w > 0], w[w > 0]
        return _few(*(_counted(x, w) or _sorted(x, w)))

    def merge(self, right: Distinct) -> Distinct:
        """Join with the rows that follow."""
        if self.x is None or self.weight is None or right.x is None or right.weight is None:
            return Distinct(None, None)
        return _few(*_sorted(np.concatenate([self.x, right.x]), np.concatenate([self.weight, right.weight])))

    def close(self) -> Chunk | None:
        """All of them as rows with weights, in an order that says nothing, so that a first part is a sample."""
        if self.x is None or self.weight is None:
            return None
        order = np.random.default_rng(0).permutation(len(self.x))
        return Chunk(self.x[order], self.weight[order])


def _few(x: np.ndarray, w: np.ndarray) -> Distinct:
    return Distinct(x, w) if len(x) <= CAPACITY else Distinct(None, None)


def _counted(x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """By a table with a cell for each row that is possible; None where that would be large."""
    if not len(x):
        return x, w
    key, cells = np.zeros(len(x), dtype=np.int64), 1
    for column in x.T:
        gaps = np.isnan(column)
        seen = column[~gaps] if gaps.any() else column
        low, high = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 0.0)
        if not high - low < _CELLS:
            return None
        size = int(high - low) + 2  # the last is for what is missing
        code = (
            np.where(gaps, size - 1, column - low).astype(np.int64) if gaps.any() else (column - low).astype(np.int64)
        )
        if column.dtype.kind == "f" and (code[~gaps] + low != seen).any():
            return None
        cells *= size
        if cells > _CELLS:
            return None
        key = key * size + code
    mass = np.bincount(key, w, minlength=cells)
    first = np.full(cells, -1)
    first[key[::-1]] = np.arange(len(key))[::-1]
    there = np.flatnonzero(first >= 0)
    return _sorted(x[first[there]], mass[there])


def _sorted(x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By sorting: missing values come last, and are alike."""
    if not len(x):
        return x, w
    order = np.lexsort(x.T[::-1])
    x, w = x[order], w[order]
    new = np.ones(len(x), dtype=bool)
    same = x[1:] == x[:-1]
    if x.dtype.kind == "f":
        same |= np.isnan(x[1:]) & np.isnan(x[:-1])
    new[1:] = ~same.all(axis=1)
    starts = np.flatnonzero(new)
    return x[starts], np.add.reduceat(w, starts)
