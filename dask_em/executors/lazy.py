"""A function of rows, over data of any kind: arrays at once, anything larger lazily."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from dask_em.executors.examine import refuse_bad_values
from dask_em.model import Block, Chunk, Reader, Source


def lazy_rows(function: Callable[[np.ndarray], np.ndarray], source: Source, width: int | None, dtype: Any) -> Any:
    """A dask array of `function` over the rows of a source, block by block.

    Parameters
    ----------
    function : callable
        Takes (n, n_features), gives (n,) or (n, width); must be picklable.
    source : Source
    width : int or None
        Columns of the answer; None for one number a row.
    dtype : dtype
        Of the answer.

    Returns
    -------
    dask.array.Array
        Chunk sizes are unknown (NaN) where the source's are.
    """
    import dask.array as da
    from dask import delayed

    trailing = () if width is None else (width,)
    parts = []
    task = delayed(_of_block, pure=True)
    for block in source.blocks:
        values = list(source.dependencies(block.index, block.index + 1))
        rows = np.nan if block.rows is None else block.rows
        answer = task(function, type(source).bind, source.part(block.index, block.index + 1), block.index, values)
        parts.append(da.from_delayed(answer, (rows, *trailing), dtype=dtype))
    if not parts:
        return da.zeros((0, *trailing), dtype=dtype)
    return da.concatenate(parts, allow_unknown_chunksizes=True)


def _of_block(
    function: Callable[[np.ndarray], np.ndarray],
    bind: Callable[[Reader, list[Any]], Reader],
    part: Reader,
    index: int,
    values: list[Any],
) -> np.ndarray:
    return _checked(bind(part, values).read(index).x, function=function, name=f"block {index}")


def lazy_array(function: Callable[[np.ndarray], np.ndarray], x: Any, width: int | None, dtype: Any) -> Any:
    """A dask array of `function` over the rows of a two-dimensional dask array."""
    x = x.rechunk({1: -1}) if x.numblocks[1] > 1 else x
    function = partial(_checked, function=function, name="a chunk of the dask array")
    if width is None:
        return x.map_blocks(function, drop_axis=1, dtype=dtype, meta=np.empty((0,), dtype=dtype))
    chunks = (x.chunks[0], (width,))
    return x.map_blocks(function, chunks=chunks, dtype=dtype, meta=np.empty((0, width), dtype=dtype))


def _checked(x: np.ndarray, *, function: Callable[[np.ndarray], np.ndarray], name: str) -> np.ndarray:
    refuse_bad_values(Chunk(x), Block(0, name, len(x), x.nbytes), None, accepts_nan=False)
    return function(x)
