"""Sums of rows with holes whose shares of the components are given: those that a mixture's own E-step finds."""

from typing import Any

import numpy as np
import pytest

import dask_em as em
from dask_em.models.mixture import log_weights

RNG = np.random.default_rng(0)
LABELS = np.repeat([0, 1, 2], [150, 90, 60])
WHOLE = RNG.normal(size=(300, 4)) @ RNG.normal(size=(4, 4)) + 4 * RNG.normal(size=(3, 4))[LABELS]
HOLED = np.where(RNG.random(WHOLE.shape) < 0.3, np.nan, WHOLE)
KINDS = [em.Gaussian("full"), em.Gaussian("tied"), em.Gaussian("diag"), em.Gaussian("spherical")]


@pytest.mark.parametrize("far", [0.0, 1e6], ids=["near", "far"])
@pytest.mark.parametrize("distribution", [*KINDS, em.StudentT("full"), em.StudentT("diag")], ids=repr)
def test_shares_that_the_mixture_has_give_its_sums(distribution: Any, far: float) -> None:
    x = HOLED.copy()
    x[LABELS == 2] += far  # sums of that component are about its own mean
    weight = np.random.default_rng(1).random(300)
    distribution = distribution.about(np.nanmean(x[LABELS < 2], axis=0))
    params = em.MixtureModel(3, distribution).from_labels(em.Chunk(x, weight), LABELS)
    model = em.MixtureModel(3, distribution)
    for _ in range(2):
        params = model.m_step(model.e_step([params], em.Chunk(x, weight))[0].close())
    ((_, counts, sums),) = distribution.mixture_sums(x, weight, [(log_weights(params), params.components)])
    resp = model.posteriors(params, x, "proba") * weight[:, None]
    given = distribution.expected_statistics(params.components, x, resp)
    assert resp.sum(axis=0) == pytest.approx(counts, rel=1e-9)
    a, b = distribution.estimate(given), distribution.estimate(sums)
    for name in ("means", "covariances", "locations", "scatters", "df"):
        if hasattr(a, name):
            assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-6, abs=1e-9)
    assert distribution.expected_loglik(b, given) == pytest.approx(distribution.expected_loglik(b, sums), rel=1e-9)
