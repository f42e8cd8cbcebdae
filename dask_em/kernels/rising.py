"""Rising factorials  s (s+1) ... (s+x-1) = Γ(s+x) / Γ(s):  their logarithms, and two derivatives of these in s.

Each is a difference of two functions that are nearly equal where s is large.  From s = 100 on, Stirling's series is
subtracted term by term, so that no digits are lost (Abramowitz and Stegun 1964, formulas 6.1.41, 6.3.18 and 6.4.12).
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln, polygamma, psi

_LARGE = 100.0  # where what is left out of the series is below 1e-16


def log_rising(x: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Log Γ(s+x) - log Γ(s), for x >= 0 and s > 0 of shapes that broadcast."""
    large = s >= _LARGE
    if not np.any(large):
        direct: np.ndarray = gammaln(x + s) - gammaln(s)
        return direct
    z = np.maximum(s, _LARGE)
    a, b = 1 / z, 1 / (z + x)
    ratio = x * a * b  # a - b
    rest = -ratio / 12 + (a**3 - b**3) / 360 - (a**5 - b**5) / 1260
    series = (z - 0.5) * np.log1p(x / z) + x * (np.log(z + x) - 1) + rest
    return np.where(large, series, gammaln(x + s) - gammaln(s))


def rising_slopes(x: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Its first derivative, Σ_{j<x} 1/(s+j), and minus its second, Σ_{j<x} 1/(s+j)²."""
    large = s >= _LARGE
    slope, bend = psi(x + s) - psi(s), polygamma(1, s) - polygamma(1, x + s)
    if not np.any(large):
        return slope, bend
    z = np.maximum(s, _LARGE)
    a, b = 1 / z, 1 / (z + x)
    one = x * a * b  # a - b
    two = one * (a + b)
    three, four = one * (a**2 + a * b + b**2), two * (a**2 + b**2)
    five = one * (a**4 + a**3 * b + a**2 * b**2 + a * b**3 + b**4)
    six = two * (a**4 + a**2 * b**2 + b**4)
    first = np.log1p(x * a) + one / 2 + two / 12 - four / 120 + six / 252
    return np.where(large, first, slope), np.where(large, one + two / 2 + three / 6 - five / 30, bend)
