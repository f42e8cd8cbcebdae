"""Plain EM: the next step looks where the M-step leads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from dask_em import store
from dask_em.model import Model, Params, Resident, State, Statistics
from dask_em.solvers.ascent import contraction, hidden_entropy, in_words, mapped, refuse_fall, remaining_gain


@store.register
@dataclass(frozen=True)
class EMState(State):
    """A run of plain EM."""

    candidate: Params = None  # where the next step looks
    steps: tuple[float, ...] = ()  # what the last few steps gained, in nats


@dataclass(frozen=True)
class EM:
    """Plain EM, stopped by the gain that it predicts is still to come.

    Parameters
    ----------
    tol : float
        Nats of the total log-likelihood.  The run has converged once the predicted gain of all
        further steps is below it.
    """

    tol: float = 0.05
    name: ClassVar[str] = "em"

    def begin(self, model: Model, params: Params) -> EMState:
        """A run that starts at `params`."""
        return EMState(params=params, candidate=params)

    def ask(self, state: EMState) -> list[Params]:
        """The one point where the last M-step led."""
        return [state.candidate]

    def tell(self, model: Model, state: EMState, answers: list[Any], resident: Resident | None = None) -> EMState:
        """Accept the point that was asked, and take the M-step from there."""
        stats: Statistics = answers[0]
        loglik = stats.total_loglik + model.log_prior(state.candidate)
        if not np.isfinite(loglik):
            return replace(state, status="degenerate", note="the log-likelihood is not finite at the next parameters")
        steps = state.steps
        if state.n_steps > 0:
            steps = (*steps[-3:], loglik - state.loglik)
            refuse_fall(model, state.candidate, stats.weight, loglik, steps[-1])
        gain = remaining_gain(steps, loglik)
        state = replace(
            state,
            params=state.candidate,
            loglik=loglik,
            steps=steps,
            gain=gain,
            contraction=contraction(steps),
            weight=stats.weight,
            entropy=hidden_entropy(model, state.candidate, stats),
            n_steps=state.n_steps + 1,
        )
        candidate, why = mapped(model, stats)
        if candidate is None:
            return replace(state, status="degenerate", note=why)
        if gain < self.tol:
            return replace(state, candidate=candidate, status="converged", note=in_words(model, gain, state.loglik))
        return replace(state, candidate=candidate)
