"""Every covariance shape, weights and whole k-means fits: the same bits on threads and on a cluster of processes."""

from typing import Any

import numpy as np
import pytest

import dask_em as em

ROWS = 12_000
READ_AGAIN = 3000 * (3 * 8 + 16)  # bytes of a sample that the rows do not fit in


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(5)
    parts = [rng.normal(c, s, size=(ROWS // 3, 3)) for c, s in ((-3, 1), (3, 2), (0, 5))]
    return rng.permutation(np.concatenate(parts))


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return np.random.default_rng(6).exponential(size=ROWS)


def gaussian(**settings: Any) -> Any:
    return em.GaussianMixture(3, random_state=0, verbose=0, n_init=2, sample_bytes=READ_AGAIN, **settings)


CASES = {
    "tied": (lambda: gaussian(covariance_type="tied"), False),
    "diag": (lambda: gaussian(covariance_type="diag"), False),
    "spherical": (lambda: gaussian(covariance_type="spherical"), False),
    "full, weighted": (gaussian, True),
    "diag, weighted": (lambda: gaussian(covariance_type="diag"), True),
    "k-means": (lambda: em.KMeans(5, random_state=0, verbose=0, sample_bytes=READ_AGAIN), False),
    "k-means, weighted": (lambda: em.KMeans(5, random_state=0, verbose=0, sample_bytes=READ_AGAIN), True),
    "k-means||": (
        lambda: em.KMeans(5, init="k-means||", random_state=0, verbose=0, sample_bytes=READ_AGAIN, tol=0),
        False,
    ),
}


def bits(estimator: Any) -> list[bytes]:
    (aim,) = estimator.reached  # the log-likelihood, or the inertia
    course = [r[aim] for r in estimator.history_ if r[aim] is not None]
    assert course
    arrays = [getattr(estimator, name) for name in estimator._fitted]
    return [np.asarray(a).tobytes() for a in (*arrays, course, *estimator.reached.values())]


@pytest.mark.cluster
@pytest.mark.parametrize("case", CASES)
def test_threads_and_processes_give_the_same_bits(
    case: str, rows: np.ndarray, weights: np.ndarray, client: Any
) -> None:
    import dask.array as da

    make, weighted = CASES[case]
    w = weights if weighted else None
    lazy = da.from_array(rows, chunks=(700, 3))
    lazy_w = None if w is None else da.from_array(w, chunks=700)
    found = []
    for executor in (em.ThreadsExecutor(1), em.ThreadsExecutor(2), em.DaskExecutor(client)):
        estimator = make().set_params(executor=executor).fit(lazy, sample_weight=lazy_w)
        assert estimator.n_passes_ > 2  # the data was read again: what is compared are passes
        found.append(bits(estimator))
    assert found[0] == found[1] == found[2]
