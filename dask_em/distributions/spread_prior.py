"""Priors of variances: as if rows had been seen about the mean of every component, with variances that are given.

That is an inverse Wishart distribution of a covariance matrix Σ, and inverse gamma ones of single variances, by their
modes: with ν rows of variances Λ (diagonal), log p(Σ) = -ν/2 (log |Σ| + tr ΛΣ⁻¹), and the M-step is
(N S + ν Λ) / (N + ν) where N rows have the covariance S.  Where no variances are given, they are those of all rows over
K^(2/d), as if K components shared the volume of the data (Fraley and Raftery 2007, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_em.distributions.base import real_numbers
from dask_em.errors import ConfigurationError

Given = float | tuple[float, ...] | None


@dataclass(frozen=True)
class SpreadPrior:
    """Rows ν, and their variances (d,)."""

    rows: float
    variances: np.ndarray

    def blended(self, counts: np.ndarray, variances: np.ndarray) -> np.ndarray:
        """Variances (..., d), of so many rows (...) each, together with those of the prior's rows."""
        n = np.asarray(counts, dtype=np.float64)[..., None]
        blend: np.ndarray = (n * variances + self.rows * self.variances) / (n + self.rows)
        return blend

    def log_density(self, log_variances: np.ndarray, precisions: np.ndarray) -> float:
        """Up to a constant, of matrices with these log variances and precisions of the columns, both (..., d).

        Of a matrix that is not diagonal, the log variances may be any whose sum is the log determinant.
        """
        return -0.5 * self.rows * float(log_variances.sum() + (precisions * self.variances).sum())


def check_spread_prior(given: Any) -> None:
    """Refuse what is no number of rows, alone or with variances."""
    if given is None:
        return
    numbers = tuple(given) if isinstance(given, (tuple, list)) else (given,)
    if numbers and real_numbers(numbers, len(numbers)):
        rows, *variances = numbers
        if 0 <= rows < np.inf and all(0 < v < np.inf for v in variances):
            return
    raise ConfigurationError(
        f"prior={given!r} must be a number of rows that is not negative, as 5, or that and their variances, in squared "
        "units of the data: (5, 0.1), or for two columns (5, 0.1, 2.0)"
    )


def spread_prior(given: Given, n_components: int, d: int, variance: np.ndarray | None) -> SpreadPrior | None:
    """The prior of so many components, given the variances of all rows (d,)."""
    if given is None or given == 0:
        return None
    if isinstance(given, (tuple, list)):
        rows, *own = given
        if len(own) > 1 and len(own) != d:
            raise ConfigurationError(f"prior={given!r} has {len(own)} variances, and the data has {d} columns")
        if own:
            return SpreadPrior(float(rows), np.broadcast_to(np.asarray(own, dtype=np.float64), (d,)))
        given = rows
    if variance is None:
        raise ConfigurationError(
            f"prior={given!r} takes its variances from the data, and none was seen: call in_units_of with the "
            f"variances of the columns first, or give them, as ({given!r}, 0.1)"
        )
    return SpreadPrior(float(given), variance * n_components ** (-2 / d))
