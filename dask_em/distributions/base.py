"""What mixtures and chains ask of an observation distribution."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, ClassVar

import numpy as np

from dask_em.distinct import Distinct
from dask_em.errors import DegenerateError
from dask_em.model import Chunk, Params
from dask_em.named_columns import NamedColumns
from dask_em.sums import Sums

_ROUNDING = 1e-13  # of the largest count: what a count of zero may be off by


class Distribution(NamedColumns, ABC):
    """K components of one observation distribution at once. Make it a frozen dataclass of hyperparameters.

    `log_density`, `statistics` and `estimate` are enough to fit.  The parameters are a frozen
    dataclass of arrays, given to `dask_em.store.register` if they are to be saved; the sums are a
    frozen dataclass that subclasses `dask_em.model.Sums`.  What else is not defined says so when it
    is asked for.
    """

    @abstractmethod
    def log_density(self, params: Params, x: np.ndarray) -> np.ndarray:
        """(n_rows, K) log density of each row under each component."""

    @abstractmethod
    def statistics(self, x: np.ndarray, resp: np.ndarray) -> Sums:
        """Sums over rows; resp: (n_rows, K), the rows' weights already in. No rows have sums of zero."""

    def expected_statistics(self, params: Params, x: np.ndarray, resp: np.ndarray) -> Any:
        """The sums that EM takes at given parameters; resp as in `statistics`.

        `statistics` alone, but for a distribution with hidden variables of its own: what it expects of them depends
        on the parameters.
        """
        return self.statistics(x, resp)

    @abstractmethod
    def estimate(self, stats: Any) -> Params:
        """Maximum of `expected_loglik` (plus log prior) over the parameters.

        Raises `DegenerateError` where there is none.
        """

    # ---- what it says of the rows

    accepts_nan: ClassVar[bool] = False  # whether NaN means a value that is missing at random
    accepts_sparse: ClassVar[bool] = False  # whether rows may be a scipy.sparse.csr_array

    @property
    def discrete(self) -> bool:
        """Whether rows are discrete: they have probabilities, and distinct ones with their counts can stand for all."""
        return False

    def summary(self, n_components: int) -> Callable[[Chunk], Any] | None:
        """What sums up rows without loss for so many components, as `Model.summary`; None: nothing.

        `sums_of_summary` takes it in place of rows, unless it is a `Chunk`.
        """
        return Distinct.of if self.discrete else None

    def sums_of_summary(self, summary: Any, params: Params) -> tuple[float, np.ndarray, Any]:
        """(loglik, counts, sums) of a mixture of one component."""
        raise self._lacks("sums_of_summary")

    def check_rows(self, x: np.ndarray) -> None:
        """Raise `RowError` for a value that has no density under any parameters. NaN is none."""

    def within(self, low: np.ndarray, high: np.ndarray) -> Distribution:
        """The same distribution, given the columns' extremes (n_features,)."""
        return self

    def in_units_of(self, variance: np.ndarray) -> Distribution:
        """The same distribution, given the columns' variances (n_features,)."""
        return self

    def modelled(self, names: Sequence[str]) -> list[str]:
        """Those of the columns, given their names, that each have parameters: not an exposure or a response."""
        return list(names)

    def embedded(self, x: np.ndarray) -> np.ndarray:
        """(n_rows, anything) points of which near ones are alike: starts are clusters of them. No NaN."""
        return filled(x)

    def partition(
        self, x: np.ndarray, weight: np.ndarray, n_components: int, rng: np.random.Generator
    ) -> np.ndarray | None:
        """(n_rows,) components to begin from, -1 for rows that have no say; None: clusters of `embedded`."""
        return None

    def from_labels(self, x: np.ndarray, weight: np.ndarray, labels: np.ndarray, n_components: int) -> Params | None:
        """Parameters to begin from, given weighted rows (n,) in clusters; None: by `estimate` of their sums."""
        return None

    # ---- what solvers need

    def log_prior(self, params: Params) -> float:
        """Log prior density of the parameters, up to a constant. Zero: maximum likelihood."""
        return 0.0

    @property
    def separate(self) -> bool:
        """Whether each component has parameters of its own, estimated from its own sums."""
        return True

    @property
    def exact(self) -> bool:
        """Whether `estimate` maximises the likelihood itself, so that it can never fall."""
        return True

    @property
    def bounded(self) -> bool:
        """Whether `estimate` may end at a bound of the parameters, where the expected log-likelihood has a slope."""
        return False

    def within_bounds(self, params: Params) -> Params:
        """The nearest parameters that `estimate` may lead to."""
        return params

    @property
    def accelerates(self) -> bool:
        """Whether it defines what accelerated solvers ask for: `expected_loglik`, `to_vector`, `from_vector`."""
        own = type(self)
        return not any(
            getattr(own, name) is getattr(Distribution, name)
            for name in ("expected_loglik", "to_vector", "from_vector")
        )

    def expected_loglik(self, params: Params, stats: Any) -> float:
        """Sum over rows and components of resp times log density, from the sums: linear in them."""
        raise self._lacks("expected_loglik")

    def to_vector(self, params: Params) -> np.ndarray:
        """The parameters of all components as an unconstrained vector."""
        raise self._lacks("to_vector")

    def from_vector(self, vector: np.ndarray, n_components: int) -> Params:
        """Inverse of `to_vector`."""
        raise self._lacks("from_vector")

    def vector_size(self, n_components: int, n_features: int) -> int:
        """Length of `to_vector`."""
        return self.n_parameters(n_components, n_features)

    def vector_scale(self, params: Params, weights: np.ndarray) -> np.ndarray:
        """Square roots of the information of one row of the mixture about each coordinate of `to_vector`.

        weights: (K,) shares of the components. Ones, where nothing better is known.
        """
        return np.ones_like(self.to_vector(params))

    def about(self, center: np.ndarray) -> Distribution:
        """The same distribution, its sums taken about a centre (n_features,) so that large means cost no digits."""
        return self

    def hides(self, missing: bool) -> bool:
        """Whether its sums are expectations over hidden variables of its own; `missing`: where values are missing."""
        return False

    # ---- what a mixture's E-step and predictions may get faster from

    def mixture_sums(
        self, x: np.ndarray, weight: np.ndarray | None, runs: Sequence[tuple[np.ndarray, Params]]
    ) -> list[tuple[float, np.ndarray, Any]] | None:
        """A mixture's whole E-step at once: (loglik, counts, sums) for each (log_weights, params).

        None: there is no such way, and the mixture goes by `log_density` and `statistics`.
        """
        return None

    def posteriors(self, log_weights: np.ndarray, params: Params, x: np.ndarray, want: str) -> np.ndarray | None:
        """For each row its "labels" (n,), "proba" (n, K) or "loglik" (n,); None: by `log_density`."""
        return None

    # ---- what is asked of a fit

    def nbytes(self, n_components: int, n_features: int) -> int:
        """Bytes of the parameters or the sums, roughly, to refuse in time what cannot fit."""
        return 8 * n_components * n_features

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Free parameters, for information criteria."""
        raise self._lacks("n_parameters")

    def loglik_error(self, params: Params) -> float:
        """Nats a unit of weight by which rounding may move the log-likelihood, 1e-10 of it aside."""
        return 0.0

    def degeneracies(self, params: Params) -> list[str]:
        """Sentences about boundary solutions, such as a collapsed component."""
        return []

    def observed(self, present: np.ndarray, resp: np.ndarray) -> np.ndarray:
        """(K, d, d) rows that say anything of parameters of two columns, and on the diagonal of one; infinite: none is.

        present: (n_rows, d) 1 where a value is observed; resp: (n_rows, K), the rows' weights already in.
        """
        counts = np.full((resp.shape[1], present.shape[1], present.shape[1]), np.inf)
        np.einsum("kii->ki", counts)[...] = resp.T @ present
        return counts

    def remarks(self, params: Params) -> list[str]:
        """Sentences about limits that are no fault, such as counts that are Poisson's."""
        return []

    def permuted(self, params: Params, order: np.ndarray) -> Params:
        """The components in another order: here of every array of a dataclass, along its first axis."""
        if not is_dataclass(params) or isinstance(params, type):
            raise self._lacks("permuted")
        arrays = {f.name: getattr(params, f.name) for f in fields(params)}
        if not all(isinstance(a, np.ndarray) and a.shape[:1] == (len(order),) for a in arrays.values()):
            raise self._lacks("permuted")
        return replace(params, **{name: a[order] for name, a in arrays.items()})

    def sample(self, params: Params, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, n_features) draws, row i from component labels[i]."""
        raise self._lacks("sample")

    def _lacks(self, name: str) -> TypeError:
        return TypeError(f"{type(self).__name__} does not define {name}, which is needed here")


def alike(a: Any, b: Any) -> bool:
    """Whether two distributions, or hyperparameters of theirs, are the same."""
    if type(a) is not type(b):
        return False
    if is_dataclass(a):
        return all(alike(getattr(a, f.name), getattr(b, f.name)) for f in fields(a) if f.compare)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(alike, a, b))
    return bool(a == b)


def real_numbers(value: Any, count: int) -> bool:
    """Whether a hyperparameter is so many real numbers."""
    several = isinstance(value, (tuple, list, np.ndarray)) and np.shape(value) == (count,)
    kinds = (int, float, np.integer, np.floating)
    return several and all(isinstance(v, kinds) and not isinstance(v, bool) for v in value)


def filled(x: np.ndarray) -> np.ndarray:
    """Rows as float64, in which what is missing is its column's mean."""
    x = np.array(x, dtype=np.float64)
    gaps = np.isnan(x)
    if gaps.any():
        present = np.maximum((~gaps).sum(axis=0), 1)
        means = np.where(gaps, 0.0, x).sum(axis=0) / present
        x[gaps] = np.broadcast_to(means, x.shape)[gaps]
    return x


def components_have(which: Sequence[int] | np.ndarray) -> str:
    """The beginning of a sentence about components: "2 components (0, 3) have"."""
    names = ", ".join(str(int(k)) for k in which[:8]) + (", ..." if len(which) > 8 else "")
    return f"{len(which)} component{'s' if len(which) > 1 else ''} ({names}) {'have' if len(which) > 1 else 'has'}"


def possible_counts(counts: np.ndarray) -> np.ndarray:
    """Counts (K,), in which a negative one that is only rounding is zero.

    Raises
    ------
    DegenerateError
        A count is negative, or all are zero: no rows have such sums, though a solver's combination of
        sums may.
    """
    low, total = counts.min(), counts.sum()
    if total > 0 and low >= 0:
        return counts
    if not total > 0 or not np.isfinite(low) or low < -_ROUNDING * np.abs(counts).max():
        k = int(np.argmin(counts))
        raise DegenerateError(
            f"component {k} has a count of {counts[k]:.3g} of {total:.3g} rows, which no rows have: a step of the "
            "solver went too far; go on from the last M-step of sums over rows"
        )
    return np.maximum(counts, 0.0)
