"""Rows with what is missing filled in, as they are written: once, or in several draws side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_em.errors import ConfigurationError
from dask_em.model import Block
from dask_em.sinks.answers import RowAnswers

_TILE_VALUES = 1 << 20  # numbers of filled rows that exist at a time: 8 MiB
_NAMES = ("row", "draw")


@dataclass(frozen=True)
class Imputations(RowAnswers):
    """Filled rows: as an array (n_rows, d), or of draws (n_rows, draws, d); as a table, a row for each draw of a row.

    Parameters
    ----------
    fills : tuple of callable
        Each takes rows (n, d) and the block that says where they are, and gives them filled.
    names : tuple of str
        Of the columns.
    of : dtype
        Of the filled rows.
    drawn : bool
        Whether they are draws, of which there may be one.
    """

    fills: tuple[Callable[[np.ndarray, Block], np.ndarray], ...]
    names: tuple[str, ...]
    of: np.dtype
    drawn: bool = False

    accepts_nan = True
    fill_value = np.nan

    def __post_init__(self) -> None:
        taken = [name for name in _NAMES if name in self.names]
        if self.drawn and taken:
            raise ConfigurationError(
                f"the data has a column {taken[0]!r}, which is what a column of the draws is called: rename it, or "
                "write an array (.zarr)"
            )

    @property
    def needs_place(self) -> bool:
        """Whether it must be known where rows are: draws depend on it."""
        return self.drawn

    @property
    def trailing(self) -> tuple[int, ...]:
        """The shape of what is written for a row."""
        d = len(self.names)
        return (len(self.fills), d) if self.drawn else (d,)

    @property
    def dtype(self) -> np.dtype:
        """Of the filled rows."""
        return self.of

    @property
    def attributes(self) -> dict[str, Any]:
        """Of the array."""
        return {"answer": "draws" if self.drawn else "imputed", "columns": list(self.names)}

    @property
    def schema(self) -> dict[str, np.dtype]:
        """Columns of the table."""
        own = dict.fromkeys(self.names, self.dtype)
        return {"row": np.dtype(np.int64), "draw": np.dtype(np.int32), **own} if self.drawn else own

    def tiles(self, x: Any, first: int) -> Iterator[tuple[int, np.ndarray]]:
        """(row of x, filled rows) for consecutive rows of x, whose first has the number `first` in the data."""
        step = max(1, _TILE_VALUES // int(np.prod(self.trailing)))
        for start in range(0, len(x), step):
            rows = x[start : start + step]
            block = Block(0, "rows", len(rows), rows.nbytes, first + start)
            each = [fill(rows, block) for fill in self.fills]
            values = np.stack(each, axis=1) if self.drawn else each[0]
            yield start, values.astype(self.dtype, copy=False)

    def columns(self, values: np.ndarray, first: int) -> list[np.ndarray]:
        """Columns of the table of some filled rows; draws of a row follow each other."""
        if not self.drawn:
            return list(values.T.copy())
        n, draws, d = values.shape
        rows = np.repeat(np.arange(first, first + n), draws)
        return [rows, np.tile(np.arange(draws, dtype=np.int32), n), *values.reshape(n * draws, d).T.copy()]
