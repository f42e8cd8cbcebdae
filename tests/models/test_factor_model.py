"""Factor analysis: the generic proofs, moments and densities against their obvious twins."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

import dask_em as em
from dask_em.kernels.second_moments import SecondMoments
from dask_em.models.factors import FactorModel, FactorParams
from dask_em.testing import check_model


def rows(n: int = 300, d: int = 5, q: int = 2, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(d, q))
    return 3 + rng.normal(size=(n, q)) @ loadings.T + rng.normal(size=(n, d)) * rng.uniform(0.5, 1.5, size=d)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("about", [False, True])
def test_the_generic_proofs_hold(weighted: bool, dtype: Any, about: bool) -> None:
    x = rows().astype(dtype)
    w = np.random.default_rng(1).random(len(x)) if weighted else None
    chunks = [em.Chunk(x[part], None if w is None else w[part]) for part in (slice(77), slice(77, None))]
    model = FactorModel(2).about(np.full(5, 3.1)) if about else FactorModel(2)
    proved = check_model(model, chunks)
    assert len(proved) == 11
    assert not [line for line in proved if line.startswith("not proved")]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16])
def test_second_moments_are_those_of_numpy_far_from_zero_too(weighted: bool, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x = (20 * rng.normal(size=(1001, 300)) + 9000).astype(dtype)
    w = rng.integers(0, 4, size=len(x)).astype(np.float64) if weighted else None
    parts = [em.Chunk(x[r], None if w is None else w[r]) for r in (slice(3), slice(3, 700), slice(700, None))]
    found = SecondMoments.of(parts[0]).merge(SecondMoments.of(parts[1])).merge(SecondMoments.of(parts[2])).close()
    exact = x.astype(np.float64)
    assert found.weight == (len(x) if w is None else w.sum())
    assert found.mean == pytest.approx(np.average(exact, axis=0, weights=w), rel=1e-14)
    assert np.allclose(found.covariance, np.cov(exact.T, bias=True, aweights=w), rtol=1e-11, atol=1e-9)


def test_the_summary_answers_as_the_rows_do() -> None:
    x = rows()
    model = FactorModel(2)
    params = model.start(em.Chunk(x), np.random.default_rng(0))
    by_rows, by_summary = (model.e_step([params], data)[0] for data in (em.Chunk(x), model.summary(em.Chunk(x))))
    assert np.array_equal(by_rows.cross, by_summary.cross)
    covariance = params.loadings @ params.loadings.T + np.diag(params.psi)
    density = stats.multivariate_normal(params.mean, covariance)
    assert by_rows.loglik == pytest.approx(density.logpdf(x).sum(), rel=1e-12)
    assert model.posteriors(params, x, "loglik") == pytest.approx(density.logpdf(x), rel=1e-11)


def test_factors_of_a_row_are_those_of_the_joint_normal() -> None:
    x = rows(7)
    params = FactorParams(np.full(5, 3.0), np.random.default_rng(3).normal(size=(5, 2)), np.linspace(0.5, 1.5, 5))
    covariance = params.loadings @ params.loadings.T + np.diag(params.psi)
    expected = (x - 3.0) @ np.linalg.solve(covariance, params.loadings)
    assert FactorModel(2).posteriors(params, x, "factors") == pytest.approx(expected, rel=1e-11)


def test_a_heywood_case_is_held_at_the_floor_and_said() -> None:
    # r01 r02 / r12 > 1: no share of the first column's variance is that large
    correlation = np.array([[1, 0.8, 0.8], [0.8, 1, 0.5], [0.8, 0.5, 1]])
    x = np.random.default_rng(0).multivariate_normal(np.zeros(3), correlation, size=2000)
    result = em.fit(FactorModel(1), x, verbose=0, tol=1e-8)
    assert result.params.psi[0] == pytest.approx(0.005 * x[:, 0].var(), rel=1e-6)
    assert result.status == "degenerate"
    assert result.message.startswith("Heywood case: the noise of 1 column (0) is at its floor of 0.005 of the variance")


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (np.ones((1, 3)), "n_samples=1 row"),
        (np.column_stack([np.arange(9.0), np.full(9, 2.0), np.arange(9.0) ** 2]), "column 1 is 2 in all 9 rows"),
        (np.random.default_rng(0).normal(size=(9, 2)), "n_components=3 factors are more than the 2 columns"),
    ],
)
def test_data_without_factors_are_refused(x: np.ndarray, said: str) -> None:
    with pytest.raises(em.DataError, match=said):
        em.fit(FactorModel(3), x, verbose=0)
