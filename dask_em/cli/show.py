"""Tables and bars for people."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

_NARROW = 120  # columns of a terminal that is none
_SHOWN = 12  # passes shown from the beginning and from the end of a long fit


def console() -> Any:
    """Where tables go: stdout, in colour where it is a terminal."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=_NARROW)


def facts(values: Mapping[str, str]) -> None:
    """Names and values, one pair a line."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in values.items():
        table.add_row(name, value)
    console().print(table)


def fit_summary(record: Mapping[str, Any]) -> None:
    """How a fit ended."""
    facts(
        {
            "rows": f"{record['rows']:,}",
            "passes": f"{record['passes']}",
            "log-likelihood": f"{record['loglik']:,.4f}",
            "status": record["status"],
            "message": record["message"],
            "seconds": f"{record['seconds']:.1f}",
            "saved to": record["out"],
        }
    )


def components(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Parameters, a row a component."""
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(*headings, box=SIMPLE, title="components", title_justify="left")
    for column in table.columns:
        column.justify = "right"
    for row in rows:
        table.add_row(*(str(v) if isinstance(v, int) else f"{v:.6g}" for v in row))
    console().print(table)


def history(records: Sequence[Mapping[str, Any]], title: str = "passes") -> None:
    """A fit's record, a row a pass."""
    from rich.box import SIMPLE
    from rich.table import Table

    headings = ["pass", "kind", "log-likelihood", "gain left", "rows", "seconds", "reading", "computing"]
    table = Table(*headings, box=SIMPLE, title=title, title_justify="left")
    for column in (*table.columns[:1], *table.columns[2:]):
        column.justify = "right"
    for i, record in enumerate(records):
        if len(records) > 2 * _SHOWN and _SHOWN <= i < len(records) - _SHOWN:
            if i == _SHOWN:
                table.add_row("...")
            continue
        table.add_row(
            str(record.get("pass", i + 1)),
            str(record.get("kind", "")),
            _number(record.get("loglik"), ",.2f"),
            _number(record.get("gain"), ".3g"),
            _number(record.get("rows"), ","),
            _number(record.get("seconds"), ".2f"),
            _number(record.get("seconds_read"), ".2f"),
            _number(record.get("seconds_compute"), ".2f"),
        )
    console().print(table)


def _number(value: Any, form: str) -> str:
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return ""
    return format(value, form)


@contextmanager
def bar(what: str, n_blocks: int, *, show: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar of blocks done, in a terminal; None anywhere else."""
    if not (show and sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("blocks"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(TextColumn("{task.description}"), *columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(what, total=n_blocks)
        yield lambda blocks, rows: bars.advance(task, blocks)
