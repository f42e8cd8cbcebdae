"""Distributions of columns that are independent given the component, each an exponential family of one parameter.

A value has the log density  η t(x) - A(η) + log h(x), so that the sums of a column are its count of observed
values N = Σ r, their total T = Σ r t(x), and Σ r log h(x) (Bickel and Doksum 2015, section 1.6).  A missing value
has no term in any of them, which is exact where values are missing at random (Little and Rubin 2019, section 6.2).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dask_em import store
from dask_em.distributions.base import Distribution, possible_counts
from dask_em.errors import RowError
from dask_em.model import Params
from dask_em.sums import Sums

TINY = 1e-300  # in place of a zero, where its logarithm is asked for


@store.register
@dataclass(frozen=True)
class ColumnSums(Sums):
    """Expected counts of observed values and their totals, (K, d), and the part no parameter enters, (K,)."""

    counts: np.ndarray
    totals: np.ndarray
    base: np.ndarray


class Columns(Distribution):
    """Base of distributions whose columns are independent: subclasses say what a column's family is."""

    accepts_nan: ClassVar[bool] = True

    # ---- the family

    @abstractmethod
    def natural(self, params: Any) -> tuple[np.ndarray, np.ndarray]:
        """Natural parameters η and log partition functions A, each (K, d)."""

    @abstractmethod
    def from_means(self, means: np.ndarray) -> Params:
        """Parameters, given the means (K, d) of the statistics t(x)."""

    @abstractmethod
    def refused(self, x: np.ndarray) -> tuple[np.ndarray, str]:
        """Which values have no density, as a mask in which NaN is False, and what they should be."""

    def log_base(self, x: np.ndarray) -> np.ndarray | None:
        """log h of each value, with missing ones zero; None: one."""
        return None

    def parts(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Values (n, d) with zeros where they are missing, how much each counts, and log h of the rows (n,).

        None: each counts once; h is one.
        """
        x, seen = observed(x)
        base = self.log_base(x)
        return x, seen, None if base is None else _row_sums(base, seen)

    def pseudo(self) -> tuple[float, float]:
        """Count and total that a conjugate prior adds to those of each column; zero: none."""
        return 0.0, 0.0

    # ---- rows

    def check_rows(self, x: np.ndarray) -> None:
        """Raise `RowError` for a value that has no density."""
        refuse(type(self).__name__, x, *self.refused(x))

    def log_density(self, params: Params, x: np.ndarray) -> np.ndarray:
        """(n_rows, K) log densities of what is observed of each row."""
        eta, partition = self.natural(params)
        x, seen, base = self.parts(x)
        joint: np.ndarray = x @ eta.T - (partition.sum(axis=1) if seen is None else seen @ partition.T)
        return joint if base is None else joint + base[:, None]

    def statistics(self, x: np.ndarray, resp: np.ndarray) -> ColumnSums:
        """Sums of what is observed; resp: (n_rows, K), the rows' weights already in."""
        x, seen, base = self.parts(x)
        counts = np.repeat(resp.sum(axis=0)[:, None], x.shape[1], axis=1) if seen is None else resp.T @ seen
        constant = np.zeros(resp.shape[1]) if base is None else resp.T @ base
        return ColumnSums(counts, resp.T @ x, constant)

    # ---- estimates

    def estimate(self, stats: ColumnSums) -> Params:
        """Means of what is observed; a component that has none of a column takes the mean of all."""
        counts = np.array([possible_counts(column) for column in stats.counts.T]).T
        n, t = self.pseudo()
        counts, totals = counts + n, np.maximum(stats.totals, 0.0) + t
        void = counts <= 0
        means = totals / np.where(void, 1.0, counts)
        overall = totals.sum(axis=0) / counts.sum(axis=0)
        return self.from_means(np.where(void, overall, means))

    def expected_loglik(self, params: Params, stats: ColumnSums) -> float:
        """Σ η T - A N plus what no parameter enters."""
        eta, partition = self.natural(params)
        return float(np.vdot(eta, stats.totals) - np.vdot(partition, stats.counts) + stats.base.sum())

    def log_prior(self, params: Params) -> float:
        """η t - A n of the pseudo-observations of the conjugate prior."""
        n, t = self.pseudo()
        if n == 0 and t == 0:
            return 0.0
        eta, partition = self.natural(params)
        return float(t * eta.sum() - n * partition.sum())

    # ---- after the fit

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """One for each component and column."""
        return n_components * n_features


def refuse(who: str, x: np.ndarray, wrong: np.ndarray, should: str) -> None:
    """Raise `RowError` for the first value that a mask marks."""
    if wrong.any():
        row = int(np.flatnonzero(wrong.any(axis=1))[0])
        column = int(np.flatnonzero(wrong[row])[0])
        raise RowError(row, column, f"is {x[row, column]:g}, where {who} needs {should}")


def observed(x: np.ndarray, gap: float = 0.0) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows with `gap` where they are missing, and where they are not as 0 and 1; None: nothing is missing."""
    x = np.asarray(x, dtype=np.float64)
    gaps = np.isnan(x)
    if not gaps.any():
        return x, None
    return np.where(gaps, gap, x), (~gaps).astype(np.float64)


def _row_sums(base: np.ndarray, seen: np.ndarray | None) -> np.ndarray:
    sums: np.ndarray = base.sum(axis=1) if seen is None else np.einsum("ij,ij->i", base, seen)
    return sums


def finite_log(p: np.ndarray) -> np.ndarray:
    """Logarithms, finite for zero too."""
    return np.log(np.maximum(p, TINY))


def exp_or_zero(v: np.ndarray) -> np.ndarray:
    """Inverse of `finite_log`."""
    return np.where(v > np.log(TINY) + 1, np.exp(v), 0.0)
