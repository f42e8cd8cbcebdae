"""Runs whose chains do not agree, as of states that hardly ever change: what they say, for every pair of end states.

Sums of rows are kept for each first and last state, K x K times as many as others, so that the rows need not be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_em.models.chain_runs import filtered_in_logs, logs_of, shares_of_logs, smoothed

Sum = Callable[[np.ndarray, np.ndarray], Any]  # of posterior states (n, K) and transitions (K, K) the sums of rows


@dataclass(frozen=True)
class Operator:
    """A run of rows, by the states of its first and its last one.

    Parameters
    ----------
    logs : ndarray of shape (K, K)
        Log-likelihood of the rows.
    sums : tuple of tuples of Sums
        Their expected sums, a unit of weight.
    """

    logs: np.ndarray
    sums: tuple[tuple[Any, ...], ...]

    @classmethod
    def of(cls, logb: np.ndarray, a: np.ndarray, statistics: Sum, *, last_counts: bool) -> Operator:
        """Of rows with log densities (n, K); the sums of the last may be taken already."""
        n, k = logb.shape
        edges, one, unit = np.array([0, n]), np.ones(1), np.eye(k)
        logs, sums = np.full((k, k), -np.inf), []
        for s in range(k):
            row = []
            _, logs[s] = filtered_in_logs(logb, logs_of(unit[s]), a)
            for j in range(k):
                found = smoothed(logb, edges, one, unit[s], a, unit[j])
                states = found.states
                if not last_counts:
                    states[-1] = 0.0
                row.append(statistics(states, found.pairs))
            sums.append(tuple(row))
        return cls(logs, tuple(sums))

    def joined(self, right: Operator, a: np.ndarray, statistics: Sum) -> Operator:
        """With the rows that follow; `statistics` here of no rows."""
        k = len(a)
        loga, none = logs_of(a), np.zeros((0, k))
        logs, sums = np.empty((k, k)), []
        for s in range(k):
            row = []
            for j in range(k):
                both = self.logs[s][:, None] + loga + right.logs[:, j]
                top = both.max()
                seam = shares_of_logs(both)
                logs[s, j] = top + np.log(np.exp(both - top).sum()) if top > -np.inf else top
                total = statistics(none, seam)
                for m in range(k):
                    total = total + self.sums[s][m] * float(seam[m].sum()) + right.sums[m][j] * float(seam[:, m].sum())
                row.append(total)
            sums.append(tuple(row))
        return Operator(logs, tuple(sums))

    def ends(self, before: np.ndarray, after: np.ndarray) -> tuple[float, np.ndarray]:
        """Log-likelihood but for what follows, and shares (K, K) of the states of first and last rows.

        before: (K,) shares of the first row's states before it is seen; after: likelihood by the last row's.
        """
        given = logs_of(before)[:, None] + self.logs
        top = given.max()
        loglik = float(top + np.log(np.exp(given - top).sum())) if top > -np.inf else float(top)
        return loglik, shares_of_logs(given + logs_of(after))
