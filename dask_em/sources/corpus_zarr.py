"""Compressed sparse rows in a Zarr group: arrays `indptr`, `indices` and `data`, as AnnData and others store them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dask_em.errors import DataError
from dask_em.sources import zarr_store
from dask_em.sources.corpus import Bag, CorpusSource, document_blocks, no_documents, words_per_block
from dask_em.sources.fingerprint import digest
from dask_em.sources.location import Location, refusal, retrying

_ARRAYS = ("indptr", "indices", "data")


@dataclass(frozen=True)
class Slice:
    """Some documents, and where their words are."""

    first: int
    stop: int
    start: int  # of their words
    end: int
    name: str


@dataclass(frozen=True)
class ZarrBags:
    """Reads documents as bags; what travels is where they are."""

    location: Location

    @cached_property
    def _arrays(self) -> tuple[Any, Any, Any]:
        group = open_group(self.location)
        return group["indptr"], group["indices"], group["data"]

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_arrays"}

    def done(self) -> None:
        """Nothing is held."""

    def bag(self, part: Slice) -> Bag:
        """Of those documents."""
        ends, words, counts = self._arrays
        try:
            edges = np.asarray(retrying(lambda: ends[part.first : part.stop + 1])).astype(np.int64) - part.start
            codes = np.asarray(retrying(lambda: words[part.start : part.end])).astype(np.int64)
            values = np.asarray(retrying(lambda: counts[part.start : part.end]))
        except Exception as error:
            raise refusal(error, part.name) from error
        if edges[0] != 0 or edges[-1] != len(codes) or (np.diff(edges) < 0).any():
            raise DataError(f"{part.name}: indptr does not rise from row to row: the array is damaged, or has changed.")
        return Bag(edges, codes, values)


def open_group(location: Location) -> Any:
    """The group at that place; or its `X`, where that holds the rows."""
    import zarr

    zarr_store.bound_threads()
    store, path = zarr_store.make_store(location)
    try:
        node = retrying(lambda: zarr.open_group(store=store, path=path, mode="r"))
        if "indptr" not in node and "X" in node and isinstance(node["X"], zarr.Group):
            node = node["X"]
        found = [name for name in _ARRAYS if name in node]
    except FileNotFoundError as error:
        raise DataError(f"There is no Zarr group at {location.shown}: check the path.") from error
    except Exception as error:
        raise refusal(error, f"The Zarr metadata of {location.shown}") from error
    if len(found) < len(_ARRAYS):
        lacks = ", ".join(name for name in _ARRAYS if name not in found)
        raise DataError(
            f"{location.shown} is no group of compressed sparse rows: it has no {lacks}. Give the group that has "
            "indptr, indices and data."
        )
    if str(node.attrs.get("encoding-type", "csr_matrix")) != "csr_matrix":
        raise DataError(
            f"{location.shown} is stored by columns ({node.attrs['encoding-type']}), from which documents cannot be "
            "read one by one: write it by rows, as a csr_matrix."
        )
    return node


def is_sparse_group(location: Location) -> bool:
    """Whether there is a Zarr group of sparse rows at that place."""
    if not zarr_store.is_zarr(location):
        return False
    try:
        open_group(location)
    except DataError:
        return False
    return True


class ZarrCorpus(CorpusSource):
    """Documents that are the rows of a sparse table in a Zarr group.

    Parameters
    ----------
    location : Location
    """

    def __init__(self, location: Location) -> None:
        self.location, self.where = location, location.shown
        group = open_group(location)
        ends = np.asarray(retrying(lambda: group["indptr"][:])).astype(np.int64)
        shape = group.attrs.get("shape", group.attrs.get("h5sparse_shape"))
        n = len(ends) - 1
        if n < 1:
            raise no_documents(self.where)
        if (np.diff(ends) < 0).any():
            raise DataError(f"{self.where}: indptr falls at row {int(np.flatnonzero(np.diff(ends) < 0)[0])}: damaged.")
        if shape is None:
            largest = retrying(lambda: _largest(group["indices"]))
            shape = (n, largest + 1)
        self.numbered = int(shape[1])
        step = words_per_block(int(ends[-1]))
        cuts = np.searchsorted(ends, np.arange(step, int(ends[-1]), step))
        edges = np.unique(np.concatenate([[0], cuts, [n]])).tolist()
        self.parts = [
            Slice(a, b, int(ends[a]), int(ends[b]), f"rows {a} to {b} of {self.where}")
            for a, b in itertools.pairwise(edges)
        ]
        words = [p.end - p.start for p in self.parts]
        self.blocks = document_blocks([p.stop - p.first for p in self.parts], words, [p.name for p in self.parts])
        self.n_features = self.numbered
        self._stamps = zarr_store.list_files(group.store, group.path)

    def bags(self, parts: Sequence[Slice]) -> tuple[ZarrBags, tuple[Slice, ...]]:
        """Where the group is."""
        return ZarrBags(self.location), tuple(parts)

    def _fingerprint(self) -> str:
        stamps = None if self._stamps is None else sorted(self._stamps.items())
        return digest("sparse rows", self.where, stamps, self._columns)


def _largest(indices: Any) -> int:
    step = words_per_block(indices.shape[0])
    return max((int(indices[i : i + step].max()) for i in range(0, indices.shape[0], step)), default=-1)
