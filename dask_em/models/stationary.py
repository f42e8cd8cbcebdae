"""Chains that begin as they go on: shares of states in the long run, and transitions that are estimated with them."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

_DOUBLINGS = 60
_ROUNDING = 1e-14
_ROUNDS = 40  # of the formula, which rests after a few where transitions are many beside starts
_NEWTON = 8
_RESTS = 1e-12
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

    There is no formula (Zucchini, MacDonald and Langrock 2016, section 4.2.5).  With dπ = π dA (I - A + 1π)⁻¹ a maximum
    has A_ij = moves_ij / (λ_i - c_ij), where c_ij = π_i Σ_k (I - A + 1π)⁻¹_jk starts_k / π_k and λ_i is such that rows
    sum to one, which is gone round until it rests; where it does not, log odds are moved along the slope.

    Parameters
    ----------
    starts : ndarray of shape (K,)
    moves : ndarray of shape (K, K)
    begun : ndarray of shape (K, K)
        Where to begin; what is zero stays so.
    """
    settled = _gone_round(starts, moves, begun)
    if settled is not None:
        return settled
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
            slope = np.where(moves > 0, moves / a, 0.0)
        slope += _slope_of_starts(starts, a, shares)
        along = a * (slope - (a * slope).sum(axis=1, keepdims=True))
        return -total / size, -along[free] / size

    begin = np.log(begun[free])
    found = minimize(value, begin, jac=True, method="BFGS", options={"gtol": _FLAT})
    better = np.isfinite(found.fun) and found.fun <= value(begin)[0]
    return at(found.x) if better else begun


def _slope_of_starts(starts: np.ndarray, a: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(K, K) slope of Σ starts log π along transitions whose rows sum to one."""
    told = np.where(starts > 0, starts / np.where(starts > 0, shares, 1.0), 0.0)
    equations = np.eye(len(a)) - a + shares
    try:
        solution = np.linalg.solve(equations, told)
    except np.linalg.LinAlgError:  # not every state leads to every other
        solution = np.linalg.lstsq(equations, told)[0]
    return np.asarray(shares[:, None] * solution)


def _gone_round(starts: np.ndarray, moves: np.ndarray, begun: np.ndarray) -> np.ndarray | None:
    """Transitions at which the formula rests; None: it does not."""
    a, own = begun, moves > 0
    if not own.any(axis=1).all():
        return None
    for _ in range(_ROUNDS):
        with np.errstate(all="ignore"):
            c = np.where(own, _slope_of_starts(starts, a, stationary(a)), -np.inf)
            total = np.max(c + moves, axis=1, keepdims=True)  # below the root, from where Newton's steps rise to it
            for _ in range(_NEWTON):
                each = np.where(own, moves / (total - c), 0.0)
                bend = np.where(own, each / (total - c), 0.0).sum(axis=1, keepdims=True)
                total = total + (each.sum(axis=1, keepdims=True) - 1.0) / bend
            new = np.where(own, moves / (total - c), 0.0)
            new = new / new.sum(axis=1, keepdims=True)
        if not (np.isfinite(new).all() and (new >= 0).all()):
            return None
        moved, a = float(np.abs(new - a).max()), new
        if moved < _RESTS:
            return a
    return None
