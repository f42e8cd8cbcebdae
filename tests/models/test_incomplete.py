"""One Gaussian of rows with holes: its steps, its one read, and what it says is missing."""

from typing import Any

import numpy as np
import pytest

import dask_em as em
from dask_em.distributions import gaussian_summary
from dask_em.distributions.gaussian import GaussianParams
from dask_em.distributions.gaussian_conditionals import conditionals
from dask_em.distributions.gaussian_imputation import imputed
from dask_em.testing import check_model


def rows(n: int = 400, d: int = 4, share: float = 0.25, far: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d)) @ (np.eye(d) + 0.5 * rng.normal(size=(d, d))) + far + 3 * rng.normal(size=d)
    x[rng.random(x.shape) < share] = np.nan
    x[3] = np.nan
    return x


def some_params(d: int = 4) -> GaussianParams:
    rng = np.random.default_rng(1)
    a = rng.normal(size=(d, d))
    return em.Gaussian().from_moments(rng.normal(size=(1, d)), (a @ a.T + 0.1 * np.eye(d))[None])


@pytest.mark.parametrize("share", [0.0, 0.25])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_model_is_proved(share: float, weighted: bool, dtype: Any) -> None:
    x = rows(90, share=share)
    x = x[~np.isnan(x).all(axis=1)] if share == 0 else x
    x = x.astype(dtype)
    w = np.random.default_rng(1).random(len(x)) if weighted else None
    model = em.IncompleteGaussian().about(np.nanmean(x, axis=0))
    proved = check_model(model, [em.Chunk(x[a:b], None if w is None else w[a:b]) for a, b in ((0, 41), (41, len(x)))])
    assert len(proved) == 11
    assert not [line for line in proved if line.startswith("not proved")]


@pytest.mark.parametrize("far", [0.0, 1e6])
def test_the_summary_says_what_the_rows_say(far: float) -> None:
    x = rows(far=far)
    w = np.random.default_rng(2).integers(0, 3, len(x)).astype(float)
    model = em.IncompleteGaussian().about(np.nanmean(x, axis=0))
    params = model.start(em.Chunk(x, w), np.random.default_rng(0))
    parts = [model.summary(em.Chunk(x[a:b], w[a:b])) for a, b in ((0, 1), (1, 90), (90, 400))]
    of_summary = model.e_step([params], parts[0].merge(parts[1]).merge(parts[2]).close())[0]
    of_rows = model.e_step([params], em.Chunk(x, w))[0]
    assert of_summary.weight == of_rows.weight == w.sum()
    assert of_summary.loglik == pytest.approx(of_rows.loglik, rel=1e-9)
    a, b = (model.m_step(s) for s in (of_summary, of_rows))
    assert a.means == pytest.approx(b.means, rel=1e-9)
    assert a.covariances == pytest.approx(b.covariances, rel=1e-7)


def fitted(x: Any, **settings: Any) -> em.FitResult:
    return em.fit(em.IncompleteGaussian(), x, **{"tol": 1e-9, "sample_bytes": 4000, "verbose": 0, **settings})


def test_data_beyond_the_sample_is_read_once() -> None:
    x = rows(3000)
    result = fitted(x)
    assert (result.n_passes, result.status) == (1, "converged")
    model = em.IncompleteGaussian().about(result.params.means[0])
    stats = model.e_step([result.params], em.Chunk(x))[0]
    assert stats.total_loglik == pytest.approx(result.loglik, rel=1e-12)
    again = model.m_step(stats)  # the maximum is a fixed point
    assert again.means == pytest.approx(result.params.means, abs=1e-5)
    assert again.covariances == pytest.approx(result.params.covariances, abs=1e-5)


def test_too_many_patterns_are_passed_over_and_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows(3000)
    once = fitted(x)
    monkeypatch.setattr(gaussian_summary, "_BYTES", 100)
    often = fitted(x)
    assert often.n_passes > 1
    assert often.params.means == pytest.approx(once.params.means, abs=1e-4)
    assert often.loglik == pytest.approx(once.loglik, abs=1e-6)


def test_whole_rows_take_one_step() -> None:
    x = rows(3000, share=0.0)[4:]
    result = fitted(x)
    assert result.n_passes == 1
    assert result.params.means[0] == pytest.approx(x.mean(axis=0), rel=1e-12)
    assert result.params.covariances[0] == pytest.approx(np.cov(x.T, bias=True), rel=1e-10)
    model = em.IncompleteGaussian().about(x.mean(axis=0))
    start = model.start(em.Chunk(x[:50]), np.random.default_rng(5))
    step = model.m_step(model.e_step([start], em.Chunk(x))[0])
    assert step.covariances[0] == pytest.approx(np.cov(x.T, bias=True), rel=1e-10)


def test_reg_covar_is_the_least_variance_in_any_direction() -> None:
    x = rows(500, share=0.0)[4:]
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    least = float(values[1]) * 1.1
    result = em.fit(em.IncompleteGaussian(reg_covar=least), x, tol=1e-9, verbose=0)
    expected = vectors * np.maximum(values, least) @ vectors.T
    assert result.params.covariances[0] == pytest.approx(expected, rel=1e-9)


# ---------------------------------------------------------------- what is missing


def twin(params: GaussianParams, row: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Missing columns of a row, their conditional mean and covariance, by the textbook."""
    mu, c = params.means[0], params.covariances[0]
    m, o = np.flatnonzero(np.isnan(row)), np.flatnonzero(~np.isnan(row))
    slope = c[np.ix_(m, o)] @ np.linalg.inv(c[np.ix_(o, o)])
    return m, mu[m] + slope @ (row[o] - mu[o]), c[np.ix_(m, m)] - slope @ c[np.ix_(o, m)]


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_imputed_values_are_the_textbooks(share: float) -> None:
    params, x = some_params(), rows(share=share)
    got = imputed(params, x)
    for row, filled in zip(x, got, strict=True):
        missing, mean, _ = twin(params, row)
        assert filled[missing] == pytest.approx(mean, abs=1e-9)
    assert np.array_equal(got[~np.isnan(x)], x[~np.isnan(x)])
    assert got[3] == pytest.approx(params.means[0])  # of which nothing is observed


def test_the_spread_of_draws_is_the_textbooks() -> None:
    params = some_params(5)
    row = np.zeros(5)
    for missing in ([2], [0, 4], [1, 2, 3], [0, 1, 2, 3, 4]):
        holed = row.copy()
        holed[missing] = np.nan
        known = conditionals(params.precisions_cholesky[0], np.array([missing]))
        variance = known.spread[0] @ known.spread[0].T
        assert variance == pytest.approx(twin(params, holed)[2], rel=1e-9)
        assert -known.log_det[0] == pytest.approx(np.linalg.slogdet(variance)[1])
        assert not known.slope[0][:, missing].any()


def test_draws_take_the_noise_they_are_given() -> None:
    params, x = some_params(), rows()
    seen = []

    def noise(at: np.ndarray, columns: np.ndarray) -> np.ndarray:
        assert np.isnan(x[at[:, None], columns]).all()
        seen.append((at[:, None] * 4 + columns).ravel())
        return np.zeros(columns.shape)

    assert np.array_equal(imputed(params, x, noise), imputed(params, x))
    asked = np.concatenate(seen)
    assert np.array_equal(np.sort(asked), np.flatnonzero(np.isnan(x).ravel()))  # every hole once


@pytest.mark.parametrize("dtype, kept", [(np.float32, np.float32), (np.float64, np.float64), (np.int16, np.float64)])
def test_rows_keep_their_precision(dtype: Any, kept: Any) -> None:
    x = rows() if np.dtype(dtype).kind == "f" else np.arange(8).reshape(2, 4)
    x = x.astype(dtype)
    got = imputed(some_params(), x)
    assert got.dtype == kept
    own = ~np.isnan(x)
    assert np.array_equal(got[own], x[own])
    assert not np.isnan(got).any()


def test_rows_split_anywhere_are_filled_the_same() -> None:
    params, x = some_params(), rows(5000, share=0.4)
    parts = np.concatenate([imputed(params, x[a:b]) for a, b in ((0, 7), (7, 3000), (3000, 5000))])
    assert np.array_equal(parts, imputed(params, x))


# ---------------------------------------------------------------- what cannot be fitted


@pytest.mark.parametrize(
    "x, complaint",
    [
        ([[1.0, 2.0]], "n_samples=1 row"),
        ([[1.0, 2.0], [1.0, 3.0], [np.nan, 4.0]], "column 0 is 1 wherever it is observed"),
        ([[1.0, 2.0], [2.0, 3.0]], "2 rows of 2 columns have a covariance matrix without an inverse"),
        ([[1.0, np.nan], [2.0, np.nan], [3.0, np.nan]], "column 1 has no value in any of 3 rows"),
    ],
)
def test_what_cannot_be_fitted_is_a_sentence(x: Any, complaint: str) -> None:
    with pytest.raises(em.DaskEMError, match=complaint):
        em.fit(em.IncompleteGaussian(), np.array(x), verbose=0)


def test_columns_that_determine_others_end_the_fit_with_a_sentence() -> None:
    x = np.c_[np.arange(50.0), 3 * np.arange(50.0) + 1]
    result = em.fit(em.IncompleteGaussian(), x, verbose=0)
    assert result.status == "degenerate"
    assert "some columns are determined by others; set reg_covar" in result.message
    held = em.fit(em.IncompleteGaussian(reg_covar=1e-6), x, verbose=0)
    assert held.params.covariances[0, 0, 0] == pytest.approx(x[:, 0].var() + 1e-6)


def test_too_many_columns_are_refused_in_time() -> None:
    with pytest.raises(em.ConfigurationError, match="GiB, more than half of this machine"):
        em.fit(em.IncompleteGaussian(), np.broadcast_to(np.zeros(1), (3, 200_000)), verbose=0)


def test_a_bad_reg_covar_is_refused() -> None:
    with pytest.raises(em.ConfigurationError, match="reg_covar=-1"):
        em.IncompleteGaussian(-1)
