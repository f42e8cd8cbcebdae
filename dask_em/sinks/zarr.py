"""Answers as one Zarr array in uniform chunks, each of which is written exactly once.

The blocks of the data do not end where the array's chunks do.  What a block holds of a chunk
that it does not fill goes up the merge tree, less than one chunk at either end, and whoever
joins the pieces of a chunk writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dask_em.errors import DataChangedError
from dask_em.model import Chunk
from dask_em.sinks.answers import RowAnswers
from dask_em.sinks.staging import writing
from dask_em.sources.location import Location, retrying

CHUNK_BYTES = 1 << 20  # decoded; two of them at most go up the tree with each partial result


def chunk_rows(answer: RowAnswers, n_rows: int) -> int:
    """Rows of a chunk."""
    return int(max(1, min(n_rows, CHUNK_BYTES // answer.row_bytes)))


def _store(place: Location) -> Any:
    from zarr.storage import FsspecStore, LocalStore

    if place.is_local:
        return LocalStore(place.url)
    return FsspecStore.from_url(place.url, storage_options=place.options or None)


def _open(place: Location) -> Any:
    import zarr

    # a chunk that happens to hold the fill value alone is written too: only what is lost is absent
    return zarr.open_array(_store(place), mode="r+").with_config({"write_empty_chunks": True})


@dataclass(frozen=True)
class Target:
    """The array being written, as it travels to the tasks."""

    place: Location
    n_rows: int
    chunk_rows: int
    _open: list[Any] = field(default_factory=list, compare=False, repr=False)  # the array, once open here

    def write(self, start: int, values: np.ndarray) -> None:
        """Write a chunk: rows start <= row < start + len(values)."""
        with writing(self.place):
            if not self._open:
                self._open.append(retrying(lambda: _open(self.place)))
            retrying(lambda: self._open[0].__setitem__(slice(start, start + len(values)), values))

    def __reduce__(self) -> Any:
        return Target, (self.place, self.n_rows, self.chunk_rows)

    def end_of_chunk(self, row: int) -> int:
        """The row after the chunk that holds `row`."""
        return int(min((row // self.chunk_rows + 1) * self.chunk_rows, self.n_rows))

    def whole(self, start: int, stop: int) -> bool:
        """Whether those rows, which are of one chunk, are all of it."""
        return start % self.chunk_rows == 0 and stop == self.end_of_chunk(start)


def create_array(target: Target, answer: RowAnswers) -> None:
    """Make the array, without chunks yet."""
    import zarr

    trailing = answer.trailing
    with writing(target.place):
        zarr.create_array(
            _store(target.place),
            shape=(target.n_rows, *trailing),
            chunks=(target.chunk_rows, *trailing),
            dtype=answer.dtype,
            fill_value=answer.fill_value,
            attributes=answer.attributes,
            zarr_format=3,
        )


@dataclass(frozen=True)
class Piece:
    """Answers of consecutive rows of one chunk, not all of it."""

    start: int
    values: np.ndarray

    @property
    def stop(self) -> int:
        """The row after its last."""
        return self.start + len(self.values)


@dataclass(frozen=True)
class WrittenRows:
    """Consecutive rows: written, but for a piece of a chunk at either end."""

    target: Target
    start: int
    stop: int
    pieces: tuple[Piece, ...]  # in order; at most two

    def merge(self, right: WrittenRows) -> WrittenRows:
        """Join with the rows that follow, and write the chunk in which they meet once it is whole."""
        if right.start != self.stop:
            raise _moved(self.stop, right.start)
        if self.pieces and right.pieces and self.pieces[-1].stop == right.pieces[0].start == self.stop:
            left, last = self.pieces[:-1], self.pieces[-1]
            if self.target.end_of_chunk(last.start) > self.stop:
                met = np.concatenate([last.values, right.pieces[0].values])
                pieces = (*left, *_kept(self.target, last.start, met), *right.pieces[1:])
                return WrittenRows(self.target, self.start, right.stop, pieces)
        return WrittenRows(self.target, self.start, right.stop, self.pieces + right.pieces)

    def close(self) -> int:
        """How many rows were written, once all are."""
        if self.start != 0 or self.stop != self.target.n_rows or self.pieces:
            raise _moved(self.target.n_rows, self.stop)
        return self.stop


def _kept(target: Target, start: int, values: np.ndarray) -> tuple[Piece, ...]:
    """Write the rows if they are a whole chunk, else keep them."""
    if target.whole(start, start + len(values)):
        target.write(start, values)
        return ()
    return (Piece(start, values),)


def _moved(planned: int, found: int) -> DataChangedError:
    return DataChangedError(
        f"the data changed while it was read: row {found} was found where row {planned} was expected; "
        "run again on data at rest"
    )


@dataclass(frozen=True)
class ZarrRequest:
    """Writes the chunks that a block fills, and hands on the rest of its answers.

    Parameters
    ----------
    answer : RowAnswers
    target : Target
    offsets : ndarray of shape (n_blocks + 1,)
        Number of the first row of each block, and of all rows.
    """

    answer: RowAnswers
    target: Target
    offsets: np.ndarray

    @property
    def accepts_nan(self) -> bool:
        """Whether the model knows what to do with missing values."""
        return self.answer.accepts_nan

    def map(self, chunk: Chunk) -> WrittenRows:
        """Answer one block."""
        first, end = (int(n) for n in self.offsets[chunk.block : chunk.block + 2])
        if chunk.n_rows != end - first:
            raise _moved(end, first + chunk.n_rows)
        pieces: list[Piece] = []
        row, rows = first, self.answer.of_block(chunk)
        while row < end:  # one chunk, or a part of one, at a time
            stop = min(self.target.end_of_chunk(row), end)
            values = np.empty((stop - row, *self.answer.trailing), self.answer.dtype)
            for start, part in self.answer.tiles(rows[row - first : stop - first], row):
                values[start : start + len(part)] = part
            pieces.extend(_kept(self.target, row, values))
            row = stop
        return WrittenRows(self.target, first, end, tuple(pieces))
