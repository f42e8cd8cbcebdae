"""Covariances and their factors, all components at once.

A covariance Σ = L Lᵀ has the precision U Uᵀ with U = L⁻ᵀ.  Vectors hold L below the diagonal, row by
row, and the logarithm of its diagonal, so that every vector is a covariance.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from dask_em.errors import DegenerateError

_ROUNDING = 64 * float(np.finfo(np.float64).eps)  # of a variance: what is left of it below that are errors of sums


@lru_cache(maxsize=32)  # small, and asked for in every step of every solver
def _triangle(d: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each entry of an upper triangle, row by row."""
    rows, columns = np.triu_indices(d)
    return rows, columns


@lru_cache(maxsize=32)
def _lower_triangle(d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row and column of each entry of a lower triangle, row by row, and which entries are on the diagonal."""
    rows, columns = np.tril_indices(d)
    return rows, columns, np.flatnonzero(rows == columns)


def unpack(packed: np.ndarray, d: int) -> np.ndarray:
    """(..., d, d) symmetric matrices from (..., d(d+1)/2) upper triangles, row by row."""
    full = np.empty(packed.shape[:-1] + (d, d))
    rows, columns = _triangle(d)
    full[..., rows, columns] = packed
    full[..., columns, rows] = packed
    return full


def pack(full: np.ndarray) -> np.ndarray:
    """Inverse of `unpack`."""
    rows, columns = _triangle(full.shape[-1])
    return full[..., rows, columns]


def packed_squares(rows: np.ndarray) -> np.ndarray:
    """(n, d(d+1)/2) products of each row with itself, packed."""
    i, j = _triangle(rows.shape[1])
    return rows[:, i] * rows[:, j]


def diagonal(matrices: np.ndarray) -> np.ndarray:
    """A view of the diagonals, (..., d), of (..., d, d) matrices."""
    return np.einsum("...jj->...j", matrices)


def inverse_lower(lower: np.ndarray) -> np.ndarray:
    """Inverses of (..., d, d) lower triangular matrices, by forward substitution."""
    d = lower.shape[-1]
    inverse = np.zeros_like(lower)
    on = 1.0 / diagonal(lower)
    for i in range(d):
        inverse[..., i, i] = on[..., i]
        if i:
            row = lower[..., i : i + 1, :i] @ inverse[..., :i, :i]
            inverse[..., i, :i] = -on[..., i, None] * row[..., 0, :]
    return inverse


def precisions_cholesky(covariances: np.ndarray, covariance_type: str) -> np.ndarray:
    """U with inverse covariance U Uᵀ, as `GaussianParams` holds it.

    Raises
    ------
    DegenerateError
        A covariance is not positive definite.
    """
    if covariance_type in ("diag", "spherical"):
        if not (np.isfinite(covariances) & (covariances > 0)).all():
            bad = ~(np.isfinite(covariances) & (covariances > 0)).reshape(len(covariances), -1).all(axis=1)
            raise DegenerateError(_collapse(int(np.flatnonzero(bad)[0])))
        return 1.0 / np.sqrt(covariances)
    if not np.isfinite(covariances).all():
        raise DegenerateError(_collapse(_first_bad(covariances)))
    lower = _cholesky(covariances)
    if lower is None:
        raise DegenerateError(_collapse(_first_bad(covariances)))
    return transposed(inverse_lower(lower))


def _cholesky(covariances: np.ndarray) -> np.ndarray | None:
    """L; None where what the other columns leave of a column's variance is rounding."""
    try:
        lower = np.linalg.cholesky(covariances)
    except np.linalg.LinAlgError:
        return None
    return lower if (diagonal(lower) ** 2 > _ROUNDING * diagonal(covariances)).all() else None


def transposed(matrices: np.ndarray) -> np.ndarray:
    """Each matrix transposed, laid out row by row."""
    return np.ascontiguousarray(np.swapaxes(matrices, -1, -2))


def _first_bad(covariances: np.ndarray) -> int | None:
    """Number of the first covariance that has no Cholesky factor; None for a tied one."""
    if covariances.ndim == 2:
        return None
    for k, covariance in enumerate(covariances):
        if not np.isfinite(covariance).all() or _cholesky(covariance) is None:
            return k
    raise AssertionError("every covariance by itself is positive definite, and all of them together are not")


def _collapse(k: int | None) -> str:
    which = "the tied covariance" if k is None else f"the covariance of component {k}"
    return (
        f"{which} is not positive definite: it has collapsed onto rows that do not span all columns; raise reg_covar, "
        "use fewer components, or drop columns that others determine"
    )


# ---------------------------------------------------------------- vectors


def log_lower(factors: np.ndarray) -> np.ndarray:
    """(..., d(d+1)/2) log-Cholesky coordinates of the covariances whose precisions have the factors U."""
    lower = inverse_lower(np.swapaxes(factors, -1, -2))
    rows, columns, on = _lower_triangle(factors.shape[-1])
    flat = lower[..., rows, columns]
    flat[..., on] = np.log(flat[..., on])
    return flat


def from_log_lower(flat: np.ndarray, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Covariances L Lᵀ and factors U = L⁻ᵀ from log-Cholesky coordinates."""
    rows, columns, on = _lower_triangle(d)
    lower = np.zeros(flat.shape[:-1] + (d, d))
    lower[..., rows, columns] = flat
    diagonal(lower)[...] = np.exp(flat[..., on])
    return lower @ np.swapaxes(lower, -1, -2), transposed(inverse_lower(lower))


def log_lower_scale(factors: np.ndarray) -> np.ndarray:
    """Square roots of the Fisher information of one row about each log-Cholesky coordinate.

    For a direction D in the space of L, with G = L⁻¹ D, the information is |G|² + Σ_i G_ii² (half the
    trace of the square of Σ⁻¹ dΣ).  One entry at (i, j), i > j, gives G the i-th column of L⁻¹ and
    nothing on the diagonal: (Σ⁻¹)_ii.  The logarithm of L_ii gives 1 + L_ii² (Σ⁻¹)_ii.
    """
    d = factors.shape[-1]
    rows, _, on = _lower_triangle(d)
    precision = np.einsum("...ij,...ij->...i", factors, factors)  # diagonal of U Uᵀ
    scale = precision[..., rows]
    scale[..., on] = 1.0 + precision / diagonal(factors) ** 2  # U_ii is 1 / L_ii
    return np.sqrt(scale)
