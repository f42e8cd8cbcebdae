"""Graphs of Dask collections: what each block needs, and computing a block in place.

`dask._task_spec` is not a public module; this is the only one here that uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Graph = dict[Hashable, Any]

SHARED_WORK = 1.3  # computing each block on its own may cost this much more than computing all together


@dataclass(frozen=True)
class Planned:
    """An optimised graph, the key of each block, and what is already computed."""

    graph: Graph
    keys: Sequence[Hashable]
    futures: Mapping[Hashable, Any]  # nodes that a cluster holds

    def needs(self, keys: Iterable[Hashable]) -> tuple[Graph, list[Hashable]]:
        """The part of the graph that computes those keys, and the futures' keys that it needs."""
        part: Graph = {}
        held: dict[Hashable, None] = {}
        todo = list(keys)
        while todo:
            key = todo.pop()
            if key in self.futures:
                held[key] = None
            elif key not in part:
                part[key] = self.graph[key]
                todo.extend(self.graph[key].dependencies)
        return part, list(held)

    def shares_work(self) -> bool:
        """Whether the blocks need so much in common that they had better be computed together."""
        whole, _ = self.needs(self.keys)
        limit = SHARED_WORK * sum(map(is_work, whole.values())) + 1
        work = 0
        for key in self.keys:
            part, _ = self.needs([key])
            work += sum(map(is_work, part.values()))
            if work > limit:
                return True
        return False


def plan(
    graph: Mapping[Hashable, Any], keys: Sequence[Hashable], original: Mapping[Hashable, Any] | None = None
) -> Planned:
    """Sort an optimised graph into tasks and futures.

    Optimising may leave of a future only its key: `original`, the graph before, still has the future itself.
    """
    from dask._task_spec import DataNode, convert_legacy_graph

    raw = dict(graph)
    futures = {k: v for k, v in raw.items() if _is_future(v)}
    for value in (original or {}).values():
        if _is_future(value) and value.key not in raw:
            futures[value.key] = value
    # converted with stand-ins for the futures, so that what refers to them still finds their keys
    nodes = convert_legacy_graph({k: DataNode(k, None) if k in futures else v for k, v in raw.items()})
    return Planned({k: v for k, v in nodes.items() if k not in futures}, keys, futures)


def _is_future(value: Any) -> bool:
    return bool(getattr(value, "__dask_future__", False)) or type(value).__name__ == "Future"


def evaluate(
    graph: Mapping[Hashable, Any],
    key: Hashable,
    values: Mapping[Hashable, Any],
    shared: Container[Hashable] = (),
    ask: Callable[[Hashable], Any] | None = None,
) -> Any:
    """Compute one key here and now, forgetting what is not needed any more.

    It does what the synchronous scheduler does, without the fixed cost that shows on small tasks.  What is in
    `shared` is not computed but asked for, at the moment it is needed.
    """
    if key in values:
        return values[key]
    order = _order(graph, [key], shared)
    uses: dict[Hashable, int] = {}
    for k in order:
        if k == key or k not in shared:
            for d in graph[k].dependencies:
                uses[d] = uses.get(d, 0) + 1
    done: dict[Hashable, Any] = {}
    for k in order:
        if ask is not None and k in shared and k != key:
            done[k] = ask(k)
            continue
        node = graph[k]
        done[k] = node({d: done[d] if d in done else values[d] for d in node.dependencies})
        for d in node.dependencies:
            uses[d] -= 1
            if not uses[d]:
                done.pop(d, None)
    return done[key]


def dependents_first(graph: Mapping[Hashable, Any], keys: Sequence[Hashable]) -> Iterable[Hashable]:
    """All that the keys need, and themselves, each before what it needs."""
    return reversed(_order(graph, keys, ()))


def _order(graph: Mapping[Hashable, Any], keys: Sequence[Hashable], leaves: Container[Hashable]) -> list[Hashable]:
    """What the keys need, each after those that it needs itself, depth first to hold little at a time.

    Nothing is looked for beyond the leaves that are not such keys themselves.
    """
    order: dict[Hashable, None] = {}
    stack: list[tuple[Hashable, bool]] = [(key, False) for key in reversed(keys)]
    while stack:
        k, ready = stack.pop()
        if k in order or k not in graph:
            continue
        if ready or (k in leaves and k not in keys):
            order[k] = None
        else:
            stack.append((k, True))
            stack.extend((d, False) for d in graph[k].dependencies)
    return list(order)


def as_data(key: Hashable, value: Any) -> Any:
    """A node that holds a value."""
    from dask._task_spec import DataNode

    return DataNode(key, value)


def is_work(node: Any) -> bool:
    """Whether a node computes anything."""
    return type(node).__name__ not in ("DataNode", "Alias")
