"""Slopes of log-likelihoods along a model's own coordinates, by central differences.

Fisher's identity makes the gradient of a log-likelihood that of the expected one, dQ(phi' | phi)/dphi' at phi' = phi,
so that expected sums give the gradient over all rows; a row's own is that of its log-likelihood.  Coordinates are
those of `Model.to_vector`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from dask_em.model import Chunk, Model, Params

STEP = 1e-4  # of a difference, in units of what one row tells
FLAT = 1e-7  # of the largest curvature, in units of what one row tells: no curvature at all

_TILE = 1 << 21  # numbers of a tile of gradients: 16 MiB


@dataclass(frozen=True)
class Differences:
    """Parameters one step to either side of some others along each coordinate.

    Attributes
    ----------
    model : Model
    above, below : tuple of Params
        One of each for a coordinate.
    steps : ndarray of shape (p,)
    along : ndarray of shape (p,)
        Which coordinates they are.
    """

    model: Model
    above: tuple[Params, ...]
    below: tuple[Params, ...]
    steps: np.ndarray
    along: np.ndarray

    @classmethod
    def about(cls, model: Model, params: Params, along: np.ndarray | None = None) -> Self:
        """Those about some parameters, along some coordinates or all; `DegenerateError` where none are so close."""
        center = model.to_vector(params)
        own = np.arange(len(center)) if along is None else along
        steps = STEP / information_scale(model, params)[own]
        points = [
            [model.from_vector(moved(center, {j: sign * step})) for sign in (1, -1)]
            for j, step in zip(own, steps, strict=True)
        ]
        return cls(model, tuple(a for a, _ in points), tuple(b for _, b in points), steps, own)

    def slope(self, j: int, stats: Any) -> float:
        """That of the expected log-likelihood along one coordinate, given sums."""
        q = self.model.expected_loglik
        return float((q(self.above[j], stats) - q(self.below[j], stats)) / (2 * self.steps[j]))

    def gradient(self, stats: Any) -> np.ndarray:
        """(p,) of the log-likelihood, log prior included, given the expected sums at the parameters."""
        prior = self.model.log_prior
        rise = np.array([prior(a) - prior(b) for a, b in zip(self.above, self.below, strict=True)])
        slopes: np.ndarray = rise / (2 * self.steps) + [self.slope(j, stats) for j in range(len(self.steps))]
        return slopes

    def of_rows(self, x: Any) -> np.ndarray:
        """(n, p) gradients of the rows' own log-likelihoods, for a model that defines `row_loglik`."""
        found = np.empty((x.shape[0], len(self.steps)))
        for j, (a, b) in enumerate(zip(self.above, self.below, strict=True)):
            found[:, j] = self.model.row_loglik(a, x)
            found[:, j] -= self.model.row_loglik(b, x)
        found /= 2 * self.steps
        return found

    def products(self, chunk: Chunk) -> np.ndarray:
        """(p, p) sum over rows of the outer products of their gradients, a tile of rows at a time."""
        p = len(self.steps)
        total = np.zeros((p, p))
        weight = np.ones(chunk.n_rows) if chunk.weight is None else np.asarray(chunk.weight, dtype=np.float64)
        own = np.flatnonzero(weight > 0)  # rows that count for nothing need not be possible
        size = max(1, _TILE // p)
        for start in range(0, len(own), size):
            rows = own[start : start + size]
            scores = self.of_rows(chunk.x[rows])
            total += scores.T @ (scores * weight[rows][:, None])
        return total


def moved(center: np.ndarray, by: Mapping[int, float]) -> np.ndarray:
    """A vector some of whose coordinates are moved."""
    vector = center.copy()
    for j, step in by.items():
        vector[j] += step
    return vector


def information_scale(model: Model, params: Params) -> np.ndarray:
    """(p,) square roots of the information of a row about each coordinate; one, where there is none."""
    scale = model.vector_scale(params)
    return np.where(scale > FLAT * scale.max(initial=1.0), scale, 1.0)
