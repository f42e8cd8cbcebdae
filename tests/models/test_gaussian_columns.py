"""Uncorrelated columns on rows with holes, by columns: the same as by patterns of holes."""

from typing import Any

import numpy as np
import pytest

import dask_em as em
from dask_em.distributions import gaussian_columns
from dask_em.models.mixture import log_weights

RNG = np.random.default_rng(0)
X = RNG.normal(size=(700, 5)) * [1, 10, 0.1, 1, 1] + 5 * RNG.normal(size=(3, 5))[RNG.integers(3, size=700)]
X[RNG.random(X.shape) < 0.4] = np.nan
X[13] = np.nan


@pytest.mark.parametrize("far", [0.0, 1e7], ids=["near", "far"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["diag", "spherical"])
def test_both_ways_agree(kind: Any, dtype: Any, weighted: bool, far: float, monkeypatch: pytest.MonkeyPatch) -> None:
    x = X.astype(dtype)
    x[:200] += far
    w = RNG.random(700) * (RNG.random(700) < 0.9) if weighted else None
    model = em.MixtureModel(3, em.Gaussian(kind)).about(np.nanmean(x[200:], axis=0))
    params = model.start(em.Chunk(x, w), np.random.default_rng(1))
    runs = [(log_weights(params), params.components)]
    found = []
    for ever in (False, True):
        monkeypatch.setattr(gaussian_columns, "scattered", lambda n_patterns, n_rows, ever=ever: ever)
        found.append((model.distribution.mixture_sums(x, w, runs)[0], model.distribution.log_density(runs[0][1], x)))
    (a, rows_a), (b, rows_b) = found
    assert rows_b == pytest.approx(rows_a, rel=1e-9, abs=1e-9)
    assert b[0] == pytest.approx(a[0], rel=1e-12)
    assert b[1] == pytest.approx(a[1], rel=1e-10)
    one, two = (model.distribution.estimate(sums) for sums in (a[2], b[2]))
    assert two.means == pytest.approx(one.means, rel=1e-10)
    assert two.covariances == pytest.approx(one.covariances, rel=1e-7)


def test_rows_that_hardly_share_patterns_go_by_columns() -> None:
    assert gaussian_columns.scattered(1738, 8000)
    assert not gaussian_columns.scattered(256, 100_000)
