"""Which rows and columns of X are meant: scikit-learn's conventions in memory, names where there are any."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse

from dask_em.errors import ConfigurationError, DataError
from dask_em.executors.examine import refuse_bad_values
from dask_em.model import Block, Chunk
from dask_em.settings import check_surroundings
from dask_em.sources.columns import HOW_TO_CHOOSE, as_list, missing, positions
from dask_em.sources.dataframe import column_dtype
from dask_em.sources.location import locate
from dask_em.sources.numbers import checked_array
from dask_em.sources.opening import as_paths, is_source
from dask_em.sparse import compressed, row_bytes


def is_array_like(X: Any) -> bool:
    """Whether scikit-learn's conventions apply: arrays, lists and pandas frames in this process's memory.

    Not so a memory map: it stands for a file, which may be larger than memory.
    """
    if isinstance(X, (str, os.PathLike)) or as_paths(X) is not None or is_source(X):
        return False
    if isinstance(X, np.ndarray):
        return not isinstance(X, np.memmap)
    return type(X).__module__.split(".")[0] not in ("dask", "dask_expr", "zarr", "xarray", "dask_em")


def refuse_no_table(X: Any) -> None:
    """Raise a sentence for what is no table at all.

    Raises
    ------
    DataError
        None, a dict, a number, an empty list, or a single dimension.
    """
    mapping = isinstance(X, (dict, set, bytes)) and not hasattr(X, "toarray")  # one kind of sparse array is a dict
    if X is None or mapping or (np.isscalar(X) and not isinstance(X, str)):
        what = "None" if X is None else f"a {type(X).__name__}"
        raise DataError(f"X is {what}, not a table: pass an array of shape (n_rows, n_features), a frame or a path")
    if isinstance(X, (list, tuple)) and not len(X):
        raise DataError("X is an empty list, with 0 sample(s): pass at least one row")
    shape = X.shape if isinstance(X, np.ndarray) else (len(X),) if _is_flat(X) else None
    if shape is not None and len(shape) < 2:
        raise DataError(
            f"X has shape {shape} where rows and columns are expected. Reshape your data with X.reshape(-1, 1) if it "
            "is one column, with X.reshape(1, -1) if it is one row"
        )


def _is_flat(X: Any) -> bool:
    return isinstance(X, (list, tuple)) and np.isscalar(X[0]) and not isinstance(X[0], str)


def fitted_columns(X: Any, names: Sequence[str] | None, storage_options: Any) -> list[str] | None:
    """The columns to read of X for a model fitted to named ones; None: all, by position, since X has no names."""
    if names is None:
        return None
    paths = as_paths(X)
    if paths is not None:
        return list(names) if _has_columns(paths, storage_options) else None
    if type(X).__module__.split(".")[0] == "xarray":
        labels = X.coords[X.dims[1]].values.tolist() if X.ndim == 2 and X.dims[1] in X.coords else []
        return list(names) if all(isinstance(label, str) for label in labels) and labels else None
    return fitted_names(X, names) if hasattr(type(X), "columns") else None


def _has_columns(paths: list[Any], storage_options: Any) -> bool:
    from dask_em.sources import zarr_store

    if len(paths) > 1:
        return True
    place = locate(paths[0], storage_options)
    if place.url.endswith((".parquet", ".pq")):
        return True
    return not place.url.endswith(".npy") and not zarr_store.is_zarr(place)


def chosen(
    X: Any, columns: Any, names: Sequence[str] | None, n_features: int, who: str, accepts_nan: bool, sparse: bool
) -> Any:
    """Some columns of an array-like, checked: finite numbers (or NaN, where it is accepted), as many as were fitted.

    By default they are those of the fitted names, in whatever order a frame has them; of what has no names, all.
    """
    if columns is None:
        columns = fitted_names(X, names)
    picked = _taken(X, columns)
    x = _sparse(picked, sparse) if issparse(picked) else checked_array(picked)
    block = Block(0, "X", x.shape[0], x.shape[0] * row_bytes(x))
    labels = columns if hasattr(X, "columns") and not isinstance(columns, slice) else None
    refuse_bad_values(Chunk(x), block, labels, accepts_nan=accepts_nan)
    if x.shape[1] != n_features:
        if columns is not None:
            raise DataError(f"{x.shape[1]} columns are chosen, but {who} is expecting {n_features} features as input")
        raise DataError(unlike(x.shape[1], n_features, who))
    return x


def _sparse(x: Any, accepted: bool) -> Any:
    if not accepted:
        raise DataError("X is sparse, and this model takes dense rows only: convert it with .toarray()")
    return compressed(x)


def _taken(X: Any, columns: Any) -> Any:
    if columns is None:
        return X
    if hasattr(X, "columns"):
        return X.iloc[:, columns] if isinstance(columns, slice) else X[as_list(columns)]
    x = csr_array(X) if issparse(X) else np.asarray(X)
    return x[:, positions(columns, x.shape[1])]


def fitted_names(frame: Any, names: Sequence[str] | None) -> list[str] | None:
    """The fitted columns of a frame; None for a model that knows no names, or a frame that has none.

    Raises
    ------
    DataError
        The frame lacks one of them.
    """
    available = list(frame.columns) if hasattr(frame, "columns") else []
    if names is None or not any(isinstance(c, str) for c in available):
        return None
    absent = [c for c in names if c not in available]
    if absent:
        raise missing(absent, available, "The data frame")
    return list(names)


def with_column(X: Any, position: int, names: Sequence[str] | None, n_features: int) -> Any:
    """An array or a frame with a column of zeros where it lacks just that one of the fitted columns; else X itself."""
    if hasattr(X, "assign") and names is not None:
        return X if names[position] in X.columns else X.assign(**{names[position]: 0.0})
    if np.ndim(X) != 2 or np.shape(X)[1] != n_features - 1:
        return X
    if type(X).__module__.startswith("dask.array"):
        from dask_em.executors.lazy import with_zeros

        return with_zeros(X, position)
    return np.insert(np.asarray(X), position, 0.0, axis=1)


def unlike(found: int, expected: int, who: str) -> str:
    """What is wrong with data of another number of columns."""
    return (
        f"X has {found} features, but {who} is expecting {expected} features as input: say which columns to use with "
        f"{HOW_TO_CHOOSE}"
    )


def as_dask_array(X: Any, columns: Any, names: Any) -> Any:
    """A Dask collection as a dask array of the columns meant, so that answers stay aligned with it; else X itself."""
    if type(X).__module__.startswith(("dask.dataframe", "dask_expr")):
        columns = fitted_names(X, names) if columns is None else columns
        chosen = X if columns is None else X[as_list(columns)]
        nullable = {
            n: d for n, d in chosen.dtypes.items() if not isinstance(d, np.dtype)
        }  # their arrays are of objects
        types = {n: column_dtype(d, n, "the Dask frame", may_have_nulls=True) for n, d in nullable.items()}
        return (chosen.astype(types) if types else chosen).to_dask_array()
    if type(X).__module__.startswith("dask.array") and columns is not None:
        return X[:, positions(columns, X.shape[1])]
    return X


def refuse_wrong_settings(estimator: Any) -> None:
    """Raise a sentence for settings of a fit whose type is not theirs."""
    limit, solver = estimator.time_limit, estimator.solver
    check_surroundings(
        estimator.executor, estimator.callbacks, estimator.checkpoint, getattr(estimator, "checkpoint_options", None)
    )
    if limit is not None and (isinstance(limit, (bool, str)) or not isinstance(limit, (int, float, np.number))):
        raise ConfigurationError(f"time_limit={limit!r} must be a positive number of seconds")
    if not isinstance(solver, str) and not all(callable(getattr(solver, n, None)) for n in ("begin", "ask", "tell")):
        raise ConfigurationError(f"solver={solver!r} must be a solver's name, such as 'em', or a Solver")
