"""Threads in this process: the default without a cluster, and the specification of every executor."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from dask_em.config import option
from dask_em.executors.batch import Tally, Tree, batch_level, map_block, read_ahead, whole_number
from dask_em.executors.blas import one_blas_thread
from dask_em.model import Block, PassResult, Request, Source

_MOST_BLOCKS_A_BATCH = 6  # as a power of two: more would only delay the balance among threads


class ThreadsExecutor:
    """Reads the blocks of a source on a few threads.

    Parameters
    ----------
    n_threads : int, optional
        Threads that compute; each has one more that reads ahead.  Default: the option
        ``em.threads``, else the cores that this process may use.
    """

    def __init__(self, n_threads: int | None = None) -> None:
        self.n_threads = int(option("threads")) if n_threads is None else whole_number("n_threads", n_threads)

    def close(self) -> None:
        """Nothing is held between passes."""

    @property
    def partial_bytes(self) -> int | None:
        """Bytes that one partial result may take: it never leaves this process, so there is no limit."""
        return None

    def run(
        self, source: Source, requests: Sequence[Request], progress: Callable[[int, int], None] | None = None
    ) -> PassResult:
        """Read every block once."""
        began = time.perf_counter()
        with one_blas_thread():
            if self.n_threads == 1 or len(source.blocks) <= 1:
                tree = Tree()
                for node in _tallies(source, requests, iter(source.blocks)):
                    tree.push(node)
                    if progress is not None:
                        progress(1, node.rows)
                root = tree.root()
            else:
                root = _run_threads(source, requests, self.n_threads, progress)
        return root.close(time.perf_counter() - began)


def _tallies(source: Source, requests: Sequence[Request], blocks: Iterator[Block]) -> Iterator[Tally]:
    for block, chunk, seconds in read_ahead(source, blocks, in_memory=source.in_memory):
        yield map_block(requests, block, chunk, seconds, source.feature_names)
        del chunk


class _Batches:
    """Hands out aligned runs of blocks to the threads, in order."""

    def __init__(self, blocks: Sequence[Block], level: int) -> None:
        self.blocks, self.size = blocks, 1 << level
        self.count = -(-len(blocks) // self.size)
        self._next = 0
        self._lock = threading.Lock()
        self.stopped = threading.Event()

    def claim(self) -> Iterator[Block]:
        while not self.stopped.is_set():
            with self._lock:
                batch, self._next = self._next, self._next + 1
            if batch >= self.count:
                return
            for block in self.blocks[batch * self.size : (batch + 1) * self.size]:
                if self.stopped.is_set():
                    return
                yield block

    def last_of_batch(self, block: int) -> bool:
        return (block + 1) % self.size == 0 or block + 1 == len(self.blocks)


def _run_threads(
    source: Source, requests: Sequence[Request], n_threads: int, progress: Callable[[int, int], None] | None
) -> Tally:
    level = min(_MOST_BLOCKS_A_BATCH, batch_level(len(source.blocks), 16 * n_threads))
    batches = _Batches(source.blocks, level)
    said: queue.SimpleQueue[tuple[int, Tally | None, int] | BaseException] = queue.SimpleQueue()

    def work() -> None:
        try:
            tree = Tree()
            for block, chunk, seconds in read_ahead(source, batches.claim(), in_memory=source.in_memory):
                node = map_block(requests, block, chunk, seconds, source.feature_names)
                del chunk
                tree.push(node)
                done = None
                if batches.last_of_batch(block.index):
                    done, tree = tree.root(), Tree()
                said.put((block.index >> level, done, node.rows))
        except BaseException as error:  # handed to the thread that waits
            batches.stopped.set()
            said.put(error)

    threads = [threading.Thread(target=work, name=f"dask-em-{i}", daemon=True) for i in range(n_threads)]
    for thread in threads:
        thread.start()
    try:
        root = _collect(batches, said, progress)
    finally:
        batches.stopped.set()
        for thread in threads:
            thread.join()
    return root


def _collect(batches: _Batches, said: queue.SimpleQueue, progress: Callable[[int, int], None] | None) -> Tally:
    """Merge the batches in order as they arrive in any order."""
    tree, early, wanted = Tree(), dict[int, Tally](), 0
    while wanted < batches.count:
        message = said.get()
        if isinstance(message, BaseException):
            raise message
        batch, node, rows = message
        if progress is not None:
            progress(1, rows)
        if node is not None:
            early[batch] = node
        while wanted in early:
            tree.push(early.pop(wanted))
            wanted += 1
    return tree.root()
