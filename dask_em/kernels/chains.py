"""Hidden Markov chains in compiled loops: forward and backward over runs of rows, scaled row by row.

A row's emissions are `b`, densities under each state over the largest of them, whose logarithm is `top`.  Where scaled
recursions run out of exponent, as where the next state that a row can have is all but impossible, they say so, and
`smooth_logs` goes the same way in logarithms.
"""

from __future__ import annotations

import numpy as np

from dask_em.kernels.simd import compiled, inlined

_TINY = 1e-250  # of a scale: below, what is left of the other states is no longer certain
_VOID = 1e-280  # of a state's share: below, it says nothing
_EVERY = 4  # rows between looks whether chains agree


@compiled
def forward(b, top, edges, before, a, shares, lasts, loglik, work):  # type: ignore[no-untyped-def]
    """Shares of the states of each row of some runs, given it and those before (Rabiner 1989, III.A).

    Parameters
    ----------
    b : ndarray of shape (n, K)
        Emissions, each over the largest of its row.
    top : ndarray of shape (n,)
        Logarithms of those.
    edges : ndarray of shape (m + 1,)
        Run s is rows edges[s] to edges[s + 1], one at least.
    before : ndarray of shape (K,)
        Shares of the states of a run's first row, before it is seen.
    a : ndarray of shape (K, K)
        Transitions.
    shares : ndarray of shape (n, K)
        Filled.
    lasts : ndarray of shape (m, K)
        Filled with those of the last row of each run.
    loglik : ndarray of shape (m,)
        Filled with the log-likelihood of each run; NaN, where it has to be done in logarithms.
    work : ndarray of shape (K + 2, K)
    """
    k = before.shape[0]
    ahead = work[0]
    for s in range(len(edges) - 1):
        for j in range(k):
            ahead[j] = before[j]
        total, rest = 0.0, 0.0
        for t in range(edges[s], edges[s + 1]):
            scale = 0.0
            for j in range(k):
                shares[t, j] = ahead[j] * b[t, j]
                scale += shares[t, j]
            if not scale > _TINY:
                total = np.nan
                break
            inverse = 1.0 / scale
            for j in range(k):
                ahead[j] = 0.0
            for i in range(k):
                own = shares[t, i] * inverse
                shares[t, i] = own
                for j in range(k):
                    ahead[j] += own * a[i, j]
            piece = np.log(scale) + top[t] - rest
            raised = total + piece
            rest = (raised - total) - piece
            total = raised
        loglik[s] = total
        for j in range(k):
            lasts[s, j] = shares[edges[s + 1] - 1, j]


@compiled
def backward(b, edges, weight, turned, after, shares, pairs, firsts, loglik, work):  # type: ignore[no-untyped-def]
    """After `forward`, posterior states of each row, and sums of pairs of them.

    Parameters
    ----------
    b, edges, loglik, work : ndarray
        As in `forward`; runs whose `loglik` is NaN are left out, and what runs out of exponent here becomes NaN.
    weight : ndarray of shape (m,)
    turned : ndarray of shape (K, K)
        Transitions, transposed.
    after : ndarray of shape (K,)
        Likelihood of what follows a run by the state of its last row, up to a factor.
    shares : ndarray of shape (n, K)
        Becomes posterior states, times the weight.
    pairs : ndarray of shape (K, K)
        To which the sums of pairs of states are added, over the transitions.
    firsts : ndarray of shape (m, K)
        Filled with the likelihood of what follows the first row, by its state, up to a factor.
    """
    k = after.shape[0]
    beta, told, own_pairs = work[0], work[1], work[2:]
    for s in range(len(edges) - 1):
        if np.isnan(loglik[s]):
            continue
        low, high, w = edges[s], edges[s + 1], weight[s]
        scale = 0.0
        for i in range(k):
            beta[i] = after[i]
            scale += shares[high - 1, i] * after[i]
            for j in range(k):
                own_pairs[i, j] = 0.0
        fine = scale > _TINY and scale < 1 / _TINY
        for t in range(high - 1, low - 1, -1):
            if not fine:
                break
            inverse = 1.0 / scale
            for i in range(k):
                beta[i] *= inverse
            if t < high - 1:
                for i in range(k):
                    own = shares[t, i] * inverse * w
                    for j in range(k):
                        own_pairs[i, j] += own * told[j]
            for j in range(k):
                told[j] = b[t, j] * beta[j]
                shares[t, j] *= w * beta[j]
                firsts[s, j] = beta[j]
                beta[j] = 0.0
            if t == low:
                break
            for j in range(k):
                for i in range(k):
                    beta[i] += turned[j, i] * told[j]
            scale = 0.0
            for i in range(k):
                scale += shares[t - 1, i] * beta[i]
            fine = scale > _TINY and scale < 1 / _TINY
        if not fine:
            loglik[s] = np.nan
            continue
        for i in range(k):
            for j in range(k):
                pairs[i, j] += own_pairs[i, j]


@inlined
def reached(c, t, possible, a, reach, wider):  # type: ignore[no-untyped-def]
    """Which states of row t a chain may be in, if all it may be in before is known; whether there is any."""
    k, can = a.shape[0], False
    for j in range(k):
        wider[c, j] = False
        if possible[t, j]:
            for i in range(k):
                if reach[c, i] and a[i, j] > 0.0:
                    wider[c, j] = True
                    can = True
                    break
    for j in range(k):
        reach[c, j] = wider[c, j]
    return can


@compiled
def agreement(b, possible, everything, a, tolerance, found, chains, moved, reach, wider, alive):  # type: ignore[no-untyped-def]
    """From which row on the chains from all states are one; -1: not within these rows.

    Parameters
    ----------
    b : ndarray of shape (n, K)
        Emissions, each over the largest of its row.
    possible : ndarray of shape (n, K) of bool
        Which of them are not zero, were there exponents enough.
    everything : bool
        Whether all of them are, and all transitions.
    a : ndarray of shape (K, K)
    tolerance : float
        Of shares that are called the same, relative to them.
    found : ndarray of shape (K,)
        Filled with shares of the states of that row, given all rows up to it.
    chains, moved : ndarray of shape (K, K)
        To work in, as are the following.
    reach, wider : ndarray of shape (K, K) of bool
    alive : ndarray of shape (K,) of bool
    """
    n, k = b.shape
    for i in range(k):
        alive[i] = possible[0, i]
        for j in range(k):
            chains[i, j] = 1.0 if i == j else 0.0
            reach[i, j] = i == j
    for t in range(n):
        if t > 0:
            for c in range(k):
                if not alive[c]:
                    continue
                for j in range(k):
                    moved[c, j] = 0.0
                for i in range(k):
                    own = chains[c, i]
                    if own > 0.0:
                        for j in range(k):
                            moved[c, j] += own * a[i, j]
                scale = 0.0
                for j in range(k):
                    moved[c, j] *= b[t, j]
                    scale += moved[c, j]
                if not everything and not reached(c, t, possible, a, reach, wider):
                    alive[c] = False
                    continue
                if not scale > _TINY:
                    return -1
                inverse = 1.0 / scale
                for j in range(k):
                    chains[c, j] = moved[c, j] * inverse
        if t % _EVERY and t < n - 1:
            continue
        first = -1
        same = True
        for c in range(k):
            if not alive[c]:
                continue
            if first < 0:
                first = c
                continue
            for j in range(k):
                x, y = chains[first, j], chains[c, j]
                if abs(x - y) > tolerance * x and not (x < _VOID and y < _VOID):
                    same = False
                    break
            if not same:
                break
        if first < 0:
            return -1
        if same:
            for j in range(k):
                found[j] = chains[first, j]
            return t
    return -1


@compiled
def log_sum(x):  # type: ignore[no-untyped-def]
    """log Σ exp x, of what may be minus infinity."""
    most = -np.inf
    for value in x:
        most = max(most, value)
    if most == -np.inf:
        return most
    total = 0.0
    for value in x:
        total += np.exp(value - most)
    return most + np.log(total)


@compiled
def smooth_logs(logb, before, loga, after, w, gamma, pairs, first, last, work):  # type: ignore[no-untyped-def]
    """As `forward` and `backward` of one run, in logarithms throughout: its log-likelihood but for `after`.

    `logb`, `before`, `loga` and `after` are logarithms; `gamma` is filled with the logarithms of shares of the states
    first, then with posterior states; `pairs` is added to, transitions included; `first` and `last` are filled with
    logarithms.
    """
    n, k = logb.shape
    terms, beta, told = work[0], work[1], work[2]
    loglik = 0.0
    for t in range(n):
        for j in range(k):
            if t == 0:
                gamma[0, j] = before[j] + logb[0, j]
                continue
            for i in range(k):
                terms[i] = gamma[t - 1, i] + loga[i, j]
            gamma[t, j] = log_sum(terms) + logb[t, j]
        for j in range(k):
            terms[j] = gamma[t, j]
        scale = log_sum(terms)
        if scale == -np.inf:
            return scale
        for j in range(k):
            gamma[t, j] -= scale  # small numbers, whose logarithms have all their digits
        loglik += scale
    for j in range(k):
        last[j] = gamma[n - 1, j]
        beta[j] = after[j]
    for t in range(n - 1, -1, -1):
        for j in range(k):
            terms[j] = gamma[t, j] + beta[j]
        scale = log_sum(terms)
        if scale == -np.inf:
            return scale
        for j in range(k):
            beta[j] -= scale
            told[j] = logb[t, j] + beta[j]
            gamma[t, j] = w * np.exp(gamma[t, j] + beta[j])
        if t == 0:
            break
        scale = -np.inf
        for i in range(k):
            for j in range(k):
                terms[j] = gamma[t - 1, i] + loga[i, j] + told[j]
            own = log_sum(terms)
            scale = max(scale, own) + np.log1p(np.exp(-abs(scale - own))) if own > -np.inf else scale
        for i in range(k):
            for j in range(k):
                pairs[i, j] += w * np.exp(gamma[t - 1, i] + loga[i, j] + told[j] - scale)
        for i in range(k):
            for j in range(k):
                terms[j] = loga[i, j] + told[j]
            beta[i] = log_sum(terms)
    for j in range(k):
        first[j] = beta[j]
    return loglik


@compiled
def filter_logs(logb, log_before, loga, shares, last):  # type: ignore[no-untyped-def]
    """Shares of the states of each row of a run, given it and those before, by logarithms throughout.

    Parameters
    ----------
    logb : ndarray of shape (n, K)
    log_before : ndarray of shape (K,)
    loga : ndarray of shape (K, K)
    shares : ndarray of shape (n, K)
        Filled; zeros, where no state can have made a row.
    last : ndarray of shape (K,)
        Filled with the log-likelihood of the rows, by the state of the last.
    """
    n, k = logb.shape
    sum_of_tops = 0.0
    for j in range(k):
        last[j] = log_before[j] + logb[0, j]
    for t in range(n):
        if t > 0:
            for j in range(k):
                largest = -np.inf
                for i in range(k):
                    largest = max(largest, shares[t - 1, i] + loga[i, j])
                mass = 0.0
                if largest > -np.inf:
                    for i in range(k):
                        mass += np.exp(shares[t - 1, i] + loga[i, j] - largest)
                    largest += np.log(mass)
                last[j] = largest + logb[t, j]
        top = -np.inf
        for j in range(k):
            top = max(top, last[j])
        if top > -np.inf:
            sum_of_tops += top
        for j in range(k):  # logarithms, until the row that follows has seen them
            shares[t, j] = last[j] - top if top > -np.inf else -np.inf
    for j in range(k):
        last[j] = shares[n - 1, j] + sum_of_tops
    for t in range(n):
        total = 0.0
        for j in range(k):
            shares[t, j] = np.exp(shares[t, j])
            total += shares[t, j]
        if total > 0.0:
            for j in range(k):
                shares[t, j] /= total
