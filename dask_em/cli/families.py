"""What can be fitted from the command line: one entry a family.

A new family is an entry of `FAMILIES`: its command's name, its estimator, the options that are
its hyperparameters, and how its parameters are shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

Table = tuple[list[str], list[list[Any]]]  # headings, and rows of numbers


@dataclass(frozen=True)
class Family:
    """A kind of model.

    Parameters
    ----------
    command : str
        Its name after ``dask-em fit``.
    estimator : str
        Its class in `dask_em`.
    help : str
    options : tuple of click decorators
        One for each hyperparameter, named as the estimator's parameter.
    table : callable
        The fitted parameters, a row a component.
    """

    command: str
    estimator: str
    help: str
    options: tuple[Callable[[Any], Any], ...]
    table: Callable[[Any], Table]


def _gaussian_table(estimator: Any) -> Table:
    import numpy as np

    k, d = estimator.means_.shape
    c = np.asarray(estimator.covariances_)
    variances = {
        "full": lambda: np.diagonal(c, axis1=1, axis2=2),
        "tied": lambda: np.broadcast_to(np.diagonal(c), (k, d)),
        "diag": lambda: c,
        "spherical": lambda: np.broadcast_to(c[:, None], (k, d)),
    }[estimator.covariance_type]()
    names = list(getattr(estimator, "feature_names_in_", [f"x{j}" for j in range(d)]))
    rows = [
        [i, estimator.weights_[i], *(v for j in range(d) for v in (estimator.means_[i, j], np.sqrt(variances[i, j])))]
        for i in range(k)
    ]
    return ["component", "weight", *(h for name in names for h in (f"{name}", "sd"))], rows


_GAUSSIAN_MIXTURE = Family(
    "gaussian-mixture",
    "GaussianMixture",
    "A mixture of Gaussians.",
    (
        click.option("--n-components", type=click.IntRange(1), required=True, metavar="K", help="Number of Gaussians."),
        click.option(
            "--covariance-type",
            type=click.Choice(["full", "tied", "diag", "spherical"]),
            default="full",
            show_default=True,
        ),
        click.option(
            "--reg-covar",
            type=click.FloatRange(0),
            default=1e-6,
            show_default=True,
            help="Added to the variances, in squared units of the data.",
        ),
    ),
    _gaussian_table,
)

FAMILIES = {family.command: family for family in (_GAUSSIAN_MIXTURE,)}


def family_of(estimator: Any) -> Family | None:
    """The family of a fitted estimator, if the command line knows it."""
    name = type(estimator).__name__
    return next((family for family in FAMILIES.values() if family.estimator == name), None)
