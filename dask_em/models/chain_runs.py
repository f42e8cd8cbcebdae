"""Runs of rows of a hidden Markov chain: what is known of their states, given what is before and after them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dask_em.kernels import chains

_AGREE = 1e-13  # relative: shares of states that are the same whatever came before
_LOOK = 256  # rows after which chains are first expected to agree; twice as many each time that they do not


@dataclass(frozen=True)
class Smoothed:
    """Posterior states of some runs.

    Attributes
    ----------
    states : ndarray of shape (n, K)
        Of each row, times the weight of its run.
    pairs : ndarray of shape (K, K)
        Sums over all transitions within runs.
    firsts : ndarray of shape (m, K)
        Likelihood of what follows the first row of each run, by its state, up to a factor.
    lasts : ndarray of shape (m, K)
        Shares of the states of the last row of each, given it and those before.
    loglik : ndarray of shape (m,)
        But for what follows. Minus infinity: no path of states can have made the rows.
    """

    states: np.ndarray
    pairs: np.ndarray
    firsts: np.ndarray
    lasts: np.ndarray
    loglik: np.ndarray


def smoothed(
    logb: np.ndarray,
    edges: np.ndarray,
    weight: np.ndarray,
    before: np.ndarray,
    a: np.ndarray,
    after: np.ndarray,
    logs: tuple[np.ndarray, np.ndarray] | None = None,
) -> Smoothed:
    """Forward-backward over runs, all with the same before and after.

    Parameters
    ----------
    logb : ndarray of shape (n, K)
        Log densities of the rows under each state.
    edges : ndarray of shape (m + 1,)
        Run s is rows edges[s] to edges[s + 1], one at least.
    weight : ndarray of shape (m,)
    before : ndarray of shape (K,)
        Shares of the states of the first row, before it is seen.
    a : ndarray of shape (K, K)
    after : ndarray of shape (K,)
        Likelihood of what follows by the state of the last row, up to a factor.
    logs : tuple of ndarray of shape (K,), optional
        Logarithms of before and after, where they are known better than those are.
    """
    k, m = len(before), len(edges) - 1
    top, b = scaled(logb)
    states, pairs = np.empty_like(b), np.zeros((k, k))
    firsts, lasts, loglik = np.zeros((m, k)), np.zeros((m, k)), np.empty(m)
    a = np.ascontiguousarray(a)
    turned, work = np.ascontiguousarray(a.T), np.empty((k + 2, k))
    if never(a):
        loglik[:] = np.nan
    else:
        chains.forward(b, top, edges, before, a, states, lasts, loglik, work)
        chains.backward(b, edges, weight, turned, after, states, pairs, firsts, loglik, work)
        pairs *= a
    again = np.flatnonzero(np.isnan(loglik))
    if len(again):
        log_before, log_after = (logs_of(before), logs_of(after)) if logs is None else logs
        loga = logs_of(a)
    for s in again:
        rows = slice(int(edges[s]), int(edges[s + 1]))
        own, first, last = np.ascontiguousarray(logb[rows]), firsts[s], lasts[s]
        loglik[s] = chains.smooth_logs(
            own, log_before, loga, log_after, weight[s], states[rows], pairs, first, last, work
        )
        if loglik[s] == -np.inf:
            states[rows] = 0.0
        firsts[s], lasts[s] = shares_of_logs(first), shares_of_logs(last)
    return Smoothed(states, pairs, firsts, lasts, loglik)


def filtered(
    logb: np.ndarray, edges: np.ndarray, before: np.ndarray, a: np.ndarray, log_before: np.ndarray | None = None
) -> np.ndarray:
    """(n, K) shares of the states of each row, given it and those before it in its run; else as `smoothed`."""
    top, b = scaled(logb)
    k, m = len(before), len(edges) - 1
    shares, lasts, loglik = np.empty_like(b), np.empty((m, k)), np.empty(m)
    if never(a):
        loglik[:] = np.nan
    else:
        chains.forward(b, top, edges, before, np.ascontiguousarray(a), shares, lasts, loglik, np.empty((k + 2, k)))
    for s in np.flatnonzero(np.isnan(loglik)):  # ran out of exponent
        own = slice(int(edges[s]), int(edges[s + 1]))
        shares[own], _ = filtered_in_logs(logb[own], logs_of(before) if log_before is None else log_before, a)
    return shares


def never(a: np.ndarray) -> bool:
    """Whether some state never follows another: then one whose share is all but nothing may be all there is later."""
    return bool((a == 0).any())


def filtered_in_logs(logb: np.ndarray, log_before: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, K) shares of the states of each row, given it and those before; and log-likelihoods (K,) by the last one."""
    shares, last = np.empty(logb.shape), np.empty(logb.shape[1])
    chains.filter_logs(np.ascontiguousarray(logb), log_before, logs_of(np.ascontiguousarray(a)), shares, last)
    return shares, last


def forward_agreement(logb: np.ndarray, a: np.ndarray) -> tuple[int, np.ndarray] | None:
    """The first row whose states do not depend on what was before the rows, and shares of them, given all up to it."""
    return _agreement(logb, a, turned=False)


def backward_agreement(logb: np.ndarray, a: np.ndarray) -> tuple[int, np.ndarray] | None:
    """The last row of which what follows does not depend on what is after the rows, and its likelihood by the state."""
    found = _agreement(logb[::-1], a, turned=True)
    if found is None or found[0] == len(logb) - 1:
        return None
    at, likelihood = found  # of a row and what follows it
    before: np.ndarray = a @ likelihood
    return len(logb) - 2 - at, before / before.max()


def _agreement(logb: np.ndarray, a: np.ndarray, *, turned: bool) -> tuple[int, np.ndarray] | None:
    n, k = logb.shape
    if never(a):
        return None
    a = np.ascontiguousarray(a.T if turned else a)
    rows = min(n, _LOOK)
    while True:
        own = np.ascontiguousarray(logb[:rows])
        _, b = scaled(own)
        possible = own > -np.inf
        shares = np.empty(k)
        at = chains.agreement(
            b, possible, bool(possible.all() and (a > 0).all()), a, _AGREE, shares, np.empty((k, k)), np.empty((k, k)),
            np.empty((k, k), dtype=bool), np.empty((k, k), dtype=bool), np.empty(k, dtype=bool),
        )  # fmt: skip
        if at >= 0:
            return at, shares
        if rows == n:
            return None
        rows = min(n, 2 * rows)


def scaled(logb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest log density of each row (n,), and densities over it (n, K)."""
    top = logb.max(axis=1)
    top[top == -np.inf] = 0.0  # no state can have made the row
    b = logb - top[:, None]
    np.exp(b, out=b)
    return top, b


def logs_of(x: np.ndarray) -> np.ndarray:
    """Logarithms; of zero, minus infinity."""
    with np.errstate(divide="ignore"):
        logs: np.ndarray = np.log(x)
    return logs


def shares_of_logs(logs: np.ndarray) -> np.ndarray:
    """Shares in proportion to numbers whose logarithms are given; zeros, if all of these are minus infinity."""
    top = logs.max()
    return normed(np.exp(logs - top)) if top > -np.inf else np.zeros_like(logs)


def normed(x: np.ndarray) -> np.ndarray:
    """Shares of a whole; zeros, if there is none."""
    total = x.sum()
    shares: np.ndarray = x / total if total > 0 else np.zeros_like(x)
    return shares
