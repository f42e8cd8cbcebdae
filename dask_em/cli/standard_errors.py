"""``dask-em standard-errors MODEL DATA...``."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import click

from dask_em.cli.log import plain
from dask_em.cli.options import data_argument, data_options, run_options, weight_option
from dask_em.cli.places import data_of, options_for, reading
from dask_em.cli.session import session
from dask_em.cli.tables import Table
from dask_em.errors import ConfigurationError

_DECIMALS = 12  # beyond which digits are rounding


@click.command("standard-errors")
@click.argument("model", metavar="MODEL")
@data_argument
@click.option(
    "--level",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Of the confidence intervals.",
)
@click.option(
    "--kind",
    type=click.Choice(["auto", "observed", "empirical", "robust"]),
    default="auto",
    show_default=True,
    help="From second derivatives, from the rows' gradients, or from both, which holds though the model is wrong.",
)
@click.option(
    "--bootstrap",
    "replicates",
    type=click.IntRange(2),
    metavar="N",
    help="From fits to N data sets drawn from the rows, with replacement, in place of derivatives.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the bootstrap.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, in place of a table.")
@weight_option
@data_options
@run_options
def standard_errors(
    model: str,
    data: tuple[str, ...],
    level: float,
    kind: str,
    replicates: int | None,
    seed: int,
    as_json: bool,
    weight: str | None,
    quiet: bool,
    **options: Any,
) -> None:
    """How sure the parameters of a model are, from the data that it was fitted to: standard errors and intervals."""
    if replicates is not None and kind != "auto":
        raise ConfigurationError(f"--kind {kind} and --bootstrap exclude each other: ask for one, then the other")
    began = time.monotonic()
    opening = {"sample_weight": weight, **reading(data, options)}
    with session(**options) as log:
        from dask_em import bootstrap, load
        from dask_em.cli.show import table

        log.event("start", command="standard-errors", model=model, data=list(data))
        estimator = load(model, storage_options=options_for(model, opening["storage_options"]))
        if not hasattr(estimator, "standard_errors"):
            raise ConfigurationError(
                f"{model} is a {type(estimator).__name__}, which has no likelihood, and so no standard errors"
            )
        estimator.set_params(verbose=0 if quiet or log.kind != "text" else 1)
        x = data_of(data)
        if replicates is None:
            found = estimator.standard_errors(x, level=level, kind=kind, **opening)
        else:
            found = bootstrap(estimator, x, replicates, level=level, random_state=seed, **opening).table_
        lines = [{name: _plain(value) for name, value in row.items()} for row in found.to_dict("records")]
        log.event("end", parameters=lines, seconds=time.monotonic() - began)
        if as_json:
            click.echo(json.dumps(plain({"level": level, "parameters": lines})))
        else:
            rows = [[_shown(line[name], line["standard_error"]) for name in found] for line in lines]
            headings = [name.replace("_", " ") for name in found]
            table(Table("Parameters", headings, rows, tall=True, texts=("parameter", "of"), lead=3))


def _shown(value: Any, error: float | None) -> Any:
    """A number to three digits of its standard error, where the usual six would not reach so far."""
    if not (isinstance(value, float) and value and error and math.isfinite(value) and math.isfinite(error)):
        return value
    decimals = 2 - math.floor(math.log10(error))
    reached = 5 - math.floor(math.log10(abs(value)))
    return f"{value:.{decimals}f}" if max(reached, 0) < decimals <= _DECIMALS else value


def _plain(value: Any) -> Any:
    """A cell as Python knows it; what is missing is None."""
    import pandas

    return None if pandas.isna(value) else value
