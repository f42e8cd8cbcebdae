"""One Gaussian needs no more of rows with holes than the moments of each pattern of holes.

Of a pattern with the columns o observed, its weight n, Σ x_o and Σ x_o x_oᵀ say all that a single Gaussian asks
(Little and Rubin 2019, section 11.2): they are gathered in one read, and EM goes on with them alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_em.distributions.gaussian_conditionals import by_number_missing, conditionals
from dask_em.distributions.gaussian_factors import pack, unpack
from dask_em.distributions.gaussian_holes import patterns
from dask_em.distributions.gaussian_sums import GaussianStatistics
from dask_em.model import Chunk

_BYTES = 1 << 26  # beyond which they are no summary
_NUMBERS = 1 << 18  # of the matrices of some patterns, which are worked out together


@dataclass(frozen=True)
class PatternMoments:
    """Sums of z = x - center by pattern of holes, zero where a column is missing; `seen` None: they became too many."""

    rows: int
    center: np.ndarray  # (d,)
    seen: np.ndarray | None  # (P, d) bool, in order
    counts: np.ndarray  # (P,)
    first: np.ndarray  # (P, d)
    second: np.ndarray  # (P, d(d+1)/2) upper triangles, row by row

    @classmethod
    def of(cls, chunk: Chunk) -> PatternMoments:
        """The moments of the patterns of a chunk."""
        x = np.asarray(chunk.x, dtype=np.float64)
        w = np.ones(len(x)) if chunk.weight is None else np.asarray(chunk.weight, dtype=np.float64)
        present = ~np.isnan(x)
        n = present.sum(axis=0)
        center = np.where(present, x, 0.0).sum(axis=0) / np.maximum(n, 1)
        seen, rows = patterns(x)
        if _too_large(seen):
            return cls(len(x), center, None, *(np.zeros(0),) * 3)
        z = np.where(present, x - center, 0.0)
        counts, first = np.empty(len(rows)), np.empty(seen.shape)
        second = np.empty((len(rows), _triangle(x.shape[1])))
        for p, own in enumerate(rows):
            y, weight = z[own], w[own]
            weighted = y * weight[:, None]
            counts[p], first[p], second[p] = weight.sum(), weighted.sum(axis=0), pack(weighted.T @ y)
        return cls(len(x), center, seen, counts, first, second)

    @property
    def n_rows(self) -> int:
        """Rows summed up."""
        return self.rows

    @property
    def weight(self) -> float:
        """Sum of their weights."""
        return float(self.counts.sum())

    def merge(self, right: PatternMoments) -> PatternMoments:
        """Join with the rows that follow."""
        rows = self.rows + right.rows
        if self.seen is None or right.seen is None:
            return replace(self, rows=rows, seen=None)
        # a column of which the left has seen nothing has no centre there yet
        center = np.where(self.seen.any(axis=0), self.center, right.center)
        left, right = (m.about(center) for m in (self, right))
        seen = np.concatenate([self.seen, right.seen])
        kinds, number = np.unique(np.packbits(seen, axis=1), axis=0, return_inverse=True)
        kept = np.unpackbits(kinds, axis=1, count=seen.shape[1]).astype(bool)
        if _too_large(kept):
            return replace(self, rows=rows, seen=None)
        of_left, of_right = np.split(number.ravel(), [len(left.counts)])
        sums = []
        for a, b in ((left.counts, right.counts), (left.first, right.first), (left.second, right.second)):
            total = np.zeros((len(kept), *a.shape[1:]))
            total[of_left] = a
            total[of_right] += b
            sums.append(total)
        return PatternMoments(rows, left.center, kept, *sums)

    def about(self, center: np.ndarray) -> PatternMoments:
        """The same sums, about another point."""
        assert self.seen is not None  # whoever merges has looked
        if np.array_equal(center, self.center):
            return self
        shift = np.where(self.seen, self.center - center, 0.0)
        first = self.first + self.counts[:, None] * shift
        i, j = np.triu_indices(len(center))
        second = self.second + first[:, i] * shift[:, j] + shift[:, i] * self.first[:, j]
        return replace(self, center=center, first=first, second=second)

    def close(self) -> PatternMoments | None:
        """The summary of all rows; None: there is none."""
        return None if self.seen is None else self


def _triangle(d: int) -> int:
    return d * (d + 1) // 2


def _too_large(seen: np.ndarray) -> bool:
    d = seen.shape[1]
    return len(seen) * 8 * (_triangle(d) + d + 1) > _BYTES


def sums_of(
    moments: PatternMoments, params: Any, pivot: np.ndarray, covariance_type: str
) -> tuple[float, np.ndarray, GaussianStatistics]:
    """Log-likelihood under one Gaussian of the rows summed up, their count, and the sums that its M-step takes.

    Filled up by their means given z_o, rows have z Λ z = z_o Σ_oo⁻¹ z_o: the sums of filled rows give the densities
    of what is observed, too; and log |Σ_oo| = log |Σ| + log |Λ_mm|.
    """
    assert moments.seen is not None  # it would have been closed to None
    mean, n = params.means[0], moments.counts
    d = len(mean)
    u = _factor(params.precisions_cholesky, covariance_type, d)
    about = moments.about(mean)
    first, second = about.first.sum(axis=0), unpack(about.second.sum(axis=0), d)
    left = np.zeros((d, d))  # covariances of what is missing
    log_norm = n.sum() * np.log(np.diagonal(u)).sum() - 0.5 * np.log(2 * np.pi) * (n @ moments.seen.sum(axis=1))
    for some, missing in by_number_missing(moments.seen, _NUMBERS):
        known, weight = conditionals(u, missing), n[some, None, None]
        rows, columns = missing[:, :, None], missing[:, None, :]
        lines = known.slope @ unpack(about.second[some], d)  # (P, m, d) Σ z_m z_oᵀ
        np.add.at(first, missing, (known.slope @ about.first[some, :, None])[:, :, 0])
        across = np.zeros((d, d))
        np.add.at(across, missing, lines)
        second += across + across.T
        np.add.at(second, (rows, columns), lines @ np.swapaxes(known.slope, -1, -2))
        np.add.at(left, (rows, columns), weight * (known.spread @ np.swapaxes(known.spread, -1, -2)))
        log_norm -= 0.5 * float(n[some] @ known.log_det)
    loglik = float(log_norm - 0.5 * np.vdot(second @ u, u))
    counts = n.sum(keepdims=True)
    sums = GaussianStatistics(
        counts, first[None], _kept(second + left, covariance_type), pivot, covariance_type, params.means
    )
    return loglik, counts, replace(sums.about(pivot), center=None)


def _factor(factors: np.ndarray, covariance_type: str, d: int) -> np.ndarray:
    """U (d, d) of a single component."""
    if covariance_type in ("full", "tied"):
        return factors.reshape(d, d)
    return np.diag(np.broadcast_to(factors.ravel(), d))


def _kept(second: np.ndarray, covariance_type: str) -> np.ndarray:
    """What the statistics of a single component keep of second moments (d, d)."""
    if covariance_type in ("full", "tied"):
        return pack(second) if covariance_type == "tied" else pack(second)[None]
    on = np.diagonal(second)
    return on[None].copy() if covariance_type == "diag" else on.sum(keepdims=True)
