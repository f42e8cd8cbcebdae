"""The Gaussian mixture as a model: what solvers do with its sums, vectors and scales."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dask_em as em
from dask_em.distributions.gaussian import Gaussian
from dask_em.distributions.gaussian_factors import inverse_lower, precisions_cholesky
from dask_em.models.mixture import MixtureModel, MixtureParams, MixtureStatistics
from dask_em.testing import check_model

KINDS = ["full", "tied", "diag", "spherical"]


def blobs(k: int = 3, d: int = 3, n: int = 200, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(k, d, d)) / 2 + np.eye(d)
    return np.concatenate([rng.normal(size=(n, d)) @ a + 4 * rng.normal(size=d) for a in mixing])


def fitted(kind: str, k: int = 3, d: int = 3) -> tuple[MixtureModel, MixtureParams, MixtureStatistics]:
    """A model, parameters, and the sums that those parameters are the M-step of."""
    x = blobs(k, d)
    model = MixtureModel(k, Gaussian(kind, reg_covar=0)).about(x.mean(axis=0))  # type: ignore[arg-type]
    stats = model.e_step([model.start(em.Chunk(x), np.random.default_rng(0))], em.Chunk(x))[0]
    return model, model.m_step(stats), stats


@pytest.mark.parametrize("kind", KINDS)
def test_the_generic_proofs_hold(kind: str) -> None:
    x = blobs()
    model = MixtureModel(3, Gaussian(kind, reg_covar=0))  # type: ignore[arg-type]
    assert len(check_model(model, [em.Chunk(x[:170]), em.Chunk(x[170:])])) == 12


# ---------------------------------------------------------------- sums that no rows have


@pytest.mark.parametrize("kind", KINDS)
def test_a_negative_count_is_refused(kind: str) -> None:
    model, _, stats = fitted(kind)
    counts = stats.counts.copy()
    counts[1] = -0.5
    wrong = replace(stats, counts=counts, components=replace(stats.components, counts=counts))
    with pytest.raises(em.DegenerateError, match="component 1 has a count of -0.5 of"):
        model.m_step(wrong)
    with pytest.raises(em.DegenerateError, match="component 1 has a count"):
        model.distribution.estimate(wrong.components)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reg_covar", [0.0, 1e-6])
def test_a_negative_variance_is_refused(kind: str, reg_covar: float) -> None:
    model, _, stats = fitted(kind)
    wrong = replace(stats.components, second=-0.1 * stats.components.second)
    with pytest.raises(em.DegenerateError):
        replace(model.distribution, reg_covar=reg_covar).estimate(wrong)


def test_a_matrix_that_is_no_covariance_is_refused_by_its_component() -> None:
    model, _, stats = fitted("full")
    second = stats.components.second.copy()
    second[2, 1] += 100 * stats.counts[2]  # a covariance of two columns, beyond what their variances allow
    with pytest.raises(em.DegenerateError, match="the covariance of component 2 is not positive definite"):
        model.distribution.estimate(replace(stats.components, second=second))


def test_values_that_are_not_finite_are_refused_by_their_component() -> None:
    for kind, shape in {"full": (2, 2), "diag": (2,)}.items():
        covariances = np.ones((3, *shape)) + (np.eye(2) if kind == "full" else 0)
        for bad in (np.nan, np.inf):
            covariances[1] = bad
            with pytest.raises(em.DegenerateError, match="component 1"):
                precisions_cholesky(covariances, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_component_without_weight_is_no_error_and_has_the_moments_of_all_rows(kind: str) -> None:
    x = blobs()
    model = MixtureModel(2, Gaussian(kind, reg_covar=0)).about(x.mean(axis=0))  # type: ignore[arg-type]
    resp = np.stack([np.ones(len(x)), np.zeros(len(x))], axis=1)
    sums = model.distribution.statistics(x, resp)
    params = model.m_step(MixtureStatistics(float(len(x)), 0.0, resp.sum(axis=0), sums))
    assert params.weights.tolist() == [1.0, 0.0]
    assert params.components.means[1] == pytest.approx(x.mean(axis=0))
    rounding = np.array([len(x), -1e-14 * len(x)])
    assert model.m_step(MixtureStatistics(float(len(x)), 0.0, rounding, sums)).weights.tolist() == [1.0, 0.0]


# ---------------------------------------------------------------- vectors


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d"), [(1, 1), (1, 4), (3, 1), (3, 2), (6, 3), (2, 20)])
def test_a_vector_says_how_many_columns_it_has(kind: str, k: int, d: int) -> None:
    rng = np.random.default_rng(0)
    gaussian = Gaussian(kind, reg_covar=0.0)  # type: ignore[arg-type]
    vector = rng.normal(size=gaussian.n_parameters(k, d))
    params = gaussian.from_vector(vector, k)
    assert params.means.shape == (k, d)
    np.testing.assert_allclose(gaussian.to_vector(params), vector, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="no number of columns"):
        gaussian.from_vector(vector[: k + 1], k + 1)


def test_any_vector_is_a_mixture_however_narrow() -> None:
    """L Lᵀ of this L is not positive definite in float64, and need not be: L is known."""
    gaussian = Gaussian("full", reg_covar=0)
    vector = np.concatenate([np.zeros(2), [10.0, np.exp(10.0), -30.0]])
    params = gaussian.from_vector(vector, 1)
    np.testing.assert_allclose(gaussian.to_vector(params), vector, rtol=1e-12)
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.cholesky(params.covariances)


def test_triangles_are_inverted_to_the_last_digits_whatever_their_condition() -> None:
    rng = np.random.default_rng(0)
    lower = np.tril(rng.normal(size=(4, 9, 9))) * np.geomspace(1e-9, 1e6, 9)[:, None]
    identity = inverse_lower(lower) @ lower
    bound = np.abs(inverse_lower(lower)) @ np.abs(lower)
    assert (np.abs(identity - np.eye(9)) <= 1e-14 * bound).all()


def test_a_component_without_weight_stays_without_it_on_the_way_through_vectors() -> None:
    model, params, _ = fitted("diag")
    dead = MixtureParams(np.array([0.4, 0.0, 0.6]), params.components)
    near = MixtureParams(np.array([0.5, 0.0, 0.5]), params.components)
    v, w = model.to_vector(dead), model.to_vector(near)
    assert np.isfinite(v).all()
    assert v[1] >= -50
    assert model.from_vector(v).weights.tolist() == pytest.approx([0.4, 0.0, 0.6], abs=1e-15)
    beyond = model.from_vector(v + 3 * (w - v))
    assert beyond.weights[1] == 0
    assert beyond.weights.sum() == pytest.approx(1)


# ---------------------------------------------------------------- the scale of vectors


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d"), [(1, 1), (3, 1), (3, 3), (2, 4)])
def test_scales_are_the_information_of_one_row(kind: str, k: int, d: int) -> None:
    model, params, stats = fitted(kind, k, d)
    v, scale = model.to_vector(params), model.vector_scale(params)
    assert scale.shape == v.shape

    def curvature(direction: np.ndarray) -> float:
        h = 1e-3 / max(float(scale @ np.abs(direction)), 1e-9)
        values = [model.expected_loglik(model.from_vector(v + s * h * direction), stats) for s in (-2, -1, 0, 1, 2)]
        return float(np.dot([1, -16, 30, -16, 1], values) / (12 * h * h * stats.weight))

    for i in range(k, len(v)):
        assert curvature(np.eye(len(v))[i]) == pytest.approx(scale[i] ** 2, rel=1e-5), i
    # log weights are tied to each other: along what keeps their sum, the scales say all
    change = np.random.default_rng(1).normal(size=k)
    change -= params.weights @ change
    whole = np.concatenate([change, np.zeros(len(v) - k)])
    assert curvature(whole) == pytest.approx((scale[:k] ** 2) @ change**2, rel=1e-5, abs=1e-7)


# ---------------------------------------------------------------- files


def test_a_checkpoint_needs_no_estimator(tmp_path: Path) -> None:
    code = (
        "import numpy as np, dask_em as em\n"
        "x = np.random.default_rng(0).normal(size=(200, 2))\n"
        f"em.fit(em.MixtureModel(2, em.Gaussian()), x, checkpoint={str(tmp_path / 'c.safetensors')!r}, max_passes=3, "
        "verbose=0)\n"
    )
    for _ in range(2):  # written, then read
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_no_way_leads_to_variances_below_reg_covar(kind: Any) -> None:
    """An extrapolation may ask for them; likelihoods there are higher than any M-step reaches."""
    x = np.random.default_rng(0).normal(size=(300, 3))
    model = em.MixtureModel(2, em.Gaussian(kind, reg_covar=1e-3))
    params = model.start(em.Chunk(x), np.random.default_rng(0))
    vector = model.to_vector(params)
    same = model.from_vector(vector)
    assert same.components.covariances == pytest.approx(params.components.covariances, rel=1e-12, abs=1e-12)
    low = vector.copy()
    low[-1] -= 30.0  # the last log variance, or log of an entry of the last factor's diagonal
    found = model.from_vector(low).components
    c, u = found.covariances, found.precisions_cholesky
    if kind in ("full", "tied"):
        assert np.linalg.eigvalsh(c).min() == pytest.approx(1e-3)
        assert np.linalg.inv(c) == pytest.approx(u @ np.swapaxes(u, -1, -2))
    else:
        assert c.min() == pytest.approx(1e-3)
        assert u == pytest.approx(c**-0.5)


@pytest.mark.parametrize("kind", ["full", "diag", "spherical"])
@pytest.mark.parametrize("seed", range(3))
def test_a_row_far_away_takes_one_component_and_spoils_none(kind: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(4, 3)) * 4)[rng.integers(4, size=3000)] + rng.normal(size=(3000, 3))
    far = np.vstack([x, np.full((1, 3), 1e7)])
    whole = em.GaussianMixture(4, covariance_type=kind, random_state=0, verbose=0).fit(x)
    with pytest.warns(em.FitWarning, match="collapsed onto the point"):
        gm = em.GaussianMixture(5, covariance_type=kind, random_state=0, verbose=0).fit(far)
    c = gm.covariances_
    assert (np.linalg.eigvalsh(c) if kind == "full" else c).min() > 1e-6 * (1 - 1e-9)
    own = gm.score_samples(far)[:-1].sum()  # the far row's component has a share of one row, which costs them a nat
    assert own == pytest.approx(whole.loglik_ - 1, abs=1.0)
