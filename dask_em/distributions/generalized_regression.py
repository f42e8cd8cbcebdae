"""Regressions of counts and answers, whose M-step is one step of Newton's method on sums over rows.

With the canonical link, the expected log-likelihood of a component at coefficients θ has the gradient
g = Σ r (y - μ) a and the information H = Σ r w a aᵀ, for the mean μ and variance w of the response at η = θᵀ a,
both in proportion to the row's size, if it has one
(McCullagh and Nelder 1989, section 2.5).  The sums  H,  v = H θ + g  and a constant describe its expansion

    Q(t) ≈ c + vᵀ t - ½ tᵀ H t,

exact to second order, which has its maximum at H⁻¹ v: one step of iteratively reweighted least squares, taken in each
pass (Lange 1995, "A gradient algorithm locally equivalent to the EM algorithm").

A whole step may be too long.  As the variance changes by no more than a factor e^m where η moves by m, a share
s of a step Δ along which no row's η moves by more than M gains at least Δᵀ H Δ (s - (e^{Ms} - 1 - Ms) / M²), which is
largest, and positive, for s = log(1 + M) / M (Bach 2010, "Self-concordant analysis for logistic regression").  M is
known from the columns' extremes, so that the likelihood never falls; near the optimum s is 1.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np

from dask_em import store
from dask_em.distributions.base import components_have, possible_counts
from dask_em.distributions.named import check_column, position
from dask_em.distributions.regression import Regression
from dask_em.distributions.sizes import Size
from dask_em.errors import ConfigurationError
from dask_em.sums import Sums

_START_STEPS = 10  # of Newton's method on the rows of a start
_SETTLED = 1e-4  # nats, nearly: a component's total variance of the response, below which no more can be gained
_ENDLESS = 15.0  # change of η along one standard deviation of a predictor that is as good as infinite
_START_BLUR = 0.01  # share of a start's responsibilities that is spread over all components


@store.register
@dataclass(frozen=True)
class GeneralizedRegressionParams:
    """Coefficients (K, p) and intercepts (K,) of the linear predictor."""

    coef: np.ndarray
    intercept: np.ndarray


@store.register
@dataclass(frozen=True)
class GeneralizedRegressionSums(Sums):
    """Sums of r (K,), r θ (K, q), H (K, q, q), v (K, q), and the expansions' constants (K,)."""

    counts: np.ndarray
    origin: np.ndarray
    information: np.ndarray
    right: np.ndarray
    base: np.ndarray


@dataclass(frozen=True)
class GeneralizedRegression(Regression):
    """Base of regressions with a canonical link: subclasses say what the response's family is.

    Parameters
    ----------
    response, fit_intercept, ridge, names, pivot, variance
        As in `Regression`.
    extremes : ndarray of shape (2, n_features), optional
        The columns' least and largest values; set by a fit.
    """

    extremes: np.ndarray | None = field(default=None, kw_only=True, compare=False, repr=False)

    size: ClassVar[Size]  # of the hyperparameter that names a column of sizes

    # ---- the family

    @abstractmethod
    def mean(self, eta: np.ndarray) -> np.ndarray:
        """Means of the response of size one."""

    @abstractmethod
    def spread(self, mean: np.ndarray) -> np.ndarray:
        """Variances of the response of size one, given its means."""

    @abstractmethod
    def mean_spread(self, middle: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """The mean of the variances of the response, where η is normal with this mean and variance."""

    @abstractmethod
    def quantiles(self, mean: np.ndarray, size: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Responses of such means and sizes below which shares u are."""

    @abstractmethod
    def log_likelihood(self, y: np.ndarray, eta: np.ndarray, size: np.ndarray) -> np.ndarray:
        """Log densities (n, K) of responses (n, 1) of sizes (n, 1)."""

    def begin(self, mean_size: float) -> float:
        """η to begin at, where the average row has this size."""
        return 0.0

    # ---- sizes

    @property
    def size_column(self) -> str | int | None:
        """The column of sizes; None: each row has size one."""
        column: str | int | None = getattr(self, self.size.role)
        return column

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size_column is not None:
            check_column(self.size.role, self.size_column)
            if self.size_column == self.response:
                raise ConfigurationError(f"{self.size.role}={self.response!r} is the response: name another column")

    @property
    def n_others(self) -> int:
        """The response, and the sizes if there are any."""
        return 1 if self.size_column is None else 2

    def others(self, n_features: int | None) -> list[int]:
        """Where these are."""
        return super().others(n_features) + ([] if self.size_column is None else [self.size_at(n_features)])

    def size_at(self, n_features: int | None) -> int:
        """Where the sizes are."""
        assert self.size_column is not None  # is asked before
        return position(type(self).__name__, self.size.role, self.size_column, self.names, n_features)

    def sizes(self, x: np.ndarray) -> np.ndarray:
        """(n, 1) of the rows."""
        if self.size_column is None:
            return np.ones((len(x), 1))
        return self.size.of(type(self).__name__, x, self.size_at(x.shape[1]))[:, None]

    def mean_size(self, n_features: int) -> float:
        """Of a row on average, as far as it is known."""
        return 1.0 if self.size_column is None or self.pivot is None else float(self.pivot[self.size_at(n_features)])

    @property
    def discrete(self) -> bool:
        """Responses are; predictors may be."""
        return True

    # ---- rows

    def within(self, low: np.ndarray, high: np.ndarray) -> Self:
        """The same distribution, told the columns' extremes."""
        return replace(super().within(low, high), extremes=np.array([low, high], dtype=np.float64))

    def log_density(self, params: GeneralizedRegressionParams, x: np.ndarray) -> np.ndarray:
        """(n_rows, K) log densities of the responses."""
        y, a = self.split(x)
        eta = a @ self.theta(params.coef, params.intercept).T
        return self.of_observed(x, self.log_likelihood(y[:, None], eta, self.sizes(x)))

    def response_means(self, params: GeneralizedRegressionParams, x: np.ndarray) -> np.ndarray:
        """The link's inverse of η, times the rows' sizes."""
        return self.sizes(x) * self.mean(self.split(x)[1] @ self.theta(params.coef, params.intercept).T)

    def response_quantiles(
        self, params: GeneralizedRegressionParams, x: np.ndarray, labels: np.ndarray, u: np.ndarray
    ) -> np.ndarray:
        """Of the counts' distributions."""
        mean = self.response_means(params, x)[np.arange(len(x)), labels]
        return self.quantiles(mean, np.broadcast_to(self.sizes(x)[:, 0], mean.shape), u)

    def statistics(self, x: np.ndarray, resp: np.ndarray) -> GeneralizedRegressionSums:
        """The expansion about a constant η; resp: (n_rows, K), the rows' weights already in."""
        theta = np.zeros((resp.shape[1], self.n_coefficients(x.shape[1])))
        if self.fit_intercept:
            theta[:, 0] = self.begin(self.mean_size(x.shape[1]))
        return self._sums(theta, x, resp)

    def expected_statistics(
        self, params: GeneralizedRegressionParams, x: np.ndarray, resp: np.ndarray
    ) -> GeneralizedRegressionSums:
        """The expansion about the parameters."""
        return self._sums(self.theta(params.coef, params.intercept), x, resp)

    def _sums(self, theta: np.ndarray, x: np.ndarray, resp: np.ndarray) -> GeneralizedRegressionSums:
        x, resp = self.without_missing(x, resp)
        y, a = self.split(x)
        eta, size = a @ theta.T, self.sizes(x)  # (n, K), (n, 1)
        one = self.mean(eta)
        mean, w = size * one, size * self.spread(one)
        counts = resp.sum(axis=0)
        information = np.array([(a * u[:, None]).T @ a for u in (resp * w).T])
        right = (resp * (w * eta + y[:, None] - mean)).T @ a
        own = (resp * self.log_likelihood(y[:, None], eta, size)).sum(axis=0)
        return GeneralizedRegressionSums(
            counts, counts[:, None] * theta, information, right, own - _expansion(theta, information, right)
        )

    # ---- estimates

    def estimate(self, stats: GeneralizedRegressionSums) -> GeneralizedRegressionParams:
        """A step of Newton's method, no longer than is safe; a component without rows takes that of all.

        Raises
        ------
        DegenerateError
            Predictors are linearly dependent, or no rows have such sums.
        """
        counts = possible_counts(stats.counts)
        void = counts <= 0
        counts = np.where(void, counts.sum(), counts)
        origin, right, information = (
            np.where(void.reshape(-1, *[1] * (s.ndim - 1)), s.sum(axis=0), s)
            for s in (stats.origin, stats.right, stats.information)
        )
        d = origin.shape[1] - int(self.fit_intercept) + self.n_others
        extra = np.diag(self.penalty(d))
        theta = origin / counts[:, None]
        # where responses are all but certain, the coefficients go to infinity for next to nothing
        moving = (np.einsum("kqq->kq", information) / self.squares(d)).mean(axis=1) > _SETTLED
        for k in np.flatnonzero(moving | (self.ridge > 0)):
            step = self.solved(information[k] + extra, right[k], int(k)) - theta[k]
            theta[k] += self._safe(step, d) * step
        return GeneralizedRegressionParams(*self.coefficients(theta))

    def _safe(self, step: np.ndarray, n_features: int) -> float:
        """Share of a step (q,) that cannot lower the likelihood, of rows within the extremes."""
        if self.extremes is None:
            return 1.0
        sides = np.delete(self.extremes, self.others(n_features), axis=1)
        if self.fit_intercept:
            sides = np.column_stack([np.ones(2), sides - self._center(n_features)])
        moved = sides * step  # (2, q)
        most = max(moved.max(axis=0).sum(), -moved.min(axis=0).sum())
        return float(np.log1p(most) / most) if most > 0 else 1.0

    def from_labels(
        self, x: np.ndarray, weight: np.ndarray, labels: np.ndarray, n_components: int
    ) -> GeneralizedRegressionParams:
        """Some steps of Newton's method on rows that are nearly certain of their component."""
        resp = np.full((len(x), n_components), _START_BLUR / n_components)
        resp[np.arange(len(x)), labels] += 1 - _START_BLUR
        resp *= weight[:, None]
        params = self.estimate(self.statistics(x, resp))
        for _ in range(_START_STEPS):
            params = self.estimate(self.expected_statistics(params, x, resp))
        return params

    @property
    def exact(self) -> bool:
        """A step of Newton's method is no maximum."""
        return False

    def expected_loglik(self, params: GeneralizedRegressionParams, stats: GeneralizedRegressionSums) -> float:
        """The expansions at the parameters: exact, with their slope, where the sums were taken."""
        theta = self.theta(params.coef, params.intercept)
        return float((stats.base + _expansion(theta, stats.information, stats.right)).sum())

    def log_prior(self, params: GeneralizedRegressionParams) -> float:
        """-½ ridge Σ v_j β_j²."""
        d = self.n_columns(params.coef)
        return float(-0.5 * self.ridge * (params.coef**2 @ self.units(d)).sum())

    # ---- vectors

    def to_vector(self, params: GeneralizedRegressionParams) -> np.ndarray:
        """Coefficients about the pivot."""
        vector: np.ndarray = self.theta(params.coef, params.intercept).ravel()
        return vector

    def from_vector(self, vector: np.ndarray, n_components: int) -> GeneralizedRegressionParams:
        """Inverse of `to_vector`."""
        return GeneralizedRegressionParams(*self.coefficients(vector.reshape(n_components, -1)))

    def vector_scale(self, params: GeneralizedRegressionParams, weights: np.ndarray) -> np.ndarray:
        """√(π w) times the predictors' sizes, as if they were normal and uncorrelated."""
        d = self.n_columns(params.coef)
        middle = params.intercept + params.coef @ self.means(d)
        w = self.mean_size(d) * self.mean_spread(middle, params.coef**2 @ self.units(d))
        scale: np.ndarray = np.sqrt((weights * w)[:, None] * self.squares(d)).ravel()
        return scale

    # ---- after the fit

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """The coefficients."""
        return n_components * self.n_coefficients(n_features)

    def nbytes(self, n_components: int, n_features: int) -> int:
        """Bytes of the sums."""
        return 8 * n_components * (n_features + 2) ** 2

    def degeneracies(self, params: GeneralizedRegressionParams) -> list[str]:
        """Components whose coefficients are on their way to infinity."""
        steep = np.abs(params.coef) * np.sqrt(self.units(self.n_columns(params.coef)))
        endless = np.flatnonzero((steep > _ENDLESS).any(axis=1))
        if not len(endless):
            return []
        name = type(self).__name__
        return [f"{components_have(endless)} coefficients that grow without bound: give {name} a ridge to hold them"]


def _expansion(theta: np.ndarray, information: np.ndarray, right: np.ndarray) -> np.ndarray:
    """vᵀ θ - ½ θᵀ H θ, (K,)."""
    value: np.ndarray = np.einsum("kq,kq->k", theta, right - 0.5 * np.einsum("kij,kj->ki", information, theta))
    return value


def response_mask(x: np.ndarray, wrong: Any, column: int) -> np.ndarray:
    """(n, d) mask of wrong responses, for `refuse`."""
    mask = np.zeros(x.shape, dtype=bool)
    mask[:, column] = wrong
    return mask
