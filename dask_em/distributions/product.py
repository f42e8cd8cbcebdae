"""Columns of several kinds: parts that are independent of each other given the component.

Each part has its own columns and its own distribution, so that a row's log density is the sum of its parts' and
every part is estimated by itself (McLachlan and Peel 2000, section 5.7).  What is missing is each part's matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from dask_em import store
from dask_em.distributions.base import Distribution
from dask_em.errors import ConfigurationError, DegenerateError, RowError
from dask_em.model import Params
from dask_em.sums import Sums

Column = str | int
T = TypeVar("T")


@store.register
@dataclass(frozen=True)
class ProductParams:
    """Each part's parameters; `params["age"]` are those of the part that has the column "age".

    Attributes
    ----------
    parts : tuple
        In the order in which the parts were given.
    columns : tuple of tuples
        Names or positions of each part's columns, as they were given.
    """

    parts: tuple[Any, ...]
    columns: tuple[tuple[Column, ...], ...]

    def __getitem__(self, column: Column) -> Params:
        """Parameters of the part that has this column."""
        for columns, part in zip(self.columns, self.parts, strict=True):
            if column in columns:
                return part
        raise KeyError(f"no part has column {column!r}; there are {_named([c for own in self.columns for c in own])}")


@store.register
@dataclass(frozen=True)
class ProductSums(Sums):
    """Each part's sums."""

    parts: tuple[Any, ...]


@store.register
@dataclass(frozen=True)
class Product(Distribution):
    """Columns of several kinds, those of different parts independent given the component.

    Missing values (NaN) are taken as missing at random, if every part takes them so.

    Parameters
    ----------
    parts : dict
        From a column, by name or position, or a tuple of columns, to the distribution of those.
    positions : tuple of tuples of int, optional
        Where the columns are; found from the data's names in a fit.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> import dask_em as em
    >>> rng = np.random.default_rng(0)
    >>> old = np.repeat([False, True], 500)
    >>> age, visits = rng.normal(np.where(old, 70, 25), 5.0), rng.poisson(np.where(old, 9, 1))
    >>> frame = pd.DataFrame({"age": age, "visits": visits, "smokes": rng.random(1000) < 0.3})
    >>> people = em.Product({"age": em.Gaussian("diag"), "visits": em.Poisson(), "smokes": em.Bernoulli()})
    >>> mix = em.Mixture(2, people, random_state=0).fit(frame)
    >>> np.sort(mix.components_["visits"].rates.ravel()).round().tolist()
    [1.0, 9.0]
    """

    parts: Any  # kept as a tuple of (columns, distribution), which can be compared and stored
    positions: tuple[tuple[int, ...], ...] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        given = tuple(self.parts.items()) if isinstance(self.parts, Mapping) else self.parts
        if not isinstance(given, tuple) or not given:
            raise ConfigurationError(
                'parts must be a dict from columns to distributions, such as {"age": dask_em.Gaussian()}'
            )
        parts = tuple((_columns(columns), distribution) for columns, distribution in given)
        for columns, distribution in parts:
            if not isinstance(distribution, Distribution) or isinstance(distribution, Product):
                raise ConfigurationError(
                    f"{_named(columns)} has {distribution!r}, which must be a distribution of those columns, such as "
                    "dask_em.Poisson(), and no product itself"
                )
        _once([c for columns, _ in parts for c in columns])
        object.__setattr__(self, "parts", parts)

    # ---- columns

    @property
    def columns(self) -> tuple[tuple[Column, ...], ...]:
        """Names or positions of each part's columns."""
        return tuple(columns for columns, _ in self.parts)

    @property
    def distributions(self) -> tuple[Distribution, ...]:
        """The parts' own."""
        return tuple(distribution for _, distribution in self.parts)

    @property
    def accepts_nan(self) -> bool:  # type: ignore[override]
        """Whether every part does."""
        return all(part.accepts_nan for part in self.distributions)

    @property
    def discrete(self) -> bool:
        """Whether every part is."""
        return all(part.discrete for part in self.distributions)

    def resolved(self, names: Sequence[str] | None) -> Product:
        """With the positions of the columns that were given by name.

        Raises
        ------
        ConfigurationError
            The data has no such column, or one that no part names, or two parts name the same one.
        """
        known = {} if names is None else {name: j for j, name in enumerate(names)}
        unknown = [c for own in self.columns for c in own if isinstance(c, str) and c not in known]
        if unknown:
            have = "columns without names: give their positions" if names is None else f"columns {_listed(list(names))}"
            raise ConfigurationError(f"Product names {_named(unknown)}, and the data has {have}")
        positions = tuple(tuple(known[c] if isinstance(c, str) else c for c in own) for own in self.columns)
        flat = [j for own in positions for j in own]
        labels: Sequence[Column] = range(max(flat) + 1) if names is None else names
        _once([labels[j] if j < len(labels) else j for j in flat])
        own_names = [None if names is None else [names[j] for j in own if j < len(names)] for own in positions]
        if names is not None:
            replace(self, positions=positions)._cover(len(names), names)
        parts = self._map(lambda part, own: part.resolved(own), own_names)
        return replace(self._with(parts), positions=positions)

    def takes_text(self, name: str, position: int) -> bool:
        """What the part that has the column says."""
        return any(part.takes_text(name, position) for own, part in self.parts if name in own or position in own)

    def with_levels(self, names: Sequence[str] | None, levels: Mapping[str, tuple[str, ...]]) -> Product:
        """Each part given the levels of its columns."""
        if names is None or not levels:
            return self
        own_names = [[names[j] for j in own] for own in self._places()]
        return self._with(self._map(lambda part, own: part.with_levels(own, levels), own_names))

    def levels_of(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Those of the parts."""
        return self._merged(names, lambda part, own: part.levels_of(own))

    def categories_of(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Those of the parts."""
        return self._merged(names, lambda part, own: part.categories_of(own))

    def modelled(self, names: Sequence[str]) -> list[str]:
        """Those of the parts."""
        each = self._map(lambda part, own: part.modelled(own), [[names[j] for j in own] for own in self._places()])
        told = {name for own in each for name in own}
        return [name for name in names if name in told]

    def _merged(self, names: Sequence[str], of: Callable[[Distribution, list[str]], dict[str, Any]]) -> dict[str, Any]:
        each = self._map(of, [[names[j] for j in own] for own in self._places()])
        return {name: value for own in each for name, value in own.items()}

    def _cover(self, d: int, names: Sequence[Column]) -> None:
        """Refuse columns that are not there, and columns that no part has."""
        flat = {j for own in self._places() for j in own}
        if beyond := sorted(j for j in flat if j >= d):
            raise ConfigurationError(f"Product names {_named(beyond)}, and the data has {d} columns, 0 to {d - 1}")
        if bare := [names[j] for j in range(d) if j not in flat]:
            own = [names[j] for j in range(d) if j in flat]
            raise ConfigurationError(
                f"Product has no distribution for {_named(bare)}: give every column one, or say that others are not "
                f"meant, by columns={own}"
            )

    def _places(self) -> tuple[tuple[int, ...], ...]:
        if self.positions is not None:
            return self.positions
        if any(isinstance(c, str) for own in self.columns for c in own):
            raise ConfigurationError("Product names its columns, which need data with names, or `resolved(names)`")
        return self.columns  # type: ignore[return-value]

    def _each(self, x: np.ndarray) -> list[np.ndarray]:
        """Each part's columns of rows (n, d) or of one row (d,)."""
        return [x[..., list(own)] for own in self._places()]

    def _map(self, f: Callable[..., T], *tuples: Any) -> list[T]:
        """A function of each part, and of what belongs to it."""
        return [f(part, *own) for part, *own in zip(self.distributions, *tuples, strict=True)]

    def _with(self, parts: Sequence[Distribution]) -> Product:
        return replace(self, parts=tuple(zip(self.columns, parts, strict=True)))

    def _params(self, parts: Sequence[Params]) -> ProductParams:
        return ProductParams(tuple(parts), self.columns)

    # ---- what it says of the rows

    def check_rows(self, x: np.ndarray) -> None:
        """Raise `RowError` for a value that its part cannot have made."""
        self._cover(x.shape[1], range(x.shape[1]))
        for part, own, places in zip(self.distributions, self._each(x), self._places(), strict=True):
            try:
                part.check_rows(own)
            except RowError as error:
                raise RowError(error.row, places[error.column], error.why) from None

    def within(self, low: np.ndarray, high: np.ndarray) -> Product:
        """Each part given the extremes of its columns."""
        self._cover(len(low), range(len(low)))
        return self._with(self._map(lambda part, a, b: part.within(a, b), self._each(low), self._each(high)))

    def about(self, center: np.ndarray) -> Product:
        """Each part's sums about the centre of its columns."""
        return self._with(self._map(lambda part, own: part.about(own), self._each(center)))

    def in_units_of(self, variance: np.ndarray) -> Product:
        """Each part given the variances of its columns."""
        return self._with(self._map(lambda part, own: part.in_units_of(own), self._each(variance)))

    def hides(self, missing: bool) -> bool:
        """Whether a part does, as if it had the missing values."""
        return any(part.hides(missing) for part in self.distributions)

    def observed(self, present: np.ndarray, resp: np.ndarray) -> np.ndarray:
        """(K, d, d) rows that say anything of parameters of columns of one part."""
        counts = super().observed(present, resp)
        each = self._map(lambda part, own: part.observed(own, resp), self._each(present))
        for own, columns in zip(each, self._places(), strict=True):
            counts[:, np.array(columns)[:, None], np.array(columns)] = own
        return counts

    def embedded(self, x: np.ndarray) -> np.ndarray:
        """The parts' points, side by side."""
        return np.hstack(self._map(lambda part, own: part.embedded(own), self._each(x)))

    # ---- densities, sums, estimates

    def log_density(self, params: ProductParams, x: np.ndarray) -> np.ndarray:
        """(n_rows, K) sums of the parts' log densities."""
        each = self._map(lambda part, p, own: part.log_density(p, own), params.parts, self._each(x))
        total: np.ndarray = np.sum(each, axis=0)
        return total

    def statistics(self, x: np.ndarray, resp: np.ndarray) -> ProductSums:
        """Each part's sums; resp: (n_rows, K), the rows' weights already in."""
        return ProductSums(tuple(self._map(lambda part, own: part.statistics(own, resp), self._each(x))))

    def expected_statistics(self, params: ProductParams, x: np.ndarray, resp: np.ndarray) -> ProductSums:
        """Each part's sums, what is missing being expected from its own columns."""
        each = self._map(lambda part, p, own: part.expected_statistics(p, own, resp), params.parts, self._each(x))
        return ProductSums(tuple(each))

    def estimate(self, stats: ProductSums) -> ProductParams:
        """The parts' estimates; `DegenerateError` names the columns of the one that has none."""
        found = []
        for (columns, part), own in zip(self.parts, stats.parts, strict=True):
            try:
                found.append(part.estimate(own))
            except DegenerateError as error:
                raise DegenerateError(f"{_named(columns)}: {error}") from error
        return self._params(found)

    def expected_loglik(self, params: ProductParams, stats: ProductSums) -> float:
        """Sum of the parts'."""
        return sum(self._map(lambda part, p, s: part.expected_loglik(p, s), params.parts, stats.parts))

    def log_prior(self, params: ProductParams) -> float:
        """Sum of the parts'."""
        return sum(self._map(lambda part, p: part.log_prior(p), params.parts))

    @property
    def separate(self) -> bool:
        """Whether components share no parameter."""
        return all(part.separate for part in self.distributions)

    @property
    def exact(self) -> bool:
        """Whether every part's estimate is."""
        return all(part.exact for part in self.distributions)

    @property
    def bounded(self) -> bool:
        """Whether a part is."""
        return any(part.bounded for part in self.distributions)

    def within_bounds(self, params: ProductParams) -> ProductParams:
        """Each part's."""
        pairs = zip(self.distributions, params.parts, strict=True)
        return replace(params, parts=tuple(part.within_bounds(own) for part, own in pairs))

    # ---- vectors

    @property
    def accelerates(self) -> bool:
        """Whether every part does."""
        return all(part.accelerates for part in self.distributions)

    def to_vector(self, params: ProductParams) -> np.ndarray:
        """The parts' vectors, one after the other."""
        return np.concatenate(self._map(lambda part, p: part.to_vector(p), params.parts))

    def from_vector(self, vector: np.ndarray, n_components: int) -> ProductParams:
        """Inverse of `to_vector`."""
        sizes = self._map(lambda part, own: part.vector_size(n_components, len(own)), self.columns)
        if sum(sizes) != len(vector):
            raise ValueError(f"a vector of length {len(vector)} is not the parts' {sizes}: each needs its vector_size")
        pieces = np.split(vector, np.cumsum(sizes)[:-1])
        return self._params(self._map(lambda part, piece: part.from_vector(piece, n_components), pieces))

    def vector_size(self, n_components: int, n_features: int) -> int:
        """Sum of the parts'."""
        return sum(self._map(lambda part, own: part.vector_size(n_components, len(own)), self.columns))

    def vector_scale(self, params: ProductParams, weights: np.ndarray) -> np.ndarray:
        """The parts' scales, one after the other."""
        return np.concatenate(self._map(lambda part, p: part.vector_scale(p, weights), params.parts))

    # ---- after the fit

    def nbytes(self, n_components: int, n_features: int) -> int:
        """Sum of the parts'."""
        return sum(self._map(lambda part, own: part.nbytes(n_components, len(own)), self.columns))

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Sum of the parts'."""
        return sum(self._map(lambda part, own: part.n_parameters(n_components, len(own)), self.columns))

    def loglik_error(self, params: ProductParams) -> float:
        """Sum of the parts'."""
        return sum(self._map(lambda part, p: part.loglik_error(p), params.parts))

    def degeneracies(self, params: ProductParams) -> list[str]:
        """The parts' boundary solutions, with the columns that they are of."""
        return self._said(self._map(lambda part, p: part.degeneracies(p), params.parts))

    def remarks(self, params: ProductParams) -> list[str]:
        """The parts' remarks, with the columns that they are of."""
        return self._said(self._map(lambda part, p: part.remarks(p), params.parts))

    def _said(self, lines: Sequence[list[str]]) -> list[str]:
        return [f"{_named(own)}: {line}" for own, said in zip(self.columns, lines, strict=True) for line in said]

    def permuted(self, params: ProductParams, order: np.ndarray) -> ProductParams:
        """The components of every part in another order."""
        return self._params(self._map(lambda part, p: part.permuted(p, order), params.parts))

    def sample(self, params: ProductParams, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, d) draws."""
        drawn = self._map(lambda part, p: part.sample(p, labels, rng), params.parts)
        x = np.empty((len(labels), sum(len(own) for own in self.columns)))
        for own, places in zip(drawn, self._places(), strict=True):
            x[:, list(places)] = own
        return x


def _columns(given: Any) -> tuple[Column, ...]:
    """A column or several, as a tuple of names and positions."""
    columns = given if isinstance(given, tuple) else (given,)
    for c in columns:
        place = isinstance(c, (int, np.integer)) and not isinstance(c, bool) and c >= 0
        if not (isinstance(c, str) or place):
            raise ConfigurationError(f"column {c!r} of Product must be a name, or a position that is not negative")
    if not columns:
        raise ConfigurationError("a part of Product has no columns: name at least one")
    return tuple(c if isinstance(c, str) else int(c) for c in columns)


def _once(columns: Sequence[Column]) -> None:
    twice = list(dict.fromkeys(c for c in columns if columns.count(c) > 1))
    if twice:
        raise ConfigurationError(f"Product names {_named(twice)} more than once: each column has one distribution")


def _listed(columns: Sequence[Column]) -> str:
    return ", ".join(repr(c) for c in columns[:20]) + (f" and {len(columns) - 20} more" if len(columns) > 20 else "")


def _named(columns: Sequence[Column]) -> str:
    return f"column{'s' if len(columns) > 1 else ''} {_listed(columns)}"
