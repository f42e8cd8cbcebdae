"""pandas frames: each block is converted when it is read, so no second copy of the frame exists."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_em.errors import DataError
from dask_em.model import Chunk, Reader
from dask_em.sources.array import ArrayReader, block_edges
from dask_em.sources.base import TableSource, row_blocks, rows_per_block, uniform_rows
from dask_em.sources.columns import as_list, common_dtype, missing, not_numeric
from dask_em.sources.fingerprint import digest, hash_array
from dask_em.sources.row_columns import RowColumns
from dask_em.sources.sequences import ids_kind, located_ids, no_ids


def choose_columns(frame: Any, columns: Any, beside: Collection[str], where: str) -> list[Any]:
    """The frame's columns to use: those asked for, or all but those that hold weights or sequence ids."""
    available = list(frame.columns)
    if len(set(available)) != len(available):
        twice = sorted({str(c) for c in available if available.count(c) > 1})
        raise DataError(f"{where} has more than one column named {', '.join(twice)}: rename them.")
    chosen = [c for c in available if c not in beside] if columns is None else as_list(columns)
    absent = [c for c in (*chosen, *beside) if c not in available]
    if absent:
        raise missing(absent, available, where)
    if not chosen:
        raise DataError(f"{where} has 0 feature(s) (shape=({len(frame)}, 0)) while a minimum of 1 is required.")
    return chosen


def column_dtype(dtype: Any, name: Any, where: str, *, may_have_nulls: bool = True) -> np.dtype:
    """The NumPy dtype that holds a pandas column, nulls as NaN."""
    if isinstance(dtype, np.dtype):
        if dtype.kind in "biuf":
            return dtype
        kind = {"c": "complex", "M": "a time", "m": "a time difference", "O": "of Python objects"}.get(
            dtype.kind, str(dtype)
        )
        raise not_numeric(name, kind, where)
    native = getattr(dtype, "numpy_dtype", None)  # nullable and Arrow-backed
    if native is None or native.kind not in "biuf" or "decimal" in str(dtype):
        raise not_numeric(name, f"of type {dtype}", where)
    return np.dtype(np.float64) if may_have_nulls and native.kind in "biu" else native


def frame_dtype(frame: Any, columns: Sequence[Any], where: str, *, known: bool) -> np.dtype:
    """One dtype for those columns. `known`: the frame is in memory, so its nulls can be looked for."""
    found = []
    for name in columns:
        column = frame[name]
        nullable = not isinstance(column.dtype, np.dtype)
        nulls = nullable and (not known or bool(column.isna().any()))
        found.append(column_dtype(column.dtype, name, where, may_have_nulls=nulls))
    return common_dtype(found)


def to_array(frame: Any, columns: Sequence[Any], dtype: np.dtype) -> np.ndarray:
    """(n_rows, n_columns) array of the frame's columns, in F order unless the frame's own memory serves as it is."""
    taken = frame[list(columns)] if list(columns) != list(frame.columns) else frame
    if all(isinstance(d, np.dtype) and d == dtype for d in taken.dtypes):
        return taken.to_numpy()
    out = np.empty((len(taken), len(columns)), dtype, order="F")
    for j in range(len(columns)):
        out[:, j] = to_vector(taken.iloc[:, j], dtype)
    return out


def to_vector(column: Any, dtype: np.dtype) -> np.ndarray:
    """One column as an array, nulls as NaN where the dtype has it."""
    if isinstance(column.dtype, np.dtype):
        return column.to_numpy()
    if dtype.kind == "f":
        return column.to_numpy(dtype=dtype, na_value=np.nan)
    return column.to_numpy(dtype=dtype)


def check_row_columns(frame: Any, beside: RowColumns, where: str, *, known: bool) -> None:
    """Raise where a column's type says that it can hold no weights, or no sequence ids."""
    if beside.weight is not None:
        frame_dtype(frame, [beside.weight], where, known=known)
    if beside.sequence is not None and ids_kind(frame[beside.sequence].dtype) is None:
        raise no_ids(f"Column {beside.sequence!r} of {where}", frame[beside.sequence].dtype)


@dataclass(frozen=True)
class FrameReader:
    """Converts rows of a pandas frame. It travels as the arrays that it would give."""

    start: int
    edges: tuple[int, ...]
    frame: Any  # the rows of its blocks
    columns: tuple[Any, ...]
    dtype: np.dtype
    weight: str | None
    sequence: np.ndarray | None

    def read(self, index: int) -> Chunk:
        """The block's rows as one array."""
        i = index - self.start
        at = slice(self.edges[i], self.edges[i + 1])
        rows, sequence = self.frame.iloc[at], None if self.sequence is None else self.sequence[at]
        return Chunk(to_array(rows, self.columns, self.dtype), self._weight(rows), sequence, index)

    def _weight(self, rows: Any) -> np.ndarray | None:
        return None if self.weight is None else to_vector(rows[self.weight], np.dtype(np.float64))

    def __reduce__(self) -> Any:  # a slice of a frame may drag the memory of the whole one along
        x = to_array(self.frame, self.columns, self.dtype)
        return ArrayReader, (self.start, self.edges, x, self._weight(self.frame), self.sequence)


class FrameSource(TableSource):
    """Rows of a pandas frame.

    Parameters
    ----------
    frame : pandas.DataFrame
    columns : sequence, optional
        Names of the columns to use; all of them by default, but for the weight and the sequence.
    weight : str, optional
        Name of the column that holds the rows' weights.
    sequence : str, optional
        Name of the column that holds the ids of the rows' sequences.

    Examples
    --------
    >>> import pandas as pd
    >>> FrameSource(pd.DataFrame({"a": [1.0, 2.0], "n": [3, 4]}), weight="n").read(0).weight
    array([3, 4])
    """

    in_memory = True
    where = "the data frame"

    def __init__(self, frame: Any, columns: Any = None, weight: str | None = None, sequence: str | None = None) -> None:
        where, beside = self.where, RowColumns(weight, sequence)
        chosen = choose_columns(frame, columns, beside.named, "The data frame")
        if not len(frame):
            raise DataError("The data frame is empty, with 0 sample(s): pass at least one row.")
        self.dtype = frame_dtype(frame, chosen, where, known=True)
        check_row_columns(frame, beside, where, known=True)
        self.columns, self.weight = tuple(chosen), weight
        self.sequence = None if sequence is None else located_ids(frame[sequence], where)  # 8 bytes a row, checked once
        kept = beside._replace(sequence=None).after(chosen)
        self.frame = frame if list(frame.columns) == kept else frame[kept]
        self.n_features = len(chosen)
        self.feature_names = chosen if all(isinstance(c, str) for c in chosen) else None
        sizes = uniform_rows(len(frame), rows_per_block(len(frame), self.n_features, self.dtype))
        self.blocks = row_blocks(sizes, self.n_features * self.dtype.itemsize, where)

    def part(self, start: int, stop: int) -> Reader:
        """The rows of those blocks."""
        edges, rows = block_edges(self.blocks[start:stop])
        sequence = None if self.sequence is None else self.sequence[rows]
        return FrameReader(start, edges, self.frame.iloc[rows], self.columns, self.dtype, self.weight, sequence)

    def _fingerprint(self) -> str:
        reader = self.part(0, len(self.blocks))
        step = max(1, len(self.blocks) // 16)  # a bounded number of blocks, since each has to be converted
        hashes = []
        for index in range(0, len(self.blocks), step):
            chunk = reader.read(index)
            hashes.append((hash_array(chunk.x), None if chunk.weight is None else hash_array(chunk.weight)))
        ids = None if self.sequence is None else hash_array(self.sequence)
        return digest("frame", self.columns, self.weight, ids, len(self.frame), *hashes)
