"""``dask-em predict MODEL DATA... --out LABELS``."""

from __future__ import annotations

import time
from typing import Any

import click

from dask_em.cli.options import data_argument, data_options, overwrite_option, run_options
from dask_em.cli.places import columns_of, data_of, options_for, refuse_clash
from dask_em.cli.session import session
from dask_em.errors import ConfigurationError


@click.command()
@click.argument("model", metavar="MODEL")
@data_argument
@click.option(
    "--out", required=True, metavar="OUTPUT", help="A .zarr array or a .parquet folder, with a row for each row."
)
@click.option("--proba", is_flag=True, help="The probability of each component, in place of the label.")
@click.option("--loglik", is_flag=True, help="The log-likelihood of the row, in place of the label.")
@data_options
@run_options
@overwrite_option
def predict(
    model: str,
    data: tuple[str, ...],
    out: str,
    proba: bool,
    loglik: bool,
    columns: list[str] | None,
    filters: Any,
    storage_options: dict[str, Any] | None,
    missing_chunks: str,
    quiet: bool,
    overwrite: bool,
    **place: Any,
) -> None:
    """The component each row most probably comes from, for all rows in their order.

    Nothing but whole outputs is ever seen at OUTPUT.
    """
    from dask_em.sinks.staging import check_output
    from dask_em.sinks.writing import kind_of

    if proba and loglik:
        raise ConfigurationError("--proba and --loglik exclude each other: write one, then the other")
    kind_of(out)
    refuse_clash([*data, model], out)
    check_output(out, options_for(out, storage_options), overwrite=overwrite)
    began = time.monotonic()
    with session(**place) as log:
        from dask_em import load
        from dask_em.cli.show import bar, facts
        from dask_em.executors import default_executor
        from dask_em.sinks.answers import Answer
        from dask_em.sinks.writing import write_rows

        log.event("start", command="predict", model=model, data=list(data), out=out)
        estimator = load(model, storage_options=options_for(model, storage_options))
        source = estimator._open(
            data_of(data),
            reset=False,
            columns=columns_of(data, columns, storage_options),
            filters=filters,
            storage_options=storage_options,
            missing_chunks=missing_chunks,
        )
        if proba and not hasattr(estimator, "predict_proba"):
            raise ConfigurationError(f"{model} is a {type(estimator).__name__}, which has no --proba: write labels")
        if not loglik and not hasattr(estimator, "predict"):
            raise ConfigurationError(f"{model} is a {type(estimator).__name__}, which has no labels: write --loglik")
        answer = Answer(estimator._model(), estimator._params(), "proba" if proba else "loglik" if loglik else "labels")
        executor = default_executor()
        try:
            with bar("predict", len(source.blocks), show=not quiet and log.kind == "text") as progress:
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
            facts(
                {
                    "rows": f"{rows:,}",
                    "columns": ", ".join(answer.columns),
                    "seconds": f"{seconds:.1f}",
                    "saved to": out,
                }
            )
