"""`Mixture`: a mixture of any observation distribution, for data of any size."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Any, ClassVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from dask_em.distributions.base import Distribution
from dask_em.distributions.gaussian import Gaussian
from dask_em.distributions.regression import Regression
from dask_em.engine import Callback
from dask_em.entry import Entry
from dask_em.errors import ConfigurationError
from dask_em.estimators.base import seed_of
from dask_em.estimators.prediction import DensityPredictor
from dask_em.estimators.responses import drawn_response, mean_response, mean_responses
from dask_em.estimators.rows import with_column
from dask_em.model import Executor, Solver, Source
from dask_em.models.frozen import FrozenMixture
from dask_em.models.mixture import MixtureModel, MixtureParams


class Mixture(DensityPredictor):
    """Mixture of any observation distribution, fitted by Expectation-Maximization.

    Parameters
    ----------
    n_components : int, default 1
    distribution : Distribution, default Gaussian()
        Of the components: `dask_em.Poisson()`, `dask_em.Bernoulli()`, `dask_em.Categorical()`, ..., or one of your own.
    frozen : parameters, optional
        Of components that are known, such as `components_` of a mixture fitted to a background: they are the first
        of the `n_components`, and stay as they are.  The others, and the weights, are estimated.
    fixed_weights : "equal" or array-like of shape (n_components,), optional
        Weights that stay as they are.  Default: they are estimated.
    tol : float, default 0.05
        A run has converged once further steps would gain fewer nats of the *total* log-likelihood than this, by
        prediction.
    max_passes : int, default 500
        As in `GaussianMixture`.
    n_init : int, default 8
        Starts, which are raced on a sample of the rows.  Of the one that settles highest two components become one,
        and another two, as long as that gains.
    random_state : int, RandomState or None, default None
    warm_start : bool, default False
        Begin at the parameters of the last fit.
    solver, sample_bytes, time_limit, checkpoint, checkpoint_options, executor, callbacks, verbose
        As in `GaussianMixture`.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Shares of the components.
    components_ : dataclass
        The components' parameters; each of its arrays is an attribute too, as `rates_` for `dask_em.Poisson`.
        Of a `dask_em.Product`, `components_["age"]` are those of the part that has the column "age".
    distribution_ : Distribution
        With what the data told of it, such as the numbers of categories.
    loglik_, status_, message_, converged_, n_passes_, n_steps_, n_rows_, history_, restarts_
        As in `GaussianMixture`.  Data of few distinct rows, as counts and codes have, is summed up by them in
        its one read: `n_passes_` is 1 then.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> counts = np.random.default_rng(0).poisson(np.repeat([1.0, 20.0], 500))[:, None]
    >>> mix = em.Mixture(2, em.Poisson(), random_state=0).fit(counts)
    >>> np.sort(mix.rates_.ravel()).round().tolist(), mix.n_passes_
    ([1.0, 20.0], 1)
    >>> known = em.Mixture(1, em.Poisson(), verbose=0).fit(counts[:500]).components_
    >>> em.Mixture(2, em.Poisson(), frozen=known, verbose=0).fit(counts).rates_.ravel().round().tolist()
    [1.0, 20.0]
    """

    _fitted: ClassVar[tuple[str, ...]] = ("weights_",)
    _trees: ClassVar[tuple[str, ...]] = ("components_", "distribution_")

    def __init__(
        self,
        n_components: int = 1,
        distribution: Distribution | None = None,
        *,
        frozen: Any = None,
        fixed_weights: Any = None,
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
        self.n_components = n_components
        self.distribution = distribution
        self.frozen = frozen
        self.fixed_weights = fixed_weights
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
        tags.input_tags.sparse = self._distribution().accepts_sparse
        return tags

    def predict_response(self, X: Any, *, by_component: bool = False, **opening: Any) -> Any:
        """Of a mixture of regressions: the mean of the response, given the predictors of each row.

        It is Σ_k weights_[k] times the component's mean, as nothing but the response tells components apart.

        Parameters
        ----------
        X : array, frame, path, URL or Source
            The columns that were fitted; the response's may be missing, and what is in it has no say.
        by_component : bool, default False
            The mean under each component.
        **opening
            Keywords of `dask_em.open`.

        Returns
        -------
        ndarray or dask.array.Array of shape (n_rows,), or (n_rows, n_components) by component
            As `predict`.

        Raises
        ------
        ConfigurationError
            The distribution is no regression.
        """
        at = self._response_at()
        X = with_column(X, at, getattr(self, "feature_names_in_", None), self.n_features_in_)
        if by_component:
            return self._of_rows(mean_responses, X, int(self.n_components), without=at, **opening)
        return self._of_rows(mean_response, X, without=at, **opening)

    def sample_response(self, X: Any, random_state: Any = 0, **opening: Any) -> Any:
        """Of a mixture of regressions: a response drawn for each row, given its predictors.

        Parameters
        ----------
        X : array, frame, path, URL or Source
            As in `predict_response`.
        random_state : int, RandomState or None
            None: other ones each time.
        **opening
            Keywords of `dask_em.open`.

        Returns
        -------
        ndarray or dask.array.Array of shape (n_rows,)
            As `predict`. The random numbers are fixed by `random_state` and the row's number in X, or where that is
            not known beforehand the block's and its own in the block.

        Raises
        ------
        ConfigurationError
            The distribution is no regression.
        """
        at = self._response_at()
        X = with_column(X, at, getattr(self, "feature_names_in_", None), self.n_features_in_)
        seed = seed_of(random_state)
        if seed is None:
            seed = int(np.random.default_rng().integers(2**31))
        draw = partial(drawn_response, self._fitted_model(), self._params(), seed)
        return self._over(X, without=at, **opening)(draw, None, lambda _: np.dtype(np.float64))

    @property
    def answers(self) -> tuple[str, ...]:  # type: ignore[override]
        """What may be asked of each row: of a mixture of regressions also the response."""
        own = ("response",) if isinstance(getattr(self, "distribution_", None), Regression) else ()
        return (*super().answers, *own)

    def unasked(self, want: str) -> int | None:
        """Which column of those fitted such an answer does without."""
        return self._response_at() if want == "response" else None

    def answer(self, want: str, source: Any = None) -> Any:
        """What to ask of each row, for `dask_em.sinks.writing.write_rows`; of a regression also its "response"."""
        if want != "response":
            return super().answer(want, source)
        from dask_em.sinks.answers import Said

        self._response_at()  # refuses what has none
        return Said(mean_response, self._fitted_model(), self._params(), want)

    def _response_at(self) -> int:
        """Where the response is among the columns fitted."""
        check_is_fitted(self)
        if isinstance(self.distribution_, Regression):
            return int(self.distribution_.position(self.n_features_in_))
        raise ConfigurationError(
            f"a mixture of {type(self.distribution_).__name__} has no response: it is predicted for regressions, such "
            "as dask_em.LinearRegression"
        )

    # ---- between hyperparameters, parameters and attributes

    def _distribution(self) -> Distribution:
        return Gaussian() if self.distribution is None else self.distribution

    def _model(self) -> MixtureModel:
        return self._model_of(self._distribution())

    def _fitted_model(self) -> MixtureModel:
        return self._model_of(self.distribution_)

    def _model_of(self, distribution: Distribution) -> MixtureModel:
        if self.frozen is None and self.fixed_weights is None:
            return MixtureModel(self.n_components, distribution)
        weights = self.fixed_weights
        if isinstance(weights, (list, np.ndarray)):
            weights = tuple(np.ravel(weights).tolist())
        return FrozenMixture(self.n_components, distribution, self.frozen, weights)

    def _entry(self, source: Source) -> Entry:
        model = self._resolved(source)
        before = self._params() if self.warm_start and hasattr(self, "components_") else None
        if before is not None and len(before.weights) == self.n_components:
            return Entry(model, (before,))
        return Entry(model)

    def _keep_model(self, model: MixtureModel) -> None:
        self.distribution_ = model.distribution

    def _keep(self, params: MixtureParams) -> None:
        self.weights_, self.components_ = params.weights, params.components
        for field in fields(params.components):
            setattr(self, f"{field.name}_", getattr(params.components, field.name))

    def _params(self) -> MixtureParams:
        return MixtureParams(self.weights_, self.components_)

    def _check_loaded(self) -> None:
        if not isinstance(self.distribution_, Distribution):
            raise ValueError("distribution_ is no distribution")
        model, params = self._fitted_model(), self._params()
        if self.weights_.shape != (self.n_components,) or (self.weights_ < 0).any():
            raise ValueError("weights_ are no shares, one for each component")
        if not np.isclose(self.weights_.sum(), 1.0):
            raise ValueError("weights_ are no shares that sum to 1")
        if not np.isfinite(model.distribution.to_vector(params.components)).all():
            raise ValueError("components_ holds values that are not finite")
        self._keep(params)
