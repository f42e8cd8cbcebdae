"""What can be fitted from the command line: one entry a family.

A new family is an entry of `COMMANDS`: its command's name, its estimator, the options that are
its parameters, which of them form a grid, and how what was fitted is shown.  Its defaults are those
of the estimator, and what has none is not passed on unless it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import click

from dask_em.cli.distributions import Numbers, distribution_options, known_options
from dask_em.cli.options import pass_options, seed_option, start_options, together

Option = Callable[[Any], Any]


@dataclass(frozen=True)
class Table:
    """Something to be shown.

    Parameters
    ----------
    title : str
    headings : sequence of str
        The first is that of the rows' names.
    rows : sequence of sequences
        Names first, which are shown as they are; numbers after them.
    tall : bool
        Whether rows stay rows: then texts and headings that are too wide break between words.
    texts : sequence of str
        Headings of the columns that hold no numbers.
    lead : int
        Columns that name the rows.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Any]]
    tall: bool = False
    texts: Sequence[str] = ()
    lead: int = 1


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
    options : click decorator
        One option for each parameter, named as the estimator's; `together` makes one of several.
    tables : callable
        What a fitted estimator found, as tables.
    grid : sequence of str
        The options of which ``dask-em select`` takes several values; none: there is nothing to select.
    criteria : sequence of str
        By which the best can be told.
    """

    command: str
    estimator: str
    help: str
    options: Option
    tables: Callable[[Any], list[Table]]
    grid: Sequence[str] = ()
    criteria: Sequence[str] = ("bic", "aic", "icl", "held-out")


n_components_option = click.option(
    "--n-components", type=click.IntRange(1), required=True, metavar="K", help="Number of components."
)


def _gaussian_tables(estimator: Any) -> list[Table]:
    import numpy as np

    k, d = estimator.means_.shape
    c = np.asarray(estimator.covariances_)
    variances = {
        "full": lambda: np.diagonal(c, axis1=1, axis2=2),
        "tied": lambda: np.broadcast_to(np.diagonal(c), (k, d)),
        "diag": lambda: c,
        "spherical": lambda: np.broadcast_to(c[:, None], (k, d)),
    }[estimator.covariance_type]()
    names = feature_names(estimator, d)
    rows = [
        [str(i), estimator.weights_[i], *(v for pair in zip(estimator.means_[i], np.sqrt(variances[i])) for v in pair)]
        for i in range(k)
    ]
    return [Table("components", ["component", "weight", *(h for name in names for h in (name, f"{name} sd"))], rows)]


def feature_names(estimator: Any, n_features: int) -> list[str]:
    """Names of the fitted columns, x0, x1, ... where they have none."""
    return [str(name) for name in getattr(estimator, "feature_names_in_", [f"x{j}" for j in range(n_features)])]


_GAUSSIAN_MIXTURE = Family(
    "gaussian-mixture",
    "GaussianMixture",
    "A mixture of Gaussians.",
    together(
        n_components_option,
        click.option(
            "--covariance-type",
            type=click.Choice(["full", "tied", "diag", "spherical"]),
            default="full",
            show_default=True,
        ),
        click.option(
            "--reg-covar",
            type=click.FloatRange(0),
            default=1e-06,
            show_default=True,
            help="Added to the variances, in squared units of the data.",
        ),
        click.option(
            "--prior",
            type=Numbers(),
            metavar="ROWS[,VARIANCE...]",
            help="Of the covariances: as if so many more rows had been seen in every component.  [default: none]",
        ),
        start_options,
        pass_options(0.05, "Converged once fewer nats of the total log-likelihood are to be gained.", 500),
    ),
    _gaussian_tables,
    grid=("n_components", "covariance_type", "reg_covar"),
)


def _mixture_tables(estimator: Any) -> list[Table]:
    """The components' weights, and a table for each of their parameters."""
    from dask_em.distributions.product import Product

    names = feature_names(estimator, estimator.n_features_in_)
    weights = [[str(i), w] for i, w in enumerate(estimator.weights_)]
    tables = [Table("components", ["component", "weight"], weights)]
    components, distribution = estimator.components_, estimator.distribution_
    if not isinstance(distribution, Product):
        return tables + _parameter_tables(distribution, components, len(weights), names)
    for kind, columns, part in zip(distribution.distributions, components.columns, components.parts, strict=True):
        own = [names[c] if isinstance(c, int) else c for c in columns]
        of = _parameter_tables(kind, part, len(weights), own)
        tables += [replace(table, title=f"{table.title} of {', '.join(own)}") for table in of]
    return tables


def _parameter_tables(distribution: Any, components: Any, k: int, names: list[str]) -> list[Table]:
    """A table for each parameter that there is one of for each of k components, or also for each column."""
    import numpy as np

    from dask_em.distributions.regression import Regression

    tables = []
    if isinstance(distribution, Regression):
        heads = ["intercept", *distribution.predictors(len(names))]
        columns = np.column_stack([components.intercept, components.coef])
        if hasattr(components, "sigma"):
            heads, columns = [*heads, "residual sd"], np.column_stack([columns, components.sigma])
        return [Table("coefficients", ["component", *heads], [[str(i), *row] for i, row in enumerate(columns)])]
    names = distribution.modelled(names)
    for field in fields(components):
        a = np.asarray(getattr(components, field.name))
        if a.shape == (k, len(names)):
            tables.append(Table(field.name, ["component", *names], [[str(i), *row] for i, row in enumerate(a)]))
        elif a.shape == (k,):
            tables.append(Table(field.name, ["component", field.name], [[str(i), value] for i, value in enumerate(a)]))
        elif field.name == "probabilities" and (levels := distribution.levels_of(names)):
            tables.append(_level_table(a, names, levels))
        elif a.ndim == 3 and a.shape[:2] == (k, len(names)) and field.name == "probabilities":
            rows = [[str(i), name, *shares] for i, own in enumerate(a) for name, shares in zip(names, own, strict=True)]
            heads = ["component", "column", *(str(code) for code in range(a.shape[2]))]
            tables.append(Table(field.name, heads, rows, lead=2))
    return tables


def _level_table(probabilities: Any, names: Sequence[str], levels: Mapping[str, Sequence[str]]) -> Table:
    """A line for each level of each column, codes where a column has no text; a column for each component."""
    rows = []
    for j, name in enumerate(names):
        own = levels.get(name, [str(code) for code in range(probabilities.shape[2])])
        rows += [[name, level, *probabilities[:, j, code]] for code, level in enumerate(own)]
    heads = [f"component {i}" for i in range(len(probabilities))]
    return Table("probabilities", ["column", "level", *heads], rows, lead=2)


_MIXTURE = Family(
    "mixture",
    "Mixture",
    "A mixture of counts, answers, waiting times, regressions, ...",
    together(
        n_components_option,
        distribution_options,
        known_options,
        start_options,
        pass_options(0.05, "Converged once fewer nats of the total log-likelihood are to be gained.", 500),
    ),
    _mixture_tables,
    grid=("n_components",),
)


def _centre_tables(estimator: Any) -> list[Table]:
    names = feature_names(estimator, estimator.n_features_in_)
    rows = [[str(i), *centre] for i, centre in enumerate(estimator.cluster_centers_)]
    return [Table("centres", ["cluster", *names], rows)]


_K_MEANS = Family(
    "k-means",
    "KMeans",
    "Clusters about centres, each row in the nearest one's.",
    together(
        click.option("--n-clusters", type=click.IntRange(1), required=True, metavar="K", help="Number of clusters."),
        click.option(
            "--init",
            type=click.Choice(["k-means++", "k-means||"]),
            default="k-means++",
            show_default=True,
            help="Starts from a sample of the rows, or from passes that see clusters too rare for one.",
        ),
        seed_option,
        click.option("--n-init", type=click.IntRange(1), help="Starts, raced on a sample of the rows.  [default: 8]"),
        pass_options(1e-05, "Converged once the inertia is to fall by less than this share.", 300),
    ),
    _centre_tables,
)


def _factor_tables(estimator: Any) -> list[Table]:
    names = feature_names(estimator, estimator.n_features_in_)
    factors = [f"factor {k}" for k in range(estimator.n_components)]
    loadings = [[name, *row] for name, row in zip(names, estimator.loadings_, strict=True)]
    shares = [
        [name, unique, 1 - unique, noise]
        for name, unique, noise in zip(names, estimator.uniquenesses_, estimator.noise_variance_, strict=True)
    ]
    return [
        Table("loadings", ["column", *factors], loadings, tall=True),
        Table("uniquenesses", ["column", "uniqueness", "communality", "noise variance"], shares, tall=True),
    ]


_FACTOR_ANALYSIS = Family(
    "factor-analysis",
    "FactorAnalysis",
    "Hidden factors that many columns share, from one read of the data.",
    together(
        click.option("--n-components", type=click.IntRange(1), required=True, metavar="Q", help="Number of factors."),
        click.option("--rotation", type=click.Choice(["varimax"]), help="Turn the factors to simple loadings."),
        click.option(
            "--floor",
            type=click.FloatRange(0, 1, min_open=True, max_open=True),
            default=0.005,
            show_default=True,
            help="Noise variances are at least this share of their columns' variances.",
        ),
        pass_options(1e-06, "Converged once fewer nats of the total log-likelihood are to be gained.", 2000),
    ),
    _factor_tables,
    grid=("n_components",),
    criteria=("bic", "aic", "held-out"),  # no row belongs to a factor, which is what ICL weighs
)


def _imputer_tables(estimator: Any) -> list[Table]:
    import numpy as np

    names = feature_names(estimator, estimator.n_features_in_)
    sd = np.sqrt(np.diag(estimator.covariance_))
    correlation = estimator.covariance_ / sd[:, None] / sd
    rows = [[name, *own] for name, own in zip(names, zip(estimator.mean_, sd), strict=True)]
    return [
        Table("columns", ["column", "mean", "sd"], rows, tall=True),
        Table(
            "correlations", ["column", *names], [[n, *r] for n, r in zip(names, correlation, strict=True)], tall=True
        ),
    ]


_GAUSSIAN_IMPUTER = Family(
    "gaussian-imputer",
    "GaussianImputer",
    "One Gaussian of rows with missing values, from one read of the data.",
    together(
        click.option(
            "--reg-covar",
            type=click.FloatRange(0),
            default=0.0,
            show_default=True,
            help="Added to the variances, in squared units of the data.",
        ),
        click.option(
            "--prior",
            type=Numbers(),
            metavar="ROWS[,VARIANCE...]",
            help="Of the covariances: as if so many more rows had been seen.  [default: none]",
        ),
        seed_option,
        click.option(
            "--n-init",
            type=click.IntRange(1),
            default=1,
            show_default=True,
            help="Starts: the likelihood may have several maxima.",
        ),
        pass_options(1e-06, "Converged once fewer nats of the total log-likelihood are to be gained.", 2000),
    ),
    _imputer_tables,
)

COMMANDS = {
    family.command: family for family in (_GAUSSIAN_MIXTURE, _K_MEANS, _MIXTURE, _FACTOR_ANALYSIS, _GAUSSIAN_IMPUTER)
}


def family_of(estimator: Any) -> Family | None:
    """The family of a fitted estimator, if the command line knows it."""
    name = type(estimator).__name__
    return next((family for family in COMMANDS.values() if family.estimator == name), None)
