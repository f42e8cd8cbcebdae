"""Tables of counts: what sums of any smooth function of counts need, in little memory.

Counts below 64 have a cell each.  Those from 2ᵖ to 2ᵖ⁺¹ share 20 cells, which stand for the Chebyshev nodes of that
interval: a count is divided among them by Lagrange's polynomials, so that Σ r f(x) is the sum of the table's cells
times f at the nodes, but for what interpolation leaves out.  Of log Γ(x+s), whose nearest pole is three half widths
off the middle, that is a share of about (3 + √8)⁻²⁰ ≈ 5e-16 (Trefethen 2013, "Approximation Theory and Approximation
Practice", theorem 8.2).
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

_LOG_EXACT = 6  # counts below 2 to this power have cells of their own
_EXACT = 1 << _LOG_EXACT
_NODES = 20  # cells that share an interval
_ANGLES = (2 * np.arange(_NODES) + 1) * np.pi / (2 * _NODES)
_POINTS = -np.cos(_ANGLES)  # Chebyshev's, from -1 to 1
_BARYCENTRIC = np.sin(_ANGLES) * (-1.0) ** np.arange(_NODES)


def n_cells(largest: float) -> int:
    """Cells of a table that has room for counts up to this one."""
    if largest < _EXACT:
        return _EXACT
    return int(_EXACT + _NODES * (np.frexp(largest)[1] - _LOG_EXACT))


def cell_values(n: int) -> np.ndarray:
    """(n,) the counts, or points between them, that the first n cells stand for."""
    starts = 2.0 ** np.arange(_LOG_EXACT, _LOG_EXACT + (n - _EXACT) // _NODES)
    return np.concatenate([np.arange(_EXACT), (starts[:, None] * (1.5 + 0.5 * _POINTS)).ravel()])


def in_cells(x: np.ndarray, n: int) -> csr_array:
    """(n_rows, n) shares of each count (n_rows,) in the cells."""
    small = x < _EXACT
    if small.all():
        return csr_array((np.ones(len(x)), x.astype(np.int64), np.arange(len(x) + 1)), shape=(len(x), n))
    width = np.where(small, 1, _NODES)
    ends = np.concatenate([[0], np.cumsum(width)])
    columns, shares = np.empty(ends[-1], dtype=np.int64), np.ones(ends[-1])
    columns[ends[:-1][small]] = x[small].astype(np.int64)
    exponent = np.frexp(x[~small])[1]  # 2 to it is the first power above
    to = ends[:-1][~small][:, None] + np.arange(_NODES)
    columns[to] = _EXACT + _NODES * (exponent - 1 - _LOG_EXACT)[:, None] + np.arange(_NODES)
    off = (4 * np.ldexp(x[~small], -exponent) - 3)[:, None] - _POINTS  # from the nodes, in half widths
    at = off == 0
    terms = np.where(at.any(axis=1, keepdims=True), at, _BARYCENTRIC / np.where(at, 1.0, off))
    shares[to] = terms / terms.sum(axis=1, keepdims=True)
    return csr_array((shares, columns, ends), shape=(len(x), n))
