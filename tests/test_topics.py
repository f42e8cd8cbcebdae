"""`LatentDirichletAllocation` as users meet it."""

import warnings
from itertools import combinations
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csc_array, csr_array, csr_matrix, vstack
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import dask_em as em

K, V, N = 4, 60, 900
READ_AGAIN = 20_000  # bytes of a sample that the documents do not fit in


def corpus_of(n: int, seed: int = 0) -> tuple[csr_array, np.ndarray]:
    """Documents of four topics with words of their own, and the topics."""
    rng = np.random.default_rng(seed)
    topics = np.full((K, V), 0.1 / V)
    for k in range(K):
        topics[k, k * 15 : (k + 1) * 15] += 0.9 / 15
    shares = np.random.default_rng([seed, 1]).dirichlet(np.full(K, 0.2), n)
    return csr_array(np.array([rng.multinomial(rng.poisson(60), t @ topics) for t in shares])), topics


DOCUMENTS, TOPICS = corpus_of(N)


def lda(**settings: Any) -> Any:
    return em.LatentDirichletAllocation(K, **{"random_state": 0, "verbose": 0, **settings})


def blocks(x: csr_array, rows: int) -> da.Array:
    parts = [x[i : i + rows] for i in range(0, x.shape[0], rows)]
    arrays = [
        da.from_delayed(dask.delayed(p), shape=p.shape, dtype=p.dtype, meta=csr_array((0, 0), dtype=p.dtype))
        for p in parts
    ]
    return da.concatenate(arrays)


@pytest.fixture(scope="module")
def fitted() -> Any:
    return lda().fit(DOCUMENTS)


EXEMPT = dict.fromkeys(
    ("check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data"),
    "the random start draws other documents if one of weight 2 becomes two, and may lead to another optimum",
)


@parametrize_with_checks([em.LatentDirichletAllocation(2, verbose=0)], expected_failed_checks=lambda estimator: EXEMPT)
def test_scikit_learn_checks(estimator: Any, check: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.FitWarning)
        check(estimator)


# ---------------------------------------------------------------- fits


@pytest.mark.parametrize("learning", ["auto", "online", "batch"])
def test_topics_are_found(learning: str) -> None:
    found = lda(learning=learning, n_init=5).fit(DOCUMENTS)
    own = [tuple(sorted(words)) for words in found.top_words(n=15)]
    assert sorted(own) == [tuple(range(k * 15, (k + 1) * 15)) for k in range(K)]
    assert found.status_ == "converged"
    assert found.components_.shape == (K, V)
    assert np.allclose(found.topic_word_distr_.sum(axis=1), 1)
    assert 0.05 < found.doc_topic_prior_.mean() < 0.4  # 0.2 made them; the bound likes less


def test_any_container_of_the_same_counts_gives_the_same_topics(fitted: Any) -> None:
    for x in (DOCUMENTS.toarray(), csr_matrix(DOCUMENTS), csc_array(DOCUMENTS)):
        assert np.allclose(lda().fit(x).components_, fitted.components_, rtol=1e-6)
    frame = pd.DataFrame(DOCUMENTS.toarray(), columns=[f"w{j}" for j in range(V)])
    named = lda().fit(frame)
    assert named.top_words(n=1)[0][0].startswith("w")
    assert np.allclose(named.transform(frame), named.transform(DOCUMENTS.toarray()))


def test_a_batch_never_lowers_the_bound() -> None:
    found = lda(learning="batch", tol=1e-6).fit(DOCUMENTS)
    bounds = [r["bound"] for r in found.history_[1:]]
    assert len(bounds) > 5
    assert np.diff(bounds).min() >= 0
    assert bounds[-1] == found.bound_


def test_the_bound_is_that_of_score(fitted: Any) -> None:
    assert np.isclose(fitted.score(DOCUMENTS), fitted.bound_, rtol=1e-12)
    assert np.isclose(fitted.perplexity(DOCUMENTS), np.exp(-fitted.bound_ / DOCUMENTS.sum()))


def test_weights_are_repetitions(fitted: Any) -> None:
    twice = lda(warm_start=True, max_passes=3, learning="batch", tol=0.0)
    begun = clone(twice)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.FitWarning)
        for each in (twice, begun):
            each.fit(DOCUMENTS[:50])
        twice.fit(vstack([DOCUMENTS, DOCUMENTS], format="csr"))
        begun.fit(DOCUMENTS, sample_weight=np.full(N, 2.0))
    assert np.allclose(twice.components_, begun.components_)


def test_documents_without_words_change_nothing_but_the_prior() -> None:
    given = {"doc_topic_prior": 0.2, "topic_word_prior": 0.1, "learning": "batch", "max_passes": 4, "warm_start": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.FitWarning)
        plain, more = (lda(**given).fit(DOCUMENTS[:50]) for _ in range(2))
        plain.fit(DOCUMENTS)
        more.fit(csr_array(vstack([DOCUMENTS, csr_array((7, V), dtype=np.int64)])))
    assert np.allclose(plain.components_, more.components_)
    assert np.allclose(more.transform(csr_array((1, V))), 1 / K)


def test_priors_are_kept_as_given() -> None:
    found = lda(doc_topic_prior=[0.1, 0.2, 0.3, 0.4], topic_word_prior=0.05).fit(DOCUMENTS)
    assert found.doc_topic_prior_.tolist() == [0.1, 0.2, 0.3, 0.4]
    assert found.topic_word_prior_ == 0.05


def test_the_best_of_several_starts_is_kept() -> None:
    one = [lda(random_state=0).fit(DOCUMENTS).bound_]
    several = lda(n_init=4).fit(DOCUMENTS)
    assert len(several.restarts_) == 4
    assert several.bound_ >= min(one) - 1e-6 * abs(one[0])
    assert np.isclose(several.bound_, several.restarts_["bound"].max(), rtol=1e-6)


def test_one_topic_is_the_share_of_each_word() -> None:
    found = em.LatentDirichletAllocation(1, topic_word_prior=1e-6, random_state=0, verbose=0).fit(DOCUMENTS)
    assert np.allclose(found.topic_word_distr_[0], DOCUMENTS.sum(axis=0) / DOCUMENTS.sum(), atol=1e-8)


# ---------------------------------------------------------------- larger than memory


def test_data_that_is_read_again_gives_topics_too_and_lazy_shares() -> None:
    x = blocks(DOCUMENTS, 70)
    found = lda(sample_bytes=READ_AGAIN).fit(x)
    assert found.n_passes_ == len(found.history_)
    assert found.n_passes_ > 3
    shares = found.transform(x)
    assert isinstance(shares, da.Array)
    assert shares.chunks[0] == x.chunks[0]
    assert np.allclose(shares.compute(), found.transform(DOCUMENTS))


@pytest.mark.cluster
def test_threads_and_processes_give_the_same_bits(client: Any) -> None:
    x = blocks(DOCUMENTS, 40)
    runs = [
        lda(sample_bytes=READ_AGAIN, executor=executor).fit(x)
        for executor in (
            em.ThreadsExecutor(1),
            em.ThreadsExecutor(3),
            em.DaskExecutor(client),
            em.DaskExecutor(client, batch_blocks=1),
        )
    ]
    first = runs[0]
    for other in runs[1:]:
        assert other.components_.tobytes() == first.components_.tobytes()
        assert [r["bound"] for r in other.history_] == [r["bound"] for r in first.history_]


def test_a_checkpoint_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    x = blocks(DOCUMENTS, 70)
    whole = lda(sample_bytes=READ_AGAIN).fit(x)
    place = tmp_path / "lda.checkpoint"
    with pytest.warns(em.FitWarning, match="max_passes=3"):
        lda(sample_bytes=READ_AGAIN, checkpoint=place, max_passes=3).fit(x)
    resumed = lda(sample_bytes=READ_AGAIN, checkpoint=place).fit(x)
    assert resumed.components_.tobytes() == whole.components_.tobytes()
    assert resumed.n_passes_ == whole.n_passes_


def test_changed_data_is_noticed_between_portions() -> None:
    calls = iter(range(10**6))

    def changing(block: csr_array) -> csr_array:
        return block * (2 if next(calls) > 40 else 1)

    x = blocks(DOCUMENTS, 70).map_blocks(changing, dtype=np.int64, meta=csr_array((0, 0), dtype=np.int64))
    with pytest.raises(em.DataChangedError, match="other values in them"):
        lda(sample_bytes=READ_AGAIN, executor=em.ThreadsExecutor(1), tol=0.0).fit(x)


def test_saved_and_loaded_it_says_the_same(fitted: Any, tmp_path: Path) -> None:
    fitted.save(tmp_path / "lda.safetensors")
    loaded = em.load(tmp_path / "lda.safetensors")
    assert np.array_equal(loaded.transform(DOCUMENTS), fitted.transform(DOCUMENTS))
    assert loaded.bound_ == fitted.bound_
    assert loaded.topic_word_prior_ == fitted.topic_word_prior_


# ---------------------------------------------------------------- streams


def test_a_stream_finds_the_topics() -> None:
    stream = lda(total_samples=N)
    for _ in range(4):
        for i in range(0, N, 60):
            stream.partial_fit(DOCUMENTS[i : i + 60])
    assert stream.status_ == "streaming"
    assert stream.n_passes_ == 60
    own = sorted(tuple(sorted(words)) for words in stream.top_words(n=15))
    assert own == [tuple(range(k * 15, (k + 1) * 15)) for k in range(K)]


def test_a_stream_goes_on_from_a_fit(fitted: Any, tmp_path: Path) -> None:
    fitted.save(tmp_path / "lda.safetensors")
    stream = em.load(tmp_path / "lda.safetensors").partial_fit(DOCUMENTS[:100])
    apart = np.abs(stream.topic_word_distr_ - fitted.topic_word_distr_).max()
    assert 0 < apart < 0.02


@pytest.mark.parametrize("bad", [{"learning_decay": 0.4}, {"learning_offset": -1.0}])
def test_bad_steps_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(em.ConfigurationError):
        lda(**bad).partial_fit(DOCUMENTS)


# ---------------------------------------------------------------- quality


def test_coherence_is_npmi_counted_plainly(fitted: Any) -> None:
    top = fitted.top_words(n=5)
    there = DOCUMENTS.toarray() > 0
    expected = []
    for words in top:
        pairs = []
        for i, j in combinations(words, 2):
            both = (there[:, i] & there[:, j]).mean()
            pairs.append(-1.0 if both == 0 else np.log(both / there[:, i].mean() / there[:, j].mean()) / -np.log(both))
        expected.append(np.mean(pairs))
    assert np.allclose(fitted.coherence(DOCUMENTS, n=5), expected)
    assert np.allclose(fitted.coherence(blocks(DOCUMENTS, 33), n=5), expected)


def test_completion_tells_a_good_model_from_a_poor_one(fitted: Any) -> None:
    held, _ = corpus_of(200, seed=5)
    one = em.LatentDirichletAllocation(1, random_state=0, verbose=0).fit(DOCUMENTS)
    assert fitted.completion_perplexity(held) < 0.7 * one.completion_perplexity(held)
    assert one.completion_perplexity(held) < V


def test_words_of_a_vectorizer() -> None:
    texts = ["red wine and cheese", "wine cheese bread", "goal match team", "team goal score", "match score"] * 20
    counter = CountVectorizer()
    found = em.LatentDirichletAllocation(2, random_state=0, verbose=0).fit(counter.fit_transform(texts))
    words = found.top_words(counter, n=3)
    assert words == found.top_words(counter.vocabulary_, n=3)
    assert {"wine", "cheese"} <= set(words[0]) or {"wine", "cheese"} <= set(words[1])
    pipe = make_pipeline(CountVectorizer(), em.LatentDirichletAllocation(2, random_state=0, verbose=0))
    assert pipe.fit_transform(texts).shape == (100, 2)
    assert list(pipe.get_feature_names_out()) == ["latentdirichletallocation0", "latentdirichletallocation1"]


# ---------------------------------------------------------------- bad input


def test_no_counts_are_refused_by_name() -> None:
    for value in (-1.0, np.nan, np.inf):
        bad = DOCUMENTS.toarray().astype(float)
        bad[7, 3] = value
        for x in (bad, csr_array(bad)):
            with pytest.raises(em.DataError, match=r"row 7, column 3"):
                lda().fit(x)


def test_what_cannot_be_fitted_is_refused(fitted: Any) -> None:
    with pytest.raises(em.DataError, match="none of 5 documents has any word"):
        lda().fit(csr_array((5, 3)))
    with pytest.raises(em.ConfigurationError, match="learning='onlin'"):
        lda(learning="onlin").fit(DOCUMENTS)
    with pytest.raises(em.DataError, match="expecting 60 features"):
        fitted.transform(DOCUMENTS[:, :10])
    with pytest.raises(em.DataError, match="vocabulary has 2 words, and the topics are of 60"):
        fitted.top_words(["a", "b"])
    with pytest.raises(em.ConfigurationError, match="n=0"):
        fitted.top_words(n=0)
    with pytest.raises(em.ConfigurationError, match="two words at least"):
        fitted.coherence(DOCUMENTS, n=1)
    with pytest.raises(em.DataError, match="no words"):
        fitted.perplexity(csr_array((3, V)))
    with pytest.raises(em.ConfigurationError, match="4 topics"):
        lda(doc_topic_prior=[0.1, 0.2]).fit(DOCUMENTS)


# ---------------------------------------------------------------- small corpora


def test_two_kinds_of_short_texts_are_told_apart() -> None:
    """Half of them are one text and half another: topics that began alike would stay so."""
    texts = ["the cat sat", "a dog barked"] * 50
    for k, most in ((2, 2), (3, 2)):
        found = em.LatentDirichletAllocation(k, random_state=0, verbose=0).fit(texts)
        first = {words[0] for words in found.top_words(n=1)}
        assert len(first) >= most
        assert len(set(np.asarray(found.transform(texts)).argmax(axis=1).tolist())) == 2


def test_a_pass_that_loses_is_no_end() -> None:
    """Sums that are moved beyond where they lead may lose at first what plain EM gains."""
    rng = np.random.default_rng(0)
    docs = np.array([rng.multinomial(30, [0.5, 0.5, 0, 0] if i % 2 else [0, 0, 0.5, 0.5]) for i in range(200)])
    online = em.LatentDirichletAllocation(2, random_state=0, verbose=0).fit(docs)
    batch = em.LatentDirichletAllocation(2, learning="batch", tol=1e-5, random_state=0, verbose=0).fit(docs)
    assert online.bound_ > batch.bound_ * 1.01


def test_select_goes_by_the_bound() -> None:
    chosen = em.select(em.LatentDirichletAllocation(random_state=0, verbose=0), DOCUMENTS, n_components=[2, 4, 8])
    assert chosen.best_params_ == {"n_components": 4}
