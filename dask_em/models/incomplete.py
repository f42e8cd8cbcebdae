"""One Gaussian of rows with holes: what is missing is missing at random, and is the hidden variable.

E-step: the sums of a pattern of holes, filled up by their means and covariances given what is observed; M-step: the
moments of all rows (Little and Rubin 2019, section 11.2).  The moments of each pattern sum up the data without loss:
it is read once.  Where patterns are too many for that, EM goes by passes over the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_em import store
from dask_em.distributions.base import filled
from dask_em.distributions.gaussian import Gaussian, GaussianParams
from dask_em.distributions.gaussian_imputation import Noise, imputed
from dask_em.distributions.gaussian_summary import PatternMoments
from dask_em.distributions.gaussian_sums import GaussianStatistics
from dask_em.distributions.spread_prior import Given
from dask_em.errors import ColumnError, DataError, DegenerateError, check_want
from dask_em.model import Chunk, Model, Statistics

_TILT = 0.2  # share of a start's correlations that is random


@store.register
@dataclass(frozen=True)
class IncompleteStatistics(Statistics):
    """The expected sums of all columns."""

    components: GaussianStatistics


@dataclass(frozen=True)
class IncompleteGaussian(Model):
    """One Gaussian with a full covariance matrix, of rows in which NaN is a value missing at random.

    The parameters are `GaussianParams` of one component.

    Parameters
    ----------
    reg_covar : float, optional
        The least variance in any direction, as `Gaussian` has it. Zero, by default here: no bound.
    prior : float or tuple, optional
        Of the covariance, as `Gaussian` has it.
    pivot : ndarray of shape (n_features,), optional
        The point that sums are taken about. It changes rounding, nothing else.
    variance : ndarray of shape (n_features,), optional
        Of the columns, which tells columns that `reg_covar` holds apart from such as vary little.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> x = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1], [2, np.nan], [-2, np.nan], [np.nan, 2], [np.nan, -2]])
    >>> result = em.fit(em.IncompleteGaussian(), x, tol=1e-9, verbose=0)
    >>> result.n_passes, result.params.means.round(3).tolist()
    (1, [[0.0, 0.0]])
    """

    reg_covar: float | None = 0.0
    prior: Given = None
    pivot: np.ndarray | None = None
    variance: np.ndarray | None = None

    accepts_nan = True
    n_components = 1

    def __post_init__(self) -> None:
        Gaussian(reg_covar=self.reg_covar, prior=self.prior)  # refuses what cannot be

    @property
    def _gaussian(self) -> Gaussian:
        return Gaussian("full", self.reg_covar, self.prior, self.pivot, self.variance)

    @property
    def summary(self) -> Callable[[Chunk], Any]:
        """The moments of each pattern of holes."""
        return PatternMoments.of

    def about(self, center: np.ndarray) -> IncompleteGaussian:
        """The same model, its sums taken about a centre."""
        return replace(self, pivot=np.asarray(center, dtype=np.float64))

    def in_units_of(self, variance: np.ndarray) -> IncompleteGaussian:
        """The same model, given the columns' variances."""
        return replace(self, variance=np.asarray(variance, dtype=np.float64))

    def hides_classes_only(self, missing: bool) -> bool:
        """Missing values are no classes."""
        return not missing

    def check_data(self, n_rows: int, low: np.ndarray, high: np.ndarray) -> None:
        """Refuse a single row; for maximum likelihood also columns that do not vary, and no more rows than columns."""
        if n_rows < 2:
            raise DataError(f"n_samples={n_rows} row of positive weight has no spread: give at least 2 rows")
        if self.bounded or isinstance(self.prior, (tuple, list)):
            return
        still = np.flatnonzero(low == high)
        if len(still):
            j = int(still[0])
            why = f"is {low[j]:g} wherever it is observed: leave out what does not vary, or set reg_covar"
            raise ColumnError(j, why)
        if n_rows <= len(low) and not self.prior:
            raise DataError(
                f"{n_rows} rows of {len(low)} columns have a covariance matrix without an inverse: give more rows than "
                "columns, or set reg_covar or a prior"
            )

    def nbytes(self, n_features: int) -> int:
        """Bytes of one parameter set."""
        return self._gaussian.nbytes(1, n_features)

    # ---- start

    def start(self, sample: Chunk, rng: np.random.Generator) -> GaussianParams:
        """Means and variances of what is observed, and correlations of rows filled up by means, tilted at random.

        Without the tilt a start may stand on a saddle of the likelihood, where symmetry would hold it (Murray 1977).
        """
        x = np.asarray(sample.x, dtype=np.float64)
        w = np.ones(len(x)) if sample.weight is None else np.asarray(sample.weight, dtype=np.float64)
        d = x.shape[1]
        present = ~np.isnan(x) * w[:, None]
        observed = present.sum(axis=0)
        void = observed <= 0  # a column may have no value in the sample
        n = np.where(void, 1.0, observed)
        rough = filled(x)
        mean = (rough * present).sum(axis=0) / n
        if self.pivot is not None:
            mean = np.where(void, self.pivot, mean)
        z = np.where(present > 0, rough - mean, 0.0)
        variance = (z**2 * present).sum(axis=0) / n
        variance = np.where(variance > 0, variance, 1.0)
        z /= np.sqrt(variance)
        correlation = (z * w[:, None]).T @ z / w.sum()
        a = rng.standard_normal((d, 2 * d))
        random = a @ a.T / (2 * d)
        # what is missing takes from the filled correlations: the identity makes up for it
        mixed = (1 - _TILT) * (correlation + np.diag(1 - np.diag(correlation))) + _TILT * random
        root = np.sqrt(variance / np.diag(mixed))
        return self._gaussian.from_moments(mean[None], (mixed * root[:, None] * root)[None])

    # ---- EM

    def e_step(self, params: Sequence[GaussianParams], chunk: Chunk | PatternMoments) -> list[IncompleteStatistics]:
        """Expected sums of all columns at each parameter set, from the rows or from their summary."""
        if isinstance(chunk, PatternMoments):
            each = [self._gaussian.sums_of_summary(chunk, p) for p in params]
            weight = chunk.weight
        else:
            each = self._gaussian.mixture_sums(chunk.x, chunk.weight, [(np.zeros(1), p) for p in params])
            weight = float(chunk.n_rows if chunk.weight is None else chunk.weight.sum())
        return [IncompleteStatistics(weight, loglik, sums) for loglik, _, sums in each]

    def m_step(self, stats: IncompleteStatistics) -> GaussianParams:
        """The moments of all rows; raises `DegenerateError` where there is no density."""
        try:
            return self._gaussian.estimate(stats.components)
        except DegenerateError as error:
            raise DegenerateError(
                "the covariance matrix has no inverse: some columns are determined by others; set reg_covar or a "
                "prior, or leave out such columns"
            ) from error

    def expected_loglik(self, params: GaussianParams, stats: IncompleteStatistics) -> float:
        """Σ log N(x; μ, Σ) over all columns, from the sums."""
        return self._gaussian.expected_loglik(params, stats.components)

    def log_prior(self, params: GaussianParams) -> float:
        """Of the covariance."""
        return self._gaussian.log_prior(params)

    @property
    def bounded(self) -> bool:
        """The covariance is, by `reg_covar`."""
        return self._gaussian.bounded

    def within_bounds(self, params: GaussianParams) -> GaussianParams:
        """With variances that are low enough raised."""
        return self._gaussian.within_bounds(params)

    # ---- vectors

    def to_vector(self, params: GaussianParams) -> np.ndarray:
        """Mean, then the log-Cholesky factor of the covariance."""
        return self._gaussian.to_vector(params)

    def from_vector(self, vector: np.ndarray) -> GaussianParams:
        """Inverse of `to_vector`."""
        return self._gaussian.from_vector(vector, 1)

    def vector_scale(self, params: GaussianParams) -> np.ndarray:
        """Square roots of the information of a whole row about each coordinate of `to_vector`."""
        return self._gaussian.vector_scale(params, np.ones(1))

    # ---- after the fit

    def n_parameters(self, n_features: int) -> int:
        """Means and covariances."""
        return self._gaussian.n_parameters(1, n_features)

    def observed(self, params: GaussianParams, rows: Any) -> np.ndarray | None:
        """(1, d, d) rows in which both of two columns are observed."""
        if not isinstance(rows, Chunk):
            return self._gaussian.observed(rows.seen.astype(np.float64), rows.counts[:, None])
        weight = np.ones(rows.n_rows) if rows.weight is None else rows.weight
        return self._gaussian.observed((~np.isnan(rows.x)).astype(np.float64), weight[:, None])

    def degeneracies(self, params: GaussianParams) -> list[str]:
        """Columns that only `reg_covar` holds apart."""
        return self._gaussian.degeneracies(params)

    def row_loglik(self, params: GaussianParams, x: Any) -> np.ndarray:
        """Of each row (n,)."""
        return self.posteriors(params, x, "loglik")

    def posteriors(self, params: GaussianParams, x: np.ndarray, want: str) -> np.ndarray:
        """For each row its "loglik" (n,), of what is observed, or the row "imputed" (n, d) by conditional means."""
        check_want(want, ("imputed", "loglik"))
        if want == "imputed":
            return imputed(params, x)
        return self._gaussian.log_density(params, x)[:, 0]

    def drawn(self, params: GaussianParams, x: np.ndarray, noise: Noise) -> np.ndarray:
        """The rows (n, d), in which what is missing is drawn given what is observed."""
        return imputed(params, x, noise)
