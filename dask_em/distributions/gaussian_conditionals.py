"""What is missing of a row under one Gaussian, given what is observed of it.

With the precision Λ = U Uᵀ and z = x - μ, the missing columns m given the others o have a density with the exponent
-½ |U_mᵀ z_m + U_oᵀ z_o|², where U_m are rows of U: least squares in z_m.  By U_mᵀ = Q R,

    z_m = -R⁻¹ Qᵀ U_oᵀ z_o + R⁻¹ ε,   ε ~ N(0, I),

since Λ_mm = RᵀR is the precision of z_m given z_o (Rue and Held 2005, theorem 2.5).  No difference of covariances is
taken, which rounding could make negative, and the work grows with what is missing, not with all columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Conditionals(NamedTuple):
    """How missing columns follow from the observed ones, in P patterns that each miss m of the d columns."""

    missing: np.ndarray  # (P, m) numbers of the columns
    slope: np.ndarray  # (P, m, d): z_m = slope z in the mean; zero in columns that are missing
    spread: np.ndarray  # (P, m, m): z_m has the covariance spread spreadᵀ about that
    log_det: np.ndarray  # (P,) of Λ_mm


def conditionals(u: np.ndarray, missing: np.ndarray) -> Conditionals:
    """What follows from the factor U (d, d) of the precision; missing: (P, m), rising."""
    q, r = np.linalg.qr(np.swapaxes(u[missing], -1, -2))  # (P, d, m), (P, m, m)
    spread = np.linalg.solve(r, np.broadcast_to(np.eye(missing.shape[1]), r.shape))
    slope = -(spread @ np.swapaxes(q, -1, -2)) @ u.T
    np.put_along_axis(slope, missing[:, None, :], 0.0, axis=2)
    log_det = 2 * np.log(np.abs(np.einsum("pjj->pj", r))).sum(axis=1)
    return Conditionals(missing, slope, spread, log_det)


def by_number_missing(seen: np.ndarray, numbers: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Patterns that miss equally many columns, some at a time, and which those are, (P, m).

    Parameters
    ----------
    seen : ndarray of shape (patterns, d)
        Patterns that miss nothing are left out.
    numbers : int
        Of some patterns' matrices (d, d), at most.
    """
    d = seen.shape[1]
    n_missing = d - seen.sum(axis=1)
    step = max(1, numbers // d**2)
    for m in np.unique(n_missing[n_missing > 0]):
        alike = np.flatnonzero(n_missing == m)
        for i in range(0, len(alike), step):
            which = alike[i : i + step]
            yield which, np.nonzero(~seen[which])[1].reshape(-1, m)
