"""``dask-em score MODEL DATA...``."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from dask_em.cli.log import plain
from dask_em.cli.options import data_argument, data_options, run_options, sequence_option, weight_option
from dask_em.cli.places import data_of, options_for, reading
from dask_em.cli.session import session


@click.command()
@click.argument("model", metavar="MODEL")
@data_argument
@click.option("--json", "as_json", is_flag=True, help="One JSON object, in place of a table.")
@weight_option
@sequence_option
@data_options
@run_options
def score(
    model: str,
    data: tuple[str, ...],
    as_json: bool,
    weight: str | None,
    sequence: str | None,
    quiet: bool,
    **options: Any,
) -> None:
    """How well a model describes data, in one pass: log-likelihood, BIC and AIC; of clusters, the inertia."""
    began = time.monotonic()
    opening = {**reading(data, options), **({} if sequence is None else {"sequence": sequence})}
    with session(**options) as log:
        from dask_em import load
        from dask_em.cli.show import bar, facts
        from dask_em.engine import one_pass
        from dask_em.executors import default_executor

        log.event("start", command="score", model=model, data=list(data))
        estimator = load(model, storage_options=options_for(model, opening["storage_options"]))
        source = estimator._open(data_of(data), reset=False, weight=weight, **opening)
        executor = default_executor()
        try:
            with bar("score", len(source.blocks), show=not quiet and log.kind == "text") as progress:
                result = one_pass(source, [estimator.total_request()], executor, progress=progress)
        finally:
            executor.close()
        scores = _scores(result, estimator, weighted=weight is not None)
        log.event("end", **scores, seconds=time.monotonic() - began)
        if as_json:
            click.echo(json.dumps(plain(scores)))
        else:
            shown = {k: f"{v:,}" if isinstance(v, int) else f"{v:,.6f}" for k, v in scores.items()}
            facts({name.replace("_", " "): value for name, value in shown.items()})


def _scores(result: Any, estimator: Any, *, weighted: bool) -> dict[str, Any]:
    stats = result.answers[0]
    total, weight = float(stats.total_loglik), float(stats.weight)
    figures = estimator.figures_of(total, weight)
    return {"rows": int(result.rows), **({"weight": weight} if weighted else {}), **figures}
