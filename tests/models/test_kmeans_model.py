"""k-means as a model, and what KMeans makes of it."""

import warnings
from dataclasses import replace
from itertools import pairwise
from typing import Any

import dask.array as da
import numpy as np
import pytest
from sklearn.cluster import KMeans as Sklearn
from sklearn.exceptions import ConvergenceWarning

import dask_em as em
from dask_em.models.kmeans import KMeansModel, KMeansParams
from dask_em.testing import check_model


def blobs(k: int = 4, d: int = 3, n: int = 100, seed: int = 0, apart: float = 6.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(size=(n, d)) + c for c in apart * rng.normal(size=(k, d))])


def lloyd(x: np.ndarray, centers: np.ndarray, weight: np.ndarray | None = None) -> tuple[np.ndarray, float]:
    """Lloyd's algorithm, written down."""
    w = np.ones(len(x)) if weight is None else weight
    while True:
        squared = ((x[:, None] - centers) ** 2).sum(axis=2)
        own = squared.argmin(axis=1)
        new = np.array([np.average(x[own == k], axis=0, weights=w[own == k]) for k in range(len(centers))])
        if np.array_equal(new, centers) or np.allclose(new, centers, rtol=1e-15, atol=1e-13):
            return new, float(w @ squared.min(axis=1))
        centers = new


# ---------------------------------------------------------------- the model


@pytest.mark.parametrize("k", [1, 4])
def test_the_generic_proofs_hold(k: int) -> None:
    # all of them: within a cell of the partition the likelihood is a quadratic, and no row is near a cell's border
    x = blobs()
    assert len(check_model(KMeansModel(k), [em.Chunk(x[:150]), em.Chunk(x[150:])])) == 12


def statistics(x: np.ndarray, centers: np.ndarray) -> tuple[KMeansModel, Any]:
    model = KMeansModel(len(centers)).about(x.mean(axis=0)).in_units_of(x.var(axis=0))
    return model, model.e_step([KMeansParams(centers)], em.Chunk(x))[0]


def test_the_likelihood_is_minus_the_inertia_and_expected_loglik_says_so_at_the_same_centres() -> None:
    x = blobs() + 1e5
    model, stats = statistics(x, x[::100])
    inertia = ((x[:, None] - x[::100]) ** 2).sum(axis=2).min(axis=1).sum()
    assert model.measure.of(stats.total_loglik) == pytest.approx(inertia, rel=1e-13)
    assert model.expected_loglik(KMeansParams(x[::100]), stats) == pytest.approx(stats.total_loglik, rel=1e-11)


def test_a_negative_count_is_refused() -> None:
    x = blobs()
    model, stats = statistics(x, x[::100])
    with pytest.raises(em.DegenerateError, match="a count of -1"):
        model.m_step(replace(stats, counts=stats.counts * [1, 1, 1, 0] - [0, 0, 0, 1]))


def test_empty_clusters_take_the_farthest_rows() -> None:
    x = np.concatenate([blobs(2), [[500.0, 0, 0], [0, 900.0, 0], [500.0, 0, 0]]])
    model, stats = statistics(x, np.array([x[0], x[100], [1e4, 1e4, 1e4], [-1e4, 0, 0]]))
    params = model.m_step(stats)
    np.testing.assert_array_equal(params.centers[2:], [[0, 900, 0], [500, 0, 0]])
    assert model.degeneracies(params)[0].startswith("2 clusters (2, 3) have no rows")


def test_an_empty_cluster_without_a_row_to_take_has_a_finite_centre() -> None:
    x = np.repeat([[1.0, 2.0], [3.0, 4.0]], 50, axis=0)
    model, stats = statistics(x, np.array([[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]))
    assert np.isfinite(model.m_step(stats).centers).all()


def test_a_cluster_that_a_combination_of_sums_leaves_nothing_of_is_empty() -> None:
    x = blobs()
    model, stats = statistics(x, x[::100])
    rest = stats * (1 + 1e-15) - stats * 1.0
    counts, first = stats.counts.copy(), stats.first.copy()
    counts[1], first[1] = abs(rest.counts[1]) + 1e-14, 1.0
    assert np.abs(model.m_step(replace(stats, counts=counts, first=first)).centers).max() < 1e3


# ---------------------------------------------------------------- the estimator


@pytest.mark.parametrize("solver", ["auto", "em", "anderson", "anchored"])
def test_with_no_tolerance_the_end_is_a_fixed_point_to_the_last_bit(solver: str) -> None:
    x = blobs(6, 4, 300, apart=1.0)
    km = em.KMeans(6, tol=0, solver=solver, random_state=0, verbose=0).fit(x)
    assert km.status_ == "converged"
    once = em.KMeans(6, init=km.cluster_centers_, tol=0, verbose=0).fit(x)
    assert once.n_iter_ == 1
    np.testing.assert_array_equal(once.cluster_centers_, km.cluster_centers_)
    means = np.array([x[km.labels_ == k].mean(axis=0) for k in range(6)])
    np.testing.assert_allclose(km.cluster_centers_, means, rtol=0, atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_from_given_centres_it_is_lloyds_algorithm(weighted: bool, dtype: Any) -> None:
    x = blobs(5, 7, 200, apart=1.0).astype(dtype)
    w = np.random.default_rng(1).integers(0, 4, size=len(x)).astype(float) if weighted else None
    first = x[:5].astype(float)
    km = em.KMeans(5, init=first, tol=0, max_passes=1000, verbose=0).fit(x, sample_weight=w)
    centers, inertia = lloyd(x.astype(float), first, w)
    np.testing.assert_allclose(km.cluster_centers_, centers, rtol=0, atol=1e-10)
    assert km.inertia_ == pytest.approx(inertia, rel=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        other = Sklearn(5, init=first, n_init=1, tol=0, max_iter=1000).fit(x.astype(float), sample_weight=w)
    assert km.inertia_ == pytest.approx(other.inertia_, rel=1e-12)


def test_a_weight_is_that_many_rows() -> None:
    x = blobs(3, 2, 200, apart=1.0)
    w = np.random.default_rng(2).integers(0, 3, size=len(x))
    a = em.KMeans(3, init=x[:3], tol=0, verbose=0).fit(x, sample_weight=w)
    b = em.KMeans(3, init=x[:3], tol=0, verbose=0).fit(np.repeat(x, w, axis=0))
    np.testing.assert_allclose(a.cluster_centers_, b.cluster_centers_, rtol=0, atol=1e-12)
    assert a.inertia_ == pytest.approx(b.inertia_, rel=1e-12)


@pytest.mark.parametrize("scale", [2.0**-27, 1.0, 2.0**27])  # which round nothing
def test_the_unit_of_the_data_does_not_matter(scale: float) -> None:
    x = blobs(5, 3, 300, apart=1.0)
    unit = em.KMeans(5, random_state=0, verbose=0).fit(x)
    km = em.KMeans(5, random_state=0, verbose=0).fit(scale * x)
    assert km.n_iter_ == unit.n_iter_
    np.testing.assert_allclose(km.cluster_centers_, scale * unit.cluster_centers_, rtol=1e-9)
    assert km.inertia_ == pytest.approx(scale**2 * unit.inertia_, rel=1e-9)


def test_the_tolerance_is_a_share_of_the_inertia() -> None:
    x = blobs(20, 5, 500, apart=0.7)
    start = x[:: len(x) // 20][:20]
    exact = em.KMeans(20, init=start, tol=0, max_passes=2000, verbose=0).fit(x)
    for tol in (1e-2, 1e-4):
        km = em.KMeans(20, init=start, tol=tol, solver="em", verbose=0).fit(x)
        assert km.status_ == "converged"
        assert km.n_iter_ < exact.n_iter_
        assert km.inertia_ < exact.inertia_ * (1 + 20 * tol)


@pytest.mark.parametrize("solver", ["em", "anchored"])
def test_inertia_never_rises_and_is_told_for_every_pass(solver: str) -> None:
    x = blobs(10, 5, 500, apart=0.7)
    km = em.KMeans(10, solver=solver, random_state=0, sample_bytes=20_000, verbose=0).fit(x)
    told = [r["inertia"] for r in km.history_ if r["inertia"] is not None]
    assert all(b <= a * (1 + 1e-14) for a, b in pairwise(told))
    assert told[-1] == km.inertia_ == pytest.approx(-km.score(x), rel=1e-12)
    assert "nats" not in km.message_


def test_more_clusters_than_distinct_rows_is_said() -> None:
    x = np.repeat(np.arange(3.0)[:, None], 20, axis=0)
    with pytest.raises(em.DataError, match="5 components or clusters are more than the 3 distinct rows of the sample"):
        em.KMeans(5, random_state=0, verbose=0).fit(x)
    apart = [[0.0], [1.0], [2.0], [7.0], [9.0]]
    with pytest.warns(em.FitWarning, match="no rows: there are too few distinct rows"):
        km = em.KMeans(5, init=apart, verbose=0).fit(x)
    assert km.status_ == "degenerate"
    assert km.inertia_ == 0
    assert np.isfinite(km.cluster_centers_).all()


def test_fewer_rows_than_clusters_is_refused() -> None:
    with pytest.raises(em.DataError, match="n_samples=3 rows are fewer than n_clusters=5"):
        em.KMeans(5, verbose=0).fit(np.arange(3.0)[:, None])


def test_large_data_is_answered_lazily() -> None:
    x = blobs()
    lazy = da.from_array(x, chunks=(70, 3))
    km = em.KMeans(4, random_state=0, verbose=0).fit(lazy)
    assert not hasattr(km, "labels_")
    assert isinstance(km.predict(lazy), da.Array)
    np.testing.assert_array_equal(km.predict(lazy).compute(), km.predict(x))
    np.testing.assert_array_equal(km.transform(lazy).compute(), km.transform(x))
    np.testing.assert_array_equal(km.fit_predict(lazy).compute(), km.predict(x))
    np.testing.assert_array_equal(km.transform(x).argmin(axis=1), km.predict(x))


def test_saved_and_loaded_it_predicts_the_same(tmp_path: Any) -> None:
    x = blobs()
    km = em.KMeans(4, random_state=0, verbose=0).fit(x)
    km.save(tmp_path / "km.safetensors")
    back = em.load(tmp_path / "km.safetensors")
    np.testing.assert_array_equal(back.predict(x), km.labels_)
    assert back.inertia_ == km.inertia_


def test_a_checkpoint_goes_on_to_the_same_end(tmp_path: Any) -> None:
    x = blobs(10, 5, 500, apart=0.7)
    settings: dict[str, Any] = {"random_state": 0, "tol": 0, "verbose": 0, "solver": "em"}
    whole = em.KMeans(10, **settings).fit(x)
    with pytest.warns(em.FitWarning, match="max_passes"):
        em.KMeans(10, max_passes=4, checkpoint=tmp_path / "c", **settings).fit(x)
    resumed = em.KMeans(10, checkpoint=tmp_path / "c", **settings).fit(x)
    np.testing.assert_array_equal(resumed.cluster_centers_, whole.cluster_centers_)


def test_a_checkpoint_of_data_beyond_the_sample_goes_on_to_the_same_end(tmp_path: Any) -> None:
    x = np.random.default_rng(0).normal(size=(20_000, 2))
    settings: dict[str, Any] = {"random_state": 0, "tol": 0, "sample_bytes": 64_000, "solver": "anchored", "verbose": 0}
    whole = em.KMeans(3, max_passes=12, **settings).fit(x)
    em.KMeans(3, max_passes=4, checkpoint=tmp_path / "c", **settings).fit(x)
    resumed = em.KMeans(3, max_passes=12, checkpoint=tmp_path / "c", **settings).fit(x)
    np.testing.assert_array_equal(resumed.cluster_centers_, whole.cluster_centers_)
    assert resumed.n_passes_ == whole.n_passes_


def test_an_inertia_of_nothing_is_zero_and_not_minus_zero() -> None:
    assert str(em.KMeans(1, verbose=0).fit(np.ones((1, 2))).inertia_) == "0.0"


def test_a_sample_that_is_too_small_is_told_from_data_that_is() -> None:
    x = np.random.default_rng(0).normal(size=(2000, 2))
    with pytest.raises(
        em.DataError, match="holds 20 rows .* too few to start n_clusters=30 from: use fewer, or a larger sample_bytes"
    ):
        em.KMeans(30, sample_bytes=20 * 32, verbose=0).fit(x)
    assert em.KMeans(30, sample_bytes=40 * 32, verbose=0, random_state=0).fit(x).cluster_centers_.shape == (30, 2)
    rare = np.repeat([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]], [5, 1000, 1000], axis=0)
    with pytest.raises(em.DataError, match="2 distinct rows of the sample of 20: .* a larger sample_bytes"):
        em.KMeans(3, sample_bytes=20 * 32, verbose=0, random_state=0).fit(rare)


@pytest.mark.parametrize(("sample_bytes", "solver"), [(None, "em"), (2000 * (2 * 8 + 16), "anchored")])
def test_the_solver_is_chosen_by_where_rows_are_though_nobody_knows_how_many(sample_bytes: Any, solver: str) -> None:
    x = da.from_array(np.random.default_rng(0).normal(size=(9000, 2)), chunks=(3000, 2))
    unknown = x[x[:, 0] > -9]  # all rows, of which Dask does not know the number
    km = em.KMeans(3, random_state=0, verbose=0, sample_bytes=sample_bytes).fit(unknown)
    assert {r["kind"] for r in km.history_[1:]} == {solver}
