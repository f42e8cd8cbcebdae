"""Parquet files: a block is some consecutive row groups of one file, read straight into one array."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_em.errors import DataError
from dask_em.model import Block, Chunk, Reader
from dask_em.sources.array import ArrayReader
from dask_em.sources.base import NARROWEST, TableSource, TakesText, block_bytes
from dask_em.sources.columns import as_list, common_dtype
from dask_em.sources.fingerprint import digest
from dask_em.sources.levels import HeldLevels, Levels, arrow_codes, arrow_distinct, levels_chunk, unseen
from dask_em.sources.location import Location, refusal, retrying
from dask_em.sources.parquet_files import (
    NULL_PARTITION,
    DataFile,
    agreed_columns,
    check_unchanged,
    column_dtype,
    file_columns,
    find_files,
    first_line,
    is_text,
    open_file,
    opened,
    partition_value,
    read_footers,
    refuse_no_ids,
)
from dask_em.sources.parquet_filter import Filter, make_filter
from dask_em.sources.row_columns import RowColumns
from dask_em.sources.sequences import sequence_ids


@dataclass(frozen=True)
class Groups:
    """What a block is made of."""

    file: int  # position in the reader's files
    groups: tuple[int, ...]
    name: str


@dataclass(frozen=True)
class Wanted:
    """What to take from each file."""

    columns: tuple[str, ...]
    dtype: np.dtype
    beside: RowColumns
    filter: Filter | None
    levels: tuple[tuple[str, tuple[str, ...]], ...] = ()  # of columns of text
    survey: bool = False  # only the levels are asked for

    @property
    def names(self) -> list[str]:
        """The columns, the weight's and the sequence's included."""
        return self.beside.after(self.columns)


class _LastOpened(threading.local):
    """The file that this thread read last stays open till the end of the part: the next block is usually in it too.

    Reading two columns of a row group takes 0.1 ms; opening the file takes 0.2 ms with 4 columns in 10 groups, and
    15 ms with 50 in 100, nearly all of it for the footer (0.6 ms where the footer is known).  One file a thread, and
    none once a task has read its part, are never too many.
    """

    file: DataFile | None = None
    parquet: Any = None

    def get(self, file: DataFile) -> Any:
        if file == self.file:
            check_unchanged(file)
            return self.parquet
        self.close()
        self.parquet, self.file = open_file(file, file.metadata), file
        return self.parquet

    def close(self) -> None:
        if self.parquet is not None:
            self.parquet.close(force=True)
        self.file = self.parquet = None


last_opened = _LastOpened()


@dataclass(frozen=True)
class ParquetReader:
    """Reads row groups. What travels is the files' names, not their data."""

    start: int
    blocks: tuple[Groups, ...]
    files: tuple[DataFile, ...]
    wanted: Wanted

    def read(self, index: int) -> Chunk:
        """The block's rows, in one F-ordered array."""
        block = self.blocks[index - self.start]
        file = self.files[block.file]
        table = self._table(file, block)
        if block is self.blocks[-1]:
            last_opened.close()
        if self.wanted.survey:
            found = [texts(table, file, name) for name in self.wanted.columns]
            return levels_chunk(found, table.num_rows, index)
        x = np.empty((table.num_rows, len(self.wanted.columns)), self.wanted.dtype, order="F")
        levels = dict(self.wanted.levels)
        for j, name in enumerate(self.wanted.columns):
            if name in levels:
                fill_codes(x[:, j], table, file, name, levels[name])
            else:
                fill(x[:, j], table, file, name)
        return Chunk(x, *weight_and_ids(table, file, self.wanted.beside), index)

    def _table(self, file: DataFile, block: Groups) -> Any:
        import pyarrow as pa

        names = [c for c in self.wanted.names if c not in dict(file.partition)]
        if self.wanted.filter is not None:
            names += [c for c in self.wanted.filter.columns(file) if c not in names]
        try:
            table = retrying(
                lambda: last_opened.get(file).read_row_groups(list(block.groups), names, use_threads=False)
            )
            return table if self.wanted.filter is None else self.wanted.filter.apply(table, file)
        except DataError:
            last_opened.close()
            raise
        except (pa.ArrowException, OSError, EOFError) as error:
            last_opened.close()
            if isinstance(error, FileNotFoundError | PermissionError) or not _is_damage(error):
                raise refusal(error, block.name) from error
            raise DataError(
                f"{damaged_group(file, block, names)} cannot be decoded ({first_line(error)}): the file is damaged; "
                "write it again, or leave it out."
            ) from error

    def __reduce__(self) -> Any:
        if any(
            f.location.is_process_local for f in self.files
        ):  # no other process can reach it: the rows themselves travel
            chunks = [self.read(self.start + i) for i in range(len(self.blocks))]
            if self.wanted.survey:
                return HeldLevels, (self.start, tuple(chunks))
            edges = np.cumsum([0, *(c.n_rows for c in chunks)]).tolist()
            fields = zip(*((c.x, c.weight, c.sequence) for c in chunks), strict=True)
            joined = [None if of_blocks[0] is None else np.concatenate(of_blocks) for of_blocks in fields]
            return ArrayReader, (self.start, tuple(edges), *joined)
        files = tuple(DataFile(f.location, f.name, f.stamp, f.partition) for f in self.files)
        return ParquetReader, (self.start, self.blocks, files, self.wanted)


def damaged_group(file: DataFile, block: Groups, columns: Sequence[str]) -> str:
    """Name of the first of the block's row groups that cannot be read, or the block's where each of them can."""
    try:
        with opened(file) as parquet:
            sizes = [parquet.metadata.row_group(g).num_rows for g in range(parquet.metadata.num_row_groups)]
            for g in block.groups:
                try:
                    parquet.read_row_groups([g], list(columns), use_threads=False)
                except Exception:
                    return group_name(file, (g,), sum(sizes[:g]), sizes[g])
    except Exception:
        return block.name  # the file itself cannot be opened any more
    return block.name


def _is_damage(error: BaseException) -> bool:
    import pyarrow as pa

    return isinstance(error, pa.ArrowInvalid | EOFError) or type(error) in (
        OSError,
        pa.ArrowException,
        pa.ArrowNotImplementedError,
    )


def fill(out: np.ndarray, table: Any, file: DataFile, name: str) -> None:
    """Write a column of the table to `out`, nulls as NaN."""
    import pyarrow as pa
    import pyarrow.compute as pc

    folders = dict(file.partition)
    if name in folders:
        value = partition_value(folders[name])
        out[:] = np.nan if value is None else value
        return
    start = 0
    for piece in table[name].chunks:
        if pa.types.is_dictionary(piece.type):
            piece = piece.dictionary_decode()
        if pa.types.is_boolean(piece.type) and piece.null_count:
            piece = pc.cast(piece, pa.uint8())
        if piece.null_count and out.dtype.kind != "f":
            raise DataError(
                f"Column {name!r} of {file.location.shown} has nulls that its statistics deny: write the file again."
            )
        out[start : start + len(piece)] = piece.to_numpy(zero_copy_only=False)
        start += len(piece)


def weight_and_ids(table: Any, file: DataFile, beside: RowColumns) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The weights and the sequence ids of the table's rows."""
    weight = None
    if beside.weight is not None:
        weight = np.empty(table.num_rows)
        fill(weight, table, file, beside.weight)
    if beside.sequence is None:
        return weight, None
    folder = dict(file.partition).get(beside.sequence)
    if folder is None:
        return weight, sequence_ids(table[beside.sequence].to_pandas())
    text = None if folder == NULL_PARTITION else folder  # even where it is a number: all files' folders are told alike
    return weight, sequence_ids(np.full(table.num_rows, text, object))


def texts(table: Any, file: DataFile, name: str) -> list[str]:
    """The texts of a column of the table, or of the folders' names, each once."""
    folders = dict(file.partition)
    if name not in folders:
        return arrow_distinct(table[name])
    return [] if folders[name] == NULL_PARTITION else [folders[name]]


def fill_codes(out: np.ndarray, table: Any, file: DataFile, name: str, levels: Sequence[str]) -> None:
    """Write the codes of a column of text to `out`, nulls as NaN."""
    folders = dict(file.partition)
    if name not in folders:
        out[:] = arrow_codes(table[name], name, levels)
    elif folders[name] == NULL_PARTITION:
        out[:] = np.nan
    elif folders[name] in levels:
        out[:] = levels.index(folders[name])
    elif len(out):
        raise unseen(0, name, folders[name], levels)


class ParquetSource(TableSource):
    """Rows of Parquet files.

    Parameters
    ----------
    locations : sequence of Location
        Files, directories and globs.
    columns : sequence of str, optional
        Names of the columns to use; by default all that are in the files, but for the weight and the
        sequence. Columns that are in the folders' names only (``year=2020/``) are used where they are named.
    weight : str, optional
        Name of the column that holds the rows' weights.
    sequence : str, optional
        Name of the column that holds the ids of the rows' sequences.
    filters : list or pyarrow.compute.Expression, optional
        Rows to keep, as in `pandas.read_parquet`.
    takes_text : callable, optional
        Says of a column's name and position whether it may be text, which `coded` then gives its levels.

    Notes
    -----
    All columns have one dtype: float32 where each of them is, integers the narrowest that holds all of them,
    float64 for a mix, and for integers with nulls, since nulls become NaN. Files may store a column as numbers
    of different widths; the common dtype is used for all.
    """

    def __init__(
        self,
        locations: Sequence[Location],
        columns: Any = None,
        weight: str | None = None,
        sequence: str | None = None,
        filters: Any = None,
        *,
        takes_text: TakesText | None = None,
    ) -> None:
        self.files = read_footers(find_files(locations))
        self.where = locations[0].shown if len(locations) == 1 else f"{len(self.files)} Parquet files"
        beside = RowColumns(weight, sequence)
        chosen = agreed_columns(self.files, None if columns is None else as_list(columns), beside)
        self.text = tuple(
            c for j, c in enumerate(chosen) if takes_text is not None and takes_text(c, j) and is_text(self.files, c)
        )
        types = [np.dtype(np.float64) if c in self.text else column_dtype(self.files, c) for c in chosen]
        self.dtype = common_dtype(types)
        if weight is not None:
            column_dtype(self.files, weight)
        if sequence is not None:
            refuse_no_ids(self.files, sequence)
        self.feature_names = chosen
        self.n_features = len(chosen)
        chosen_filter = None if filters is None else make_filter(filters, self.files)
        self.wanted = Wanted(tuple(chosen), self.dtype, beside, chosen_filter)
        self.contents: list[Groups] = []
        self.blocks = self._plan()

    def _plan(self) -> Sequence[Block]:
        blocks: list[Block] = []
        offset: int | None = 0
        row_bytes = self.n_features * self.dtype.itemsize
        most = max(1, block_bytes() // (self.n_features * max(self.dtype.itemsize, NARROWEST)))
        filtered = self.wanted.filter is not None
        for position, file in enumerate(self.files):
            sizes = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
            kept = range(len(sizes)) if self.wanted.filter is None else self.wanted.filter.groups(file)
            for groups in coalesce([g for g in kept if sizes[g]], sizes, most):
                rows = sum(sizes[g] for g in groups)
                name = group_name(file, groups, sum(sizes[: groups[0]]), rows)
                self.contents.append(Groups(position, groups, name))
                known = None if filtered else rows
                blocks.append(Block(len(blocks), name, known, rows * row_bytes, offset))
                offset = None if filtered or offset is None else offset + rows
        if not blocks:
            if filtered:
                raise DataError(
                    f"{self.where} has no rows that the filters keep, 0 sample(s): loosen them, and check the units "
                    "and types of their columns."
                )
            raise DataError(f"{self.where} is empty, with 0 sample(s): nothing can be learned from it.")
        return blocks

    def survey(self) -> ParquetSource:
        """The same rows, of which only the levels of the columns of text are read."""
        return self._reading(replace(self.wanted, columns=tuple(self.text), beside=RowColumns(), survey=True))

    def coded(self, levels: Levels) -> ParquetSource:
        """The same rows, their columns of text as codes of those levels."""
        return self._reading(replace(self.wanted, levels=tuple(levels.items())))

    def _reading(self, wanted: Wanted) -> ParquetSource:
        other = copy(self)
        other.wanted = wanted
        other.__dict__.pop("_reader", None)  # which reads what was wanted before
        return other

    def part(self, start: int, stop: int) -> Reader:
        """The names of the files of those blocks, and which row groups to read."""
        contents = self.contents[start:stop]
        used = sorted({c.file for c in contents})
        place = {f: i for i, f in enumerate(used)}
        blocks = tuple(Groups(place[c.file], c.groups, c.name) for c in contents)
        return ParquetReader(start, blocks, tuple(self.files[f] for f in used), self.wanted)

    def _fingerprint(self) -> str:
        files = [(f.name, f.stamp, {n: str(t) for n, t in file_columns(f).items()}) for f in self.files]
        kept = None if self.wanted.filter is None else str(self.wanted.filter.expression)
        return digest("parquet", files, self.wanted.columns, self.wanted.beside, kept)


def coalesce(groups: Sequence[int], sizes: Sequence[int], rows: int) -> list[tuple[int, ...]]:
    """Consecutive row groups together as long as they hold no more than `rows`; a larger one stays whole."""
    out: list[tuple[int, ...]] = []
    held = 0
    for g in groups:
        if out and out[-1][-1] == g - 1 and held + sizes[g] <= rows:
            out[-1] = (*out[-1], g)
            held += sizes[g]
        else:
            out.append((g,))
            held = sizes[g]
    return out


def group_name(file: DataFile, groups: tuple[int, ...], first: int, rows: int) -> str:
    """For people: the file, its row groups, and their rows counted in the file."""
    which = f"row group {groups[0]}" if len(groups) == 1 else f"row groups {groups[0]} to {groups[-1]}"
    return f"{file.location.shown}, {which} (rows {first} to {first + rows})"
