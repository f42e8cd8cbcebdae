"""Gamma columns: the M-step against an independent one, and what has no maximum."""

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize

import dask_em as em
from dask_em.models.mixture import MixtureParams


@pytest.mark.parametrize("shape", [0.01, 0.3, 1.0, 7.0, 1e3, 1e6])
def test_one_component_is_what_scipy_fits(shape: float) -> None:
    x = np.maximum(np.random.default_rng(0).gamma(shape, 2.5, size=(500, 1)), 1e-250)
    gamma = em.Gamma()
    found = gamma.estimate(gamma.statistics(x, np.ones((500, 1))))
    a, _, scale = stats.gamma.fit(x[:, 0], floc=0)
    assert found.shapes[0, 0] == pytest.approx(a, rel=1e-6)
    assert found.scales[0, 0] == pytest.approx(scale, rel=1e-6)


def test_two_components_reach_the_maximum_that_a_minimiser_finds() -> None:
    """The likelihood itself is maximised over all five parameters."""
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.gamma(4.0, 0.5, 300), rng.gamma(60.0, 0.12, 500)])
    mix = em.Mixture(2, em.Gamma(), random_state=0, tol=1e-6, verbose=0).fit(x[:, None])

    def loss(v: np.ndarray) -> float:
        a, b = (stats.gamma.logpdf(x, np.exp(v[i]), scale=np.exp(v[i + 1])) for i in (1, 3))
        return -float(np.logaddexp(a - np.logaddexp(0, v[0]), b - np.logaddexp(0, -v[0])).sum())

    v = minimize(loss, [0.0, 1.0, 0.0, 4.0, -2.0], method="Nelder-Mead", options={"maxiter": 9000, "maxfev": 9000,
                 "xatol": 1e-9, "fatol": 1e-10}).x  # fmt: skip
    assert mix.loglik_ == pytest.approx(-loss(v), abs=1e-5)
    assert np.sort(mix.shapes_.ravel()) == pytest.approx(np.sort(np.exp(v[[1, 3]])), rel=1e-2)


def test_the_same_values_everywhere_have_no_maximum_but_with_a_prior() -> None:
    x = np.column_stack([np.arange(1.0, 21.0), np.full(20, 0.7)])
    resp = np.ones((20, 1))
    with pytest.raises(em.DegenerateError, match="component 0 has values of column 1 that are all the same, about 0.7"):
        em.Gamma().estimate(em.Gamma().statistics(x, resp))
    prior = em.Gamma(prior=(2, 1.0, 0.8))
    assert np.isfinite(prior.estimate(prior.statistics(x, resp)).shapes).all()


def test_a_prior_is_rows_seen_before() -> None:
    x = np.array([[1.0], [2.0], [4.0]])
    before = np.array([0.5, 2.0])  # mean 1.25, geometric mean 1
    prior = em.Gamma(prior=(2, 1.25, 1.0))
    found = prior.estimate(prior.statistics(x, np.ones((3, 1))))
    more = np.concatenate([x[:, 0], before])[:, None]
    expected = em.Gamma().estimate(em.Gamma().statistics(more, np.ones((5, 1))))
    assert found.shapes == pytest.approx(expected.shapes)
    assert found.scales == pytest.approx(expected.scales)


def test_sums_that_no_rows_have_are_refused() -> None:
    sums = em.Gamma().statistics(np.array([[1.0], [2.0], [4.0]]), np.ones((3, 1)))
    with pytest.raises(em.DegenerateError):
        em.Gamma().estimate(sums - 2 * sums)


def test_a_component_that_saw_nothing_of_a_column_takes_what_all_saw() -> None:
    x = np.array([[1.0, np.nan], [3.0, np.nan], [5.0, 4.0], [7.0, 6.0]])
    resp = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    found = em.Gamma().estimate(em.Gamma().statistics(x, resp))
    assert found.shapes[0, 1] == found.shapes[1, 1]
    assert found.scales[0, 1] == found.scales[1, 1]


def test_scales_are_the_information_of_one_row() -> None:
    x = np.random.default_rng(0).gamma(3.0, 2.0, size=(300, 2))
    gamma = em.Gamma()
    model = em.MixtureModel(1, gamma)
    sums = model.e_step([model.start(em.Chunk(x), np.random.default_rng(0))], em.Chunk(x))[0]
    params = model.m_step(sums)
    v, scale = model.to_vector(params), model.vector_scale(params)
    h = 1e-3
    for i in range(1, len(v)):
        step = np.eye(len(v))[i] * h
        up, here, down = (model.expected_loglik(model.from_vector(v + s * step), sums) for s in (1, 0, -1))
        assert (2 * here - up - down) / (h * h * len(x)) == pytest.approx(scale[i] ** 2, rel=1e-4)


def test_draws_are_above_zero_however_small_the_shape() -> None:
    params = em.Gamma().from_vector(np.array([0.0, -9.0]), 1)
    x, _ = em.MixtureModel(1, em.Gamma()).sample(MixtureParams(np.ones(1), params), 1000, np.random.default_rng(0))
    em.Gamma().check_rows(x)
