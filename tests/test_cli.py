"""The commands: what they print, the codes they exit with, and what they leave alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from click.testing import CliRunner, Result

import dask_em
from dask_em.cli import em
from dask_em.cli.options import parse_filter, parse_value

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def quakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two Parquet files of two clusters; `w` is a weight, `name` no number."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("quakes")
    for part in range(2):
        n = 4000
        x = rng.normal(size=(n, 2)) + np.where(rng.random((n, 1)) < 0.3, 10.0, 0.0)
        frame = pd.DataFrame({"lat": x[:, 0], "lon": x[:, 1], "w": rng.integers(0, 3, n), "name": "a"})
        frame.to_parquet(folder / f"{part}.parquet", row_group_size=1500)
    return folder


@pytest.fixture(scope="module")
def model(quakes: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("model") / "m.safetensors")
    result = fit(quakes, path)
    assert result.exit_code == 0, result.output
    return path


def run(*args: Any) -> Result:
    return CliRunner().invoke(em, [str(a) for a in args])


def fit(data: Any, out: Any, *more: Any) -> Result:
    files = sorted(data.glob("*.parquet")) if isinstance(data, Path) and data.is_dir() else [data]
    return run("fit", "gaussian-mixture", *files, "--columns", "lat,lon", "--n-components", 2, "--out", out, *more)


def sentence(result: Result) -> str:
    """The one line on stderr."""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


# ---------------------------------------------------------------- fit


def test_fit_saves_what_the_estimator_finds_and_says_so(quakes: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    result = fit(quakes, out, "--seed", 3)
    assert result.exit_code == 0, result.output
    expected = dask_em.GaussianMixture(2, random_state=3).fit(str(quakes / "*.parquet"), columns=["lat", "lon"])
    got = dask_em.load(out)
    assert np.array_equal(got.means_, expected.means_)
    assert result.stderr == ""
    for shown in ("8,000", str(expected.n_passes_), f"{expected.loglik_:,.4f}", "converged", str(out)):
        assert shown in result.stdout
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_every_hyperparameter_reaches_the_estimator(quakes: Path, tmp_path: Path) -> None:
    out = tmp_path / "m"
    result = fit(
        quakes, out, "--covariance-type", "diag", "--reg-covar", 0.01, "--n-init", 2, "--tol", 0.5, "--max-passes", 40,
        "--time-limit", "10m", "--solver", "em", "--threads", 1, "--weight", "w", "--filter", "lat>-1",
        "--filter", "w in 1,2",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    got = dask_em.load(out)
    wanted = {
        "covariance_type": "diag",
        "reg_covar": 0.01,
        "n_init": 2,
        "tol": 0.5,
        "max_passes": 40,
        "time_limit": 600.0,
    }
    assert {k: got.get_params()[k] for k in wanted} == wanted
    frame = pd.concat([pd.read_parquet(f) for f in sorted(quakes.glob("*.parquet"))])
    kept = frame[(frame.lat > -1) & frame.w.isin([1, 2])]
    assert got.n_rows_ == len(kept)
    assert got.weight_ == kept.w.sum()


def test_a_fit_that_does_not_converge_is_saved_with_a_warning(quakes: Path, tmp_path: Path) -> None:
    result = fit(quakes, tmp_path / "m", "--tol", 0, "--max-passes", 3, "--solver", "em")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: max_passes: stopped after 1 pass and 2 steps in memory, as max_")
    assert dask_em.load(tmp_path / "m").status_ == "max_passes"


def test_json_lines_tell_every_pass_and_step(quakes: Path, tmp_path: Path) -> None:
    result = fit(quakes, tmp_path / "m", "--log-format", "json", "--max-passes", 4, "--tol", 0, "--solver", "em")
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert [e["event"] for e in events] == ["start", "pass", "step", "step", "step", "warning", "end"]
    assert [(e["number"], e["pass"]) for e in events[1:5]] == [(1, 1), (2, 1), (3, 1), (4, 1)]
    assert (events[-1]["passes"], events[-1]["steps"]) == (1, 3)
    assert events[1]["kind"] == "census"
    assert events[4]["loglik"] == pytest.approx(dask_em.load(tmp_path / "m").loglik_)
    assert events[-1]["status"] == "max_passes"
    assert events[-1]["rows"] == 8000
    assert result.stdout == ""


def test_quiet_says_nothing(quakes: Path, tmp_path: Path) -> None:
    result = fit(quakes, tmp_path / "m", "--quiet")
    assert (result.exit_code, result.output) == (0, "")


def test_an_array_is_fitted_by_the_positions_of_its_columns(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(500, 3)) + [0, 5, 9]
    zarr.save_array(str(tmp_path / "x.zarr"), x)
    args = ("--columns", "2,0", "--n-components", 1, "--out", tmp_path / "m")
    assert run("fit", "gaussian-mixture", tmp_path / "x.zarr", *args).exit_code == 0
    assert np.allclose(dask_em.load(tmp_path / "m").means_, x[:, [2, 0]].mean(axis=0))


@pytest.mark.cluster
def test_workers_give_the_same_model_as_threads(quakes: Path, model: str, tmp_path: Path) -> None:
    result = fit(quakes, tmp_path / "m", "--workers", 1, "--memory-limit", "1GB", "--threads-per-worker", 2)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert np.array_equal(dask_em.load(tmp_path / "m").means_, dask_em.load(model).means_)


# ---------------------------------------------------------------- predict, score, inspect


@pytest.mark.parametrize(
    "option, method", [(None, "predict"), ("--proba", "predict_proba"), ("--loglik", "score_samples")]
)
@pytest.mark.parametrize("kind", ["zarr", "parquet"])
def test_predict_writes_every_row_in_order(
    quakes: Path, model: str, tmp_path: Path, kind: str, option: str | None, method: str
) -> None:
    out = tmp_path / f"o.{kind}"
    result = run("predict", model, *sorted(quakes.glob("*.parquet")), "--out", out, *([option] if option else []))
    assert result.exit_code == 0, result.output
    frame = pd.concat([pd.read_parquet(f) for f in sorted(quakes.glob("*.parquet"))])
    wanted = getattr(dask_em.load(model), method)(frame[["lat", "lon"]])
    got = zarr.open_array(out, mode="r")[:] if kind == "zarr" else pd.read_parquet(out).to_numpy()
    assert np.array_equal(np.squeeze(got), wanted)
    assert "8,000" in result.stdout


def test_score_gives_the_criteria_of_the_estimator(quakes: Path, model: str) -> None:
    path = str(quakes / "*.parquet")
    got = json.loads(run("score", model, path, "--json").stdout)
    gm = dask_em.load(model)
    assert got["rows"] == 8000
    assert got["parameters"] == 11
    for name, value in (
        ("bic", gm.bic(path)),
        ("aic", gm.aic(path)),
        ("mean_loglik", gm.score(path)),
        ("loglik", gm.loglik_),
    ):
        assert got[name] == pytest.approx(value, rel=1e-12)
    shown = run("score", model, path).stdout
    assert f"{gm.bic(path):,.6f}" in shown
    weighted = json.loads(run("score", model, path, "--json", "--weight", "w").stdout)
    frame = pd.concat([pd.read_parquet(f) for f in sorted(quakes.glob("*.parquet"))])
    assert weighted["weight"] == frame.w.sum()
    assert weighted["loglik"] == pytest.approx(frame.w @ gm.score_samples(frame[["lat", "lon"]]), rel=1e-12)


def test_inspect_shows_parameters_and_record(model: str) -> None:
    gm = dask_em.load(model)
    shown = run("inspect", model).stdout
    for text in (
        "GaussianMixture",
        "lat",
        "lon",
        f"{gm.means_[1, 0]:.6g}",
        f"{gm.weights_[0]:.6g}",
        "converged",
        "census",
    ):
        assert text in shown
    got = json.loads(run("inspect", model, "--json").stdout)
    assert got["parameters"]["means"] == gm.means_.tolist()
    assert got["feature_names"] == ["lat", "lon"]
    assert len(got["fit"]["history"]) == len(gm.history_)


# ---------------------------------------------------------------- refusals


def test_outputs_that_exist_are_refused_before_any_work(quakes: Path, model: str, tmp_path: Path) -> None:
    (tmp_path / "m").write_text("precious")
    for command in (
        ("fit", "gaussian-mixture", tmp_path / "absent.parquet", "--n-components", 2, "--out", tmp_path / "m"),
        ("predict", tmp_path / "absent", tmp_path / "absent.parquet", "--out", tmp_path / "o.zarr"),
    ):
        (tmp_path / "o.zarr").mkdir(exist_ok=True)
        result = run(*command)
        assert result.exit_code == 78
        assert "exists" in sentence(result)
        assert "--overwrite" in sentence(result)
    assert (tmp_path / "m").read_text() == "precious"
    assert fit(quakes, tmp_path / "m", "--overwrite").exit_code == 0
    assert dask_em.load(tmp_path / "m").n_components == 2


def test_a_fit_that_fails_leaves_the_old_model(quakes: Path, model: str, tmp_path: Path) -> None:
    before = Path(model).read_bytes()
    frame = pd.read_parquet(quakes / "0.parquet")
    frame.loc[2345, "lon"] = np.inf
    frame.to_parquet(tmp_path / "bad.parquet", row_group_size=1000)
    result = fit(tmp_path / "bad.parquet", model, "--overwrite")
    assert result.exit_code == 65
    assert "bad.parquet" in sentence(result)
    assert "row 345 (row 2345 of the data)" in sentence(result) or "2345" in sentence(result)
    assert "'lon'" in sentence(result)
    assert Path(model).read_bytes() == before
    result = run("predict", model, tmp_path / "bad.parquet", "--out", tmp_path / "o.zarr")
    assert result.exit_code == 65
    assert sorted(os.listdir(tmp_path)) == ["bad.parquet"]


FIT = ["fit", "gaussian-mixture", "{data}", "--n-components", 2, "--out", "m"]


@pytest.mark.parametrize(
    "args, code, words",
    [
        (["fit", "gaussian-mixture", "absent.parquet", "--n-components", 2, "--out", "m"], 65, "absent.parquet"),
        (["fit", "gaussian-mixture", "no*.parquet", "--n-components", 2, "--out", "m"], 65, "no*.parquet"),
        ([*FIT, "--columns", "lat,up"], 65, "no column 'up'"),
        ([*FIT, "--columns", "lat,up"], 65, "say which to use with columns=, on the command line --columns"),
        ([*FIT, "--columns", "name"], 65, "choose numeric columns with columns=, on the command line --columns"),
        (["fit", "gaussian-mixture", "{data}", "--n-components", 2, "--out", "no/m"], 78, "no folder"),
        (["fit", "gaussian-mixture", "{data}", "--n-components", 0, "--out", "m"], 78, "--n-components"),
        (["fit", "gaussian-mixture", "{data}", "--n-components", 2], 78, "--out"),
        ([*FIT, "--columns", "lat", "--solver", "x"], 78, "solver='x'"),
        ([*FIT, "--filter", "lat~3"], 78, "lat~3"),
        ([*FIT, "--time-limit", "soon"], 78, "soon"),
        (["fit", "gaussian-mixture", "{data}", "--n-components", 2, "--out", "{data}"], 78, "mixed up"),
        ([*FIT, "--workers", 1, "--threads", 1], 78, "--threads"),
        ([*FIT, "--memory-limit", "1GB"], 78, "--workers"),
        ([*FIT, "--workers", 1, "--memory-limit", "x"], 78, "cluster"),
        ([*FIT, "--scheduler", "x.json"], 78, "x.json"),
        (["fit", "k-medoids", "{data}"], 78, "k-medoids"),
        (["predict", "{model}", "{data}", "--out", "o.csv"], 78, "o.csv"),
        (["predict", "{model}", "{data}", "--out", "o.zarr", "--proba", "--loglik"], 78, "--proba"),
        (["predict", "{data}", "{data}", "--out", "o.zarr"], 65, "0.parquet"),
        (["predict", "{model}", "{folder}", "--out", "{folder}/o.parquet"], 78, "mixed up"),
        (["predict", "{model}", "{folder}/*.parquet", "--out", "{folder}", "--overwrite"], 78, "neither .zarr nor"),
        (["score", "absent", "{data}"], 65, "absent"),
        (["inspect", "{data}"], 65, "0.parquet"),
        (["inspect", "{model}", "--storage-option", "secret"], 78, "key=value"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_sentence(
    quakes: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[Any], code: int, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"data": quakes / "0.parquet", "folder": quakes, "model": model}
    before = sorted(os.listdir(quakes))
    result = run(*(str(a).format(**places) for a in args))
    assert words in sentence(result)
    assert "Traceback" not in result.output
    assert result.exit_code == code
    assert os.listdir(tmp_path) == []
    assert sorted(os.listdir(quakes)) == before


def test_errors_are_json_where_the_log_is(tmp_path: Path) -> None:
    for path, code in (("absent", 65), ("--bogus", 78)):
        result = run(
            "score", "--log-format", "json", tmp_path / "m" if path == "absent" else path, tmp_path / "x.parquet"
        )
        last = json.loads(result.stderr.splitlines()[-1])
        assert (last["event"], last["exit_code"], result.exit_code) == ("error", code, code)


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = run("inspect", tmp_path / "absent", "--debug")
    assert "Traceback" in result.stderr
    assert result.exit_code == 65


def test_a_scheduler_that_is_not_there_is_given_up(
    quakes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dask_em.cli.session.CONNECT_SECONDS", 1)
    with socket.socket() as server:  # one refuses, the other accepts and never answers
        server.bind(("127.0.0.1", 0))
        server.listen()
        for port in (1, server.getsockname()[1]):
            began = time.monotonic()
            result = fit(quakes, tmp_path / "m", "--scheduler", f"tcp://127.0.0.1:{port}")
            assert time.monotonic() - began < 10
            assert result.exit_code == 75
            assert f"tcp://127.0.0.1:{port}" in sentence(result)


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    "text, parsed",
    [
        ("magnitude>0", ("magnitude", ">", 0)),
        ("magnitude >= 2.5", ("magnitude", ">=", 2.5)),
        ("a=1", ("a", "==", 1)),
        ("a!=-1e3", ("a", "!=", -1000.0)),
        ("etype == 'eq'", ("etype", "==", "eq")),
        ('id=="12"', ("id", "==", "12")),
        ("good == true", ("good", "==", True)),
        ("station in a,b, c", ("station", "in", ["a", "b", "c"])),
        ("station not in [1,2]", ("station", "not in", [1, 2])),
        ("in_use<3", ("in_use", "<", 3)),
    ],
)
def test_filters_are_read(text: str, parsed: tuple[str, str, Any]) -> None:
    assert parse_filter(text) == parsed


def test_times_are_times_unless_quoted() -> None:
    assert parse_value("2000-01-31") == pd.Timestamp("2000-01-31")
    assert parse_value("2000-01-31T06:30") == pd.Timestamp("2000-01-31 06:30")
    assert parse_value("'2000-01-31'") == "2000-01-31"


# ---------------------------------------------------------------- the program


def program(*args: Any, module: str = "dask_em") -> list[str]:
    return [sys.executable, "-m", module, *(str(a) for a in args)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, dask_em.cli; "
        "print([m for m in ('numpy', 'dask', 'distributed', 'zarr', 'pyarrow', 'rich', 'sklearn') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("args", [["--help"], [], ["fit"], ["fit", "gaussian-mixture", "-h"], ["--version"]])
def test_the_program_helps(args: list[str]) -> None:
    result = subprocess.run(program(*args), capture_output=True, text=True, env=environment())
    assert result.returncode == 0
    assert "dask-em" in result.stdout + result.stderr


def test_the_program_refuses_what_it_does_not_know() -> None:
    result = subprocess.run(program("--bogus"), capture_output=True, text=True, env=environment())
    assert result.returncode == 78
    assert result.stderr == "error: No such option '--bogus' (dask-em --help says more)\n"


def test_the_commands_are_a_part_of_dask() -> None:
    from importlib.metadata import entry_points

    if not entry_points(group="dask_cli", name="em"):
        pytest.skip("the package is not installed, so its entry points are not known")
    result = subprocess.run(
        program("em", "inspect", "absent", module="dask"), capture_output=True, text=True, env=environment()
    )
    assert result.returncode == 65
    assert result.stderr.startswith("error: absent")
