"""Yes or no: independent Bernoulli columns, and so latent classes of binary items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from dask_em import store
from dask_em.distributions.base import real_numbers
from dask_em.distributions.columns import Columns, finite_log
from dask_em.errors import ConfigurationError

_CERTAIN = 500.0  # log odds that stand for never and always


@store.register
@dataclass(frozen=True)
class BernoulliParams:
    """Probabilities (K, d) of a one."""

    probabilities: np.ndarray


@store.register
@dataclass(frozen=True)
class Bernoulli(Columns):
    """Zeros and ones, each column of each component with a probability of its own (latent class analysis).

    Missing values (NaN) are taken as missing at random.

    Parameters
    ----------
    prior : (ones, zeros), optional
        Of a beta prior on every probability, as numbers of ones and zeros seen before.  Default: none.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> rng = np.random.default_rng(0)
    >>> x = rng.random((1000, 4)) < np.repeat([[0.1], [0.9]], 500, axis=0)
    >>> mix = em.Mixture(2, em.Bernoulli(), random_state=0).fit(x)
    >>> np.sort(mix.probabilities_[:, 0]).round(1).tolist(), mix.n_passes_
    ([0.1, 0.9], 1)
    """

    prior: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.prior is not None and not (real_numbers(self.prior, 2) and min(self.prior) >= 0):
            raise ConfigurationError(f"prior={self.prior!r} must be two numbers that are not negative: ones, zeros")

    @property
    def discrete(self) -> bool:
        """Rows of zeros and ones repeat."""
        return True

    def natural(self, params: BernoulliParams) -> tuple[np.ndarray, np.ndarray]:
        """Log odds, and -log(1 - p)."""
        no = finite_log(1 - params.probabilities)
        return finite_log(params.probabilities) - no, -no

    def from_means(self, means: np.ndarray) -> BernoulliParams:
        """Shares of ones."""
        return BernoulliParams(np.clip(means, 0.0, 1.0))

    def pseudo(self) -> tuple[float, float]:
        """Rows and ones that the beta prior stands for."""
        return (0.0, 0.0) if self.prior is None else (self.prior[0] + self.prior[1], self.prior[0])

    def refused(self, x: np.ndarray) -> tuple[np.ndarray, str]:
        """Nothing but zeros and ones."""
        return ~((x == 0) | (x == 1) | np.isnan(x)), "0 or 1"

    def to_vector(self, params: BernoulliParams) -> np.ndarray:
        """Log odds."""
        with np.errstate(divide="ignore"):
            odds = np.log(params.probabilities) - np.log1p(-params.probabilities)
        return np.clip(odds, -_CERTAIN, _CERTAIN).ravel()

    def from_vector(self, vector: np.ndarray, n_components: int) -> BernoulliParams:
        """Inverse of `to_vector`."""
        p = np.where(vector <= 1 - _CERTAIN, 0.0, expit(vector))
        return BernoulliParams(p.reshape(n_components, -1))

    def vector_scale(self, params: BernoulliParams, weights: np.ndarray) -> np.ndarray:
        """√(π p (1 - p))."""
        p = params.probabilities
        return np.sqrt(weights[:, None] * p * (1 - p)).ravel()

    def sample(self, params: BernoulliParams, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, d) zeros and ones."""
        p = params.probabilities[labels]
        return (rng.random(p.shape) < p).astype(np.float64)
