"""Rows in, rows out: NumPy for what is in memory, lazy dask arrays for anything larger."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dask_em as em
from dask_em.model import Block


@pytest.fixture(scope="module")
def fitted() -> tuple[em.GaussianMixture, np.ndarray]:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(-3, 1, (500, 3)), rng.normal(3, 1, (700, 3))])
    return em.GaussianMixture(2, random_state=0, verbose=0).fit(x), x


def places(x: np.ndarray, folder: Path) -> dict[str, Any]:
    import dask.array as da
    import dask.dataframe as dd
    import xarray
    import zarr

    array = zarr.create_array(str(folder / "x.zarr"), shape=x.shape, chunks=(70, 2), dtype=x.dtype)
    array[:] = x
    frame = pd.DataFrame(x, columns=["a", "b", "c"])
    frame.to_parquet(folder / "x.parquet", row_group_size=99)
    np.save(folder / "x.npy", x)
    lazy = da.from_array(x, chunks=(111, 2))
    return {
        "zarr": array,
        "zarr path": str(folder / "x.zarr"),
        "parquet": folder / "x.parquet",
        "npy": str(folder / "x.npy"),
        "dask array": lazy,
        "unknown chunks": lazy[lazy[:, 0] > -np.inf],
        "dask frame": dd.from_pandas(frame, npartitions=5),
        "xarray": xarray.DataArray(lazy, dims=("row", "column")),
        "source": em.open(x),
        "memmap": np.load(folder / "x.npy", mmap_mode="r"),
    }


@pytest.mark.parametrize("method", ["predict", "predict_proba", "score_samples"])
def test_answers_are_lazy_and_the_same_from_everywhere(
    fitted: tuple[em.GaussianMixture, np.ndarray], tmp_path: Path, method: str
) -> None:
    import dask.array as da

    gm, x = fitted
    expected = getattr(gm, method)(x)
    assert type(expected) is np.ndarray
    for name, data in places(x, tmp_path).items():
        answer = getattr(gm, method)(data)
        assert isinstance(answer, da.Array), name
        assert answer.dtype == expected.dtype, name
        assert answer.shape[1:] == expected.shape[1:], name
        assert np.array_equal(answer.compute(), expected), name


def test_frames_give_arrays_and_their_names_are_checked() -> None:
    import dask.dataframe as dd

    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(100, 3)), columns=["a", "b", "c"])
    gm = em.GaussianMixture(2, random_state=0, verbose=0).fit(frame)
    assert gm.feature_names_in_.tolist() == ["a", "b", "c"]
    assert type(gm.predict(frame)) is np.ndarray
    said = (
        r"The data frame has no column 'c'; its columns are 'a', 'b', 'd': .* columns=, on the command line --columns"
    )
    for data in (frame, dd.from_pandas(frame, npartitions=2)):
        with pytest.raises(em.DataError, match=said):
            gm.predict(data.rename(columns={"c": "d"}))


def test_columns_are_picked_by_name_in_any_order(tmp_path: Path) -> None:
    import dask.dataframe as dd

    x = np.random.default_rng(0).normal([0.0, 5.0, 90.0], [1.0, 9.0, 2.0], size=(200, 3))
    frame = pd.DataFrame(x, columns=["a", "b", "c"])
    gm = em.GaussianMixture(2, random_state=0, verbose=0).fit(frame)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels, scores, total = gm.predict(x), gm.score_samples(x), gm.score(x)  # as many as fitted: by position
    other = frame[["c", "a", "b"]].assign(d=1.0)
    other.to_parquet(tmp_path / "x.parquet")
    for data in (other, dd.from_pandas(other, npartitions=3), tmp_path / "x.parquet", other[["b", "c", "a"]]):
        assert np.array_equal(np.asarray(gm.predict(data)), labels)
        assert np.array_equal(np.asarray(gm.score_samples(data)), scores)
        assert gm.score(data) == pytest.approx(total, rel=1e-12)
    with pytest.raises(em.DataError, match=r"X has 2 features, but .* is expecting 3 .* columns="):
        gm.predict(x[:, :2])
    with pytest.raises(em.DataError, match=r"X has 2 features, but .* is expecting 3 .* columns="):
        gm.score(x[:, :2])


def test_the_fitted_columns_are_picked_from_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"name": list("xy") * 50, "a": rng.normal(size=100), "b": rng.normal(size=100)})
    frame.to_parquet(tmp_path / "x.parquet")
    gm = em.GaussianMixture(2, random_state=0, verbose=0).fit(tmp_path / "x.parquet", columns=["b", "a"])
    assert gm.feature_names_in_.tolist() == ["b", "a"]
    answer = gm.predict(tmp_path / "x.parquet").compute()
    assert np.array_equal(answer, gm.predict(frame[["b", "a"]]))
    assert gm.score(tmp_path / "x.parquet") == pytest.approx(gm.score(frame[["b", "a"]]))


def test_a_block_that_cannot_be_answered_is_named(fitted: tuple[em.GaussianMixture, np.ndarray]) -> None:
    import dask.array as da

    gm, x = fitted
    bad = x.copy()
    bad[150, 1] = np.inf
    lazy = da.from_array(bad, chunks=(100, 3))
    said = r"^chunk 1 of the Dask array \(rows 100 to 200\): row 50 \(row 150 of the data\), column 1 is infinity"
    for data in (lazy, em.open(lazy)):
        with pytest.raises(em.DataError, match=said):
            gm.predict(data).compute()
        with pytest.raises(em.DataError, match=said):
            gm.score(data)


def test_a_bad_value_in_a_file_is_named_by_file_and_column(tmp_path: Path) -> None:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(100, 2)), columns=["depth", "speed"])
    gm = em.GaussianMixture(2, random_state=0, verbose=0).fit(frame)
    frame.loc[60, "speed"] = np.inf
    frame.to_parquet(tmp_path / "sea.parquet", row_group_size=50)
    with pytest.raises(em.DataError, match=r"sea\.parquet, row groups 0 to 1 .*: row 60, column 'speed' is infinity"):
        gm.predict(tmp_path / "sea.parquet").compute()


def test_lazy_rows_may_hold_nan_where_the_function_takes_it(tmp_path: Path) -> None:
    import dask.array as da

    from dask_em.executors.lazy import lazy_array, lazy_rows

    x = np.array([[1.0, np.nan], [2.0, 3.0]])
    held = lazy_rows(present, em.open(x), None, int, accepts_nan=True)
    assert held.compute().tolist() == [1, 2]
    assert lazy_array(present, da.from_array(x, chunks=1), None, int, accepts_nan=True).compute().tolist() == [1, 2]
    with pytest.raises(em.DataError, match="column 1 is NaN"):
        lazy_rows(present, em.open(x), None, int).compute()


def present(x: np.ndarray, block: Block) -> np.ndarray:
    return np.isfinite(x).sum(axis=1)


def test_answers_of_blocks_that_share_work(fitted: tuple[em.GaussianMixture, np.ndarray]) -> None:
    import dask.array as da

    gm, x = fitted
    lazy = da.from_array(x, chunks=(100, 3))
    source = em.open(lazy - lazy.max(axis=0))
    assert source.graph is not None
    assert np.array_equal(gm.predict_proba(source).compute(), gm.predict_proba(x - x.max(axis=0)))
    assert np.array_equal(gm.predict(source)[130:250].compute(), gm.predict(x - x.max(axis=0))[130:250])


@pytest.mark.cluster
def test_answers_of_a_persisted_array(fitted: tuple[em.GaussianMixture, np.ndarray], client: Any) -> None:
    import dask.array as da

    gm, x = fitted
    with client.as_current():
        held = da.from_array(x, chunks=(200, 3)).persist()
        assert np.array_equal(gm.predict(held).compute(), gm.predict(x))
        assert np.array_equal(gm.predict(em.open(held)).compute(), gm.predict(x))
        assert gm.score(held) == pytest.approx(gm.score(x), rel=1e-12)


def test_scores_and_criteria(fitted: tuple[em.GaussianMixture, np.ndarray], tmp_path: Path) -> None:
    gm, x = fitted
    stored = places(x, tmp_path)["zarr path"]
    total = gm.score_samples(x).sum()
    p = 1 + 2 * 3 + 2 * 6
    assert gm.n_parameters() == p
    assert gm.score(stored) == pytest.approx(total / 1200, rel=1e-13)
    assert gm.bic(stored) == pytest.approx(-2 * total + p * np.log(1200), rel=1e-13)
    assert gm.aic(stored) == pytest.approx(-2 * total + 2 * p, rel=1e-13)
    w = np.random.default_rng(0).random(1200)
    assert gm.score(stored, sample_weight=w) == pytest.approx(gm.score_samples(x) @ w / w.sum(), rel=1e-12)


def test_draws_are_reproducible_and_follow_the_mixture(fitted: tuple[em.GaussianMixture, np.ndarray]) -> None:
    gm, _ = fitted
    x, labels = gm.sample(20_000)
    again, _ = gm.sample(20_000)
    assert np.array_equal(x, again)
    for k in range(2):
        own = x[labels == k]
        assert len(own) / 20_000 == pytest.approx(gm.weights_[k], abs=0.02)
        assert own.mean(axis=0) == pytest.approx(gm.means_[k], abs=0.05)
        assert np.cov(own.T) == pytest.approx(gm.covariances_[k], abs=0.1)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_a_saved_model_answers_the_same(
    fitted: tuple[em.GaussianMixture, np.ndarray], tmp_path: Path, kind: str
) -> None:
    _, x = fitted
    gm = em.GaussianMixture(3, covariance_type=kind, random_state=0, verbose=0, tol=5).fit(x)  # type: ignore[arg-type]
    gm.save(tmp_path / "model.safetensors")
    back = em.load(tmp_path / "model.safetensors")
    assert np.array_equal(back.predict_proba(x), gm.predict_proba(x))
    assert back.get_params() == gm.get_params()
    assert (back.history_, back.status_, back.n_rows_) == (gm.history_, gm.status_, gm.n_rows_)
    assert back.bic(x) == gm.bic(x)


def test_a_bad_value_in_a_dask_frame_is_named_by_its_column() -> None:
    import dask.dataframe as dd

    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(100, 2)), columns=["depth", "speed"])
    gm = em.GaussianMixture(2, random_state=0, verbose=0).fit(frame)
    frame.loc[60, "speed"] = np.inf
    with pytest.raises(em.DataError, match=r"chunk 1 of the Dask array: row 10, column 'speed' is infinity"):
        gm.predict(dd.from_pandas(frame, npartitions=2)).compute()
