"""Mixtures of regressions of counts and answers: Newton's steps are right, and never too long."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.optimize import minimize
from scipy.special import comb

import dask_em as em
from dask_em.distributions.generalized_regression import GeneralizedRegressionParams
from dask_em.errors import RowError
from dask_em.models.mixture import MixtureParams
from dask_em.testing import check_model

RNG = np.random.default_rng(0)
KIND = np.repeat([0, 1], 150)
Z = RNG.normal(size=(300, 2)) * [1.0, 3.0] + [0.0, 2.0]
INTERCEPT, COEF = np.array([1.0, 2.0]), np.array([[0.8, 0.1], [-0.6, -0.1]])
ETA = INTERCEPT[KIND] + (Z * COEF[KIND]).sum(axis=1)
COUNTS = np.column_stack([Z[:, 0], RNG.poisson(np.exp(ETA)), Z[:, 1]]).astype(float)
ANSWERS = np.column_stack([Z[:, 0], RNG.random(300) < 1 / (1 + np.exp(-3 * ETA)), Z[:, 1]]).astype(float)
PERIODS = RNG.uniform(0.5, 1.5, 300)
EXPOSED = np.column_stack([PERIODS, Z[:, 0], RNG.poisson(PERIODS * np.exp(ETA)), Z[:, 1]]).astype(float)
TRIALS = RNG.integers(1, 9, 300)
TRIED = np.column_stack([TRIALS, Z[:, 0], RNG.binomial(TRIALS, 1 / (1 + np.exp(-ETA))), Z[:, 1]]).astype(float)

CASES: dict[str, tuple[Any, np.ndarray]] = {
    "poisson": (em.PoissonRegression(1), COUNTS),
    "poisson, no intercept": (em.PoissonRegression(1, fit_intercept=False), COUNTS),
    "poisson with a ridge": (em.PoissonRegression(1, ridge=2.0), COUNTS),
    "poisson with an exposure": (em.PoissonRegression(2, exposure=0), EXPOSED),
    "poisson with an exposure, no intercept": (em.PoissonRegression(2, exposure=0, fit_intercept=False), EXPOSED),
    "logistic": (em.LogisticRegression(1), ANSWERS),
    "logistic, no intercept": (em.LogisticRegression(1, fit_intercept=False), ANSWERS),
    "binomial": (em.LogisticRegression(2, trials=0), TRIED),
    "logistic with a ridge": (em.LogisticRegression(1, ridge=2.0), ANSWERS),
}


def informed(distribution: Any, x: np.ndarray) -> Any:
    """The distribution, told of the columns as a fit tells it."""
    return distribution.within(x.min(axis=0), x.max(axis=0)).about(x.mean(axis=0)).in_units_of(x.var(axis=0))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_generic_proofs_hold(name: str, weighted: bool, dtype: Any) -> None:
    distribution, x = CASES[name]
    x = x.astype(dtype)
    w = np.random.default_rng(1).random(len(x)) if weighted else None
    chunks = [em.Chunk(x[rows], None if w is None else w[rows]) for rows in (slice(77), slice(77, None))]
    proved = check_model(em.MixtureModel(2, informed(distribution, x.astype(np.float64))), chunks)
    assert not [line for line in proved if line.startswith("not proved")]
    assert len(proved) == 9  # the M-step is no maximum, which the other three are about


@pytest.mark.parametrize("name", CASES)
def test_the_expansion_has_the_likelihoods_value_and_slope(name: str) -> None:
    """Fisher's identity; and the constant in the sums, from which the entropy of the components is taken."""
    distribution, x = CASES[name]
    model = em.MixtureModel(2, informed(distribution, x))
    params = model.start(em.Chunk(x), np.random.default_rng(0))
    sums = model.e_step([params], em.Chunk(x))[0]
    v = model.to_vector(params)

    def loglik(u: np.ndarray) -> float:
        return model.e_step([model.from_vector(u)], em.Chunk(x))[0].total_loglik

    for i, h in enumerate(np.eye(len(v)) * 1e-5):
        observed = (loglik(v + h) - loglik(v - h)) / 2e-5
        expanded = (model.expected_loglik(model.from_vector(v + h), sums)) - model.expected_loglik(
            model.from_vector(v - h), sums
        )
        assert expanded / 2e-5 == pytest.approx(observed, abs=1e-4 * len(x)), i
    resp = model.posteriors(params, x, "proba")
    entropy = -np.sum(resp * np.log(np.maximum(resp, 1e-300)))
    assert sums.total_loglik - model.expected_loglik(params, sums) == pytest.approx(entropy, rel=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_the_likelihood_never_falls_from_however_bad_a_start(name: str) -> None:
    distribution, x = CASES[name]
    model = em.MixtureModel(2, informed(distribution, x))
    rng = np.random.default_rng(1)
    for scale in np.repeat([0.1, 1.0, 3.0], 4):
        components = GeneralizedRegressionParams(scale * rng.normal(size=(2, 2)), scale * rng.normal(size=2))
        if not distribution.fit_intercept:
            components = GeneralizedRegressionParams(components.coef, np.zeros(2))
        params, last = MixtureParams(np.array([0.5, 0.5]), components), -np.inf
        for _ in range(30):
            found = model.e_step([params], em.Chunk(x))[0]
            now = found.total_loglik + model.log_prior(params)
            assert now >= last - 1e-9 * abs(now)
            last = now
            try:
                params = model.m_step(found)
            except em.DegenerateError:  # one component has all but no rows left
                break


def test_a_whole_newton_step_would_lower_it() -> None:
    """What the share of a step is for: from coefficients of zero, Newton's method for counts of thousands fails."""
    y = np.array([0.0, 0, 0, 5000])
    x = np.column_stack([y, [-1.0, 0, 1, 2]])
    model = em.MixtureModel(1, em.PoissonRegression(0).within(x.min(axis=0), x.max(axis=0)))
    whole = em.MixtureModel(1, em.PoissonRegression(0))
    start = MixtureParams(np.ones(1), GeneralizedRegressionParams(np.zeros((1, 1)), np.zeros(1)))
    sums = model.e_step([start], em.Chunk(x))[0]
    assert model.e_step([model.m_step(sums)], em.Chunk(x))[0].loglik > sums.loglik
    assert model.e_step([whole.m_step(sums)], em.Chunk(x))[0].loglik < sums.loglik


@pytest.mark.parametrize("name", CASES)
def test_one_component_is_the_regression_that_a_general_maximiser_finds(name: str) -> None:
    distribution, x = CASES[name]
    mix = em.Mixture(1, distribution, tol=1e-9, verbose=0).fit(x)
    d = x.shape[1]
    y, z = x[:, distribution.response], np.delete(x, distribution.others(d), axis=1)
    sizes = x[:, 0] if d == 4 else 1.0

    def loss(theta: np.ndarray) -> float:
        eta = theta[0] * distribution.fit_intercept + z @ theta[1:]
        if "poisson" in name:
            loglik = stats.poisson.logpmf(y, sizes * np.exp(eta))
        else:
            loglik = np.log(comb(sizes, y)) + y * eta - sizes * np.logaddexp(0, eta)
        return float(-loglik.sum() + 0.5 * distribution.ridge * theta[1:] ** 2 @ z.var(axis=0))

    best = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-6})
    assert mix.history_[-1]["loglik"] == pytest.approx(-best.fun, abs=1e-7)  # the penalty counted in
    assert mix.coef_[0] == pytest.approx(best.x[1:], abs=1e-5)
    if distribution.fit_intercept:
        assert mix.intercept_[0] == pytest.approx(best.x[0], abs=1e-5)
    else:
        assert mix.intercept_[0] == 0


def test_densities_are_those_of_scipy() -> None:
    params = GeneralizedRegressionParams(COEF, INTERCEPT)
    eta = INTERCEPT + Z @ COEF.T
    d = em.PoissonRegression(1).about(COUNTS.mean(axis=0))
    assert d.log_density(params, COUNTS) == pytest.approx(stats.poisson.logpmf(COUNTS[:, [1]], np.exp(eta)))
    b = em.LogisticRegression(1)
    assert b.log_density(params, ANSWERS) == pytest.approx(
        stats.bernoulli.logpmf(ANSWERS[:, [1]], 1 / (1 + np.exp(-eta)))
    )


def test_frames_predictions_and_files(tmp_path: Path) -> None:
    frame = pd.DataFrame(COUNTS, columns=["age", "visits", "income"])
    mix = em.Mixture(2, em.PoissonRegression("visits"), random_state=0, verbose=0).fit(frame)
    order = np.argsort(mix.coef_[:, 0])[::-1]
    assert mix.coef_[order] == pytest.approx(COEF, abs=0.15)
    assert mix.n_parameters() == 1 + 2 * 3
    mix.save(tmp_path / "m.safetensors")
    again = em.load(tmp_path / "m.safetensors")
    assert np.array_equal(again.predict_proba(frame), mix.predict_proba(frame))
    assert max(np.mean(mix.predict(frame) == KIND), np.mean(mix.predict(frame) != KIND)) > 0.75


def test_a_sample_is_enough_to_begin_with() -> None:
    """Data larger than the sample takes a few passes to the optimum that all of it in memory gives."""
    rng = np.random.default_rng(3)
    z = rng.normal(size=(30_000, 2)) * [1.0, 10.0] + [0.0, 50.0]
    eta = np.where(np.arange(30_000) % 3 > 0, 1 + z[:, 0], 2.5 - 0.5 * z[:, 0] + 0.02 * (z[:, 1] - 50))
    x = np.column_stack([rng.poisson(np.exp(eta)), z])
    whole = em.Mixture(2, em.PoissonRegression(0), random_state=0, verbose=0).fit(x)
    part = em.Mixture(2, em.PoissonRegression(0), random_state=0, verbose=0, sample_bytes=100_000).fit(x)
    assert part.loglik_ == pytest.approx(whole.loglik_, abs=0.05)
    assert 1 < part.n_passes_ <= 15


@pytest.mark.parametrize("seed", range(10))
def test_answers_without_errors_need_a_ridge_to_have_finite_coefficients(seed: int) -> None:
    x = np.column_stack([(Z[:, 0] > 0), Z[:, 0]]).astype(float)
    with pytest.warns(em.FitWarning, match="has coefficients that grow without bound: give LogisticRegression a ridge"):
        free = em.Mixture(1, em.LogisticRegression(0), random_state=seed, verbose=0).fit(x)
    assert -0.05 < free.loglik_ <= 0  # the supremum is zero, and rounds to it
    held = em.Mixture(1, em.LogisticRegression(0, ridge=1.0), random_state=seed, verbose=0).fit(x)
    assert held.converged_
    assert held.coef_[0, 0] < free.coef_[0, 0] / 2


def test_a_component_of_zeros_alone_is_found() -> None:
    """Its coefficients go to minus infinity; the likelihood does not mind."""
    rng = np.random.default_rng(4)
    z = rng.normal(size=2000)
    x = np.column_stack([np.where(rng.random(2000) < 0.4, 0, rng.poisson(np.exp(1.5 + 0.5 * z))), z])
    mix = em.Mixture(2, em.PoissonRegression(0), random_state=0, verbose=0).fit(x)
    counted = int(np.argmax(mix.intercept_))
    assert mix.weights_[counted] == pytest.approx(0.6, abs=0.03)
    assert (mix.intercept_[counted], mix.coef_[counted, 0]) == pytest.approx((1.5, 0.5), abs=0.05)
    assert mix.converged_


def test_predictors_that_depend_on_each_other_are_named() -> None:
    frame = pd.DataFrame(COUNTS, columns=["age", "visits", "income"])
    frame["months"] = 12 * frame["age"]
    with pytest.raises(em.DegenerateError, match="as age and months are linearly dependent in its rows"):
        em.Mixture(2, em.PoissonRegression("visits"), verbose=0).fit(frame)


@pytest.mark.parametrize(
    ("distribution", "value", "said"),
    [
        (em.PoissonRegression(1), -1.0, "is -1, where PoissonRegression needs a count for its response"),
        (em.PoissonRegression(1), 0.5, "is 0.5, where PoissonRegression"),
        (em.LogisticRegression(1), 2.0, "is 2, where LogisticRegression needs 0 or 1 for its response"),
    ],
)
def test_responses_without_a_density_are_refused_with_their_place(distribution: Any, value: float, said: str) -> None:
    x = np.array([[-0.5, 1.0, 7.5]] * 10)
    x[7, 1] = value
    with pytest.raises(RowError, match=said) as caught:
        distribution.check_rows(x)
    assert (caught.value.row, caught.value.column) == (7, 1)
    with pytest.raises(em.DataError, match=rf"row 7, column 1 {said}"):
        em.Mixture(1, distribution, verbose=0).fit(x)


def test_a_regression_is_a_part_of_a_product() -> None:
    frame = pd.DataFrame(COUNTS, columns=["age", "visits", "income"])
    frame["height"] = RNG.normal(np.where(KIND, 3, 0))
    product = em.Product({("income", "visits", "age"): em.PoissonRegression("visits"), "height": em.Gaussian("diag")})
    mix = em.Mixture(2, product, random_state=0, verbose=0).fit(frame)
    order = np.argsort(mix.components_["height"].means.ravel())
    assert mix.components_["visits"].coef[order] == pytest.approx(COEF[:, ::-1], abs=0.15)
