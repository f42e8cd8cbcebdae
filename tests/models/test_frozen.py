"""Mixtures of which components or weights are known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.base import clone

import dask_em as em
from dask_em.distributions.base import Distribution
from dask_em.models.frozen import FrozenMixture
from dask_em.testing import check_model

RNG = np.random.default_rng(0)
LABELS = np.repeat([0, 1, 2], [90, 60, 50])
COUNTS = RNG.poisson(np.array([[1.0, 9.0], [8.0, 3.0], [20.0, 20.0]])[LABELS]).astype(float)
SETTINGS: dict[str, Any] = {"random_state": 0, "verbose": 0}

DISTRIBUTIONS: dict[str, tuple[Distribution, np.ndarray]] = {
    "gaussian": (em.Gaussian(reg_covar=0), COUNTS + RNG.normal(size=COUNTS.shape)),
    "diag": (em.Gaussian("diag", reg_covar=0, prior=(2.0, 1.0)), COUNTS + RNG.normal(size=COUNTS.shape)),
    "student": (em.StudentT(reg_covar=0), COUNTS + RNG.normal(size=COUNTS.shape)),
    "factors": (em.Factors(1), RNG.normal(size=(200, 4)) + 3 * LABELS[:, None]),
    "poisson": (em.Poisson(), COUNTS),
    "negative binomial": (em.NegativeBinomial(), COUNTS),
    "categorical": (em.Categorical((5, 4)), np.minimum(COUNTS, [4, 3])),
    "multinomial": (em.Multinomial(), COUNTS + 1),
    "regression": (em.LinearRegression(1), np.c_[COUNTS[:, 0], (LABELS - 1) * COUNTS[:, 0] + RNG.normal(size=200)]),
    "product": (em.Product({0: em.Poisson(), 1: em.Gaussian("diag", reg_covar=0)}), COUNTS),
}
KNOWN: list[dict[str, Any]] = [
    {"frozen": 1},
    {"frozen": 2},
    {"fixed_weights": "equal"},
    {"fixed_weights": (0.2, 0.5, 0.3)},
    {"frozen": 1, "fixed_weights": (0.2, 0.5, 0.3)},
    {"frozen": 3},
]


def known(distribution: Distribution, x: np.ndarray, settings: dict[str, Any]) -> dict[str, Any]:
    """With parameters of so many clusters."""
    n = settings.get("frozen")
    if n is None:
        return settings
    inside = em.MixtureModel(n, distribution).within(x.min(axis=0), x.max(axis=0)).distribution
    params = em.MixtureModel(n, inside).from_labels(em.Chunk(x), np.minimum(LABELS, n - 1))
    return {**settings, "frozen": params.components}


@pytest.mark.parametrize("settings", KNOWN, ids=str)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_generic_proofs_hold(name: str, settings: dict[str, Any]) -> None:
    distribution, x = DISTRIBUTIONS[name]
    inside = em.MixtureModel(3, distribution).within(x.min(axis=0), x.max(axis=0)).distribution
    model = FrozenMixture(3, inside, **known(distribution, x, settings))
    w = np.random.default_rng(1).random(len(x))
    proved = check_model(model, [em.Chunk(x[:80], w[:80]), em.Chunk(x[80:], w[80:])])
    assert not [line for line in proved if line.startswith("not proved")]
    params = model.start(em.Chunk(x), np.random.default_rng(0))
    assert len(model.to_vector(params)) == len(model.vector_scale(params))
    moved = 0 if model.fixed_weights else 1  # log weights may be off by a constant
    if name in ("gaussian", "poisson", "negative binomial", "regression"):
        assert model.n_parameters(2) == len(model.to_vector(params)) - moved


def test_a_known_background_stays_and_the_signal_is_found() -> None:
    rng = np.random.default_rng(1)
    background = em.Mixture(2, em.Gaussian(), **SETTINGS).fit(
        np.concatenate([rng.normal(0, 1, (2000, 1)), rng.normal(4, 2, (2000, 1))])
    )
    x = np.concatenate([rng.normal(0, 1, (5000, 1)), rng.normal(4, 2, (5000, 1)), rng.normal(2, 0.2, (800, 1))])
    mix = em.Mixture(3, frozen=background.components_, **SETTINGS).fit(x)
    assert mix.status_ == "converged"
    assert np.array_equal(mix.means_[:2], background.means_)
    assert np.array_equal(mix.covariances_[:2], background.covariances_)
    assert mix.means_[2, 0] == pytest.approx(2, abs=0.05)
    assert mix.covariances_[2, 0, 0] ** 0.5 == pytest.approx(0.2, abs=0.05)
    assert mix.weights_[2] == pytest.approx(800 / 10_800, abs=0.015)
    free = em.Mixture(3, **SETTINGS).fit(x)
    assert free.loglik_ >= mix.loglik_ - 0.1
    assert mix.bic(x) == pytest.approx(-2 * mix.loglik_ + (2 + 2) * np.log(len(x)), rel=1e-9)


def test_weights_of_known_components_are_those_of_highest_likelihood() -> None:
    """One weight, found by a general maximiser."""
    from scipy.optimize import minimize_scalar

    x = np.random.default_rng(2).poisson(np.repeat([2.0, 5.0], [300, 100])).astype(float)[:, None]
    frozen = em.MixtureModel(2, em.Poisson()).from_labels(em.Chunk(x), np.repeat([0, 1], [300, 100])).components
    mix = em.Mixture(2, em.Poisson(), frozen=frozen, tol=1e-9, **SETTINGS).fit(x)
    p = stats.poisson(frozen.rates[:, 0]).pmf(x)
    best = minimize_scalar(lambda w: -np.log(p @ [w, 1 - w]).sum(), (0.1, 0.9), bounds=(0, 1), options={"xatol": 1e-10})
    assert np.array_equal(mix.rates_, frozen.rates)
    assert mix.weights_[0] == pytest.approx(best.x, abs=1e-5)
    assert mix.loglik_ == pytest.approx(-best.fun, rel=1e-10)


@pytest.mark.parametrize("solver", ["em", "anderson", "anchored", "auto"])
def test_every_solver_keeps_them(solver: str) -> None:
    x = DISTRIBUTIONS["gaussian"][1]
    big = np.random.default_rng(3).normal(np.tile(x, (40, 1)), 0.3)
    frozen = known(em.Gaussian(), x, {"frozen": 1})["frozen"]
    weights = (0.5, 0.2, 0.3)
    settings = {"sample_bytes": 1500 * 32, "solver": solver, **SETTINGS}
    mix = em.Mixture(3, frozen=frozen, fixed_weights=weights, **settings).fit(big)
    plain = em.Mixture(3, frozen=frozen, fixed_weights=weights, tol=1e-6, **SETTINGS).fit(big)
    assert mix.weights_.tolist() == list(weights)
    assert np.array_equal(mix.means_[0], frozen.means[0])
    assert mix.loglik_ == pytest.approx(plain.loglik_, abs=0.2)


def test_equal_weights_have_no_parameters() -> None:
    x = DISTRIBUTIONS["gaussian"][1]
    mix = em.Mixture(3, em.Gaussian("spherical"), fixed_weights="equal", **SETTINGS).fit(x)
    assert mix.weights_ == pytest.approx(np.full(3, 1 / 3))
    assert mix.bic(x) == pytest.approx(-2 * mix.loglik_ + (3 * 2 + 3) * np.log(len(x)), rel=1e-9)
    found = em.select(mix, x, n_components=[1, 2, 3, 4])
    assert found.best_params_["n_components"] in (3, 4)


def test_what_is_known_has_no_standard_errors_and_everything_else_has() -> None:
    x = DISTRIBUTIONS["gaussian"][1]
    frozen = known(em.Gaussian(), x, {"frozen": 1})["frozen"]
    with pytest.warns(em.FitWarning, match="that are held fixed, or at the edge"):
        table = em.Mixture(3, frozen=frozen, **SETTINGS).fit(x).standard_errors(x)
    means = table[table["parameter"] == "means"]
    assert means["standard_error"][means["component"] == 0].isna().all()
    assert (means["standard_error"][means["component"] > 0] > 0).all()


def test_files_clones_checkpoints_and_limits(tmp_path: Path) -> None:
    x = DISTRIBUTIONS["poisson"][1]
    frozen = em.Mixture(1, em.Poisson(), **SETTINGS).fit(x[:90]).components_
    mix = em.Mixture(3, em.Poisson(), frozen=frozen, fixed_weights=np.array([0.4, 0.3, 0.3]), **SETTINGS)
    a = clone(mix).fit(x)
    a.save(tmp_path / "m")
    b = em.load(tmp_path / "m")
    assert np.array_equal(b.frozen.rates, frozen.rates)
    assert b.bic(x) == a.bic(x)
    path = tmp_path / "fit.checkpoint"
    c = clone(mix).set_params(checkpoint=path).fit(x)
    assert c.loglik_ == a.loglik_
    other = em.Mixture(1, em.Poisson(), **SETTINGS).fit(x[90:]).components_
    with pytest.raises(em.ConfigurationError, match="was written by a fit with rates="):
        clone(mix).set_params(checkpoint=path, frozen=other).fit(x)


def test_a_stream_keeps_them() -> None:
    x = np.random.default_rng(4).permutation(DISTRIBUTIONS["poisson"][1])
    frozen = em.Mixture(1, em.Poisson(), **SETTINGS).fit(x[:90]).components_
    mix = em.Mixture(2, em.Poisson(), frozen=frozen, **SETTINGS)
    for batch in np.array_split(x, 4):
        mix.partial_fit(batch)
    assert np.array_equal(mix.rates_[0], frozen.rates[0])


POISSON = em.Mixture(1, em.Poisson(), **SETTINGS).fit(COUNTS).components_


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: em.Mixture(2, em.Poisson(), frozen=5), "must be parameters of Poisson, as components_ of a fitted"),
        (lambda: em.Mixture(2, em.Gaussian(), frozen=POISSON), "frozen components have PoissonParams where"),
        (lambda: em.Mixture(2, em.Gaussian("tied"), frozen=POISSON), "share parameters"),
        (lambda: em.Mixture(2, em.NegativeBinomial("shared"), frozen=POISSON), "share parameters"),
        (
            lambda: em.Mixture(1, em.Poisson(), frozen=em.Mixture(2, em.Poisson(), **SETTINGS).fit(COUNTS).components_),
            "frozen has 2 components, and n_components=1 counts them in",
        ),
        (
            lambda: em.Mixture(
                2, em.Poisson(), frozen=em.Mixture(1, em.Poisson(), **SETTINGS).fit(COUNTS[:, :1]).components_
            ),
            r"arrays of shape \(1,\) each where those of this mixture have arrays of shape \(2,\)",
        ),
        (lambda: em.Mixture(2, fixed_weights="same"), "must be 'equal', or 2 positive shares that sum to 1"),
        (lambda: em.Mixture(2, fixed_weights=[0.5, 0.6]), "must be 'equal', or 2 positive shares that sum to 1"),
        (lambda: em.Mixture(2, fixed_weights=[1.0, 0.0]), "must be 'equal', or 2 positive shares that sum to 1"),
        (lambda: em.Mixture(3, fixed_weights=[0.5, 0.5]), "must be 'equal', or 3 positive shares that sum to 1"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, words: str) -> None:
    with pytest.raises(em.ConfigurationError, match=words):
        make().set_params(**SETTINGS).fit(COUNTS)


@pytest.mark.parametrize("d", [1, 2, 4, 6])
@pytest.mark.parametrize("weights", ["equal", (0.4, 0.3, 0.2, 0.1)])
def test_weights_may_be_known_where_covariances_are_shared(d: int, weights: Any) -> None:
    rng = np.random.default_rng(0)
    shares = np.full(4, 0.25) if weights == "equal" else np.asarray(weights)
    kinds = rng.choice(4, 2000, p=shares)
    x = (rng.normal(0, 8, (4, d))[kinds] + rng.normal(size=(2000, d))) * 10.0 ** np.arange(d)
    mix = em.Mixture(4, em.Gaussian("tied"), fixed_weights=weights, **SETTINGS).fit(x)
    assert mix.status_ == "converged"
    assert mix.weights_ == pytest.approx(shares)
    covariance = mix.components_.covariances
    assert covariance == pytest.approx(covariance.T, rel=1e-12)
    free = em.Mixture(4, em.Gaussian("tied"), **SETTINGS).fit(x)
    assert mix.loglik_ <= free.loglik_ + 0.1
