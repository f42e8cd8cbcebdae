"""Data of few distinct rows is summed up by them."""

import warnings
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from scipy.sparse import csr_array

import dask_em as em
from dask_em.distinct import CAPACITY, Distinct
from dask_em.model import Chunk


def table(found: Distinct) -> dict[tuple[float, ...], float]:
    chunk = found.close()
    assert chunk is not None
    return {tuple(-1.0 if np.isnan(v) else float(v) for v in row): w for row, w in zip(chunk.x, chunk.weight)}


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32, np.float64, bool, np.uint8])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("wide", [False, True])
def test_the_distinct_rows_and_their_weights(dtype: type, weighted: bool, wide: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (500, 3)).astype(dtype)
    if wide and np.dtype(dtype).itemsize > 1:  # too far apart for a table of all that is possible
        x[:, 0] *= dtype(2**30)
    if np.dtype(dtype).kind == "f":
        x[::9, 1] = np.nan
    w = rng.integers(0, 3, 500).astype(float) if weighted else None
    expected: dict[tuple[float, ...], float] = {}
    for i, row in enumerate(x):
        key = tuple(-1.0 if np.isnan(v) else float(v) for v in row)
        if w is None or w[i] > 0:
            expected[key] = expected.get(key, 0.0) + (1.0 if w is None else w[i])
    whole = Distinct.of(Chunk(x, w))
    parts = [Distinct.of(Chunk(x[a:b], None if w is None else w[a:b])) for a, b in ((0, 1), (1, 200), (200, 500))]
    merged = parts[0].merge(parts[1]).merge(parts[2])
    assert table(whole) == table(merged) == expected
    assert np.array_equal(whole.close().x, merged.close().x, equal_nan=np.dtype(dtype).kind == "f")


def test_too_many_are_no_summary() -> None:
    x = np.arange(CAPACITY + 1)[:, None]
    assert Distinct.of(Chunk(x)).close() is None
    assert Distinct.of(Chunk(x[:-1])).close() is not None
    assert Distinct.of(Chunk(x[:-1])).merge(Distinct.of(Chunk(x[-1:]))).close() is None


def items(n: int = 200_000) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.random((n, 7)) < np.array([[0.1] * 7, [0.4] * 7, [0.9] * 7])[rng.integers(3, size=n)]


def test_they_are_read_once_and_give_what_all_rows_give() -> None:
    x = items()
    few = em.Mixture(3, em.Bernoulli(), random_state=0, tol=1e-6, verbose=0).fit(x)
    assert few.n_passes_ == 1
    assert few.n_rows_ == len(x)
    assert all(r["resident"] and r["rows"] == 128 for r in few.history_[1:])
    model = em.MixtureModel(3, em.Bernoulli())
    rows = model.e_step([few._params()], em.Chunk(x.astype(float)))[0]
    assert few.loglik_ == pytest.approx(rows.total_loglik, rel=1e-12)
    assert few.loglik_ == pytest.approx(few.score(x) * len(x), rel=1e-12)
    assert model.m_step(rows).components.probabilities == pytest.approx(few.probabilities_, abs=1e-4)


@pytest.mark.cluster
def test_threads_clusters_and_chunks_give_the_same_bits(tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    x = items(20_000).astype(np.int8)
    settings = {"random_state": 0, "verbose": 0}
    here = em.Mixture(3, em.Bernoulli(), **settings).fit(x)
    chunked = da.from_array(x, chunks=((1, 0, 9_999, 10_000), 7))
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1") as cluster,
        Client(cluster),
    ):
        there = em.Mixture(3, em.Bernoulli(), **settings).fit(chunked)
    assert there.n_passes_ == here.n_passes_ == 1
    assert np.array_equal(here.probabilities_, there.probabilities_)
    assert here.loglik_ == there.loglik_


def test_a_checkpoint_of_them_is_gone_on_from(tmp_path: Path) -> None:
    x, path = items(5_000), str(tmp_path / "c.safetensors")
    settings = {"random_state": 0, "tol": 1e-9, "solver": "em", "n_init": 1, "verbose": 0}
    whole = em.Mixture(3, em.Bernoulli(), **settings).fit(x)
    with pytest.warns(em.FitWarning):
        em.Mixture(3, em.Bernoulli(), **settings, max_passes=5, checkpoint=path).fit(x)
    again = em.Mixture(3, em.Bernoulli(), **settings, checkpoint=path).fit(x)
    assert np.array_equal(whole.probabilities_, again.probabilities_)
    assert len(whole.history_) == len(again.history_)


def test_a_selection_shares_them() -> None:
    found = em.select(em.Mixture(1, em.Bernoulli(), random_state=0, verbose=0), items(20_000), n_components=range(1, 6))
    assert found.best_estimator_.n_components == 3
    assert found.best_estimator_.n_passes_ == 1
    assert found.table_.n_parameters.tolist() == [7, 15, 23, 31, 39]


def repeated(name: str) -> tuple[em.Distribution, np.ndarray]:
    """Rows of few kinds, of discrete distributions that are no table of codes."""
    rng = np.random.default_rng(3)
    z, k = rng.integers(0, 4, (60_000, 2)).astype(float), rng.integers(2, size=60_000)
    eta = np.where(k, 0.5 * z[:, 0] - 1, 1 - 0.6 * z[:, 1])
    kind, y = {
        "multinomial": (em.Multinomial(0.5), rng.poisson(1.0, 60_000) % 4),
        "poisson": (em.PoissonRegression(2), rng.poisson(np.exp(eta)) % 7),
        "logistic": (em.LogisticRegression(2, ridge=0.1), rng.random(60_000) < 1 / (1 + np.exp(-eta))),
    }[name]
    return kind, np.c_[z, y]


@pytest.mark.parametrize("name", ["multinomial", "poisson", "logistic"])
def test_other_discrete_rows_are_read_once_as_well(name: str) -> None:
    distribution, x = repeated(name)
    mix = em.Mixture(2, distribution, random_state=0, n_init=2, sample_bytes=100_000, verbose=0).fit(x)
    assert mix.n_passes_ == 1
    assert mix.history_[-1]["rows"] == len(np.unique(x, axis=0))
    assert mix.score(x) * len(x) == pytest.approx(mix.loglik_, rel=1e-9)


def test_sparse_rows_are_grouped_as_dense_ones_are() -> None:
    x = repeated("multinomial")[1][:5000]
    w = np.arange(5000.0) % 3
    dense, thin = Distinct.of(Chunk(x, w)), Distinct.of(Chunk(csr_array(x), w))
    assert np.array_equal(dense.x, thin.x.toarray())
    assert np.array_equal(dense.weight, thin.weight)
    parts = [Distinct.of(Chunk(csr_array(x[a:b]), w[a:b])) for a, b in ((0, 900), (900, 5000))]
    assert np.array_equal(parts[0].merge(parts[1]).x.toarray(), thin.x.toarray())


def test_rows_that_hardly_repeat_are_given_up_early() -> None:
    x = np.random.default_rng(0).normal(size=(30_000, 2))
    assert Distinct.of(Chunk(x)).close() is None
    assert Distinct.of(Chunk(csr_array(x))).close() is None
    some = x[np.random.default_rng(1).integers(30_000, size=200_000)]
    assert len(Distinct.of(Chunk(some)).x) == len(np.unique(some, axis=0))
    gm = em.Mixture(2, em.Bernoulli(), random_state=0, sample_bytes=4000, verbose=0)
    few = np.random.default_rng(2).random((2000, 30)) < 0.5  # all of them distinct: they do not stand for the data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.FitWarning)
        assert gm.fit(few).n_passes_ > 1
