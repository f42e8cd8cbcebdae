"""What every estimator shares: how data is opened, the fit's record, rows in and rows out, files."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, check_random_state, validate_data

from dask_em import store
from dask_em._version import __version__
from dask_em.engine import one_pass
from dask_em.errors import DataError, StoreError
from dask_em.executors import default_executor
from dask_em.model import Model, Source
from dask_em.result import FitResult, warn_unless_converged
from dask_em.sources.opening import is_source
from dask_em.sources.opening import open as open_source

FAMILIES: dict[str, type[Estimator]] = {}
_RECORD = (
    "loglik_", "n_passes_", "n_rows_", "status_", "converged_", "message_", "history_", "n_features_in_",
    "fingerprint_", "weight_", "runs_",
)  # fmt: skip


def is_array_like(X: Any) -> bool:
    """Whether scikit-learn's conventions apply: arrays, lists and pandas frames in this process's memory."""
    if isinstance(X, (str, os.PathLike)) or is_source(X):
        return False
    if isinstance(X, np.ndarray):
        return not isinstance(X, np.memmap)
    module = type(X).__module__.split(".")[0]
    return module not in ("dask", "dask_expr", "zarr", "xarray", "dask_em") and not _list_of_paths(X)


def _list_of_paths(X: Any) -> bool:
    return isinstance(X, (list, tuple)) and len(X) > 0 and isinstance(X[0], (str, os.PathLike))


class Estimator(BaseEstimator):
    """Base of the estimators: a model, fitted by `dask_em.fitting.run`."""

    _fitted: ClassVar[tuple[str, ...]] = ()  # names of the parameter arrays, all that a prediction needs

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        FAMILIES[cls.__name__] = cls

    # ---- what a family says

    def _model(self) -> Model:
        """The model that the hyperparameters describe."""
        raise TypeError(f"{type(self).__name__} is a base class")

    def _params(self) -> Any:
        """The fitted parameters, as the model has them."""
        raise TypeError(f"{type(self).__name__} is a base class")

    # ---- data

    def _open(self, X: Any, *, reset: bool, **opening: Any) -> Source:
        """Plan the reading of X, and check its columns against those fitted (or, with `reset`, take them on)."""
        if is_array_like(X) and opening.get("columns") is None:
            validate_data(self, X, reset=reset, skip_check_array=True)
        columns = opening.get("columns")
        if not reset and columns is None and not is_source(X) and _has_names(X):
            names = getattr(self, "feature_names_in_", None)
            opening["columns"] = None if names is None else list(names)
        source = open_source(X, **opening)
        if reset:
            self.n_features_in_ = source.n_features
            if source.feature_names is not None:
                self.feature_names_in_ = np.array(list(source.feature_names), dtype=object)
            elif hasattr(self, "feature_names_in_"):
                del self.feature_names_in_
        elif source.n_features != self.n_features_in_:
            raise DataError(
                f"X has {source.n_features} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input: choose them with columns="
            )
        return source

    def _seed(self) -> int:
        random_state = getattr(self, "random_state", None)
        if isinstance(random_state, (int, np.integer)) and not isinstance(random_state, bool):
            return int(random_state)
        return int(check_random_state(random_state).randint(2**31 - 1))

    def _take(self, result: FitResult) -> None:
        """Keep the record of a fit, and say so if it did not converge."""
        self.loglik_ = result.loglik
        self.n_passes_ = result.n_passes
        self.n_rows_ = result.n_rows
        self.weight_ = result.weight
        self.status_ = result.status
        self.message_ = result.message
        self.converged_ = result.converged
        self.history_ = result.history
        self.runs_ = result.runs
        self.fingerprint_ = result.fingerprint
        warn_unless_converged(result)

    # ---- rows in, rows out

    def _rows(
        self,
        X: Any,
        function: Callable[[np.ndarray], np.ndarray],
        width: int | None,
        dtype: Any,
        **opening: Any,
    ) -> Any:
        """`function` over the rows of X: an ndarray for what is in memory, else a lazy dask array."""
        check_is_fitted(self)
        if is_array_like(X) and opening.get("columns") is None:
            return function(validate_data(self, X, reset=False, dtype="numeric", ensure_all_finite=True))
        from dask_em.executors.lazy import lazy_array, lazy_rows

        X = _as_dask_array(X, opening, getattr(self, "feature_names_in_", None))
        if type(X).__module__.startswith("dask.array"):
            if X.ndim != 2 or X.shape[1] != self.n_features_in_:
                raise DataError(
                    f"X has shape {X.shape}, but {type(self).__name__} is expecting {self.n_features_in_} features"
                )
            return lazy_array(function, X, width, dtype, names=getattr(self, "feature_names_in_", None))
        return lazy_rows(function, self._open(X, reset=False, **opening), width, dtype)

    def _total_loglik(self, X: Any, **opening: Any) -> tuple[float, float]:
        """Log-likelihood and weight of all rows of X, in one pass."""
        from dask_em.estimators.scoring import LoglikRequest

        check_is_fitted(self)
        source = self._open(X, reset=False, **opening)
        executor = default_executor()
        try:
            stats = one_pass(source, [LoglikRequest(self._model(), self._params())], executor).answers[0]
        finally:
            executor.close()
        return stats.total_loglik, stats.weight

    # ---- files

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True, storage_options: Any = None) -> None:
        """Write the fitted estimator to a safetensors file (no pickle in it).

        Parameters
        ----------
        path : path or URL
        overwrite : bool
            Whether to replace a file that exists; the replacement is atomic.
        storage_options : dict, optional
            For a URL, what fsspec needs.

        Raises
        ------
        StoreError
            The file exists and `overwrite` is false, or it cannot be written.
        """
        check_is_fitted(self)
        names = [name for name in (*self._fitted, *_RECORD) if hasattr(self, name)]
        fitted = {name: getattr(self, name) for name in names}
        features = getattr(self, "feature_names_in_", None)
        tree = {
            "family": type(self).__name__,
            "version": __version__,
            "hyperparameters": {k: v for k, v in self.get_params(deep=False).items() if _storable(v)},
            "feature_names": None if features is None else [str(name) for name in features],
            "fitted": fitted,
        }
        store.save(tree, os.fspath(path), kind="model", storage_options=storage_options, overwrite=overwrite)

    @classmethod
    def restore(cls, tree: dict[str, Any], path: str) -> Self:
        """The estimator that a loaded tree describes; raises `StoreError` where it describes none."""
        known = cls._get_param_names()
        estimator = cls(**{k: v for k, v in tree["hyperparameters"].items() if k in known})
        for name, value in tree["fitted"].items():
            if name not in (*cls._fitted, *_RECORD):
                raise StoreError(f"{path} holds an attribute {name!r} that {cls.__name__} does not have")
            setattr(estimator, name, value)
        if tree["feature_names"] is not None:
            estimator.feature_names_in_ = np.array(tree["feature_names"], dtype=object)
        try:
            estimator._check_loaded()
        except (AttributeError, TypeError, ValueError, IndexError) as error:
            raise StoreError(f"{path} does not hold a usable {cls.__name__}: {error}; save the model again") from error
        return estimator

    def _check_loaded(self) -> None:
        """Raise an error for fitted attributes that do not go together."""


def _as_dask_array(X: Any, opening: dict[str, Any], names: Any) -> Any:
    """Collections that are Dask's own as a dask array of the fitted columns, so that answers stay aligned with them."""
    columns = opening.get("columns")
    if type(X).__module__.split(".")[0] == "xarray":
        X = X.data
    if type(X).__module__.startswith("dask.dataframe"):
        columns = names if columns is None else columns
        return (X if columns is None else X[list(columns)]).to_dask_array()
    if type(X).__module__.startswith("dask.array") and columns is not None:
        return X[:, columns]
    return X


def _storable(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, np.ndarray, np.number, list, tuple, dict))


def _has_names(X: Any) -> bool:
    """Whether the columns of X may have names, so that those fitted can be picked from more."""
    return isinstance(X, (str, os.PathLike)) or _list_of_paths(X) or hasattr(X, "columns")
