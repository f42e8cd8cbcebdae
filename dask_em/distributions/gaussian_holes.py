"""Gaussian components on rows with holes, exactly, where values are missing at random.

With o the columns that are observed in a row and m the others, component k has the density N(x_o; μ_o, Σ_oo), and
given x_o the others have the mean  μ_m + B (x_o - μ_o),  B = Σ_mo Σ_oo⁻¹,  and the covariance  C = Σ_mm - B Σ_om
(Ghahramani and Jordan 1994; Little and Rubin 2019, section 11.2).  Both are the same for all rows of one pattern of
holes, and linear in x_o and x_o x_oᵀ.  So the sums of a pattern's observed columns are all that is needed of its
rows.  They are then filled up, y = x - μ:

    Σ r y = T Σ r y_o,     Σ r y yᵀ = T [Σ r y_o y_oᵀ] Tᵀ + n C

where T is the identity in the columns o and B in the columns m.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_em.distributions import gaussian_columns
from dask_em.distributions.gaussian_factors import diagonal, pack, packed_squares, precisions_cholesky, unpack
from dask_em.distributions.gaussian_sums import GaussianStatistics
from dask_em.errors import DegenerateError

_NUMBERS = 1 << 19  # of the matrices of some patterns, which are worked out together


def has_holes(x: np.ndarray) -> bool:
    """Whether a value is missing."""
    return x.dtype.kind == "f" and bool(np.isnan(x).any())


def patterns(x: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """(P, d) which columns each pattern observes, and the numbers of its rows, rising."""
    gaps = np.isnan(x)
    bits = np.packbits(gaps, axis=1)
    words = np.zeros((len(x), -(-bits.shape[1] // 8) * 8), dtype=np.uint8)
    words[:, : bits.shape[1]] = bits
    keys = words.view(np.uint64)
    order = np.lexsort(keys.T)  # stable: rows of one pattern stay in order
    in_order = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], (in_order[1:] != in_order[:-1]).any(axis=1)]))
    return ~gaps[order[starts]], np.split(order, starts[1:])


# ---------------------------------------------------------------- what follows from the observed columns


@dataclass(frozen=True)
class Marginals:
    """K Gaussians in P patterns of holes, in all columns; zero where a column is missing.

    For variances only there is nothing to fill up by: `fill` is None, and `left` holds the variances.
    """

    factor: np.ndarray  # (P, K, d, d) U of the precision of the observed columns, or (P, K, d)
    log_det: np.ndarray  # (P, K) of U
    fill: np.ndarray | None  # (P, K, d, d): T
    left: np.ndarray  # (P, K, d, d): C, or (P, K, d)


def marginals(params: Any, covariance_type: str, seen: np.ndarray) -> Marginals:
    """What some patterns make of the components; seen: (P, d)."""
    k, d = params.means.shape
    if covariance_type in ("diag", "spherical"):
        u = np.broadcast_to(params.precisions_cholesky.reshape(k, -1), (k, d))
        variances = np.broadcast_to(params.covariances.reshape(k, -1), (k, d))
        own = seen[:, None, :]
        return Marginals(u * own, np.where(own, np.log(u), 0.0).sum(axis=2), None, variances * ~own)
    c = params.covariances if covariance_type == "full" else params.covariances[None]
    both = (seen[:, :, None] & seen[:, None, :])[:, None]
    neither = (~seen[:, :, None] & ~seen[:, None, :])[:, None]
    unit = np.eye(d, dtype=bool)
    within = np.where(both, c, np.where(neither & unit, 1.0, 0.0))
    factor = _factors(within.reshape(-1, d, d)).reshape(within.shape)
    log_det = np.log(diagonal(factor)).sum(axis=-1)
    factor = factor * both
    fill = c @ factor @ np.swapaxes(factor, -1, -2)
    fill = np.where(seen[:, None, :, None], unit & both, fill)
    left = np.where(neither, c - fill @ c, 0.0)
    return Marginals(factor, log_det, fill, left)


def _factors(covariances: np.ndarray) -> np.ndarray:
    """U of each, NaN where it has none: a step that led so far has no likelihood, and a solver takes another."""
    try:
        return precisions_cholesky(covariances, "full")
    except DegenerateError:
        if len(covariances) == 1:
            return np.full(covariances.shape, np.nan)
        return np.concatenate([_factors(covariance[None]) for covariance in covariances])


def batches(seen: np.ndarray, k: int, by_column: bool) -> Iterator[slice]:
    """Some patterns, seen (P, d), at a time, whose matrices fit a cache."""
    each = k * seen.shape[1] ** (1 if by_column else 2)
    step = max(1, _NUMBERS // each)
    return (slice(i, i + step) for i in range(0, len(seen), step))


# ---------------------------------------------------------------- sums


def squares_about(first: np.ndarray, second: np.ndarray, about: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """(P, K, d, d) sums of (z + shift)(z + shift)ᵀ, given those of z, z zᵀ (packed) and z + shift."""
    squares = unpack(second, first.shape[2])
    squares += about[..., :, None] * shift[..., None, :] + shift[..., :, None] * first[..., None, :]
    return squares


@dataclass
class Filled:
    """Sums of all columns about the components' means, which patterns add to."""

    params: Any
    covariance_type: str
    loglik: float
    counts: np.ndarray  # (K,)
    first: np.ndarray  # (K, d)
    second: np.ndarray  # (K, d, d) or (K, d)

    @classmethod
    def none(cls, params: Any, covariance_type: str) -> Filled:
        """Of no rows."""
        k, d = params.means.shape
        second = np.zeros((k, d) if covariance_type in ("diag", "spherical") else (k, d, d))
        return cls(params, covariance_type, 0.0, np.zeros(k), np.zeros((k, d)), second)

    def add(self, n: np.ndarray, first: np.ndarray, second: np.ndarray, shift: np.ndarray, known: Marginals) -> None:
        """Add the sums (P, K, ...) of some patterns about a centre; shift: (K, d) the centre less the means."""
        weights = n[:, :, None]
        about = first + weights * shift
        self.counts += n.sum(axis=0)
        if known.fill is None:
            squares = second + (first + about) * shift
            own = known.left == 0
            self.first += (about * own).sum(axis=0)
            self.second += (squares * own + weights * known.left).sum(axis=0)
            return
        squares = squares_about(first, second, about, shift)
        self.first += (known.fill @ about[..., None])[..., 0].sum(axis=0)
        self.second += (known.fill @ squares @ np.swapaxes(known.fill, -1, -2)).sum(axis=0)
        self.second += (weights[..., None] * known.left).sum(axis=0)

    def statistics(self, pivot: np.ndarray, center: np.ndarray | None) -> GaussianStatistics:
        """The sums about a centre (K, d), or the pivot."""
        kind, second = self.covariance_type, self.second
        if kind in ("full", "tied"):
            second = pack(second if kind == "full" else second.sum(axis=0))
        elif kind == "spherical":
            second = second.sum(axis=1)
        about_means = GaussianStatistics(self.counts, self.first, second, pivot, kind, self.params.means)
        moved = about_means.about(pivot if center is None else center)
        return GaussianStatistics(moved.counts, moved.first, moved.second, pivot, kind, center)


def mixture_sums(
    x: np.ndarray,
    weight: np.ndarray | None,
    pivot: np.ndarray,
    covariance_type: str,
    runs: Sequence[tuple[np.ndarray, Any, np.ndarray | None]],
) -> list[tuple[float, np.ndarray, GaussianStatistics]]:
    """(loglik, counts, sums) of a mixture's E-step for each (log_weights, params, far), of rows with holes.

    far: (K,) which components' sums are to be about their own means; None: all about the pivot.
    """
    from dask_em.kernels import gaussian_holes as kernel

    seen, rows = patterns(x)
    by_column = covariance_type in ("diag", "spherical")
    answers = []
    for log_weights, params, far in runs:
        if by_column and gaussian_columns.scattered(len(seen), len(x)):
            loglik, counts, first, second = gaussian_columns.sums(x, weight, log_weights, params)
            center = None if far is None else np.where(far[:, None], params.means, pivot)
            filled = Filled(params, covariance_type, loglik, counts, first, second)
            answers.append((loglik, counts, filled.statistics(pivot, center)))
            continue
        k = len(params.means)
        far = np.zeros(k, dtype=bool) if far is None else far
        center = np.where(far[:, None], params.means, pivot)
        total = Filled.none(params, covariance_type)
        for some in batches(seen, k, by_column):
            known = marginals(params, covariance_type, seen[some])
            holed = kernel.holed(_constant(log_weights, known, seen[some]), params.means, known.factor, center, far)
            layout = kernel.layout(rows[some])
            loglik, n, first, second = kernel.pattern_sums(x, weight, pivot, layout, holed, by_column)
            total.loglik += loglik
            total.add(n, first, second, center - params.means, known)
        answers.append((total.loglik, total.counts, total.statistics(pivot, center if far.any() else None)))
    return answers


class GivenShares:
    """Sums of rows whose shares of the components, weights in, are given and not found here.

    far: (K,) which components' sums are to be about their own means; None: all about the pivot.
    """

    def __init__(self, x: np.ndarray, params: Any, covariance_type: str, pivot: np.ndarray, far: np.ndarray | None):
        self.x, self.params, self.covariance_type, self.pivot = x, params, covariance_type, pivot
        self.by_column = covariance_type in ("diag", "spherical")
        self.far = np.zeros(len(params.means), dtype=bool) if far is None else far
        self.center = np.where(self.far[:, None], params.means, pivot)
        self.seen, self.rows = patterns(x)

    def per_pattern(self, shares: np.ndarray) -> np.ndarray:
        """(P, K) sums of shares (n, K)."""
        return np.stack([shares[own].sum(axis=0) for own in self.rows])

    def statistics(self, shares: np.ndarray, counts: np.ndarray | None = None) -> GaussianStatistics:
        """Sums of rows of these shares (n, K); the covariance of what is missing comes so often (P, K): as they sum to.

        Those differ where a row has a weight in its component, which does not change what is hidden of it.
        """
        d, k = self.x.shape[1], len(self.params.means)
        totals = np.empty((len(self.rows), k, 1 + d + (d if self.by_column else d * (d + 1) // 2)))
        alone = [np.array([i]) for i in np.flatnonzero(self.far)]
        for which in [np.flatnonzero(~self.far), *alone]:
            if not len(which):
                continue
            z = np.nan_to_num(self.x - self.center[which[0]], nan=0.0)
            both = np.column_stack([np.ones(len(z)), z, z**2 if self.by_column else packed_squares(z)])
            for own, total in zip(self.rows, totals, strict=True):
                total[which] = shares[np.ix_(own, which)].T @ both[own]
        filled = Filled.none(self.params, self.covariance_type)
        n, first, second = totals[..., 0], totals[..., 1 : 1 + d], totals[..., 1 + d :]
        for some in batches(self.seen, k, self.by_column):
            known = marginals(self.params, self.covariance_type, self.seen[some])
            filled.add(n[some], first[some], second[some], self.center - self.params.means, known)
            if counts is not None:
                more = (counts[some] - n[some]).reshape(n[some].shape + (1,) * (known.left.ndim - 2))
                filled.second += (more * known.left).sum(axis=0)
        return filled.statistics(self.pivot, self.center if self.far.any() else None)


def _constant(log_weights: np.ndarray, known: Marginals, seen: np.ndarray) -> np.ndarray:
    """(P, K) log weights less the logs of the densities' norms."""
    norms: np.ndarray = known.log_det - 0.5 * np.log(2 * np.pi) * seen.sum(axis=1)[:, None]
    return log_weights + norms


# ---------------------------------------------------------------- what is said of rows


def log_densities(x: np.ndarray, params: Any, covariance_type: str) -> np.ndarray:
    """(n, K) log densities of what is observed of each row."""
    from dask_em.kernels import gaussian_holes as kernel

    seen, rows = patterns(x)
    by_column = covariance_type in ("diag", "spherical")
    if by_column and gaussian_columns.scattered(len(seen), len(x)):
        return gaussian_columns.log_densities(x, params)
    k = len(params.means)
    pivot, out = params.means.mean(axis=0), np.empty((len(x), k))
    for some in batches(seen, k, by_column):
        known = marginals(params, covariance_type, seen[some])
        constant = _constant(np.zeros(k), known, seen[some])
        holed = kernel.holed(constant, params.means, known.factor, params.means, np.zeros(k, dtype=bool))
        kernel.pattern_densities(x, pivot, kernel.layout(rows[some]), holed, by_column, out)
    return out
