"""Weight, mean and second central moments of rows: all that a Gaussian with complete data needs of them.

Parts are joined exactly (Chan, Golub and LeVeque 1983): with δ the difference of two means,

    C = C₁ + C₂ + W₁ W₂ / (W₁ + W₂) δ δᵀ,

so that no large mean costs a digit, and the order of the rows none either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dask_em.model import Chunk

_TILE_BYTES = 1 << 21  # of a tile in float64: it stays in cache from its conversion to its product
_FEWEST_ROWS = 256  # of a tile: products of fewer rows cost more in memory for the sums than in arithmetic


@dataclass(frozen=True)
class SecondMoments:
    """Weight, mean (d,) and sum of weighted outer products about the mean (d, d) of some rows."""

    weight: float
    mean: np.ndarray
    central: np.ndarray

    @classmethod
    def of(cls, chunk: Chunk) -> SecondMoments:
        """Those of a chunk without missing values, in tiles: no copy of all of it is made."""
        n, d = chunk.x.shape
        tile = max(_FEWEST_ROWS, _TILE_BYTES // (8 * d))
        total = cls(0.0, np.zeros(d), np.zeros((d, d)))
        for start in range(0, n, tile):
            rows = slice(start, start + tile)
            total = total.merge(_of_tile(chunk.x[rows], None if chunk.weight is None else chunk.weight[rows]))
        return total

    @property
    def covariance(self) -> np.ndarray:
        """(d, d) second central moments a unit of weight: the maximum likelihood estimate."""
        return self.central / self.weight

    def merge(self, right: SecondMoments) -> SecondMoments:
        """Join with other rows."""
        if not self.weight or not right.weight:
            return self if self.weight else right
        weight = self.weight + right.weight
        apart = right.mean - self.mean
        share = right.weight / weight
        between = (self.weight * share) * np.outer(apart, apart)
        return SecondMoments(weight, self.mean + share * apart, self.central + right.central + between)

    def close(self) -> SecondMoments:
        """Finished at any time."""
        return self

    def about(self, point: np.ndarray) -> np.ndarray:
        """(d, d) sum of weighted outer products about another point."""
        off = self.mean - point
        return self.central + self.weight * np.outer(off, off)


def _of_tile(rows: np.ndarray, weight: np.ndarray | None) -> SecondMoments:
    x = np.array(rows, dtype=np.float64, order="C")
    if weight is None:
        total = float(len(x))
        mean = x.sum(axis=0) / total
        x -= mean
    else:
        w = np.asarray(weight, dtype=np.float64)
        total = float(w.sum())
        mean = w @ x / (total or 1.0)
        x -= mean
        x *= np.sqrt(w)[:, None]
    return SecondMoments(total, mean, x.T @ x)  # a product with its own transpose: BLAS does half of it
