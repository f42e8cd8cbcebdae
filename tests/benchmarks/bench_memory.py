"""Peak memory of a fit, and of the same fit to ten times the data in blocks of the same size."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from measure import mixture_data, table

FIT = """
import resource, sys
import numpy as np
import dask_em as em
gm = em.GaussianMixture(8, random_state=0, max_passes=8, tol=0, verbose=0, executor=em.ThreadsExecutor(2))
import warnings; warnings.simplefilter("ignore")
gm.fit(sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, gm.n_rows_)
"""


def peak(path: str) -> float:
    """MiB at the peak of a fresh process that fits what is stored there; the smaller of two runs."""
    runs = [
        subprocess.run([sys.executable, "-c", FIT, path], check=True, capture_output=True, text=True).stdout.split()
        for _ in range(2)
    ]
    return min(float(out[0]) for out in runs)


def main() -> None:
    """Print the table."""
    n, d = 1_000_000, 4
    x = mixture_data(n, d, 8)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in ("zarr", "parquet"):
            for times in (1, 10):
                path = str(folder / f"{times}.{kind}")
                if kind == "zarr":
                    array = zarr.create_array(path, shape=(times * n, d), chunks=(65536, d), dtype=x.dtype)
                    for i in range(times):
                        array[i * n : (i + 1) * n] = x
                else:
                    schema = pa.schema([(f"c{j}", pa.float64()) for j in range(d)])
                    with pq.ParquetWriter(path, schema) as writer:
                        for _ in range(times):
                            writer.write_table(pa.table(list(x.T), schema=schema), row_group_size=131072)
            small, large = peak(str(folder / f"1.{kind}")), peak(str(folder / f"10.{kind}"))
            size = 10 * n * d * 8 / 2**20
            rows.append((kind, f"{small:.0f}", f"{large:.0f}", f"{size:.0f}", f"{100 * (large / small - 1):+.1f}%"))
    print("must +5%, aim +0%\n")
    print(table(["store", "1e6 rows, MiB", "1e7 rows, MiB", "1e7 rows decoded, MiB", "more"], rows))


if __name__ == "__main__":
    main()
