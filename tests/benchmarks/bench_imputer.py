"""Filling in what is missing: fit and transform, against scikit-learn's IterativeImputer on the same data."""

import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
from measure import table

import dask_em as em

COLUMNS, SHARE, TENTH = 20, 0.05, 10


def data(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of correlated columns, and the same rows with holes at random."""
    rng = np.random.default_rng(0)
    mixing = np.eye(COLUMNS) + 0.3 * rng.normal(size=(COLUMNS, COLUMNS))
    x = rng.normal(size=(n, COLUMNS)) @ mixing + 3
    return x, np.where(rng.random(x.shape) < SHARE, np.nan, x)


def seconds_of(fill: Callable[[np.ndarray], np.ndarray], x: np.ndarray, holed: np.ndarray) -> tuple[float, float]:
    """Seconds, and the root of the mean squared error of what was filled in."""
    began = time.perf_counter()
    filled = fill(holed)
    seconds = time.perf_counter() - began
    gone = np.isnan(holed)
    return seconds, float(np.sqrt(((filled - x)[gone] ** 2).mean()))


def main(n: int) -> str:
    """A table; scikit-learn is given a tenth of the rows, and the times of both on that are compared."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    ours = em.GaussianImputer(random_state=0, sample_bytes=1 << 20, verbose=0)  # of which few rows fit into it
    warm = data(3000)[1]
    ours.fit_transform(warm)
    x, holed = data(n)
    whole, error = seconds_of(ours.fit_transform, x, holed)
    rows = [["dask_em", f"{n:,}", f"{whole:.2f}", ours.n_passes_, f"{error:.4f}", ""]]
    few, few_holed = x[: n // TENTH], holed[: n // TENTH]
    part, error = seconds_of(ours.fit_transform, few, few_holed)
    rows.append(["dask_em", f"{len(few):,}", f"{part:.2f}", ours.n_passes_, f"{error:.4f}", ""])
    theirs = IterativeImputer(random_state=0)
    theirs.fit_transform(warm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged after its ten rounds
        took, error = seconds_of(theirs.fit_transform, few, few_holed)
    rounds = f"{theirs.n_iter_} rounds"
    rows.append(["IterativeImputer", f"{len(few):,}", f"{took:.2f}", rounds, f"{error:.4f}", f"{took / part:.0f}"])
    ratio = f"{TENTH * took / whole:.0f}"
    rows.append(["its time times ten", f"{n:,}", f"{TENTH * took:.2f}", "", "", ratio])
    return table(["", "rows", "fit and transform, s", "passes", "error", "times ours"], rows)


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
