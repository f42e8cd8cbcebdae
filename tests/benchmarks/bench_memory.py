"""Peak memory of a fit, and of the same fit to ten times the data in blocks of the same size.

Both stream.  First the resident sample is held to one size, so that what grows with the data would show; then it
grows with it, as by default it does until it takes `sample_bytes`.
"""

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
gm = em.GaussianMixture(8, random_state=0, max_passes=8, tol=0, verbose=0, executor=em.ThreadsExecutor(2),
                        sample_bytes=int(sys.argv[2]))
import warnings; warnings.simplefilter("ignore")
gm.fit(sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, gm.n_rows_)
"""


def peak(path: str, sample_bytes: int) -> float:
    """MiB at the peak of a fresh process that fits what is stored there; the smaller of two runs."""
    command = [sys.executable, "-c", FIT, path, str(sample_bytes)]
    runs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() for _ in range(2)]
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
            size = 10 * n * d * 8 / 2**20
            row = 8 * d + 16  # of the sample, with its hash and weight
            for sample, held in (("65,536 rows", 65536 * row), ("65,536 rows, then 312,500", 400_000 * row)):
                small, large = (peak(str(folder / f"{times}.{kind}"), held) for times in (1, 10))
                more = f"{100 * (large / small - 1):+.1f}%"
                rows.append((kind, sample, f"{small:.0f}", f"{large:.0f}", f"{size:.0f}", more))
    print("must +5%, aim +0%, with the sample held\n")
    print(table(["store", "sample", "1e6 rows, MiB", "1e7 rows, MiB", "1e7 rows decoded, MiB", "more"], rows))


if __name__ == "__main__":
    main()
