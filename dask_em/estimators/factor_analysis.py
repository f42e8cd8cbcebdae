"""`FactorAnalysis`: maximum likelihood factor analysis of many columns, from one read of the data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from scipy.stats import chi2
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from dask_em.engine import Callback
from dask_em.entry import Entry
from dask_em.errors import ConfigurationError, DataError
from dask_em.estimators import rotation as rotate
from dask_em.estimators.prediction import Density
from dask_em.kernels.second_moments import SecondMoments
from dask_em.model import Executor, Solver, Source
from dask_em.models.factor_summary import FactorSummary
from dask_em.models.factors import FactorModel, FactorParams
from dask_em.result import FitResult

_ROUNDING = 1e-10  # of the largest eigenvalue: what one of zero may be off by


class FactorAnalysis(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Density):
    """Factor analysis by maximum likelihood: x = μ + Λ z + ε, with noise ε of each column's own variance.

    The rows' weight, mean and second moments say all that the model asks, so that the data is read exactly once,
    whatever its size; EM, accelerated, goes on in memory.  Values may be missing (NaN), at random: whether one is
    missing may depend on what is observed of the row, but not on the value itself.  The likelihood is that of what is
    observed, and the moments of each pattern of missing columns are kept.  Only where patterns are so many that their
    moments would take more than 64 MiB does EM read data beyond the sample again.

    Parameters
    ----------
    n_components : int, default 1
        Number of factors.
    rotation : {None, "none", "varimax"}, default None
        None: the factors for which Λᵀ Ψ⁻¹ Λ is diagonal.  "varimax": those with the simplest loadings (Kaiser 1958),
        rows normalised.  The likelihood is the same.
    floor : float, default 0.005
        Noise variances are at least this share of their columns' variances; a fit that comes to lie there, a Heywood
        case, says so and has the status "degenerate".
    tol : float, default 1e-6
        The fit has converged once further steps would gain fewer nats of the *total* log-likelihood than this, by
        prediction.
    max_passes : int, default 2000
        Steps at most; only the first reads the data, unless patterns of missing columns are too many.
    warm_start : bool, default False
        Begin at the parameters of the last fit.
    solver, sample_bytes, time_limit, checkpoint, checkpoint_options, executor, callbacks, verbose
        As in `GaussianMixture`.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        Loadings Λᵀ in the columns' units.
    noise_variance_ : ndarray of shape (n_features,)
    mean_ : ndarray of shape (n_features,)
    loadings_ : ndarray of shape (n_features, n_components)
        Loadings on the scale of correlations: those of columns of variance one.
    uniquenesses_, communalities_ : ndarray of shape (n_features,)
        Shares of each column's variance that are noise, and that are the factors'.
    saturated_loglik_ : float
        Log-likelihood of a Gaussian without constraint; NaN where there is none, or values are missing.
    loglik_, status_, message_, converged_, n_passes_, n_steps_, n_rows_, history_
        As in `GaussianMixture`; `n_passes_` is 1.  The log-likelihood is of what is observed.

    See Also
    --------
    sklearn.decomposition.FactorAnalysis : In memory; its `transform`, `score` and `get_covariance` mean the same.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> rng = np.random.default_rng(0)
    >>> ability = rng.normal(size=(5000, 1))
    >>> tests = ability * [0.9, 0.8, 0.7, 0.6] + rng.normal(size=(5000, 4)) * [0.44, 0.6, 0.71, 0.8]
    >>> fa = em.FactorAnalysis(1, verbose=0).fit(tests)
    >>> fa.loadings_.ravel().round(1).tolist(), fa.n_passes_
    ([0.9, 0.8, 0.7, 0.6], 1)
    >>> fa.transform(tests).shape
    (5000, 1)
    """

    answers: ClassVar[tuple[str, ...]] = ("factors", "loglik")
    _fitted: ClassVar[tuple[str, ...]] = ("components_", "noise_variance_", "mean_")
    _figures: ClassVar[dict[str, type]] = {"loglik_": float, "saturated_loglik_": float}
    n_init: ClassVar[int] = 1  # nothing about a start is random
    random_state: ClassVar[int] = 0

    def __init__(
        self,
        n_components: int = 1,
        *,
        rotation: str | None = None,
        floor: float = 0.005,
        tol: float = 1e-6,
        max_passes: int = 2000,
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
        self.rotation = rotation
        self.floor = floor
        self.tol = tol
        self.max_passes = max_passes
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
        tags.input_tags.allow_nan = True
        return tags

    # ---- between hyperparameters, parameters and attributes

    def _model(self) -> FactorModel:
        if self.rotation not in (None, "none", "varimax"):
            raise ConfigurationError(f"rotation={self.rotation!r} is unknown; choose 'none' or 'varimax'")
        return FactorModel(self.n_components, self.floor)

    def _entry(self, source: Source) -> Entry:
        shape = (self.n_components, source.n_features)
        if self.warm_start and getattr(self, "components_", np.empty(0)).shape == shape:
            return Entry(self._model(), (self._params(),))
        return Entry(self._model())

    def _keep(self, params: FactorParams) -> None:
        loadings = rotate.principal(params.loadings, params.psi)
        if self.rotation == "varimax":
            common = (loadings**2).sum(axis=1)
            scaled = loadings / np.sqrt(common + params.psi)[:, None]
            turn = rotate.varimax(scaled, common / (common + params.psi))
            loadings = rotate.ordered(loadings @ turn, by=scaled @ turn)
        self.components_, self.noise_variance_, self.mean_ = loadings.T.copy(), params.psi, params.mean

    def _params(self) -> FactorParams:
        return FactorParams(self.mean_, self.components_.T, self.noise_variance_)

    def _estimates(self, params: FactorParams) -> dict[str, np.ndarray]:
        """Without loadings, which may be rotated."""
        return {"mean": params.mean, "noise_variance": params.psi}

    def _finish(self, result: FitResult) -> None:
        super()._finish(result)
        found = result.summary
        known = isinstance(found, FactorSummary) and found.holed is None
        self.saturated_loglik_ = _saturated(found.whole) if known else float("nan")

    def _check_loaded(self) -> None:
        self._model()
        d = self.n_features_in_
        shapes = {"components_": (self.n_components, d), "noise_variance_": (d,), "mean_": (d,)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has the shape {getattr(self, name).shape}, and the others ask for {shape}")
        if not (self.noise_variance_ > 0).all():
            raise ValueError("noise_variance_ holds a value that is not positive")

    # ---- from a covariance matrix

    def fit_covariance(self, cov: Any, n_obs: float, mean: Any = None) -> Self:
        """Fit to a covariance matrix, where the rows themselves are not at hand.

        Parameters
        ----------
        cov : array or DataFrame of shape (n_features, n_features)
            Covariances, divided by `n_obs` as `numpy.cov(..., bias=True)` does; those divided by one less give the
            same loadings and uniquenesses on the scale of correlations, and the same goodness of fit.
        n_obs : int
            The number of rows that it was computed from.
        mean : array of shape (n_features,), optional
            Default: zeros.

        Returns
        -------
        self

        Raises
        ------
        DataError
            The matrix is no covariance matrix.
        """
        matrix = np.array(cov, dtype=np.float64)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.isfinite(matrix).all():
            raise DataError(f"cov has shape {matrix.shape}: give a square matrix of finite numbers")
        values, vectors = np.linalg.eigh(matrix)
        if not np.allclose(matrix, matrix.T) or values[0] < -_ROUNDING * values[-1]:
            raise DataError("cov is not symmetric, or has a negative eigenvalue: give a matrix of covariances")
        d = len(matrix)
        # two rows along each axis, on either side of the mean, have just these moments
        axes = np.sqrt(d * np.maximum(values, 0.0)) * vectors
        rows = np.concatenate([axes.T, -axes.T]) + (0.0 if mean is None else np.asarray(mean, dtype=np.float64))
        if hasattr(cov, "columns"):
            rows = type(cov)(rows, columns=cov.columns)
        self.fit(rows, sample_weight=np.full(2 * d, n_obs / (2 * d)))
        self.n_rows_ = int(n_obs)
        return self

    # ---- what was found

    @property
    def _variance(self) -> np.ndarray:
        check_is_fitted(self)
        variance: np.ndarray = (self.components_**2).sum(axis=0) + self.noise_variance_
        return variance

    @property
    def loadings_(self) -> np.ndarray:
        """(n_features, n_components) loadings of columns of variance one: their correlations with the factors."""
        loadings: np.ndarray = (self.components_ / np.sqrt(self._variance)).T
        return loadings

    @property
    def uniquenesses_(self) -> np.ndarray:
        """(n_features,) shares of the columns' variances that are noise."""
        return self.noise_variance_ / self._variance

    @property
    def communalities_(self) -> np.ndarray:
        """(n_features,) shares of the columns' variances that are the factors'."""
        return 1.0 - self.uniquenesses_

    def get_covariance(self) -> np.ndarray:
        """(n_features, n_features) covariance of the model, Λ Λᵀ + Ψ."""
        check_is_fitted(self)
        return self.components_.T @ self.components_ + np.diag(self.noise_variance_)

    def get_precision(self) -> np.ndarray:
        """(n_features, n_features) inverse of the covariance, Ψ⁻¹ - Ψ⁻¹ Λ β."""
        check_is_fitted(self)
        params = self._params()
        beta, _ = params.posterior()
        precision = (np.eye(len(params.psi)) - params.loadings @ beta) / params.psi[:, None]
        symmetric: np.ndarray = (precision + precision.T) / 2
        return symmetric

    def goodness_of_fit(self) -> dict[str, float]:
        """Bartlett's likelihood-ratio test that so many factors suffice, against any covariance matrix.

        Returns
        -------
        dict
            "statistic", (n - 1 - (2 d + 5) / 6 - 2 q / 3) times the discrepancy per row (Bartlett 1951); "df",
            ((d - q)² - d - q) / 2; "p_value", of the chi-square distribution.

        Raises
        ------
        ConfigurationError
            So many factors have no degrees of freedom left, or the second moments of the rows are not known, as where
            values are missing.
        """
        check_is_fitted(self)
        d, q = self.n_features_in_, self.n_components
        df = ((d - q) ** 2 - d - q) // 2
        if df <= 0:
            raise ConfigurationError(
                f"n_components={q} factors of {d} columns leave no degrees of freedom to test: use fewer factors"
            )
        if hasattr(self, "stream_"):
            raise ConfigurationError("of a stream the second moments of all rows are not known: fit them at once")
        if np.isnan(self.saturated_loglik_):
            raise ConfigurationError(
                "values are missing, or the second moments of the rows are singular: the test asks for whole rows, "
                "more of them than columns, and for columns that do not determine one another"
            )
        discrepancy = 2 * (self.saturated_loglik_ - self.loglik_) / self.weight_
        statistic = (self.weight_ - 1 - (2 * d + 5) / 6 - 2 * q / 3) * discrepancy
        return {"statistic": statistic, "df": df, "p_value": float(chi2.sf(statistic, df))}

    # ---- rows

    def transform(self, X: Any, **opening: Any) -> Any:
        """Means of the factors given what is observed of each row, (n_rows, n_components).

        Parameters
        ----------
        X : array, frame, path, URL or Source
        **opening
            Keywords of `dask_em.open`.

        Returns
        -------
        ndarray or dask.array.Array
            An ndarray for what is in memory; for anything larger a lazy dask array.
        """
        return self._rows(X, "factors", int(self.n_components), np.float64, **opening)

    @property
    def _n_features_out(self) -> int:
        """Columns of what `transform` gives."""
        return int(self.components_.shape[0])


def _saturated(moments: SecondMoments) -> float:
    """Log-likelihood of the Gaussian whose covariance is that of the rows; NaN if it is singular."""
    sign, log_determinant = np.linalg.slogdet(moments.covariance)
    if sign <= 0 or not np.isfinite(log_determinant):
        return float("nan")
    d = len(moments.mean)
    return float(-0.5 * moments.weight * (d * np.log(2 * np.pi) + log_determinant + d))
