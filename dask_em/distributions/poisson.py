"""Counts: independent Poisson columns.

With an exposure t the mean is λ t: the count's log density has log λ for its natural parameter, as without, and t λ in
place of λ, so that in the sums a value counts t times where it would count once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import gammaln

from dask_em import store
from dask_em.distributions.base import real_numbers
from dask_em.distributions.columns import Columns, exp_or_zero, finite_log
from dask_em.distributions.exposure import exposures, refuse_exposures
from dask_em.distributions.named import check_column, position
from dask_em.errors import ConfigurationError


@store.register
@dataclass(frozen=True)
class PoissonParams:
    """Rates (K, d): expected counts."""

    rates: np.ndarray


@store.register
@dataclass(frozen=True)
class Poisson(Columns):
    """Counts, each column of each component with a rate of its own: p(x) = (λt)ˣ e^(-λt) / x!, t being the exposure.

    Missing counts (NaN) are taken as missing at random; missing exposures are refused.

    Parameters
    ----------
    prior : (shape, rate), optional
        Of a gamma prior on every rate, whose mode is then found in place of maximum likelihood: as if `rate`
        more rows (or so much more exposure) had been seen with `shape` - 1 counts in all.  Default: none.
    exposure : str or int, optional
        Name or position of a column that is no count, but how long, or of how many, each row's counts were taken:
        days, persons at risk.  It is above zero; rates are for a unit of it.  Default: one for every row.
    names, mean_exposure : optional
        What a fit learns of the columns.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> counts = np.random.default_rng(0).poisson(np.repeat([1.0, 20.0], 500))[:, None]
    >>> mix = em.Mixture(2, em.Poisson(), random_state=0).fit(counts)
    >>> np.sort(mix.rates_.ravel()).round().tolist()
    [1.0, 20.0]
    """

    prior: tuple[float, float] | None = None
    exposure: str | int | None = field(default=None, kw_only=True)
    names: tuple[str, ...] | None = field(default=None, kw_only=True, compare=False, repr=False)
    mean_exposure: float = field(default=1.0, kw_only=True, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.exposure is not None:
            check_column("exposure", self.exposure)
        if self.prior is not None and not (real_numbers(self.prior, 2) and self.prior[0] >= 1 and self.prior[1] >= 0):
            raise ConfigurationError(
                f"prior={self.prior!r} must be a shape of at least 1 and a rate that is not negative"
            )

    @property
    def discrete(self) -> bool:
        """Counts repeat."""
        return True

    # ---- columns

    def _at(self, n_features: int | None) -> int:
        """Where the exposure is."""
        assert self.exposure is not None  # is asked before
        return position("Poisson", "exposure", self.exposure, self.names, n_features)

    def _split(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Counts (n, d), and exposures (n,), if there are any."""
        if self.exposure is None:
            return x, None
        j = self._at(x.shape[1])
        return np.delete(x, j, axis=1), exposures("Poisson", x, j)

    def resolved(self, names: Sequence[str] | None) -> Poisson:
        """With the names of the columns, of which one is the exposure's, if there is one."""
        if self.exposure is None:
            return self
        new = replace(self, names=None if names is None else tuple(names))
        new._at(None if names is None else len(names))
        return new

    def within(self, low: np.ndarray, high: np.ndarray) -> Poisson:
        """The same distribution; refuses an exposure that is no column, and no counts at all."""
        if self.exposure is not None:
            self._at(len(low))
            if len(low) == 1:
                raise ConfigurationError("Poisson has no column but its exposure: give the data a column of counts")
        return self

    def about(self, center: np.ndarray) -> Poisson:
        """The same distribution, told the average exposure."""
        return self if self.exposure is None else replace(self, mean_exposure=float(center[self._at(len(center))]))

    def modelled(self, names: Sequence[str]) -> list[str]:
        """All but the exposure's."""
        return [name for j, name in enumerate(names) if self.exposure is None or j != self._at(len(names))]

    # ---- the family

    def parts(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Counts, each of which counts as much as its exposure; tˣ / x! is what no parameter enters."""
        x, t = self._split(x)
        counts, seen, base = super().parts(x)
        if t is None or base is None:
            return counts, seen, base
        each = np.repeat(t[:, None], counts.shape[1], axis=1) if seen is None else seen * t[:, None]
        return counts, each, base + counts.sum(axis=1) * np.log(t)

    def natural(self, params: PoissonParams) -> tuple[np.ndarray, np.ndarray]:
        """log λ, and λ."""
        return finite_log(params.rates), params.rates

    def from_means(self, means: np.ndarray) -> PoissonParams:
        """The mean count is the rate."""
        return PoissonParams(means)

    def log_base(self, x: np.ndarray) -> np.ndarray:
        """-log x!."""
        base: np.ndarray = -gammaln(x + 1.0)
        return base

    def pseudo(self) -> tuple[float, float]:
        """Rows and counts that the gamma prior stands for."""
        return (0.0, 0.0) if self.prior is None else (self.prior[1], self.prior[0] - 1)

    def refused(self, x: np.ndarray) -> tuple[np.ndarray, str]:
        """Counts are whole and not negative."""
        wrong = (x < 0) | (np.floor(x) < x)
        if self.exposure is not None:
            wrong[:, self._at(x.shape[1])] = False
        return wrong, "a whole number that is not negative"

    def check_rows(self, x: np.ndarray) -> None:
        """Raise `RowError` for what is no count, or no exposure."""
        super().check_rows(x)
        if self.exposure is not None:
            refuse_exposures("Poisson", x, self._at(x.shape[1]))

    def embedded(self, x: np.ndarray) -> np.ndarray:
        """Square roots of counts, of one unit of exposure, whose variances do not depend on the rates."""
        counts, t = self._split(x)
        roots: np.ndarray = np.sqrt(super().embedded(counts))
        return roots if t is None else roots / np.sqrt(t)[:, None]

    def to_vector(self, params: PoissonParams) -> np.ndarray:
        """Log rates."""
        return finite_log(params.rates).ravel()

    def from_vector(self, vector: np.ndarray, n_components: int) -> PoissonParams:
        """Inverse of `to_vector`."""
        return PoissonParams(exp_or_zero(vector).reshape(n_components, -1))

    def vector_scale(self, params: PoissonParams, weights: np.ndarray) -> np.ndarray:
        """√(π λ t), t being the average exposure."""
        return np.sqrt(self.mean_exposure * weights[:, None] * params.rates).ravel()

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """A rate for each component and column of counts."""
        return n_components * (n_features - int(self.exposure is not None))

    def sample(self, params: PoissonParams, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, d) counts; of a unit of exposure, which has its column."""
        counts = rng.poisson(params.rates[labels]).astype(np.float64)
        return counts if self.exposure is None else np.insert(counts, self._at(counts.shape[1] + 1), 1.0, axis=1)
