"""``dask-em inspect MODEL``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import click

from dask_em.cli.families import family_of
from dask_em.cli.log import plain
from dask_em.cli.options import _storage, debug_option


@click.command()
@click.argument("model", metavar="MODEL")
@click.option("--json", "as_json", is_flag=True, help="Everything as one JSON object.")
@click.option(
    "--storage-option",
    "storage_options",
    multiple=True,
    callback=_storage,
    metavar="KEY=VALUE",
    help="What fsspec needs to reach a URL.",
)
@debug_option
def inspect(model: str, as_json: bool, storage_options: dict[str, Any] | None) -> None:
    """The parameters of a model, and how its fit went."""
    from dask_em import load
    from dask_em.cli.places import options_for
    from dask_em.store import describe

    storage = options_for(model, storage_options)
    estimator, version = load(model, storage_options=storage), describe(model, storage_options=storage).version
    if as_json:
        click.echo(json.dumps(plain(_everything(estimator, version)), allow_nan=False))
        return
    from dask_em.cli.records import history, passes, reached, starts
    from dask_em.cli.show import facts, table

    facts(
        {
            "model": f"{type(estimator).__name__}, saved by dask_em {version}",
            **{k: str(v) for k, v in _chosen(estimator, _in_short).items()},
            "status": estimator.status_,
            "message": estimator.message_,
            "rows": f"{estimator.n_rows_:,}",
            "passes": passes(estimator.history_, estimator.n_passes_),
            **reached(estimator),
            "per row": f"{sum(estimator.reached.values()) / estimator.weight_:,.6f}",
        }
    )
    family = family_of(estimator)
    for found in () if family is None else family.tables(estimator):
        table(found)
    if len(estimator.restart_records_) > 1:
        table(starts(estimator.restart_records_))
    table(history(estimator.history_))


def _chosen(estimator: Any, shown: Callable[[Any], str] = repr) -> dict[str, Any]:
    """Hyperparameters that say what the model is; what concerned its run is left out."""
    run = {"executor", "callbacks", "verbose", "checkpoint", "checkpoint_options", "warm_start", "time_limit"}
    chosen = {k: v for k, v in estimator.get_params(deep=False).items() if k not in run and v is not None}
    return {k: shown(v) if is_dataclass(v) else v for k, v in chosen.items()}


def _in_short(made: Any) -> str:
    """A distribution as one would write it; of a product its parts."""
    if isinstance(getattr(made, "parts", None), tuple):
        return "; ".join(f"{', '.join(map(str, columns))}: {_in_short(part)}" for columns, part in made.parts)
    said = [(f.name, getattr(made, f.name)) for f in fields(made) if f.init and f.repr]
    defaults = {f.name: f.default for f in fields(made)}
    own = [f"{name}={value!r}" for name, value in said if value is not None and repr(value) != repr(defaults[name])]
    return f"{type(made).__name__}({', '.join(own)})"


def _parameters(estimator: Any) -> dict[str, Any]:
    """The fitted arrays, by name."""
    found = {name.rstrip("_"): getattr(estimator, name) for name in estimator._fitted}
    if hasattr(estimator, "components_") and is_dataclass(estimator.components_):
        found |= {f.name: getattr(estimator.components_, f.name) for f in fields(estimator.components_)}
    return found


def _everything(estimator: Any, version: str) -> dict[str, Any]:
    names = getattr(estimator, "feature_names_in_", None)
    return {
        "family": type(estimator).__name__,
        "version": version,
        "hyperparameters": _chosen(estimator),
        "feature_names": None if names is None else list(names),
        "parameters": _parameters(estimator),
        "levels": {name: list(own) for name, own in estimator._levels().items()},
        "fit": {
            "status": estimator.status_,
            "message": estimator.message_,
            "rows": estimator.n_rows_,
            "weight": estimator.weight_,
            "passes": estimator.n_passes_,
            "steps": estimator.n_steps_,
            **estimator.reached,
            "history": estimator.history_,
            "fingerprint": estimator.fingerprint_,
            "restarts": estimator.restart_records_,
        },
    }
