"""States of rows of hidden Markov chains that blocks cut: two sweeps, and never a whole sequence in memory.

The first sweep asks each block what it does to its ends, some K x K numbers.  Between the sweeps these are put together
in order, so that each block is told what is before it and what comes after it; the second finds the states of its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dask_em.errors import CellError
from dask_em.kernels import paths
from dask_em.kernels.chains import log_sum
from dask_em.models.chain_pieces import Chain, cuts
from dask_em.models.chain_runs import backward_agreement, filtered, forward_agreement, logs_of, shares_of_logs, smoothed

How = Literal["path", "shares"]  # the most probable sequence of states, or each row's own
Want = Literal["path", "labels", "shares", "filtered"]  # of all rows, or (filtered) of those up to each


@dataclass(frozen=True)
class Ends:
    """What a block does to its ends.

    Attributes
    ----------
    block : int
    first, last : object
        Ids of the sequences of its first and last row.
    through : ndarray of shape (K, K) or None
        Of a block of one sequence: log-likelihood of its rows by the states of the first and the last of them.
    head : ndarray of shape (K,) or None
        Else, that of the rows of the first sequence by its first state here.
    tail : ndarray of shape (K,) or None
        And of the rows of the last sequence, which begins here, by its last state.
    """

    block: int
    first: Any
    last: Any
    through: np.ndarray | None
    head: np.ndarray | None
    tail: np.ndarray | None


@dataclass(frozen=True)
class Around:
    """What is known of a block's surroundings; None: its first, or last, sequence begins, or ends, with it.

    Attributes
    ----------
    before : ndarray of shape (K,) or None
        Logarithms of shares of the states of the row before it.
    after : ndarray of shape (K,) or None
        Log-likelihood of what follows it by the state of its last row.
    """

    before: np.ndarray | None = None
    after: np.ndarray | None = None


def ends(chain: Chain, x: Any, sequence: np.ndarray | None, block: int, how: How) -> Ends:
    """What one block, not an empty one, does to its ends."""
    logb = chain.log_density(x)
    ids, edges = cuts(sequence, len(logb))
    best = how == "path"
    if len(edges) == 2:
        return Ends(block, ids[0], ids[-1], _through(logb, chain.transmat, best), None, None)
    into = _through(logb[: edges[1]], chain.transmat, best)
    out = logs_of(chain.startprob)[:, None] + _through(logb[edges[-2] :], chain.transmat, best)
    return Ends(block, ids[0], ids[-1], None, _over(into, best), _over(out.T, best))


def _through(logb: np.ndarray, a: np.ndarray, best: bool) -> np.ndarray:
    """(K, K) log-likelihood of a run by the states of its first and its last row, up to a constant."""
    n, k = logb.shape
    forward = None if best else forward_agreement(logb, a)
    backward = None if forward is None else backward_agreement(logb, a)
    if forward is not None and backward is not None and forward[0] < n - 1:  # the two ends know nothing of each other
        one, (at, shares), (high, after) = np.ones(1), forward, backward
        last = smoothed(logb[at + 1 :], np.array([0, n - at - 1]), one, shares @ a, a, np.ones(k)).lasts[0]
        first = smoothed(logb[: high + 1], np.array([0, high + 1]), one, np.full(k, 1 / k), a, after).firsts[0]
        return (logb[0] + logs_of(first))[:, None] + logs_of(last)
    out = np.empty((k, k))
    loga = np.ascontiguousarray(logs_of(a))
    paths.operator(np.ascontiguousarray(logb), loga, best, out, np.empty((k, k)), np.empty((2, k)))
    return out


def _over(logs: np.ndarray, best: bool) -> np.ndarray:
    """(K,) the rows' largest, or sums of what they are logarithms of; the largest of all is zero then."""
    found = logs.max(axis=1) if best else np.array([log_sum(row) for row in np.ascontiguousarray(logs)])
    top = found.max()
    return found - top if top > -np.inf else found


def stitched(chain: Chain, blocks: Sequence[Ends], how: How) -> dict[int, Around]:
    """What is around each of the blocks, which are in order."""
    best, loga, start = how == "path", logs_of(chain.transmat), logs_of(chain.startprob)
    last = list[np.ndarray]()  # of each block: shares of the states of its last row, given all before; logarithms
    first = list[np.ndarray]()  # and of its first row, before it is seen
    for b, own in enumerate(blocks):
        goes_on = b > 0 and blocks[b - 1].last == own.first
        first.append(_over((last[-1][:, None] + loga).T, best) if goes_on else start)
        if own.through is not None:
            last.append(_over((first[-1][:, None] + own.through).T, best))
        else:
            assert own.tail is not None
            last.append(own.tail)
    after: np.ndarray | None = None
    around = dict[int, Around]()
    for b in range(len(blocks) - 1, -1, -1):
        own = blocks[b]
        if best and after is not None:  # the path goes through one state here
            after = _only(last[b] + after)
        goes_on = b > 0 and blocks[b - 1].last == own.first
        here = own.head
        if own.through is not None:
            here = own.through if after is None else own.through + after
            here = _over(here, best)
        assert here is not None
        before = last[b - 1] if goes_on else None
        if best and before is not None:
            into = _only(first[b] + here)
            onward = _over(loga + into, best)
            around[b] = Around(_only(before + onward), after)
        else:
            onward = _over(loga + here, best)
            around[b] = Around(before, after)
        after = onward if goes_on else None
    return {own.block: around[b] for b, own in enumerate(blocks)}


def _only(logs: np.ndarray) -> np.ndarray:
    """Zero for the largest, minus infinity for all others."""
    found = np.full(len(logs), -np.inf)
    found[int(logs.argmax())] = 0.0
    return found


def states_of(chain: Chain, x: Any, sequence: np.ndarray | None, around: Around, want: Want) -> np.ndarray:
    """What is asked of a block's rows: (n,) states, or (n, K) shares of each row's."""
    logb = np.ascontiguousarray(chain.log_density(x))
    n, k = logb.shape
    never = np.flatnonzero(~(logb.max(axis=1, initial=-np.inf) > -np.inf))
    if len(never):
        raise CellError(int(never[0]), "the density is zero under every state: no chain of states can have made it")
    found = np.empty((n, k)) if want in ("shares", "filtered") else np.empty(n, dtype=np.intp)
    _, edges = cuts(sequence, n)
    for low, high, before, after in _stretches(chain, edges, around) if n else []:
        rows, own = slice(int(edges[low]), int(edges[high])), edges[low : high + 1] - edges[low]
        if want == "path":
            back, work = np.empty((rows.stop - rows.start, k), dtype=np.int16), np.empty((2, k))
            paths.best_paths(logb[rows], own, before, logs_of(chain.transmat), after, found[rows], back, work)
            continue
        first = shares_of_logs(before)
        if want == "filtered":
            found[rows] = filtered(logb[rows], own, first, chain.transmat, before)
            continue
        ahead = np.exp(after - after.max())
        logs = (before, after)
        shares = smoothed(logb[rows], own, np.ones(high - low), first, chain.transmat, ahead, logs).states
        found[rows] = shares if want == "shares" else shares.argmax(axis=1)
    return found


def _stretches(chain: Chain, edges: np.ndarray, around: Around) -> list[tuple[int, int, np.ndarray, np.ndarray]]:
    """Runs with the same before and after, as logarithms: from which edge to which."""
    k, m, start = len(chain.startprob), len(edges) - 1, logs_of(chain.startprob)
    none = np.zeros(k)
    before = start if around.before is None else _over((around.before[:, None] + logs_of(chain.transmat)).T, False)
    after = none if around.after is None else around.after
    if m == 1:
        return [(0, 1, before, after)]
    inner = [(1, m - 1, start, none)] if m > 2 else []
    return [(0, 1, before, none), *inner, (m - 1, m, start, after)]
