"""Amounts: independent gamma columns.

With N = Σ r, T = Σ r x and L = Σ r log x of a column, its likelihood has its maximum where the scale is T / (N a)
and the shape a solves  log a - ψ(a) = log(T / N) - L / N, which Newton's method in 1/a does in a few steps (Minka
2002, "Estimating a gamma distribution").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import gammaln, polygamma, psi

from dask_em import store
from dask_em.distributions.base import Distribution, filled, possible_counts, real_numbers
from dask_em.distributions.columns import observed, refuse
from dask_em.errors import ConfigurationError, DegenerateError
from dask_em.sums import Sums

_STEPS = 50  # of Newton's method, which needs five
_FLAT = 1e-10  # of log(T / N) - L / N: values that rounding alone tells apart


@store.register
@dataclass(frozen=True)
class GammaParams:
    """Shapes (K, d), and scales (K, d) in units of the data; a mean is their product."""

    shapes: np.ndarray
    scales: np.ndarray


@store.register
@dataclass(frozen=True)
class GammaSums(Sums):
    """Expected counts of observed values, their totals, and those of their logarithms, each (K, d)."""

    counts: np.ndarray
    totals: np.ndarray
    logs: np.ndarray


@store.register
@dataclass(frozen=True)
class Gamma(Distribution):
    """Amounts above zero, each column of each component with its shape a and scale s: p(x) ∝ xᵃ⁻¹ e^(-x/s).

    Missing values (NaN) are taken as missing at random.

    Parameters
    ----------
    prior : (rows, mean, geometric_mean), optional
        As if so many more values with these means had been seen in every column: the conjugate prior, whose mode
        (in shape and rate) is then found.  It also keeps a component off values that are all the same.
        Default: none.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> rng = np.random.default_rng(0)
    >>> x = np.concatenate([rng.gamma(2.0, 1.0, 5000), rng.gamma(50.0, 1.0, 5000)])[:, None]
    >>> mix = em.Mixture(2, em.Gamma(), random_state=0).fit(x)
    >>> np.sort(mix.shapes_.ravel()).round().tolist()
    [2.0, 50.0]
    """

    prior: tuple[float, float, float] | None = None

    accepts_nan: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.prior is None:
            return
        if not (real_numbers(self.prior, 3) and self.prior[0] >= 0 and self.prior[1] > self.prior[2] > 0):
            raise ConfigurationError(
                f"prior={self.prior!r} must be a number of rows, a mean and a geometric mean, which is above zero and "
                "below the mean"
            )

    # ---- rows

    def check_rows(self, x: np.ndarray) -> None:
        """Raise `RowError` for what is not above zero."""
        refuse("Gamma", x, x <= 0, "a number above 0")

    def embedded(self, x: np.ndarray) -> np.ndarray:
        """Logarithms, whose spread does not depend on the scale."""
        logs: np.ndarray = np.log(filled(x))
        return logs

    def log_density(self, params: GammaParams, x: np.ndarray) -> np.ndarray:
        """(n_rows, K) log densities of what is observed of each row."""
        x, seen = observed(x, gap=1.0)
        logs, constant = np.log(x), _constant(params)
        joint: np.ndarray = logs @ (params.shapes - 1).T
        if seen is None:
            return joint - x @ (1 / params.scales).T + constant.sum(axis=1)
        return joint - (x * seen) @ (1 / params.scales).T + seen @ constant.T

    # ---- sums and estimates

    def statistics(self, x: np.ndarray, resp: np.ndarray) -> GammaSums:
        """Sums of what is observed; resp: (n_rows, K), the rows' weights already in."""
        x, seen = observed(x, gap=1.0)
        if seen is None:
            counts = np.repeat(resp.sum(axis=0)[:, None], x.shape[1], axis=1)
            return GammaSums(counts, resp.T @ x, resp.T @ np.log(x))
        return GammaSums(resp.T @ seen, resp.T @ (x * seen), resp.T @ np.log(x))

    def estimate(self, stats: GammaSums) -> GammaParams:
        """Maximum-likelihood shapes and scales; a component that has none of a column takes those of all.

        Raises
        ------
        DegenerateError
            A component's values of a column are all the same, or no rows have such sums.
        """
        counts = np.array([possible_counts(column) for column in stats.counts.T]).T
        n, total, log = self._pseudo()
        counts, totals, logs = counts + n, stats.totals + total, stats.logs + log
        void = counts <= 0
        safe = np.where(void, 1.0, counts)
        means = np.where(void, totals.sum(axis=0) / counts.sum(axis=0), totals / safe)
        mean_logs = np.where(void, logs.sum(axis=0) / counts.sum(axis=0), logs / safe)
        with np.errstate(invalid="ignore", divide="ignore"):
            log_means = np.log(means)
            spread = log_means - mean_logs
        flat = ~(spread > _FLAT * (1 + np.abs(log_means)))
        if flat.any():
            k, j = np.argwhere(flat)[0]
            raise DegenerateError(
                f"component {k} has values of column {j} that are all the same, about {means[k, j]:.6g}, and a gamma "
                "density has no maximum there: use fewer components or another start, or give Gamma a prior"
            )
        shapes = shapes_of(spread)
        return GammaParams(shapes, means / shapes)

    def expected_loglik(self, params: GammaParams, stats: GammaSums) -> float:
        """Σ (a - 1) L - T / s - N (a log s + log Γ(a))."""
        own = np.vdot(params.shapes - 1, stats.logs) - np.vdot(1 / params.scales, stats.totals)
        return float(own + np.vdot(_constant(params), stats.counts))

    def _pseudo(self) -> tuple[float, float, float]:
        """Count, total and total logarithm of the values that the prior stands for."""
        if self.prior is None:
            return 0.0, 0.0, 0.0
        rows, mean, geometric = self.prior
        return float(rows), rows * mean, rows * float(np.log(geometric))

    def log_prior(self, params: GammaParams) -> float:
        """The log density of the values that the prior stands for."""
        n, total, logs = self._pseudo()
        own = (params.shapes - 1) * logs - total / params.scales + n * _constant(params)
        return float(own.sum()) if n else 0.0

    # ---- vectors

    def to_vector(self, params: GammaParams) -> np.ndarray:
        """Log means, then log shapes: of which the likelihood's curvature says nothing in common."""
        means = np.log(params.shapes) + np.log(params.scales)
        return np.concatenate([means.ravel(), np.log(params.shapes).ravel()])

    def from_vector(self, vector: np.ndarray, n_components: int) -> GammaParams:
        """Inverse of `to_vector`."""
        means, shapes = vector.reshape(2, n_components, -1)
        return GammaParams(np.exp(shapes), np.exp(means - shapes))

    def vector_scale(self, params: GammaParams, weights: np.ndarray) -> np.ndarray:
        """√(π a), and √(π a² (ψ'(a) - 1/a))."""
        a, w = params.shapes, weights[:, None]
        of_shapes = a**2 * polygamma(1, a) - a
        return np.sqrt(np.concatenate([(w * a).ravel(), (w * np.maximum(of_shapes, 0.0)).ravel()]))

    # ---- after the fit

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """A shape and a scale for each component and column."""
        return 2 * n_components * n_features

    def nbytes(self, n_components: int, n_features: int) -> int:
        """Bytes of the sums."""
        return 24 * n_components * n_features

    def sample(self, params: GammaParams, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, d) amounts; what is too small for a float is the smallest."""
        return np.maximum(rng.gamma(params.shapes[labels], params.scales[labels]), np.finfo(np.float64).tiny)


def _constant(params: GammaParams) -> np.ndarray:
    constant: np.ndarray = -params.shapes * np.log(params.scales) - gammaln(params.shapes)
    return constant


def shapes_of(spread: np.ndarray) -> np.ndarray:
    """Solutions a of  log a - ψ(a) = spread."""
    a = (3 - spread + np.sqrt((spread - 3) ** 2 + 24 * spread)) / (12 * spread)
    for _ in range(_STEPS):
        off = np.log(a) - psi(a) - spread
        new = 1 / (1 / a + off / (a**2 * (1 / a - polygamma(1, a))))
        done = np.abs(new - a) <= 1e-14 * a
        a = new
        if done.all():
            break
    return a
