"""One Gaussian is fitted from the moments of each pattern of holes, in one read."""

from typing import Any

import numpy as np
import pytest

import dask_em as em
from dask_em.distributions import gaussian_summary
from dask_em.distributions.gaussian_summary import PatternMoments

KINDS = ("full", "tied", "diag", "spherical")


def rows(n: int = 6000, d: int = 4, share: float = 0.2, far: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d)) @ (np.eye(d) + 0.4 * rng.normal(size=(d, d))) + far + 3 * rng.normal(size=d)
    x[rng.random(x.shape) < share] = np.nan
    return x


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("far", [0.0, 1e6])
@pytest.mark.parametrize("kind", KINDS)
def test_it_says_what_the_rows_say(share: float, weighted: bool, far: float, kind: Any) -> None:
    x = rows(500, share=share, far=far)
    w = np.random.default_rng(1).integers(0, 3, len(x)).astype(float) if weighted else None
    model = em.MixtureModel(1, em.Gaussian(kind, reg_covar=0)).about(np.nanmean(x, axis=0))
    params = model.start(em.Chunk(x, w), np.random.default_rng(0))
    parts = [
        PatternMoments.of(em.Chunk(x[a:b], None if w is None else w[a:b])) for a, b in ((0, 1), (1, 90), (90, 500))
    ]
    own = model.e_step([params], em.Chunk(x, w))[0]
    for summary in (parts[0].merge(parts[1]).merge(parts[2]), parts[0].merge(parts[1].merge(parts[2]))):
        found = model.e_step([params], summary.close())[0]  # type: ignore[arg-type]
        assert summary.n_rows == 500
        assert found.weight == own.weight
        assert found.loglik == pytest.approx(own.loglik, rel=1e-8)
        for name in ("first", "second"):
            a, b = (getattr(s.components.about(params.components.means), name) for s in (found, own))
            assert a == pytest.approx(b, rel=1e-6, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_reads_the_data_once_and_ends_where_its_rows_say(kind: Any) -> None:
    x = rows()
    gm = em.GaussianMixture(
        1, covariance_type=kind, reg_covar=0, tol=1e-8, random_state=0, sample_bytes=40_000, verbose=0
    ).fit(x)
    assert gm.n_passes_ == 1
    assert gm.status_ == "converged"
    assert gm.loglik_ == pytest.approx(gm.score(x) * len(x), rel=1e-12)
    model = em.MixtureModel(1, em.Gaussian(kind, reg_covar=0)).about(gm.means_[0])
    again = model.m_step(model.e_step([gm._params()], em.Chunk(x))[0])
    assert again.components.means == pytest.approx(gm.means_, abs=1e-5)
    assert again.components.covariances == pytest.approx(gm.covariances_, abs=1e-4)


def test_too_many_patterns_are_read_again_and_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows()
    settings: Any = {"reg_covar": 0, "tol": 1e-8, "random_state": 0, "sample_bytes": 40_000, "verbose": 0}
    few = em.GaussianMixture(1, **settings).fit(x)
    monkeypatch.setattr(gaussian_summary, "_BYTES", 100)
    many = em.GaussianMixture(1, **settings).fit(x)
    assert many.n_passes_ > 1
    assert many.means_ == pytest.approx(few.means_, abs=1e-5)
    assert many.loglik_ == pytest.approx(few.loglik_, abs=1e-6)


def test_whole_rows_need_no_iterations() -> None:
    x = rows(share=0.0)
    gm = em.GaussianMixture(1, reg_covar=0, random_state=0, sample_bytes=40_000, verbose=0).fit(x)
    assert gm.n_passes_ == 1
    assert gm.means_[0] == pytest.approx(x.mean(axis=0), rel=1e-12)
    assert gm.covariances_[0] == pytest.approx(np.cov(x.T, bias=True), rel=1e-10)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    x = rows(200_000)
    one, two = (em.GaussianMixture(1, random_state=0, executor=em.ThreadsExecutor(n), verbose=0).fit(x) for n in (1, 2))
    assert np.array_equal(one.covariances_, two.covariances_)
