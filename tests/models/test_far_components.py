"""Components that are narrow and far from the centre of the data keep their digits."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

import dask_em as em
from dask_em.distributions.gaussian import Gaussian
from dask_em.models.mixture import MixtureModel, MixtureParams

KINDS = ["full", "tied", "diag", "spherical"]


def two_far_clusters(d: int, apart: float, sd: float, n: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Rows, and the same rows with each cluster moved to the origin."""
    z = np.random.default_rng(0).normal(size=(2 * n, d)) * sd
    offset = np.repeat([0.0, apart], n)[:, None]
    x = z + offset
    return x, x - offset  # what rounding made of the rows


@pytest.mark.parametrize("reg_covar", [0.0, 1e-6])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 2, 3, 30])
@pytest.mark.parametrize(("apart", "sd"), [(6e8, 60.0), (6e10, 60.0), (1e5, 1e-2), (1.0, 1.0)])
def test_clusters_far_apart_have_their_own_covariance(
    kind: str, d: int, apart: float, sd: float, reg_covar: float
) -> None:
    x, near = two_far_clusters(d, apart, sd)
    if apart == 1.0:  # the whole far from the origin: the pivot goes along
        apart, (x, near) = 1e6, two_far_clusters(d, 1e6, 1.0)
        x = x + 1e8
    with warnings.catch_warnings():
        warnings.simplefilter("error", em.FitWarning)
        gm = em.GaussianMixture(
            2, covariance_type=kind, reg_covar=reg_covar, random_state=0, solver="em", verbose=0
        ).fit(x)
    own = [near[:2000], near[2000:]]
    full = [np.cov(z.T, bias=True).reshape(d, d) for z in own]
    order = np.argsort(gm.means_[:, 0])
    expected = {
        "full": np.array(full),
        "tied": np.mean(full, axis=0),
        "diag": np.array([np.diag(c) for c in full]),
        "spherical": np.array([np.trace(c) / d for c in full]),
    }[kind]
    got = gm.covariances_ if kind == "tied" else gm.covariances_[order]
    tolerance = 1e-8 + 4 * np.finfo(float).eps * np.abs(x).max() / sd
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * sd**2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_repeated_rows_far_away_are_still_a_collapse(kind: str, d: int) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([np.tile(rng.normal(size=d) + 1e7, (300, 1)), np.tile(rng.normal(size=d), (300, 1))])
    with pytest.warns(em.FitWarning, match="collapsed"):
        gm = em.GaussianMixture(2, covariance_type=kind, random_state=0, verbose=0).fit(x)
    assert gm.status_ == "degenerate"
    shapes = {"full": np.tile(np.eye(d), (2, 1, 1)), "tied": np.eye(d), "diag": np.ones((2, d)), "spherical": [1, 1]}
    start = {"means_init": x[[0, -1]], "weights_init": [0.5, 0.5], "precisions_init": shapes[kind]}
    with pytest.warns(em.FitWarning, match="collapsed"):
        gm = em.GaussianMixture(2, covariance_type=kind, reg_covar=0, verbose=0, **start).fit(x)
    assert gm.status_ == "degenerate"


# ---------------------------------------------------------------- sums about different points


def far_mixture(kind: str, d: int) -> tuple[MixtureModel, list[MixtureParams], np.ndarray]:
    x, _ = two_far_clusters(d, 1e4, 1.0, n=100)
    model = MixtureModel(2, Gaussian(kind, reg_covar=0)).about(x.mean(axis=0))  # type: ignore[arg-type]
    first = model.m_step(model.e_step([model.start(em.Chunk(x), np.random.default_rng(0))], em.Chunk(x))[0])
    here = model.m_step(model.e_step([first], em.Chunk(x))[0])
    v = model.to_vector(here)
    v[2 + 2 * d :] += 7.0
    wide = model.from_vector(v)
    there = MixtureParams(here.weights, replace(here.components, means=here.components.means + 0.5))
    return model, [here, there, wide], x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_sums_about_different_points_are_one_vector_space(kind: str, d: int) -> None:
    model, (here, there, wide), x = far_mixture(kind, d)
    a, b, c = (model.e_step([p], em.Chunk(x))[0] for p in (here, there, wide))
    assert a.components.center is not None
    assert b.components.center is not None
    assert c.components.center is None  # so wide that the pivot is not far
    for combined in (a + 0.5 * b - 0.25 * c, 0.5 * b + a - 0.25 * c, (-0.25) * c + 0.5 * b + a):
        for params in (here, there):
            parts = [model.expected_loglik(params, s) for s in (a, b, c)]
            assert model.expected_loglik(params, combined) == pytest.approx(np.dot([1, 0.5, -0.25], parts), rel=1e-7)
    back = (a + b - b).components.about(here.components.means)
    whole = a.components.about(here.components.means)
    np.testing.assert_allclose(back.second, whole.second, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(back.first, whole.first, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_sums_of_blocks_are_about_the_same_points(kind: str) -> None:
    model, (here, *_), x = far_mixture(kind, 3)
    parts = [model.e_step([here], em.Chunk(x[i : i + 50]))[0] for i in range(0, 200, 50)]
    total = parts[0] + parts[1] + parts[2] + parts[3]
    whole = model.e_step([here], em.Chunk(x))[0]
    assert np.array_equal(total.components.center, whole.components.center)
    np.testing.assert_allclose(total.components.second, whole.components.second, rtol=1e-12, atol=1e-9)


def test_only_far_components_pay() -> None:
    model, (here, *_), x = far_mixture("full", 3)
    near = MixtureModel(2, model.distribution.about(here.components.means[0] + 1))  # type: ignore[arg-type]
    sums = near.e_step([here], em.Chunk(x))[0].components
    assert np.array_equal(sums.center, [here.components.means[0] + 1, here.components.means[1]])


@pytest.mark.parametrize("far", [1e4, 1e5, 1e6])
@pytest.mark.parametrize("seed", range(3))
def test_one_row_far_away_hides_no_cluster(far: float, seed: int) -> None:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(5, 2)) * 4
    x = np.vstack([centers[rng.integers(0, 5, 5000)] + rng.normal(size=(5000, 2)), [[far, far]]])
    near = em.GaussianMixture(4, random_state=0, n_init=8, verbose=0).fit(x[:-1])
    gm = em.GaussianMixture(5, random_state=seed, verbose=0)
    with pytest.warns(em.FitWarning, match="collapsed"):  # onto that row
        gm.fit(x)
    others = np.argsort(gm.means_[:, 0])[:-1]
    order = np.argsort(near.means_[:, 0])
    np.testing.assert_allclose(gm.means_[others], near.means_[order], atol=0.02)
