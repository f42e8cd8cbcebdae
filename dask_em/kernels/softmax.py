"""From joint log densities to responsibilities, a group of rows at a time.

Rows lie in *groups* of sixteen, each column of a group contiguous: `joint` holds log π_k + log p(x_i | k)
of row i of group g at ((g K + k) 16 + i).
"""

from __future__ import annotations

import numpy as np

from dask_em.kernels.simd import compiled, exp, inlined, load, log, maximum, splat, store, total, where_less

GROUP = 16  # rows; two vectors, so that sums have somewhere to go while a first one is under way
_TINY = 1e-300
_NEVER = -np.inf
_LOWEST = -1e308


@inlined
def log_sum(joint, at, n_components):  # type: ignore[no-untyped-def]
    """Turn a column of joint log densities into exp(joint - top); give back top and their sum, eight rows at once.

    Rows that no component can have made have sum zero.
    """
    top = splat(_NEVER)
    for k in range(n_components):
        top = maximum(load(joint, at + k * GROUP), top)
    top = where_less(top, splat(_LOWEST), splat(0.0), top)
    mass = splat(0.0)
    for k in range(n_components):
        e = exp(load(joint, at + k * GROUP) - top)
        store(joint, at + k * GROUP, e)
        mass += e
    return top, mass


@inlined
def row_loglik(top, mass):  # type: ignore[no-untyped-def]
    """Log density of eight rows; minus infinity where the mass is zero."""
    return where_less(mass, splat(_TINY), splat(_NEVER), top + log(mass))


@inlined
def responsibilities(joint, groups, n_components, weight, start):  # type: ignore[no-untyped-def]
    """Turn joint log densities into weighted responsibilities; the weighted log-likelihood of the rows.

    joint: groups of (n_components, 16), overwritten; weight: of row i at start + i.
    """
    loglik = splat(0.0)
    for g in range(groups):
        for half in range(0, GROUP, 8):
            at = g * n_components * GROUP + half
            top, mass = log_sum(joint, at, n_components)
            w = load(weight, start + g * GROUP + half)
            loglik += where_less(splat(0.0), w, w * row_loglik(top, mass), splat(0.0))
            scale = where_less(mass, splat(_TINY), splat(0.0), w / mass)
            for k in range(n_components):
                store(joint, at + k * GROUP, load(joint, at + k * GROUP) * scale)
    return total(loglik)


@inlined
def add_compensated(sums, term):  # type: ignore[no-untyped-def]
    """sums[0] += term, what rounding drops going to sums[1] (Knuth's two-sum)."""
    a = sums[0]
    s = a + term
    b = s - a
    sums[1] += (a - (s - b)) + (term - b)
    sums[0] = s


@compiled
def row_posteriors(joint, loglik, groups, n_components):  # type: ignore[no-untyped-def]
    """Turn joint log densities into probabilities, and write each row's log density."""
    for g in range(groups):
        for half in range(0, GROUP, 8):
            at = g * n_components * GROUP + half
            top, mass = log_sum(joint, at, n_components)
            store(loglik, g * GROUP + half, row_loglik(top, mass))
            scale = where_less(mass, splat(_TINY), splat(0.0), splat(1.0) / mass)
            for k in range(n_components):
                store(joint, at + k * GROUP, load(joint, at + k * GROUP) * scale)
