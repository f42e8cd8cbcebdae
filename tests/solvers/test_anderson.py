"""Anderson acceleration: monotone, at EM's own fixed points, in far fewer passes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from courses import KINDS, course, gaussians, overlapping, residual

import dask_em as em
from dask_em import store
from dask_em.solvers import EM, Anderson


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_the_likelihood_never_falls(kind: str, seed: int) -> None:
    x = overlapping(1500, seed, apart=1.0)
    model = gaussians(x, 4, kind)
    params = model.start(em.Chunk(x), np.random.default_rng(seed))
    states = course(model, x, Anderson(tol=0), params, max_passes=80).states
    logliks = np.array([s.loglik for s in states])
    assert (np.diff(logliks) >= -1e-14 * np.abs(logliks[1:])).all()
    for state in states[::20]:  # and it is that of the parameters
        assert model.e_step([state.params], em.Chunk(x))[0].total_loglik == pytest.approx(state.loglik, rel=1e-13)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_it_ends_where_plain_em_ends(kind: str, weighted: bool) -> None:
    x = overlapping(1500, seed=0, apart=2.5)
    w = np.random.default_rng(5).integers(0, 4, size=len(x)).astype(float) if weighted else None
    model = gaussians(x, 3, kind)
    params = model.start(em.Chunk(x, w), np.random.default_rng(0))
    plain = course(model, x, EM(tol=0), params, weight=w, max_passes=600).last
    assert residual(model, x, plain.params, w) < 1e-9
    fast = course(model, x, Anderson(tol=0), params, weight=w, max_passes=200).last
    assert fast.status == "converged"
    assert residual(model, x, fast.params, w) < 1e-9
    assert model.to_vector(fast.params) == pytest.approx(model.to_vector(plain.params), abs=1e-6)


@pytest.mark.parametrize("seed", [1, 2, 4])
def test_it_needs_a_fifth_of_the_passes_of_plain_em(seed: int) -> None:
    x = overlapping(8000, seed, d=1, apart=2.0)
    model = gaussians(x, 3)
    params = model.start(em.Chunk(x), np.random.default_rng(seed))
    fast = course(model, x, Anderson(tol=1e-4), params, max_passes=150)
    plain = course(model, x, EM(tol=1e-4), params, max_passes=400)
    close = fast.last.loglik - 0.1
    assert 5 * fast.passes_to(close) < plain.passes_to(close)


def running(seed: int = 0) -> tuple[np.ndarray, em.MixtureModel, Anderson, em.State]:
    """A run of eight passes that goes on."""
    x = overlapping(1500, seed)
    model, solver = gaussians(x, 3), Anderson(tol=0)
    params = model.start(em.Chunk(x), np.random.default_rng(seed))
    return x, model, solver, course(model, x, solver, params, max_passes=8).last


def test_a_trial_that_fell_is_refused_and_changes_nothing() -> None:
    x, model, solver, state = running()
    worse = model.start(em.Chunk(x[:50]), np.random.default_rng(1))
    state = replace(state, candidate=worse, trial=True, hold=0)
    told = solver.tell(model, state, model.e_step([worse], em.Chunk(x)))
    assert not told.accepted
    assert told.params is state.params
    assert (told.loglik, told.gain, told.status) == (state.loglik, state.gain, "running")
    assert solver.ask(told) == [state.mapped]  # the next pass looks where plain EM goes
    assert not told.trial
    assert told.n_steps == state.n_steps + 1
    then = solver.tell(model, told, model.e_step(solver.ask(told), em.Chunk(x)))
    assert then.accepted
    assert then.loglik > state.loglik


def test_after_refusals_it_takes_plain_steps_for_longer_and_longer() -> None:
    x, model, solver, state = running()
    worse = model.start(em.Chunk(x[:50]), np.random.default_rng(1))
    plain = []
    for _ in range(5):
        state = replace(state, candidate=worse, trial=True)
        state = solver.tell(model, state, model.e_step([worse], em.Chunk(x)))
        steps = 0
        while not state.trial:
            state = solver.tell(model, state, model.e_step(solver.ask(state), em.Chunk(x)))
            steps += 1
        plain.append(steps)
    assert plain == [1, 2, 4, 8, 8]


def test_a_trial_without_any_density_is_refused_too() -> None:
    x, model, solver, state = running()
    c = state.params.components
    nowhere = replace(state.params, components=replace(c, means=c.means + 1e200))
    state = replace(state, candidate=nowhere, trial=True)
    with np.errstate(all="ignore"):
        told = solver.tell(model, state, model.e_step([nowhere], em.Chunk(x)))
    assert not told.accepted
    assert told.params is state.params


def test_it_stops_about_as_short_as_it_was_told() -> None:
    short = []
    for seed in range(10):
        x = overlapping(2000, seed)
        model = gaussians(x, 3)
        params = model.start(em.Chunk(x), np.random.default_rng(seed))
        end = course(model, x, Anderson(tol=0.05), params).last
        assert end.status == "converged"
        short.append(course(model, x, Anderson(tol=1e-6), end.params, max_passes=200).last.loglik - end.loglik)
    assert np.median(short) < 0.05, short
    assert np.sum(np.array(short) > 0.25) <= 1, short  # one prediction is no proof: two have to agree


def test_one_small_prediction_is_not_believed() -> None:
    x, model, solver, state = running()
    solver = Anderson(tol=1e9)  # any finite prediction is small beside it
    stats = model.e_step(solver.ask(state), em.Chunk(x))
    assert solver.tell(model, replace(state, gain=1e10), stats).status == "running"
    assert solver.tell(model, state, stats).status == "converged"


def test_a_model_at_rest_is_not_asked_twice() -> None:
    x = overlapping(1000, seed=0)
    model = gaussians(x, 1)  # one step leads to the optimum
    params = model.start(em.Chunk(x[:100]), np.random.default_rng(0))
    states = course(model, x, Anderson(tol=0.05), params).states
    assert [s.status for s in states] == ["running", "converged"]


def test_a_state_goes_on_from_a_file_to_the_same_bits(tmp_path: Path) -> None:
    x, model, solver, state = running()
    store.save({"state": state}, tmp_path / "state", kind="checkpoint")
    read = store.load(tmp_path / "state", kind="checkpoint")["state"]
    on, again = (course(model, x, solver, s, max_passes=30).states for s in (state, read))
    assert [s.loglik for s in on] == [s.loglik for s in again]
    assert np.array_equal(model.to_vector(on[-1].params), model.to_vector(again[-1].params))


def test_too_many_components_lower_nothing_and_end() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1200, 2))  # one Gaussian: eight describe it in many ways
    model = gaussians(x, 8)
    for seed in range(3):
        params = model.start(em.Chunk(x), np.random.default_rng(seed))
        states = course(model, x, Anderson(tol=0.05), params, max_passes=600).states
        assert states[-1].status in ("converged", "degenerate")
        assert (np.diff([s.loglik for s in states]) >= -1e-9).all()
