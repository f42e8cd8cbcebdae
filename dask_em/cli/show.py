"""Tables and bars for people."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dask_em.cli.tables import Table

_NARROW = 120  # columns of a terminal that is none
_TEXT = 18  # columns that a text has at least, where a table is too wide


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


def table(found: Table) -> None:
    """Show a table so that no number is cut short: in parts, where it is too wide.

    One that need not keep its shape is turned on its side if that is narrower.
    """
    out = console()
    headings, rows = list(found.headings), [[_cell(value) for value in row] for row in found.rows]
    widths = _widths(headings, rows, found, out.width)
    if not found.tall and _total(widths, range(len(widths)), found) > out.width:
        headings, *rows = [list(line) for line in zip(headings, *rows, strict=True)]
        widths = _widths(headings, rows, found, out.width)
    for part, columns in enumerate(_parts(widths, out.width, found)):
        title = found.title if part == 0 else f"{found.title}, continued"
        _print(out, title, found, [(headings[j], widths[j]) for j in columns], [[r[j] for j in columns] for r in rows])


def _print(out: Any, title: str, found: Table, columns: Sequence[tuple[str, int]], rows: Sequence[list[str]]) -> None:
    from rich import box
    from rich.table import Table as Rich

    shown = Rich(box=box.SIMPLE, title_justify="left", padding=(0, 1, 0, 0 if found.tall else 1))
    shown.title = title
    for heading, width in columns:
        shown.add_column(heading, width=width, justify="left" if heading in found.texts else "right", overflow="fold")
    for row in rows:
        shown.add_row(*row)
    out.print(shown)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _widths(headings: Sequence[str], rows: Sequence[Sequence[str]], found: Table, room: int) -> list[int]:
    """Of the columns; headings of a tall table may break between words, and so may long texts."""
    widths = [max([len(row[j]) for row in rows], default=0) for j in range(len(headings))]
    if not found.tall:
        return [max(width, len(heading)) for width, heading in zip(widths, headings, strict=True)]
    widths = [max(width, *map(len, heading.split(" "))) for width, heading in zip(widths, headings, strict=True)]
    for j, heading in enumerate(headings):
        surplus = _total(widths, range(len(widths)), found) - room
        if heading in found.texts and surplus > 0:
            widths[j] = max(min(widths[j], _TEXT), widths[j] - surplus)
    return widths


def _total(widths: Sequence[int], columns: Iterable[int], found: Table) -> int:
    """Width of a table of these columns, with the spaces that part them and those at the ends."""
    return 1 + sum((2 if found.tall else 3) + widths[j] for j in columns)


def _parts(widths: Sequence[int], room: int, found: Table) -> Iterator[list[int]]:
    """As many columns as fit, again and again, each time after the first ones, which name the rows."""
    lead = list(range(found.lead))
    part = [*lead]
    for j in range(found.lead, len(widths)):
        if len(part) > len(lead) and _total(widths, [*part, j], found) > room:
            yield part
            part = [*lead]
        part.append(j)
    yield part


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
