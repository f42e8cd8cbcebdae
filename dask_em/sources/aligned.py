"""Weights or sequence ids that lie apart from the data: a second source with the same blocks."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_em.errors import DataError
from dask_em.model import Chunk, Reader
from dask_em.sources.base import TableSource
from dask_em.sources.fingerprint import digest
from dask_em.sources.levels import Levels
from dask_em.sources.row_columns import WORDS


@dataclass(frozen=True)
class AlignedReader:
    """Reads a block and what lies beside it."""

    data: Reader
    beside: Reader
    field: str  # of the chunk, that takes the column beside
    names: dict[int, str]

    @property
    def pending(self) -> tuple[Hashable, ...]:
        """Keys whose values `bind` brings: those of the data, then those of what lies beside."""
        return (*getattr(self.data, "pending", ()), *getattr(self.beside, "pending", ()))

    def bind(self, values: Sequence[Any]) -> AlignedReader:
        """Gives each its own values."""
        n = len(getattr(self.data, "pending", ()))
        data = self.data.bind(values[:n]) if n else self.data  # type: ignore[attr-defined]
        beside = self.beside.bind(values[n:]) if values[n:] else self.beside  # type: ignore[attr-defined]
        return replace(self, data=data, beside=beside)

    def read(self, index: int) -> Chunk:
        """The block's rows, with their weights or sequence ids."""
        chunk, beside = self.data.read(index), self.beside.read(index)
        if chunk.n_rows != beside.n_rows:
            words = WORDS[self.field]
            raise DataError(
                f"{self.names[index]} holds {chunk.n_rows} rows but {beside.n_rows} {words}: "
                f"the {words} must be one a row, in the rows' order."
            )
        column: dict[str, Any] = {self.field: np.asarray(beside.x)[:, 0]}
        return replace(chunk, **column)


class AlignedSource(TableSource):
    """The rows of `data`, each with its weight or sequence id from `beside`, of one column and the same blocks."""

    def __init__(self, data: TableSource, beside: TableSource, field: str) -> None:
        if len(data.blocks) != len(beside.blocks):
            raise DataError(
                f"The {WORDS[field]} come in {len(beside.blocks)} blocks, the data in {len(data.blocks)}: "
                "they must be divided alike where the rows are not known beforehand."
            )
        self.data, self.beside, self.field = data, beside, field
        self.where = data.where
        self.blocks = data.blocks
        self.n_features = data.n_features
        self.feature_names = data.feature_names
        self.dtype = data.dtype
        self.sparse = data.sparse
        self.text = data.text
        self.in_memory = data.in_memory and beside.in_memory
        graphs = [g for g in (getattr(data, "graph", None), getattr(beside, "graph", None)) if g is not None]
        self.graph = {k: v for g in graphs for k, v in g.items()} if graphs else None

    def survey(self) -> TableSource:
        """That of the data."""
        survey: TableSource = self.data.survey()  # type: ignore[attr-defined]
        return survey

    def coded(self, levels: Levels) -> AlignedSource:
        """The data, its columns of text as codes of those levels, with what lies beside it."""
        return AlignedSource(self.data.coded(levels), self.beside, self.field)  # type: ignore[attr-defined]

    def read(self, index: int) -> Chunk:
        """The block's rows and what lies beside them, each read by its own source."""
        names = {index: self.blocks[index].name}
        return AlignedReader(self.data, self.beside, self.field, names).read(index)

    def part(self, start: int, stop: int) -> Reader:
        """Both readers, side by side."""
        names = {b.index: b.name for b in self.blocks[start:stop]}
        return AlignedReader(self.data.part(start, stop), self.beside.part(start, stop), self.field, names)

    def dependencies(self, start: int, stop: int) -> Sequence[Any]:
        """Those of the data, then those of what lies beside it."""
        return [*self.data.dependencies(start, stop), *self.beside.dependencies(start, stop)]

    def _fingerprint(self) -> str:
        return digest("aligned", self.field, self.data.fingerprint, self.beside.fingerprint)
