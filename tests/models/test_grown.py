"""Starts made of a smaller mixture: what fewer components reached is where more of them begin."""

from typing import Any

import numpy as np
import pytest

import dask_em as em
from dask_em.models.splitting import Split, divided, ways_to_split


def crowd(seed: int) -> np.ndarray:
    """Fifteen clusters of unequal size and shape, in which starts drawn at random are lost."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(100, 1500, size=15)
    shapes = rng.normal(size=(15, 2, 2)) * rng.uniform(0.05, 1.5, size=(15, 1, 1))
    parts = [rng.normal(size=(n, 2)) @ a + rng.normal(size=2) * 4 for n, a in zip(sizes, shapes, strict=True)]
    return np.concatenate(parts)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("grid", [range(1, 13), [12, 1, 6, 3]])
def test_more_components_are_never_far_below_fewer(grid: Any, seed: int) -> None:
    gm = em.GaussianMixture(random_state=seed, n_init=1, verbose=0)
    table = em.select(gm, crowd(seed), criterion="icl", n_components=grid).table_
    assert list(table["n_components"]) == list(grid)
    logliks = table.sort_values("n_components")["loglik"].to_numpy()
    assert (np.diff(logliks) > -1.0).all()


def test_each_has_the_shape_of_the_larger_mixture_and_the_smaller_ones_likelihood() -> None:
    x = crowd(0)
    rng = np.random.default_rng(0)
    small, large = (em.MixtureModel(k, em.Gaussian("diag")).about(x.mean(axis=0)) for k in (4, 7))
    params = em.fit(small, x, verbose=0).params
    starts = large.grown(small, params, em.Chunk(x), rng)
    assert 2 < len(starts) <= 16
    best = -np.inf
    for start in starts:
        assert start.weights.shape == (7,)
        assert start.weights.sum() == pytest.approx(1.0)
        for _ in range(10):
            (sums,) = large.e_step([start], em.Chunk(x))
            start = large.m_step(sums)
        best = max(best, sums.total_loglik)
    assert best > small.e_step([params], em.Chunk(x))[0].total_loglik + 100


def test_nothing_grows_of_another_kind_or_of_more_components() -> None:
    x, rng = crowd(0), np.random.default_rng(0)
    small = em.MixtureModel(4, em.Gaussian("diag"))
    params = em.fit(small, x, verbose=0).params
    for other in (
        em.MixtureModel(5, em.Gaussian("full")),
        em.MixtureModel(5, em.Gaussian("diag", reg_covar=0.5)),
        em.MixtureModel(4, em.Gaussian("diag")),
        em.MixtureModel(3, em.Gaussian("diag")),
    ):
        assert other.grown(small, params, em.Chunk(x), rng) == []


def test_rows_that_are_equal_are_not_halved() -> None:
    z = np.repeat([[0.0], [1.0], [2.0]], 5, axis=0)
    labels = np.repeat([0, 1, 1], 5)
    rng = np.random.default_rng(0)
    ((only,),) = ways_to_split(z, None, labels, 2, 1, 8, rng)
    assert only.cluster == 1
    assert sorted(only.centers[:, 0]) == [1, 2]
    assert ways_to_split(z, None, labels, 2, 2, 8, rng) == []
    assert ways_to_split(z, np.repeat([1.0, 1.0, 0.0], 5), labels, 2, 1, 8, rng) == []
    assert ways_to_split(z, None, np.zeros(15, dtype=int), 1, 0, 8, rng) == []
    ((only,),) = ways_to_split(z[:10], None, np.full(10, 1), 3, 1, 8, rng)  # two that no row is in
    assert only.cluster == 1


def test_what_is_divided_is_shared_by_the_halves_and_the_others_keep_theirs() -> None:
    rng = np.random.default_rng(0)
    z = np.sort(rng.normal(size=(100, 1)), axis=0)
    resp = rng.dirichlet(np.ones(3), size=100)
    splits = [Split(1, np.array([[-1.0], [1.0]])), Split(3, np.array([[0.5], [2.0]]))]
    new = divided(resp.copy(), z, splits)
    assert new.shape == (100, 5)
    np.testing.assert_array_equal(new[:, [0, 2]], resp[:, [0, 2]])
    np.testing.assert_allclose(new[:, 1] + new[:, 3] + new[:, 4], resp[:, 1], rtol=1e-14)
    low, high = z[:, 0] < 0, z[:, 0] > 1.25
    np.testing.assert_allclose(new[low, 1], 0.9 * resp[low, 1])
    np.testing.assert_allclose(new[high, 4], 0.9 * 0.9 * resp[high, 1])


def test_counts_grow_as_well() -> None:
    rng = np.random.default_rng(1)
    x = rng.poisson(np.repeat([[1.0, 9.0], [4.0, 4.0], [20.0, 1.0], [9.0, 30.0]], 500, axis=0)).astype(float)
    table = em.select(em.Mixture(1, em.Poisson(), random_state=0, verbose=0), x, n_components=range(1, 7)).table_
    assert int(table["n_components"][table["bic"].idxmin()]) == 4
