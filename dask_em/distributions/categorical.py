"""Answers to questions: independent categorical columns (latent class analysis)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from dask_em import store
from dask_em.distributions.base import Distribution, possible_counts
from dask_em.distributions.columns import exp_or_zero, finite_log
from dask_em.errors import ConfigurationError, RowError
from dask_em.sums import Sums

_MOST = 10_000  # categories of a column


@store.register
@dataclass(frozen=True)
class CategoricalParams:
    """Probabilities (K, d, C) of the categories, zero beyond a column's own."""

    probabilities: np.ndarray


@store.register
@dataclass(frozen=True)
class CategoricalSums(Sums):
    """Expected counts (K, d, C) of each category."""

    counts: np.ndarray


@store.register
@dataclass(frozen=True)
class Categorical(Distribution):
    """Codes 0, 1, ..., or text, each column of each component with probabilities of its own.

    Missing values (NaN) are taken as missing at random.

    Parameters
    ----------
    n_categories : int or sequence of int, optional
        Categories of every column, or of each.  Default: one more than the largest code of the column.
    prior : float, optional
        Number of times that each category has been seen before, in every component and column: a Dirichlet
        prior.  Default: none.
    levels : tuple, optional
        Of each column of text the texts that codes 0, 1, ... stand for, else None.  Found in a fit: categories as
        a frame declares them, in their order; otherwise the distinct texts, sorted, which takes a read of
        the columns of text, before the passes that `n_passes_` counts.

    Notes
    -----
    Text is taken from the columns of pandas and Dask frames and of Parquet files, and nulls are missing values.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> rng = np.random.default_rng(0)
    >>> x = np.where(rng.random((1000, 5)) < 0.8, np.repeat([[0], [2]], 500, axis=0), 1)
    >>> mix = em.Mixture(2, em.Categorical(), random_state=0).fit(x)
    >>> mix.probabilities_.shape
    (2, 5, 3)
    """

    n_categories: int | Sequence[int] | None = None
    prior: float = 0.0
    levels: tuple[tuple[str, ...] | None, ...] | None = None

    accepts_nan: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.n_categories is not None:
            given = np.atleast_1d(np.asarray(self.n_categories))
            if not (given.dtype.kind in "iu" and given.ndim == 1 and (given >= 1).all()):
                raise ConfigurationError(f"n_categories={self.n_categories!r} must be whole numbers of at least 1")
            if not isinstance(self.n_categories, int):  # a tuple, so that it can be compared
                object.__setattr__(self, "n_categories", tuple(int(c) for c in given))
        if not (isinstance(self.prior, (int, float, np.number)) and self.prior >= 0):
            raise ConfigurationError(f"prior={self.prior!r} must be a number that is not negative")

    @property
    def discrete(self) -> bool:
        """Rows of codes repeat."""
        return True

    def within(self, low: np.ndarray, high: np.ndarray) -> Categorical:
        """With the numbers of categories that the largest codes show."""
        if self.n_categories is None:
            known = [len(own or ()) for own in self.levels or [()] * len(high)]
            return replace(self, n_categories=tuple(max(int(c) + 1, n) for c, n in zip(high, known, strict=True)))
        return replace(self, n_categories=tuple(int(c) for c in self._sizes(len(high))))

    def takes_text(self, name: str, position: int) -> bool:
        """Any column may be."""
        return True

    def with_levels(self, names: Sequence[str] | None, levels: Mapping[str, tuple[str, ...]]) -> Categorical:
        """With the texts that codes stand for."""
        own = tuple(levels.get(name) for name in names or ())
        return replace(self, levels=own if any(own) else None)

    def levels_of(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The texts that codes stand for."""
        return {name: own for name, own in zip(names, self.levels or ()) if own is not None}

    def categories_of(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Levels of columns of text, and codes of others, as many as there are."""
        levels = self.levels_of(names)
        codes = [tuple(map(str, range(int(size)))) for size in self._sizes(len(names))]
        return {name: levels.get(name, own) for name, own in zip(names, codes, strict=True)}

    def check_rows(self, x: np.ndarray) -> None:
        """Raise `RowError` for what is no code."""
        most = float(_MOST) if self.n_categories is None else self._sizes(x.shape[1])
        wrong: np.ndarray = (x < 0) | (np.floor(x) < x) | (x >= most)
        if wrong.any():
            row = int(np.flatnonzero(wrong.any(axis=1))[0])
            column = int(np.flatnonzero(wrong[row])[0])
            top = int(np.broadcast_to(most, x.shape[1])[column]) - 1
            raise RowError(row, column, f"is {x[row, column]:g}, where Categorical needs a code from 0 to {top}")

    def _sizes(self, d: int) -> np.ndarray:
        if self.n_categories is None:
            raise ConfigurationError("n_categories is not known before a fit has seen the data: give it")
        sizes = np.atleast_1d(np.asarray(self.n_categories))
        if len(sizes) not in (1, d):
            raise ConfigurationError(f"n_categories names {len(sizes)} columns, and the data has {d}")
        return np.broadcast_to(sizes, d)

    def embedded(self, x: np.ndarray) -> np.ndarray:
        """A column of zeros and ones for each category."""
        x = np.asarray(x, dtype=np.float64)
        size = int(np.nanmax(x, initial=0)) + 1
        return _indicators(x, size).reshape(len(x), x.shape[1] * size)

    def log_density(self, params: CategoricalParams, x: np.ndarray) -> np.ndarray:
        """(n_rows, K) log probabilities of what is observed of each row."""
        k, d, size = params.probabilities.shape
        x = np.asarray(x, dtype=np.float64)
        beyond = ((x >= size) | (x < 0)).any(axis=1)  # never seen before: impossible
        told = _indicators(np.where(x < size, x, np.nan), size).reshape(len(x), d * size)
        joint: np.ndarray = told @ finite_log(params.probabilities).reshape(k, d * size).T
        joint[beyond] = -np.inf
        return joint

    def statistics(self, x: np.ndarray, resp: np.ndarray) -> CategoricalSums:
        """Counts of what is observed; resp: (n_rows, K), the rows' weights already in."""
        (_, d), (_, k) = x.shape, resp.shape
        size = int(self._sizes(d).max())
        told = _indicators(x, size).reshape(len(x), d * size)
        return CategoricalSums((resp.T @ told).reshape(k, d, size))

    def estimate(self, stats: CategoricalSums) -> CategoricalParams:
        """Shares; a component that has none of a column takes the shares of all."""
        k, d, size = stats.counts.shape
        counts: Any = np.array([possible_counts(c) if c.any() else c for c in stats.counts.reshape(k, d * size)])
        counts = counts.reshape(k, d, size)
        if self.prior:
            sizes = self._sizes(d)
            counts = counts + self.prior * (np.arange(size) < sizes[:, None])
        total = counts.sum(axis=2, keepdims=True)
        overall = counts.sum(axis=0) / np.maximum(counts.sum(axis=(0, 2))[:, None], 1e-300)
        return CategoricalParams(np.where(total > 0, counts / np.where(total > 0, total, 1.0), overall))

    def expected_loglik(self, params: CategoricalParams, stats: CategoricalSums) -> float:
        """Σ N log p."""
        return float(np.vdot(stats.counts, finite_log(params.probabilities)))

    def log_prior(self, params: CategoricalParams) -> float:
        """Of the Dirichlet prior."""
        if not self.prior:
            return 0.0
        own = np.arange(params.probabilities.shape[2]) < self._sizes(params.probabilities.shape[1])[:, None]
        return float(self.prior * finite_log(params.probabilities)[:, own].sum())

    def to_vector(self, params: CategoricalParams) -> np.ndarray:
        """Log probabilities."""
        return finite_log(params.probabilities).ravel()

    def from_vector(self, vector: np.ndarray, n_components: int) -> CategoricalParams:
        """Inverse of `to_vector`, made to sum to one."""
        size = int(np.max(np.asarray(self.n_categories)))
        p = vector.reshape(n_components, -1, size)
        p = exp_or_zero(p - p.max(axis=2, keepdims=True))
        return CategoricalParams(p / p.sum(axis=2, keepdims=True))

    def vector_size(self, n_components: int, n_features: int) -> int:
        """As many for each column as the one with most categories has."""
        return int(n_components * n_features * self._sizes(n_features).max())

    def vector_scale(self, params: CategoricalParams, weights: np.ndarray) -> np.ndarray:
        """√(π p): along directions in which probabilities still sum to one, this is the information."""
        return np.sqrt(weights[:, None, None] * params.probabilities).ravel()

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """One less than its categories for each component and column."""
        return int(n_components * (self._sizes(n_features) - 1).sum())

    def nbytes(self, n_components: int, n_features: int) -> int:
        """Bytes of the parameters, if they can be known."""
        size = 8 if self.n_categories is None else int(np.max(np.asarray(self.n_categories)))
        return 8 * n_components * n_features * size

    def sample(self, params: CategoricalParams, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, d) codes."""
        edges = np.cumsum(params.probabilities, axis=2)[labels]  # (n, d, C)
        u = rng.random(edges.shape[:2])[..., None] * edges[..., -1:]
        return (u >= edges).sum(axis=2).astype(np.float64)


def _indicators(x: Any, size: int) -> np.ndarray:
    """(n, d, size) zeros and ones, all zero where a value is missing."""
    x = np.asarray(x, dtype=np.float64)
    told = np.zeros((*x.shape, size))
    rows, columns = np.nonzero(~np.isnan(x))
    told[rows, columns, x[rows, columns].astype(np.intp)] = 1.0
    return told
