"""Passes over the data that each solver needs, many starts against one, and a whole fit against scikit-learn.

`bench_solvers.py [passes | starts | whole] [--quick] [--only NAME]`: without a section, all of them.  DASK_EM_DATA
names the folder of real data.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from measure import table

import dask_em as em

warnings.simplefilter("ignore", em.FitWarning)
DATA = Path(os.environ.get("DASK_EM_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
PIXELS = DATA / "kodak_pixels.parquet"
QUAKES = DATA / "scedc_quakes_1932_2026.parquet"
SAMPLE_ROWS = 40_000
CLOSE = 0.5  # nats
CAP = 500  # passes


@cache
def pixels() -> np.ndarray:
    """Every 16th pixel, jittered: whole numbers are spikes that a Gaussian can collapse on."""
    import pandas as pd

    x = pd.read_parquet(PIXELS, columns=["r", "g", "b"]).to_numpy()[::16].astype(np.float64)
    return x + np.random.default_rng(0).uniform(-0.5, 0.5, x.shape)


@cache
def quakes() -> np.ndarray:
    """Longitude and latitude of all epicentres."""
    import pandas as pd

    return pd.read_parquet(QUAKES, columns=["lon", "lat"]).to_numpy(np.float64)


def blobs(n: int, d: int, k: int, spread: float) -> np.ndarray:
    """Rows of k Gaussians whose centres lie so far apart, in standard deviations."""
    rng = np.random.default_rng(1)
    centres = rng.normal(scale=spread, size=(k, d))
    shapes = rng.normal(size=(k, d, d)) / d**0.5 + np.eye(d)
    labels = rng.integers(k, size=n)
    return centres[labels] + np.einsum("nij,nj->ni", shapes[labels], rng.normal(size=(n, d)))


Case = tuple[str, int, Callable[[], np.ndarray], Path | None]
CASES: list[Case] = [
    ("pixels K=16", 16, pixels, PIXELS),
    ("pixels K=8", 8, pixels, PIXELS),
    ("epicentres K=12", 12, quakes, QUAKES),
    ("apart d=4 K=10", 10, cache(lambda: blobs(600_000, 4, 10, 4.0)), None),
    ("overlapping d=3 K=6", 6, cache(lambda: blobs(600_000, 3, 6, 1.2)), None),
]


def sample_bytes(x: np.ndarray) -> int:
    """Memory of a resident sample of SAMPLE_ROWS."""
    return SAMPLE_ROWS * (8 * x.shape[1] + 16)


# ---------------------------------------------------------------- passes


def run(model: em.Model, x: np.ndarray, seed: int, **settings: Any) -> em.FitResult:
    """A fit whose sample is too small for the data, so that passes count."""
    return em.fit(model, x, random_state=seed, sample_bytes=sample_bytes(x), verbose=0, **settings)


def passes_until_close(model: em.Model, x: np.ndarray, seed: int, **settings: Any) -> tuple[int | None, float]:
    """Passes until within CLOSE nats of what CAP more Anderson passes would reach; None: never. And nats short."""
    settings = {"tol": 0.05, "max_passes": CAP, **settings}
    found = run(model, x, seed, **settings)
    limit = run(model, x, seed, solver="anderson", params=found.params, tol=1e-3, max_passes=CAP + 1).loglik
    limit = max(limit, found.loglik)
    for record in found.history:
        if record["loglik"] is not None and record["loglik"] >= limit - CLOSE:
            return record["pass"], limit - found.loglik
    return None, limit - found.loglik


def shown(found: list[tuple[int | None, float]]) -> str:
    """Three seeds and their median."""
    each = ["never" if n is None else str(n) for n, _ in found]
    median = statistics.median(float("inf") if n is None else n for n, _ in found)
    middle = f"**{median:.0f}**" if median < float("inf") else "**never**"
    short = max(s for _, s in found)
    return f"{middle} ({', '.join(each)}" + (f"; up to {short:.2g} nats short)" if short > CLOSE else ")")


def passes(quick: bool, only: str | None) -> None:
    """The table of passes."""
    print(
        f"Reads of the data, the census included, until within {CLOSE} nats of what {CAP} further Anderson passes from "
        f"there would reach; random_state 0, 1, 2, and their median. Single solvers begin at the best start of the "
        f"default's race; auto is the whole default, with all the starts that the race lets through. The resident "
        f"sample holds {SAMPLE_ROWS:,} rows; plain EM is ended at {CAP} passes.\n"
    )
    rows = []
    for name, k, data, needs in CASES:
        if only is not None and only not in name:
            continue
        if needs is not None and not needs.exists():
            rows.append((name, "no data", "", "", "", ""))
            continue
        x, model = data(), em.Mixture(k, em.Gaussian(reg_covar=0.0))
        each: dict[str, list[tuple[int | None, float]]] = {s: [] for s in ("em", "anderson", "anchored", "auto")}
        for seed in (0,) if quick else (0, 1, 2):
            start = run(model, x, seed, n_init=8, solver="em", max_passes=2).params
            each["em"].append(passes_until_close(model, x, seed, solver="em", params=start, tol=1e-3))
            for solver in ("anderson", "anchored"):
                each[solver].append(passes_until_close(model, x, seed, solver=solver, params=start))
            each["auto"].append(passes_until_close(model, x, seed, solver="auto", n_init=8))
        rows.append((name, f"{len(x):,} x {x.shape[1]}", *(shown(e) for e in each.values())))
    print(table(["data", "rows", "plain EM", "anderson", "anchored", "auto"], rows), flush=True)


# ---------------------------------------------------------------- starts


def starts(quick: bool, only: str | None) -> None:
    """The table of 32 starts against one."""
    print("\n32 starts against one, random_state 0 to 4: medians. Must 2x the passes and 4x the time; aim 1.2x, 2x.\n")
    rows = []
    for name, k, data, needs in CASES:
        if only is not None and only not in name:
            continue
        if needs is not None and not needs.exists():
            rows.append((name, "no data", "", "", ""))
            continue
        x = data()
        took: dict[int, list[float]] = {1: [], 32: []}
        reads: dict[int, list[float]] = {1: [], 32: []}
        reached: dict[int, list[float]] = {1: [], 32: []}
        for seed in range(1 if quick else 5):
            for n_init in (1, 32):
                gm = em.GaussianMixture(
                    k, n_init=n_init, random_state=seed, sample_bytes=sample_bytes(x), reg_covar=0.0, verbose=0
                )
                began = time.perf_counter()
                gm.fit(x)
                took[n_init].append(time.perf_counter() - began)
                reads[n_init].append(gm.n_passes_)
                reached[n_init].append(gm.loglik_)
        p, s = ({n: statistics.median(v) for n, v in d.items()} for d in (reads, took))
        higher = statistics.median(b - a for a, b in zip(reached[1], reached[32]))
        rows.append(
            (
                name,
                f"{p[1]:.0f} and {p[32]:.0f}: {p[32] / p[1]:.2f}x",
                f"{s[1]:.1f} and {s[32]:.1f}: {s[32] / s[1]:.2f}x",
                f"{higher:,.1f}",
            )
        )
    print(table(["data", "passes, 1 and 32", "seconds, 1 and 32", "nats that 32 reach higher"], rows), flush=True)


# ---------------------------------------------------------------- against scikit-learn


def whole(quick: bool, only: str | None) -> None:
    """The row of all pixels from Parquet."""
    print("\nAll pixels from Parquet, K=16, two threads, to the end, against scikit-learn in memory.\n")
    if not PIXELS.exists():
        print("no data")
        return
    import pandas as pd
    from sklearn.mixture import GaussianMixture

    columns = ["r", "g", "b"]
    two = em.ThreadsExecutor(2)
    k, settings = 16, {"reg_covar": 1e-2, "random_state": 0, "verbose": 0, "executor": two}
    em.GaussianMixture(k, max_passes=3, **settings).fit(pixels()[:100_000])  # compiled and paged in
    began = time.perf_counter()
    gm = em.GaussianMixture(k, **settings).fit(PIXELS, columns=columns)
    ours = time.perf_counter() - began

    model = em.Mixture(k, em.Gaussian(reg_covar=1e-2))
    options = {"random_state": 0, "verbose": 0, "executor": two, "columns": columns, "solver": "em"}
    begun = em.fit(model, PIXELS, n_init=8, max_passes=2, **options)  # where the fit began
    start = begun.params
    x = pd.read_parquet(PIXELS, columns=columns).to_numpy(np.float64)
    cap = 60 if quick else 400
    options = {**options, "columns": None, "params": start, "tol": 0.0, "sample_bytes": 1 << 20}
    plain = em.fit(model, x, max_passes=cap, **options)
    steps = next((r["pass"] - 2 for r in plain.history[1:] if r["loglik"] >= gm.loglik_ - CLOSE), None)
    short = gm.loglik_ - plain.loglik

    iterations = 1 if quick else 3
    c = start.components
    precisions = c.precisions_cholesky @ np.swapaxes(c.precisions_cholesky, -1, -2)
    took = []
    for n in (0, iterations):  # what an iteration takes, all else apart; the start is given, so there is no k-means
        theirs = GaussianMixture(
            k, reg_covar=1e-2, tol=0, max_iter=n + 1,
            weights_init=start.weights, means_init=c.means, precisions_init=precisions,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            began = time.perf_counter()
            theirs.fit(x)
            took.append(time.perf_counter() - began)
    one = (took[1] - took[0]) / iterations
    needs = cap - 2 if steps is None else steps
    more = "" if steps is not None else f"at least: plain EM was {short:,.1f} nats below after {needs} iterations"
    print(
        f"scikit-learn's seconds are extrapolated: {iterations} of its iterations on all rows, timed, times the "
        f"iterations that plain EM takes from the same start to {CLOSE} nats below the same log-likelihood. Finding a "
        "start, which it does by k-means on all rows, is not counted.\n"
    )
    print(
        table(
            ["", "log-likelihood", "passes", "seconds"],
            [
                ("dask_em, Parquet", f"{gm.loglik_:,.2f} ({gm.status_})", gm.n_passes_, f"{ours:.1f}"),
                ("scikit-learn, in memory", more or "the same", needs, f"{needs * one:.0f} ({one:.1f} each)"),
                ("times faster", "", "", f"{needs * one / ours:.0f}"),
            ],
        ),
        flush=True,
    )


def main() -> None:
    """Print the tables."""
    sections = {"passes": passes, "starts": starts, "whole": whole}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", choices=[[], *sections])
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--only", help="cases whose name holds this")
    given = parser.parse_args()
    for name in given.sections or sections:
        sections[name](given.quick, given.only)


if __name__ == "__main__":
    main()
