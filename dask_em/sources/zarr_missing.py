"""Chunks that a Zarr store does not hold: Zarr reads them as the fill value, whether or not they were ever written."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Sequence
from itertools import product
from typing import Any, Literal

import numpy as np

from dask_em.errors import DataError
from dask_em.sources.location import retrying
from dask_em.sources.zarr_chunks import ABSENT

AT_ONCE = 32  # requests for the indexes of shards

Cell = tuple[int, ...]  # position in the grid of chunks


def look_for_missing(
    array: Any, files: Any, spans: Sequence[tuple[int, int]], where: str, action: Literal["warn", "error"]
) -> None:
    """Warn of chunks that are missing, or raise.

    Parameters
    ----------
    array : zarr.Array
    files : container of str, or None
        Keys that the store holds; None: it cannot list them.
    spans : sequence of (int, int)
        Stretches of columns that are to be read.
    where : str
        For people: the array.
    action : {"warn", "error"}
        Of a sharded array, "error" looks for chunks that its shards lack too, for which it reads their indexes.
    """
    if files is None:
        if action == "error":
            raise DataError(
                f"{where} is in a store that cannot list its keys, so missing chunks cannot be looked for: "
                "choose 'ignore' for missing chunks if it is known to be complete."
            )
        return
    grid, kind = array.shards or array.chunks, "shards" if array.shards else "chunks"
    cells = needed(array.shape, grid, spans)
    missing = [cell for cell in cells if array.metadata.encode_chunk_key(cell) not in files]
    if not missing and action == "error" and array.shards:
        grid, kind = array.chunks, "chunks within shards"
        missing = absent_in_shards(array, cells, spans)
        cells = needed(array.shape, grid, spans)
    if not missing:
        return
    first = missing[0][0] * grid[0]
    last = min(first + grid[0], array.shape[0])
    found = f"{len(missing)} of the {len(cells)} {kind} of {where} are missing, the first with rows {first} to {last}"
    if action == "error":
        raise DataError(
            f"{found}: write them again, or choose 'warn' for missing chunks to read them as the fill value."
        )
    warnings.warn(
        f"{found}: they are read as the fill value, {array.metadata.fill_value}. If the data was written in full, "
        "part of it is lost; 'error' for missing chunks refuses such data, 'ignore' accepts it silently.",
        UserWarning,
        stacklevel=6,  # to who called open
    )


def needed(shape: Cell, grid: Cell, spans: Sequence[tuple[int, int]]) -> list[Cell]:
    """Cells of a grid that hold any of those columns, row by row."""
    down = range(-(-shape[0] // grid[0]))
    if len(shape) == 1:
        return [(i,) for i in down]
    across = sorted({c // grid[1] for a, b in spans for c in (*range(a, b, grid[1]), b - 1)})
    return list(product(down, across))


def absent_in_shards(array: Any, shards: Sequence[Cell], spans: Sequence[tuple[int, int]]) -> list[Cell]:
    """Chunks that the shards at those cells lack; none are found where an index is stored in an unusual way."""
    from zarr.core.sync import sync

    (codec,) = [c.to_dict() for c in array.metadata.codecs][:1]
    options = codec["configuration"]
    if [(c if isinstance(c, dict) else c.to_dict())["name"] for c in options["index_codecs"]] != ["bytes", "crc32c"]:
        return []
    at_end = str(getattr(options["index_location"], "value", options["index_location"])) == "end"
    per_shard = tuple(s // c for s, c in zip(array.shards, array.chunks, strict=True))
    wanted = set(needed(array.shape, array.chunks, spans))
    missing: list[Cell] = []
    for start in range(0, len(shards), 1024):  # indexes in memory at a time
        some = shards[start : start + 1024]
        keys = [f"{array.path}/{array.metadata.encode_chunk_key(cell)}".lstrip("/") for cell in some]
        size = 16 * int(np.prod(per_shard)) + 4
        found = retrying(lambda keys=keys, size=size: sync(_indexes(array.store, keys, size, at_end)))  # type: ignore[misc]
        for cell, index in zip(some, found, strict=True):
            for inner in np.argwhere(index.reshape(*per_shard, 2)[..., 0] == ABSENT).tolist():
                chunk = tuple(c * n + i for c, n, i in zip(cell, per_shard, inner, strict=True))
                if chunk in wanted:
                    missing.append(chunk)
    return sorted(missing)


async def _indexes(store: Any, keys: Sequence[str], size: int, at_end: bool) -> list[np.ndarray]:
    """The index of each shard: offset and length of its chunks."""
    from zarr.abc.store import RangeByteRequest, SuffixByteRequest
    from zarr.core.buffer import default_buffer_prototype

    where = SuffixByteRequest(size) if at_end else RangeByteRequest(0, size)
    free = asyncio.Semaphore(AT_ONCE)

    async def one(key: str) -> np.ndarray:
        async with free:
            raw = await store.get(key, default_buffer_prototype(), where)
        if raw is None or len(raw) < size:
            raise DataError(f"The shard {key} is shorter than its index: it is damaged; write it again.")
        return np.frombuffer(raw.to_bytes()[:-4], "<u8")

    return await asyncio.gather(*(one(key) for key in keys))
