"""What a fit gave, and in words what to do about it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from math import inf, isfinite, isnan
from typing import Any, Literal

from dask_em.model import Model, Params, State, Status


class FitWarning(UserWarning):
    """A fit ended otherwise than by converging, or has parameters that the data says nothing of."""


@dataclass(frozen=True)
class FitResult:
    """A finished fit.

    Attributes
    ----------
    model : Model
    params : Params
        The best parameters found.
    loglik : float
        Total natural log-likelihood at `params`; where there is a prior, that of the history includes its logarithm.
    status : {"converged", "max_passes", "degenerate", "interrupted", "time_limit", "streaming"}
    message : str
        How it ended, and what would help.
    n_passes : int
        Complete reads of the data, the census included.
    n_steps : int
        Steps that moved the parameters, or found that they need not move, over the data or over rows in memory.
    n_rows : int
    history : list of dict
        One record a step, the census included.
    restarts : list of dict
        One record a start: its log-likelihood, of how many rows, how it ended, which optimum it reached.
    trained_weight : float
        Sum of the weights of the rows learned from: `weight`, unless a fold held some out.
    entropy : float
        Of the hidden variables given the rows, in nats; NaN where the model cannot tell.
    held_out : float or None
        Log-likelihood of the rows that a fold held out.
    summary : object or None
        What summed up the data without loss, and was asked in its place.
    uninformed : tuple of str
        Sentences about parameters that no row informs, since values are missing; `message` has them, too.
    """

    model: Model
    params: Params
    loglik: float
    status: Literal[Status, "streaming"]
    message: str
    n_passes: int
    n_steps: int
    n_rows: int
    weight: float
    fingerprint: str
    history: list[dict[str, Any]] = field(repr=False)
    restarts: list[dict[str, Any]] = field(repr=False)
    trained_weight: float = float("nan")
    entropy: float = float("nan")
    held_out: float | None = None
    summary: Any = field(default=None, repr=False)
    uninformed: tuple[str, ...] = ()

    @property
    def converged(self) -> bool:
        """Whether the predicted gain of further steps fell below `tol`."""
        return self.status == "converged"


_GO_ON = (
    "begin at these parameters (warm_start=True; of k-means, init=cluster_centers_; of em.fit, params=result.params), "
    "or give checkpoint=, with which the same call goes on where it stopped"
)
_REMEDIES = {
    "max_passes": f"raise max_passes; to go on from here, {_GO_ON}",
    "time_limit": f"raise time_limit; to go on from here, {_GO_ON}",
    "interrupted": f"to go on from here, {_GO_ON}",
}


def explain(model: Model, state: State) -> tuple[Status, str]:
    """The status of a fit, boundary solutions counted in, and the sentence that goes with it."""
    degeneracies = model.degeneracies(state.params)
    if state.status == "converged" and degeneracies:
        return "degenerate", "; ".join(degeneracies)
    message, measure = state.note, model.measure
    name = "log-likelihood" if measure.name == "loglik" else measure.name
    if state.status in ("max_passes", "time_limit") and isfinite(state.loglik):
        message += f", at {name} {measure.of(model.reported(state.params, state.loglik)):,.6f}"
        if 0 < state.gain < inf:  # on a plateau predictions are too low
            message += f", with about {measure.gain(state.gain, of=state.loglik)} or more still to gain"
    if state.status in _REMEDIES and isnan(state.loglik):
        message += (
            f", before a step looked at these parameters, so that their {name} is not known, and `score` may tell it"
        )
    remedy = _REMEDIES.get(state.status, "")
    message = f"{message}: {remedy}" if remedy else message
    return state.status, "; ".join([message, *degeneracies, *model.remarks(state.params)])


def warn_unless_converged(result: FitResult) -> None:
    """One warning for a fit that ended otherwise than by converging, or that no row informs in part."""
    if result.status != "converged" or result.uninformed:
        warnings.warn(f"{result.status}: {result.message}", FitWarning, stacklevel=4)
