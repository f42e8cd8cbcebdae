"""What every start of a fit came to: the lines of `restarts_`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dask_em.climbing import Start
from dask_em.engine import Run
from dask_em.history import Record
from dask_em.moments import Moments
from dask_em.race import meetings
from dask_em.resident import ResidentSample


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
        "steps": 0,
        "moves": start.moves,
        "optimum": start.reached,
        "note": state.note,
    }


def start_records(
    runs: Sequence[Run], beaten: Sequence[Record], moments: Moments, resident: ResidentSample, *, in_memory: bool
) -> list[Record]:
    """A line for each start, in the order of their numbers.

    Optima are numbered from the best: those that steps over all rows led to, then those that were left on the sample.

    "rows" is how many the log-likelihood is of: those of the sample for a start that was beaten on it, and none for one
    that was not looked at.  "steps" are those that the start took over all rows, "passes" the reads of the data among
    them: none, where its rows are in memory.  "moves" are how many times two of its components became one, and another
    two.

    Parameters
    ----------
    runs : sequence of Run
        Those that went on to all rows.
    beaten : sequence of Record
        What `raced` says of the others; "optimum" is the number of the start that settled there first.
    moments : Moments
    resident : ResidentSample
    in_memory : bool
        Whether all rows, or a summary of them, are held there.
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
            "passes": 0 if in_memory else run.state.n_steps,
            "steps": run.state.n_steps,
            "moves": run.moves,
            "optimum": optimum,
            "note": run.state.note,
        }
        for run, optimum in zip(runs, _optima(runs, resident), strict=True)
    ]
    known = {r["start"]: r["optimum"] for r in records}  # start: number of its optimum
    own = [b for b in beaten if b["optimum"] == b["start"]]
    unknown = max((n for n in known.values() if n is not None), default=-1) + 1
    known |= {b["start"]: i for i, b in enumerate(sorted(own, key=lambda b: -_or_least(b["per_weight"])), unknown)}
    met = {b["start"]: b["optimum"] for b in beaten}
    for line in beaten:
        first = line["optimum"]
        while first in met and first not in known:
            first = met[first]
        records.append({**line, "optimum": known.get(first)})
    return sorted(records, key=lambda r: r["start"])


def _optima(runs: Sequence[Run], resident: ResidentSample) -> list[int | None]:
    """Numbers of the optima that the runs, best first, were led to by steps over all rows."""
    if len(runs) == 1:
        return [0]
    ended = [i for i, run in enumerate(runs) if run.state.status in ("converged", "surpassed")]
    numbers: list[int | None] = [None] * len(runs)
    found = 0
    for i, met in zip(ended, meetings(runs[0].model, resident, [runs[i].state.params for i in ended]), strict=True):
        numbers[i] = found if met is None else numbers[ended[met]]
        found += met is None
    return numbers


def _or_least(loglik: float) -> float:
    return -np.inf if np.isnan(loglik) else loglik
