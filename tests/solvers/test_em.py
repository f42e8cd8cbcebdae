"""Plain EM: what it promises is what it gives."""

import numpy as np
import pytest
from courses import KINDS, course, gaussians, overlapping

import dask_em as em
from dask_em.solvers import EM
from dask_em.solvers.ascent import left_to_gain, remaining_gain, sure_gain


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_is_the_m_step_and_gains(kind: str) -> None:
    x = overlapping(1000, seed=3)
    model = gaussians(x, 3, kind)
    params = model.start(em.Chunk(x), np.random.default_rng(0))
    states = course(model, x, EM(tol=0), params, max_passes=6).states
    for state in states:
        stats = model.e_step([params], em.Chunk(x))[0]
        assert np.array_equal(model.to_vector(state.params), model.to_vector(params))
        assert state.loglik == pytest.approx(stats.total_loglik, rel=1e-13)
        params = model.m_step(stats)
    assert (np.diff([s.loglik for s in states]) > 0).all()


def test_the_gain_it_predicts_is_what_is_left_once_steps_shrink_evenly() -> None:
    x = overlapping(2000, seed=1)
    model = gaussians(x, 3)
    params = model.start(em.Chunk(x), np.random.default_rng(0))
    states = course(model, x, EM(tol=0), params, max_passes=1000).states
    limit = states[-1].loglik
    late = [s for s in states if 0.01 < limit - s.loglik < 1.0]
    assert len(late) > 20
    for state in late:
        assert 0.25 < state.gain / (limit - state.loglik) < 4


@pytest.mark.parametrize("tol", [1.0, 0.01])
def test_it_stops_about_as_short_as_it_was_told(tol: float) -> None:
    for seed in range(3):
        x = overlapping(1000, seed)
        model = gaussians(x, 3, "diag")
        params = model.start(em.Chunk(x), np.random.default_rng(seed))
        end = course(model, x, EM(tol=tol), params).last
        limit = course(model, x, EM(tol=0), end.params, max_passes=500).last.loglik
        assert end.status == "converged"
        assert limit - end.loglik < 3 * tol


def test_gains_that_shrink_by_a_factor_sum_to_a_series() -> None:
    assert remaining_gain((8.0, 4.0, 2.0), -1e3) == pytest.approx(2.0)  # 1 + 1/2 + ...
    assert remaining_gain((8.0, 4.0, 3.0), -1e3) == pytest.approx(9.0)  # the slower factor, 3/4, is believed
    assert remaining_gain((1.0, 2.0, 4.0), -1e3) == np.inf
    assert remaining_gain((4.0, 2.0), -1e3) == np.inf
    assert left_to_gain(1.0, 0.5) == pytest.approx(2.0)
    assert left_to_gain(1.0, None) == pytest.approx(10.0)
    assert left_to_gain(1.0, 0.99) == pytest.approx(10.0)


def test_a_start_without_a_density_ends_as_degenerate() -> None:
    x = overlapping(300, seed=0)
    model = em.MixtureModel(2, em.Gaussian(reg_covar=0.0))
    params = model.start(em.Chunk(x), np.random.default_rng(0))
    x = np.concatenate([np.full((50, 2), 1e9), np.full((50, 2), 1e9)])  # rows that no component can have made
    end = course(model, x, EM(), params, max_passes=5).last
    assert end.status == "degenerate"
    assert end.note


@pytest.mark.parametrize("seed", range(3))
def test_a_step_gains_at_least_what_the_expected_log_likelihood_does(seed: int) -> None:
    x = overlapping(900, seed)
    model = gaussians(x, 3)
    params = model.start(em.Chunk(x), np.random.default_rng(seed))
    for _ in range(5):
        stats = model.e_step([params], em.Chunk(x))[0].close()
        step = model.m_step(stats)
        risen = model.e_step([step], em.Chunk(x))[0].close().total_loglik - stats.total_loglik
        assert 0 < sure_gain(model, params, step, stats) <= risen
        params = step
