"""Moments of rows, block by block: counts, means, squared deviations, extremes and missing values of each column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import issparse

from dask_em import store
from dask_em.model import Chunk

_TILE = 8192  # rows converted to float64 at a time


@store.register
@dataclass(frozen=True)
class Moments:
    """Count, weight and the per-column mean, squared deviations, extremes and missing values of some rows."""

    rows: int
    counted: int  # rows of positive weight; the others have no say in what follows
    weight: float
    observed: np.ndarray  # (d,) weight of the rows whose value is not missing
    mean: np.ndarray  # (d,)
    squares: np.ndarray  # (d,) weighted squared deviations from the mean
    low: np.ndarray  # (d,)
    high: np.ndarray  # (d,)
    missing: np.ndarray  # (d,) NaN values

    @property
    def variance(self) -> np.ndarray:
        """Weighted variance of each column (divided by the weight, not by one less)."""
        return self.squares / np.where(self.observed > 0, self.observed, 1.0)

    def merge(self, right: Moments) -> Moments:
        """Join with the rows that follow (Chan, Golub and LeVeque 1979)."""
        observed = self.observed + right.observed
        share = right.observed / np.where(observed > 0, observed, 1.0)
        apart = right.mean - self.mean
        return Moments(
            self.rows + right.rows,
            self.counted + right.counted,
            self.weight + right.weight,
            observed,
            self.mean + apart * share,
            self.squares + right.squares + apart**2 * share * self.observed,
            np.minimum(self.low, right.low),
            np.maximum(self.high, right.high),
            self.missing + right.missing,
        )


def moments(chunk: Chunk) -> Moments:
    """Moments of the rows of a chunk."""
    if issparse(chunk.x):
        return _moments_of_sparse(chunk.x, chunk.weight)
    total: Moments | None = None
    for i in range(0, chunk.n_rows, _TILE):
        rows = slice(i, i + _TILE)
        part = _moments_of_tile(chunk.x[rows], None if chunk.weight is None else chunk.weight[rows])
        total = part if total is None else total.merge(part)
    assert total is not None  # the engine never maps an empty chunk
    return total


def _moments_of_tile(rows: Any, w: np.ndarray | None) -> Moments:
    n = rows.shape[0]
    if w is not None and not (w > 0).all():  # rows without weight have no say, in the extremes neither
        rows, w = rows[w > 0], w[w > 0]
    x = np.array(rows.T, dtype=np.float64, order="C")  # (d, tile): reductions run along memory
    counted = x.shape[1]
    weight = float(counted) if w is None else float(w.sum())
    gaps = np.isnan(x)
    missing = np.count_nonzero(gaps, axis=1)
    observed = np.full(len(x), weight)
    low, high = x.min(axis=1, initial=np.inf), x.max(axis=1, initial=-np.inf)
    present: Any = 1.0 if w is None else w
    if missing.any():
        present = np.where(gaps, 0.0, present)
        observed = present.sum(axis=1)
        low = np.where(gaps, np.inf, x).min(axis=1, initial=np.inf)
        high = np.where(gaps, -np.inf, x).max(axis=1, initial=-np.inf)
        x[gaps] = 0.0
    if w is None and not missing.any():
        mean = x.sum(axis=1) / max(weight, 1.0)
        x -= mean[:, None]
        squares = np.einsum("ij,ij->i", x, x)
    else:
        mean = (x * present).sum(axis=1) / np.where(observed > 0, observed, 1.0)
        squares = ((x - mean[:, None]) ** 2 * present).sum(axis=1)
    return Moments(n, counted, weight, observed, mean, squares, low, high, missing)


def _moments_of_sparse(rows: Any, w: np.ndarray | None) -> Moments:
    """Those of rows of which most values are zero, from the others; none is missing."""
    n, d = rows.shape
    own = np.ones(n) if w is None else np.asarray(w, dtype=np.float64)
    rows, own = rows[own > 0], own[own > 0]
    counted, weight = rows.shape[0], float(own.sum())
    each, column, x = np.repeat(own, np.diff(rows.indptr)), rows.indices, rows.data.astype(np.float64)
    mean = np.bincount(column, each * x, d) / max(weight, np.finfo(float).tiny)
    zeros = weight - np.bincount(column, each, d)
    squares = np.bincount(column, each * (x - mean[column]) ** 2, d) + np.maximum(zeros, 0.0) * mean**2
    bound = np.where(np.bincount(column, minlength=d) < counted, 0.0, np.inf)  # of columns that have a zero
    low, high = bound.copy(), -bound
    np.minimum.at(low, column, x)
    np.maximum.at(high, column, x)
    return Moments(n, counted, weight, np.full(d, weight), mean, squares, low, high, np.zeros(d, dtype=np.intp))
