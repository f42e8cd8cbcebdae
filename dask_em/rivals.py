"""Which runs of a fit need not go on, since others of it have passed them by for good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def drop_beaten(fit: Any) -> None:
    """End runs of a `dask_em.engine.Fit` that another of their group, or of a better group, has passed for good."""
    for group in {run.group for run in fit.runs}:
        own = [i for i, run in enumerate(fit.runs) if run.group == group]
        best = fit.best_of(own)
        note = f"start {fit.runs[best].start} has passed it by"
        _drop_below(fit, [i for i in own if i != best], fit.states[best].loglik, note)
    if fit.penalties is not None:
        healthy = [i for i, run in enumerate(fit.runs) if _usable(run)]
        best_value = max((_penalised(fit, i) for i in healthy), default=-np.inf)
        for i, run in enumerate(fit.runs):
            left = run.model.measure.gain(run.state.gain)
            note = f"it is not expected to become the best, though it would gain about {left} more"
            _drop_below(fit, [i], best_value + _penalty(fit, run), note)
    if all(state.status != "running" for state in fit.states):
        _take_up_again(fit)


def _take_up_again(fit: Any) -> None:
    """Let go on who was passed by, if those that passed it have collapsed since."""
    groups = {run.group for run in fit.runs}
    winners = [fit.best_of(i for i, run in enumerate(fit.runs) if run.group == group) for group in groups]
    if fit.penalties is not None:
        winners = sorted((i for i in winners if _usable(fit.runs[i])), key=lambda i: _penalised(fit, i))[-1:]
    for i in winners:
        if fit.states[i].status == "surpassed":
            fit.set(i, status="running", note="")


def _penalised(fit: Any, i: int) -> float:
    return float(fit.runs[i].state.loglik) - _penalty(fit, fit.runs[i])


def _penalty(fit: Any, run: Any) -> float:
    """What groups are compared without: their penalty, and the log prior, which is of each model's own scale."""
    loglik = float(run.state.loglik)
    if not np.isfinite(loglik):
        return float((fit.penalties or {})[run.group])
    return float((fit.penalties or {})[run.group] + loglik - run.model.reported(run.state.params, loglik))


def _drop_below(fit: Any, which: Sequence[int], loglik: float, note: str) -> None:
    for i in which:
        run, state = fit.runs[i], fit.runs[i].state
        if state.status != "running" or state.loglik + 2 * state.gain >= loglik:
            continue
        if state.gain < getattr(fit.solver, "tol", 0.0):  # it is there, though its solver would look once more
            left = run.model.measure.gain(state.gain)
            fit.set(i, status="converged", note=f"further steps are predicted to gain {left}")
        else:
            fit.set(i, status="surpassed", note=note)


def _usable(run: Any) -> bool:
    """Whether a run's likelihood is of a model to be chosen: not that of components that collapsed."""
    return bool(
        run.state.status != "degenerate"
        and np.isfinite(run.state.loglik)
        and not run.model.degeneracies(run.state.params)
    )
