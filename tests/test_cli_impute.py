"""The command line and what is missing: fit, inspect, score, impute by means and by draws."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from click.testing import CliRunner, Result

import dask_em
from dask_em.cli import em

NAMES = ["height", "weight", "age"]


def run(*args: Any) -> Result:
    return CliRunner().invoke(em, [str(a) for a in args])


def done(*args: Any) -> Result:
    result = run(*args)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.multivariate_normal([170, 70, 40], [[100, 80, 5], [80, 120, 20], [5, 20, 150]], size=3000)
    return pd.DataFrame(np.where(rng.random(x.shape) < 0.2, np.nan, x), columns=NAMES)


@pytest.fixture(scope="module")
def data(frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    for i, start in enumerate(range(0, 3000, 700)):  # a file is a block
        frame.iloc[start : start + 700].assign(name="x").to_parquet(folder / f"{i}.parquet")
    return folder


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    done("fit", "gaussian-imputer", data, "--columns", ",".join(NAMES), "--out", path)
    return path


def test_inspect_shows_means_and_correlations(model: Path) -> None:
    imputer = dask_em.load(model)
    assert (imputer.n_passes_, imputer.status_) == (1, "converged")
    shown = done("inspect", model).stdout
    for text in ("GaussianImputer", "mean", "sd", "correlations", "weight", "converged"):
        assert text in shown
    assert f"{imputer.mean_[0]:.2f}"[:5] in shown
    got = json.loads(done("inspect", model, "--json").stdout)
    assert got["parameters"]["covariance"] == imputer.covariance_.tolist()


def test_score_is_of_what_is_observed(model: Path, data: Path, frame: pd.DataFrame) -> None:
    imputer = dask_em.load(model)
    scores = json.loads(done("score", model, data, "--json").stdout)
    assert scores["loglik"] == pytest.approx(imputer.loglik_)
    assert scores["bic"] == pytest.approx(imputer.bic(frame))


def test_what_is_missing_is_filled_into_a_table(model: Path, data: Path, frame: pd.DataFrame, tmp_path: Path) -> None:
    out = tmp_path / "filled.parquet"
    said = done("impute", model, data, "--out", out)
    assert "3,000" in said.output + said.stderr
    got = pd.read_parquet(out)
    assert got.columns.tolist() == NAMES
    assert np.array_equal(got.to_numpy(), dask_em.load(model).transform(frame))
    assert len(list(out.iterdir())) == 5  # blocks are files, in order


def test_what_is_missing_is_filled_into_an_array(model: Path, data: Path, frame: pd.DataFrame, tmp_path: Path) -> None:
    done("impute", model, data, "--out", tmp_path / "filled.zarr")
    got = zarr.open_array(tmp_path / "filled.zarr")
    assert got.attrs["columns"] == NAMES
    assert np.array_equal(got[:], dask_em.load(model).transform(frame))


def test_draws_are_those_of_the_estimator(model: Path, data: Path, frame: pd.DataFrame, tmp_path: Path) -> None:
    want = dask_em.load(model).draw(frame, n=3, random_state=5)
    options = ("--draws", 3, "--seed", 5)
    done("impute", model, data, *options, "--out", tmp_path / "draws.parquet")
    table = pd.read_parquet(tmp_path / "draws.parquet")
    assert table.columns.tolist() == ["row", "draw", *NAMES]
    assert table["row"].tolist() == np.repeat(np.arange(3000), 3).tolist()
    for number, own in table.groupby("draw"):
        assert np.array_equal(own[NAMES].to_numpy(), want[number])
    done("impute", model, data, *options, "--out", tmp_path / "draws.zarr")
    array = zarr.open_array(tmp_path / "draws.zarr")[:]
    assert np.array_equal(array.transpose(1, 0, 2), want)


@pytest.mark.parametrize("kind", ["parquet", "zarr"])
def test_rows_behind_a_filter_are_numbered_as_they_are_kept(
    model: Path, data: Path, frame: pd.DataFrame, tmp_path: Path, kind: str
) -> None:
    done("impute", model, data, "--filter", "age>40", "--draws", 2, "--out", tmp_path / f"draws.{kind}")
    kept = frame[frame["age"] > 40]
    want = dask_em.load(model).draw(kept, n=2)
    if kind == "zarr":
        got = zarr.open_array(tmp_path / "draws.zarr")[:]
    else:
        got = pd.read_parquet(tmp_path / "draws.parquet")[NAMES].to_numpy().reshape(-1, 2, 3)
    assert np.array_equal(got.transpose(1, 0, 2), want)


def test_a_single_draw_has_its_number_too(model: Path, data: Path, tmp_path: Path) -> None:
    done("impute", model, data, "--draws", 1, "--out", tmp_path / "draw.parquet")
    assert pd.read_parquet(tmp_path / "draw.parquet")["draw"].eq(0).all()


def test_workers_write_the_same(model: Path, data: Path, tmp_path: Path) -> None:
    options = ("impute", model, data, "--draws", 2)
    done(*options, "--out", tmp_path / "here.parquet")
    done(*options, "--out", tmp_path / "there.parquet", "--workers", 2)
    here, there = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("here", "there"))
    pd.testing.assert_frame_equal(here, there)


def test_float32_is_written_as_float32(model: Path, frame: pd.DataFrame, tmp_path: Path) -> None:
    small = frame.to_numpy(np.float32)
    store = zarr.create_array(str(tmp_path / "x.zarr"), shape=small.shape, chunks=(500, 3), dtype="float32")
    store[:] = small
    done("impute", model, tmp_path / "x.zarr", "--out", tmp_path / "filled.zarr")
    got = zarr.open_array(tmp_path / "filled.zarr")
    assert got.dtype == np.float32
    assert np.array_equal(got[:], dask_em.load(model).transform(store).compute())


def test_an_output_that_exists_is_kept_unless_it_may_be_replaced(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "filled.parquet"
    done("impute", model, data, "--out", out)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    refused = run("impute", model, data, "--draws", 2, "--out", out)
    assert refused.exit_code == 78
    assert "exists: choose another name, or allow its replacement with --overwrite" in refused.output
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    done("impute", model, data, "--draws", 2, "--out", out, "--overwrite")
    assert len(pd.read_parquet(out)) == 6000


def test_nothing_is_left_where_the_data_cannot_be_filled(model: Path, frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.assign(age=np.where(np.arange(3000) == 2999, np.inf, frame["age"])).to_parquet(
        tmp_path / "bad.parquet", row_group_size=500
    )
    result = run("impute", model, tmp_path / "bad.parquet", "--out", tmp_path / "filled.parquet")
    assert result.exit_code == 65
    assert "age" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.parquet"]


@pytest.mark.parametrize(
    "options, complaint",
    [
        (("--out", "filled.csv"), "ends in neither .zarr nor .parquet"),
        (("--draws", "0", "--out", "filled.zarr"), "--draws"),
        (("--seed", "-1", "--out", "filled.zarr"), "--seed"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    model: Path, data: Path, tmp_path: Path, options: tuple[str, ...], complaint: str
) -> None:
    result = run("impute", model, data, *options[:-1], tmp_path / options[-1])
    assert result.exit_code == 78
    assert complaint in result.output


def test_another_model_fills_in_nothing(data: Path, frame: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "mixture.safetensors"
    dask_em.GaussianMixture(1, verbose=0).fit(frame).save(path)
    result = run("impute", path, data, "--out", tmp_path / "filled.zarr")
    assert result.exit_code == 78
    assert "is a GaussianMixture, which fills in nothing: fit a gaussian-imputer" in result.output


def test_a_column_called_as_the_draws_columns_is_refused(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.rename(columns={"age": "draw"}).to_parquet(tmp_path / "x.parquet")
    done("fit", "gaussian-imputer", tmp_path / "x.parquet", "--out", tmp_path / "m.safetensors")
    result = run(
        "impute", tmp_path / "m.safetensors", tmp_path / "x.parquet", "--draws", 2, "--out", tmp_path / "o.parquet"
    )
    assert result.exit_code == 78
    assert "the data has a column 'draw'" in result.output
