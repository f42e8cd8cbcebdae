"""Most probable paths of hidden Markov chains, and what a whole block does to its ends, in compiled loops."""

from __future__ import annotations

import numpy as np

from dask_em.kernels.chains import log_sum
from dask_em.kernels.simd import compiled


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


@compiled
def operator(logb, loga, maximum, out, moved, terms):  # type: ignore[no-untyped-def]
    """What a run of rows does: logarithms of its likelihood by the states of its first and its last row.

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
    terms : ndarray of shape (K,)
    """
    n, k = logb.shape
    for i in range(k):
        for j in range(k):
            out[i, j] = logb[0, i] if i == j else -np.inf
    for t in range(1, n):
        most = -np.inf
        for s in range(k):
            for j in range(k):
                if maximum:
                    value = -np.inf
                    for i in range(k):
                        value = max(value, out[s, i] + loga[i, j])
                else:
                    for i in range(k):
                        terms[i] = out[s, i] + loga[i, j]
                    value = log_sum(terms)
                moved[s, j] = value + logb[t, j]
                most = max(most, moved[s, j])
        for s in range(k):
            for j in range(k):
                out[s, j] = moved[s, j] - most if most > -np.inf else moved[s, j]
