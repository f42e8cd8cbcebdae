"""`GaussianMixture`: scikit-learn's interface to a mixture of Gaussians, for data of any size."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import DensityMixin
from sklearn.utils.validation import check_is_fitted, check_random_state

from dask_em.distributions.gaussian import Gaussian, GaussianParams
from dask_em.engine import Callback
from dask_em.errors import ConfigurationError
from dask_em.estimators.base import Estimator
from dask_em.estimators.starts import GivenStart, StartedMixture, given_start
from dask_em.fitting import Settings, run
from dask_em.model import Executor, Solver
from dask_em.models.mixture import Mixture, MixtureParams


class GaussianMixture(DensityMixin, Estimator):
    """Gaussian mixture, fitted by Expectation-Maximization to data that need not fit in memory.

    The first read of the data is a census that also draws a random sample.  Starts are found on
    the sample (k-means++, then EM); after that every EM iteration is one pass over the data.

    Parameters
    ----------
    n_components : int, default 1
    covariance_type : {"full", "tied", "diag", "spherical"}, default "full"
    tol : float, default 0.05
        A run has converged once further passes would gain fewer nats of the *total*
        log-likelihood than this, by prediction.
    reg_covar : float, default 1e-6
        Added to the variances, in squared units of the data.
    max_passes : int, default 500
        Complete reads of the data at most, the census included.
    n_init : int, default 1
        Starts, all of which share every pass.
    weights_init, means_init, precisions_init : array-like, optional
        Start here.  Shapes (n_components,), (n_components, n_features), and that of
        `precisions_`.  What is not given is estimated on a sample from rows assigned to their
        nearest mean; if all three are given the passes begin exactly there.
    random_state : int, RandomState or None, default None
    warm_start : bool, default False
        Begin at the parameters of the last fit.
    solver : "em" or Solver, default "em"
    time_limit : float, optional
        Seconds after which no further pass begins.
    checkpoint : path or URL, optional
        Written after every pass; the same call goes on from it and ends, to the last bit, as if
        it had never stopped.
    checkpoint_options : dict, optional
        What fsspec needs to reach the checkpoint.
    executor : Executor, optional
        Default: the cluster of the active `distributed.Client`, else threads in this process.
    callbacks : sequence of Callback, optional
    verbose : int, default 1
        0: silent. Otherwise progress shows in a terminal or a notebook.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    means_ : ndarray of shape (n_components, n_features)
    covariances_, precisions_, precisions_cholesky_ : ndarray
        Shapes (n_components, n_features, n_features), (n_features, n_features),
        (n_components, n_features) or (n_components,), by `covariance_type`.
    loglik_ : float
        Total natural log-likelihood of the rows (times their weights) at these parameters.
    status_ : {"converged", "max_passes", "degenerate", "interrupted", "time_limit"}
    message_ : str
        How the fit ended, and what would help.
    converged_ : bool
    n_passes_ : int
        Complete reads of the data.
    n_rows_ : int
    history_ : list of dict
        One record a pass: kind ("census", then the solver), loglik, gain (predicted nats left, None
        while nothing can be said), runs (that took part), rows, seconds, seconds_read, seconds_compute.
    runs_ : list of dict
        One record a start: log-likelihood, status, passes.

    See Also
    --------
    sklearn.mixture.GaussianMixture : In memory, one process; `to_sklearn` gives one.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(-4, 1, (500, 2)), rng.normal(4, 1, (500, 2))])
    >>> gm = em.GaussianMixture(2, random_state=0).fit(X)
    >>> gm.status_, np.sort(gm.means_[:, 0]).round(0).tolist()
    ('converged', [-4.0, 4.0])
    """

    _fitted: ClassVar[tuple[str, ...]] = ("weights_", "means_", "covariances_", "precisions_cholesky_", "precisions_")

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 0.05,
        reg_covar: float = 1e-6,
        max_passes: int = 500,
        n_init: int = 1,
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        random_state: Any = None,
        warm_start: bool = False,
        solver: str | Solver = "em",
        time_limit: float | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_options: Mapping[str, Any] | None = None,
        executor: Executor | None = None,
        callbacks: Sequence[Callback] | None = None,
        verbose: int = 1,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_passes = max_passes
        self.n_init = n_init
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.solver = solver
        self.time_limit = time_limit
        self.checkpoint = checkpoint
        self.checkpoint_options = checkpoint_options
        self.executor = executor
        self.callbacks = callbacks
        self.verbose = verbose

    # ---- fit

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        columns: Sequence[Any] | None = None,
        filters: Any = None,
        storage_options: Mapping[str, Any] | None = None,
        missing_chunks: str = "warn",
    ) -> Self:
        """Fit to all rows of X.

        Parameters
        ----------
        X : array, frame, path, URL or Source
            NumPy or dask array, pandas or dask frame, `zarr.Array`, xarray DataArray, the path or
            URL of a Zarr array or of Parquet files, or what `dask_em.open` made.
        y : ignored
        sample_weight : array of shape (n_rows,) or str, optional
            Weight of each row; for frames and Parquet files also a column's name.
        columns : sequence, optional
            Columns to fit: names, or for arrays positions.
        filters, storage_options, missing_chunks
            As in `dask_em.open`.

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
        model = self._model()
        source = self._open(
            X,
            reset=True,
            columns=columns,
            weight=sample_weight,
            filters=filters,
            storage_options=storage_options,
            missing_chunks=missing_chunks,
        )
        settings = Settings(
            self.solver,
            self.n_init,
            self._seed(),
            self.tol,
            self.max_passes,
            self.time_limit,
            None if self.checkpoint is None else os.fspath(self.checkpoint),
            self.checkpoint_options,
            self.verbose,
        )
        start = given_start(
            self.weights_init, self.means_init, self.precisions_init, self._distribution(), self.n_components,
            source.n_features,
        )  # fmt: skip
        result = run(
            StartedMixture(model.n_components, model.distribution, start),
            source,
            settings,
            params=self._first_params(start),
            identity=self._identity(start),
            executor=self.executor,
            callbacks=self.callbacks or (),
        )
        self._keep(result.params)
        self._take(result)
        return self

    def fit_predict(self, X: Any, y: Any = None, **kwargs: Any) -> Any:
        """Fit, then the component of each row; see `fit` and `predict`."""
        return self.fit(X, y, **kwargs).predict(X)

    def _model(self) -> Mixture:
        return Mixture(self.n_components, self._distribution())

    def _distribution(self) -> Gaussian:
        return Gaussian(self.covariance_type, float(self.reg_covar))  # type: ignore[arg-type]

    def _first_params(self, start: GivenStart) -> list[MixtureParams] | None:
        """Where the passes begin, if that is known without the data."""
        if self.warm_start and hasattr(self, "means_"):
            before = self._params()
            if before.components.means.shape == (self.n_components, self.n_features_in_):
                return [before]
        complete = start.complete(self._distribution())
        return None if complete is None else [complete]

    def _identity(self, start: GivenStart) -> dict[str, Any]:
        """What a checkpoint of this fit belongs to, beside settings and data."""
        return {
            "model": "GaussianMixture",
            "n_components": int(self.n_components),
            "covariance_type": self.covariance_type,
            "reg_covar": float(self.reg_covar),
            "weights_init": start.weights,
            "means_init": start.means,
            "precisions_init": start.precisions,
        }

    def _keep(self, params: MixtureParams) -> None:
        c = params.components
        self.weights_, self.means_, self.covariances_ = params.weights, c.means, c.covariances
        self.precisions_cholesky_ = u = c.precisions_cholesky
        self.precisions_ = u**2 if self.covariance_type in ("diag", "spherical") else u @ np.swapaxes(u, -1, -2)

    def _params(self) -> MixtureParams:
        return MixtureParams(self.weights_, GaussianParams(self.means_, self.covariances_, self.precisions_cholesky_))

    # ---- rows

    def predict(self, X: Any, **opening: Any) -> Any:
        """The component each row most probably comes from.

        Parameters
        ----------
        X : array, frame, path, URL or Source
        **opening
            Keywords of `dask_em.open`.

        Returns
        -------
        ndarray or dask.array.Array of shape (n_rows,)
            An ndarray for data in memory; otherwise a lazy dask array.
        """
        return self._rows(X, self._answer("labels"), None, np.intp, **opening)

    def predict_proba(self, X: Any, **opening: Any) -> Any:
        """Probability of each component for each row, (n_rows, n_components); see `predict`."""
        return self._rows(X, self._answer("proba"), self.n_components, np.float64, **opening)

    def score_samples(self, X: Any, **opening: Any) -> Any:
        """Natural log-likelihood of each row, (n_rows,); see `predict`."""
        return self._rows(X, self._answer("loglik"), None, np.float64, **opening)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None, **opening: Any) -> float:
        """Mean natural log-likelihood a row (or a unit of weight), read in one pass."""
        loglik, weight = self._total_loglik(X, weight=sample_weight, **opening)
        return loglik / weight

    def _answer(self, want: str) -> Any:
        check_is_fitted(self)
        return partial(_answer, self._model(), self._params(), want)

    # ---- the fitted density

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Rows drawn from the fitted mixture, and the component of each, in order of component.

        Parameters
        ----------
        n_samples : int

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
        labels : ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        if n_samples < 1:
            raise ConfigurationError(f"n_samples={n_samples!r} must be at least 1")
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        return self._model().sample(self._params(), int(n_samples), np.random.default_rng(seed))

    def bic(self, X: Any, **opening: Any) -> float:
        """Bayesian information criterion -2 L + p log n on X: lower is better."""
        loglik, weight = self._total_loglik(X, **opening)
        return float(-2 * loglik + self.n_parameters() * np.log(weight))

    def aic(self, X: Any, **opening: Any) -> float:
        """Akaike's information criterion -2 L + 2 p on X: lower is better."""
        loglik, _ = self._total_loglik(X, **opening)
        return -2 * loglik + 2 * self.n_parameters()

    def n_parameters(self) -> int:
        """Free parameters of the fitted mixture."""
        return self._model().n_parameters(self.n_features_in_)

    def to_sklearn(self) -> Any:
        """A fitted `sklearn.mixture.GaussianMixture` with these parameters."""
        from sklearn.mixture import GaussianMixture as Sklearn

        check_is_fitted(self)
        other = Sklearn(self.n_components, covariance_type=self.covariance_type, reg_covar=self.reg_covar)
        for name in (*self._fitted, "n_features_in_"):
            value = getattr(self, name)
            setattr(other, name, value.copy() if isinstance(value, np.ndarray) else value)
        if hasattr(self, "feature_names_in_"):
            other.feature_names_in_ = self.feature_names_in_.copy()
        other.converged_ = self.converged_
        other.n_iter_ = max(1, self.n_passes_ - 1)
        other.lower_bound_ = self.loglik_ / self.weight_
        other.lower_bounds_ = [r["loglik"] / self.weight_ for r in self.history_ if r["kind"] != "census"]
        return other

    def _check_loaded(self) -> None:
        k, d = self.means_.shape
        if (k, d) != (self.n_components, self.n_features_in_) or self.weights_.shape != (k,):
            raise ValueError("the shapes of weights_ and means_ do not go together")
        shapes = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}
        for name in ("covariances_", "precisions_", "precisions_cholesky_"):
            if getattr(self, name).shape != shapes[self.covariance_type]:
                raise ValueError(f"{name} has the shape {getattr(self, name).shape}")


def _answer(model: Mixture, params: MixtureParams, want: str, x: np.ndarray) -> np.ndarray:
    return model.posteriors(params, x, want)
