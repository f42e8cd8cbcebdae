"""The first pass: the census of the data, and a resident random sample of its rows.

Both are one request.  The sample keeps the rows with the smallest keys, hashes of (seed, block, row) over their
weights, so it depends neither on the order in which blocks arrive nor on who reads them, and no row that outweighs
many is missed.  What the rows of the sample stand for is in `dask_em.resident`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import issparse

from dask_em.engine import Witness, one_pass
from dask_em.errors import ConfigurationError, DaskEMError, DataError, RowError
from dask_em.hashing import Fold, priorities, stretch_priorities
from dask_em.history import Record, add
from dask_em.model import Chunk, Executor, Model, Source
from dask_em.moments import Moments, moments
from dask_em.sequences import Sequences
from dask_em.sparse import packed, stacked

_LARGEST = 1e140  # of a value, whose square can still be summed over any number of rows


@dataclass(frozen=True)
class Sample:
    """The rows with the smallest keys so far, at most `capacity` of them, in the order of the data."""

    capacity: int
    keys: np.ndarray  # (m,)
    x: np.ndarray  # (m, d), the data's own dtype
    weight: np.ndarray | None  # (m,); None: one each
    held: np.ndarray | None  # (m,) bool: held out by a fold
    sequence: np.ndarray | None  # (m,) ids of the sequences that rows belong to
    beyond: float = np.inf  # smallest key of a weighted row that was left out

    def merge(self, right: Sample) -> Sample:
        """The smallest of both."""
        both = Sample(
            self.capacity,
            np.concatenate([self.keys, right.keys]),
            stacked([self.x, right.x]),
            _joined(self.weight, right.weight, len(self.keys), len(right.keys)),
            _both(self.held, right.held),
            _both(self.sequence, right.sequence),
            min(self.beyond, right.beyond),
        )
        return both.cut()

    def cut(self) -> Sample:
        """No more rows than there is room for."""
        if len(self.keys) <= self.capacity:
            return self
        order, beyond = smallest(self.keys, self.capacity)
        return replace(self.taken(order), beyond=min(self.beyond, beyond))

    def close(self) -> Sample:
        """The sample of all rows."""
        return self

    def taken(self, which: np.ndarray) -> Sample:
        """Some of the rows."""
        weight, held, ids = (None if a is None else a[which] for a in (self.weight, self.held, self.sequence))
        return Sample(self.capacity, self.keys[which], self.x[which], weight, held, ids, self.beyond)

    def chunk(self) -> Chunk:
        """The rows, in the order of the data."""
        return Chunk(packed(self.x), self.weight, self.sequence)

    def first(self, rows: int) -> Sample:
        """The smallest of its rows, which are a sample too."""
        return replace(self, capacity=rows).cut()


def smallest(keys: np.ndarray, most: int) -> tuple[np.ndarray, float]:
    """So many rows with the smallest keys, in the order of the data, the first among equals; and the key that follows.

    Equal are the keys of rows that belong together.
    """
    part = np.argpartition(keys, most)
    limit = float(keys[part[most]])
    kept = keys < limit
    ties = np.flatnonzero(keys == limit)[: most - int(np.count_nonzero(kept))]
    kept[ties] = True
    return np.flatnonzero(kept), limit


def _both(left: np.ndarray | None, right: np.ndarray | None) -> np.ndarray | None:
    return None if left is None or right is None else np.concatenate([left, right])


def _joined(left: np.ndarray | None, right: np.ndarray | None, n_left: int, n_right: int) -> np.ndarray | None:
    if left is None and right is None:
        return None
    both = (np.ones(n_left) if left is None else left, np.ones(n_right) if right is None else right)
    return np.concatenate(both)


Place = tuple[int, int, int]  # a block, and a row and a column of it
Refusal = tuple[int, DaskEMError]  # a block, and why a model refuses it


@dataclass(frozen=True)
class CensusPartial:
    """Moments and sample of some rows, and what else sums them up, where that is asked for.

    `refusals` holds for each model what it refuses first, or None; `held` counts the rows of positive weight that a
    fold holds out.  `wild` is where the first value is whose square is too large; `sequences`, which there are.
    """

    moments: Moments
    sample: Sample
    summary: Any = None
    refusals: tuple[Refusal | None, ...] = ()
    held: int = 0
    wild: Place | None = None
    sequences: Sequences | None = None

    @np.errstate(over="ignore", invalid="ignore")  # what is too large is told when all is known
    def merge(self, right: CensusPartial) -> CensusPartial:
        """Join with the rows that follow."""
        summary = None if self.summary is None else self.summary.merge(right.summary)
        refusals = tuple(a or b for a, b in zip(self.refusals, right.refusals, strict=True))
        return CensusPartial(
            self.moments.merge(right.moments),
            self.sample.merge(right.sample),
            summary,
            refusals,
            self.held + right.held,
            self.wild or right.wild,
            None if self.sequences is None or right.sequences is None else self.sequences.merge(right.sequences),
        )

    def close(self) -> CensusPartial:
        """The moments of all rows, the sample, and the finished summary."""
        return self if self.summary is None else replace(self, summary=self.summary.close())


@dataclass(frozen=True)
class CensusRequest:
    """Asks for moments and a sample.

    Parameters
    ----------
    capacity : int
        Rows of the sample, at most.
    seed : int
    n_rows : int, optional
        Rows of the data, where known: blocks then keep only their share.
    accepts_nan : bool
        Whether any of the models does.
    fold : Fold, optional
        The sample remembers which rows it holds out.
    models : tuple of Model
        Each is asked whether it can have made the rows.  What the only one refuses ends the pass.
    summary : callable, optional
        `Model.summary`.
    stretch : int, optional
        The sample is of stretches of so many rows, one after another in a sequence.
    """

    capacity: int
    seed: int
    n_rows: int | None = None
    accepts_nan: bool = False
    fold: Fold | None = None
    models: tuple[Model, ...] = ()
    summary: Callable[[Chunk], Any] | None = None
    stretch: int = 1

    @np.errstate(over="ignore", invalid="ignore")
    def map(self, chunk: Chunk) -> CensusPartial:
        """One block's moments, and the rows that may end in the sample."""
        once = {id(model): self._refusal(model, chunk) for model in {id(m): m for m in self.models}.values()}
        refusals = tuple(once[id(model)] for model in self.models)
        if len(refusals) == 1 and refusals[0] is not None:
            raise refusals[0][1]
        keys = priorities(self.seed, chunk)
        if self.stretch > 1:
            chunk = chunk if chunk.sequence is not None else replace(chunk, sequence=np.zeros(chunk.n_rows, np.int64))
            keys = stretch_priorities(self.seed, chunk, self.stretch)
        if chunk.weight is None:
            rows = np.flatnonzero(keys <= self._threshold())
        else:  # how much others weigh is not known beforehand: `merge` alone cuts
            rows = np.flatnonzero(chunk.weight > 0)
        beyond = np.inf
        if len(rows) > self.capacity:
            order, beyond = smallest(keys[rows], self.capacity)
            rows = rows[order]
        w = None if chunk.weight is None else np.asarray(chunk.weight[rows], dtype=np.float64)
        held, n_held = None, 0
        if self.fold is not None:
            mask = self.fold.holds(chunk.block, chunk.n_rows)
            held = mask[rows]
            n_held = int(np.count_nonzero(mask if chunk.weight is None else mask & (chunk.weight > 0)))
        ids = None if chunk.sequence is None else chunk.sequence[rows]
        sample = Sample(self.capacity, keys[rows], chunk.x[rows].copy(), w, held, ids, beyond)
        summary = None if self.summary is None else self.summary(chunk)
        found = moments(chunk)
        runs = None if chunk.sequence is None or self.stretch == 1 else Sequences.of(chunk.sequence)
        return CensusPartial(found, sample, summary, refusals, n_held, _wild(chunk, found), runs)

    def _refusal(self, model: Model, chunk: Chunk) -> Refusal | None:
        """Why a model refuses a chunk, which another may take."""
        try:
            if self.accepts_nan and not model.accepts_nan:
                _refuse_gaps(chunk)
            model.check_rows(chunk)
        except (DataError, ConfigurationError) as error:
            return chunk.block, error
        return None

    def _threshold(self) -> float:
        # all blocks together keep the capacity and six standard deviations more, which `merge` cuts off
        more = 6 * (self.capacity * self.stretch) ** 0.5 + 16 * self.stretch
        return (self.capacity + more) / self.n_rows if self.n_rows else 1.0


def _wild(chunk: Chunk, found: Moments) -> Place | None:
    """The first value of a row with weight whose square is too large, if there is one."""
    if not (np.maximum(np.abs(found.low), np.abs(found.high)) > _LARGEST)[found.observed > 0].any():
        return None
    x = chunk.x.toarray() if issparse(chunk.x) else chunk.x
    far = np.abs(np.asarray(x, dtype=np.float64)) > _LARGEST
    if chunk.weight is not None:
        far &= (chunk.weight > 0)[:, None]
    row, column = (int(i) for i in np.argwhere(far)[0])
    return chunk.block, row, column


def _refuse_gaps(chunk: Chunk) -> None:
    gaps = np.isnan(np.asarray(chunk.x, dtype=np.float64))
    if gaps.any():
        row, column = (int(i) for i in np.argwhere(gaps)[0])
        raise RowError(row, column, "is NaN; drop or impute the rows that hold NaN first")


@dataclass(frozen=True)
class Census:
    """What the first pass says of the data."""

    moments: Moments
    witness: Witness
    record: Record  # its line of the fit's history
    n_sequences: int = 1


def take_census(
    source: Source,
    executor: Executor,
    request: CensusRequest,
    *,
    progress: Any = None,
) -> tuple[Census, CensusPartial]:
    """Read the data once for its moments, a random sample of its rows, and what else the request asks for.

    Raises
    ------
    DataError
        No rows, only weights of zero, a column without any value, or values too large for arithmetic.
    """
    result = one_pass(source, [replace(request, n_rows=source.n_rows)], executor, progress=progress)
    found: CensusPartial = result.answers[0]
    _refuse_hopeless(found.moments, source, found.wild)
    count = 1
    if found.sequences is not None:
        found.sequences.refuse_torn(source.where)
        count = found.sequences.count
    record = add([], "census", result, resident=False)
    return Census(found.moments, Witness(result.rows, result.checksum), record, count), found


def refuse_fold(fold: Fold, held: int, rows: int) -> None:
    """Raise `DataError` where a fold holds out all rows, so that none are left to learn from, or none of them."""
    if held == 0:
        raise DataError(f"held_out={fold.share} holds out none of {rows} rows: use a larger share")
    if held == rows:
        raise DataError(
            f"held_out={fold.share} holds out all of {rows} rows, and leaves none to learn from: use a smaller share"
        )


def _refuse_hopeless(found: Moments, source: Source, place: Place | None = None) -> None:
    def name(j: int) -> str:
        return f"column {j}" if source.feature_names is None else f"column {source.feature_names[j]!r}"

    if not found.weight > 0:
        raise DataError(f"all {found.rows} weights are zero: no row counts; give positive weights")
    void = np.flatnonzero(found.observed <= 0)
    if len(void):
        raise DataError(f"{name(int(void[0]))} has no value in any of {found.rows} rows: choose columns without it")
    largest = np.maximum(np.abs(found.low), np.abs(found.high))
    wild = np.flatnonzero(~np.isfinite(found.squares) | (largest > _LARGEST))
    if len(wild):
        j, where = int(wild[0]), ""
        if place is not None:
            block, row, j = place
            where = f" ({source.blocks[block].name}: row {row} is the first)"
        raise DataError(
            f"{name(j)} runs from {found.low[j]:.3g} to {found.high[j]:.3g}, too far for squares in double precision"
            f"{where}: mend the rows that are damaged, or scale it or take logarithms"
        )
    narrow = np.flatnonzero((found.high > found.low) & (found.high - found.low < 1 / _LARGEST))
    if len(narrow):
        j = int(narrow[0])
        raise DataError(
            f"{name(j)} runs from {found.low[j]:.3g} to {found.high[j]:.3g}, too near for squares in double precision: "
            f"scale it, for instance by {1 / (found.high[j] - found.low[j]):.0e}"
        )
