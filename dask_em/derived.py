"""Starts that are made of what others reached.

A mixture with more components begins with the optimum of one with fewer, some of whose components become two
(Verbeek, Vlassis and Kroese 2003).  And where a start has settled with two components in a place for one, and one where
two belong, no small step leads out: so two of its components that share their rows become one, another becomes two,
and the best of several such changes is where it goes on (Ueda, Nakano, Ghahramani and Hinton 2000).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dask_em.climbing import (
    Start,
    begun,
    climbed,
    differences,
    merit,
    n_parameters,
    noise_of,
    over,
    race_rows,
    stopped,
)
from dask_em.errors import DegenerateError
from dask_em.model import Model, Params
from dask_em.resident import ResidentSample

_GROWN = 4  # starts that are made of a smaller model's optimum
_GROWN_STEPS, _GROWN_ROWS = 10, 4096  # in each round of choosing them, on so many rows and one for each parameter
_MOVED = 4  # changes that are looked at further,
_MOVED_STEPS, _MOVED_ROWS = 5, 2048  # chosen likewise
_MOST_PARAMETERS = 1 << 14
_SETTLED = 40  # steps that tell how good a change is
_MOVES = 12  # at most, each of which gains more than
_SURE = 1.0  # standard deviations of the noise of the sample


def grown_starts(
    model: Model,
    resident: ResidentSample,
    smaller: Sequence[tuple[Model, Params]],
    seed: int,
    first: int,
    until: float | None = None,
) -> list[Start]:
    """Starts that go on from where the largest of some smaller models got to, if there is one.

    A fit with more components then has a start near the optimum with fewer, and comparisons between them are not
    left to the luck of starts.

    Parameters
    ----------
    model : Model
    resident : ResidentSample
    smaller : sequence of (Model, Params)
        The largest last.
    seed : int
    first : int
        Number of the first of the starts.
    until : float, optional
        Time on the monotonic clock from which on there are none.
    """
    rows = resident.first(_GROWN_ROWS + n_parameters(model, resident))
    made = list[Params]()
    for known, params in reversed(smaller):
        made = [] if over(until) else model.grown(known, params, rows.chunk, np.random.default_rng([seed, first]))
        if made:
            break
    ends = _best_of(model, rows, made, _GROWN, _GROWN_STEPS)
    whole = resident.first(race_rows(model, resident))
    return [begun(model, whole, p, first + i) for i, p in enumerate(ends)]


def moved(model: Model, resident: ResidentSample, start: Start, seed: int, until: float | None = None) -> Start:
    """A start that has settled on the rows of the race, with its components moved as long as that helps.

    What it gains each time is more than the noise of a sample.  Models of very many parameters are left as they are: so
    many rows are needed to tell one change from another that those would take longer than the race.
    """
    if n_parameters(model, resident) > _MOST_PARAMETERS or not np.isfinite(merit(start)):
        return start
    few = resident.first(_MOVED_ROWS + n_parameters(model, resident))
    rows = resident.first(race_rows(model, resident))
    for i in range(_MOVES):
        if over(until):
            break
        made = model.moved(start.state.params, few.chunk, np.random.default_rng([seed, start.number, i]))
        ends = _best_of(model, few, made, _MOVED, _MOVED_STEPS)
        if not ends:
            break
        changed = climbed(model, rows, [begun(model, rows, p, start.number) for p in ends], _SETTLED, until)
        if stopped(changed):
            return replace(start, state=replace(start.state, status=changed[0].state.status))
        best = max(changed, key=merit)
        apart = differences(model, rows, [start.state.params, best.state.params])[:, 1]
        if not merit(best) - merit(start) > _SURE * noise_of(apart):
            break
        start = replace(best, moves=start.moves + 1)
    return start


def _best_of(model: Model, rows: ResidentSample, made: Sequence[Params], most: int, steps: int) -> list[Params]:
    """The best after so many EM steps, the better half after each round of them."""
    field = list(made)
    while len(field) > most:
        kept, logliks = max(most, len(field) // 2), list[float]()
        for _ in range(steps):
            field, logliks = _stepped(model, rows, field)
        order = np.argsort(-np.asarray(logliks), kind="stable")
        field = [field[i] for i in order[:kept]]
    return field


def _stepped(model: Model, rows: ResidentSample, field: Sequence[Params]) -> tuple[list[Params], list[float]]:
    """Each of the parameter sets after a step, less those for which there is none, and how good it was before."""
    new, logliks = list[Params](), list[float]()
    for params, stats in zip(field, rows.e_step(model, field), strict=True):
        loglik = stats.total_loglik + model.log_prior(params)
        if not np.isfinite(loglik):
            continue
        try:
            new.append(model.m_step(stats))
        except DegenerateError:
            continue
        logliks.append(loglik)
    return new, logliks
