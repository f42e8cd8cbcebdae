"""Linear regressions, for mixtures of them (DeSarbo and Cron 1988; McLachlan and Peel 2000, section 5.10).

    y | z, k ~ N(β₀_k + β_kᵀ z, σ_k²)

With a = (1, z - z₀, y - y₀), all that is needed of the rows are a component's sums  S = Σ r a aᵀ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from dask_em import store
from dask_em.distributions.base import components_have, possible_counts
from dask_em.distributions.regression import Regression
from dask_em.errors import ConfigurationError, DegenerateError
from dask_em.sums import Sums

_FLAT = 1e-12  # of the response's variance: residuals that are rounding alone
_THIN = 1e-8  # of the response's variance: residuals that hardly are any
_LARGEST_LOG = 300.0  # of a standard deviation on the way from a vector


@store.register
@dataclass(frozen=True)
class LinearRegressionParams:
    """Coefficients (K, d - 1), intercepts (K,), and standard deviations (K,) of the residuals."""

    coef: np.ndarray
    intercept: np.ndarray
    sigma: np.ndarray


@store.register
@dataclass(frozen=True)
class LinearRegressionSums(Sums):
    """Expected counts (K,), and sums (K, q + 1, q + 1) of r a aᵀ, the response last."""

    counts: np.ndarray
    moments: np.ndarray


@store.register
@dataclass(frozen=True)
class LinearRegression(Regression):
    """Linear regressions of one column on all others, one for each component.

    Parameters
    ----------
    response : str or int
        Name or position of the response; all other columns are predictors.
    shared_variance : bool, default False
        Whether the components have the same residual variance.
    fit_intercept : bool, default True
    ridge : float, default 0.0
        As if so many more rows had told that the coefficients are zero: a normal prior, β_j ~ N(0, σ² / (ridge v_j))
        with v_j the predictor's variance, whose mode is found in place of maximum likelihood.
    prior : (rows, sigma), optional
        As if so many more residuals of this size had been seen in every component. It keeps a component from
        passing through a few rows exactly, where the likelihood has no bound.  Default: none.
    names, pivot, variance : optional
        What a fit learns of the columns.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> import dask_em as em
    >>> rng = np.random.default_rng(0)
    >>> gnp = rng.uniform(2, 44, 1000)
    >>> co2 = np.where(np.arange(1000) < 700, 12 - 0.1 * gnp, 1 + 0.7 * gnp) + rng.normal(size=1000)
    >>> frame = pd.DataFrame({"gnp": gnp, "co2": co2})
    >>> mix = em.Mixture(2, em.LinearRegression(response="co2"), random_state=0, verbose=0).fit(frame)
    >>> np.sort(mix.coef_.ravel()).round(1).tolist(), mix.sigma_.round().tolist()
    ([-0.1, 0.7], [1.0, 1.0])
    """

    shared_variance: bool = False
    prior: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prior is not None and not _is_prior(self.prior):
            raise ConfigurationError(
                f"prior={self.prior!r} must be a number of rows that is not negative, and a standard deviation, as in "
                "prior=(2.0, 0.5)"
            )

    def _moved(self, params: LinearRegressionParams) -> np.ndarray:
        """(K, q + 1) vectors u, with which a residual is uᵀ a."""
        theta = self.theta(params.coef, params.intercept)
        if self.fit_intercept:
            theta[:, 0] -= self._response_center(params.coef.shape[1] + 1)
        return np.column_stack([-theta, np.ones(len(theta))])

    def _response_center(self, n_features: int) -> float:
        """y₀; zero without an intercept, which alone can move it."""
        if self.pivot is None or not self.fit_intercept:
            return 0.0
        return float(self.pivot[self.position(n_features)])

    def _rows(self, x: np.ndarray) -> np.ndarray:
        """a (n, q + 1)."""
        y, design = self.split(x)
        return np.column_stack([design, y - self._response_center(x.shape[1])])

    # ---- rows

    def log_density(self, params: LinearRegressionParams, x: np.ndarray) -> np.ndarray:
        """(n_rows, K) log densities of the responses."""
        residuals = self._rows(x) @ self._moved(params).T
        density: np.ndarray = -0.5 * (residuals / params.sigma) ** 2 - np.log(params.sigma) - 0.5 * np.log(2 * np.pi)
        return self.of_observed(x, density)

    def response_means(self, params: LinearRegressionParams, x: np.ndarray) -> np.ndarray:
        """β₀ + βᵀ z."""
        means: np.ndarray = self.split(x)[1] @ self.theta(params.coef, params.intercept).T
        return means

    def response_quantiles(
        self, params: LinearRegressionParams, x: np.ndarray, labels: np.ndarray, u: np.ndarray
    ) -> np.ndarray:
        """Of normal distributions."""
        mean = self.response_means(params, x)[np.arange(len(x)), labels]
        drawn: np.ndarray = mean + params.sigma[labels] * ndtri(u)
        return drawn

    def statistics(self, x: np.ndarray, resp: np.ndarray) -> LinearRegressionSums:
        """Sums of products; resp: (n_rows, K), the rows' weights already in."""
        x, resp = self.without_missing(x, resp)
        a = self._rows(x)
        return LinearRegressionSums(resp.sum(axis=0), np.array([(a * r[:, None]).T @ a for r in resp.T]))

    # ---- estimates

    def estimate(self, stats: LinearRegressionSums) -> LinearRegressionParams:
        """Weighted least squares; a component without rows takes the regression of all.

        Raises
        ------
        DegenerateError
            Predictors are linearly dependent, a component passes through its rows, or no rows have such sums.
        """
        counts = possible_counts(stats.counts)
        void = counts <= 0
        moments = np.where(void[:, None, None], stats.moments.sum(axis=0), stats.moments)
        counts = np.where(void, counts.sum(), counts)
        k, q = len(counts), moments.shape[1] - 1
        d = q + int(not self.fit_intercept)
        extra = np.diag(self.penalty(d))
        theta, left = np.empty((k, q)), np.empty(k)
        for i, s in enumerate(moments):
            theta[i] = self.solved(s[:q, :q] + extra, s[:q, q], i)
            u = np.append(-theta[i], 1.0)
            left[i] = u @ s @ u + theta[i] @ extra @ theta[i]
        rows, size = self._pseudo()
        weight = counts + rows + (d - 1 if self.ridge > 0 else 0)
        total = np.maximum(left, 0.0) + rows * size**2
        if self.shared_variance:
            total, weight = np.full(k, total.sum()), np.full(k, weight.sum())
        variances = total / weight
        self._refuse_flat(variances, float(moments[:, q, q].sum() / counts.sum()))
        return self._params(theta, np.sqrt(variances))

    def _params(self, theta: np.ndarray, sigma: np.ndarray) -> LinearRegressionParams:
        coef, intercept = self.coefficients(theta)
        if self.fit_intercept:
            intercept = intercept + self._response_center(coef.shape[1] + 1)
        return LinearRegressionParams(coef, intercept, sigma)

    def _refuse_flat(self, variances: np.ndarray, scale: float) -> None:
        flat = ~(variances > _FLAT * scale)
        if flat.any():
            raise DegenerateError(
                f"component {int(np.argmax(flat))} passes through its rows exactly, where the likelihood has no bound: "
                "use fewer components, another start, or shared_variance=True, or give LinearRegression a prior"
            )

    def expected_loglik(self, params: LinearRegressionParams, stats: LinearRegressionSums) -> float:
        """-½ Σ_k N log 2πσ² + uᵀ S u / σ²."""
        u = self._moved(params)
        squares = np.einsum("ki,kij,kj->k", u, stats.moments, u)
        return float(-0.5 * (stats.counts @ np.log(2 * np.pi * params.sigma**2) + (squares / params.sigma**2).sum()))

    @property
    def separate(self) -> bool:
        """Whether components share no parameter."""
        return not self.shared_variance

    # ---- prior

    def _pseudo(self) -> tuple[float, float]:
        """Number and size of the residuals that the prior stands for."""
        return (0.0, 1.0) if self.prior is None else self.prior

    def log_prior(self, params: LinearRegressionParams) -> float:
        """The log densities of the coefficients, given σ, and of the prior's residuals."""
        rows, size = self._pseudo()
        squares, n = np.full(len(params.sigma), rows * size**2), rows
        if self.ridge > 0:
            d = params.coef.shape[1] + 1
            squares = squares + self.ridge * (params.coef**2 @ self.units(d))
            n += d - 1
        return float(-0.5 * (n * np.log(2 * np.pi * params.sigma**2) + squares / params.sigma**2).sum())

    # ---- vectors

    def to_vector(self, params: LinearRegressionParams) -> np.ndarray:
        """Coefficients about the pivot, then log standard deviations: one, if it is shared."""
        logs = np.log(params.sigma)
        return np.concatenate([-self._moved(params)[:, :-1].ravel(), logs[:1] if self.shared_variance else logs])

    def from_vector(self, vector: np.ndarray, n_components: int) -> LinearRegressionParams:
        """Inverse of `to_vector`."""
        n = 1 if self.shared_variance else n_components
        sigma = np.exp(np.clip(vector[-n:], -_LARGEST_LOG, _LARGEST_LOG))
        return self._params(vector[:-n].reshape(n_components, -1), np.resize(sigma, n_components))

    def vector_scale(self, params: LinearRegressionParams, weights: np.ndarray) -> np.ndarray:
        """√π / σ times the predictors' sizes, as if they were uncorrelated; √(2 π) of the log standard deviations."""
        squares = self.squares(params.coef.shape[1] + 1)
        own = np.sqrt(weights[:, None] * squares) / params.sigma[:, None]
        logs = np.sqrt(2 * weights)
        return np.concatenate([own.ravel(), [np.sqrt(2.0)] if self.shared_variance else logs])

    # ---- after the fit

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Coefficients and standard deviations."""
        return n_components * self.n_coefficients(n_features) + (1 if self.shared_variance else n_components)

    def nbytes(self, n_components: int, n_features: int) -> int:
        """Bytes of the sums."""
        return 8 * n_components * (n_features + 1) ** 2

    def degeneracies(self, params: LinearRegressionParams) -> list[str]:
        """Components whose residuals have all but vanished."""
        if self.variance is None:
            return []
        scale = self.variance[self.position(params.coef.shape[1] + 1)]
        thin = np.flatnonzero(params.sigma**2 <= _THIN * scale)
        if not len(thin):
            return []
        remedy = "use fewer components, or give LinearRegression a prior, unless the data is so exact"
        return [f"{components_have(thin)} hardly any residuals: {remedy}"]


def _is_prior(given: object) -> bool:
    """Whether it is a pair of numbers, of rows and of the size of their residuals."""
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        return False
    if not all(isinstance(v, (int, float, np.number)) and not isinstance(v, bool) for v in given):
        return False
    return bool(given[0] >= 0 and given[1] > 0 and np.isfinite(given).all())
