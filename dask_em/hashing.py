"""Rows are chosen by hashing where they are, so that the choice depends on no order and on nobody who reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import issparse

from dask_em.model import Chunk


def hashes(seed: int, block: int, n_rows: int) -> np.ndarray:
    """(n_rows,) uint64, uniform and fixed by (seed, block, row): SplitMix64 (Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        start = _mix(_mix(np.array([seed % 2**64], np.uint64)) + np.uint64(block))
        return _mix(start + np.arange(n_rows, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def priorities(seed: int, chunk: Chunk) -> np.ndarray:
    """(n_rows,) a uniform hash over each row's weight: the smallest are a sample in proportion to weight."""
    u = (hashes(seed, chunk.block, chunk.n_rows) + 0.5) * 2.0**-64
    if chunk.weight is None:
        return u
    with np.errstate(divide="ignore", over="ignore"):
        keys: np.ndarray = u / chunk.weight
    return keys


def stretch_priorities(seed: int, chunk: Chunk, rows: int) -> np.ndarray:
    """(n_rows,) as `priorities`, the same for all rows of a stretch: so many of one sequence, one after another.

    Whole sequences, where they are shorter.
    """
    n, ids = chunk.n_rows, chunk.sequence
    begins = np.zeros(n, dtype=bool)
    begins[:1] = True
    if ids is not None:
        begins[1:] = ids[1:] != ids[:-1]
    firsts = np.flatnonzero(begins)
    at = np.arange(n) - firsts[np.cumsum(begins) - 1] if n else np.arange(0)  # rows since the sequence began
    begins |= at % rows == 0
    keys: np.ndarray = priorities(seed, chunk)[begins][np.cumsum(begins) - 1]
    return keys


def normals(seed: int, draw: int, block: int | None, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Standard normal numbers (n, m), each fixed by (seed, draw, row, column), as `uniforms`."""
    from scipy.special import ndtri

    normal: np.ndarray = ndtri(uniforms(seed, draw, block, rows, columns))
    return normal


def uniforms(seed: int, draw: int, block: int | None, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Numbers (n, m) between zero and one, neither included, each fixed by (seed, draw, row, column).

    Parameters
    ----------
    seed, draw : int
    block : int or None
        None: rows are numbered through all the data. Else within this block.
    rows : ndarray of shape (n,)
    columns : ndarray of shape (n, m)
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        start = _mix(_mix(np.array([seed % 2**64], np.uint64)) + np.uint64(draw))
        start = _mix(start + np.uint64(0 if block is None else block + 1))
        of_row = _mix(start + rows.astype(np.uint64) * golden)
        found = _mix(of_row[:, None] + (columns.astype(np.uint64) + np.uint64(1)) * golden)
    uniform: np.ndarray = ((found >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return uniform


def row_keys(seed: int, x: Any) -> np.ndarray:
    """(n,) uint64 hashes of what rows hold, an array or a csr_array: the same for both, and whatever the dtype.

    Each is a sum over the columns that are not zero, of a hash of the column and the value; missing values are alike.
    """
    n, d = x.shape
    with np.errstate(over="ignore"):
        columns = _mix(_mix(np.array([seed], np.uint64)) + np.arange(d, dtype=np.uint64))
        if issparse(x):
            terms = _term(columns[x.indices], np.asarray(x.data, dtype=np.float64))
            sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
            return np.asarray(sums[x.indptr[1:]] - sums[x.indptr[:-1]])
        keys = np.zeros(n, dtype=np.uint64)
        for j in range(d):
            keys += _term(columns[j], np.asarray(x[:, j], dtype=np.float64))
    return keys


def _term(column: Any, value: np.ndarray) -> np.ndarray:
    value = np.where(np.isnan(value), np.nan, value)
    return np.where(value == 0, np.uint64(0), _mix(value.view(np.uint64) ^ column))


def _mix(z: np.ndarray) -> np.ndarray:
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@dataclass(frozen=True)
class Fold:
    """A share of the rows, drawn at random and for good.

    Parameters
    ----------
    seed : int
    share : float
        Of the rows that are held out, between 0 and 1.
    """

    seed: int
    share: float

    def holds(self, block: int, n_rows: int) -> np.ndarray:
        """(n_rows,) bool: which rows of a block are held out."""
        return hashes(self.seed ^ 0x5DEECE66D, block, n_rows) < np.uint64(int(self.share * 2**64))

    def split(self, chunk: Chunk) -> tuple[Chunk, Chunk]:
        """The rows to learn from, and those that are held out; the others weigh nothing in each."""
        held = self.holds(chunk.block, chunk.n_rows)
        w = np.ones(chunk.n_rows) if chunk.weight is None else np.asarray(chunk.weight, dtype=np.float64)
        return replace(chunk, weight=np.where(held, 0.0, w)), replace(chunk, weight=np.where(held, w, 0.0))


@dataclass(frozen=True)
class Resampling:
    """One of many data sets that are drawn from the rows with replacement: each counts a Poisson number of times.

    For many rows that is the bootstrap, and no row need know of another (Chamandy et al. 2012).

    Parameters
    ----------
    seed, number : int
        Which data set.
    counts : bool
        Whether weights say how many rows there are of a kind, which are then drawn each by itself. Else a row that
        is drawn has its weight.
    """

    seed: int
    number: int
    counts: bool

    def resampled(self, chunk: Chunk) -> Chunk:
        """The rows, weighted by how often they were drawn."""
        own = int(_mix(_mix(np.array([self.seed % 2**64], np.uint64)) ^ np.uint64(self.number))[0])
        u = (hashes(own, chunk.block, chunk.n_rows) >> np.uint64(11)) * 2.0**-53
        if chunk.weight is not None and self.counts:
            from scipy.stats import poisson

            drawn = np.maximum(poisson.ppf(u, chunk.weight), 0.0)
        else:
            drawn = np.searchsorted(_POISSON_1, u, side="right").astype(np.float64)
            if chunk.weight is not None:
                drawn *= chunk.weight
        return replace(chunk, weight=drawn)


_POISSON_1 = np.cumsum(np.exp(-1.0) / np.cumprod([1.0, *range(1, 19)]))  # its distribution function, to the last digit
