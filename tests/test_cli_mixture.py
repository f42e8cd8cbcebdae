"""The command line and mixtures of counts: fit, select, predict, score, inspect."""

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
def counts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    x = rng.poisson(np.repeat([[1.0, 9.0], [8.0, 2.0]], 2000, axis=0)).astype(float)
    x[::11, 0] = np.nan
    path = tmp_path_factory.mktemp("counts") / "counts.parquet"
    pd.DataFrame(rng.permutation(x), columns=["visits", "calls"]).to_parquet(path, row_group_size=1000)
    return path


@pytest.fixture(scope="module")
def model(counts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    result = run("fit", "mixture", counts, "--distribution", "poisson", "--n-components", 2, "--out", path)
    assert result.exit_code == 0, result.output
    return path


def test_a_fit_is_that_of_the_library(counts: Path, model: Path, tmp_path: Path) -> None:
    mix = dask_em.load(model)
    own = dask_em.Mixture(2, dask_em.Poisson(), random_state=0, verbose=0).fit(counts)
    assert np.array_equal(mix.rates_, own.rates_)
    assert np.sort(mix.rates_[:, 1]) == pytest.approx([2, 9], rel=0.05)
    assert run("predict", model, counts, "--proba", "--out", tmp_path / "p.zarr").exit_code == 0
    assert np.array_equal(zarr.open_array(str(tmp_path / "p.zarr"))[:], mix.predict_proba(pd.read_parquet(counts)))
    scores = json.loads(run("score", model, counts, "--json").stdout)
    assert scores["loglik"] == pytest.approx(mix.loglik_)
    assert scores["parameters"] == 5


def test_inspect_shows_the_parameters_by_name(model: Path) -> None:
    shown = run("inspect", model).output
    assert "rates" in shown
    assert "visits" in shown
    told = json.loads(run("inspect", model, "--json").stdout)
    assert told["hyperparameters"]["distribution"] == "Poisson(prior=None, exposure=None)"
    assert np.shape(told["parameters"]["rates"]) == (2, 2)


def test_a_selection(counts: Path, tmp_path: Path) -> None:
    out = tmp_path / "best.safetensors"
    asked = ("--distribution", "poisson", "--n-components", "1:4", "--out", out, "--quiet")
    assert run("select", "mixture", counts, *asked).exit_code == 0
    assert dask_em.load(out).n_components == 2


def test_latent_classes_show_each_columns_shares(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 3, (500, 2))
    pd.DataFrame(x, columns=["a", "b"]).to_parquet(tmp_path / "x.parquet")
    out = tmp_path / "m.safetensors"
    asked = ("--distribution", "categorical", "--n-components", 2, "--out", out)
    assert run("fit", "mixture", tmp_path / "x.parquet", *asked).exit_code == 0
    shown = run("inspect", out).output
    assert "probabilities" in shown
    assert "column" in shown


def test_values_that_are_no_counts_are_refused_with_their_place(tmp_path: Path) -> None:
    pd.DataFrame({"visits": [1.0, 2.0, 2.5]}).to_parquet(tmp_path / "x.parquet")
    asked = ("--distribution", "poisson", "--n-components", 1, "--out", tmp_path / "m")
    result = run("fit", "mixture", tmp_path / "x.parquet", *asked)
    assert result.exit_code == 65
    said = result.output + str(result.exception)
    assert "row 2, column 'visits' is 2.5, where Poisson needs a whole number that is not negative" in said
    assert not (tmp_path / "m").exists()


@pytest.fixture(scope="module")
def countries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    gnp = rng.uniform(2, 44, 2000)
    co2 = np.where(rng.random(2000) < 0.7, 9.0, 1.0 + 0.7 * gnp) + rng.normal(size=2000)
    path = tmp_path_factory.mktemp("countries") / "countries.parquet"
    pd.DataFrame({"gnp": gnp, "co2": co2}).to_parquet(path)
    return path


def test_regressions_are_fitted_and_shown_by_name(countries: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    asked = ("--distribution", "linear-regression", "--response", "co2", "--out", out)
    result = run("fit", "mixture", countries, *asked, "--n-components", 2)
    assert result.exit_code == 0, result.output
    own = dask_em.Mixture(2, dask_em.LinearRegression("co2"), random_state=0, verbose=0).fit(countries)
    assert np.array_equal(dask_em.load(out).coef_, own.coef_)
    shown = run("inspect", out).output
    for heading in ("coefficients", "intercept", "gnp", "residual sd"):
        assert heading in shown
    best = run("select", "mixture", countries, *asked, "--n-components", "1:3", "--overwrite", "--quiet")
    assert best.exit_code == 0, best.output
    assert dask_em.load(out).n_components == 2


def test_regressions_of_counts_take_positions_too(counts: Path, tmp_path: Path) -> None:
    whole = pd.read_parquet(counts).dropna()
    zarr.save_array(str(tmp_path / "x.zarr"), whole.to_numpy())
    out = tmp_path / "m.safetensors"
    asked = ("--distribution", "poisson-regression", "--response", 1, "--n-components", 2, "--out", out)
    result = run("fit", "mixture", tmp_path / "x.zarr", *asked)
    assert result.exit_code == 0, result.output
    own = dask_em.Mixture(2, dask_em.PoissonRegression("calls"), random_state=0, verbose=0).fit(whole)
    assert dask_em.load(out).loglik_ == pytest.approx(own.loglik_)
    assert "residual sd" not in run("inspect", out).output


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--distribution", "linear-regression"), "linear-regression needs --response COLUMN"),
        (("--response", "co2", "--distribution", "poisson"), "poisson has no response: drop --response"),
    ],
)
def test_a_response_belongs_to_a_regression(countries: Path, tmp_path: Path, asked: Any, said: str) -> None:
    result = run("fit", "mixture", countries, *asked, "--n-components", 2, "--out", tmp_path / "m")
    assert result.exit_code == 78
    assert said in result.output


def test_student_t_components_show_their_degrees_of_freedom(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_t(3, size=(2000, 2))
    pd.DataFrame(x, columns=["a", "b"]).to_parquet(tmp_path / "x.parquet")
    out = tmp_path / "m.safetensors"
    asked = ("--distribution", "student-t", "--n-components", 1, "--out", out)
    assert run("fit", "mixture", tmp_path / "x.parquet", *asked).exit_code == 0
    shown = run("inspect", out).output
    assert "locations" in shown
    assert "df" in shown
    assert dask_em.load(out).df_[0] < 6


@pytest.fixture(scope="module")
def visits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    days, kind = rng.uniform(1, 30, 3000), rng.integers(2, size=3000)
    frame = pd.DataFrame({"days": days, "visits": rng.poisson(days * np.array([0.1, 2.0])[kind])})
    path = tmp_path_factory.mktemp("visits") / "visits.parquet"
    frame.assign(calls=rng.negative_binomial(2, np.array([0.5, 0.1])[kind])).astype(float).to_parquet(path)
    return path


@pytest.mark.parametrize(
    ("asked", "own"),
    [
        ("poisson --exposure days", dask_em.Poisson(exposure="days")),
        ("poisson --exposure days --prior 2,0.5", dask_em.Poisson(prior=(2.0, 0.5), exposure="days")),
        (
            "poisson-regression --response visits --exposure days --ridge 0.5",
            dask_em.PoissonRegression("visits", exposure="days", ridge=0.5),
        ),
        (
            "linear-regression --response visits --no-intercept --shared-variance --prior 2,0.5",
            dask_em.LinearRegression("visits", fit_intercept=False, shared_variance=True, prior=(2.0, 0.5)),
        ),
        ("student-t --df 4 --covariance-type diag", dask_em.StudentT("diag", df=4.0)),
        ("student-t --df shared --reg-covar 0.01", dask_em.StudentT(df="shared", reg_covar=0.01)),
        ("gaussian --covariance-type tied", dask_em.Gaussian("tied")),
        ("factors --n-factors 1", dask_em.Factors(1)),
    ],
)
def test_options_are_the_parameters_of_the_distribution(visits: Path, tmp_path: Path, asked: str, own: Any) -> None:
    out = tmp_path / "m.safetensors"
    result = run("fit", "mixture", visits, "--distribution", *asked.split(), "--n-components", 2, "--out", out)
    assert result.exit_code == 0, result.output
    mix = dask_em.load(out)
    assert mix.distribution == own
    assert mix.loglik_ == dask_em.Mixture(2, own, random_state=0, verbose=0).fit(visits).loglik_
    assert run("inspect", out).exit_code == 0


@pytest.mark.parametrize(
    ("asked", "own"),
    [
        ("negative-binomial", dask_em.NegativeBinomial()),
        ("negative-binomial --size 2", dask_em.NegativeBinomial(2.0)),
        (
            "negative-binomial --size shared --prior 2,1 --size-prior 3,1",
            dask_em.NegativeBinomial("shared", prior=(2.0, 1.0), size_prior=(3.0, 1.0)),
        ),
        ("multinomial --prior 1", dask_em.Multinomial(prior=1.0)),
        ("gaussian --prior 5", dask_em.Gaussian(prior=5.0)),
        ("student-t --prior 5,0.1,2", dask_em.StudentT(prior=(5.0, 0.1, 2.0))),
    ],
)
def test_options_of_counts(visits: Path, tmp_path: Path, asked: str, own: Any) -> None:
    out = tmp_path / "m.safetensors"
    where = ("--columns", "visits,calls", "--n-components", 2, "--out", out)
    result = run("fit", "mixture", visits, "--distribution", *asked.split(), *where)
    assert result.exit_code == 0, result.output
    assert dask_em.load(out).distribution == own
    shown = run("inspect", out).output
    assert "visits" in shown
    assert "calls" in shown


@pytest.mark.parametrize(
    ("asked", "own"),
    [
        ("bernoulli --trials n --prior 1,1", dask_em.Bernoulli(prior=(1.0, 1.0), trials="n")),
        ("logistic-regression --response cured --trials n", dask_em.LogisticRegression("cured", trials="n")),
    ],
)
def test_trials(tmp_path: Path, asked: str, own: Any) -> None:
    rng = np.random.default_rng(0)
    n = rng.integers(1, 20, 1000)
    frame = pd.DataFrame({"n": n, "cured": rng.binomial(n, 0.3), "better": rng.binomial(n, 0.5)})
    frame.to_parquet(tmp_path / "x.parquet")
    out = tmp_path / "m.safetensors"
    where = ("--n-components", 1, "--out", out)
    result = run("fit", "mixture", tmp_path / "x.parquet", "--distribution", *asked.split(), *where)
    assert result.exit_code == 0, result.output
    mix = dask_em.load(out)
    assert mix.distribution == own
    assert mix.loglik_ == dask_em.Mixture(1, own, random_state=0, verbose=0).fit(frame).loglik_
    assert "better" in run("inspect", out).output


def test_an_exposure_has_no_rate(visits: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    asked = ("--distribution", "poisson", "--exposure", "days", "--n-components", "1:3", "--out", out, "--quiet")
    assert run("select", "mixture", visits, "--columns", "days,visits", *asked).exit_code == 0
    assert np.sort(dask_em.load(out).rates_.ravel()) == pytest.approx([0.1, 2.0], rel=0.05)
    shown = run("inspect", out).output.split("rates")[1]
    assert "visits" in shown
    assert "days" not in shown


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("poisson --df 4", "poisson has no df: drop --df"),
        ("gaussian --exposure days", "gaussian has no exposure: drop --exposure"),
        ("gamma --no-intercept", "gamma has no intercept: drop --no-intercept"),
        ("logistic-regression --response visits --shared-variance", "logistic-regression has no shared variance"),
        ("logistic-regression --response y --prior 1", "logistic-regression has no prior: drop --prior"),
        ("student-t --covariance-type tied", "covariance_type='tied' is unknown"),
        ("student-t --df none", "'none' should be each, shared or a number"),
        ("negative-binomial --size 0", "size=0.0 must be 'each', 'shared', or a number"),
        ("poisson --prior a,b", "'a,b' should be a number, or several with commas between them"),
        ("poisson --prior 2", "prior=2.0 must be a shape"),
        ("poisson-regression --exposure days", "poisson-regression needs --response COLUMN"),
        ("multinomial --size 2", "multinomial has no size"),
    ],
)
def test_options_belong_to_their_distribution(visits: Path, tmp_path: Path, asked: str, said: str) -> None:
    where = ("--n-components", 2, "--out", tmp_path / "m")
    result = run("fit", "mixture", visits, "--distribution", *asked.split(), *where)
    assert result.exit_code == 78
    assert said in " ".join(result.output.split())
    assert not (tmp_path / "m").exists()


def test_components_of_a_fitted_mixture_are_kept(visits: Path, tmp_path: Path) -> None:
    known, out = tmp_path / "known.safetensors", tmp_path / "out.safetensors"
    data = ("fit", "mixture", visits, "--columns", "visits,calls", "--distribution", "poisson", "--n-components")
    assert run(*data, 1, "--out", known).exit_code == 0
    asked = ("--frozen", known, "--fixed-weights", "0.5,0.3,0.2")
    result = run(*data, 3, *asked, "--out", out)
    assert result.exit_code == 0, result.output
    made = dask_em.load(out)
    assert np.array_equal(made.rates_[0], dask_em.load(known).rates_[0])
    assert made.weights_.tolist() == [0.5, 0.3, 0.2]
    assert "frozen" in run("inspect", out).output
    assert run(*data, 2, "--fixed-weights", "equal", "--out", tmp_path / "e").exit_code == 0
    assert dask_em.load(tmp_path / "e").weights_.tolist() == [0.5, 0.5]


def test_what_holds_no_mixture_cannot_be_kept(visits: Path, tmp_path: Path) -> None:
    centres, out = tmp_path / "centres.safetensors", tmp_path / "out"
    assert run("fit", "k-means", visits, "--columns", "visits", "--n-clusters", 2, "--out", centres).exit_code == 0
    data = ("fit", "mixture", visits, "--columns", "visits", "--distribution", "poisson", "--n-components", 2)
    for name, words in (("centres.safetensors", "holds a KMeans, and should hold a mixture"), ("none", "no such file")):
        result = run(*data, "--frozen", tmp_path / name, "--out", out)
        assert result.exit_code == 78
        assert words in result.output
        assert not out.exists()
