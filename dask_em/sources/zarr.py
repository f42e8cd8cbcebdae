"""Zarr arrays, v2 and v3, sharded or not, in any store: blocks are whole chunks, or whole shards."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from dask_em.errors import ConfigurationError, DataChangedError, DataError
from dask_em.model import Block, Chunk, Reader
from dask_em.sources.array import ArrayReader, block_edges
from dask_em.sources.base import NARROWEST, TableSource, block_bytes, row_blocks, uniform_rows
from dask_em.sources.columns import Selection, count, positions
from dask_em.sources.fingerprint import digest, hash_array
from dask_em.sources.location import is_transient, refusal, retrying, without_secrets
from dask_em.sources.zarr_chunks import short_way
from dask_em.sources.zarr_missing import look_for_missing
from dask_em.sources.zarr_store import bound_threads, is_process_local, list_files, shown

CHECK_SECONDS = 5.0  # how often a reader that stays open looks whether the array is still what was planned


@dataclass(frozen=True)
class Layout:
    """What was planned of a Zarr array; another one when it is opened means that the data changed."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    dtype: np.dtype

    @classmethod
    def of(cls, array: Any) -> Layout:
        """That of an open array."""
        dtype = array.dtype.newbyteorder("=")  # the byte order is the codec's affair, and `native` sees to it
        return cls(tuple(array.shape), tuple(array.chunks), array.shards and tuple(array.shards), dtype)

    @property
    def grid(self) -> tuple[int, ...]:
        """Shape of what the store holds under one key."""
        return self.shards or self.chunks

    @property
    def n_columns(self) -> int:
        """A one-dimensional array is one column."""
        return self.shape[1] if len(self.shape) == 2 else 1


@dataclass(frozen=True)
class ZarrReader:
    """Reads stretches of rows. What travels is the store's address, not its data."""

    start: int
    edges: tuple[int, ...]
    first: int  # row number of edges[0]
    store: Any
    path: str
    layout: Layout
    columns: Selection | None
    _open: list[tuple[float, Any, Any]] = field(default_factory=list, compare=False, repr=False)  # the array

    def read(self, index: int) -> Chunk:
        """The block's rows, decoded."""
        i = index - self.start
        start, stop = self.first + self.edges[i], self.first + self.edges[i + 1]
        try:
            x = retrying(lambda: self._rows(start, stop))
        except DataError:
            raise
        except Exception as error:
            raise self._explained(error, start, stop) from error
        return Chunk(x, block=index)

    def _rows(self, start: int, stop: int) -> np.ndarray:
        array = self._array()
        if len(self.layout.shape) == 1:
            return native(array[start:stop])[:, None]
        chunks = self._open[0][2]
        if chunks is not None:
            return native(self._picked(chunks.read(start, stop, spans(self.columns, self.layout))))
        if not isinstance(self.columns, list):
            return native(array[start:stop] if self.columns is None else array[start:stop, self.columns])
        # each chunk is decoded once, whatever the order of the columns
        return native(
            self._picked(np.concatenate([array[start:stop, a:b] for a, b in spans(self.columns, self.layout)], 1))
        )

    def _picked(self, x: np.ndarray) -> np.ndarray:
        """The chosen columns, from those of the spans side by side."""
        if self.columns is None:
            return x
        read = [c for a, b in spans(self.columns, self.layout) for c in range(a, b)]
        place = {c: j for j, c in enumerate(read)}
        wanted = range(self.layout.n_columns)[self.columns] if isinstance(self.columns, slice) else self.columns
        chosen = [place[c] for c in wanted]
        return x if chosen == list(range(x.shape[1])) else x[:, chosen]

    def _array(self) -> Any:
        if self._open and time.monotonic() - self._open[0][0] < CHECK_SECONDS:
            return self._open[0][1]
        array = open_node(self.store, self.path)
        if not hasattr(array, "chunks") or Layout.of(array) != self.layout:
            raise DataChangedError(
                f"{shown(self.store, self.path)} is no longer the array of shape {self.layout.shape} that was opened: "
                "open it again and refit."
            )
        self._open[:] = [(time.monotonic(), array, short_way(array))]
        return array

    def _explained(self, error: Exception, start: int, stop: int) -> DataError:
        """Names the first chunk in those rows that cannot be decoded."""
        where = shown(self.store, self.path)
        # codecs raise some kinds of OSError too, but without a number
        unreachable = (
            isinstance(error, FileNotFoundError | PermissionError) or getattr(error, "errno", None) is not None
        )
        if unreachable or is_transient(error):
            return refusal(error, f"Rows {start} to {stop} of {where}")
        step = self.layout.chunks[0]
        for a in range(start - start % step, stop, step):
            try:
                self._rows(max(a, start), min(a + step, stop))
            except Exception as found:
                a, b = max(a, start), min(a + step, stop)
                what = f"{type(found).__name__}: {without_secrets(str(found))}"
                return DataError(
                    f"The chunk with rows {a} to {b} of {where} cannot be decoded ({what}): "
                    "it is damaged; write it again from the original data."
                )
        return refusal(error, f"Rows {start} to {stop} of {where}")

    def __reduce__(self) -> Any:
        if is_process_local(self.store):  # no other process can reach it: the rows themselves must travel
            x = self._rows(self.first, self.first + self.edges[-1])
            return ArrayReader, (self.start, self.edges, x)
        return ZarrReader, (self.start, self.edges, self.first, self.store, self.path, self.layout, self.columns)


class ZarrSource(TableSource):
    """Rows of a Zarr array.

    Parameters
    ----------
    array : zarr.Array
        Of one or two dimensions.
    columns : sequence of int or slice, optional
    missing_chunks : {"warn", "error", "ignore"}
        What to do about chunks that the store does not hold, which Zarr reads as the fill value.

    Examples
    --------
    >>> import zarr
    >>> source = ZarrSource(zarr.ones((1000, 3), chunks=(100, 3)), missing_chunks="ignore")
    >>> source.read(0).x.shape
    (1000, 3)
    """

    def __init__(
        self, array: Any, columns: Any = None, *, missing_chunks: Literal["warn", "error", "ignore"] = "warn"
    ) -> None:
        if missing_chunks not in ("warn", "error", "ignore"):
            raise ConfigurationError(f"missing_chunks={missing_chunks!r}: choose 'warn', 'error' or 'ignore'.")
        self.store, self.path = array.store, array.path
        self.where = shown(self.store, self.path)
        check_layout(array, self.where)
        self.layout = Layout.of(array)
        self.columns = positions(columns, self.layout.n_columns)
        self.n_features = count(self.layout.n_columns, self.columns)
        self.dtype = self.layout.dtype
        self.blocks = self._plan()
        files = list_files(self.store, self.path)
        if missing_chunks != "ignore":
            look_for_missing(array, files, spans(self.columns, self.layout), self.where, missing_chunks)
        # what tells versions apart, not the keys themselves: there may be millions of them
        self._content = None if not files or None in files.values() else digest(*sorted(files.items()))

    def _plan(self) -> Sequence[Block]:
        step = self.layout.grid[0]
        decoded = sum(b - a for a, b in spans(self.columns, self.layout)) * max(
            self.dtype.itemsize, NARROWEST
        )  # bytes a row
        rows = step * max(1, block_bytes() // max(step * decoded, 1))
        return row_blocks(uniform_rows(self.layout.shape[0], rows), self.n_features * self.dtype.itemsize, self.where)

    def part(self, start: int, stop: int) -> Reader:
        """Where the rows of those blocks are."""
        edges, rows = block_edges(self.blocks[start:stop])
        return ZarrReader(start, edges, rows.start, self.store, self.path, self.layout, self.columns)

    def _fingerprint(self) -> str:
        content: Any = self._content
        if content is None:  # a store that knows no sizes or times
            step = max(1, len(self.blocks) // 16)
            content = [hash_array(self.read(i).x) for i in range(0, len(self.blocks), step)]
        return digest("zarr", self.layout, self.columns, content)


def open_node(store: Any, path: str) -> Any:
    """The array or group at a path of a store."""
    import zarr

    bound_threads()
    return retrying(lambda: zarr.open(store=store, path=path, mode="r"))


def check_layout(array: Any, where: str) -> None:
    """Refuse what is not a table of numbers."""
    if array.ndim not in (1, 2):
        raise DataError(
            f"{where} has {array.ndim} dimensions, shape {tuple(array.shape)}: rows by columns are needed, "
            "so reshape it to two dimensions when writing it."
        )
    if getattr(array.dtype, "kind", "O") not in "biuf":
        raise DataError(f"{where} holds values of type {array.dtype}, not real numbers: convert them when writing it.")
    if 0 in array.shape:
        kind = "sample(s)" if array.shape[0] == 0 else "feature(s)"
        raise DataError(
            f"Found array with 0 {kind} (shape={tuple(array.shape)}) while a minimum of 1 is required: "
            f"{where} is empty."
        )


def spans(columns: Selection | None, layout: Layout) -> list[tuple[int, int]]:
    """Stretches of columns to decode: each chunk that holds a chosen one once, neighbours together."""
    n = layout.n_columns
    if not isinstance(columns, list):
        chosen = range(n) if columns is None else range(n)[columns]
        return [(chosen[0], chosen[-1] + 1)]
    width = layout.grid[1]
    out: list[tuple[int, int]] = []
    for tile in sorted({c // width for c in columns}):
        inside = [c for c in columns if c // width == tile]
        low, high = min(inside), max(inside) + 1
        if out and out[-1][1] == tile * width and low == tile * width:
            out[-1] = (out[-1][0], high)
        else:
            out.append((low, high))
    return out


def native(x: np.ndarray) -> np.ndarray:
    """The values in this machine's byte order."""
    return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))
