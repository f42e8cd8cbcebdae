"""Independent columns of counts, and perhaps one that is none: the size of each row, an exposure or a number of trials.

In the sums, a value of size n counts n times where it would count once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np

from dask_em.distributions.columns import Columns
from dask_em.distributions.named import check_column, position
from dask_em.distributions.sizes import Size
from dask_em.errors import ConfigurationError


@dataclass(frozen=True)
class SizedColumns(Columns):
    """Base of distributions of counts: subclasses have a hyperparameter that names the column of sizes.

    Parameters
    ----------
    names : tuple of str, optional
        Of the columns; found from the data's names in a fit.
    mean_size : float
        Of the rows, on average; set by a fit.
    """

    names: tuple[str, ...] | None = field(default=None, kw_only=True, compare=False, repr=False)
    mean_size: float = field(default=1.0, kw_only=True, compare=False, repr=False)

    size: ClassVar[Size]

    @abstractmethod
    def log_base_of_size(self, x: np.ndarray, n: np.ndarray) -> np.ndarray:
        """log h of counts (n_rows, d) of sizes (n_rows, 1), in which what is missing is zero."""

    @property
    def size_column(self) -> str | int | None:
        """The column of sizes; None: each row has size one."""
        column: str | int | None = getattr(self, self.size.role)
        return column

    def __post_init__(self) -> None:
        if self.size_column is not None:
            check_column(self.size.role, self.size_column)

    # ---- columns

    def _at(self, n_features: int | None) -> int:
        """Where the sizes are."""
        assert self.size_column is not None  # is asked before
        return position(type(self).__name__, self.size.role, self.size_column, self.names, n_features)

    def split(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Counts (n_rows, d), and sizes (n_rows, 1), if there are any."""
        if self.size_column is None:
            return x, None
        j = self._at(x.shape[1])
        return np.delete(x, j, axis=1), self.size.of(type(self).__name__, x, j)[:, None]

    def joined(self, x: np.ndarray) -> np.ndarray:
        """Counts with a column of sizes of one, if it has one."""
        return x if self.size_column is None else np.insert(x, self._at(x.shape[1] + 1), 1.0, axis=1)

    def resolved(self, names: Sequence[str] | None) -> Self:
        """With the names of the columns, of which one is that of the sizes, if there is one."""
        if self.size_column is None:
            return self
        new = replace(self, names=None if names is None else tuple(names))
        new._at(None if names is None else len(names))
        return new

    def within(self, low: np.ndarray, high: np.ndarray) -> Self:
        """The same distribution; refuses sizes that are no column, and no counts at all."""
        if self.size_column is not None:
            self._at(len(low))
            if len(low) == 1:
                raise ConfigurationError(
                    f"{type(self).__name__} has no column but its {self.size.role}: give the data a column of counts"
                )
        return self

    def about(self, center: np.ndarray) -> Self:
        """The same distribution, told the average size."""
        return self if self.size_column is None else replace(self, mean_size=float(center[self._at(len(center))]))

    def modelled(self, names: Sequence[str]) -> list[str]:
        """All but that of the sizes."""
        return [name for j, name in enumerate(names) if self.size_column is None or j != self._at(len(names))]

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """One for each component and column of counts."""
        return n_components * (n_features - int(self.size_column is not None))

    # ---- rows

    def check_rows(self, x: np.ndarray) -> None:
        """Raise `RowError` for what is no count, or no size."""
        if self.size_column is not None:
            self.size.refuse(type(self).__name__, x, self._at(x.shape[1]))
        super().check_rows(x)

    def parts(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Counts, each of which counts as much as its size."""
        x, n = self.split(x)
        counts, seen, base = super().parts(x)
        if n is None:
            return counts, seen, base
        own = self.log_base_of_size(counts, n)
        if seen is None:
            return counts, np.repeat(n, counts.shape[1], axis=1), own.sum(axis=1)
        return counts, seen * n, (own * seen).sum(axis=1)
