"""``dask-em fit FAMILY DATA... --out MODEL``."""

from __future__ import annotations

import time
import warnings
from typing import Any

import click

from dask_em.cli.families import COMMANDS, Family
from dask_em.cli.log import Log, StepLog
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


@click.group()
def fit() -> None:
    """Fit a model and save it."""


def _command(family: Family) -> click.Command:
    """The command that fits a family."""

    @together(data_argument, family.options, out_option, weight_option, data_options, run_options, overwrite_option)
    def run(data: tuple[str, ...], **options: Any) -> None:
        _run(family, data, options)

    return click.command(family.command, help=f"{family.help}\n\nDATA: a Zarr array or Parquet files; paths or URLs.")(
        run
    )


for _family in COMMANDS.values():
    fit.add_command(_command(_family))


def _run(family: Family, data: tuple[str, ...], options: dict[str, Any]) -> None:
    began = time.monotonic()
    plan = Plan.take(data, options)
    given = {name: value for name, value in options.items() if value is not None}
    plan.check_outputs()
    with session(**plan.place) as log:
        import dask_em

        log.event(
            "start", command="fit", family=family.command, version=dask_em.__version__, data=list(data), out=plan.out
        )
        told = plan.quiet or log.kind == "json"
        if log.kind == "text":  # how to go on from an interrupt is said below, as a command has it
            warnings.filterwarnings("ignore", "interrupted", dask_em.FitWarning)
        estimator = getattr(dask_em, family.estimator)(
            **given, **plan.estimator(), callbacks=[StepLog(log)], verbose=0 if told else 1
        )
        estimator.fit(**plan.rows(named_columns(given.get("distribution"))))
        plan.save(estimator)
        _tell(log, estimator, plan, time.monotonic() - began, quiet=told)
    if estimator.status_ == "interrupted":
        click.get_current_context().exit(INTERRUPTED)


def _tell(log: Log, estimator: Any, plan: Plan, seconds: float, *, quiet: bool) -> None:
    log.event(
        "end",
        status=estimator.status_,
        message=estimator.message_,
        rows=estimator.n_rows_,
        passes=estimator.n_passes_,
        steps=estimator.n_steps_,
        **estimator.reached,
        seconds=seconds,
        out=plan.out,
    )
    if not quiet:
        from dask_em.cli.records import fit_facts
        from dask_em.cli.show import facts

        facts({**fit_facts(estimator), "seconds": f"{seconds:.1f}", "saved to": plan.out})
    if estimator.status_ == "interrupted" and log.kind == "text":
        click.echo(f"interrupted: {plan.how_to_go_on()}", err=True)
