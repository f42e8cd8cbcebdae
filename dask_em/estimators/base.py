"""What every estimator shares: how data is opened, how a fit runs, and its record."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_random_state, validate_data

from dask_em import store_file
from dask_em.coding import coded_frame, is_frame, open_coded
from dask_em.entry import Entry
from dask_em.errors import ConfigurationError, DataError
from dask_em.estimators.files import Stored
from dask_em.estimators.remembered import Remembered
from dask_em.estimators.rows import (
    chosen,
    fitted_columns,
    is_array_like,
    refuse_no_table,
    refuse_wrong_settings,
    unlike,
)
from dask_em.estimators.stream import learn_batch
from dask_em.estimators.unchanged import refuse_changed
from dask_em.fitting import run
from dask_em.history import measured, n_steps
from dask_em.model import Source
from dask_em.result import FitResult, warn_unless_converged
from dask_em.settings import Settings
from dask_em.solvers.stepwise import Stepwise
from dask_em.sources.opening import is_source
from dask_em.sparse import refuse_sparse

FAMILIES: dict[str, type[Estimator]] = {}
_BASES = ("Answering", "ChainEstimator", "Density", "Predictor", "DensityPredictor", "TopicWords")


def seed_of(random_state: Any) -> int | None:
    """A seed, of what scikit-learn takes for random_state; None: any."""
    if random_state is None:
        return None
    if isinstance(random_state, (int, np.integer)) and not isinstance(random_state, bool):
        return int(random_state)
    try:
        return int(check_random_state(random_state).randint(2**31 - 1))
    except ValueError:
        raise ConfigurationError(
            f"random_state={random_state!r} must be a whole number, a numpy.random.RandomState, or None"
        ) from None


class Estimator(Stored, BaseEstimator):
    """Base of the estimators: a model, fitted by `dask_em.fitting.run`.

    A family names its hyperparameters in `__init__`, those of a fit (solver, n_init, random_state, tol,
    max_passes, time_limit, sample_bytes, checkpoint, checkpoint_options, executor, callbacks, verbose) among them, and
    says how they make a model and how parameters become attributes.
    """

    _fitted: ClassVar[tuple[str, ...]] = ()  # names of the parameter arrays, all that a prediction needs

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        name = cls.__name__
        if name in _BASES and cls.__module__.startswith("dask_em."):
            return
        known = FAMILIES.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(
                f"{name} is the stored name of {known.__module__}.{known.__qualname__}: files of one would be loaded "
                "as the other, so give this class another name"
            )
        FAMILIES[name] = cls

    # ---- what a family says

    def _model(self) -> Any:
        """The model that the hyperparameters describe."""
        raise TypeError(f"{type(self).__name__} is a base class")

    def _fitted_model(self) -> Any:
        """The model that was fitted, for a family that learns more of it from the data than parameters."""
        return self._model()

    def _keep_model(self, model: Any) -> None:
        """Take on what the fit made of the model."""

    def _params(self) -> Any:
        """The fitted parameters, as the model has them."""
        raise TypeError(f"{type(self).__name__} is a base class")

    def _keep(self, params: Any) -> None:
        """Make attributes of the model's parameters."""
        raise TypeError(f"{type(self).__name__} is a base class")

    def _entry(self, source: Source) -> Entry:
        """The model to fit, and where to begin."""
        return Entry(self._resolved(source))

    def _resolved(self, source: Source) -> Any:
        """The model, given the names of the data's columns, and the levels of those of text."""
        names = source.feature_names
        return self._model().resolved(names).with_levels(names, getattr(source, "levels", {}))

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
        return self._fit(
            X,
            columns=columns,
            weight=sample_weight,
            filters=filters,
            storage_options=storage_options,
            missing_chunks=missing_chunks,
        )

    def _fit(self, X: Any, **opening: Any) -> Self:
        self._model()  # refuses bad hyperparameters before anything is read
        refuse_wrong_settings(self)
        source = self._open(X, reset=True, **opening)
        self._data = Remembered(X, opening)
        own: Any = self  # the hyperparameters of a fit are the families'
        entry = self._entry(source)
        if hasattr(self, "stream_"):
            del self.stream_
        result = run(entry, source, self._settings(), executor=own.executor, callbacks=own.callbacks or ())
        self._finish(result)
        warn_unless_converged(result)
        return self

    def partial_fit(
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
        """Learn from one more batch of an endless stream, by stepwise EM.

        The first batch is fitted as `fit` does it, unless the estimator is fitted already; every later one is read
        once, and moves the model by a step that shrinks as batches go by (Cappe and Moulines 2009).

        Parameters
        ----------
        X : array, frame, path, URL or Source
            The batch, as in `fit`; of any size.
        y : ignored
        sample_weight, columns, filters, storage_options, missing_chunks
            As in `fit`.

        Returns
        -------
        self
            With `loglik_` a running estimate of that of all rows so far, `n_passes_` and `n_steps_` the number of
            batches, each of which is one step and one read, and `status_` "streaming".

        Raises
        ------
        ConfigurationError
            A hyperparameter of the model was changed since the last batch.
        """
        self._model()
        refuse_wrong_settings(self)
        if hasattr(self, "status_"):
            refuse_changed(self)
        source = self._open(
            X,
            reset=not hasattr(self, "status_"),
            columns=columns,
            weight=sample_weight,
            filters=filters,
            storage_options=storage_options,
            missing_chunks=missing_chunks,
        )
        learn_batch(self, source)
        return self

    def _stepwise(self) -> Stepwise:
        """How batches of a stream move the parameters."""
        return Stepwise()

    def _first_batch(self, source: Source) -> None:
        """Begin with the first batch of a stream."""
        own: Any = self
        self._finish(
            run(self._entry(source), source, self._settings(), executor=own.executor, callbacks=own.callbacks or ())
        )

    def _settings(self) -> Settings:
        """How the fit runs."""
        own: Any = self
        return Settings(
            solver=own.solver,
            n_init=own.n_init,
            seed=self._seed(),
            tol=own.tol,
            max_passes=own.max_passes,
            time_limit=own.time_limit,
            sample_bytes=own.sample_bytes,
            checkpoint=None if own.checkpoint is None else os.fspath(own.checkpoint),
            checkpoint_options=own.checkpoint_options,
            verbose=own.verbose,
        )

    def _seed(self) -> int | None:
        return seed_of(getattr(self, "random_state", None))

    def _finish(self, result: FitResult) -> None:
        """Keep what a fit gave."""
        self._fitted_with = self.get_params(deep=False)
        self._keep_model(result.model)
        self._keep(result.params)
        told = measured({"loglik": float(result.loglik)}, result.model.measure)
        for name, value in told.items():
            setattr(self, f"{name}_", value)
        self.n_passes_ = int(result.n_passes)
        self.n_rows_ = int(result.n_rows)
        self.weight_ = float(result.weight)
        self.status_ = result.status
        self.message_ = result.message
        self.converged_ = bool(result.converged)
        self.history_ = [measured(record, result.model.measure) for record in result.history]
        self.restart_records_ = [measured(record, result.model.measure) for record in result.restarts]
        self.fingerprint_ = result.fingerprint

    def __sklearn_is_fitted__(self) -> bool:
        """Whether a fit, or a batch, went through: one that was refused may have left the names of its columns."""
        return hasattr(self, "status_")

    @property
    def reached(self) -> dict[str, float]:
        """What the fit aims at, by name, and how far it came: the log-likelihood, or the inertia."""
        aim = next(iter(self._figures))
        return {aim.rstrip("_"): getattr(self, aim)}

    @property
    def n_steps_(self) -> int:
        """Steps that moved the parameters, or found that they need not move, over the data or rows in memory."""
        if not hasattr(self, "history_"):
            raise AttributeError(f"this {type(self).__name__} is not fitted yet")
        return n_steps(self.history_)

    @property
    def restarts_(self) -> Any:
        """A `pandas.DataFrame` with a row for each start: what it reached, and how it ended. Of a stream: none."""
        if not hasattr(self, "restart_records_"):
            raise AttributeError(f"this {type(self).__name__} is not fitted yet")
        import pandas

        return pandas.DataFrame(self.restart_records_)

    # ---- data

    def _open(self, X: Any, *, reset: bool, without: int | None = None, **opening: Any) -> Source:
        """Plan the reading of X, and check its columns against those fitted (or, with `reset`, take them on).

        `without` is the position of a fitted column that is not asked for, and may not be there.
        """
        refuse_no_table(X)
        columns = opening.get("columns")
        if reset and is_array_like(X) and columns is None:
            validate_data(self, X, skip_check_array=True)
        if not reset and columns is None and not is_source(X):
            names = getattr(self, "feature_names_in_", None)
            names = names if names is None or without is None else list(np.delete(names, without))
            opening["columns"] = fitted_columns(X, names, opening.get("storage_options"))
        known = None if reset else self._levels()
        model = self._model() if reset else self._fitted_model()
        if opening.get("sequence") is not None and not model.sequential:
            raise ConfigurationError(
                f"{type(self).__name__} takes each row by itself: sequence is of hidden Markov chains, so leave it out"
            )
        source = open_coded(X, model, known=known, executor=getattr(self, "executor", None), **opening)
        refuse_sparse(getattr(source, "sparse", False), model)
        if reset:
            self._take_columns(source)
        elif source.n_features not in (self.n_features_in_, self.n_features_in_ - (without is not None)):
            raise DataError(unlike(source.n_features, self.n_features_in_, type(self).__name__))
        return source

    def _levels(self) -> dict[str, tuple[str, ...]]:
        """The levels of the columns of text that were fitted."""
        names = getattr(self, "feature_names_in_", None)
        return {} if names is None else dict(self._fitted_model().levels_of(list(names)))

    def _take_columns(self, source: Source) -> None:
        """The number of columns, and their names if they have any, are those of this data."""
        self.n_features_in_ = int(source.n_features)
        if source.feature_names is not None:
            self.feature_names_in_ = np.array(list(source.feature_names), dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    def _in_memory(self, X: Any, columns: Any = None) -> np.ndarray:
        """Columns of an array-like, by default those fitted, as scikit-learn checks them: as many, and finite."""
        refuse_no_table(X)
        names = getattr(self, "feature_names_in_", None)
        model = self._fitted_model()
        who, levels = type(self).__name__, self._levels()
        X = coded_frame(X, levels) if levels and is_frame(X) else X
        return chosen(X, columns, names, self.n_features_in_, who, bool(model.accepts_nan), bool(model.accepts_sparse))

    def __getstate__(self) -> dict[str, Any]:
        """All but where the data of the fit was: others may not see it there."""
        state: dict[str, Any] = dict(super().__getstate__())
        state.pop("_data", None)
        return state

    # ---- shown

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        """As scikit-learn shows an estimator, without credentials: values of `checkpoint_options`, a URL's user."""
        return str(BaseEstimator.__repr__(self._shown(), N_CHAR_MAX))

    def _shown(self) -> Self:
        shown = copy(self)
        options, place = getattr(self, "checkpoint_options", None), getattr(self, "checkpoint", None)
        if options:
            shown.checkpoint_options = dict.fromkeys(options, "...")
        if isinstance(place, str):
            shown.checkpoint = store_file.shown(place)
        return shown

    def _get_params_html(self, *args: Any, **kwargs: Any) -> Any:
        return super(Estimator, self._shown())._get_params_html(*args, **kwargs)
