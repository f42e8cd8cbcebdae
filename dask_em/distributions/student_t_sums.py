"""The sums of Student-t components, and how they are taken over rows, with or without holes.

A row is Gaussian given a weight u that is hidden as its component is (Peel and McLachlan 2000):
x | u ~ N(μ, Σ/u),  u ~ gamma(ν/2, rate ν/2).  With δ the squared distance of the d columns that are observed,

    u | x ~ gamma((ν + d)/2, rate (ν + δ)/2),   E u = (ν + d)/(ν + δ),   E log u = ψ((ν + d)/2) - log((ν + δ)/2).

The others are filled up as a Gaussian's are, but that their covariance is C/u: the sums of u y yᵀ have C for each row,
whatever its weight.  So whole rows or not, what is summed is r, r E u, r E log u, r E[u z] and r E[u z zᵀ].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import gammaln, psi

from dask_em import store
from dask_em.distributions import gaussian_holes as holes
from dask_em.distributions.gaussian import GaussianParams
from dask_em.distributions.gaussian_factors import diagonal
from dask_em.distributions.gaussian_sums import GaussianStatistics
from dask_em.sums import Sums


@store.register
@dataclass(frozen=True)
class StudentTSums(Sums):
    """Sums of r and r E log u, (K,), and those of a Gaussian whose rows have the weights r E u."""

    counts: np.ndarray
    logs: np.ndarray
    weighted: GaussianStatistics


Answer = tuple[float, np.ndarray, StudentTSums]


def log_norm(df: np.ndarray, log_det: np.ndarray, n_columns: np.ndarray | int) -> np.ndarray:
    """Logs of the t densities at their centres; log_det: of U, the precision being U Uᵀ."""
    half = df / 2
    norm: np.ndarray = gammaln(half + n_columns / 2) - gammaln(half) - 0.5 * n_columns * np.log(np.pi * df) + log_det
    return norm


def log_det(params: GaussianParams, by_column: bool) -> np.ndarray:
    """(K,) of the factors of the precisions."""
    u = params.precisions_cholesky
    total: np.ndarray = np.log(u if by_column else diagonal(u)).sum(axis=-1)
    return total


# ---------------------------------------------------------------- a mixture's whole E-step


def mixture_sums(
    x: np.ndarray,
    weight: np.ndarray | None,
    pivot: np.ndarray,
    covariance_type: str,
    runs: Sequence[tuple[np.ndarray, GaussianParams, np.ndarray, np.ndarray | None]],
) -> list[Answer]:
    """(loglik, counts, sums) for each (log_weights, params, df, far).

    far: (K,) which components' sums are to be about their own locations; None: all about the pivot.
    """
    by_column = covariance_type == "diag"
    answers = []
    if not holes.has_holes(x):
        whole = np.ones((1, x.shape[1]), dtype=bool)
        for log_weights, params, df, far in runs:
            task = _Task(log_weights, params, df, far, pivot, by_column)
            u = params.precisions_cholesky[None]
            s = task.pattern_sums(x, weight, None, whole, u, log_det(params, by_column)[None])
            first, second = s.first[0], s.second[0]
            weighted = GaussianStatistics(s.weights[0], first, second, pivot, covariance_type, task.own_center)
            sums = StudentTSums(s.counts[0], task.expected_logs(s, whole), weighted)
            answers.append((float(s.loglik.sum()), sums.counts, sums))
        return answers
    seen, rows = holes.patterns(x)
    for log_weights, params, df, far in runs:
        task = _Task(log_weights, params, df, far, pivot, by_column)
        answers.append(_of_patterns(task, x, weight, covariance_type, seen, rows))
    return answers


def _of_patterns(
    task: _Task, x: np.ndarray, weight: np.ndarray | None, covariance_type: str, seen: np.ndarray, rows: Any
) -> Answer:
    from dask_em.kernels.gaussian_holes import layout

    params, k = task.params, len(task.df)
    filled = holes.Filled.none(params, covariance_type)
    loglik, counts, logs = 0.0, np.zeros(k), np.zeros(k)
    for some in holes.batches(seen, k, task.by_column):
        known = holes.marginals(params, covariance_type, seen[some])
        s = task.pattern_sums(x, weight, layout(rows[some]), seen[some], known.factor, known.log_det)
        filled.add(s.weights, s.first, s.second, task.center - params.means, known)
        # of what is missing, C comes once for each row, not for each weight
        more = (s.counts - s.weights).reshape(s.counts.shape + (1,) * (known.left.ndim - 2))
        filled.second += (more * known.left).sum(axis=0)
        loglik += float(s.loglik.sum())
        counts += s.counts.sum(axis=0)
        logs += task.expected_logs(s, seen[some])
    return loglik, counts, StudentTSums(counts, logs, filled.statistics(task.pivot, task.own_center))


class _Task:
    """One parameter set, and where its sums are taken about."""

    def __init__(
        self,
        log_weights: np.ndarray,
        params: GaussianParams,
        df: np.ndarray,
        far: np.ndarray | None,
        pivot: np.ndarray,
        by_column: bool,
    ) -> None:
        self.log_weights, self.params, self.df, self.pivot, self.by_column = log_weights, params, df, pivot, by_column
        self.far = np.zeros(len(df), dtype=bool) if far is None else far
        self.center = np.where(self.far[:, None], params.means, pivot)  # (K, d)
        self.own_center = self.center if self.far.any() else None

    def pattern_sums(
        self,
        x: np.ndarray,
        weight: np.ndarray | None,
        where: Any,
        seen: np.ndarray,
        factor: np.ndarray,
        det: np.ndarray,
    ) -> Any:
        """The kernel's sums of patterns, seen (P, d), whose factors have the log determinants det (P, K)."""
        from dask_em.kernels import student_t as kernel
        from dask_em.kernels.gaussian_holes import holed

        columns = seen.sum(axis=1)[:, None]
        constant = self.log_weights + log_norm(self.df, det, columns)
        tails = kernel.Tails(self.df, (self.df + columns) / 2, np.zeros(len(self.df)))
        form = holed(constant, self.params.means, factor, self.center, self.far)
        return kernel.pattern_sums(x, weight, self.pivot, where, form, tails, self.by_column)

    def expected_logs(self, s: Any, seen: np.ndarray) -> np.ndarray:
        """(K,) sums of r E log u."""
        fixed = psi((self.df + seen.sum(axis=1)[:, None]) / 2) - np.log(self.df / 2)
        logs: np.ndarray = (s.counts * fixed - s.logs).sum(axis=0)
        return logs


# ---------------------------------------------------------------- what is said of rows


def distances(
    x: np.ndarray, params: GaussianParams, covariance_type: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray | int]:
    """Squared distances (n, K) of what is observed; log determinants (n, K) or (K,); columns observed (n, 1) or d."""
    from dask_em.kernels import gaussian, gaussian_holes

    k, by_column = len(params.means), covariance_type == "diag"
    nothing = np.zeros(k)
    if not holes.has_holes(x):
        d, det = x.shape[1], log_det(params, by_column)
        form = gaussian.Components(nothing, params.means, params.precisions_cholesky, covariance_type)
        logs = gaussian.posteriors(x, form, "log_density")
        return np.maximum(2 * (det - 0.5 * d * np.log(2 * np.pi) - logs), 0.0), det, d
    seen, rows = holes.patterns(x)
    minus_half, det = np.empty((2, len(x), k))
    for some in holes.batches(seen, k, by_column):
        known = holes.marginals(params, covariance_type, seen[some])
        none = np.zeros(known.log_det.shape)
        pattern_form = gaussian_holes.holed(none, params.means, known.factor, params.means, np.zeros(k, dtype=bool))
        where = gaussian_holes.layout(rows[some])
        gaussian_holes.pattern_densities(x, params.means.mean(axis=0), where, pattern_form, by_column, minus_half)
        for own, of_pattern in zip(rows[some], known.log_det, strict=True):
            det[own] = of_pattern
    return -2 * minus_half, det, (~np.isnan(x)).sum(axis=1)[:, None]
