"""A second opinion on runs that say they are done: the slope of the likelihood, and steps of Fisher scoring.

Solvers judge what is left to gain by how their own steps shrink.  Where the likelihood is nearly flat steps shrink
though much is left, and a run would end far too early.  So where it is about to end, or expects to be soon, the
gradient from the sums of all rows and the information of a few rows of the sample say anew how far the maximum is
(`dask_em.solvers.scoring`).  If it is farther than `tol`, the steps that follow look at scoring steps of several
lengths, the step of plain EM and Anderson's extrapolation from all points seen, all from one read, and go on from the
best of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_em import store
from dask_em.errors import DegenerateError
from dask_em.gradients import Differences
from dask_em.model import Model, Params, Resident, Solver, State, Statistics
from dask_em.solvers.anderson import extrapolated, parameters_at
from dask_em.solvers.ascent import at_the_top, hidden_entropy, in_words, mapped, refuse_fall, rounding
from dask_em.solvers.scoring import Scoring, sample_rows, slope_at

_SOON = 100.0  # times tol: a run that expects so little twice is looked at
_FAR = 4.0  # times what a run expects, from which on it is left
_TOO_GOOD = 10.0  # times the gain expected
_LADDER = (1e-4, 1e-3, 1e-2, 1e-1)  # dampings that are tried first
_FACTOR = 4.0  # between those that follow
_LEAST, _MOST = 1e-7, 10.0
_FREE_ROWS = 1 << 20  # rows whose log-likelihood may be asked at any time
_FREE_PASSES = 4  # and so many passes' rows, at the end of a run
_MEMORY = 60  # points whose slopes are remembered
_IDLE = 5  # steps that together gain less than tol, though more is promised: no way there is found


@store.register
@dataclass(frozen=True)
class Proposal:
    """A point for the next step to look at."""

    params: Params
    kind: str
    damping: float | None = None  # of a scoring step


@store.register
@dataclass(frozen=True)
class Seen:
    """A point looked at: the gradient there, and how far EM steps from it."""

    vector: np.ndarray
    slope: np.ndarray
    residual: np.ndarray


@store.register
@dataclass(frozen=True)
class ScoringState(State):
    """A run that goes on by scoring."""

    trials: tuple[Proposal, ...] = ()
    mapped: Params = None  # where plain EM goes from `params`
    seen: tuple[Seen, ...] = ()  # newest last
    risen: tuple[float, ...] = ()  # nats that the last steps gained


@dataclass(frozen=True)
class Certified:
    """Another solver, whose runs do not end before the slope of the likelihood says so as well.

    Parameters
    ----------
    solver : Solver
        Of a model that defines `expected_loglik`, `to_vector` and `from_vector`.
    tol : float
        Nats.  Zero: there is no saying when to look, and the other solver's end stands.
    rows : int
        Of the data, which tell what a pass costs.
    """

    solver: Solver
    tol: float
    rows: int

    @property
    def name(self) -> str:
        """The other solver's name."""
        return self.solver.name

    def begin(self, model: Model, params: Params) -> Any:
        """A run that starts at `params`."""
        return self.solver.begin(model, params)

    def ask(self, state: Any) -> list[Params]:
        """The other solver's points, or those of scoring."""
        if isinstance(state, ScoringState):
            return [trial.params for trial in state.trials]
        return self.solver.ask(state)

    def tell(self, model: Model, state: Any, answers: list[Any], resident: Resident | None = None) -> State:
        """The state after a step."""
        if isinstance(state, ScoringState):
            return self._scored(model, state, answers, resident)
        asked = self.solver.ask(state)
        new = self.solver.tell(model, state, answers, resident)
        here = next((i for i, params in enumerate(asked) if params is new.params), None)
        if here is None or resident is None or not self._due(model, state, new, resident):
            return new
        return self._looked_at(model, new, answers[here], resident)

    def _due(self, model: Model, before: State, new: State, resident: Resident) -> bool:
        """Whether it is time to look, and that costs little beside a pass."""
        if self.tol <= 0 or new.status not in ("running", "converged") or model.degeneracies(new.params):
            return False  # at a boundary slopes say nothing of a maximum
        ended = new.status == "converged"
        if not ended and max(before.gain, new.gain) > _SOON * self.tol:
            return False
        p = len(model.to_vector(new.params))
        cost = 2 * p * sample_rows(p, resident)
        return 0 < cost <= (max(_FREE_PASSES * self.rows, _FREE_ROWS) if ended else self.rows)

    def _looked_at(self, model: Model, new: State, stats: Statistics, resident: Resident) -> State:
        """The other solver's state, as what slopes say confirms it; or a run of scoring, if it is far from done."""
        here = _seen(model, new.params, stats)
        scoring = None if here is None else _scoring(here, stats.weight, resident)
        if here is None or scoring is None:
            return new
        if new.status == "converged" and scoring.gain <= self.tol:
            return replace(new, gain=scoring.gain, note=in_words(model, scoring.gain, new.loglik))
        if new.status == "running" and scoring.gain < _FAR * max(new.gain, self.tol):
            return new
        own = {n: getattr(new, n) for n in State.__dataclass_fields__}
        state = ScoringState(**{**own, "status": "running", "note": "", "gain": scoring.gain, "contraction": None})
        state = replace(state, mapped=model.m_step(stats), seen=(here[0],))
        return _proposed(model, state, scoring, _LADDER)

    def _scored(self, model: Model, state: ScoringState, answers: list[Any], resident: Resident | None) -> State:
        """Go on from the best of the points."""
        assert resident is not None  # the engine holds one for solvers that need it
        state = replace(state, n_steps=state.n_steps + 1)
        logliks = [s.total_loglik + model.log_prior(t.params) for s, t in zip(answers, state.trials, strict=True)]
        seen = [_seen(model, t.params, s) if np.isfinite(v) else None
                for s, t, v in zip(answers, state.trials, logliks, strict=True)]  # fmt: skip
        usable = [i for i, found in enumerate(seen) if found is not None and _believed(state, i, logliks[i])]
        state = replace(state, seen=(*state.seen, *(s[0] for s in seen if s is not None))[-_MEMORY:])
        winner = max(usable, key=lambda i: logliks[i], default=0)
        here = seen[winner]
        if here is None or logliks[winner] - state.loglik < -rounding(state.loglik):
            return self._at_rest(model, state, answers, logliks)
        trial, stats = state.trials[winner], answers[winner]
        scoring = _scoring(here, stats.weight, resident, state.seen)
        risen = (*state.risen, logliks[winner] - state.loglik)[-_IDLE:]
        gain = state.gain if scoring is None else scoring.gain
        state = replace(
            state,
            params=trial.params,
            loglik=logliks[winner],
            gain=gain,
            contraction=gain / state.gain if state.gain > 0 else None,
            step=trial.kind,
            accepted=True,
            mapped=model.m_step(stats),
            weight=stats.weight,
            entropy=hidden_entropy(model, trial.params, stats),
            risen=risen,
        )
        if gain <= self.tol or scoring is None:
            return replace(state, status="converged", note=in_words(model, gain, state.loglik), trials=())
        if len(risen) == _IDLE and sum(risen) < self.tol:
            gained = model.measure.gain(sum(risen))
            note = f"{in_words(model, gain, state.loglik)}, but the last {_IDLE} gained {gained} together"
            return replace(state, status="converged", note=note, trials=())
        return _proposed(model, state, scoring, _next_dampings(state.trials, trial))

    def _at_rest(self, model: Model, state: ScoringState, answers: list[Any], logliks: list[float]) -> State:
        """The run, ended: EM itself gains nothing more."""
        plain = next(i for i, t in enumerate(state.trials) if t.kind == "em")
        if not np.isfinite(logliks[plain]):
            return replace(state, status="degenerate", note="the log-likelihood is not finite at the next parameters")
        step, why = mapped(model, answers[plain])
        if step is None:
            return replace(state, status="degenerate", note=why)
        risen = logliks[plain] - state.loglik
        if risen < 0:
            refuse_fall(model, state.trials[plain].params, answers[plain].weight, logliks[plain], risen)
        return at_the_top(replace(state, trials=()))


def _believed(state: ScoringState, trial: int, loglik: float) -> bool:
    """Whether a point is still on the same hill: what gains far more than there was to gain has jumped to another."""
    return state.trials[trial].kind == "em" or loglik - state.loglik < _TOO_GOOD * state.gain


@np.errstate(all="ignore")  # about the edge of what is possible, a step may lead far
def _seen(model: Model, params: Params, stats: Statistics) -> tuple[Seen, Differences] | None:
    """What the sums of all rows say of a point, and parameters about it; None: nothing that is finite."""
    step, _ = mapped(model, stats)
    if step is None:
        return None
    try:
        near = Differences.about(model, params)
        slope = slope_at(near, stats)
    except DegenerateError:
        return None
    vector = model.to_vector(params)
    return Seen(vector, slope, model.to_vector(step) - vector), near


@np.errstate(all="ignore")
def _scoring(
    here: tuple[Seen, Differences], weight: float, resident: Resident, others: tuple[Seen, ...] = ()
) -> Scoring | None:
    seen, near = here
    return Scoring.at(near, (seen.vector, seen.slope), weight, resident, [(s.vector, s.slope) for s in others])


def _proposed(model: Model, state: ScoringState, scoring: Scoring, dampings: tuple[float, ...]) -> ScoringState:
    """The state, and where its next step looks."""
    found = [Proposal(p, f"scoring, damping {d:.2g}", d) for d in dampings if (p := scoring.step(d)) is not None]
    x, r = scoring.vector, model.to_vector(state.mapped) - scoring.vector
    others = [s for s in state.seen if not np.array_equal(s.vector, x)]
    ahead = extrapolated(x, r, tuple(s.vector - x for s in others), tuple(s.residual - r for s in others))
    secant = None if ahead is None else parameters_at(model, ahead)
    if secant is not None:
        found.append(Proposal(secant, "anderson"))
    return replace(state, trials=(*found, Proposal(state.mapped, "em")))


def _next_dampings(trials: tuple[Proposal, ...], winner: Proposal) -> tuple[float, ...]:
    """Those about the one that was best; larger ones, where another way was better than all."""
    tried = [t.damping for t in trials if t.damping is not None]
    middle = winner.damping if winner.damping is not None else _FACTOR * max(tried, default=_LADDER[-1])
    each = (middle / _FACTOR, middle, middle * _FACTOR)
    return tuple(dict.fromkeys(min(_MOST, max(_LEAST, d)) for d in each))
