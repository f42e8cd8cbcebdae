"""Errors become one sentence on stderr and an exit code."""

from __future__ import annotations

import traceback
from itertools import pairwise
from typing import Any

import click

from dask_em.cli.log import LOG, Log
from dask_em.errors import ConfigurationError, DaskEMError

DEBUG = "dask_em.debug"
INTERRUPTED = 75


class Program(click.Group):
    """A group of commands whose errors are sentences, under whichever program it runs."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the group's own options."""
        if _wants_json(args):  # known even where the rest of the line cannot be understood
            ctx.meta[LOG] = Log("json")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and turn what goes wrong into a sentence and an exit code."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, SystemExit):
            raise
        except (Exception, KeyboardInterrupt) as error:
            ctx.exit(report(error, ctx.meta))


def _wants_json(args: list[str]) -> bool:
    return "--log-format=json" in args or ("--log-format", "json") in pairwise(args)


def report(error: BaseException, meta: dict[str, Any]) -> int:
    """Say what went wrong; the exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message())
        return 0
    if meta.get(DEBUG):
        traceback.print_exception(error)
    message, code = explain(error)
    log: Log = meta.get(LOG) or Log()
    log.error(message, code)
    return code


def explain(error: BaseException) -> tuple[str, int]:
    """A sentence, and an exit code."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted: no output was written; run the same command again", INTERRUPTED
    if isinstance(error, DaskEMError):
        return one_line(error), error.exit_code
    if isinstance(error, click.UsageError):
        hint = f" ({error.ctx.command_path} --help says more)" if error.ctx is not None else ""
        return one_line(error.format_message()).rstrip(".") + hint, ConfigurationError.exit_code
    if isinstance(error, click.ClickException):
        return one_line(error.format_message()), 1
    if isinstance(error, MemoryError):
        return "out of memory: use fewer threads, smaller blocks or fewer components", 1
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}", 1
    notes = "".join(f", {one_line(note)}" for note in getattr(error, "__notes__", []))
    return f"{type(error).__name__}: {one_line(error)}{notes} (--debug shows where)", 1


def one_line(text: Any) -> str:
    """The text without line breaks."""
    return " ".join(str(text).split())
