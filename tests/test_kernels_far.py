"""The kernels' sums about components' own means, against their specification."""

from dataclasses import replace

import numpy as np
import pytest
from test_kernels import TYPES, assert_identical, assert_same, problem

from dask_em.kernels import reference
from dask_em.kernels.gaussian import mixture_sums


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize(("d", "k"), [(1, 3), (2, 4), (3, 3), (5, 2), (30, 3)])
@pytest.mark.parametrize("n", [0, 1, 700])
def test_sums_about_some_means_equal_the_specification(covariance_type, d, k, n):
    rng = np.random.default_rng(d)
    x, components = problem(rng, n, d, k, covariance_type, spread=3.0)
    some = replace(components, far=np.arange(k) % 2 == 1)
    weight = np.where(rng.random(n) < 0.2, 0.0, rng.random(n))
    pivot = np.full(d, 0.25)
    for w in (None, weight):
        both = mixture_sums(x, w, pivot, [components, some])
        assert_same(both[1], reference.mixture_sums(x, w, pivot, some))
        assert_identical(both[0], mixture_sums(x, w, pivot, [components])[0])


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_narrow_component_far_away_keeps_its_variance(covariance_type, d):
    rng = np.random.default_rng(0)
    x, components = problem(rng, 900, d, 1, covariance_type, at=2.0**30)
    far = replace(components, far=np.ones(1, dtype=bool))
    there = mixture_sums(x, None, np.zeros(d), [far])[0]
    z = x - components.means[0]
    here = mixture_sums(z, None, np.zeros(d), [replace(components, means=np.zeros((1, d)))])[0]
    assert_same(there, here, rtol=1e-12)
