"""Rows in sequences: their ids, and what is found of their states over data of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dask_em.engine import one_pass
from dask_em.errors import ConfigurationError, DataError
from dask_em.estimators.rows import is_array_like
from dask_em.executors import default_executor
from dask_em.model import Block, Chunk
from dask_em.models.chain_pieces import Chain
from dask_em.models.chain_states import Around, Ends, How, ends, states_of, stitched
from dask_em.sequences import Sequences
from dask_em.sinks.answers import Answer
from dask_em.sources.beside import checked_sequence


def ids_of(sequence: Any, lengths: Sequence[int] | None, X: Any) -> dict[str, Any]:
    """Ids of sequences, as a keyword of `dask_em.open`: as they are given, or of sequences of some lengths.

    Raises
    ------
    ConfigurationError
        Both are given, or lengths are no positive whole numbers.
    DataError
        Lengths add up to another number than X is known to have rows.
    """
    if lengths is None:
        return {} if sequence is None else {"sequence": sequence}
    if sequence is not None:
        raise ConfigurationError("sequence and lengths say the same: give one of them")
    n = np.asarray(lengths)
    if n.ndim != 1 or n.dtype.kind not in "iu" or not (n > 0).all():
        raise ConfigurationError("lengths must be the numbers of rows of the sequences, whole and positive")
    shape = getattr(X, "shape", None)
    if isinstance(shape, tuple) and shape and isinstance(shape[0], int) and n.sum() != shape[0]:
        raise DataError(f"lengths add up to {n.sum()}, and X has {shape[0]} rows: each row is of one sequence")
    return {"sequence": np.repeat(np.arange(len(n)), n)}


def asked_ids(sequence: Any, lengths: Sequence[int] | None, X: Any) -> dict[str, Any]:
    """The same, for questions, before which no pass looks whether sequences are torn: ids in an array are looked at."""
    found = ids_of(sequence, lengths, X)
    ids = found.get("sequence")
    if isinstance(ids, (np.ndarray, list)) and lengths is None and len(ids):
        Sequences.of(checked_sequence(ids)).refuse_torn("the sequence ids")
    return found


@dataclass(frozen=True)
class BlockEnds:
    """What some blocks do to their ends, in order."""

    blocks: tuple[Ends, ...]

    def merge(self, right: BlockEnds) -> BlockEnds:
        """Together with the blocks that follow."""
        return BlockEnds(self.blocks + right.blocks)

    def close(self) -> BlockEnds:
        """Finished at any time."""
        return self


@dataclass(frozen=True)
class EndsRequest:
    """Asks what each block does to its ends."""

    chain: Chain
    how: Any
    accepts_nan: bool

    def map(self, chunk: Chunk) -> BlockEnds:
        """Of one block."""
        return BlockEnds((ends(self.chain, chunk.x, chunk.sequence, chunk.block, self.how),))


def state_answers(estimator: Any, X: Any, want: str, width: int | None, dtype: Any, opening: dict[str, Any]) -> Any:
    """What a fitted chain says of the states of rows.

    Parameters
    ----------
    estimator : HiddenMarkov
    X : array, frame, path, URL or Source
    want : {"path", "labels", "shares", "filtered"}
    width : int or None
        Columns of the answer; None for one number a row.
    dtype : dtype
    opening : dict
        Keywords of `dask_em.open`.

    Returns
    -------
    ndarray or dask.array.Array
        Lazy for what is not in memory; the first of the two sweeps is done.
    """
    model = estimator._fitted_model()
    chain = model.chain(estimator._params())
    read_by_block = ("filters", "storage_options", "weight")
    if is_array_like(X) and all(opening.get(name) is None for name in read_by_block):
        ids = opening.get("sequence")
        if isinstance(ids, str):  # a column of a frame, which is no feature
            X, ids = _split(X, ids)
        x = estimator._in_memory(X, opening.get("columns"))
        ids = None if ids is None else checked_sequence(ids)
        if ids is not None and len(ids) != len(x):
            raise DataError(f"ids or lengths of sequences are of {len(ids)} rows, and the data has {len(x)}")
        return _of_block(chain, model, {}, want, x, Block(0, "X", len(x), x.nbytes), ids)
    source = estimator._open(X, reset=False, **opening)
    around = surroundings(estimator, source, want)
    from dask_em.executors.lazy import lazy_rows

    function: Callable[..., np.ndarray] = partial(_of_block, chain, model, around, want)
    return lazy_rows(function, source, width, dtype, accepts_nan=model.accepts_nan)


def _split(X: Any, column: str) -> tuple[Any, Any]:
    """A frame without the column of ids, and that column."""
    if not hasattr(X, "columns"):
        raise ConfigurationError(
            f"sequence={column!r} names a column, which arrays do not have: pass the sequence ids as an array"
        )
    if column not in X.columns:
        raise DataError(f"the data frame has no column {column!r} of sequence ids: its columns are {list(X.columns)}")
    return X.drop(columns=[column]), X[column]


def surroundings(estimator: Any, source: Any, want: str) -> dict[int, Around]:
    """What is around each block of a source, read once for it."""
    model = estimator._fitted_model()
    chain = model.chain(estimator._params())
    how: How = "path" if want == "path" else "shares"
    executor = getattr(estimator, "executor", None) or default_executor()
    try:
        found = one_pass(source, [EndsRequest(chain, how, model.accepts_nan)], executor).answers[0]
    finally:
        executor.close()
    return stitched(chain, found.blocks, how)


@dataclass(frozen=True)
class StateAnswers(Answer):
    """States of rows, for whole blocks, whose surroundings are known.

    Parameters
    ----------
    around : dict of int to Around
    states : {"path", "labels", "shares", "filtered"}
    """

    around: Any = None
    states: Any = "path"

    @classmethod
    def of(cls, estimator: Any, source: Any, want: str) -> StateAnswers:
        """As `ChainEstimator.answers` names them."""
        kind, states = _KINDS[want]
        return cls(
            estimator._fitted_model(), estimator._params(), kind, surroundings(estimator, source, states), states
        )

    def of_block(self, chunk: Chunk) -> np.ndarray:
        """The answers for all its rows."""
        around = self.around.get(chunk.block, Around())
        return states_of(self.model.chain(self.params), chunk.x, chunk.sequence, around, self.states)

    def tiles(self, x: Any, first: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """The answers as they are."""
        yield 0, x.astype(self.dtype, copy=False)


_KINDS: dict[str, tuple[Any, str]] = {
    "labels": ("labels", "path"),
    "posterior": ("labels", "labels"),
    "proba": ("proba", "shares"),
    "filtered": ("proba", "filtered"),
}


def _of_block(
    chain: Chain,
    model: Any,
    around: dict[int, Around],
    want: Any,
    x: np.ndarray,
    block: Block,
    sequence: np.ndarray | None = None,
) -> np.ndarray:
    model.check_rows(Chunk(x))
    return states_of(chain, x, sequence, around.get(block.index, Around()), want)
