"""Which columns were asked for, and the one type that holds them all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from dask_em.errors import ConfigurationError, DataError

Selection = slice | list[int]


def positions(columns: Any, n_features: int, names: Sequence[str] | None = None) -> Selection | None:
    """Columns of an array as a slice where they are evenly spaced (then taking them copies nothing), else a list."""
    if columns is None:
        return None
    if isinstance(columns, slice):
        chosen = list(range(n_features))[columns]
    else:
        chosen = [_position(c, n_features, names) for c in as_list(columns)]
    if not chosen:
        raise ConfigurationError("columns is empty: name at least one column, or leave it out for all of them.")
    steps = {b - a for a, b in pairwise(chosen)}
    if len(steps) > 1 or min(steps, default=1) < 1:
        return chosen
    return slice(chosen[0], chosen[-1] + 1, min(steps, default=1))


def as_list(columns: Any) -> list[Any]:
    """One column's name or position, or several, as a list."""
    if isinstance(columns, str | int | np.integer):
        return [columns]
    return list(columns)


def names_at(names: Sequence[str] | None, selection: Selection | None) -> Sequence[str] | None:
    """The names of the columns selected."""
    if names is None or selection is None:
        return names
    return names[selection] if isinstance(selection, slice) else [names[i] for i in selection]


def count(n_features: int, selection: Selection | None) -> int:
    """How many columns are selected."""
    if selection is None:
        return n_features
    return len(range(n_features)[selection]) if isinstance(selection, slice) else len(selection)


def _position(column: Any, n_features: int, names: Sequence[str] | None) -> int:
    if isinstance(column, str) and names is not None:
        if column not in names:
            raise missing([column], names, "The array")
        return list(names).index(column)
    if not isinstance(column, int | np.integer) or isinstance(column, bool):
        raise ConfigurationError(f"column {column!r}: columns of an array are positions, such as 0 and 2.")
    if not -n_features <= column < n_features:
        raise DataError(f"There is no column {column}: the array has {n_features} columns, 0 to {n_features - 1}.")
    return int(column) % n_features


HOW_TO_CHOOSE = "columns=, on the command line --columns"


def missing(wanted: Iterable[Any], available: Iterable[Any], where: str) -> DataError:
    """The error for columns that are not there, listing those that are."""
    lacks = ", ".join(repr(c) for c in wanted)
    has = [repr(c) for c in available]
    more = f" and {len(has) - 50} more" if len(has) > 50 else ""
    return DataError(
        f"{where} has no column {lacks}; its columns are {', '.join(has[:50])}{more}: say which to use with "
        f"{HOW_TO_CHOOSE}."
    )


def not_numeric(column: Any, kind: str, where: str) -> DataError:
    """The error for a column that holds no numbers."""
    return DataError(
        f"Column {column!r} of {where} is {kind}, not a number: choose numeric columns with {HOW_TO_CHOOSE}, or "
        "convert it first. Text is taken as categories where a fit of em.Categorical is given the path or the frame "
        "itself, and not what em.open makes of it."
    )


def common_dtype(dtypes: Sequence[np.dtype]) -> np.dtype:
    """One dtype for all columns: floats stay as narrow as the widest, so do integers; a mix becomes float64."""
    kinds = {"i" if d.kind in "iub" else d.kind for d in dtypes}
    if not dtypes or kinds - {"i", "f"}:
        raise ValueError(f"not numeric: {dtypes}")
    return np.result_type(*dtypes) if len(kinds) == 1 else np.dtype(np.float64)
