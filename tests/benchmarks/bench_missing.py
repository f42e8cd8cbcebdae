"""A pass of a Gaussian mixture over rows with holes, against the same pass over whole rows; and latent classes."""

import sys
import time
from functools import partial

import numpy as np
from measure import medians, table

import dask_em as em
from dask_em.engine import EStep, one_pass


def holes() -> str:
    """Medians of passes with and without holes, one thread."""
    rng = np.random.default_rng(0)
    n, d, k = 1_000_000, 8, 8
    x = rng.normal(size=(n, d)) + 3 * rng.normal(size=(k, d))[rng.integers(k, size=n)]
    lacking = np.where(rng.random(x.shape) < 0.1, np.nan, x)
    rows = []
    for kind in ("full", "tied", "diag", "spherical"):
        model = em.MixtureModel(k, em.Gaussian(kind)).about(x.mean(axis=0))  # type: ignore[arg-type]
        request = [EStep(model, (model.start(em.Chunk(x[:5000]), rng),))]
        one = em.ThreadsExecutor(1)
        whole, with_holes = medians([partial(one_pass, em.open(data), request, one) for data in (x, lacking)], 5)
        rows.append([kind, f"{1e3 * whole:.0f}", f"{1e3 * with_holes:.0f}", f"{with_holes / whole:.1f}"])
    return table(["covariances", "whole rows, ms", "with holes, ms", "times slower"], rows)


def classes() -> str:
    """Seconds of a latent class analysis, against StepMix on the rows and on the distinct ones with their counts."""
    rng = np.random.default_rng(0)
    n, k = 1_000_000, 3
    x = (rng.random((n, 7)) < rng.random((k, 7))[rng.integers(k, size=n)]).astype(np.int8)
    began = time.perf_counter()
    ours = em.Mixture(k, em.Bernoulli(), random_state=0, verbose=0).fit(x)
    seconds = time.perf_counter() - began
    rows = [["dask_em, eight starts", f"{seconds:.2f}", f"{ours.loglik_:,.2f}", ""]]
    distinct, counts = np.unique(x, axis=0, return_counts=True)
    began = time.perf_counter()
    em.Mixture(k, em.Bernoulli(), random_state=0, verbose=0).fit(distinct, sample_weight=counts)
    eight = time.perf_counter() - began
    began = time.perf_counter()
    one = em.Mixture(k, em.Bernoulli(), n_init=1, random_state=0, verbose=0).fit(distinct, sample_weight=counts)
    few = time.perf_counter() - began
    try:
        from stepmix import StepMix
    except ImportError as error:
        print(f"StepMix is not installed ({error}): left out", file=sys.stderr)
        return table(["", "seconds", "log-likelihood", "times ours"], rows)
    settings = {
        "n_components": k,
        "measurement": "binary",
        "n_init": 1,
        "random_state": 0,
        "progress_bar": 0,
        "verbose": 0,
    }
    for name, data, weight, own in (("the rows", x, None, seconds), ("distinct rows", distinct, counts, few)):
        # one start of theirs: against our eight on the rows, and one on the distinct ones, to the same log-likelihood
        began = time.perf_counter()
        theirs = StepMix(**settings, abs_tol=0, rel_tol=1e-10, max_iter=2000).fit(data, sample_weight=weight)
        took = time.perf_counter() - began
        loglik = theirs.score(data, sample_weight=weight) * n
        rows.append([f"StepMix on {name}", f"{took:.3f}", f"{loglik:,.2f}", f"{took / own:.1f}"])
    rows.insert(1, ["dask_em on distinct rows, eight starts", f"{eight:.3f}", "", ""])
    rows.insert(2, ["dask_em on distinct rows, one start", f"{few:.3f}", f"{one.loglik_:,.2f}", ""])
    return table(["", "seconds", "log-likelihood", "times ours"], rows)


def main() -> None:
    """Print the tables."""
    em.Mixture(2, em.Bernoulli(), verbose=0).fit(np.eye(4)[np.arange(50) % 4])  # imported
    print("1,000,000 x 8, K=8, a tenth missing, one thread. Must 8x; aim 3x.\n")
    print(holes())
    print("\nLatent classes: 1,000,000 rows of 7 binary items, K=3. Must 50x on the rows, 1x on the distinct ones.\n")
    print(classes())


if __name__ == "__main__":
    main()
