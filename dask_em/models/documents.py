"""Documents in memory, as the kernel of topics takes them, and some of them that differ."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse

_ALIKE = 1e-9  # of documents: how far they are apart, on average


@dataclass(frozen=True)
class Documents:
    """Rows of counts as the kernel takes them: `vocabulary` are the words that occur, in which `words` are places."""

    edges: np.ndarray
    words: np.ndarray
    counts: np.ndarray
    vocabulary: np.ndarray

    @classmethod
    def of(cls, x: Any) -> Documents:
        """Of a table of counts."""
        rows = x if issparse(x) else csr_array(np.asarray(x))
        seen = np.zeros(rows.shape[1], dtype=bool)
        seen[rows.indices] = True
        vocabulary = np.flatnonzero(seen)
        place = np.empty(len(seen), dtype=np.int64)
        place[vocabulary] = np.arange(len(vocabulary))
        counts = np.ascontiguousarray(rows.data, dtype=np.float64)
        return cls(rows.indptr.astype(np.int64), place[rows.indices], counts, vocabulary)

    @cached_property
    def sizes(self) -> np.ndarray:
        """(n,) words of each document, repeated ones as often as they are there."""
        sizes: np.ndarray = np.diff(np.concatenate([[0.0], np.cumsum(self.counts)])[self.edges])
        return sizes

    @property
    def largest(self) -> int:
        """Words of the document that has most."""
        return int(np.diff(self.edges).max(initial=0))


def apart(rows: csr_array, sizes: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """(V, k) shares of words in documents that differ: each is drawn by how far it is from the nearest before it.

    By Hellinger's distance (k-means++, Arthur and Vassilvitskii 2007).  Where no more of them differ, words are drawn.
    """
    shares = csr_array(rows.multiply(1 / sizes[:, None]), dtype=np.float64)
    roots = shares.sqrt()
    far, chosen = np.ones(len(sizes)), np.empty((shares.shape[1], k))
    for j in range(k):
        if far.sum() > _ALIKE * len(far):
            i = int(rng.choice(len(far), p=far / far.sum()))
            chosen[:, j] = shares[[i]].toarray()[0]
            far = np.minimum(far, np.maximum(1 - roots @ np.sqrt(chosen[:, j]), 0.0))
        else:
            chosen[:, j] = rng.dirichlet(np.ones(shares.shape[1]))
    return chosen
