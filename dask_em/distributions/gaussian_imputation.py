"""What is missing of rows under one Gaussian, given what is observed of them: its mean, or a draw.

With the precision Λ = U Uᵀ and z = x - μ, the missing columns m given the others o have a density with the exponent
-½ |U_mᵀ z_m + U_oᵀ z_o|², where U_m are rows of U: least squares in z_m.  By U_mᵀ = Q R,

    z_m = -R⁻¹ Qᵀ U_oᵀ z_o + R⁻¹ ε,   ε ~ N(0, I),

since Λ_mm = RᵀR is the precision of z_m given z_o (Rue and Held 2005, theorem 2.5).  No difference of covariances is
taken, which rounding could make negative, and the work grows with what is missing, not with all columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from dask_em.distributions.gaussian import GaussianParams
from dask_em.distributions.gaussian_holes import has_holes, patterns

Noise = Callable[[np.ndarray, np.ndarray], np.ndarray]  # rows (n,), columns (n, m) -> (n, m) standard normal numbers
_NUMBERS = 1 << 18  # of an intermediate array: it stays in cache


def conditionals(params: GaussianParams, missing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How missing columns follow from the observed ones, in some patterns that each miss m of the d columns.

    Parameters
    ----------
    params : GaussianParams
        Of one component.
    missing : ndarray of shape (P, m)
        Numbers of the missing columns.

    Returns
    -------
    slope : ndarray of shape (P, m, d)
        z_m = slope z in the mean; zero in columns that are missing.
    spread : ndarray of shape (P, m, m)
        z_m has the covariance spread spreadᵀ about that.
    """
    u = params.precisions_cholesky[0]
    q, r = np.linalg.qr(np.swapaxes(u[missing], -1, -2))  # (P, d, m), (P, m, m)
    spread = np.linalg.solve(r, np.broadcast_to(np.eye(missing.shape[1]), r.shape))
    slope = -(spread @ np.swapaxes(q, -1, -2)) @ u.T
    np.put_along_axis(slope, np.broadcast_to(missing[:, None, :], (*r.shape[:2], r.shape[1])), 0.0, axis=2)
    return slope, spread


def imputed(params: GaussianParams, x: np.ndarray, noise: Noise | None = None) -> np.ndarray:
    """Rows (n, d) in which what is missing is its mean given what is observed of the row, or a draw.

    Parameters
    ----------
    params : GaussianParams
        Of one component.
    x : ndarray of shape (n, d)
        NaN where a value is missing; the others are kept as they are.
    noise : callable, optional
        Makes draws.

    Returns
    -------
    ndarray of shape (n, d)
        float32 where the rows are, else float64.
    """
    out = np.array(x, dtype=imputed_dtype(x.dtype))
    if not has_holes(x):
        return out
    mean = params.means[0]
    for rows, columns, slope, spread, pattern in _alike(params, x):
        z = x[rows].astype(np.float64) - mean
        z[np.isnan(z)] = 0.0
        values = (slope[pattern] @ z[:, :, None])[:, :, 0]
        if noise is not None:
            values += (spread[pattern] @ noise(rows, columns)[:, :, None])[:, :, 0]
        out[rows[:, None], columns] = mean[columns] + values
    return out


def imputed_dtype(of: np.dtype) -> np.dtype:
    """The type that filled rows have, given that of the rows."""
    return np.dtype(np.float32 if of == np.float32 else np.float64)


def _alike(
    params: GaussianParams, x: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Rows that miss equally many columns, some at a time.

    Their numbers (n,), missing columns (n, m), the slopes and spreads of some patterns, and each row's pattern.
    """
    seen, of_pattern = patterns(x)
    n_missing = (~seen).sum(axis=1)
    for m in np.unique(n_missing[n_missing > 0]):
        each = int(m) * x.shape[1]
        for which in _pieces(np.flatnonzero(n_missing == m), each):
            columns = np.nonzero(~seen[which])[1].reshape(-1, m)
            slope, spread = conditionals(params, columns)
            sizes = [len(of_pattern[p]) for p in which]
            rows = np.concatenate([of_pattern[p] for p in which])
            number = np.repeat(np.arange(len(which)), sizes)
            for own in _pieces(np.arange(len(rows)), each):
                yield rows[own], columns[number[own]], slope, spread, number[own]


def _pieces(numbers: np.ndarray, each: int) -> Iterator[np.ndarray]:
    step = max(1, _NUMBERS // each)
    return (numbers[i : i + step] for i in range(0, len(numbers), step))
