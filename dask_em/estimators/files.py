"""Estimators in files: what is saved, and what a file must hold to be believed."""

from __future__ import annotations

import os
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from dask_em import store
from dask_em._version import __version__
from dask_em.errors import StoreError
from dask_em.estimators.unchanged import refuse_changed

RECORD: dict[str, type] = {
    "n_passes_": int, "n_rows_": int, "status_": str, "converged_": bool, "message_": str,
    "history_": list, "n_features_in_": int, "fingerprint_": str, "weight_": float, "restart_records_": list,
}  # fmt: skip
# of how a fit was run, not of the model; some hold credentials, in a URL too
MAYBE = ("stream_",)  # where a stream stands, for an estimator that learns from one
NOT_SAVED = ("checkpoint", "checkpoint_options", "executor", "callbacks")


class Stored:
    """`save` and `restore` for an estimator that names its fitted arrays in `_fitted`."""

    _fitted: ClassVar[tuple[str, ...]] = ()
    _trees: ClassVar[tuple[str, ...]] = ()  # attributes that are stored dataclasses
    _figures: ClassVar[dict[str, type]] = {"loglik_": float}  # numbers that a family records, the one it aims at first

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True, storage_options: Any = None) -> None:
        """Write the fitted estimator to a safetensors file (no pickle in it).

        Hyperparameters go with it, but none of how the fit was run: no checkpoint, executor or callbacks.

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
        ConfigurationError
            A hyperparameter of the model was changed since it was fitted.
        """
        check_is_fitted(self)
        refuse_changed(self)
        parameters = self.get_params(deep=False)  # type: ignore[attr-defined]
        features = getattr(self, "feature_names_in_", None)
        tree = {
            "family": type(self).__name__,
            "version": __version__,
            "hyperparameters": {k: v for k, v in parameters.items() if k not in NOT_SAVED and _storable(v)},
            "feature_names": None if features is None else [str(name) for name in features],
            "fitted": {
                name: getattr(self, name)
                for name in (
                    *self._fitted,
                    *self._trees,
                    *self._figures,
                    *RECORD,
                    *(m for m in MAYBE if hasattr(self, m)),
                )
            },
        }
        store.save(tree, os.fspath(path), kind="model", storage_options=storage_options, overwrite=overwrite)

    @classmethod
    def restore(cls, tree: dict[str, Any], path: str) -> Self:
        """The estimator that a loaded tree describes; raises `StoreError` where it describes none."""
        try:
            return cls._restored(tree)
        except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
            reason = " ".join(str(error).split())[:300]
            raise StoreError(f"{path} does not hold a usable {cls.__name__}: {reason}; save the model again") from error

    @classmethod
    def _restored(cls, tree: dict[str, Any]) -> Self:
        given, fitted, names = (tree[part] for part in ("hyperparameters", "fitted", "feature_names"))
        if not isinstance(given, dict) or not isinstance(fitted, dict):
            raise ValueError("its hyperparameters or fitted attributes are no table of names")
        _check_record(fitted, cls._fitted, dict.fromkeys(cls._trees, object) | RECORD | cls._figures)
        known = cls._get_param_names()  # type: ignore[attr-defined]
        estimator = cls(**{name: value for name, value in given.items() if name in known})
        for name, value in fitted.items():
            setattr(estimator, name, value)
        if names is not None:
            whole = isinstance(names, list) and all(isinstance(name, str) for name in names)
            if not whole or len(names) != fitted["n_features_in_"]:
                raise ValueError("its feature names are not one for each feature")
            estimator.feature_names_in_ = np.array(names, dtype=object)  # type: ignore[attr-defined]
        estimator._check_loaded()
        estimator._fitted_with = estimator.get_params(deep=False)  # type: ignore[attr-defined]
        return estimator

    def _check_loaded(self) -> None:
        """Raise an error for fitted attributes that do not go together."""


def _check_record(fitted: dict[str, Any], arrays: tuple[str, ...], record: dict[str, type]) -> None:
    lacking = sorted({*arrays, *record} - set(fitted))
    surplus = sorted(set(fitted) - {*arrays, *record, *MAYBE})
    if lacking or surplus:
        raise ValueError(f"it lacks {lacking[0]!r}" if lacking else f"it has an attribute {surplus[0]!r} too many")
    for name in arrays:
        a = fitted[name]
        if not (isinstance(a, np.ndarray) and a.dtype == np.float64 and np.isfinite(a).all()):
            raise ValueError(f"{name} is not an array of finite numbers")
    for name, kind in record.items():
        value: Any = fitted[name]
        negative = kind is int and (isinstance(value, bool) or value < 0) if type(value) in (int, bool) else False
        if not isinstance(value, kind) or negative:
            raise ValueError(f"{name} is {value!r:.60}")
        if isinstance(value, list) and not all(isinstance(line, dict) for line in value):
            raise ValueError(f"{name} is not a list of records")


def _storable(value: Any) -> bool:
    return (
        value is None
        or isinstance(value, (bool, int, float, str, np.ndarray, np.number, list, tuple, dict))
        or store.registered(type(value))
    )
