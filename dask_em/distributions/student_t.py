"""Multivariate Student-t components: Gaussians with heavier tails, which outliers do not spoil.

With the sums of `student_t_sums`, N = Σ r, A = Σ r E u, L = Σ r E log u, F = Σ r E[u z] and S = Σ r E[u z zᵀ], the
M-step is (Peel and McLachlan 2000, section 4)

    μ = pivot + F/A,   Σ = (S - F Fᵀ/A) / N,   log(ν/2) - ψ(ν/2) = (A - L)/N - 1,

the last an equation that gamma shapes solve too, its left side falling in ν.  Since u is held to be hidden also where
ν is estimated, this is EM itself, exact in one read, and not its ECME variant, which would take one more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, cast

import numpy as np
from scipy.special import gammaln, polygamma, psi

from dask_em import store
from dask_em.distributions import student_t_sums as sums
from dask_em.distributions.base import Distribution, components_have, filled, possible_counts, real_numbers
from dask_em.distributions.gamma import shapes_of
from dask_em.distributions.gaussian import Gaussian, GaussianParams
from dask_em.distributions.gaussian_factors import diagonal
from dask_em.distributions.gaussian_holes import GivenShares, has_holes
from dask_em.distributions.gaussian_sums import moments
from dask_em.distributions.spread_prior import Given, spread_prior
from dask_em.distributions.student_t_start import from_clusters
from dask_em.distributions.student_t_sums import StudentTSums
from dask_em.errors import ConfigurationError

_START = 10.0  # degrees of freedom to begin with
_MOST_FIXED = 1e6  # degrees of freedom, from which too few digits of the density's norm are known
_FENCE = 3.0  # interquartile ranges beyond the quartiles, where Tukey's outer fences are
_AT_BOUND = 1 + 1e-9


@store.register
@dataclass(frozen=True)
class StudentTParams:
    """K multivariate Student-t distributions.

    Attributes
    ----------
    locations : ndarray of shape (K, d)
        The means, where df > 1.
    scatters : ndarray
        Σ of full (K, d, d) or diag (K, d), in squared units of the data; the covariance is Σ df / (df - 2), where
        df > 2.
    precisions_cholesky : ndarray
        U with Σ⁻¹ = U Uᵀ, U upper triangular; diag: one over the square roots of the scatters.
    df : ndarray of shape (K,)
        Degrees of freedom ν.
    """

    locations: np.ndarray
    scatters: np.ndarray
    precisions_cholesky: np.ndarray
    df: np.ndarray

    @property
    def gaussian(self) -> GaussianParams:
        """The Gaussians that these are at u = 1."""
        return GaussianParams(self.locations, self.scatters, self.precisions_cholesky)


@store.register
@dataclass(frozen=True)
class StudentT(Distribution):
    """Multivariate Student-t components.  Missing values (NaN) are taken as missing at random, and handled exactly.

    Parameters
    ----------
    covariance_type : {"full", "diag"}
        Each component its own scatter matrix, or its own for each column.  The columns of a diag one are
        uncorrelated, not independent: a row has one weight.
    df : {"each", "shared"} or float, default "each"
        Degrees of freedom: estimated for each component, or one for all; or a number that they are held at.
    reg_covar : float, optional
        The least scatter in any direction, in squared units of the data, as `Gaussian` has it.
    df_bounds : (float, float), default (1, 1000)
        Of estimated degrees of freedom.  Below 1 a component collapses onto a value that a few rows share: there is
        no maximum if more than ν / (ν + d) of a component's rows are equal (Kent and Tyler 1991).  At 1000 a component
        is a Gaussian, of one column to less than a millionth of a nat a row.
    prior : float or tuple, optional
        Of the scatters, as `Gaussian` has it of covariances.  Default: none.
    pivot : ndarray of shape (d,), optional
        The point that sums are taken about; set by a fit. It changes rounding, nothing else.
    variance : ndarray of shape (d,), optional
        Of the columns, which tells a collapsed component from one that is small as the data is; set by a fit.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_t(3, size=(4000, 2)) + np.repeat([[0.0, 0.0], [20.0, 0.0]], 2000, axis=0)
    >>> mix = em.Mixture(2, em.StudentT(df="shared"), random_state=0, verbose=0).fit(x)
    >>> np.sort(np.abs(mix.locations_[:, 0])).round().tolist(), mix.scatters_.shape
    ([0.0, 20.0], (2, 2, 2))
    """

    covariance_type: Literal["full", "diag"] = "full"
    df: Literal["each", "shared"] | float = "each"
    reg_covar: float | None = None
    df_bounds: tuple[float, float] = (1.0, 1000.0)
    prior: Given = None
    pivot: np.ndarray | None = field(default=None, compare=False, repr=False)
    variance: np.ndarray | None = field(default=None, compare=False, repr=False)

    accepts_nan: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.covariance_type not in ("full", "diag"):
            raise ConfigurationError(f"covariance_type={self.covariance_type!r} is unknown; choose 'full' or 'diag'")
        Gaussian(self.covariance_type, self.reg_covar, self.prior)  # refuses a wrong reg_covar, or prior
        number = isinstance(self.df, (int, float, np.number)) and not isinstance(self.df, bool)
        named = isinstance(self.df, str) and self.df in ("each", "shared")
        if not (named or (number and 0 < cast(float, self.df) <= _MOST_FIXED)):
            raise ConfigurationError(
                f"df={self.df!r} must be 'each', 'shared', or a number above 0 and at most {_MOST_FIXED:g}, "
                "beyond which there is Gaussian()"
            )
        if not (real_numbers(self.df_bounds, 2) and 0 < self.df_bounds[0] < self.df_bounds[1] <= _MOST_FIXED):
            raise ConfigurationError(
                f"df_bounds={self.df_bounds!r} must be two rising numbers above 0 and at most {_MOST_FIXED:g}"
            )

    @property
    def separate(self) -> bool:
        """Whether components share no parameter."""
        return self.df != "shared"

    @property
    def bounded(self) -> bool:
        """Scatters are, by `reg_covar`."""
        return self._gaussian.bounded

    def within_bounds(self, params: StudentTParams) -> StudentTParams:
        """With scatters that are low enough raised."""
        g = self._gaussian.within_bounds(params.gaussian)
        return replace(params, scatters=g.covariances, precisions_cholesky=g.precisions_cholesky)

    @property
    def _gaussian(self) -> Gaussian:
        return Gaussian(self.covariance_type, self.reg_covar, self.prior, self.pivot, self.variance)

    @property
    def _n_df(self) -> int | None:
        """Degrees of freedom that are estimated; None: one for each component."""
        return None if self.df == "each" else 1 if self.df == "shared" else 0

    def about(self, center: np.ndarray) -> StudentT:
        """The same distribution with sums about another point."""
        return replace(self, pivot=np.asarray(center, dtype=np.float64))

    def hides(self, missing: bool) -> bool:
        """The weights."""
        return True

    def observed(self, present: np.ndarray, resp: np.ndarray) -> np.ndarray:
        """(K, d, d) rows in which both of two columns are observed, where scales are matrices."""
        return self._gaussian.observed(present, resp)

    def in_units_of(self, variance: np.ndarray) -> StudentT:
        """The same distribution, given the columns' variances."""
        return replace(self, variance=np.asarray(variance, dtype=np.float64))

    # ---- rows

    def embedded(self, x: np.ndarray) -> np.ndarray:
        """Rows drawn in to the outer fences of their columns, so that no start is an outlier's (Tukey 1977)."""
        x = filled(x)
        if not len(x):
            return x
        low, high = np.quantile(x, [0.25, 0.75], axis=0)
        reach = _FENCE * (high - low)
        return np.where(reach > 0, np.clip(x, low - reach, high + reach), x)

    def from_labels(self, x: np.ndarray, weight: np.ndarray, labels: np.ndarray, n_components: int) -> StudentTParams:
        """Clusters' locations and scatters, which outliers among their rows hardly move."""
        df = _START if isinstance(self.df, str) else float(self.df)
        locations, scatters = from_clusters(filled(x), weight, labels, n_components, df)
        diag = self.covariance_type == "diag"
        found = self._gaussian.from_moments(locations, diagonal(scatters).copy() if diag else scatters)
        return StudentTParams(locations, found.covariances, found.precisions_cholesky, np.full(n_components, df))

    def log_density(self, params: StudentTParams, x: np.ndarray) -> np.ndarray:
        """(n_rows, K) log densities of what is observed of each row."""
        delta, det, n_columns = sums.distances(x, params.gaussian, self.covariance_type)
        norm = sums.log_norm(params.df, det, n_columns)
        density: np.ndarray = norm - 0.5 * (params.df + n_columns) * np.log1p(delta / params.df)
        return density

    def mixture_sums(
        self, x: np.ndarray, weight: np.ndarray | None, runs: Sequence[tuple[np.ndarray, StudentTParams]]
    ) -> list[tuple[float, np.ndarray, StudentTSums]]:
        """A mixture's whole E-step in compiled code: (loglik, counts, sums) for each (log_weights, params)."""
        pivot = np.zeros(x.shape[1]) if self.pivot is None else self.pivot
        far = [self._gaussian.far(p.gaussian, pivot) for _, p in runs]
        each = [(log_weights, p.gaussian, p.df, own) for (log_weights, p), own in zip(runs, far, strict=True)]
        return sums.mixture_sums(x, weight, pivot, self.covariance_type, each)

    # ---- sums and estimates

    def statistics(self, x: np.ndarray, resp: np.ndarray) -> StudentTSums:
        """Sums where nothing is known of the weights u yet: as a start's degrees of freedom expect them, about 1."""
        counts = resp.sum(axis=0)
        logs = counts * (psi(_START / 2) - np.log(_START / 2))
        return StudentTSums(counts, logs, self._gaussian.statistics(x, resp))

    def expected_statistics(self, params: StudentTParams, x: np.ndarray, resp: np.ndarray) -> StudentTSums:
        """Sums at given parameters; resp: (n_rows, K), the rows' weights already in."""
        delta, _, d = sums.distances(x, params.gaussian, self.covariance_type)
        shape, rate = (params.df + d) / 2, (params.df + delta) / 2  # of u given the row
        counts, logs = resp.sum(axis=0), (resp * (psi(shape) - np.log(rate))).sum(axis=0)
        shares = resp * (shape / rate)
        if not has_holes(x):
            return StudentTSums(counts, logs, self._gaussian.statistics(x, shares))
        pivot = np.zeros(x.shape[1]) if self.pivot is None else self.pivot
        given = GivenShares(x, params.gaussian, self.covariance_type, pivot, self._gaussian.far(params.gaussian, pivot))
        return StudentTSums(counts, logs, given.statistics(shares, given.per_pattern(resp)))

    def estimate(self, stats: StudentTSums) -> StudentTParams:
        """Maximum of the expected log-likelihood, within bounds; a component without rows takes what all have.

        Raises
        ------
        DegenerateError
            No rows have such sums, or a scatter matrix is not positive definite.
        """
        counts, weights = possible_counts(stats.counts), possible_counts(stats.weighted.counts)
        locations, covariances = moments(stats.weighted)
        void = (counts <= 0) | (weights <= 0)
        share = np.where(void, weights.sum() / counts.sum(), weights / np.where(void, 1.0, counts))
        scatters = covariances * share.reshape((-1,) + (1,) * (covariances.ndim - 1))
        on = scatters if self.covariance_type == "diag" else diagonal(scatters)
        prior = spread_prior(self.prior, len(locations), locations.shape[1], self.variance)
        if prior is not None:
            blended = prior.blended(counts, on)
            scatters *= (counts / (counts + prior.rows)).reshape((-1,) + (1,) * (scatters.ndim - 1))
            on[...] = blended
        found = self._gaussian.from_moments(locations, scatters)
        df = self._degrees(counts, weights, stats.logs, void)
        return StudentTParams(locations, found.covariances, found.precisions_cholesky, df)

    def _degrees(self, counts: np.ndarray, weights: np.ndarray, logs: np.ndarray, void: np.ndarray) -> np.ndarray:
        """(K,) degrees of freedom."""
        if self._n_df == 0:
            return np.full(len(counts), float(self.df))
        spread = (weights.sum() - logs.sum()) / counts.sum() - 1
        if self._n_df is None:
            spread = np.where(void, spread, (weights - logs) / np.where(void, 1.0, counts) - 1)
        low, high = self.df_bounds
        # what is maximised is concave, so that its maximum within the bounds is at the nearer one; none may be beyond
        df = 2 * shapes_of(np.maximum(np.full(len(counts), spread), 1 / (2 * high)))
        return np.clip(df, low, high)

    def expected_loglik(self, params: StudentTParams, stats: StudentTSums) -> float:
        """Of rows and weights: Σ r E[log N(x; μ, Σ/u) + log gamma(u; ν/2, ν/2)]."""
        n, a, d = stats.counts, params.df / 2, params.locations.shape[1]
        constant = sums.log_det(params.gaussian, self.covariance_type == "diag") - 0.5 * d * np.log(2 * np.pi)
        # of a Gaussian's, only the constant is counted by rows and not by weights
        rows = self._gaussian.expected_loglik(params.gaussian, stats.weighted)
        rows += float((n - stats.weighted.counts) @ constant)
        prior = n * (a * np.log(a) - gammaln(a)) + (a - 1) * stats.logs - a * stats.weighted.counts
        return rows + float((prior + 0.5 * d * stats.logs).sum())

    def log_prior(self, params: StudentTParams) -> float:
        """A Gaussian's."""
        return self._gaussian.log_prior(params.gaussian)

    def loglik_error(self, params: StudentTParams) -> float:
        """A Gaussian's."""
        return self._gaussian.loglik_error(params.gaussian)

    # ---- vectors

    def to_vector(self, params: StudentTParams) -> np.ndarray:
        """A Gaussian's, then the logarithms of the degrees of freedom that are estimated."""
        return np.concatenate([self._gaussian.to_vector(params.gaussian), np.log(params.df[: self._n_df])])

    def from_vector(self, vector: np.ndarray, n_components: int) -> StudentTParams:
        """Inverse of `to_vector`; degrees of freedom within their bounds."""
        n_df = n_components if self._n_df is None else self._n_df
        rest, logs = np.split(vector, [len(vector) - n_df])
        g = self._gaussian.from_vector(rest, n_components)
        df = np.exp(np.clip(logs, *np.log(self.df_bounds))) if n_df else np.array([float(self.df)])
        df = np.broadcast_to(df, (n_components,)).copy()
        return StudentTParams(g.means, g.covariances, g.precisions_cholesky, df)

    def vector_scale(self, params: StudentTParams, weights: np.ndarray) -> np.ndarray:
        """A Gaussian's, and of log ν that of gamma's log shapes."""
        a = params.df / 2
        of_df = weights * np.maximum(a**2 * polygamma(1, a) - a, 0.0)
        own = of_df if self._n_df is None else of_df.sum(keepdims=True)[: self._n_df]
        return np.concatenate([self._gaussian.vector_scale(params.gaussian, weights), np.sqrt(own)])

    # ---- after the fit

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """A Gaussian's, and the degrees of freedom that are estimated."""
        n_df = n_components if self._n_df is None else self._n_df
        return self._gaussian.n_parameters(n_components, n_features) + n_df

    def nbytes(self, n_components: int, n_features: int) -> int:
        """Bytes of the parameters."""
        return 8 * self.n_parameters(n_components, n_features)

    def degeneracies(self, params: StudentTParams) -> list[str]:
        """Components that `reg_covar` holds up, or whose degrees of freedom are at the lower bound."""
        said = self._gaussian.degeneracies(params.gaussian)
        if self._n_df == 0:
            return said
        lowest = np.flatnonzero(params.df <= self.df_bounds[0] * _AT_BOUND)
        if len(lowest):
            said.append(
                f"{components_have(lowest)} the fewest degrees of freedom allowed, {self.df_bounds[0]:g}: rows of "
                "several clusters, or repeated values, look like heavy tails; use more components, or hold df fixed"
            )
        return said

    def sample(self, params: StudentTParams, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, d) draws: a Gaussian's off its mean, over the root of a weight."""
        centred = replace(params.gaussian, means=np.zeros_like(params.locations))
        z = self._gaussian.sample(centred, labels, rng)
        shape = params.df[labels] / 2
        weight = rng.gamma(shape) / shape
        drawn: np.ndarray = params.locations[labels] + z / np.sqrt(np.maximum(weight, 1e-300))[:, None]
        return drawn
