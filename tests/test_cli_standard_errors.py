"""``dask-em standard-errors``: what the methods say, as a table or JSON."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import dask_em as em
from dask_em.cli import em as command

X = np.random.default_rng(0).normal([0, 5], [1, 2], size=(400, 2))


@pytest.fixture
def model(tmp_path: Path) -> tuple[em.GaussianMixture, list[str]]:
    np.save(tmp_path / "x.npy", X)
    fitted = em.GaussianMixture(1, verbose=0).fit(X)
    fitted.save(tmp_path / "m.safetensors")
    return fitted, ["standard-errors", str(tmp_path / "m.safetensors"), str(tmp_path / "x.npy")]


@pytest.mark.parametrize("kind", ["auto", "robust"])
def test_they_are_those_of_the_method(model: tuple[em.GaussianMixture, list[str]], kind: str) -> None:
    fitted, call = model
    done = CliRunner().invoke(command, [*call, "--json", "--level", "0.9", "--kind", kind])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    expected = fitted.standard_errors(X, level=0.9, kind=kind)
    assert found["level"] == 0.9
    assert [line["parameter"] for line in found["parameters"]] == list(expected["parameter"])
    for name in ("estimate", "standard_error", "lower", "upper"):
        assert [line[name] for line in found["parameters"]] == pytest.approx(expected[name].to_numpy(), rel=1e-12)


def test_the_bootstrap_is_that_of_the_function(model: tuple[em.GaussianMixture, list[str]]) -> None:
    fitted, call = model
    done = CliRunner().invoke(command, [*call, "--bootstrap", "20", "--seed", "3", "--json"])
    assert done.exit_code == 0, done.output
    expected = em.bootstrap(fitted, X, 20, random_state=3).table_["standard_error"].to_numpy()
    assert [p["standard_error"] for p in json.loads(done.stdout)["parameters"]] == pytest.approx(expected, rel=1e-12)


def test_a_table_shows_every_parameter(model: tuple[em.GaussianMixture, list[str]]) -> None:
    done = CliRunner().invoke(command, model[1])
    assert done.exit_code == 0, done.output
    assert done.stdout.count("means") == 2
    assert done.stdout.count("covariances") == 3
    assert "standard" in done.stdout


def test_numbers_are_shown_as_far_as_they_are_sure(tmp_path: Path) -> None:
    x = 12345.6789 + 1e-3 * np.random.default_rng(0).normal(size=(100, 1))
    np.save(tmp_path / "x.npy", x)
    em.GaussianMixture(1, verbose=0).fit(x).save(tmp_path / "m.safetensors")
    done = CliRunner().invoke(command, ["standard-errors", str(tmp_path / "m.safetensors"), str(tmp_path / "x.npy")])
    assert done.exit_code == 0, done.output
    assert f"{x.mean():.6f}" in done.stdout


def test_what_has_none_is_refused(model: tuple[em.GaussianMixture, list[str]], tmp_path: Path) -> None:
    call = model[1]
    em.KMeans(2, verbose=0).fit(X).save(tmp_path / "k.safetensors")
    refused = CliRunner().invoke(command, [call[0], str(tmp_path / "k.safetensors"), call[2]])
    assert refused.exit_code == 78
    assert "is a KMeans, which has no likelihood" in refused.stderr
    both = CliRunner().invoke(command, [*call, "--bootstrap", "20", "--kind", "robust"])
    assert both.exit_code == 78
    assert "exclude each other" in both.stderr
