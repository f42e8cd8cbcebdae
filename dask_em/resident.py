"""The resident sample: random rows in this process's memory, which can be asked without a pass."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from dask_em.engine import EStep, one_pass
from dask_em.executors.threads import ThreadsExecutor
from dask_em.model import Chunk, Model, Params
from dask_em.sources.array import ArraySource


class ResidentSample:
    """Random rows in memory, in random order, so that any first part of them is a sample too.

    Parameters
    ----------
    chunk : Chunk

    Attributes
    ----------
    source : ArraySource
        Its rows, for passes over them.
    executor : ThreadsExecutor
    """

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.source = ArraySource(chunk.x, weight=chunk.weight)
        self.executor = ThreadsExecutor()
        self._parts: dict[int, ResidentSample] = {}

    @property
    def rows(self) -> int:
        """Rows of the sample."""
        return self.chunk.n_rows

    @property
    def weight(self) -> float:
        """Sum of their weights."""
        return float(self.rows if self.chunk.weight is None else self.chunk.weight.sum())

    def e_step(self, model: Model, params: Sequence[Params]) -> list[Any]:
        """Finished statistics of the sample at each of the parameter sets."""
        answers: list[Any] = one_pass(self.source, [EStep(model, tuple(params))], self.executor).answers[0]
        return answers

    def first(self, rows: int) -> ResidentSample:
        """The first so many rows."""
        if rows >= self.rows:
            return self
        if rows not in self._parts:
            self._parts[rows] = ResidentSample(_rows(self.chunk, 0, rows))
        return self._parts[rows]

    def logliks(self, model: Model, params: Sequence[Params], pieces: int) -> np.ndarray:
        """(pieces, n_params) log-likelihoods of consecutive pieces of the rows."""
        edges = np.linspace(0, self.rows, min(pieces, self.rows) + 1).astype(int)
        found = [
            [p.close().total_loglik for p in model.e_step(list(params), _rows(self.chunk, start, stop))]
            for start, stop in pairwise(edges)
        ]
        return np.array(found)


def _rows(chunk: Chunk, start: int, stop: int) -> Chunk:
    return Chunk(chunk.x[start:stop], None if chunk.weight is None else chunk.weight[start:stop])
