"""k-means on rows in memory: time to the same inertia as scikit-learn's KMeans and dask-ml's.

A pass from the same centres; the whole way from the same centres; and, as people call it, everything from the
start to the labels, for several seeds, since each of them ends in a local optimum of its own.
"""

import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from measure import medians, mixture_data, table
from sklearn.cluster import KMeans as Sklearn
from sklearn.cluster import kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

import dask_em as em
from dask_em.engine import EStep, one_pass
from dask_em.kernels.kmeans import hard_sums
from dask_em.models.kmeans import KMeansModel, KMeansParams

N, D, K, SEEDS = 1_000_000, 16, 64, 5


def a_pass(x: np.ndarray) -> str:
    """An iteration of each from the same centres, on one thread and on two."""
    source, model = em.open(x), KMeansModel(K).about(x.mean(axis=0))
    request = EStep(model, (KMeansParams(x[:K]),))

    def theirs(iterations: int) -> None:
        Sklearn(K, init=x[:K], n_init=1, max_iter=iterations, tol=0).fit(x)

    rows = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            few, many, ours = medians(
                [
                    lambda: theirs(1),
                    lambda: theirs(6),
                    partial(one_pass, source, [request], em.ThreadsExecutor(threads)),
                ],
                3,
            )
        per = (many - few) / 5
        rows.append([threads, f"{1e3 * per:.0f}", f"{1e3 * ours:.0f}", f"{per / ours:.1f}"])
    return table(["threads", "scikit-learn, ms an iteration", "dask_em, ms a step", "ratio"], rows)


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what it gave."""
    began = time.perf_counter()
    fitted = action()
    return time.perf_counter() - began, fitted


def same_start(x: np.ndarray) -> list[Any]:
    """From the same centres to the same tolerance: one local optimum, so that only speed differs."""
    pairs = []
    for seed in range(SEEDS):
        start = kmeans_plusplus(x[:20_000], K, random_state=seed)[0]
        theirs, a = timed(lambda start=start: Sklearn(K, init=start, n_init=1, tol=0, max_iter=100).fit(x))
        ours, b = timed(lambda start=start: em.KMeans(K, init=start, tol=0, max_passes=102, verbose=0).fit(x))
        pairs.append((theirs, a.inertia_, a.n_iter_, ours, b.inertia_, b.n_iter_))
    return summary("the same centres, at most 100 iterations", pairs)


def as_called(x: np.ndarray) -> list[Any]:
    """From nothing, as `KMeans(64).fit(x)` is called."""
    pairs = []
    for seed in range(SEEDS):
        theirs, a = timed(lambda seed=seed: Sklearn(K, init="k-means++", n_init=1, random_state=seed).fit(x))
        ours, b = timed(lambda seed=seed: em.KMeans(K, random_state=seed, verbose=0).fit(x))
        pairs.append((theirs, a.inertia_, a.n_iter_, ours, b.inertia_, b.n_iter_))
    return summary("nothing: k-means++ by each, n_init=1 and 8 raced", pairs)


def against_dask_ml(x: np.ndarray) -> list[Any] | None:
    """As called, against dask-ml on threads."""
    try:
        import dask.array as da
        from dask_ml.cluster import KMeans as DaskML
    except ImportError as error:
        print(f"dask-ml is not installed ({error}): left out", file=sys.stderr)
        return None
    rows = da.from_array(x, chunks=(N // 8, D))
    theirs, a = timed(lambda: DaskML(K, random_state=0).fit(rows))
    ours, b = timed(lambda: em.KMeans(K, random_state=0, verbose=0).fit(x))
    inertia = hard_sums(x, None, x.mean(axis=0), [np.asarray(a.cluster_centers_, dtype=float)])[0].inertia
    return summary("nothing: k-means|| by dask-ml", [(theirs, inertia, a.n_iter_, ours, b.inertia_, b.n_iter_)])


def summary(name: str, pairs: list[tuple[float, float, int, float, float, int]]) -> list[Any]:
    """Medians over seeds, and the ratio of the medians of seconds."""
    theirs, their_inertia, their_n, ours, our_inertia, our_n = (statistics.median(column) for column in zip(*pairs))
    return [
        name, f"{theirs:.2f}", f"{their_inertia:.5g}", their_n, f"{ours:.2f}", f"{our_inertia:.5g}", our_n,
        f"{theirs / ours:.1f}",
    ]  # fmt: skip


def main() -> None:
    """Print the tables."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.simplefilter("ignore", em.FitWarning)
    x = mixture_data(N, D, K)
    em.KMeans(K, random_state=0, verbose=0).fit(x[:5000])  # compiled
    print(f"{N:,} x {D} float64, K={K}, {os.cpu_count()} cores. Must: 1.5 against scikit-learn, 10 against dask-ml.\n")
    print(a_pass(x), "\n")
    rows = [same_start(x), as_called(x)]
    other = against_dask_ml(x)
    header = ["from", "theirs, s", "inertia", "iterations", "dask_em, s", "inertia", "steps", "ratio"]
    print(table(header, [*rows, *([other] if other else [])]))


if __name__ == "__main__":
    main()
