"""Anderson acceleration of EM: extrapolate from the last few steps, take only what does not fall.

With x a parameter vector, F one EM step and r = F(x) - x, the next trial is

    y = x + r - (ΔX + ΔR) γ,    γ = argmin |r - ΔR γ|² + λ |γ|²

over the last few differences ΔX of points and ΔR of their residuals (Walker and Ni 2011; damped, with
monotonicity control, as in Henderson and Varadhan 2019).  Each trial's pass answers with its own
log-likelihood, so control costs no pass: a trial that fell is dropped, and the next step looks where plain
EM goes from the point before, which is known already.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from dask_em import store
from dask_em.errors import DegenerateError
from dask_em.model import Model, Params, Resident, State, Statistics
from dask_em.solvers.ascent import (
    AT_REST,
    at_the_top,
    hidden_entropy,
    in_words,
    left_to_gain,
    little,
    mapped,
    refuse_fall,
    rounding,
)

_DAMPING = 1e-8  # of the largest squared singular value of ΔR
_LONGEST_HOLD = 8  # plain steps after refusals: 1, 2, 4, then this many
_STILL = 5  # points in a row that gain nothing: what moves is something that the data says nothing of


@store.register
@dataclass(frozen=True)
class AndersonState(State):
    """A run of accelerated EM."""

    candidate: Params = None  # where the next step looks
    trial: bool = False  # whether that is an extrapolation, which may be refused
    mapped: Params = None  # where plain EM goes from `params`
    vector: np.ndarray | None = None  # `params` as a vector
    residual: np.ndarray | None = None  # `mapped` as a vector, minus that
    promised: float = np.inf  # gain, in nats, by the quadratic that the differences describe
    moves: tuple[np.ndarray, ...] = ()  # differences of the last vectors
    changes: tuple[np.ndarray, ...] = ()  # differences of their residuals
    hold: int = 0  # plain steps still to take before the next trial
    patience: int = 1  # plain steps after the next refusal
    idle: int = 0  # points in a row that gained nothing


@dataclass(frozen=True)
class Anderson:
    """Anderson-accelerated EM, monotone.

    Parameters
    ----------
    tol : float
        Nats of the total log-likelihood.  The run has converged once the gain that is still to be had is
        predicted to be below it.
    memory : int
        Differences kept.
    """

    tol: float = 0.05
    memory: int = 10
    name: ClassVar[str] = "anderson"

    def begin(self, model: Model, params: Params) -> AndersonState:
        """A run that starts at `params`."""
        return AndersonState(params=params, candidate=params)

    def ask(self, state: AndersonState) -> list[Params]:
        """The one point to look at next."""
        return [state.candidate]

    def tell(
        self, model: Model, state: AndersonState, answers: list[Any], resident: Resident | None = None
    ) -> AndersonState:
        """Take the point that was asked and extrapolate from it, or refuse it."""
        stats: Statistics = answers[0]
        state = replace(state, n_steps=state.n_steps + 1)
        loglik = stats.total_loglik + model.log_prior(state.candidate)
        finite = bool(np.isfinite(loglik))
        step, why = mapped(model, stats) if finite else (None, "the log-likelihood is not finite there")
        if state.trial and (step is None or loglik < state.loglik - rounding(loglik)):
            return _refused(state)
        if not finite:
            return replace(state, status="degenerate", note=why)
        if np.isfinite(state.loglik) and not state.trial and loglik < state.loglik - rounding(loglik):
            refuse_fall(model, state.candidate, stats.weight, loglik, loglik - state.loglik)
            return at_the_top(state)
        if step is None:
            taken = replace(state, params=state.candidate, loglik=loglik, accepted=True)
            return replace(taken, status="degenerate", note=why)
        entropy = hidden_entropy(model, state.candidate, stats)
        state = replace(state, weight=stats.weight, entropy=entropy)
        return self._taken(model, state, loglik, step)

    def _taken(self, model: Model, state: AndersonState, loglik: float, step: Params) -> AndersonState:
        x = model.to_vector(state.candidate)
        r = model.to_vector(step) - x
        moves, changes = state.moves, state.changes
        if state.vector is not None and state.residual is not None:
            moves = (*moves, x - state.vector)[-self.memory :]
            changes = (*changes, r - state.residual)[-self.memory :]
        ahead = extrapolated(x, r, moves, changes)
        promised = predicted_gain(model, state.candidate, r, None if ahead is None else ahead - x, state.weight)
        shrunk = promised / state.promised if np.isfinite(state.promised) and state.promised > 0 else None
        gain = left_to_gain(promised, shrunk)
        idle = state.idle + 1 if loglik - state.loglik <= rounding(loglik) else 0
        new = replace(
            state,
            params=state.candidate,
            loglik=loglik,
            mapped=step,
            vector=x,
            residual=r,
            moves=moves,
            changes=changes,
            accepted=True,
            step="anderson" if state.trial else "em",
            promised=promised,
            gain=gain,
            contraction=shrunk,
            patience=1 if state.trial else state.patience,
            idle=idle,
        )
        # one prediction may be far too low: the step before must have agreed, where it is not a matter of rounding
        settled = gain if gain <= rounding(loglik) else max(gain, state.gain)
        if little(settled, self.tol, loglik, state.weight):
            return replace(new, status="converged", note=in_words(model, gain, new.loglik))
        if idle >= _STILL and self.tol > 0:
            note = "the log-likelihood is at rest, though parameters move: the data says nothing of some of them"
            return replace(new, status="converged", gain=0.0, note=note)
        return _next(model, new, ahead)


def _refused(state: AndersonState) -> AndersonState:
    return replace(
        state,
        candidate=state.mapped,
        trial=False,
        accepted=False,
        hold=state.patience - 1,  # the step that is asked for now counts
        patience=min(2 * state.patience, _LONGEST_HOLD),
    )


def _next(model: Model, state: AndersonState, ahead: np.ndarray | None) -> AndersonState:
    if state.hold == 0 and ahead is not None:
        candidate = parameters_at(model, ahead)
        if candidate is not None:
            return replace(state, candidate=candidate, trial=True)
    return replace(state, candidate=state.mapped, trial=False, hold=max(0, state.hold - 1))


def parameters_at(model: Model, vector: np.ndarray) -> Params | None:
    """The parameters of an extrapolated vector; None where it leads too far for there to be any."""
    with np.errstate(all="ignore"):
        try:
            params = model.from_vector(vector)
        except DegenerateError:
            return None
        return params if np.isfinite(model.to_vector(params)).all() else None


def extrapolated(
    x: np.ndarray, r: np.ndarray, moves: tuple[np.ndarray, ...], changes: tuple[np.ndarray, ...]
) -> np.ndarray | None:
    """Where the last differences say that the residual vanishes; None where they say nothing."""
    if not changes:
        return None
    dx, dr = np.array(moves).T, np.array(changes).T  # (p, memory)
    u, s, v = np.linalg.svd(dr, full_matrices=False)
    if not (np.isfinite(s).all() and s[0] > 0):
        return None
    gamma = v.T @ ((u.T @ r) * s / (s**2 + _DAMPING * s[0] ** 2))
    ahead: np.ndarray = x + r - (dx + dr) @ gamma
    return ahead if np.isfinite(ahead).all() else None


def predicted_gain(model: Model, params: Params, r: np.ndarray, way: np.ndarray | None, weight: float) -> float:
    """Nats between a point and the optimum, where `way` leads from the one to the other; infinite if it is unknown.

    EM's step is r = I_c⁻¹ g, with g the gradient and I_c the complete-data information, so that the gain of
    a concave quadratic is ½ gᵀ way = ½ rᵀ I_c way; I_c is taken diagonal.
    """
    scale = model.vector_scale(params)
    own = 0.5 * weight * float((scale * r) @ (scale * r))
    if way is None:
        return np.inf if own > AT_REST * weight else own
    return max(0.5 * weight * float((scale * r) @ (scale * way)), own)
