"""The only loop: one pass reads every block once; a fit is a generator of steps, each of them over all blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from dask_em.errors import ENDS_ONE, DaskEMError, DataChangedError, DataError
from dask_em.hashing import Fold, Resampling
from dask_em.history import Record, add, in_words, n_passes
from dask_em.model import Chunk, Executor, Model, Params, PassResult, Request, Resident, Solver, Source, State
from dask_em.rivals import drop_beaten
from dask_em.sources.portion import Portion

# ---------------------------------------------------------------- one pass


@dataclass(frozen=True)
class Together:
    """Several partial results that travel together."""

    each: tuple[Any, ...]

    def merge(self, right: Together) -> Together:
        """Join, answer by answer, with the rows that follow."""
        return Together(tuple(a.merge(b) for a, b in zip(self.each, right.each, strict=True)))

    def close(self) -> list[Any]:
        """The finished answers."""
        return [a.close() for a in self.each]


@dataclass(frozen=True)
class EStep:
    """The request of EM: statistics and log-likelihood at several parameter sets, from one read.

    With a `fold`, the rows that it holds out count in a second answer, after those of all the others; with a
    `resampling`, rows count as often as it draws them.
    """

    model: Model
    params: tuple[Params, ...]
    fold: Fold | None = None
    resampling: Resampling | None = None

    @property
    def accepts_nan(self) -> bool:
        """Whether the model knows what to do with missing values."""
        return self.model.accepts_nan

    def map(self, chunk: Chunk) -> Together:
        """One block's partial statistics for each parameter set."""
        if self.resampling is not None:
            chunk = self.resampling.resampled(chunk)
        if self.fold is None:
            return Together(tuple(self.model.e_step(self.params, chunk)))
        kept, held = self.fold.split(chunk)
        return Together(tuple(p for part in (kept, held) for p in self.model.e_step(self.params, part)))


@dataclass(frozen=True)
class Witness:
    """What an earlier pass saw of the data; a later one must see the same."""

    rows: int
    checksum: int


def one_pass(
    source: Source,
    requests: Sequence[Request],
    executor: Executor,
    *,
    witness: Witness | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PassResult:
    """Read every block once and answer all the requests.

    Parameters
    ----------
    source : Source
    requests : sequence of Request
        Their partial results merge in block order, by a tree that block numbers alone fix.
    executor : Executor
    witness : Witness, optional
        What an earlier pass saw.
    progress : callable, optional
        ``progress(blocks, rows)`` hears of what was done since it last heard.

    Raises
    ------
    DataChangedError
        The rows, or any bit of them, are not those that the witness saw.
    DataError
        There are no rows.
    """
    if not source.blocks:
        raise DataError("the data has no rows: nothing can be learned from it")
    result = executor.run(source, requests, progress)
    if result.rows == 0:
        raise DataError(f"{source.where} has no rows that could be kept: loosen the filters, if there are any")
    refuse_changed(result, witness)
    return result


def refuse_changed(result: PassResult, witness: Witness | None) -> None:
    """Raise `DataChangedError` where a pass saw other rows than the witness did."""
    seen = Witness(result.rows, result.checksum)
    if witness is None or seen == witness:
        return
    what = f"{seen.rows} rows, where an earlier pass read {witness.rows}"
    if seen.rows == witness.rows:
        what = "as many rows as an earlier pass did, but other values in them"
    raise DataChangedError(f"the data changed between passes: this pass read {what}; fit again on data at rest")


def _joined(parts: Sequence[PassResult]) -> PassResult:
    """What several portions gave, as of one read; their answers were told already."""
    return PassResult(
        [],
        sum(p.rows for p in parts),
        sum(p.checksum for p in parts) % 2**64,
        sum(p.seconds_read for p in parts),
        sum(p.seconds_compute for p in parts),
        sum(p.seconds for p in parts),
    )


# ---------------------------------------------------------------- a fit


class Callback(Protocol):
    """Hears of a fit from outside. The engine itself never prints, saves or plots."""

    def on_start(self, fit: Fit) -> None:
        """Steps are about to begin."""

    def on_progress(self, blocks: int, rows: int) -> None:
        """Within a step: blocks and rows done since it was last called."""

    def on_step(self, fit: Fit) -> None:
        """A step is complete: `fit.states` and `fit.history` hold what it gave, and whether it was a pass."""

    def on_end(self, fit: Fit) -> None:
        """The fit has ended, in whatever way."""


@dataclass(frozen=True)
class Run:
    """One course of parameters.

    Attributes
    ----------
    model : Model
    state : State
        Where the solver stands.
    group : int
        Which of several fits that share their steps.
    start : int
        Number of the start that it came from.
    held_out : float or None
        Log-likelihood of the rows that a fold holds out, at the parameters last looked at and taken.
    resampling : Resampling or None
        The data set, drawn from the rows, that it is fitted to; the same for all of a group.
    moves : int
        How many times components of its start were moved.
    """

    model: Model
    state: Any
    group: int = 0
    start: int = 0
    held_out: float | None = None
    resampling: Resampling | None = None
    moves: int = 0


@dataclass
class Fit:
    """Fits under way that share their steps: where every run stands, and what the steps so far said."""

    runs: list[Run]
    source: Source
    solver: Solver
    executor: Executor
    witness: Witness | None = None
    history: list[Record] = field(default_factory=list)
    max_passes: int | None = None  # steps at most, those of the history included, whether they are passes or not
    time_limit: float | None = None  # seconds
    began: float | None = None  # what they count from, on the monotonic clock; None: from the first step
    callbacks: Sequence[Callback] = ()
    resident: Resident | None = None  # a sample of the rows, for solvers that use one
    fold: Fold | None = None  # rows that no run learns from
    penalties: Mapping[int, float] | None = None  # nats of each group, where groups compete with one another
    drop: bool = False  # end runs that others of their group have passed by
    in_memory: bool = False  # steps are over rows that were read before: they are no passes
    failed: dict[int, DaskEMError] = field(default_factory=dict)  # groups that could not go on, and why
    _divided: tuple[Source, ...] = ()

    @property
    def states(self) -> list[Any]:
        """Where the runs stand."""
        return [run.state for run in self.runs]

    @property
    def n_passes(self) -> int:
        """Complete reads of the data so far, the census included."""
        return n_passes(self.history)

    @property
    def best(self) -> int:
        """Number of the run with the highest log-likelihood, degenerate ones last."""
        return self.best_of(range(len(self.runs)))

    def best_of(self, which: Iterable[int]) -> int:
        """Number of the best of these runs."""
        return max(which, key=lambda i: _merit(self.runs[i].state))

    def steps(self) -> Iterator[Record]:
        """Go through all rows again and again, one record a step, until every run has ended."""
        while any(state.status == "running" for state in self.states):
            yield self._one()

    def run(self) -> State:
        """All steps, until the runs have ended, or a limit or an interrupt ends them; the best state."""
        self.began = time.monotonic() if self.began is None else self.began
        with ExitStack() as stack:
            for callback in reversed(self.callbacks):  # all of them hear of the end, whatever one of them raises
                stack.callback(callback.on_end, self)
            try:
                for callback in self.callbacks:
                    callback.on_start(self)
                steps = iter(()) if self._over(self.began) else self.steps()
                for _ in steps:
                    for callback in self.callbacks:
                        callback.on_step(self)
                    if self._over(self.began):
                        break
            except KeyboardInterrupt:
                self._end_all(
                    "interrupted", "stopped by an interrupt", ": these are the parameters of the last complete step"
                )
        return self.states[self.best]

    def _over(self, began: float) -> bool:
        if self.max_passes is not None and len(self.history) >= self.max_passes:
            self._end_all("max_passes", f"stopped after {in_words(self.history)}, as max_passes={self.max_passes} says")
        elif self.time_limit is not None and time.monotonic() - began >= self.time_limit:
            spent = f"stopped after {in_words(self.history)}, as time_limit={self.time_limit:g} says"
            self._end_all("time_limit", spent)
        return all(state.status != "running" for state in self.states)

    def _end_all(self, status: Any, note: str, looked: str = "") -> None:
        """End the runs that go on; what a step looked at is described by `looked`, and of the rest nothing is known."""
        for i, run in enumerate(self.runs):
            if run.state.status == "running" and run.state.n_steps:
                self.set(i, status=status, note=note + looked)
            elif run.state.status == "running":
                self.set(i, status=status, loglik=np.nan, note=note)

    def set(self, i: int, **changes: Any) -> None:
        """Change a run's state."""
        self.runs[i] = replace(self.runs[i], state=replace(self.runs[i].state, **changes))

    def _one(self) -> Record:
        """One step: all rows are gone through once, in as many portions as the solver asks for."""
        active = [i for i, run in enumerate(self.runs) if run.state.status == "running"]
        portions = self._portions(active)
        seen = list[PassResult]()
        for number, rows in enumerate(portions):
            seen.append(self._look(rows, (number, len(portions))))
        result = seen[0] if len(seen) == 1 else _joined(seen)
        if len(portions) > 1:
            refuse_changed(result, self.witness)
        self.witness = Witness(result.rows, result.checksum)
        if self.drop:
            drop_beaten(self)
        return self._record(result, len(active))

    def _portions(self, active: Sequence[int]) -> Sequence[Source]:
        """The rows of the next step, divided as the solver wants them."""
        divide = getattr(self.solver, "portions", None)
        if divide is None or self.fold is not None:  # a fold is of blocks by their numbers
            return (self.source,)
        first, blocks = self.runs[active[0]], len(self.source.blocks)
        rows = self.source.n_rows if self.witness is None else self.witness.rows
        n = divide(first.model, first.state, rows or blocks, blocks, first.model.nbytes(self.source.n_features))
        if n == 1:
            return (self.source,)
        if len(self._divided) != n:  # kept from step to step: a cluster may hold their data
            self._divided = tuple(Portion(self.source, i, n) for i in range(n))
        return self._divided

    def _look(self, rows: Source, portion: tuple[int, int]) -> PassResult:
        """Ask some rows what the runs want to know, and tell their solvers."""
        asked = [self.solver.ask(run.state) if run.state.status == "running" else [] for run in self.runs]
        active = [i for i, params in enumerate(asked) if params]
        if not active and portion[0] == 0:
            raise RuntimeError(f"{type(self.solver).__name__} runs on, but asks for nothing")
        groups: dict[int, list[int]] = {}  # runs of one model share the work on a chunk
        for i in active:
            groups.setdefault(self.runs[i].group, []).append(i)
        requests = [
            EStep(first.model, tuple(p for i in own for p in asked[i]), self.fold, first.resampling)
            for own in groups.values()
            for first in (self.runs[own[0]],)
        ]
        whole = portion[1] == 1
        result = one_pass(
            rows,
            requests,
            self.executor,
            witness=self.witness if whole else None,
            progress=self._progress if self.callbacks else None,
        )
        for own, answers in zip(groups.values(), result.answers, strict=True):
            at = 0
            for i in own:
                n = len(asked[i])
                held = None if self.fold is None else answers[len(answers) // 2 + at :][:n]
                self._tell(i, asked[i], answers[at : at + n], held, {} if whole else {"portion": portion})
                at += n
        return result

    def _tell(
        self, i: int, asked: list[Params], answers: list[Any], held: list[Any] | None, which: Mapping[str, Any]
    ) -> None:
        run = self.runs[i]
        if run.group in self.failed:
            return
        try:
            state = self.solver.tell(run.model, run.state, answers, self.resident, **which)
        except ENDS_ONE as error:
            self.failed[run.group] = error
            if {other.group for other in self.runs} <= set(self.failed):  # nobody is left to go on
                raise
            for j in (j for j, other in enumerate(self.runs) if other.group == run.group):
                self.set(j, status="degenerate", note=str(error))
            return
        held_out = run.held_out
        if held is not None:
            taken = [stats for params, stats in zip(asked, held) if params is state.params]
            held_out = float(taken[0].total_loglik) if taken else held_out
        self.runs[i] = replace(run, state=state, held_out=held_out)

    def _progress(self, blocks: int, rows: int) -> None:
        for callback in self.callbacks:
            callback.on_progress(blocks, rows)

    def _record(self, result: PassResult, active: int) -> Record:
        best = self.states[self.best]
        return add(
            self.history,
            self.solver.name,
            result,
            resident=self.in_memory,
            loglik=float(best.loglik),
            gain=float(best.gain) if np.isfinite(best.gain) else None,  # nothing can be predicted yet
            contraction=best.contraction,
            accepted=best.accepted,
            step=best.step if best.accepted else None,
            runs=active,
        )


def _merit(state: State) -> tuple[bool, float]:
    return state.status != "degenerate", -np.inf if np.isnan(state.loglik) else state.loglik
