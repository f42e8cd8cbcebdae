"""Two threads against one, and two Dask workers against one."""

import tempfile
from functools import partial

import zarr
from distributed import Client, LocalCluster
from measure import a_pass, em_request, medians, mixture_data, table

import dask_em as em


def main() -> None:
    """Print the table."""
    rows = []
    for n, d, k in ((8_000_000, 2, 16), (2_000_000, 16, 16)):
        x = mixture_data(n, d, k)
        request = em_request(x, k)
        source = em.open(x)
        executors = [em.ThreadsExecutor(1), em.ThreadsExecutor(2)]
        one, two = medians([partial(a_pass, source, request, e) for e in executors])
        rows.append(("threads, array in memory", f"d={d} K={k}, {n:,}", f"{one:.3f}", f"{two:.3f}", f"{one / two:.2f}"))

        with tempfile.TemporaryDirectory() as folder:
            array = zarr.create_array(
                f"{folder}/x.zarr", shape=x.shape, chunks=(65536, d), dtype=x.dtype, compressors=None
            )
            array[:] = x
            stored = em.open(f"{folder}/x.zarr")
            with (
                LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as small,
                LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as large,
                Client(small) as client_1,
                Client(large) as client_2,
            ):
                clustered = [em.DaskExecutor(client_1), em.DaskExecutor(client_2)]
                # several passes a measurement: a fit is many passes, and a cluster has a fixed cost for each
                for name, data in (("Dask workers, Zarr", stored), ("Dask workers, array sent once", source)):
                    one, two = medians([partial(a_pass, data, request, e) for e in clustered], 5)
                    rows.append((name, f"d={d} K={k}, {n:,}", f"{one:.3f}", f"{two:.3f}", f"{one / two:.2f}"))
                for executor in clustered:
                    executor.close()
    print("must 1.7, aim 1.9\n")
    print(table(["who", "rows", "one, s", "two, s", "one / two"], rows))


if __name__ == "__main__":
    main()
