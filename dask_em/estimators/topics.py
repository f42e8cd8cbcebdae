"""`LatentDirichletAllocation`: topics of documents, from a corpus of any size."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from scipy.sparse import csr_array
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from dask_em.documents import corpus, is_corpus
from dask_em.engine import Callback
from dask_em.entry import Entry
from dask_em.errors import ConfigurationError, DataError
from dask_em.estimators.scoring import SumsRequest
from dask_em.estimators.stream import first_rows
from dask_em.estimators.topic_words import TopicWords
from dask_em.model import Executor, Solver, Source
from dask_em.models.topics import TopicModel, TopicParams
from dask_em.moments import moments
from dask_em.settings import Settings
from dask_em.solvers.batch import Batch
from dask_em.solvers.incremental import Incremental
from dask_em.solvers.stepwise import Stepwise
from dask_em.sources.opening import refuse

_LEARNING = ("auto", "online", "batch")


class LatentDirichletAllocation(ClassNamePrefixFeaturesOutMixin, TransformerMixin, TopicWords):
    """Topics of documents by latent Dirichlet allocation, for a corpus that need not fit in memory.

    Documents are rows of counts of words.  The variational bound of Blei, Ng and Jordan (2003) is climbed by
    incremental EM: topics move several times within a pass, and reach in 4 passes what they predict best.  How even a
    document's shares of topics are, and each topic's common weight in them, is learned, as is how even topics are.

    Parameters
    ----------
    n_components : int, default 10
        Topics.
    doc_topic_prior : float, sequence of shape (n_components,) or None, default None
        α of the documents' shares.  None: learned, one for each topic.
    topic_word_prior : float or None, default None
        η of the topics' words.  None: learned.
    learning : {"auto", "online", "batch"} or Solver, default "auto"
        "online": topics move after each of up to four portions of the documents, whose sums are kept.  "batch": once
        a pass; the bound does not fall.  "auto": online.
    document_tol : float, default 1e-3
        A document's shares are at rest once a round moves less than this part of its words.
    tol : float, default 1e-3
        The fit has converged once a pass raises the bound by less than this part of it.
    max_passes : int, default 100
        Steps at most, the census included.  Each is a pass, a read of the corpus, unless it stays in memory.
    n_init : int, default 1
        Starts, which share the passes; the one with the highest bound is kept.
    random_state : int, RandomState or None, default None
    warm_start : bool, default False
        Begin at the topics of the last fit, if it was of as many, and of the same words.
    learning_offset, learning_decay : float, default 10.0 and 0.7
        τ and κ of `partial_fit`, whose t-th batch moves topics by (τ + t)^-κ.
    total_samples : float, optional
        Documents that `partial_fit` takes the stream to have.  Default: those seen so far.
    sample_bytes : int, optional
        Memory for a random sample of the documents; a corpus that fits in it is read once.
    time_limit : float, optional
        Seconds after which no further step begins.
    checkpoint : path or URL, optional
        Written after every step; the same call goes on from it.
    checkpoint_options : dict, optional
        What fsspec needs to reach the checkpoint.
    executor : Executor, optional
        Default: the cluster of the active `distributed.Client`, else threads in this process.
    callbacks : sequence of Callback, optional
    verbose : int, default 1
        0: silent. Otherwise progress shows in a terminal or a notebook.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        Dirichlet parameters λ of each topic's words.
    topic_word_distr_ : ndarray of shape (n_components, n_features)
        Expected probabilities of words in each topic.
    doc_topic_prior_ : ndarray of shape (n_components,)
    topic_word_prior_ : float
    bound_ : float
        Lower bound of the log-likelihood of all documents, in nats, the topics' own term included.
    n_passes_ : int
        Complete reads of the corpus, the census included.
    status_, message_, converged_, n_steps_, n_rows_, history_, restarts_
        As in `GaussianMixture`; "bound" in place of "loglik".

    See Also
    --------
    sklearn.decomposition.LatentDirichletAllocation : In memory; `components_`, `transform`, `score` and `perplexity`
        mean the same there, priors are given, and `transform` starts from random shares.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> rng = np.random.default_rng(0)
    >>> about = np.array([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    >>> docs = np.array([rng.multinomial(30, about[i % 2]) for i in range(200)])
    >>> lda = em.LatentDirichletAllocation(2, random_state=0, verbose=0).fit(docs)
    >>> sorted(sorted(words) for words in lda.top_words(["cat", "dog", "bond", "stock"], n=2))
    [['bond', 'stock'], ['cat', 'dog']]
    >>> lda.transform(docs[:2]).max(axis=1).round(1).tolist()
    [1.0, 1.0]
    """

    answers: ClassVar[tuple[str, ...]] = ("shares", "loglik")
    _fitted: ClassVar[tuple[str, ...]] = ("components_", "doc_topic_prior_")
    _figures: ClassVar[dict[str, type]] = {"bound_": float, "topic_word_prior_": float}
    solver: ClassVar[str] = "auto"  # `learning` says it

    def __init__(
        self,
        n_components: int = 10,
        *,
        doc_topic_prior: Any = None,
        topic_word_prior: float | None = None,
        learning: str | Solver = "auto",
        document_tol: float = 1e-3,
        tol: float = 1e-3,
        max_passes: int = 100,
        n_init: int = 1,
        random_state: Any = None,
        warm_start: bool = False,
        learning_offset: float = 10.0,
        learning_decay: float = 0.7,
        total_samples: float | None = None,
        sample_bytes: int | None = None,
        time_limit: float | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_options: Mapping[str, Any] | None = None,
        executor: Executor | None = None,
        callbacks: Sequence[Callback] | None = None,
        verbose: int = 1,
    ) -> None:
        self.n_components = n_components
        self.doc_topic_prior = doc_topic_prior
        self.topic_word_prior = topic_word_prior
        self.learning = learning
        self.document_tol = document_tol
        self.tol = tol
        self.max_passes = max_passes
        self.n_init = n_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.learning_offset = learning_offset
        self.learning_decay = learning_decay
        self.total_samples = total_samples
        self.sample_bytes = sample_bytes
        self.time_limit = time_limit
        self.checkpoint = checkpoint
        self.checkpoint_options = checkpoint_options
        self.executor = executor
        self.callbacks = callbacks
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.sparse = True
        return tags

    # ---- between hyperparameters, parameters and attributes

    def _model(self) -> TopicModel:
        prior = self.doc_topic_prior
        if prior is not None and np.ndim(prior):
            prior = tuple(float(value) for value in np.ravel(prior))
        return TopicModel(self.n_components, prior, self.topic_word_prior, self.document_tol)

    def _settings(self) -> Settings:
        if isinstance(self.learning, str) and self.learning not in _LEARNING:
            raise ConfigurationError(f"learning={self.learning!r} is unknown; choose one of {list(_LEARNING)}")
        settings = super()._settings()
        if not isinstance(self.learning, str):
            return replace(settings, solver=self.learning)
        return replace(settings, solver=(Batch if self.learning == "batch" else Incremental)(float(self.tol)))

    def _keep(self, params: TopicParams) -> None:
        self.components_ = params.concentration.T  # a view, whose own transpose the model can use as it is
        self.doc_topic_prior_ = params.alpha
        self.topic_word_prior_ = float(params.eta)

    def _params(self) -> TopicParams:
        concentration = np.ascontiguousarray(self.components_.T, dtype=np.float64)
        return TopicParams(concentration, self.doc_topic_prior_, float(self.topic_word_prior_))

    def _check_loaded(self) -> None:
        self._model()
        shapes = {"components_": (self.n_components, self.n_features_in_), "doc_topic_prior_": (self.n_components,)}
        for name, shape in shapes.items():
            found = getattr(self, name)
            if found.shape != shape or not (found > 0).all():
                raise ValueError(f"{name} has the shape {found.shape}, or a value that is not positive")

    # ---- streams

    def _stepwise(self) -> Stepwise:
        return Stepwise(self.learning_decay, self.learning_offset, self.total_samples)

    def _first_batch(self, source: Source) -> None:
        """Topics of one batch would be those of its few documents: begin where a fit would, and move from there."""
        sample = first_rows(source)
        model = self._model().about(moments(sample).mean)
        rng = np.random.default_rng([self._settings().seed_or(None), 0])
        self._keep(model.start(sample, rng))

    # ---- documents

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, vocabulary: Any = None, **opening: Any) -> Self:
        """Fit to all documents of X.

        Parameters
        ----------
        X : sparse array, dask array, array, frame, path, URL or Source
            Counts of words, a document a row: a scipy.sparse array, a dask array of such chunks, what `CountVectorizer`
            gives; a list of texts; the path of Parquet files with columns doc, word and count, or of a Zarr group of
            sparse rows; anything else that `dask_em.corpus` opens, as it opened it; or what `dask_em.open` takes.
        y : ignored
        sample_weight : array of shape (n_documents,), optional
        vocabulary : sequence, dict, path or vectorizer, optional
            Of a path or texts, as in `dask_em.corpus`.
        **opening
            Keywords of `dask_em.open`.

        Returns
        -------
        self

        Raises
        ------
        DataError
            The documents cannot be fitted; the message names the place and the remedy.
        ConfigurationError
            A hyperparameter is not usable.
        """
        return self._fit(X, weight=sample_weight, vocabulary=vocabulary, **opening)

    def _open(
        self, X: Any, *, reset: bool, without: int | None = None, vocabulary: Any = None, **opening: Any
    ) -> Source:
        options = opening.get("storage_options")
        if is_corpus(X, options) and opening.get("columns") is None:
            words = getattr(self, "feature_names_in_", None) if vocabulary is None and not reset else vocabulary
            X = corpus(X, vocabulary=words, storage_options=options, executor=self.executor)
            refuse({"filters": opening.get("filters")}, "rows of documents belong together")
            opening = {"weight": opening.get("weight")}
        elif vocabulary is not None:
            raise ConfigurationError(
                "vocabulary goes with the path of documents with columns doc, word and count, or of a sparse Zarr "
                "group: open others with dask_em.corpus(..., vocabulary=), and give top_words the words of arrays"
            )
        if isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind in "biuf" and 0 not in X.shape:
            X = csr_array(X)  # most counts are zero, and blocks are of what is not
        source = super()._open(X, reset=reset, without=without, **opening)
        known = getattr(self, "feature_names_in_", None)
        if not reset and known is not None and source.feature_names is not None:
            other = np.flatnonzero(np.asarray(list(source.feature_names), dtype=object) != known)
            if len(other):
                j = int(other[0])
                raise DataError(
                    f"column {j} of {source.where} is the word {source.feature_names[j]!r}, and {known[j]!r} of what "
                    "was fitted: open it with vocabulary=lda.feature_names_in_"
                )
        return source

    def transform(self, X: Any, **opening: Any) -> Any:
        """Expected shares of the topics in each document, (n_documents, n_components).

        Parameters
        ----------
        X : sparse array, array, frame, path, URL or Source
        **opening
            Keywords of `dask_em.open`.

        Returns
        -------
        ndarray or dask.array.Array
            An ndarray for what is in memory; for anything larger a lazy dask array.  A document without words has
            the shares that are expected of any.
        """
        return self._rows(X, "shares", int(self.n_components), np.float64, **opening)

    @property
    def _n_features_out(self) -> int:
        """Columns of what `transform` gives."""
        return int(self.components_.shape[0])

    def score(self, X: Any, y: Any = None, sample_weight: Any = None, **opening: Any) -> float:
        """Bound of the log-likelihood of all documents of X, in nats, the topics' own term included; in one pass."""
        loglik, _ = self._said(X, sample_weight, **opening)
        return loglik

    def perplexity(self, X: Any, sample_weight: Any = None, **opening: Any) -> float:
        """exp(-score / words) of X: lower is better.  See `completion_perplexity` to compare models."""
        loglik, words = self._said(X, sample_weight, **opening)
        if words <= 0:
            raise DataError("the documents have no words: there is nothing to predict")
        return float(np.exp(-loglik / words))

    def _said(self, X: Any, sample_weight: Any, **opening: Any) -> tuple[float, float]:
        check_is_fitted(self)
        model, params = self._fitted_model(), self._params()
        found = self._asked(X, SumsRequest(model, params), sample_weight, **opening)
        return found.total_loglik + model.log_prior(params), found.words

    def _entry(self, source: Source) -> Entry:
        shape = (self.n_components, source.n_features)
        if self.warm_start and getattr(self, "components_", np.empty(0)).shape == shape:
            return Entry(self._model(), (self._params(),))
        return Entry(self._model(), grows=False)

    def figures_of(self, loglik: float, weight: float) -> dict[str, Any]:
        """What a bound of documents, that of the topics aside, says of the model, by name."""
        return {"bound": loglik + self._fitted_model().log_prior(self._params()), "topics": int(self.n_components)}
