"""Yes or no: independent Bernoulli columns, and so latent classes of binary items."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from scipy.special import betaln, expit

from dask_em import store
from dask_em.distributions.base import real_numbers
from dask_em.distributions.columns import finite_log
from dask_em.distributions.sized_columns import SizedColumns
from dask_em.distributions.sizes import TRIALS, Size
from dask_em.errors import ConfigurationError

_CERTAIN = 500.0  # log odds that stand for never and always


@store.register
@dataclass(frozen=True)
class BernoulliParams:
    """Probabilities (K, d) of a one."""

    probabilities: np.ndarray


@store.register
@dataclass(frozen=True)
class Bernoulli(SizedColumns):
    """Zeros and ones, each column of each component with a probability of its own (latent class analysis).

    With `trials`, counts of ones in so many: binomial.  Missing values (NaN) are taken as missing at random, but those
    of trials.

    Parameters
    ----------
    prior : (ones, zeros), optional
        Of a beta prior on every probability, as numbers of ones and zeros seen before.  Default: none.
    trials : str or int, optional
        Name or position of a column that is no answer, but of how many trials each row's counts of ones are.
        Default: one for every row.
    names, mean_size : optional
        What a fit learns of the columns.

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
    trials: str | int | None = field(default=None, kw_only=True)

    size: ClassVar[Size] = TRIALS

    def __post_init__(self) -> None:
        super().__post_init__()
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

    def log_base_of_size(self, x: np.ndarray, n: np.ndarray) -> np.ndarray:
        """The logarithm of the number of ways in which so many ones can lie among the trials."""
        ways: np.ndarray = -betaln(x + 1, n - x + 1) - np.log1p(n)
        return ways

    def pseudo(self) -> tuple[float, float]:
        """Rows and ones that the beta prior stands for."""
        return (0.0, 0.0) if self.prior is None else (self.prior[0] + self.prior[1], self.prior[0])

    def refused(self, x: np.ndarray) -> tuple[np.ndarray, str]:
        """Nothing but zeros and ones; or whole numbers that are no larger than the trials."""
        if self.trials is None:
            return ~((x == 0) | (x == 1) | np.isnan(x)), "0 or 1"
        j = self._at(x.shape[1])
        return (x < 0) | (x > x[:, [j]]) | (np.floor(x) < x), "a whole number, from 0 to the row's trials"

    def embedded(self, x: np.ndarray) -> np.ndarray:
        """Shares of ones."""
        counts, n = self.split(x)
        return super().embedded(counts if n is None else counts / n)

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
        """√(π p (1 - p) n), n being the average number of trials."""
        p = params.probabilities
        return np.sqrt(self.mean_size * weights[:, None] * p * (1 - p)).ravel()

    def sample(self, params: BernoulliParams, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, d) zeros and ones; of one trial, which has its column."""
        p = params.probabilities[labels]
        return self.joined((rng.random(p.shape) < p).astype(np.float64))
