"""What fitted topics say of words: the first of each, whether they cohere, and what they predict of unseen ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from dask_em.diagnostics.topic_quality import CompletionRequest, TogetherRequest, coherences
from dask_em.engine import one_pass
from dask_em.errors import ConfigurationError, DataError
from dask_em.estimators.prediction import Answering
from dask_em.executors import default_executor


class TopicWords(Answering):
    """An answering estimator with topics in `components_`."""

    @property
    def topic_word_distr_(self) -> np.ndarray:
        """(n_components, n_features) expected probabilities of words in each topic."""
        check_is_fitted(self)
        shares: np.ndarray = self.components_ / self.components_.sum(axis=1, keepdims=True)
        return shares

    def top_words(self, vocabulary: Any = None, n: int = 10) -> list[list[Any]]:
        """The most probable words of each topic, the first of them first.

        Parameters
        ----------
        vocabulary : sequence of str, dict of str to int, or vectorizer, optional
            The words in the order of the columns; or where each is, as `CountVectorizer.vocabulary_` says; or what has
            `get_feature_names_out`.  Default: the names of the columns fitted, if they have any, else their numbers.
        n : int

        Returns
        -------
        list of lists
        """
        check_is_fitted(self)
        words = self._vocabulary(vocabulary)
        return [[words[j] for j in own] for own in self._top(n)]

    def _top(self, n: int) -> np.ndarray:
        if not isinstance(n, (int, np.integer)) or n < 1:
            raise ConfigurationError(f"n={n!r} must be a whole number of at least 1")
        shares = self.topic_word_distr_
        return np.argsort(-shares, axis=1, kind="stable")[:, :n]

    def _vocabulary(self, vocabulary: Any) -> Sequence[Any]:
        d = self.n_features_in_
        if vocabulary is None:
            vocabulary = getattr(self, "feature_names_in_", range(d))
        elif hasattr(vocabulary, "get_feature_names_out"):
            vocabulary = vocabulary.get_feature_names_out()
        elif isinstance(vocabulary, Mapping):
            vocabulary = sorted(vocabulary, key=vocabulary.__getitem__)
        words = list(vocabulary)
        if len(words) != d:
            raise DataError(f"vocabulary has {len(words)} words, and the topics are of {d}: give one for each column")
        return words

    def completion_perplexity(
        self, X: Any, sample_weight: Any = None, *, random_state: int = 0, **opening: Any
    ) -> float:
        """How well words of held-out documents are predicted: the shares come from one half, the words from the other.

        Unlike `perplexity` it does not depend on how tight the bound is (Wallach, Murray, Salakhutdinov and Mimno
        2009), so models of different kinds can be compared.

        Parameters
        ----------
        X : sparse array, array, frame, path, URL or Source
            Documents that were not fitted.
        sample_weight : array or str, optional
        random_state : int
            Of how each document's words are divided.
        **opening
            Keywords of `dask_em.open`.
        """
        check_is_fitted(self)
        words = np.ascontiguousarray(self.topic_word_distr_.T)
        request = CompletionRequest(self._fitted_model(), self._params(), words, int(random_state))
        found = self._asked(X, request, sample_weight, **opening)
        if found.words <= 0:
            raise DataError("the documents have no words to predict")
        return float(np.exp(-found.loglik / found.words))

    def coherence(self, X: Any, sample_weight: Any = None, *, n: int = 10, **opening: Any) -> np.ndarray:
        """Coherence of each topic: how often its first words are in the same documents of X, in one pass.

        The mean normalised pointwise mutual information of two of its `n` first words, from -1, never together, by 0,
        independent, to 1, always (Bouma 2009; Röder, Both and Hinneburg 2015).  Its mean over topics compares models.

        Returns
        -------
        ndarray of shape (n_components,)
        """
        check_is_fitted(self)
        top = self._top(n)
        if top.shape[1] < 2:
            raise ConfigurationError(f"n={n!r}: coherence is of two words at least")
        words = np.unique(top)
        return coherences(top, words, self._asked(X, TogetherRequest(words), sample_weight, **opening))

    def _asked(self, X: Any, request: Any, sample_weight: Any, **opening: Any) -> Any:
        """What a request says of all documents of X."""
        source = self._open(X, reset=False, weight=sample_weight, **opening)
        executor = getattr(self, "executor", None) or default_executor()
        try:
            return one_pass(source, [request], executor).answers[0]
        finally:
            executor.close()
