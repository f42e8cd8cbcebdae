"""``dask-em predict MODEL DATA... --out LABELS``."""

from __future__ import annotations

from typing import Any

import click

from dask_em.cli.writing import write, writes_rows
from dask_em.errors import ConfigurationError


@click.command()
@writes_rows(
    click.option("--proba", is_flag=True, help="The probability of each component, in place of the label."),
    click.option("--loglik", is_flag=True, help="The log-likelihood of the row, in place of the label."),
    click.option(
        "--response",
        is_flag=True,
        help="The mean response of a mixture of regressions, in place of the label.  DATA has a column of the "
        "response, and what is in it has no say.",
    ),
)
def predict(proba: bool, loglik: bool, response: bool, **options: Any) -> None:
    """The component each row most probably comes from, for all rows in their order.

    Nothing but whole outputs is ever seen at OUTPUT.
    """
    asked = [flag for flag, on in (("--proba", proba), ("--loglik", loglik), ("--response", response)) if on]
    if len(asked) > 1:
        raise ConfigurationError(f"{' and '.join(asked)} exclude each other: write one, then the other")

    def answer(estimator: Any, source: Any) -> Any:
        who = f"{options['model']} is a {type(estimator).__name__}"
        if proba and not hasattr(estimator, "predict_proba"):
            raise ConfigurationError(f"{who}, which has no --proba: write labels")
        if response and not hasattr(estimator, "predict_response"):
            raise ConfigurationError(f"{who}, which has no --response: write labels")
        if not (loglik or response) and not hasattr(estimator, "predict"):
            raise ConfigurationError(f"{who}, which has no labels: write --loglik")
        return estimator.answer(asked[0].removeprefix("--") if asked else "labels")

    write("predict", answer, **options)
