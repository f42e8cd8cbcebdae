"""Counts with more spread than Poisson's: independent negative binomial columns.

A count has the mean m and the variance m + m²/s, s being the size:  p(x) = Γ(x+s) / (Γ(s) x!) (m/(s+m))ˣ (s/(s+m))ˢ.
The sums are N = Σ r, T = Σ r x and a table of the counts, from which Σ r log (Γ(x+s) / Γ(s)) is known at any s.  The
likelihood has its maximum at m = T/N and the s that solves

    Σ r (ψ(x+s) - ψ(s)) = N log(1 + m/s),

which is the only solution, and there is none if the variance of the counts is not above their mean (Aragón, Eberly
and Eberly 1992): the likelihood then rises with s to that of a Poisson distribution.  With a gamma(a, b) prior on m,
whose mode at s solves b m² + (N s + b s - a + 1) m = (T + a - 1) s, the slope in s along m(s) has (N m - T) / (s + m)
as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
from scipy.special import gammaln, polygamma

from dask_em import store
from dask_em.distributions.base import Distribution, components_have, filled, possible_counts, real_numbers
from dask_em.distributions.columns import exp_or_zero, finite_log, observed, refuse
from dask_em.distributions.count_table import cell_values, in_cells, n_cells
from dask_em.errors import ConfigurationError
from dask_em.kernels.rising import log_rising, rising_slopes
from dask_em.sums import Sums

_SIZES = (1e-6, 1e9)  # the largest is Poisson's: a count of a mean of a thousand has a millionth more variance
_STEPS = 100  # of Newton's method, which needs six
_AT_BOUND = 1 - 1e-9


@store.register
@dataclass(frozen=True)
class NegativeBinomialParams:
    """Means (K, d), and sizes (K, d): a count's variance is mean + mean² / size."""

    means: np.ndarray
    sizes: np.ndarray


@store.register
@dataclass(frozen=True)
class NegativeBinomialSums(Sums):
    """Expected counts of observed values and their totals, (K, d), tables (K, d, cells), and Σ r log x!, (K,).

    A table is as long as the largest count so far needs.
    """

    counts: np.ndarray
    totals: np.ndarray
    table: np.ndarray
    factorials: np.ndarray

    def _with(self, other: Self, f: Any) -> Self:
        n = max(self.table.shape[2], other.table.shape[2])
        return super(NegativeBinomialSums, self._longer(n))._with(other._longer(n), f)

    def _longer(self, n: int) -> Self:
        more = n - self.table.shape[2]
        return replace(self, table=np.pad(self.table, ((0, 0), (0, 0), (0, more)))) if more else self


@store.register
@dataclass(frozen=True)
class NegativeBinomial(Distribution):
    """Counts with more spread than Poisson's, each column of each component with a mean of its own.

    Missing values (NaN) are taken as missing at random.  Of counts with no more spread than Poisson's, the size is
    1e9, at which the distribution is Poisson's, and `message_` says so.

    Parameters
    ----------
    size : {"each", "shared"} or float, default "each"
        The sizes s, where a variance is mean + mean²/s: estimated for each column of each component, or for each
        column, the same for all components; or a number that they are held at (1: geometric).
    prior : (shape, rate), optional
        Of a gamma prior on every mean, as `Poisson` has it of rates; the mode is then found in place of maximum
        likelihood.  Default: none.
    size_prior : (shape, rate), optional
        Of a gamma prior on every size that is estimated.  It keeps sizes finite.  Default: none.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> rng = np.random.default_rng(0)
    >>> counts = np.concatenate([rng.negative_binomial(4, 0.5, 9000), rng.negative_binomial(4, 0.05, 9000)])[:, None]
    >>> mix = em.Mixture(2, em.NegativeBinomial(size="shared"), random_state=0, verbose=0).fit(counts)
    >>> np.sort(mix.means_.ravel()).round().tolist(), mix.sizes_.ravel().round().tolist()
    ([4.0, 76.0], [4.0, 4.0])
    """

    size: Literal["each", "shared"] | float = "each"
    prior: tuple[float, float] | None = None
    size_prior: tuple[float, float] | None = None

    accepts_nan: ClassVar[bool] = True

    def __post_init__(self) -> None:
        number = isinstance(self.size, (int, float, np.number)) and not isinstance(self.size, bool)
        named = isinstance(self.size, str) and self.size in ("each", "shared")
        if not (named or (number and _SIZES[0] <= cast(float, self.size) <= _SIZES[1])):
            raise ConfigurationError(
                f"size={self.size!r} must be 'each', 'shared', or a number from {_SIZES[0]:g} to {_SIZES[1]:g}, "
                "beyond which there is Poisson()"
            )
        for name in ("prior", "size_prior"):
            value = getattr(self, name)
            if value is not None and not (real_numbers(value, 2) and value[0] >= 1 and value[1] >= 0):
                raise ConfigurationError(
                    f"{name}={value!r} must be a shape of at least 1 and a rate that is not negative"
                )
        if self.prior is not None and self.prior[0] > 1 and not self.prior[1] > 0:
            raise ConfigurationError(f"prior={self.prior!r} has no rate, so that means have no bound: give one above 0")
        if self.size_prior is not None and not named:
            raise ConfigurationError(
                f"size_prior={self.size_prior!r} is of sizes that are estimated, and size={self.size!r}"
            )

    @property
    def separate(self) -> bool:
        """Whether components share no parameter."""
        return self.size != "shared"

    @property
    def discrete(self) -> bool:
        """Counts repeat."""
        return True

    # ---- rows

    def check_rows(self, x: np.ndarray) -> None:
        """Raise `RowError` for what is no count."""
        refuse("NegativeBinomial", x, (x < 0) | (np.floor(x) < x), "a whole number that is not negative")

    def embedded(self, x: np.ndarray) -> np.ndarray:
        """Logarithms of one plus the counts, whose spread depends little on the mean."""
        logs: np.ndarray = np.log1p(filled(x))
        return logs

    def log_density(self, params: NegativeBinomialParams, x: np.ndarray) -> np.ndarray:
        """(n_rows, K) log probabilities of what is observed of each row."""
        x, seen = observed(x)
        m, s = params.means, params.sizes
        rising = np.stack([log_rising(x, own).sum(axis=1) for own in s], axis=1)
        joint: np.ndarray = rising - gammaln(x + 1).sum(axis=1)[:, None] + x @ (finite_log(m) - np.log(s + m)).T
        none = s * np.log1p(m / s)  # less the log probability of zero
        return joint - (none.sum(axis=1) if seen is None else seen @ none.T)

    # ---- sums and estimates

    def statistics(self, x: np.ndarray, resp: np.ndarray) -> NegativeBinomialSums:
        """Sums of what is observed; resp: (n_rows, K), the rows' weights already in."""
        x, seen = observed(x)
        counts = np.repeat(resp.sum(axis=0)[:, None], x.shape[1], axis=1) if seen is None else resp.T @ seen
        n = n_cells(x.max(initial=0.0))
        table = np.empty((resp.shape[1], x.shape[1], n))
        for j, column in enumerate(x.T):
            own = resp if seen is None else resp * seen[:, j, None]
            table[:, j] = (in_cells(column, n).T @ own).T
        return NegativeBinomialSums(counts, resp.T @ x, table, resp.T @ gammaln(x + 1).sum(axis=1))

    def estimate(self, stats: NegativeBinomialSums) -> NegativeBinomialParams:
        """Means, and the sizes of highest likelihood; a component that has none of a column takes those of all."""
        counts = np.array([possible_counts(column) for column in stats.counts.T]).T
        void = counts <= 0
        counts, totals, table = (
            np.where(void.reshape(void.shape + (1,) * (s.ndim - 2)), s.sum(axis=0), s)
            for s in (counts, np.maximum(stats.totals, 0.0), stats.table)
        )
        if not isinstance(self.size, str):
            sizes = np.full(totals.shape, float(self.size))
        elif self.size == "each":
            sizes = self._sizes(counts[None], totals[None], table[None])
        else:  # a component without rows of its own has no say in what it shares
            own = np.where(void, 0.0, counts), np.where(void, 0.0, totals), np.where(void[..., None], 0.0, table)
            sizes = np.repeat(self._sizes(*own)[None], len(totals), axis=0)
        return NegativeBinomialParams(self._means(counts, totals, sizes), sizes)

    def _means(self, counts: np.ndarray, totals: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Means at given sizes: the positive root of a quadratic; without a prior it is the mean of the counts."""
        if self.prior is None:
            return totals / np.where(counts > 0, counts, 1.0)
        more, rate = self.prior[0] - 1, self.prior[1]
        linear, right = counts * sizes + rate * sizes - more, (totals + more) * sizes
        root = np.sqrt(linear**2 + 4 * rate * right)
        with np.errstate(divide="ignore", invalid="ignore"):  # the one of both forms that is not taken
            means = np.where(linear > 0, 2 * right / (root + linear), (root - linear) / (2 * rate))
        return np.nan_to_num(means, nan=0.0, posinf=0.0)  # no rows, and a flat prior

    def _sizes(self, counts: np.ndarray, totals: np.ndarray, table: np.ndarray) -> np.ndarray:
        """Sizes (...), each shared by a first axis of counts and totals (G, ...) and tables (G, ..., cells).

        Newton's method in log s on the slope there, halving the bracket where it would leave it.
        """
        values = cell_values(table.shape[-1])
        extra, rate = (0.0, 0.0) if self.size_prior is None else (self.size_prior[0] - 1, self.size_prior[1])
        summed, n = table.sum(axis=0), counts.sum(axis=0)

        def slopes(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            first, second = rising_slopes(values, s[..., None])
            means = self._means(counts, totals, s)
            pulled = 0.0 if self.prior is None else counts * means - totals
            slope = np.vecdot(summed, first) - (counts * np.log1p(means / s) - pulled / (s + means)).sum(axis=0)
            bend = -np.vecdot(summed, second) + (counts * means / (s * (s + means))).sum(axis=0)
            if self.prior is not None:
                cross = -pulled / (s + means) ** 2
                own = (totals + counts * s) / (s + means) ** 2
                with np.errstate(divide="ignore", invalid="ignore"):
                    own = own - (totals + self.prior[0] - 1) / means**2
                    follows = np.where(means > 0, cross**2 / own, 0.0)
                bend = bend + (cross - follows).sum(axis=0)
            slope = s * (slope - rate)
            return slope + extra, slope + s**2 * bend

        low, high = (np.full(n.shape, np.log(bound)) for bound in _SIZES)
        means = totals / np.where(counts > 0, counts, 1.0)
        off = values - means[..., None]
        over = (np.vecdot(table, off**2) - counts * means).sum(axis=0)  # what moments say of N m²/s
        with np.errstate(divide="ignore", invalid="ignore"):
            guess = np.log((counts * means**2).sum(axis=0) / np.maximum(over, 0.0))
        u = np.clip(np.nan_to_num(guess, nan=0.0), low, high)
        endless = slopes(np.exp(high))[0] >= 0
        low, u = np.where(endless, high, low), np.where(endless, high, u)
        for _ in range(_STEPS):
            slope, bend = slopes(np.exp(u))
            low, high = np.where(slope > 0, u, low), np.where(slope > 0, high, u)
            new = u - slope / np.where(bend < 0, bend, 1.0)
            new = np.where((bend < 0) & (new > low) & (new < high), new, (low + high) / 2)
            done = np.abs(new - u) <= 1e-13
            u = new
            if done.all():
                break
        return np.exp(u)

    def expected_loglik(self, params: NegativeBinomialParams, stats: NegativeBinomialSums) -> float:
        """Σ r log (Γ(x+s) / Γ(s)) - N s log(1 + m/s) + T log(m / (s+m)) - Σ r log x!."""
        m, s = params.means, params.sizes
        rising = np.vdot(stats.table, log_rising(cell_values(stats.table.shape[2]), s[..., None]))
        own = np.vdot(stats.totals, finite_log(m) - np.log(s + m)) - np.vdot(stats.counts, s * np.log1p(m / s))
        return float(rising + own - stats.factorials.sum())

    def _own(self, sizes: np.ndarray) -> np.ndarray:
        """(K, d), (1, d) or (0, d): those that are estimated."""
        return sizes[: {"each": None, "shared": 1}.get(str(self.size), 0)]

    def log_prior(self, params: NegativeBinomialParams) -> float:
        """(shape - 1) log x - rate x, of means and of the sizes that are estimated."""
        each = ((self.prior, params.means), (self.size_prior, self._own(params.sizes)))
        return sum(float(((p[0] - 1) * finite_log(x) - p[1] * x).sum()) for p, x in each if p is not None)

    # ---- vectors

    def to_vector(self, params: NegativeBinomialParams) -> np.ndarray:
        """Log means, then the log sizes that are estimated."""
        return np.concatenate([finite_log(params.means).ravel(), np.log(self._own(params.sizes)).ravel()])

    def from_vector(self, vector: np.ndarray, n_components: int) -> NegativeBinomialParams:
        """Inverse of `to_vector`; sizes within their bounds."""
        own = {"each": n_components, "shared": 1}.get(str(self.size), 0)
        rows = vector.reshape(n_components + own, -1)
        means = exp_or_zero(rows[:n_components])
        sizes = np.exp(np.clip(rows[n_components:], *np.log(_SIZES))) if own else np.full((1, 1), self.size)
        return NegativeBinomialParams(means, np.broadcast_to(sizes, means.shape).astype(np.float64))

    def vector_scale(self, params: NegativeBinomialParams, weights: np.ndarray) -> np.ndarray:
        """√(π m s / (s+m)) of the means; of the sizes, from above.

        What a size is known by is at most what gamma rates would tell of it, had they been seen, or the tables of
        a Chinese restaurant (Zhou and Carin 2015, section 3).
        """
        m, s, w = params.means, params.sizes, weights[:, None]
        of_means = m * s / (s + m)
        of_rates = (m / (s + m)) ** 2 * (s**2 * polygamma(1, s) - s)
        of_tables = s * np.log1p(m / s) - of_means
        of_sizes = w * np.maximum(np.minimum(of_rates, of_tables), 0.0)
        own = of_sizes.sum(axis=0)[None] if self.size == "shared" else self._own(of_sizes)
        return np.sqrt(np.concatenate([(w * of_means).ravel(), own.ravel()]))

    # ---- after the fit

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """A mean for each component and column, and the sizes that are estimated."""
        return (n_components + {"each": n_components, "shared": 1}.get(str(self.size), 0)) * n_features

    def nbytes(self, n_components: int, n_features: int) -> int:
        """Bytes of the sums of counts up to a million."""
        return 8 * n_components * n_features * n_cells(1e6)

    def remarks(self, params: NegativeBinomialParams) -> list[str]:
        """Components that are Poisson's."""
        poisson = np.flatnonzero((params.sizes >= _SIZES[1] * _AT_BOUND).any(axis=1))
        if not len(poisson) or not isinstance(self.size, str):
            return []
        who, most = components_have(poisson), f"{_SIZES[1]:g}"
        return [f"{who} counts with no more spread than Poisson's, and so a size of {most}: size_prior keeps it finite"]

    def sample(self, params: NegativeBinomialParams, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, d) counts: Poisson's, whose rates are gamma's."""
        m, s = params.means[labels], params.sizes[labels]
        return rng.poisson(rng.gamma(s, m / s)).astype(np.float64)
