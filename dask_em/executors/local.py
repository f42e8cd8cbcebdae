"""A Dask cluster of processes on this machine, as the command line and the demonstration start one."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dask_em.errors import ConfigurationError

_SETTINGS = {
    # Arrow's own pool keeps what it freed, which the workers' memory limit then counts
    "distributed.nanny.pre-spawn-environ.ARROW_DEFAULT_MEMORY_POOL": "system",
    # a paused worker waits until memory is freed, and of ours none is: it would wait for ever; past its limit it
    # is ended instead, which the fit hears of
    "distributed.worker.memory.pause": False,
}


@contextmanager
def local_cluster(workers: int, threads: int, memory_limit: str | None) -> Iterator[Any]:
    """A cluster of processes on this machine, and a client of it.

    Parameters
    ----------
    workers : int
    threads : int
        For each worker.
    memory_limit : str, optional
        Of each worker, such as ``"4GB"``; by default its share of the machine's.

    Raises
    ------
    ConfigurationError
        Dask refuses what it is given.
    """
    import dask.config
    from distributed import Client, LocalCluster

    with dask.config.set(_SETTINGS), _children_ignore_interrupts():
        try:
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=threads,
                memory_limit=memory_limit or "auto",
                dashboard_address="127.0.0.1:0",  # any free port, and nobody else's to see
                silence_logs=logging.CRITICAL,
            )
        except ValueError as error:
            raise ConfigurationError(f"a local cluster cannot be started: {error}") from error
    try:
        client = Client(cluster)
        try:
            yield client
        finally:
            close_client(client)
    finally:
        with contextlib.suppress(TimeoutError):
            cluster.close(timeout=10)


def close_client(client: Any) -> None:
    """Let go of a client, whose cluster may be gone."""
    with contextlib.suppress(TimeoutError, OSError):
        client.close(timeout=5)


@contextmanager
def _children_ignore_interrupts() -> Iterator[None]:
    """Ctrl-C in a terminal reaches every process; only this one should act on it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
