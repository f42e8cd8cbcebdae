"""Exposures: how long, or of how many, a row's counts were taken; a mean is the rate times the exposure."""

from __future__ import annotations

import numpy as np

from dask_em.errors import DataError, RowError

_SHOULD = "an exposure above 0"


def refuse_exposures(who: str, x: np.ndarray, column: int) -> None:
    """Raise `RowError` for the first exposure that is missing, or not above zero."""
    wrong = ~(x[:, column] > 0)
    if wrong.any():
        row = int(np.argmax(wrong))
        value = x[row, column]
        raise RowError(row, column, f"is {'NaN' if np.isnan(value) else f'{value:g}'}, where {who} needs {_SHOULD}")


def exposures(who: str, x: np.ndarray, column: int) -> np.ndarray:
    """(n,) the exposures.

    Raises
    ------
    DataError
        One of them is missing, or not above zero.
    """
    t = np.asarray(x[:, column], dtype=np.float64)
    if not (t > 0).all():
        raise DataError(f"{who} needs {_SHOULD} in column {column} of every row: mend or drop the rows without")
    return t
