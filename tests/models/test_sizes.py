"""Rows of a size, which is no count itself: exposures that counts were taken over, trials that ones are of."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.optimize import minimize

import dask_em as em
from dask_em.distributions.bernoulli import BernoulliParams
from dask_em.distributions.generalized_regression import GeneralizedRegressionParams
from dask_em.distributions.poisson import PoissonParams

RNG = np.random.default_rng(0)
DAYS = RNG.uniform(0.5, 2000.0, 3000)
KIND = RNG.integers(2, size=3000)
RATES = np.array([[1e-3, 0.02], [0.04, 0.01]])
VISITS = RNG.poisson(DAYS[:, None] * RATES[KIND]).astype(float)
FRAME = pd.DataFrame({"visits": VISITS[:, 0], "days": DAYS, "calls": VISITS[:, 1]})
AGE = RNG.normal(50.0, 10.0, 3000)
SEEN = RNG.poisson(DAYS * np.exp(np.where(KIND, -6.0, -1.0) + np.where(KIND, 0.06, -0.05) * AGE)).astype(float)
PEOPLE = pd.DataFrame({"age": AGE, "days": DAYS, "seen": SEEN})
SETTINGS: dict[str, Any] = {"random_state": 0, "verbose": 0}


def test_densities_are_those_of_scipy() -> None:
    poisson = em.Poisson(exposure=1)
    x = FRAME.to_numpy()
    theirs = np.array([stats.poisson.logpmf(VISITS, DAYS[:, None] * rates).sum(axis=1) for rates in RATES]).T
    assert poisson.log_density(PoissonParams(RATES), x) == pytest.approx(theirs, rel=1e-12)
    holed = x.copy()
    holed[:, 0] = np.nan
    theirs = stats.poisson.logpmf(VISITS[:, [1]], DAYS[:, None] * RATES[:, 1])
    assert poisson.log_density(PoissonParams(RATES), holed) == pytest.approx(theirs, rel=1e-12)
    regression = em.PoissonRegression(2, exposure=1)
    params = GeneralizedRegressionParams(np.array([[0.06]]), np.array([-6.0]))
    theirs = stats.poisson.logpmf(SEEN, DAYS * np.exp(-6 + 0.06 * AGE))[:, None]
    assert regression.log_density(params, PEOPLE.to_numpy()) == pytest.approx(theirs, rel=1e-12)


def test_a_rate_is_the_counts_over_the_exposures_of_what_is_observed() -> None:
    x = FRAME.to_numpy(copy=True)
    x[::3, 0] = np.nan
    w = RNG.random(3000)
    mix = em.Mixture(1, em.Poisson(exposure=1), **SETTINGS).fit(x, sample_weight=w)
    seen = ~np.isnan(x[:, 0])
    one = (w * x[:, 0])[seen].sum() / (w * DAYS)[seen].sum()
    assert mix.rates_[0] == pytest.approx([one, w @ x[:, 2] / (w @ DAYS)], rel=1e-12)
    held = em.Mixture(1, em.Poisson(prior=(3.0, 1000.0), exposure=1), **SETTINGS).fit(x)
    assert held.rates_[0, 1] == pytest.approx((x[:, 2].sum() + 2) / (DAYS.sum() + 1000), rel=1e-12)


@pytest.mark.parametrize("exposure", ["days", 1])
def test_mixtures_with_exposures_are_recovered(exposure: Any) -> None:
    data = FRAME if isinstance(exposure, str) else FRAME.to_numpy()
    mix = em.Mixture(2, em.Poisson(exposure=exposure), **SETTINGS).fit(data)
    order = np.argsort(mix.rates_[:, 0])
    assert mix.rates_[order] == pytest.approx(RATES, rel=0.06)
    assert (order[KIND[DAYS > 100]] == mix.predict(data)[DAYS > 100]).mean() > 0.99
    assert mix.n_parameters() == 5


def test_a_mixture_is_the_maximum_that_a_minimiser_finds() -> None:
    x = np.column_stack([VISITS[:300, 0], DAYS[:300]])
    mix = em.Mixture(2, em.Poisson(exposure=1), tol=1e-9, **SETTINGS).fit(x)

    def loss(v: np.ndarray) -> float:
        a, b = (stats.poisson.logpmf(x[:, 0], x[:, 1] * np.exp(u)) for u in v[1:])
        return -float(np.logaddexp(a - np.logaddexp(0, v[0]), b - np.logaddexp(0, -v[0])).sum())

    found = minimize(loss, [0.0, -7.0, -3.0], method="BFGS")
    assert mix.loglik_ == pytest.approx(-found.fun, rel=1e-9)
    assert np.sort(mix.rates_.ravel()) == pytest.approx(np.exp(found.x[1:]), rel=1e-3)


@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e6])
def test_regressions_with_exposures_are_recovered_in_any_unit(unit: float) -> None:
    frame = PEOPLE.assign(days=DAYS * unit)
    mix = em.Mixture(2, em.PoissonRegression("seen", exposure="days"), **SETTINGS).fit(frame)
    order = np.argsort(mix.coef_[:, 0])
    assert mix.coef_[order, 0] == pytest.approx([-0.05, 0.06], abs=0.002)
    assert mix.intercept_[order] == pytest.approx(np.array([-1.0, -6.0]) - np.log(unit), abs=0.1)
    assert mix.distribution_.predictors(3) == ["age"]
    assert mix.n_parameters() == 5


TRIED = RNG.integers(1, 30, 3000)
CHANCES = np.array([[0.2, 0.7], [0.6, 0.4]])
ONES = pd.DataFrame(RNG.binomial(TRIED[:, None], CHANCES[KIND]).astype(float), columns=["a", "b"]).assign(n=TRIED)


def test_binomial_densities_are_those_of_scipy() -> None:
    theirs = np.array([stats.binom.logpmf(ONES[["a", "b"]], TRIED[:, None], p).sum(axis=1) for p in CHANCES]).T
    x = ONES.to_numpy(copy=True)
    assert em.Bernoulli(trials=2).log_density(BernoulliParams(CHANCES), x) == pytest.approx(theirs, rel=1e-11)
    x[:, 1] = np.nan
    theirs = np.array([stats.binom.logpmf(ONES["a"], TRIED, p[0]) for p in CHANCES]).T
    assert em.Bernoulli(trials=2).log_density(BernoulliParams(CHANCES), x) == pytest.approx(theirs, rel=1e-11)


def test_mixtures_of_binomials_are_recovered() -> None:
    mix = em.Mixture(2, em.Bernoulli(trials="n"), **SETTINGS).fit(ONES)
    order = np.argsort(mix.probabilities_[:, 0])
    assert mix.probabilities_[order] == pytest.approx(CHANCES, abs=0.015)
    assert mix.n_parameters() == 5
    one = em.Mixture(1, em.Bernoulli(trials="n"), **SETTINGS).fit(ONES)
    assert one.probabilities_[0] == pytest.approx(ONES[["a", "b"]].sum() / TRIED.sum(), rel=1e-12)
    mean = (ONES["a"].sum() + 2) / (TRIED.sum() + 2 + 3)
    held = em.Mixture(1, em.Bernoulli(prior=(2, 3), trials="n"), **SETTINGS).fit(ONES)
    assert held.probabilities_[0, 0] == pytest.approx(mean, rel=1e-12)


def test_mixtures_of_binomial_regressions_are_recovered() -> None:
    eta = np.where(KIND, 1.0 - 0.1 * (AGE - 50), -1.0 + 0.1 * (AGE - 50))
    frame = pd.DataFrame({"age": AGE - 50, "n": TRIED, "cured": RNG.binomial(TRIED, 1 / (1 + np.exp(-eta)))})
    mix = em.Mixture(2, em.LogisticRegression("cured", trials="n"), **SETTINGS).fit(frame.astype(float))
    order = np.argsort(mix.coef_[:, 0])
    assert mix.coef_[order, 0] == pytest.approx([-0.1, 0.1], abs=0.01)
    assert mix.intercept_[order] == pytest.approx([1.0, -1.0], abs=0.06)


@pytest.mark.parametrize("distribution", [em.Bernoulli(trials="n"), em.LogisticRegression("b", trials="n")])
@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("n", 0.0, "column 'n' is 0, where NAME needs a whole number of trials above 0"),
        ("n", 2.5, "column 'n' is 2.5, where NAME needs a whole number of trials above 0"),
        ("b", 31.0, "column 'b' is 31, where NAME needs a whole number,? from 0 to the row's trials"),
        ("b", 0.5, "column 'b' is 0.5, where NAME needs a whole number,? from 0 to the row's trials"),
    ],
)
def test_trials_that_are_none_are_refused(distribution: Any, column: str, value: float, said: str) -> None:
    frame = ONES.astype(float)
    frame.loc[7, column] = value
    with pytest.raises(em.DataError, match="row 7, " + said.replace("NAME", type(distribution).__name__)):
        em.Mixture(1, distribution, **SETTINGS).fit(frame)


def test_exposures_of_one_change_nothing() -> None:
    x = np.column_stack([AGE, np.ones(3000), np.minimum(SEEN, 30)])
    plain = em.Mixture(1, em.PoissonRegression(1), **SETTINGS).fit(x[:, [0, 2]])
    exposed = em.Mixture(1, em.PoissonRegression(2, exposure=1), **SETTINGS).fit(x)
    assert exposed.coef_ == pytest.approx(plain.coef_, rel=1e-9)
    assert exposed.loglik_ == pytest.approx(plain.loglik_, rel=1e-12)


@pytest.mark.parametrize("distribution", [em.Poisson(exposure="days"), em.PoissonRegression("calls", exposure="days")])
@pytest.mark.parametrize(("value", "shown"), [(0.0, "0"), (-2.0, "-2"), (np.nan, "NaN")])
def test_exposures_that_are_none_are_refused_with_their_place(distribution: Any, value: float, shown: str) -> None:
    frame = FRAME.copy()
    frame.loc[7, "days"] = value
    name = type(distribution).__name__
    said = rf"row 7, column 'days' is {shown}, where {name} needs an exposure above 0"
    with pytest.raises(em.DataError, match=said):
        em.Mixture(1, distribution, **SETTINGS).fit(frame)
    fitted = em.Mixture(1, distribution, **SETTINGS).fit(FRAME)
    with pytest.raises(em.DataError, match=said):
        fitted.predict(frame)


@pytest.mark.parametrize("make", [em.Poisson, lambda exposure: em.PoissonRegression("calls", exposure=exposure)])
def test_exposures_that_are_no_column_are_refused(make: Any) -> None:
    with pytest.raises(em.ConfigurationError, match="has the exposure 'weeks', and the data has columns 'visits'"):
        em.Mixture(1, make(exposure="weeks"), **SETTINGS).fit(FRAME)
    with pytest.raises(em.ConfigurationError, match="has column 3 for its exposure, and the data has 3 columns"):
        em.Mixture(1, make(exposure=3), **SETTINGS).fit(FRAME)
    with pytest.raises(em.ConfigurationError, match=r"names its (exposure|response) .* give its position"):
        em.Mixture(1, make(exposure="days"), **SETTINGS).fit(FRAME.to_numpy())
    with pytest.raises(em.ConfigurationError, match="exposure=-1 must be a column's name, or a position"):
        make(exposure=-1)
    with pytest.raises(em.ConfigurationError, match="Poisson has no column but its exposure"):
        em.Mixture(1, em.Poisson(exposure=0), **SETTINGS).fit(DAYS[:, None])
    with pytest.raises(em.ConfigurationError, match="exposure='calls' is the response"):
        em.PoissonRegression("calls", exposure="calls")


def test_a_product_has_an_exposure_for_some_of_its_counts() -> None:
    data = FRAME.assign(age=np.where(KIND, 20.0, 60.0) + RNG.normal(size=3000))
    parts = em.Product({("visits", "days", "calls"): em.Poisson(exposure="days"), "age": em.Gaussian("diag")})
    mix = em.Mixture(2, parts, **SETTINGS).fit(data)
    order = np.argsort(mix.components_["visits"].rates[:, 0])
    assert mix.components_["visits"].rates[order] == pytest.approx(RATES, rel=0.05)
    assert mix.n_parameters() == 1 + 4 + 4


def test_a_saved_mixture_knows_its_exposure(tmp_path: Path) -> None:
    for distribution in (em.Poisson(exposure="days"), em.PoissonRegression("calls", exposure="days")):
        mix = em.Mixture(2, distribution, **SETTINGS).fit(FRAME)
        mix.save(tmp_path / "m.safetensors")
        again = em.load(tmp_path / "m.safetensors")
        shuffled = FRAME[["calls", "visits", "days"]]
        assert (again.predict(shuffled) == mix.predict(FRAME)).all()
        assert again.distribution_ == mix.distribution_


def test_draws_are_of_a_unit_of_exposure() -> None:
    mix = em.Mixture(2, em.Poisson(exposure="days"), **SETTINGS).fit(FRAME)
    x, labels = mix.sample(50_000)
    assert (x[:, 1] == 1).all()
    assert x[labels == 1][:, [0, 2]].mean(axis=0) == pytest.approx(mix.rates_[1], rel=0.25)


def test_standard_errors_are_of_the_columns_that_are_counts() -> None:
    mix = em.Mixture(1, em.Poisson(exposure="days"), **SETTINGS).fit(FRAME)
    table = mix.standard_errors(FRAME)
    assert table["of"].tolist() == ["visits", "calls"]
    assert table["standard_error"].to_numpy() == pytest.approx(np.sqrt(mix.rates_[0] / DAYS.sum()), rel=1e-4)
    regression = em.Mixture(1, em.PoissonRegression("seen", exposure="days"), tol=1e-6, **SETTINGS).fit(PEOPLE)
    found = regression.standard_errors(PEOPLE).set_index("parameter")
    assert found.loc["coef", "of"] == "age"
    a = np.column_stack([np.ones(3000), AGE])
    mean = DAYS * np.exp(regression.intercept_ + regression.coef_[0] * AGE)
    theirs = np.sqrt(np.diag(np.linalg.inv((a * mean[:, None]).T @ a)))
    assert found.loc["coef", "standard_error"] == pytest.approx(theirs[1], rel=1e-3)
    assert found.loc["intercept", "standard_error"] == pytest.approx(theirs[0], rel=1e-3)
