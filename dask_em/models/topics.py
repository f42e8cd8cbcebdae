"""Topics of documents: latent Dirichlet allocation, by variational EM.

A document has shares θ of K topics, Dirichlet with parameters α; each of its words is of a topic, and drawn from the
topic's distribution β over the words, which is Dirichlet with the parameter η (Blei, Ng and Jordan 2003).  Shares and
topics are given Dirichlet distributions with parameters γ and λ that are as near to the posterior as such can be.  In
place of the log-likelihood stands its bound  Σ_d L_d + L_β,

    L_d = Σ_w c_w log Σ_k exp(E log θ_k + E log β_kw) + E log p(θ | α) - E log q(θ | γ),
    L_β = Σ_k E log p(β_k | η) - E log q(β_k | λ_k),

the largest over γ for each document; L_β, the topics' own part, is the log prior here.  The sums are the counts S that
are expected of each topic's words, and Σ_d E log θ.  The M-step is λ = η + S, at the η that has the largest
Σ_k log B(η + S_k) - log B(η), with B(x) = Π Γ(x_v) / Γ(Σ x_v), and at the best α (Minka 2000): all of them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse
from scipy.special import gammaln, psi

from dask_em import store
from dask_em.errors import ConfigurationError, DataError, DegenerateError, RowError, check_want
from dask_em.kernels import topics as kernel
from dask_em.kernels.simd import LANES
from dask_em.measure import Measure
from dask_em.model import Chunk, Model, Statistics
from dask_em.models.dirichlet import FIRST, best_parameters, best_symmetric, gamma_sums, log_constant, log_information
from dask_em.models.documents import Documents, apart

_OWN = 0.2  # of a start's topic, that is one document's; the rest is of all documents
_ANOTHER = 0.05  # nats of a document


@store.register
@dataclass(frozen=True)
class TopicParams:
    """Dirichlet parameters λ (V, K) of the words of each topic, α (K,) of documents' shares, and η of topics."""

    concentration: np.ndarray
    alpha: np.ndarray
    eta: float

    def __post_init__(self) -> None:
        # sums over words are rounded as memory has them, and the way to a worker does not keep another order
        object.__setattr__(self, "concentration", np.ascontiguousarray(self.concentration, dtype=np.float64))

    @cached_property
    def totals(self) -> np.ndarray:
        """(K,) sums of λ over the words."""
        sums: np.ndarray = self.concentration.sum(axis=0)
        return sums


@store.register
@dataclass(frozen=True)
class TopicStatistics(Statistics):
    """Words (V, K) that are expected of each topic, Σ w E log θ (K,), and how many words there are."""

    counts: np.ndarray
    log_shares: np.ndarray
    words: float


@dataclass(frozen=True)
class Answered:
    """What an E-step says of documents: γ (n, K), Σ_w c_w log p_w (n,) of each, and the words of topics (m, K)."""

    gamma: np.ndarray
    said: np.ndarray
    counts: np.ndarray | None


@dataclass(frozen=True)
class TopicModel(Model):
    """Topics of documents, which are rows of counts of words.

    Parameters
    ----------
    n_components : int
        Topics.
    doc_prior : float or sequence, optional
        α: for all topics, or one for each.  None: learned.
    word_prior : float, optional
        η.  None: learned.
    document_tol : float
        A document's rounds end where its γ changes by less than this share of its words.
    document_rounds : int
        At most.
    mean_words : float, optional
        Of a document; set by a fit.
    """

    n_components: int
    doc_prior: float | tuple[float, ...] | None = None
    word_prior: float | None = None
    document_tol: float = 1e-3
    document_rounds: int = 1000
    mean_words: float | None = field(default=None, compare=False, repr=False)

    accepts_sparse = True
    discrete = True
    raced = False  # topics of few documents are theirs alone, and stay so

    def __post_init__(self) -> None:
        k = self.n_components
        if not (isinstance(k, (int, np.integer)) and not isinstance(k, (bool, np.bool_)) and k >= 1):
            raise ConfigurationError(f"n_components={k!r} must be a whole number of at least 1")
        if isinstance(self.doc_prior, tuple) and len(self.doc_prior) != k:
            raise ConfigurationError(
                f"doc_topic_prior has {len(self.doc_prior)} values for {k} topics: give one number, or one for each"
            )
        each = self.doc_prior if isinstance(self.doc_prior, tuple) else (self.doc_prior,)
        for name, value in (*(("doc_topic_prior", v) for v in each), ("topic_word_prior", self.word_prior)):
            if value is not None and not _positive(value):
                raise ConfigurationError(f"{name}={value!r} must be a positive number, or None to learn it")
        if not _positive(self.document_tol):
            raise ConfigurationError(f"document_tol={self.document_tol!r} must be a positive number")

    @property
    def measure(self) -> Measure:
        """It is a bound of the log-likelihood."""
        return Measure("bound", "nats of the bound")

    def about(self, center: np.ndarray) -> TopicModel:
        """The same model, told how many words a document has on average."""
        return replace(self, mean_words=float(np.sum(center)))

    # ---- data

    def check_rows(self, chunk: Chunk) -> None:
        """Raise `RowError` for what is no count."""
        x = chunk.x
        values = x.data if issparse(x) else np.asarray(x)
        wrong = ~((values >= 0) & (values < np.inf))
        if not wrong.any():
            return
        if issparse(x):
            at = int(np.flatnonzero(wrong)[0])
            row, word, value = int(np.searchsorted(x.indptr, at, side="right")) - 1, int(x.indices[at]), values[at]
        else:
            row, word = (int(i) for i in np.argwhere(wrong)[0])
            value = values[row, word]
        if value < 0:
            raise RowError(row, word, f"is {value:g}. Negative values in data are no counts of words")
        raise RowError(row, word, f"is {'NaN' if np.isnan(value) else value}, and not a count of a word")

    def check_data(self, n_rows: int, low: np.ndarray, high: np.ndarray) -> None:
        """Refuse documents without any words."""
        if not (high > 0).any():
            raise DataError(f"none of {n_rows} documents has any word: nothing can be learned from them")

    def nbytes(self, n_features: int) -> int:
        """Of λ, or of the words expected of topics."""
        return 8 * n_features * self.n_components

    def start(self, sample: Chunk, rng: np.random.Generator) -> TopicParams:
        """Topics that are what all documents have in common, and a little of one document each."""
        rows = sample.x if issparse(sample.x) else csr_array(np.asarray(sample.x))
        weight = np.ones(rows.shape[0]) if sample.weight is None else sample.weight
        sizes = np.asarray(rows.sum(axis=1), dtype=np.float64).ravel()
        usable = np.flatnonzero((sizes > 0) & (weight > 0))
        if not len(usable):
            raise DegenerateError("no document of the sample has any words")
        all_words = np.asarray((rows.T @ weight), dtype=np.float64).ravel()
        k = self.n_components
        own = apart(rows[usable], sizes[usable], k, rng)
        share = float(all_words.sum()) / k
        counts = share * (_OWN * own + (1 - _OWN) * (all_words / all_words.sum())[:, None])
        eta = FIRST if self.word_prior is None else float(self.word_prior)
        alpha = self._given_alpha()
        return TopicParams(eta + counts, np.full(k, FIRST) if alpha is None else alpha, eta)

    def _given_alpha(self) -> np.ndarray | None:
        if self.doc_prior is None:
            return None
        return np.broadcast_to(np.asarray(self.doc_prior, dtype=np.float64), (self.n_components,)).copy()

    # ---- E-step

    def e_step(self, params: Sequence[TopicParams], chunk: Chunk) -> list[TopicStatistics]:
        """Of each parameter set the words that are expected of its topics, and the bound of the documents."""
        documents = Documents.of(chunk.x)
        weight = np.ones(chunk.n_rows) if chunk.weight is None else np.asarray(chunk.weight, dtype=np.float64)
        return [self._sums(p, documents, weight, chunk.x.shape[1]) for p in params]

    def _sums(self, params: TopicParams, documents: Documents, weight: np.ndarray, n_words: int) -> TopicStatistics:
        found = self._answered(params, documents, weight)
        assert found.counts is not None
        counts = np.zeros((n_words, self.n_components))
        counts[documents.vocabulary] = found.counts
        log_shares = _log_shares(found.gamma)
        with np.errstate(invalid="ignore"):
            bound = np.where(weight > 0, weight * self._bounds(params, found, log_shares, documents.sizes), 0.0)
        words = float(weight @ documents.sizes)
        return TopicStatistics(float(weight.sum()), float(bound.sum()), counts, weight @ log_shares, words)

    def _answered(self, params: TopicParams, documents: Documents, weight: np.ndarray | None) -> Answered:
        k, n = self.n_components, len(documents.edges) - 1
        width = -(-k // LANES) * LANES
        m = len(documents.vocabulary)
        totals = np.zeros(width)
        totals[:k] = psi(params.totals)
        table, top = np.empty(m * width), np.empty(m)
        kernel.expected_words(params.concentration, documents.vocabulary, totals, table, top)
        alpha = np.ones(width)
        alpha[:k] = params.alpha
        gamma, said = np.empty((n, width)), np.empty(n)
        sums = np.zeros(0 if weight is None else m * width)
        largest = documents.largest
        kernel.documents(
            documents.edges, documents.words, documents.counts, said if weight is None else weight, table, k, alpha,
            float(self.document_tol), int(self.document_rounds), np.ones((6, width)), np.empty(largest * width),
            np.empty(width, dtype=np.int64), np.arange(largest), np.zeros((2, largest)), gamma, sums, said,
        )  # fmt: skip
        tops = np.concatenate([[0.0], np.cumsum(documents.counts * top[documents.words])])
        said += np.diff(tops[documents.edges])
        counts = None if weight is None else (sums * table).reshape(m, width)[:, :k]
        return Answered(gamma[:, :k], said, counts)

    def _bounds(self, params: TopicParams, found: Answered, log_shares: np.ndarray, size: np.ndarray) -> np.ndarray:
        """(n,) bounds of documents. What words say is of e, whose scale exp ψ(Σ γ) is taken off here."""
        alpha, gamma = params.alpha, found.gamma
        prior = gammaln(alpha.sum()) - gammaln(alpha).sum() - gammaln(gamma.sum(axis=1)) + gammaln(gamma).sum(axis=1)
        bounds: np.ndarray = found.said - size * psi(gamma.sum(axis=1)) + prior
        return bounds + ((alpha - gamma) * log_shares).sum(axis=1)

    # ---- M-step

    def m_step(self, stats: TopicStatistics) -> TopicParams:
        """λ = η + S, the best η and the best α."""
        counts = np.maximum(stats.counts, 0.0)  # a solver's combination of sums may go too far
        if not (stats.weight > 0 and np.isfinite(counts).all()):
            raise DegenerateError(
                f"the documents have a weight of {stats.weight:.3g}: a step of the solver went too far"
            )
        eta = best_symmetric(counts) if self.word_prior is None else float(self.word_prior)
        alpha = self._given_alpha()
        if alpha is None:
            alpha = best_parameters(stats.log_shares / stats.weight)
        return TopicParams(eta + counts, alpha, eta)

    def expected_loglik(self, params: TopicParams, stats: TopicStatistics) -> float:
        """Of words and their topics, given these, and of documents' shares."""
        _, words, _ = gamma_sums(params.concentration, 0.0, stats.counts)
        words -= float(stats.counts.sum(axis=0) @ psi(params.totals))
        alpha = params.alpha
        shares = stats.weight * (gammaln(alpha.sum()) - gammaln(alpha).sum()) + (alpha - 1) @ stats.log_shares
        return words + float(shares)

    def log_prior(self, params: TopicParams) -> float:
        """The topics' own part of the bound, Σ_k E log p(β_k | η) - E log q(β_k | λ_k)."""
        v, k = params.concentration.shape
        eta, totals = params.eta, params.totals
        plain, weighted, log_gammas = gamma_sums(params.concentration, 0.0, params.concentration, want_log=True)
        own = (totals - v * eta) * psi(totals) - gammaln(totals)
        return eta * plain - weighted + log_gammas + float(own.sum()) + k * log_constant(eta, v)

    def implied(self, params: TopicParams, weight: float | None) -> TopicStatistics:
        """Statistics, of weight one, whose M-step at so much weight leads to such λ, of shares as α has them.

        Without a weight, of a document of average length.
        """
        counts = np.maximum(params.concentration - params.eta, 0.0)
        if weight is None:
            weight = float(counts.sum()) / (self.mean_words or 1.0)
        log_shares = psi(params.alpha) - psi(params.alpha.sum())
        counts = counts / max(weight, 1e-300)
        return TopicStatistics(1.0, 0.0, counts, log_shares, float(counts.sum()))

    def reported(self, params: TopicParams, loglik: float) -> float:
        """The bound, of which the topics' own term is a part."""
        return loglik

    # ---- vectors

    def to_vector(self, params: TopicParams) -> np.ndarray:
        """Logarithms of λ, and of α and η where these are learned."""
        parts = [params.concentration.ravel()]
        parts += [params.alpha] if self.doc_prior is None else []
        parts += [np.array([params.eta])] if self.word_prior is None else []
        return np.log(np.concatenate(parts))

    def from_vector(self, vector: np.ndarray) -> TopicParams:
        """Inverse of `to_vector`."""
        k = self.n_components
        with np.errstate(over="ignore"):
            values = np.exp(vector)
        if not ((values > 0) & (values < np.inf)).all():
            raise DegenerateError("a parameter of a Dirichlet distribution is zero or infinite there")
        values, eta = (values[:-1], float(values[-1])) if self.word_prior is None else (values, float(self.word_prior))
        alpha = self._given_alpha()
        if alpha is None:
            values, alpha = values[:-k], values[-k:].copy()
        return TopicParams(values.reshape(-1, k).copy(), alpha, eta)

    def vector_scale(self, params: TopicParams) -> np.ndarray:
        """λ √ψ'(λ) over the root of the number of documents, and α √ψ'(α): as if each number were alone."""
        v, k = params.concentration.shape
        words = float(params.totals.sum()) - v * k * params.eta
        n = max(words / self.mean_words, 1.0) if self.mean_words else 1.0
        parts = [log_information(params.concentration.ravel()) / n]
        parts += [log_information(params.alpha)] if self.doc_prior is None else []
        parts += [v * k * log_information(np.array([params.eta])) / n] if self.word_prior is None else []
        return np.sqrt(np.concatenate(parts))

    def permuted(self, params: TopicParams, order: np.ndarray) -> TopicParams:
        """The same parameters, their topics in another order."""
        return replace(
            params, concentration=np.ascontiguousarray(params.concentration[:, order]), alpha=params.alpha[order]
        )

    # ---- after the fit

    @property
    def interchangeable(self) -> bool:
        """Whether a prior makes no difference between topics."""
        return not isinstance(self.doc_prior, tuple)

    def n_parameters(self, n_features: int) -> int:
        """What is learned of the priors: the topics themselves are hidden, and what they cost is in the bound."""
        return (self.n_components if self.doc_prior is None else 0) + (self.word_prior is None)

    def loglik_error(self, params: TopicParams) -> float:
        """What a document may lose where its rounds, which begin anew each time, come to rest at another optimum."""
        return _ANOTHER

    def hides_classes_only(self, missing: bool) -> bool:
        """Shares and topics are hidden too."""
        return False

    def row_loglik(self, params: TopicParams, x: Any) -> np.ndarray:
        """(n,) bounds of documents."""
        return self.posteriors(params, x, "loglik")

    def posteriors(self, params: TopicParams, x: Any, want: str) -> np.ndarray:
        """For each document the expected "shares" of topics (n, K), or its "loglik" (n,), which is a bound."""
        check_want(want, ("shares", "loglik"))
        self.check_rows(Chunk(x))
        documents = Documents.of(x)
        found = self._answered(params, documents, None)
        if want == "loglik":
            return self._bounds(params, found, _log_shares(found.gamma), documents.sizes)
        shares: np.ndarray = found.gamma / found.gamma.sum(axis=1, keepdims=True)
        return shares


def _log_shares(gamma: np.ndarray) -> np.ndarray:
    """(n, K) E log θ."""
    shares: np.ndarray = psi(gamma) - psi(gamma.sum(axis=1, keepdims=True))
    return shares


def _positive(value: Any) -> bool:
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return number and 0 < value < np.inf
