"""Work that several blocks of a Dask collection need: done once, and kept as far as memory allows.

In ``x - x.mean(0)`` every block needs the mean, and the mean needs every chunk: block by block,
each computed on its own, a pass would cost the square of their number.  So results that more than
one block (or more than one such result) needs are kept, the ones used last, up to `KEPT_BYTES`: a
mean lasts for all passes, a chunk that a rechunk divides among neighbours as long as they need it.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from dask_em.sources.dask_graph import Graph, Planned, as_data, dependents_first, evaluate, is_work

KEPT_BYTES = 256 << 20  # by one source, in this process
FEW = 16  # results that many blocks need: so many are reductions, more of them are a shuffle's pieces
REPEATED = 3  # so often as often as once the shared work may be done before the user is told


class SharedWork:
    """Computes blocks whose graphs overlap, in the threads of this process.

    Parameters
    ----------
    planned : Planned
    where : str
        For people: what the blocks are of.
    """

    def __init__(self, planned: Planned, where: str) -> None:
        self._graph, self._where = planned.graph, where
        self._futures = Results(planned.futures)
        self._uses = shared_nodes(planned.graph, planned.keys)
        most = len(planned.keys)
        wide = [k for k, n in self._uses.items() if n > 4 and 2 * n >= most]
        self._reductions = frozenset(wide if len(wide) <= FEW else ())
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()  # least recently used first
        self._bytes = 0
        self._lock = threading.Lock()
        self._computing: dict[Hashable, threading.Lock] = {}
        self._n_blocks, self._n_read, self._n_computed, self._warned = most, 0, 0, False

    def block(self, key: Hashable) -> Any:
        """The value of a block's key."""
        with self._lock:
            self._n_read += 1
            passes = 1 + self._n_read // self._n_blocks
            too_often = self._n_computed > REPEATED * passes * len(self._uses) and not self._warned
            self._warned |= too_often
        if too_often:
            warnings.warn(
                f"The blocks of {self._where} have more work in common than can be kept in {KEPT_BYTES >> 20} MiB, "
                "so that it is done again and again: write the collection to Parquet or Zarr and open that, or call "
                "its persist() where it fits into memory.",
                UserWarning,
                stacklevel=2,
            )
        return self._value(key) if key in self._uses else self._evaluate(key)

    def _value(self, key: Hashable) -> Any:
        """A shared result, computed by one thread while others that need it wait."""
        with self._lock:
            computing = self._computing.setdefault(key, threading.Lock())
        with computing:  # what a result needs never needs the result: no two threads can wait for each other
            with self._lock:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key][0]
            value = self._reduced(key) if key in self._reductions else self._evaluate(key)
            self._keep(key, value)
            return value

    def _keep(self, key: Hashable, value: Any) -> None:
        from dask.sizeof import sizeof

        size = int(sizeof(value))
        with self._lock:
            self._n_computed += 1
            self._kept[key] = value, size
            self._bytes += size
            while self._bytes > KEPT_BYTES and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1][1]

    def _evaluate(self, key: Hashable) -> Any:
        return evaluate(self._graph, key, self._futures, self._uses, self._value)

    def _reduced(self, key: Hashable) -> Any:
        """A reduction of all the data, by Dask's own threads, which keep little of it at a time."""
        import dask.threaded

        from dask_em.config import option

        part: Graph = {}
        todo = [key]
        while todo:
            k = todo.pop()
            if k in self._futures:  # on a cluster: fetched one by one
                return self._evaluate(key)
            if k != key and k in self._reductions:
                part[k] = as_data(k, self._value(k))
            elif k not in part:
                part[k] = self._graph[k]
                todo.extend(self._graph[k].dependencies)
        return dask.threaded.get(part, key, num_workers=int(option("threads")))


class Results(Mapping[Hashable, Any]):
    """Values of futures, each fetched when it is asked for."""

    def __init__(self, futures: Mapping[Hashable, Any]) -> None:
        self._futures = futures

    def __getitem__(self, key: Hashable) -> Any:
        return self._futures[key].result()

    def __contains__(self, key: object) -> bool:
        return key in self._futures

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._futures)

    def __len__(self) -> int:
        return len(self._futures)


def shared_nodes(graph: Graph, keys: Sequence[Hashable]) -> dict[Hashable, int]:
    """Nodes that more than one block, or more than one other such node, needs; and how many do.

    Each node belongs to the only block or shared node that needs it; where there are two, it is shared itself.
    """
    owner: dict[Hashable, Hashable] = {key: key for key in keys}
    users: dict[Hashable, set[Hashable]] = {}
    for key in dependents_first(graph, keys):
        mine = key if key in users else owner[key]
        for d in graph[key].dependencies:
            if d not in graph:
                continue
            if owner.setdefault(d, mine) != mine or d in users:
                users.setdefault(d, {owner[d]}).add(mine)
    return {key: len(found) for key, found in users.items() if is_work(graph[key])}
