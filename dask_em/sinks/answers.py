"""What is asked about each row, and in how much memory at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from dask_em.errors import ConfigurationError
from dask_em.model import Chunk, Params

Want = Literal["labels", "proba", "loglik", "factors", "distances", "shares"]
_WIDE = {
    "proba": "proba",
    "factors": "factor",
    "distances": "distance",
    "shares": "topic",
}  # a number for each component, and its name
_TILE_VALUES = 1 << 20  # numbers of an n x K intermediate that exist at a time: 8 MiB


class RowAnswers(ABC):
    """What is written for each row, into an array or a table."""

    @property
    @abstractmethod
    def accepts_nan(self) -> bool:
        """Whether rows may hold missing values."""

    @property
    @abstractmethod
    def fill_value(self) -> float:
        """Of an array: no answer is that, so that a lost chunk shows."""

    @property
    def needs_place(self) -> bool:
        """Whether `tiles` and `columns` must be told where in the data the rows are."""
        return False

    @property
    @abstractmethod
    def trailing(self) -> tuple[int, ...]:
        """The shape of one row's answer."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype:
        """Of an array."""

    @property
    @abstractmethod
    def attributes(self) -> dict[str, Any]:
        """Of an array."""

    @property
    @abstractmethod
    def schema(self) -> dict[str, np.dtype]:
        """Names and types of a table's columns."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row's answer."""
        return int(self.dtype.itemsize * np.prod(self.trailing, dtype=int))

    def of_block(self, chunk: Chunk) -> Any:
        """What `tiles` is told of a block, a row for each of its rows: the rows themselves, unless they need others."""
        return chunk.x

    @abstractmethod
    def tiles(self, x: Any, first: int) -> Iterator[tuple[int, np.ndarray]]:
        """(row of x, answers) for consecutive rows of x: the whole answer of a block may be larger than the block.

        first: the number in the data of the first row of x, if `needs_place`.
        """

    @abstractmethod
    def columns(self, values: np.ndarray, first: int) -> list[np.ndarray]:
        """The table's columns for some answers, the first of which is of the row numbered `first`."""


@dataclass(frozen=True)
class Answer(RowAnswers):
    """One answer a row: a label, a log-likelihood, or K probabilities, means of factors, distances or shares of topics.

    Parameters
    ----------
    model : Model
        With a method ``posteriors(params, x, want)`` and `n_components`.
    params : Params
    want : {"labels", "proba", "loglik", "factors", "distances", "shares"}
    """

    model: Any
    params: Params
    want: Want

    def __post_init__(self) -> None:
        if self.want not in get_args(Want):
            raise ConfigurationError(f"want={self.want!r}: choose one of {', '.join(get_args(Want))}")

    @property
    def accepts_nan(self) -> bool:
        """Whether the model knows what to do with missing values."""
        return bool(self.model.accepts_nan)

    @property
    def trailing(self) -> tuple[int, ...]:
        """(K,) for probabilities and the like; a label or a log-likelihood has no shape."""
        return (int(self.model.n_components),) if self.want in _WIDE else ()

    @property
    def dtype(self) -> np.dtype:
        """The narrowest signed integer for labels (-1 is free to mean none), float64 for the rest."""
        if self.want != "labels":
            return np.dtype(np.float64)
        return np.min_scalar_type(-max(1, int(self.model.n_components)))

    @property
    def fill_value(self) -> float:
        """No label, or no number."""
        return -1 if self.want == "labels" else np.nan

    @property
    def attributes(self) -> dict[str, Any]:
        """What was asked."""
        return {"answer": self.want}

    @property
    def schema(self) -> dict[str, np.dtype]:
        """Columns ``label``, ``loglik`` or ``proba_0``, ``proba_1``, ..."""
        if self.want in _WIDE:
            return {f"{_WIDE[self.want]}_{k}": self.dtype for k in range(*self.trailing)}
        return {"label" if self.want == "labels" else "loglik": self.dtype}

    def tiles(self, x: Any, first: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """Answers a tile; they do not depend on where the rows are."""
        rows = max(1, _TILE_VALUES // max(1, int(self.model.n_components)))
        for start in range(0, x.shape[0], rows):
            values = self.model.posteriors(self.params, x[start : start + rows], self.want)
            yield start, np.asarray(values).astype(self.dtype, copy=False)

    def columns(self, values: np.ndarray, first: int = 0) -> list[np.ndarray]:
        """One column, or one for each component."""
        return [values] if values.ndim == 1 else list(values.T.copy())


@dataclass(frozen=True)
class Said(RowAnswers):
    """A number that a function says of each row.

    Parameters
    ----------
    function : callable
        Of a model, its parameters and rows (n, d), gives (n,).
    model : Model
    params : Params
    name : str
        Of what it says.
    """

    function: Callable[[Any, Params, np.ndarray], np.ndarray]
    model: Any
    params: Params
    name: str

    trailing = ()
    dtype = np.dtype(np.float64)
    fill_value = np.nan

    @property
    def accepts_nan(self) -> bool:
        """Whether the model knows what to do with missing values."""
        return bool(self.model.accepts_nan)

    @property
    def attributes(self) -> dict[str, Any]:
        """What was asked."""
        return {"answer": self.name}

    @property
    def schema(self) -> dict[str, np.dtype]:
        """One column, of that name."""
        return {self.name: self.dtype}

    def tiles(self, x: Any, first: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """Answers a tile; they do not depend on where the rows are."""
        rows = max(1, _TILE_VALUES // max(1, int(self.model.n_components)))
        for start in range(0, x.shape[0], rows):
            yield start, self.function(self.model, self.params, x[start : start + rows])

    def columns(self, values: np.ndarray, first: int = 0) -> list[np.ndarray]:
        """The one column."""
        return [values]
