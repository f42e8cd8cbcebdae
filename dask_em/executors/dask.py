"""A Dask cluster reads the blocks: one fresh graph for each pass, merged by the fixed tree."""

from __future__ import annotations

import time
import uuid
from asyncio import CancelledError as AsyncCancelledError
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import dask
from distributed import Client, Future, KilledWorker, span, wait
from distributed.comm import CommClosedError
from distributed.protocol.pickle import dumps

from dask_em._version import __version__
from dask_em.config import option
from dask_em.errors import ClusterError, ConfigurationError
from dask_em.executors.batch import Tally, batch_level, merge_in_order, run_batch, whole_number
from dask_em.executors.blas import one_blas_thread, one_blas_thread_on_worker, this_process
from dask_em.executors.graph import data_graph, pass_graph
from dask_em.executors.listening import Listener, NotTheClusters, not_the_clusters, tell
from dask_em.model import Block, PassResult, Reader, Request, Source

_MOST_TASKS = 4096
_SENT_EACH_PASS = 1 << 20  # bytes: a graph may carry so much each time; beyond it, what batches need is sent once
_MUCH_DATA = (
    "1 GiB"  # in this process's memory: from here on Dask says that the scheduler should not have to pass it on
)
_LOOK_EACH = 2.0  # seconds between looks at whether anybody is at work
_LOST = (CancelledError, AsyncCancelledError, CommClosedError, OSError)

_Workers = dict[str, dict[str, Any]]  # what the scheduler says of each, by address


@dataclass(frozen=True)
class _Batch:
    """What one task alone needs."""

    part: Reader
    blocks: Sequence[Block]


@dataclass(frozen=True)
class _Shared:
    """What every task of a pass needs."""

    requests: tuple[Request, ...]
    names: Sequence[str] | None
    in_memory: bool
    bind: Callable[[Reader, Sequence[Any]], Reader]
    token: str
    tell: bool  # whether anybody listens for progress
    client_process: str


@dataclass
class _Seen:
    """What is known of a source from one pass to the next."""

    source: Source  # held, so that its id is no other's meanwhile
    block_seconds: float = 0.0  # what a block took in the last pass
    level: int | None = None  # of the batches that the cluster holds, once it was sent them
    futures: list[Future] = field(default_factory=list)  # of those batches
    checked: set[str] = field(default_factory=set)  # workers that can hold its blocks

    def forget_placed(self) -> None:
        """Let go of what the cluster holds."""
        for future in self.futures:
            future.release()
        self.level, self.futures = None, []


class DaskExecutor:
    """Reads the blocks of a source on the workers of a Dask cluster.

    Parameters
    ----------
    client : distributed.Client
    batch_blocks : int, optional
        Blocks a task, rounded down to a power of two.  Default: a few tasks for each worker
        thread, none of which should run for longer than the option ``em.cluster.batch-seconds``.
        The answer does not depend on it.
    """

    def __init__(self, client: Client, *, batch_blocks: int | None = None) -> None:
        if client.asynchronous:
            raise ConfigurationError("the client is asynchronous; fit needs a synchronous distributed.Client")
        if client.scheduler is None:
            raise ClusterError("the client is closed: connect again, as in distributed.Client(address), and give that")
        self.client = client
        self._address = client.scheduler.address
        self.batch_blocks = None if batch_blocks is None else whole_number("batch_blocks", batch_blocks)
        self._seen: dict[int, _Seen] = {}  # by id of the source
        self._stack = ExitStack()
        self._checked: set[str] = set()  # workers whose software is ours
        self._spanned = False

    def close(self) -> None:
        """Release everything that the cluster holds for this executor; another fit may follow."""
        for seen in self._seen.values():
            seen.forget_placed()
        self._seen.clear()
        self._stack.close()
        self._spanned = False

    @property
    def partial_bytes(self) -> int | None:
        """Bytes that one partial result may safely take on a worker; None: as much as this process has.

        A worker's thread holds a few of them while it merges, beside its blocks.
        """
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        shares = [w["memory_limit"] // w["nthreads"] // 8 for w in workers if w["memory_limit"]]
        return min(shares, default=None)

    # ---- one pass

    def run(
        self, source: Source, requests: Sequence[Request], progress: Callable[[int, int], None] | None = None
    ) -> PassResult:
        """Read every block once."""
        if not self._spanned:  # one span a fit, so that the dashboard shows a fit as one thing
            self._stack.enter_context(span("dask-em"))
            self._spanned = True
        began = time.perf_counter()
        seen = self._seen.setdefault(id(source), _Seen(source))
        heard = None if progress is None else Listener(progress)
        attempts = 1 + int(option("cluster.retries"))
        for attempt in range(attempts):
            try:
                with one_blas_thread():  # workers may be threads of this process
                    root = self._run_once(seen, requests, heard)
                break
            except NotTheClusters as failed:
                raise failed.error from failed.error.__cause__
            except _LOST as error:  # the scheduler went away, or forgot what it was asked
                for each in self._seen.values():
                    each.forget_placed()
                if attempt + 1 == attempts:
                    raise ClusterError(
                        f"the scheduler at {self._address} was lost {attempts} times in one pass; start it "
                        "again and repeat the call (with checkpoint= it goes on from the last complete pass)"
                    ) from error
                self._await_scheduler(time.monotonic() + float(option("cluster.workers-timeout")))
        seconds = time.perf_counter() - began
        seen.block_seconds = (root.seconds_read + root.seconds_compute) / max(1, len(source.blocks))
        return root.close(seconds)

    def _run_once(self, seen: _Seen, requests: Sequence[Request], heard: Listener | None) -> Tally:
        if self.client.scheduler is None:  # the client has given up
            raise CommClosedError("the client is closed")
        source = seen.source
        workers = self._await_workers(float(option("cluster.workers-timeout")))
        self._check_software(workers)
        _check_memory(seen, workers)
        level = self._batch_level(seen, workers)
        token = uuid.uuid4().hex
        ranges = [(i, min(i + (1 << level), len(source.blocks))) for i in range(0, len(source.blocks), 1 << level)]
        shared = _Shared(
            tuple(requests),
            source.feature_names,
            source.in_memory,
            type(source).bind,
            token,
            heard is not None,
            this_process(),
        )
        owns = self._place(seen, level, ranges)
        with not_the_clusters():
            batches = [(own, source.dependencies(*r)) for own, r in zip(owns, ranges, strict=True)]
            graph, root = pass_graph(token, shared, batches, _run_task, merge_in_order)
            graph.update(source.graph or {})
        if heard is not None:
            heard.begin(self.client, token)
        future = self.client.get(graph, root, sync=False)
        try:
            self._wait(future, heard)
            if future.status == "error":
                raise _explained(future.exception())
            tally: Tally = future.result()
            if heard is not None:
                heard.tell_rest(len(source.blocks), tally.rows)
            return tally
        finally:
            if not future.done():
                future.cancel(force=True)
            future.release()
            if heard is not None:
                heard.end(self.client)

    def _wait(self, future: Future, heard: Listener | None) -> None:
        patience = float(option("cluster.workers-timeout"))
        alive = looked = time.monotonic()
        while True:
            try:
                with self.client.as_current():  # `wait` has no other way to be told which client
                    wait([future], timeout=0.2 if heard is not None else _LOOK_EACH)
                return
            except TimeoutError:
                pass
            if heard is not None:
                heard.pass_on()
            now = time.monotonic()
            if now - looked < _LOOK_EACH:
                continue
            looked, workers = now, self._workers()
            if _at_work(workers):
                alive = now
            elif now - alive > patience:
                raise _nobody_at_work(self._address, workers, patience)

    # ---- the plan

    def _batch_level(self, seen: _Seen, workers: _Workers) -> int:
        if seen.level is not None:  # the cluster holds the data in batches of that size
            return seen.level
        n_blocks = len(seen.source.blocks)
        if self.batch_blocks is not None:
            return max(0, self.batch_blocks.bit_length() - 1)
        threads = sum(w["nthreads"] for w in workers.values())
        level = batch_level(n_blocks, 8 * max(1, threads))
        while level > 0 and seen.block_seconds * (1 << level) > float(option("cluster.batch-seconds")):
            level -= 1
        while n_blocks >> level > _MOST_TASKS:
            level += 1
        return level

    def _place(self, seen: _Seen, level: int, ranges: Sequence[tuple[int, int]]) -> list[Any]:
        """What each batch alone needs; where that is much, futures of it, sent to the cluster once for all passes."""
        if seen.level is not None:
            return list(seen.futures)
        with not_the_clusters():
            batches = _batches(seen.source, ranges)
            if not seen.source.in_memory and _nbytes(batches[0].part) * len(ranges) < _SENT_EACH_PASS:
                return list(batches)
        graph, keys = data_graph("em-data", uuid.uuid4().hex, batches)
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": _MUCH_DATA}):
            seen.futures = list(self.client.get(graph, keys, sync=False))
        seen.level = level
        return list(seen.futures)

    # ---- the cluster

    def _await_scheduler(self, deadline: float) -> None:
        # the client reconnects by itself, if the scheduler comes back and it has not given up
        while self.client.status not in ("running", "closed") and time.monotonic() < deadline:
            time.sleep(0.2)

    def _workers(self) -> _Workers:
        workers: _Workers = self.client.scheduler_info(n_workers=-1)["workers"]
        if self.client.status != "running":  # a client that has lost the scheduler repeats what it last heard
            raise CommClosedError("the scheduler does not answer")
        return workers

    def _await_workers(self, patience: float) -> _Workers:
        """All workers, once one of them takes work."""
        deadline = time.monotonic() + patience
        while not _at_work(workers := self._workers()):
            if time.monotonic() > deadline:
                raise _nobody_at_work(self._address, workers, patience)
            time.sleep(0.2)
        return workers

    def _check_software(self, workers: _Workers) -> None:
        """Refuse workers that run other software."""
        new = [address for address in workers if address not in self._checked]
        if not new:
            return
        found = self.client.run(eval, "__import__('dask_em').__version__", workers=new, on_error="return")
        for address, version in found.items():
            if isinstance(version, ModuleNotFoundError):
                raise ClusterError(f"worker {address} has no dask_em: install dask-em {__version__} there")
            if isinstance(version, Exception):
                raise ClusterError(f"worker {address} cannot import dask_em: {version}") from version
            if version != __version__:
                raise ClusterError(
                    f"worker {address} has dask_em {version} and this process {__version__}: install the same"
                )
        self._checked.update(new)


def _check_memory(seen: _Seen, workers: _Workers) -> None:
    """Refuse workers that cannot hold two blocks a thread."""
    new = [address for address in workers if address not in seen.checked]
    if not new:
        return
    largest = max(seen.source.blocks, key=lambda b: b.nbytes)
    for address in new:
        limit, threads = workers[address]["memory_limit"], workers[address]["nthreads"]
        if limit and 2 * largest.nbytes * threads > limit / 2:
            raise ClusterError(
                f"{largest.name} takes {largest.nbytes / 2**20:.0f} MiB in memory, and two such blocks for each of "
                f"the {threads} threads of worker {address} are more than half of its {limit / 2**20:.0f} MiB: "
                "write smaller blocks (chunks, row groups), or give workers more memory or fewer threads"
            )
    seen.checked.update(new)


def _nbytes(part: Reader) -> int:
    return len(dumps(part))


def _explained(error: BaseException) -> NotTheClusters:
    """The error of a task, in words where it is the cluster's."""
    said: BaseException = error
    if isinstance(error, KilledWorker):
        said = ClusterError(
            f"workers died {error.allowed_failures + 1} times while working on the same batch of blocks "
            f"({error.last_worker.address} last): most often out of memory; give workers more memory or fewer "
            "threads, write the data in smaller blocks, or raise distributed.scheduler.allowed-failures on the "
            "scheduler"
        )
    elif isinstance(error, ModuleNotFoundError):
        said = ClusterError(
            f"a worker cannot import {error.name!r}: install the same packages on the scheduler and the workers"
        )
    if said is not error:
        said.__cause__ = error
    return NotTheClusters(said)


def _batches(source: Source, ranges: Sequence[tuple[int, int]]) -> list[_Batch]:
    return [_Batch(source.part(start, stop), tuple(source.blocks[start:stop])) for start, stop in ranges]


def _at_work(workers: _Workers) -> bool:
    """Whether any worker takes tasks; one that is short of memory is paused, and one that leaves is closing."""
    return any(w["status"] == "running" for w in workers.values())


def _nobody_at_work(address: str, workers: _Workers, patience: float) -> ClusterError:
    if not workers:
        return ClusterError(
            f"the cluster at {address} has had no workers for {patience:.0f} s: start workers, or raise the "
            "option em.cluster.workers-timeout"
        )
    return ClusterError(
        f"none of the {len(workers)} workers of the cluster at {address} has taken work for {patience:.0f} s: workers "
        "pause when their memory fills up; release what else they hold (persisted collections, futures), give them "
        "more memory or write the data in smaller blocks"
    )


# ---------------------------------------------------------------- runs on the workers


def _run_task(shared: _Shared, batch: _Batch, values: Sequence[Any]) -> Tally:
    one_blas_thread_on_worker(shared.client_process)
    reader = shared.bind(batch.part, values) if values else batch.part
    tally = run_batch(
        reader,
        batch.blocks,
        shared.requests,
        names=shared.names,
        in_memory=shared.in_memory or bool(values),
    )
    if shared.tell:
        tell(shared.token, len(batch.blocks), tally.rows)
    return tally
