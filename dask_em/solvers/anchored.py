"""Anchored EM: a random sample in memory carries the curvature, full passes carry the truth.

Every pass looks at the maximum of a surrogate of the likelihood (`dask_em.solvers.surrogate`) that the last
pass has corrected, so that the fixed points are those of EM on all the data.  How far the sample is to be
followed is not known at first, nor where a pass gains other than the surrogate promised: then the next step looks
at several points at once, from one read - the surrogate's maximum at more and less damping, down to plain EM, and
the point where the residuals of EM seen so far vanish (Anderson's extrapolation) - and the best of them is taken.
So the run is never worse off than plain EM, and becomes accelerated EM on full passes where the sample is no help.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from dask_em import store
from dask_em.model import Model, Params, Resident, State
from dask_em.solvers.anderson import extrapolated, parameters_at
from dask_em.solvers.ascent import (
    at_the_top,
    hidden_entropy,
    in_words,
    left_to_gain,
    little,
    mapped,
    refuse_fall,
    rounding,
    sure_gain,
)
from dask_em.solvers.surrogate import Surrogate

_STEPS = 150  # of an inner solve, at most
_LEAST = 1e-2  # damping, short of none
_FACTOR = 8.0  # between one damping and the next
_LADDER = (0.0, _LEAST, _LEAST * _FACTOR, _LEAST * _FACTOR**2)
_LEAST_KEPT = 0.01  # share of a promise: one pass that keeps less may be bad luck
_GOOD, _POOR = 0.75, 0.25  # of the promised gain
_SLOW = 0.3  # contraction of the gain from which extrapolation is tried as well
_MEMORY = 12  # points whose residuals are remembered

SECANT = -1.0  # in place of a damping: the point was extrapolated


@store.register
@dataclass(frozen=True)
class Trial:
    """A point for the next step to look at."""

    params: Params
    damping: float  # that it was found with; 1: a step of plain EM; `SECANT`
    promised: float = np.inf  # gain, in nats

    @property
    def kind(self) -> str:
        """What found it, for people."""
        if self.damping == SECANT:
            return "anderson"
        return "em" if self.damping == 1 else f"anchored, damping {self.damping:g}"


@store.register
@dataclass(frozen=True)
class AnchoredState(State):
    """A run of anchored EM."""

    trials: tuple[Trial, ...] = ()  # where the next step looks
    stats: Any = None  # of all rows, at `params`
    mapped: Params = None  # where plain EM goes from `params`
    damping: float = 0.0
    promised: float = np.inf  # gain at that damping
    hoped: float = np.inf  # nats left to gain, if promises are kept
    kept: float = 1.0  # share of its promise that the last point gained that was taken
    seen: tuple[tuple[np.ndarray, np.ndarray], ...] = ()  # points looked at, and EM's residuals there, newest last


@dataclass(frozen=True)
class Anchored:
    """Anchored EM, monotone.

    Parameters
    ----------
    tol : float
        Nats of the total log-likelihood.  The run has converged once the gain that is still to be had is
        predicted to be below it.
    """

    tol: float = 0.05
    name: ClassVar[str] = "anchored"

    def begin(self, model: Model, params: Params) -> AnchoredState:
        """A run that starts at `params`."""
        return AnchoredState(params=params, trials=(Trial(params, 1.0),))

    def ask(self, state: AnchoredState) -> list[Params]:
        """The points to look at next."""
        return [trial.params for trial in state.trials]

    def tell(
        self, model: Model, state: AnchoredState, answers: list[Any], resident: Resident | None = None
    ) -> AnchoredState:
        """Take the best of the points that were asked, or none, and choose the next on the sample."""
        assert resident is not None  # the engine holds one for solvers that need it
        state = replace(state, n_steps=state.n_steps + 1)
        logliks = [stats.total_loglik + model.log_prior(t.params) for stats, t in zip(answers, state.trials)]
        steps = [mapped(model, s) if np.isfinite(value) else (None, "") for s, value in zip(answers, logliks)]
        usable = [i for i, (step, _) in enumerate(steps) if step is not None]
        plain = next((i for i, t in enumerate(state.trials) if t.damping == 1), None)  # the step of EM itself
        winner = max(usable, key=lambda i: logliks[i], default=None)
        taken = winner is not None and not logliks[winner] - state.loglik < -rounding(logliks[winner])
        if winner is None or (not taken and plain not in (None, *usable)):
            return _ended(state, plain, logliks, steps)
        seen = tuple(_residual(model, state.trials[i].params, steps[i][0]) for i in usable)
        loglik, trial = logliks[winner], state.trials[winner]
        risen = loglik - state.loglik
        if plain is not None and not taken:
            refuse_fall(model, trial.params, answers[winner].weight, loglik, risen)
            return at_the_top(state)
        before, damping = state.damping, _next_damping(state, winner, risen, taken)
        state = replace(state, accepted=taken, damping=damping, seen=(*state.seen, *seen)[-_MEMORY:])
        if taken:
            stats = answers[winner]
            state = replace(
                state,
                params=trial.params,
                loglik=loglik,
                step=trial.kind,
                stats=stats,
                mapped=steps[winner][0],
                weight=stats.weight,
                entropy=hidden_entropy(model, trial.params, stats),
            )
        kept = risen / trial.promised if taken and trial.promised > 0 else -1.0
        believed = _GOOD < kept < 1 / _GOOD
        if kept > 0:
            state = replace(state, kept=min(1.0, max(kept, _LEAST_KEPT)))
        return self._proposed(model, state, _dampings(state, before, believed), believed, resident)

    def _proposed(
        self, model: Model, state: AnchoredState, dampings: list[float], believed: bool, resident: Resident
    ) -> AnchoredState:
        """The next points, and what they promise; `believed` says whether the last step kept what it promised."""
        surrogate = Surrogate.at(model, state.params, state.stats, resident)
        trials = [self._trial(surrogate, state, d) for d in dict.fromkeys(dampings)]
        promised = next(t.promised for t in trials if t.damping == state.damping)
        least = sure_gain(model, state.params, state.mapped, state.stats)
        if promised < least:  # too few rows to see what EM itself gains: it goes along
            promised = least
            trials += [] if any(t.damping == 1 for t in trials) else [Trial(state.mapped, 1.0, least)]
        shrunk = None
        if np.isfinite(state.promised) and state.promised > 0:
            shrunk = promised / state.promised
        hoped = left_to_gain(promised, shrunk)
        # what is damped promises no more than it dares, so the step before must have said the same
        settled = hoped if state.damping <= _LEAST or hoped <= rounding(state.loglik) else max(hoped, state.hoped)
        gain = hoped * state.kept
        state = replace(state, gain=gain, hoped=hoped, contraction=shrunk, promised=promised)
        if little(settled, self.tol, state.loglik, state.weight) and state.accepted:
            return replace(state, trials=tuple(trials), status="converged", note=in_words(model, gain, state.loglik))
        if not believed or (shrunk is not None and shrunk > _SLOW):
            ahead = _secant(model, state)
            if ahead is not None:
                trials.append(Trial(ahead, SECANT, promised))
        return replace(state, trials=tuple(trials))

    def _trial(self, surrogate: Surrogate, state: AnchoredState, damping: float) -> Trial:
        if damping == 1:
            gain = surrogate.gain(state.mapped)
            return Trial(state.mapped, damping, gain)
        params, gain = surrogate.maximised(damping, tol=0.1 * self.tol, steps=_STEPS, expected=state.promised)
        return Trial(params, damping, gain)


def _ended(state: AnchoredState, plain: int | None, logliks: list[float], steps: list[Any]) -> AnchoredState:
    """The state where no point that was asked leads anywhere."""
    if plain is None:  # the next step looks where plain EM goes
        return replace(state, trials=(Trial(state.mapped, 1.0, state.promised),), damping=1.0, accepted=False)
    why = steps[plain][1] or "the log-likelihood is not finite there"
    if np.isfinite(logliks[plain]) or not np.isfinite(state.loglik):  # EM has come to where it ends
        state = replace(state, params=state.trials[plain].params, loglik=logliks[plain], accepted=True)
    return replace(state, status="degenerate", note=why)


def _dampings(state: AnchoredState, before: float, believed: bool) -> list[float]:
    """How far the next step should follow the sample, the least damped first."""
    if not np.isfinite(state.promised):  # nothing is known of the sample yet
        return [*_LADDER]
    if not believed:
        return [_less(state.damping), state.damping, _more(state.damping)]
    return [state.damping, before] if state.damping < before else [state.damping]  # what went well is kept at hand


def _next_damping(state: AnchoredState, winner: int, risen: float, taken: bool) -> float:
    used = state.trials[winner].damping
    if not taken:
        return _more(max(state.damping, *(t.damping for t in state.trials)))
    promised = state.trials[winner].promised
    if used == SECANT or not np.isfinite(promised):
        return state.damping
    if risen > _GOOD * promised and winner == 0:
        return _less(used)
    return _more(used) if risen < _POOR * promised and winner == len(state.trials) - 1 else used


def _less(damping: float) -> float:
    return 0.0 if damping <= _LEAST else damping / _FACTOR


def _more(damping: float) -> float:
    return min(1.0, _FACTOR * max(damping, _LEAST))


def _residual(model: Model, params: Params, step: Params) -> tuple[np.ndarray, np.ndarray]:
    x = model.to_vector(params)
    return x, model.to_vector(step) - x


def _secant(model: Model, state: AnchoredState) -> Params | None:
    x, r = _residual(model, state.params, state.mapped)
    others = [(a, b) for a, b in state.seen if not np.array_equal(a, x)]
    ahead = extrapolated(x, r, tuple(a - x for a, _ in others), tuple(b - r for _, b in others))
    return None if ahead is None else parameters_at(model, ahead)
