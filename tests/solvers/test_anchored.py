"""Anchored EM: monotone, at the fixed points of all the data, in a handful of passes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from courses import KINDS, course, gaussians, overlapping, residual

import dask_em as em
from dask_em import store
from dask_em.resident import ResidentSample
from dask_em.solvers import EM, Anchored, Anderson
from dask_em.solvers.anchored import Trial


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sample", [100, 1000])
@pytest.mark.parametrize("seed", range(2))
def test_the_likelihood_never_falls(kind: str, sample: int, seed: int) -> None:
    x = overlapping(3000, seed, apart=1.0)
    model = gaussians(x, 4, kind)
    params = model.start(em.Chunk(x[:sample]), np.random.default_rng(seed))
    states = course(model, x, Anchored(tol=1e-4), params, sample=sample, max_passes=15).states
    logliks = np.array([s.loglik for s in states])
    assert (np.diff(logliks) >= -1e-14 * np.abs(logliks[1:])).all()
    for state in states[::8]:  # and it is that of the parameters
        assert model.e_step([state.params], em.Chunk(x))[0].total_loglik == pytest.approx(state.loglik, rel=1e-13)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_it_ends_where_plain_em_ends(kind: str, weighted: bool) -> None:
    x = overlapping(1500, seed=0, apart=2.5)
    w = np.random.default_rng(5).integers(0, 4, size=len(x)).astype(float) if weighted else None
    model = gaussians(x, 3, kind)
    params = model.start(em.Chunk(x, w), np.random.default_rng(0))
    plain = course(model, x, EM(tol=0), params, weight=w, max_passes=600).last
    fast = course(model, x, Anchored(tol=0), params, weight=w, sample=500, max_passes=60).last
    assert fast.status == "converged"
    assert residual(model, x, fast.params, w) < 1e-7
    assert model.to_vector(fast.params) == pytest.approx(model.to_vector(plain.params), abs=2e-6)


def test_a_sample_of_all_rows_needs_one_pass_more_than_to_look() -> None:
    x = overlapping(2000, seed=1)
    model = gaussians(x, 3)
    params = model.start(em.Chunk(x), np.random.default_rng(0))
    states = course(model, x, Anchored(tol=0.05), params, sample=len(x)).states
    assert len(states) <= 3
    limit = course(model, x, Anderson(tol=0), states[-1].params, max_passes=300).last.loglik
    assert limit - states[-1].loglik < 0.1


@pytest.mark.parametrize("seed", [1, 2, 4])
def test_it_needs_a_fifteenth_of_the_passes_of_plain_em(seed: int) -> None:
    x = overlapping(8000, seed, d=1, apart=2.0)
    model = gaussians(x, 3)
    params = model.start(em.Chunk(x[:2000]), np.random.default_rng(seed))
    anchored = course(model, x, Anchored(tol=1e-4), params, sample=2000, max_passes=40)
    fast = course(model, x, Anderson(tol=1e-4), params, max_passes=150)
    plain = course(model, x, EM(tol=1e-4), params, max_passes=400)
    close = max(anchored.last.loglik, fast.last.loglik) - 0.1
    assert 15 * anchored.passes_to(close) < plain.passes_to(close)
    assert 2 * anchored.passes_to(close) < fast.passes_to(close)


def running(sample: int = 800) -> tuple[np.ndarray, em.MixtureModel, Anchored, em.State, ResidentSample]:
    """A run of three passes that goes on."""
    x = overlapping(4000, seed=2)
    model, solver = gaussians(x, 3), Anchored(tol=1e-3)
    params = model.start(em.Chunk(x), np.random.default_rng(2))
    state = course(model, x, solver, params, sample=sample, max_passes=3).last
    assert state.status == "running"
    return x, model, solver, state, ResidentSample(em.Chunk(x[:sample]))


def test_points_that_fell_are_refused_and_change_nothing() -> None:
    x, model, solver, state, resident = running()
    worse = [model.start(em.Chunk(x[:50]), np.random.default_rng(i)) for i in (1, 2)]
    state = replace(state, trials=tuple(Trial(p, 0.08, 5.0) for p in worse), damping=0.08)
    told = solver.tell(model, state, model.e_step(worse, em.Chunk(x)), resident)
    assert not told.accepted
    assert told.params is state.params
    assert told.mapped is state.mapped
    assert (told.loglik, told.status) == (state.loglik, "running")
    assert told.damping > state.damping  # nearer to plain EM
    then = solver.tell(model, told, model.e_step(solver.ask(told), em.Chunk(x)), resident)
    assert then.accepted
    assert then.loglik > state.loglik


def test_refused_again_and_again_it_takes_the_step_of_plain_em() -> None:
    x, model, solver, state, resident = running()
    worse = model.start(em.Chunk(x[:50]), np.random.default_rng(1))
    bad = model.e_step([worse], em.Chunk(x))
    for _ in range(6):
        state = replace(state, trials=(Trial(worse, state.damping or 0.01, 5.0),))
        if state.damping == 1:
            break
        state = solver.tell(model, state, bad, resident)
    assert state.damping == 1
    state = replace(state, trials=(Trial(state.mapped, 1.0, 1.0),))
    told = solver.tell(model, state, model.e_step(solver.ask(state), em.Chunk(x)), resident)
    assert told.accepted
    assert told.params is state.mapped


def test_of_several_points_the_best_is_taken() -> None:
    x, model, solver, state, resident = running()
    worse = model.start(em.Chunk(x[:50]), np.random.default_rng(1))
    good = state.trials[0]
    asked = replace(state, trials=(Trial(worse, 0.01, 5.0), Trial(good.params, 0.08, good.promised)))
    told = solver.tell(model, asked, model.e_step(solver.ask(asked), em.Chunk(x)), resident)
    assert told.accepted
    assert told.params is good.params


@pytest.mark.parametrize("sample", [300, 1500])
def test_it_stops_about_as_short_as_it_was_told(sample: int) -> None:
    short = []
    for seed in range(6):
        x = overlapping(3000, seed)
        model = gaussians(x, 3)
        params = model.start(em.Chunk(x), np.random.default_rng(seed))
        end = course(model, x, Anchored(tol=0.05), params, sample=sample, max_passes=100).last
        limit = course(model, x, Anderson(tol=1e-6), end.params, max_passes=200).last.loglik
        assert end.status == "converged"
        short.append(limit - end.loglik)
    assert np.median(short) < 0.1, short
    assert max(short) < 0.75, short


def test_a_damped_promise_is_not_believed_alone() -> None:
    x, model, _, state, resident = running()
    solver = Anchored(tol=1e9)  # any finite promise is small beside it
    stats = model.e_step(solver.ask(state), em.Chunk(x))
    bold = replace(state, damping=0.0, trials=(replace(state.trials[0], damping=0.0),))
    shy = replace(state, damping=0.5, trials=(replace(state.trials[0], damping=0.5),))
    assert solver.tell(model, replace(bold, hoped=1e10), stats, resident).status == "converged"
    assert solver.tell(model, replace(shy, hoped=1e10), stats, resident).status == "running"
    assert solver.tell(model, replace(shy, hoped=1e8), stats, resident).status == "converged"


def test_a_state_goes_on_from_a_file_to_the_same_bits(tmp_path: Path) -> None:
    x, model, solver, state, _ = running()
    store.save({"state": state}, tmp_path / "state", kind="checkpoint")
    read = store.load(tmp_path / "state", kind="checkpoint")["state"]
    on, again = (course(model, x, solver, s, sample=800, max_passes=12).states for s in (state, read))
    assert [s.loglik for s in on] == [s.loglik for s in again]
    assert np.array_equal(model.to_vector(on[-1].params), model.to_vector(again[-1].params))


@pytest.mark.parametrize("sample", [60, 600])
def test_too_many_components_lower_nothing_and_end(sample: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 2))  # one Gaussian: six describe it in many ways
    model = gaussians(x, 6)
    for seed in range(2):
        params = model.start(em.Chunk(x), np.random.default_rng(seed))
        states = course(model, x, Anchored(tol=0.05), params, sample=sample, max_passes=300).states
        assert states[-1].status in ("converged", "degenerate")
        assert (np.diff([s.loglik for s in states]) >= -1e-9).all()


def test_a_component_that_the_sample_has_no_row_of_is_found_all_the_same() -> None:
    x = np.concatenate([overlapping(4000, seed=0), np.random.default_rng(0).normal(30.0, 1.0, size=(15, 2))])
    model = gaussians(x, 4)
    params = model.start(em.Chunk(x), np.random.default_rng(0))
    plain = course(model, x, EM(tol=1e-4), params, max_passes=800).last
    end = course(model, x, Anchored(tol=1e-3), params, sample=1000, max_passes=100).last
    assert end.status == "converged"
    assert end.loglik > plain.loglik - 0.05
    assert end.params.components.means.max(axis=0) == pytest.approx(x[4000:].mean(axis=0), abs=1e-3)


@pytest.mark.parametrize("solver", [EM(), Anderson(), Anchored()])
def test_a_component_that_collapses_ends_with_a_status(solver: em.Solver) -> None:
    x = np.concatenate([overlapping(2000, seed=0), np.full((40, 2), 7.0)])  # forty rows that are one point
    model = gaussians(x, 4)
    params = model.start(em.Chunk(x), np.random.default_rng(1))
    states = course(model, x, solver, params, sample=500, max_passes=400).states
    assert states[-1].status in ("converged", "degenerate")
    assert np.isfinite(model.to_vector(states[-1].params)).all()
    logliks = np.array([s.loglik for s in states])
    assert (np.diff(logliks[np.isfinite(logliks)]) >= -1e-9).all()


@pytest.mark.parametrize("solver", [EM(tol=1e-3), Anderson(tol=1e-3), Anchored(tol=1e-3)])
def test_a_component_that_empties_ends_with_a_status(solver: em.Solver) -> None:
    x = overlapping(2000, seed=0)
    model = gaussians(x, 3)
    params = model.start(em.Chunk(x), np.random.default_rng(1))
    c = params.components
    away = replace(params, components=replace(c, means=np.concatenate([c.means[:2], [[500.0, 500.0]]])))
    states = course(model, x, solver, away, sample=500, max_passes=400).states
    assert states[-1].status in ("converged", "degenerate")
    logliks = np.array([s.loglik for s in states])
    assert (np.diff(logliks[np.isfinite(logliks)]) >= -1e-9).all()


def test_the_history_says_what_won_each_pass(three_blobs: np.ndarray) -> None:
    settings: dict[str, Any] = {"random_state": 0, "verbose": 0, "sample_bytes": 1000 * 40, "n_init": 1}
    gm = em.GaussianMixture(5, solver="anchored", tol=1e-3, **settings).fit(three_blobs)
    steps = [record["step"] for record in gm.history_]
    assert steps[:2] == [None, "em"]  # the census; the start, where there is nothing yet to choose from
    told = [step for step, record in zip(steps, gm.history_) if record["accepted"]][2:]
    assert len(told) > 0
    kinds = {step.split(",")[0] for step in told}
    assert kinds <= {"em", "anderson", "anchored", "scoring"}
    assert "anchored" in kinds
    assert any(step.startswith("anchored") for step in told)
    assert all(step is None for step, record in zip(steps, gm.history_) if not record["accepted"])
    quick = em.GaussianMixture(5, solver="anderson", tol=1e-3, max_passes=60, **settings).fit(three_blobs)
    assert {"em", "anderson"} <= {record["step"] for record in quick.history_}


def test_what_broken_promises_say_is_left_is_taken_down() -> None:
    """Competing runs are ended by what they say: one that gains a tenth of its promises says a tenth."""
    x, model, solver, state, resident = running()
    stats = model.e_step(solver.ask(state), em.Chunk(x))
    said = []
    for share in (1.0, 0.1, 1e-6):
        risen = stats[0].total_loglik - state.loglik
        trials = tuple(replace(t, promised=risen / share) for t in state.trials)
        told = solver.tell(model, replace(state, trials=trials, promised=1.0), stats, resident)
        said.append(told.gain / told.hoped)
    assert said == pytest.approx([1.0, 0.1, 0.01], rel=1e-6)
