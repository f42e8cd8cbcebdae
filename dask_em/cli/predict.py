"""``dask-em predict MODEL DATA... --out LABELS``."""

from __future__ import annotations

from typing import Any

import click

from dask_em.cli.options import sequence_option
from dask_em.cli.writing import write, writes_rows
from dask_em.errors import ConfigurationError

_WANTS = ("proba", "loglik", "factors", "distances", "shares", "posterior", "filtered", "response")


@click.command()
@writes_rows(
    click.option("--proba", is_flag=True, help="The probability of each component, in place of the label."),
    click.option("--loglik", is_flag=True, help="The log-likelihood of the row, in place of the label."),
    click.option("--factors", is_flag=True, help="The means of the factors, in place of the label."),
    click.option("--distances", is_flag=True, help="The distances from all centres of k-means, in place of the label."),
    click.option("--shares", is_flag=True, help="The shares of topics in each document."),
    click.option(
        "--posterior",
        is_flag=True,
        help="Of a hidden Markov chain, the most probable state of each row by itself, in "
        "place of those on the most probable path.",
    ),
    click.option(
        "--filtered",
        is_flag=True,
        help="Of a hidden Markov chain, the probability of each state, given the rows so far.",
    ),
    sequence_option,
    click.option(
        "--response",
        is_flag=True,
        help="The mean response of a mixture of regressions, in place of the label.  Of DATA the predictors are read.",
    ),
)
def predict(**options: Any) -> None:
    """The component each row most probably comes from, for all rows in their order.

    Nothing but whole outputs is ever seen at OUTPUT.
    """
    asked = [want for want in _WANTS if options.pop(want)]
    if len(asked) > 1:
        raise ConfigurationError(f"--{' and --'.join(asked)} exclude each other: write one, then the other")
    want = asked[0] if asked else "labels"

    def answer(estimator: Any, source: Any) -> Any:
        says_why = want == "response" and hasattr(estimator, "predict_response")  # of which distribution it is
        if want not in estimator.answers and not says_why:
            has = ", ".join("labels" if known == "labels" else f"--{known}" for known in estimator.answers)
            raise ConfigurationError(
                f"{options['model']} is a {type(estimator).__name__}, which has no "
                f"{'labels' if want == 'labels' else f'--{want}'}: write {has}"
            )
        return estimator.answer(want, source)

    def unasked(estimator: Any) -> int | None:
        return estimator.unasked(want) if hasattr(estimator, "unasked") else None

    write("predict", answer, unasked=unasked, **options)
