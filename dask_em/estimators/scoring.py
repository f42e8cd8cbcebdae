"""What a fitted model says of each row, and the request for its total over all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_em.model import Chunk, Params, Statistics

Function = Callable[[Any, Params, np.ndarray], np.ndarray]  # of a model, its parameters and rows: a number a row


def logliks(model: Any, params: Params, x: np.ndarray) -> np.ndarray:
    """(n,) log-likelihood of each row."""
    found: np.ndarray = model.posteriors(params, x, "loglik")
    return found


def entropies(model: Any, params: Params, x: np.ndarray) -> np.ndarray:
    """(n,) entropy of each row's component, in nats."""
    shares = model.posteriors(params, x, "proba")
    found: np.ndarray = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=1)
    return found + 0.0  # no minus zero


def doubts(model: Any, params: Params, x: np.ndarray) -> np.ndarray:
    """(n,) the probability that each row is not of its most probable component."""
    found: np.ndarray = 1.0 - model.posteriors(params, x, "proba").max(axis=1)
    return np.maximum(found, 0.0)


@dataclass(frozen=True)
class SumsRequest:
    """Asks for a model's own sums, which have the log-likelihood."""

    model: Any
    params: Params

    @property
    def accepts_nan(self) -> bool:
        """Whether the model knows what to do with missing values."""
        return bool(self.model.accepts_nan)

    def map(self, chunk: Chunk) -> Any:
        """Of one block."""
        self.model.check_rows(chunk)
        return self.model.e_step([self.params], chunk)[0]


@dataclass(frozen=True)
class TotalRequest:
    """Asks for the total of what a function says of the rows, as the log-likelihood of `Statistics`."""

    model: Any
    params: Params
    function: Function

    @property
    def accepts_nan(self) -> bool:
        """Whether the model knows what to do with missing values."""
        return bool(self.model.accepts_nan)

    def map(self, chunk: Chunk) -> Statistics:
        """Weight and total of one block."""
        values = self.function(self.model, self.params, chunk.x)
        if chunk.weight is None:
            return Statistics(float(chunk.n_rows), float(values.sum()))
        own = chunk.weight > 0  # zero times minus infinity is not zero
        w = chunk.weight[own]
        return Statistics(float(w.sum()), float((w * values[own]).sum()))
