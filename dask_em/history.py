"""A fit's history: one record a step.

A *pass* is one read of the data.  A *step* is one round of a fit: rows are gone through once, and the parameters
may move.  While the data is read again each time, every step is a pass; where its rows, or a summary of them, stay in
memory, the census is the only pass, and the steps that follow it are over what is in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dask_em.measure import Measure
from dask_em.model import PassResult

Record = dict[str, Any]  # one line of a fit's history


def add(history: list[Record], kind: str, result: PassResult, *, resident: bool, **found: Any) -> Record:
    """Append the record of a step.

    Parameters
    ----------
    history : list of Record
    kind : str
        "census", the way that seeds are looked for, or a solver's name.
    result : PassResult
    resident : bool
        Whether it was over what is held in memory, which is no pass.
    **found
        loglik, gain, contraction, accepted, step and runs, as far as they are known.

    Returns
    -------
    Record
        "number" is that of the step, "pass" that of the last pass.
    """
    record = {
        "number": len(history) + 1,
        "pass": n_passes(history) + (not resident),
        "kind": kind,
        "resident": resident,
        "loglik": None,
        "gain": None,
        "contraction": None,
        "accepted": True,
        "step": None,
        "runs": 0,
        **found,
        "rows": result.rows,
        "seconds": result.seconds,
        "seconds_read": result.seconds_read,
        "seconds_compute": result.seconds_compute,
    }
    history.append(record)
    return record


def follow(history: list[Record], records: Iterable[Record], *, resident: bool) -> None:
    """Append records that were numbered on their own."""
    for record in records:
        passed = n_passes(history) + (not resident)
        history.append({**record, "number": len(history) + 1, "pass": passed, "resident": resident})


def measured(record: Mapping[str, Any], measure: Measure) -> Record:
    """A record of a fit or of a start in the terms that its users know: as it is, or with inertias for log-likelihoods.

    Examples
    --------
    >>> measured({"loglik": -4.0, "gain": 1.0, "rows": 3}, Measure("inertia", "of inertia", -2.0))
    {'inertia': 8.0, 'gain': 2.0, 'rows': 3}
    """
    if measure.name == "loglik":
        return dict(record)
    scales = {"loglik": measure.scale, "per_weight": measure.scale, "gain": abs(measure.scale)}
    return {
        measure.name if name == "loglik" else name: value * scales[name] + 0.0  # never minus zero
        if name in scales and value is not None
        else value
        for name, value in record.items()
    }


def n_passes(history: Sequence[Mapping[str, Any]]) -> int:
    """Reads of the data, the census included."""
    return sum(not record.get("resident") for record in history)


def n_steps(history: Sequence[Mapping[str, Any]]) -> int:
    """Steps that moved parameters, or found that they need not move: those of the census and of seeds aside."""
    return sum(bool(record.get("runs")) for record in history)


def n_resident(history: Sequence[Mapping[str, Any]]) -> int:
    """Steps over what was held in memory."""
    return len(history) - n_passes(history)


def in_words(history: Sequence[Mapping[str, Any]]) -> str:
    """How many passes, and steps in memory, as a sentence has it.

    Examples
    --------
    >>> in_words([{"resident": False}, {"resident": True}, {"resident": True}])
    '1 pass and 2 steps in memory'
    """
    read, kept = n_passes(history), n_resident(history)
    told = [f"{read} pass{'es' * (read != 1)}"] if read or not kept else []
    return " and ".join([*told, *([f"{kept} step{'s' * (kept != 1)} in memory"] if kept else [])])
