"""The race: many starts on ever larger parts of the resident sample; the best go on to all rows.

Every start is taken to where it settles on few rows, since how high it stands on the way there says little: of 32
starts on 854,000 epicentres the one that ends highest is often among the lowest after ten steps, or twenty.  Then
whoever is beaten beyond the noise of a sample is dropped, which is the noise of a *difference* of two runs on the same
rows, far smaller than that of either; and so are those that met, but one.  The others settle anew on four times the
rows, the best of them on more.  All starts share each look at the rows.

So a start is passed by only where another is better beyond noise, and more starts seldom end lower than the first few
of them do.  (Races of this kind: Maron and Moore 1994.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_em.engine import Fit, Run
from dask_em.errors import DegenerateError
from dask_em.model import Chunk, Model, Params, Solver, State
from dask_em.resident import ResidentSample
from dask_em.solvers.anderson import Anderson
from dask_em.solvers.em import EM

Begin = Callable[[Any, Chunk, np.random.Generator], Params]  # of a model, a sample and a random stream

_ROWS = (1 << 13, 1 << 15)  # of the race, and one more for each parameter
_POLISHED_ROWS = 1 << 16  # of its last part: what more of them would tell, the first full pass tells better
_STEPS = 300  # on each part of the rows, at most
_FIELD = 4  # runs that are taken to their optima on the last part
_FINALISTS = 3  # that steps over all rows may have to decide among
_TOL = 0.5  # nats of the sample's log-likelihood: closer than sampling error is wasted
_GROWN = 4  # starts that are made of a smaller model's optimum,
_GROWN_STEPS = 10  # the best after so many steps, the better half after each round,
_GROWN_ROWS = 4096  # on so many rows, and one more for each parameter
_PIECES = 32  # of the sample, from whose differences the noise is taken
_BEYOND = 3.0  # standard deviations


@dataclass(frozen=True)
class Start:
    """Where one start stands, or how it ended."""

    number: int
    state: State
    rows: int  # of the sample that its log-likelihood is of
    weight: float
    reached: int | None = None  # number of the start at whose optimum it settled, which may be itself


def make_starts(
    model: Model, resident: ResidentSample, n_init: int, seed: int, begin: Begin | None
) -> tuple[list[Start], list[Start]]:
    """So many starts, each from a random stream of its own; and those among them that have no parameters to begin at.

    Ctrl-C leaves those that were made before it came, interrupted.

    Raises
    ------
    DegenerateError
        None has any.
    KeyboardInterrupt
        None was made yet.
    """
    rows = resident.first(race_rows(model, resident))
    sample = rows.first(_ROWS[0] + 8 * (_n_parameters(model, resident) // resident.chunk.x.shape[1])).chunk
    solver = sample_solver(model)
    starts, void, problem = list[Start](), list[Start](), None
    for i in range(n_init):
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
            none = State(None, np.nan, status="interrupted", note="stopped by an interrupt, before it began")
            return given_up(starts), [*void, *(Start(j, none, 0, np.nan) for j in range(i, n_init))]
        starts.append(Start(i, solver.begin(model, params), rows.rows, rows.weight))
    if not starts and problem is not None:
        raise problem
    return starts, void


def grown_starts(
    model: Model, resident: ResidentSample, smaller: Sequence[tuple[Model, Params]], seed: int, first: int
) -> list[Start]:
    """Starts that go on from where the largest of some smaller models got to, if there is one.

    A fit with more components then has a start near the optimum with fewer, and comparisons between them are not
    left to the luck of starts (Verbeek, Vlassis and Kroese 2003).

    Parameters
    ----------
    model : Model
    resident : ResidentSample
    smaller : sequence of (Model, Params)
        The largest last.
    seed : int
    first : int
        Number of the first of the starts.

    Returns
    -------
    list of Start
        One alone, interrupted, where Ctrl-C came while they climbed.
    """
    rows = resident.first(_GROWN_ROWS + _n_parameters(model, resident))
    for known, params in reversed(smaller):
        made = model.grown(known, params, rows.chunk, np.random.default_rng([seed, first]))
        if made:
            break
    else:
        return []
    solver = sample_solver(model)
    starts = [Start(first, solver.begin(model, p), rows.rows, rows.weight) for p in made]
    while len(starts) > _GROWN:
        starts = sorted(climbed(model, rows, starts, _GROWN_STEPS), key=lambda s: -_merit(s))
        if interrupted(starts):
            return [replace(_best_given_up(starts, [])[0][0], number=first)]
        starts = starts[: max(_GROWN, len(starts) // 2)]
    whole = resident.first(race_rows(model, resident))
    ends = [s.state.params for s in starts]
    return [Start(first + i, solver.begin(model, p), whole.rows, whole.weight) for i, p in enumerate(ends)]


def race_rows(model: Model, resident: ResidentSample) -> int:
    """Rows on which all starts are compared."""
    return min(resident.rows, _ROWS[0] + _n_parameters(model, resident))


def _n_parameters(model: Model, resident: ResidentSample) -> int:
    return model.nbytes(resident.chunk.x.shape[1]) // 8


def sample_solver(model: Model) -> Solver:
    """The solver for rows in memory."""
    return Anderson(tol=_TOL) if model.accelerates else EM(tol=_TOL)


def race(
    model: Model, resident: ResidentSample, starts: Sequence[Start], *, polish: bool
) -> tuple[list[Start], list[Start]]:
    """Run starts against each other.

    Parameters
    ----------
    model : Model
    resident : ResidentSample
    starts : sequence of Start
    polish : bool
        Whether to take the last of them to their optima on more rows than the race is run on.

    Returns
    -------
    finalists, others : list of Start
        The finalists, best first, differ by no more than the noise of the sample.
    """
    field, out = list(starts), list[Start]()
    if interrupted(field):
        return _best_given_up(field, out)
    try:
        rows = resident.first(race_rows(model, resident))
        for i, n_rows in enumerate(_parts(model, resident, len(field), polish)):
            rows = resident.first(n_rows)
            field = climbed(model, rows, field, _STEPS)
            if interrupted(field):
                return _best_given_up(field, out)
            field, dropped = _unbeaten(model, rows, field, _FIELD if i else len(field))
            out += dropped
        finalists = _undecided(model, rows, field)[:_FINALISTS]
    except KeyboardInterrupt:  # while starts were compared: a climb that is interrupted says so itself
        return _best_given_up(field, out)
    return finalists, [*out, *(_dropped(s) for s in field if s not in finalists)]


def _parts(model: Model, resident: ResidentSample, n_starts: int, polish: bool) -> list[int]:
    """How many rows of the sample starts settle on, one part of it after another.

    One start alone takes the same way, but for the whole of few rows, where nothing is to be compared.
    """
    several = [min(resident.rows, n + _n_parameters(model, resident)) for n in _ROWS]
    if n_starts == 1:
        several = [n for n in several if n < resident.rows]
    return sorted({*several, *([min(resident.rows, _POLISHED_ROWS)] if polish else [])})


def interrupted(field: Sequence[Start]) -> bool:
    """Whether Ctrl-C came while starts climbed."""
    return any(s.state.status == "interrupted" for s in field)


def given_up(starts: Sequence[Start]) -> list[Start]:
    """The starts as they are, where nobody wants to wait for them."""
    return [replace(s, state=replace(s.state, status="interrupted")) for s in starts]


def _best_given_up(field: Sequence[Start], out: Sequence[Start]) -> tuple[list[Start], list[Start]]:
    """The best start so far, and the others."""
    ended = given_up(field)
    best = max(ended, key=_merit)
    return [best], [*out, *(s for s in ended if s is not best)]


def climbed(model: Model, rows: ResidentSample, field: Sequence[Start], steps: int) -> list[Start]:
    """The same starts after so many EM steps on those rows."""
    solver = sample_solver(model)
    fresh = [s.rows != rows.rows or s.state.status != "running" for s in field]  # differences of other rows mislead
    states = [solver.begin(model, s.state.params) if new else s.state for s, new in zip(field, fresh)]
    runs = [Run(model, state, start=s.number) for s, state in zip(field, states)]
    fit = Fit(runs, rows.source, solver, rows.executor, max_passes=steps, in_memory=True)
    fit.run()
    return [
        replace(s, state=_going_on(run.state), rows=rows.rows, weight=rows.weight) for s, run in zip(field, fit.runs)
    ]


def _going_on(state: State) -> State:
    return replace(state, status="running") if state.status == "max_passes" else state


def _merit(start: Start) -> float:
    state = start.state
    return -np.inf if state.status == "degenerate" or np.isnan(state.loglik) else state.loglik


def _unbeaten(model: Model, rows: ResidentSample, field: list[Start], most: int) -> tuple[list[Start], list[Start]]:
    """The starts that stay in the race, best first and no more than so many, and those that are dropped."""
    order, out = _distinct(model, rows, sorted(field, key=lambda s: -_merit(s)))
    merits = np.array([_merit(s) for s in order])
    usable = merits[np.isfinite(merits)]
    counts = (usable.max() - usable.min()) / 4 if len(usable) else 0.0  # nats that a prediction counts for
    limits = merits + np.array([min(s.state.gain, counts) for s in order])
    noise = differences(model, rows, [s.state.params for s in order]).std(axis=0) * _PIECES**0.5
    beaten = limits + _BEYOND * noise < merits[0]
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
    most = max(1e-5 * weight, min(1e-4 * weight, (2 * _TOL) ** 0.5))
    return bool(np.isfinite(apart).all() and np.abs(apart).max() < most)


def differences(model: Model, rows: ResidentSample, params: Sequence[Any]) -> np.ndarray:
    """(pieces, runs) log-likelihoods of each piece of the rows, minus the first run's."""
    each = rows.logliks(model, params, _PIECES)
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(each - each[:, :1], nan=np.inf)


def _undecided(model: Model, rows: ResidentSample, order: list[Start]) -> list[Start]:
    """The best, and those that a larger sample might find better."""
    apart = differences(model, rows, [s.state.params for s in order])
    noise = apart.std(axis=0) * _PIECES**0.5
    return [s for i, s in enumerate(order) if i == 0 or apart[:, i].sum() + 2 * noise[i] >= 0]
