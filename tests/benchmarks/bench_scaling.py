"""Two threads against one, and two Dask workers against one.

A pass on a cluster has a fixed cost of about a tenth of a second, so both a short and a long pass are shown.
Each worker is pinned to a core of its own: unpinned, a single worker reads ahead on the second core, and two
workers have no more cores than one.
"""

import os
import tempfile
from functools import partial

import numpy as np
import zarr
from distributed import Client, LocalCluster
from measure import a_pass, em_request, medians, mixture_data, table

import dask_em as em


def threads(n: int, d: int, k: int) -> tuple[str, ...]:
    """A row of the table for threads over an array in memory."""
    x = mixture_data(n, d, k)
    request, source = em_request(x, k), em.open(x)
    one, two = medians([partial(a_pass, source, request, em.ThreadsExecutor(i)) for i in (1, 2)])
    return "threads, array in memory", f"d={d} K={k}, {n:,}", f"{one:.3f}", f"{two:.3f}", f"{one / two:.2f}"


def workers(executors: list[em.DaskExecutor], n: int, d: int, k: int, times: int) -> tuple[str, ...]:
    """A row of the table for workers over a Zarr array that holds n rows several times."""
    x = mixture_data(n, d, k)
    with tempfile.TemporaryDirectory() as folder:
        shape = (times * n, d)
        array = zarr.create_array(
            f"{folder}/x.zarr", shape=shape, chunks=(32768, d), dtype=np.float64, compressors=None
        )
        for i in range(times):
            array[i * n : (i + 1) * n] = x
        source, request = em.open(f"{folder}/x.zarr"), em_request(x, k)
        one, two = medians([partial(a_pass, source, request, e) for e in executors], 5)
    return (
        "Dask workers pinned to a core each, Zarr",
        f"d={d} K={k}, {times * n:,}",
        f"{one:.3f}",
        f"{two:.3f}",
        f"{one / two:.2f}",
    )


def main() -> None:
    """Print the table."""
    rows = [threads(8_000_000, 2, 16), threads(2_000_000, 16, 16)]
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as small,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as large,
        Client(small) as client_1,
        Client(large) as client_2,
    ):
        for client in (client_1, client_2):
            for core, address in enumerate(client.scheduler_info(n_workers=-1)["workers"]):
                client.run(os.sched_setaffinity, 0, {core}, workers=[address])
        executors = [em.DaskExecutor(client_1), em.DaskExecutor(client_2)]
        rows += [workers(executors, 2_000_000, 16, 16, 1), workers(executors, 2_000_000, 16, 16, 8)]
        rows += [workers(executors, 4_000_000, 2, 16, 16)]
        for executor in executors:
            executor.close()
    print("must 1.7, aim 1.9\n")
    print(table(["who", "rows", "one, s", "two, s", "one / two"], rows))


if __name__ == "__main__":
    main()
