"""The E-step of topics, a document at a time, over its own words (Blei, Ng and Jordan 2003; Hoffman, Blei, Bach 2010).

Shares of topics in a document have a Dirichlet distribution with parameters γ.  With e_k = exp ψ(γ_k) and b_wk, exp of
the expected log probability of word w in topic k, over the largest of its word, each round is

    p_w = Σ_k e_k b_wk,    γ_k = α_k + e_k Σ_w (c_w / p_w) b_wk.

Topics are padded to whole vectors of eight; a padded one has b = 0.
"""

from __future__ import annotations

import numpy as np

from dask_em.kernels.simd import compiled, exp, fma, inlined, load, log, maximum, splat, store, total

_SHIFT = 8  # from where on the series are exact
_WARM = 3  # rounds over all topics, before those that a document has nothing of are left alone
_NOTHING = 1e-3  # of a document's words, below which it has nothing of a topic
_LEAST = 1e-300  # of a word's p
_HALF_LOG_TWO_PI = 0.9189385332046727


@inlined
def _rising(x):  # type: ignore[no-untyped-def]
    """Σ 1 / (x + i) and Π (x + i) for i below eight."""
    one = splat(1.0)
    a, b, c, d = x, x + splat(2.0), x + splat(4.0), x + splat(6.0)
    a1, b1, c1, d1 = a + one, b + one, c + one, d + one
    p, q, r, s = a * a1, b * b1, c * c1, d * d1
    up, down = (a + a1) * q + (b + b1) * p, p * q
    up2, down2 = (c + c1) * s + (d + d1) * r, r * s
    return (up * down2 + up2 * down) / (down * down2), down * down2


@inlined
def _digamma_series(y):  # type: ignore[no-untyped-def]
    """log y - ψ(y) for y from eight on (Abramowitz and Stegun 6.3.18)."""
    u = splat(1.0) / y
    v = u * u
    s = fma(v, splat(691.0 / 32760.0), splat(-1.0 / 132.0))
    s = fma(v, s, splat(1.0 / 240.0))
    s = fma(v, s, splat(-1.0 / 252.0))
    s = fma(v, s, splat(1.0 / 120.0))
    s = fma(v, s, splat(-1.0 / 12.0))
    return fma(splat(0.5), u, splat(0.0) - v * s)


@inlined
def digamma(x):  # type: ignore[no-untyped-def]
    """ψ of eight positive numbers."""
    y = x + splat(8.0)
    steps, _ = _rising(x)
    return log(y) - _digamma_series(y) - steps


@inlined
def exp_digamma(x):  # type: ignore[no-untyped-def]
    """exp ψ of eight positive numbers, without a logarithm."""
    y = x + splat(8.0)
    steps, _ = _rising(x)
    return y * exp(splat(0.0) - _digamma_series(y) - steps)


@inlined
def log_gamma(x):  # type: ignore[no-untyped-def]
    """log Γ of eight positive numbers, none of them beyond 1e30."""
    y = x + splat(8.0)
    _, product = _rising(x)
    u = splat(1.0) / y
    v = u * u
    s = fma(v, splat(1.0 / 1188.0), splat(-1.0 / 1680.0))
    s = fma(v, s, splat(1.0 / 1260.0))
    s = fma(v, s, splat(-1.0 / 360.0))
    s = fma(v, s, splat(1.0 / 12.0))
    return (y - splat(0.5)) * log(y) - y + splat(_HALF_LOG_TWO_PI) + u * s - log(product)


@inlined
def _round(e, alpha, rows, places, first, n, counts, at, rest, width, new):  # type: ignore[no-untyped-def]
    """A round: γ of n words that e leads to, the i-th of which has its b at row places[first + i] of `rows`.

    Rows, e, alpha and new are `width` wide; rest[i] is what topics that are not among them add to p.
    """
    for k in range(0, width, 8):
        store(new, k, splat(0.0))
    for i in range(n):
        row = places[first + i] * width
        p = splat(0.0)
        for k in range(0, width, 8):
            p = fma(load(e, k), load(rows, row + k), p)
        share = splat(counts[at + i] / max(total(p) + rest[i], _LEAST))
        for k in range(0, width, 8):
            store(new, k, fma(share, load(rows, row + k), load(new, k)))
    for k in range(0, width, 8):
        store(new, k, fma(load(e, k), load(new, k), load(alpha, k)))


@inlined
def _take(gamma, new, e, width):  # type: ignore[no-untyped-def]
    """Take on the new γ, and e with it; by how much it changed, summed over topics."""
    change = splat(0.0)
    for k in range(0, width, 8):
        fresh = load(new, k)
        step = fresh - load(gamma, k)
        change += maximum(step, splat(0.0) - step)
        store(gamma, k, fresh)
        store(e, k, exp_digamma(fresh))
    return total(change)


@inlined
def _narrowed(e, alpha, gamma, table, words, at, n, n_topics, size, narrow, packed, order, rest):  # type: ignore
    """Pack what belongs to the topics that a document has something of; how many vectors wide that is, as topics."""
    few = 0
    for k in range(n_topics):
        if gamma[k] - alpha[k] > _NOTHING * size:
            order[few] = k
            few += 1
    width = (few + 7) // 8 * 8
    if width >= len(alpha):
        return 0, 0
    for j in range(width):
        narrow[0][j] = e[order[j]] if j < few else 0.0
        narrow[1][j] = alpha[order[j]] if j < few else 1.0
        narrow[2][j] = gamma[order[j]] if j < few else 1.0
    for i in range(n):
        row, other = words[at + i] * len(alpha), 0.0
        for k in range(n_topics):
            other += e[k] * table[row + k]
        for j in range(few):
            value = table[row + order[j]]
            packed[i * width + j] = value
            other -= e[order[j]] * value
        for j in range(few, width):
            packed[i * width + j] = 0.0
        rest[i] = max(other, 0.0)
    return few, width


@inlined
def _settled(table, words, at, n, counts, n_topics, alpha, size, tol, most, gamma, work, packed, order, line, spare):  # type: ignore
    """Rounds, until γ rests; e of that γ is in work[0]."""
    width = len(alpha)
    e, new, narrow, rest, none = work[0], work[1], work[2:], spare[0], spare[1]
    left = most
    while True:
        for _ in range(_WARM):
            _round(e, alpha, table, words, at, n, counts, at, none, width, new)
            left -= 1
            if _take(gamma, new, e, width) < tol * size or left <= 0:
                return
        few, less = _narrowed(e, alpha, gamma, table, words, at, n, n_topics, size, narrow, packed, order, rest)
        if less == 0:
            continue
        moved = tol * size
        while moved >= tol * size and left > 0:
            _round(narrow[0], narrow[1], packed, line, 0, n, counts, at, rest, less, narrow[3])
            left -= 1
            moved = _take(narrow[2], narrow[3], narrow[0], less)
        for j in range(few):
            gamma[order[j]] = narrow[2][j]
            e[order[j]] = narrow[0][j]
        if left <= 0:
            return


@compiled
def documents(  # type: ignore[no-untyped-def]
    edges,
    words,
    counts,
    weight,
    table,
    n_topics,
    alpha,
    tol,
    most,
    work,
    packed,
    order,
    line,
    spare,
    gamma,
    sums,
    bound,
):
    """γ of each document, and what it adds to the sums.

    Parameters
    ----------
    edges : ndarray of shape (n + 1,)
        Words of document d are edges[d] to edges[d + 1].
    words : ndarray of shape (nnz,)
        Rows of the table.
    counts : ndarray of shape (nnz,)
    weight : ndarray of shape (n,)
    table : ndarray of shape (n_words * K',)
        b, padded to K' topics with zeros.
    n_topics : int
    alpha : ndarray of shape (K',)
        Padded with ones.
    tol : float
        Rounds end where γ changes by less than this share of the document's words.
    most : int
        Rounds of a document.
    work : ndarray of shape (6, K')
    packed : ndarray of shape (largest document * K',)
    order : ndarray of shape (K',)
    line : ndarray of shape (words of the largest document,)
        0, 1, 2, ...
    spare : ndarray of shape (2, words of the largest document)
        Zeros; the first is overwritten.
    gamma : ndarray of shape (n, K')
        Filled.
    sums : ndarray of shape (n_words * K',)
        Σ w e_k c_w / p_w is added to; times b, the words expected of each topic.  Empty: nothing is.
    bound : ndarray of shape (n,)
        Filled with Σ c_w log p_w, which is of b and e as they are.
    """
    width = len(alpha)
    for d in range(len(edges) - 1):
        at, n = edges[d], edges[d + 1] - edges[d]
        own, e = gamma[d], work[0]
        size = 0.0
        for i in range(n):
            size += counts[at + i]
        for k in range(width):
            own[k] = alpha[k] + size / n_topics if k < n_topics else 1.0
        for k in range(0, width, 8):
            store(e, k, exp_digamma(load(own, k)))
        bound[d] = 0.0
        if size <= 0.0:
            continue
        _settled(table, words, at, n, counts, n_topics, alpha, size, tol, most, own, work, packed, order, line, spare)
        said = 0.0
        for i in range(n):
            row = words[at + i] * width
            p = splat(0.0)
            for k in range(0, width, 8):
                p = fma(load(e, k), load(table, row + k), p)
            mass = max(total(p), _LEAST)
            said += counts[at + i] * np.log(mass)
            if len(sums):
                share = splat(weight[d] * counts[at + i] / mass)
                for k in range(0, width, 8):
                    store(sums, row + k, fma(share, load(e, k), load(sums, row + k)))
        bound[d] = said


@compiled
def expected_words(concentration, which, totals, table, top):  # type: ignore[no-untyped-def]
    """exp E[log β] of some words, each over the largest of its word, whose logarithm is `top`.

    Parameters
    ----------
    concentration : ndarray of shape (V, K)
    which : ndarray of shape (m,)
        The words.
    totals : ndarray of shape (K',)
        ψ of the topics' totals.
    table : ndarray of shape (m * K',)
        Filled, zeros in what is padded.
    top : ndarray of shape (m,)
        Filled.
    """
    n_topics, width = concentration.shape[1], len(totals)
    for i in range(len(which)):
        at = i * width
        for k in range(n_topics):
            table[at + k] = concentration[which[i], k]
        for k in range(n_topics, width):
            table[at + k] = 1.0
        largest = -np.inf
        for k in range(0, width, 8):
            store(table, at + k, digamma(load(table, at + k)) - load(totals, k))
        for k in range(n_topics):
            largest = max(largest, table[at + k])
        high = splat(largest)
        for k in range(0, width, 8):
            store(table, at + k, exp(load(table, at + k) - high))
        for k in range(n_topics, width):
            table[at + k] = 0.0
        top[i] = largest


@compiled
def gamma_sums(x, by, weight, want_log):  # type: ignore[no-untyped-def]
    """Σ ψ(x + by), Σ weight ψ(x + by), Σ log Γ(x + by) over whole eights of x; the last only where it is wanted.

    Parameters
    ----------
    x : ndarray of shape (n,)
        Not negative.
    by : float
    weight : ndarray of shape (n,)
    want_log : bool

    Returns
    -------
    tuple of float
        Sums, compensated for what rounding drops.
    """
    shift = splat(by)
    a, b, c = splat(0.0), splat(0.0), splat(0.0)
    low_a, low_b, low_c = splat(0.0), splat(0.0), splat(0.0)
    for i in range(0, len(x) - 7, 8):
        y = load(x, i) + shift
        slope = digamma(y)
        term = slope - low_a
        s = a + term
        low_a = (s - a) - term
        a = s
        term = slope * load(weight, i) - low_b
        s = b + term
        low_b = (s - b) - term
        b = s
        if want_log:
            term = log_gamma(y) - low_c
            s = c + term
            low_c = (s - c) - term
            c = s
    return total(a), total(b), total(c)
