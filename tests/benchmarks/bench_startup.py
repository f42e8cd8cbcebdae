"""What it costs to begin: importing, a fresh process to a fitted model, the very first run ever."""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import table

import dask_em

FIT = """
import numpy as np, dask_em as em
em.GaussianMixture(3, random_state=0).fit(np.random.default_rng(0).normal(size=(1000, 2)) * [1, 5] + [0, 3])
import time
print(time.time())
"""


def seconds(code: str, env: dict[str, str], repeats: int) -> tuple[float, float]:
    """Median seconds of a fresh process that runs the code: until it has ended, and until it says what time it is."""
    ended, said = [], []
    for _ in range(repeats):
        began = time.time()
        done = subprocess.run([sys.executable, "-c", code], check=True, env=env, capture_output=True, text=True)
        ended.append(time.time() - began)
        said.append(float(done.stdout or "nan") - began)
    return statistics.median(ended), statistics.median(said)


def main() -> None:
    """Print the table."""
    env = {**os.environ}
    nothing, _ = seconds("pass", env, 7)
    importing, _ = seconds("import dask_em", env, 7)
    with tempfile.TemporaryDirectory() as folder:
        # a copy of the package without compiled code, with a cache of its own
        copy = Path(folder) / "package"
        shutil.copytree(
            Path(dask_em.__file__).parent,
            copy / "dask_em",
            ignore=shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc"),
        )
        fresh = {**env, "PYTHONPATH": str(copy), "NUMBA_CACHE_DIR": str(Path(folder) / "cache")}
        _, first = seconds(FIT, fresh, 1)
        ended, again = seconds(FIT, fresh, 7)
    rows = [
        ("import dask_em, the interpreter's own start left out", f"{importing - nothing:.2f}", "1.0", "0.5"),
        ("fresh process to a fitted model on 1,000 rows, compiled code cached", f"{again:.2f}", "2", "1"),
        ("the same, until that process has ended", f"{ended:.2f}", "", ""),
        ("the very first run ever, everything compiled", f"{first:.1f}", "20", "8"),
    ]
    print(table(["what", "seconds", "must", "aim"], rows))


if __name__ == "__main__":
    main()
