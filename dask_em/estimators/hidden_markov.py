"""Hidden Markov chains of any distribution, and of the usual ones under their usual names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from dask_em.distributions.base import Distribution
from dask_em.distributions.categorical import Categorical
from dask_em.distributions.gaussian import Gaussian
from dask_em.distributions.poisson import Poisson
from dask_em.distributions.several import Several
from dask_em.engine import Callback
from dask_em.estimators.chains import ChainEstimator
from dask_em.estimators.mixture import Mixture
from dask_em.model import Executor, Solver


def take(estimator: Any, given: dict[str, Any]) -> None:
    """Make attributes of the arguments that an `__init__` was given."""
    for name, value in given.items():
        if name not in ("self", "__class__"):
            setattr(estimator, name, value)


class HiddenMarkov(ChainEstimator):
    """Hidden Markov chain with any observation distribution, fitted by Expectation-Maximization (Baum-Welch).

    Rows are in order of time.  Sequences may be as many, and as long, as there is room for on disk: blocks cut them
    anywhere, and what is found is what one serial recursion over each sequence finds, but for rounding.

    Parameters
    ----------
    n_states : int, default 1
    distribution : Distribution or Mixture, default Gaussian()
        Of the rows, given the state: `dask_em.Poisson()`, `dask_em.Categorical()`, ..., or one of your own; a mixture,
        not fitted, such as `em.Mixture(2, em.Gaussian("diag"))`, for states that are mixtures themselves.
    transitions : {"full", "left-right"} or array-like of shape (n_states, n_states) of bool, default "full"
        Which state may follow which: any; itself and the next, sequences beginning in the first; or those named.
    begins : {"free", "stationary"}, default "free"
        Whether first states have shares of their own, or those that the transitions lead to in the long run.
    start_prior, transition_prior : float, default 0
        First rows in each state, and transitions of each allowed kind, that a Dirichlet prior stands for.
    params, init_params : str, optional
        Letters of what is estimated, and of what is begun anew: "s" `startprob_`, "t" `transmat_`, "e" `components_`.
        What is not is what the attributes say, which are set before the fit.  Default: all.
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

    distribution: Any

    def __init__(
        self,
        n_states: int = 1,
        distribution: Distribution | None = None,
        *,
        transitions: Any = "full",
        begins: str = "free",
        start_prior: float = 0.0,
        transition_prior: float = 0.0,
        params: str | None = None,
        init_params: str | None = None,
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
        take(self, locals())

    def _distribution(self) -> Distribution:
        if isinstance(self.distribution, Mixture):  # unfitted: what each state is
            return Several(self.distribution.n_components, self.distribution._distribution())
        return Gaussian() if self.distribution is None else self.distribution

    def _check_loaded(self) -> None:
        super()._check_loaded()
        if self.distribution is None and isinstance(self.distribution_, Several):  # files hold no estimators
            self.distribution = self.distribution_


class GaussianHMM(ChainEstimator):
    """Hidden Markov chain whose rows are Gaussian, given the state.

    Parameters
    ----------
    n_states : int, default 1
    covariance_type : {"full", "tied", "diag", "spherical"}, default "full"
    reg_covar : float, optional
        Least variance of a state in any direction, as in `GaussianMixture`.
    transitions, begins, start_prior, transition_prior, params, init_params, tol, max_passes, n_init, random_state,
    warm_start, solver, sample_bytes, time_limit, checkpoint, checkpoint_options, executor, callbacks, verbose
        As in `HiddenMarkov`.

    Attributes
    ----------
    means_ : ndarray of shape (n_states, n_features)
    covariances_ : ndarray
        In the shape that `covariance_type` has in `GaussianMixture`.
    covars_ : ndarray of shape (n_states, n_features, n_features)
        The same, one matrix a state.
    startprob_, transmat_, loglik_, status_, ...
        As in `HiddenMarkov`.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(np.repeat([0.0, 5.0, 0.0], 200), 1.0)[:, None]
    >>> hmm = em.GaussianHMM(2, random_state=0, verbose=0).fit(x)
    >>> np.sort(hmm.means_.ravel()).round().tolist()
    [0.0, 5.0]
    >>> int(np.abs(np.diff(hmm.predict(x))).sum())
    2
    """

    _letters: ClassVar[str] = "stmc"

    def __init__(
        self,
        n_states: int = 1,
        covariance_type: str = "full",
        *,
        reg_covar: float | None = None,
        transitions: Any = "full",
        begins: str = "free",
        start_prior: float = 0.0,
        transition_prior: float = 0.0,
        params: str | None = None,
        init_params: str | None = None,
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
        take(self, locals())

    def _distribution(self) -> Distribution:
        return Gaussian(self.covariance_type, reg_covar=self.reg_covar)

    @property
    def covars_(self) -> np.ndarray:
        """(n_states, n_features, n_features) covariance matrices."""
        if not hasattr(self, "means_"):
            raise AttributeError("this GaussianHMM is not fitted yet")
        (k, d), c = self.means_.shape, self.covariances_
        if self.covariance_type == "full":
            return np.array(c)
        if self.covariance_type == "tied":
            return np.repeat(c[None], k, axis=0)
        return np.eye(d) * (c[:, None, :] if self.covariance_type == "diag" else c[:, None, None])


class PoissonHMM(ChainEstimator):
    """Hidden Markov chain whose rows are counts, independent and with the Poisson distribution, given the state.

    Parameters
    ----------
    n_states : int, default 1
    exposure : str or int, optional
        The column that says for how long counts were taken, as in `Poisson`.
    transitions, begins, start_prior, transition_prior, params, init_params, tol, max_passes, n_init, random_state,
    warm_start, solver, sample_bytes, time_limit, checkpoint, checkpoint_options, executor, callbacks, verbose
        As in `HiddenMarkov`.

    Attributes
    ----------
    lambdas_ : ndarray of shape (n_states, n_features)
        Rates.
    startprob_, transmat_, loglik_, status_, ...
        As in `HiddenMarkov`.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> rng = np.random.default_rng(0)
    >>> counts = rng.poisson(np.repeat([2.0, 12.0, 2.0], 200))[:, None]
    >>> np.sort(em.PoissonHMM(2, random_state=0, verbose=0).fit(counts).lambdas_.ravel()).round().tolist()
    [2.0, 12.0]
    """

    _letters: ClassVar[str] = "stl"

    def __init__(
        self,
        n_states: int = 1,
        *,
        exposure: Any = None,
        transitions: Any = "full",
        begins: str = "free",
        start_prior: float = 0.0,
        transition_prior: float = 0.0,
        params: str | None = None,
        init_params: str | None = None,
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
        take(self, locals())

    def _distribution(self) -> Distribution:
        return Poisson(exposure=self.exposure)

    @property
    def lambdas_(self) -> np.ndarray:
        """(n_states, n_features) rates."""
        rates: np.ndarray = self.rates_
        return rates


class CategoricalHMM(ChainEstimator):
    """Hidden Markov chain whose rows are categories: codes 0, 1, ..., or text, of one column or several.

    Parameters
    ----------
    n_states : int, default 1
    n_categories : int or sequence of int, optional
        Of each column; default: as many as the data has.
    transitions, begins, start_prior, transition_prior, params, init_params, tol, max_passes, n_init, random_state,
    warm_start, solver, sample_bytes, time_limit, checkpoint, checkpoint_options, executor, callbacks, verbose
        As in `HiddenMarkov`.

    Attributes
    ----------
    probabilities_ : ndarray of shape (n_states, n_features, n_categories)
    emissionprob_ : ndarray of shape (n_states, n_categories)
        Those of the only column.
    startprob_, transmat_, loglik_, status_, ...
        As in `HiddenMarkov`.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> rng = np.random.default_rng(0)
    >>> heads = (rng.random(900) < np.repeat([0.5, 0.95, 0.5], 300)).astype(int)[:, None]
    >>> np.sort(em.CategoricalHMM(2, random_state=0, verbose=0).fit(heads).emissionprob_[:, 1]).round(1).tolist()
    [0.5, 1.0]
    """

    def __init__(
        self,
        n_states: int = 1,
        *,
        n_categories: Any = None,
        transitions: Any = "full",
        begins: str = "free",
        start_prior: float = 0.0,
        transition_prior: float = 0.0,
        params: str | None = None,
        init_params: str | None = None,
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
        take(self, locals())

    def _distribution(self) -> Distribution:
        return Categorical(n_categories=self.n_categories)

    @property
    def emissionprob_(self) -> np.ndarray:
        """(n_states, n_categories) probabilities of the only column's categories."""
        if self.probabilities_.shape[1] != 1:
            raise AttributeError("there are several columns: probabilities_ has those of each")
        only: np.ndarray = self.probabilities_[:, 0]
        return only
