"""The request for the log-likelihood alone, at fitted parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_em.model import Chunk, Params, Statistics


@dataclass(frozen=True)
class LoglikRequest:
    """Asks for the log-likelihood of the rows at one parameter set.

    The model has `posteriors(params, x, "loglik")`.
    """

    model: Any
    params: Params

    @property
    def accepts_nan(self) -> bool:
        """Whether the model knows what to do with missing values."""
        return bool(self.model.accepts_nan)

    def map(self, chunk: Chunk) -> Statistics:
        """Weight and log-likelihood of one block."""
        loglik: np.ndarray = self.model.posteriors(self.params, chunk.x, "loglik")
        if chunk.weight is None:
            return Statistics(float(chunk.n_rows), float(loglik.sum()))
        own = chunk.weight > 0  # zero times minus infinity is not zero
        w = chunk.weight[own]
        return Statistics(float(w.sum()), float((w * loglik[own]).sum()))
