"""Rows with holes, filled up by what one Gaussian makes of the rest of the row: means, or draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from dask_em.distributions.gaussian import GaussianParams
from dask_em.distributions.gaussian_conditionals import Conditionals, by_number_missing, conditionals
from dask_em.distributions.gaussian_holes import has_holes, patterns

Noise = Callable[[np.ndarray, np.ndarray], np.ndarray]  # rows (n,), columns (n, m) -> (n, m) standard normal numbers
_NUMBERS = 1 << 18  # of an intermediate array: it stays in cache


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
    for rows, pattern, known in _alike(params, x):
        columns = known.missing[pattern]
        z = x[rows].astype(np.float64) - mean
        z[np.isnan(z)] = 0.0
        values = (known.slope[pattern] @ z[:, :, None])[:, :, 0]
        if noise is not None:
            values += (known.spread[pattern] @ noise(rows, columns)[:, :, None])[:, :, 0]
        out[rows[:, None], columns] = mean[columns] + values
    return out


def imputed_dtype(of: np.dtype) -> np.dtype:
    """The type that filled rows have, given that of the rows."""
    return np.dtype(np.float32 if of == np.float32 else np.float64)


def _alike(params: GaussianParams, x: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, Conditionals]]:
    """Some rows (n,) that miss equally many columns, the pattern of each, and what follows for the patterns."""
    seen, of_pattern = patterns(x)
    for which, missing in by_number_missing(seen, _NUMBERS):
        known = conditionals(params.precisions_cholesky[0], missing)
        rows = np.concatenate([of_pattern[p] for p in which])
        number = np.repeat(np.arange(len(which)), [len(of_pattern[p]) for p in which])
        step = max(1, _NUMBERS // missing.shape[1] // x.shape[1])
        for i in range(0, len(rows), step):
            yield rows[i : i + step], number[i : i + step], known
