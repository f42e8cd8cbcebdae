"""Published results for one Gaussian with missing values, to the printed digits."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal

import dask_em as em

NA = np.nan
CEMENT = np.array(  # Little and Rubin (2019), table 7.4: Woods, Steinour and Starke's data with holes
    [
        [7, 26, 6, 60, 78.5], [1, 29, 15, 52, 74.3], [11, 56, 8, 20, 104.3], [11, 31, 8, 47, 87.6],
        [7, 52, 6, 33, 95.9], [11, 55, 9, 22, 109.2], [3, 71, 17, NA, 102.7], [1, 31, 22, NA, 72.5],
        [2, 54, 18, NA, 93.1], [NA, NA, 4, NA, 115.9], [NA, NA, 23, NA, 83.8], [NA, NA, 9, NA, 113.3],
        [NA, NA, 8, NA, 109.4],
    ]
)  # fmt: skip
MURRAY = np.array(
    [[1, 1], [1, -1], [-1, 1], [-1, -1], [2, NA], [2, NA], [-2, NA], [-2, NA], [NA, 2], [NA, 2], [NA, -2], [NA, -2]]
)


CEMENT_MEANS = [6.65517, 49.96526, 11.76923, 27.04709, 95.42308]
CEMENT_VARIANCES = [21.8256, 238.0124, 37.8698, 294.1830, 208.9049]


def test_the_cement_data() -> None:
    gm = em.GaussianMixture(1, reg_covar=0, tol=1e-9, max_passes=5000, random_state=0, verbose=0).fit(CEMENT)
    assert gm.status_ == "converged"
    assert gm.means_[0] == pytest.approx(CEMENT_MEANS, abs=6e-6)
    assert np.diag(gm.covariances_[0]) == pytest.approx(CEMENT_VARIANCES, abs=6e-5)
    assert gm.loglik_ == pytest.approx(-132.92525, abs=6e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_cement_data_by_the_imputer(seed: int) -> None:
    imputer = em.GaussianImputer(tol=1e-12, random_state=seed, verbose=0).fit(CEMENT)
    assert (imputer.status_, imputer.n_passes_) == ("converged", 1)
    assert imputer.mean_ == pytest.approx(CEMENT_MEANS, abs=6e-6)
    assert np.diag(imputer.covariance_) == pytest.approx(CEMENT_VARIANCES, abs=6e-5)
    assert imputer.loglik_ == pytest.approx(-132.92525, abs=6e-6)


def test_plain_em_takes_hundreds_of_steps_on_the_cement_data() -> None:
    steps = {
        solver: len(em.GaussianImputer(solver=solver, tol=1e-12, random_state=0, verbose=0).fit(CEMENT).history_) - 1
        for solver in ("em", "anderson")
    }
    assert steps["em"] > 300
    assert steps["anderson"] < steps["em"] / 5


def test_plain_em_is_slow_on_the_cement_data() -> None:
    settings = {"reg_covar": 0, "tol": 1e-9, "max_passes": 5000, "random_state": 0, "verbose": 0}
    plain = em.GaussianMixture(1, solver="em", **settings).fit(CEMENT)
    fast = em.GaussianMixture(1, solver="anderson", **settings).fit(CEMENT)
    assert len(plain.history_) > 200
    assert len(fast.history_) < len(plain.history_) / 4


def murray(correlation: float, solver: str) -> em.FitResult:
    start = em.Gaussian().from_moments(np.zeros((1, 2)), 2.5 * np.array([[[1, correlation], [correlation, 1.0]]]))
    model = em.IncompleteGaussian()
    return em.fit(model, MURRAY, params=start, solver=solver, tol=1e-10, max_passes=5000, verbose=0)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("solver", ["em", "anderson"])
def test_murrays_maxima(sign: int, solver: str) -> None:
    found = murray(0.1 * sign, solver)
    c = found.params.covariances[0]
    assert found.params.means == pytest.approx(np.zeros((1, 2)), abs=1e-6)
    assert np.diag(c) == pytest.approx([8 / 3, 8 / 3], abs=1e-4)
    assert c[0, 1] / c[0, 0] == pytest.approx(0.5 * sign, abs=1e-4)
    assert found.loglik == pytest.approx(-29.974286, abs=6e-7)


def test_murrays_saddle_holds_plain_em_started_on_it() -> None:
    model = em.IncompleteGaussian()
    params = em.Gaussian().from_moments(np.zeros((1, 2)), 2.5 * np.eye(2)[None])
    for _ in range(100):
        stats = model.e_step([params], em.Chunk(MURRAY))[0]
        params = model.m_step(stats)
    assert params.covariances[0] == pytest.approx(2.5 * np.eye(2), abs=1e-12)
    assert stats.total_loglik == pytest.approx(-30.033342, abs=6e-7)


@pytest.mark.parametrize("solver", ["em", "anderson"])
def test_a_fit_leaves_murrays_saddle_and_says_so(solver: str) -> None:
    found = murray(0.0, solver)
    assert found.status == "converged"
    assert found.loglik == pytest.approx(-29.974286, abs=6e-7)
    assert "left a saddle of the likelihood, at -30.03334" in found.message
    steps = [record["step"] for record in found.history]
    at = steps.index("off a saddle")
    assert steps[at - 1] == "looking around"
    assert found.history[at - 1]["loglik"] == pytest.approx(-30.033342, abs=6e-7)
    assert found.history[at]["loglik"] > found.history[at - 1]["loglik"] + 0.01


@pytest.mark.parametrize("reg_covar", [0.0, 1e-6])
def test_the_default_fit_of_murrays_points_ends_at_a_maximum(reg_covar: float) -> None:
    gm = em.GaussianMixture(1, reg_covar=reg_covar, tol=1e-9, verbose=0).fit(MURRAY)
    c = gm.covariances_[0]
    assert gm.loglik_ == pytest.approx(-29.974286, abs=6e-7)
    assert abs(c[0, 1] / c[0, 0]) == pytest.approx(0.5, abs=1e-4)
    quick = em.GaussianMixture(1, reg_covar=reg_covar, verbose=0).fit(MURRAY)
    assert gm.loglik_ - 0.05 < quick.loglik_ <= gm.loglik_


def textbook(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Mean and covariance by EM row by row, the rows filled up, and the log-likelihood: nothing of the library."""
    mean, c = np.nanmean(x, axis=0), np.diag(np.nanvar(x, axis=0))
    for _ in range(3000):
        filled, left, loglik = x.copy(), np.zeros(c.shape), 0.0
        for row in filled:
            m, o = np.isnan(row), ~np.isnan(row)
            loglik += multivariate_normal(mean[o], c[np.ix_(o, o)]).logpdf(row[o])
            slope = c[np.ix_(m, o)] @ np.linalg.inv(c[np.ix_(o, o)])
            row[m] = mean[m] + slope @ (row[o] - mean[o])
            left[np.ix_(m, m)] += c[np.ix_(m, m)] - slope @ c[np.ix_(o, m)]
        new = filled.mean(axis=0)
        before, c = c, (filled - new).T @ (filled - new) / len(x) + left / len(x)
        mean = new
        if np.abs(c - before).max() < 1e-9:
            break
    return mean, c, filled, loglik


def test_air_quality_against_an_independent_implementation(real_data: Path) -> None:
    columns = ["Ozone", "Solar.R", "Wind", "Temp"]
    frame = pd.read_csv(real_data / "small" / "r_datasets_airquality.csv")[columns]
    x = frame.to_numpy(float)
    assert np.isnan(x).sum(axis=0).tolist() == [37, 7, 0, 0]
    mean, c, filled, loglik = textbook(x)
    gm = em.GaussianMixture(1, reg_covar=0, tol=1e-9, random_state=0, verbose=0).fit(x)
    assert gm.means_[0] == pytest.approx(mean, rel=1e-6)
    assert gm.covariances_[0] == pytest.approx(c, rel=1e-5)
    imputer = em.GaussianImputer(tol=1e-9, random_state=0, verbose=0).fit(frame)
    assert imputer.mean_ == pytest.approx(mean, rel=1e-6)
    assert imputer.covariance_ == pytest.approx(c, rel=1e-5)
    assert imputer.loglik_ == pytest.approx(loglik, abs=1e-6)
    assert imputer.transform(frame) == pytest.approx(filled, abs=1e-4)
    complete = x[~np.isnan(x).any(axis=1)].mean(axis=0)
    assert abs(complete[0] - imputer.mean_[0]) > 0.1
