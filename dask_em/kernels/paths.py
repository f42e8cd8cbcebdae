"""Most probable paths of hidden Markov chains, and what a whole block does to its ends, in compiled loops."""

from __future__ import annotations

import numpy as np

from dask_em.kernels.chains import log_sum
from dask_em.kernels.simd import compiled, inlined

_EVERY = 8  # rows between looks whether chains are one
_AGREE = 1e-11  # nats


@compiled
def best_paths(logb, edges, before, loga, after, states, back, work):  # type: ignore[no-untyped-def]
    """The most probable states of each run (Viterbi 1967).

    Parameters
    ----------
    logb : ndarray of shape (n, K)
        Log densities of the rows under each state.
    edges : ndarray of shape (m + 1,)
        Run s is rows edges[s] to edges[s + 1], one at least.
    before : ndarray of shape (K,)
        Of the first row's states, before it is seen; a logarithm, as are the following.
    loga : ndarray of shape (K, K)
    after : ndarray of shape (K,)
        Of what follows, by the last row's state.
    states : ndarray of shape (n,)
        Filled; the first of equals.
    back : ndarray of shape (n, K) of int16
        To work in, as is
    work : ndarray of shape (2, K)
    """
    k = before.shape[0]
    best, moved = work[0], work[1]
    for s in range(len(edges) - 1):
        low, high = edges[s], edges[s + 1]
        for j in range(k):
            best[j] = before[j] + logb[low, j]
        for t in range(low + 1, high):
            for j in range(k):
                most, which = best[0] + loga[0, j], 0
                for i in range(1, k):
                    value = best[i] + loga[i, j]
                    if value > most:
                        most, which = value, i
                moved[j] = most + logb[t, j]
                back[t, j] = which
            most = moved[0]
            for j in range(1, k):
                most = max(most, moved[j])
            for j in range(k):  # numbers that stay small lose no digits
                best[j] = moved[j] - most if most > -np.inf else moved[j]
        most, which = best[0] + after[0], 0
        for j in range(1, k):
            if best[j] + after[j] > most:
                most, which = best[j] + after[j], j
        for t in range(high - 1, low - 1, -1):
            states[t] = which
            if t > low:
                which = back[t, which]


@inlined
def offset(out, s, r, tolerance):  # type: ignore[no-untyped-def]
    """By how much row s of a matrix of logarithms is above row r, everywhere; NaN: not by the same."""
    k, found = out.shape[0], -np.inf
    for j in range(k):
        x, y = out[s, j], out[r, j]
        if x == -np.inf and y == -np.inf:
            continue
        if x == -np.inf or y == -np.inf:
            return np.nan
        if found == -np.inf:
            found = x - y
        elif not abs(x - y - found) <= tolerance:
            return np.nan
    return found


@compiled
def operator(logb, loga, maximum, out, moved, terms):  # type: ignore[no-untyped-def]
    """What a run of rows does: logarithms of its likelihood by the states of its first and its last row.

    Once the chains from all first states are one, but for a constant each, a single one is followed.

    Parameters
    ----------
    logb : ndarray of shape (n, K)
    loga : ndarray of shape (K, K)
    maximum : bool
        Of the best path alone; else of all of them.
    out : ndarray of shape (K, K)
        Filled: first state, last state; up to a constant.
    moved : ndarray of shape (K, K)
        To work in, as is
    terms : ndarray of shape (2, K)
    """
    n, k = logb.shape
    for i in range(k):
        terms[1, i] = 0.0
        for j in range(k):
            out[i, j] = logb[0, i] if i == j else -np.inf
    first, last = 0, k  # the chains that are followed
    for t in range(1, n):
        most = -np.inf
        for s in range(first, last):
            for j in range(k):
                if maximum:
                    value = -np.inf
                    for i in range(k):
                        value = max(value, out[s, i] + loga[i, j])
                else:
                    for i in range(k):
                        terms[0, i] = out[s, i] + loga[i, j]
                    value = log_sum(terms[0])
                moved[s, j] = value + logb[t, j]
                most = max(most, moved[s, j])
        for s in range(first, last):
            for j in range(k):
                out[s, j] = moved[s, j] - most if most > -np.inf else moved[s, j]
        if t % _EVERY or last - first < k or k == 1:
            continue
        r = -1  # the first chain that is possible
        for s in range(k):
            possible = False
            for j in range(k):
                possible = possible or out[s, j] > -np.inf
            if possible:
                r = s
                break
        agree = r >= 0
        for s in range(k):
            if agree:
                possible = False
                for j in range(k):
                    possible = possible or out[s, j] > -np.inf
                terms[1, s] = offset(out, s, r, _AGREE) if possible else -np.inf
                agree = not np.isnan(terms[1, s])
        if agree:
            first, last = r, r + 1
    if last - first < k:
        for s in range(k):
            if s != first:
                for j in range(k):
                    out[s, j] = out[first, j] + terms[1, s]
