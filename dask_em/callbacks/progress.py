"""A line that shows how a fit goes: in a terminal and in notebooks, silent anywhere else."""

from __future__ import annotations

import sys
from typing import Any

from dask_em.callbacks import Quiet
from dask_em.engine import Fit, Record


def progress_callback() -> Quiet | None:
    """A `Progress` where somebody could see it, else None."""
    if not (sys.stderr.isatty() or _in_notebook()):
        return None  # asked before rich is imported: a scheduled job should not pay for it
    return Progress()


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"


class Progress(Quiet):
    """Pass, blocks, rows a second, log-likelihood, predicted gain and time left."""

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("blocks {task.fields[speed]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[told]}"),
            console=console or Console(stderr=True),
            transient=False,
        )
        self._task: Any = None
        self._rows = 0
        self._records: list[Record] = []

    def census(self, n_blocks: int) -> None:
        """The first read of the data is about to begin."""
        self._bars.start()
        self._task = self._bars.add_task("census", total=n_blocks, speed="", told="")

    def sample(self) -> None:
        """The census is done, and starts are being found on the sample that it drew."""
        self._bars.update(self._task, description="starts, on a sample")

    def on_start(self, fit: Fit) -> None:
        """Passes are about to begin."""
        if self._task is None:
            self.census(len(fit.source.blocks))
        self._begin_pass(fit)

    def on_progress(self, blocks: int, rows: int) -> None:
        """Blocks and rows done since the last call."""
        self._rows += rows
        self._bars.advance(self._task, blocks)
        elapsed = self._bars.tasks[self._task].elapsed
        if elapsed:
            self._bars.update(self._task, speed=f"{_compact(self._rows / elapsed)} rows/s")

    def on_pass(self, fit: Fit) -> None:
        """A pass is complete."""
        self._begin_pass(fit)

    def on_end(self, fit: Fit) -> None:
        """The fit has ended."""
        state = fit.states[fit.best]
        self._bars.update(self._task, description=f"{fit.n_passes} passes, {state.status}", told=_told(fit))
        self.close()

    def close(self) -> None:
        """Leave the terminal as it was found."""
        self._bars.stop()

    def _begin_pass(self, fit: Fit) -> None:
        self._rows = 0
        self._bars.reset(
            self._task, total=len(fit.source.blocks), description=f"pass {fit.n_passes + 1}", speed="", told=_told(fit)
        )


def _told(fit: Fit) -> str:
    if not fit.history or fit.history[-1]["kind"] == "census":
        return ""
    last = fit.history[-1]
    told = f"loglik {last['loglik']:,.2f}"
    if last["gain"] is not None:
        told += f", {last['gain']:.2g} nats to gain"
        left = _passes_left(fit.history)
        if left is not None:
            told += f", about {_duration(left * last['seconds'])} left"
    return told


def _passes_left(history: list[Record]) -> float | None:
    """Passes until the predicted gain is below 0.05 nats, if it goes on falling as it last did."""
    from math import log

    if len(history) < 2:
        return None
    before, now = history[-2]["gain"], history[-1]["gain"]
    if before is None or now is None or not 0 < now < before:
        return None
    return max(0.0, log(0.05 / now) / log(now / before))


def _compact(number: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
