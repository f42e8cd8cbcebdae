"""The records of a fit and of a selection, as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dask_em.cli.tables import Table
from dask_em.history import n_resident

_SHOWN = 12  # steps shown from the beginning and from the end of a long fit

Records = Sequence[Mapping[str, Any]]
Column = tuple[str, Callable[[Mapping[str, Any]], str]]  # heading, and what of a record stands below it


def fit_facts(estimator: Any) -> dict[str, str]:
    """How a fit ended; what a warning has said already is not said again."""
    said = {"message": estimator.message_} if estimator.status_ == "converged" else {}
    return {
        "rows": f"{estimator.n_rows_:,}",
        "passes": passes(estimator.history_, estimator.n_passes_),
        **reached(estimator),
        "status": estimator.status_,
        **said,
    }


def reached(estimator: Any) -> dict[str, str]:
    """The log-likelihood, or for clusters the inertia."""
    return {name.replace("loglik", "log-likelihood"): f"{value:,.4f}" for name, value in estimator.reached.items()}


def passes(history: Records, n_passes: int) -> str:
    """Reads of the data, and how many steps over what was kept in memory came after that."""
    resident = n_resident(history)
    if not resident:
        return f"{n_passes}"
    return f"{n_passes}, then {resident} step{'s' if resident > 1 else ''} in memory"


def history(records: Records) -> Table:
    """A row a step, which is a pass or is over rows in memory; of a long fit the first and the last ones.

    Columns that would tell nothing are left out.
    """
    resident = any(record.get("resident") for record in records)
    title, number = ("steps, in memory after the first pass", "no.") if resident else ("passes", "pass")
    columns: list[Column] = [
        (number, lambda r: str(r["number"])),
        ("kind", lambda r: str(r.get("kind", ""))),
        ("over", lambda r: "memory" if r.get("resident") else "data"),
        ("runs", lambda r: _number(r.get("runs"), "d")),
        _reached_column(records, "loglik", ",.2f"),
        ("predicted gain", lambda r: _rounded(r.get("gain"))),
        ("shrinks by", lambda r: _number(r.get("contraction"), ".3g")),
        ("step", lambda r: "refused" if r.get("accepted") is False else ""),
        ("seconds", lambda r: _number(r.get("seconds"), ".2f")),
        ("read", lambda r: _number(r.get("seconds_read"), ".2f")),
        ("compute", lambda r: _number(r.get("seconds_compute"), ".2f")),
    ]
    rows = [[text({"number": i, **record}) for _, text in columns] for i, record in enumerate(records, 1)]
    same = {"memory" if record.get("resident") else "data" for record in records[1:]}
    dull = {"over": {"data", "memory"} if len(same) < 2 else set[str](), "runs": {"", "0", "1"}}
    kept = [
        j
        for j, (heading, _) in enumerate(columns)
        if not {row[j] for row in rows} <= dull.get(heading, {""}) or heading == number
    ]
    headings = [columns[j][0] for j in kept]
    shown = [[row[j] for j in kept] for row in _ends(rows)]
    if "read" in headings:
        title += "; read and compute are the seconds of all threads together"
    return Table(title, headings, shown, tall=True, texts=("kind", "over", "step"))


def _reached_column(records: Records, key: str, form: str, of: str = "") -> Column:
    """What was reached: log-likelihoods, or the inertias that some of them stand for."""
    if any("inertia" in record for record in records):
        return f"inertia{of}", lambda r: _number(r.get("inertia" if key == "loglik" else key), form)
    return f"log-likelihood{of}", lambda r: _number(r.get(key), form)


def _ends(rows: list[list[str]]) -> Iterator[list[str]]:
    if len(rows) <= 2 * _SHOWN + 1:
        yield from rows
        return
    yield from rows[:_SHOWN]
    yield ["...", *[""] * (len(rows[0]) - 1)]
    yield from rows[-_SHOWN:]


def starts(records: Records) -> Table:
    """What each start of a fit reached: per row, since some were compared on a part of the rows only."""
    columns: list[Column] = [
        ("start", lambda r: str(r["start"])),
        ("rows", lambda r: _number(r.get("rows"), ",")),
        _reached_column(records, "per_weight", ".6f", " per row"),
        ("optimum", lambda r: _number(r.get("optimum"), "d")),
        ("status", lambda r: str(r.get("status", ""))),
        ("steps", lambda r: _number(r.get("steps"), "d")),
        ("note", lambda r: _moved(r) + str(r.get("note", ""))),
    ]
    rows = [[text({"start": i, **record}) for _, text in columns] for i, record in enumerate(records)]
    return Table("starts", [heading for heading, _ in columns], rows, tall=True, texts=("status", "note"))


def _moved(record: Mapping[str, Any]) -> str:
    n = record.get("moves", 0)
    return f"{n} move{'s' if n > 1 else ''} of components; " if n else ""


def candidates(selection: Any) -> Table:
    """A row a candidate, as they were asked for; the best one has a star."""
    table = selection.table_
    grid = list(selection.best_params_)
    varied = [name for name in grid if table[name].nunique() > 1] or grid[:1]
    criteria = [selection.criterion]
    if selection.criterion != "held_out" and table["held_out"].notna().any():
        criteria.append("held_out")
    rows = [
        [
            "*" if i == selection.best_index_ else "",
            *(str(record[name]) for name in varied),
            _number(record["loglik"], ",.2f"),
            _number(record["n_parameters"], ".0f"),
            *(_number(record[name], ",.6f" if name == "held_out" else ",.2f") for name in criteria),
            record["status"],
        ]
        for i, record in enumerate(table.to_dict("records"))
    ]
    headings = ["", *varied, "log-likelihood", "params", *criteria, "status"]
    headings = [heading.replace("_", " ") for heading in headings]
    texts = ["", "status", *(name.replace("_", " ") for name in varied if isinstance(table[name].iloc[0], str))]
    return Table("candidates", headings, rows, tall=True, texts=texts, lead=1 + len(varied))


def _rounded(value: Any) -> str:
    return "" if value is None else f"{float(f'{value:.3g}'):,.15g}"


def _number(value: Any, form: str) -> str:
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return ""
    return format(value, form)
