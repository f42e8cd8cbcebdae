"""`GaussianImputer`: fitted in one read, fills what is missing, draws it, and goes into files and pipelines."""

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import zarr
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import dask_em as em

NAMES = ["a", "b", "c", "d"]


def rows(n: int = 5000, d: int = 4, share: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Rows, and the same rows with holes."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d)) @ (np.eye(d) + 0.6 * rng.normal(size=(d, d))) + 5 * rng.normal(size=d)
    return x, np.where(rng.random(x.shape) < share, np.nan, x)


@pytest.fixture(scope="module")
def holed() -> np.ndarray:
    return rows()[1]


@pytest.fixture(scope="module")
def imputer(holed: np.ndarray) -> em.GaussianImputer:
    return em.GaussianImputer(random_state=0, verbose=0).fit(holed)


# ---------------------------------------------------------------- fit


def test_it_reads_once_and_recovers_what_made_the_rows() -> None:
    x, holed = rows(20_000)
    imputer = em.GaussianImputer(sample_bytes=40_000, random_state=0, verbose=0).fit(holed)
    assert (imputer.n_passes_, imputer.status_, imputer.n_rows_) == (1, "converged", 20_000)
    error = 4 * x.std(axis=0) / np.sqrt(len(x))
    assert (np.abs(imputer.mean_ - x.mean(axis=0)) < error).all()
    assert imputer.covariance_ == pytest.approx(np.cov(x.T, bias=True), abs=0.1)
    assert imputer.score(holed) * 20_000 == pytest.approx(imputer.loglik_, rel=1e-12)
    assert imputer.history_[0]["kind"] == "census"


def test_values_missing_at_random_do_not_mislead_it() -> None:
    rng = np.random.default_rng(0)
    x = rng.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], size=20_000)
    holed = x.copy()
    holed[x[:, 0] > 0, 1] = np.nan  # who is above the mean in one is not seen in the other
    imputer = em.GaussianImputer(random_state=0, verbose=0).fit(holed)
    assert np.nanmean(holed[:, 1]) < -0.6
    assert imputer.mean_[1] == pytest.approx(0, abs=0.05)
    assert imputer.covariance_[1, 1] == pytest.approx(1, abs=0.05)


def test_weights_count_as_repetitions() -> None:
    _, x = rows(300)
    w = np.random.default_rng(1).integers(0, 4, 300)
    settings: Any = {"tol": 1e-10, "random_state": 0, "verbose": 0}
    weighted = em.GaussianImputer(**settings).fit(x, sample_weight=w)
    repeated = em.GaussianImputer(**settings).fit(np.repeat(x, w, axis=0))
    assert weighted.mean_ == pytest.approx(repeated.mean_, abs=1e-6)
    assert weighted.covariance_ == pytest.approx(repeated.covariance_, abs=1e-5)
    assert weighted.loglik_ == pytest.approx(repeated.loglik_, abs=1e-6)


def test_starts_find_both_maxima_of_murrays_points() -> None:
    nan = np.nan
    x = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]] + 2 * [[2, nan], [-2, nan], [nan, 2], [nan, -2]])
    fits = [em.GaussianImputer(random_state=seed, tol=1e-9, verbose=0).fit(x) for seed in range(6)]
    found = {round(c[0, 1] / c[0, 0], 3) for c in (fit.covariance_ for fit in fits)}
    assert {-0.5, 0.5} <= found
    best = em.GaussianImputer(n_init=8, random_state=0, tol=1e-9, verbose=0).fit(x)
    assert best.loglik_ == pytest.approx(-29.974286, abs=6e-7)
    assert len(best.restarts_) == 8


@pytest.mark.parametrize(
    "bad", [{"reg_covar": -1}, {"tol": -1}, {"max_passes": 0}, {"n_init": 0}, {"solver": "newton"}, {"time_limit": 0}]
)
def test_a_bad_hyperparameter_is_named(bad: dict[str, Any], holed: np.ndarray) -> None:
    with pytest.raises(em.ConfigurationError, match=next(iter(bad))):
        em.GaussianImputer(**bad, verbose=0).fit(holed)


def test_a_column_without_values_is_named() -> None:
    frame = pd.DataFrame(rows(50)[1], columns=NAMES).assign(c=np.nan)
    with pytest.raises(em.DataError, match="column 'c' has no value in any of 50 rows"):
        em.GaussianImputer(verbose=0).fit(frame)


@pytest.mark.parametrize("estimator", [em.GaussianImputer(verbose=0), em.FactorAnalysis(1, verbose=0)])
def test_a_column_that_does_not_vary_is_named(estimator: Any) -> None:
    frame = pd.DataFrame(rows(50)[0], columns=NAMES).assign(c=1.0)
    with pytest.raises(em.DataError, match=r"column 'c' is 1 .*: leave out"):
        estimator.fit(frame)


def test_batches_of_a_stream_move_it() -> None:
    _, x = rows()
    imputer = em.GaussianImputer(random_state=0, verbose=0)
    for part in np.split(x, 5):
        imputer.partial_fit(part)
    whole = em.GaussianImputer(random_state=0, verbose=0).fit(x)
    assert imputer.mean_ == pytest.approx(whole.mean_, abs=0.1)


# ---------------------------------------------------------------- transform


def test_what_is_observed_is_never_touched(imputer: em.GaussianImputer, holed: np.ndarray) -> None:
    before = holed.copy()
    filled = imputer.transform(holed)
    own = ~np.isnan(holed)
    assert np.array_equal(filled[own], holed[own])
    assert not np.isnan(filled).any()
    assert np.array_equal(holed, before, equal_nan=True)


def test_it_is_off_by_the_conditional_variance() -> None:
    rng = np.random.default_rng(0)
    x = rng.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], size=20_000)
    holed = x.copy()
    holed[:8000, 1] = np.nan
    filled = em.GaussianImputer(random_state=0, verbose=0).fit_transform(holed)
    assert ((filled - x)[:8000, 1] ** 2).mean() == pytest.approx(1 - 0.9**2, rel=0.05)  # means are off by 1


def test_a_row_of_nothing_becomes_the_mean(imputer: em.GaussianImputer) -> None:
    assert imputer.transform(np.full((1, 4), np.nan))[0] == pytest.approx(imputer.mean_)


def places(x: np.ndarray, folder: Path) -> dict[str, Any]:
    """The same rows in many places."""
    frame = pd.DataFrame(x, columns=NAMES)
    store = zarr.create_array(str(folder / "x.zarr"), shape=x.shape, chunks=(700, 4), dtype=x.dtype)
    store[:] = x
    (folder / "parquet").mkdir()
    for i, start in enumerate(range(0, len(x), 900)):  # a file is a block
        frame.iloc[start : start + 900].to_parquet(folder / "parquet" / f"{i}.parquet")
    return {
        "dask array": da.from_array(x, chunks=(640, 2)),
        "zarr": store,
        "zarr path": folder / "x.zarr",
        "parquet": str(folder / "parquet"),
    }


def test_anything_larger_is_filled_lazily(imputer: em.GaussianImputer, holed: np.ndarray, tmp_path: Path) -> None:
    want = imputer.transform(holed)
    for name, place in places(holed, tmp_path).items():
        got = imputer.transform(place)
        assert isinstance(got, da.Array), name
        assert (got.shape, got.dtype) == (want.shape, want.dtype), name
        assert np.array_equal(got.compute(), want), name


def test_frames_are_filled_by_their_names(holed: np.ndarray) -> None:
    frame = pd.DataFrame(holed, columns=NAMES)
    imputer = em.GaussianImputer(random_state=0, verbose=0).fit(frame)
    assert imputer.get_feature_names_out().tolist() == NAMES
    filled = imputer.set_output(transform="pandas").transform(frame)
    assert isinstance(filled, pd.DataFrame)
    assert filled.columns.tolist() == NAMES
    imputer.set_output(transform="default")
    lazy = imputer.transform(dd.from_pandas(frame.assign(other="x")[["other", "d", "c", "b", "a"]], npartitions=3))
    assert np.array_equal(lazy.compute(), filled.to_numpy())


def test_nulls_of_nullable_columns_are_missing(holed: np.ndarray) -> None:
    frame = pd.DataFrame(holed.round(), columns=NAMES).astype("Int64")
    imputer = em.GaussianImputer(random_state=0, verbose=0).fit(frame)
    filled = imputer.transform(frame)
    assert np.array_equal(filled, imputer.transform(pd.DataFrame(holed.round(), columns=NAMES)))


def test_float32_stays_float32(imputer: em.GaussianImputer, holed: np.ndarray) -> None:
    small = holed.astype(np.float32)
    filled = imputer.transform(small)
    lazy = imputer.transform(da.from_array(small, chunks=(600, 4)))
    assert filled.dtype == lazy.dtype == np.float32
    assert np.array_equal(lazy.compute(), filled)
    own = ~np.isnan(small)
    assert np.array_equal(filled[own], small[own])


def test_chosen_columns_are_fitted_and_filled(holed: np.ndarray) -> None:
    wide = np.c_[holed, np.arange(len(holed))]
    filled = em.GaussianImputer(random_state=0, verbose=0).fit_transform(wide, columns=[0, 2])
    assert filled.shape == (5000, 2)
    own = ~np.isnan(holed[:, [0, 2]])
    assert np.array_equal(filled[own], holed[:, [0, 2]][own])


# ---------------------------------------------------------------- draws


def test_draws_are_the_same_whatever_the_chunks(imputer: em.GaussianImputer, holed: np.ndarray, tmp_path: Path) -> None:
    want = imputer.draw(holed, n=3, random_state=7)
    assert want.shape == (3, 5000, 4)
    for name, place in places(holed, tmp_path).items():
        got = imputer.draw(place, n=3, random_state=7)
        assert isinstance(got, da.Array), name
        assert got.numblocks[1] > 1 or name.startswith("zarr"), name
        assert (got.shape, got.dtype) == (want.shape, want.dtype), name
        assert np.array_equal(got.compute(), want), name


def test_draws_of_chunks_of_unknown_size_are_drawn_too(imputer: em.GaussianImputer, holed: np.ndarray) -> None:
    x = da.from_array(holed, chunks=(1000, 4))
    unknown = x[x[:, 0] < np.inf]  # drops rows, and with them the sizes of chunks
    some = imputer.draw(unknown, n=2, random_state=0)
    first, again = some.compute(), some.compute()
    assert np.array_equal(first, again)
    assert not np.isnan(first).any()
    assert not np.array_equal(first[0], first[1])


def test_a_seed_says_which_draws(imputer: em.GaussianImputer, holed: np.ndarray) -> None:
    one = imputer.draw(holed, n=2, random_state=1)
    assert np.array_equal(imputer.draw(holed, n=3, random_state=1)[:2], one)  # more of them begin with the same
    gone = np.isnan(holed)
    for other in (one[1], imputer.draw(holed, n=1, random_state=2)[0], imputer.draw(holed, n=1, random_state=None)[0]):
        assert (other[gone] != one[0][gone]).all()
        assert np.array_equal(other[~gone], holed[~gone])


def test_draws_have_the_moments_of_what_made_the_rows() -> None:
    rng = np.random.default_rng(0)
    c = np.array([[1, 0.7, 0.2], [0.7, 1, -0.3], [0.2, -0.3, 1]])
    x = rng.multivariate_normal([1, 2, 3], c, size=40_000)
    x[rng.random(x.shape) < 0.4] = np.nan
    imputer = em.GaussianImputer(random_state=0, verbose=0).fit(x)
    drawn = imputer.draw(x, n=1)[0]
    assert np.cov(drawn.T) == pytest.approx(imputer.covariance_, abs=0.02)
    assert drawn.mean(axis=0) == pytest.approx(imputer.mean_, abs=0.02)
    filled = imputer.transform(x)  # means alone have too little variance
    assert np.diag(np.cov(filled.T)).max() < 0.9
    many = imputer.draw(x[:5], n=20_000)
    assert many.mean(axis=0) == pytest.approx(filled[:5], abs=0.03)


def test_random_numbers_are_normal_and_independent() -> None:
    from scipy.stats import kstest

    from dask_em.hashing import normals

    columns = np.broadcast_to(np.arange(4), (20_000, 4))
    z = normals(3, 0, None, np.arange(20_000), columns)
    assert kstest(z.ravel(), "norm").pvalue > 1e-3
    other = [normals(3, 1, None, np.arange(20_000), columns), normals(4, 0, None, np.arange(20_000), columns)]
    both = np.corrcoef(np.concatenate([z.T, *(o.T for o in other)]))
    assert np.abs(both - np.eye(12)).max() < 5 / np.sqrt(20_000)
    assert abs(np.corrcoef(z[1:, 0], z[:-1, 0])[0, 1]) < 5 / np.sqrt(20_000)
    assert np.array_equal(normals(3, 0, None, np.arange(10, 20), columns[:10]), z[10:20])


@pytest.mark.parametrize("n", [0, -1, 2.5, True, "many"])
def test_a_bad_number_of_draws_is_refused(imputer: em.GaussianImputer, holed: np.ndarray, n: Any) -> None:
    with pytest.raises(em.ConfigurationError, match="must be a whole number of at least 1"):
        imputer.draw(holed, n=n)


# ---------------------------------------------------------------- files, pipelines


def test_a_saved_imputer_is_loaded_by_another_process(
    imputer: em.GaussianImputer, holed: np.ndarray, tmp_path: Path
) -> None:
    path, out = tmp_path / "model.safetensors", tmp_path / "filled.npy"
    imputer.save(path)
    np.save(tmp_path / "x.npy", holed)
    code = (
        "import sys, numpy as np, dask_em as em; "
        "np.save(sys.argv[3], em.load(sys.argv[1]).transform(np.load(sys.argv[2])))"
    )
    subprocess.run([sys.executable, "-c", code, path, tmp_path / "x.npy", out], check=True)
    assert np.array_equal(np.load(out), imputer.transform(holed))


def test_an_unusable_file_is_refused(imputer: em.GaussianImputer, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for name, value in (("mean_", np.zeros(3)), ("covariance_", -np.eye(4)), ("covariance_", np.triu(np.ones((4, 4))))):
        broken = em.GaussianImputer(verbose=0)
        broken.__dict__ = {**imputer.__dict__, name: value}
        broken.save(path)
        with pytest.raises(em.StoreError, match="does not hold a usable GaussianImputer"):
            em.load(path)


def test_a_checkpoint_goes_on(tmp_path: Path) -> None:
    _, x = rows(20_000)
    settings: Any = {"sample_bytes": 40_000, "random_state": 0, "verbose": 0, "tol": 1e-9}
    whole = em.GaussianImputer(**settings).fit(x)
    place = tmp_path / "c.safetensors"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.FitWarning)
        em.GaussianImputer(**settings, checkpoint=place, max_passes=4).fit(x)
    resumed = em.GaussianImputer(**settings, checkpoint=place).fit(x)
    assert np.array_equal(resumed.covariance_, whole.covariance_)


def test_it_works_in_a_pipeline() -> None:
    x, holed = rows()
    y = x @ [1.0, 2.0, 3.0, 4.0]
    pipeline = make_pipeline(em.GaussianImputer(random_state=0, verbose=0), LinearRegression()).fit(holed, y)
    assert pipeline.score(holed, y) > 0.8


@parametrize_with_checks([em.GaussianImputer(verbose=0, reg_covar=1e-6)])
def test_scikit_learn_checks(estimator: Any, check: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.FitWarning)
        check(estimator)
