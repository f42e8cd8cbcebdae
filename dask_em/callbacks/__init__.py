"""What hears of a fit from outside: progress, checkpoints, one file each."""

from __future__ import annotations

from dask_em.engine import Fit


class Quiet:
    """A callback that does nothing: subclass it and define the events that matter."""

    def on_start(self, fit: Fit) -> None:
        """Steps are about to begin."""

    def on_progress(self, blocks: int, rows: int) -> None:
        """Within a step: blocks and rows done since it was last called."""

    def on_step(self, fit: Fit) -> None:
        """A step is complete: `fit.history[-1]` says whether it was a pass, a read of the data."""

    def on_end(self, fit: Fit) -> None:
        """The fit has ended, in whatever way."""
