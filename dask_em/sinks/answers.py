"""What is asked about each row, and in how much memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from dask_em.errors import ConfigurationError
from dask_em.model import Params

Want = Literal["labels", "proba", "loglik"]
_TILE_VALUES = 1 << 20  # numbers of an n x K intermediate that exist at a time: 8 MiB


@dataclass(frozen=True)
class Answer:
    """One answer a row: a label, K probabilities or a log-likelihood.

    Parameters
    ----------
    model : Model
        With a method ``posteriors(params, x, want)`` and `n_components`.
    params : Params
    want : {"labels", "proba", "loglik"}
    """

    model: Any
    params: Params
    want: Want

    def __post_init__(self) -> None:
        if self.want not in get_args(Want):
            raise ConfigurationError(f"want={self.want!r}: choose one of {', '.join(get_args(Want))}")

    @property
    def width(self) -> int | None:
        """Numbers a row; None: one, and the answer has one dimension."""
        return int(self.model.n_components) if self.want == "proba" else None

    @property
    def dtype(self) -> np.dtype:
        """The narrowest signed integer for labels (-1 is free to mean none), float64 for the rest."""
        if self.want != "labels":
            return np.dtype(np.float64)
        return np.min_scalar_type(-max(1, int(self.model.n_components)))

    @property
    def columns(self) -> list[str]:
        """Names of the answer's columns."""
        if self.width is None:
            return ["label" if self.want == "labels" else "loglik"]
        return [f"proba_{k}" for k in range(self.width)]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row's answer."""
        return self.dtype.itemsize * (self.width or 1)

    def tiles(self, x: Any) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, answers) for consecutive rows of x: the whole answer of a block may be larger than the block."""
        rows = max(1, _TILE_VALUES // max(1, int(self.model.n_components)))
        for start in range(0, x.shape[0], rows):
            values = self.model.posteriors(self.params, x[start : start + rows], self.want)
            yield start, np.asarray(values).astype(self.dtype, copy=False)
