"""Where a command runs: threads, a local cluster or a given one; and how it hears that it should stop."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click

from dask_em.cli.log import LOG, Log
from dask_em.cli.program import DEBUG
from dask_em.errors import ClusterError, ConfigurationError

CONNECT_SECONDS = 10  # for a scheduler to answer


@contextmanager
def session(
    *,
    scheduler: str | None,
    workers: int | None,
    threads_per_worker: int | None,
    memory_limit: str | None,
    threads: int | None,
) -> Iterator[Log]:
    """Everything within runs where the options say; yields the log.

    Raises
    ------
    ConfigurationError
        Options that contradict each other.
    ClusterError
        The scheduler does not answer.
    """
    ctx = click.get_current_context()
    log: Log = ctx.meta.get(LOG) or Log()
    places = {"--scheduler": scheduler, "--workers": workers, "--threads": threads}
    given = [name for name, value in places.items() if value is not None]
    if len(given) > 1:
        raise ConfigurationError(f"{' and '.join(given)} exclude each other: choose where to run")
    if workers is None and (threads_per_worker is not None or memory_limit is not None):
        raise ConfigurationError("--threads-per-worker and --memory-limit belong to --workers: give that too")
    with ExitStack() as stack:
        stack.enter_context(log.catching())
        stack.enter_context(stopping())
        if scheduler is not None or workers is not None:
            stack.enter_context(_quiet_cluster(debug=bool(ctx.meta.get(DEBUG))))
        if scheduler is not None:
            stack.enter_context(_connected(scheduler))
        elif workers is not None:
            from dask_em.executors.local import local_cluster

            stack.enter_context(local_cluster(workers, threads_per_worker or 1, memory_limit))
        elif threads is not None:
            import dask.config

            import dask_em.config

            dask_em.config.option("threads")  # registers the defaults, which would otherwise come after this
            stack.enter_context(dask.config.set({"em.threads": threads}))
        yield log


@contextmanager
def stopping() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does: the fit ends after the block in hand, with what it has."""

    def stop(signum: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # asked once, it is stopping
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _quiet_cluster(*, debug: bool) -> Iterator[None]:
    """Dask says in log lines and tracebacks what the errors here say in a sentence."""
    logger = logging.getLogger("distributed")
    level = logger.level
    if not debug:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _connected(scheduler: str) -> Iterator[None]:
    from distributed import Client

    from dask_em.executors.local import close_client

    address = _address(scheduler)
    try:
        asyncio.run(asyncio.wait_for(_greet(address), CONNECT_SECONDS))
        client = Client(address, timeout=CONNECT_SECONDS)
    except Exception as error:  # of any kind: what answers may speak another protocol
        reason = "it does not answer" if isinstance(error, OSError) else "what answers there is no Dask scheduler"
        raise ClusterError(
            f"the scheduler {scheduler} cannot be reached within {CONNECT_SECONDS} s ({reason}): check that it runs, "
            "and its address"
        ) from error
    try:
        yield
    finally:
        close_client(client)


async def _greet(address: str) -> None:
    """Shake hands with a scheduler; a client would wait for ever for one that accepts and says nothing."""
    from distributed.comm import connect
    from distributed.security import Security

    comm = await connect(address, timeout=CONNECT_SECONDS, **Security().get_connection_args("client"))
    await comm.close()


def _address(scheduler: str) -> str:
    """The address in a scheduler file, or the one given."""
    if os.path.isfile(scheduler):
        try:
            with open(scheduler, encoding="utf-8") as file:
                return str(json.load(file)["address"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"--scheduler {scheduler} is not a scheduler file: it has no address in it"
            ) from error
    if ":" not in scheduler:
        raise ConfigurationError(
            f"--scheduler {scheduler} is neither an address such as tcp://host:8786 nor a scheduler file that exists"
        )
    return scheduler
