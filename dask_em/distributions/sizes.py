"""Sizes of rows: the exposure that counts were taken over, or the number of trials that they are of.

A size n multiplies the mean and the variance of a response, so that where a value has η t(x) - A in its log density,
one of size n has η t(x) - n A.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dask_em.errors import DataError, RowError


@dataclass(frozen=True)
class Size:
    """What a column of sizes is called, and what it must be: above zero."""

    role: str  # the name of the hyperparameter
    whole: bool

    @property
    def should(self) -> str:
        """In words."""
        return f"{'a whole number of' if self.whole else 'an'} {self.role} above 0"

    def wrong(self, n: np.ndarray) -> np.ndarray:
        """(n_rows,) which sizes are missing, or none."""
        return ~((n > 0) & (np.floor(n) == n) if self.whole else n > 0)

    def refuse(self, who: str, x: np.ndarray, column: int) -> None:
        """Raise `RowError` for the first row whose size is none."""
        wrong = self.wrong(x[:, column])
        if wrong.any():
            row = int(np.argmax(wrong))
            value = x[row, column]
            if np.isnan(value):
                why = f"is NaN, where {who} needs {self.should} of every row: fill such rows in, or drop them"
                raise RowError(row, column, why)
            raise RowError(row, column, f"is {value:g}, where {who} needs {self.should}")

    def of(self, who: str, x: np.ndarray, column: int) -> np.ndarray:
        """(n_rows,) the sizes.

        Raises
        ------
        DataError
            One of them is none.
        """
        n = np.asarray(x[:, column], dtype=np.float64)
        if self.wrong(n).any():
            raise DataError(f"{who} needs {self.should} in column {column} of every row: mend or drop the rows without")
        return n


EXPOSURE = Size("exposure", whole=False)
TRIALS = Size("trials", whole=True)
