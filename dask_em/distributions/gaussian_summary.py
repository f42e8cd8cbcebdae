"""One Gaussian needs no more of rows with holes than the moments of each pattern of holes.

Of a pattern with the columns o observed, its weight n, Σ x_o and Σ x_o x_oᵀ say all that a single Gaussian asks
(Little and Rubin 2019, section 11.2): they are gathered in one read, and EM goes on with them alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_em.distributions.gaussian_factors import pack
from dask_em.distributions.gaussian_holes import Filled, marginals, patterns, squares_about
from dask_em.distributions.gaussian_sums import GaussianStatistics
from dask_em.model import Chunk

_BYTES = 1 << 26  # beyond which they are no summary
_NUMBERS = 1 << 19  # of the matrices of some patterns, which are worked out together


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
        left, right = (m.about(np.where(self.seen.any(axis=0), self.center, right.center)) for m in (self, right))
        seen = np.concatenate([self.seen, right.seen])
        kinds, number = np.unique(np.packbits(seen, axis=1), axis=0, return_inverse=True)
        kept = np.unpackbits(kinds, axis=1, count=seen.shape[1]).astype(bool)
        if _too_large(kept):
            return replace(self, rows=rows, seen=None)
        sums = []
        for a, b in ((left.counts, right.counts), (left.first, right.first), (left.second, right.second)):
            total = np.zeros((len(kept), *a.shape[1:]))
            np.add.at(total, number.ravel(), np.concatenate([a, b]))
            sums.append(total)
        return PatternMoments(rows, left.center, kept, *sums)

    def about(self, center: np.ndarray) -> PatternMoments:
        """The same sums, about another point."""
        assert self.seen is not None  # whoever merges has looked
        shift = np.where(self.seen, self.center - center, 0.0)
        first = self.first + self.counts[:, None] * shift
        more = first[:, :, None] * shift[:, None, :] + shift[:, :, None] * self.first[:, None, :]
        return replace(self, center=center, first=first, second=self.second + pack(more))

    def close(self) -> PatternMoments | None:
        """The summary of all rows; None: there is none."""
        return None if self.seen is None else self


def _triangle(d: int) -> int:
    return d * (d + 1) // 2


def _too_large(seen: np.ndarray) -> bool:
    d = seen.shape[1]
    return len(seen) * 8 * (_triangle(d) + d + 1) > _BYTES


def sums_of(moments: PatternMoments, params: Any, pivot: np.ndarray) -> tuple[float, np.ndarray, GaussianStatistics]:
    """Log-likelihood under one Gaussian of the rows summed up, their count, and the sums that its M-step takes."""
    assert moments.seen is not None  # it would have been closed to None
    total = Filled.none(params, "full")
    step = max(1, _NUMBERS // moments.seen.shape[1] ** 2)
    for i in range(0, len(moments.counts), step):
        some = slice(i, i + step)
        seen, n = moments.seen[some], moments.counts[some, None]
        first, second = moments.first[some, None], moments.second[some, None]
        known = marginals(params, "full", seen)
        shift = np.where(seen, moments.center - params.means, 0.0)[:, None]
        norm = known.log_det - 0.5 * np.log(2 * np.pi) * seen.sum(axis=1)[:, None]
        squares = squares_about(first, second, first + n[:, :, None] * shift, shift)
        precisions = known.factor @ np.swapaxes(known.factor, -1, -2)
        total.loglik += float(np.vdot(n, norm) - 0.5 * np.vdot(precisions, squares))
        total.add(n, first, second, shift, known)
    return total.loglik, total.counts, total.statistics(pivot, None)
