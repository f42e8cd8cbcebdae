"""Published results for k-means, to the printed digits."""

from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans as Sklearn

import dask_em as em


@pytest.fixture(scope="module")
def iris(real_data: Path) -> np.ndarray:
    return pd.read_csv(real_data / "small" / "r_datasets_iris.csv").iloc[:, :4].to_numpy(float)


def test_iris_three(iris: np.ndarray) -> None:
    for seed in range(5):
        km = em.KMeans(3, random_state=seed, tol=0, verbose=0).fit(iris)
        assert km.inertia_ == pytest.approx(78.85144, abs=5e-6)
        assert sorted(np.bincount(km.labels_)) == [38, 50, 62]


def test_iris_traps_are_what_single_starts_end_in(iris: np.ndarray) -> None:
    ends = set()
    for seed in range(60):
        start = iris[np.random.default_rng(seed).choice(150, 3, replace=False)]
        if len(np.unique(start, axis=0)) == 3:
            ends.add(round(em.KMeans(3, init=start, tol=0, solver="em", verbose=0).fit(iris).inertia_, 3))
    assert {78.851, 78.856, 142.754} <= ends
    assert min(ends) == 78.851


@pytest.mark.parametrize("init", ["k-means++", "k-means||"])
@pytest.mark.parametrize("times", [1, 100])
def test_spark_single_centre(init: str, times: int) -> None:
    x = np.repeat([[1.0, 2, 6], [1, 3, 0], [1, 4, 6]], times, axis=0)
    km = em.KMeans(1, init=init, random_state=0, verbose=0).fit(x)
    assert km.cluster_centers_[0] == pytest.approx([1, 3, 4], abs=1e-15)


@pytest.mark.parametrize("init", ["k-means++", "k-means||"])
def test_blobs_in_uneven_chunks_one_of_them_empty(init: str) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(c, 0.1, size=(33 + (c == 0), 2)) for c in (-7, 0, 7)])
    chunked = da.from_array(x, chunks=((0, 5, 95), (2,)))
    km = em.KMeans(3, init=init, random_state=0, verbose=0).fit(chunked)
    other = Sklearn(3, n_init=10, random_state=0).fit(x)
    order, theirs = np.argsort(km.cluster_centers_[:, 0]), np.argsort(other.cluster_centers_[:, 0])
    assert km.cluster_centers_[order] == pytest.approx(other.cluster_centers_[theirs], abs=1e-4)
