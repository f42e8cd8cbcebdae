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
from dask_em.model import Sums

_ROUNDING = 1e-13  # of a second moment: what sums of any length may be off by


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


def moments(stats: GaussianStatistics, reg_covar: float) -> tuple[np.ndarray, np.ndarray]:
    """Means (K, d) and covariances of the components' sums, `reg_covar` added to the variances.

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
    if kind == "full":
        covariances = unpack(stats.second / n, d)
        on = diagonal(covariances)
        raw = on.copy()
        covariances -= m[:, :, None] * m[:, None, :]
        on[:] = settled(on, raw, reg_covar)
    elif kind == "tied":
        share = counts / counts.sum()
        covariances = unpack(stats.second / counts.sum(), d)
        on = diagonal(covariances)
        raw = on.copy()
        covariances -= (m * share[:, None]).T @ m
        on[:] = settled(on[None], raw[None], reg_covar)[0]
    elif kind == "diag":
        raw = stats.second / n
        covariances = settled(raw - m**2, raw, reg_covar)
    else:
        raw = stats.second[:, None] / (n * d)
        square = np.einsum("kj,kj->k", m, m)[:, None] / d
        covariances = settled(raw - square, raw, reg_covar)[:, 0]
    return means, covariances


def settled(variances: np.ndarray, raw: np.ndarray, reg_covar: float) -> np.ndarray:
    """Variances (K, d), of which what is only rounding counts as zero, and `reg_covar`."""
    lost = _ROUNDING * raw
    bad = ~(variances >= -lost)
    if bad.any():
        raise DegenerateError(
            f"a component has a variance of {variances[bad].min():.3g}, which no rows have: a step of the solver "
            "went too far; go on from the last M-step of sums over rows"
        )
    return np.where(variances > lost, variances, 0.0) + reg_covar


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
