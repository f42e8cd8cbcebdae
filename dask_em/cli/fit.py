"""``dask-em fit FAMILY DATA... --out MODEL``."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import click

from dask_em.cli.families import FAMILIES, Family
from dask_em.cli.log import Log, PassLog
from dask_em.cli.options import (
    data_argument,
    data_options,
    overwrite_option,
    run_options,
    together,
    weight_option,
)
from dask_em.cli.places import columns_of, data_of, options_for, refuse_clash
from dask_em.cli.program import INTERRUPTED, one_line
from dask_em.cli.session import session
from dask_em.errors import ConfigurationError


@click.group()
def fit() -> None:
    """Fit a model and save it."""


_out_option = click.option(
    "--out", required=True, metavar="MODEL", help="Where the model is saved, such as model.safetensors."
)


def _command(family: Family) -> click.Command:
    """The command that fits a family."""

    @together(data_argument, family.options, _out_option, weight_option, data_options, run_options, overwrite_option)
    def run(data: tuple[str, ...], **options: Any) -> None:
        _run(family, data, options)

    return click.command(family.command, help=f"{family.help}\n\nDATA: a Zarr array or Parquet files; paths or URLs.")(
        run
    )


for _family in FAMILIES.values():
    fit.add_command(_command(_family))


def _run(family: Family, data: tuple[str, ...], options: dict[str, Any]) -> None:
    began = time.monotonic()
    taken = {name: options.pop(name) for name in _OWN if name in options}
    given = {name: value for name, value in options.items() if value is not None}
    out, checkpoint, storage = taken["out"], taken.get("checkpoint"), taken["storage_options"]
    place = {name: taken[name] for name in _PLACE}
    _check_outputs(data, out, checkpoint, storage, overwrite=taken["overwrite"])
    with session(**place) as log:
        import dask_em

        log.event("start", command="fit", family=family.command, version=dask_em.__version__, data=list(data), out=out)
        told = taken["quiet"] or log.kind == "json"
        estimator = getattr(dask_em, family.estimator)(
            **given,
            **({} if checkpoint is None else _checkpoint(checkpoint, storage)),
            callbacks=[PassLog(log)],
            verbose=0 if told else 1,
        )
        estimator.fit(
            data_of(data),
            sample_weight=taken["weight"],
            columns=columns_of(data, taken["columns"], storage),
            filters=taken["filters"],
            storage_options=storage,
            missing_chunks=taken["missing_chunks"],
        )
        estimator.callbacks = estimator.checkpoint_options = None  # of this run, not of the model
        estimator.save(out, storage_options=options_for(out, storage))
        _tell(log, estimator, out, checkpoint, time.monotonic() - began, quiet=told)
    if estimator.status_ == "interrupted":
        click.get_current_context().exit(INTERRUPTED)


def _checkpoint(path: str, storage: dict[str, Any] | None) -> dict[str, Any]:
    return {"checkpoint": path, "checkpoint_options": options_for(path, storage)}


_PLACE = ("scheduler", "workers", "threads_per_worker", "memory_limit", "threads")
_OWN = (
    *_PLACE,
    "quiet",
    "out",
    "overwrite",
    "checkpoint",
    "weight",
    "columns",
    "filters",
    "storage_options",
    "missing_chunks",
)


def _check_outputs(
    data: Sequence[str], out: str, checkpoint: str | None, storage: dict[str, Any] | None, *, overwrite: bool
) -> None:
    from dask_em.sinks.staging import check_output

    if checkpoint is not None:
        refuse_clash([*data, out], checkpoint)
        check_output(checkpoint, options_for(checkpoint, storage), overwrite=True)
    refuse_clash(data, out)
    for path in (out, checkpoint):
        if path is not None and os.path.isdir(path):
            raise ConfigurationError(f"{path} is a folder, but a file is to be written: choose another name")
    overwrite = overwrite or (checkpoint is not None and _goes_on(out, checkpoint, storage))
    check_output(out, options_for(out, storage), overwrite=overwrite)


def _goes_on(out: str, checkpoint: str, storage: dict[str, Any] | None) -> bool:
    """Whether this command was interrupted before: then what it left at `out` is its own to replace."""
    from dask_em import load, store
    from dask_em.errors import StoreError

    if not store.exists(checkpoint, storage_options=options_for(checkpoint, storage)):
        return False
    try:
        left = load(out, storage_options=options_for(out, storage))
    except StoreError:
        return False
    return bool(left.status_ == "interrupted")


def _tell(log: Log, estimator: Any, out: str, checkpoint: str | None, seconds: float, *, quiet: bool) -> None:
    record = {
        "status": estimator.status_,
        "message": estimator.message_,
        "rows": estimator.n_rows_,
        "passes": estimator.n_passes_,
        "loglik": estimator.loglik_,
        "seconds": seconds,
        "out": out,
    }
    log.event("end", **record)
    if not quiet:
        from dask_em.cli.show import fit_summary

        fit_summary(record)
    if estimator.status_ == "interrupted" and log.kind == "text":
        click.echo(f"interrupted: {_how_to_go_on(checkpoint)}", err=True)


def _how_to_go_on(checkpoint: str | None) -> str:
    if checkpoint is None:
        return "the model so far is saved; with --checkpoint PATH a fit can go on where it stopped"
    return one_line(f"run the same command again to go on from {checkpoint}")
