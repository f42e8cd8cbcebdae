"""The resident sample: random rows in this process's memory, which can be asked without a pass.

Rows are in order of key, u / w with a uniform u and the weight w.  The first m of them are a sample, and stand for
all if each weighs max(w, 1/t), where t is the key that follows: a row heavier than 1/t would be in every sample, and
lighter ones are in it with probability w t (priority sampling: Duffield, Lund and Thorup 2007).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dask_em.engine import EStep, one_pass
from dask_em.executors.threads import ThreadsExecutor
from dask_em.initialize import Sample
from dask_em.model import Chunk, Model, Params
from dask_em.sources.array import ArraySource
from dask_em.sparse import packed

STRETCH = 512  # rows of a sequence that a sample has together: what is at their ends says little of the others
_USED_ROWS = 1 << 16
_USED_SHARE = 32


def useful_rows(n_rows: int) -> int:
    """Rows of the sample that solvers use: one of 32, and 65,536 at least, where there are so many.

    A solve on the sample takes tens of steps, and so about as long as a pass over 32 times its rows: for 16 Gaussians
    on 4.7 million pixels in memory, whatever is not passes, starts included, took 1.7 to 1.9 times as long as those.
    There parts from a 128th to a 16th took 8 to 22 passes, and none was best for both seeds that were tried.  The rule
    counts rows and measures no time: which rows are used decides what comes out, and that may not depend on how fast
    a machine is, or how busy.  Where reading is slow, the sample costs less than a pass.

    Examples
    --------
    >>> useful_rows(1_000_000), useful_rows(100_000_000)
    (65536, 3125000)
    """
    return max(_USED_ROWS, n_rows // _USED_SHARE)


class ResidentSample:
    """Random rows in memory, in random order, so that any first part of them is a sample too.

    Parameters
    ----------
    chunk : Chunk
        The rows, and what they weigh as a sample.

    Attributes
    ----------
    source : ArraySource
        Its rows, for passes over them.
    executor : ThreadsExecutor
    """

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.source = ArraySource(chunk.x, weight=chunk.weight, sequence=chunk.sequence)
        self.executor = ThreadsExecutor()
        self._parts: dict[int, ResidentSample] = {}
        self._ranked: tuple[Chunk, np.ndarray] | None = None

    @classmethod
    def ranked(cls, chunk: Chunk, keys: np.ndarray, beyond: float = np.inf) -> ResidentSample:
        """A sample of some rows, given with their own weights, their keys, and the key that follows.

        Of sequences it is of stretches, whose rows have one key, and are a sequence here.
        """
        order = np.argsort(keys, kind="stable")
        weight = None if chunk.weight is None else chunk.weight[order]
        rows = Chunk(packed(chunk.x[order]), weight, None if chunk.sequence is None else keys[order])
        new = cls(_standing_for_all(rows, beyond))
        new._ranked = rows, keys[order]
        return new

    @classmethod
    def drawn(cls, sample: Sample, n_rows: int) -> ResidentSample:
        """What solvers use of a sample of so many rows."""
        used = sample.first(useful_rows(n_rows))
        return cls.ranked(used.chunk(), used.keys, used.beyond)

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
            if self._ranked is None:
                self._parts[rows] = ResidentSample(_rows(self.chunk, slice(rows)))
            else:
                own, keys = self._ranked
                self._parts[rows] = ResidentSample.ranked(_rows(own, slice(rows)), keys[:rows], float(keys[rows]))
        return self._parts[rows]

    def logliks(self, model: Model, params: Sequence[Params], pieces: int) -> np.ndarray:
        """(pieces, n_params) log-likelihoods of pieces of the rows, each as heavy as another but for chance."""
        if self.chunk.sequence is not None:
            return self._logliks_of_stretches(model, params, pieces)
        pieces, x, w = min(pieces, self.rows), self.chunk.x, self.chunk.weight
        each = [model.row_loglik(p, x) for p in params]
        if each and all(own is not None for own in each):
            piece = np.arange(self.rows) % pieces
            with np.errstate(invalid="ignore"):  # a row of no weight may be impossible
                each = [own if w is None else np.where(w > 0, w * own, 0.0) for own in each]
            return np.stack([np.bincount(piece, own, pieces) for own in each], axis=1)
        found = [
            [p.close().total_loglik for p in model.e_step(list(params), _rows(self.chunk, slice(i, None, pieces)))]
            for i in range(pieces)
        ]
        return np.array(found)

    def _logliks_of_stretches(self, model: Model, params: Sequence[Params], pieces: int) -> np.ndarray:
        assert self.chunk.sequence is not None
        number = np.cumsum(np.diff(self.chunk.sequence, prepend=self.chunk.sequence[:1]) != 0)
        pieces = min(pieces, int(number[-1]) + 1)
        found = [
            [p.close().total_loglik for p in model.e_step(list(params), _rows(self.chunk, number % pieces == i))]
            for i in range(pieces)
        ]
        return np.array(found)


def _rows(chunk: Chunk, which: slice | np.ndarray) -> Chunk:
    weight, ids = (None if a is None else np.ascontiguousarray(a[which]) for a in (chunk.weight, chunk.sequence))
    return Chunk(packed(chunk.x[which]), weight, ids)


def _standing_for_all(rows: Chunk, beyond: float) -> Chunk:
    if rows.weight is None or beyond == np.inf:
        return rows
    return Chunk(rows.x, np.maximum(rows.weight, 1 / beyond), rows.sequence)
