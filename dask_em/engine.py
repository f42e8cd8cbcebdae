"""The only loop: one pass reads every block once; a fit is a generator of passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from dask_em.errors import DataChangedError, DataError
from dask_em.model import Chunk, Executor, Model, Params, PassResult, Request, Solver, Source, State

Record = dict[str, Any]  # one line of a fit's history


# ---------------------------------------------------------------- one pass


@dataclass(frozen=True)
class Answers:
    """Several partial results that travel together."""

    each: tuple[Any, ...]

    def merge(self, right: Answers) -> Answers:
        """Join, answer by answer, with the rows that follow."""
        return Answers(tuple(a.merge(b) for a, b in zip(self.each, right.each, strict=True)))

    def close(self) -> list[Any]:
        """The finished answers."""
        return [a.close() for a in self.each]


@dataclass(frozen=True)
class EStep:
    """The request of EM: statistics and log-likelihood at several parameter sets, from one read."""

    model: Model
    params: tuple[Params, ...]

    @property
    def accepts_nan(self) -> bool:
        """Whether the model knows what to do with missing values."""
        return self.model.accepts_nan

    def map(self, chunk: Chunk) -> Answers:
        """One block's partial statistics for each parameter set."""
        return Answers(tuple(self.model.e_step(self.params, chunk)))


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
        raise DataError("the data has no rows (none are left after filters, if there are any)")
    seen = Witness(result.rows, result.checksum)
    if witness is not None and seen != witness:
        what = f"{seen.rows} rows, where an earlier pass read {witness.rows}"
        if seen.rows == witness.rows:
            what = "as many rows as an earlier pass did, but other values in them"
        raise DataChangedError(f"the data changed between passes: this pass read {what}; fit again on data at rest")
    return result


# ---------------------------------------------------------------- a fit


class Callback(Protocol):
    """Hears of a fit from outside. The engine itself never prints, saves or plots."""

    def on_start(self, fit: Fit) -> None:
        """Passes are about to begin."""

    def on_progress(self, blocks: int, rows: int) -> None:
        """Within a pass: blocks and rows done since it was last called."""

    def on_pass(self, fit: Fit) -> None:
        """A pass is complete: `fit.states` and `fit.history` hold what it gave."""

    def on_end(self, fit: Fit) -> None:
        """The fit has ended, in whatever way."""


@dataclass
class Fit:
    """A fit under way: where every run stands, and what the passes so far said."""

    model: Model
    source: Source
    solver: Solver
    executor: Executor
    states: list[Any]
    witness: Witness | None = None
    history: list[Record] = field(default_factory=list)
    max_passes: int | None = None
    time_limit: float | None = None  # seconds from now
    callbacks: Sequence[Callback] = ()
    census: Any = None  # what the first pass said of the data, for whoever made this fit

    @property
    def n_passes(self) -> int:
        """Complete reads of the data so far, the census included."""
        return len(self.history)

    @property
    def best(self) -> int:
        """Number of the run with the highest log-likelihood, degenerate ones last."""
        return max(range(len(self.states)), key=lambda i: _merit(self.states[i]))

    def passes(self) -> Iterator[Record]:
        """Read the data again and again, one record a pass, until every run has ended."""
        while any(state.status == "running" for state in self.states):
            yield self._one()

    def run(self) -> State:
        """All passes, until the runs have ended, or a limit or an interrupt ends them; the best state."""
        began = time.monotonic()
        try:
            for callback in self.callbacks:
                callback.on_start(self)
            if self._over(began):
                return self.states[self.best]
            for _ in self.passes():
                for callback in self.callbacks:
                    callback.on_pass(self)
                if self._over(began):
                    break
        except KeyboardInterrupt:
            self._end_all("interrupted", "interrupted: these are the parameters of the last complete pass")
        finally:
            for callback in self.callbacks:
                callback.on_end(self)
        return self.states[self.best]

    def _over(self, began: float) -> bool:
        if self.max_passes is not None and self.n_passes >= self.max_passes:
            self._end_all("max_passes", f"stopped after {self.n_passes} passes")
        elif self.time_limit is not None and time.monotonic() - began >= self.time_limit:
            self._end_all("time_limit", f"stopped after {self.time_limit:g} s")
        return all(state.status != "running" for state in self.states)

    def _end_all(self, status: Any, note: str) -> None:
        self.states = [replace(s, status=status, note=note) if s.status == "running" else s for s in self.states]

    def _one(self) -> Record:
        asked = [self.solver.ask(s) if s.status == "running" else [] for s in self.states]
        request = EStep(self.model, tuple(p for params in asked for p in params))
        result = one_pass(
            self.source,
            [request],
            self.executor,
            witness=self.witness,
            progress=self._progress if self.callbacks else None,
        )
        self.witness = Witness(result.rows, result.checksum)
        answers = iter(result.answers[0])
        for i, params in enumerate(asked):
            if params:
                own = [next(answers) for _ in params]
                self.states[i] = self.solver.tell(self.model, self.states[i], own)
        record = self._record(result, sum(bool(params) for params in asked))
        self.history.append(record)
        return record

    def _progress(self, blocks: int, rows: int) -> None:
        for callback in self.callbacks:
            callback.on_progress(blocks, rows)

    def _record(self, result: PassResult, active: int) -> Record:
        best = self.states[self.best]
        return {
            "pass": self.n_passes + 1,
            "kind": self.solver.name,
            "loglik": float(best.loglik),
            "gain": float(best.gain) if np.isfinite(best.gain) else None,  # nothing can be predicted yet
            "runs": active,
            "rows": result.rows,
            "seconds": result.seconds,
            "seconds_read": result.seconds_read,
            "seconds_compute": result.seconds_compute,
        }


def _merit(state: State) -> tuple[bool, float]:
    return state.status != "degenerate", -np.inf if np.isnan(state.loglik) else state.loglik
