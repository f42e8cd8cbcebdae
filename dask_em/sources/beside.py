"""Arrays that lie beside the data: weights and sequence ids, one a row, cut into the data's blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

from dask_em.errors import ConfigurationError, DataError
from dask_em.sources.aligned import AlignedSource
from dask_em.sources.array import ArraySource
from dask_em.sources.base import TableSource
from dask_em.sources.numbers import refuse_masked
from dask_em.sources.row_columns import WORDS
from dask_em.sources.sequences import ids_kind, located_ids, no_ids

_TITLES = {"weight": "Sample weights", "sequence": "Sequence ids"}


def with_array(source: TableSource, field: str, values: Any) -> TableSource:
    """The source with an array of what is to be that field of its chunks, cut into its blocks."""
    if type(values).__module__.split(".")[0] == "dask":
        return AlignedSource(source, _dask_column(source, field, values), field)
    column = checked_weight(values) if field == "weight" else checked_sequence(values)
    if source.n_rows is None:
        raise ConfigurationError(
            f"An array of {WORDS[field]} needs rows that are known beforehand; with filters or unknown chunk sizes, "
            f"use a column of the data as the {field}."
        )
    _refuse_length(len(column), source.n_rows, field)
    sizes = [b.rows or 0 for b in source.blocks]
    return AlignedSource(source, ArraySource(column[:, None], sizes=sizes, where=f"the {WORDS[field]}"), field)


def _dask_column(source: TableSource, field: str, values: Any) -> TableSource:
    from dask_em.sources.dask_collection import DaskArraySource

    ready = field == "weight"
    if hasattr(values, "to_dask_array"):
        if not ready and values.ndim == 1:  # while it is a pandas column, which knows its categories and nulls
            _refuse_type(values.dtype)
            values, ready = values.map_partitions(_partition_ids, meta=(values.name, np.int64)), True
        values = values.to_dask_array()
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(f"{_TITLES[field]} must be 1D, one a row; the Dask array has shape {values.shape}.")
    if source.n_rows is not None and not np.isnan(values.shape[0]):
        _refuse_length(values.shape[0], source.n_rows, field)
        values = values.rechunk((tuple(b.rows for b in source.blocks),))
    if not ready:
        _refuse_type(values.dtype)
        values = values.map_blocks(_chunk_ids, dtype=np.int64, meta=np.empty(0, np.int64))
    return DaskArraySource(values[:, None])


def _partition_ids(column: Any, partition_info: dict[str, Any] | None = None) -> Any:
    import pandas as pd

    number = (partition_info or {}).get("number", 0)
    return pd.Series(located_ids(column, f"partition {number} of the sequence ids"), name=column.name)


def _chunk_ids(values: Any, block_info: dict[Any, Any] | None = None) -> np.ndarray:
    number = block_info[0]["chunk-location"][0] if block_info else 0
    return located_ids(values, f"chunk {number} of the sequence ids")


def _refuse_length(n: int, n_rows: int, field: str) -> None:
    if n != n_rows:
        raise DataError(f"There are {n} {WORDS[field]} for {n_rows} rows: give each row one.")


def checked_weight(weight: Any) -> np.ndarray:
    """Weights as a vector of numbers."""
    refuse_masked(weight, "sample_weight")
    w = np.asarray(weight)
    if w.ndim == 0 and w.dtype.kind in "biuf":
        raise DataError(
            f"Sample weights must be 1D, one a row; got the single number {w}, which for every row alike would "
            "change nothing but the scale of the likelihood: leave it out."
        )
    if w.ndim == 2 and w.shape[1] == 1:
        w = w[:, 0]
    if w.ndim != 1 or w.dtype.kind not in "biuf":
        raise DataError(f"Sample weights must be 1D, one number a row; got shape {w.shape} of {w.dtype}.")
    return w


def checked_sequence(sequence: Any) -> np.ndarray:
    """Sequence ids as a vector of int64."""
    refuse_masked(sequence, "sequence")
    is_column = type(sequence).__module__.split(".")[0] == "pandas" and getattr(sequence, "ndim", 0) == 1
    ids = sequence if is_column else np.asarray(sequence)
    if ids.ndim == 2 and ids.shape[1] == 1:
        ids = ids[:, 0]
    if ids.ndim != 1:
        raise DataError(f"Sequence ids must be 1D, one a row; got shape {ids.shape}.")
    _refuse_type(ids.dtype)
    return located_ids(ids, "the sequence ids")


def _refuse_type(dtype: Any) -> None:
    if ids_kind(dtype) is None:
        raise no_ids("The array of sequence ids", dtype)
