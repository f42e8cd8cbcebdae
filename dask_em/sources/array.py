"""Arrays in this process's memory, and `.npy` files and memory maps, which are read in place."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import issparse

from dask_em.errors import DataChangedError, DataError
from dask_em.model import Block, Chunk, Reader
from dask_em.sources.base import MIN_ROWS, TableSource, row_blocks, rows_per_block, uniform_rows
from dask_em.sources.columns import Selection, count, names_at
from dask_em.sources.fingerprint import digest, hash_array
from dask_em.sparse import row_bytes


@dataclass(frozen=True)
class ArrayReader:
    """Rows that are in memory: what it holds is just the rows of its blocks."""

    start: int  # index of its first block
    edges: tuple[int, ...]  # block start + i is rows edges[i] to edges[i + 1] of x
    x: Any
    weight: np.ndarray | None = None
    sequence: np.ndarray | None = None
    columns: list[int] | None = None  # to take from x; None: all

    def read(self, index: int) -> Chunk:
        """The block's rows, as a view where no columns are to be picked out."""
        i = index - self.start
        rows = slice(self.edges[i], self.edges[i + 1])
        x = taken(self.x[rows], self.columns)
        return Chunk(x, _rows(self.weight, rows), _rows(self.sequence, rows), index)


class ArraySource(TableSource):
    """Rows of an array in memory.

    Parameters
    ----------
    x : ndarray or csr_array of shape (n_rows, n_features)
        Used as it is: blocks are views of it.
    weight, sequence : ndarray of shape (n_rows,), optional
        As in `dask_em.model.Chunk`.
    feature_names : sequence of str, optional
    sizes : sequence of int, optional
        Rows of each block, where they must follow those of another source.

    Examples
    --------
    >>> import numpy as np
    >>> source = ArraySource(np.zeros((100_000, 2)))
    >>> len(source.blocks), source.n_rows
    (7, 100000)
    """

    in_memory = True

    def __init__(
        self,
        x: Any,
        weight: np.ndarray | None = None,
        sequence: np.ndarray | None = None,
        *,
        columns: Selection | None = None,
        feature_names: Sequence[str] | None = None,
        sizes: Sequence[int] | None = None,
        where: str = "the array",
    ) -> None:
        self.columns = columns if isinstance(columns, list) else None  # picked out block by block
        x = x[:, columns] if isinstance(columns, slice) else x  # a view
        n_rows = x.shape[0]
        self.n_features = count(x.shape[1], self.columns)
        for name, column in (("weight", weight), ("sequence", sequence)):
            if column is not None and column.shape != (n_rows,):
                raise DataError(
                    f"{name} has shape {column.shape}, but the data has {n_rows} rows: give one {name} a row."
                )
        self.x, self.weight, self.sequence = x, weight, sequence
        self.dtype = x.dtype.newbyteorder("=")
        self.feature_names = names_at(feature_names, columns)
        self.sparse = issparse(x)
        row = row_bytes(x) if self.sparse else self.n_features * self.dtype.itemsize
        values = -(-row // self.dtype.itemsize)  # as many as there were in a dense row of so many bytes
        least = max(1, 2 * MIN_ROWS // max(values, 2)) if self.sparse else MIN_ROWS  # each value of theirs is work
        sizes = sizes or uniform_rows(n_rows, rows_per_block(n_rows, values, self.dtype, least=least))
        self.where = where
        self.blocks = row_blocks(sizes, row, where)

    def part(self, start: int, stop: int) -> Reader:
        """The rows of those blocks."""
        edges, rows = block_edges(self.blocks[start:stop])
        weight, sequence = _rows(self.weight, rows), _rows(self.sequence, rows)
        return ArrayReader(start, edges, self.x[rows], weight, sequence, self.columns)

    def _fingerprint(self) -> str:
        arrays: tuple[Any, ...] = (self.x, self.weight, self.sequence)
        if not isinstance(self.x, np.ndarray):  # compressed sparse rows
            arrays = (self.x.data, self.x.indices, self.x.indptr, self.weight, self.sequence)
        return digest("array", self.columns, *(None if a is None else hash_array(a) for a in arrays))


@dataclass(frozen=True)
class MappedFile:
    """Where the values of a two-dimensional memory map lie in a file."""

    path: str
    offset: int  # of the first value, in bytes
    dtype: np.dtype
    shape: tuple[int, int]
    strides: tuple[int, int]  # bytes
    stamp: tuple[int, int]  # size and modification time when planned

    def open(self) -> np.ndarray:
        """Map the file again, in whichever process this is."""
        try:
            found = file_stamp(self.path)
            if found != self.stamp:
                raise DataChangedError(f"{self.path} has changed since it was opened: open it again and refit.")
            raw = np.memmap(self.path, np.uint8, "r")
        except OSError as error:
            raise DataError(
                f"{self.path} cannot be read ({error.strerror or error}): every worker needs the file under this path."
            ) from error
        return np.ndarray(self.shape, self.dtype, raw, self.offset, self.strides)


@dataclass(frozen=True)
class MappedReader:
    """Rows of a memory-mapped file; what travels is where they are."""

    start: int
    edges: tuple[int, ...]
    first: int  # row number of edges[0]
    file: MappedFile
    columns: Selection | None = None

    def read(self, index: int) -> Chunk:
        """The block's rows, as a view of the map where no columns are to be picked out."""
        i = index - self.start
        rows = self.file.open()[self.first + self.edges[i] : self.first + self.edges[i + 1]]
        return Chunk(taken(rows, self.columns), block=index)


class MappedSource(TableSource):
    """Rows of a memory-mapped file, such as `.npy`."""

    def __init__(self, file: MappedFile, columns: Selection | None = None) -> None:
        self.file, self.columns = file, columns
        self.n_features = count(file.shape[1], columns)
        self.dtype = file.dtype.newbyteorder("=")
        sizes = uniform_rows(file.shape[0], rows_per_block(file.shape[0], self.n_features, self.dtype))
        self.where = file.path
        self.blocks = row_blocks(sizes, self.n_features * self.dtype.itemsize, file.path)

    def part(self, start: int, stop: int) -> Reader:
        """Where the rows of those blocks are."""
        edges, rows = block_edges(self.blocks[start:stop])
        return MappedReader(start, edges, rows.start, self.file, self.columns)

    def _fingerprint(self) -> str:
        f = self.file
        return digest("map", os.path.basename(f.path), f.offset, f.dtype.str, f.shape, f.strides, f.stamp, self.columns)


def mapped_file(x: np.memmap) -> MappedFile | None:
    """Where `x` lies in its file, or None where the file does not hold what `x` does."""
    mapping = getattr(x, "_mmap", None)
    if mapping is None or not isinstance(x.filename, str | os.PathLike) or x.mode == "c" or min(x.strides) < 0:
        return None  # no file of that name, or private changes that the file does not have
    start_of_map = np.frombuffer(mapping, np.uint8).ctypes.data
    file_start = x.offset - x.offset % mmap.ALLOCATIONGRANULARITY  # `offset` is that of the map x is a view of
    offset = file_start + x.ctypes.data - start_of_map
    path = os.path.abspath(os.fspath(x.filename))
    try:
        stamp = file_stamp(path)
    except OSError:
        return None
    return MappedFile(path, offset, x.dtype, (x.shape[0], x.shape[1]), (x.strides[0], x.strides[1]), stamp)


def file_stamp(path: str) -> tuple[int, int]:
    """Size and modification time of a local file, in nanoseconds."""
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


def block_edges(blocks: Sequence[Block]) -> tuple[tuple[int, ...], slice]:
    """Edges of consecutive blocks counted from the first one's start, and the rows they cover."""
    if not blocks:
        return (0,), slice(0, 0)
    first = blocks[0].offset or 0
    edges = [0]
    for block in blocks:
        edges.append(edges[-1] + (block.rows or 0))
    return tuple(edges), slice(first, first + edges[-1])


def taken(x: Any, columns: Selection | None) -> Any:
    """Those columns of the rows, in this machine's byte order; a view where it can be."""
    x = x if columns is None else x[:, columns]
    return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))


def _rows(column: np.ndarray | None, rows: slice) -> np.ndarray | None:
    return None if column is None else column[rows]
