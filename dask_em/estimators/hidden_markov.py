"""`HiddenMarkov`: a hidden Markov chain with any observation distribution, for sequences of any number and length."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from dask_em.distributions.base import Distribution
from dask_em.distributions.gaussian import Gaussian
from dask_em.engine import Callback, EStep, one_pass
from dask_em.entry import Entry
from dask_em.errors import ConfigurationError
from dask_em.estimators.prediction import Density
from dask_em.estimators.sequences import ids_of, state_answers
from dask_em.executors import default_executor
from dask_em.model import Executor, Solver, Source
from dask_em.models.hidden_markov import HiddenMarkovModel, HiddenMarkovParams
from dask_em.models.stationary import stationary

_METHODS = {"viterbi": "path", "posterior": "labels"}


class HiddenMarkov(Density):
    """Hidden Markov chain with any observation distribution, fitted by Expectation-Maximization (Baum-Welch).

    Rows are in order of time.  Sequences may be as many, and as long, as there is room for on disk: blocks cut them
    anywhere, and what is found is what one serial recursion over each sequence finds, but for rounding.

    Parameters
    ----------
    n_states : int, default 1
    distribution : Distribution, default Gaussian()
        Of the rows, given the state: `dask_em.Poisson()`, `dask_em.Categorical()`, ..., or one of your own.
    transitions : {"full", "left-right"} or array-like of shape (n_states, n_states) of bool, default "full"
        Which state may follow which: any; itself and the next, sequences beginning in the first; or those named.
    begins : {"free", "stationary"}, default "free"
        Whether first states have shares of their own, or those that the transitions lead to in the long run.
    start_prior, transition_prior : float, default 0
        First rows in each state, and transitions of each allowed kind, that a Dirichlet prior stands for.
    tol : float, default 0.05
        A run has converged once further steps would gain fewer nats of the *total* log-likelihood than this, by
        prediction.
    max_passes : int, default 500
        As in `GaussianMixture`.
    n_init : int, default 8
        Starts, which are raced on a sample of whole sequences, or long stretches of them.
    random_state : int, RandomState or None, default None
    warm_start : bool, default False
        Begin at the parameters of the last fit.
    solver : {"auto", "anderson", "em"}, default "auto"
    sample_bytes, time_limit, checkpoint, checkpoint_options, executor, callbacks, verbose
        As in `GaussianMixture`.

    Attributes
    ----------
    startprob_ : ndarray of shape (n_states,)
        Shares of the states of first rows.
    transmat_ : ndarray of shape (n_states, n_states)
        Probabilities of the next state, by row of the present one.
    components_ : dataclass
        The states' parameters; each of its arrays is an attribute too, as `rates_` for `dask_em.Poisson`.
    distribution_ : Distribution
        With what the data told of it, such as the numbers of categories.
    loglik_, status_, message_, converged_, n_passes_, n_steps_, n_rows_, history_, restarts_
        As in `GaussianMixture`.

    References
    ----------
    Baum, L. E., Petrie, T., Soules, G. and Weiss, N. (1970). A maximization technique occurring in the statistical
    analysis of probabilistic functions of Markov chains. Annals of Mathematical Statistics 41.
    Rabiner, L. R. (1989). A tutorial on hidden Markov models. Proceedings of the IEEE 77.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> rng = np.random.default_rng(0)
    >>> calm = rng.poisson(1.0, 300), rng.poisson(9.0, 200), rng.poisson(1.0, 300)
    >>> counts = np.concatenate(calm)[:, None]
    >>> hmm = em.HiddenMarkov(2, em.Poisson(), random_state=0, verbose=0).fit(counts)
    >>> states = hmm.predict(counts)
    >>> bool((states[310:490] == states[400]).all() and states[400] != states[100])
    True
    """

    _fitted: ClassVar[tuple[str, ...]] = ("startprob_", "transmat_")
    _trees: ClassVar[tuple[str, ...]] = ("components_", "distribution_")

    def __init__(
        self,
        n_states: int = 1,
        distribution: Distribution | None = None,
        *,
        transitions: Any = "full",
        begins: str = "free",
        start_prior: float = 0.0,
        transition_prior: float = 0.0,
        tol: float = 0.05,
        max_passes: int = 500,
        n_init: int = 8,
        random_state: Any = None,
        warm_start: bool = False,
        solver: str | Solver = "auto",
        sample_bytes: int | None = None,
        time_limit: float | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_options: Mapping[str, Any] | None = None,
        executor: Executor | None = None,
        callbacks: Sequence[Callback] | None = None,
        verbose: int = 1,
    ) -> None:
        self.n_states = n_states
        self.distribution = distribution
        self.transitions = transitions
        self.begins = begins
        self.start_prior = start_prior
        self.transition_prior = transition_prior
        self.tol = tol
        self.max_passes = max_passes
        self.n_init = n_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.solver = solver
        self.sample_bytes = sample_bytes
        self.time_limit = time_limit
        self.checkpoint = checkpoint
        self.checkpoint_options = checkpoint_options
        self.executor = executor
        self.callbacks = callbacks
        self.verbose = verbose

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
        return self._fit(X, **ids_of(sequence, lengths), weight=sample_weight, **opening)

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
        return self._states(X, _METHODS[method], None, np.intp, **ids_of(sequence, lengths), **opening)

    def predict_proba(self, X: Any, sequence: Any = None, lengths: Any = None, **opening: Any) -> Any:
        """Probability of each state for each row, given all rows of its sequence, (n_rows, n_states); see `predict`."""
        k = int(self.n_states)
        return self._states(X, "shares", k, np.float64, **ids_of(sequence, lengths), **opening)

    def filter(self, X: Any, sequence: Any = None, lengths: Any = None, **opening: Any) -> Any:
        """Probability of each state for each row, given it and those before it, (n_rows, n_states); see `predict`."""
        k = int(self.n_states)
        return self._states(X, "filtered", k, np.float64, **ids_of(sequence, lengths), **opening)

    def _states(self, X: Any, want: str, width: int | None, dtype: Any, **opening: Any) -> Any:
        check_is_fitted(self)
        return state_answers(self, X, want, width, dtype, opening)

    # ---- likelihood

    def score(self, X: Any, y: Any = None, sequence: Any = None, lengths: Any = None, **opening: Any) -> float:  # type: ignore[override]
        """Natural log-likelihood of all rows together, read in one pass, as hmmlearn's."""
        return self._total_loglik(X, sequence, lengths, opening)[0]

    def bic(self, X: Any, sequence: Any = None, lengths: Any = None, **opening: Any) -> float:  # type: ignore[override]
        """Bayesian information criterion -2 L + p log n on X: lower is better; n is the weight of the rows."""
        return float(self.figures_of(*self._total_loglik(X, sequence, lengths, opening))["bic"])

    def aic(self, X: Any, sequence: Any = None, lengths: Any = None, **opening: Any) -> float:  # type: ignore[override]
        """Akaike's information criterion -2 L + 2 p on X: lower is better."""
        return float(self.figures_of(*self._total_loglik(X, sequence, lengths, opening))["aic"])

    def _total_loglik(self, X: Any, sequence: Any, lengths: Any, opening: dict[str, Any]) -> tuple[float, float]:
        check_is_fitted(self)
        opening = {**opening, "weight": opening.pop("sample_weight", None), **ids_of(sequence, lengths)}
        source = self._open(X, reset=False, **opening)
        executor = self.executor or default_executor()
        try:
            request = EStep(self._fitted_model(), (self._params(),))
            stats = one_pass(source, [request], executor).answers[0][0]
        finally:
            executor.close()
        return float(stats.total_loglik), float(stats.weight)

    def stationary_distribution(self) -> np.ndarray:
        """(n_states,) shares of the states in the long run."""
        check_is_fitted(self)
        return stationary(self.transmat_)

    # ---- between hyperparameters, parameters and attributes

    def _distribution(self) -> Distribution:
        return Gaussian() if self.distribution is None else self.distribution

    def _model(self) -> HiddenMarkovModel:
        return self._model_of(self._distribution())

    def _fitted_model(self) -> HiddenMarkovModel:
        return self._model_of(self.distribution_)

    def _model_of(self, distribution: Distribution) -> HiddenMarkovModel:
        allowed = self.transitions
        if not isinstance(allowed, str):
            allowed = tuple(tuple(bool(v) for v in row) for row in np.atleast_2d(np.asarray(allowed)))
        return HiddenMarkovModel(
            self.n_states, distribution, allowed, self.begins, self.start_prior, self.transition_prior
        )

    def _entry(self, source: Source) -> Entry:
        model = self._resolved(source)
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
