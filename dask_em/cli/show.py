"""Tables and bars for people."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dask_em.cli.families import Table

_NARROW = 120  # columns of a terminal that is none
_SHOWN = 12  # passes shown from the beginning and from the end of a long fit


def console() -> Any:
    """Where tables go: stdout, in colour where it is a terminal."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=_NARROW)


def facts(values: Mapping[str, str]) -> None:
    """Names and values, one pair a line."""
    from rich.table import Table as Rich

    table = Rich(box=None, show_header=False, pad_edge=False)
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


def table(found: Table) -> None:
    """A table as it is if it is narrow enough, else turned on its side, else in parts: no number is cut short."""
    from rich import box
    from rich.table import Table as Rich

    out = console()
    headings, rows = list(found.headings), [[_cell(value) for value in row] for row in found.rows]
    if _width(headings, rows, range(len(headings))) > out.width:
        headings, *rows = [list(line) for line in zip(headings, *rows, strict=True)]
    for part, columns in enumerate(_parts(headings, rows, out.width)):
        shown = Rich(*(headings[j] for j in columns), box=box.SIMPLE, title_justify="left")
        shown.title = found.title if part == 0 else f"{found.title}, continued"
        for column in shown.columns:
            column.justify, column.overflow = "right", "fold"
        for row in rows:
            shown.add_row(*(row[j] for j in columns))
        out.print(shown)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _width(headings: Sequence[str], rows: Sequence[Sequence[str]], columns: Iterable[int]) -> int:
    """Of a table of these columns, with the spaces that part them and those at the ends."""
    return 1 + sum(3 + max(len(line[j]) for line in (headings, *rows)) for j in columns)


def _parts(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[list[int]]:
    """As many columns as fit, again and again, each time after the first one, which names the rows."""
    part = [0]
    for j in range(1, len(headings)):
        if len(part) > 1 and _width(headings, rows, [*part, j]) > width:
            yield part
            part = [0]
        part.append(j)
    yield part


def starts(records: Sequence[Mapping[str, Any]]) -> Table:
    """What each start of a fit reached."""
    rows = [
        [str(r.get("start", i)), _number(r.get("loglik"), ",.4f"), r.get("status"), r.get("passes"), r.get("note")]
        for i, r in enumerate(records)
    ]
    return Table("starts", ["start", "log-likelihood", "status", "passes", "note"], rows)


def history(records: Sequence[Mapping[str, Any]], title: str = "passes") -> None:
    """A fit's record, a row a pass."""
    from rich.box import SIMPLE
    from rich.table import Table as Rich

    headings = ["pass", "kind", "log-likelihood", "gain left", "rows", "seconds", "reading", "computing"]
    table = Rich(*headings, box=SIMPLE, title=title, title_justify="left")
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
    from dask_em.callbacks.progress import Progress

    shown = Progress()
    shown.alone(what, n_blocks)
    try:
        yield shown.on_progress
    finally:
        shown.close()
