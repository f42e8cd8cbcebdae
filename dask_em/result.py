"""What a fit gave, and in words what to do about it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

from dask_em.model import Model, Params, Status


class FitWarning(UserWarning):
    """A fit ended otherwise than by converging."""


@dataclass(frozen=True)
class FitResult:
    """A finished fit.

    Attributes
    ----------
    model : Model
    params : Params
        The best parameters found.
    loglik : float
        Total natural log-likelihood at `params`, log prior included.
    status : {"converged", "max_passes", "degenerate", "interrupted", "time_limit"}
    message : str
        How it ended, and what would help.
    n_passes : int
        Complete reads of the data.
    n_rows : int
    history : list of dict
        One record a pass.
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
    """

    model: Model
    params: Params
    loglik: float
    status: Status
    message: str
    n_passes: int
    n_rows: int
    weight: float
    fingerprint: str
    history: list[dict[str, Any]] = field(repr=False)
    restarts: list[dict[str, Any]] = field(repr=False)
    trained_weight: float = float("nan")
    entropy: float = float("nan")
    held_out: float | None = None
    summary: Any = field(default=None, repr=False)

    @property
    def converged(self) -> bool:
        """Whether the predicted gain of further passes fell below `tol`."""
        return self.status == "converged"


_REMEDIES = {
    "max_passes": "allow more passes; a warm start or a checkpoint goes on from here",
    "time_limit": "allow more time; a warm start or a checkpoint goes on from here",
    "degenerate": "",
    "interrupted": "a warm start or a checkpoint goes on from here",
}


def explain(status: Status, note: str, gain: float, degeneracies: list[str]) -> tuple[Status, str]:
    """The status of a fit, boundary solutions counted in, and the sentence that goes with it."""
    if status == "converged" and degeneracies:
        return "degenerate", "; ".join(degeneracies)
    message = note
    if status in ("max_passes", "time_limit") and gain < float("inf"):
        message += f" with about {gain:.3g} nats still to gain"
    remedy = _REMEDIES.get(status, "")
    message = f"{message}: {remedy}" if remedy else message
    if degeneracies:
        message += "; " + "; ".join(degeneracies)
    return status, message


def warn_unless_converged(result: FitResult) -> None:
    """One warning for a fit that ended otherwise than by converging."""
    if result.status != "converged":
        warnings.warn(f"{result.status}: {result.message}", FitWarning, stacklevel=4)
