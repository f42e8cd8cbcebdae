"""The sums that Gaussian components are estimated from, and the moments that they hold.

Sums are about the pivot, which all components share, or about a centre for each component.  One that
is narrow and far from the pivot would lose its variance to cancellation, Σ_k = S_k / N_k - m_k m_kᵀ, if
|m_k| were its distance from the pivot; the E-step then takes the sums about its current mean.  Sums
about different points belong to one vector space all the same: with z' = z + e,

    N' = N,   F' = F + N e,   S' = S + F eᵀ + e Fᵀ + N e eᵀ,

which is linear, so that solvers may add and scale sums that were taken at different parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from dask_em import store
from dask_em.distributions.base import possible_counts
from dask_em.distributions.gaussian_factors import diagonal, pack, unpack
from dask_em.errors import DegenerateError
from dask_em.sums import Sums

_ROUNDING = 1e-12  # of a second moment: what sums of any length may be off by, those of equal rows included
_FAR = 1e-7  # a variance below this share of its second moment is not known well enough to be used as it is
_IMPOSSIBLE = -1e-9  # a share that no rounding explains
_EPS = float(np.finfo(np.float64).eps)


@store.register
@dataclass(frozen=True)
class GaussianStatistics(Sums):
    """Sums of z = x - center_k; `second` is packed: the upper triangle, row by row."""

    counts: np.ndarray  # (K,)
    first: np.ndarray  # (K, d)
    second: np.ndarray  # full (K, d(d+1)/2); tied (d(d+1)/2,); diag (K, d); spherical (K,)
    pivot: np.ndarray  # (d,)
    covariance_type: str = "full"
    center: np.ndarray | None = None  # (K, d); None: the pivot

    def about(self, center: np.ndarray) -> Self:
        """The same sums, about another centre (K, d) or (d,)."""
        e = (self.pivot if self.center is None else self.center) - np.broadcast_to(center, self.first.shape)
        n, kind = self.counts[:, None], self.covariance_type
        first = self.first + n * e
        if kind in ("diag", "spherical"):
            more = (self.first + first) * e
            second = self.second + (more if kind == "diag" else more.sum(axis=1))
        else:
            more = first[:, :, None] * e[:, None, :] + e[:, :, None] * self.first[:, None, :]
            second = self.second + pack(more if kind == "full" else more.sum(axis=0))
        return replace(self, first=first, second=second, center=center)

    def _with(self, other: Self, f: Callable[[Any, Any], Any]) -> Self:
        left, right = self, other
        if not _same(left.center, right.center) or not _same(left.pivot, right.pivot):
            # a component's own centre is the better one wherever one side has it
            center = next((c for c in (left.center, right.center) if c is not None), left.pivot)
            left, right = left.about(center), right.about(center)
        return replace(
            left,
            counts=f(left.counts, right.counts),
            first=f(left.first, right.first),
            second=f(left.second, right.second),
        )


def _same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(a, b))


def moments(stats: GaussianStatistics) -> tuple[np.ndarray, np.ndarray]:
    """Means (K, d) and covariances of the components' sums.

    A component without any weight gets the moments of all rows.

    Raises
    ------
    DegenerateError
        No rows have such sums.
    """
    counts = possible_counts(stats.counts)
    if not counts.all():
        stats = _filled(replace(stats, counts=counts))
    n, kind, d = stats.counts[:, None], stats.covariance_type, stats.first.shape[1]
    m = stats.first / n
    means = m + (stats.pivot if stats.center is None else stats.center)
    floor = (4 * _EPS * (np.abs(means) + np.abs(stats.pivot))) ** 2  # spacing of numbers of that size, squared
    if kind == "full":
        raw = unpack(stats.second / n, d)
        return means, _settled_matrices(raw - m[:, :, None] * m[:, None, :], raw, floor)
    if kind == "tied":
        share, raw = counts / counts.sum(), unpack(stats.second / counts.sum(), d)
        between = (m * share[:, None]).T @ m
        return means, _settled_matrices((raw - between)[None], raw[None], share @ floor)[0]
    if kind == "diag":
        raw = stats.second / n
        return means, _settled(raw - m**2, raw, floor)
    raw = stats.second[:, None] / (n * d)
    square = np.einsum("kj,kj->k", m, m)[:, None] / d
    return means, _settled(raw - square, raw, floor.mean(axis=1, keepdims=True))[:, 0]


def _settled(variances: np.ndarray, raw: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Variances (K, d) that can be worked with, given the second moments that they are differences of.

    Where cancellation left few digits, what rounding may have taken is given back in all columns: the
    covariance stays positive definite, a little wide, and the next E-step, which sees a narrow
    component far away, takes its sums about that component's mean and so finds the variance in full.
    A variance no wider than the spacing of the numbers themselves is none, and becomes zero.
    """
    rough = ~(variances >= _FAR * raw)
    if rough.any():
        impossible = ~(variances >= _IMPOSSIBLE * raw)
        if impossible.any():
            raise DegenerateError(
                f"a component has a variance of {variances[impossible].min():.3g}, which no rows have: a step of the "
                "solver went too far; go on from the last M-step of sums over rows"
            )
        wider = np.maximum(variances, 0.0) + 2 * raw.shape[1] * _ROUNDING * raw
        variances = np.where(rough.any(axis=1, keepdims=True), wider, variances)
    return np.where(variances > floor, variances, 0.0)


def _settled_matrices(covariances: np.ndarray, raw: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Covariances (K, d, d) whose variances are settled; a column whose variance is all rounding goes with none."""
    on, squares = diagonal(covariances), diagonal(raw)
    variances = _settled(on, squares, floor)
    lost = ~(on > _ROUNDING * squares)
    if lost.any():
        covariances[lost[:, :, None] | lost[:, None, :]] = 0.0
    on[...] = variances
    return covariances


def _filled(stats: GaussianStatistics) -> GaussianStatistics:
    """The sums, those of a component without weight being the sums of all, about the pivot."""
    empty = stats.counts == 0
    everything = stats if stats.center is None else stats.about(stats.pivot)

    def fill(own: np.ndarray, of_all: np.ndarray) -> np.ndarray:
        return np.where(empty.reshape((-1,) + (1,) * (own.ndim - 1)), of_all, own)

    tied = stats.covariance_type == "tied"
    return replace(
        stats,
        counts=fill(stats.counts, stats.counts.sum()),
        first=fill(stats.first, everything.first.sum(axis=0)),
        second=stats.second if tied else fill(stats.second, everything.second.sum(axis=0)),
        center=None if stats.center is None else fill(stats.center, stats.pivot),
    )
