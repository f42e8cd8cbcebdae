"""How good topics are, asked of documents in one pass: what they predict of words unseen, and whether they cohere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse

from dask_em.model import Chunk, Params
from dask_em.sums import Sums

_ALMOST_ALL = 1e-12  # of the documents, from which on words that share them say nothing of each other


def counts_of(x: Any) -> csr_array:
    """Rows of counts as compressed ones."""
    return csr_array(x) if issparse(x) else csr_array(np.asarray(x, dtype=np.float64))


# ---------------------------------------------------------------- document completion


@dataclass(frozen=True)
class Completed(Sums):
    """Σ log p of words, and how many of them."""

    loglik: float
    words: float


@dataclass(frozen=True)
class CompletionRequest:
    """Asks how likely one part of each document's words is, given the shares of topics that the other part tells.

    Whole counts are divided word by word; counts that are not whole, each to one side (Wallach and others 2009).

    Parameters
    ----------
    model : object
        Has ``posteriors(params, x, "shares")``.
    params : Params
    words : ndarray of shape (V, K)
        Probabilities of the words of each topic.
    seed : int
        Of how words are divided, with a block's number.
    """

    model: Any
    params: Params
    words: np.ndarray
    seed: int

    accepts_nan = False

    def map(self, chunk: Chunk) -> Completed:
        """Of one block."""
        seen, unseen = divided(counts_of(chunk.x), np.random.default_rng([self.seed, chunk.block]))
        shares = self.model.posteriors(self.params, seen, "shares")
        row = np.repeat(np.arange(unseen.shape[0]), np.diff(unseen.indptr))
        weight = np.ones(chunk.n_rows) if chunk.weight is None else np.asarray(chunk.weight, dtype=np.float64)
        loglik = 0.0
        for start in range(0, len(row), 1 << 16):
            own = slice(start, start + (1 << 16))
            p = np.einsum("nk,nk->n", shares[row[own]], self.words[unseen.indices[own]])
            loglik += float((weight[row[own]] * unseen.data[own]) @ np.log(p))
        return Completed(loglik, float(weight[row] @ unseen.data))


def divided(counts: csr_array, rng: np.random.Generator) -> tuple[csr_array, csr_array]:
    """Two parts of documents, each word in either with the same chance."""
    values = np.asarray(counts.data, dtype=np.float64)
    whole = np.floor(values) == values
    seen = np.where(whole, rng.binomial(np.where(whole, values, 0).astype(np.int64), 0.5), 0.0)
    seen = np.where(whole, seen, values * (rng.random(len(values)) < 0.5))
    parts = [csr_array((v, counts.indices, counts.indptr), shape=counts.shape).copy() for v in (seen, values - seen)]
    for part in parts:
        part.eliminate_zeros()
    return parts[0], parts[1]


# ---------------------------------------------------------------- coherence


@dataclass(frozen=True)
class Together(Sums):
    """Weight of the documents, and of those in which words are, two by two."""

    weight: float
    pairs: np.ndarray


@dataclass(frozen=True)
class TogetherRequest:
    """Asks in how many documents some words are, each and with each other.

    Parameters
    ----------
    words : ndarray of shape (m,)
        Their columns.
    """

    words: np.ndarray

    accepts_nan = False

    def map(self, chunk: Chunk) -> Together:
        """Of one block."""
        there = (counts_of(chunk.x)[:, self.words] > 0).astype(np.float64)
        weight = np.ones(chunk.n_rows) if chunk.weight is None else np.asarray(chunk.weight, dtype=np.float64)
        weighted = there.multiply(weight[:, None]).tocsr()
        return Together(float(weight.sum()), np.asarray((there.T @ weighted).toarray()))


def coherences(top: np.ndarray, words: np.ndarray, found: Together) -> np.ndarray:
    """(K,) mean normalised pointwise mutual information of each topic's words, two by two (Bouma 2009).

    Parameters
    ----------
    top : ndarray of shape (K, n)
        Columns of the words of each topic.
    words : ndarray of shape (m,)
        Those that were asked about, sorted.
    found : Together
    """
    p = found.pairs / found.weight
    place = np.searchsorted(words, top)
    out = np.empty(len(top))
    first, second = np.triu_indices(top.shape[1], 1)
    for k, own in enumerate(place):
        i, j = own[first], own[second]
        both = p[i, j]
        with np.errstate(divide="ignore", invalid="ignore"):
            npmi = np.log(both / (p[i, i] * p[j, j])) / -np.log(both)
        npmi = np.where(both > 1 - _ALMOST_ALL, 0.0, npmi)
        out[k] = np.where(both > 0, npmi, -1.0).mean()
    return out
