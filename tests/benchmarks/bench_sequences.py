"""Hidden Markov chains: a step against hmmlearn, what cutting a sequence costs, two workers against one, and memory.

`bench_sequences.py [steps | cuts | workers | memory]`: without a section, all of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from measure import table

import dask_em as em
from dask_em.engine import EStep, one_pass
from dask_em.executors.threads import ThreadsExecutor
from dask_em.model import Chunk
from dask_em.models.hidden_markov import HiddenMarkovModel
from dask_em.sources.array import ArraySource

K, D = 8, 4


def rows(n: int, seed: int = 0) -> np.ndarray:
    """Rows of a chain that stays in its state nine times of ten."""
    rng = np.random.default_rng(seed)
    moves = np.where(rng.random(n) < 0.9, 0, rng.integers(1, K, n))
    return rng.normal(scale=1.5, size=(K, D))[np.cumsum(moves) % K] + rng.normal(size=(n, D))


def median(f, repeat: int = 5) -> float:
    """Median of several, after one that is not counted."""
    f()
    took = []
    for _ in range(repeat):
        began = time.perf_counter()
        f()
        took.append(time.perf_counter() - began)
    return float(np.median(took))


def begun(x: np.ndarray, kind: str):
    """A model and where to begin."""
    model = HiddenMarkovModel(K, em.Gaussian(kind, reg_covar=0)).about(x.mean(axis=0))
    return model, model.start(Chunk(x[:5000]), np.random.default_rng(0))


def step(model, params, source, threads: int = 1):
    """One iteration of Baum-Welch."""
    stats = one_pass(source, [EStep(model, (params,))], ThreadsExecutor(threads)).answers[0][0]
    return model.m_step(stats)


def steps() -> None:
    """Against hmmlearn, one thread."""
    from hmmlearn.hmm import GaussianHMM

    lines = []
    long = rows(1_000_000)
    for name, x, ids, kind in [
        ("1,000,000 rows of one sequence", long, None, "full"),
        ("the same", long, None, "diag"),
        ("100,000 sequences of 20 rows", rows(2_000_000), np.repeat(np.arange(100_000), 20), "diag"),
    ]:
        model, params = begun(x, kind)
        source = ArraySource(x, sequence=ids)
        ours = median(lambda: step(model, params, source))  # noqa: B023
        theirs = {}
        for way in ("log", "scaling"):
            other = GaussianHMM(K, kind, n_iter=1, init_params="", min_covar=0.0, implementation=way)
            other.startprob_, other.transmat_, other.means_ = params.startprob, params.transmat, params.components.means
            other.covars_ = params.components.covariances.copy()
            began = time.perf_counter()
            other.fit(x, None if ids is None else np.full(100_000, 20))
            theirs[way] = time.perf_counter() - began
        lines.append([f"{name}, {kind}", f"{ours:.2f}"] + [f"{s:.1f} ({s / ours:.0f}x)" for s in theirs.values()])
    print("\nA step of 8 states and 4 columns, seconds, one thread. Must: 3 and 20 times hmmlearn's default, `log`.\n")
    print(table(["", "dask_em", "hmmlearn, log", "hmmlearn, scaling"], lines))


def cuts() -> None:
    """One sequence in 64 blocks against one block."""
    x = rows(1_000_000)
    model, params = begun(x, "full")
    took = []
    for blocks in (1, 64):
        sizes = np.diff(np.linspace(0, len(x), blocks + 1).astype(int)).tolist()
        source = ArraySource(x, sizes=sizes)
        took.append(median(lambda: step(model, params, source)))  # noqa: B023
    # the same rows in as many blocks, each a sequence of its own: what the ends cost and no more
    whole = ArraySource(x, sizes=sizes, sequence=np.repeat(np.arange(64), sizes))
    apart = median(lambda: step(model, params, whole))
    print("\nOne sequence of 1,000,000 rows, 8 states. Must: 64 blocks in 1.6 times the time of one.\n")
    ratios = [[f"{took[1] / took[0]:.2f}", f"{took[1] / apart:.2f}"]]
    print(table(["64 blocks against one", "against 64 sequences in as many blocks"], ratios))


def workers() -> None:
    """Two Dask workers against one, on a sequence of 10,000,000 rows in a Zarr array."""
    import zarr
    from distributed import Client, LocalCluster

    from dask_em.executors.dask import DaskExecutor

    with tempfile.TemporaryDirectory() as folder:
        out = zarr.create_array(f"{folder}/x.zarr", shape=(10_000_000, D), chunks=(100_000, D), dtype="f8")
        for i in range(10):
            out[i * 1_000_000 : (i + 1) * 1_000_000] = rows(1_000_000, i)
        model, params = begun(rows(100_000), "full")
        took = []
        for n in (1, 2):
            with (
                LocalCluster(n_workers=n, threads_per_worker=1, dashboard_address=None) as cluster,
                Client(cluster) as client,
            ):
                executor = DaskExecutor(client)
                source = em.open(f"{folder}/x.zarr")
                took.append(median(lambda: one_pass(source, [EStep(model, (params,))], executor), 3))  # noqa: B023
    print("\nA pass over one sequence of 10,000,000 rows in Zarr. Must: two workers 1.6 times as fast as one.\n")
    print(
        table(["one worker, s", "two, s", "ratio"], [[f"{took[0]:.1f}", f"{took[1]:.1f}", f"{took[0] / took[1]:.2f}"]])
    )


_FIT = """
import resource, sys
import dask_em as em
hmm = em.GaussianHMM(8, random_state=0, verbose=0, sample_bytes=4_000_000, max_passes=4)
hmm.fit(sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def memory() -> None:
    """Peak of a fit to a sequence, and to one ten times as long."""
    import zarr

    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "fit.py").write_text(_FIT)
        for millions in (1, 10):
            path = f"{folder}/{millions}.zarr"
            out = zarr.create_array(path, shape=(millions * 1_000_000, D), chunks=(100_000, D), dtype="f8")
            for i in range(millions):
                out[i * 1_000_000 : (i + 1) * 1_000_000] = rows(1_000_000, i)
            found = []
            for _ in range(3):
                done = subprocess.run(
                    [sys.executable, "-W", "ignore", f"{folder}/fit.py", path],
                    capture_output=True, text=True, check=True, env=os.environ,
                )  # fmt: skip
                found.append(int(done.stdout.split()[-1]) / 1024)
            peaks.append(float(np.median(found)))
    print("\nPeak memory of a fit, MiB; the sample is held to 4 MB. Must: 5% more for a sequence ten times as long.\n")
    more = f"{100 * (peaks[1] / peaks[0] - 1):+.1f}%"
    print(table(["1,000,000 rows", "10,000,000 rows", "more"], [[f"{peaks[0]:.0f}", f"{peaks[1]:.0f}", more]]))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for name in sys.argv[1:] or ["steps", "cuts", "workers", "memory"]:
        {"steps": steps, "cuts": cuts, "workers": workers, "memory": memory}[name]()
