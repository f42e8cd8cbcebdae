"""Dask arrays and frames: a block is a chunk of rows, or a partition.

The graph is optimised once.  Where blocks can be computed apart, each part of the source carries
the piece of graph that computes its blocks, and tasks run it in place: a hundred thousand tiny
chunks can then share a few tasks.  What a cluster already holds (persisted collections) comes to
the part through `bind`.  Where blocks have much work in common (a shuffle, a rechunk), the source
has a `graph` that computes all of them, and `bind` takes the blocks themselves.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from scipy.sparse import issparse

from dask_em.errors import CellError, DataError
from dask_em.model import Block, Chunk, Reader
from dask_em.sources.base import TableSource, block_bytes
from dask_em.sources.columns import missing, names_at, positions
from dask_em.sources.dask_graph import Graph, Planned, evaluate, plan
from dask_em.sources.dataframe import (
    check_row_columns,
    choose_columns,
    column_dtype,
    frame_dtype,
    to_array,
    to_vector,
)
from dask_em.sources.fingerprint import digest
from dask_em.sources.levels import distinct, levels_chunk
from dask_em.sources.row_columns import RowColumns
from dask_em.sources.sequences import ids_kind, sequence_ids
from dask_em.sources.shared_work import SharedWork
from dask_em.sparse import compressed

_FILLED = 50  # cells of a sparse row for each that is not zero: a guess, as nothing is known before it is read


class Convert(Protocol):
    """Makes a chunk of what a block's graph computes."""

    def __call__(self, value: Any, name: str, index: int) -> Chunk: ...


@dataclass(frozen=True)
class GraphReader:
    """Computes blocks in place."""

    start: int
    graph: Graph
    keys: tuple[Hashable, ...]  # of its blocks
    names: tuple[str, ...]
    convert: Convert
    pending: tuple[Hashable, ...] = ()  # keys whose values `bind` brings
    values: Mapping[Hashable, Any] = field(default_factory=dict, repr=False)

    def bind(self, values: Sequence[Any]) -> GraphReader:
        """The reader, given the values of its pending keys."""
        return replace(self, values=dict(zip(self.pending, values, strict=True)))

    def read(self, index: int) -> Chunk:
        """The block's rows, computed."""
        i = index - self.start
        with explained(self.names[i]):
            value = evaluate(self.graph, self.keys[i], self.values)
        return self.convert(value, self.names[i], index)


@contextmanager
def explained(name: str) -> Iterator[None]:
    """What goes wrong in here is that the block of that name cannot be computed."""
    try:
        yield
    except CellError as error:
        raise error.located(name) from None
    except (DataError, MemoryError):
        raise
    except KeyError as error:
        raise DataError(
            f"{name} cannot be computed: KeyError: {error}, which most often is a column that this partition's data "
            "has not; give all partitions the same columns, or open the files themselves, as in "
            "em.open('folder/*.parquet'), which names the one that differs."
        ) from error
    except Exception as error:
        said = (str(error).strip().splitlines() or ["it says no more"])[0]
        raise DataError(f"{name} cannot be computed: {type(error).__name__}: {said}") from error


class DaskSource(TableSource):
    """Blocks of a Dask collection. See the module for its two ways of working."""

    planned: Planned
    convert: Convert
    where = "the Dask collection"

    def _finish(self, blocks: Sequence[Block], planned: Planned, layout: tuple[Any, ...]) -> None:
        self.blocks, self.planned, self._layout = blocks, planned, layout
        self.shared = planned.shares_work()
        self._work = SharedWork(planned, self.where)
        if self.shared:
            self.graph = {**planned.graph, **planned.futures}
        self.in_memory = not self.shared and not planned.futures and self._carries_data()

    def _carries_data(self) -> bool:
        """Whether the values themselves are in the graph: then they are to be sent once, not at every pass."""
        import cloudpickle  # type: ignore[import-untyped]

        first = self.blocks[0]
        rows_bytes = self.n_features * self.dtype.itemsize * (first.rows or 0)
        part, _ = self.planned.needs([self.planned.keys[0]])
        if all(type(node).__name__ == "DataNode" for node in part.values()) or not rows_bytes:
            return bool(part) and all(type(n).__name__ in ("DataNode", "Alias") for n in part.values())
        return bool(rows_bytes > 1 << 12 and len(cloudpickle.dumps(part)) > rows_bytes // 2)

    def part(self, start: int, stop: int) -> Reader:
        """The piece of graph that computes those blocks."""
        keys = tuple(self.planned.keys[start:stop])
        names = tuple(b.name for b in self.blocks[start:stop])
        if self.shared:
            return GraphReader(start, {}, keys, names, self.convert, keys)
        graph, pending = self.planned.needs(keys)
        return GraphReader(start, graph, keys, names, self.convert, tuple(pending))

    def dependencies(self, start: int, stop: int) -> Sequence[Any]:
        """The blocks' keys in `graph` where there is one, else the futures that the blocks need."""
        keys = self.planned.keys[start:stop]
        if self.shared:
            return list(keys)
        _, pending = self.planned.needs(keys)
        return [self.planned.futures[k] for k in pending]

    def read(self, index: int) -> Chunk:
        """The block, computed in this process."""
        block = self.blocks[index]
        with explained(block.name):
            value = self._work.block(self.planned.keys[index])
        return self.convert(value, block.name, index)

    def _fingerprint(self) -> str:
        # not of the keys in the graph, which Dask draws anew in each process for much that it reads; other values
        # in the same layout are told by the checksum that a checkpoint keeps of its passes
        return digest("dask", *self._layout)


@dataclass(frozen=True)
class ArrayBlock:
    """Checks that a computed block is what the Dask array said it would be."""

    n_features: int
    dtype: np.dtype
    rows: tuple[int | None, ...]
    sparse: bool = False

    def __call__(self, value: Any, name: str, index: int) -> Chunk:
        if issparse(value) != self.sparse or hasattr(value, "todense") != issparse(value):
            kinds = ("sparse", "dense") if hasattr(value, "todense") else ("dense", "sparse")
            raise DataError(
                f"{name} is {kinds[0]}, where the Dask array promises {kinds[1]} rows: give the function that makes it "
                "the right meta, make all rows dense with x.map_blocks(lambda b: b.toarray()), or sparse with "
                "x.map_blocks(scipy.sparse.csr_array)."
            )
        value = compressed(value) if self.sparse else np.asanyarray(value)
        if isinstance(value, np.ma.MaskedArray):
            raise DataError(f"{name} is a masked array: fill it, for instance with da.ma.filled(x, numpy.nan).")
        if value.ndim != 2 or value.shape[1] != self.n_features or self.rows[index] not in (None, value.shape[0]):
            raise DataError(
                f"{name} has shape {value.shape}, where the Dask array promises "
                f"({self.rows[index] or 'any'}, {self.n_features}): "
                "the function that makes it returns another shape than its metadata says."
            )
        if value.dtype.kind not in "biuf":
            raise DataError(f"{name} holds values of type {value.dtype}, not real numbers.")
        if not holds(self.dtype, value.dtype):
            raise DataError(
                f"{name} holds values of type {value.dtype}, where the Dask array promises {self.dtype}: "
                "give the function that makes it the right dtype, or convert with x.astype(float)."
            )
        return Chunk(value if value.dtype == self.dtype else value.astype(self.dtype), block=index)


class DaskArraySource(DaskSource):
    """Rows of a two-dimensional Dask array, chunked in any way.

    Examples
    --------
    >>> import dask.array as da
    >>> source = DaskArraySource(da.ones((100, 4), chunks=(30, 2)))
    >>> [b.rows for b in source.blocks], source.read(3).x.shape
    ([30, 30, 30, 10], (10, 4))
    """

    where = "the Dask array"

    def __init__(self, x: Any, columns: Any = None, *, feature_names: Sequence[str] | None = None) -> None:
        from dask import optimize

        refuse_shape(x)
        selection = positions(columns, x.shape[1], feature_names)
        if selection is not None:
            x = x[:, selection]
        if x.numblocks[1] > 1:
            x = x.rechunk({1: -1})
        self.n_features = int(x.shape[1])
        self.dtype = np.dtype(x.dtype).newbyteorder("=")
        self.feature_names = names_at(feature_names, selection)
        self.sparse = issparse(x._meta)
        (ready,) = optimize(x)
        sizes = [None if np.isnan(n) else int(n) for n in x.chunks[0]]
        keys = [row[0] for row in ready.__dask_keys__()]
        kept = [i for i, n in enumerate(sizes) if n != 0]
        if not kept:
            raise DataError(f"The Dask array has 0 sample(s) (shape={x.shape}): pass at least one row.")
        rows = [sizes[i] for i in kept]
        self.convert = ArrayBlock(self.n_features, self.dtype, tuple(rows), self.sparse)
        cells = -(-self.n_features // _FILLED) if self.sparse else self.n_features
        blocks = collection_blocks(rows, cells * self.dtype.itemsize, "chunk", kept, self.where)
        planned = plan(ready.__dask_graph__(), [keys[i] for i in kept], dict(x.__dask_graph__()))
        self._finish(blocks, planned, ("array", self.dtype.str, self.n_features, x.chunks[0], self.feature_names))


def refuse_shape(x: Any) -> None:
    """Raise for a Dask array that is not a table of numbers."""
    if x.ndim != 2:
        raise DataError(
            f"Expected 2D array, got {x.ndim}D array instead: the Dask array has shape {x.shape}. "
            "Reshape your data either using array.reshape(-1, 1) if your data has a single feature "
            "or array.reshape(1, -1) if it contains a single sample."
        )
    if x.dtype is None or np.dtype(x.dtype).kind not in "biuf":
        word = "Complex data not supported: the" if x.dtype is not None and np.dtype(x.dtype).kind == "c" else "The"
        raise DataError(
            f"{word} Dask array holds values of type {x.dtype}, not real numbers: convert it with x.astype(float)."
        )
    if np.isnan(x.shape[1]):
        raise DataError("The Dask array's number of columns is not known: call x.compute_chunk_sizes() first.")
    if x.shape[1] == 0:
        raise DataError(f"Found array with 0 feature(s) (shape={x.shape}) while a minimum of 1 is required.")


def holds(promised: np.dtype, found: np.dtype) -> bool:
    """Whether values of one type may be taken for another: floats of any width are, else none may be lost."""
    return bool(np.can_cast(found, promised, "same_kind" if found.kind == promised.kind == "f" else "safe"))


@dataclass(frozen=True)
class FrameBlock:
    """Makes one array of a partition's columns."""

    columns: tuple[Any, ...]
    dtype: np.dtype
    beside: RowColumns
    ids: str | None = None  # whether the sequence's ids are numbers or text; None: not known

    def __call__(self, value: Any, name: str, index: int) -> Chunk:
        weight_name, sequence = self.beside
        for column in self.beside.after(self.columns):
            self._check(value, column, name)
        try:
            x = to_array(value, self.columns, self.dtype)
            weight = None if weight_name is None else to_vector(value[weight_name], np.dtype(np.float64))
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(
                f"{name} does not have the columns and types that the Dask frame promises "
                f"({type(error).__name__}: {error}): give the function that makes it the right meta."
            ) from error
        return Chunk(x, weight, None if sequence is None else sequence_ids(value[sequence]), index)

    def _check(self, value: Any, column: Any, where: str) -> None:
        """Refuse a column that is not what the frame's metadata says, for pandas would make it so by force."""
        if column not in value.columns:
            raise missing([column], value.columns, where)
        if column == self.beside.sequence and self.ids not in (None, ids_kind(value[column].dtype)):
            raise DataError(
                f"Column {column!r} of {where} is of type {value[column].dtype}, where the Dask frame promises "
                f"{self.ids}: give all partitions one type, as in frame.astype({{{column!r}: str}})."
            )
        if column not in self.columns and column != self.beside.weight:
            return
        found = column_dtype(value[column].dtype, column, where, may_have_nulls=bool(value[column].hasnans))
        if column in self.columns and not holds(self.dtype, found):
            raise DataError(
                f"Column {column!r} of {where} is of type {found}, where the Dask frame promises {self.dtype}: "
                f"give all partitions one type, as in frame.astype({{{column!r}: float}})."
            )


class DaskFrameSource(DaskSource):
    """Rows of a Dask frame; how many there are is known after a pass.

    Examples
    --------
    >>> import dask.dataframe as dd, pandas as pd
    >>> frame = dd.from_pandas(pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [1, 2, 3]}), npartitions=2)
    >>> DaskFrameSource(frame, columns=["a"]).read(0).x.shape
    (2, 1)
    """

    where = "the Dask frame"

    def __init__(self, frame: Any, columns: Any = None, weight: str | None = None, sequence: str | None = None) -> None:
        meta, beside = frame._meta, RowColumns(weight, sequence)
        chosen = choose_columns(meta, columns, beside.named, "The Dask frame")
        self.dtype = frame_dtype(meta, chosen, self.where, known=False)
        check_row_columns(meta, beside, self.where, known=False)
        kept = beside.after(chosen)
        frame = frame[kept]
        self.n_features = len(chosen)
        self.feature_names = chosen if all(isinstance(c, str) for c in chosen) else None
        self.convert = FrameBlock(tuple(chosen), self.dtype, beside, promised_ids(meta, sequence))
        n, planned, ready = plan_frame(frame)
        blocks = collection_blocks([None] * n, self.n_features * self.dtype.itemsize, "partition", range(n), self.where)
        types = [str(t) for t in meta[kept].dtypes]
        self._finish(blocks, planned, ("frame", kept, types, beside, n))
        if self.shared and any("Shuffle" in type(e).__name__ for e in ready.expr.walk()):
            warnings.warn(
                "The Dask frame is shuffled (sorted, joined or indexed anew), which every pass over it does again: "
                "keep the result with frame.persist(), or write it with frame.to_parquet(path) and open that.",
                UserWarning,
                stacklevel=5,  # to who called open
            )


def promised_ids(meta: Any, sequence: str | None) -> str | None:
    """What kind of ids the metadata promises; None: no sequence, or categories that only the partitions know."""
    if sequence is None or hasattr(meta[sequence].dtype, "categories"):
        return None
    return ids_kind(meta[sequence].dtype)


@dataclass(frozen=True)
class LevelsBlock:
    """The distinct texts of a partition's columns."""

    columns: tuple[Any, ...]

    def __call__(self, value: Any, name: str, index: int) -> Chunk:
        return levels_chunk([distinct(value[c], c) for c in self.columns], len(value), index)


class DaskLevelsSource(DaskSource):
    """The levels of some columns of text of a Dask frame, partition by partition."""

    where = "the Dask frame"

    def __init__(self, frame: Any, columns: Sequence[Any]) -> None:
        self.n_features, self.dtype, self.convert = len(columns), np.dtype(np.float64), LevelsBlock(tuple(columns))
        n, planned, _ = plan_frame(frame[list(columns)])
        blocks = collection_blocks([None] * n, 8 * len(columns), "partition", range(n), self.where)
        self._finish(blocks, planned, ("levels", list(columns), n))


def plan_frame(frame: Any) -> tuple[int, Planned, Any]:
    """Partitions of a Dask frame, what computes them, and the optimised frame."""
    import dask

    # the cluster's own shuffle cannot be repeated from one pass to the next, one made of tasks can
    with dask.config.set({"dataframe.shuffle.method": "tasks"}):
        ready = frame.optimize()
    return ready.npartitions, plan(ready.__dask_graph__(), list(ready.__dask_keys__())), ready


def collection_blocks(
    sizes: Sequence[int | None], row_bytes: int, word: str, numbers: Sequence[int], where: str
) -> list[Block]:
    """Blocks that are named by their number in the collection, and by their rows where known."""
    blocks: list[Block] = []
    offset: int | None = 0
    for index, (number, rows) in enumerate(zip(numbers, sizes, strict=True)):
        known = rows is not None and offset is not None
        stretch = f" (rows {offset} to {offset + rows})" if known else ""  # type: ignore[operator]
        nbytes = block_bytes() if rows is None else rows * row_bytes
        blocks.append(Block(index, f"{word} {number} of {where}{stretch}", rows, nbytes, offset))
        offset = offset + rows if known else None  # type: ignore[operator]
    return blocks
