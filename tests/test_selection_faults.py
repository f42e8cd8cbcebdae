"""What one candidate of a selection cannot do ends that candidate, and no other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dask_em as em
from dask_em.distributions.exponential import ExponentialParams
from dask_em.errors import LikelihoodFellError


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3000, 2))


def mixture(**settings: Any) -> em.Mixture:
    return em.Mixture(**{"n_components": 2, "random_state": 0, "verbose": 0, "n_init": 2, **settings})


def gm(**settings: Any) -> em.GaussianMixture:
    return em.GaussianMixture(**{"random_state": 0, "verbose": 0, "n_init": 2, **settings})


def test_a_grid_of_very_many_candidates_is_refused_at_once() -> None:
    with pytest.raises(
        em.ConfigurationError, match=r"the grid has 1,000,000 candidates, and at most 10,000 .* try few"
    ):
        em.select(em.GaussianMixture(), np.zeros((9, 1)), n_components=range(1, 1001), n_init=range(1, 1001))


@pytest.mark.parametrize("sample_bytes", [None, 500 * 32])
@pytest.mark.parametrize(
    ("distribution", "words"),
    [
        (em.Gamma(), "row 0, column 1 is -0.132105, where Gamma needs a number above 0"),
        (em.Poisson(), "row 0, column 0 is 0.12573, where Poisson needs a whole number that is not negative"),
        (em.Categorical([3, 3, 3]), "n_categories names 3 columns, and the data has 2"),
        (em.Factors(5), "n_factors=5 factors are more than the 2 columns"),
        (em.Product({0: em.Gaussian(), 2: em.Gaussian()}), "Product names column 2, and the data has 2 columns"),
        (em.Product({"a": em.Gaussian()}), "the data has columns without names: give their positions"),
    ],
    ids=lambda v: type(v).__name__ if not isinstance(v, str) else "",
)
def test_a_distribution_that_refuses_the_data_is_a_failed_row(
    x: np.ndarray, distribution: em.Distribution, words: str, sample_bytes: int | None
) -> None:
    mix = mixture(sample_bytes=sample_bytes)
    found = em.select(mix, x, distribution=[distribution, em.Gaussian()], n_components=[1, 2])
    assert found.table_["status"].tolist()[:2] == ["failed", "failed"]
    assert words in found.table_["message"][0]
    assert "failed" not in found.table_["status"].tolist()[2:]
    assert np.isnan(found.table_["bic"][:2]).all()
    assert np.isfinite(found.table_["bic"][2:]).all()
    assert found.best_params_ == {"distribution": em.Gaussian(), "n_components": 1}
    alone = mixture(n_components=1, sample_bytes=sample_bytes).fit(x)
    assert found.best_estimator_.loglik_ == pytest.approx(alone.loglik_, abs=0.05)


def test_if_all_refuse_the_first_says_why(x: np.ndarray) -> None:
    with pytest.raises(em.DataError, match="row 0, column 0 is 0.12573, where Poisson needs"):
        em.select(mixture(), x, distribution=[em.Poisson(), em.Gamma()])


def test_missing_values_end_only_those_that_cannot_take_them(x: np.ndarray) -> None:
    holed = x.copy()
    holed[7, 1] = np.nan
    found = em.select(mixture(), holed, distribution=[em.LinearRegression(response=0), em.Gaussian()])
    assert found.table_["status"][0] == "failed"
    assert "row 7, column 1 is NaN, where LinearRegression needs all but the response" in found.table_["message"][0]
    assert found.best_index_ == 1
    with pytest.raises(em.DataError, match="row 7, column 1 is NaN, where LinearRegression needs all but the response"):
        mixture(distribution=em.LinearRegression(response=0)).fit(holed)


@pytest.mark.filterwarnings("ignore::dask_em.FitWarning")
def test_a_failed_row_is_still_there_when_a_checkpoint_goes_on(x: np.ndarray, tmp_path: Path) -> None:
    settings = {"checkpoint": tmp_path / "c", "sample_bytes": 500 * 32}
    grid = {"distribution": [em.Gamma(), em.Gaussian()]}
    first = em.select(mixture(max_passes=3, **settings), x, **grid)
    again = em.select(mixture(max_passes=30, **settings), x, **grid)
    assert again.best_estimator_.n_passes_ > first.best_estimator_.n_passes_ == 3
    assert again.table_["message"][0] == first.table_["message"][0]
    assert "where Gamma needs a number above 0" in again.table_["message"][0]


class Wrong(em.Exponential):
    """Its M-steps go wrong after a while: in the passes, when the race is over."""

    steps = 0

    def estimate(self, stats: Any) -> ExponentialParams:
        Wrong.steps += 1
        found = super().estimate(stats)
        return found if Wrong.steps < 60 else ExponentialParams(found.means * 3)


def test_a_likelihood_that_falls_ends_its_candidate() -> None:
    waits = np.random.default_rng(0).exponential(np.repeat([1.0, 3.0], 1500))[:, None]
    settings = {"solver": "em", "tol": 0, "max_passes": 80}
    with pytest.raises(LikelihoodFellError):
        mixture(distribution=Wrong(), n_init=1, **settings).fit(waits)
    Wrong.steps = 0
    grid = {"distribution": [Wrong(), em.Exponential()]}
    found = em.select(mixture(n_init=1, **settings), waits, **grid)
    assert found.table_["status"].tolist() == ["failed", "max_passes"]
    assert "the log-likelihood fell" in found.table_["message"][0]
    assert found.best_index_ == 1


def test_means_that_fit_one_number_of_components(x: np.ndarray) -> None:
    found = em.select(gm(means_init=x[:2]), x, n_components=[1, 2, 3])
    assert found.table_["status"].tolist() == ["failed", "converged", "failed"]
    assert "means_init has shape (2, 2), and this model and data need (3, 2)" in found.table_["message"][2]
    with pytest.raises(em.ConfigurationError, match=r"means_init has shape \(2, 2\)"):
        em.select(gm(means_init=x[:2]), x, n_components=[1, 3])


@pytest.mark.parametrize("sample_bytes", [None, 500 * 32])
def test_a_share_that_holds_out_nothing_or_all(x: np.ndarray, sample_bytes: int | None) -> None:
    own = gm(sample_bytes=sample_bytes)
    with pytest.raises(em.DataError, match="held_out=1e-09 holds out none of 3000 rows: use a larger share"):
        em.select(own, x, n_components=[1, 2], held_out=1e-9, criterion="held_out")
    with pytest.raises(em.DataError, match="held_out=0.9999999 holds out all of 3000 rows.*use a smaller share"):
        em.select(own, x, n_components=[1, 2], held_out=0.9999999)
    weight = np.zeros(3000)
    weight[:1] = 1
    with pytest.raises(em.DataError, match=r"held_out=0\.\d+ holds out (none|all) of 1 rows"):
        em.select(own, x, n_components=[1], held_out=0.5, sample_weight=weight)


def test_a_sample_that_is_all_held_out(x: np.ndarray) -> None:
    with pytest.raises(em.DataError, match="held_out=0.99 leaves no row of the sample.*larger sample_bytes"):
        em.select(gm(sample_bytes=2 * 32), x, n_components=[1], held_out=0.99)


def test_icl_is_of_classes(x: np.ndarray) -> None:
    for estimator in (em.FactorAnalysis(verbose=0), mixture(distribution=em.Factors(1))):
        with pytest.raises(em.ConfigurationError, match="criterion='icl' weighs .* use criterion='bic'"):
            em.select(estimator, x, n_components=[1, 2], criterion="icl")
        table = em.select(estimator, x, n_components=[1, 2]).table_
        assert np.isnan(table["icl"]).all()
        assert np.isfinite(table["bic"]).all()
    counts = np.random.default_rng(1).poisson(3.0, size=(500, 2)).astype(np.float64)
    counts[3, 0] = np.nan
    found = em.select(mixture(), counts, distribution=[em.Gaussian(), em.Poisson()], criterion="icl")
    assert "ICL weighs how surely rows belong" in found.table_["message"][0]  # what is missing is hidden as well
    p = found.best_estimator_.predict_proba(counts)
    entropy = -np.sum(p * np.log(np.maximum(p, 1e-300)))
    assert found.table_["icl"][1] == pytest.approx(found.table_["bic"][1] + 2 * entropy, rel=1e-8)
