"""What a fitted estimator says of rows: an ndarray for what is in memory, a lazy dask array for anything larger."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import issparse
from sklearn.base import DensityMixin
from sklearn.utils.validation import check_is_fitted, check_random_state

from dask_em.diagnostics.numbers import named_arrays
from dask_em.engine import one_pass
from dask_em.errors import ConfigurationError, DataError
from dask_em.estimators.base import Estimator
from dask_em.estimators.rows import as_dask_array, is_array_like
from dask_em.estimators.scoring import TotalRequest, doubts, entropies, logliks
from dask_em.estimators.standard_errors import Estimates, check_level, estimates
from dask_em.estimators.unchanged import refuse_changed
from dask_em.executors import default_executor
from dask_em.model import Block
from dask_em.sparse import refuse_sparse, row_bytes

Function = Callable[[np.ndarray, Block], np.ndarray]  # of rows, and where they are
# takes such a function, the columns of its answer (None: one number a row), and what its type is for rows of a type
Over = Callable[[Function, int | None, Callable[[np.dtype], Any]], Any]


class Answering(Estimator):
    """An estimator whose model has `posteriors(params, x, want)`: it answers for each row."""

    answers: ClassVar[tuple[str, ...]] = ("loglik",)  # what may be asked of each row

    def answer(self, want: str, source: Any = None) -> Any:
        """What to ask of each row, for `dask_em.sinks.writing.write_rows`: one of `answers`; of this source."""
        from dask_em.sinks.answers import Answer

        return Answer(self._fitted_model(), self._params(), want)  # type: ignore[arg-type]

    def total_request(self) -> Any:
        """What to ask the data for the total log-likelihood, or what else the model aims at, and the weight."""
        return TotalRequest(self._fitted_model(), self._params(), logliks)

    def _rows(self, X: Any, want: str, width: int | None, dtype: Any, **opening: Any) -> Any:
        """What the model says of the rows of X; width: columns of the answer, None for one number a row."""
        check_is_fitted(self)
        function = partial(_answer, self._fitted_model(), self._params(), want)
        return self._over(X, **opening)(function, width, lambda _: dtype)

    def _over(self, X: Any, *, without: int | None = None, **opening: Any) -> Over:
        """What takes a function over the rows of X, in which a column may be missing of those fitted."""
        columns, who = opening.get("columns"), type(self).__name__
        accepts_nan = self._fitted_model().accepts_nan
        given = {name for name, value in opening.items() if value is not None and value != "warn"}
        from dask_em.executors.lazy import lazy_array, lazy_rows, located

        names = getattr(self, "feature_names_in_", None)
        if is_array_like(X) and given <= {"columns"}:
            x = self._in_memory(X, columns)
            block = Block(0, "X", x.shape[0], x.shape[0] * row_bytes(x))
            return lambda function, width, dtype: located(function, x, block, names)
        if given <= {"columns"} and not self._levels():
            rows = as_dask_array(X, columns, names)
            if type(rows).__module__.startswith("dask.array"):
                refuse_sparse(issparse(rows._meta), self._fitted_model())
                if rows.ndim != 2 or rows.shape[1] != self.n_features_in_:
                    raise DataError(f"X has shape {rows.shape}, but {who} is expecting {self.n_features_in_} features")
                return lambda function, width, dtype: lazy_array(
                    function, rows, width, dtype(rows.dtype), names=names, accepts_nan=accepts_nan
                )
        source = self._open(X, reset=False, without=without, **opening)
        return lambda function, width, dtype: lazy_rows(
            function, source, width, dtype(source.dtype), accepts_nan=accepts_nan
        )

    def _total(self, of: Callable[..., np.ndarray], X: Any, sample_weight: Any, **opening: Any) -> tuple[float, float]:
        """The total over all rows of X of what a function says of them, and their weight, in one pass."""
        check_is_fitted(self)
        source = self._open(X, reset=False, weight=sample_weight, **opening)
        executor = getattr(self, "executor", None) or default_executor()
        try:
            stats = one_pass(source, [TotalRequest(self._fitted_model(), self._params(), of)], executor).answers[0]
        finally:
            executor.close()
        return stats.total_loglik, stats.weight


class Density(DensityMixin, Answering):
    """An answering estimator whose model is a density: rows, and data, have a likelihood."""

    def score_samples(self, X: Any, **opening: Any) -> Any:
        """Natural log-likelihood of each row, (n_rows,); see `predict`."""
        return self._rows(X, "loglik", None, np.float64, **opening)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None, **opening: Any) -> float:
        """Mean natural log-likelihood a row (or a unit of weight), read in one pass."""
        loglik, weight = self._total(logliks, X, sample_weight, **opening)
        return loglik / weight

    def bic(self, X: Any, sample_weight: Any = None, **opening: Any) -> float:
        """Bayesian information criterion -2 L + p log n on X: lower is better; n is the sum of the weights."""
        return float(self.figures_of(*self._total(logliks, X, sample_weight, **opening))["bic"])

    def aic(self, X: Any, sample_weight: Any = None, **opening: Any) -> float:
        """Akaike's information criterion -2 L + 2 p on X: lower is better."""
        return float(self.figures_of(*self._total(logliks, X, sample_weight, **opening))["aic"])

    def figures_of(self, loglik: float, weight: float) -> dict[str, Any]:
        """What a log-likelihood of rows of some weight says of the model, by name."""
        p = self.n_parameters()
        return {
            "mean_loglik": loglik / weight,
            "loglik": loglik,
            "parameters": p,
            "bic": float(-2 * loglik + p * np.log(weight)),
            "aic": -2 * loglik + 2 * p,
        }

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Rows drawn from the fitted model, and what is hidden of each: its component, in order; or its factors.

        Parameters
        ----------
        n_samples : int

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
        hidden : ndarray of shape (n_samples,) or (n_samples, n_components)
        """
        check_is_fitted(self)
        if not isinstance(n_samples, (int, np.integer)) or n_samples < 1:
            raise ConfigurationError(f"n_samples={n_samples!r} must be a whole number of at least 1")
        seed = check_random_state(getattr(self, "random_state", None)).randint(2**31 - 1)
        drawn: tuple[np.ndarray, np.ndarray] = self._fitted_model().sample(
            self._params(), int(n_samples), np.random.default_rng(seed)
        )
        return drawn

    def standard_errors(
        self,
        X: Any = None,
        sample_weight: Any = None,
        *,
        level: float = 0.95,
        kind: str = "auto",
        sample_bytes: int | None = None,
        **opening: Any,
    ) -> Any:
        """How sure the fitted parameters are: standard errors and confidence intervals, from one read of the data.

        Parameters
        ----------
        X : array, frame, path, URL or Source, optional
            The data of the fit. Default: that of the last fit, if it is a file or still in memory.
        sample_weight : array or str, optional
            Weights of the rows of X; they count as repetitions of rows.
        level : float
            Of the confidence intervals: `standard_error` times a normal quantile to either side; for weights and
            probabilities, of their log odds, and for rates, variances and other such, of their logarithms.
        kind : {"auto", "observed", "empirical", "robust"}
            From minus the second derivatives of the log-likelihood, by Fisher's identity (Louis 1982); from the outer
            products of the rows' gradients, for many parameters the faster way (Meilijson 1989); or both, in the
            "sandwich" that holds though the model is wrong (White 1982).  "auto": observed up to 150 parameters, then
            empirical.
        sample_bytes : int, optional
            Data beyond it is stood for by a random sample of so many bytes, as in `fit`; the rows' gradients, by
            at least 16,384 rows and 20 a parameter.
        **opening
            Keywords of `dask_em.open`.

        Returns
        -------
        pandas.DataFrame
            A row for each number: parameter, component (missing for what all share), of (which columns it is about),
            estimate, standard_error, lower, upper.  NaN, with a `FitWarning`, where the data says nothing of a number,
            or it is at the edge of what is possible, or on its way there, as a probability of 0.

        Notes
        -----
        They are of the optimum that was found, as the number of rows grows. Components may be numbered in any order;
        a mixture with more components than the data asks for has none that mean anything.

        Examples
        --------
        >>> import numpy as np
        >>> import dask_em as em
        >>> x = np.random.default_rng(0).normal(5, 2, size=(400, 1))
        >>> gm = em.GaussianMixture(1).fit(x)
        >>> gm.standard_errors()[["parameter", "estimate", "standard_error"]].round(2).values.tolist()
        [['means', 4.93, 0.1], ['covariances', 3.96, 0.28]]
        """
        check_level(level)
        return self._how_sure(X, sample_weight, kind, sample_bytes, opening).table(level)

    def covariance_of_estimates(
        self,
        X: Any = None,
        sample_weight: Any = None,
        *,
        kind: str = "auto",
        sample_bytes: int | None = None,
        **opening: Any,
    ) -> Any:
        """The covariance matrix of the errors whose roots are `standard_errors`, as a `pandas.DataFrame`.

        Parameters
        ----------
        X, sample_weight, kind, sample_bytes, **opening
            As in `standard_errors`.

        Returns
        -------
        pandas.DataFrame of shape (m, m)
            In the order of the rows of `standard_errors`, which both axes name.
        """
        return self._how_sure(X, sample_weight, kind, sample_bytes, opening).matrix()

    def _how_sure(self, X: Any, weight: Any, kind: str, sample_bytes: int | None, opening: dict[str, Any]) -> Estimates:
        check_is_fitted(self)
        refuse_changed(self)
        opening = {**opening, "weight": weight}
        if X is None:
            if not hasattr(self, "_data"):
                raise DataError("a model that was loaded, or copied, does not know its data: pass it, as X")
            X, before = self._data.again()
            opening = before | {name: value for name, value in opening.items() if value is not None}
        source = self._open(X, reset=False, **opening)
        return estimates(
            self, source, kind, getattr(self, "sample_bytes", None) if sample_bytes is None else sample_bytes
        )

    def _estimates(self, params: Any) -> dict[str, np.ndarray]:
        """The parameters as people read them, by name."""
        return named_arrays(params)

    def n_parameters(self) -> int:
        """Free parameters of the fitted model."""
        check_is_fitted(self)
        return int(self._fitted_model().n_parameters(self.n_features_in_))


class Predictor(Answering):
    """An estimator whose model has `posteriors(params, x, want)`: each row has a label."""

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
            An ndarray for a NumPy array, a list or a pandas frame; for anything else, a memory map and
            an xarray DataArray included, a lazy dask array.
        """
        return self._rows(X, "labels", None, np.intp, **opening)

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None, **opening: Any) -> Any:
        """Fit, then the component of each row; see `fit` and `predict`."""
        return self.fit(X, y, sample_weight, **opening).predict(X, **opening)


class DensityPredictor(Density, Predictor):
    """A predictor whose model is a density: rows have probabilities, too."""

    answers: ClassVar[tuple[str, ...]] = ("labels", "proba", "loglik")

    def predict_proba(self, X: Any, **opening: Any) -> Any:
        """Probability of each component for each row, (n_rows, n_components); see `predict`."""
        check_is_fitted(self)
        return self._rows(X, "proba", int(self._fitted_model().n_components), np.float64, **opening)

    def uncertainty(self, X: Any, **opening: Any) -> Any:
        """Probability that each row is not of the component that `predict` says, (n_rows,); see `predict`.

        At most 1 - 1 / n_components.
        """
        return self._of_rows(doubts, X, **opening)

    def entropy(self, X: Any, **opening: Any) -> Any:
        """Entropy -Σ r log r of the components' probabilities for each row, in nats, (n_rows,); see `predict`."""
        return self._of_rows(entropies, X, **opening)

    def relative_entropy(self, X: Any, sample_weight: Any = None, **opening: Any) -> float:
        """How clearly rows belong to components: 1 - E / (n log n_components), from the total entropy E, in one pass.

        1: every row is of one component for certain; 0: nothing is known of any (Celeux and Soromenho 1996).  Users of
        latent class models call 0.8 clear.  NaN for a single component.
        """
        total, weight = self._total(entropies, X, sample_weight, **opening)
        k = int(self._fitted_model().n_components)
        return 1 - total / (weight * np.log(k)) if k > 1 else float("nan")

    def _of_rows(
        self,
        function: Callable[..., np.ndarray],
        X: Any,
        width: int | None = None,
        *,
        without: int | None = None,
        **opening: Any,
    ) -> Any:
        check_is_fitted(self)
        over = self._over(X, without=without, **opening)
        own = partial(_said, function, self._fitted_model(), self._params())
        return over(own, width, lambda _: np.dtype(np.float64))


def _said(function: Callable[..., np.ndarray], model: Any, params: Any, x: np.ndarray, block: Block) -> np.ndarray:
    return function(model, params, x)


def _answer(model: Any, params: Any, want: str, x: np.ndarray, block: Block) -> np.ndarray:
    answer: np.ndarray = model.posteriors(params, x, want)
    return answer
