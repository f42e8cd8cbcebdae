"""Distributions of columns: the generic proofs, missing values, priors, what is refused."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

import dask_em as em
from dask_em.distributions.bernoulli import BernoulliParams
from dask_em.distributions.categorical import CategoricalParams
from dask_em.distributions.exponential import ExponentialParams
from dask_em.distributions.gamma import GammaParams
from dask_em.distributions.poisson import PoissonParams
from dask_em.errors import RowError
from dask_em.models.mixture import MixtureParams
from dask_em.testing import check_model

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(np.repeat([[1.0, 5.0], [6.0, 1.0]], 100, axis=0)).astype(np.float64)
EXPOSED = np.column_stack([COUNTS, np.linspace(0.5, 3.0, 200)])

CASES = {
    "poisson": (em.Poisson(), COUNTS),
    "poisson with a prior": (em.Poisson(prior=(2.0, 1.0)), COUNTS),
    "poisson with an exposure": (em.Poisson(prior=(2.0, 1.0), exposure=2), EXPOSED),
    "exponential": (em.Exponential(), 0.3 * COUNTS + 0.1),
    "exponential with a prior": (em.Exponential(prior=(2.0, 3.0)), 0.3 * COUNTS + 0.1),
    "gamma": (em.Gamma(), 0.3 * COUNTS + 0.1),
    "gamma with a prior": (em.Gamma(prior=(3.0, 2.0, 1.5)), 0.3 * COUNTS + 0.1),
    "bernoulli": (em.Bernoulli(), (COUNTS > 2).astype(np.float64)),
    "bernoulli with a prior": (em.Bernoulli(prior=(1.0, 2.0)), (COUNTS > 2).astype(np.float64)),
    "binomial": (em.Bernoulli(prior=(1.0, 2.0), trials=2), np.column_stack([COUNTS, np.full(200, 20.0)])),
    "categorical": (em.Categorical((4, 3)), np.minimum(COUNTS, [3, 2])),
    "categorical with a prior": (em.Categorical((4, 3), prior=0.5), np.minimum(COUNTS, [3, 2])),
}

PARAMS: dict[str, Any] = {
    "poisson": PoissonParams(np.array([[1.0, 5.0], [6.0, 0.5]])),
    "exponential": ExponentialParams(np.array([[1.0, 5.0], [6.0, 0.5]])),
    "gamma": GammaParams(np.array([[1.0, 5.0], [6.0, 0.5]]), np.array([[0.7, 0.2], [1.5, 3.0]])),
    "bernoulli": BernoulliParams(np.array([[0.1, 0.6], [0.9, 0.3]])),
    "categorical": CategoricalParams(
        np.array([[[0.1, 0.2, 0.3, 0.4], [0.5, 0.2, 0.3, 0]], [[0.4, 0.3, 0.2, 0.1], [0.1, 0.1, 0.8, 0]]])
    ),
}


def with_holes(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[::7, 0] = np.nan
    x[::5, 1] = np.nan  # and so every 35th row has nothing
    return x


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_generic_proofs_hold(name: str, holes: bool, weighted: bool, dtype: Any) -> None:
    distribution, x = CASES[name]
    x = (with_holes(x) if holes else x).astype(dtype)
    w = np.random.default_rng(1).random(len(x)) if weighted else None
    cut = 77
    chunks = [em.Chunk(x[rows], None if w is None else w[rows]) for rows in (slice(cut), slice(cut, None))]
    proved = check_model(em.MixtureModel(2, distribution), chunks)
    assert len(proved) == 12
    assert not [line for line in proved if line.startswith("not proved")]


@pytest.mark.parametrize("name", PARAMS)
def test_densities_are_those_of_scipy(name: str) -> None:
    distribution, x = CASES[name]
    p = PARAMS[name]
    theirs = {
        "poisson": lambda k, j: stats.poisson(p.rates[k, j]).logpmf(x[:, j]),
        "exponential": lambda k, j: stats.expon(scale=p.means[k, j]).logpdf(x[:, j]),
        "gamma": lambda k, j: stats.gamma(p.shapes[k, j], scale=p.scales[k, j]).logpdf(x[:, j]),
        "bernoulli": lambda k, j: stats.bernoulli(p.probabilities[k, j]).logpmf(x[:, j]),
        "categorical": lambda k, j: np.log(p.probabilities[k, j][x[:, j].astype(int)]),
    }[name]
    expected = np.array([sum(theirs(k, j) for j in range(2)) for k in range(2)]).T
    assert distribution.log_density(p, x) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", PARAMS)
def test_what_is_missing_has_no_say(name: str) -> None:
    distribution, x = CASES[name]
    holed = x.copy()
    holed[:, 1] = np.nan
    alone = distribution.log_density(PARAMS[name], holed)
    other = x.copy()
    other[:, 1] = 1.0
    one = np.ones_like(x)
    one[:, 0] = np.nan
    column = distribution.log_density(PARAMS[name], one)
    assert alone + column == pytest.approx(distribution.log_density(PARAMS[name], other), rel=1e-12)
    nothing = distribution.log_density(PARAMS[name], np.full((1, 2), np.nan))
    assert np.array_equal(nothing, np.zeros((1, 2)))


@pytest.mark.parametrize("name", PARAMS)
def test_draws_have_the_parameters_that_they_were_drawn_with(name: str) -> None:
    distribution, _ = CASES[name]
    model = em.MixtureModel(2, distribution)
    params = MixtureParams(np.array([0.25, 0.75]), PARAMS[name])
    x, labels = model.sample(params, 40_000, np.random.default_rng(3))
    assert labels.mean() == pytest.approx(0.75, abs=0.02)
    resp = np.eye(2)[labels]
    again = distribution.estimate(distribution.statistics(x, resp))
    for field, value in vars(params.components).items():
        assert getattr(again, field) == pytest.approx(value, rel=0.1, abs=0.02)


@pytest.mark.parametrize(
    ("distribution", "value", "said"),
    [
        (em.Poisson(), -1.0, "is -1, where Poisson needs a whole number that is not negative"),
        (em.Poisson(), 0.5, "is 0.5, where Poisson"),
        (em.Exponential(), -0.5, "is -0.5, where Exponential needs a number that is not negative"),
        (em.Gamma(), 0.0, "is 0, where Gamma needs a number above 0"),
        (em.Bernoulli(), 2.0, "is 2, where Bernoulli needs 0 or 1"),
        (em.Categorical(), -1.0, "is -1, where Categorical needs a code from 0 to 9999"),
        (em.Categorical(3), 3.0, "is 3, where Categorical needs a code from 0 to 2"),
        (em.Categorical(), 1.5, "is 1.5, where Categorical"),
    ],
)
def test_values_without_a_density_are_refused_with_their_place(distribution: Any, value: float, said: str) -> None:
    x = np.ones((10, 2))
    x[3, 0] = np.nan
    x[7, 1] = value
    with pytest.raises(RowError, match=said) as caught:
        distribution.check_rows(x)
    assert (caught.value.row, caught.value.column) == (7, 1)
    with pytest.raises(em.DataError, match=rf"row 7, column 1 {said}"):
        em.Mixture(1, distribution, verbose=0).fit(x)


def test_a_component_that_saw_nothing_of_a_column_takes_what_all_saw() -> None:
    x = np.array([[1.0, np.nan], [3.0, np.nan], [5.0, 4.0], [7.0, 6.0]])
    resp = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    assert em.Poisson().estimate(em.Poisson().statistics(x, resp)).rates.tolist() == [[2.0, 5.0], [6.0, 5.0]]
    found = em.Categorical(8).estimate(em.Categorical(8).statistics(x, resp)).probabilities
    assert np.array_equal(found[0, 1], found[1, 1])


def test_priors_move_the_estimate_as_rows_seen_before_would() -> None:
    x = np.array([[1.0], [0.0], [1.0]])
    resp = np.ones((3, 1))
    bernoulli = em.Bernoulli(prior=(1, 4))
    assert bernoulli.estimate(bernoulli.statistics(x, resp)).probabilities[0, 0] == pytest.approx(3 / 8)
    poisson = em.Poisson(prior=(3, 2))
    assert poisson.estimate(poisson.statistics(x, resp)).rates[0, 0] == pytest.approx((2 + 2) / (3 + 2))
    categorical = em.Categorical(2, prior=1)
    found = categorical.estimate(categorical.statistics(x, resp)).probabilities[0, 0]
    assert found == pytest.approx([2 / 5, 3 / 5])


def test_probabilities_of_zero_and_one_are_kept() -> None:
    x = np.array([[1.0, 0.0]] * 5)
    found = em.Mixture(1, em.Bernoulli(), verbose=0).fit(np.vstack([x, [[1.0, 1.0]]]))
    assert found.probabilities_[0, 0] == 1.0
    assert found.loglik_ == pytest.approx(5 * np.log(5 / 6) + np.log(1 / 6))


@pytest.mark.parametrize(
    "make",
    [
        lambda: em.Poisson(prior=(0.5, 1)),
        lambda: em.Bernoulli(prior=(-1, 1)),
        lambda: em.Exponential(prior=(1, -1)),
        lambda: em.Gamma(prior=(1, 2)),  # type: ignore[arg-type]
        lambda: em.Gamma(prior=(1, 2, 2)),
        lambda: em.Categorical(0),
        lambda: em.Categorical(prior=-1.0),
    ],
)
def test_hyperparameters_are_checked(make: Any) -> None:
    with pytest.raises(em.ConfigurationError):
        make()
