"""What every start of a fit came to: the lines of `restarts_`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dask_em.engine import Record, Run
from dask_em.initialize import Moments
from dask_em.race import Start, same_optimum
from dask_em.resident import ResidentSample

_PIECES = 32  # of the sample, on each of which two parameter sets must agree to be one optimum


def raced(start: Start) -> Record:
    """The line of a start that the race ended."""
    state = start.state
    return {
        "start": start.number,
        "loglik": float(state.loglik),
        "rows": 0 if np.isnan(state.loglik) else start.rows,
        "per_weight": float(state.loglik / start.weight),
        "status": state.status,
        "passes": 0,
        "optimum": start.same_as,
        "note": state.note,
    }


def start_records(
    runs: Sequence[Run], beaten: Sequence[Record], moments: Moments, resident: ResidentSample
) -> list[Record]:
    """A line for each start, in the order of their numbers; optima are numbered from the best.

    "rows" is how many the log-likelihood is of: those of the sample for a start that was beaten on it, and none for one
    that was not looked at.

    Parameters
    ----------
    runs : sequence of Run
        Those that went on to full passes.
    beaten : sequence of Record
        What `raced` says of the others; "optimum" is the number of the start that it coincides with.
    moments : Moments
    resident : ResidentSample
    """
    of = moments.weight
    runs = sorted(runs, key=lambda r: -_or_least(r.state.loglik))
    records = [
        {
            "start": run.start,
            "loglik": float(run.state.loglik),
            "rows": 0 if np.isnan(run.state.loglik) else moments.rows,
            "per_weight": float(run.state.loglik / (run.state.weight if np.isfinite(run.state.weight) else of)),
            "status": run.state.status,
            "passes": run.state.n_passes,
            "optimum": optimum,
            "note": run.state.note,
        }
        for run, optimum in zip(runs, _optima(runs, resident), strict=True)
    ]
    reached = {r["start"]: r["optimum"] for r in records}
    chain = {b["start"]: b["optimum"] for b in beaten}
    for line in beaten:
        twin = line["optimum"]
        while twin in chain and chain[twin] is not None:
            twin = chain[twin]
        records.append({**line, "optimum": reached.get(twin)})
    return sorted(records, key=lambda r: r["start"])


def _optima(runs: Sequence[Run], resident: ResidentSample) -> list[int | None]:
    if len(runs) == 1:
        return [0]
    each = resident.logliks(runs[0].model, [r.state.params for r in runs], _PIECES)
    firsts: list[int] = []
    numbers: list[int | None] = []
    for i, run in enumerate(runs):
        if run.state.status not in ("converged", "surpassed"):
            numbers.append(None)
            continue
        twin = next((n for n, j in enumerate(firsts) if same_optimum(each[:, i] - each[:, j], resident.weight)), None)
        if twin is None:
            firsts.append(i)
            twin = len(firsts) - 1
        numbers.append(twin)
    return numbers


def _or_least(loglik: float) -> float:
    return -np.inf if np.isnan(loglik) else loglik
