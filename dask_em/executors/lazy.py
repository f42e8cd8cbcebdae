"""A function of rows, over data of any kind: arrays at once, anything larger lazily."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.sparse import issparse

from dask_em.errors import CellError, DataError, RowError
from dask_em.executors.examine import refuse_bad_values, refused
from dask_em.executors.graph import rows_graph
from dask_em.model import Block, Chunk, Reader, Source
from dask_em.sparse import compressed, row_bytes

Function = Callable[..., np.ndarray]  # of rows, and where they are


@dataclass(frozen=True)
class _Checked:
    """The function, once the rows are seen to be numbers; what is wrong with them reads as it does in a fit."""

    function: Function
    names: Sequence[str] | None
    accepts_nan: bool

    def of(self, x: np.ndarray, block: Block, sequence: np.ndarray | None = None) -> np.ndarray:
        if x.dtype.kind not in "biuf":
            raise DataError(f"{block.name} holds values of type {x.dtype}, not real numbers: convert them first.")
        x = compressed(x) if issparse(x) else x
        refuse_bad_values(Chunk(x), block, self.names, accepts_nan=self.accepts_nan)
        function = self.function if sequence is None else partial(self.function, sequence=sequence)
        return located(function, x, block, self.names)


def located(function: Function, x: np.ndarray, block: Block, names: Sequence[str] | None) -> np.ndarray:
    """The function of rows; a value that it refuses is named with its place."""
    try:
        return function(x, block)
    except RowError as error:
        raise refused(error, block, names) from None


def lazy_rows(function: Function, source: Source, width: int | None, dtype: Any, *, accepts_nan: bool = False) -> Any:
    """A dask array of `function` over the rows of a source, block by block.

    Parameters
    ----------
    function : callable
        Takes (n, n_features) and the block that they are, and `sequence=` if the source has that; gives (n,) or
        (n, width); must be picklable.
    source : Source
    width : int or None
        Columns of the answer; None for one number a row.
    dtype : dtype
        Of the answer.
    accepts_nan : bool
        Whether the rows may hold missing values.

    Returns
    -------
    dask.array.Array
        Chunk sizes are unknown (NaN) where the source's are.
    """
    import dask.array as da
    from dask.highlevelgraph import HighLevelGraph

    trailing = () if width is None else (width,)
    name = f"em-rows-{uuid.uuid4().hex}"
    work = _Work(_Checked(function, source.feature_names, accepts_nan), type(source).bind)
    blocks = [(source.part(b.index, b.index + 1), b, source.dependencies(b.index, b.index + 1)) for b in source.blocks]
    layers: dict[str, Any] = {name: rows_graph(name, work, blocks, len(trailing))}
    needs: dict[str, set[str]] = {name: set()}
    if source.graph:  # what blocks have in common is computed once for all of them
        layers[f"{name}-data"], needs = source.graph, {name: {f"{name}-data"}, f"{name}-data": set()}
    rows = tuple(np.nan if b.rows is None else b.rows for b in source.blocks)
    return da.Array(HighLevelGraph(layers, needs), name, (rows, *((n,) for n in trailing)), dtype=dtype)


@dataclass(frozen=True)
class _Work:
    """What is done with each block of a source."""

    checked: _Checked
    bind: Callable[[Reader, Sequence[Any]], Reader]

    def __call__(self, part: Reader, block: Block, values: Sequence[Any]) -> np.ndarray:
        reader = self.bind(part, values) if values else part
        try:
            chunk = reader.read(block.index)
            return self.checked.of(chunk.x, block, chunk.sequence)
        except CellError as error:
            raise error.located(block.name, block.offset) from None


def lazy_array(
    function: Function,
    x: Any,
    width: int | None,
    dtype: Any,
    *,
    names: Sequence[str] | None = None,
    accepts_nan: bool = False,
) -> Any:
    """A dask array of `function` over the rows of a two-dimensional dask array, whose columns may have names."""
    x = x.rechunk({1: -1}) if x.numblocks[1] > 1 else x
    work = _OfArray(_Checked(function, names, accepts_nan))
    if width is None:
        return x.map_blocks(work, drop_axis=1, dtype=dtype, meta=np.empty((0,), dtype=dtype))
    chunks = (x.chunks[0], (width,))
    return x.map_blocks(work, chunks=chunks, dtype=dtype, meta=np.empty((0, width), dtype=dtype))


def with_zeros(x: Any, position: int) -> Any:
    """A two-dimensional dask array with one more column, of zeros."""
    import dask.array as da

    return da.insert(x, position, 0.0, axis=1)


def stacked(arrays: Sequence[Any]) -> Any:
    """Dask arrays of the same rows, along a new first axis."""
    import dask.array as da

    return da.stack(arrays, allow_unknown_chunksizes=True)


@dataclass(frozen=True)
class _OfArray:
    """What is done with each chunk of a dask array."""

    checked: _Checked

    def __call__(self, x: np.ndarray, block_info: Any = None) -> np.ndarray:
        place: Any = block_info[0] if block_info else {"chunk-location": (0, 0), "array-location": [(0, x.shape[0])]}
        index, (start, stop) = int(place["chunk-location"][0]), place["array-location"][0]
        name, nbytes = f"chunk {index} of the Dask array", x.shape[0] * row_bytes(x)
        if np.isnan(start) or np.isnan(stop):
            return self.checked.of(x, Block(index, name, None, nbytes, None))
        name = f"{name} (rows {start} to {stop})"
        return self.checked.of(x, Block(index, name, x.shape[0], nbytes, int(start)))
