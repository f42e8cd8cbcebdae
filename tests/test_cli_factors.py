"""The command line and factor analysis: fit, inspect, score, predict, select."""

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


def run(*args: Any) -> Result:
    return CliRunner().invoke(em, [str(a) for a in args])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    loadings = np.array([[0.9, 0], [0.8, 0], [0.7, 0], [0, 0.8], [0, 0.7], [0, 0.6]])
    x = rng.normal(size=(4000, 2)) @ loadings.T + rng.normal(size=(4000, 6)) * np.sqrt(1 - (loadings**2).sum(axis=1))
    path = tmp_path_factory.mktemp("tests") / "tests.parquet"
    pd.DataFrame(x, columns=["sums", "series", "sets", "words", "rhymes", "spelling"]).to_parquet(path)
    return path


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "factors.safetensors"
    result = run("fit", "factor-analysis", data, "--n-components", 2, "--rotation", "varimax", "--out", path)
    assert result.exit_code == 0, result.output
    return path


def test_inspect_shows_loadings_and_uniquenesses(model: Path) -> None:
    fa = dask_em.load(model)
    assert (fa.n_passes_, fa.rotation) == (1, "varimax")
    shown = run("inspect", model).stdout
    for text in ("FactorAnalysis", "loadings", "factor 1", "uniqueness", "spelling", "converged"):
        assert text in shown
    for figure in (fa.loadings_[0, 0], fa.uniquenesses_[5]):
        assert f"{figure:.5g}"[:6] in shown
    got = json.loads(run("inspect", model, "--json").stdout)
    assert got["parameters"]["components"] == fa.components_.tolist()


def test_score_and_predict(data: Path, model: Path, tmp_path: Path) -> None:
    fa = dask_em.load(model)
    x = pd.read_parquet(data)
    scores = json.loads(run("score", model, data, "--json").stdout)
    assert scores["loglik"] == pytest.approx(fa.loglik_)
    assert scores["bic"] == pytest.approx(fa.bic(x))
    done = run("predict", model, data, "--loglik", "--out", tmp_path / "loglik.parquet")
    assert done.exit_code == 0, done.output
    assert pd.read_parquet(tmp_path / "loglik.parquet")["loglik"].sum() == pytest.approx(fa.loglik_)
    refused = run("predict", model, data, "--out", tmp_path / "labels.parquet")
    assert (
        "is a FactorAnalysis, which has no labels: write --factors, --loglik" in str(refused.exception) + refused.output
    )


def test_select_finds_the_number_of_factors(data: Path, tmp_path: Path) -> None:
    done = run("select", "factor-analysis", data, "--n-components", "1:3", "--out", tmp_path / "best.safetensors")
    assert done.exit_code == 0, done.output
    assert dask_em.load(tmp_path / "best.safetensors").n_components == 2


def test_icl_is_not_offered_for_factors_to_which_no_row_belongs(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "best.safetensors"
    refused = run("select", "factor-analysis", data, "--n-components", "1:3", "--criterion", "icl", "--out", out)
    assert refused.exit_code == 78
    assert "'icl' is not one of 'bic', 'aic', 'held-out'" in refused.output
    assert not out.exists()


def test_the_factors_of_the_rows_are_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 5)) + rng.normal(size=(300, 5))
    np.save(tmp_path / "x.npy", x)
    fitted = dask_em.FactorAnalysis(2, verbose=0).fit(x)
    fitted.save(tmp_path / "m.safetensors")
    expected = fitted.transform(x)
    for out in ("scores.zarr", "scores.parquet"):
        call = ["predict", tmp_path / "m.safetensors", tmp_path / "x.npy", "--factors"]
        done = run(*call, "--out", tmp_path / out)
        assert done.exit_code == 0, done.output
    assert "300 x 2" in run(*call, "--out", tmp_path / "again.zarr").output
    assert np.array_equal(np.asarray(zarr.open_array(tmp_path / "scores.zarr")[:]), expected)
    table = pd.read_parquet(tmp_path / "scores.parquet")
    assert list(table) == ["factor_0", "factor_1"]
    assert np.array_equal(table.to_numpy(), expected)
