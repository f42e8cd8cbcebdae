"""Solvers whose tolerance is a share of the log-likelihood, and that can go on until nothing moves.

Where the log-likelihood is minus a sum of squares, a share of it means the same for any data and any unit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_em.model import Model, Params, Resident, State
from dask_em.solvers.anchored import Anchored
from dask_em.solvers.anderson import Anderson
from dask_em.solvers.em import EM, EMState

_STILL = 3  # steps in a row that gain nothing: only rounding moves the parameters


@dataclass(frozen=True)
class Relative:
    """Another solver, its tolerance a share of the log-likelihood that it has reached.

    Plain EM also ends where a step leaves the parameters as they are, bit for bit.  With a share of zero that is
    the only end: a solver that gets ahead of EM hands over to it for the last steps.

    Parameters
    ----------
    solver : EM, Anderson or Anchored, or None
        None: plain EM for rows in memory, and anchored EM for data that is read again at every step.
    share : float
        Of the log-likelihood; what is predicted to be left to gain is less at the end.
    """

    solver: EM | Anderson | Anchored | None
    share: float

    def chosen(self, *, in_memory: bool) -> Relative:
        """The same, with a solver for where the rows are, unless it has one."""
        return self if self.solver is not None else replace(self, solver=EM() if in_memory else Anchored())

    @property
    def _inner(self) -> EM | Anderson | Anchored:
        assert self.solver is not None  # `make_solver` has chosen one
        return self.solver

    @property
    def name(self) -> str:
        """The other solver's name."""
        return "auto" if self.solver is None else self.solver.name

    def begin(self, model: Model, params: Params) -> Any:
        """A run that starts at `params`."""
        return self._inner.begin(model, params)

    def ask(self, state: Any) -> list[Params]:
        """The points to look at next."""
        return EM().ask(state) if isinstance(state, EMState) else self._inner.ask(state)

    def tell(self, model: Model, state: Any, answers: list[Any], resident: Resident | None = None) -> State:
        """The state after a step."""
        reached = max(stats.total_loglik for stats in answers)
        tol = self.share * abs(reached) if np.isfinite(reached) else 0.0
        if isinstance(state, EMState):
            return _rested(model, EM(tol).tell(model, state, answers, resident))
        new = replace(self._inner, tol=tol).tell(model, state, answers, resident)
        ended = new.status == "converged" or (new.status == "running" and new.loglik == 0)
        if not ended or (self.share > 0 and new.status == "converged"):
            return new
        return EMState(params=new.params, loglik=new.loglik, n_steps=new.n_steps, candidate=new.params)


def _rested(model: Model, state: EMState) -> EMState:
    """The state, ended if the step that it would take next is none."""
    if state.status != "running":
        return state
    if np.array_equal(model.to_vector(state.candidate), model.to_vector(state.params)):
        # the same centres, but what the last M-step knows of them is newer
        return replace(state, params=state.candidate, gain=0.0, status="converged", note="the parameters are at rest")
    if len(state.steps) >= _STILL and max(state.steps[-_STILL:]) <= 0:
        return replace(state, gain=0.0, status="converged", note="only rounding moves the parameters")
    return state
