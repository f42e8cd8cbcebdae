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
)
def predict(proba: bool, loglik: bool, **options: Any) -> None:
    """The component each row most probably comes from, for all rows in their order.

    Nothing but whole outputs is ever seen at OUTPUT.
    """
    if proba and loglik:
        raise ConfigurationError("--proba and --loglik exclude each other: write one, then the other")

    def answer(estimator: Any, source: Any) -> Any:
        who = f"{options['model']} is a {type(estimator).__name__}"
        if proba and not hasattr(estimator, "predict_proba"):
            raise ConfigurationError(f"{who}, which has no --proba: write labels")
        if not loglik and not hasattr(estimator, "predict"):
            raise ConfigurationError(f"{who}, which has no labels: write --loglik")
        return estimator.answer("proba" if proba else "loglik" if loglik else "labels")

    write("predict", answer, **options)
