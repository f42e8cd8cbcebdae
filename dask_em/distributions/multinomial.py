"""Rows that are counts of categories, such as the words of a document: multinomial, given the row's total.

With n = Σ_j x_j the density is  n! / Π x_j!  Π p_jˣʲ,  the total taken as given.  The sums are T = Σ r x, and the
M-step is  p = T / Σ_j T_j  (Nigam, McCallum, Thrun and Mitchell 2000, section 3).

Where counts of a row are missing, the others o are as likely as multinomial ones of their own total n_o, whose
probabilities are p_j / P_o with P_o = Σ_o p_j.  That is the likelihood where the missing ones are hidden, and negative
multinomial given the others, with the means n_o p_j / P_o.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import csr_array, issparse
from scipy.special import gammaln

from dask_em import store
from dask_em.distributions.base import Distribution, possible_counts
from dask_em.distributions.columns import exp_or_zero, finite_log, refuse
from dask_em.errors import ConfigurationError, RowError
from dask_em.sums import Sums

_DIRECTIONS = 64  # of a projection that starts are clusters in, which keeps distances between rows nearly as they are
_SHOULD = "a whole number that is not negative"


@store.register
@dataclass(frozen=True)
class MultinomialParams:
    """Probabilities (K, d) of the categories, which sum to one."""

    probabilities: np.ndarray


@store.register
@dataclass(frozen=True)
class MultinomialSums(Sums):
    """Expected counts (K, d) of the categories, and the part no parameter enters, (K,)."""

    totals: np.ndarray
    base: np.ndarray


@store.register
@dataclass(frozen=True)
class Multinomial(Distribution):
    """Rows of counts, one column for each category, with probabilities of its own for each component.

    The log-likelihood is that of the counts given each row's total, multinomial coefficient included.  A row without
    any counts is as likely under every component.  Rows may be sparse, as a `scipy.sparse` array, or a dask array of
    such chunks; they are never made dense.  Where counts of dense rows are missing (NaN), the others are taken given
    their own total; whether one is missing must not depend on the row's counts, as its whole total is not known.

    Parameters
    ----------
    prior : float, default 0.0
        Number of times that each category has been seen before, in every component: a Dirichlet prior with this
        plus one, whose mode is then found in place of maximum likelihood.  1 is Laplace's.
    total : int, optional
        Counts of a row that is drawn with `sample`.  Default: the data's average.
    mean_total : float, optional
        The average; set by a fit.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> rng = np.random.default_rng(0)
    >>> words = np.vstack([rng.multinomial(20, [0.6, 0.3, 0.1], 500), rng.multinomial(20, [0.1, 0.3, 0.6], 500)])
    >>> mix = em.Mixture(2, em.Multinomial(), random_state=0, verbose=0).fit(words)
    >>> np.sort(mix.probabilities_[:, 0]).round(1).tolist()
    [0.1, 0.6]
    """

    prior: float = 0.0
    total: int | None = None
    mean_total: float | None = field(default=None, compare=False, repr=False)

    accepts_nan: ClassVar[bool] = True
    accepts_sparse: ClassVar[bool] = True

    def __post_init__(self) -> None:
        number = isinstance(self.prior, (int, float, np.number)) and not isinstance(self.prior, bool)
        if not (number and np.isfinite(self.prior) and self.prior >= 0):
            raise ConfigurationError(f"prior={self.prior!r} must be a number that is not negative")
        whole = isinstance(self.total, (int, np.integer)) and not isinstance(self.total, bool)
        if not (self.total is None or (whole and self.total >= 0)):
            raise ConfigurationError(f"total={self.total!r} must be a whole number that is not negative, or None")

    def about(self, center: np.ndarray) -> Multinomial:
        """The same distribution, told the columns' means."""
        return replace(self, mean_total=float(np.sum(center)))

    # ---- rows

    def check_rows(self, x: Any) -> None:
        """Raise `RowError` for what is no count."""
        values = x.data if issparse(x) else x
        wrong = (values < 0) | (np.floor(values) < values)
        if not issparse(x):
            refuse("Multinomial", x, wrong, _SHOULD)
            return
        wrong |= np.isnan(values)
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            row = int(np.searchsorted(x.indptr, first, side="right")) - 1
            value = "NaN" if np.isnan(values[first]) else f"{values[first]:g}"
            raise RowError(row, int(x.indices[first]), f"is {value}, where Multinomial needs {_SHOULD}")

    def embedded(self, x: Any) -> np.ndarray:
        """Square roots of the shares of each row, many columns projected at random to a few.

        Between roots distances are Hellinger's, which do not depend on how frequent a category is (Johnson and
        Lindenstrauss 1984 for the projection).
        """
        roots = _completed(_floats(x))
        total = np.asarray(roots.sum(axis=1))
        scale = 1 / np.sqrt(np.where(total > 0, total, 1.0))
        if issparse(roots):
            each = np.sqrt(roots.data) * np.repeat(scale, np.diff(roots.indptr))
            roots = csr_array((each, roots.indices, roots.indptr), shape=roots.shape)
        else:
            roots = np.sqrt(roots) * scale[:, None]
        d = roots.shape[1]
        if d > _DIRECTIONS:
            signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(d, _DIRECTIONS))
            return np.asarray(roots @ signs)
        return roots.toarray() if issparse(roots) else roots

    def log_density(self, params: MultinomialParams, x: Any) -> np.ndarray:
        """(n_rows, K) log probabilities of the rows, given the totals of what is observed of them."""
        x, seen = _observed(x)
        joint: np.ndarray = x @ finite_log(params.probabilities).T + _log_coefficients(x)[:, None]
        if seen is not None:
            joint -= x.sum(axis=1)[:, None] * finite_log(seen @ params.probabilities.T)
        return joint

    @property
    def discrete(self) -> bool:
        """Rows of small counts repeat."""
        return True

    def hides(self, missing: bool) -> bool:
        """Missing counts."""
        return missing

    # ---- sums and estimates

    def statistics(self, x: Any, resp: np.ndarray) -> MultinomialSums:
        """Sums of the counts, missing ones as all rows have them; resp: (n_rows, K), the rows' weights already in."""
        x = _completed(_floats(x))
        return MultinomialSums(np.ascontiguousarray((x.T @ resp).T), resp.T @ _log_coefficients(x))

    def expected_statistics(self, params: MultinomialParams, x: Any, resp: np.ndarray) -> MultinomialSums:
        """Sums of the counts, missing ones as the others of their row have them expected."""
        x, seen = _observed(x)
        totals = (x.T @ resp).T
        if seen is not None:
            p = params.probabilities
            share = seen @ p.T  # P_o
            whole = np.divide(x.sum(axis=1)[:, None], share, out=np.zeros_like(share), where=share > 0)
            totals = totals + p * ((resp * whole).T @ (1 - seen))
        return MultinomialSums(np.ascontiguousarray(totals), resp.T @ _log_coefficients(x))

    def estimate(self, stats: MultinomialSums) -> MultinomialParams:
        """Shares of the counts; a component without any takes those of all, and if there are none, equal ones."""
        totals = np.array([possible_counts(own) if own.any() else own for own in stats.totals]) + self.prior
        sums = totals.sum(axis=1, keepdims=True)
        overall = totals.sum(axis=0)
        overall = overall / overall.sum() if overall.any() else np.full(len(overall), 1 / len(overall))
        return MultinomialParams(np.where(sums > 0, totals / np.where(sums > 0, sums, 1.0), overall))

    def expected_loglik(self, params: MultinomialParams, stats: MultinomialSums) -> float:
        """Σ T log p plus what no parameter enters."""
        return float(np.vdot(stats.totals, finite_log(params.probabilities)) + stats.base.sum())

    def log_prior(self, params: MultinomialParams) -> float:
        """Of the Dirichlet prior."""
        return float(self.prior * finite_log(params.probabilities).sum()) if self.prior else 0.0

    # ---- vectors

    def to_vector(self, params: MultinomialParams) -> np.ndarray:
        """Log probabilities."""
        return finite_log(params.probabilities).ravel()

    def from_vector(self, vector: np.ndarray, n_components: int) -> MultinomialParams:
        """Inverse of `to_vector`, made to sum to one."""
        p = vector.reshape(n_components, -1)
        p = exp_or_zero(p - p.max(axis=1, keepdims=True))
        return MultinomialParams(p / p.sum(axis=1, keepdims=True))

    def vector_size(self, n_components: int, n_features: int) -> int:
        """All probabilities."""
        return n_components * n_features

    def vector_scale(self, params: MultinomialParams, weights: np.ndarray) -> np.ndarray:
        """√(π n p), n being the average total: along directions in which probabilities still sum to one."""
        n = 1.0 if self.mean_total is None else self.mean_total
        return np.sqrt(n * weights[:, None] * params.probabilities).ravel()

    # ---- after the fit

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """One less than its categories for each component."""
        return n_components * (n_features - 1)

    def sample(self, params: MultinomialParams, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, d) counts, of `total` in each row."""
        total = self.mean_total if self.total is None else self.total
        if total is None:
            raise ConfigurationError("Multinomial does not know how many counts a row is to have: give it a total")
        p = params.probabilities
        return rng.multinomial(round(total), (p / p.sum(axis=1, keepdims=True))[labels]).astype(np.float64)


def _floats(x: Any) -> Any:
    return x.astype(np.float64) if issparse(x) else np.asarray(x, dtype=np.float64)


def _observed(x: Any) -> tuple[Any, np.ndarray | None]:
    """Counts, those that are missing being zero, and which are not, as ones and zeros; None: none is missing."""
    x = _floats(x)
    if issparse(x) or not np.isnan(x).any():
        return x, None
    missing = np.isnan(x)
    return np.where(missing, 0.0, x), (~missing).astype(np.float64)


def _completed(x: Any) -> Any:
    """Counts, those that are missing in the shares that the columns have in all rows."""
    x, seen = _observed(x)
    if seen is None:
        return x
    own = x.sum(axis=1, keepdims=True)
    share = x.sum(axis=0) / np.maximum((seen * own).sum(axis=0), 1.0)
    among = (seen @ share)[:, None]
    expected = np.divide(own * share, among, out=np.zeros_like(x), where=among > 0)
    return np.where(seen > 0, x, expected)


def _log_coefficients(x: Any) -> np.ndarray:
    """Log n! / Π x_j! of each row, (n,)."""
    if issparse(x):
        rows, values = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr)), x.data
    else:
        rows, columns = np.nonzero(x > 1)  # 0! and 1! are 1, and most counts of words are such
        values = x[rows, columns]
    own = np.bincount(rows, gammaln(values + 1), x.shape[0])
    found: np.ndarray = gammaln(np.asarray(x.sum(axis=1)) + 1) - own
    return found
