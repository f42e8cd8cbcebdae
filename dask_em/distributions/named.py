"""Columns that have a part of their own in a distribution, such as a response, given by name or by position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dask_em.errors import ConfigurationError


def check_column(role: str, column: Any) -> None:
    """Raise `ConfigurationError` for what is neither a name nor a position."""
    whole = isinstance(column, (int, np.integer)) and not isinstance(column, bool)
    if not (isinstance(column, str) or (whole and column >= 0)):
        raise ConfigurationError(f"{role}={column!r} must be a column's name, or a position that is not negative")


def position(who: str, role: str, column: str | int, names: Sequence[str] | None, n_features: int | None) -> int:
    """Where a column is, of so many; None: not known yet.

    Raises
    ------
    ConfigurationError
        The data has no such column.
    """
    if isinstance(column, str):
        if names is None:
            raise ConfigurationError(
                f"{who} names its {role} {column!r}, and the data has columns without names: give its position"
            )
        if column not in names:
            have = ", ".join(repr(c) for c in names[:20]) + (", ..." if len(names) > 20 else "")
            raise ConfigurationError(f"{who} has the {role} {column!r}, and the data has columns {have}")
        return list(names).index(column)
    if n_features is not None and column >= n_features:
        raise ConfigurationError(
            f"{who} has column {column} for its {role}, and the data has {n_features} columns, 0 to {n_features - 1}"
        )
    return int(column)
