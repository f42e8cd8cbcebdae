"""`reg_covar`: the likelihood is maximised where no component is narrower than that, and nowhere else."""

import warnings
from typing import Any

import numpy as np
import pytest

import dask_em as em
from dask_em.distributions.gaussian_bounds import bounded

KINDS = ("full", "tied", "diag", "spherical")
BOUNDS = {"full": 9.0, "tied": 100.0, "diag": 150.0, "spherical": 1000.0}  # some components are held there


def levels(n: int, seed: int = 0) -> np.ndarray:
    """Rows of whole numbers, among them planes and repeated points: most components of a mixture collapse."""
    rng = np.random.default_rng(seed)
    grey = rng.integers(0, 256, size=(n // 2, 1)) + rng.integers(0, 2, size=(n // 2, 3))
    colour = rng.normal(size=(n - n // 2, 3)) * [40, 25, 10] + [90, 120, 160]
    return np.clip(np.round(np.vstack([grey, colour])), 0, 255)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", ["em", "anderson", "anchored"])
def test_the_likelihood_never_falls_and_the_end_is_a_maximum_within_the_bound(kind: str, solver: str) -> None:
    x = levels(6000)
    settings: dict[str, Any] = {"covariance_type": kind, "reg_covar": BOUNDS[kind], "random_state": 0, "verbose": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.FitWarning)  # plain EM may reach max_passes
        gm = em.GaussianMixture(5, solver=solver, n_init=2, max_passes=1500, **settings).fit(x)
        on = em.GaussianMixture(5, solver="em", tol=1e-3, max_passes=300, warm_start=True, **settings)
        on.__dict__.update({k: v for k, v in vars(gm).items() if k.endswith("_") or k.startswith("_")})
        on.fit(x)
    assert gm.converged_
    taken = [r["loglik"] for r in gm.history_ if r["loglik"] is not None]
    assert (np.diff(taken) >= -1e-9 * abs(gm.loglik_)).all()
    assert abs(on.loglik_ - gm.loglik_) < 1.0
    c = gm.covariances_
    least = np.linalg.eigvalsh(c).min() if kind in ("full", "tied") else c.min()
    assert least == pytest.approx(BOUNDS[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1.0])
def test_by_default_the_fit_is_the_same_in_any_unit(kind: str, unit: float) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2000, 2)) @ np.array([[1.0, 0.9], [0.0, 0.02]]) + np.repeat([[0.0], [3.0]], 1000, axis=0)
    one, other = (
        em.GaussianMixture(2, covariance_type=kind, random_state=0, verbose=0, n_init=2).fit(x * u) for u in (1.0, unit)
    )
    assert other.loglik_ == pytest.approx(one.loglik_ - x.size * np.log(unit), rel=1e-6)
    assert other.covariances_ / unit**2 == pytest.approx(one.covariances_, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_start_below_the_bound_is_taken_into_it(kind: str) -> None:
    x = levels(2000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.FitWarning)
        gm = em.GaussianMixture(3, covariance_type=kind, reg_covar=0.01, random_state=0, verbose=0).fit(x)
        gm.set_params(reg_covar=400.0, warm_start=True).fit(x)
    assert gm.converged_
    c = gm.covariances_
    assert (np.linalg.eigvalsh(c) if kind in ("full", "tied") else c).min() >= 400 * (1 - 1e-9)


def test_only_what_is_too_narrow_is_changed() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(3, 4, 4))
    wide = a @ np.swapaxes(a, 1, 2) + np.eye(4)
    wide[1] = np.diag([1.0, 0.0, 2.0, 3.0])
    least = np.array([0.5, 0.25, 0.5, 0.5])
    covariances, factors = bounded(wide, "full", least)
    assert np.array_equal(covariances[[0, 2]], wide[[0, 2]])
    assert covariances[1] == pytest.approx(np.diag([1.0, 0.25, 2.0, 3.0]))
    assert np.linalg.inv(covariances) == pytest.approx(factors @ np.swapaxes(factors, 1, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_reg_covar_that_no_data_is_as_wide_as_is_told(kind: str) -> None:
    x = np.random.default_rng(0).normal(size=(500, 2))
    with pytest.warns(
        em.FitWarning, match="all rows together vary less in columns 0, 1 than reg_covar lets .* 2: give"
    ):
        em.GaussianMixture(2, covariance_type=kind, reg_covar=2.0, random_state=0, verbose=0).fit(x)


@pytest.mark.parametrize("kind", ["full", "tied", "diag"])
def test_columns_in_very_different_units_are_no_collapse(kind: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 2)) @ np.array([[1.0, 0.4], [0.0, 1.0]]) + np.repeat([[0.0], [5.0]], 1500, axis=0)
    settings: dict[str, Any] = {"covariance_type": kind, "random_state": 0, "verbose": 0}
    one = em.GaussianMixture(2, **settings).fit(x)
    other = em.GaussianMixture(2, **settings).fit(x * [1e-7, 1e7])
    assert other.status_ == "converged"
    assert other.loglik_ == pytest.approx(one.loglik_, rel=1e-6)
