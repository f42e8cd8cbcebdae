"""Where the line of progress goes: a terminal, which is redrawn in place, or the output of a notebook's cell."""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

_A_SECOND = 8  # times that a terminal is redrawn
_APART = 0.5  # seconds between changes of a notebook's output, each of which is a message that the notebook keeps
_BAR = 20  # columns
_PLAIN_WIDTH = 160


@dataclass(frozen=True)
class Line:
    """What is to be seen now.

    Parameters
    ----------
    stage : str
    done, total : int
        Blocks.
    told : tuple of str
        The most important first: where there is little room, what stands last is left out.
    """

    stage: str
    done: int
    total: int
    told: tuple[str, ...]

    def fitting(self, width: int) -> str:
        """As much of what is told as fits, by whole pieces."""
        shown = ""
        for piece in self.told:
            longer = f"{shown}, {piece}" if shown else piece
            if len(longer) <= width:
                shown = longer
        return shown


class Display(Protocol):
    """Shows a line that changes."""

    def start(self, line: Callable[[], Line]) -> None:
        """From now on show what `line()` gives."""

    def refresh(self) -> None:
        """Something changed; called as often as it does."""

    def stop(self) -> None:
        """Leave the last line where it is."""


class Terminal:
    """Redraws one line of a terminal, so many times a second whatever the fit does.

    Parameters
    ----------
    console : rich.console.Console, optional
        Default: standard error.
    """

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console

        self._console = console or Console(stderr=True)
        self._live: Any = None

    def start(self, line: Callable[[], Line]) -> None:
        """Begin to draw, in a thread."""
        from rich.live import Live

        self._live = Live(
            get_renderable=lambda: self._drawn(line()), console=self._console, refresh_per_second=_A_SECOND
        )
        self._live.start()

    def refresh(self) -> None:
        """The thread will see to it."""

    def stop(self) -> None:
        """Draw once more, and give the terminal back."""
        if self._live is not None:
            self._live.stop()

    def _drawn(self, line: Line) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        width = self._console.width
        bar = min(_BAR, max(4, width // 5))
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        room = width - len(line.stage) - bar - 3
        grid.add_row(
            Text(line.stage),
            ProgressBar(total=max(1, line.total), completed=line.done, width=bar),
            Text(line.fitting(room)),
        )
        return grid


class Notebook:
    """Rewrites one output of a cell.  It is text and HTML, so that it needs no widgets and stays in the saved file."""

    def __init__(self) -> None:
        self._line: Callable[[], Line] | None = None
        self._handle: Any = None
        self._shown = 0.0

    def start(self, line: Callable[[], Line]) -> None:
        """Show the line for the first time."""
        from IPython.display import display

        self._line = line
        self._handle = display(self._content(), raw=True, display_id=True)
        self._shown = time.monotonic()

    def refresh(self) -> None:
        """Show it again, if it was not shown just now."""
        if self._handle is not None and time.monotonic() - self._shown >= _APART:
            self._show()

    def stop(self) -> None:
        """Show it a last time."""
        if self._handle is not None:
            self._show()
            self._handle = None

    def _show(self) -> None:
        self._handle.update(self._content(), raw=True)
        self._shown = time.monotonic()

    def _content(self) -> dict[str, str]:
        assert self._line is not None
        line = self._line()
        text = line.fitting(_PLAIN_WIDTH)
        full = round(_BAR * min(1.0, line.done / max(1, line.total)))
        bar = f'<progress value="{line.done}" max="{max(1, line.total)}"></progress>'
        return {
            "text/plain": f"{line.stage} [{'#' * full}{'.' * (_BAR - full)}] {text}",
            "text/html": f"<div>{html.escape(line.stage)} {bar} <small>{html.escape(text)}</small></div>",
        }
