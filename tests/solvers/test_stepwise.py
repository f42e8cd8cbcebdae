"""Stepwise EM: a stream leads to the optimum of all of it."""

import numpy as np
import pytest
from courses import course, gaussians, overlapping

import dask_em as em
from dask_em.solvers import Anderson
from dask_em.solvers.stepwise import Stepwise


def streamed(solver: Stepwise, model: em.Model, state: em.State, batches: list[em.Chunk]) -> list[em.State]:
    states = []
    for batch in batches:
        state = solver.tell(model, state, model.e_step(solver.ask(state), batch))
        states.append(state)
    return states


@pytest.mark.parametrize("kappa", [0.6, 0.8])
def test_a_stream_leads_near_the_optimum_of_all_of_it(kappa: float) -> None:
    x = overlapping(100_000, seed=0, apart=3.0)
    model, solver = gaussians(x, 3), Stepwise(kappa)
    params = model.start(em.Chunk(x[:1000]), np.random.default_rng(0))
    optimum = course(model, x, Anderson(tol=1e-3), params, max_passes=100).last
    batches = [em.Chunk(x[i : i + 500]) for i in range(0, len(x), 500)]
    states = streamed(solver, model, solver.begin(model, params), batches)

    def short(state: em.State) -> float:
        return optimum.loglik - model.e_step([state.params], em.Chunk(x))[0].total_loglik

    assert short(states[-1]) < 40  # of 100,000 rows
    assert short(states[-1]) < short(states[9]) / 5
    assert states[-1].n_steps == 200
    assert states[-1].weight == 100_000


def test_the_first_batch_alone_sets_the_parameters() -> None:
    x = overlapping(1000, seed=0)
    model, solver = gaussians(x, 3), Stepwise(0.9)
    params = model.start(em.Chunk(x), np.random.default_rng(0))
    (state,) = streamed(solver, model, solver.begin(model, params), [em.Chunk(x)])
    step = model.m_step(model.e_step([params], em.Chunk(x))[0])
    assert state.rate == 1.0
    assert model.to_vector(state.params) == pytest.approx(model.to_vector(step), abs=1e-12)


def test_rates_shrink_by_the_power_and_the_average_follows() -> None:
    x = overlapping(1200, seed=0)
    model, solver = gaussians(x, 2), Stepwise(0.7)
    params = model.start(em.Chunk(x), np.random.default_rng(0))
    batches = [em.Chunk(x[i : i + 300]) for i in range(0, 1200, 300)]
    states = streamed(solver, model, solver.begin(model, params), batches)
    assert [s.rate for s in states] == pytest.approx([n**-0.7 for n in (1, 2, 3, 4)])
    counts = model.e_step([states[0].params], batches[1])[0].counts / 300
    mixed = (1 - 2**-0.7) * states[0].average.counts + 2**-0.7 * counts
    assert states[1].average.counts == pytest.approx(mixed, rel=1e-12)


def test_weights_count_as_rows() -> None:
    x = overlapping(600, seed=0)
    w = np.random.default_rng(1).integers(0, 3, size=len(x))
    model, solver = gaussians(x, 2), Stepwise()
    params = model.start(em.Chunk(x), np.random.default_rng(0))
    begun = solver.begin(model, params)
    a = streamed(solver, model, begun, [em.Chunk(x, w.astype(float))] * 3)[-1]
    b = streamed(solver, model, begun, [em.Chunk(np.repeat(x, w, axis=0))] * 3)[-1]
    assert model.to_vector(a.params) == pytest.approx(model.to_vector(b.params), abs=1e-10)


def test_a_batch_that_says_nothing_changes_nothing() -> None:
    x = overlapping(600, seed=0)
    model, solver = gaussians(x, 2), Stepwise()
    params = model.start(em.Chunk(x), np.random.default_rng(0))
    (state,) = streamed(solver, model, solver.begin(model, params), [em.Chunk(x)])
    for batch in (em.Chunk(x[:0]), em.Chunk(x[:9], np.zeros(9))):
        (told,) = streamed(solver, model, state, [batch])
        assert not told.accepted
        assert told.params is state.params
        assert (told.weight, told.n_steps) == (state.weight, state.n_steps)


def test_a_batch_that_leaves_a_component_without_spread_moves_the_average_alone() -> None:
    x = overlapping(600, seed=0)
    model, solver = em.MixtureModel(1, em.Gaussian(reg_covar=0.0)), Stepwise()
    params = model.start(em.Chunk(x), np.random.default_rng(0))
    first, then = streamed(solver, model, solver.begin(model, params), [em.Chunk(np.zeros((1, 2))), em.Chunk(x)])
    assert not first.accepted
    assert first.params is params
    assert "covariance" in first.note
    assert first.weight == 1
    assert then.accepted
    assert then.note == ""


@pytest.mark.parametrize("kappa", [0.5, 0.3, 1.01, -1.0, float("nan")])
def test_steps_that_do_not_settle_are_refused(kappa: float) -> None:
    with pytest.raises(em.ConfigurationError, match="kappa"):
        Stepwise(kappa)
