"""`em.corpus`: the same counts, however documents are stored and wherever they are cut."""

import gzip
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from scipy.sparse import csr_array, vstack
from sklearn.feature_extraction.text import CountVectorizer

import dask_em as em

WORDS = np.array([f"word{j:02d}" for j in range(40)])
RNG = np.random.default_rng(0)
X = csr_array(RNG.poisson(RNG.gamma(0.15, 3, size=(300, 40))))
X = X[np.flatnonzero(np.diff(X.indptr))]  # triplets have no rows of documents without words
N = X.shape[0]
ROWS = pd.DataFrame({"doc": np.repeat(np.arange(N), np.diff(X.indptr)), "word": X.indices, "count": X.data})
TEXTS = [" ".join(np.repeat(WORDS[X.indices[a:b]], X.data[a:b])) for a, b in zip(X.indptr, X.indptr[1:])]


def whole(source: Any) -> csr_array:
    return csr_array(vstack([source.read(block.index).x for block in source.blocks], format="csr"))


def same(source: Any) -> bool:
    found = whole(source)
    assert found.shape == X.shape
    return abs(found - X).max() == 0


def written(frame: pd.DataFrame, path: Path, **settings: Any) -> Path:
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path, **settings)
    return path


# ---------------------------------------------------------------- triplets


@pytest.mark.parametrize("rows", [1, 7, 50, 10_000])
@pytest.mark.parametrize("block_bytes", [64, 5000, "64MiB"])
def test_triplets_cut_anywhere(tmp_path: Path, rows: int, block_bytes: Any) -> None:
    path = written(ROWS, tmp_path / "x.parquet", row_group_size=rows)
    with dask.config.set({"em.block-bytes": block_bytes}):
        assert same(em.corpus(path))


@pytest.mark.parametrize("statistics", [True, False])
def test_triplets_over_several_files_with_texts_for_documents_and_words(tmp_path: Path, statistics: bool) -> None:
    named = ROWS.assign(doc=ROWS.doc.map("d{:04d}".format), word=WORDS[ROWS.word])
    for i, start in enumerate(range(0, len(named), 333)):
        own = named[start : start + 333]
        written(own, tmp_path / f"part.{i}.parquet", row_group_size=50, write_statistics=statistics)
    source = em.corpus(tmp_path, vocabulary=WORDS)
    assert same(source)
    assert list(source.feature_names) == list(WORDS)
    found = em.corpus(tmp_path)
    assert set(found.feature_names) == set(WORDS[np.flatnonzero(X.sum(axis=0))])


def test_one_document_may_fill_several_files(tmp_path: Path) -> None:
    long = pd.DataFrame({"doc": [1] * 30 + [2] * 3, "word": [*range(30), 0, 1, 2], "count": 2})
    for i in range(11):
        written(long[3 * i : 3 * i + 3], tmp_path / f"{i}.parquet", row_group_size=2)
    with dask.config.set({"em.block-bytes": 16}):
        found = whole(em.corpus(tmp_path))
    assert found.sum(axis=1).tolist() == [60, 6]


def test_words_by_large_numbers_are_looked_up(tmp_path: Path) -> None:
    large = ROWS.assign(word=ROWS.word.astype(np.int64) * 10**9 + 2**40, doc=ROWS.doc.astype(np.int64) + 2**41)
    source = em.corpus(written(large, tmp_path / "x.parquet"))
    present = np.flatnonzero(X.sum(axis=0))
    assert list(source.feature_names) == [str(j * 10**9 + 2**40) for j in present]
    assert abs(whole(source) - X[:, present]).max() == 0


def test_counts_may_be_fractions_or_not_there(tmp_path: Path) -> None:
    half = em.corpus(written(ROWS.assign(count=ROWS["count"] / 2), tmp_path / "h.parquet"))
    assert abs(whole(half) * 2 - X).max() == 0
    each = ROWS.loc[ROWS.index.repeat(ROWS["count"]), ["doc", "word"]]
    assert same(em.corpus(written(each, tmp_path / "e.parquet")))


def test_a_vocabulary_names_numbers(tmp_path: Path) -> None:
    path = written(ROWS, tmp_path / "x.parquet")
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    source = em.corpus(path, vocabulary=tmp_path / "vocab.txt")
    assert same(source)
    assert list(source.feature_names) == list(WORDS)
    wide = em.corpus(path, vocabulary=[*WORDS, "another"])
    assert wide.n_features == 41


# ---------------------------------------------------------------- lists, sparse rows, texts


@pytest.mark.parametrize("counts", [True, False])
def test_lists_of_words(tmp_path: Path, counts: bool) -> None:
    if counts:
        frame = ROWS.groupby("doc").agg(word=("word", list), count=("count", list)).reset_index()
    else:
        each = ROWS.loc[ROWS.index.repeat(ROWS["count"])]
        frame = each.groupby("doc").agg(word=("word", list)).reset_index()
    source = em.corpus(written(frame, tmp_path / "x.parquet", row_group_size=70), vocabulary=WORDS)
    assert source.n_rows == N
    assert same(source)


@pytest.mark.parametrize("block_bytes", [64, "64MiB"])
@pytest.mark.parametrize("inside", ["", "X", "layers/counts"])
def test_sparse_rows_in_zarr(tmp_path: Path, inside: str, block_bytes: Any) -> None:
    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    group = group.create_group(inside) if inside else group
    group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": list(X.shape)})
    for name in ("indptr", "indices", "data"):
        group.create_array(name, data=getattr(X, name), chunks=(100,))
    with dask.config.set({"em.block-bytes": block_bytes}):
        source = em.corpus(tmp_path / "x.zarr" / ("" if inside == "X" else inside))
        assert source.n_rows == N
        assert same(source)


@pytest.mark.parametrize("block_bytes", [16, 999, "64MiB"])
@pytest.mark.parametrize("ending", ["\n", ""])
def test_lines_of_text(tmp_path: Path, block_bytes: Any, ending: str) -> None:
    lines = [*TEXTS[:5], "", *TEXTS[5:]]
    (tmp_path / "a.txt").write_text("\n".join(lines[:100]) + ending)
    (tmp_path / "b.txt").write_text("\n".join(lines[100:]) + ending)
    with dask.config.set({"em.block-bytes": block_bytes}):
        source = em.corpus(tmp_path / "*.txt", vocabulary=WORDS)
        found = whole(source)
    assert found.shape[0] == N + 1
    assert found[[5]].sum() == 0
    assert abs(found[[i for i in range(N + 1) if i != 5]] - X).max() == 0


def test_a_vocabulary_is_that_of_a_count_vectorizer(tmp_path: Path, client: Any) -> None:
    with gzip.open(tmp_path / "a.txt.gz", "wt") as file:
        file.write("\n".join(TEXTS[:150]))
    (tmp_path / "b.txt").write_text("\n".join(TEXTS[150:]))
    pd.DataFrame({"body": TEXTS}).to_parquet(tmp_path / "t.parquet")
    for settings in ({}, {"min_df": 30}, {"min_df": 0.1, "max_df": 0.3}):
        counter = CountVectorizer(**settings)
        counts = counter.fit_transform(TEXTS)
        for source in (
            em.corpus([tmp_path / "a.txt.gz", tmp_path / "b.txt"], **settings),
            em.corpus(tmp_path / "t.parquet", text="body", executor=em.DaskExecutor(client), **settings),
            em.corpus(TEXTS, **settings),
        ):
            assert list(source.feature_names) == list(counter.get_feature_names_out())
            assert abs(whole(source) - counts).max() == 0
    few = em.corpus(TEXTS, max_words=5)
    in_documents = (X > 0).sum(axis=0)
    assert set(few.feature_names) == set(WORDS[np.argsort(-in_documents, kind="stable")[:5]])


def test_hashes_need_no_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    found = whole(em.corpus(tmp_path / "a.txt", n_hashes=4096))
    assert found.shape == (N, 4096)
    assert np.array_equal(found.sum(axis=1), X.sum(axis=1))
    assert abs(found - whole(em.corpus(TEXTS, n_hashes=4096))).max() == 0


def test_how_texts_are_divided() -> None:
    texts = ["The cat, the CAT", "a-b c2"]
    assert list(em.corpus(texts).feature_names) == ["c2", "cat", "the"]
    assert list(em.corpus(texts, lowercase=False).feature_names) == ["CAT", "The", "c2", "cat", "the"]
    assert list(em.corpus(texts, stop_words=["the"], token_pattern=r"[a-z]+").feature_names) == ["a", "b", "c", "cat"]


# ---------------------------------------------------------------- fits


@pytest.mark.cluster
def test_a_fit_from_files_on_a_cluster(tmp_path: Path, client: Any) -> None:
    named = ROWS.assign(word=WORDS[ROWS.word])
    path = written(named, tmp_path / "x.parquet", row_group_size=100)
    settings: dict[str, Any] = {"random_state": 0, "verbose": 0, "sample_bytes": 5000}
    lda = em.LatentDirichletAllocation(3, **settings).fit(path)
    other = em.LatentDirichletAllocation(3, executor=em.DaskExecutor(client), **settings).fit(em.corpus(path))
    assert lda.components_.tobytes() == other.components_.tobytes()
    assert lda.top_words(n=1)[0][0].startswith("word")
    shares = lda.transform(path)
    assert shares.compute().shape == (N, 3)
    again = em.load(_saved(lda, tmp_path)).transform(em.corpus(path, vocabulary=lda.feature_names_in_)).compute()
    assert np.array_equal(again, shares.compute())


def _saved(lda: Any, folder: Path) -> Path:
    lda.save(folder / "lda.safetensors")
    return folder / "lda.safetensors"


def test_other_words_are_refused(tmp_path: Path) -> None:
    path = written(ROWS, tmp_path / "x.parquet")
    lda = em.LatentDirichletAllocation(2, random_state=0, verbose=0).fit(path, vocabulary=WORDS)
    with pytest.raises(em.DataError, match=r"column 0 .* is the word 'word39', and 'word00' of what was fitted"):
        lda.transform(em.corpus(path, vocabulary=WORDS[::-1]))


def test_a_mixture_takes_the_same_documents(tmp_path: Path) -> None:
    path = written(ROWS, tmp_path / "x.parquet")
    mixture = em.Mixture(2, em.Multinomial(prior=0.1), random_state=0, verbose=0).fit(em.corpus(path))
    assert np.isclose(mixture.score(em.corpus(path)), mixture.score(X))


# ---------------------------------------------------------------- bad input


def test_rows_that_are_not_sorted(tmp_path: Path) -> None:
    swapped = ROWS.copy()
    swapped.loc[10, "doc"] = 250
    with pytest.raises(em.DataError, match=r"row 11.*column 'doc' is 0 after 250|column 'doc' is \d+ after 250"):
        whole(em.corpus(written(swapped, tmp_path / "x.parquet")))
    backwards = pd.concat([ROWS[ROWS.doc > 100], ROWS[ROWS.doc <= 100]])
    with pytest.raises(em.DataError, match="begins with .* sort by 'doc'"):
        em.corpus(written(backwards, tmp_path / "y.parquet", row_group_size=int((ROWS.doc > 100).sum())))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"count": -1}, "column .* is -1. Negative values in data"),
        ({"count": None}, "is nan, and not a count|is NaN"),
        ({"word": -3}, r"has word -3, and words are numbered from 0 to \d+"),
        ({"word": None}, "column 'word' is missing|where words are expected"),
        ({"doc": None}, "column 'doc' is missing"),
    ],
)
def test_bad_cells_are_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    (name, value), bad = next(iter(change.items())), ROWS.astype("Int64")
    bad.loc[20, name] = value
    path = written(bad, tmp_path / "x.parquet")
    with pytest.raises(em.DataError, match=said):
        em.LatentDirichletAllocation(2, verbose=0).fit(em.corpus(path))


def test_what_is_no_corpus(tmp_path: Path) -> None:
    written(ROWS.rename(columns={"word": "term"}), tmp_path / "x.parquet")
    with pytest.raises(em.DataError, match="word"):
        em.corpus(tmp_path / "x.parquet")
    assert same(em.corpus(tmp_path / "x.parquet", word="term"))
    with pytest.raises(em.DataError, match="vocabulary has 3"):
        em.corpus(tmp_path / "x.parquet", word="term", vocabulary=["a", "b", "c"])
    with pytest.raises(em.DataError, match="takes paths or URLs, or a list of texts, and not ndarray"):
        em.corpus(np.zeros((3, 3)))
    with pytest.raises(em.DataError, match="nothing at that path"):
        em.corpus(tmp_path / "no.txt")
    with pytest.raises(em.DataError, match="none is left"):
        em.corpus(TEXTS, min_df=10_000)
    group = zarr.open_group(tmp_path / "c.zarr", mode="w")
    group.attrs["encoding-type"] = "csc_matrix"
    for array in ("indptr", "indices", "data"):
        group.create_array(array, data=np.arange(3))
    with pytest.raises(em.DataError, match="stored by columns"):
        em.corpus(tmp_path / "c.zarr")


@pytest.mark.parametrize(
    "bad",
    [
        {"min_df": 0},
        {"max_df": 1.5},
        {"max_words": 0},
        {"n_hashes": 0},
        {"n_hashes": 5, "vocabulary": ["a"]},
        {"vocabulary": []},
        {"vocabulary": ["a", "a"]},
        {"vocabulary": {"a": 1, "b": 2}},
        {"token_pattern": "("},
        {"token_pattern": "(a)(b)"},
    ],
)
def test_bad_arguments_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(em.ConfigurationError):
        em.corpus(TEXTS, **bad)


def test_a_sample_is_of_as_many_documents_as_its_bytes_hold(tmp_path: Path) -> None:
    """Their number is not known before they are read, nor are they as wide as the vocabulary."""
    source = em.corpus(written(ROWS, tmp_path / "x.parquet", row_group_size=100), vocabulary=[*map(str, range(10_000))])
    assert source.n_rows is None
    lda = em.LatentDirichletAllocation(3, random_state=0, verbose=0, sample_bytes=20_000).fit(source)
    assert lda.history_[1]["resident"] is False
    whole_corpus = em.LatentDirichletAllocation(3, random_state=0, verbose=0, sample_bytes=200_000).fit(source)
    assert whole_corpus.history_[1]["resident"] is True


def test_documents_in_an_object_store(tmp_path: Path, bucket: Any) -> None:
    import s3fs

    options = bucket.storage_options
    store = s3fs.S3FileSystem(**options)
    store.put(str(written(ROWS, tmp_path / "x.parquet", row_group_size=50)), f"{bucket.name}/x.parquet")
    (tmp_path / "x.txt").write_text("\n".join(TEXTS))
    store.put(str(tmp_path / "x.txt"), f"{bucket.name}/x.txt")
    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    group.attrs["shape"] = list(X.shape)
    for name in ("indptr", "indices", "data"):
        group.create_array(name, data=getattr(X, name))
    store.put(str(tmp_path / "x.zarr"), f"{bucket.name}/x.zarr", recursive=True)
    for name in ("x.parquet", "x.txt", "x.zarr"):
        source = em.corpus(bucket.url(name), vocabulary=WORDS, storage_options=options)
        assert same(source)
        assert "test-secret-1234" not in repr(source.part(0, 1))
    with pytest.raises(em.DataError, match="nothing at that path") as caught:
        em.corpus(bucket.url("no.txt"), storage_options=options)
    assert "test-secret-1234" not in str(caught.value)
