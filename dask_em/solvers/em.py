"""Plain EM: the next pass looks where the M-step leads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from dask_em.errors import DegenerateError, LikelihoodFellError
from dask_em.model import Chunk, Model, Params, State, Statistics


@dataclass(frozen=True)
class EMState(State):
    """A run of plain EM."""

    candidate: Params = None  # where the next pass looks
    steps: tuple[float, ...] = ()  # what the last few passes gained, in nats


@dataclass(frozen=True)
class EM:
    """Plain EM, stopped by the gain that it predicts is still to come.

    Parameters
    ----------
    tol : float
        Nats of the total log-likelihood.  The run has converged once the predicted gain of all
        further passes is below it.
    """

    tol: float = 0.05
    name: ClassVar[str] = "em"

    def begin(self, model: Model, params: Params, sample: Chunk | None = None) -> EMState:
        """A run that starts at `params`."""
        return EMState(params=params, candidate=params)

    def ask(self, state: EMState) -> list[Params]:
        """The one point where the last M-step led."""
        return [state.candidate]

    def tell(self, model: Model, state: EMState, answers: list[Any]) -> EMState:
        """Accept the point that was asked, and take the M-step from there."""
        stats: Statistics = answers[0]
        loglik = stats.total_loglik + model.log_prior(state.candidate)
        if not np.isfinite(loglik):
            return replace(state, status="degenerate", note="the log-likelihood is not finite at the next parameters")
        steps = state.steps
        if state.n_passes > 0:
            steps = (*steps[-3:], loglik - state.loglik)
            _refuse_fall(model, loglik, steps[-1])
        gain = remaining_gain(steps, loglik)
        state = replace(
            state, params=state.candidate, loglik=loglik, steps=steps, gain=gain, n_passes=state.n_passes + 1
        )
        try:
            candidate = model.m_step(stats)
        except DegenerateError as error:
            return replace(state, status="degenerate", note=str(error))
        if gain < self.tol:
            return replace(state, candidate=candidate, status="converged", note=f"{gain:.2g} nats left to gain")
        return replace(state, candidate=candidate)


def rounding(loglik: float) -> float:
    """Differences of total log-likelihoods below this are rounding, in nats."""
    return float(4 * np.finfo(np.float64).eps * abs(loglik))


def _refuse_fall(model: Model, loglik: float, step: float) -> None:
    # a kernel may be off by a little more than the sum's own rounding: 1e-9 a row at the worst
    if model.exact_m_step and step < -1e-10 * abs(loglik) - 1e-9:
        raise LikelihoodFellError(
            f"the log-likelihood fell by {-step:.3g} nats to {loglik:.10g} in a step of plain EM, which a correct "
            f"E-step and M-step cannot do: check {type(model).__name__} with dask_em.testing.check_model"
        )


def remaining_gain(steps: tuple[float, ...], loglik: float) -> float:
    """Nats that further EM steps would still gain, by Aitken's extrapolation.

    If steps shrink by a factor a, what is left after a step s is s a / (1 - a) (Boehning et al.
    1994).  The slower of the last two factors is believed, and an M-step with `reg_covar`, which
    may lose a little, counts by its size.

    Parameters
    ----------
    steps : tuple of float
        The last gains, oldest first.
    loglik : float
        The log-likelihood now, for the size of rounding.

    Returns
    -------
    float
        Infinite while nothing can be said.

    Examples
    --------
    >>> remaining_gain((4.0, 2.0, 1.0), -100.0)
    1.0
    """
    if steps and abs(steps[-1]) <= rounding(loglik):
        return 0.0
    if len(steps) < 3:  # one factor is too little to go by: the first steps from a sample's optimum shrink fastest
        return np.inf
    sizes = np.abs(steps[-3:])
    factor = float(np.max(sizes[1:] / np.maximum(sizes[:-1], 1e-300)))
    return np.inf if factor >= 1 else float(sizes[-1] * factor / (1 - factor))
