"""What factor analysis needs of rows, some with holes: second moments of whole rows, and of each pattern of holes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dask_em.distributions.gaussian_holes import has_holes
from dask_em.distributions.gaussian_summary import PatternMoments
from dask_em.kernels.second_moments import SecondMoments
from dask_em.model import Chunk


@dataclass(frozen=True)
class FactorSummary:
    """Moments of the rows without holes, and of those with; None: there is none of these."""

    whole: SecondMoments
    holed: PatternMoments | None

    @classmethod
    def of(cls, chunk: Chunk) -> FactorSummary:
        """The moments of a chunk."""
        whole, holed = parted(chunk)
        return cls(SecondMoments.of(whole), None if holed is None else PatternMoments.of(holed))

    @property
    def weight(self) -> float:
        """Sum of the rows' weights."""
        return self.whole.weight + (0.0 if self.holed is None else self.holed.weight)

    def merge(self, right: FactorSummary) -> FactorSummary:
        """Join with the rows that follow."""
        whole = self.whole.merge(right.whole)
        if self.holed is None or right.holed is None:
            return FactorSummary(whole, right.holed if self.holed is None else self.holed)
        return FactorSummary(whole, self.holed.merge(right.holed))

    def close(self) -> FactorSummary | None:
        """The summary of all rows; None: there are too many patterns of holes."""
        return self if self.holed is None or self.holed.close() is not None else None

    def observed(self) -> tuple[np.ndarray, np.ndarray]:
        """Which columns (P, d) the patterns observe, that of whole rows first, and the weights (P,) of their rows."""
        seen, counts = np.ones((1, len(self.whole.mean))), np.array([self.whole.weight])
        if self.holed is None or self.holed.seen is None:
            return seen, counts
        return np.concatenate([seen, self.holed.seen]), np.concatenate([counts, self.holed.counts])


def parted(chunk: Chunk) -> tuple[Chunk, Chunk | None]:
    """The rows without holes and those with; None: there is none of these."""
    if not has_holes(chunk.x):
        return chunk, None
    gaps = np.isnan(chunk.x).any(axis=1)
    whole, holed = (
        replace(chunk, x=chunk.x[own], weight=None if chunk.weight is None else chunk.weight[own], sequence=None)
        for own in (~gaps, gaps)
    )
    return whole, holed
