"""A line that shows how a fit goes: in a terminal and in notebooks, silent anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from math import inf, log

from dask_em.callbacks import Quiet
from dask_em.callbacks.display import Display, Line, Notebook, Terminal
from dask_em.engine import Fit
from dask_em.history import Record, n_resident
from dask_em.measure import Measure

_TOL = 0.05  # nats, where a solver does not say


def progress_callback() -> Quiet | None:
    """A `Progress` where somebody could see it, else None."""
    if _in_notebook():
        return Progress(Notebook())
    if sys.stderr.isatty():
        return Progress()
    return None  # known before rich is imported: a scheduled job should not pay for it


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    return shell is not None and getattr(shell.get_ipython(), "kernel", None) is not None


class Progress(Quiet):
    """Pass or step, blocks, log-likelihood, time left, predicted gain and rows a second, in a line that is rewritten.

    Parameters
    ----------
    display : Display, optional
        Default: the terminal at standard error.
    """

    def __init__(self, display: Display | None = None) -> None:
        self._display = display or Terminal()
        self._shown = self._ended = False
        self._stage = ""
        self._told: tuple[str, ...] = ()
        self._last: tuple[str, ...] = ()  # what is told after the time that it took
        self._done = self._total = self._rows = 0
        self._began = self._step_began = time.monotonic()
        self._after: float | None = None  # seconds that the steps after this one may take
        self._most: float = inf  # seconds that a time limit leaves, counted from `_began`

    # ---- events

    def census(self, n_blocks: int) -> None:
        """The first read of the data is about to begin."""
        self.alone("census", n_blocks)

    def alone(self, stage: str, n_blocks: int) -> None:
        """A read of the data is about to begin after which nothing is known to follow."""
        self._began = time.monotonic()
        self._begin(stage, n_blocks)

    def sample(self, nth: int, fits: int) -> None:
        """The census is done, and starts of one of the fits are being found on the sample that it drew."""
        self._begin("starts, on a sample" + (f": fit {nth} of {fits}" if fits > 1 else ""), 0)

    def seeds(self) -> None:
        """Steps are about to look for where to begin."""
        self._begin("seeds", 0)

    def on_start(self, fit: Fit) -> None:
        """Steps are about to begin."""
        if fit.time_limit is not None and fit.began is not None:
            self._most = fit.began - self._began + fit.time_limit
        self._begin_step(fit)

    def on_progress(self, blocks: int, rows: int) -> None:
        """Blocks and rows done since the last call."""
        self._done, self._rows = self._done + blocks, self._rows + rows
        self._display.refresh()

    def on_step(self, fit: Fit) -> None:
        """A step is complete."""
        self._begin_step(fit)

    def on_end(self, fit: Fit) -> None:
        """The fit has ended, in whatever way, perhaps before it began."""
        if not self._shown:
            return
        status = fit.states[fit.best].status if fit.states else "running"
        if status == "running":  # it was an error that ended it
            self._stage = f"stopped in {_at_hand(fit)}"
        else:
            self._stage = f"{status} after {fit.n_passes} pass{'es' if fit.n_passes != 1 else ''}"
            self._told, self._last = (*_reached(fit), *_in_memory(fit.history)), _gain(fit)
            if status != "interrupted":
                self._done = self._total = max(1, self._total)
        self.close()

    def close(self) -> None:
        """Leave the terminal as it was found."""
        if self._shown:
            self._ended = True
            self._display.stop()
            self._shown = False

    # ---- what is seen

    def line(self) -> Line:
        """What is to be seen now."""
        now = time.monotonic()
        elapsed, seconds = now - self._began, now - self._step_began
        told = [*self._told]
        if not self._ended:
            done = min(self._done, self._total)
            if done:
                told.append(self._left(seconds * (self._total - done) / done, elapsed))
            elif self._after is not None:  # rows held in memory are read too fast to be counted
                told.append(self._left(0.0, elapsed))
            if self._total:
                told.append(f"{done}/{self._total} blocks")
            if self._rows:
                told.append(f"{_compact(self._rows / max(seconds, 1e-3))} rows/s")
        told.append(f"{_duration(elapsed)} {'in all' if self._ended else 'so far'}")
        told += self._last
        return Line(self._stage, self._done, self._total, tuple(told))

    def _left(self, rest: float, elapsed: float) -> str:
        if self._after is None:
            return f"about {_duration(rest)} left in this pass"
        return f"about {_duration(max(0.0, min(rest + self._after, self._most - elapsed)))} left"

    def _begin(self, stage: str, n_blocks: int) -> None:
        self._stage, self._total, self._done, self._rows = stage, n_blocks, 0, 0
        self._step_began = time.monotonic()
        if self._shown:
            self._display.refresh()
        else:
            self._shown = True
            self._display.start(self.line)

    def _begin_step(self, fit: Fit) -> None:
        self._told = (*_reached(fit), *_gain(fit))
        left = steps_left(fit)
        self._after = None if left is None else max(0.0, left - 1) * fit.history[-1]["seconds"]
        self._begin(_at_hand(fit), 0 if fit.in_memory else len(fit.source.blocks))


def _at_hand(fit: Fit) -> str:
    """What is under way: a pass, or a step over rows that were kept in memory."""
    return f"step {n_resident(fit.history) + 1}" if fit.in_memory else f"pass {fit.n_passes + 1}"


def _in_memory(history: Sequence[Record]) -> tuple[str, ...]:
    n = n_resident(history)
    return (f"{n} step{'s' if n > 1 else ''} in memory",) if n else ()


def _reached(fit: Fit) -> tuple[str, ...]:
    value, measure = fit.history[-1].get("loglik") if fit.history else None, _measure(fit)
    return () if value is None or value != value else (f"{measure.name} {measure.of(value):,.2f}",)


def _gain(fit: Fit) -> tuple[str, ...]:
    """The predicted gain, once steps contract: before that, predictions are of the next few steps at best."""
    value = fit.history[-1].get("gain") if fit.history else None
    shrinks = fit.history[-1].get("contraction") if fit.history else None
    if value is None or shrinks is None or not 0 <= shrinks < 1:
        return ()
    return (f"about {_measure(fit).gain(value)} or more to gain",)


def _measure(fit: Fit) -> Measure:
    return fit.runs[fit.best].model.measure if fit.runs else Measure()


def steps_left(fit: Fit) -> float | None:
    """Steps that a fit still needs, the one at hand included; None while nothing can be said.

    The predicted gain is taken to fall on as it does now, until it is below the solver's `tol`.
    """
    most = inf if fit.max_passes is None else fit.max_passes - len(fit.history)  # steps in memory count as well
    gains = [record["gain"] for record in fit.history if record.get("gain") is not None]
    if not gains or fit.history[-1].get("gain") is None:
        return None
    tol = float(getattr(fit.solver, "tol", _TOL))
    if gains[-1] <= tol:
        return min(1.0, most)
    factor = getattr(fit.states[fit.best], "contraction", None)
    if factor is None and len(gains) > 1:
        factor = gains[-1] / gains[-2]
    if tol <= 0:  # then only the limit ends it
        return most if most < inf else None
    if factor is None or not 0 < factor < 1:
        return None
    return min(max(1.0, log(tol / gains[-1]) / log(factor)), most)


def _compact(number: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
