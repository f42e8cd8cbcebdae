"""Rows that may be compressed, as a scipy.sparse.csr_array, and what is asked of them and of dense ones alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse, vstack

from dask_em.errors import DataError
from dask_em.model import Model

Parts = tuple[np.ndarray, np.ndarray, np.ndarray, int]  # values, columns, ends of rows; and the number of columns


def compressed(x: Any) -> csr_array:
    """Sparse rows of any format, with one value a cell, in order of column.

    Raises
    ------
    DataError
        They are not a table of real numbers.
    """
    if x.ndim != 2 or 0 in x.shape:
        raise DataError(f"The sparse data has shape {x.shape}, where at least one row and one column are expected.")
    if x.dtype.kind not in "biuf":
        raise DataError(f"The sparse data holds values of type {x.dtype}, not real numbers.")
    rows = csr_array(x)
    if not rows.has_canonical_format:
        rows = rows.copy() if rows.data is getattr(x, "data", None) else rows
        rows.sum_duplicates()
    return rows


def refuse_sparse(sparse: bool, model: Model) -> None:
    """Raise `DataError` where rows are sparse and the model takes dense ones only."""
    if sparse and not model.accepts_sparse:
        raise DataError(
            "the data is sparse, and this model takes dense rows only: convert it with .toarray(), a dask array with "
            "x.map_blocks(lambda b: b.toarray()); Mixture(..., Multinomial()) takes sparse counts"
        )


def row_bytes(x: Any) -> int:
    """Bytes of a row, on average."""
    if not issparse(x):
        return int(x.shape[1] * x.dtype.itemsize)
    return -(-(x.data.nbytes + x.indices.nbytes + x.indptr.nbytes) // max(x.shape[0], 1))


def source_row_bytes(source: Any) -> int:
    """Bytes of a row of a source, on average, as far as they are known before it is read."""
    if getattr(source, "sparse", False) and source.n_rows:
        return int(-(-sum(block.nbytes for block in source.blocks) // source.n_rows))
    if hasattr(source, "bytes_a_row"):
        return int(source.bytes_a_row)
    return int(source.n_features * source.dtype.itemsize)


def stacked(parts: Sequence[Any]) -> Any:
    """One array of the rows of several."""
    return csr_array(vstack(parts, format="csr")) if any(issparse(x) for x in parts) else np.concatenate(parts)


def packed(x: Any) -> Any:
    """The same rows, those of a dense array one after another in memory."""
    return x if issparse(x) else np.ascontiguousarray(x)


def to_parts(x: Any) -> Any:
    """Sparse rows as plain arrays, so that they can be stored; dense ones as they are."""
    return (x.data, x.indices, x.indptr, int(x.shape[1])) if issparse(x) else x


def from_parts(x: np.ndarray | Parts) -> Any:
    """Inverse of `to_parts`."""
    if isinstance(x, np.ndarray):
        return x
    data, indices, ends, n_columns = x
    return csr_array((data, indices, ends), shape=(len(ends) - 1, int(n_columns)))
