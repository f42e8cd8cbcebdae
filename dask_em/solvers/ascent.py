"""What every solver knows of the likelihood: how exact it is, that EM cannot lower it, what is left to gain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from dask_em.errors import DegenerateError, LikelihoodFellError
from dask_em.model import Model, Params, State, Statistics

_State = TypeVar("_State", bound=State)


def rounding(loglik: float) -> float:
    """Differences of total log-likelihoods below this are rounding, in nats."""
    return float(4 * np.finfo(np.float64).eps * abs(loglik))


def refuse_fall(model: Model, params: Params, weight: float, loglik: float, step: float) -> None:
    """Raise `LikelihoodFellError` if a step of plain EM lowered the log-likelihood by more than kernels round.

    A kernel may be off by a little more than the sum's own rounding: 1e-9 a row at the worst, and as much more
    as the model says of its parameters.
    """
    if not model.exact_m_step or step >= -1e-10 * abs(loglik) - 1e-9:
        return
    if step < -weight * model.loglik_error(params):
        raise LikelihoodFellError(
            f"the log-likelihood fell by {-step:.3g} nats to {loglik:.10g} in a step of plain EM, which a correct "
            f"E-step and M-step cannot do: check {type(model).__name__} with dask_em.testing.check_model"
        )


def mapped(model: Model, stats: Any) -> tuple[Params | None, str]:
    """Where plain EM goes from these statistics; None, and why, where there is no maximum."""
    try:
        return model.m_step(stats), ""
    except DegenerateError as error:
        return None, str(error)


def hidden_entropy(model: Model, params: Params, stats: Statistics) -> float:
    """Entropy of the hidden variables given the rows, H = L - Q at the parameters that the sums were taken at."""
    return stats.total_loglik - model.expected_loglik(params, stats) if model.accelerates else np.nan


def sure_gain(model: Model, params: Params, step: Params, stats: Statistics) -> float:
    """Nats that EM's step gains at least, which is what the expected log-likelihood does; none within rounding."""
    rise = model.expected_loglik(step, stats) + model.log_prior(step)
    rise -= model.expected_loglik(params, stats) + model.log_prior(params)
    return rise if rise > rounding(stats.total_loglik) else 0.0


AT_REST = 1e-20  # nats a unit of weight that a step is worth, below which it is rounding


def little(gain: float, tol: float, loglik: float, weight: float) -> bool:
    """Whether so many nats are not worth another step; with `tol` zero, only where parameters are at rest."""
    return gain < max(tol, rounding(loglik)) if tol > 0 else gain <= AT_REST * weight


def in_words(model: Model, gain: float, loglik: float) -> str:
    """Why a run that stands there and would gain so few nats is done."""
    return f"further steps are predicted to gain {model.measure.gain(gain, of=loglik)}"


def at_the_top(state: _State) -> _State:
    """The state, ended where a step of EM lowers the likelihood, as rounding may have it do."""
    note = "a step of EM would lower the likelihood, which only rounding does: there is nothing left to gain"
    return replace(state, status="converged", gain=0.0, accepted=False, note=note)


def left_to_gain(promised: float, shrunk: float | None) -> float:
    """Nats that are left if the next step is promised so many, and the promises last shrank by a factor.

    They go on shrinking, by the same factor, so that Σ promised shrunk^i are left; a run that hardly
    shrinks is believed to have ten times as many.
    """
    if shrunk is None:
        return 10 * promised
    return promised / (1 - min(shrunk, 0.9))


def remaining_gain(steps: tuple[float, ...], loglik: float) -> float:
    """Nats that further EM steps would still gain, by Aitken's extrapolation.

    If steps shrink by a factor a, what is left after a step s is s a / (1 - a) (Boehning et al.
    1994).  The slower of the last two factors is believed, and a step that loses, by rounding, counts by its size.

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
    factor = contraction(steps)
    return np.inf if factor is None or factor >= 1 else float(abs(steps[-1]) * factor / (1 - factor))


def contraction(steps: tuple[float, ...]) -> float | None:
    """The slower of the last two factors by which gains shrank."""
    sizes = np.abs(steps[-3:])
    if len(sizes) < 2:
        return None
    return float(np.max(sizes[1:] / np.maximum(sizes[:-1], 1e-300)))
