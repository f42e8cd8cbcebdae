"""What a command says on stderr: sentences for people, or JSON lines for machines."""

from __future__ import annotations

import json
import logging
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from dask_em.engine import Fit

LOG = "dask_em.log"  # where a command's context keeps its log


class Log:
    """Writes to stderr.

    Parameters
    ----------
    kind : {"text", "json"}
        ``json``: one object a line, with ``time``, ``event`` and what belongs to the event.
    """

    def __init__(self, kind: Literal["text", "json"] = "text") -> None:
        self.kind = kind

    def event(self, event: str, **fields: Any) -> None:
        """Something happened; people are not bothered with it."""
        if self.kind == "json":
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            click.echo(json.dumps(plain({"time": now, "event": event, **fields}), allow_nan=False), err=True)

    def warn(self, message: str) -> None:
        """Something should be known."""
        self._say("warning", message)

    def error(self, message: str, code: int) -> None:
        """The command ends here."""
        self._say("error", message, exit_code=code)

    def _say(self, event: str, message: str, **fields: Any) -> None:
        if self.kind == "json":
            self.event(event, message=message, **fields)
        else:
            click.echo(f"{event}: {message}", err=True)

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Warnings, and what libraries log, come through here too."""
        handler = _Handler(self)
        root = logging.getLogger()
        others = list(root.handlers)
        with warnings.catch_warnings():
            warnings.simplefilter("once", UserWarning)
            show = warnings.showwarning

            def ours(message: Any, category: type[Warning], *where: Any, **kwargs: Any) -> None:
                if issubclass(category, UserWarning):
                    self.warn(" ".join(str(message).split()))
                elif self.kind == "json":
                    self.event("warning", message=f"{category.__name__}: {message}")
                else:
                    show(message, category, *where, **kwargs)

            warnings.showwarning = ours
            if self.kind == "json":
                root.handlers = [handler]
            try:
                yield
            finally:
                root.handlers = others


class _Handler(logging.Handler):
    """What libraries log, as events."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.event("log", level=record.levelname, logger=record.name, message=record.getMessage())


class StepLog:
    """A callback that logs one event a step: a "pass" if it read the data, a "step" if it was over rows in memory."""

    def __init__(self, log: Log) -> None:
        self._log, self._told = log, 0
        self._began = time.monotonic()

    def on_start(self, fit: Fit) -> None:
        """The census is done, or a checkpoint was found."""
        if len(fit.history) > 1:
            from dask_em.history import measured, n_steps

            reached = measured({"loglik": fit.states[fit.best].loglik}, fit.runs[fit.best].model.measure)
            self._log.event("resume", passes=fit.n_passes, steps=n_steps(fit.history), **reached)
        else:
            self._tell(fit)
        self._told = len(fit.history)

    def on_progress(self, blocks: int, rows: int) -> None:
        """Too often to be told."""

    def on_step(self, fit: Fit) -> None:
        """A step is complete."""
        self._tell(fit)

    def on_end(self, fit: Fit) -> None:
        """The command tells how it ended."""

    def _tell(self, fit: Fit) -> None:
        from dask_em.history import measured

        measure = fit.runs[fit.best].model.measure
        for record in fit.history[self._told :]:
            self._log.event("step" if record["resident"] else "pass", **measured(record, measure))
        self._told = len(fit.history)


def plain(value: Any) -> Any:
    """The value as JSON has it: NumPy's numbers and arrays as numbers and lists, what is not finite as null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (bool, int, float, str)) or value is None else str(value)
