"""Waiting times: independent exponential columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dask_em import store
from dask_em.distributions.base import real_numbers
from dask_em.distributions.columns import TINY, Columns
from dask_em.errors import ConfigurationError


@store.register
@dataclass(frozen=True)
class ExponentialParams:
    """Means (K, d), in units of the data; rates are one over them."""

    means: np.ndarray


@store.register
@dataclass(frozen=True)
class Exponential(Columns):
    """Waiting times, each column of each component with a mean of its own: p(x) = e^(-x/m) / m.

    Missing values (NaN) are taken as missing at random.

    Parameters
    ----------
    prior : (shape, scale), optional
        Of an inverse gamma prior on every mean, whose mode (in the rate) is then found: as if `shape` more rows had
        been seen with a total of `scale`.  Default: none.
    """

    prior: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.prior is not None and not (real_numbers(self.prior, 2) and min(self.prior) >= 0):
            raise ConfigurationError(f"prior={self.prior!r} must be a shape and a scale, neither negative")

    def natural(self, params: ExponentialParams) -> tuple[np.ndarray, np.ndarray]:
        """-1/m, and log m."""
        means = np.maximum(params.means, TINY)
        return -1.0 / means, np.log(means)

    def from_means(self, means: np.ndarray) -> ExponentialParams:
        """As they are."""
        return ExponentialParams(means)

    def pseudo(self) -> tuple[float, float]:
        """Rows and total that the prior stands for."""
        return (0.0, 0.0) if self.prior is None else self.prior

    def refused(self, x: np.ndarray) -> tuple[np.ndarray, str]:
        """Times are not negative."""
        return x < 0, "a number that is not negative"

    def embedded(self, x: np.ndarray) -> np.ndarray:
        """Logarithms of one plus the values in units of the column's mean, whose spread does not depend on it."""
        x = super().embedded(x)
        mean = x.mean(axis=0)
        spread: np.ndarray = np.log(0.01 + x / np.where(mean > 0, mean, 1.0))
        return spread

    def to_vector(self, params: ExponentialParams) -> np.ndarray:
        """Log means."""
        return np.log(np.maximum(params.means, TINY)).ravel()

    def from_vector(self, vector: np.ndarray, n_components: int) -> ExponentialParams:
        """Inverse of `to_vector`."""
        return ExponentialParams(np.exp(vector).reshape(n_components, -1))

    def vector_scale(self, params: ExponentialParams, weights: np.ndarray) -> np.ndarray:
        """√π."""
        return np.repeat(np.sqrt(weights), params.means.shape[1])

    def degeneracies(self, params: ExponentialParams) -> list[str]:
        """Components whose times are all zero."""
        zero = np.flatnonzero((params.means <= 0).any(axis=1))
        return [f"component {k} has only zeros in a column: its density is unbounded there" for k in zero]

    def sample(self, params: ExponentialParams, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, d) times."""
        return rng.exponential(params.means[labels])
