"""`FactorAnalysis` and mixtures of factor analysers on data with missing values: one read, blocks, weights, files."""

import warnings
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy.stats import multivariate_normal

import dask_em as em
from dask_em.cli import em as command

NAN = np.nan
LOADINGS = np.array([[0.9, 0.0], [0.8, 0.1], [0.7, 0.0], [0.6, 0.1], [0.0, 0.8], [0.1, 0.7], [0.0, 0.6]])


def abilities(n: int = 4000, holes: float = 0.1) -> np.ndarray:
    """Seven tests of two abilities; those who do badly at the first are likelier to miss the second."""
    rng = np.random.default_rng(0)
    noise = np.sqrt(1 - (LOADINGS**2).sum(axis=1))
    x = rng.normal(size=(n, 2)) @ LOADINGS.T + rng.normal(size=(n, 7)) * noise
    missing = rng.random(x.shape) < holes
    missing[:, 0] = False
    missing[:, 1] |= (x[:, 0] < -0.5) & (rng.random(n) < 0.8)
    x[missing] = NAN
    x[7] = NAN
    return 100 + x * np.arange(1, 8)


@pytest.fixture(scope="module")
def tests() -> np.ndarray:
    return abilities()


@pytest.fixture(scope="module")
def fitted(tests: np.ndarray) -> em.FactorAnalysis:
    return em.FactorAnalysis(2, rotation="varimax", tol=1e-9, verbose=0).fit(tests)


def clusters(n: int = 1200) -> np.ndarray:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, 1)) * np.linspace(0.5, 1.5, 8) + rng.normal(size=(n, 8))
    x[n // 2 :] += 6 * np.resize([1, -1], 8)
    x[rng.random(x.shape) < 0.1] = NAN
    return x


def test_a_stored_array_is_read_once(tests: np.ndarray, fitted: em.FactorAnalysis) -> None:
    reads = 0

    def count(block: np.ndarray) -> np.ndarray:
        nonlocal reads
        reads += 1
        return block

    lazy = da.from_array(tests, chunks=(500, 7)).map_blocks(count, dtype=tests.dtype, meta=tests[:0])
    reads = 0
    fa = em.FactorAnalysis(2, rotation="varimax", tol=1e-9, sample_bytes=10_000, verbose=0).fit(lazy)
    assert reads == 8
    assert (fa.n_passes_, fa.status_) == (1, "converged")
    assert fa.loglik_ == pytest.approx(fitted.loglik_, abs=1e-7)


@pytest.mark.parametrize("rows", [1, 700, (333, 3000, 667)])
def test_chunks_change_nothing(rows: Any, tests: np.ndarray) -> None:
    x = tests[:900] if rows == 1 else tests
    one, many = (
        em.FactorAnalysis(2, tol=1e-9, verbose=0).fit(data) for data in (x, da.from_array(x, chunks=(rows, 7)))
    )
    assert many.loglik_ == pytest.approx(one.loglik_, rel=1e-12)
    assert many.get_covariance() == pytest.approx(one.get_covariance(), rel=1e-10, abs=1e-10)


def test_chunks_change_nothing_of_a_mixture() -> None:
    x = clusters()
    mix = em.Mixture(2, em.Factors(1), random_state=0, verbose=0).fit(x)
    assert max(np.mean(mix.predict(x)[:600] == k) for k in (0, 1)) > 0.99
    model = em.MixtureModel(2, em.Factors(1))
    start = model.start(em.Chunk(x), np.random.default_rng(0))
    one, many = (
        em.fit(model, data, params=start, tol=1e-9, verbose=0)
        for data in (x, da.from_array(x, chunks=((1, 500, 699), 8)))
    )
    assert many.loglik == pytest.approx(one.loglik, rel=1e-12)
    assert many.params.components.means == pytest.approx(one.params.components.means, rel=1e-10, abs=1e-10)
    assert mix.loglik_ == pytest.approx(one.loglik, abs=0.05)


def test_what_is_missing_at_random_misleads_no_fit(fitted: em.FactorAnalysis, tests: np.ndarray) -> None:
    assert fitted.loadings_ == pytest.approx(LOADINGS, abs=0.08)
    assert (fitted.mean_ - 100) / np.arange(1, 8) == pytest.approx(np.zeros(7), abs=0.06)
    assert (np.nanmean(tests[:, 1]) - 100) / 2 > 0.2  # what a mean of the values that are there would say
    assert np.sqrt(np.diag(fitted.get_covariance())) == pytest.approx(np.arange(1, 8), rel=0.05)


@pytest.mark.parametrize("solver", ["em", "anderson"])
def test_the_likelihood_rises(solver: str, tests: np.ndarray, fitted: em.FactorAnalysis) -> None:
    fa = em.FactorAnalysis(2, solver=solver, tol=1e-6, verbose=0).fit(tests)
    logliks = [record["loglik"] for record in fa.history_ if record["accepted"] and record["loglik"] is not None]
    assert np.diff(logliks).min() >= -1e-9 * abs(logliks[-1])
    assert fa.loglik_ == pytest.approx(fitted.loglik_, abs=1e-4)


def test_weights_count_as_rows(tests: np.ndarray) -> None:
    w = np.random.default_rng(1).integers(0, 3, size=len(tests))
    weighted = em.FactorAnalysis(2, tol=1e-9, verbose=0).fit(tests, sample_weight=w)
    repeated = em.FactorAnalysis(2, tol=1e-9, verbose=0).fit(np.repeat(tests, w, axis=0))
    assert weighted.loglik_ == pytest.approx(repeated.loglik_, abs=1e-6)
    assert weighted.get_covariance() == pytest.approx(repeated.get_covariance(), rel=1e-5, abs=1e-4)


def test_float32_gives_the_same(tests: np.ndarray, fitted: em.FactorAnalysis) -> None:
    single = tests.astype(np.float32)
    fa = em.FactorAnalysis(2, rotation="varimax", tol=1e-9, verbose=0).fit(single)
    assert fa.loglik_ == pytest.approx(fitted.loglik_, abs=0.05)
    assert fa.loadings_ == pytest.approx(fitted.loadings_, abs=1e-4)
    assert fa.transform(single) == pytest.approx(fa.transform(tests), abs=1e-4)


def test_what_is_said_of_rows(tests: np.ndarray, fitted: em.FactorAnalysis) -> None:
    mean, covariance = fitted.mean_, fitted.get_covariance()
    loglik = fitted.score_samples(tests)
    factors = fitted.transform(tests)
    for i in [*range(40), len(tests) - 1]:
        o = np.flatnonzero(~np.isnan(tests[i]))
        within = covariance[np.ix_(o, o)]
        expected = fitted.components_[:, o] @ np.linalg.solve(within, (tests[i] - mean)[o]) if len(o) else np.zeros(2)
        assert factors[i] == pytest.approx(expected, abs=1e-10)
        density = multivariate_normal(mean[o], within).logpdf(tests[i, o]) if len(o) else 0.0
        assert loglik[i] == pytest.approx(density, abs=1e-9)
    assert fitted.score(tests) == pytest.approx(loglik.mean(), rel=1e-12)
    assert loglik.sum() == pytest.approx(fitted.loglik_, abs=1e-6)
    lazy = da.from_array(tests, chunks=(999, 7))
    assert fitted.transform(lazy).compute() == pytest.approx(factors, abs=1e-12)
    assert fitted.bic(tests) == pytest.approx(-2 * fitted.loglik_ + 27 * np.log(len(tests)), rel=1e-12)


def test_it_survives_a_file(tests: np.ndarray, fitted: em.FactorAnalysis, tmp_path: Path) -> None:
    fitted.save(tmp_path / "factors.safetensors")
    back = em.load(tmp_path / "factors.safetensors")
    assert np.array_equal(back.transform(tests), fitted.transform(tests))
    assert np.isnan(back.saturated_loglik_)
    x = clusters()
    mix = em.Mixture(2, em.Factors(1), random_state=0, verbose=0).fit(x)
    mix.save(tmp_path / "mix.safetensors")
    assert np.array_equal(em.load(tmp_path / "mix.safetensors").predict_proba(x), mix.predict_proba(x))


def test_goodness_of_fit_asks_for_whole_rows(fitted: em.FactorAnalysis) -> None:
    with pytest.raises(em.ConfigurationError, match="values are missing, or .* the test asks for whole rows"):
        fitted.goodness_of_fit()


@pytest.mark.parametrize(
    "estimator", [em.FactorAnalysis(1, verbose=0), em.Mixture(2, em.Factors(1), random_state=0, verbose=0)]
)
def test_a_column_without_values_is_named(estimator: Any, tests: np.ndarray) -> None:
    frame = pd.DataFrame(tests, columns=list("abcdefg"))
    frame["c"] = NAN
    with pytest.raises(em.DataError, match="column 'c' has no value in any of 4000 rows"):
        estimator.fit(frame)


def test_a_column_that_a_component_has_no_value_of_is_named() -> None:
    x = clusters()
    x[:600, 2] = NAN
    with pytest.warns(em.FitWarning, match=r"no row of component \d has a value of column 2"):
        em.Mixture(2, em.Factors(1), random_state=0, verbose=0).fit(x)


def test_columns_never_seen_together_have_the_factors_in_common() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 1)) * [0.9, 0.8, 0.7, 0.6] + rng.normal(size=(20_000, 4)) * [0.44, 0.6, 0.71, 0.8]
    x[:10_000, 0], x[10_000:, 1] = NAN, NAN
    with warnings.catch_warnings():
        warnings.simplefilter("error", em.FitWarning)
        fa = em.FactorAnalysis(1, tol=1e-9, verbose=0).fit(x)
    assert fa.get_covariance()[0, 1] == pytest.approx(0.72, abs=0.05)


def test_five_factors_of_answers_some_of_which_are_missing(real_data: Path) -> None:
    """Full-information maximum likelihood of the 25 items of psych's bfi, 364 of 2,800 rows incomplete."""
    items = pd.read_csv(real_data / "small" / "r_psych_bfi.csv").loc[:, "A1":"O5"]  # type: ignore[misc]
    fa = em.FactorAnalysis(5, rotation="varimax", tol=1e-8, verbose=0).fit(items)
    assert (fa.n_passes_, fa.status_, fa.n_rows_) == (1, "converged", 2800)
    x, covariance, total = items.to_numpy(float), fa.get_covariance(), 0.0
    for row in x:
        o = np.flatnonzero(~np.isnan(row))
        total += multivariate_normal(fa.mean_[o], covariance[np.ix_(o, o)]).logpdf(row[o])
    assert fa.loglik_ == pytest.approx(total, rel=1e-11)
    rng = np.random.default_rng(0)  # no set of parameters close by is more likely
    near = em.FactorAnalysis(5, verbose=0).fit(items)
    for _ in range(20):
        near.components_ = fa.components_ + 0.01 * rng.normal(size=fa.components_.shape)
        near.noise_variance_, near.mean_ = fa.noise_variance_, fa.mean_
        assert near.score_samples(x).sum() < fa.loglik_
    assert fa.loglik_ < em.GaussianImputer(verbose=0).fit(items).loglik_


def test_the_command_line(tests: np.ndarray, fitted: em.FactorAnalysis, tmp_path: Path) -> None:
    data, model, out = tmp_path / "tests.parquet", tmp_path / "factors.safetensors", tmp_path / "loglik.parquet"
    pd.DataFrame(tests, columns=list("abcdefg")).to_parquet(data)

    def run(*args: Any) -> str:
        done = CliRunner().invoke(command, [str(a) for a in args])
        assert done.exit_code == 0, done.output
        return done.stdout

    run("fit", "factor-analysis", data, "--n-components", 2, "--tol", 1e-9, "--out", model)
    assert em.load(model).loglik_ == pytest.approx(fitted.loglik_, abs=1e-6)
    assert "loadings" in run("inspect", model)
    run("predict", model, data, "--loglik", "--out", out)
    assert pd.read_parquet(out)["loglik"].to_numpy() == pytest.approx(fitted.score_samples(tests), abs=1e-4)
    run("fit", "mixture", data, "--distribution", "factors", "--n-components", 2, "--out", tmp_path / "m.safetensors")
