"""Real faults on real clusters: dead workers, no workers, too little memory, other software."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest

import dask_em as em
from dask_em.callbacks import Quiet

pytestmark = pytest.mark.cluster


@contextmanager
def cluster(**settings: Any) -> Iterator[tuple[Any, Any]]:
    from distributed import Client, LocalCluster

    settings = {
        "n_workers": 2,
        "threads_per_worker": 1,
        "dashboard_address": "127.0.0.1:0",
        "host": "127.0.0.1",
        **settings,
    }
    with LocalCluster(**settings) as made, Client(made) as client:
        yield made, client


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Forty blocks of rows in a Zarr array."""
    import zarr

    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(c, 1 + c / 9, size=(200_000, 4)) for c in (0, 3, 7)])
    path = str(tmp_path_factory.mktemp("rows") / "rows.zarr")
    array = zarr.create_array(path, shape=x.shape, chunks=(15_000, 4), shards=(60_000, 4), dtype=x.dtype)
    array[:] = rng.permutation(x)
    return path


def fit(data: Any, **settings: Any) -> em.GaussianMixture:
    """Many passes over data that does not fit in the sample."""
    many = {"random_state": 0, "n_init": 1, "tol": 0.01, "solver": "em", "sample_bytes": 2_000_000, "verbose": 0}
    return em.GaussianMixture(3, **many, **settings).fit(data)


def same(a: em.GaussianMixture, b: em.GaussianMixture) -> bool:
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("weights_", "means_", "covariances_"))


class KillOneWorker(Quiet):
    """Kills a worker process a moment into the pass after the third."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.killed = False

    def on_step(self, running: Any) -> None:
        if running.n_passes == 3 and not self.killed:
            self.killed = True
            pid = next(iter(self.client.run(os.getpid).values()))
            threading.Timer(0.02, os.kill, (pid, signal.SIGKILL)).start()


def test_a_worker_killed_within_a_pass_changes_nothing(stored: str) -> None:
    expected = fit(stored)
    with cluster() as (_, client):
        killer = KillOneWorker(client)
        gm = fit(stored, callbacks=[killer])
        assert killer.killed
        assert same(gm, expected)
        client.wait_for_workers(2, timeout=30)  # the nanny must have put another in its place before the cluster closes


def test_data_sent_to_the_cluster_survives_its_holders(stored: str) -> None:
    x = np.asarray(em.open(stored).read(0).x)
    with cluster() as (_, client):
        killer = KillOneWorker(client)
        gm = fit(x, callbacks=[killer])
        assert killer.killed
        assert same(gm, fit(x, executor=em.ThreadsExecutor(2)))
        client.wait_for_workers(2, timeout=30)


def test_a_cluster_without_workers_is_said_so_in_time(stored: str) -> None:
    with cluster(n_workers=0) as (_, client), dask.config.set({"em.cluster.workers-timeout": "1s"}):
        began = time.monotonic()
        with pytest.raises(em.ClusterError, match=r"has had no workers for 1 s: start workers"):
            fit(stored)
        assert time.monotonic() - began < 10
        assert client.status == "running"


class LoseAllWorkers(Quiet):
    def __init__(self, made: Any) -> None:
        self.made = made

    def on_step(self, running: Any) -> None:
        if running.n_passes == 3:
            self.made.scale(0)
            while self.made.scheduler.workers:
                time.sleep(0.05)


def test_losing_all_workers_for_good_is_said_so(stored: str) -> None:
    with (
        cluster() as (made, _),
        dask.config.set({"em.cluster.workers-timeout": "2s"}),
        pytest.raises(em.ClusterError, match="has had no workers"),
    ):
        fit(stored, callbacks=[LoseAllWorkers(made)])


def test_workers_that_all_pause_are_said_so_in_time(stored: str) -> None:
    import distributed  # noqa: F401  its defaults must be there before one of them is set for a while

    full = {f"distributed.worker.memory.{name}": False for name in ("target", "spill", "terminate")}
    paused = {"distributed.worker.memory.pause": 0.01}  # of 4 GB: less than a worker takes that holds nothing
    with (
        dask.config.set({**full, **paused}),
        cluster(memory_limit="4GB") as (_, client),
        dask.config.set({"em.cluster.workers-timeout": "2s"}),
    ):
        while {w["status"] for w in client.scheduler_info(n_workers=-1)["workers"].values()} != {"paused"}:
            time.sleep(0.05)
        with pytest.raises(em.ClusterError, match="none of the 2 workers .* has taken work for 2 s: workers pause"):
            fit(stored)


class LoseTheScheduler(Quiet):
    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process

    def on_step(self, running: Any) -> None:
        if running.n_passes == 3:
            self.process.kill()
            self.process.wait()


def start_scheduler(folder: Path) -> tuple[subprocess.Popen, str]:
    file = folder / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--no-dashboard", "--scheduler-file", str(file)],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    import json

    return process, json.loads(file.read_text())["address"]


def start_worker(address: str, *, env: dict[str, str] | None = None, preload: Path | None = None) -> subprocess.Popen:
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-dashboard", "--nworkers", "1"]
    command += ["--nthreads", "1"] + ([] if preload is None else ["--preload", str(preload)])
    # in place of PYTHONPATH, which pytest need not have set
    where = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **(env or {})}
    return subprocess.Popen(command, env=where, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def test_a_lost_scheduler_ends_the_fit_with_a_sentence_and_a_checkpoint(stored: str, tmp_path: Path) -> None:
    from distributed import Client

    process, address = start_scheduler(tmp_path)
    worker = start_worker(address)
    try:
        settings = {"cluster.workers-timeout": "3s", "cluster.retries": 1}
        with (
            dask.config.set({f"em.{k}": v for k, v in settings.items()}),
            dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
            Client(address, timeout="5s") as client,
        ):
            client.wait_for_workers(1, timeout=30)
            with pytest.raises(em.ClusterError, match="start it again and repeat the call|has had no workers"):
                fit(stored, callbacks=[LoseTheScheduler(process)], checkpoint=tmp_path / "fit.checkpoint")
    finally:
        for p in (process, worker):
            p.kill()
            p.wait()
    assert same(fit(stored, checkpoint=tmp_path / "fit.checkpoint"), fit(stored))


@pytest.mark.parametrize("fault", ["missing", "other version"])
def test_workers_with_other_software_are_named(stored: str, tmp_path: Path, fault: str) -> None:
    from distributed import Client

    preload = tmp_path / "preload.py"
    preload.write_text(
        textwrap.dedent(
            """
            import sys
            sys.modules["dask_em"] = None
            """
            if fault == "missing"
            else """
            import dask_em
            dask_em.__version__ = "0.0.1"
            """
        )
    )
    process, address = start_scheduler(tmp_path)
    worker = start_worker(address, preload=preload)
    try:
        with Client(address, timeout="30s") as client:
            client.wait_for_workers(1, timeout=30)
            match = "has no dask_em: install" if fault == "missing" else r"has dask_em 0\.0\.1 and this process"
            with pytest.raises(em.ClusterError, match=match):
                fit(stored)
    finally:
        for p in (process, worker):
            p.kill()
            p.wait()


def test_blocks_too_large_for_the_workers_are_refused_before_they_are_read(tmp_path: Path) -> None:
    import zarr

    path = str(tmp_path / "wide.zarr")
    zarr.create_array(path, shape=(4_000_000, 8), chunks=(2_000_000, 8), dtype="f8")[0, 0] = 1.0
    with (
        cluster(memory_limit="300MiB"),
        pytest.warns(UserWarning, match="missing"),
        pytest.raises(em.ClusterError, match=r"takes 122 MiB.*more than half of its 300 MiB: write smaller blocks"),
    ):
        fit(path)


def test_data_larger_than_the_clusters_memory_is_fitted(tmp_path: Path) -> None:
    import zarr

    path, chunk = str(tmp_path / "large.zarr"), 50_000
    array = zarr.create_array(path, shape=(80 * chunk, 32), chunks=(chunk, 32), dtype="f8", compressors=None)
    rng = np.random.default_rng(0)
    some = rng.normal(size=(chunk, 32)) + 5 * rng.integers(2, size=(chunk, 1))
    for i in range(80):
        array[i * chunk : (i + 1) * chunk] = some
    assert array.nbytes > 2 * 450 * 2**20  # a gigabyte, and 900 MB in all
    with cluster(memory_limit="450MiB") as (_, client):
        before = client.run(os.getpid)
        gm = em.GaussianMixture(2, random_state=0, covariance_type="diag", verbose=0).fit(path)
        assert gm.n_rows_ == 80 * chunk
        assert gm.status_ == "converged"
        assert client.run(os.getpid) == before  # no nanny had to restart a worker


@dataclass(frozen=True)
class Broken:
    """A request that fails as a disk does."""

    accepts_nan: bool = False

    def map(self, chunk: em.Chunk) -> em.Statistics:
        raise OSError("the disk of the model's own")


def test_an_oserror_of_a_task_is_not_taken_for_a_lost_scheduler(stored: str, client: Any) -> None:
    executor = em.DaskExecutor(client)
    with pytest.raises(OSError, match="the model's own"):
        executor.run(em.open(stored), [Broken()])
    executor.close()
