"""What can be fitted from the command line: one entry a family.

A new family is an entry of `COMMANDS`: its command's name, its estimator, the options that are
its parameters, which of them form a grid, and how what was fitted is shown.  Its defaults are those
of the estimator, and what has none is not passed on unless it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from dask_em.cli.distributions import Numbers, distribution_options, known_options
from dask_em.cli.options import pass_options, seed_option, sequence_option, start_options, together
from dask_em.cli.tables import (
    Table,
    centre_tables,
    chain_tables,
    factor_tables,
    gaussian_tables,
    imputer_tables,
    mixture_tables,
    topic_tables,
)

Option = Callable[[Any], Any]


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


prior_option = click.option(
    "--prior",
    type=Numbers(),
    metavar="ROWS[,VARIANCE...]",
    help="Of covariances: as if so many more rows had been seen about the mean of each component.  [default: none]",
)

covariance_option = click.option(
    "--covariance-type",
    type=click.Choice(["full", "tied", "diag", "spherical"]),
    default="full",
    show_default=True,
)

reg_covar_option = click.option(
    "--reg-covar",
    type=click.FloatRange(0),
    help="The least variance of a component in any direction, in squared units of the data.  "
    "[default: 1e-06, and no more than a millionth of a column's variance]",
)

_GAUSSIAN_MIXTURE = Family(
    "gaussian-mixture",
    "GaussianMixture",
    "A mixture of Gaussians.",
    together(
        n_components_option,
        covariance_option,
        reg_covar_option,
        prior_option,
        start_options,
        pass_options(0.05, "Converged once fewer nats of the total log-likelihood are to be gained.", 500),
    ),
    gaussian_tables,
    grid=("n_components", "covariance_type", "reg_covar"),
)


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
    mixture_tables,
    grid=("n_components",),
)


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
    centre_tables,
)


_FACTOR_ANALYSIS = Family(
    "factor-analysis",
    "FactorAnalysis",
    "Hidden factors that many columns share, from one read of the data.",
    together(
        click.option("--n-components", type=click.IntRange(1), required=True, metavar="Q", help="Number of factors."),
        click.option("--rotation", type=click.Choice(["none", "varimax"]), help="Turn the factors to simple loadings."),
        click.option(
            "--floor",
            type=click.FloatRange(0, 1, min_open=True, max_open=True),
            default=0.005,
            show_default=True,
            help="Noise variances are at least this share of their columns' variances.",
        ),
        pass_options(1e-06, "Converged once fewer nats of the total log-likelihood are to be gained.", 2000),
    ),
    factor_tables,
    grid=("n_components",),
    criteria=("bic", "aic", "held-out"),  # no row belongs to a factor, which is what ICL weighs
)


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
            help="The least variance in any direction, in squared units of the data.",
        ),
        prior_option,
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
    imputer_tables,
)

_chain_options: Option = together(
    sequence_option,
    click.option(
        "--transitions",
        type=click.Choice(["full", "left-right"]),
        default="full",
        show_default=True,
        help="Which state may follow which: any, or itself and the next.",
    ),
    click.option(
        "--begins",
        type=click.Choice(["free", "stationary"]),
        default="free",
        show_default=True,
        help="First states have shares of their own, or those of the long run.",
    ),
    start_options,
    pass_options(0.05, "Converged once fewer nats of the total log-likelihood are to be gained.", 500),
)
_n_states_option = click.option(
    "--n-states", type=click.IntRange(1), required=True, metavar="K", help="Number of states."
)


_HIDDEN_MARKOV = Family(
    "hidden-markov",
    "HiddenMarkov",
    "A hidden Markov chain with states of any distribution.",
    together(_n_states_option, distribution_options, _chain_options),
    chain_tables,
)


_GAUSSIAN_HMM = Family(
    "gaussian-hmm",
    "GaussianHMM",
    "A hidden Markov chain of Gaussian rows.",
    together(_n_states_option, covariance_option, reg_covar_option, _chain_options),
    chain_tables,
)


_POISSON_HMM = Family(
    "poisson-hmm",
    "PoissonHMM",
    "A hidden Markov chain of counts.",
    together(_n_states_option, _chain_options),
    chain_tables,
)


_CATEGORICAL_HMM = Family(
    "categorical-hmm",
    "CategoricalHMM",
    "A hidden Markov chain of codes or texts.",
    together(_n_states_option, _chain_options),
    chain_tables,
)

_LDA = Family(
    "lda",
    "LatentDirichletAllocation",
    "Topics of documents, by latent Dirichlet allocation.",
    together(
        click.option("--n-components", type=click.IntRange(1), required=True, metavar="K", help="Number of topics."),
        click.option(
            "--vocabulary",
            metavar="FILE",
            help="The words, one a line.  [default: those of the data, or their numbers]",
        ),
        click.option(
            "--doc-topic-prior", type=click.FloatRange(0, min_open=True), help="Of shares.  [default: learned]"
        ),
        click.option(
            "--topic-word-prior", type=click.FloatRange(0, min_open=True), help="Of topics.  [default: learned]"
        ),
        seed_option,
        click.option(
            "--n-init", type=click.IntRange(1), default=1, show_default=True, help="Starts, which share the passes."
        ),
        pass_options(
            0.001,
            "Converged once a pass raises the bound by less than this part of it.",
            100,
            click.option(
                "--learning",
                type=click.Choice(["auto", "online", "batch"]),
                default="auto",
                show_default=True,
                help="Topics move several times within a pass, or once.",
            ),
        ),
    ),
    topic_tables,
)

_FAMILIES = (
    _GAUSSIAN_MIXTURE,
    _K_MEANS,
    _MIXTURE,
    _FACTOR_ANALYSIS,
    _GAUSSIAN_IMPUTER,
    _HIDDEN_MARKOV,
    _GAUSSIAN_HMM,
    _POISSON_HMM,
    _CATEGORICAL_HMM,
    _LDA,
)
COMMANDS = {family.command: family for family in _FAMILIES}


def family_of(estimator: Any) -> Family | None:
    """The family of a fitted estimator, if the command line knows it."""
    name = type(estimator).__name__
    return next((family for family in COMMANDS.values() if family.estimator == name), None)
