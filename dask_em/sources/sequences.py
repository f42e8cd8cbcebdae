"""Ids of sequences as 64-bit integers: equal where the ids are, whichever block they are read in."""

from __future__ import annotations

from typing import Any

import numpy as np

from dask_em.errors import CellError, DataError
from dask_em.sources.levels import is_text
from dask_em.sources.numbers import refuse_masked

_KEY = "dask_em sequence"  # fixed, so that a text has one hash in all processes
_REMEDY = "sequence ids are integers or text, so convert them, as with pandas.factorize(ids)[0]"


def sequence_ids(column: Any) -> np.ndarray:
    """(n_rows,) int64 ids of a NumPy array or a pandas column: integers as they are, text by its hash.

    Ids are only compared with each other.  Two texts of a million share a hash with a probability of 3e-8.

    Raises
    ------
    CellError
        An id is missing, or is neither an integer nor text.

    Examples
    --------
    >>> sequence_ids(np.array([3.0, 3.0, 7.0]))
    array([3, 3, 7])
    """
    import pandas as pd

    refuse_masked(column, "sequence")
    dtype = column.dtype
    if len(column) and ids_kind(dtype) is None:
        raise CellError(0, f"the sequence id is of type {dtype}: {_REMEDY}")
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        return _whole(np.asarray(column))
    if isinstance(column, np.ndarray):
        column = column.astype(object, copy=False)
    try:
        codes, distinct = pd.factorize(column)  # each value is looked at once, as sequences are long
    except TypeError as error:  # lists and the like, which have no hash
        raise DataError(f"The sequence ids cannot be told apart ({error}): {_REMEDY}.") from None
    _refuse_missing(codes < 0)
    values = np.asarray(distinct)
    try:
        ids = _whole(values) if values.dtype.kind in "iuf" else _hashes(values)
    except CellError as error:
        raise CellError(int(np.flatnonzero(codes == error.row)[0]), error.why) from None
    return ids[codes]


def ids_kind(dtype: Any) -> str | None:
    """Whether ids of a NumPy or pandas type are numbers or text (objects are to be looked at); None: neither."""
    categories = getattr(dtype, "categories", None)
    dtype = dtype if categories is None else categories.dtype
    native = getattr(dtype, "numpy_dtype", dtype)
    if not isinstance(native, np.dtype):
        return "text" if is_text(native) else None
    return {"i": "numbers", "u": "numbers", "f": "numbers", "O": "text", "U": "text", "T": "text"}.get(native.kind)


def located_ids(column: Any, where: str) -> np.ndarray:
    """As `sequence_ids`; an error says of what the row is."""
    try:
        return sequence_ids(column)
    except CellError as error:
        raise error.located(where) from None


def no_ids(what: str, kind: Any) -> DataError:
    """The error for a column or an array that cannot tell sequences apart."""
    return DataError(f"{what} is of type {kind}: {_REMEDY}.")


def _refuse_missing(missing: np.ndarray) -> None:
    if missing.any():
        row = int(np.flatnonzero(missing)[0])
        raise CellError(row, "the sequence id is missing: every row belongs to a sequence, so give it one or drop it")


def _whole(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        _refuse_missing(np.isnan(values))
        exact = 2.0 ** min(np.finfo(values.dtype).nmant + 1, 53)
        wrong = (np.abs(values) >= exact) | (values != np.trunc(values))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            what = "a number too large for a float to hold exactly" if abs(values[row]) >= exact else "not whole"
            raise CellError(row, f"the sequence id is {values[row]}, {what}: {_REMEDY}")
    return values.astype(np.int64, copy=False)


def _hashes(values: np.ndarray) -> np.ndarray:
    from pandas.util import hash_array

    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise CellError(row, f"the sequence id is {value!r} of type {type(value).__name__}: {_REMEDY}")
    return hash_array(values.astype(object), hash_key=_KEY, categorize=False).view(np.int64)
