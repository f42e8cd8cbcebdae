"""Documents as rows of counts of words, whichever way they are stored: what each such source shares.

A block is read as a `Bag`: the words of its documents, one after another.  `Terms` say which column a word is.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from scipy.sparse import csr_array

from dask_em.errors import CellError, DataError
from dask_em.model import Block, Chunk, Reader
from dask_em.sources.base import FEW_BLOCKS, TableSource, block_bytes
from dask_em.sparse import row_bytes

WORD_BYTES = 16  # of a word of a document in memory, with its count
LEAST_WORDS = 1 << 12  # of a block: fewer, and its fixed cost shows
_LARGEST_TABLE = 1 << 28  # words by number: those of larger numbers are looked up


@dataclass(frozen=True)
class Bag:
    """Words of documents: those of document d are codes[edges[d] : edges[d + 1]], or what these number in `texts`."""

    edges: np.ndarray
    codes: np.ndarray
    counts: np.ndarray | None  # None: one each
    texts: Sequence[Any] | None = None

    def piece(self, number: int, of: int) -> Bag:
        """One of so many pieces, of as many documents each."""
        n = len(self.edges) - 1
        first, stop = n * number // of, n * (number + 1) // of
        start, end = int(self.edges[first]), int(self.edges[stop])
        counts = None if self.counts is None else self.counts[start:end]
        return Bag(self.edges[first : stop + 1] - start, self.codes[start:end], counts, self.texts)

    @property
    def documents(self) -> np.ndarray:
        """The document of each word."""
        return np.repeat(np.arange(len(self.edges) - 1), np.diff(self.edges))


@dataclass(frozen=True)
class Terms:
    """Which column each word is.

    Parameters
    ----------
    size : int
    words : tuple, optional
        The words in the order of the columns: texts, or numbers.  None: words are numbers already.
    hashed : bool
        Texts are columns by a hash of them, and several may be the same one.
    names : tuple of str, optional
        What words that are numbers are called.
    """

    size: int
    words: tuple[Any, ...] | None = None
    hashed: bool = False
    names: tuple[str, ...] | None = None

    @cached_property
    def _place(self) -> dict[Any, int]:
        return {word: j for j, word in enumerate(self.words or ())}

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_place"}

    def columns(self, bag: Bag) -> np.ndarray:
        """Of each word of a bag; -1: it is none of the terms."""
        if self.hashed:
            from pandas.util import hash_array

            assert bag.texts is not None
            hashes = hash_array(np.asarray(list(bag.texts), dtype=object), categorize=False)
            return np.asarray(hashes % np.uint64(self.size), dtype=np.int64)[bag.codes]
        if self.words is None:
            return self._checked(bag)
        if bag.texts is None:
            distinct, codes = np.unique(bag.codes, return_inverse=True)
            bag = replace(bag, texts=distinct.tolist(), codes=codes)
        assert bag.texts is not None
        place = self._place
        columns = np.array([place.get(word, -1) for word in bag.texts], dtype=np.int64)
        return columns[bag.codes] if len(bag.codes) else bag.codes

    def _checked(self, bag: Bag) -> np.ndarray:
        wrong = (bag.codes < 0) | (bag.codes >= self.size)
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            row = int(bag.documents[at])
            raise CellError(
                row, f"has word {int(bag.codes[at])}, and words are numbered from 0 to {self.size - 1}: mend the "
                "number, or give a vocabulary that has it"
            )  # fmt: skip
        return bag.codes


@dataclass(frozen=True, slots=True)
class WordsChunk(Chunk):
    """A block of which only its words matter, and in how many documents each is."""

    found: Mapping[Any, int] | None = None


@dataclass(frozen=True)
class Frequencies:
    """In how many documents words are."""

    of: Mapping[Any, int]
    documents: int

    def merge(self, right: Frequencies) -> Frequencies:
        """Sum with those of the documents that follow."""
        both = dict(self.of)
        for word, n in right.of.items():
            both[word] = both.get(word, 0) + n
        return Frequencies(both, self.documents + right.documents)

    def close(self) -> Frequencies:
        """Those of all documents."""
        return self


@dataclass(frozen=True)
class FrequenciesRequest:
    """Asks a pass over a surveyed corpus in how many documents its words are."""

    accepts_nan = True

    def map(self, chunk: Chunk) -> Frequencies:
        """Of one block."""
        assert isinstance(chunk, WordsChunk)
        assert chunk.found is not None
        return Frequencies(chunk.found, chunk.n_rows)


def frequencies(bag: Bag) -> dict[Any, int]:
    """In how many documents of a bag each word is."""
    texts, codes = bag.texts, bag.codes
    if texts is None:
        distinct, codes = np.unique(codes, return_inverse=True)
        texts = distinct.tolist()
    pairs = np.unique(bag.documents * np.int64(max(len(texts), 1)) + codes)
    found = np.bincount(pairs % max(len(texts), 1), minlength=len(texts))
    return {word: int(n) for word, n in zip(texts, found, strict=True) if n}


def table_of(bag: Bag, terms: Terms) -> csr_array:
    """The documents of a bag as rows of counts, words that are none of the terms left out."""
    columns = terms.columns(bag)
    counts = np.ones(len(columns), dtype=np.int64) if bag.counts is None else bag.counts
    n = len(bag.edges) - 1
    kept = columns >= 0
    rows = bag.documents
    if not kept.all():
        columns, counts, rows = columns[kept], counts[kept], rows[kept]
    edges = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))])
    table = csr_array((counts, columns, edges), shape=(n, terms.size))
    table.sum_duplicates()
    return table


@dataclass(frozen=True)
class CorpusReader:
    """Reads blocks of documents. `bags` makes a bag of what a block consists of."""

    start: int
    parts: tuple[Any, ...]
    bags: Any  # has bag(part) -> Bag, and done()
    terms: Terms | None  # None: only words are asked for

    def read(self, index: int) -> Chunk:
        """The block's documents."""
        part = self.parts[index - self.start]
        bag = self.bags.bag(part)
        if part is self.parts[-1]:
            self.bags.done()
        if self.terms is None:
            return WordsChunk(np.zeros((len(bag.edges) - 1, 1)), block=index, found=frequencies(bag))
        return Chunk(table_of(bag, self.terms), block=index)


class CorpusSource(TableSource):
    """Documents; subclasses plan `parts`, one a block, and say how a bag is made of one."""

    sparse = True
    dtype = np.dtype(np.float64)
    parts: Sequence[Any]
    terms: Terms | None = None
    numbered: int | None = None  # words there are, where they are numbers from 0 on; None: texts, or large numbers

    @abstractmethod
    def bags(self, parts: Sequence[Any]) -> tuple[Any, tuple[Any, ...]]:
        """What makes a bag of a part, and those parts for it; picklable, and no larger than they need."""

    def with_terms(self, terms: Terms) -> Self:
        """Take on which column each word is."""
        self.terms = terms
        self.n_features = terms.size
        names = terms.names or terms.words
        self.feature_names = None if names is None else [str(name) for name in names]
        self.__dict__.pop("_reader", None)
        return self

    def part(self, start: int, stop: int) -> Reader:
        """What its blocks consist of."""
        bags, parts = self.bags(self.parts[start:stop])
        return CorpusReader(start, parts, bags, self.terms)

    @cached_property
    def bytes_a_row(self) -> int:
        """Bytes of a document, by those of the first block that has any."""
        for block in self.blocks:
            chunk = self.read(block.index)
            if chunk.n_rows:
                return row_bytes(chunk.x)
        return WORD_BYTES

    @property
    def _columns(self) -> tuple[Any, ...]:
        return () if self.terms is None else (self.terms.size, self.terms.words, self.terms.hashed)


def numbered(largest: int) -> int | None:
    """How many columns words have that are numbered up to the largest; None: such numbers are looked up."""
    return largest + 1 if largest < _LARGEST_TABLE else None


def words_per_block(total: int) -> int:
    """How many words of documents make one block, of so many; a small corpus is still cut into several."""
    return max(1, min(block_bytes() // WORD_BYTES, max(total // FEW_BLOCKS, LEAST_WORDS)))


def document_blocks(sizes: Sequence[int | None], words: Sequence[int], names: Sequence[str]) -> list[Block]:
    """Blocks of so many documents each, or of a number that is not known yet, and of so many words."""
    blocks, offset = list[Block](), 0 if None not in sizes else None
    for index, (n, size, name) in enumerate(zip(sizes, words, names, strict=True)):
        blocks.append(Block(index, name, n, max(size, 1) * WORD_BYTES, offset))
        offset = None if n is None or offset is None else offset + n
    return blocks


def no_documents(where: str) -> DataError:
    """The error for a corpus without any."""
    return DataError(f"{where} has no documents: nothing can be learned from it.")
