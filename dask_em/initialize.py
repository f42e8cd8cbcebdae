"""The first pass: the census of the data, and a resident random sample of its rows.

Both are one request.  The sample keeps the rows with the smallest hashes of (seed, block, row),
so it depends neither on the order in which blocks arrive nor on who reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_em.engine import Witness, one_pass
from dask_em.errors import DataError
from dask_em.model import Chunk, Executor, Source

_TILE = 8192  # rows converted to float64 at a time


@dataclass(frozen=True)
class Moments:
    """Count, weight and the per-column mean, squared deviations, extremes and missing values of some rows."""

    rows: int
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
            self.weight + right.weight,
            observed,
            self.mean + apart * share,
            self.squares + right.squares + apart**2 * share * self.observed,
            np.minimum(self.low, right.low),
            np.maximum(self.high, right.high),
            self.missing + right.missing,
        )


@dataclass(frozen=True)
class Sample:
    """The rows with the smallest hashes so far, at most `capacity` of them."""

    capacity: int
    keys: np.ndarray  # (m,) uint64
    x: np.ndarray  # (m, d), the data's own dtype
    weight: np.ndarray | None  # (m,)

    def merge(self, right: Sample) -> Sample:
        """The smallest of both."""
        w = None
        if self.weight is not None and right.weight is not None:
            w = np.concatenate([self.weight, right.weight])
        both = Sample(self.capacity, np.concatenate([self.keys, right.keys]), np.concatenate([self.x, right.x]), w)
        return both._take(np.argpartition(both.keys, self.capacity)[: self.capacity]) if self._full(both) else both

    def close(self) -> Chunk:
        """The sample as a chunk, its rows in order of hash, so that any first part of it is a sample too."""
        done = self._take(np.argsort(self.keys, kind="stable"))
        return Chunk(np.ascontiguousarray(done.x), done.weight)

    def _full(self, both: Sample) -> bool:
        return len(both.keys) > self.capacity

    def _take(self, which: np.ndarray) -> Sample:
        return Sample(
            self.capacity, self.keys[which], self.x[which], None if self.weight is None else self.weight[which]
        )


@dataclass(frozen=True)
class CensusPartial:
    """Moments and sample of some rows."""

    moments: Moments
    sample: Sample

    def merge(self, right: CensusPartial) -> CensusPartial:
        """Join with the rows that follow."""
        return CensusPartial(self.moments.merge(right.moments), self.sample.merge(right.sample))

    def close(self) -> tuple[Moments, Chunk]:
        """The moments of all rows, and the sample."""
        return self.moments, self.sample.close()


@dataclass(frozen=True)
class CensusRequest:
    """Asks for moments and a sample.

    Parameters
    ----------
    capacity : int
        Rows of the sample, at most.
    seed : int
    n_rows : int, optional
        Rows of the data, where known: blocks then keep only their share.
    accepts_nan : bool
    """

    capacity: int
    seed: int
    n_rows: int | None = None
    accepts_nan: bool = False

    def map(self, chunk: Chunk) -> CensusPartial:
        """One block's moments, and the rows that may end in the sample."""
        keys = hashes(self.seed, chunk.block, chunk.n_rows)
        own = keys <= self._threshold()
        if chunk.weight is not None:
            own &= chunk.weight > 0
        rows = np.flatnonzero(own)
        if len(rows) > self.capacity:
            rows = np.sort(rows[np.argpartition(keys[rows], self.capacity)[: self.capacity]])
        w = None if chunk.weight is None else np.asarray(chunk.weight[rows], dtype=np.float64)
        sample = Sample(self.capacity, keys[rows], np.asarray(chunk.x[rows]), w)
        return CensusPartial(moments(chunk), sample)

    def _threshold(self) -> np.uint64:
        # all blocks together keep the capacity and six standard deviations more, which `merge` cuts off
        share = 1.0
        if self.n_rows:
            share = min(1.0, (self.capacity + 6 * self.capacity**0.5 + 16) / self.n_rows)
        return np.uint64(2**64 - 1) if share >= 1 else np.uint64(int(share * 2**64))


def hashes(seed: int, block: int, n_rows: int) -> np.ndarray:
    """(n_rows,) uint64, uniform and fixed by (seed, block, row): SplitMix64 (Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        start = _mix(_mix(np.array([seed % 2**64], np.uint64)) + np.uint64(block))
        return _mix(start + np.arange(n_rows, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def _mix(z: np.ndarray) -> np.ndarray:
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def moments(chunk: Chunk) -> Moments:
    """Moments of the rows of a chunk."""
    total: Moments | None = None
    for i in range(0, chunk.n_rows, _TILE):
        rows = slice(i, i + _TILE)
        part = _moments_of_tile(chunk.x[rows], None if chunk.weight is None else chunk.weight[rows])
        total = part if total is None else total.merge(part)
    assert total is not None  # the engine never maps an empty chunk
    return total


def _moments_of_tile(rows: Any, w: np.ndarray | None) -> Moments:
    x = np.array(rows.T, dtype=np.float64, order="C")  # (d, tile): reductions run along memory
    n = x.shape[1]
    weight = float(n) if w is None else float(w.sum())
    gaps = np.isnan(x)
    missing = np.count_nonzero(gaps, axis=1)
    if missing.any():
        x[gaps] = 0.0
        present = np.where(gaps, 0.0, 1.0 if w is None else w)
        observed = present.sum(axis=1)
        mean = (x * present).sum(axis=1) / np.where(observed > 0, observed, 1.0)
        squares = ((x - mean[:, None]) ** 2 * present).sum(axis=1)
        low = np.where(gaps, np.inf, x).min(axis=1)
        high = np.where(gaps, -np.inf, x).max(axis=1)
        return Moments(n, weight, observed, mean, squares, low, high, missing)
    low, high = x.min(axis=1), x.max(axis=1)
    observed = np.full(len(x), weight)
    if w is None:
        mean = x.mean(axis=1)
        x -= mean[:, None]
        squares = np.einsum("ij,ij->i", x, x)
    else:
        mean = x @ w / weight if weight > 0 else np.zeros(len(x))
        x -= mean[:, None]
        squares = (x * x) @ w
    return Moments(n, weight, observed, mean, squares, low, high, missing)


@dataclass(frozen=True)
class Census:
    """What the first pass says of the data."""

    moments: Moments
    witness: Witness
    record: dict[str, Any]  # its line of the fit's history


def take_census(
    source: Source, executor: Executor, *, sample_rows: int, seed: int, accepts_nan: bool = False, progress: Any = None
) -> tuple[Census, Chunk]:
    """Read the data once for its moments and a random sample of its rows.

    Raises
    ------
    DataError
        No rows, only weights of zero, a column without any value, or values too large for arithmetic.
    """
    request = CensusRequest(sample_rows, seed, source.n_rows, accepts_nan)
    result = one_pass(source, [request], executor, progress=progress)
    found, sample = result.answers[0]
    _refuse_hopeless(found, source)
    record = {
        "pass": 1,
        "kind": "census",
        "loglik": None,
        "gain": None,
        "runs": 0,
        "rows": result.rows,
        "seconds": result.seconds,
        "seconds_read": result.seconds_read,
        "seconds_compute": result.seconds_compute,
    }
    return Census(found, Witness(result.rows, result.checksum), record), sample


def _refuse_hopeless(found: Moments, source: Source) -> None:
    def name(j: int) -> str:
        return f"column {j}" if source.feature_names is None else f"column {source.feature_names[j]!r}"

    if not found.weight > 0:
        raise DataError(f"all {found.rows} weights are zero: no row counts; give positive weights")
    void = np.flatnonzero(found.observed <= 0)
    if len(void):
        raise DataError(f"{name(int(void[0]))} has no value in any of {found.rows} rows: leave it out with columns=")
    with np.errstate(over="ignore", invalid="ignore"):
        wild = np.flatnonzero(~np.isfinite(found.squares))
    if len(wild):
        j = int(wild[0])
        raise DataError(
            f"{name(j)} runs from {found.low[j]:.3g} to {found.high[j]:.3g}, too far for squares in double precision: "
            "scale it or take logarithms"
        )
