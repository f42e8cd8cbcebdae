"""Every n-th block of a source, from the i-th on: what one of several steps within a pass reads.

Blocks far apart are together, so that each portion is like the whole where the data is in some order.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dask_em.model import Chunk, Reader, Source
from dask_em.sources.base import TableSource
from dask_em.sources.fingerprint import digest


@dataclass(frozen=True)
class PortionReader:
    """A reader for each block, which has it by its number there."""

    start: int
    blocks: tuple[int, ...]
    parts: tuple[Reader, ...]
    needs: tuple[int, ...]  # how many values each of them is to be bound to

    def bind(self, values: Sequence[Any]) -> PortionReader:
        """Gives each its own values."""
        parts, at = list[Any](), 0
        for part, n in zip(self.parts, self.needs, strict=True):
            parts.append(part.bind(values[at : at + n]) if n else part)  # type: ignore[attr-defined]
            at += n
        return replace(self, parts=tuple(parts))

    def read(self, index: int) -> Chunk:
        """The block with that number in the portion."""
        i = index - self.start
        return self.parts[i].read(self.blocks[i])


class Portion(TableSource):
    """Blocks `number`, `number + of`, `number + 2 of`, ... of a source."""

    def __init__(self, source: Source, number: int, of: int) -> None:
        self.source, self.number, self.of = source, number, of
        own = source.blocks[number::of]
        self.indices = tuple(block.index for block in own)
        self.blocks = [replace(block, index=i) for i, block in enumerate(own)]
        self.where = source.where
        self.n_features = source.n_features
        self.feature_names = source.feature_names
        self.dtype = source.dtype
        self.in_memory = source.in_memory
        self.sparse = getattr(source, "sparse", False)
        self.graph = source.graph

    def read(self, index: int) -> Chunk:
        """The block, read by the source itself."""
        return self.source.read(self.indices[index])

    def part(self, start: int, stop: int) -> Reader:
        """One reader for each of the blocks."""
        own = self.indices[start:stop]
        parts = tuple(self.source.part(i, i + 1) for i in own)
        return PortionReader(start, own, parts, tuple(len(self.source.dependencies(i, i + 1)) for i in own))

    def dependencies(self, start: int, stop: int) -> Sequence[Hashable]:
        """Those of its blocks, one after another."""
        return [key for i in self.indices[start:stop] for key in self.source.dependencies(i, i + 1)]

    def _fingerprint(self) -> str:
        return digest("portion", self.source.fingerprint, self.number, self.of)
