"""Options that commands share, and how their values are read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import click

from dask_em.cli.log import LOG, Log
from dask_em.cli.program import DEBUG

F = TypeVar("F", bound=Callable[..., Any])

_FILTER = re.compile(r"^\s*(?P<column>.+?)\s*(?P<op>>=|<=|==|!=|=|>|<|\snot\s+in\s|\sin\s)\s*(?P<value>.+?)\s*$")
_DATE = re.compile(r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)?$")


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several decorators as one, in the order in which help lists them."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Keep what errors need to know where they are reported."""
    if param.name == "debug" and value:
        ctx.meta[DEBUG] = True
    if param.name == "log_format":
        ctx.meta[LOG] = Log(value)


def _comma(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    if value is None:
        return None
    names = [name.strip() for name in value.split(",")]
    if not all(names):
        raise click.BadParameter(f"{value!r} should be names with commas between them, such as lat,lon")
    return names


def _filters(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> list[tuple[str, str, Any]] | None:
    return [parse_filter(text) for text in value] or None


def parse_filter(text: str) -> tuple[str, str, Any]:
    """Column, operator and value of ``magnitude>0``, ``station in a,b`` or ``time>=2000-01-01``."""
    found = _FILTER.match(text)
    if found is None:
        raise click.BadParameter(
            f"{text!r} should be a column, one of > >= < <= == != in 'not in', and a value, such as 'magnitude>0'"
        )
    op = " ".join(found["op"].split())
    op = "==" if op == "=" else op
    value = found["value"]
    if op in ("in", "not in"):
        return found["column"], op, [parse_value(v) for v in value.strip("[]()").split(",")]
    return found["column"], op, parse_value(value)


def parse_value(text: str) -> Any:
    """A number, a truth value or a time where it looks like one; quotes keep it text."""
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return datetime.fromisoformat(text) if _DATE.match(text) else text


def _storage(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, Any] | None:
    options: dict[str, Any] = {}
    for text in value:
        key, separator, given = text.partition("=")
        if not (separator and key):
            raise click.BadParameter("an option should be key=value, such as anon=true")  # the text may be a secret
        try:
            options[key] = json.loads(given)
        except ValueError:
            options[key] = given
    return options or None


def _seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    from dask.utils import parse_timedelta

    try:
        seconds = float(parse_timedelta(value))
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise click.BadParameter(f"{value!r} is not a time such as 90s, 30m or 2h") from error
    if not 0 < seconds < float("inf"):
        raise click.BadParameter(f"{value!r} should be a time greater than zero, such as 30m")
    return seconds


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    from dask.utils import parse_bytes

    try:
        size = int(parse_bytes(value))
    except (ValueError, TypeError) as error:
        raise click.BadParameter(f"{value!r} is not a size such as 64MiB") from error
    if size < 1:
        raise click.BadParameter(f"{value!r} should be a size greater than zero, such as 64MiB")
    return size


data_argument = click.argument("data", nargs=-1, required=True, metavar="DATA...")

data_options = together(
    click.option(
        "--columns",
        callback=_comma,
        metavar="A,B",
        help="Columns to use: names, or positions in an array.  [default: all, or those the model was fitted to]",
    ),
    click.option(
        "--filter",
        "filters",
        multiple=True,
        callback=_filters,
        metavar="'COLUMN>VALUE'",
        help="Rows of Parquet files to keep; may be repeated, all must hold.  Operators: > >= < <= == != in 'not in'.",
    ),
    click.option(
        "--storage-option",
        "storage_options",
        multiple=True,
        callback=_storage,
        metavar="KEY=VALUE",
        help="What fsspec needs to reach URLs; may be repeated.  Values may be JSON.  Keys and secrets are "
        "better left to the environment, where other users do not see them.",
    ),
    click.option(
        "--missing-chunks",
        type=click.Choice(["warn", "error", "ignore"]),
        default="warn",
        show_default=True,
        help="What to do about chunks that a Zarr store does not hold.",
    ),
)

weight_option = click.option("--weight", metavar="COLUMN", help="Column of Parquet files that holds the rows' weights.")

sequence_option = click.option(
    "--sequence",
    metavar="COLUMN",
    help="Of a hidden Markov chain: the column that holds the ids of sequences.  [default: all rows are one sequence]",
)

out_option = click.option(
    "--out", required=True, metavar="MODEL", help="Where the model is saved, such as model.safetensors."
)

overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace the output if it exists, once the new one is complete."
)

debug_option = click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_remember,
    help="Show where an error came from.",
)

# how a fit starts and moves on: defaults are the estimators', and what has none here is not passed on

seed_option = click.option(
    "--seed", "random_state", type=click.IntRange(0), default=0, show_default=True, help="Of all that is random."
)

start_options = together(
    seed_option,
    click.option(
        "--n-init",
        type=click.IntRange(1),
        default=8,
        show_default=True,
        help="Starts, raced on a sample of the rows; the best go on to all the data.",
    ),
)


solver_option = click.option("--solver", metavar="NAME", help="auto, em, anderson or anchored.  [default: auto]")


def pass_options(
    tol: float, tolerance: str, max_passes: int, first: Callable[[F], F] = solver_option
) -> Callable[[F], F]:
    """How steps go on and end; `tolerance` says what `tol` is of, and `first` is the option that says how."""
    return together(
        first,
        click.option("--tol", type=click.FloatRange(0), default=tol, show_default=True, help=tolerance),
        click.option(
            "--max-passes",
            type=click.IntRange(1),
            default=max_passes,
            show_default=True,
            help="Steps at most, the first read included: each reads the data, unless it stays in memory.",
        ),
        click.option(
            "--time-limit", callback=_seconds, metavar="TIME", help="No further step begins after this, such as 30m."
        ),
        click.option(
            "--sample-bytes",
            callback=_size,
            metavar="SIZE",
            help="Memory for a sample of the rows; data that fits in it is read once.  [default: 256 MiB]",
        ),
        click.option(
            "--checkpoint", metavar="PATH", help="Written after every step; the same command goes on from it."
        ),
    )


run_options = together(
    click.option(
        "--scheduler", metavar="ADDRESS|FILE", help="Run on this Dask cluster: its address or scheduler file."
    ),
    click.option("--workers", type=click.IntRange(1), metavar="N", help="Run on a local cluster of N processes."),
    click.option("--threads-per-worker", type=click.IntRange(1), metavar="N", help="With --workers.  [default: 1]"),
    click.option(
        "--memory-limit", metavar="SIZE", help="Of each worker, such as 4GB; with --workers.  [default: a share]"
    ),
    click.option(
        "--threads", type=click.IntRange(1), metavar="N", help="Run on N threads of this process.  [default: cores]"
    ),
    click.option("--quiet", is_flag=True, help="No progress and no summary."),
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        is_eager=True,
        expose_value=False,
        callback=_remember,
        help="What goes to stderr: sentences, or one JSON object a line.",
    ),
    debug_option,
)
