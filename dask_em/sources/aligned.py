"""Weights that lie apart from the data: a second source with the same blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_em.errors import DataError
from dask_em.model import Chunk, Reader
from dask_em.sources.base import TableSource
from dask_em.sources.fingerprint import digest
from dask_em.sources.levels import Levels


@dataclass(frozen=True)
class AlignedReader:
    """Reads a block and its weights."""

    data: Reader
    weight: Reader
    names: dict[int, str]

    def bind(self, values: Sequence[Any]) -> AlignedReader:
        """Gives each its own values."""
        n = len(getattr(self.data, "pending", ()))
        data = self.data.bind(values[:n]) if n else self.data  # type: ignore[attr-defined]
        weight = self.weight.bind(values[n:]) if values[n:] else self.weight  # type: ignore[attr-defined]
        return replace(self, data=data, weight=weight)

    def read(self, index: int) -> Chunk:
        """The block's rows, with their weights."""
        chunk, weights = self.data.read(index), self.weight.read(index)
        if chunk.n_rows != weights.n_rows:
            raise DataError(
                f"{self.names[index]} holds {chunk.n_rows} rows but {weights.n_rows} weights: "
                "the weights must be one a row, in the rows' order."
            )
        return replace(chunk, weight=np.asarray(weights.x)[:, 0])


class AlignedSource(TableSource):
    """The rows of `data`, each with its weight from `weight`, a source of one column and the same blocks."""

    def __init__(self, data: TableSource, weight: TableSource) -> None:
        if len(data.blocks) != len(weight.blocks):
            raise DataError(
                f"The weights come in {len(weight.blocks)} blocks, the data in {len(data.blocks)}: "
                "they must be divided alike where the rows are not known beforehand."
            )
        self.data, self.weight = data, weight
        self.where = data.where
        self.blocks = data.blocks
        self.n_features = data.n_features
        self.feature_names = data.feature_names
        self.dtype = data.dtype
        self.sparse = data.sparse
        self.text = data.text
        self.in_memory = data.in_memory and weight.in_memory
        graphs = [g for g in (getattr(data, "graph", None), getattr(weight, "graph", None)) if g is not None]
        self.graph = {k: v for g in graphs for k, v in g.items()} if graphs else None

    def survey(self) -> TableSource:
        """That of the data."""
        survey: TableSource = self.data.survey()  # type: ignore[attr-defined]
        return survey

    def coded(self, levels: Levels) -> AlignedSource:
        """The data, its columns of text as codes of those levels, with the weights."""
        return AlignedSource(self.data.coded(levels), self.weight)  # type: ignore[attr-defined]

    def read(self, index: int) -> Chunk:
        """The block's rows, with their weights, each read by its own source."""
        names = {index: self.blocks[index].name}
        return AlignedReader(self.data, self.weight, names).read(index)

    def part(self, start: int, stop: int) -> Reader:
        """Both readers, side by side."""
        names = {b.index: b.name for b in self.blocks[start:stop]}
        return AlignedReader(self.data.part(start, stop), self.weight.part(start, stop), names)

    def dependencies(self, start: int, stop: int) -> Sequence[Any]:
        """Those of the data, then those of the weights."""
        return [*self.data.dependencies(start, stop), *self.weight.dependencies(start, stop)]

    def _fingerprint(self) -> str:
        return digest("aligned", self.data.fingerprint, self.weight.fingerprint)
