"""Factors of rows with missing values: the generic proofs, and an obvious twin that goes row by row."""

from typing import Any

import dask.array as da
import numpy as np
import pytest
from scipy import stats

import dask_em as em
from dask_em.distributions.factors import FactorsParams
from dask_em.models.factors import FactorModel, FactorParams
from dask_em.testing import check_model

NAN = np.nan
MEAN = np.array([3.0, -1.0, 5.0, 2.0, 0.5])
LOADINGS = np.random.default_rng(3).normal(size=(5, 2))
PSI = np.array([0.5, 1.0, 1.5, 0.2, 0.8])
PARAMS = FactorParams(MEAN, LOADINGS, PSI)


def rows(n: int = 240, holes: float = 0.25, seed: int = 0) -> np.ndarray:
    """Rows of five columns; of the first row nothing is observed, the second is whole."""
    rng = np.random.default_rng(seed)
    x = MEAN + rng.normal(size=(n, 2)) @ LOADINGS.T + rng.normal(size=(n, 5)) * np.sqrt(PSI)
    x[rng.random(x.shape) < holes] = NAN
    x[0] = NAN
    x[1] = MEAN + 0.1
    return x


def chunks(x: np.ndarray, weighted: bool) -> list[em.Chunk]:
    w = np.random.default_rng(1).random(len(x)) if weighted else None
    return [em.Chunk(x[part], None if w is None else w[part]) for part in (slice(77), slice(77, None))]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_generic_proofs_hold_for_factor_analysis(weighted: bool, dtype: Any) -> None:
    proved = check_model(FactorModel(2).about(MEAN + 0.1), chunks(rows().astype(dtype), weighted))
    assert len(proved) == 11
    assert not [line for line in proved if line.startswith("not proved")]


@pytest.mark.parametrize("factors", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_generic_proofs_hold_for_a_mixture(factors: int, weighted: bool, dtype: Any) -> None:
    x = rows()
    x[120:] += 4
    model = em.MixtureModel(2, em.Factors(factors).about(np.full(5, 3.0)))
    proved = check_model(model, chunks(x.astype(dtype), weighted))
    assert len(proved) == 12
    assert not [line for line in proved if line.startswith("not proved")]


def twin(x: np.ndarray, weight: np.ndarray, mean: np.ndarray, a: np.ndarray, psi: np.ndarray) -> dict[str, Any]:
    """The sums row by row, from the joint normal of x and z alone: nothing of the library."""
    d, q = a.shape
    mu = np.concatenate([mean, np.zeros(q)])
    joint = np.block([[a @ a.T + np.diag(psi), a], [a.T, np.eye(q)]])
    moment, first, loglik = np.zeros((d + q, d + q)), np.zeros(d + q), np.zeros(len(x))
    for i, row in enumerate(x):
        o = np.flatnonzero(~np.isnan(row))
        m = np.setdiff1d(np.arange(d + q), o)
        slope = joint[np.ix_(m, o)] @ np.linalg.inv(joint[np.ix_(o, o)])
        y = np.empty(d + q)
        y[o] = row[o]
        y[m] = mu[m] + slope @ (row[o] - mean[o])
        left = np.zeros(joint.shape)
        left[np.ix_(m, m)] = joint[np.ix_(m, m)] - slope @ joint[np.ix_(o, m)]
        first += weight[i] * y
        moment += weight[i] * (np.outer(y, y) + left)
        if len(o):
            loglik[i] = stats.multivariate_normal(mean[o], joint[np.ix_(o, o)]).logpdf(row[o])
    return {
        "loglik": weight @ loglik,
        "first": first[:d],
        "square": np.diag(moment)[:d],
        "factors": first[d:],
        "factor_square": moment[d:, d:],
        "cross": moment[:d, d:],
        "each": loglik,
    }


@pytest.mark.parametrize("by", ["rows", "summary", "summaries"])
def test_the_sums_are_those_of_the_rows_one_by_one(by: str) -> None:
    x = rows()
    w = np.random.default_rng(2).random(len(x))
    model = FactorModel(2)
    data: Any = em.Chunk(x, w)
    if by == "summary":
        data = model.summary(data)
    elif by == "summaries":
        parts = [model.summary(em.Chunk(x[r], w[r])) for r in (slice(1), slice(1, 90), slice(90, None))]
        data = parts[0].merge(parts[1]).merge(parts[2]).close()
        assert data.weight == pytest.approx(w.sum(), rel=1e-14)
    sums = model.e_step([PARAMS], data)[0]
    expected = twin(x, w, MEAN, LOADINGS, PSI)
    assert sums.weight == pytest.approx(w.sum(), rel=1e-14)
    for name in ("loglik", "first", "square", "factors", "factor_square", "cross"):
        scale = np.abs(expected[name]).max()
        assert getattr(sums, name) == pytest.approx(expected[name], abs=1e-12 * scale, rel=0), name


def test_densities_and_factors_are_those_of_what_is_observed() -> None:
    x = rows(40)
    model = FactorModel(2)
    loglik, factors = (model.posteriors(PARAMS, x, want) for want in ("loglik", "factors"))
    assert loglik == pytest.approx(twin(x, np.ones(40), MEAN, LOADINGS, PSI)["each"], rel=1e-11)
    assert loglik[0] == 0  # of which nothing is observed
    assert factors[0] == pytest.approx([0, 0])
    for row, z in zip(x, factors, strict=True):
        o = ~np.isnan(row)
        a = LOADINGS[o]
        assert z == pytest.approx(a.T @ np.linalg.inv(a @ a.T + np.diag(PSI[o])) @ (row - MEAN)[o], abs=1e-12)


def test_the_sums_of_a_mixture_are_those_of_the_rows_one_by_one() -> None:
    x = rows()
    resp = np.random.default_rng(4).dirichlet([1, 1], size=len(x))
    params = FactorsParams(np.array([MEAN, MEAN + 2]), np.array([LOADINGS, LOADINGS[::-1]]), np.array([PSI, PSI[::-1]]))
    sums = em.Factors(2).expected_statistics(params, x, resp)
    density = em.Factors(2).log_density(params, x)
    for k in range(2):
        expected = twin(x, resp[:, k], params.means[k], params.loadings[k], params.noise_variances[k])
        assert density[:, k] == pytest.approx(expected["each"], rel=1e-11)
        for name in ("first", "square", "factors", "factor_square", "cross"):
            scale = np.abs(expected[name]).max()
            assert getattr(sums, name)[k] == pytest.approx(expected[name], abs=1e-12 * scale, rel=0), name
    assert sums.counts == pytest.approx(resp.sum(axis=0))


@pytest.mark.parametrize("mixture", [False, True])
def test_where_nothing_is_missing_holes_change_nothing(mixture: bool) -> None:
    """A row of which nothing is observed says nothing: all but its weight is as without it."""
    x = rows(holes=0.0)[1:]
    nothing = np.full((1, 5), NAN)
    model: Any = FactorModel(2)
    params: Any = PARAMS
    if mixture:
        model = em.MixtureModel(1, em.Factors(2))
        params = em.models.mixture.MixtureParams(np.ones(1), FactorsParams(MEAN[None], LOADINGS[None], PSI[None]))
    without, with_it = (model.e_step([params], em.Chunk(part))[0] for part in (x, np.concatenate([x, nothing])))
    assert with_it.loglik == pytest.approx(without.loglik, rel=1e-13)
    assert with_it.weight == without.weight + 1
    own = (without, with_it) if not mixture else (without.components, with_it.components)
    cross = np.squeeze(own[1].cross) - np.squeeze(own[0].cross)
    assert cross == pytest.approx(LOADINGS, abs=1e-9)  # E[x zᵀ] of the marginal
    square = np.squeeze(own[1].square) - np.squeeze(own[0].square)
    assert square == pytest.approx(MEAN**2 + (LOADINGS**2).sum(axis=1) + PSI, abs=1e-9)


def test_a_saturated_fit_is_the_unrestricted_gaussian() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 1)) * [0.9, 0.8, 0.7] + rng.normal(size=(2000, 3)) * [0.44, 0.6, 0.71] + 10
    x[rng.random(x.shape) < 0.2] = NAN
    fa = em.FactorAnalysis(1, tol=1e-9, verbose=0).fit(x)
    free = em.GaussianImputer(tol=1e-9, random_state=0, verbose=0).fit(x)
    assert (fa.status_, fa.n_passes_) == ("converged", 1)
    assert fa.loglik_ == pytest.approx(free.loglik_, abs=1e-7)
    assert fa.mean_ == pytest.approx(free.mean_, abs=1e-5)
    assert fa.get_covariance() == pytest.approx(free.covariance_, abs=1e-4)
    mix = em.Mixture(1, em.Factors(1), tol=1e-9, random_state=0, verbose=0).fit(x)
    assert mix.loglik_ == pytest.approx(free.loglik_, abs=1e-6)


def test_more_patterns_than_a_summary_holds_are_read_again() -> None:
    rng = np.random.default_rng(0)
    d = 60  # 64 MiB are 4,450 patterns
    loadings = rng.normal(size=(d, 2))
    x = rng.normal(size=(6000, 2)) @ loadings.T + rng.normal(size=(6000, d))
    x[rng.random(x.shape) < 0.1] = NAN
    fa = em.FactorAnalysis(2, tol=1e-5, sample_bytes=500_000, verbose=0).fit(da.from_array(x, chunks=(1000, d)))
    assert fa.status_ == "converged"
    assert fa.n_passes_ > 1
    few = em.FactorAnalysis(2, tol=1e-5, verbose=0).fit(x)
    assert fa.loglik_ == pytest.approx(few.loglik_, abs=1e-4)
    assert fa.get_covariance() == pytest.approx(loadings @ loadings.T + np.eye(d), abs=0.35)
