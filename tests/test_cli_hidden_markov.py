"""Hidden Markov chains on the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from click.testing import CliRunner

import dask_em as em
from dask_em.cli import em as main

RNG = np.random.default_rng(0)
STATES = np.repeat(RNG.integers(3, size=300), 10)
N = len(STATES)
FRAME = pd.DataFrame(
    {
        "a": RNG.normal(size=N) + 4 * STATES,
        "b": RNG.normal(size=N),
        "count": RNG.poisson(1 + 5 * STATES),
        "letter": np.array(list("xyz"))[(STATES + (RNG.random(N) < 0.1)) % 3],
        "who": np.repeat([f"patient {i}" for i in range(30)], N // 30),
    }
)


def run(*args: Any) -> Any:
    done = CliRunner().invoke(main, [str(arg) for arg in args])
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("chains") / "x.parquet"
    FRAME.to_parquet(path, row_group_size=170)
    return path


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    path = data.with_name("hmm.safetensors")
    run("fit", "gaussian-hmm", data, "--columns", "a,b", "--sequence", "who", "--n-states", 3, "--out", path)
    return path


def test_states_are_written(data: Path, model: Path, tmp_path: Path) -> None:
    hmm = em.load(model)
    x, ids = FRAME[["a", "b"]], FRAME["who"].to_numpy()
    run("predict", model, data, "--sequence", "who", "--out", tmp_path / "s.zarr")
    assert np.array_equal(zarr.open_array(tmp_path / "s.zarr")[:], hmm.predict(x, ids))
    run("predict", model, data, "--sequence", "who", "--posterior", "--out", tmp_path / "p.zarr")
    assert np.array_equal(zarr.open_array(tmp_path / "p.zarr")[:], hmm.predict(x, ids, method="posterior"))
    run("predict", model, data, "--sequence", "who", "--proba", "--out", tmp_path / "s.parquet")
    assert pd.read_parquet(tmp_path / "s.parquet").to_numpy() == pytest.approx(hmm.predict_proba(x, ids), abs=1e-12)
    run("predict", model, data, "--sequence", "who", "--filtered", "--out", tmp_path / "f.parquet")
    assert pd.read_parquet(tmp_path / "f.parquet").to_numpy() == pytest.approx(hmm.filter(x, ids), abs=1e-12)


def test_one_sequence_without_ids(data: Path, model: Path, tmp_path: Path) -> None:
    run("predict", model, data, "--out", tmp_path / "s.zarr")
    assert np.array_equal(zarr.open_array(tmp_path / "s.zarr")[:], em.load(model).predict(FRAME[["a", "b"]]))


def test_scored_and_shown(data: Path, model: Path) -> None:
    hmm = em.load(model)
    told = json.loads(run("score", model, data, "--sequence", "who", "--json").stdout)
    assert told["loglik"] == pytest.approx(hmm.loglik_, rel=1e-12)
    assert told["bic"] == pytest.approx(hmm.bic(FRAME[["a", "b"]], sequence=FRAME["who"]))
    shown = run("inspect", model).output
    for words in ("transitions", "in the long run", "rows on end", r"state +a +b"):
        assert re.search(words, shown)


@pytest.mark.parametrize(
    ("family", "columns", "options"),
    [
        ("poisson-hmm", "count", ["--begins", "stationary"]),
        ("categorical-hmm", "letter", []),
        ("hidden-markov", "count", ["--distribution", "negative-binomial"]),
        ("gaussian-hmm", "a", ["--transitions", "left-right", "--covariance-type", "diag"]),
    ],
)
def test_every_kind_is_fitted(data: Path, tmp_path: Path, family: str, columns: str, options: list[str]) -> None:
    out = tmp_path / "m.safetensors"
    run("fit", family, data, "--columns", columns, "--sequence", "who", "--n-states", 3, *options, "--out", out)
    hmm = em.load(out)
    assert hmm.transmat_.shape == (3, 3)
    run("inspect", out)
    run("predict", out, data, "--sequence", "who", "--out", tmp_path / "s.zarr")


def test_a_mixture_knows_no_sequences(data: Path, tmp_path: Path) -> None:
    run("fit", "gaussian-mixture", data, "--columns", "a", "--n-components", 3, "--out", tmp_path / "m.safetensors")
    done = CliRunner().invoke(
        main,
        ["predict", str(tmp_path / "m.safetensors"), str(data), "--sequence", "who", "--out", str(tmp_path / "s.zarr")],
    )
    assert done.exit_code == 78
    assert "GaussianMixture takes each row by itself" in done.output
