"""A hidden Markov chain: each row comes from one of K states, which follow one another at random.

E-step: forward-backward over whole sequences, wherever blocks cut them (`dask_em.models.chain_pieces`); M-step: shares
of the expected first states and transitions, and the states' own estimates (Baum, Petrie, Soules and Weiss 1970;
Rabiner 1989).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from dask_em import store
from dask_em.distributions.base import components_have, possible_counts
from dask_em.distributions.columns import finite_log
from dask_em.errors import ConfigurationError, DataError, DegenerateError
from dask_em.kernels.seeding import refuse_small_sample
from dask_em.model import Chunk, Params
from dask_em.models.chain_pieces import Chain, ChainPartial, ChainStatistics, cuts, pieces, refuse_uneven
from dask_em.models.components import ComponentModel
from dask_em.models.mixture import MixtureModel
from dask_em.models.stationary import stationary, transitions_of

_NONE = 1e-12  # of the ways into a state, below which it is never visited
_AS_COUNTED = 0.5  # of starts: the others blend what they count with transitions drawn at random
_PSEUDO = 1.0  # transitions of each kind that a start adds to those that it counts


@store.register
@dataclass(frozen=True)
class HiddenMarkovParams:
    """Shares of first states (K,), transitions (K, K) whose rows sum to one, and the states' own parameters."""

    startprob: Any  # arrays; in `HiddenMarkovModel.held` None, where they are estimated
    transmat: Any
    components: Params


@dataclass(frozen=True)
class HiddenMarkovModel(ComponentModel):
    """A chain of `n_components` states, each with its own parameters of one observation distribution.

    Parameters
    ----------
    n_components : int
        States.
    distribution : Distribution
    transitions : {"full", "left-right"} or tuple of tuples of bool
        Which transitions are allowed: all; to the state itself and the next, from the first state on; or those named.
    begins : {"free", "stationary"}
        Whether first states have shares of their own, or those that the transitions lead to in the long run.
    start_prior, transition_prior : float
        Rows, and transitions of each allowed kind, that a Dirichlet prior stands for; 0: maximum likelihood.
    held : HiddenMarkovParams, optional
        What stays as it is, and None for what is estimated.
    first_share : float
        Share of the rows that are the first of a sequence, about: steps of a solver are measured by it.
    """

    transitions: str | tuple[tuple[bool, ...], ...] = "full"
    begins: str = "free"
    start_prior: float = 0.0
    transition_prior: float = 0.0
    held: HiddenMarkovParams | None = None
    first_share: float = field(default=1e-3, compare=False, repr=False)

    number: ClassVar[str] = "n_states"
    sequential = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("start_prior", "transition_prior"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < np.inf:
                raise ConfigurationError(f"{name}={value!r} must be a number that is not negative")
        if self.begins not in ("free", "stationary"):
            raise ConfigurationError(f"begins={self.begins!r}: choose 'free' or 'stationary'")
        if self.begins == "stationary" and (self.transitions == "left-right" or self.start_prior):
            raise ConfigurationError(
                "begins='stationary' leaves no shares of first states to estimate: left-right transitions and a "
                "start_prior go with begins='free'"
            )
        mask = self.allowed
        if mask.shape != (self.n_components,) * 2 or not mask.any(axis=1).all():
            raise ConfigurationError(
                f"transitions must be 'full', 'left-right', or {self.n_components} rows of as many booleans, at least "
                "one of them true in each row: which state may follow which"
            )

    @property
    def allowed(self) -> np.ndarray:
        """(K, K) bool: which state may follow which."""
        k = int(self.n_components)
        if isinstance(self.transitions, str):
            kinds = {"full": np.ones((k, k)), "left-right": np.eye(k) + np.eye(k, k=1)}
            return kinds.get(self.transitions, np.zeros((0, 0))) > 0
        return np.asarray(self.transitions, dtype=bool)

    @property
    def firsts(self) -> np.ndarray:
        """(K,) bool: which states a sequence may begin in."""
        k = int(self.n_components)
        return np.arange(k) == 0 if self.transitions == "left-right" else np.ones(k, dtype=bool)

    def check_rows(self, chunk: Chunk) -> None:
        """Refuse what no state can have made, and weights that change within a sequence."""
        super().check_rows(chunk)
        if chunk.weight is not None:
            refuse_uneven(chunk.weight, *cuts(chunk.sequence, chunk.n_rows))

    def of_sequences(self, count: int, rows: int) -> HiddenMarkovModel:
        """The same model, told how many of the rows are the first of a sequence."""
        return replace(self, first_share=count / rows)

    def check_data(self, n_rows: int, low: np.ndarray, high: np.ndarray) -> None:
        """Refuse fewer rows than states."""
        if n_rows < self.n_components:
            raise DataError(
                f"n_samples={n_rows} rows of positive weight are fewer than n_states={self.n_components}: use at most "
                "as many states as rows"
            )

    def nbytes(self, n_features: int) -> int:
        """Bytes of one parameter set."""
        k = int(self.n_components)
        return 8 * k * (k + 1) + self.distribution.nbytes(k, n_features)

    # ---- start

    def start(self, sample: Chunk, rng: np.random.Generator) -> HiddenMarkovParams:
        """States from clusters of rows, or from stretches of sequences if states follow one another in order."""
        refuse_small_sample(sample, self.n_components, self.number)
        mixture = MixtureModel(self.n_components, self.distribution)
        if self.transitions == "left-right":
            labels = _stretches(sample, self.n_components)
            components = mixture.from_labels(Chunk(sample.x, sample.weight), labels).components
        else:
            found = mixture.start(Chunk(sample.x, sample.weight), rng)
            labels, components = mixture.posteriors(found, sample.x, "labels"), found.components
        begun = self._from_labels(sample, labels, components)
        if rng.random() < _AS_COUNTED:  # clusters of few rows are alike from one start to the next
            return begun
        drawn = rng.dirichlet(np.ones(self.n_components), size=self.n_components) * self.allowed
        moves = begun.transmat + drawn / drawn.sum(axis=1, keepdims=True)
        return self._params(begun.startprob, moves / moves.sum(axis=1, keepdims=True), components)

    def _from_labels(self, sample: Chunk, labels: np.ndarray, components: Params) -> HiddenMarkovParams:
        k, n = int(self.n_components), sample.n_rows
        w = np.ones(n) if sample.weight is None else np.asarray(sample.weight, dtype=np.float64)
        first = np.ones(n, dtype=bool)
        first[1:] = False if sample.sequence is None else sample.sequence[1:] != sample.sequence[:-1]
        starts = np.bincount(labels[first], w[first], k) + _PSEUDO
        into = np.flatnonzero(~first)
        moves = np.bincount(labels[into - 1] * k + labels[into], w[into], k * k).reshape(k, k) + _PSEUDO
        starts, moves = np.where(self.firsts, starts, 0.0), np.where(self.allowed, moves, 0.0)
        return self._params(starts, moves / moves.sum(axis=1, keepdims=True), components)

    def _params(self, starts: np.ndarray, transmat: np.ndarray, components: Params) -> HiddenMarkovParams:
        held = self.held or HiddenMarkovParams(None, None, None)
        transmat = transmat if held.transmat is None else held.transmat
        components = components if held.components is None else held.components
        if held.startprob is not None:
            return HiddenMarkovParams(held.startprob, transmat, components)
        first = stationary(transmat) if self.begins == "stationary" else starts / starts.sum()
        return HiddenMarkovParams(first, transmat, components)

    # ---- EM

    def e_step(self, params: Sequence[HiddenMarkovParams], chunk: Chunk) -> list[ChainPartial]:
        """Expected first states, transitions and the states' sums, at each parameter set."""
        return [pieces(self.chain(p), chunk.x, chunk.weight, chunk.sequence) for p in params]

    def chain(self, params: HiddenMarkovParams) -> Chain:
        """What recursions over rows ask of the model."""
        return Chain(params.startprob, params.transmat, self.distribution, params.components)

    def m_step(self, stats: ChainStatistics) -> HiddenMarkovParams:
        """Shares of what is expected; a state that is never left may go anywhere that is allowed."""
        starts = possible_counts(stats.starts) + np.where(self.firsts, self.start_prior, 0.0)
        moves = np.maximum(stats.transitions, 0.0) + np.where(self.allowed, self.transition_prior, 0.0)
        total = moves.sum(axis=1, keepdims=True)
        anywhere = self.allowed / self.allowed.sum(axis=1, keepdims=True)
        transmat = np.where(total > 0, moves / np.where(total > 0, total, 1.0), anywhere)
        if self.begins == "stationary":
            transmat = transitions_of(starts, moves, transmat)
        known = self.held is not None and self.held.components is not None
        return self._params(starts, transmat, None if known else self.distribution.estimate(stats.components))

    def expected_loglik(self, params: HiddenMarkovParams, stats: ChainStatistics) -> float:
        """Σ starts log π + Σ transitions log A, plus the states' part."""
        return (
            _dot_log(stats.starts, params.startprob)
            + _dot_log(stats.transitions, params.transmat)
            + self.distribution.expected_loglik(params.components, stats.components)
        )

    def log_prior(self, params: HiddenMarkovParams) -> float:
        """Of the Dirichlet priors and of the states."""
        own = 0.0
        if self.start_prior:
            own += self.start_prior * _dot_log(self.firsts.astype(float), params.startprob)
        if self.transition_prior:
            own += self.transition_prior * _dot_log(self.allowed.astype(float), params.transmat)
        return own + super().log_prior(params)

    # ---- vectors

    def to_vector(self, params: HiddenMarkovParams) -> np.ndarray:
        """Roots of shares of first states and transitions, which stay near one another where shares go to zero."""
        moves = np.sqrt(params.transmat).ravel()
        return np.concatenate([np.sqrt(params.startprob), moves, self.distribution.to_vector(params.components)])

    def from_vector(self, vector: np.ndarray) -> HiddenMarkovParams:
        """Inverse of `to_vector`; roots may be off by a factor, each row's its own."""
        k = int(self.n_components)
        startprob = _of_roots(vector[:k] * self.firsts)
        transmat = _of_roots(vector[k : k + k * k].reshape(k, k) * self.allowed)
        return self._params(startprob, transmat, self.distribution.from_vector(vector[k + k * k :], k))

    def vector_scale(self, params: HiddenMarkovParams) -> np.ndarray:
        """Of roots twice the root of the share of rows that tell of them."""
        share = stationary(params.transmat)
        starts, moves = np.full(len(share), self.first_share), np.repeat(share, len(share))
        components = self.distribution.vector_scale(params.components, share)
        return np.concatenate([2 * np.sqrt(starts), 2 * np.sqrt(moves), components])

    def permuted(self, params: HiddenMarkovParams, order: np.ndarray) -> HiddenMarkovParams:
        """The same chain with its states in another order."""
        components = self.distribution.permuted(params.components, order)
        return HiddenMarkovParams(params.startprob[order], params.transmat[np.ix_(order, order)], components)

    # ---- after the fit

    def n_parameters(self, n_features: int) -> int:
        """Free parameters, for information criteria."""
        held = self.held or HiddenMarkovParams(None, None, None)
        count = 0
        if self.begins == "free" and held.startprob is None:
            count += int(self.firsts.sum()) - 1
        if held.transmat is None:
            count += int((self.allowed.sum(axis=1) - 1).sum())
        return (
            count
            if held.components is not None
            else count + self.distribution.n_parameters(self.n_components, n_features)
        )

    def degeneracies(self, params: HiddenMarkovParams) -> list[str]:
        """States that no row is in, or that only a bound holds up."""
        said = []
        ways = params.transmat.sum(axis=0) - np.diagonal(params.transmat) + params.startprob
        dead = np.flatnonzero(ways < _NONE)
        if len(dead):
            states = components_have(dead).replace("component", "state")
            said.append(
                f"{states} no way in, from the start or any other state, and no row is in it: use fewer states or "
                "another start"
            )
        return said + self.distribution.degeneracies(params.components)

    def sample(self, params: HiddenMarkovParams, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """n rows of one sequence, and the state of each."""
        u = rng.random(n)
        onward, states = np.cumsum(params.transmat, axis=1), np.empty(n, dtype=np.intp)
        edges = np.cumsum(params.startprob)
        for t in range(n):
            states[t] = np.searchsorted(edges / edges[-1], u[t], side="right")
            edges = onward[states[t]]
        return self.distribution.sample(params.components, states, rng), states


def _of_roots(roots: np.ndarray) -> np.ndarray:
    """Shares, along the last axis, in proportion to squares.

    Raises
    ------
    DegenerateError
        All are zero: there are no shares so far along a step.
    """
    squares = roots**2
    total = squares.sum(axis=-1, keepdims=True)
    if not (total > 0).all():
        raise DegenerateError("shares that are all zero: a step of the solver went too far")
    return squares / total


def _stretches(sample: Chunk, k: int) -> np.ndarray:
    """(n,) labels: each sequence in k stretches of about the same length."""
    n = sample.n_rows
    ids = np.zeros(n) if sample.sequence is None else sample.sequence
    edges = np.concatenate([[0], np.flatnonzero(ids[1:] != ids[:-1]) + 1, [n]])
    lengths = np.diff(edges)
    at = np.arange(n) - np.repeat(edges[:-1], lengths)
    labels: np.ndarray = at * k // np.repeat(lengths, lengths)
    return labels


def _dot_log(counts: np.ndarray, shares: np.ndarray) -> float:
    return float(np.vdot(counts, finite_log(shares)))
