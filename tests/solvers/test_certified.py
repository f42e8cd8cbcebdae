"""Runs that say they are done are judged by slopes: none ends far below the maximum, and what is left is told."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from courses import course, gaussians, overlapping

import dask_em as em
from dask_em import store
from dask_em.resident import ResidentSample
from dask_em.solvers import EM, Anchored, Anderson, make_solver
from dask_em.solvers.certified import Certified, Proposal, ScoringState, Seen, _next_dampings

TOL = 0.05
ROWS, SAMPLE = 12_000, 4000


def flat(seed: int, k: int = 4) -> tuple[np.ndarray, em.MixtureModel, Any]:
    """Gaussians that lie within each other, and a start: the likelihood hardly rises towards its maximum."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(k, 3)) * 1.2)[rng.integers(k, size=ROWS)] + rng.normal(size=(ROWS, 3))
    model = gaussians(x, k)
    return x, model, model.start(em.Chunk(x[:SAMPLE]), np.random.default_rng(seed))


def left(model: em.MixtureModel, x: np.ndarray, state: em.State) -> float:
    """What 300 further passes find to gain: more may crawl past a saddle, of which no slope tells."""
    best = course(model, x, Anderson(tol=0), state.params, max_passes=300).last.loglik
    return float(max(0.0, best - state.loglik))


@pytest.mark.parametrize("inner", [Anderson(TOL), Anchored(TOL)])
def test_no_run_ends_far_below_the_maximum(inner: Any) -> None:
    short = []
    for seed in range(3):
        x, model, start = flat(seed)
        bare = course(model, x, inner, start, sample=SAMPLE).last
        sure = course(model, x, Certified(inner, TOL, ROWS), start, sample=SAMPLE).last
        assert bare.status == sure.status == "converged"
        assert bare.gain < TOL
        short.append(left(model, x, bare))
        ahead = left(model, x, sure)
        assert ahead < 4 * TOL
        assert sure.gain > ahead / 10  # predictions were off by a hundred
    assert max(short) > 10 * TOL  # that was not so


def test_the_likelihood_never_falls() -> None:
    x, model, start = flat(0)
    states = course(model, x, Certified(Anderson(TOL), TOL, ROWS), start, sample=SAMPLE).states
    assert any(isinstance(s, ScoringState) for s in states)
    logliks = np.array([s.loglik for s in states])
    assert (np.diff(logliks) >= -1e-14 * np.abs(logliks[1:])).all()
    assert {s.step.split(",")[0] for s in states if isinstance(s, ScoringState)} <= {"scoring", "em", "anderson"}
    assert [s.n_steps for s in states] == list(range(1, len(states) + 1))
    last = states[-1]
    assert model.e_step([last.params], em.Chunk(x))[0].total_loglik == pytest.approx(last.loglik, rel=1e-13)


def test_a_run_goes_on_from_a_file_as_if_never_stopped(tmp_path: Path) -> None:
    x, model, start = flat(0)
    solver = Certified(Anderson(TOL), TOL, ROWS)
    states = course(model, x, solver, start, sample=SAMPLE).states
    middle = next(i for i, s in enumerate(states) if isinstance(s, ScoringState)) + 3
    store.save(states[middle], tmp_path / "state", kind="state")
    back = store.load(tmp_path / "state", kind="state")
    assert isinstance(back, ScoringState)
    then = course(model, x, solver, back, sample=SAMPLE).last
    assert model.to_vector(then.params).tobytes() == model.to_vector(states[-1].params).tobytes()
    assert then.loglik == states[-1].loglik


def test_where_the_end_was_right_no_pass_is_added() -> None:
    x = overlapping(3000, seed=1, apart=4.0)
    model = gaussians(x, 3)
    start = model.start(em.Chunk(x), np.random.default_rng(0))
    for inner in (Anderson(TOL), Anchored(TOL)):
        bare = course(model, x, inner, start, sample=1500)
        sure = course(model, x, Certified(inner, TOL, len(x)), start, sample=1500)
        assert len(sure.states) == len(bare.states)
        assert sure.last.params is not None
        assert sure.last.loglik == bare.last.loglik
        assert sure.last.gain <= TOL


def test_what_reg_covar_holds_is_an_end() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 1)) @ np.ones((1, 3)) + 0.01 * rng.normal(size=(2000, 3))
    model = em.MixtureModel(2, em.Gaussian(reg_covar=0.1).about(x.mean(axis=0)))
    start = model.start(em.Chunk(x), np.random.default_rng(0))
    bare = course(model, x, Anderson(TOL), start, sample=2000).last
    sure = course(model, x, Certified(Anderson(TOL), TOL, 2000), start, sample=2000).last
    assert sure.status == "converged"
    assert sure.n_steps <= bare.n_steps + 10
    assert sure.loglik >= bare.loglik


def test_without_a_tolerance_or_a_sample_that_tells_the_end_stands() -> None:
    x = overlapping(2000, seed=0)
    model = gaussians(x, 3)
    start = model.start(em.Chunk(x), np.random.default_rng(0))
    for tol, sample in ((0.0, 2000), (TOL, 50)):  # 17 coordinates, of which 50 rows say too little
        bare = course(model, x, Anderson(tol), start, sample=sample, max_passes=60)
        sure = course(model, x, Certified(Anderson(tol), tol, len(x)), start, sample=sample, max_passes=60)
        assert not any(isinstance(s, ScoringState) for s in sure.states)
        assert [s.loglik for s in sure.states] == [s.loglik for s in bare.states]
        assert [s.gain for s in sure.states] == [s.gain for s in bare.states]


def test_points_that_gain_more_than_there_was_are_on_another_hill() -> None:
    """A step that lands on a spike is not taken, however high that is."""
    x, model, start = flat(0)
    solver = Certified(Anderson(TOL), TOL, ROWS)
    states = course(model, x, solver, start, sample=SAMPLE).states
    state: Any = next(s for s in states if isinstance(s, ScoringState))
    spike = model.e_step([state.mapped], em.Chunk(x))[0].close()
    high = replace(spike, loglik=spike.loglik + 1e4)
    asked = replace(state, trials=(Proposal(start, "scoring, damping 1", 1.0), Proposal(state.mapped, "em")))
    told = solver.tell(model, asked, [high, spike], ResidentSample(em.Chunk(x[:SAMPLE])))
    assert told.step == "em"
    assert told.params is state.mapped


def test_dampings_follow_what_was_best() -> None:
    ladder = tuple(Proposal(None, "scoring", d) for d in (1e-3, 1e-2, 1e-1))
    assert _next_dampings(ladder, ladder[1]) == pytest.approx((2.5e-3, 1e-2, 4e-2))
    plain = Proposal(None, "em")
    assert _next_dampings((*ladder, plain), plain) == pytest.approx((0.1, 0.4, 1.6))
    for _ in range(10):  # it ends somewhere
        each = _next_dampings((*ladder, plain), plain)
        ladder = tuple(Proposal(None, "scoring", d) for d in each)
    assert max(each) == 10


def test_accelerated_solvers_are_certified_by_name() -> None:
    model = em.MixtureModel(2, em.Gaussian())
    settings: dict[str, Any] = {"tol": TOL, "rows": 1000, "sampled": 1000}
    assert make_solver("anderson", model, **settings) == Certified(Anderson(TOL), TOL, 1000)
    assert make_solver("anchored", model, **settings) == Certified(Anchored(TOL), TOL, 1000)
    assert make_solver("em", model, **settings) == EM(TOL)
    assert make_solver("anderson", model, **settings, certified=False) == Anderson(TOL)
    own = Anderson(1.0)
    assert make_solver(own, model, **settings) is own


def test_seen_points_are_stored() -> None:
    assert store.registered(Seen)
    assert store.registered(Proposal)
