"""`GaussianMixture`: scikit-learn's interface to a mixture of Gaussians, for data of any size."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from dask_em.distributions.gaussian import Gaussian, GaussianParams
from dask_em.distributions.gaussian_bounds import LEAST
from dask_em.engine import Callback
from dask_em.entry import Entry
from dask_em.estimators.prediction import DensityPredictor
from dask_em.estimators.starts import given_start
from dask_em.model import Executor, Solver, Source
from dask_em.models.mixture import MixtureModel, MixtureParams


class GaussianMixture(DensityPredictor):
    """Gaussian mixture, fitted by Expectation-Maximization to data that need not fit in memory.

    Missing values (NaN) are taken as missing at random: the likelihood is that of what is observed, and no row
    is dropped or filled in.

    The first read of the data is a census that also draws a random sample.  Starts are found and raced on
    the sample (k-means++, then EM); after that a few passes over the data lead to its own optimum.

    Parameters
    ----------
    n_components : int, default 1
    covariance_type : {"full", "tied", "diag", "spherical"}, default "full"
    tol : float, default 0.05
        A run has converged once further steps would gain fewer nats of the *total*
        log-likelihood than this, by prediction.
    reg_covar : float, optional
        The least variance of a component in any direction, in squared units of the data; likelihoods are maximised
        subject to it.  (scikit-learn adds it to all variances, and so ends off the maximum.)  Default: 1e-6, but a
        millionth of the variance of a column that has one below 1.
    prior : float or tuple, optional
        Of the covariances, as `dask_em.Gaussian` has it: as if so many more rows had been seen in every component,
        with the variances of the data over n_components^(2/d) (Fraley and Raftery 2007).  Default: none.
    max_passes : int, default 500
        Steps at most, the census included.  Each is a pass, a read of the data, unless its rows stay in memory.
    n_init : int, default 8
        Starts, which are raced on the sample.  Of the one that settles highest two components become one, and
        another two, as long as that gains; one start alone on few rows, 8192 and one a parameter, stays as it is.  The
        best of all, up to three where the sample cannot tell, go on to the data, in steps that they share.
    weights_init, means_init, precisions_init : array-like, optional
        Start here.  Shapes (n_components,), (n_components, n_features), and that of
        `precisions_`.  What is not given is estimated on a sample from rows assigned to their
        nearest mean; if all three are given the fit begins exactly there.
    random_state : int, RandomState or None, default None
    warm_start : bool, default False
        Begin at the parameters of the last fit.
    solver : {"auto", "em", "anderson", "anchored"} or Solver, default "auto"
        Plain EM; EM accelerated by extrapolation; or EM on the sample between passes, each of which
        corrects what the sample gets wrong.  "auto": the last, where the data is much larger than the
        part of the sample in use, else the second.
    sample_bytes : int, optional
        Memory for the random sample; data that fits in it is read once.  Default: the option
        ``em.sample-bytes``, 256 MiB.
    time_limit : float, optional
        Seconds after which no further step begins.
    checkpoint : path or URL, optional
        Written after every step; the same call goes on from it and ends, to the last bit, as if
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
        Total natural log-likelihood of the rows (times their weights) at these parameters.  With a prior, `history_`
        and `restarts_` have its logarithm counted in.
    status_ : {"converged", "max_passes", "degenerate", "interrupted", "time_limit", "streaming"}
    message_ : str
        How the fit ended, and what would help.
    converged_ : bool
    n_passes_ : int
        Passes: complete reads of the data, the census included; 1 where its rows stay in memory.
    n_steps_ : int
        Steps: how often all rows were gone through, in a pass or in memory, to move the parameters or to find that
        they need not move.
    n_rows_ : int
    history_ : list of dict
        One record a step: number, pass (of the last read of the data), kind ("census", then the solver), resident
        (whether over rows held in memory, which are not read again), loglik, gain (predicted nats left, None while
        nothing can be said), contraction (by what factor that last shrank), accepted (whether its point was taken),
        step (which kind it was, of solvers that try several: "em", "anderson", or "anchored" with its damping), runs
        (that took part), rows, seconds, seconds_read, seconds_compute.
    restarts_ : pandas.DataFrame
        One row a start, whatever became of it: log-likelihood; of how many rows, which are a sample for those that
        were beaten on it, and 0 if none were looked at; the same a unit of weight, which can be compared; status,
        steps that it took over all rows, and passes, the reads of the data among them; moves, how many times two of
        its components became one, and another two; optimum (those of all rows
        first, each numbered from the best; starts with the same number met; NaN for those that were dropped before
        they settled), note.

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
        reg_covar: float | None = None,
        prior: Any = None,
        max_passes: int = 500,
        n_init: int = 8,
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
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
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.prior = prior
        self.max_passes = max_passes
        self.n_init = n_init
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
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
        tags.input_tags.allow_nan = True
        return tags

    # ---- between hyperparameters, parameters and attributes

    def _model(self) -> MixtureModel:
        return MixtureModel(self.n_components, self._distribution())

    def _distribution(self) -> Gaussian:
        return Gaussian(self.covariance_type, self.reg_covar, self.prior)  # type: ignore[arg-type]

    def _entry(self, source: Source) -> Entry:
        distribution = self._distribution()
        given = given_start(
            self.weights_init, self.means_init, self.precisions_init, distribution, self.n_components, source.n_features
        )
        complete = self._before() or given.complete(distribution)
        if complete is not None:
            return Entry(self._model(), (complete,))
        n_init = None if given.means_init is None else 1
        return Entry(self._model(), begin=given.begin, n_init=n_init, grows=given.empty)

    def _before(self) -> MixtureParams | None:
        """The last fit's parameters, where a warm start can go on from them."""
        if not self.warm_start or getattr(self, "_kept_type", None) != self.covariance_type:
            return None
        before = self._params()
        shapes = self._shapes(self.n_components, self.n_features_in_)
        return before if all(getattr(self, name).shape == shape for name, shape in shapes.items()) else None

    def _shapes(self, k: int, d: int) -> dict[str, tuple[int, ...]]:
        matrix = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}[self.covariance_type]
        own = dict.fromkeys(("covariances_", "precisions_", "precisions_cholesky_"), matrix)
        return {"weights_": (k,), "means_": (k, d), **own}

    def _keep(self, params: MixtureParams) -> None:
        c = params.components
        self._kept_type = self.covariance_type
        self.weights_, self.means_, self.covariances_ = params.weights, c.means, c.covariances
        self.precisions_cholesky_ = u = c.precisions_cholesky
        self.precisions_ = u**2 if self.covariance_type in ("diag", "spherical") else u @ np.swapaxes(u, -1, -2)

    def _params(self) -> MixtureParams:
        return MixtureParams(self.weights_, GaussianParams(self.means_, self.covariances_, self.precisions_cholesky_))

    # ---- elsewhere

    @property
    def components_(self) -> GaussianParams:
        """The components' parameters together, as `frozen` of a `dask_em.Mixture` takes them."""
        check_is_fitted(self)
        return GaussianParams(self.means_, self.covariances_, self.precisions_cholesky_)

    def to_sklearn(self) -> Any:
        """A fitted `sklearn.mixture.GaussianMixture` with these parameters."""
        from sklearn.mixture import GaussianMixture as Sklearn

        check_is_fitted(self)
        reg_covar = LEAST if self.reg_covar is None else self.reg_covar
        other = Sklearn(self.n_components, covariance_type=self.covariance_type, reg_covar=reg_covar)
        for name in (*self._fitted, "n_features_in_"):
            value = getattr(self, name)
            setattr(other, name, value.copy() if isinstance(value, np.ndarray) else value)
        if hasattr(self, "feature_names_in_"):
            other.feature_names_in_ = self.feature_names_in_.copy()
        other.converged_ = self.converged_
        other.n_iter_ = max(1, self.n_steps_)
        other.lower_bound_ = self.loglik_ / self.weight_
        other.lower_bounds_ = [r["loglik"] / self.weight_ for r in self.history_ if r["runs"]]
        return other

    def _check_loaded(self) -> None:
        self._model()
        self._kept_type = self.covariance_type
        for name, shape in self._shapes(self.n_components, self.n_features_in_).items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has the shape {getattr(self, name).shape}, and the others ask for {shape}")
        if (self.weights_ < 0).any() or not np.isclose(self.weights_.sum(), 1.0):
            raise ValueError("weights_ are no shares that sum to 1")
