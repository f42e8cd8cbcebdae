"""``dask-em select``: the grid of options, the table, and the best candidate saved."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

import dask_em
from dask_em.cli import em, show
from dask_em.cli.families import COMMANDS
from dask_em.cli.values import Values


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet file of three clusters in two columns, and a weight."""
    rng = np.random.default_rng(0)
    centres = np.array([[-4.0, 0.0], [4.0, 0.0], [0.0, 5.0]])
    x = centres[rng.integers(3, size=6000)] + rng.normal(size=(6000, 2))
    frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "w": rng.integers(0, 3, len(x))})
    path = tmp_path_factory.mktemp("blobs") / "x.parquet"
    frame.to_parquet(path, row_group_size=1000)
    return path


def select(data: Any, out: Any, *more: Any) -> Result:
    args = ["select", "gaussian-mixture", data, "--columns", "a,b", "--n-init", 3, "--out", out, *more]
    return CliRunner().invoke(em, [str(a) for a in args])


def test_the_best_of_the_grid_is_saved_and_the_table_is_that_of_the_library(blobs: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "m.safetensors", tmp_path / "t.csv"
    result = select(blobs, out, "--n-components", "1:4", "--covariance-type", "full,diag", "--table", table)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    wanted = dask_em.select(
        dask_em.GaussianMixture(random_state=0, n_init=3),
        str(blobs),
        columns=["a", "b"],
        n_components=range(1, 5),
        covariance_type=["full", "diag"],
    )
    got = pd.read_csv(table)
    assert list(got["n_components"]) == [1, 1, 2, 2, 3, 3, 4, 4]
    assert list(got["bic"]) == list(wanted.table_["bic"])
    assert list(got["best"]).index(True) == wanted.best_index_
    best = dask_em.load(out)
    assert best.n_components == 3
    assert np.array_equal(best.means_, wanted.best_estimator_.means_)
    assert sorted(os.listdir(tmp_path)) == ["m.safetensors", "t.csv"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_shows_every_number_whole(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(show, "_NARROW", width)
    grid = ("--n-components", "2,3", "--covariance-type", "tied,full", "--held-out", 0.3)
    result = select(blobs, tmp_path / "m", *grid, "--table", tmp_path / "t.csv")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= width
    table = pd.read_csv(tmp_path / "t.csv")
    said = set(result.stdout.split())
    for name, form in (("loglik", ",.2f"), ("bic", ",.2f"), ("held_out", ",.6f")):
        assert not {format(v, form) for v in table[name]} - said
    starred = [line.split()[1:3] for line in lines if line.lstrip().startswith("*")]
    row = table[table["best"]].iloc[0]
    assert starred[0] == [str(row["n_components"]), row["covariance_type"]]
    if width == 80:
        assert "continued" not in "".join(select(blobs, tmp_path / "m2", *grid[:4]).stdout)


def test_options_of_the_run_are_those_of_fit(blobs: Path, tmp_path: Path) -> None:
    result = select(
        blobs, tmp_path / "m", "--n-components", 2, "--weight", "w", "--filter", "a>0", "--solver", "em",
        "--threads", 1, "--sample-bytes", "64KiB", "--max-passes", 30, "--criterion", "held-out", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    frame = pd.read_parquet(blobs)
    kept = frame[frame.a > 0]
    assert told["rows"] == len(kept)
    assert told["criterion"] == "held_out"
    assert told["best"]["n_components"] == 2
    assert told["candidates"][told["best_index"]]["held_out"] == pytest.approx(-3.2, abs=0.5)
    best = dask_em.load(tmp_path / "m")
    assert best.weight_ == kept.w.sum()
    assert best.history_[1]["kind"] == "em"
    assert best.solver == "em"


def test_json_lines_tell_passes_and_candidates(blobs: Path, tmp_path: Path) -> None:
    result = select(blobs, tmp_path / "m", "--n-components", "1,3", "--log-format", "json")
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert [e["event"] for e in events[:2]] == ["start", "pass"]
    assert [e["event"] for e in events[-3:]] == ["candidate", "candidate", "end"]
    assert events[-1]["best"]["n_components"] == 3
    assert result.stdout == ""


@pytest.mark.cluster
def test_workers_choose_the_same(blobs: Path, tmp_path: Path) -> None:
    grid = ("--n-components", "2:3", "--sample-bytes", "64KiB")
    for name, where in (("threads", ()), ("workers", ("--workers", 2, "--memory-limit", "1GB"))):
        result = select(blobs, tmp_path / name, *grid, "--table", tmp_path / f"{name}.csv", *where)
        assert result.exit_code == 0, result.output
    assert (tmp_path / "threads.csv").read_text() == (tmp_path / "workers.csv").read_text()


def test_an_interrupted_selection_keeps_the_best_so_far_and_goes_on(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = ("--n-components", "2:3", "--sample-bytes", "64KiB", "--tol", 0, "--max-passes", 12, "--solver", "em")
    whole = select(blobs, tmp_path / "whole", *grid, "--table", tmp_path / "whole.csv")
    assert whole.exit_code == 0, whole.output
    outputs = (tmp_path / "m", *grid, "--table", tmp_path / "t.csv", "--checkpoint", tmp_path / "c")

    def stop(self: Any, fit: Any) -> None:
        if len(fit.history) == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dask_em.cli.log.StepLog.on_step", stop)
        result = select(blobs, *outputs)
    assert result.exit_code == 75
    assert result.stderr == f"interrupted: run the same command again to go on from {tmp_path / 'c'}\n"
    assert dask_em.load(tmp_path / "m").status_ == "interrupted"
    assert set(pd.read_csv(tmp_path / "t.csv")["status"]) <= {"interrupted", "surpassed"}
    result = select(blobs, *outputs)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "t.csv").read_text() == (tmp_path / "whole.csv").read_text()
    assert select(blobs, *outputs).exit_code == 78  # what is complete is not replaced


def test_a_candidate_that_cannot_be_fitted_is_said(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(6, 2))
    pd.DataFrame(x, columns=["a", "b"]).to_parquet(tmp_path / "x.parquet")
    result = select(tmp_path / "x.parquet", tmp_path / "m", "--n-components", "1,7", "--reg-covar", 0.01)
    assert result.exit_code == 0, result.output
    assert "n_components=7" in result.stdout
    assert dask_em.load(tmp_path / "m").n_components == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--n-components", "0:3"], "--n-components"),
        (["--n-components", "3:1"], "holds nothing"),
        (["--n-components", "1:9:0"], "holds nothing"),
        (["--n-components", "1:2:3:4"], "1:2:3:4"),
        (["--n-components", "1,,2"], "--n-components"),
        (["--n-components", "1:10000000"], "10,000 values"),
        (["--n-components", "2", "--covariance-type", "full,round"], "round"),
        (["--n-components", "2", "--criterion", "best"], "best"),
        (["--n-components", "2", "--held-out", "1"], "--held-out"),
        (["--n-components", "2", "--table", "t.parquet"], ".csv"),
        (["--n-components", "2", "--table", "{data}.csv/t.csv"], "no folder"),
        (["--n-components", "2", "--table", "there.csv"], "exists"),
        (["--n-components", "2", "--table", "m/../m.csv", "--checkpoint", "m.csv"], "mixed up"),
        ([], "--n-components"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.csv").write_text("precious")
    result = select(blobs, "m", *(a.format(data=blobs) for a in args))
    assert result.exit_code == 78, result.output
    assert len(result.stderr.splitlines()) == 1
    assert words in result.stderr
    assert result.stdout == ""
    assert os.listdir(tmp_path) == ["there.csv"]
    assert Path("there.csv").read_text() == "precious"


@pytest.mark.parametrize(
    ("text", "values"),
    [("3", [3]), ("1:4", [1, 2, 3, 4]), ("1:8:3", [1, 4, 7]), ("8, 2,2", [8, 2]), ("1:3,8,2:4", [1, 2, 3, 8, 4])],
)
def test_whole_numbers_come_as_lists_and_ranges_with_both_ends(text: str, values: list[int]) -> None:
    assert Values(click.IntRange(1)).convert(text, None, None) == values


def test_what_forms_a_grid_is_an_option_of_the_family() -> None:
    for family in COMMANDS.values():
        named = {p.name for p in em.commands["fit"].commands[family.command].params}  # type: ignore[attr-defined]
        assert set(family.grid) <= named
        one = {p.name: p.type for p in em.commands["fit"].commands[family.command].params}  # type: ignore[attr-defined]
        assert not any(isinstance(kind, Values) for kind in one.values())
