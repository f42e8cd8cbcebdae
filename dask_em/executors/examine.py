"""Looks at the bits of every block in every pass: refuses what cannot be fitted, tells changed data.

A sum of the values is finite only if all of them are, and a wrapping sum of their bits is exact
in any order, so both cost one stroke over memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dask_em.errors import DataError, RowError
from dask_em.model import Block, Chunk

_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def checksum_of(chunk: Chunk) -> int:
    """Sum, modulo 2^64, of the bits of all values and weights as unsigned integers."""
    x = chunk.x
    arrays = [x] if isinstance(x, np.ndarray) else [x.data, x.indices, x.indptr]
    arrays += [a for a in (chunk.weight, chunk.sequence) if a is not None and a.dtype.kind in "biuf"]
    return sum(_bits(a) for a in arrays) % 2**64


def _bits(a: np.ndarray) -> int:
    if a.dtype.itemsize not in _UNSIGNED:  # extended precision: rare, and converted for the arithmetic anyway
        a = a.astype(np.float64)
    if not (a.flags.c_contiguous or a.flags.f_contiguous):
        return sum(_bits(np.ascontiguousarray(rows)) for rows in _tiles(a))
    flat = a.ravel(order="K").view(_UNSIGNED[a.dtype.itemsize])
    return int(np.add.reduce(flat, dtype=np.uint64))


def _tiles(a: np.ndarray, rows: int = 8192) -> list[np.ndarray]:
    return [a[i : i + rows] for i in range(0, a.shape[0], rows)]


def _all_finite(a: np.ndarray) -> bool:
    if a.dtype.kind not in "fc":
        return True
    if a.dtype.itemsize >= 4:
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(np.add.reduce(a, axis=None)):
                return True
    # a half-precision sum, or one that overflowed though every value is finite
    return all(bool(np.isfinite(rows).all()) for rows in _tiles(a))


def refuse_bad_values(chunk: Chunk, block: Block, names: Sequence[str] | None, *, accepts_nan: bool) -> None:
    """Raise `DataError` for NaN or infinity in the rows, for weights that are not weights, and ids that are missing."""
    values = chunk.x if isinstance(chunk.x, np.ndarray) else chunk.x.data
    if not _all_finite(values) and (not accepts_nan or np.isinf(values).any()):
        raise DataError(_first_bad_value(chunk.x, block, names, accepts_nan))
    for column, word in ((chunk.weight, "weight"), (chunk.sequence, "sequence id")):
        if column is not None and column.shape != (chunk.n_rows,):
            raise DataError(f"{block.name}: {column.shape[0]} {word}s for {chunk.n_rows} rows; give one {word} a row")
    ids = chunk.sequence
    if ids is not None and ids.dtype.kind == "f" and np.isnan(ids).any():
        row = int(np.flatnonzero(np.isnan(ids))[0])
        raise DataError(f"{block.name}: the sequence id of {_row(row, block)} is NaN; every row belongs to a sequence")
    w = chunk.weight
    if w is None:
        return
    if not (_all_finite(w) and (w.dtype.kind in "bu" or w.min() >= 0)):
        row = int(np.flatnonzero(~(np.isfinite(w) & (w >= 0)))[0])
        raise DataError(
            f"{block.name}: the weight of {_row(row, block)} is {w[row]}; weights must be finite and not negative: "
            "mend or drop the row"
        )


def _first_bad_value(x: Any, block: Block, names: Sequence[str] | None, accepts_nan: bool) -> str:
    if not isinstance(x, np.ndarray):
        x = x.toarray()
    bad = np.isinf(x) if accepts_nan else ~np.isfinite(x)
    row = int(np.flatnonzero(bad.any(axis=1))[0])
    column = int(np.flatnonzero(bad[row])[0])
    value = x[row, column]
    what = "NaN" if np.isnan(value) else "infinity"
    where = f"column {names[column]!r}" if names is not None else f"column {column}"
    remedy = "drop or impute the rows that hold NaN" if what == "NaN" else "replace the infinite values"
    return f"{block.name}: {_row(row, block)}, {where} is {what}; {remedy} first"


def refused(error: RowError, block: Block, names: Sequence[str] | None) -> DataError:
    """The error for a value that a model refuses, with its place."""
    column = f"column {names[error.column]!r}" if names is not None else f"column {error.column}"
    return DataError(f"{block.name}: {_row(error.row, block)}, {column} {error.why}")


def _row(row: int, block: Block) -> str:
    return f"row {row}" if not block.offset else f"row {row} (row {block.offset + row} of the data)"
