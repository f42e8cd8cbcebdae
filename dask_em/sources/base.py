"""What every source shares: a plan of blocks, and how blocks are cut."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from dask_em.config import option
from dask_em.model import Block, Chunk, Reader

MIN_ROWS = 1 << 14  # fewer rows than this and the fixed cost of a block shows
NARROWEST = 4  # bytes a value counts for at least: computing widens narrow integers anyway
MAX_BYTES = 64 << 20  # very wide rows: a block of MIN_ROWS would no longer be small
FEW_BLOCKS = 8  # small data is still cut into this many where MIN_ROWS allows, to feed several threads


TakesText = Callable[[Any, int], bool]  # of a column's name and position


class TableSource(ABC):
    """A planned source. Subclasses say how a part is read, and what identifies the data.

    Attributes are those of `dask_em.model.Source`; `graph` is, for Dask collections whose blocks share intermediate
    work, the graph that computes them all; `dependencies` then gives keys of it.
    """

    where: str = "the data"
    blocks: Sequence[Block]
    n_features: int
    feature_names: Sequence[str] | None = None
    dtype: np.dtype
    in_memory: bool = False
    sparse: bool = False  # whether rows are compressed
    text: Sequence[str] = ()  # columns of text, which have no codes before `coded` gives them
    levels: Mapping[str, tuple[str, ...]] = {}
    graph: Mapping[Any, Any] | None = None

    @property
    def n_rows(self) -> int | None:
        """Rows of the whole data set. None: known only after a pass."""
        return total_rows(self.blocks)

    @cached_property
    def fingerprint(self) -> str:
        """A hash that changes when the data does."""
        return self._fingerprint()

    def read(self, index: int) -> Chunk:
        """The block with that index, in memory."""
        return self._reader.read(index)

    @cached_property
    def _reader(self) -> Any:  # stays open from block to block
        return self.part(0, len(self.blocks))

    @abstractmethod
    def part(self, start: int, stop: int) -> Reader:
        """A small, picklable reader for blocks start <= index < stop."""

    def dependencies(self, start: int, stop: int) -> Sequence[Any]:
        """Futures, or keys of `graph`, whose values `bind` needs before the part can be read."""
        return ()

    @staticmethod
    def bind(part: Any, values: Sequence[Any]) -> Reader:
        """The part, able to read, given the values of its dependencies. It needs no source, so tasks can call it."""
        return part.bind(values) if values else part

    @abstractmethod
    def _fingerprint(self) -> str: ...


def total_rows(blocks: Sequence[Block]) -> int | None:
    """Sum of the blocks' rows, or None where one of them is not known."""
    rows = [b.rows for b in blocks]
    return None if None in rows else sum(rows)  # type: ignore[arg-type]


def block_bytes() -> int:
    """Decoded bytes that a block aims at, from the option ``em.block-bytes``."""
    return int(option("block-bytes"))


def rows_per_block(n_rows: int, n_features: int, dtype: np.dtype, *, least: int = MIN_ROWS) -> int:
    """How many rows of in-memory data make one block; never depends on who reads them."""
    row_bytes = max(n_features, 1) * max(dtype.itemsize, NARROWEST)
    rows = max(block_bytes() // row_bytes, least)
    rows = max(min(rows, MAX_BYTES // row_bytes), 1)
    if n_rows < FEW_BLOCKS * rows:
        rows = max(min(rows, least), -(-n_rows // FEW_BLOCKS))
    return rows


def uniform_rows(n_rows: int, rows: int) -> list[int]:
    """Sizes of consecutive blocks of `rows` rows that cover `n_rows`; the last may be shorter."""
    sizes = [rows] * (n_rows // rows)
    return [*sizes, n_rows % rows] if n_rows % rows else sizes


def row_blocks(sizes: Sequence[int | None], row_bytes: int, where: str) -> list[Block]:
    """Blocks of those sizes, one after the other, each named by its rows."""
    blocks: list[Block] = []
    offset: int | None = 0
    for index, rows in enumerate(sizes):
        if rows is None or offset is None:
            name = f"block {index} of {where}"
        else:
            name = f"rows {offset} to {offset + rows} of {where}"
        blocks.append(Block(index, name, rows, block_bytes() if rows is None else rows * row_bytes, offset))
        offset = None if rows is None or offset is None else offset + rows
    return blocks
