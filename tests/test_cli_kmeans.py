"""The command line and k-means: fit, predict, score, inspect."""

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
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(c, 0.5, size=(2000, 2)) for c in ((0, 0), (6, 0), (0, 6))])
    path = tmp_path_factory.mktemp("blobs") / "blobs.parquet"
    pd.DataFrame(rng.permutation(x), columns=["x", "y"]).to_parquet(path, row_group_size=1000)
    return path


@pytest.fixture(scope="module")
def model(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "centres.safetensors"
    result = run("fit", "k-means", blobs, "--n-clusters", 3, "--out", path)
    assert result.exit_code == 0, result.output
    return path


@pytest.mark.parametrize("init", ["k-means++", "k-means||"])
def test_clusters_are_found(blobs: Path, tmp_path: Path, init: str) -> None:
    result = run("fit", "k-means", blobs, "--n-clusters", 3, "--init", init, "--out", tmp_path / "m")
    assert result.exit_code == 0, result.output
    centres = dask_em.load(tmp_path / "m").cluster_centers_
    assert np.allclose(sorted(centres.round().tolist()), [[0, 0], [0, 6], [6, 0]])


def test_labels_and_inertia(blobs: Path, model: Path, tmp_path: Path) -> None:
    km = dask_em.load(model)
    x = pd.read_parquet(blobs)
    assert run("predict", model, blobs, "--out", tmp_path / "labels.zarr").exit_code == 0
    assert np.array_equal(zarr.open_array(str(tmp_path / "labels.zarr"))[:], km.predict(x))
    scores = json.loads(run("score", model, blobs, "--json").stdout)
    assert scores["inertia"] == pytest.approx(km.inertia_)
    assert scores["mean_inertia"] == pytest.approx(km.inertia_ / 6000)
    refused = run("predict", model, blobs, "--proba", "--out", tmp_path / "proba.zarr")
    assert "has no --proba: write labels" in str(refused.exception) + refused.output
    assert not (tmp_path / "proba.zarr").exists()


def test_inspect_shows_the_centres(model: Path) -> None:
    km = dask_em.load(model)
    shown = run("inspect", model).stdout
    for text in ("KMeans", "cluster", "converged", f"{km.cluster_centers_[0, 0]:.6g}", f"{km.inertia_:,.4f}"):
        assert text in shown
    assert "log-likelihood" not in shown


def test_clusters_have_an_inertia_wherever_they_are_told_of(blobs: Path, tmp_path: Path) -> None:
    fit = ("fit", "k-means", blobs, "--n-clusters", 3, "--out", tmp_path / "m")
    shown = run(*fit)
    assert "inertia" in shown.stdout
    assert "log-likelihood" not in shown.stdout
    assert "nats" not in shown.stdout
    events = [json.loads(line) for line in run(*fit, "--overwrite", "--log-format", "json").stderr.splitlines()]
    assert not any("loglik" in event for event in events)
    km = dask_em.load(tmp_path / "m")
    told = [event["inertia"] for event in events if event["event"] == "step"]
    assert told[-1] == events[-1]["inertia"] == km.inertia_
    assert [r["inertia"] for r in km.history_ if r["resident"]] == told
    said = json.loads(run("inspect", tmp_path / "m", "--json").stdout)
    assert said["fit"]["inertia"] == km.inertia_
    for record in (said["fit"], *said["fit"]["history"], *said["fit"]["restarts"]):
        assert "loglik" not in record
    assert not hasattr(km, "loglik_")


def test_inspect_gives_the_centres_as_json(model: Path) -> None:
    km = dask_em.load(model)
    got = json.loads(run("inspect", model, "--json").stdout)
    assert got["parameters"]["cluster_centers"] == km.cluster_centers_.tolist()
