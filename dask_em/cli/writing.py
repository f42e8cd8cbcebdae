"""What commands share that write something for each row of the data."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

from dask_em.cli.options import F, data_argument, data_options, overwrite_option, run_options, together
from dask_em.cli.places import data_of, options_for, reading, refuse_clash
from dask_em.cli.session import session

Make = Callable[[Any, Any], Any]  # of the loaded estimator and the source, what is written


def writes_rows(*own: Callable[[F], F]) -> Callable[[F], F]:
    """The arguments and options of such a command, its own among them."""
    return together(
        click.argument("model", metavar="MODEL"),
        data_argument,
        click.option(
            "--out",
            required=True,
            metavar="OUTPUT",
            help="A .zarr array or a .parquet folder, with a row for each row.",
        ),
        *own,
        data_options,
        run_options,
        overwrite_option,
    )


def write(
    command: str,
    make: Make,
    *,
    model: str,
    data: tuple[str, ...],
    out: str,
    quiet: bool,
    overwrite: bool,
    unasked: Callable[[Any], int | None] | None = None,
    sequence: str | None = None,
    **options: Any,
) -> None:
    """Load the model, and write what `make` says of the rows; an output is whole, or is not there.

    `unasked` says of the estimator which fitted column is not read, if any.
    """
    from dask_em.sinks.staging import check_output
    from dask_em.sinks.writing import kind_of

    kind_of(out)
    opening = {**reading(data, options), **({} if sequence is None else {"sequence": sequence})}
    storage_options = opening["storage_options"]
    refuse_clash([*data, model], out)
    check_output(out, options_for(out, storage_options), overwrite=overwrite)
    began = time.monotonic()
    with session(**options) as log:
        from dask_em import load
        from dask_em.cli.show import bar, facts
        from dask_em.executors import default_executor
        from dask_em.sinks.writing import write_rows

        log.event("start", command=command, model=model, data=list(data), out=out)
        estimator = load(model, storage_options=options_for(model, storage_options))
        without = None if unasked is None else unasked(estimator)
        source = estimator._open(data_of(data), reset=False, without=without, **opening)
        answer = make(estimator, source)
        executor = default_executor()
        try:
            with bar(command, len(source.blocks), show=not quiet and log.kind == "text") as progress:
                rows = write_rows(
                    source,
                    answer,
                    out,
                    executor,
                    storage_options=options_for(out, storage_options),
                    overwrite=overwrite,
                    progress=progress,
                )
        finally:
            executor.close()
        seconds = time.monotonic() - began
        log.event("end", rows=rows, seconds=seconds, out=out)
        if not quiet and log.kind == "text":
            what = {"columns": ", ".join(answer.schema)}
            if kind_of(out) == "zarr":
                what = {
                    "shape": " x ".join(f"{n:,}" for n in (rows, *answer.trailing)),
                    "of": answer.attributes["answer"],
                }
            facts({"rows": f"{rows:,}", **what, "seconds": f"{seconds:.1f}", "saved to": out})
