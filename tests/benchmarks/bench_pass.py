"""One EM pass over a Gaussian mixture, against an iteration of scikit-learn's GaussianMixture.

Same rows, same parameters, E-step and M-step sums, data in memory; medians of runs that take turns.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from measure import medians, table
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from dask_em.distributions.gaussian import precisions_cholesky
from dask_em.kernels.gaussian import Components, mixture_sums, posteriors

DATA = {
    "soft": "one covariance, centres about 1.5 standard deviations apart in all: rows are shared",
    "shapes": "a random covariance each, centres 1 apart in each column: as clusters often are",
    "apart": "a random covariance each, centres 10 apart in each column: every row is sure of its own",
}


@dataclass(frozen=True)
class Case:
    d: int
    k: int
    n: int
    covariance_type: str = "full"
    data: str = "soft"
    dtype: str = "float64"
    order: str = "C"


CASES = (
    Case(2, 16, 1_000_000),
    Case(16, 16, 1_000_000),
    Case(50, 10, 300_000),
    *(Case(d, k, 100_000, data=data) for d, k in ((2, 16), (16, 16), (50, 10)) for data in ("shapes", "apart")),
    *(Case(d, k, 100_000) for d, k in ((1, 16), (3, 16), (5, 16), (8, 2), (8, 4), (8, 16), (8, 64), (12, 16))),
    *(Case(d, k, 20_000) for d, k in ((24, 16), (32, 16), (100, 4))),
    *(Case(d, 16, 50_000, kind) for kind in ("tied", "diag", "spherical") for d in (2, 16, 50)),
    *(Case(d, 16, 100_000, "full", "soft", *how) for d in (2, 16) for how in (("float32", "C"), ("uint8", "F"))),
)


def mixture(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (n, d), means (K, d) and covariances (K, d, d) that they were drawn from."""
    rng = np.random.default_rng(0)
    k, d = case.k, case.d
    roots = 0.7 * rng.normal(size=(k, d, d)) / np.sqrt(d) + 0.6 * np.eye(d)
    if case.data == "soft":
        roots[:] = roots[0]
    means = rng.normal(size=(k, d)) * {"soft": 1.5 / np.sqrt(2 * d), "shapes": 1.0, "apart": 10.0}[case.data]
    if case.data == "soft":
        means = means @ roots[0].T
    labels = rng.integers(k, size=case.n)
    x = np.empty((case.n, d))
    for j in range(k):
        own = labels == j
        x[own] = means[j] + rng.normal(size=(own.sum(), d)) @ roots[j].T
    covariances = roots @ roots.transpose(0, 2, 1)
    if case.dtype == "uint8":  # as pixels: 0 to 255
        scale = 255 / np.ptp(x)
        x, means, covariances = (x - x.min()) * scale, (means - x.min()) * scale, covariances * scale**2
    return x.astype(case.dtype, order=case.order), means, covariances  # type: ignore[call-overload]


def shaped(covariances: np.ndarray, covariance_type: str) -> np.ndarray:
    """What the covariance type keeps of them."""
    if covariance_type == "full":
        return covariances
    if covariance_type == "tied":
        return covariances.mean(axis=0)
    variances = np.diagonal(covariances, axis1=1, axis2=2).copy()
    return variances if covariance_type == "diag" else variances.mean(axis=1)


def measured(case: Case) -> list[str]:
    """One row of the table."""
    x, means, covariances = mixture(case)
    c = shaped(covariances, case.covariance_type)
    u = precisions_cholesky(c, case.covariance_type)
    weights = np.full(case.k, 1 / case.k)
    components = Components(np.log(weights), means, u, case.covariance_type)
    pivot = x.mean(axis=0, dtype=np.float64)
    shared = (posteriors(x[:10_000], components, "proba") > 1e-9).sum(axis=1).mean()
    model = GaussianMixture(case.k, covariance_type=case.covariance_type)
    floats = np.ascontiguousarray(x) if case.dtype != "uint8" else np.ascontiguousarray(x, dtype=np.float64)
    halves = np.array_split(np.arange(case.n), 2)
    parts = [x[h[0] : h[-1] + 1] for h in halves]

    def theirs() -> None:
        model.weights_, model.means_, model.covariances_, model.precisions_cholesky_ = weights, means, c, u
        _, log_resp = model._e_step(floats)
        model._m_step(floats, log_resp)

    def ours() -> None:
        mixture_sums(x, None, pivot, [components])

    with ThreadPoolExecutor(2) as pool:

        def ours_twice() -> None:
            list(pool.map(lambda part: mixture_sums(part, None, pivot, [components]), parts))

        repeats = 5 if case.n <= 100_000 else 3
        with threadpool_limits(1):
            one = medians([theirs, ours], repeats)
        with threadpool_limits(2):
            two = medians([theirs, ours_twice], repeats)
    per_row = [f"{seconds / case.n * 1e6:.3f}" for seconds in one]
    name = f"d={case.d} K={case.k}"
    kind = f"{case.data}, {case.dtype} {case.order}"
    ratios = [f"{pair[0] / pair[1]:.1f}" for pair in (one, two)]
    return [name, case.covariance_type, kind, f"{case.n:,}", f"{shared:.1f}", *per_row, *ratios]


def main() -> None:
    """Print the table."""
    print("Must, with a full covariance on one thread: 15 at d=2 K=16, 8 at d=16 K=16, 3 at d=50 K=10.\n")
    for name, what in DATA.items():
        print(f"- {name}: {what}")
    print("\nShared: components with a responsibility above 1e-9, mean over rows. Times in µs per row, one thread.")
    print("scikit-learn is given float64 for uint8 data.\n")
    header = [
        "shape",
        "covariance",
        "data",
        "rows",
        "shared",
        "scikit-learn",
        "dask_em",
        "ratio, 1 thread",
        "2 threads",
    ]
    print(table(header, []))
    for case in CASES:
        print("| " + " | ".join(measured(case)) + " |", flush=True)


if __name__ == "__main__":
    main()
