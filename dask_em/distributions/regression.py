"""What regressions share: which column is the response, and a linear predictor of the other ones.

    η = β₀ + βᵀ z,   for the predictors z of a row.

Sums are taken of predictors about a pivot z₀, with the coefficients θ = (β₀ + βᵀ z₀, β), so that large means cost no
digits; without an intercept the pivot is zero, and θ = β.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np

from dask_em.distributions.base import Distribution
from dask_em.distributions.named import check_column, position
from dask_em.errors import ConfigurationError, DegenerateError, RowError

_START_ROWS = 30  # of a component's start, for each coefficient: enough to estimate it, too few to be like all rows
_COLLINEAR = 1e-12  # smallest eigenvalue of the predictors' correlations, below which there is no solution


@dataclass(frozen=True)
class Regression(Distribution):
    """Base of regressions: subclasses say what the response's distribution is.

    A response that is missing (NaN) is missing at random: its row says nothing of the regressions.  Predictors have no
    distribution here, and must be there.

    Parameters
    ----------
    response : str or int
        Name or position of the response; all other columns are predictors.
    fit_intercept : bool, default True
    ridge : float, default 0.0
        Strength of a normal prior on the coefficients, in units of the predictors' variances; not on the intercept.
    names : tuple of str, optional
        Of the columns; found from the data's names in a fit.
    pivot, variance : ndarray of shape (n_features,), optional
        The point that sums are taken about, and the columns' variances; set by a fit.
    """

    response: str | int
    fit_intercept: bool = field(default=True, kw_only=True)
    ridge: float = field(default=0.0, kw_only=True)
    names: tuple[str, ...] | None = field(default=None, kw_only=True, compare=False, repr=False)
    pivot: np.ndarray | None = field(default=None, kw_only=True, compare=False, repr=False)
    variance: np.ndarray | None = field(default=None, kw_only=True, compare=False, repr=False)

    accepts_nan: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_column("response", self.response)
        number = isinstance(self.ridge, (int, float, np.number)) and not isinstance(self.ridge, bool)
        if not (number and np.isfinite(self.ridge) and self.ridge >= 0):
            raise ConfigurationError(f"ridge={self.ridge!r} must be a number that is not negative")

    # ---- columns

    def resolved(self, names: Sequence[str] | None) -> Self:
        """With the names of the columns, of which one is the response's.

        Raises
        ------
        ConfigurationError
            The data has no such column.
        """
        new = replace(self, names=None if names is None else tuple(names))
        new.others(None if names is None else len(names))
        return new

    def position(self, n_features: int | None) -> int:
        """Where the response is, of so many columns; None: not known yet."""
        return position(type(self).__name__, "response", self.response, self.names, n_features)

    @property
    def n_others(self) -> int:
        """Columns that are no predictors."""
        return 1

    def others(self, n_features: int | None) -> list[int]:
        """Where these are."""
        return [self.position(n_features)]

    def n_columns(self, coef: np.ndarray) -> int:
        """Columns of the data, given coefficients (K, p)."""
        return int(coef.shape[1]) + self.n_others

    def predictors(self, n_features: int) -> list[str]:
        """Names of the predictors, x0, x1, ... by their columns where they have none."""
        return self.modelled([f"x{j}" for j in range(n_features)] if self.names is None else self.names)

    def modelled(self, names: Sequence[str]) -> list[str]:
        """The predictors, each of which has a coefficient."""
        others = self.others(len(names))
        return [name for j, name in enumerate(names) if j not in others]

    def within(self, low: np.ndarray, high: np.ndarray) -> Self:
        """The same distribution; refuses a response that is no column, and no predictors at all."""
        self.others(len(low))
        if len(low) == self.n_others and not self.fit_intercept:
            raise ConfigurationError(
                f"{type(self).__name__} has neither predictors nor an intercept: give the data another column"
            )
        return self

    def about(self, center: np.ndarray) -> Self:
        """The same distribution, its sums taken about a centre."""
        return replace(self, pivot=np.asarray(center, dtype=np.float64))

    def in_units_of(self, variance: np.ndarray) -> Self:
        """The same distribution, told the columns' variances."""
        return replace(self, variance=np.asarray(variance, dtype=np.float64))

    # ---- what is missing

    def check_rows(self, x: np.ndarray) -> None:
        """Raise `RowError` for a predictor that is missing."""
        missing = np.isnan(x)
        missing[:, self.position(x.shape[1])] = False
        if missing.any():
            row, column = (int(i[0]) for i in np.nonzero(missing))
            raise RowError(
                row,
                column,
                f"is NaN, where {type(self).__name__} needs all but the response: fill predictors in first, as "
                "em.GaussianImputer does, or drop such rows",
            )

    def without_missing(self, x: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
        """Those of the rows, and of what goes with them, that have a response."""
        y = x[:, self.position(x.shape[1])]
        if y.dtype.kind != "f" or not np.isnan(y).any():
            return x, *others
        seen = ~np.isnan(y)
        return tuple(a[seen] for a in (x, *others))

    def of_observed(self, x: np.ndarray, density: np.ndarray) -> np.ndarray:
        """Log densities (n_rows, K), zero where the response is missing."""
        y = x[:, self.position(x.shape[1])]
        return density if y.dtype.kind != "f" else np.where(np.isnan(y)[:, None], 0.0, density)

    def observed(self, present: np.ndarray, resp: np.ndarray) -> np.ndarray:
        """(K, d, d) rows, those that have a response."""
        return super().observed(present * present[:, self.position(present.shape[1]), None], resp)

    # ---- the linear predictor

    def split(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Responses (n,), and a design matrix (n, q) that θ belongs to: a column of ones, predictors about the pivot.

        Without an intercept, the predictors alone.
        """
        x = np.asarray(x, dtype=np.float64)
        n, d = x.shape
        j = self.position(d)
        z = np.delete(x, self.others(d), axis=1)
        if not self.fit_intercept:
            return x[:, j], z
        return x[:, j], np.column_stack([np.ones(n), z - self._center(d)])

    def _center(self, n_features: int) -> np.ndarray:
        """z₀ (p,)."""
        return self.means(n_features) if self.fit_intercept else np.zeros(n_features - self.n_others)

    def units(self, n_features: int) -> np.ndarray:
        """Variances (p,) of the predictors, as far as they are known."""
        if self.variance is None:
            return np.ones(n_features - self.n_others)
        own = np.delete(self.variance, self.others(n_features))
        return np.where(own > 0, own, 1.0)

    def means(self, n_features: int) -> np.ndarray:
        """Means (p,) of the predictors, as far as they are known."""
        if self.pivot is None:
            return np.zeros(n_features - self.n_others)
        return np.delete(self.pivot, self.others(n_features))

    def squares(self, n_features: int) -> np.ndarray:
        """Mean squares (q,) of the design matrix's columns, as far as they are known."""
        if self.fit_intercept:
            return np.append(1.0, self.units(n_features))
        return self.units(n_features) + self.means(n_features) ** 2

    def theta(self, coef: np.ndarray, intercept: np.ndarray) -> np.ndarray:
        """θ (K, q) of coefficients (K, p) and intercepts (K,)."""
        if not self.fit_intercept:
            return coef
        return np.column_stack([intercept + coef @ self._center(self.n_columns(coef)), coef])

    def coefficients(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients (K, p) and intercepts (K,) of θ."""
        if not self.fit_intercept:
            return theta, np.zeros(len(theta))
        coef = theta[:, 1:]
        return coef, theta[:, 0] - coef @ self._center(self.n_columns(coef))

    def n_coefficients(self, n_features: int) -> int:
        """q, those of one component."""
        return n_features - self.n_others + int(self.fit_intercept)

    def penalty(self, n_features: int) -> np.ndarray:
        """(q,) what the ridge adds to the diagonal of the information."""
        slopes = self.ridge * self.units(n_features)
        return np.concatenate([[0.0], slopes]) if self.fit_intercept else slopes

    def solved(self, gram: np.ndarray, right: np.ndarray, k: int) -> np.ndarray:
        """Solution of a component's normal equations (q, q).

        Raises
        ------
        DegenerateError
            Predictors are linearly dependent on the component's rows.
        """
        size = np.sqrt(np.maximum(np.diagonal(gram), 0.0))
        size = np.where(size > 0, size, 1.0)
        values, vectors = np.linalg.eigh(gram / np.outer(size, size))
        if not values[0] > _COLLINEAR:
            d = len(gram) - int(self.fit_intercept) + self.n_others
            names = ["the intercept", *self.predictors(d)] if self.fit_intercept else self.predictors(d)
            parts = np.abs(vectors[:, 0])
            which = [names[j] for j in np.flatnonzero(parts > 0.1 * parts.max())[:8]]
            alone = "is always the same" if self.fit_intercept else "is always zero"
            raise DegenerateError(
                f"component {k} has no regression of its own, as {' and '.join(which)} "
                f"{alone if len(which) == 1 else 'are linearly dependent'} in its rows: leave a predictor out, use "
                f"fewer components, or give {type(self).__name__} a ridge"
            )
        solution: np.ndarray = vectors @ ((vectors.T @ (right / size)) / values) / size
        return solution

    @abstractmethod
    def response_means(self, params: Any, x: np.ndarray) -> np.ndarray:
        """(n_rows, K) means of the response under each component, whatever the rows hold in its column."""

    @abstractmethod
    def response_quantiles(self, params: Any, x: np.ndarray, labels: np.ndarray, u: np.ndarray) -> np.ndarray:
        """(n_rows,) responses below which a share u (n_rows,) of those of component labels[i] is, given predictors."""

    # ---- starts and draws

    def partition(self, x: np.ndarray, weight: np.ndarray, n_components: int, rng: np.random.Generator) -> np.ndarray:
        """Components of a few rows drawn at random, -1 for all others.

        Rows of one regression need not be near each other: of two curves that cross, clusters were a start that led
        to the optimum in none of 12 cases, and random rows one in all of them.
        """
        counted = np.flatnonzero((weight > 0) & ~np.isnan(x[:, self.position(x.shape[1])]))
        rows = rng.permutation(counted)[: n_components * _START_ROWS * (self.n_coefficients(x.shape[1]) + 1)]
        labels = np.full(len(x), -1)
        labels[rows] = np.arange(len(rows)) % n_components
        return labels

    def sample(self, params: Any, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Not defined: a regression says nothing of where predictors come from."""
        raise TypeError(
            f"{type(self).__name__} is a distribution of the response given the predictors, and cannot draw rows, as "
            "predictors have no distribution: Mixture.sample_response draws responses for rows that are given"
        )
