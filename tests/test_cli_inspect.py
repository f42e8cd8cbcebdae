"""What ``dask-em inspect`` shows: every number whole, in any width."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import dask_em
from dask_em.cli import em, show
from dask_em.cli.families import COMMANDS
from dask_em.cli.tables import Table


@pytest.mark.parametrize("k, d", [(2, 2), (3, 12), (4, 40), (30, 40)])
@pytest.mark.filterwarnings("ignore::dask_em.FitWarning")
def test_every_mean_of_every_component_is_shown_whole(tmp_path: Path, k: int, d: int) -> None:
    x = 1e4 * np.random.default_rng(0).normal(size=(40 * k, d))
    gm = dask_em.GaussianMixture(k, covariance_type="diag", max_passes=2, random_state=0).fit(x)
    gm.save(tmp_path / "m")
    result = CliRunner().invoke(em, ["inspect", str(tmp_path / "m")])
    assert result.exit_code == 0, result.output
    shown = set(result.stdout.split())
    assert not {f"{v:.6g}" for v in gm.means_.ravel()} - shown
    assert not {f"{v:.6g}" for v in np.sqrt(gm.covariances_).ravel()} - shown
    assert "…" not in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 120


def test_a_table_that_is_too_wide_either_way_comes_in_parts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(show, "_NARROW", 40)
    names = [f"column{i}" for i in range(9)]
    show.table(Table("wide", ["row", *names], [[str(i), *(i + j / 8 for j in range(9))] for i in range(9)]))
    said = capsys.readouterr().out
    assert max(len(line) for line in said.splitlines()) <= 40
    assert said.count("wide, continued") == said.count("column8") - 1
    assert not {f"{i + j / 8:.6g}" for i in range(9) for j in range(9)} - set(said.split())


def test_starts_version_and_fingerprint_are_there(tmp_path: Path, three_blobs: np.ndarray) -> None:
    gm = dask_em.GaussianMixture(3, n_init=3, random_state=0).fit(three_blobs)
    gm.save(tmp_path / "m")
    run = CliRunner().invoke
    shown = run(em, ["inspect", str(tmp_path / "m")]).stdout
    told = json.loads(run(em, ["inspect", str(tmp_path / "m"), "--json"]).stdout)
    starts = told["fit"]["restarts"]
    assert [start["start"] for start in starts] == [0, 1, 2]
    assert max(start["loglik"] for start in starts) == pytest.approx(gm.loglik_)
    for start in starts:
        assert f"{start['per_weight']:.6f}" in shown
    assert told["fit"]["fingerprint"] == gm.fingerprint_
    assert told["version"] == dask_em.__version__
    assert f"saved by dask_em {dask_em.__version__}" in shown


def test_large_gains_are_written_out() -> None:
    from dask_em.cli.records import history

    shown = history([{"loglik": None, "gain": None}, {"loglik": -9.0, "gain": 1_712_345.0}, {"gain": 0.0123456}])
    assert [row[shown.headings.index("predicted gain")] for row in shown.rows] == ["", "1,710,000", "0.0123"]
    assert dask_em.GaussianMixture()._model().measure.gain(1_712_345.0) == "1,700,000 nats"


@pytest.mark.parametrize("width", [80, 120])
def test_a_long_fit_and_many_starts_are_tables_that_keep_their_shape(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, three_blobs: np.ndarray, width: int
) -> None:
    monkeypatch.setattr(show, "_NARROW", width)
    gm = dask_em.GaussianMixture(3, n_init=12, random_state=0, solver="em", tol=0, max_passes=120)
    with pytest.warns(dask_em.FitWarning):
        gm.fit(three_blobs)
    gm.save(tmp_path / "m")
    lines = CliRunner().invoke(em, ["inspect", str(tmp_path / "m")]).stdout.splitlines()
    assert max(map(len, lines)) <= width
    assert not any("continued" in line for line in lines)
    assert "1, then 119 steps in memory" in "".join(lines)
    first = [words[0] for words in map(str.split, lines[-30:]) if words]
    assert first[-25:] == [*(str(i) for i in range(1, 13)), "...", *(str(i) for i in range(109, 121))]


def test_defaults_that_help_names_are_the_estimators() -> None:
    for family in COMMANDS.values():
        command = em.commands["fit"].commands[family.command]  # type: ignore[attr-defined]
        parameters = inspect.signature(getattr(dask_em, family.estimator)).parameters
        named = [p for p in command.params if p.name in parameters and getattr(p, "show_default", None)]
        assert named
        for option in named:
            if option.name != "random_state":  # a command gives the same answer again, an estimator need not
                assert option.default == parameters[option.name].default, option.name


SETTINGS: dict[str, Any] = {"random_state": 0, "verbose": 0}


def shown(estimator: dask_em.Mixture | dask_em.GaussianMixture, x: np.ndarray) -> dict[str, Table]:
    """The tables of what was fitted, by title."""
    estimator.fit(x)
    family = next(f for f in COMMANDS.values() if f.estimator == type(estimator).__name__)
    return {table.title: table for table in family.tables(estimator)}


MATRICES = {
    "gaussian mixture": (dask_em.GaussianMixture(2, **SETTINGS), "correlations", 0),
    "tied mixture": (dask_em.GaussianMixture(2, covariance_type="tied", **SETTINGS), "correlations", 0),
    "gaussian": (dask_em.Mixture(2, dask_em.Gaussian(), **SETTINGS), "covariances: sds, and correlations", 1),
    "tied": (dask_em.Mixture(2, dask_em.Gaussian("tied"), **SETTINGS), "covariances: sds, and correlations", 1),
    "student": (dask_em.Mixture(2, dask_em.StudentT(), **SETTINGS), "scatters: scales, and correlations", 1),
}


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("d", [2, 3])  # as many columns as components, and more
def test_correlations_are_shown_of_what_has_them(three_blobs: np.ndarray, name: str, d: int) -> None:
    estimator, title, roots = MATRICES[name]
    x = np.column_stack([three_blobs, three_blobs.sum(axis=1) + np.random.default_rng(0).normal(size=len(three_blobs))])
    table = shown(estimator, x[:, :d])[title]
    found = np.asarray(estimator.scatters_ if name == "student" else estimator.covariances_)
    matrices = found if found.ndim == 3 else found[None]
    assert [row[0] for row in table.rows] == [str(k) for k in np.repeat([0, 1], d)] if found.ndim == 3 else d * ["all"]
    numbers = np.array([row[2:] for row in table.rows], dtype=float).reshape(len(matrices), d, roots + d)
    sd = np.sqrt(np.einsum("kjj->kj", matrices))
    assert numbers[..., roots:] * sd[:, :, None] * sd[:, None, :] == pytest.approx(matrices)
    if roots:
        assert numbers[..., 0] == pytest.approx(sd)


def test_no_matrix_of_many_columns_is_shown_and_their_sizes_are() -> None:
    x = np.random.default_rng(0).normal(size=(300, 31))
    assert set(shown(dask_em.GaussianMixture(1, **SETTINGS), x)) == {"components"}
    table = shown(dask_em.Mixture(1, dask_em.Gaussian(), **SETTINGS), x)["covariances: sds, and correlations"]
    assert table.headings == ["component", "column", "sd"]
    assert len(table.rows) == 31


def test_what_else_components_have_is_shown(three_blobs: np.ndarray) -> None:
    x = np.random.default_rng(0).normal(size=(400, 5)) + np.repeat([[0], [4]], 200, axis=0)
    tables = shown(dask_em.Mixture(2, dask_em.Factors(2), **SETTINGS), x)
    assert tables["loadings"].headings == ["component", "column", "factor 0", "factor 1"]
    assert len(tables["loadings"].rows) == 10
    parts = dask_em.Product({0: dask_em.Gaussian("diag"), (1,): dask_em.Gaussian("spherical")})
    assert list(shown(dask_em.Mixture(2, parts, **SETTINGS), three_blobs[:, :2])) == [
        "components", "means of x0", "variances of x0", "means of x1", "variances of x1"
    ]  # fmt: skip
