"""Parameters as people read them: names, components and columns of each number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

_DERIVED = ("precisions_cholesky",)  # said again by others
_SAME = 1e-12
_SHARES = (
    "weights",
    "probabilities",
    "startprob",
    "transmat",
)  # parameters that are between zero and one, whatever distribution has them,
_POSITIVE = ("rates", "scales", "shapes", "sizes", "df", "sigma", "covariances", "noise_variance", "noise_variances")


@dataclass(frozen=True)
class Number:
    """What one number of the parameters is."""

    name: str
    component: int | None  # None: of all of them
    of: str  # the columns, or places, that it is about
    least: float = -np.inf  # what it is larger, and smaller, than
    most: float = np.inf


def named_arrays(params: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """The arrays of a dataclass of parameters and of those within it, by name."""
    found: dict[str, np.ndarray] = {}
    columns = getattr(params, "columns", None)
    for field in fields(params):
        value = getattr(params, field.name)
        if field.name in _DERIVED:
            continue
        if is_dataclass(value):
            found |= named_arrays(value, prefix)
        elif isinstance(value, tuple) and value and is_dataclass(value[0]):
            for own, part in zip(columns or range(len(value)), value, strict=True):
                found |= named_arrays(part, f"{prefix}{_joined(own)}.")
        elif isinstance(value, (float, np.ndarray)) and np.asarray(value).dtype.kind == "f":
            found[prefix + field.name] = np.asarray(value)
    return found


def _joined(columns: Any) -> str:
    return ", ".join(map(str, columns)) if isinstance(columns, tuple) else str(columns)


@dataclass(frozen=True)
class Layout:
    """Which numbers of some named arrays are told, and in which order; a symmetric matrix's once.

    Parameters
    ----------
    shapes : dict of str to tuple
    shared : frozenset of str
        Arrays that are of all components.
    symmetric : frozenset of str
        Arrays whose last two axes are one matrix.
    n_components : int
    columns : tuple of str
    categories : dict of str to tuple of str
        Of columns that have such.
    sizes : frozenset of str
        Columns that have no parameters, as an exposure.
    """

    shapes: dict[str, tuple[int, ...]]
    shared: frozenset[str]
    symmetric: frozenset[str]
    n_components: int
    columns: tuple[str, ...]
    categories: dict[str, tuple[str, ...]]
    sizes: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        arrays: dict[str, np.ndarray],
        reversed_: dict[str, np.ndarray],
        k: int,
        columns: Sequence[str],
        categories: dict[str, tuple[str, ...]],
        sizes: frozenset[str],
    ) -> Layout:
        """Told by arrays, and by the same ones after the components were put in reversed order."""
        symmetric = frozenset(name for name, a in arrays.items() if _is_symmetric(a))
        shared = frozenset(
            name
            for name, a in arrays.items()
            if a.shape[:1] != (k,) or (name in symmetric and a.ndim == 2 and np.array_equal(a, reversed_[name]))
        )
        shapes = {name: a.shape for name, a in arrays.items() if k > 1 or name != "weights"}  # a share of all is none
        return cls(shapes, shared, symmetric, k, tuple(columns), categories, sizes)

    def read(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        """(m,) the numbers."""
        parts = [np.asarray(arrays[name])[self._mask(name)] for name in self.shapes]
        return np.concatenate(parts) if parts else np.empty(0)

    def numbers(self) -> list[Number]:
        """What each of them is."""
        return [self._number(name, tuple(at)) for name in self.shapes for at in np.argwhere(self._mask(name))]

    def _mask(self, name: str) -> np.ndarray:
        told = np.ones(self.shapes[name], dtype=bool)
        for j, own in enumerate(self._categories(name)):
            told[:, j, len(own) :] = False  # of columns with more of them
        return np.triu(told) if name in self.symmetric else told

    def _columns(self, name: str) -> Sequence[str]:
        part, _, _ = name.rpartition(".")  # of a product, which is named after its columns
        return [column for column in part.split(", ") if column not in self.sizes] if part else self.columns

    def _categories(self, name: str) -> list[tuple[str, ...]]:
        """Those of the columns of an array (components, columns, categories); none, if it is another."""
        own = [self.categories.get(column, ()) for column in self._columns(name)]
        shape = self.shapes[name]
        return own if all(own) and shape == (self.n_components, len(own), max(map(len, own), default=0)) else []

    def _number(self, name: str, at: tuple[int, ...]) -> Number:
        component = None if name in self.shared else int(at[0])
        least, most = self._range(name, at)
        sizes, rest = (self.shapes[name], at) if component is None else (self.shapes[name][1:], at[1:])
        columns, categories = self._columns(name), self._categories(name)
        if categories:
            of = f"{columns[rest[0]]}, {categories[rest[0]][rest[1]]}"
            return Number(name, component, of, least, most)
        by_column = range(2 if name in self.symmetric else 1)  # axes; others are of factors and the like
        axes = [
            columns[i] if size == len(columns) and axis in by_column else str(i)
            for axis, (size, i) in enumerate(zip(sizes, rest, strict=True))
        ]
        return Number(name, component, ", ".join(axes), least, most)

    def _range(self, name: str, at: tuple[int, ...]) -> tuple[float, float]:
        own = name.rpartition(".")[2]
        if own in _SHARES:
            return 0.0, 1.0
        positive = own in _POSITIVE and not (name in self.symmetric and at[-1] != at[-2])
        return (0.0 if positive else -np.inf), np.inf


def _is_symmetric(a: np.ndarray) -> bool:
    if a.ndim < 2 or a.shape[-1] != a.shape[-2] or a.shape[-1] < 2:
        return False
    return bool(np.abs(a - np.swapaxes(a, -1, -2)).max() <= _SAME * np.abs(a).max())
