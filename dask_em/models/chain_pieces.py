"""Hidden Markov chains across blocks: what a block leaves open at its ends, and how neighbours close it.

A block does not know what was before its first row, nor what comes after its last.  But chains from all states soon
agree: from some row on the forward shares are the same whatever came before, and up to another row the backward
likelihood is the same whatever comes after.  Rows between these two are summed up at once.  Those outside are kept,
with one message at their closed end, until the neighbour's are joined to them; then they are rows like others.  So a
block leaves some hundred rows and a few numbers, whatever its size, and any order of merging gives the serial
recursion's sums, but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_em import store
from dask_em.distributions.base import Distribution
from dask_em.errors import DataError
from dask_em.model import Params, Statistics
from dask_em.models.chain_operators import Operator
from dask_em.models.chain_runs import backward_agreement, forward_agreement, normed, shares_of_logs, smoothed
from dask_em.sparse import packed, stacked

HELD = 1 << 15  # rows that are kept open: more of them are summed up for every pair of end states


@dataclass(frozen=True)
class Chain:
    """A hidden Markov chain at given parameters.

    Parameters
    ----------
    startprob : ndarray of shape (K,)
    transmat : ndarray of shape (K, K)
    distribution : Distribution
    components : Params
        The distribution's.
    """

    startprob: np.ndarray
    transmat: np.ndarray
    distribution: Distribution
    components: Params

    def log_density(self, x: Any) -> np.ndarray:
        """(n, K) of rows under each state."""
        return self.distribution.log_density(self.components, x)

    def statistics(self, x: Any, states: np.ndarray, weight: float, found: Sequence[Settled]) -> ChainStatistics:
        """Sums of rows, given posterior states (n, K), weights already in, and what was found of their transitions."""
        k = len(self.startprob)
        return ChainStatistics(
            weight,
            float(sum(one.loglik for one in found)),
            sum((one.starts for one in found), np.zeros(k)),
            sum((one.transitions for one in found), np.zeros((k, k))),
            states.sum(axis=0),
            self.distribution.expected_statistics(self.components, x, states),
        )


@store.register
@dataclass(frozen=True)
class ChainStatistics(Statistics):
    """Expected states of first rows (K,), transitions (K, K), states of all rows (K,), and the components' sums."""

    starts: np.ndarray
    transitions: np.ndarray
    counts: np.ndarray
    components: Any


@dataclass(frozen=True)
class Run:
    """Rows of one sequence that are not summed up yet.

    Parameters
    ----------
    x : array of shape (n, d)
    weight : float
        Of the sequence.
    before : ndarray of shape (K,) or None
        Shares of the states of the row before these, given all rows up to it; None: not known.
    begins : bool
        Whether the first row is the first of its sequence.
    after : ndarray of shape (K,) or None
        Likelihood of what follows the last row by its state, whose own sums are taken already; None: not known.
    ends : bool
        Whether the last row is the last of its sequence.
    core : Operator, optional
        What stands for the rows, which are not kept then.
    """

    x: Any
    weight: float
    before: np.ndarray | None = None
    begins: bool = False
    after: np.ndarray | None = None
    ends: bool = False
    core: Operator | None = None

    @property
    def knows_before(self) -> bool:
        """Whether the forward recursion can begin."""
        return self.begins or self.before is not None

    @property
    def knows_after(self) -> bool:
        """Whether the backward recursion can begin."""
        return self.ends or self.after is not None


def joined(chain: Chain, left: Run, right: Run) -> Run:
    """Two runs of one sequence, of which the second follows the first."""
    core, rows = None, [left.x, right.x]
    if left.core is not None or right.core is not None:
        one, other = condensed(chain, left), condensed(chain, right)
        assert one.core is not None
        assert other.core is not None
        core, rows = one.core.joined(other.core, chain.transmat, _sum_of(chain, one.x)), [one.x]
    return Run(stacked(rows), left.weight, left.before, left.begins, right.after, right.ends, core)


def condensed(chain: Chain, run: Run) -> Run:
    """The run without its rows, whose sums for every pair of end states stand for them."""
    if run.core is not None:
        return run
    logb = chain.log_density(run.x)
    core = Operator.of(logb, chain.transmat, _sum_of(chain, run.x), last_counts=run.after is None)
    return replace(run, x=run.x[:0].copy(), core=core)


def _sum_of(chain: Chain, x: Any) -> Callable[[np.ndarray, np.ndarray], ChainStatistics]:
    none = np.zeros(len(chain.startprob))

    def statistics(states: np.ndarray, pairs: np.ndarray) -> ChainStatistics:
        return chain.statistics(x, states, 0.0, [Settled(states, 0.0, none, pairs, ())])

    return statistics


def _closed(chain: Chain, run: Run) -> tuple[ChainStatistics, tuple[Run, ...]]:
    """The sums of a run without rows, where what is around it is known."""
    k = len(chain.startprob)
    assert run.core is not None
    total = chain.statistics(run.x, np.zeros((0, k)), 0.0, [])
    if not (run.knows_before and run.knows_after):
        return total, (run,)
    first = chain.startprob if run.before is None else run.before @ chain.transmat
    loglik, shares = run.core.ends(first, np.ones(k) if run.after is None else run.after)
    for s in range(k):
        for j in range(k):
            total = total + run.core.sums[s][j] * float(run.weight * shares[s, j])
    into = run.weight * shares.sum(axis=1)
    if run.before is None:
        total = replace(total, starts=total.starts + into)
    else:
        seam = run.before[:, None] * chain.transmat * np.where(first > 0, into / np.where(first > 0, first, 1.0), 0.0)
        total = replace(total, transitions=total.transitions + seam)
    return replace(total, loglik=total.loglik + (run.weight * loglik if run.weight else 0.0)), ()


@dataclass(frozen=True)
class Settled:
    """What some rows of one sequence say, and what of them stays open.

    Attributes
    ----------
    states : ndarray of shape (n, K)
        Posterior states times the weight; zero for rows that stay open, or are another's.
    loglik : float
        Times the weight.
    starts, transitions : ndarray
    open : tuple of Run
        None; what begins, or ends, these rows; both, or all rows as they were.
    """

    states: np.ndarray
    loglik: float
    starts: np.ndarray
    transitions: np.ndarray
    open: tuple[Run, ...]


def settle(chain: Chain, run: Run, logb: np.ndarray) -> Settled:
    """Sum up as many of the rows as can be; logb: (n, K) their log densities."""
    n, k = logb.shape
    a, states = chain.transmat, np.zeros((n, k))
    starts, transitions = np.zeros(k), np.zeros((k, k))
    unsettled = Settled(states, 0.0, starts, transitions, (run,))
    # from row `low` on forward shares can be known, and up to row `high` the likelihood of what follows
    low, shares, high, after = 0, run.before, n - 1, run.after
    if not run.knows_before:
        found = forward_agreement(logb, a)
        if found is None:
            return unsettled
        low, shares = found[0] + 1, found[1]
    if run.ends:
        after = np.ones(k)
    elif after is None:
        found = backward_agreement(logb, a)
        if found is None:
            return unsettled
        high, after = found
    assert after is not None
    if high < low - 1 or (low == n and run.after is not None):
        return unsettled
    last, behind, loglik = shares, after, 0.0  # of row `high`, and of row `low - 1`
    if low <= high:
        before = chain.startprob if shares is None else shares @ a
        rows = smoothed(logb[low : high + 1], np.array([0, high + 1 - low]), np.array([run.weight]), before, a, after)
        states[low : high + 1] = rows.states
        loglik, last, transitions = float(rows.loglik[0]), rows.lasts[0], transitions + rows.pairs
        with np.errstate(divide="ignore"):
            logs = np.log(a) + logb[low] + np.log(rows.firsts[0])
        if shares is None:
            starts = starts + states[low]
        else:
            with np.errstate(divide="ignore"):
                transitions = transitions + run.weight * shares_of_logs(np.log(shares)[:, None] + logs)
        behind = shares_of_logs(logs).sum(axis=1)
    open_ = list[Run]()
    if shares is not None and not run.knows_before:
        states[low - 1] = run.weight * normed(shares * behind)
        open_.append(Run(run.x[:low].copy(), run.weight, after=behind))
    if not run.knows_after:
        open_.append(Run(run.x[high + 1 :].copy(), run.weight, before=last))
    if run.after is not None:
        states[n - 1] = 0.0
    return Settled(states, run.weight * loglik if run.weight else 0.0, starts, transitions, tuple(open_))


@dataclass(frozen=True)
class ChainPartial:
    """What some rows say of a chain, and what of them stays open at both ends.

    Parameters
    ----------
    chain : Chain
    sums : ChainStatistics
    open : tuple of Run
        None, if there are no rows; all of them, or what begins and what ends them.
    first, last : object
        Ids of the sequences that the first and the last row belong to.
    """

    chain: Chain
    sums: ChainStatistics
    open: tuple[Run, ...] = ()
    first: Any = None
    last: Any = None

    def merge(self, right: ChainPartial) -> ChainPartial:
        """Join with the rows that follow."""
        if not self.open or not right.open:
            return replace(self if self.open else right, sums=self.sums + right.sums)
        left_end, right_end = self.open[-1], right.open[0]
        if self.last == right.first:
            _refuse_other_weight(left_end.weight, right_end.weight, self.last)
            sums, middle = self._settled(joined(self.chain, left_end, right_end))
        else:
            sums, middle = self._settled(replace(left_end, ends=True))
            more, others = self._settled(replace(right_end, begins=True))
            sums, middle = sums + more, middle + others
        open_ = self.open[:-1] + middle + right.open[1:]
        return ChainPartial(self.chain, self.sums + right.sums + sums, open_, self.first, right.last)

    def close(self) -> ChainStatistics:
        """The sums, with all that was open closed."""
        total, open_ = self.sums, self.open
        if len(open_) == 1:
            open_ = (replace(open_[0], begins=True, ends=True),)
        elif open_:
            open_ = (replace(open_[0], begins=True), replace(open_[1], ends=True))
        for run in open_:
            total = total + self._settled(run)[0]
        return total

    def _settled(self, run: Run) -> tuple[ChainStatistics, tuple[Run, ...]]:
        if run.core is None:
            logb = self.chain.log_density(run.x)
            found = settle(self.chain, run, logb)
            as_it_was = bool(found.open) and found.open[0] is run
            if not as_it_was or len(logb) <= HELD:
                return self.chain.statistics(run.x, found.states, 0.0, [found]), found.open
            run = condensed(self.chain, run)
        return _closed(self.chain, run)


def pieces(chain: Chain, x: Any, weight: np.ndarray | None, sequence: np.ndarray | None) -> ChainPartial:
    """What one block says: all of the sequences within it, and what it can say of those at its ends."""
    n, k = x.shape[0], len(chain.startprob)
    if n == 0:
        return ChainPartial(chain, chain.statistics(x, np.zeros((0, k)), 0.0, []))
    ids, edges = cuts(sequence, n)
    w = np.ones(n) if weight is None else np.asarray(weight, dtype=np.float64)
    refuse_uneven(w, ids, edges)
    logb, states, each = chain.log_density(x), np.empty((n, k)), w[edges[:-1]]
    last, found = len(edges) - 2, list[Settled]()
    for s in sorted({0, last}):
        rows = slice(int(edges[s]), int(edges[s + 1]))
        run = Run(x[rows], float(each[s]), begins=s > 0, ends=s < last)
        one = settle(chain, run, logb[rows])
        states[rows] = one.states
        found.append(one)
    open_ = tuple(replace(run, x=packed(run.x.copy())) for one in found for run in one.open)
    open_ = tuple(condensed(chain, run) if run.x.shape[0] > HELD else run for run in open_)
    if last > 1:
        rows = slice(int(edges[1]), int(edges[last]))
        found.append(_inner(chain, logb[rows], edges[1 : last + 1] - edges[1], each[1:last]))
        states[rows] = found[-1].states
    return ChainPartial(chain, chain.statistics(x, states, float(w.sum()), found), open_, ids[0], ids[-1])


def _inner(chain: Chain, logb: np.ndarray, edges: np.ndarray, weight: np.ndarray) -> Settled:
    """Of whole sequences, one after another."""
    whole = smoothed(logb, edges, weight, chain.startprob, chain.transmat, np.ones(logb.shape[1]))
    counted = weight > 0  # zero times minus infinity is not zero
    loglik = float(weight[counted] @ whole.loglik[counted])
    return Settled(whole.states, loglik, whole.states[edges[:-1]].sum(axis=0), whole.pairs, ())


def cuts(sequence: np.ndarray | None, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids of n rows, and where sequences begin, and the last ends."""
    ids = np.zeros(n, dtype=np.int64) if sequence is None else np.asarray(sequence)
    return ids, np.concatenate([[0], np.flatnonzero(ids[1:] != ids[:-1]) + 1, [n]])


def refuse_uneven(weight: np.ndarray, ids: np.ndarray, edges: np.ndarray) -> None:
    """Raise `DataError` for weights that change within a sequence."""
    uneven = np.flatnonzero(weight[1:] != weight[:-1]) + 1
    within = uneven[~np.isin(uneven, edges)]
    if len(within):
        _refuse_other_weight(float(weight[within[0] - 1]), float(weight[within[0]]), ids[within[0]])


def _refuse_other_weight(one: float, other: float, sequence: Any) -> None:
    if one != other:
        raise DataError(
            f"rows of sequence {sequence} weigh {one:g} and {other:g}: weights are of whole sequences, the same for "
            "all rows of one"
        )
