"""Published mixtures of regressions, to the printed digits."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.optimize import minimize

import dask_em as em
from dask_em.distributions.linear_regression import LinearRegressionParams
from dask_em.models.mixture import MixtureParams

# gross national product and carbon dioxide per head of 28 countries in 1996 (Hurn, Justel and Robert 2003)
GNP = (
    "19.02 3.67 28.2 40.94 10.61 20.09 15.72 28.11 26.44 4.74 32.1 23.24 26.27 28.87 11.46 4.34 17.11 19.88 25.94 "
    "24.51 3.23 10.16 14.35 25.71 44.35 2.83 19.6 2.41"
)
CO2 = "14.7 3.9 20.8 9 8.3 16 7.6 7.4 10.2 10.8 10.5 10 5.8 10.2 7.3 5.5 9 7.2 8.8 16.6 8.8 5.2 5.9 5 5.5 2.7 9.3 12.3"
COUNTRIES = np.column_stack([np.array(GNP.split(), float), np.array(CO2.split(), float)])


def test_carbon_dioxide_by_the_steps_of_mixtools() -> None:
    """What mixtools (Benaglia et al. 2009, section 5.1) prints, from its start and by its rule for stopping."""
    model = em.MixtureModel(2, em.LinearRegression(response=1))
    chunk = em.Chunk(COUNTRIES)
    start = LinearRegressionParams(np.array([[-1.0], [1.0]]), np.array([8.0, 1.0]), np.array([2.0, 1.0]))
    params, last = MixtureParams(np.array([0.25, 0.75]), start), -np.inf
    for _ in range(1000):
        stats = model.e_step([params], chunk)[0]
        if stats.loglik - last <= 1e-8:
            break
        params, last = model.m_step(stats), stats.loglik
    assert stats.loglik == pytest.approx(-66.93977, abs=5e-6)
    assert params.weights == pytest.approx([0.754921, 0.245079], abs=6e-7)
    assert params.components.intercept == pytest.approx([8.678987, 1.415150], abs=6e-7)
    assert params.components.coef.ravel() == pytest.approx([-0.023344, 0.676596], abs=6e-7)
    assert params.components.sigma == pytest.approx([2.049315, 0.809389], abs=6e-7)


def test_carbon_dioxide_from_starts_of_its_own() -> None:
    mix = em.Mixture(2, em.LinearRegression(response=1), n_init=20, tol=1e-9, random_state=0, verbose=0).fit(COUNTRIES)
    assert mix.loglik_ == pytest.approx(-66.93977, abs=5e-6)
    order = np.argsort(mix.weights_)[::-1]
    # mixtools stops where a step gains 1e-8 nats, 2e-5 off
    assert mix.intercept_[order] == pytest.approx([8.678987, 1.415150], abs=2e-5)
    assert mix.coef_[order].ravel() == pytest.approx([-0.023344, 0.676596], abs=2e-6)


def test_patents_as_a_general_maximiser_finds_them(real_data: Path) -> None:
    """Patents and research spending of 70 companies (Wang, Cockburn and Puterman 1998), three Poisson regressions.

    No figure is in print for shares that do not depend on sales; the maximum is found by scipy, from coefficients
    near ours.
    """
    x = pd.read_csv(real_data / "small" / "flexmix_patent.csv")[["Patents", "lgRD"]].to_numpy(float)
    mix = em.Mixture(3, em.PoissonRegression(0), n_init=20, tol=1e-9, random_state=0, verbose=0).fit(x)

    def loss(v: np.ndarray) -> float:
        shares = np.append(v[:2], 0.0)
        shares = shares - np.log(np.exp(shares).sum())
        rates = np.exp(v[2:5] + x[:, [1]] * v[5:])
        return float(-np.log(np.exp(shares + stats.poisson.logpmf(x[:, [0]], rates)).sum(axis=1)).sum())

    shares = np.log(mix.weights_ / mix.weights_[2])[:2]
    near = np.concatenate([shares, mix.intercept_ + 0.1, mix.coef_.ravel() - 0.05])
    best = minimize(loss, near, method="BFGS", options={"gtol": 1e-7})
    assert mix.loglik_ == pytest.approx(-203.53321, abs=5e-6)
    assert -best.fun == pytest.approx(-203.53321, abs=5e-6)
    assert mix.coef_.ravel() == pytest.approx(best.x[5:], abs=1e-4)


# type of ship, years of construction and of operation, months of service, incidents of damage by waves
SHIPS = """
A 60 60 127 0, A 60 75 63 0, A 65 60 1095 3, A 65 75 1095 4, A 70 60 1512 6, A 70 75 3353 18, A 75 75 2244 11,
B 60 60 44882 39, B 60 75 17176 29, B 65 60 28609 58, B 65 75 20370 53, B 70 60 7064 12, B 70 75 13099 44,
B 75 75 7117 18, C 60 60 1179 1, C 60 75 552 1, C 65 60 781 0, C 65 75 676 1, C 70 60 783 6, C 70 75 1948 2,
C 75 75 274 1, D 60 60 251 0, D 60 75 105 0, D 65 60 288 0, D 65 75 192 0, D 70 60 349 2, D 70 75 1208 11,
D 75 75 2051 4, E 60 60 45 0, E 65 60 789 7, E 65 75 437 7, E 70 60 1157 5, E 70 75 2161 12, E 75 75 542 1
"""


def test_damage_to_ships() -> None:
    """What R's glm prints of McCullagh and Nelder (1989, section 6.3.2), with the offset log(months)."""
    kind, built, run, months, damage = np.array([row.split() for row in SHIPS.split(",")]).T
    columns: dict[str, np.ndarray] = {t: kind == t for t in "BCDE"}
    columns |= {f"built {year}": built == year for year in ("65", "70", "75")} | {"run 75": run == "75"}
    frame = pd.DataFrame(columns).astype(float).assign(months=months.astype(float), damage=damage.astype(float))
    mix = em.Mixture(1, em.PoissonRegression("damage", exposure="months"), tol=1e-9, verbose=0).fit(frame)
    assert mix.intercept_ == pytest.approx([-6.40590], abs=5e-6)
    theirs = [-0.54334, -0.68740, -0.07596, 0.32558, 0.69714, 0.81843, 0.45343, 0.38447]
    assert mix.coef_[0] == pytest.approx(theirs, abs=5e-6)
    assert mix.aic(frame) == pytest.approx(154.56, abs=5e-3)


def test_beetles_killed_by_carbon_disulphide() -> None:
    """What R's glm prints of Bliss (1935), in Dobson (2002, section 7.3)."""
    dose = [1.6907, 1.7242, 1.7552, 1.7842, 1.8113, 1.8369, 1.8610, 1.8839]
    exposed, killed = [59, 60, 62, 56, 63, 59, 62, 60], [6, 13, 18, 28, 52, 53, 61, 60]
    frame = pd.DataFrame({"dose": dose, "exposed": exposed, "killed": killed}).astype(float)
    mix = em.Mixture(1, em.LogisticRegression("killed", trials="exposed"), tol=1e-10, verbose=0).fit(frame)
    assert mix.intercept_ == pytest.approx([-60.717], abs=5e-4)
    assert mix.coef_[0] == pytest.approx([34.270], abs=5e-4)
    assert mix.aic(frame) == pytest.approx(41.43, abs=5e-3)
    found = mix.standard_errors(frame).set_index("parameter")["standard_error"]
    assert found["intercept"] == pytest.approx(5.181, abs=2e-3)
    assert found["coef"] == pytest.approx(2.912, abs=2e-3)
