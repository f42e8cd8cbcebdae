"""`FactorAnalysis`: scikit-learn's own checks, one read, what it says of factors, rotation, selection, files."""

import warnings
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from scipy import optimize
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import dask_em as em
from dask_em.estimators.rotation import varimax


@parametrize_with_checks([em.FactorAnalysis(verbose=0)])  # none is exempt
def test_scikit_learn_checks(estimator: Any, check: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.FitWarning)
        check(estimator)


LOADINGS = np.array([[0.9, 0.0], [0.8, 0.1], [0.7, 0.0], [0.6, 0.1], [0.0, 0.8], [0.1, 0.7], [0.0, 0.6]])


@pytest.fixture(scope="module")
def tests() -> np.ndarray:
    """Seven tests of two abilities, in units of their own."""
    rng = np.random.default_rng(0)
    noise = np.sqrt(1 - (LOADINGS**2).sum(axis=1))
    x = rng.normal(size=(20_000, 2)) @ LOADINGS.T + rng.normal(size=(20_000, 7)) * noise
    return 100 + x * np.arange(1, 8)


def test_a_stored_array_is_read_once(tests: np.ndarray) -> None:
    reads = 0

    def count(block: np.ndarray) -> np.ndarray:
        nonlocal reads
        reads += 1
        return block

    lazy = da.from_array(tests, chunks=(2500, 7)).map_blocks(count, dtype=tests.dtype, meta=tests[:0])
    reads = 0
    fa = em.FactorAnalysis(2, sample_bytes=10_000, verbose=0).fit(lazy)
    assert reads == 8
    assert (fa.n_passes_, fa.status_) == (1, "converged")
    memory = em.FactorAnalysis(2, verbose=0).fit(tests)
    assert fa.loglik_ == pytest.approx(memory.loglik_, abs=1e-5)
    found = fa.transform(lazy)
    assert isinstance(found, da.Array)
    assert found.compute() == pytest.approx(fa.transform(tests), abs=1e-12)


def test_weights_count_as_rows(tests: np.ndarray) -> None:
    w = np.random.default_rng(1).integers(0, 3, size=len(tests))
    weighted = em.FactorAnalysis(2, tol=1e-9, verbose=0).fit(tests, sample_weight=w)
    repeated = em.FactorAnalysis(2, tol=1e-9, verbose=0).fit(np.repeat(tests, w, axis=0))
    assert weighted.loglik_ == pytest.approx(repeated.loglik_, abs=1e-6)
    assert weighted.get_covariance() == pytest.approx(repeated.get_covariance(), rel=1e-5, abs=1e-4)


def test_varimax_finds_simple_loadings_and_changes_no_likelihood(tests: np.ndarray) -> None:
    plain = em.FactorAnalysis(2, verbose=0).fit(tests)
    turned = em.FactorAnalysis(2, rotation="varimax", verbose=0).fit(tests)
    assert turned.loadings_ == pytest.approx(LOADINGS, abs=0.06)
    assert turned.get_covariance() == pytest.approx(plain.get_covariance(), rel=1e-9)
    assert turned.score(tests) == pytest.approx(plain.score(tests), rel=1e-12)
    assert turned.transform(tests) @ turned.components_ == pytest.approx(
        plain.transform(tests) @ plain.components_, abs=1e-8
    )
    scaled = plain.components_ / plain.noise_variance_
    assert scaled @ plain.components_.T == pytest.approx(np.diag(np.diag(scaled @ plain.components_.T)), abs=1e-8)


def test_varimax_is_the_maximum_of_its_criterion() -> None:
    rng = np.random.default_rng(2)
    loadings = rng.uniform(-0.5, 0.5, size=(9, 2))
    common = (loadings**2).sum(axis=1)

    def criterion(angle: float) -> float:
        c, s = np.cos(angle), np.sin(angle)
        b = loadings @ np.array([[c, -s], [s, c]]) / np.sqrt(common)[:, None]
        return float((b**2).var(axis=0).sum())

    best = max(criterion(a) for a in np.linspace(0, np.pi, 721))
    best = max(best, -optimize.minimize_scalar(lambda a: -criterion(a), bounds=(0, np.pi / 2)).fun)
    b = loadings @ varimax(loadings, common) / np.sqrt(common)[:, None]
    assert (b**2).var(axis=0).sum() >= best - 1e-6


def test_matrices_and_shares_agree(tests: np.ndarray) -> None:
    fa = em.FactorAnalysis(2, verbose=0).fit(tests)
    assert fa.get_precision() @ fa.get_covariance() == pytest.approx(np.eye(7), abs=1e-10)
    assert (fa.loadings_**2).sum(axis=1) == pytest.approx(fa.communalities_, rel=1e-12)
    assert np.diag(fa.get_covariance()) == pytest.approx(tests.var(axis=0), rel=1e-4)
    assert fa.mean_ == pytest.approx(tests.mean(axis=0), rel=1e-10)
    assert fa.n_parameters() == 7 + 14 + 7 - 1
    assert fa.bic(tests) == pytest.approx(-2 * fa.loglik_ + 27 * np.log(20_000), rel=1e-12)
    assert fa.aic(tests) == pytest.approx(-2 * fa.loglik_ + 2 * 27, rel=1e-12)


def test_the_number_of_factors_is_found_in_one_read(tests: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.FitWarning)
        best = em.select(em.FactorAnalysis(verbose=0), tests, n_components=range(1, 6))
    assert best.best_params_ == {"n_components": 2}
    assert best.best_estimator_.n_passes_ == 1
    assert list(best.table_.n_parameters) == [21, 27, 32, 36, 39]
    assert "failed" not in set(best.table_.status)


def test_goodness_of_fit_refuses_too_few_factors_and_keeps_enough(tests: np.ndarray) -> None:
    few = em.FactorAnalysis(1, verbose=0).fit(tests).goodness_of_fit()
    enough = em.FactorAnalysis(2, verbose=0).fit(tests).goodness_of_fit()
    assert (few["df"], enough["df"]) == (14, 8)
    assert few["p_value"] < 1e-10
    assert enough["p_value"] > 0.01
    with pytest.raises(em.ConfigurationError, match="leave no degrees of freedom"):
        em.FactorAnalysis(4, verbose=0, tol=10).fit(tests).goodness_of_fit()


def test_a_covariance_matrix_says_what_the_rows_do(tests: np.ndarray) -> None:
    rows = em.FactorAnalysis(2, tol=1e-9, verbose=0).fit(tests)
    names = [f"test {j}" for j in range(7)]
    cov = pd.DataFrame(np.cov(tests.T, bias=True), columns=names)
    matrix = em.FactorAnalysis(2, tol=1e-9, verbose=0).fit_covariance(cov, len(tests), tests.mean(axis=0))
    assert matrix.loglik_ == pytest.approx(rows.loglik_, abs=1e-5)
    assert matrix.goodness_of_fit()["statistic"] == pytest.approx(rows.goodness_of_fit()["statistic"], abs=1e-5)
    assert matrix.mean_ == pytest.approx(rows.mean_, rel=1e-10)
    assert list(matrix.feature_names_in_) == names


@pytest.mark.parametrize(
    "cov",
    [np.ones((2, 3)), np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([[1.0, 0.5], [0.1, 1.0]]), np.full((2, 2), np.nan)],
)
def test_what_is_no_covariance_matrix_is_refused(cov: np.ndarray) -> None:
    with pytest.raises(em.DataError, match="cov "):
        em.FactorAnalysis(verbose=0).fit_covariance(cov, 10)


def test_it_survives_a_file(tests: np.ndarray, tmp_path: Path) -> None:
    fa = em.FactorAnalysis(2, rotation="varimax", verbose=0).fit(tests)
    fa.save(tmp_path / "factors.safetensors")
    back = em.load(tmp_path / "factors.safetensors")
    assert np.array_equal(back.transform(tests), fa.transform(tests))
    assert np.array_equal(back.loadings_, fa.loadings_)
    assert back.goodness_of_fit() == fa.goodness_of_fit()


def test_a_warm_start_has_nothing_to_do(tests: np.ndarray) -> None:
    fa = em.FactorAnalysis(2, warm_start=True, verbose=0).fit(tests)
    before, steps = fa.loglik_, len(fa.history_)
    fa.fit(tests)
    assert fa.loglik_ >= before - 1e-6
    assert len(fa.history_) < steps


def test_it_works_in_a_pipeline(tests: np.ndarray) -> None:
    pipeline = make_pipeline(StandardScaler(), em.FactorAnalysis(2, verbose=0)).fit(tests)
    assert pipeline.transform(tests).shape == (20_000, 2)
    assert list(pipeline.get_feature_names_out()) == ["factoranalysis0", "factoranalysis1"]


def test_draws_have_the_fitted_moments_and_come_with_their_factors(tests: np.ndarray) -> None:
    fa = em.FactorAnalysis(2, rotation="varimax", verbose=0).fit(tests)
    x, factors = fa.sample(200_000)
    assert (x.shape, factors.shape) == ((200_000, 7), (200_000, 2))
    spread = np.sqrt(np.diag(fa.get_covariance()))
    z = (x - fa.mean_) / spread
    assert np.abs(z.mean(axis=0)).max() < 0.012  # five standard errors
    assert np.cov(z.T) == pytest.approx(fa.get_covariance() / np.outer(spread, spread), abs=0.017)
    assert z.T @ factors / len(z) == pytest.approx(fa.loadings_, abs=0.017)
    assert np.array_equal(fa.sample(5)[0], fa.sample(5)[0])
    with pytest.raises(em.ConfigurationError, match="n_samples=0"):
        fa.sample(0)


@pytest.mark.parametrize(
    "bad",
    [{"n_components": 0}, {"n_components": 1.5}, {"rotation": "oblimin"}, {"floor": 0}, {"tol": -1}, {"max_passes": 0}],
)
def test_a_bad_hyperparameter_is_named(bad: dict[str, Any], tests: np.ndarray) -> None:
    with pytest.raises(em.ConfigurationError, match=next(iter(bad))):
        em.FactorAnalysis(**bad).fit(tests)
