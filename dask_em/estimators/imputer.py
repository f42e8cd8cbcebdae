"""`GaussianImputer`: what is missing, filled in by what one Gaussian makes of the rest of the row."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from dask_em.distributions.gaussian import Gaussian, GaussianParams
from dask_em.distributions.gaussian_imputation import imputed_dtype
from dask_em.engine import Callback
from dask_em.entry import Entry
from dask_em.errors import ConfigurationError
from dask_em.estimators.base import seed_of
from dask_em.estimators.prediction import Density, Function
from dask_em.hashing import normals
from dask_em.model import Block, Executor, Solver, Source
from dask_em.models.incomplete import IncompleteGaussian


@dataclass(frozen=True)
class Draw:
    """One of the imputations: rows in which what is missing is drawn.

    The random numbers are fixed by the seed, the number of the draw, and the row's number in the data, or where that
    is not known the block's and its own in the block.
    """

    model: IncompleteGaussian
    params: GaussianParams
    seed: int
    number: int

    def __call__(self, x: np.ndarray, block: Block) -> np.ndarray:
        """The rows of a block, filled."""
        of_block = block.index if block.offset is None else None
        first = block.offset or 0

        def noise(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
            return normals(self.seed, self.number, of_block, first + rows, columns)

        return self.model.drawn(self.params, x, noise)


class GaussianImputer(OneToOneFeatureMixin, TransformerMixin, Density):
    """Fills in missing values (NaN) by a Gaussian that is fitted by maximum likelihood to all that is observed.

    Values are taken as missing at random: whether one is missing may depend on what is observed of the row, but not on
    the value itself.  The moments of each pattern of missing columns say all that the model asks, so that the data is
    read exactly once, whatever its size; EM, accelerated, goes on in memory.  Only where patterns are so many that
    their moments would take more than 64 MiB, about as many patterns as rows, does EM read data beyond the sample
    again.

    Parameters
    ----------
    reg_covar : float, default 0.0
        The least variance in any direction, in squared units of the data, where columns determine others or rows are
        few; None: as `dask_em.Gaussian` has it.  Zero: no bound.
    prior : float or tuple, optional
        Shrinks the covariances, as if so many more rows had been seen about the mean, with the variances of the
        columns and no correlations; as `dask_em.Gaussian` has it.  A hundredth of the rows is a beginning where most
        of each row is missing (King et al. 2001 call it an empirical prior).  Default: none.
    tol : float, default 1e-6
        The fit has converged once further steps would gain fewer nats of the *total* log-likelihood than this, by
        prediction.
    max_passes : int, default 2000
        Steps at most; only the first reads the data.
    n_init : int, default 1
        Starts.  They differ in their correlations, by chance: the likelihood may have several maxima (Murray 1977).
    random_state : int, RandomState or None
        Of the starts.
    warm_start : bool, default False
        Begin at the parameters of the last fit.
    solver, sample_bytes, time_limit, checkpoint, checkpoint_options, executor, callbacks, verbose
        As in `GaussianMixture`.

    Attributes
    ----------
    mean_ : ndarray of shape (n_features,)
    covariance_ : ndarray of shape (n_features, n_features)
        Divided by the weight, not by one less.
    loglik_, status_, message_, converged_, n_passes_, n_steps_, n_rows_, history_
        As in `GaussianMixture`; the log-likelihood is of what is observed.

    See Also
    --------
    sklearn.impute.IterativeImputer : One regression a column in turn, in memory.

    References
    ----------
    Little, R. J. A. and Rubin, D. B. (2019). Statistical Analysis with Missing Data. 3rd ed., chapters 10 and 11.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> rng = np.random.default_rng(0)
    >>> height = rng.normal(170, 10, size=5000)
    >>> X = np.c_[height, 0.9 * height - 80 + rng.normal(0, 5, size=5000)]
    >>> X[height > 175, 1] = np.nan  # tall people were not weighed
    >>> imputer = em.GaussianImputer(verbose=0).fit(X)
    >>> imputer.mean_.round().tolist(), np.nanmean(X[:, 1]).round().item(), imputer.n_passes_
    ([170.0, 73.0], 68.0, 1)
    >>> imputer.transform([[180.0, np.nan]]).round().tolist()
    [[180.0, 82.0]]
    >>> imputer.draw(X, n=5).shape
    (5, 5000, 2)
    """

    _fitted: ClassVar[tuple[str, ...]] = ("mean_", "covariance_")

    def __init__(
        self,
        *,
        reg_covar: float | None = 0.0,
        prior: Any = None,
        tol: float = 1e-6,
        max_passes: int = 2000,
        n_init: int = 1,
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
        self.reg_covar = reg_covar
        self.prior = prior
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
        tags.input_tags.allow_nan = True
        return tags

    # ---- between hyperparameters, parameters and attributes

    def _model(self) -> IncompleteGaussian:
        return IncompleteGaussian(self.reg_covar, self.prior)

    def _entry(self, source: Source) -> Entry:
        if self.warm_start and getattr(self, "mean_", np.empty(0)).shape == (source.n_features,):
            return Entry(self._model(), (self._params(),))
        return Entry(self._model())

    def _keep(self, params: GaussianParams) -> None:
        self.mean_, self.covariance_ = params.means[0], params.covariances[0]

    def _params(self) -> GaussianParams:
        return Gaussian(reg_covar=0).from_moments(self.mean_[None], self.covariance_[None])

    def _check_loaded(self) -> None:
        d = self.n_features_in_
        if self.mean_.shape != (d,) or self.covariance_.shape != (d, d):
            raise ValueError(f"mean_ and covariance_ have other shapes than {d} columns ask for")
        if not np.allclose(self.covariance_, self.covariance_.T):
            raise ValueError("covariance_ is not symmetric")
        self._params()

    # ---- rows

    def transform(self, X: Any, **opening: Any) -> Any:
        """Rows in which what is missing is its mean given what is observed of the row; the rest is as it was.

        A row of which nothing is observed becomes `mean_`.

        Parameters
        ----------
        X : array, frame, path, URL or Source
        **opening
            Keywords of `dask_em.open`.

        Returns
        -------
        ndarray or dask.array.Array of shape (n_rows, n_features)
            An ndarray for a NumPy array, a list or a pandas frame; for anything else a lazy dask array. float32 where
            the data is, else float64.
        """
        return self._over(X, **opening)(self.fills()[0], int(self.n_features_in_), imputed_dtype)

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None, **opening: Any) -> Any:
        """Fit, then fill in the same rows; see `fit` and `transform`."""
        return self.fit(X, y, sample_weight, **opening).transform(X, **opening)

    def draw(self, X: Any, n: int = 20, random_state: Any = 0, **opening: Any) -> Any:
        """Multiple imputations: rows in which what is missing is drawn given what is observed of the row.

        Each is a data set such as might have been observed.  Analyse each by itself, and combine the results by Rubin's
        rules; what the estimates of this Gaussian are uncertain by is not in the draws.

        Parameters
        ----------
        X : array, frame, path, URL or Source
        n : int
            Number of imputations.
        random_state : int, RandomState or None
            None: other ones each time.
        **opening
            Keywords of `dask_em.open`.

        Returns
        -------
        ndarray or dask.array.Array of shape (n, n_rows, n_features)
            As `transform`; lazy, each imputation reads what it needs of the data.  The random numbers are fixed by
            `random_state` and the row's number in X, so that the draws are the same whatever the chunks, also for a
            NumPy array and a file that hold the same rows.  Only where the sizes of chunks are not known beforehand
            (a dask frame, or one filtered) do they depend on the chunks, too.

        Raises
        ------
        ConfigurationError
            `n` is no positive whole number.
        """
        fills, over, width = self.fills(n, random_state), self._over(X, **opening), int(self.n_features_in_)
        draws = [over(fill, width, imputed_dtype) for fill in fills]
        if isinstance(draws[0], np.ndarray):
            return np.stack(draws)
        from dask_em.executors.lazy import stacked

        return stacked(draws)

    def fills(self, n: int | None = None, random_state: Any = 0) -> tuple[Function, ...]:
        """What fills in rows (n, d), given the `Block` that says where they are: by means, or n ways to draw."""
        check_is_fitted(self)
        model, params = self._model(), self._params()
        if n is None:
            return (partial(_by_means, model, params),)
        if isinstance(n, (bool, np.bool_)) or not isinstance(n, (int, np.integer)) or n < 1:
            raise ConfigurationError(f"n={n!r} must be a whole number of at least 1")
        seed = seed_of(random_state)
        if seed is None:
            seed = int(np.random.default_rng().integers(2**31))
        return tuple(Draw(model, params, seed, i) for i in range(int(n)))


def _by_means(model: IncompleteGaussian, params: GaussianParams, x: np.ndarray, block: Block) -> np.ndarray:
    return model.posteriors(params, x, "imputed")
