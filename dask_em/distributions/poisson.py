"""Counts: independent Poisson columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from dask_em import store
from dask_em.distributions.base import real_numbers
from dask_em.distributions.columns import Columns, exp_or_zero, finite_log
from dask_em.errors import ConfigurationError


@store.register
@dataclass(frozen=True)
class PoissonParams:
    """Rates (K, d): expected counts."""

    rates: np.ndarray


@store.register
@dataclass(frozen=True)
class Poisson(Columns):
    """Counts, each column of each component with a rate of its own: p(x) = λˣ e⁻λ / x!.

    Missing values (NaN) are taken as missing at random.

    Parameters
    ----------
    prior : (shape, rate), optional
        Of a gamma prior on every rate, whose mode is then found in place of maximum likelihood: as if `rate`
        more rows had been seen with `shape` - 1 counts in all.  Default: none.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> counts = np.random.default_rng(0).poisson(np.repeat([1.0, 20.0], 500))[:, None]
    >>> mix = em.Mixture(2, em.Poisson(), random_state=0).fit(counts)
    >>> np.sort(mix.rates_.ravel()).round().tolist()
    [1.0, 20.0]
    """

    prior: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.prior is not None and not (real_numbers(self.prior, 2) and self.prior[0] >= 1 and self.prior[1] >= 0):
            raise ConfigurationError(
                f"prior={self.prior!r} must be a shape of at least 1 and a rate that is not negative"
            )

    @property
    def discrete(self) -> bool:
        """Counts repeat."""
        return True

    def natural(self, params: PoissonParams) -> tuple[np.ndarray, np.ndarray]:
        """log λ, and λ."""
        return finite_log(params.rates), params.rates

    def from_means(self, means: np.ndarray) -> PoissonParams:
        """The mean count is the rate."""
        return PoissonParams(means)

    def log_base(self, x: np.ndarray) -> np.ndarray:
        """-log x!."""
        base: np.ndarray = -gammaln(x + 1.0)
        return base

    def pseudo(self) -> tuple[float, float]:
        """Rows and counts that the gamma prior stands for."""
        return (0.0, 0.0) if self.prior is None else (self.prior[1], self.prior[0] - 1)

    def refused(self, x: np.ndarray) -> tuple[np.ndarray, str]:
        """Counts are whole and not negative."""
        return (x < 0) | (np.floor(x) < x), "a whole number that is not negative"

    def embedded(self, x: np.ndarray) -> np.ndarray:
        """Square roots, whose variances do not depend on the rates."""
        roots: np.ndarray = np.sqrt(super().embedded(x))
        return roots

    def to_vector(self, params: PoissonParams) -> np.ndarray:
        """Log rates."""
        return finite_log(params.rates).ravel()

    def from_vector(self, vector: np.ndarray, n_components: int) -> PoissonParams:
        """Inverse of `to_vector`."""
        return PoissonParams(exp_or_zero(vector).reshape(n_components, -1))

    def vector_scale(self, params: PoissonParams, weights: np.ndarray) -> np.ndarray:
        """√(π λ)."""
        return np.sqrt(weights[:, None] * params.rates).ravel()

    def sample(self, params: PoissonParams, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, d) counts."""
        return rng.poisson(params.rates[labels]).astype(np.float64)
