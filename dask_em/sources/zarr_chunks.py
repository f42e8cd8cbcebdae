"""A short way through local arrays of very many small chunks, or of chunks in zstd.

Zarr spends about 0.3 ms of Python on each chunk, whatever its size.  Where chunks are small, that is all the time
there is, so this reads their files and undoes the common codecs directly, for a tenth of it.  Chunks in zstd, Zarr's
default, are decoded straight into the block whatever their size: without Zarr's copy and its threads, which take
turns with the one that computes, reading costs a fifth to a quarter less.  Anything unusual (other codecs, other
stores, other large chunks) is left to Zarr.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SMALL_BYTES = 256 << 10  # decoded; beyond this, decoding takes longer than Zarr's way to it
ABSENT = np.uint64(2**64 - 1)  # in a shard's index: the chunk is not there

Decode = Callable[[bytes], Any]
Spans = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Chunks:
    """How to decode one file of a two-dimensional array."""

    root: str
    key: Callable[[tuple[int, ...]], str]
    shape: tuple[int, int]
    grid: tuple[int, int]  # rows and columns of a file
    chunk: tuple[int, int]  # of a chunk; as `grid` where the array is not sharded
    stored: np.dtype  # byte order included
    order: str
    decode: Sequence[Decode]  # last codec first
    fill: Any
    index_at_end: bool | None = None  # None: no shards
    zstd: Callable[[bytes, np.ndarray], Any] | None = None  # decodes a whole chunk into an array

    def read(self, start: int, stop: int, spans: Spans) -> np.ndarray:
        """(stop - start, columns of the spans) array."""
        out = np.empty((stop - start, sum(b - a for a, b in spans)), self.stored)
        height, width = self.grid
        for i in range(start // height, -(-stop // height)):
            at = 0
            for low, high in spans:
                for j in range(low // width, -(-high // width)):
                    a, b = max(low, j * width), min(high, (j + 1) * width)
                    top, bottom = max(start, i * height), min(stop, (i + 1) * height)
                    target = out[top - start : bottom - start, at + a - low : at + b - low]
                    self._file(i, j, target, top - i * height, a - j * width)
                at += high - low
        return out

    def _file(self, i: int, j: int, target: np.ndarray, row: int, column: int) -> None:
        """Fill `target` from the file at (i, j), from that row and column of it on."""
        try:
            with open(os.path.join(self.root, self.key((i, j))), "rb") as file:
                data = file.read()
        except FileNotFoundError:
            target[...] = self.fill
            return
        straight = self.zstd is not None and target.shape == self.chunk and target.flags.c_contiguous
        if straight and zstd_size(data) == target.nbytes:  # a shorter one would leave the rest as it was, unsaid
            self.zstd(data, target.reshape(-1))  # type: ignore[misc]
            return
        if self.index_at_end is None:
            target[...] = self._chunk(data)[row : row + target.shape[0], column : column + target.shape[1]]
        else:
            self._shard(data, target, row, column)

    def _chunk(self, data: Any) -> np.ndarray:
        for decode in self.decode:
            data = decode(data)
        return np.frombuffer(data, self.stored).reshape(self.chunk, order=self.order)  # type: ignore[call-overload]

    def _shard(self, data: bytes, target: np.ndarray, row: int, column: int) -> None:
        height, width = self.chunk
        across, down = self.grid[1] // width, self.grid[0] // height
        index = self._index(data, across * down)
        view = memoryview(data)
        for i in range(row // height, -(-(row + target.shape[0]) // height)):
            for j in range(column // width, -(-(column + target.shape[1]) // width)):
                top, bottom = max(row, i * height), min(row + target.shape[0], (i + 1) * height)
                left, right = max(column, j * width), min(column + target.shape[1], (j + 1) * width)
                part = target[top - row : bottom - row, left - column : right - column]
                offset, length = index[i * across + j]
                if offset == ABSENT:
                    part[...] = self.fill
                    continue
                values = self._chunk(view[int(offset) : int(offset) + int(length)])
                part[...] = values[top - i * height : bottom - i * height, left - j * width : right - j * width]

    def _index(self, data: bytes, n: int) -> np.ndarray:
        from google_crc32c import value as crc32c

        size = 16 * n + 4
        if len(data) < size:
            raise ValueError("the shard is shorter than its index")
        raw = data[-size:] if self.index_at_end else data[:size]
        if crc32c(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
            raise ValueError("the checksum of the shard's index does not match")
        return np.frombuffer(raw, "<u8", 2 * n).reshape(n, 2)


def short_way(array: Any) -> Chunks | None:
    """The way to read an open Zarr array without Zarr, where it is worthwhile and all of it is understood."""
    from zarr.storage import LocalStore

    if not isinstance(array.store, LocalStore) or array.ndim != 2:
        return None
    meta = array.metadata
    if meta.zarr_format == 2:
        decode: Sequence[Decode] | None = _v2(meta)
        order, stored, index_at_end = meta.order, array.dtype, None
        chunk = grid = tuple(array.chunks)
    else:
        read = _v3([c.to_dict() for c in meta.codecs])
        if read is None:
            return None
        decode, endian, index_at_end = read
        order, stored = "C", array.dtype.newbyteorder(endian)
        chunk, grid = tuple(array.chunks), tuple(array.shards or array.chunks)
    if decode is None:
        return None
    zstd = _only_zstd(decode) if order == "C" and index_at_end is None else None
    if zstd is None and int(np.prod(chunk)) * array.dtype.itemsize > SMALL_BYTES:
        return None
    fill = meta.fill_value if meta.fill_value is not None else 0
    root = os.path.join(array.store.root, array.path)
    return Chunks(
        root, meta.encode_chunk_key, array.shape, grid, chunk, stored, order, decode, fill, index_at_end, zstd
    )


def zstd_size(data: bytes) -> int | None:
    """Decoded bytes of a zstd frame as its header states them; None: it does not (RFC 8878, section 3.1.1.1)."""
    if len(data) < 5 or data[:4] != b"\x28\xb5\x2f\xfd":
        return None
    flags = data[4]
    one_segment = bool(flags & 0x20)
    size = (int(one_segment), 2, 4, 8)[flags >> 6]
    start = 5 + (not one_segment) + (0, 1, 2, 4)[flags & 3]  # after the window and the dictionary's number
    if size == 0 or len(data) < start + size:
        return None
    return int.from_bytes(data[start : start + size], "little") + (256 if size == 2 else 0)


def _only_zstd(decode: Sequence[Decode]) -> Callable[[bytes, np.ndarray], Any] | None:
    """The decoder, where it is zstd's and there is no other."""
    import numcodecs  # type: ignore[import-untyped]

    (codec,) = (getattr(d, "__self__", None) for d in decode) if len(decode) == 1 else (None,)
    return codec.decode if isinstance(codec, numcodecs.Zstd) else None


def _v2(meta: Any) -> list[Decode] | None:
    if meta.filters:
        return None
    if meta.compressor is None:
        return []
    return [meta.compressor.decode] if meta.compressor.codec_id in ("zstd", "blosc", "gzip", "zlib", "lz4") else None


def _v3(codecs: Sequence[Any]) -> tuple[list[Decode], str, bool | None] | None:
    """Decoders, byte order, and for shards whether the index is at the end."""
    first, rest = codecs[0], codecs[1:]
    if first["name"] == "sharding_indexed":
        options = first["configuration"]
        inner = _v3([c if isinstance(c, dict) else c.to_dict() for c in options["codecs"]])
        index = [(c if isinstance(c, dict) else c.to_dict())["name"] for c in options["index_codecs"]]
        if rest or inner is None or inner[2] is not None or index != ["bytes", "crc32c"]:
            return None
        location = options.get("index_location", "end")
        return inner[0], inner[1], str(getattr(location, "value", location)) == "end"
    if first["name"] != "bytes":
        return None
    endian = (first.get("configuration") or {}).get("endian", "little")
    decode = [_decoder(c["name"]) for c in reversed(rest)]
    if None in decode:
        return None
    return decode, "<" if str(getattr(endian, "value", endian)) == "little" else ">", None  # type: ignore[return-value]


def _decoder(name: str) -> Decode | None:
    import numcodecs

    made = {"zstd": numcodecs.Zstd, "blosc": numcodecs.Blosc, "gzip": numcodecs.GZip}.get(name)
    return None if made is None else made().decode
