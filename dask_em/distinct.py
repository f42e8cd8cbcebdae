"""Data of few distinct rows, summed up by them: with their weights they are all that EM needs of it.

Counts and codes repeat: a million answers to seven questions of yes or no are at most 128 rows.  What the
distinct rows of blocks have in common is joined as blocks merge, and given up once there are too many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse

from dask_em.hashing import row_keys
from dask_em.model import Chunk
from dask_em.sparse import row_bytes, stacked

CAPACITY = 1 << 16  # distinct rows, beyond which they are no summary
_BYTES = 1 << 26  # of them
_REPEATED = 4  # times that a row is there, on average
_LOOK = 1 << 12  # rows that tell whether it is worth to go on
_SELDOM = 8  # times fewer repeated ones than expected
_CELLS = 1 << 20  # of a table that counts a block's rows directly


@dataclass(frozen=True)
class Distinct:
    """The distinct rows of some data in a fixed order, and their weights; None: there are more than `CAPACITY`."""

    x: Any  # (m, d), an array or csr_array of the data's own dtype
    weight: np.ndarray | None  # (m,)

    @classmethod
    def of(cls, chunk: Chunk) -> Distinct:
        """The distinct rows of a chunk that have weight."""
        x = csr_array(chunk.x) if issparse(chunk.x) else np.asarray(chunk.x)
        w = np.ones(x.shape[0]) if chunk.weight is None else np.asarray(chunk.weight, dtype=np.float64)
        if chunk.weight is not None:
            x, w = x[w > 0], w[w > 0]
        if not issparse(x):
            counted = _counted(x, w)
            if counted is not None:
                return _few(*counted)
        return cls(None, None) if _surely_many(x) else _few(*_grouped(x, w))

    def merge(self, right: Distinct) -> Distinct:
        """Join with the rows that follow."""
        if self.x is None or self.weight is None or right.x is None or right.weight is None:
            return Distinct(None, None)
        return _few(*_grouped(stacked([self.x, right.x]), np.concatenate([self.weight, right.weight])))

    def close(self) -> Chunk | None:
        """All of them as rows with weights, in an order that says nothing, so that a first part is a sample."""
        return None if self.x is None or self.weight is None else Chunk(self.x, self.weight)


def few(rows: Chunk, n: int) -> bool:
    """Whether distinct rows are few enough to stand for so many: those of other data may as well be read again."""
    return rows.n_rows * _REPEATED <= n


def _few(x: Any, w: np.ndarray | None) -> Distinct:
    if x is None or x.shape[0] > CAPACITY or x.shape[0] * row_bytes(x) > _BYTES:
        return Distinct(None, None)
    return Distinct(x, w)


def _surely_many(x: Any) -> bool:
    """Whether some rows repeat so seldom that all rows are hardly few: to group them would be for nothing.

    Of so many rows as are looked at, drawn from D at random, look² / 2D are expected to be there already.
    """
    if x.shape[0] < _LOOK:
        return False
    distinct = len(np.unique(row_keys(0, x[:_LOOK])))
    return bool(_LOOK - distinct < _LOOK**2 / (2 * CAPACITY) / _SELDOM)


def _counted(x: np.ndarray, w: np.ndarray) -> tuple[Any, np.ndarray | None] | None:
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
    return _grouped(x[first[there]], mass[there])


def _grouped(x: Any, w: np.ndarray) -> tuple[Any, np.ndarray | None]:
    """Rows that are alike as one, in the order of a hash of what they hold; none, where unlike ones have the same."""
    if not x.shape[0]:
        return x, w
    keys, proof = row_keys(0, x), row_keys(1, x)
    order = np.argsort(keys, kind="stable")
    keys, proof = keys[order], proof[order]
    new = np.concatenate([[True], keys[1:] != keys[:-1]])
    if (proof[1:] != proof[:-1])[~new[1:]].any():
        return None, None
    starts = np.flatnonzero(new)
    return x[order[starts]], np.add.reduceat(w[order], starts)
