"""The distributions that a mixture can have on the command line, and the options that are their parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click
from click.core import ParameterSource

from dask_em.cli.options import together
from dask_em.cli.product_file import read_product
from dask_em.errors import ConfigurationError

DISTRIBUTIONS = {
    "bernoulli": "Bernoulli",
    "categorical": "Categorical",
    "exponential": "Exponential",
    "factors": "Factors",
    "gamma": "Gamma",
    "gaussian": "Gaussian",
    "linear-regression": "LinearRegression",
    "logistic-regression": "LogisticRegression",
    "multinomial": "Multinomial",
    "negative-binomial": "NegativeBinomial",
    "poisson": "Poisson",
    "poisson-regression": "PoissonRegression",
    "student-t": "StudentT",
}
_GIVEN = "dask_em.distribution"  # where a command keeps the options of the distribution until it is made


class Column(click.ParamType):
    """A column's name, or the position of one that has none."""

    name = "column"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | int:
        """A position, where there are digits only."""
        return int(value) if str(value).isdecimal() else str(value)


class EachOrShared(click.ParamType):
    """`each`, `shared`, or a number."""

    name = "each|shared|number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | float:
        """The word or the number."""
        if value in ("each", "shared"):
            return str(value)
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} should be each, shared or a number", param, ctx)


class Numbers(click.ParamType):
    """One number, or several with commas between them."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | tuple[float, ...]:
        """The number, or all of them."""
        try:
            found = tuple(float(piece) for piece in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} should be a number, or several with commas between them", param, ctx)
        return found if len(found) > 1 else found[0]


class Shares(Numbers):
    """The word `equal`, or numbers with commas between them."""

    name = "shares"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The word, or the numbers."""
        return "equal" if value == "equal" else super().convert(value, param, ctx)


class Components(click.ParamType):
    """The components of a fitted mixture, by its file."""

    name = "model"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Their parameters."""
        import dask_em

        if not isinstance(value, str):
            return value
        try:
            known = dask_em.load(value)
        except dask_em.DaskEMError as error:
            self.fail(str(error), param, ctx)
        if not hasattr(known, "components_"):
            self.fail(f"{value} holds a {type(known).__name__}, and should hold a mixture", param, ctx)
        return known.components_


known_options = together(
    click.option(
        "--frozen",
        type=Components(),
        metavar="MODEL",
        help="A fitted mixture, whose components are the first of this one and stay as they are.",
    ),
    click.option(
        "--fixed-weights",
        type=Shares(),
        metavar="equal|SHARES",
        help="Weights of the components that stay as they are.  [default: they are estimated]",
    ),
)


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Keep an option, under the name that the distribution has for it, until the distribution is made."""
    if param.name is not None and ctx.get_parameter_source(param.name) is not ParameterSource.DEFAULT:
        ctx.meta.setdefault(_GIVEN, {})[param.name] = (param.opts[0], value)


def _of_distribution(flag: str, name: str, **settings: Any) -> Callable[[Any], Any]:
    return click.option(flag, name, is_eager=True, expose_value=False, callback=_keep, **settings)


class Name(click.Choice[str]):
    """The name of a distribution, or a YAML file."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name, or the file's."""
        if str(value).endswith((".yaml", ".yml")):
            return str(value)
        return super().convert(value, param, ctx)


def _make(ctx: click.Context, param: click.Parameter, value: str) -> Any:
    """The distribution, with the options that are its own.

    Raises
    ------
    click.BadParameter
        It has no such parameter, or needs one, or a value is none that it takes.
    """
    import dask_em

    if value not in DISTRIBUTIONS:
        if ctx.meta.get(_GIVEN):
            flag = next(flag for flag, _ in ctx.meta[_GIVEN].values())
            raise click.BadParameter(f"{value} says what its distributions are: put {flag} there", param_hint=flag)
        try:
            return read_product(value, DISTRIBUTIONS)
        except ConfigurationError as error:
            raise click.BadParameter(str(error)) from error
    kind = getattr(dask_em, DISTRIBUTIONS[value])
    given, known = ctx.meta.get(_GIVEN, {}), {f.name for f in fields(kind)}
    for name, (flag, _) in given.items():
        if name not in known:
            word = flag.removeprefix("--no-").removeprefix("--").replace("-", " ")
            raise click.BadParameter(f"{value} has no {word}: drop {flag}", param_hint=flag)
    if "response" in known and "response" not in given:
        raise click.BadParameter(f"{value} needs --response COLUMN", param_hint="--response")
    try:
        return kind(**{name: setting for name, (_, setting) in given.items()})
    except ConfigurationError as error:
        raise click.BadParameter(str(error)) from error


distribution_options = together(
    click.option(
        "--distribution",
        type=Name(sorted(DISTRIBUTIONS)),
        required=True,
        callback=_make,
        help="Of each component; columns are independent given the component, but those of a Gaussian and the like.  "
        "Or a YAML file of parts, each of some columns: a list of "
        "{columns: [a, b], distribution: gaussian, covariance_type: diag}.",
    ),
    _of_distribution(
        "--response",
        "response",
        type=Column(),
        metavar="COLUMN",
        help="Of a regression: its name, or its position in an array.  All other columns are predictors.",
    ),
    _of_distribution(
        "--exposure",
        "exposure",
        type=Column(),
        metavar="COLUMN",
        help="Of poisson and its regression: how long, or of how many, a row's counts were taken.",
    ),
    _of_distribution(
        "--trials",
        "trials",
        type=Column(),
        metavar="COLUMN",
        help="Of bernoulli and logistic-regression: of how many trials a row counts the ones.",
    ),
    _of_distribution(
        "--no-intercept",
        "fit_intercept",
        is_flag=True,
        flag_value=False,
        help="Of a regression: through the origin.",
    ),
    _of_distribution(
        "--ridge",
        "ridge",
        type=click.FloatRange(0),
        help="Of a regression: strength of a normal prior on the coefficients.  [default: 0]",
    ),
    _of_distribution(
        "--shared-variance",
        "shared_variance",
        is_flag=True,
        help="Of linear-regression: one residual variance for all components.",
    ),
    _of_distribution(
        "--df", "df", type=EachOrShared(), help="Of student-t: degrees of freedom, or how they are estimated."
    ),
    _of_distribution(
        "--size", "size", type=EachOrShared(), help="Of negative-binomial: size, or how sizes are estimated."
    ),
    _of_distribution(
        "--covariance-type",
        "covariance_type",
        type=click.Choice(["full", "tied", "diag", "spherical"]),
        help="Of gaussian; of student-t full or diag.  [default: full]",
    ),
    _of_distribution(
        "--reg-covar",
        "reg_covar",
        type=click.FloatRange(0),
        help="Of gaussian and student-t: the least variance in any direction, in squared units of the data.  "
        "[default: 1e-06, and no more than a millionth of a column's variance]",
    ),
    _of_distribution(
        "--n-factors", "n_factors", type=click.IntRange(1), help="Of factors: hidden factors of each.  [default: 1]"
    ),
    _of_distribution(
        "--prior",
        "prior",
        type=Numbers(),
        metavar="NUMBERS",
        help="As the distribution's prior: 5 (rows) for gaussian, 1 for multinomial, 2,0.5 for poisson.  "
        "[default: none]",
    ),
    _of_distribution(
        "--size-prior",
        "size_prior",
        type=Numbers(),
        metavar="SHAPE,RATE",
        help="Of negative-binomial: gamma prior on the sizes.  [default: none]",
    ),
)
