"""The same start gives the same parameters as scikit-learn's GaussianMixture, to 1e-8."""

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

import dask_em as em

KINDS = ["full", "tied", "diag", "spherical"]
STEPS = 25


def start(x: np.ndarray, k: int, kind: str) -> dict[str, Any]:
    d = x.shape[1]
    shapes = {
        "full": np.tile(np.eye(d), (k, 1, 1)),
        "tied": np.eye(d),
        "diag": np.ones((k, d)),
        "spherical": np.ones(k),
    }
    return {
        "weights_init": np.full(k, 1 / k),
        "means_init": x[np.random.default_rng(3).choice(len(x), k, replace=False)],
        "precisions_init": 0.5 * shapes[kind],
    }


def ours(x: np.ndarray, k: int, kind: str, sample_weight: np.ndarray | None = None, **more: Any) -> em.GaussianMixture:
    # the census, a pass at the start, and one after each of the M-steps
    gm = em.GaussianMixture(
        k, covariance_type=kind, tol=0, max_passes=STEPS + 2, solver="em", **start(x, k, kind), **more
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.FitWarning)
        return gm.fit(x, sample_weight=sample_weight)


def theirs(x: np.ndarray, k: int, kind: str, given: dict[str, Any]) -> GaussianMixture:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # there reg_covar is added to all variances, here it is the least of them, which these data do not come near
        return GaussianMixture(k, covariance_type=kind, tol=0, max_iter=STEPS, reg_covar=0, **given).fit(x)


def assert_same(a: Any, b: Any) -> None:
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        # scikit-learn adds 10 eps to every component's weight, which is all that may differ
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-8, abs=1e-8), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 3, 5])
def test_same_start_same_parameters(three_blobs: np.ndarray, kind: str, k: int) -> None:
    a, b = ours(three_blobs, k, kind), theirs(three_blobs, k, kind, start(three_blobs, k, kind))
    assert_same(a, b)
    assert a.loglik_ == pytest.approx(b.score(three_blobs) * len(three_blobs), rel=1e-11)
    assert a.bic(three_blobs) == pytest.approx(b.bic(three_blobs), rel=1e-11)
    assert a.aic(three_blobs) == pytest.approx(b.aic(three_blobs), rel=1e-11)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 2, 5, 9, 17, 30])
def test_same_start_same_parameters_in_any_dimension(kind: str, d: int) -> None:
    rng = np.random.default_rng(d)
    x = np.concatenate([rng.normal(c, 1 + c / 5, size=(400, d)) for c in (0, 2, 5)])
    assert_same(ours(x, 4, kind), theirs(x, 4, kind, start(x, 4, kind)))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_repeated_rows(three_blobs: np.ndarray, kind: str) -> None:
    x = three_blobs[:1500]
    w = np.random.default_rng(1).integers(0, 4, size=len(x))
    given = start(x, 3, kind)
    a = ours(x, 3, kind, sample_weight=w)
    b = theirs(np.repeat(x, w, axis=0), 3, kind, given)
    assert_same(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_scikit_learns(three_blobs: np.ndarray, kind: str) -> None:
    gm = ours(three_blobs, 3, kind)
    other = gm.to_sklearn()
    assert np.array_equal(gm.predict(three_blobs), other.predict(three_blobs))
    assert gm.predict_proba(three_blobs) == pytest.approx(other.predict_proba(three_blobs), abs=1e-10)
    assert gm.score_samples(three_blobs) == pytest.approx(other.score_samples(three_blobs), rel=1e-10)
    assert gm.score(three_blobs) == pytest.approx(other.score(three_blobs), rel=1e-12)
    drawn, labels = other.sample(10)
    assert drawn.shape == (10, 3)
    assert labels.shape == (10,)
