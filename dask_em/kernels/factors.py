"""Where factor analysis begins: loadings and noise variances from a covariance matrix."""

from __future__ import annotations

import numpy as np

_FIRST_PSI = 0.1  # of a start, at least, as a share of the column's variance: near zero EM hardly moves
_FIRST_SIGNAL = 0.01  # of a factor, at least, over noise: there is no slope away from zero


def first_factors(covariance: np.ndarray, n_factors: int) -> tuple[np.ndarray, np.ndarray]:
    """Loadings (d, q) and noise variances (d,) to begin from.

    Uniquenesses are from the multiple correlations, and the loadings those that are best for them (Joereskog 1967).

    Parameters
    ----------
    covariance : ndarray of shape (d, d)
        It may be singular, but its diagonal is positive.
    n_factors : int
    """
    d, q = len(covariance), n_factors
    sd = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(sd, sd) + 1e-6 * np.eye(d)
    psi = np.clip((1 - q / (2 * d)) / np.diag(np.linalg.inv(correlation)), _FIRST_PSI, 1.0)
    values, vectors = np.linalg.eigh(correlation / np.sqrt(np.outer(psi, psi)))
    values, vectors = values[::-1][:q], vectors[:, ::-1][:, :q]
    loadings = np.sqrt(psi)[:, None] * vectors * np.sqrt(np.maximum(values - 1, _FIRST_SIGNAL))
    return sd[:, None] * loadings, sd**2 * psi
