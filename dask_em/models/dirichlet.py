"""Dirichlet distributions: the sums of ψ and log Γ that bounds ask for, and the parameters that explain data best."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaln, polygamma, psi

from dask_em.kernels import topics as kernel
from dask_em.kernels.simd import LANES

FIRST = 0.1  # where learning a parameter begins
_RANGE = (1e-6, 1e4)  # of parameters that are learned
_WIDE = 2.0  # steps in which a logarithm is looked for
_STEPS = 200  # of Newton's method, and halvings of them
_SHARE = 1e-9  # of a parameter, below which a step is none


def gamma_sums(x: np.ndarray, by: float, weight: np.ndarray, *, want_log: bool = False) -> tuple[float, float, float]:
    """Σ ψ(x + by), Σ weight ψ(x + by) and, where it is wanted, Σ log Γ(x + by)."""
    flat, w = np.ascontiguousarray(x).ravel(), np.ascontiguousarray(weight).ravel()
    plain, weighted, log_gammas = kernel.gamma_sums(flat, by, w, want_log)
    rest = slice(len(flat) // LANES * LANES, None)
    last, slopes = flat[rest] + by, psi(flat[rest] + by)
    return plain + slopes.sum(), weighted + slopes @ w[rest], log_gammas + want_log * gammaln(last).sum()


def log_information(x: np.ndarray) -> np.ndarray:
    """x² ψ'(x), to three hundredths of it."""
    return x + 0.5 + 0.5 / (1 + 3 * x)


def log_constant(eta: float, n_words: int) -> float:
    """-log B of a symmetric prior."""
    return float(gammaln(n_words * eta) - n_words * gammaln(eta))


def best_symmetric(counts: np.ndarray) -> float:
    """The η that makes so many words of topics most likely, which are then multinomial with a Dirichlet prior."""
    v, k = counts.shape
    totals = counts.sum(axis=0)
    nothing = np.zeros(counts.size)

    def slope(log_eta: float) -> float:
        eta = float(np.exp(log_eta))
        words = gamma_sums(counts, eta, nothing.reshape(counts.shape))[0] - v * k * psi(eta)
        return words + v * float((psi(v * eta) - psi(v * eta + totals)).sum())

    if v == 1:  # a single word says nothing of it
        return 1.0
    least, most = np.log(_RANGE)
    low, high = np.log(FIRST) - _WIDE, np.log(FIRST) + _WIDE
    while (falls := slope(low) <= 0) and low > least:  # it is lower still
        low, high = max(low - _WIDE, least), low
    if falls:
        return _RANGE[0]
    while (rises := slope(high) >= 0) and high < most:
        low, high = high, min(high + _WIDE, most)
    if rises:  # equal topics say that it is large
        return _RANGE[1]
    return float(np.exp(brentq(slope, low, high, xtol=1e-9)))


def best_parameters(mean_log: np.ndarray) -> np.ndarray:
    """The α that makes shares with such a mean E log θ most likely, by Newton's method (Minka 2000)."""
    k = len(mean_log)
    if k == 1:
        return np.ones(1)

    def value(alpha: np.ndarray) -> float:
        return float(gammaln(alpha.sum()) - gammaln(alpha).sum() + (alpha - 1) @ mean_log)

    alpha = np.full(k, FIRST)
    for _ in range(_STEPS):
        slope = psi(alpha.sum()) - psi(alpha) + mean_log
        own, common = -polygamma(1, alpha), polygamma(1, alpha.sum())
        step = (slope - (slope / own).sum() / (1 / common + (1 / own).sum())) / own
        change, now = 1.0, value(alpha)
        while (alpha - change * step <= 0).any() or value(alpha - change * step) < now - 1e-12 * abs(now):
            change /= 2
            if change < _SHARE:
                return np.clip(alpha, *_RANGE)
        alpha = alpha - change * step
        if np.abs(change * step / alpha).max() < _SHARE or alpha.max() > _RANGE[1]:
            break
    return np.clip(alpha, *_RANGE)
