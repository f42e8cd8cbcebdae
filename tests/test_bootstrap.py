"""The bootstrap: what chance does to estimates, the same whoever computes it, in a few shared passes."""

from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import dask_em as em
from dask_em.hashing import Resampling
from dask_em.model import Chunk

TWO = np.random.default_rng(0)
TWO = np.concatenate([TWO.normal(0, 1, (3000, 2)), TWO.normal(3, 1.3, (2000, 2))])


def gm(k: int = 2, **settings: Any) -> em.GaussianMixture:
    return em.GaussianMixture(k, **{"random_state": 0, "verbose": 0, **settings})


def test_rows_are_drawn_as_often_as_poissons_law_says() -> None:
    x = np.zeros((200_000, 1))
    drawn = Resampling(3, 7, counts=True).resampled(Chunk(x)).weight
    assert drawn is not None
    observed = np.bincount(drawn.astype(int), minlength=8)[:8]
    expected = 200_000 * stats.poisson.pmf(np.arange(8), 1)
    assert np.abs(observed - expected).max() < 5 * np.sqrt(expected.max())
    many = Resampling(3, 7, counts=True).resampled(Chunk(x, np.full(200_000, 6.0))).weight
    assert many is not None
    assert (many.mean(), many.var()) == (pytest.approx(6, abs=0.03), pytest.approx(6, abs=0.1))
    weighed = Resampling(3, 7, counts=False).resampled(Chunk(x, np.full(200_000, 6.0))).weight
    assert np.array_equal(weighed, 6 * drawn)
    for seed, number, block in ((4, 7, 0), (3, 8, 0), (3, 7, 1)):
        other = Resampling(seed, number, counts=True).resampled(Chunk(x, block=block)).weight
        assert other is not None
        assert abs(np.corrcoef(drawn, other)[0, 1]) < 0.015


def test_it_agrees_with_standard_errors_where_they_hold() -> None:
    model = gm().fit(TWO)
    before = model.means_.copy()
    found = em.bootstrap(model, TWO, n=300)
    assert found.table_["standard_error"].to_numpy() == pytest.approx(
        model.standard_errors(TWO)["standard_error"].to_numpy(), rel=0.2
    )
    assert found.table_["estimate"].to_numpy() == pytest.approx(model.standard_errors(TWO)["estimate"].to_numpy())
    assert found.estimator_ is model
    assert np.array_equal(model.means_, before)
    assert found.failed_ == 0
    replicates = found.replicates_
    assert replicates.shape == (300, 12)
    assert np.allclose(replicates["weights"].sum(axis=1), 1.0)
    low, high = np.quantile(replicates[("means", 0, "1")], [0.025, 0.975])
    row = found.table_.query("parameter == 'means' and component == 0 and of == '1'").iloc[0]
    assert row[["lower", "upper"]].tolist() == pytest.approx([low, high], rel=1e-12)


def test_errors_that_standard_errors_miss() -> None:
    x = np.random.default_rng(1).negative_binomial(2, 0.2, size=(2000, 1)).astype(float)
    found = em.bootstrap(em.Mixture(1, em.Poisson(), verbose=0), x, n=400).table_
    assert found["standard_error"][0] == pytest.approx(x.std() / np.sqrt(2000), rel=0.12)


def test_what_is_drawn_depends_on_seeds_only() -> None:
    model = gm().fit(TWO)
    a, b, c = (em.bootstrap(model, TWO, n=20, random_state=s).replicates_ for s in (1, 1, 2))
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    assert not np.allclose(a, c)
    more = em.bootstrap(model, TWO, n=30, random_state=1).replicates_
    pd.testing.assert_frame_equal(more.iloc[:20], a, check_exact=True)


@pytest.mark.parametrize("sample_bytes", [None, 1000 * 32])
def test_threads_and_a_cluster_draw_the_same(client: Any, sample_bytes: int | None) -> None:
    blocks = da.from_array(TWO, chunks=(700, 2))
    model = gm(sample_bytes=sample_bytes, executor=em.ThreadsExecutor(1)).fit(blocks)
    here = em.bootstrap(model, blocks, n=8).replicates_
    for executor in (em.ThreadsExecutor(3), em.DaskExecutor(client, batch_blocks=2)):
        model.executor = executor
        pd.testing.assert_frame_equal(em.bootstrap(model, blocks, n=8).replicates_, here, check_exact=True)


def test_all_share_the_passes() -> None:
    model = gm(sample_bytes=1000 * 32).fit(TWO)
    few, many = (em.bootstrap(model, TWO, n=n).n_passes_ for n in (2, 100))
    assert 2 <= few <= many <= few + 5
    assert em.bootstrap(gm().fit(TWO), TWO, n=20).n_passes_ == 1  # rows in memory are read once


def test_distinct_rows_are_drawn_each_as_often_as_there_are_of_them() -> None:
    rng = np.random.default_rng(2)
    x = (rng.random((4000, 5)) < np.where(rng.random((4000, 1)) < 0.4, 0.8, 0.2)).astype(float)
    found = em.bootstrap(em.Mixture(2, em.Bernoulli(), random_state=0, verbose=0), x, n=200)
    assert found.n_passes_ == 1
    errors = found.estimator_.standard_errors(x)["standard_error"].to_numpy()
    assert found.table_["standard_error"].to_numpy() == pytest.approx(errors, rel=0.25)


def test_holes_are_drawn_with_their_rows() -> None:
    x = TWO[:3000].copy()
    x[np.random.default_rng(3).random(x.shape) < 0.2] = np.nan
    found = em.bootstrap(em.GaussianImputer(verbose=0), x, n=200)
    errors = found.estimator_.standard_errors(x)["standard_error"].to_numpy()
    assert found.table_["standard_error"].to_numpy() == pytest.approx(errors, rel=0.25)


def test_weights_go_with_the_rows_that_are_drawn() -> None:
    x, w = TWO[:1000, :1], np.repeat([1.0, 5.0], 500)
    found = em.bootstrap(gm(1), x, n=400, sample_weight=w).table_
    mean = np.average(x[:, 0], weights=w)
    expected = np.sqrt((w**2 * (x[:, 0] - mean) ** 2).sum()) / w.sum()  # a ratio of sums of drawn rows
    assert found["standard_error"][0] == pytest.approx(expected, rel=0.15)


def test_components_that_changed_places_are_put_back() -> None:
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.normal(0, 1, (60, 1)), rng.normal(2.5, 1, (60, 1))])  # hard to tell apart
    found = em.bootstrap(gm(n_init=20), x, n=100)
    means = found.replicates_["means"].to_numpy()
    order = np.argsort(found.estimator_.means_[:, 0])
    assert (means[:, order[0]] < means[:, order[1]]).mean() > 0.95


def test_data_sets_without_a_maximum_are_counted() -> None:
    rng = np.random.default_rng(5)
    x = np.concatenate([rng.normal(size=(200, 1)), [[50.0], [51.0]]])  # two rows far away: often one is drawn, or none
    model = gm(reg_covar=0.0).fit(x)
    with pytest.warns(em.FitWarning, match="of 60 data sets drawn from the rows have no maximum"):
        found = em.bootstrap(model, x, n=60)
    assert 5 < found.failed_ < 60
    assert len(found.replicates_) == 60 - found.failed_


def test_what_cannot_be_asked() -> None:
    for n in (1, 0, 2.5, True):
        with pytest.raises(em.ConfigurationError, match="n="):
            em.bootstrap(gm(), TWO, n=n)
    with pytest.raises(em.ConfigurationError, match="level=0"):
        em.bootstrap(gm(), TWO, level=0)
    with pytest.raises(em.ConfigurationError, match="has no likelihood"):
        em.bootstrap(em.KMeans(2), TWO)
    with pytest.raises(em.DataError, match="features"):
        em.bootstrap(gm().fit(TWO), TWO[:, :1])
