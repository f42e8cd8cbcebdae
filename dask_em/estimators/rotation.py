"""Rotations of factors: the likelihood is the same for all of them, so that a convention chooses."""

from __future__ import annotations

import numpy as np

_STEPS = 1000
_SETTLED = 1e-10  # relative gain of the criterion, below which a rotation is taken as it is


def principal(loadings: np.ndarray, psi: np.ndarray) -> np.ndarray:
    """Loadings (d, q) rotated so that Λᵀ Ψ⁻¹ Λ is diagonal and falls; each factor's loadings have a positive sum.

    The constraint of maximum likelihood factor analysis (Lawley and Maxwell 1971).
    """
    _, rotation = np.linalg.eigh(loadings.T @ (loadings / psi[:, None]))
    return _signed(loadings @ rotation[:, ::-1])


def varimax(loadings: np.ndarray, communalities: np.ndarray) -> np.ndarray:
    """The rotation (q, q) under which squared loadings vary most within factors (Kaiser 1958).

    Rows are brought to length one first, so that columns of small communality count as much as others (Kaiser's
    normalisation, as in R's `varimax`).

    Parameters
    ----------
    loadings : ndarray of shape (d, q)
        On the scale of correlations.
    communalities : ndarray of shape (d,)
        Squared lengths of their rows.
    """
    q = loadings.shape[1]
    rotation = np.eye(q)
    if q < 2:
        return rotation
    a = loadings / np.sqrt(np.maximum(communalities, np.finfo(np.float64).tiny))[:, None]
    reached = 0.0
    for _ in range(_STEPS):
        b = a @ rotation
        slope = a.T @ (b**3 - b * (b**2).mean(axis=0))
        u, s, v = np.linalg.svd(slope)
        rotation, before, reached = u @ v, reached, float(s.sum())
        if reached <= before * (1 + _SETTLED):
            break
    return rotation


def ordered(loadings: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Loadings (d, q), factors by falling sums of squares of `by` (d, q), each with a positive sum."""
    return _signed(loadings[:, np.argsort(-(by**2).sum(axis=0), kind="stable")])


def _signed(loadings: np.ndarray) -> np.ndarray:
    signed: np.ndarray = loadings * np.where(loadings.sum(axis=0) < 0, -1.0, 1.0)
    return signed
