"""The least variance that Gaussian components may have, which keeps them from collapsing."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from dask_em.distributions.gaussian_factors import precisions_cholesky
from dask_em.errors import ConfigurationError, DegenerateError

LEAST = 1e-6  # by default, and
_SHARE = 1e-6  # of the variance of a column at most: components are told apart in any unit
_ROUNDINGS = 64 * float(np.finfo(np.float64).eps)


def check_reg_covar(given: Any) -> None:
    """Refuse what is no variance; None: the default."""
    if given is None:
        return
    number = isinstance(given, (int, float, np.number)) and not isinstance(given, bool)
    if not (number and np.isfinite(given) and given >= 0):
        raise ConfigurationError(f"reg_covar={given!r} must be a number that is not negative")


def constant(variance: np.ndarray, center: np.ndarray) -> np.ndarray:
    """(d,) bool: which columns have a variance over all rows that is rounding of their mean."""
    return np.asarray(variance <= (_ROUNDINGS * center) ** 2)


def least_variances(given: float | None, variance: np.ndarray | None, center: np.ndarray) -> np.ndarray:
    """(d,) least variances of columns, whose variances over all rows may be known, and means; zero: none.

    Examples
    --------
    >>> least_variances(None, np.array([4.0, 0.01, 0.0]), np.ones(3)).tolist()
    [1e-06, 1e-08, 1e-06]
    >>> least_variances(0.5, None, np.zeros(2)).tolist()
    [0.5, 0.5]
    """
    if given is not None:
        return np.full(len(center), float(given))
    if variance is None:
        return np.full(len(center), LEAST)
    return np.where(constant(variance, center), LEAST, np.minimum(LEAST, _SHARE * variance))


def bounded(
    covariances: np.ndarray, covariance_type: str, least: np.ndarray, factors: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Covariances, and their factors U as `GaussianParams` holds them, variances below the least raised to it.

    They are raised in all directions, in units of the least.  That makes the most likely covariances within the bound,
    whatever the sums and a prior: along the axes of S the likelihood falls apart into one of each variance, which rises
    up to that of S and falls beyond.

    Parameters
    ----------
    covariances : ndarray
    covariance_type : {"full", "tied", "diag", "spherical"}
    least : ndarray of shape (d,)
        Their mean bounds spherical ones.
    factors : ndarray, optional
        Of the covariances as they are, where they are known.

    Raises
    ------
    DegenerateError
        There is no density.
    """
    if covariance_type in ("full", "tied") and least.any():
        return _raised(covariances, covariance_type, least, factors)
    if least.any():
        covariances = np.maximum(covariances, least if covariance_type == "diag" else least.mean())
    return covariances, precisions_cholesky(covariances, covariance_type) if factors is None else factors


def _raised(
    covariances: np.ndarray, covariance_type: str, least: np.ndarray, factors: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    if factors is None:
        with suppress(DegenerateError):  # there are none yet: variances may be zero
            factors = precisions_cholesky(covariances, covariance_type)
    if not np.isfinite(covariances).all():  # without factors: says which
        return covariances, precisions_cholesky(covariances, covariance_type) if factors is None else factors
    if factors is not None and not ((factors**2).sum(axis=-1) @ least > 1).any():  # no precision is larger
        return covariances, factors
    units = np.sqrt(np.outer(least, least))
    values, vectors = np.linalg.eigh(covariances / units)
    low = values[..., 0] < 1 - 1e-9
    if factors is not None and not low.any():
        return covariances, factors
    wide = (vectors * np.maximum(values, 1.0)[..., None, :]) @ np.swapaxes(vectors, -1, -2) * units
    covariances = np.where(low[..., None, None], wide, covariances)
    return covariances, precisions_cholesky(covariances, covariance_type)
