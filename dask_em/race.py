"""The race: many starts on ever larger parts of the resident sample; the best go on to all rows.

Every start is taken to where it settles on few rows, since how high it stands on the way there says little: of 32
starts on 854,000 epicentres the one that ends highest is often among the lowest after ten steps, or twenty.  Then
whoever is beaten beyond the noise of a sample is dropped, which is the noise of a *difference* of two runs on the same
rows, far smaller than that of either; and so are those that met, but one.  The others settle anew on four times the
rows, the best of them on more.  All starts share each look at the rows.

So a start is passed by only where another is better beyond noise.  (Races of this kind: Maron and Moore 1994.)
Whichever settles highest on few rows has its components moved (`dask_em.derived`) before the others are measured
against it.  That gains more than many starts do, and from where it begins decides where it ends; so the best of the
first eight has its components moved too, and more starts than those do not end lower, but for the noise of the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dask_em.climbing import (
    BEYOND,
    RACE_ROWS,
    TOL,
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
from dask_em.derived import moved
from dask_em.errors import DegenerateError
from dask_em.model import Chunk, Model, Params, State, Status
from dask_em.resident import ResidentSample

Begin = Callable[[Any, Chunk, np.random.Generator], Params]  # of a model, a sample and a random stream

_MORE_ROWS = 1 << 15  # that the best settle on after those of the race, and one for each parameter
_POLISHED_ROWS = 1 << 16  # of its last part: what more of them would tell, the first full pass tells better
_STEPS = 300  # on each part of the rows, at most
_FIELD = 4  # runs that are taken to their optima on the last part
_FEW = 8  # starts: what moves make of the best of the first so many is not given up for that of more
_FINALISTS = 3  # that steps over all rows may have to decide among


def make_starts(
    model: Model,
    resident: ResidentSample,
    n_init: int,
    seed: int,
    begin: Begin | None,
    until: float | None = None,
) -> tuple[list[Start], list[Start]]:
    """So many starts, each from a random stream of its own; and those among them that have no parameters to begin at.

    Ctrl-C leaves those that were made before it came, interrupted; the end of time, one at least.

    Raises
    ------
    DegenerateError
        None has any.
    KeyboardInterrupt
        None was made yet.
    """
    rows = resident.first(race_rows(model, resident))
    sample = rows.first(RACE_ROWS + 8 * (n_parameters(model, resident) // resident.chunk.x.shape[1])).chunk
    starts, void, problem = list[Start](), list[Start](), None
    for i in range(n_init):
        if starts and over(until):
            return starts, [*void, *_never_made(range(i, n_init), "time_limit", "the time was over before it began")]
        try:
            rng = np.random.default_rng([seed, i])
            params = model.start(sample, rng) if begin is None else begin(model, sample, rng)
        except DegenerateError as error:  # one unlucky start is no reason to end all of them
            problem = problem or error
            void.append(Start(i, State(None, np.nan, status="degenerate", note=str(error)), 0, np.nan))
            continue
        except KeyboardInterrupt:
            if not starts:
                raise
            left = _never_made(range(i, n_init), "interrupted", "stopped by an interrupt, before it began")
            return given_up(starts), [*void, *left]
        starts.append(begun(model, rows, params, i))
    if not starts and problem is not None:
        raise problem
    return starts, void


def _never_made(numbers: Iterable[int], status: Status, note: str) -> list[Start]:
    return [Start(i, State(None, np.nan, status=status, note=note), 0, np.nan) for i in numbers]


def race(
    model: Model,
    resident: ResidentSample,
    starts: Sequence[Start],
    *,
    polish: bool,
    moves: int | None = None,
    until: float | None = None,
) -> tuple[list[Start], list[Start]]:
    """Run starts against each other.

    Parameters
    ----------
    model : Model
    resident : ResidentSample
    starts : sequence of Start
    polish : bool
        Whether to take the last of them to their optima on more rows than the race is run on.
    moves : int, optional
        Seed of how components are moved; None: they are not.
    until : float, optional
        Time on the monotonic clock that ends the race.

    Returns
    -------
    finalists, others : list of Start
        The finalists, best first, differ by no more than the noise of the sample.
    """
    field, out = list(starts), list[Start]()
    if stopped(field):
        return _best_given_up(field, out)
    try:
        rows = resident.first(race_rows(model, resident))
        for i, n_rows in enumerate(_parts(model, resident, len(field), polish)):
            rows = resident.first(n_rows)
            field = climbed(model, rows, field, _STEPS, until)
            if stopped(field):
                return _best_given_up(field, out)
            few = max((s for s in field if s.number < _FEW), key=merit, default=field[0])
            field, dropped = _unbeaten(model, rows, field, _FIELD if i else len(field))
            out += dropped
            if moves is not None and n_rows == race_rows(model, resident):
                field, out = _with_moves(model, rows, field, out, (field[0], few), moves, until)
                if stopped(field):
                    return _best_given_up(field, out)
        finalists = _undecided(model, rows, field)[:_FINALISTS]
    except KeyboardInterrupt:  # while starts were compared: a climb that is interrupted says so itself
        return _best_given_up(field, out)
    return finalists, [*out, *(_dropped(s) for s in field if s not in finalists)]


def _with_moves(
    model: Model,
    rows: ResidentSample,
    field: list[Start],
    out: list[Start],
    movers: Sequence[Start],
    seed: int,
    until: float | None,
) -> tuple[list[Start], list[Start]]:
    """The field with what came of moving components of some starts, and those that were or are dropped."""
    new = list[Start]()
    for start in {s.number: s for s in movers}.values():
        changed = moved(model, rows, start, seed, until)
        if stopped([changed]):
            status = changed.state.status
            return [replace(s, state=replace(s.state, status=status)) for s in field], out
        if not changed.moves:
            continue
        new.append(changed)
        field, out = ([s for s in starts if s.number != start.number] for starts in (field, out))
        there = [s.number for s in out if s.reached == start.number]  # where it was, and is no more
        note = f"the same optimum as start {start.number} before components of that one were moved"
        out = [replace(s, state=replace(s.state, note=note), reached=there[0]) if s.number in there else s for s in out]
    if not new:
        return field, out
    field, dropped = _unbeaten(model, rows, [*new, *field], len(new) + len(field))
    return field, out + dropped


def _parts(model: Model, resident: ResidentSample, n_starts: int, polish: bool) -> list[int]:
    """How many rows of the sample starts settle on, one part of it after another.

    One start alone takes the same way, but for the whole of few rows, where nothing is to be compared: it stays as it
    is, and its components are not moved.
    """
    extra = n_parameters(model, resident)
    several = [min(resident.rows, n + extra) for n in (RACE_ROWS, _MORE_ROWS)]
    if n_starts == 1:
        several = [n for n in several if n < resident.rows]
    return sorted({*several, *([min(resident.rows, _POLISHED_ROWS)] if polish else [])})


def given_up(starts: Sequence[Start]) -> list[Start]:
    """The starts as they are, where nobody wants to wait for them, or can: whatever ended one of them ended all."""
    status: Status = next((s.state.status for s in starts if stopped([s])), "interrupted")
    return [replace(s, state=replace(s.state, status=status)) for s in starts]


def _best_given_up(field: Sequence[Start], out: Sequence[Start]) -> tuple[list[Start], list[Start]]:
    """The best start so far, and the others."""
    ended = given_up(field)
    best = max(ended, key=merit)
    return [best], [*out, *(s for s in ended if s is not best)]


def _unbeaten(model: Model, rows: ResidentSample, field: list[Start], most: int) -> tuple[list[Start], list[Start]]:
    """The starts that stay in the race, best first and no more than so many, and those that are dropped."""
    order, out = _distinct(model, rows, sorted(field, key=lambda s: -merit(s)))
    merits = np.array([merit(s) for s in order])
    usable = merits[np.isfinite(merits)]
    counts = (usable.max() - usable.min()) / 4 if len(usable) else 0.0  # nats that a prediction counts for
    limits = merits + np.array([min(s.state.gain, counts) for s in order])
    noise = noise_of(differences(model, rows, [s.state.params for s in order]))
    beaten = limits + BEYOND * noise < merits[0]
    beaten[0] = False
    rank = np.argsort(-np.where(beaten, -np.inf, limits), kind="stable")
    kept = sorted(int(i) for i in rank[:most] if not beaten[i])
    return [order[i] for i in kept], out + [_dropped(s) for i, s in enumerate(order) if i not in kept]


def _dropped(start: Start, same_as: int | None = None) -> Start:
    state = start.state
    if state.status == "degenerate":
        return start
    note = f"beaten on a sample of {start.rows} rows"
    if same_as is not None:
        note = f"the same optimum as start {same_as}"
    reached = start.number if same_as is None and state.status == "converged" else same_as
    return replace(start, state=replace(state, status="surpassed", note=note), reached=reached)


def _distinct(model: Model, rows: ResidentSample, order: list[Start]) -> tuple[list[Start], list[Start]]:
    """The starts less those that are, on every piece of the rows, where a better one is."""
    met = meetings(model, rows, [s.state.params for s in order])
    out = [_dropped(s, order[j].number) for s, j in zip(order, met, strict=True) if j is not None]
    return [s for s, j in zip(order, met, strict=True) if j is None], out


def meetings(model: Model, rows: ResidentSample, params: Sequence[Params]) -> list[int | None]:
    """For each parameter set which one before it is the same optimum; None: it is the first there."""
    each = differences(model, rows, params)
    met: list[int | None] = []
    for i in range(len(params)):
        firsts = (j for j, earlier in enumerate(met) if earlier is None)
        met.append(next((j for j in firsts if _same(each[:, i] - each[:, j], rows.weight)), None))
    return met


def _same(apart: np.ndarray, weight: float) -> bool:
    """Whether two parameter sets are one, given the differences of their log-likelihoods on pieces of the rows.

    A run that stops so many nats g below its optimum differs from it by noise of √(2g) nats, as many as one piece may
    differ by here; of few rows, which say little of any difference, less.
    """
    most = max(1e-5 * weight, min(1e-4 * weight, (2 * TOL) ** 0.5))
    return bool(np.isfinite(apart).all() and np.abs(apart).max() < most)


def _undecided(model: Model, rows: ResidentSample, order: list[Start]) -> list[Start]:
    """The best, and those that a larger sample might find better."""
    apart = differences(model, rows, [s.state.params for s in order])
    noise = noise_of(apart)
    return [s for i, s in enumerate(order) if i == 0 or apart[:, i].sum() + 2 * noise[i] >= 0]
