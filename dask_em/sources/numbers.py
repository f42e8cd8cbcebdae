"""What is an array of numbers with rows and columns, and a sentence for what is none."""

from __future__ import annotations

from typing import Any

import numpy as np

from dask_em.errors import DataError, NotANumberError

_ENCODE = "encode it as numbers, or leave out that column"


def checked_array(data: Any, what: str = "X") -> np.ndarray:
    """A two-dimensional array of real numbers, without a copy where it is one.

    Raises
    ------
    DataError
        It is masked, complex, of text, of objects that are no numbers, of another number of dimensions, or empty.

    Examples
    --------
    >>> checked_array([[1, 2], ["a", 3]])
    Traceback (most recent call last):
    ...
    dask_em.errors.DataError: row 1, column 0 of X is the text 'a': encode it as numbers, or leave out that column
    """
    from sklearn.utils.validation import check_array

    refuse_masked(data, what)
    if isinstance(data, np.ndarray):
        refuse_no_numbers(data, what)
    try:
        return check_array(data, ensure_all_finite=False, copy=False)
    except (ValueError, TypeError) as error:
        refuse_no_numbers(_as_objects(data), what)
        raise DataError(f"{what} is no array of numbers: {error}") from error


def refuse_no_numbers(x: np.ndarray, what: str = "X") -> None:
    """Raise a sentence for an array that is no table of real numbers; values that are not finite are not looked for."""
    if x.dtype.kind == "c":
        raise DataError(
            f"Complex data not supported: {what} is of type {x.dtype}; pass its real part, or real and imaginary parts "
            "as columns"
        )
    if x.ndim != 2:
        hint = "X.reshape(-1, 1) if it is one column" if x.ndim < 2 else "X.reshape(-1, X.shape[-1])"
        raise DataError(
            f"{what} has shape {x.shape} where rows and columns are expected: Reshape your data, as with {hint}"
        )
    for n, name, remedy in zip(x.shape, ("sample", "feature"), ("row", "column"), strict=True):
        if n == 0:
            raise DataError(
                f"{what} has 0 {name}(s) (shape={x.shape}) while a minimum of 1 is required: pass at least one {remedy}"
            )
    if x.dtype.kind in "mMSUV":
        refuse_cell(x[0, 0], 0, 0, what)
    if x.dtype.kind == "O":
        for (row, column), value in np.ndenumerate(x):
            try:
                float(value)
            except (TypeError, ValueError):
                refuse_cell(value, row, column, what)


def refuse_cell(value: Any, row: int, column: int, what: str) -> None:
    """Raise for a value that is no number."""
    where = f"row {row}, column {column} of {what}"
    if isinstance(value, (str, bytes)):
        raise DataError(f"{where} is the text {value!r}: {_ENCODE}")
    raise NotANumberError(
        f"{where} is of type {type(value).__name__}; an argument must be a string or a number: {_ENCODE}"
    )


def refuse_masked(x: Any, what: str) -> None:
    """Raise for a masked array, some values of which are not to be seen."""
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise DataError(
            f"{what} is a masked array, {np.ma.count_masked(x)} of whose values are masked: leave those rows out, or "
            "fill them, as in x.filled(numpy.nan)."
        )


def _as_objects(data: Any) -> np.ndarray:
    uneven = isinstance(data, (list, tuple)) and len({np.size(row) for row in data}) > 1
    if uneven:
        raise DataError("the rows of X are not all of one length: pass as many values in each")
    return np.asarray(data, dtype=object)
