"""Columns that others determine, wholly or nearly: what is rounding is said to be, and is no fault of the model's."""

import warnings

import numpy as np
import pytest

import dask_em as em


def nearly(sd: float, seed: int) -> np.ndarray:
    """Three columns, the second of which is twice the first but for noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3000, 1))
    return np.hstack([x, 2 * x + sd * rng.normal(size=x.shape), rng.normal(size=x.shape)])


@pytest.mark.parametrize("solver", ["em", "anderson"])
@pytest.mark.parametrize("kind", ["full", "tied"])
@pytest.mark.parametrize("sd", [0.0, 1e-8])
@pytest.mark.parametrize("seed", range(3))
def test_a_variance_that_is_rounding_is_none(kind: str, solver: str, sd: float, seed: int) -> None:
    gm = em.GaussianMixture(3, covariance_type=kind, reg_covar=0, random_state=seed, solver=solver, verbose=0)
    with pytest.raises(em.DegenerateError, match="drop columns that others determine"):
        gm.fit(nearly(sd, seed))


@pytest.mark.parametrize("solver", ["em", "anderson"])
@pytest.mark.parametrize("kind", ["full", "tied"])
@pytest.mark.parametrize("sd", [1e-6, 1e-5])
def test_rounding_is_no_fall_of_the_likelihood(kind: str, solver: str, sd: float) -> None:
    x = nearly(sd, seed=0)
    gm = em.GaussianMixture(
        3, covariance_type=kind, reg_covar=0, random_state=0, solver=solver, max_passes=60, verbose=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.FitWarning)
        gm.fit(x)
    one = em.GaussianMixture(1, reg_covar=0, verbose=0).fit(x)
    noise = len(x) * gm._model().loglik_error(gm._params())
    assert gm.loglik_ > one.loglik_ - noise
    assert noise < 30 * (1e-6 / sd) ** 2
    left = gm.covariances_[..., 1, 1] - gm.covariances_[..., 0, 1] ** 2 / gm.covariances_[..., 0, 0]
    assert np.sqrt(left) == pytest.approx(sd, rel=0.2)


def test_how_far_rounding_may_move_the_likelihood() -> None:
    from dask_em.distributions.gaussian import Gaussian

    full, diag = Gaussian("full", 0.0), Gaussian("diag", 0.0)
    r = 1 - 1e-6
    two = np.array([np.eye(2), [[1, r], [r, 1]]])
    eps = np.finfo(float).eps
    assert full.loglik_error(full.from_moments(np.zeros((2, 2)), two)) == pytest.approx(8 * eps / (1 - r**2))
    assert diag.loglik_error(diag.from_moments(np.zeros((2, 2)), np.ones((2, 2)))) == 0
