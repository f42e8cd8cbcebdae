"""``dask-em impute MODEL DATA... --out FILLED``."""

from __future__ import annotations

from typing import Any

import click

from dask_em.cli.tables import feature_names
from dask_em.cli.writing import write, writes_rows
from dask_em.errors import ConfigurationError


@click.command()
@writes_rows(
    click.option(
        "--draws",
        type=click.IntRange(1),
        metavar="N",
        help="So many draws for each row, in place of the means: an array of rows by draws by columns, or a table in "
        "which the columns row and draw come first.",
    ),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draws."),
)
def impute(draws: int | None, seed: int, **options: Any) -> None:
    """The rows in their order, what is missing in them filled in by its mean given what is observed.

    Only the columns of the model are written. Nothing but whole outputs is ever seen at OUTPUT.
    """

    def imputations(estimator: Any, source: Any) -> Any:
        from dask_em import GaussianImputer
        from dask_em.distributions.gaussian_imputation import imputed_dtype
        from dask_em.sinks.imputations import Imputations

        if not isinstance(estimator, GaussianImputer):
            raise ConfigurationError(
                f"{options['model']} is a {type(estimator).__name__}, which fills in nothing: fit a gaussian-imputer"
            )
        names = tuple(feature_names(estimator, estimator.n_features_in_))
        return Imputations(estimator.fills(draws, seed), names, imputed_dtype(source.dtype), drawn=draws is not None)

    write("impute", imputations, **options)
