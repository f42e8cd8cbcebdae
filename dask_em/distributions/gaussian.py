"""Multivariate Gaussian components in four covariance shapes.

With responsibilities r_ik (weights already in) and z_i = x_i - pivot, the sums are

    counts N_k = Σ_i r_ik,   first F_k = Σ_i r_ik z_i,   second S_k = Σ_i r_ik z_i z_iᵀ

and the maximum-likelihood estimates  m_k = F_k / N_k,  Σ_k = S_k / N_k - m_k m_kᵀ  (McLachlan
and Peel 2000, section 3.2), μ_k = pivot + m_k.  Components far from the pivot have their sums about
their current mean instead (`gaussian_sums`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from dask_em import store
from dask_em.distributions import gaussian_factors as factors
from dask_em.distributions import gaussian_holes as holes
from dask_em.distributions.base import Distribution, filled, possible_counts
from dask_em.distributions.gaussian_bounds import bounded, check_reg_covar, least_variances
from dask_em.distributions.gaussian_collapse import Collapse
from dask_em.distributions.gaussian_factors import unpack
from dask_em.distributions.gaussian_summary import PatternMoments, sums_of
from dask_em.distributions.gaussian_sums import GaussianStatistics, moments
from dask_em.distributions.spread_prior import Given, SpreadPrior, check_spread_prior, spread_prior
from dask_em.errors import ConfigurationError
from dask_em.model import Chunk

CovarianceType = Literal["full", "tied", "diag", "spherical"]
_REACH = 1000.0  # standard deviations from the pivot, from which sums about it lose more than six digits
_SOME_ROUNDINGS = 8 * float(np.finfo(np.float64).eps)
_LOG_2PI = float(np.log(2 * np.pi))


@store.register
@dataclass(frozen=True)
class GaussianParams:
    """K Gaussians.

    Attributes
    ----------
    means : ndarray of shape (K, d)
    covariances : ndarray
        full (K, d, d); tied (d, d); diag (K, d); spherical (K,). In squared units of the data.
    precisions_cholesky : ndarray
        U with precision = U Uᵀ, U upper triangular; diag and spherical: one over the standard deviation.
    """

    means: np.ndarray
    covariances: np.ndarray
    precisions_cholesky: np.ndarray


@store.register
@dataclass(frozen=True)
class Gaussian(Distribution):
    """Gaussian components.  Missing values (NaN) are taken as missing at random, and handled exactly.

    Parameters
    ----------
    covariance_type : {"full", "tied", "diag", "spherical"}
        Each component its own matrix; one matrix for all; a variance for each column; one variance.
    reg_covar : float, optional
        The least variance of a component in any direction, in squared units of the data: likelihoods are maximised
        subject to it, so that EM never lowers them.  Default: 1e-6, but a millionth of the variance of a column that
        has one below 1.  Zero: no such bound; a component that collapses onto few distinct rows then ends the fit.
    prior : float or tuple, optional
        Of the covariances, whose mode is then found in place of maximum likelihood: as if so many more rows had been
        seen about the mean of every component, with the variances of all rows over n_components^(2/d), and no
        correlations.  (rows, variance), or (rows, variance of the first column, of the second, ...): with these, in
        squared units of the data.  It keeps components of few rows, or of repeated ones, from collapsing.  Of a tied
        covariance: so many rows in all.
    pivot : ndarray of shape (d,), optional
        The point that sums are taken about. It changes rounding, nothing else.
    variance : ndarray of shape (d,), optional
        Of the columns, which tells a collapsed component from one that is small as the data is.
    """

    covariance_type: CovarianceType = "full"
    reg_covar: float | None = None
    prior: Given = None
    pivot: np.ndarray | None = field(default=None, compare=False, repr=False)
    variance: np.ndarray | None = field(default=None, compare=False, repr=False)

    accepts_nan: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.covariance_type, str) or self.covariance_type not in get_args(CovarianceType):
            raise ConfigurationError(
                f"covariance_type={self.covariance_type!r} is unknown; choose one of {list(get_args(CovarianceType))}"
            )
        check_reg_covar(self.reg_covar)
        check_spread_prior(self.prior)

    @property
    def separate(self) -> bool:
        """Whether components share no parameter."""
        return self.covariance_type != "tied"

    @property
    def bounded(self) -> bool:
        """Variances are, by `reg_covar`."""
        return self.reg_covar != 0

    def about(self, center: np.ndarray) -> Gaussian:
        """The same distribution with sums about another point."""
        return replace(self, pivot=np.asarray(center, dtype=np.float64))

    def hides(self, missing: bool) -> bool:
        """Missing values are hidden variables: their sums are expected given what is observed."""
        return missing

    def observed(self, present: np.ndarray, resp: np.ndarray) -> np.ndarray:
        """(K, d, d) rows in which both of two columns are observed; for a tied covariance those of all components."""
        counts = super().observed(present, resp)
        if self.covariance_type not in ("full", "tied"):
            return counts
        both = np.stack([(present * r[:, None]).T @ present for r in resp.T])
        both = both if self.covariance_type == "full" else np.broadcast_to(both.sum(axis=0), both.shape)
        return np.where(np.isinf(counts), both, counts)

    def in_units_of(self, variance: np.ndarray) -> Gaussian:
        """The same distribution, given the columns' variances."""
        return replace(self, variance=np.asarray(variance, dtype=np.float64))

    def summary(self, n_components: int) -> Callable[[Chunk], Any] | None:
        """The moments of each pattern of holes: a single Gaussian asks no more of the rows."""
        return PatternMoments.of if n_components == 1 else None

    def sums_of_summary(
        self, summary: PatternMoments, params: GaussianParams
    ) -> tuple[float, np.ndarray, GaussianStatistics]:
        """(loglik, counts, sums) of one component, from its summary."""
        return sums_of(summary, params, self._pivot(params.means.shape[1]), self.covariance_type)

    # ---- densities

    def log_density(self, params: GaussianParams, x: np.ndarray) -> np.ndarray:
        """(n_rows, K) log densities of what is observed of each row."""
        from dask_em.kernels.gaussian import posteriors

        if holes.has_holes(x):
            return holes.log_densities(x, params, self.covariance_type)
        return posteriors(x, self._kernel_form(np.zeros(len(params.means)), params), "log_density")

    def posteriors(
        self, log_weights: np.ndarray, params: GaussianParams, x: np.ndarray, want: Any
    ) -> np.ndarray | None:
        """What the compiled kernel says of each row, if nothing is missing: "labels", "proba" or "loglik"."""
        from dask_em.kernels.gaussian import posteriors

        if holes.has_holes(x):
            return None  # by `log_density`
        return posteriors(x, self._kernel_form(log_weights, params), want)

    def mixture_sums(
        self, x: np.ndarray, weight: np.ndarray | None, runs: Sequence[tuple[np.ndarray, GaussianParams]]
    ) -> list[tuple[float, np.ndarray, GaussianStatistics]]:
        """A mixture's whole E-step in compiled code: (loglik, counts, sums) for each (log_weights, params)."""
        from dask_em.kernels.gaussian import mixture_sums

        pivot, kind = self._pivot(x.shape[1]), self.covariance_type
        far = [self.far(params, pivot) for _, params in runs]
        if holes.has_holes(x):
            each = [(log_weights, params, own) for (log_weights, params), own in zip(runs, far, strict=True)]
            return holes.mixture_sums(x, weight, pivot, kind, each)
        forms = [replace(self._kernel_form(*run), far=own) for run, own in zip(runs, far, strict=True)]
        answers = []
        for (_, params), own, s in zip(runs, far, mixture_sums(x, weight, pivot, forms), strict=True):
            center = None if own is None else np.where(own[:, None], params.means, pivot)
            answers.append((s.loglik, s.counts, GaussianStatistics(s.counts, s.first, s.second, pivot, kind, center)))
        return answers

    def far(self, params: GaussianParams, pivot: np.ndarray) -> np.ndarray | None:
        """Which components are so narrow and far from the pivot that sums about it would lose digits; None: none."""
        u, apart = np.abs(params.precisions_cholesky), np.abs(params.means - pivot)
        if self.covariance_type in ("full", "tied"):
            reach = (apart[:, None, :] @ u)[:, 0, :]
        else:
            reach = apart * u.reshape(len(u), -1)
        far = np.einsum("kj,kj->k", reach, reach) > _REACH**2
        return far if far.any() else None

    def _kernel_form(self, log_weights: np.ndarray, params: GaussianParams) -> Any:
        from dask_em.kernels.gaussian import Components

        return Components(log_weights, params.means, params.precisions_cholesky, self.covariance_type)

    # ---- sums and estimates

    def statistics(self, x: np.ndarray, resp: np.ndarray) -> GaussianStatistics:
        """Sums of some rows; resp: (n_rows, K), the rows' weights already in.

        A start has no parameters yet to say what is missing: it is taken to be the mean of its column here.
        """
        pivot = self._pivot(x.shape[1])
        z = filled(x) - pivot
        if self.covariance_type == "diag":
            second = resp.T @ z**2
        elif self.covariance_type == "spherical":
            second = resp.T @ (z**2).sum(axis=1)
        elif self.covariance_type == "tied":
            second = factors.pack((z * resp.sum(axis=1)[:, None]).T @ z)
        else:
            second = np.stack([factors.pack((z * r[:, None]).T @ z) for r in resp.T])
        return GaussianStatistics(resp.sum(axis=0), resp.T @ z, second, pivot, self.covariance_type)

    def expected_statistics(self, params: GaussianParams, x: np.ndarray, resp: np.ndarray) -> GaussianStatistics:
        """Sums of some rows, filled up by what is expected of them at these parameters."""
        if not holes.has_holes(x):
            return self.statistics(x, resp)
        pivot = self._pivot(x.shape[1])
        return holes.GivenShares(x, params, self.covariance_type, pivot, self.far(params, pivot)).statistics(resp)

    def estimate(self, stats: GaussianStatistics) -> GaussianParams:
        """Maximum-likelihood means and covariances, or those of highest posterior density, within the bound.

        A component without any weight gets the moments of all rows: it has no say, and any
        parameters are as good.

        Raises
        ------
        DegenerateError
            No rows have such sums, or a covariance is not positive definite.
        """
        prior = self._prior(*stats.first.shape)
        if prior is None:
            return self.from_moments(*moments(stats))
        means, covariances = moments(stats)
        n = possible_counts(stats.counts)
        if self.covariance_type in ("full", "tied"):
            counts = n if self.covariance_type == "full" else n.sum()
            shrunk = covariances * (counts / (counts + prior.rows))[..., None, None]
            factors.diagonal(shrunk)[...] = prior.blended(counts, factors.diagonal(covariances))
            return self.from_moments(means, shrunk)
        if self.covariance_type == "diag":
            return self.from_moments(means, prior.blended(n, covariances))
        each = prior.blended(n, np.broadcast_to(covariances[:, None], means.shape))
        return self.from_moments(means, each.mean(axis=1))

    def _prior(self, k: int, d: int) -> SpreadPrior | None:
        return spread_prior(self.prior, k, d, self.variance)

    def log_prior(self, params: GaussianParams) -> float:
        """Of the covariances."""
        k, d = params.means.shape
        prior = self._prior(k, d)
        if prior is None:
            return 0.0
        u = params.precisions_cholesky
        if self.covariance_type in ("full", "tied"):
            return prior.log_density(-2 * np.log(factors.diagonal(u)), (u**2).sum(axis=-1))
        u = np.broadcast_to(u.reshape(k, -1), (k, d))
        return prior.log_density(-2 * np.log(u), u**2)

    def from_moments(self, means: np.ndarray, covariances: np.ndarray) -> GaussianParams:
        """Parameters within the bound from means and covariances; `DegenerateError` where there is no density."""
        return GaussianParams(means, *bounded(covariances, self.covariance_type, self._least(means.shape[1])))

    def within_bounds(self, params: GaussianParams) -> GaussianParams:
        """With variances that are low enough raised."""
        return self.from_moments(params.means, params.covariances) if self.bounded else params

    def _least(self, d: int) -> np.ndarray:
        """(d,) least variances."""
        return least_variances(self.reg_covar, self.variance, self._pivot(d))

    def expected_loglik(self, params: GaussianParams, stats: GaussianStatistics) -> float:
        """Σ_i Σ_k r_ik log N(x_i; μ_k, Σ_k), from the sums."""
        d = params.means.shape[1]
        kind, u, n = self.covariance_type, params.precisions_cholesky, stats.counts
        about = stats.about(params.means)  # what is left are the sums of (x - μ_k)(x - μ_k)ᵀ
        if kind in ("full", "tied"):
            # the trace of UᵀSU
            quadratic = np.vdot(unpack(about.second, d) @ u, u)
            log_det = np.log(factors.diagonal(u)).sum(axis=-1)
        else:
            quadratic = np.vdot(u**2, about.second)
            log_det = np.log(u).sum(axis=1) if kind == "diag" else d * np.log(u)
        constant = log_det - 0.5 * d * _LOG_2PI
        return float((n * constant).sum() - 0.5 * quadratic)

    def loglik_error(self, params: GaussianParams) -> float:
        """Some roundings, times how well others determine a column: its variance inflation factor Σ_jj (Σ⁻¹)_jj."""
        if self.covariance_type in ("diag", "spherical"):
            return 0.0
        precision = (params.precisions_cholesky**2).sum(axis=-1)
        return float(_SOME_ROUNDINGS * (precision * factors.diagonal(params.covariances)).max())

    # ---- vectors

    def to_vector(self, params: GaussianParams) -> np.ndarray:
        """Means, then log-Cholesky factors of the covariances (log variances for diag and spherical)."""
        if self.covariance_type in ("diag", "spherical"):
            flat = np.log(params.covariances)
        else:
            flat = factors.log_lower(params.precisions_cholesky)
        return np.concatenate([params.means.ravel(), flat.ravel()])

    def from_vector(self, vector: np.ndarray, n_components: int) -> GaussianParams:
        """Inverse of `to_vector`.

        Variances below the least, to which an extrapolation may lead though no M-step does, are raised to it.
        """
        k = n_components
        d = self._dimension(len(vector), k)
        means, rest = vector[: k * d].reshape(k, d).copy(), vector[k * d :]
        if self.covariance_type in ("diag", "spherical"):
            return self.from_moments(means, np.exp(rest.reshape((k, d) if self.covariance_type == "diag" else (k,))))
        flat = rest.reshape((k, -1) if self.covariance_type == "full" else (-1,))
        covariances, u = factors.from_log_lower(flat, d)
        return GaussianParams(means, *bounded(covariances, self.covariance_type, self._least(d), u))

    def vector_scale(self, params: GaussianParams, weights: np.ndarray) -> np.ndarray:
        """Square roots of the information of one row of the mixture about each coordinate of `to_vector`."""
        k, d = params.means.shape
        u, root = params.precisions_cholesky, np.sqrt(weights)[:, None]
        if self.covariance_type in ("diag", "spherical"):
            wide = np.broadcast_to(u.reshape(k, -1), (k, d))
            size = d if self.covariance_type == "spherical" else 1
            of_log_variances = np.broadcast_to(root * np.sqrt(size / 2), u.reshape(k, -1).shape)
            return np.concatenate([(root * wide).ravel(), of_log_variances.ravel()])
        precision = np.sqrt((u**2).sum(axis=-1))  # of each mean, whatever the others are
        covariance = factors.log_lower_scale(u)
        if self.covariance_type == "full":
            covariance = root * covariance
        return np.concatenate([(root * precision).ravel(), covariance.ravel()])

    def _dimension(self, length: int, k: int) -> int:
        """Columns d, from the length k d + n_covariance_parameters(k, d) of a vector."""
        if self.covariance_type in ("diag", "spherical"):
            d = length // k // 2 if self.covariance_type == "diag" else length // k - 1
        else:  # a d² + b d = 2 length
            a, b = (k, 3 * k) if self.covariance_type == "full" else (1, 2 * k + 1)
            d = round((np.sqrt(b * b + 8.0 * a * length) - b) / (2 * a))
        if d < 1 or self.n_parameters(k, d) != length:
            raise ValueError(f"no number of columns fits a vector of length {length} for {k} components")
        return int(d)

    def n_covariance_parameters(self, k: int, d: int) -> int:
        """Free parameters of the covariances."""
        return {"full": k * d * (d + 1) // 2, "tied": d * (d + 1) // 2, "diag": k * d, "spherical": k}[
            self.covariance_type
        ]

    def n_parameters(self, k: int, d: int) -> int:
        """Free parameters of k components in d columns."""
        return k * d + self.n_covariance_parameters(k, d)

    def nbytes(self, k: int, d: int) -> int:
        """Bytes of the parameters."""
        return 8 * self.n_parameters(k, d)

    def permuted(self, params: GaussianParams, order: np.ndarray) -> GaussianParams:
        """The components in another order."""
        if self.covariance_type == "tied":
            return replace(params, means=params.means[order])
        return GaussianParams(params.means[order], params.covariances[order], params.precisions_cholesky[order])

    # ---- boundary solutions and draws

    def degeneracies(self, params: GaussianParams) -> list[str]:
        """Sentences about components that only `reg_covar` holds up."""
        means, c, kind = params.means, params.covariances, self.covariance_type
        d = means.shape[1]
        least = self._least(d)
        if not least.any():
            return []
        variance = np.full(d, np.inf) if self.variance is None else self.variance
        if kind == "spherical":
            c, variance = np.broadcast_to(c[:, None], means.shape), np.full(d, variance.mean())
            least = np.full(d, least.mean())
        collapse = Collapse(least, variance, self._pivot(d))
        return collapse.sentences(means, c[None] if kind == "tied" else c, kind == "tied")

    def sample(self, params: GaussianParams, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, d) draws, row i from component labels[i]."""
        k, d = params.means.shape
        z = rng.standard_normal((len(labels), d))
        c = params.covariances
        if self.covariance_type == "diag":
            return params.means[labels] + z * np.sqrt(c)[labels]
        if self.covariance_type == "spherical":
            return params.means[labels] + z * np.sqrt(c)[labels, None]
        lower = np.linalg.cholesky(c if self.covariance_type == "full" else np.broadcast_to(c, (k, d, d)))
        for j in range(k):
            own = labels == j
            z[own] = params.means[j] + z[own] @ lower[j].T
        return z

    def _pivot(self, d: int) -> np.ndarray:
        return np.zeros(d) if self.pivot is None else self.pivot
