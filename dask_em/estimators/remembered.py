"""The data of the last fit, for what is asked after it without naming the data again."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from dask_em.errors import DataError
from dask_em.sources.opening import as_paths


class Remembered:
    """Where the data of a fit is: paths are kept, what is in memory only for as long as somebody else keeps it.

    It is never stored: not in files, not in pickles.
    """

    def __init__(self, X: Any, opening: Mapping[str, Any]) -> None:
        self._x = _held(X)
        self._opening = {name: _held(value) for name, value in opening.items()}

    def again(self) -> tuple[Any, dict[str, Any]]:
        """X and the keywords it was opened with.

        Raises
        ------
        DataError
            It has gone.
        """
        x, opening = self._x(), {name: held() for name, held in self._opening.items()}
        if x is _GONE or any(value is _GONE for value in opening.values()):
            raise DataError("the data of the fit is no longer in memory: pass it, as X")
        return x, opening


_GONE = object()


def _held(value: Any) -> Callable[[], Any]:
    small = value is None or isinstance(value, (str, os.PathLike, int, float, dict)) or as_paths(value) is not None
    if small or (isinstance(value, (list, tuple)) and all(isinstance(v, (str, int, tuple)) for v in value)):
        return lambda: value
    try:
        reference = weakref.ref(value)
    except TypeError:  # lists of lists
        return lambda: _GONE

    def held() -> Any:
        alive = reference()
        return _GONE if alive is None else alive

    return held
