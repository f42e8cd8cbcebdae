"""``dask-em select FAMILY DATA... --out MODEL``."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from dask_em.cli.families import COMMANDS, Family
from dask_em.cli.log import Log, StepLog, plain
from dask_em.cli.options import (
    data_argument,
    data_options,
    out_option,
    overwrite_option,
    run_options,
    together,
    weight_option,
)
from dask_em.cli.plan import Plan
from dask_em.cli.product_file import named_columns
from dask_em.cli.program import INTERRUPTED
from dask_em.cli.session import session
from dask_em.cli.values import gridded
from dask_em.errors import ConfigurationError


@click.group()
def select() -> None:
    """Fit many candidates in shared steps, and save the best."""


_table_option = click.option(
    "--table", metavar="FILE", help="Write the table of all candidates here, every digit of it, such as table.csv."
)
_json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object, in place of tables.")
_held_out_option = click.option(
    "--held-out",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Share of the rows that is not learned from, but scored in the same steps.  "
    "[default: 0.2 with --criterion held-out, else none]",
)


def _command(family: Family) -> click.Command:
    """The command that selects within a family."""
    criterion_option = click.option(
        "--criterion",
        type=click.Choice(list(family.criteria)),
        default=family.criteria[0],
        show_default=True,
        help="What is smallest at the best candidate; for held-out, largest.",
    )

    @together(
        data_argument, family.options, criterion_option, _held_out_option, out_option, _table_option, _json_option,
        weight_option, data_options, run_options, overwrite_option,
    )  # fmt: skip
    def run(data: tuple[str, ...], **options: Any) -> None:
        _run(family, data, options)

    says = f"{family.help}\n\nDATA: a Zarr array or Parquet files; paths or URLs."
    command = click.command(family.command, help=says)(run)
    for option in command.params:
        if isinstance(option, click.Option) and option.name in family.grid:
            gridded(option)
    return command


for _family in COMMANDS.values():
    if _family.grid:
        select.add_command(_command(_family))


def _run(family: Family, data: tuple[str, ...], options: dict[str, Any]) -> None:
    began = time.monotonic()
    plan = Plan.take(data, options)
    criterion, held_out, as_json = (options.pop(name) for name in ("criterion", "held_out", "as_json"))
    grid = {name: options.pop(name) for name in family.grid if options[name] is not None}
    given = {name: value for name, value in options.items() if value is not None}
    if plan.table is not None and not plan.table.endswith(".csv"):
        raise ConfigurationError(f"--table {plan.table} should end in .csv: that is what is written")
    plan.check_outputs()
    with session(**plan.place) as log:
        import dask_em

        log.event(
            "start", command="select", family=family.command, version=dask_em.__version__, data=list(data), out=plan.out
        )
        quiet = plan.quiet or log.kind == "json"
        estimator = getattr(dask_em, family.estimator)(
            **given, **plan.estimator(), callbacks=[StepLog(log)], verbose=0 if quiet else 1
        )
        rows = plan.rows(named_columns(given.get("distribution")))
        selection = dask_em.select(estimator, criterion=criterion.replace("-", "_"), held_out=held_out, **grid, **rows)
        interrupted = _mark_interrupted(selection)
        plan.write_table(_csv(selection))
        plan.save(selection.best_estimator_)
        _tell(log, selection, plan, time.monotonic() - began, as_json=as_json, quiet=quiet)
        if interrupted and log.kind == "text":
            click.echo(f"interrupted: {plan.how_to_go_on()}", err=True)
    if interrupted:
        click.get_current_context().exit(INTERRUPTED)


def _mark_interrupted(selection: Any) -> bool:
    """Whether the selection was; then so was the fit of what is the best so far, whatever became of it itself."""
    ended = list(selection.table_["status"])
    n = ended.count("interrupted")
    if n:
        best = selection.best_estimator_
        best.status_, best.converged_ = "interrupted", False
        best.message_ = f"the best so far of a selection that was interrupted with {n} of {len(ended)} candidates to go"
    return n > 0


def _csv(selection: Any) -> str:
    table = selection.table_.copy()
    table.insert(0, "best", [i == selection.best_index_ for i in range(len(table))])
    return str(table.to_csv(index=False))


def _tell(log: Log, selection: Any, plan: Plan, seconds: float, *, as_json: bool, quiet: bool) -> None:
    best = selection.best_estimator_
    rows = selection.table_.to_dict("records")
    for row in rows:
        log.event("candidate", **row)
    found = {"criterion": selection.criterion, "best": selection.best_params_, "best_index": selection.best_index_}
    ended = {"status": best.status_, "message": best.message_}
    fitted = {**ended, "rows": best.n_rows_, "passes": best.n_passes_, "steps": best.n_steps_}
    log.event("end", **found, **fitted, **best.reached, seconds=seconds, out=plan.out)
    if as_json:
        click.echo(json.dumps(plain({**found, **fitted, **best.reached, "candidates": rows}), allow_nan=False))
    elif not quiet:
        from dask_em.cli.records import candidates, fit_facts
        from dask_em.cli.show import facts, table

        table(candidates(selection))
        facts(_notes(rows))
        saved = {"saved to": plan.out, **({} if plan.table is None else {"table": plan.table})}
        params = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in selection.best_params_.items())
        how = {**fit_facts(best), "message": best.message_}
        facts({"best": params, **how, "seconds": f"{seconds:.1f}", **saved})


def _notes(rows: list[dict[str, Any]]) -> dict[str, str]:
    """What a status in the table means, where that is not plain."""
    notes = {}
    if any(row["status"] == "surpassed" for row in rows):
        notes["surpassed"] = "not followed to its optimum, since by prediction it would not have become the best"
    failures = dict.fromkeys(row["message"] for row in rows if row["status"] == "failed")
    if failures:
        notes["failed"] = "; ".join(failures)
    return notes
