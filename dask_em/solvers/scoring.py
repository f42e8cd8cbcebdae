"""Fisher scoring: the slope of all rows, and how fast a sample of them says that it falls.

With g the gradient of the log-likelihood at some parameters, which full sums give, and I the sum over rows of the outer
products of the rows' own gradients, which a random sample estimates, a maximum is about ½ gᵀ I⁻¹ g nats away, in the
direction I⁻¹ g (Meilijson 1989; McLachlan and Peel 2000, section 2.15).  I is no worse known along flat directions than
along others, relative to its size, since outer products cannot cancel: that makes it an honest judge of runs that
hardly move.  Where the model fits badly I is not the curvature; steps are then taken from I as the slopes at all
points looked at correct it (BFGS, damped as by Powell 1978).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from dask_em.gradients import FLAT, STEP, Differences
from dask_em.model import Model, Params, Resident, Statistics
from dask_em.solvers.anderson import parameters_at

_ROWS = (1024, 4)  # of the sample, and so many more for each coordinate
_FEWEST = 4  # rows for each coordinate: fewer say too little
_LARGEST = 1000  # coordinates: their products would be large
_IMPOSSIBLE = 1e3  # times the information that a row with nothing hidden has
_POWELL = 0.2  # share of the curvature known before that a correction leaves at least

Slope = tuple[np.ndarray, np.ndarray]  # a point (p,), and the gradient of the log-likelihood of all rows there


def sample_rows(n_coordinates: int, resident: Resident) -> int:
    """Rows of the sample that the information is estimated from; none where it cannot be."""
    if n_coordinates > _LARGEST or resident.rows < _FEWEST * n_coordinates:
        return 0
    return min(resident.rows, _ROWS[0] + _ROWS[1] * n_coordinates)


def slope_at(near: Differences, stats: Statistics) -> np.ndarray:
    """The gradient (p,) at some parameters, given the sums of all rows there.

    At a bound, or where the M-step is not the exact maximum, the slope is not zero where the M-step leads: what is left
    of it there pulls against the bound, and is taken off.
    """
    slope, model = near.gradient(stats), near.model
    if model.exact_m_step and not model.bounded:
        return slope
    return slope - Differences.about(model, model.m_step(stats)).gradient(stats)


@dataclass(frozen=True)
class Scoring:
    """What slopes and a sample say of the way from a point to the maximum.

    Attributes
    ----------
    model : Model
    vector, scale : ndarray of shape (p,)
        The point, and the units of its coordinates.
    gain : float
        Nats to the maximum.
    values, ways : ndarray of shape (p,), (p, p)
        Curvatures, a unit of weight, along the columns of `ways`.
    slopes : ndarray of shape (p,)
        Along the same, a unit of weight.
    """

    model: Model
    vector: np.ndarray
    scale: np.ndarray
    gain: float
    values: np.ndarray
    ways: np.ndarray
    slopes: np.ndarray

    @classmethod
    def at(
        cls, near: Differences, own: Slope, weight: float, resident: Resident, others: Sequence[Slope] = ()
    ) -> Self | None:
        """At a point, given the slope there and at others, and the weight of all rows; None: the rows do not tell.

        near: parameters about the point.
        """
        vector, slope = own
        sample = resident.first(sample_rows(len(vector), resident)).chunk
        if not sample.n_rows or near.model.row_loglik(near.above[0], sample.x[:1]) is None:
            return None
        scale = STEP / near.steps
        of_sample = sample.n_rows if sample.weight is None else float(sample.weight.sum())
        information = near.products(sample) / of_sample / np.outer(scale, scale)
        unit = scale * weight
        # a row tells no more than it would if nothing were hidden: differences that say so left the neighbourhood
        lost = ~(np.isfinite(slope) & (np.diagonal(information) < _IMPOSSIBLE))
        information[lost] = information[:, lost] = 0.0
        slope = np.where(lost, 0.0, slope / unit)
        values, ways = np.linalg.eigh(information)
        known = values > FLAT * values.max(initial=0.0)
        along = ways.T @ slope
        gain = 0.5 * weight * float((along[known] ** 2 / values[known]).sum())
        pairs = [
            (np.where(lost, 0.0, (vector - v) * scale), np.where(lost, 0.0, s / unit - slope))
            for v, s in others
            if not np.array_equal(v, vector)
        ]
        values, ways = np.linalg.eigh(_corrected(information, pairs))
        return cls(near.model, vector, scale, gain, values, ways, ways.T @ slope)

    def step(self, damping: float) -> Params | None:
        """Where the corrected curvature, and so much more of it in all directions, leads; None: nowhere."""
        way = self.ways @ (self.slopes / (np.maximum(self.values, 0.0) + damping)) / self.scale
        return parameters_at(self.model, self.vector + way)


def _corrected(curvature: np.ndarray, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The curvature, corrected so that along moves the slope falls by what it did; the longest move first."""
    for move, fall in sorted(pairs, key=lambda pair: -float(pair[0] @ curvature @ pair[0])):
        image = curvature @ move
        known, found = float(move @ image), float(move @ fall)
        if not (known > 0 and np.isfinite(fall).all()):
            continue
        if found < _POWELL * known:
            share = (1 - _POWELL) * known / (known - found)
            fall, found = share * fall + (1 - share) * image, _POWELL * known
        curvature = curvature - np.outer(image, image) / known + np.outer(fall, fall) / found
    return curvature
