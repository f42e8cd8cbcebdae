"""The task graph of one pass. The only executor module that touches Dask's task specification.

`dask._task_spec` is not a public module, so every use of it by executors is here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from dask._task_spec import Alias, DataNode, List, Task, TaskRef

FAN_IN_LEVELS = 4  # a merge task joins 2^4 nodes, pairwise inside


def reference(dependency: Any) -> Any:
    """What stands in a task's arguments for a dependency: a future refers to itself, a key is wrapped."""
    return dependency if isinstance(dependency, TaskRef) else TaskRef(dependency)


def data_graph(prefix: str, token: str, values: Sequence[Any]) -> tuple[dict[Hashable, Any], list[Hashable]]:
    """A graph that only holds values, each of which any worker can be handed again, and its keys."""
    keys: list[Hashable] = [(f"{prefix}-{token}", i) for i in range(len(values))]
    return {key: DataNode(key, value) for key, value in zip(keys, values, strict=True)}, keys


def pass_graph(
    token: str,
    shared: Any,
    batches: Sequence[tuple[Any, Sequence[Any]]],
    run: Callable[..., Any],
    merge: Callable[..., Any],
) -> tuple[dict[Hashable, Any], Hashable]:
    """The graph of a pass over some batches, and the key of its root.

    Parameters
    ----------
    token : str
        Fresh for every pass: keys are never used again.
    shared : object
        Handed to every batch; a data node, so that it outlives any worker.
    batches : sequence of (own, dependencies)
        For each batch, what it alone needs, and keys or futures whose values it needs.
    run : callable
        ``run(shared, own, values)`` gives the batch's node of the reduction tree.
    merge : callable
        ``merge(nodes)`` joins consecutive nodes.
    """
    shared_key = f"em-shared-{token}"
    graph: dict[Hashable, Any] = {shared_key: DataNode(shared_key, shared)}
    nodes: list[Hashable] = []
    for i, (own, dependencies) in enumerate(batches):
        key: Hashable = (f"em-estep-{token}", i)
        values = List(*[reference(d) for d in dependencies])
        argument = reference(own) if isinstance(own, (tuple, TaskRef)) else own
        graph[key] = Task(key, run, TaskRef(shared_key), argument, values)
        nodes.append(key)
    level, fan_in = 0, 1 << FAN_IN_LEVELS
    while len(nodes) > 1:
        above: list[Hashable] = []
        for j in range(0, len(nodes), fan_in):
            key = (f"em-merge-{token}", level, j // fan_in)
            graph[key] = Task(key, merge, List(*[TaskRef(n) for n in nodes[j : j + fan_in]]))
            above.append(key)
        nodes, level = above, level + 1
    root = f"em-pass-{token}"
    graph[root] = Alias(root, nodes[0])
    return graph, root


def rows_graph(
    name: str, work: Callable[..., Any], blocks: Sequence[tuple[Any, Any, Sequence[Any]]], n_trailing: int
) -> dict[Hashable, Any]:
    """A layer with one answer a block: ``work(part, block, values)`` under the key ``(name, number, 0, ...)``.

    Parameters
    ----------
    name : str
    work : callable
    blocks : sequence of (part, block, dependencies)
        The dependencies are keys or futures, whose values `work` gets.
    n_trailing : int
        Dimensions of the answer beside that of the rows.
    """
    graph: dict[Hashable, Any] = {}
    for i, (part, block, dependencies) in enumerate(blocks):
        key = (name, i, *[0] * n_trailing)
        values = List(*[reference(d) for d in dependencies])
        graph[key] = Task(key, work, DataNode(None, part), DataNode(None, block), values)
    return graph
