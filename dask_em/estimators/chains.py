"""What estimators of hidden Markov chains share: fits to sequences, and states of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from dask_em.distributions.base import Distribution
from dask_em.engine import one_pass
from dask_em.entry import Entry
from dask_em.errors import ConfigurationError
from dask_em.estimators.given_chains import PARTS, begin_with, given_parts, letters
from dask_em.estimators.prediction import Density
from dask_em.estimators.scoring import SumsRequest
from dask_em.estimators.sequences import StateAnswers, asked_ids, ids_of, state_answers
from dask_em.executors import default_executor
from dask_em.model import Source
from dask_em.models.chain_runs import forward_agreement
from dask_em.models.hidden_markov import HiddenMarkovModel, HiddenMarkovParams
from dask_em.models.stationary import stationary

_METHODS = {"viterbi": "path", "posterior": "labels"}


class ChainEstimator(Density):
    """Base of the estimators of hidden Markov chains, which say what the distribution of their rows is."""

    answers: ClassVar[tuple[str, ...]] = ("labels", "proba", "posterior", "filtered")
    _letters: ClassVar[str] = "ste"  # of starts, transitions and what rows are, as hmmlearn has them
    _fitted: ClassVar[tuple[str, ...]] = ("startprob_", "transmat_")
    _trees: ClassVar[tuple[str, ...]] = ("components_", "distribution_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self._distribution().accepts_nan
        return tags

    # ---- fit

    def fit(  # type: ignore[override]
        self,
        X: Any,
        y: Any = None,
        sequence: Any = None,
        lengths: Sequence[int] | None = None,
        *,
        sample_weight: Any = None,
        **opening: Any,
    ) -> Self:
        """Fit to all rows of X, which are in order of time within each sequence.

        Parameters
        ----------
        X : array, frame, path, URL or Source
            As of `GaussianMixture.fit`.
        y : ignored
        sequence : array of shape (n_rows,) or str, optional
            Id of the sequence that each row belongs to, or the column that holds it; rows of one sequence are one
            after another.  Default: all rows are one.
        lengths : sequence of int, optional
            Rows of each sequence, in place of ids.
        sample_weight : array of shape (n_rows,) or str, optional
            Weights of sequences: the same for all rows of one.
        **opening
            Keywords of `dask_em.open`.

        Returns
        -------
        self

        Raises
        ------
        DataError
            The data cannot be fitted; the message names the place and the remedy.
        ConfigurationError
            A hyperparameter is not usable.
        """
        return self._fit(X, **ids_of(sequence, lengths, X), weight=sample_weight, **opening)

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None, **opening: Any) -> Self:
        """Not defined: batches of a stream would have to say which sequences go on."""
        raise ConfigurationError(
            f"{type(self).__name__} learns from whole sequences, and has no partial_fit: fit all of them, or go on "
            "from the last parameters with warm_start=True"
        )

    # ---- states

    def predict(
        self, X: Any, sequence: Any = None, lengths: Any = None, *, method: str = "viterbi", **opening: Any
    ) -> Any:
        """The state of each row: on the most probable path of all, or the most probable by itself.

        Parameters
        ----------
        X : array, frame, path, URL or Source
        sequence, lengths
            As in `fit`.
        method : {"viterbi", "posterior"}
        **opening
            Keywords of `dask_em.open`.

        Returns
        -------
        ndarray or dask.array.Array of shape (n_rows,)
            An ndarray for what is in memory; for anything else a lazy dask array, for which the data is read once now,
            for what each block does to its ends, and once when it is computed.
        """
        if method not in _METHODS:
            raise ConfigurationError(f"method={method!r}: choose one of {', '.join(map(repr, _METHODS))}")
        return self._states(X, _METHODS[method], None, np.intp, **asked_ids(sequence, lengths, X), **opening)

    def predict_proba(self, X: Any, sequence: Any = None, lengths: Any = None, **opening: Any) -> Any:
        """Probability of each state for each row, given all rows of its sequence, (n_rows, n_states); see `predict`."""
        k = int(self.n_states)
        return self._states(X, "shares", k, np.float64, **asked_ids(sequence, lengths, X), **opening)

    def filter(self, X: Any, sequence: Any = None, lengths: Any = None, **opening: Any) -> Any:
        """Probability of each state for each row, given it and those before it, (n_rows, n_states); see `predict`."""
        k = int(self.n_states)
        return self._states(X, "filtered", k, np.float64, **asked_ids(sequence, lengths, X), **opening)

    def forecast(self, X: Any, steps: int, sequence: Any = None, lengths: Any = None, **opening: Any) -> np.ndarray:
        """Probability of each state after the last row of each sequence.

        Parameters
        ----------
        X : array, frame, path, URL or Source
        steps : int
            Rows ahead.
        sequence : array of shape (n_rows,), optional
            Ids, in memory; or `lengths`, as in `fit`.
        **opening
            Keywords of `dask_em.open`.

        Returns
        -------
        ndarray of shape (steps, n_states), or (n_sequences, steps, n_states) where sequences are given
            Times `means_`, or another mean of each state, it is what rows are expected.
        """
        if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1:
            raise ConfigurationError(f"steps={steps!r} must be a whole number of at least 1")
        if isinstance(sequence, str):
            raise ConfigurationError(
                "forecast asks for the ids of sequences themselves, or lengths, not a column's name"
            )
        ids = asked_ids(sequence, lengths, X).get("sequence")
        shares = self.filter(X, ids, **opening)
        last = np.array([-1])
        if ids is not None:
            ids = np.asarray(ids)
            last = np.flatnonzero(np.append(ids[1:] != ids[:-1], True))
        ahead = [np.asarray(shares[last])]
        for _ in range(steps):
            ahead.append(ahead[-1] @ self.transmat_)
        found = np.stack(ahead[1:], axis=1)
        return found[0] if ids is None else found

    def _states(self, X: Any, want: str, width: int | None, dtype: Any, **opening: Any) -> Any:
        check_is_fitted(self)
        return state_answers(self, X, want, width, dtype, opening)

    # ---- likelihood

    def score(self, X: Any, y: Any = None, sequence: Any = None, lengths: Any = None, **opening: Any) -> float:  # type: ignore[override]
        """Natural log-likelihood of all rows together, read in one pass, as hmmlearn's."""
        return self._total_loglik(X, sequence, lengths, opening)[0]

    def score_samples(self, X: Any, sequence: Any = None, lengths: Any = None, **opening: Any) -> tuple[float, Any]:
        """The log-likelihood of all rows together, and the probability of each state for each row, as hmmlearn's."""
        return self.score(X, None, sequence, lengths, **opening), self.predict_proba(X, sequence, lengths, **opening)

    def bic(self, X: Any, sequence: Any = None, lengths: Any = None, **opening: Any) -> float:  # type: ignore[override]
        """Bayesian information criterion -2 L + p log n on X: lower is better; n is the weight of the rows."""
        return float(self.figures_of(*self._total_loglik(X, sequence, lengths, opening))["bic"])

    def aic(self, X: Any, sequence: Any = None, lengths: Any = None, **opening: Any) -> float:  # type: ignore[override]
        """Akaike's information criterion -2 L + 2 p on X: lower is better."""
        return float(self.figures_of(*self._total_loglik(X, sequence, lengths, opening))["aic"])

    def _total_loglik(self, X: Any, sequence: Any, lengths: Any, opening: dict[str, Any]) -> tuple[float, float]:
        stats = self._total_sums(X, sequence, lengths, opening)
        return float(stats.total_loglik), float(stats.weight)

    def _total_sums(self, X: Any, sequence: Any, lengths: Any, opening: dict[str, Any]) -> Any:
        check_is_fitted(self)
        weight = opening.pop("sample_weight", None)
        opening = {**opening, "weight": weight, **asked_ids(sequence, lengths, X)}
        source = self._open(X, reset=False, **opening)
        executor = self.executor or default_executor()
        try:
            return one_pass(source, [self.total_request()], executor).answers[0]
        finally:
            executor.close()

    # ---- what the chain is like

    def occupancy(self, X: Any, sequence: Any = None, lengths: Any = None, **opening: Any) -> np.ndarray:
        """(n_states,) rows of X that are expected to be in each state, in one pass."""
        counts: np.ndarray = self._total_sums(X, sequence, lengths, opening).counts
        return counts

    def expected_durations(self) -> np.ndarray:
        """(n_states,) rows on end that the chain stays in each state, on average: 1 / (1 - p), p being that to stay."""
        check_is_fitted(self)
        with np.errstate(divide="ignore"):
            durations: np.ndarray = 1 / (1 - np.diagonal(self.transmat_))
        return durations

    def coalescence(self, X: Any) -> int | None:
        """After how many rows nothing is left of the state before them, to a relative 1e-13; None: not within X.

        So many rows a block keeps of a sequence that it has not the beginning of.

        Parameters
        ----------
        X : array or frame
            Rows of one sequence, in memory.
        """
        check_is_fitted(self)
        found = forward_agreement(
            self._fitted_model().chain(self._params()).log_density(self._in_memory(X)), self.transmat_
        )
        return None if found is None else found[0] + 1

    def total_request(self) -> Any:
        """What to ask the data for the total log-likelihood, and the weight."""
        return SumsRequest(self._fitted_model(), self._params())

    def answer(self, want: str, source: Any = None) -> Any:
        """What to ask of each row of a source, which is read once now for what blocks do to their ends."""
        return StateAnswers.of(self, source, want)

    def stationary_distribution(self) -> np.ndarray:
        """(n_states,) shares of the states in the long run."""
        check_is_fitted(self)
        return stationary(self.transmat_)

    # ---- between hyperparameters, parameters and attributes

    def _distribution(self) -> Distribution:
        """Of the rows, given the state."""
        raise TypeError(f"{type(self).__name__} is a base class")

    def _model(self) -> HiddenMarkovModel:
        return self._model_of(self._distribution())

    def _fitted_model(self) -> HiddenMarkovModel:
        model, learned = self._model_of(self.distribution_), letters(self.params, self._letters, "params")
        if len(learned) == len(self._letters):
            return model
        own = self._params()
        return replace(
            model,
            held=HiddenMarkovParams(**{n: None if PARTS[n] & learned else getattr(own, n) for n in PARTS}),
        )

    def _model_of(self, distribution: Distribution) -> HiddenMarkovModel:
        allowed = self.transitions
        if not isinstance(allowed, str):
            allowed = tuple(tuple(bool(v) for v in row) for row in np.atleast_2d(np.asarray(allowed)))
        return HiddenMarkovModel(
            self.n_states, distribution, allowed, self.begins, self.start_prior, self.transition_prior
        )

    def _entry(self, source: Source) -> Entry:
        model = self._resolved(source)
        learned, begun = (
            letters(self.params, self._letters, "params"),
            letters(self.init_params, self._letters, "init_params"),
        )
        if len(learned & begun) < len(self._letters):
            given = given_parts(self, model.distribution, source.n_features, learned, begun)
            held = {name: part for name, part in given.items() if not PARTS[name] & learned}
            model = replace(model, held=HiddenMarkovParams(**{**dict.fromkeys(PARTS), **held}) if held else None)
            return Entry(model, begin=partial(begin_with, given))
        before = self._params() if self.warm_start and hasattr(self, "components_") else None
        if before is not None and len(before.startprob) == self.n_states:
            return Entry(model, (before,))
        return Entry(model)

    def _keep_model(self, model: HiddenMarkovModel) -> None:
        self.distribution_ = model.distribution

    def _keep(self, params: HiddenMarkovParams) -> None:
        self.startprob_, self.transmat_, self.components_ = params.startprob, params.transmat, params.components
        for field in fields(params.components):
            setattr(self, f"{field.name}_", getattr(params.components, field.name))

    def _params(self) -> HiddenMarkovParams:
        return HiddenMarkovParams(self.startprob_, self.transmat_, self.components_)

    def _check_loaded(self) -> None:
        if not isinstance(self.distribution_, Distribution):
            raise ValueError("distribution_ is no distribution")
        k, params = self.n_states, self._params()
        shapes = {"startprob_": (k,), "transmat_": (k, k)}
        for name, shape in shapes.items():
            shares = getattr(self, name)
            if shares.shape != shape or (shares < 0).any() or not np.allclose(shares.sum(axis=-1), 1.0):
                raise ValueError(f"{name} holds no shares of shape {shape} that sum to 1")
        if not np.isfinite(self._fitted_model().distribution.to_vector(params.components)).all():
            raise ValueError("components_ holds values that are not finite")
        self._keep(params)
