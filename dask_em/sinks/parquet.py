"""Answers as Parquet: a folder with one file for each block, whose names sort in row order."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_em.model import Chunk
from dask_em.sinks.answers import RowAnswers
from dask_em.sinks.staging import writing
from dask_em.sources.location import Location


@dataclass(frozen=True)
class WrittenParts:
    """How many files and rows were written."""

    parts: int
    rows: int

    def merge(self, right: WrittenParts) -> WrittenParts:
        """Together with the blocks that follow."""
        return WrittenParts(self.parts + right.parts, self.rows + right.rows)

    def close(self) -> WrittenParts:
        """Finished at any time."""
        return self


@dataclass(frozen=True)
class ParquetRequest:
    """Writes the answers of each block to a file of its own.

    Parameters
    ----------
    answer : RowAnswers
    place : Location
        The folder.
    digits : int
        Of the block's number in the file's name, so that names sort as numbers do.
    offsets : ndarray of shape (n_blocks + 1,), optional
        Number of the first row of each block, for answers that depend on it.
    """

    answer: RowAnswers
    place: Location
    digits: int
    offsets: np.ndarray | None = None

    @property
    def accepts_nan(self) -> bool:
        """Whether the model knows what to do with missing values."""
        return self.answer.accepts_nan

    def map(self, chunk: Chunk) -> WrittenParts:
        """Write one block's answers; a second writing gives the same file."""
        with writing(self.place):
            self._write_file(chunk, f"part-{chunk.block:0{self.digits}}.parquet")
        return WrittenParts(1, chunk.n_rows)

    def _write_file(self, chunk: Chunk, name: str) -> None:
        if not self.place.is_local:
            fs, folder = self.place.resolve()
            with fs.open(f"{folder}/{name}", "wb") as file:  # an object appears when it is closed
                self._write(chunk, file)
            return
        # under another name first: the same task may be running on a worker that was thought lost
        draft = os.path.join(self.place.url, f".{name}.{uuid.uuid4().hex}")
        try:
            with open(draft, "wb") as file:
                self._write(chunk, file)
            os.replace(draft, os.path.join(self.place.url, name))
        finally:
            if os.path.exists(draft):
                os.remove(draft)

    def _write(self, chunk: Chunk, file: Any) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([(name, pa.from_numpy_dtype(dtype)) for name, dtype in self.answer.schema.items()])
        first = 0 if self.offsets is None else int(self.offsets[chunk.block])
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for start, values in self.answer.tiles(self.answer.of_block(chunk), first):
                columns = self.answer.columns(values, first + start)
                writer.write_table(pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema))
