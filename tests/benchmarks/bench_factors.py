"""Factor analysis on rows in memory: time to the same log-likelihood as scikit-learn's FactorAnalysis.

scikit-learn takes an SVD of all rows at every step; its default is a randomised one.  Both run in one process, on
the same threads.

    python tests/benchmarks/bench_factors.py [rows [columns [factors]]]
"""

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from measure import table
from sklearn.decomposition import FactorAnalysis as Sklearn
from sklearn.exceptions import ConvergenceWarning

import dask_em as em

N, D, Q = 1_000_000, 100, 5


def factor_data(n: int, d: int, q: int, seed: int = 0) -> np.ndarray:
    """(n, d) rows of q factors, with noise of each column's own."""
    rng = np.random.default_rng(seed)
    loadings, noise = rng.normal(size=(q, d)), rng.uniform(0.5, 3, size=d)
    x = rng.standard_normal((n, q)) @ loadings
    for start in range(0, n, 10_000):
        x[start : start + 10_000] += noise * rng.standard_normal((len(x[start : start + 10_000]), d))
    return x


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what it gave."""
    began = time.perf_counter()
    fitted = action()
    return time.perf_counter() - began, fitted


def main(n: int = N, d: int = D, q: int = Q) -> None:
    """Print the table."""
    x = factor_data(n, d, q)
    em.FactorAnalysis(q, verbose=0).fit(x[:1000])  # warm: imported, compiled
    ours, fa = timed(lambda: em.FactorAnalysis(q, verbose=0).fit(x))
    rows = [["dask_em", f"{ours:.2f}", fa.n_passes_, f"{fa.loglik_:.4f}", ""]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs, other = timed(lambda: Sklearn(q, random_state=0).fit(x))
    ahead = f"{theirs / ours:.0f}x"
    rows.append(["scikit-learn", f"{theirs:.2f}", str(other.n_iter_), f"{other.loglike_[-1]:.4f}", ahead])
    print(f"{n} x {d}, {q} factors\n")
    print(table(["", "seconds", "reads of the rows", "log-likelihood", "ratio"], rows))


if __name__ == "__main__":
    main(*(int(v) for v in sys.argv[1:]))
