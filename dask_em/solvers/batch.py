"""Plain EM for a bound that is known only as well as what it is the largest of: it ends before it would fall.

Where the E-step goes to an optimum of its own for each row, anew in every pass, a step may lose what some rows lose by
coming to rest elsewhere.  That is the end of what such steps can do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from dask_em.model import Model, Params, Resident, Statistics
from dask_em.solvers.ascent import mapped
from dask_em.solvers.em import EMState


@dataclass(frozen=True)
class Batch:
    """Plain EM, which ends where a pass gains little, or nothing.

    Parameters
    ----------
    share : float
        Of the log-likelihood, below which what a pass gained is not worth another.
    """

    share: float = 1e-3
    name: ClassVar[str] = "em"

    def begin(self, model: Model, params: Params) -> EMState:
        """A run that starts at `params`."""
        return EMState(params=params, candidate=params)

    def ask(self, state: EMState) -> list[Params]:
        """Where the last M-step led."""
        return [state.candidate]

    def tell(self, model: Model, state: EMState, answers: list[Any], resident: Resident | None = None) -> EMState:
        """Accept the point that was asked, unless it is lower, and take the M-step from there."""
        stats: Statistics = answers[0]
        loglik = stats.total_loglik + model.log_prior(state.candidate)
        if not np.isfinite(loglik):
            return replace(state, status="degenerate", note="the log-likelihood is not finite at the next parameters")
        gained = loglik - state.loglik
        n_steps = state.n_steps + 1
        if gained < 0:
            note = "a further pass would not raise the bound"
            return replace(state, n_steps=n_steps, gain=0.0, accepted=False, status="converged", note=note)
        state = replace(state, params=state.candidate, loglik=loglik, weight=stats.weight, gain=gained, n_steps=n_steps)
        candidate, why = mapped(model, stats)
        if candidate is None:
            return replace(state, status="degenerate", note=why)
        state = replace(state, candidate=candidate)
        if gained < self.share * abs(loglik):
            note = f"the last pass gained {model.measure.gain(gained, of=loglik)}"
            return replace(state, status="converged", note=note)
        return state
