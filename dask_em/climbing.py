"""Starts on the resident sample: where each stands, so many steps further, and how two of them differ on its rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_em.engine import Fit, Run
from dask_em.model import Model, Params, Solver, State
from dask_em.resident import ResidentSample
from dask_em.solvers.anderson import Anderson
from dask_em.solvers.em import EM

RACE_ROWS = 1 << 13  # and one more for each parameter
TOL = 0.5  # nats of the sample's log-likelihood: closer than sampling error is wasted
_LEAST_TOL = 1e-3
_LEAST_OF_CHAINS = 1e-7  # which pass saddles slower still: of 107 counts in 4 states no start did within 1e-3
PIECES = 32  # of the sample, from whose differences the noise is taken
BEYOND = 3.0  # standard deviations


@dataclass(frozen=True)
class Start:
    """Where one start stands, or how it ended."""

    number: int
    state: State
    rows: int  # of the sample that its log-likelihood is of
    weight: float
    reached: int | None = None  # number of the start at whose optimum it settled, which may be itself
    moves: int = 0  # how many times two of its components became one, and another two


def n_parameters(model: Model, resident: ResidentSample) -> int:
    """Numbers of one parameter set."""
    return model.nbytes(resident.chunk.x.shape[1]) // 8


def race_rows(model: Model, resident: ResidentSample) -> int:
    """Rows on which all starts are compared."""
    return min(resident.rows, RACE_ROWS + n_parameters(model, resident))


def sample_solver(model: Model, rows: ResidentSample) -> Solver:
    """The solver for rows in memory.

    Of few rows the whole way is short, in nats, and much of it over plateaus where a step gains next to nothing: of 40
    starts of 4 latent classes of 118 rows all but a few rested there, below the optimum, with half a nat to go by.
    A density is not climbed so far: of few rows its highest point is a spike on some of them.
    """
    least = _LEAST_OF_CHAINS if model.sequential else _LEAST_TOL
    tol = max(least, TOL * min(1.0, rows.weight / RACE_ROWS) ** 2) if model.discrete else TOL
    return Anderson(tol=tol) if model.accelerates else EM(tol=tol)


def begun(model: Model, rows: ResidentSample, params: Params, number: int) -> Start:
    """A start at those parameters, before any step."""
    return Start(number, sample_solver(model, rows).begin(model, params), rows.rows, rows.weight)


def climbed(
    model: Model, rows: ResidentSample, field: Sequence[Start], steps: int, until: float | None = None
) -> list[Start]:
    """The same starts after so many EM steps on those rows, or as many as are done by then on the monotonic clock."""
    solver = sample_solver(model, rows)
    fresh = [s.rows != rows.rows or s.state.status != "running" for s in field]  # differences of other rows mislead
    states = [solver.begin(model, s.state.params) if new else s.state for s, new in zip(field, fresh)]
    runs = [Run(model, state, start=s.number) for s, state in zip(field, states)]
    fit = Fit(runs, rows.source, solver, rows.executor, max_passes=steps, in_memory=True)
    if until is not None:
        fit.began, fit.time_limit = until, 0.0
    fit.run()
    return [
        replace(s, state=_going_on(run.state), rows=rows.rows, weight=rows.weight) for s, run in zip(field, fit.runs)
    ]


def _going_on(state: State) -> State:
    if state.status == "time_limit":  # of the whole fit: what the steps here were told of it is not for people
        return replace(state, note="the time was over before it had settled")
    return replace(state, status="running") if state.status == "max_passes" else state


def merit(start: Start) -> float:
    """What starts are ordered by."""
    state = start.state
    return -np.inf if state.status == "degenerate" or np.isnan(state.loglik) else state.loglik


def stopped(field: Sequence[Start]) -> bool:
    """Whether Ctrl-C came while starts climbed, or their time was over."""
    return any(s.state.status in ("interrupted", "time_limit") for s in field)


def over(until: float | None) -> bool:
    """Whether that time has come."""
    return until is not None and time.monotonic() >= until


def differences(model: Model, rows: ResidentSample, params: Sequence[Any]) -> np.ndarray:
    """(pieces, runs) log-likelihoods of each piece of the rows, minus the first run's."""
    each = rows.logliks(model, params, PIECES)
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(each - each[:, :1], nan=np.inf)


def noise_of(apart: np.ndarray) -> Any:
    """Standard deviations (runs,) of the sums of `differences`, or that of one of them."""
    return apart.std(axis=0) * PIECES**0.5
