"""Counts: independent Poisson columns.

With an exposure t the mean is λ t: the count's log density has log λ for its natural parameter, as without, and t λ in
place of λ, so that in the sums a value counts t times where it would count once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from scipy.special import gammaln

from dask_em import store
from dask_em.distributions.base import real_numbers
from dask_em.distributions.columns import exp_or_zero, finite_log
from dask_em.distributions.sized_columns import SizedColumns
from dask_em.distributions.sizes import EXPOSURE, Size
from dask_em.errors import ConfigurationError


@store.register
@dataclass(frozen=True)
class PoissonParams:
    """Rates (K, d): expected counts."""

    rates: np.ndarray


@store.register
@dataclass(frozen=True)
class Poisson(SizedColumns):
    """Counts, each column of each component with a rate of its own: p(x) = (λt)ˣ e^(-λt) / x!, t being the exposure.

    Missing counts (NaN) are taken as missing at random; missing exposures are refused.

    Parameters
    ----------
    prior : (shape, rate), optional
        Of a gamma prior on every rate, whose mode is then found in place of maximum likelihood: as if `rate`
        more rows (or so much more exposure) had been seen with `shape` - 1 counts in all.  Default: none.
    exposure : str or int, optional
        Name or position of a column that is no count, but how long, or of how many, each row's counts were taken:
        days, persons at risk.  It is above zero; rates are for a unit of it.  Default: one for every row.
    names, mean_size : optional
        What a fit learns of the columns.

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
    exposure: str | int | None = field(default=None, kw_only=True)

    size: ClassVar[Size] = EXPOSURE

    def __post_init__(self) -> None:
        super().__post_init__()
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

    def log_base_of_size(self, x: np.ndarray, n: np.ndarray) -> np.ndarray:
        """x log t - log x!."""
        return x * np.log(n) + self.log_base(x)

    def pseudo(self) -> tuple[float, float]:
        """Rows and counts that the gamma prior stands for."""
        return (0.0, 0.0) if self.prior is None else (self.prior[1], self.prior[0] - 1)

    def refused(self, x: np.ndarray) -> tuple[np.ndarray, str]:
        """Counts are whole and not negative."""
        wrong = (x < 0) | (np.floor(x) < x)
        if self.exposure is not None:
            wrong[:, self._at(x.shape[1])] = False  # which `size` judges
        return wrong, "a whole number that is not negative"

    def embedded(self, x: np.ndarray) -> np.ndarray:
        """Square roots of counts, of one unit of exposure, whose variances do not depend on the rates."""
        counts, t = self.split(x)
        roots: np.ndarray = np.sqrt(super().embedded(counts))
        return roots if t is None else roots / np.sqrt(t)

    def to_vector(self, params: PoissonParams) -> np.ndarray:
        """Log rates."""
        return finite_log(params.rates).ravel()

    def from_vector(self, vector: np.ndarray, n_components: int) -> PoissonParams:
        """Inverse of `to_vector`."""
        return PoissonParams(exp_or_zero(vector).reshape(n_components, -1))

    def vector_scale(self, params: PoissonParams, weights: np.ndarray) -> np.ndarray:
        """√(π λ t), t being the average exposure."""
        return np.sqrt(self.mean_size * weights[:, None] * params.rates).ravel()

    def sample(self, params: PoissonParams, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, d) counts; of a unit of exposure, which has its column."""
        return self.joined(rng.poisson(params.rates[labels]).astype(np.float64))
