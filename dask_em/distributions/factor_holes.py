"""A factor analyser on rows with holes, exactly, where values are missing at random.

With o the columns that are observed in a row and λ_j the loadings of column j, the factors given x_o are normal with

    covariance V = (I + Σ_{j in o} λ_j λ_jᵀ / ψ_j)⁻¹   and mean   E[z] = V Σ_{j in o} λ_j (x_j - μ_j) / ψ_j,

and given the factors a column that is missing knows nothing of the others: x_j - μ_j is normal with mean λ_jᵀ z and
variance ψ_j.  So E[(x_j - μ_j) z] = E[z zᵀ] λ_j, and E[(x_j - μ_j)²] = λ_jᵀ E[z zᵀ] λ_j + ψ_j: a row takes d q²
operations, and nothing of size d² is ever made (Little and Rubin 2019, section 11.3; Rubin and Thayer 1982).

All is linear in the second moments of what is observed.  Those of all rows of one pattern of holes do as well as the
rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dask_em.distributions.gaussian_factors import diagonal, unpack
from dask_em.distributions.gaussian_holes import patterns
from dask_em.distributions.gaussian_summary import PatternMoments

TILE = 4096  # rows at a time: what is made of them stays in cache
_NUMBERS = 1 << 18  # of the second moments of some patterns, which are worked out together
_LOG_2PI = float(np.log(2 * np.pi))


class Analyser(NamedTuple):
    """Mean (d,), loadings (d, q) and noise variances (d,) of one factor analyser."""

    mean: np.ndarray
    loadings: np.ndarray
    psi: np.ndarray

    def given(self, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Covariances V (P, q, q) of the factors given the columns seen (P, d), and log norms (P,) of the densities."""
        d, q = self.loadings.shape
        outer = (self.loadings[:, :, None] * self.loadings[:, None, :] / self.psi[:, None, None]).reshape(d, q * q)
        inner = (seen @ outer).reshape(-1, q, q) + np.eye(q)
        norms: np.ndarray = -0.5 * (seen @ (_LOG_2PI + np.log(self.psi)) + np.linalg.slogdet(inner)[1])
        return np.linalg.inv(inner), norms


@dataclass(frozen=True)
class HoledRows:
    """Rows, zero where a value is missing, and their patterns of holes."""

    x: np.ndarray  # (n, d)
    seen: np.ndarray  # (n, d) 1 where a value is observed
    kinds: np.ndarray  # (P, d) the patterns, likewise
    number: np.ndarray  # (n,) of each row's pattern

    @classmethod
    def of(cls, x: np.ndarray) -> HoledRows:
        """Some rows (n, d), NaN where a value is missing."""
        x = np.asarray(x, dtype=np.float64)
        kinds, rows = patterns(x)
        number = np.empty(len(x), dtype=np.intp)
        for p, own in enumerate(rows):
            number[own] = p
        gaps = np.isnan(x)
        return cls(np.where(gaps, 0.0, x), (~gaps).astype(np.float64), kinds.astype(np.float64), number)

    def factors(self, of: Analyser) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Log densities (n,); what is observed less its mean (n, d); means (n, q) and covariances (P, q, q) of z."""
        v, norms = of.given(self.kinds)
        off = (self.x - of.mean) * self.seen
        scaled = off / of.psi
        pull = scaled @ of.loadings
        z = (v[self.number] @ pull[:, :, None])[:, :, 0]
        distance = np.einsum("ij,ij->i", off, scaled) - np.einsum("ij,ij->i", pull, z)
        return norms[self.number] - 0.5 * distance, off, z, v


@dataclass(frozen=True)
class HoledSums:
    """Expected sums of weighted rows: their count, x - μ (d,) and its squares, z (q,), z zᵀ and (x - μ) zᵀ (d, q)."""

    loglik: float
    count: float
    first: np.ndarray
    square: np.ndarray
    factors: np.ndarray
    factor_square: np.ndarray
    cross: np.ndarray

    def __add__(self, other: HoledSums) -> HoledSums:
        return HoledSums(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def about(self, pivot: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sums of x - pivot, of its squares, and of (x - pivot) zᵀ."""
        off = mean - pivot
        first = self.first + self.count * off
        return first, self.square + (self.first + first) * off, self.cross + np.outer(off, self.factors)


def of_rows(analysers: Sequence[Analyser], x: np.ndarray, weight: np.ndarray | None) -> list[HoledSums]:
    """The sums of weighted rows for each of some analysers; x: (n, d), weight: (n,)."""
    totals: list[HoledSums] = []
    for start in range(0, max(len(x), 1), TILE):
        rows = HoledRows.of(x[start : start + TILE])
        own = np.ones(len(rows.x)) if weight is None else np.asarray(weight[start : start + TILE], dtype=np.float64)
        parts = [of_tile(one, rows, own) for one in analysers]
        totals = [a + b for a, b in zip(totals, parts, strict=True)] if totals else parts
    return totals


def of_tile(of: Analyser, rows: HoledRows, weight: np.ndarray) -> HoledSums:
    """The sums of some rows; weight: (n,)."""
    loglik, off, z, v = rows.factors(of)
    weighted, heavy = z * weight[:, None], off * weight[:, None]
    second = (weight[:, None, None] * v[rows.number] + weighted[:, :, None] * z[:, None, :]).reshape(len(z), -1)
    observed = HoledSums(
        float(weight @ loglik),
        float(weight.sum()),
        heavy.sum(axis=0),
        np.einsum("ij,ij->j", heavy, off),
        weighted.sum(axis=0),
        second.sum(axis=0).reshape(v.shape[1:]),
        heavy.T @ z,
    )
    return _completed(of, observed, 1.0 - rows.seen, weight, weighted, second)


def of_patterns(of: Analyser, moments: PatternMoments) -> HoledSums:
    """The sums of rows, from the moments of each of their patterns of holes."""
    assert moments.seen is not None  # it would have been closed to None
    about, d = moments.about(of.mean), len(of.mean)
    step = max(1, _NUMBERS // d**2)
    total: HoledSums | None = None
    for some in (slice(i, i + step) for i in range(0, len(about.counts), step)):
        part = _of_some_patterns(of, moments.seen[some].astype(np.float64), about, some)
        total = part if total is None else total + part
    assert total is not None  # rows with holes have patterns
    return total


def _of_some_patterns(of: Analyser, seen: np.ndarray, about: PatternMoments, some: slice) -> HoledSums:
    v, norms = of.given(seen)
    n, first, second = about.counts[some], about.first[some], unpack(about.second[some], len(of.mean))
    scaled = of.loadings / of.psi[:, None]
    z = (v @ (first @ scaled)[:, :, None])[:, :, 0]  # (P, q) Σ w z
    cross = (second @ scaled) @ v  # (P, d, q) Σ w (x - μ) zᵀ, of what is observed
    factor_square = n[:, None, None] * v + (v @ scaled.T) @ cross
    square = diagonal(second).sum(axis=0)
    sum_cross = cross.sum(axis=0)
    distance = float((square / of.psi).sum() - np.vdot(scaled, sum_cross))
    flat = factor_square.reshape(len(n), -1)
    observed = HoledSums(
        float(n @ norms) - 0.5 * distance,
        float(n.sum()),
        first.sum(axis=0),
        square,
        z.sum(axis=0),
        factor_square.sum(axis=0),
        sum_cross,
    )
    return _completed(of, observed, 1.0 - seen, n, z, flat)


def _completed(
    of: Analyser, observed: HoledSums, gaps: np.ndarray, n: np.ndarray, z: np.ndarray, second: np.ndarray
) -> HoledSums:
    """The sums of what is observed, plus what is expected of the rest.

    gaps: (m, d) 1 where rows, or patterns, miss a column; n (m,), z (m, q) and second (m, q²): Σ w, Σ w z and Σ w z zᵀ
    of each.
    """
    d, q = of.loadings.shape
    missing = gaps.T @ np.column_stack([n, z, second])  # of the rows that miss a column
    cross = (missing[:, 1 + q :].reshape(d, q, q) @ of.loadings[:, :, None])[:, :, 0]
    return HoledSums(
        observed.loglik,
        observed.count,
        observed.first + np.einsum("jq,jq->j", missing[:, 1 : 1 + q], of.loadings),
        observed.square + np.einsum("jq,jq->j", cross, of.loadings) + missing[:, 0] * of.psi,
        observed.factors,
        observed.factor_square,
        observed.cross + cross,
    )
