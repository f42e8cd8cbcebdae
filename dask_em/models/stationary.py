"""Chains that begin as they go on: shares of states in the long run, and transitions that are estimated with them."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

_DOUBLINGS = 60
_ROUNDING = 1e-14
_FLAT = 1e-9  # of the slope, a unit of transitions, at which a maximum is reached


def stationary(transmat: np.ndarray) -> np.ndarray:
    """(K,) shares of the states in the long run, from all of them alike.

    Where not every state leads to every other, what is left of equal shares after many steps.
    """
    k = len(transmat)
    try:
        shares = np.linalg.solve(np.eye(k) - transmat.T + 1.0, np.ones(k))
    except np.linalg.LinAlgError:
        shares = np.full(k, np.nan)
    if (shares > 0).all() and np.abs(shares @ transmat - shares).max() < _ROUNDING:  # there is only one such
        return np.asarray(shares / shares.sum())
    power = 0.5 * (np.eye(k) + transmat)  # which has no period
    for _ in range(_DOUBLINGS):
        power = power @ power
        power /= power.sum(axis=1, keepdims=True)
    return np.asarray(power.mean(axis=0))


def transitions_of(starts: np.ndarray, moves: np.ndarray, begun: np.ndarray) -> np.ndarray:
    """Transitions (K, K) that maximise Σ starts log π(A) + Σ moves log A, π being the shares in the long run.

    There is no formula (Zucchini, MacDonald and Langrock 2016, section 4.2.5): log odds are moved along the slope, in
    which dπ = π dA (I - A + 1π)⁻¹.

    Parameters
    ----------
    starts : ndarray of shape (K,)
    moves : ndarray of shape (K, K)
    begun : ndarray of shape (K, K)
        Where to begin; what is zero stays so.
    """
    k, free = len(starts), begun > 0
    size = max(float(moves.sum() + starts.sum()), 1e-300)

    def at(vector: np.ndarray) -> np.ndarray:
        logits = np.full((k, k), -np.inf)
        logits[free] = vector
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        found: np.ndarray = shares / shares.sum(axis=1, keepdims=True)
        return found

    def value(vector: np.ndarray) -> tuple[float, np.ndarray]:
        a = at(vector)
        shares = stationary(a)
        with np.errstate(divide="ignore", invalid="ignore"):
            total = np.where(starts > 0, starts * np.log(shares), 0.0).sum()
            total += np.where(moves > 0, moves * np.log(a), 0.0).sum()
            told = np.where(starts > 0, starts / shares, 0.0)
            slope = np.where(moves > 0, moves / a, 0.0)
        slope += shares[:, None] * np.linalg.lstsq(np.eye(k) - a + shares, told)[0]
        along = a * (slope - (a * slope).sum(axis=1, keepdims=True))
        return -total / size, -along[free] / size

    begin = np.log(begun[free])
    found = minimize(value, begin, jac=True, method="BFGS", options={"gtol": _FLAT})
    better = np.isfinite(found.fun) and found.fun <= value(begin)[0]
    return at(found.x) if better else begun
