"""Levels of columns of text: what they are, and a column as codes 0, 1, ... of them, nulls as NaN."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_em.errors import CellError, DataError
from dask_em.model import Chunk

MOST = 1000  # levels of a column: more are names or free text, of which no share can be estimated
Levels = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class LevelsChunk(Chunk):
    """A block of which only the distinct texts of its columns matter."""

    found: tuple[frozenset[str], ...] = ()


@dataclass(frozen=True)
class HeldLevels:
    """What blocks told of the levels, where no other process can read them."""

    start: int
    chunks: tuple[LevelsChunk, ...]

    def read(self, index: int) -> Chunk:
        """The block's."""
        return self.chunks[index - self.start]


def levels_chunk(found: Sequence[Iterable[Any]], n_rows: int, index: int) -> LevelsChunk:
    """What a block tells of the levels."""
    return LevelsChunk(np.zeros((n_rows, len(found))), None, None, index, tuple(frozenset(own) for own in found))


@dataclass(frozen=True)
class LevelsFound:
    """The distinct texts of some columns in the blocks so far: a set for each, which merge by union."""

    columns: tuple[str, ...]
    found: tuple[frozenset[str], ...]

    def merge(self, right: LevelsFound) -> LevelsFound:
        """Those of either; refuses a column of too many."""
        found = tuple(a | b for a, b in zip(self.found, right.found, strict=True))
        for column, own in zip(self.columns, found, strict=True):
            refuse_many(column, own)
        return LevelsFound(self.columns, found)

    def close(self) -> dict[str, tuple[str, ...]]:
        """Sorted, so that they do not depend on the order of the rows."""
        for column, own in zip(self.columns, self.found, strict=True):
            refuse_many(column, own)
        return {column: tuple(sorted(own)) for column, own in zip(self.columns, self.found, strict=True)}


@dataclass(frozen=True)
class LevelsRequest:
    """Asks a pass for the levels of those columns."""

    columns: tuple[str, ...]

    @property
    def accepts_nan(self) -> bool:
        """Nulls are no level."""
        return True

    def map(self, chunk: Chunk) -> LevelsFound:
        """One block's."""
        assert isinstance(chunk, LevelsChunk)  # `survey` makes the source
        return LevelsFound(self.columns, chunk.found)


def refuse_many(column: Any, levels: Sequence[str] | frozenset[str]) -> None:
    """Raise for more levels than shares can be estimated of."""
    if len(levels) > MOST:
        raise DataError(
            f"Column {column!r} holds text of more than {MOST} levels, such as {min(levels)!r}: leave it out with "
            "columns=, on the command line --columns, or put rare levels together first."
        )


def unseen(row: int, column: Any, value: Any, levels: Sequence[str]) -> CellError:
    """The error for a text that is none of the levels."""
    known = ", ".join(repr(level) for level in levels[:10]) + (", ..." if len(levels) > 10 else "")
    return CellError(
        row, f"column {column!r} is {value!r}, which is none of its levels {known}: mend the value, or make it missing"
    )


# ---------------------------------------------------------------- pandas


def is_text(dtype: Any) -> bool:
    """Whether a pandas column of that type may hold text: strings, objects or categories."""
    if isinstance(dtype, np.dtype):
        return dtype.kind == "O"
    return hasattr(dtype, "categories") or dtype.name in ("string", "str") or str(dtype).startswith("string")


def declared(dtype: Any) -> tuple[str, ...] | None:
    """The levels of a column of known categories, in their order; None: they are to be looked for."""
    categories = getattr(dtype, "categories", None)
    if categories is None or "__UNKNOWN_CATEGORIES__" in set(categories):
        return None
    return tuple(str(c) for c in categories)


def distinct(column: Any, name: Any) -> list[str]:
    """The texts of a pandas column, each once."""
    values = column.dropna().unique()
    if hasattr(column.dtype, "categories"):
        return [str(v) for v in values]
    for value in values:
        if not isinstance(value, str):
            raise DataError(
                f"Column {name!r} of the data holds {value!r}, which is not text, in a column of objects: convert "
                "the column, to numbers or to text."
            )
    return [str(v) for v in values]


def codes(column: Any, name: Any, levels: Sequence[str]) -> np.ndarray:
    """(n_rows,) codes of a pandas column as float64, nulls as NaN."""
    import pandas as pd

    if hasattr(column.dtype, "categories"):
        own = pd.Index([str(c) for c in column.cat.categories], dtype=object)
        table = np.append(pd.Index(levels, dtype=object).get_indexer(own), -1)  # -1, a null, is the last
        found = table[column.cat.codes.to_numpy()]
    else:
        found = pd.Index(levels, dtype=object).get_indexer(pd.Index(column.to_numpy(dtype=object), dtype=object))
    out = np.where(found < 0, np.nan, found).astype(np.float64)
    wrong = (found < 0) & column.notna().to_numpy()
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise unseen(row, name, column.iloc[row], levels)
    return out


def coded(frame: Any, levels: Levels) -> Any:
    """The pandas frame with codes in place of text."""
    for name in levels:
        if name in frame.columns and not is_text(frame[name].dtype):
            raise DataError(
                f"Column {name!r} is of type {frame[name].dtype}, where text is expected, of the levels "
                f"{', '.join(map(repr, levels[name][:10]))}: give the levels themselves."
            )
    return frame.assign(**{name: codes(frame[name], name, own) for name, own in levels.items() if name in frame})


# ---------------------------------------------------------------- Arrow


def arrow_text(kind: Any) -> bool:
    """Whether an Arrow type is text, or a dictionary of texts."""
    import pyarrow.types as t

    inner = kind.value_type if t.is_dictionary(kind) else kind
    return bool(t.is_string(inner) or t.is_large_string(inner) or t.is_string_view(inner))


def _plain(piece: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_dictionary(piece.type):
        piece = piece.dictionary_decode()
    return piece.cast(pa.large_string())


def arrow_distinct(column: Any) -> list[str]:
    """The texts of a chunked Arrow array, each once."""
    return [v for piece in column.chunks for v in _plain(piece).unique().to_pylist() if v is not None]


def arrow_codes(column: Any, name: str, levels: Sequence[str]) -> np.ndarray:
    """(n_rows,) codes of a chunked Arrow array as float64, nulls as NaN."""
    import pyarrow as pa
    import pyarrow.compute as pc

    out, start = np.full(len(column), np.nan), 0
    known = pa.array(levels, pa.large_string())
    for piece in map(_plain, column.chunks):
        at = pc.index_in(piece, value_set=known, skip_nulls=True)
        wrong = pc.and_(at.is_null(), piece.is_valid()).to_numpy(zero_copy_only=False)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise unseen(start + row, name, piece[row].as_py(), levels)
        out[start : start + len(piece)] = at.cast(pa.float64()).to_numpy(zero_copy_only=False)
        start += len(piece)
    return out
