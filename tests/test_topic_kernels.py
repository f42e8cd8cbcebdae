"""Compiled pieces of topics against their NumPy twins."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.special import digamma, gammaln

from dask_em.kernels import reference, topics
from dask_em.kernels.simd import compiled, load, store
from dask_em.model import Chunk
from dask_em.models.dirichlet import best_parameters, best_symmetric, gamma_sums
from dask_em.models.topics import TopicModel, TopicParams


@compiled
def _each(x, slope, rate, log):  # type: ignore[no-untyped-def]
    for i in range(0, len(x), 8):
        v = load(x, i)
        store(slope, i, topics.digamma(v))
        store(rate, i, topics.exp_digamma(v))
        store(log, i, topics.log_gamma(v))


def test_digamma_and_log_gamma_are_those_of_scipy() -> None:
    x = np.exp(np.random.default_rng(0).uniform(np.log(1e-6), np.log(1e9), 8000))
    slope, rate, log = (np.empty_like(x) for _ in range(3))
    _each(x, slope, rate, log)
    assert np.allclose(slope, digamma(x), rtol=1e-13, atol=1e-13)
    assert np.allclose(rate, np.exp(digamma(x)), rtol=1e-12, atol=1e-280)  # exp of less than -650 is taken for zero
    assert np.allclose(log, gammaln(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 1000])
def test_sums_of_them_have_no_rest_left_out(n: int) -> None:
    rng = np.random.default_rng(n)
    x, w = rng.gamma(0.3, 5, n), rng.random(n)
    plain, weighted, log = gamma_sums(x, 0.2, w, want_log=True)
    assert np.allclose([plain, weighted, log], [digamma(x + 0.2).sum(), w @ digamma(x + 0.2), gammaln(x + 0.2).sum()])


def _case(k: int, n_words: int, seed: int) -> tuple[np.ndarray, TopicParams]:
    rng = np.random.default_rng(seed)
    beta = rng.dirichlet(np.full(n_words, 0.1), k)
    shares = rng.dirichlet(np.full(k, 0.3), 40)
    counts = np.array([rng.multinomial(rng.poisson(50), t @ beta) for t in shares]).astype(float)
    counts[3] = 0.0  # a document without words
    concentration = np.ascontiguousarray(beta.T * 500 + 0.05)
    return counts, TopicParams(concentration, rng.gamma(2.0, 0.1, k), 0.05)


@pytest.mark.parametrize("k", [1, 2, 7, 8, 9, 30])
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int32, np.int64])
def test_documents_are_as_numpy_has_them(k: int, kind: type) -> None:
    counts, params = _case(k, 60, seed=k)
    words = digamma(params.concentration) - digamma(params.totals)
    gamma = reference.document_shares(counts, words, params.alpha, 3000)
    bounds = reference.document_bounds(counts, words, params.alpha, gamma)
    model = TopicModel(k, document_tol=1e-13, document_rounds=100_000)
    x = csr_array(counts.astype(kind))
    stats = model.e_step([params], Chunk(x))[0]
    assert np.allclose(model.posteriors(params, x, "loglik"), bounds, rtol=1e-9, atol=1e-9)
    assert np.allclose(model.posteriors(params, x, "shares"), gamma / gamma.sum(axis=1, keepdims=True), atol=1e-8)
    assert np.isclose(stats.loglik, bounds.sum(), rtol=1e-10)
    assert np.allclose(stats.counts, reference.words_of_topics(counts, words, gamma), atol=1e-7)
    assert np.allclose(stats.log_shares, (digamma(gamma) - digamma(gamma.sum(axis=1, keepdims=True))).sum(axis=0))
    assert stats.words == counts.sum()


def test_words_that_topics_all_but_exclude_do_no_harm() -> None:
    concentration = np.array([[1e-6, 1e-6], [1e4, 1e-6], [1e-6, 1e4]])  # word 0: E log β is about -1e6
    params = TopicParams(concentration, np.array([1e-3, 1e-3]), 1e-6)
    model = TopicModel(2)
    stats = model.e_step([params], Chunk(csr_array(np.array([[2.0, 0, 0], [1.0, 3, 0], [0.0, 1, 1]]))))[0]
    assert np.isfinite(stats.loglik)
    assert np.isclose(stats.counts.sum(), 8)


def test_the_best_priors_are_where_slopes_vanish() -> None:
    rng = np.random.default_rng(0)
    alpha = np.array([0.05, 0.4, 2.0])
    log_shares = np.log(rng.dirichlet(alpha, 200_000)).mean(axis=0)
    assert np.allclose(best_parameters(log_shares), alpha, rtol=0.02)
    counts = np.array([rng.multinomial(3000, rng.dirichlet(np.full(500, 0.3))) for _ in range(40)]).T.astype(float)
    assert np.isclose(best_symmetric(counts), 0.3, rtol=0.05)
