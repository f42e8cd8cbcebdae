"""A way on for runs that come to rest on a saddle, where the likelihood is highest in some directions only.

Symmetric data may hold EM there (Murray 1977).  With F one EM step, J its Jacobian and I_c the complete-data
information, the log-likelihood of a point at rest has the Hessian  -I_c (1 - J)  (Dempster, Laird and Rubin 1977,
section 4): it rises in any direction in which J has an eigenvalue above one.  The largest one is found by Arnoldi's
iteration, a step of EM from a point close by for each product with J.  It costs as many looks at the data as a few
steps do, and is meant for data that a summary in memory stands for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_em import store
from dask_em.model import Model, Params, Resident, Solver, State
from dask_em.solvers.anderson import parameters_at
from dask_em.solvers.ascent import mapped

_CLOSE = 1e-4  # how far a probe lies from the point at rest, in standard errors of one whole row
_LEAST, _MOST = 5, 12  # products with J at one point: the first say little of an eigenvalue that stands alone
_ABOVE = 1e-3  # more than one, from which an eigenvalue is no flat direction and no rounding
_SURE = 0.1  # of its distance from one, to which an eigenvalue must be known
_LENGTHS = (1.0, 0.3, 0.1, 0.03, 0.01)  # of steps off a saddle, in the same unit
_DEPARTURES = 4  # from one saddle to the next, at most


@store.register
@dataclass(frozen=True)
class LookingState(State):
    """A run that has come to rest and looks around, or that has left a saddle and goes on."""

    inner: Any = None  # the other solver's state
    looking: bool = True
    still: np.ndarray | None = None  # F at the point at rest, as a vector
    basis: tuple[np.ndarray, ...] = ()  # orthonormal directions q, in coordinates scaled by √I_c
    images: tuple[np.ndarray, ...] = ()  # J q of all but the last of them
    trials: tuple[Params, ...] = ()  # points off the saddle, to either side
    left: tuple[float, ...] = ()  # log-likelihoods of the saddles that it came from


@dataclass(frozen=True)
class PastSaddles:
    """Another solver, whose runs do not end on a saddle.

    Where it says that a run has converged, the directions around are tried, and the run goes on from the best point
    off a saddle.

    Parameters
    ----------
    solver : Solver
        Of a model that defines `to_vector` and `from_vector`.
    """

    solver: Solver

    @property
    def name(self) -> str:
        """The other solver's name."""
        return self.solver.name

    def begin(self, model: Model, params: Params) -> Any:
        """A run that starts at `params`."""
        return self.solver.begin(model, params)

    def ask(self, state: Any) -> list[Params]:
        """The other solver's points; at rest, those around."""
        if not isinstance(state, LookingState):
            return self.solver.ask(state)
        if not state.looking:
            return self.solver.ask(state.inner)
        return list(state.trials)

    def tell(self, model: Model, state: Any, answers: list[Any], resident: Resident | None = None) -> State:
        """The state after a step."""
        if not isinstance(state, LookingState):
            inner = self.solver.tell(model, state, answers, resident)
            return _looking(model, inner) if inner.status == "converged" else inner
        if not state.looking:
            inner = self.solver.tell(model, state.inner, answers, resident)
            state = _as(inner, replace(state, inner=inner, n_steps=state.n_steps + 1))
            if inner.status != "converged":
                return state
            return _looking(model, inner, state) if len(state.left) < _DEPARTURES else _rested(model, state)
        state = replace(state, n_steps=state.n_steps + 1)
        if len(state.images) == len(state.basis):
            return self._left(model, state, answers)
        steps = [mapped(model, stats)[0] for stats in answers]
        if any(step is None for step in steps):
            return _rested(model, state)
        if state.still is None:
            state = replace(state, still=model.to_vector(steps[0]))
        return _felt(model, state, model.to_vector(steps[-1]))

    def _left(self, model: Model, state: LookingState, answers: list[Any]) -> LookingState:
        """Go on from the best of the trials, if it is better than the point at rest."""
        logliks = [s.total_loglik + model.log_prior(p) for s, p in zip(answers, state.trials, strict=True)]
        best = int(np.nanargmax(np.where(np.isfinite(logliks), logliks, -np.inf)))
        if not logliks[best] - state.loglik > 1e-10 * abs(state.loglik) + 1e-9:  # what kernels round
            return _rested(model, state)
        return replace(
            state,
            params=state.trials[best],
            loglik=logliks[best],
            gain=np.inf,
            contraction=None,
            step="off a saddle",
            status="running",
            inner=self.solver.begin(model, state.trials[best]),
            looking=False,
            left=(*state.left, state.loglik),
        )


def _as(inner: State, state: LookingState) -> LookingState:
    """The state, standing where the other solver's stands."""
    own = {n: getattr(inner, n) for n in ("params", "loglik", "gain", "status", "note", "accepted", "step")}
    return replace(state, **own, weight=inner.weight, entropy=inner.entropy, contraction=inner.contraction)


def _looking(model: Model, inner: State, before: LookingState | None = None) -> LookingState:
    """A run at rest, about to try the first direction, which is any."""
    x = model.to_vector(inner.params)
    q = np.random.default_rng(0).standard_normal(len(x)) * (model.vector_scale(inner.params) > 0)
    new = _as(inner, LookingState(params=inner.params, inner=inner, n_steps=inner.n_steps))
    if before is not None:
        new = replace(new, n_steps=before.n_steps, left=before.left)
    new = replace(new, status="running", step="looking around", basis=(q / np.linalg.norm(q),))
    probe = _at(model, new, _CLOSE * new.basis[0])
    return _rested(model, new) if probe is None else replace(new, trials=(new.params, probe))


def _felt(model: Model, state: LookingState, image: np.ndarray) -> LookingState:
    """One more product with J: what it says of the largest eigenvalue, and where to look next."""
    assert state.still is not None  # the first step of a look asks for it
    scale, q = model.vector_scale(state.params), np.array(state.basis)
    images = (*state.images, scale * (image - state.still) / _CLOSE)
    h = q @ np.array(images).T  # (m, m)
    rest = images[-1] - h[:, -1] @ q
    rest -= (q @ rest) @ q  # twice is enough
    beyond = float(np.linalg.norm(rest))
    values, vectors = np.linalg.eig(h)
    top = int(np.argmax(values.real))
    value = float(values[top].real)
    error = beyond * float(np.abs(vectors[-1, top]))
    state = replace(state, images=images)
    last = len(images) == min(_MOST, int((scale > 0).sum()))
    known = len(images) >= _LEAST and error <= _SURE * abs(1 - value)
    if not (last or known or beyond == 0):
        basis = (*state.basis, rest / beyond)
        probe = _at(model, state, _CLOSE * basis[-1])
        return _rested(model, state) if probe is None else replace(state, basis=basis, trials=(probe,))
    if value <= 1 + _ABOVE:
        return _rested(model, state)
    way = vectors[:, top].real @ q
    way /= np.linalg.norm(way)
    found = [_at(model, state, sign * length * way) for length in _LENGTHS for sign in (1, -1)]
    trials = tuple(p for p in found if p is not None)
    return replace(state, trials=trials) if trials else _rested(model, state)


def _at(model: Model, state: LookingState, way: np.ndarray) -> Params | None:
    """The point that lies so far off, in scaled coordinates; None: there are no such parameters."""
    scale = model.vector_scale(state.params)
    return parameters_at(model, model.to_vector(state.params) + way / np.where(scale > 0, scale, np.inf))


def _rested(model: Model, state: LookingState) -> LookingState:
    """The run, ended where the other solver ended it."""
    note = state.inner.note
    if state.left:
        at = ", ".join(f"{model.measure.of(loglik):,.6f}" for loglik in state.left)
        what = "a saddle" if len(state.left) == 1 else "saddles"
        note += f"; on the way it left {what} of the likelihood, at {at}"
    return replace(state, status="converged", note=note, trials=())
