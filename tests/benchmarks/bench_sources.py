"""A pass over stored data against the longer of reading alone and computing alone.

One thread computes and one reads ahead, so the ideal is 1; the files are in the page cache.  Nothing can be computed
before the first of N blocks is read: where both take equally long that alone makes 1 + 1/N, hence 16 blocks or more.
"""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from measure import a_pass, em_request, medians, mixture_data, table
from zarr.codecs import ZstdCodec

import dask_em as em
from dask_em.executors.batch import map_block
from dask_em.model import Chunk, Request, Source


def stores(folder: Path, x: np.ndarray) -> dict[str, str]:
    """The same rows as files of several kinds."""
    found = {}
    for name, compressors in (("Zarr, uncompressed", None), ("Zarr, default zstd", (ZstdCodec(level=0),))):
        path = str(folder / f"{name.split()[-1]}.zarr")
        array = zarr.create_array(
            path, shape=x.shape, chunks=(65536, x.shape[1]), dtype=x.dtype, compressors=compressors
        )
        array[:] = x
        found[name] = path
    columns = {f"c{j}": x[:, j] for j in range(x.shape[1])}
    for name, compression in (("Parquet, snappy", "snappy"), ("Parquet, uncompressed", "none")):
        path = str(folder / f"{compression}.parquet")
        pq.write_table(pa.table(columns), path, compression=compression, row_group_size=131072, use_dictionary=False)
        found[name] = path
    return found


def read_all(source: Source) -> None:
    """Reading alone."""
    for block in source.blocks:
        source.read(block.index)


def compute_all(source: Source, chunks: Sequence[Chunk], request: Request) -> None:
    """Computing alone."""
    for block, chunk in zip(source.blocks, chunks, strict=True):
        map_block([request], block, chunk, 0.0, None)


def main() -> None:
    """Print the table."""
    rows: list[Sequence[str]] = []
    for n, d, k in ((16_000_000, 2, 16), (4_000_000, 8, 16), (2_000_000, 16, 16)):
        x = mixture_data(n, d, k).round(3)  # decimals, as instruments write them, so that compression has work to do
        request = em_request(x, k)
        with tempfile.TemporaryDirectory() as folder:
            for name, path in stores(Path(folder), x).items():
                source = em.open(path)
                executor = em.ThreadsExecutor(1)
                chunks = [source.read(b.index) for b in source.blocks]

                reading, computing, both = medians(
                    [
                        partial(read_all, source),
                        partial(compute_all, source, chunks, request),
                        partial(a_pass, source, request, executor),
                    ],
                    5,
                )
                rows.append(
                    (
                        name,
                        f"d={d} K={k}, {n:,}",
                        f"{n * d * 8 / reading / 1e6:,.0f} MB/s",
                        f"{reading:.3f}",
                        f"{computing:.3f}",
                        f"{both:.3f}",
                        f"{both / max(reading, computing):.2f}",
                    )
                )
    print("must 1.3, aim 1.1\n")
    print(table(["store", "rows", "read rate", "read s", "compute s", "pass s", "pass / longer"], rows))


if __name__ == "__main__":
    main()
