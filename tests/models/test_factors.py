"""Mixtures of factor analysers: the generic proofs, densities, clusters in hundreds of columns."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import dask_em as em
from dask_em.distributions.factors import FactorsParams
from dask_em.models.mixture import MixtureParams
from dask_em.testing import check_model


def rows(n: int = 300) -> np.ndarray:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    centres, loadings = rng.normal(size=(2, 4)) * 2, rng.normal(size=(2, 4))
    return 5 + centres[labels] + rng.normal(size=(n, 1)) * loadings[labels] + 0.7 * rng.normal(size=(n, 4))


@pytest.mark.parametrize("factors", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_generic_proofs_hold(factors: int, weighted: bool, dtype: Any) -> None:
    x = rows().astype(dtype)
    w = np.random.default_rng(1).random(len(x)) if weighted else None
    chunks = [em.Chunk(x[part], None if w is None else w[part]) for part in (slice(77), slice(77, None))]
    model = em.MixtureModel(2, em.Factors(factors).about(np.full(4, 5.0)))
    proved = check_model(model, chunks)
    assert len(proved) == 12
    assert not [line for line in proved if line.startswith("not proved")]


PARAMS = FactorsParams(
    np.array([[5.0, 4, 3, 2], [6.0, 5, 5, 5]]),
    np.random.default_rng(3).normal(size=(2, 4, 2)),
    np.array([[0.5, 1.0, 1.5, 0.2], [1.0, 1.0, 0.3, 0.4]]),
)


def test_densities_are_those_of_scipy() -> None:
    x = rows()
    expected = [
        stats.multivariate_normal(m, a @ a.T + np.diag(psi)).logpdf(x)
        for m, a, psi in zip(PARAMS.means, PARAMS.loadings, PARAMS.noise_variances, strict=True)
    ]
    assert em.Factors(2).log_density(PARAMS, x) == pytest.approx(np.array(expected).T, rel=1e-11)


def test_expected_factors_are_those_of_the_joint_normal() -> None:
    x = rows(50)
    resp = np.random.default_rng(4).dirichlet([1, 1], size=50)
    sums = em.Factors(2).expected_statistics(PARAMS, x, resp)
    for k in range(2):
        a = PARAMS.loadings[k]
        precision = np.linalg.inv(a @ a.T + np.diag(PARAMS.noise_variances[k]))
        z = (x - PARAMS.means[k]) @ precision @ a
        second = sum(r * (np.eye(2) - a.T @ precision @ a + np.outer(f, f)) for r, f in zip(resp[:, k], z, strict=True))
        assert sums.factors[k] == pytest.approx(resp[:, k] @ z, rel=1e-10)
        assert sums.factor_square[k] == pytest.approx(second, rel=1e-10)
        assert sums.cross[k] == pytest.approx((resp[:, k][:, None] * x).T @ z, rel=1e-10)


def test_one_component_is_factor_analysis() -> None:
    rng = np.random.default_rng(5)
    x = 2 + rng.normal(size=(2000, 1)) * np.linspace(0.5, 1.5, 6) + rng.normal(size=(2000, 6))
    fa = em.FactorAnalysis(1, tol=1e-8, verbose=0).fit(x)
    mix = em.Mixture(1, em.Factors(1), tol=1e-8, random_state=0, verbose=0).fit(x)
    assert mix.loglik_ == pytest.approx(fa.loglik_, abs=1e-5)
    assert mix.bic(x) == pytest.approx(fa.bic(x), abs=1e-4)
    assert mix.noise_variances_[0] == pytest.approx(fa.noise_variance_, rel=1e-3)


def test_clusters_in_two_hundred_columns_are_found_and_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    k, d, q, n = 4, 200, 3, 3000
    truth = FactorsParams(0.35 * rng.normal(size=(k, d)), rng.normal(size=(k, d, q)), rng.uniform(0.5, 2, size=(k, d)))
    model = em.MixtureModel(k, em.Factors(q))
    x, labels = model.sample(MixtureParams(np.full(k, 0.25), truth), n, rng)
    mix = em.Mixture(k, em.Factors(q), random_state=0, verbose=0).fit(x)
    found = mix.predict(x)
    table = np.array([[np.sum((labels == i) & (found == j)) for j in range(k)] for i in range(k)])
    assert table.max(axis=1).sum() / n > 0.99
    assert sorted(table.argmax(axis=1)) == [0, 1, 2, 3]
    assert mix.status_ == "converged"
    own = table.argmax(axis=1)
    assert mix.noise_variances_[own] == pytest.approx(truth.noise_variances, rel=0.4)
    mix.save(tmp_path / "mix.safetensors")
    assert np.array_equal(em.load(tmp_path / "mix.safetensors").predict_proba(x), mix.predict_proba(x))


def test_noise_that_vanishes_is_held_at_its_floor_and_said() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 4))
    x[:, 1] = x[:, 0]
    with pytest.warns(em.FitWarning, match="a column whose noise is at its floor of 0.001 of the range"):
        mix = em.Mixture(1, em.Factors(1), random_state=0, verbose=0).fit(x)
    lowest = (1e-3 * np.ptp(x, axis=0)) ** 2
    assert (mix.noise_variances_ >= lowest * (1 - 1e-12)).all()


def test_a_component_without_rows_takes_what_all_have() -> None:
    x = rows(100)
    resp = np.column_stack([np.ones(100), np.zeros(100)])
    found = em.Factors(2).estimate(em.Factors(2).expected_statistics(PARAMS, x, resp))
    assert found.means[1] == pytest.approx(x.mean(axis=0))
    assert found.noise_variances[1] == pytest.approx(x.var(axis=0))
    assert not found.loadings[1].any()


@pytest.mark.parametrize("bad", [{"n_factors": 0}, {"n_factors": 1.5}, {"floor": 0.0}])
def test_hyperparameters_are_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(em.ConfigurationError, match=next(iter(bad))):
        em.Factors(**bad)
