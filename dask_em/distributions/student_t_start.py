"""Where Student-t components begin, given rows in clusters, of which some may be outliers.

Medians, and median absolute deviations times 1.4826, which are a Gaussian's standard deviations, say how far a
row is from its cluster (Huber and Ronchetti 2009, section 1.1); one M-step of the cluster alone with the weights that
follow finds its location and scatter.
"""

from __future__ import annotations

import numpy as np

_NORMAL = 1.4826
_SHRUNK = 10.0  # rows with the spread of all that are added to each cluster, which may have fewer than columns


def from_clusters(
    x: np.ndarray, weight: np.ndarray, labels: np.ndarray, n_components: int, df: float
) -> tuple[np.ndarray, np.ndarray]:
    """Locations (K, d) and scatters (K, d, d) of clusters of rows (n, d) without holes."""
    d = x.shape[1]
    center, spread = _median_and_spread(x, weight)
    overall = np.diag(spread**2)
    locations, scatters = np.empty((n_components, d)), np.empty((n_components, d, d))
    for k in range(n_components):
        own = (labels == k) & (weight > 0)
        locations[k], scatters[k] = center, overall
        if own.any():
            rows, w = x[own], weight[own]
            middle, narrow = _median_and_spread(rows, w)
            u = (df + d) / (df + (((rows - middle) / np.where(narrow > 0, narrow, spread)) ** 2).sum(axis=1))
            locations[k] = (w * u) @ rows / (w @ u)
            z = rows - locations[k]
            scatters[k] = ((z * (w * u)[:, None]).T @ z + _SHRUNK * overall) / (w.sum() + _SHRUNK)
    return locations, scatters


def _median_and_spread(x: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each column; where more than half of the values are one, the standard deviation about it; 0 if all are."""
    middle = _medians(x, weight)
    apart = np.abs(x - middle)
    spread = _NORMAL * _medians(apart, weight)
    return middle, np.where(spread > 0, spread, np.sqrt(weight @ apart**2 / weight.sum()))


def _medians(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(d,) weighted medians."""
    order = np.argsort(x, axis=0)
    mass = np.cumsum(weight[order], axis=0)
    at = (mass < mass[-1] / 2).sum(axis=0)
    medians: np.ndarray = np.take_along_axis(x, np.take_along_axis(order, at[None], axis=0), axis=0)[0]
    return medians
