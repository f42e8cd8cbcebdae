"""Documents in Parquet files: rows of (document, word, count) in the order of documents, lists of words, or texts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_em.errors import CellError, DataError
from dask_em.sources.base import FEW_BLOCKS
from dask_em.sources.columns import missing
from dask_em.sources.corpus import (
    LEAST_WORDS,
    Bag,
    CorpusSource,
    document_blocks,
    no_documents,
    numbered,
    words_per_block,
)
from dask_em.sources.fingerprint import digest
from dask_em.sources.levels import arrow_text
from dask_em.sources.location import Location, refusal, retrying
from dask_em.sources.parquet import coalesce, group_name, last_opened
from dask_em.sources.parquet_files import DataFile, file_columns, find_files, first_line, read_footers
from dask_em.sources.tokens import Tokens

_WORDS_OF_A_TEXT = 100  # on average, to plan blocks


@dataclass(frozen=True)
class Rows:
    """Row groups of one file that are a block, and what its documents share with others."""

    file: int
    groups: tuple[int, ...]
    name: str
    skip: Any = None  # the document of the last row before, which has rows here too
    after: tuple[tuple[int, int], ...] = ()  # files and row groups that follow and begin with its last document
    piece: tuple[int, int] = (0, 1)  # which piece of those documents, of how many


@dataclass(frozen=True)
class Named:
    """Names of the columns: of triplets, or of lists of words and their counts; or of texts."""

    doc: str | None
    word: str | None
    count: str | None
    text: str | None = None
    tokens: Tokens | None = None

    @property
    def all(self) -> list[str]:
        """Those that are read."""
        return [name for name in (self.doc, self.word, self.count, self.text) if name is not None]


@dataclass(frozen=True)
class ParquetBags:
    """Reads row groups as bags."""

    files: tuple[DataFile, ...]
    named: Named

    def bag(self, part: Rows) -> Bag:
        """Of the documents that begin in those row groups, or a piece of them."""
        return self._bag(part).piece(*part.piece)

    def _bag(self, part: Rows) -> Bag:
        table = self._table(part.file, part.groups, part.name)
        if self.named.text is not None:
            assert self.named.tokens is not None
            texts = table[self.named.text].to_pylist()
            return self.named.tokens.bag(texts)
        if self.named.doc is None:
            return _of_lists(table, self.named, self.files[part.file])
        return self._of_triplets(part, table)

    def done(self) -> None:
        """Close the file that was read last."""
        last_opened.close()

    def _table(self, file: int, groups: tuple[int, ...], name: str) -> Any:
        import pyarrow as pa

        def read() -> Any:
            parquet = last_opened.get(self.files[file])
            return parquet.read_row_groups(list(groups), self.named.all, use_threads=False)

        try:
            return retrying(read)
        except DataError:
            last_opened.close()
            raise
        except (pa.ArrowException, OSError, EOFError) as error:
            last_opened.close()
            if isinstance(error, FileNotFoundError | PermissionError):
                raise refusal(error, name) from error
            raise DataError(
                f"{name} cannot be decoded ({first_line(error)}): the file is damaged; write it again, or leave it out."
            ) from error

    def _of_triplets(self, part: Rows, table: Any) -> Bag:
        import pyarrow as pa

        doc = str(self.named.doc)
        docs = _values(table[doc], doc, part.name)
        _refuse_unsorted(docs, doc, part.name)
        first = 0 if part.skip is None else int(np.searchsorted(docs, part.skip, side="right"))
        tables = [table.slice(first)]
        if first < len(docs):  # else all of it belongs to a document that began before
            for file, group in part.after:
                more = self._table(file, (group,), part.name)
                own = _values(more[doc], doc, part.name)
                tables.append(more.slice(0, int(np.searchsorted(own, docs[-1], side="right"))))
        table = pa.concat_tables(tables, promote_options="permissive") if len(tables) > 1 else tables[0]
        docs = _values(table[doc], doc, part.name)
        new = np.ones(len(docs), dtype=bool)
        new[1:] = docs[1:] != docs[:-1]
        edges = np.append(np.flatnonzero(new), len(docs))
        codes, texts = _words(table[str(self.named.word)], str(self.named.word), part.name)
        counts = None if self.named.count is None else _counts(table[self.named.count], self.named.count, part.name)
        return Bag(edges, codes, counts, texts)


def _values(column: Any, name: str, where: str) -> np.ndarray:
    """Ids of documents: numbers, or texts."""
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise CellError(row, f"column {name!r} is missing: every word belongs to a document")
    values = column.to_numpy()
    return values.astype(str) if values.dtype.kind == "O" else values


def _refuse_unsorted(docs: np.ndarray, name: str, where: str) -> None:
    falls = np.flatnonzero(docs[1:] < docs[:-1])
    if len(falls):
        row = int(falls[0]) + 1
        raise CellError(
            row, f"column {name!r} is {docs[row]} after {docs[row - 1]}: the rows of a document must be together; sort "
            f"the file by {name!r}"
        )  # fmt: skip


def _words(column: Any, name: str, where: str) -> tuple[np.ndarray, list[Any] | None]:
    import pyarrow as pa

    column = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise CellError(row, f"column {name!r} is missing: every row is of a word")
    if not arrow_text(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False)).astype(np.int64), None
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary.to_pylist()


def _counts(column: Any, name: str, where: str) -> np.ndarray:
    column = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    values: np.ndarray = np.asarray(column.to_numpy(zero_copy_only=False))
    if values.dtype.kind not in "biuf":
        raise DataError(f"Column {name!r} of {where} holds {column.type}, where counts of words are expected.")
    return values


def _of_lists(table: Any, named: Named, file: DataFile) -> Bag:
    """One document a row."""
    where, name = file.location.shown, str(named.word)
    column = table[name].combine_chunks()
    lengths = np.nan_to_num(column.value_lengths().to_numpy(zero_copy_only=False).astype(np.float64)).astype(np.int64)
    edges = np.concatenate([[0], np.cumsum(lengths)])
    codes, texts = _words(column.flatten(), name, where)
    if named.count is None:
        return Bag(edges, codes, None, texts)
    beside = table[named.count].combine_chunks()
    own = np.nan_to_num(beside.value_lengths().to_numpy(zero_copy_only=False).astype(np.float64)).astype(np.int64)
    if (own != lengths).any():
        row = int(np.flatnonzero(own != lengths)[0])
        raise CellError(row, f"has {lengths[row]} words in {name!r} and {own[row]} counts in {named.count!r}")
    return Bag(edges, codes, _counts(beside.flatten(), named.count, where), texts)


def _piece_name(name: str, number: int, of: int) -> str:
    return name if of == 1 else f"piece {number + 1} of {of} of {name}"


class ParquetCorpus(CorpusSource):
    """Documents of Parquet files.

    Parameters
    ----------
    locations : sequence of Location
        Files, directories and globs.
    doc, word, count : str
        Names of the columns.  Where that of words holds lists, one document a row, there is no `doc`.
    text : str, optional
        Name of a column of texts, one document a row, in place of those.
    tokens : Tokens, optional
        How texts are divided into words.
    """

    def __init__(
        self,
        locations: Sequence[Location],
        doc: str,
        word: str,
        count: str | None,
        text: str | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        self.files = read_footers(find_files(locations))
        self.where = locations[0].shown if len(locations) == 1 else f"{len(self.files)} Parquet files"
        self.named = self._named(doc, word, count, text, tokens)
        self.parts = self._plan()
        if not self.parts:
            raise no_documents(self.where)
        self.n_features = 1
        self.numbered = self._numbered()

    def _named(self, doc: str, word: str, count: str | None, text: str | None, tokens: Tokens | None) -> Named:
        import pyarrow.types as t

        has = file_columns(self.files[0])
        if text is not None:
            self._refuse_without([text])
            if not arrow_text(has[text]):
                raise DataError(f"Column {text!r} of {self.where} holds {has[text]}, where texts are expected.")
            return Named(None, None, None, text, tokens)
        if count == "count" and count not in has:  # its default
            count = None
        self._refuse_without([word, *([] if count is None else [count])])
        lists = t.is_list(has[word]) or t.is_large_list(has[word])
        inner = has[word].value_type if lists else has[word]
        if not (arrow_text(inner) or t.is_integer(inner)):
            raise DataError(
                f"Column {word!r} of {self.where} holds {has[word]}, where words are expected: texts, or whole numbers "
                "from 0 on."
            )
        if lists:
            return Named(None, word, count)
        self._refuse_without([doc])
        return Named(doc, word, count)

    def _refuse_without(self, names: Sequence[str]) -> None:
        for file in self.files:
            has = file_columns(file)
            absent = [name for name in names if name not in has]
            if absent:
                raise missing(absent, list(has), file.location.shown)

    # ---- the plan

    def _plan(self) -> list[Rows]:
        a_row = 1 if self.named.doc is not None else _WORDS_OF_A_TEXT
        total = sum(file.metadata.num_rows for file in self.files)
        most = max(1, words_per_block(total * a_row) // a_row)
        parts = list[Rows]()
        for position, file in enumerate(self.files):
            held = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
            for groups in coalesce([g for g, n in enumerate(held) if n], held, most):
                many = sum(held[g] for g in groups)
                parts.append(Rows(position, groups, group_name(file, groups, sum(held[: groups[0]]), many)))
        rows = [self._rows(part) for part in parts]
        if self.named.doc is not None:
            parts = self._joined(parts)
        # row groups are read whole, and of few large ones each block takes a piece
        n = 1 if len(parts) >= FEW_BLOCKS else -(-FEW_BLOCKS // max(len(parts), 1))
        n = min(n, max(1, total * a_row // (LEAST_WORDS * max(len(parts), 1))))
        pieces = [replace(part, piece=(i, n), name=_piece_name(part.name, i, n)) for part in parts for i in range(n)]
        words = [own * a_row // n for own in rows for _ in range(n)]
        known = [own * (i + 1) // n - own * i // n for own in rows for i in range(n)]
        sizes: list[int | None] = [None] * len(pieces) if self.named.doc is not None else [*known]
        self.blocks = document_blocks(sizes, words, [part.name for part in pieces])
        return pieces

    def _rows(self, part: Rows) -> int:
        metadata = self.files[part.file].metadata
        return sum(metadata.row_group(g).num_rows for g in part.groups)

    def _joined(self, parts: Sequence[Rows]) -> list[Rows]:
        """The parts, told where a document goes on from one to another."""
        groups = [(part.file, g) for part in parts for g in part.groups]
        ends = {at: self._ends(*at) for at in groups}
        doc = self.named.doc
        for before, after in itertools.pairwise(groups):
            if ends[after][0] < ends[before][1]:
                raise DataError(
                    f"{self.files[after[0]].location.shown}, row group {after[1]}: column {doc!r} begins with "
                    f"{ends[after][0]}, after {ends[before][1]} before it: the rows of a document must be together, "
                    f"and files follow one another by their names; sort by {doc!r}."
                )
        out, at = list[Rows](), 0
        for part in parts:
            first, at = at, at + len(part.groups)
            last, skip = ends[groups[at - 1]][1], None
            if first and ends[groups[first - 1]][1] == ends[groups[first]][0]:
                skip = ends[groups[first]][0]
            follows = list[tuple[int, int]]()
            for nxt in groups[at:]:
                if ends[nxt][0] != last:
                    break
                follows.append(nxt)
                if ends[nxt][1] != last:
                    break
            out.append(replace(part, skip=skip, after=tuple(follows)))
        return out

    def _ends(self, file: int, group: int) -> tuple[Any, Any]:
        """First and last document of a row group, from its statistics, or else from its column."""
        statistics = self._statistics(file, group, str(self.named.doc))
        if statistics is not None:
            return statistics
        name = self.files[file].location.shown
        bags = ParquetBags(tuple(self.files), Named(self.named.doc, None, None))
        docs = _values(bags._table(file, (group,), name)[str(self.named.doc)], str(self.named.doc), name)
        return docs[0], docs[-1]

    def _statistics(self, file: int, group: int, column: str) -> tuple[Any, Any] | None:
        metadata = self.files[file].metadata
        at = next(i for i in range(metadata.num_columns) if metadata.schema.column(i).path == column)
        found = metadata.row_group(group).column(at).statistics
        if found is None or not found.has_min_max or isinstance(found.min, bytes):
            return None
        return found.min, found.max

    def _numbered(self) -> int | None:
        """How many words there are, where they are numbers that statistics tell the largest of."""
        if self.named.text is not None:
            return None
        kind = file_columns(self.files[0])[str(self.named.word)]
        inner = kind if self.named.doc is not None else kind.value_type
        if arrow_text(inner):
            return None
        largest = -1
        for part in self.parts:
            for group in part.groups:
                found = self._largest(part, group)
                largest = max(largest, found)
        return numbered(largest)

    def _largest(self, part: Rows, group: int) -> int:
        if self.named.doc is not None:
            found = self._statistics(part.file, group, str(self.named.word))
            if found is not None:
                return int(found[1])
        bags = ParquetBags(tuple(self.files), Named(None, self.named.word, None))
        column = bags._table(part.file, (group,), part.name)[str(self.named.word)].combine_chunks()
        codes, _ = _words(column if self.named.doc is not None else column.flatten(), str(self.named.word), part.name)
        return int(codes.max(initial=-1))

    def bags(self, parts: Sequence[Rows]) -> tuple[ParquetBags, tuple[Rows, ...]]:
        """The names of the files of those parts."""
        used = sorted({f for p in parts for f in (p.file, *(file for file, _ in p.after))})
        place = {f: i for i, f in enumerate(used)}
        files = (self.files[f] for f in used)
        bare = tuple(DataFile(f.location, f.name, f.stamp, f.partition) for f in files)
        moved = tuple(replace(p, file=place[p.file], after=tuple((place[f], g) for f, g in p.after)) for p in parts)
        return ParquetBags(bare, self.named), moved

    def _fingerprint(self) -> str:
        files = [(f.name, f.stamp) for f in self.files]
        return digest("corpus", files, self.named.all, self.named.tokens, self._columns)
