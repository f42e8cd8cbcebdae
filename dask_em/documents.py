"""`em.corpus`: documents, in whatever way they are stored, as a source of rows of counts of words."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dask_em.engine import one_pass
from dask_em.errors import ConfigurationError, DataError
from dask_em.executors import default_executor
from dask_em.model import Executor, Source
from dask_em.sources.array import ArraySource
from dask_em.sources.corpus import CorpusSource, FrequenciesRequest, Terms, frequencies, table_of
from dask_em.sources.corpus_text import TextCorpus
from dask_em.sources.corpus_zarr import ZarrCorpus, is_sparse_group
from dask_em.sources.location import locate
from dask_em.sources.parquet_files import SUFFIXES
from dask_em.sources.tokens import Tokens

_TEXTS = (".txt", ".text", ".txt.gz", ".txt.bz2", ".txt.xz", ".jsonl", ".csv")


def corpus(
    data: Any,
    *,
    doc: str = "doc",
    word: str = "word",
    count: str | None = "count",
    text: str | None = None,
    vocabulary: Any = None,
    min_df: int | float = 1,
    max_df: int | float = 1.0,
    max_words: int | None = None,
    n_hashes: int | None = None,
    token_pattern: str = r"(?u)\b\w\w+\b",
    lowercase: bool = True,
    stop_words: Sequence[str] = (),
    storage_options: dict[str, Any] | None = None,
    executor: Executor | None = None,
) -> Source:
    """Open documents as rows of counts of words, for `LatentDirichletAllocation` or `Mixture(k, Multinomial())`.

    Parameters
    ----------
    data : path, URL, list of them, or list of texts
        Parquet files (a file, a directory, a glob): rows of document, word and count, in the order of documents; or a
        row for each document, with a list of its words, and perhaps one of their counts; or with its `text`.  A Zarr
        group of compressed sparse rows (`indptr`, `indices`, `data`), AnnData's too.  Files of text, a document a line.
        A list of texts, each a document.
    doc, word, count : str
        Names of the columns.  Rows of a document must be together, and documents in rising order of `doc`, files
        following one another by their names; a document may go on in the next row group or file.  Words are texts, or
        numbers from 0 on.  None, or a `count` that is not there: every row, or word of a list, counts one.
    text : str, optional
        Name of a column of texts.
    vocabulary : sequence, dict of word to column, path, or vectorizer, optional
        The words in the order of the columns; a file of them, one a line; or what has `get_feature_names_out`.  Texts
        that are none of them do not count; numbers are columns already.  Default: for numbers, all up to the largest;
        for texts, those that are found in one more read.
    min_df, max_df : int or float
        Documents that a word must be in, at least and at most: a number, or a share of them if it is a float.
    max_words : int, optional
        Only so many words are kept, those in most documents.
    n_hashes : int, optional
        Words are columns by a hash of them, of which there are so many; no vocabulary is built.
    token_pattern, lowercase, stop_words
        How texts are divided into words: a regular expression of one, as in scikit-learn's `CountVectorizer`.
    storage_options : dict, optional
        What fsspec needs.
    executor : Executor, optional
        Who reads the words for a vocabulary.  Default: the active `distributed.Client`'s cluster, else threads.

    Returns
    -------
    Source
        Its `feature_names` are the words.

    Raises
    ------
    DataError
        What is there cannot be read as documents; the message names the place and the remedy.
    ConfigurationError
        Arguments that do not go together.

    Examples
    --------
    >>> import dask_em as em
    >>> documents = em.corpus(["the cat and the dog", "a dog and a bond", "bond and stock"], min_df=2)
    >>> list(documents.feature_names)
    ['and', 'bond', 'dog']
    """
    _refuse_frequencies(min_df, max_df, max_words)
    tokens = Tokens(token_pattern, bool(lowercase), frozenset(stop_words))
    words = words_of(vocabulary)
    if n_hashes is not None and (words is not None or not _whole(n_hashes) or n_hashes < 1):
        raise ConfigurationError(f"n_hashes={n_hashes!r} must be a whole number of at least 1, without a vocabulary")
    limits = (min_df, max_df, max_words)
    if _is_texts(data):
        return _of_texts(list(data), tokens, words, n_hashes, limits)
    source = _opened(data, (doc, word, count, text), tokens, storage_options)
    return source.with_terms(_terms(source, words, n_hashes, limits, executor))


def is_corpus(data: Any, storage_options: dict[str, Any] | None = None) -> bool:
    """Whether it is texts, or a path to triplets or lists named as `corpus` names them, or to sparse rows in Zarr."""
    if _is_texts(data):
        return True
    first = data[0] if isinstance(data, (list, tuple)) and data else data
    if not isinstance(first, (str, os.PathLike)):
        return False
    location = locate(first, storage_options)
    if location.url.endswith(SUFFIXES) or any(c in location.url for c in "*?["):
        from dask_em.sources.parquet_files import file_columns, find_files, read_footers

        try:
            has = file_columns(read_footers(find_files([location])[:1])[0])
        except DataError:
            return False
        return set(has) in ({"doc", "word", "count"}, {"doc", "word"})
    return is_sparse_group(location)


def words_of(vocabulary: Any) -> tuple[Any, ...] | None:
    """The words of a vocabulary in the order of their columns; None: it is to be found."""
    if vocabulary is None:
        return None
    if hasattr(vocabulary, "get_feature_names_out"):
        vocabulary = vocabulary.get_feature_names_out()
    if isinstance(vocabulary, (str, os.PathLike)):
        vocabulary = _lines(vocabulary)
    if isinstance(vocabulary, Mapping):
        if sorted(vocabulary.values()) != list(range(len(vocabulary))):
            raise ConfigurationError("vocabulary must give each word a column of its own, from 0 on")
        vocabulary = sorted(vocabulary, key=vocabulary.__getitem__)
    words = tuple(w.item() if isinstance(w, np.generic) else w for w in vocabulary)
    if not words:
        raise ConfigurationError("vocabulary has no words")
    if len(set(words)) < len(words):
        seen = set[Any]()
        twice = next(w for w in words if w in seen or seen.add(w))  # type: ignore[func-returns-value]
        raise ConfigurationError(f"vocabulary has {twice!r} twice: a word has one column")
    return words


def _lines(path: Any) -> list[str]:
    location = locate(path, None)
    fs, own = location.resolve()
    try:
        with fs.open(own, "r", encoding="utf-8") as file:
            return [line.rstrip("\r\n") for line in file if line.strip()]
    except FileNotFoundError:
        raise DataError(f"{location.shown}, the vocabulary, cannot be read: there is nothing at that path.") from None


def _is_texts(data: Any) -> bool:
    listed = isinstance(data, (list, tuple)) or type(data).__module__.startswith("pandas")
    if not listed or not len(data):
        return False
    texts = all(isinstance(d, str) or d is None for d in data)
    return texts and not all(isinstance(d, str) and d.endswith((*SUFFIXES, *_TEXTS)) for d in data)


def _opened(
    data: Any, names: tuple[str, str, str | None, str | None], tokens: Tokens, options: dict[str, Any] | None
) -> CorpusSource:
    paths = list(data) if isinstance(data, (list, tuple)) else [data]
    if not paths or not all(isinstance(p, (str, os.PathLike)) for p in paths):
        raise DataError(
            f"em.corpus takes paths or URLs, or a list of texts, and not {type(data).__name__}: give sparse arrays to "
            "fit itself."
        )
    locations = [locate(path, options) for path in paths]
    if locations[0].url.endswith(_TEXTS):
        return TextCorpus(locations, tokens)
    if len(locations) == 1 and (".zarr" in locations[0].url or is_sparse_group(locations[0])):
        return ZarrCorpus(locations[0])
    from dask_em.sources.corpus_parquet import ParquetCorpus

    return ParquetCorpus(locations, *names, tokens)


# ---------------------------------------------------------------- vocabularies

Limits = tuple[int | float, int | float, int | None]


def _of_texts(
    texts: list[Any], tokens: Tokens, words: tuple[Any, ...] | None, n_hashes: int | None, limits: Limits
) -> Source:
    bag = tokens.bag(texts)
    if n_hashes is not None:
        terms = Terms(int(n_hashes), hashed=True)
    else:
        words = _kept(frequencies(bag), len(texts), limits, "the texts") if words is None else words
        terms = Terms(len(words), words)
    return ArraySource(table_of(bag, terms), feature_names=terms.words, where="the texts")


def _terms(
    source: CorpusSource,
    words: tuple[Any, ...] | None,
    n_hashes: int | None,
    limits: Limits,
    executor: Executor | None,
) -> Terms:
    if n_hashes is not None:
        if source.numbered is not None:
            raise ConfigurationError("n_hashes is for words that are texts: these are numbers, and columns already")
        return Terms(int(n_hashes), hashed=True)
    unlimited = limits == (1, 1.0, None)
    if source.numbered is not None and (words is None or isinstance(words[0], str)):
        if words is None and unlimited:
            return Terms(source.numbered)
        if words is not None and source.numbered > len(words):
            raise DataError(
                f"{source.where} has words numbered up to {source.numbered - 1}, and the vocabulary has {len(words)}: "
                "give the vocabulary that the words were numbered by."
            )
        if words is not None:
            return Terms(len(words), names=words)
    if words is not None:
        return Terms(len(words), words)
    reader = executor or default_executor()
    try:
        found = one_pass(source, [FrequenciesRequest()], reader).answers[0]
    finally:
        reader.close()
    words = _kept(found.of, found.documents, limits, source.where)
    return Terms(len(words), words)


def _kept(of: Mapping[Any, int], documents: int, limits: Limits, where: str) -> tuple[Any, ...]:
    """The words that are in as many documents as is asked for, sorted."""
    low, high = (v * documents if isinstance(v, float) else v for v in limits[:2])
    kept = [word for word, n in of.items() if low <= n <= high]
    if limits[2] is not None and len(kept) > limits[2]:
        kept = sorted(kept, key=lambda word: (-of[word], word))[: limits[2]]
    if not kept:
        raise DataError(
            f"{where}: of {len(of)} words in {documents} documents none is left: lower min_df, raise max_df, or look "
            "at token_pattern."
        )
    return tuple(sorted(kept))


def _refuse_frequencies(min_df: Any, max_df: Any, max_words: Any) -> None:
    for name, value in (("min_df", min_df), ("max_df", max_df)):
        share = isinstance(value, float) and 0 <= value <= 1
        if not (share or (_whole(value) and value >= 1)):
            raise ConfigurationError(f"{name}={value!r} must be a number of documents, from 1 on, or a share of them")
    if max_words is not None and not (_whole(max_words) and max_words >= 1):
        raise ConfigurationError(f"max_words={max_words!r} must be a whole number of at least 1, or None")


def _whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
