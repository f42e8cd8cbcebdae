"""Files of text, a document a line: a block is some bytes of a file, from the start of a line to the end of one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dask_em.errors import DataChangedError, DataError
from dask_em.sources.corpus import Bag, CorpusSource, document_blocks, no_documents, words_per_block
from dask_em.sources.fingerprint import digest
from dask_em.sources.location import Location, refusal, retrying, stamp
from dask_em.sources.parquet_files import natural
from dask_em.sources.tokens import Tokens

_PIECE = 1 << 16  # bytes read to find the end of a line
_BYTES_A_WORD = 6


@dataclass(frozen=True)
class TextFile:
    """A file of text, as planned."""

    location: Location
    stamp: tuple[Any, ...]
    compressed: bool


@dataclass(frozen=True)
class Bytes:
    """Where the lines of a block begin: at the first start of a line from `start` on, and before `stop`."""

    file: int
    start: int
    stop: int | None  # None: all of the file
    name: str


@dataclass(frozen=True)
class TextBags:
    """Reads lines as bags."""

    files: tuple[TextFile, ...]
    tokens: Tokens

    def done(self) -> None:
        """Nothing is held."""

    def bag(self, part: Bytes) -> Bag:
        """Of the lines that begin there."""
        file = self.files[part.file]
        try:
            found = retrying(lambda: _lines(file, part))
        except DataError:
            raise
        except Exception as error:
            raise refusal(error, part.name) from error
        return self.tokens.bag(line.decode("utf-8", errors="replace") for line in found)


def _lines(file: TextFile, part: Bytes) -> list[bytes]:
    fs, path = file.location.resolve()
    if not file.location.is_local:
        fs.invalidate_cache(path)
    if stamp(fs.info(path)) != file.stamp:
        raise DataChangedError(f"{file.location.shown} has changed since it was opened: open it again and refit.")
    with fs.open(path, "rb", compression="infer" if file.compressed else None) as stream:
        if part.stop is None:
            return _split(stream.read())
        start = part.start
        if start:
            stream.seek(start - 1)
            start = start - 1 + len(_to_end_of_line(stream))
        stream.seek(start)
        if start >= part.stop:
            return []
        own = stream.read(part.stop - start)
        return _split(own if own.endswith(b"\n") else own + _to_end_of_line(stream))


def _to_end_of_line(stream: Any) -> bytes:
    pieces = list[bytes]()
    while piece := stream.read(_PIECE):
        end = piece.find(b"\n")
        if end >= 0:
            pieces.append(piece[: end + 1])
            break
        pieces.append(piece)
    return b"".join(pieces)


def _split(text: bytes) -> list[bytes]:
    lines = text.split(b"\n")
    return lines[:-1] if lines[-1] == b"" else lines


class TextCorpus(CorpusSource):
    """Lines of files of text, each a document; empty ones are documents without words.

    Parameters
    ----------
    locations : sequence of Location
        Files and globs; a compressed file, such as .gz, is one block.
    tokens : Tokens
    """

    def __init__(self, locations: Sequence[Location], tokens: Tokens) -> None:
        self.tokens = tokens
        self.where = locations[0].shown if len(locations) == 1 else f"{len(locations)} files of text"
        self.files, self.parts, sizes = list[TextFile](), list[Bytes](), list[int]()
        found = [own for location in locations for own in _found(location)]
        step = words_per_block(sum(size for _, size in found) // _BYTES_A_WORD) * _BYTES_A_WORD
        for file, size in found:
            shown = file.location.shown
            edges = [0, size] if file.compressed else [*range(0, size, step), size]
            for start, stop in itertools.pairwise(edges):
                name = shown if file.compressed else f"bytes {start} to {stop} of {shown}"
                part = Bytes(len(self.files), start, None if file.compressed else stop, name)
                self.parts.append(part)
                sizes.append((stop - start) // _BYTES_A_WORD)
            self.files.append(file)
        if not self.parts:
            raise no_documents(self.where)
        self.blocks = document_blocks([None] * len(sizes), sizes, [part.name for part in self.parts])
        self.n_features = 1

    def bags(self, parts: Sequence[Bytes]) -> tuple[TextBags, tuple[Bytes, ...]]:
        """The files, few enough to travel together."""
        used = sorted({p.file for p in parts})
        place = {f: i for i, f in enumerate(used)}
        moved = tuple(Bytes(place[p.file], p.start, p.stop, p.name) for p in parts)
        return TextBags(tuple(self.files[f] for f in used), self.tokens), moved

    def _fingerprint(self) -> str:
        files = [(f.location.url, f.stamp) for f in self.files]
        return digest("texts", files, self.tokens, self._columns)


def _found(location: Location) -> list[tuple[TextFile, int]]:
    fs, path = location.resolve()
    try:
        if any(c in path for c in "*?["):
            infos = {p: i for p, i in retrying(lambda: fs.glob(path, detail=True)).items() if i["type"] == "file"}
            if not infos:
                raise DataError(f"No file matches {location.shown}: check the pattern.")
        else:
            infos = {path: retrying(lambda: fs.info(path))}
            if infos[path]["type"] != "file":
                raise DataError(f"{location.shown} is a directory: name its files, as in {location.shown}/*.txt.")
    except DataError:
        raise
    except Exception as error:
        raise refusal(error, location.shown) from error
    out = list[tuple[TextFile, int]]()
    for own in sorted(infos, key=natural):
        url = own if location.is_local else fs.unstrip_protocol(own)
        compressed = own.endswith((".gz", ".bz2", ".xz", ".zst"))
        size = int(infos[own]["size"])
        if size:
            out.append((TextFile(Location(url, location.options), stamp(infos[own]), compressed), size))
    return out
