"""Multivariate Gaussian components in four covariance shapes.

With responsibilities r_ik (weights already in) and z_i = x_i - pivot, the sums are

    counts N_k = Σ_i r_ik,   first F_k = Σ_i r_ik z_i,   second S_k = Σ_i r_ik z_i z_iᵀ

and the maximum-likelihood estimates  m_k = F_k / N_k,  Σ_k = S_k / N_k - m_k m_kᵀ  (McLachlan
and Peel 2000, section 3.2), μ_k = pivot + m_k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from scipy.linalg import LinAlgError, cholesky, solve_triangular

from dask_em.errors import ConfigurationError, DegenerateError
from dask_em.model import Sums

CovarianceType = Literal["full", "tied", "diag", "spherical"]
_LOG_2PI = float(np.log(2 * np.pi))
_CANCELLED = 1e-13  # a variance below this share of its second moment is rounding, not a variance


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


@dataclass(frozen=True)
class GaussianStatistics(Sums):
    """Sums about the pivot; `second` is packed: the upper triangle, row by row."""

    counts: np.ndarray  # (K,)
    first: np.ndarray  # (K, d)
    second: np.ndarray  # full (K, d(d+1)/2); tied (d(d+1)/2,); diag (K, d); spherical (K,)


@dataclass(frozen=True)
class Gaussian:
    """Gaussian components.

    Parameters
    ----------
    covariance_type : {"full", "tied", "diag", "spherical"}
        Each component its own matrix; one matrix for all; a variance for each column; one variance.
    reg_covar : float
        Added to the variances in every M-step, in squared units of the data.  Zero gives maximum
        likelihood; a component that collapses onto few distinct rows then ends the fit.
    pivot : ndarray of shape (d,), optional
        The point that sums are taken about. It changes rounding, nothing else.
    """

    covariance_type: CovarianceType = "full"
    reg_covar: float = 1e-6
    pivot: np.ndarray | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.covariance_type not in get_args(CovarianceType):
            raise ConfigurationError(
                f"covariance_type={self.covariance_type!r} is unknown; choose one of {list(get_args(CovarianceType))}"
            )
        if not (np.isfinite(self.reg_covar) and self.reg_covar >= 0):
            raise ConfigurationError(f"reg_covar={self.reg_covar!r} must be a number that is not negative")

    @property
    def exact(self) -> bool:
        """Whether `estimate` maximises the likelihood itself."""
        return self.reg_covar == 0

    def about(self, center: np.ndarray) -> Gaussian:
        """The same distribution with sums about another point."""
        return replace(self, pivot=np.asarray(center, dtype=np.float64))

    # ---- densities

    def log_density(self, params: GaussianParams, x: np.ndarray) -> np.ndarray:
        """(n_rows, K) log densities."""
        from dask_em.kernels.gaussian import posteriors

        return posteriors(x, self._kernel_form(np.zeros(len(params.means)), params), "log_density")

    def posteriors(self, log_weights: np.ndarray, params: GaussianParams, x: np.ndarray, want: Any) -> np.ndarray:
        """What the compiled kernel says of each row: "labels", "proba", "loglik" or "log_density"."""
        from dask_em.kernels.gaussian import posteriors

        return posteriors(x, self._kernel_form(log_weights, params), want)

    def mixture_sums(
        self, x: np.ndarray, weight: np.ndarray | None, runs: Sequence[tuple[np.ndarray, GaussianParams]]
    ) -> list[tuple[float, np.ndarray, GaussianStatistics]]:
        """A mixture's whole E-step in compiled code: (loglik, counts, sums) for each (log_weights, params)."""
        from dask_em.kernels.gaussian import mixture_sums

        all_sums = mixture_sums(x, weight, self._pivot(x.shape[1]), [self._kernel_form(*run) for run in runs])
        return [(s.loglik, s.counts, GaussianStatistics(s.counts, s.first, s.second)) for s in all_sums]

    def _kernel_form(self, log_weights: np.ndarray, params: GaussianParams) -> Any:
        from dask_em.kernels.gaussian import Components

        return Components(log_weights, params.means, params.precisions_cholesky, self.covariance_type)

    # ---- sums and estimates

    def statistics(self, x: np.ndarray, resp: np.ndarray) -> GaussianStatistics:
        """Sums of some rows; resp: (n_rows, K), the rows' weights already in."""
        z = np.asarray(x, dtype=np.float64) - self._pivot(x.shape[1])
        counts, first = resp.sum(axis=0), resp.T @ z
        if self.covariance_type == "diag":
            return GaussianStatistics(counts, first, resp.T @ z**2)
        if self.covariance_type == "spherical":
            return GaussianStatistics(counts, first, resp.T @ (z**2).sum(axis=1))
        upper = np.triu_indices(z.shape[1])
        if self.covariance_type == "tied":
            return GaussianStatistics(counts, first, ((z * resp.sum(axis=1)[:, None]).T @ z)[upper])
        second = np.stack([((z * r[:, None]).T @ z)[upper] for r in resp.T])
        return GaussianStatistics(counts, first, second)

    def estimate(self, stats: GaussianStatistics) -> GaussianParams:
        """Maximum-likelihood means and covariances, plus `reg_covar`.

        A component without any weight gets the moments of all rows: it has no say, and any
        parameters are as good.
        """
        filled = self._without_empty(stats)
        means = filled.first / filled.counts[:, None]
        if self.covariance_type == "tied":
            total = stats.counts.sum()
            covariances = self._tied(stats.second / total, means, stats.counts / total)
        else:
            counts = filled.counts.reshape((-1,) + (1,) * (stats.second.ndim - 1))
            shape = {"full": self._full, "diag": self._diag, "spherical": self._spherical}[self.covariance_type]
            covariances = shape(filled.second / counts, means)
        return self.from_moments(self._pivot(means.shape[1]) + means, covariances)

    def from_moments(self, means: np.ndarray, covariances: np.ndarray) -> GaussianParams:
        """Parameters from means and covariances; raises `DegenerateError` where there is no density."""
        return GaussianParams(means, covariances, precisions_cholesky(covariances, self.covariance_type))

    def _without_empty(self, stats: GaussianStatistics) -> GaussianStatistics:
        empty = ~(stats.counts > 0)
        if not empty.any():
            return stats

        def fill(a: np.ndarray) -> np.ndarray:
            return np.where(empty.reshape((-1,) + (1,) * (a.ndim - 1)), a.sum(axis=0), a)

        second = stats.second if self.covariance_type == "tied" else fill(stats.second)
        return GaussianStatistics(fill(stats.counts), fill(stats.first), second)

    def _variances(self, moment: np.ndarray, square: np.ndarray) -> np.ndarray:
        """moment - square, in which what is only rounding counts as zero."""
        variances = moment - square
        variances = np.where(variances > _CANCELLED * moment, variances, 0.0)
        return variances + self.reg_covar

    def _full(self, moments: np.ndarray, means: np.ndarray) -> np.ndarray:
        d = means.shape[1]
        covariances = unpack(moments, d) - means[:, :, None] * means[:, None, :]
        diagonal = np.einsum("kjj->kj", covariances)  # a view
        diagonal[:] = self._variances(np.einsum("kjj->kj", unpack(moments, d)), means**2)
        return covariances

    def _tied(self, moments: np.ndarray, means: np.ndarray, share: np.ndarray) -> np.ndarray:
        d = means.shape[1]
        total = unpack(moments, d)
        between = (means * share[:, None]).T @ means
        covariance = total - between
        np.einsum("jj->j", covariance)[:] = self._variances(np.diag(total), np.diag(between))
        return covariance

    def _diag(self, moments: np.ndarray, means: np.ndarray) -> np.ndarray:
        return self._variances(moments, means**2)

    def _spherical(self, moments: np.ndarray, means: np.ndarray) -> np.ndarray:
        d = means.shape[1]
        return self._variances(moments / d, (means**2).sum(axis=1) / d)

    def expected_loglik(self, params: GaussianParams, stats: GaussianStatistics) -> float:
        """Σ_i Σ_k r_ik log N(x_i; μ_k, Σ_k), from the sums."""
        k, d = params.means.shape
        u = params.precisions_cholesky
        shift = params.means - self._pivot(d)
        n, first = stats.counts, stats.first
        kind = self.covariance_type
        if kind in ("full", "tied"):
            u = u if kind == "full" else np.broadcast_to(u, (k, d, d))
            cross = first[:, :, None] * shift[:, None, :]
            about = n[:, None, None] * shift[:, :, None] * shift[:, None, :] - cross - cross.transpose(0, 2, 1)
            quadratic = np.einsum("kij,kil,kjl->", about, u, u)
            quadratic += np.einsum("kij,kil,kjl->" if kind == "full" else "ij,il,jl->", unpack(stats.second, d), *(
                (u, u) if kind == "full" else (u[0], u[0])
            ))  # fmt: skip
            log_det = np.log(np.einsum("kjj->kj", u)).sum(axis=1)
        else:
            wide = u if kind == "diag" else np.broadcast_to(u[:, None], (k, d))
            about = n[:, None] * shift**2 - 2 * first * shift
            own = (wide**2 * stats.second).sum() if kind == "diag" else u**2 @ stats.second
            quadratic = (wide**2 * about).sum() + own
            log_det = np.log(wide).sum(axis=1)
        return float(n @ (log_det - 0.5 * d * _LOG_2PI) - 0.5 * quadratic)

    # ---- vectors

    def to_vector(self, params: GaussianParams) -> np.ndarray:
        """Means, then log-Cholesky factors of the covariances (log variances for diag and spherical)."""
        c = params.covariances
        if self.covariance_type in ("diag", "spherical"):
            return np.concatenate([params.means.ravel(), np.log(c).ravel()])
        lower = np.linalg.cholesky(c)
        diagonal = np.einsum("...jj->...j", lower)
        diagonal[:] = np.log(diagonal)
        rows, columns = np.tril_indices(c.shape[-1])
        return np.concatenate([params.means.ravel(), lower[..., rows, columns].ravel()])

    def from_vector(self, vector: np.ndarray, n_components: int) -> GaussianParams:
        """Inverse of `to_vector`."""
        k = n_components
        d = self._dimension(len(vector), k)
        means, rest = vector[: k * d].reshape(k, d), vector[k * d :]
        if self.covariance_type == "diag":
            return self.from_moments(means, np.exp(rest).reshape(k, d))
        if self.covariance_type == "spherical":
            return self.from_moments(means, np.exp(rest))
        lower = np.zeros((k if self.covariance_type == "full" else 1, d, d))
        rows, columns = np.tril_indices(d)
        lower[:, rows, columns] = rest.reshape(len(lower), -1)
        diagonal = np.einsum("kjj->kj", lower)
        diagonal[:] = np.exp(diagonal)
        covariances = lower @ lower.transpose(0, 2, 1)
        return self.from_moments(means, covariances if self.covariance_type == "full" else covariances[0])

    def _dimension(self, length: int, k: int) -> int:
        for d in range(1, length + 1):
            if k * d + self.n_covariance_parameters(k, d) == length:
                return d
        raise ValueError(f"no dimension fits a vector of length {length} for {k} components")

    def n_covariance_parameters(self, k: int, d: int) -> int:
        """Free parameters of the covariances."""
        return {"full": k * d * (d + 1) // 2, "tied": d * (d + 1) // 2, "diag": k * d, "spherical": k}[
            self.covariance_type
        ]

    def n_parameters(self, k: int, d: int) -> int:
        """Free parameters of k components in d columns."""
        return k * d + self.n_covariance_parameters(k, d)

    def permuted(self, params: GaussianParams, order: np.ndarray) -> GaussianParams:
        """The components in another order."""
        if self.covariance_type == "tied":
            return replace(params, means=params.means[order])
        return GaussianParams(params.means[order], params.covariances[order], params.precisions_cholesky[order])

    # ---- boundary solutions and draws

    def collapsed(self, params: GaussianParams) -> list[int]:
        """Components whose smallest variance is at least half `reg_covar`."""
        if self.reg_covar == 0:
            return []
        c = params.covariances
        if self.covariance_type in ("full", "tied"):
            smallest = np.atleast_1d(np.linalg.eigvalsh(c).min(axis=-1))
        else:
            smallest = c.reshape(len(c), -1).min(axis=1)
        return [int(k) for k in np.flatnonzero(smallest <= 2 * self.reg_covar)]

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


def unpack(packed: np.ndarray, d: int) -> np.ndarray:
    """(..., d, d) symmetric matrices from (..., d(d+1)/2) upper triangles, row by row."""
    full = np.empty(packed.shape[:-1] + (d, d))
    rows, columns = np.triu_indices(d)
    full[..., rows, columns] = packed
    full[..., columns, rows] = packed
    return full


def precisions_cholesky(covariances: np.ndarray, covariance_type: str) -> np.ndarray:
    """U with inverse covariance U Uᵀ, as `GaussianParams` holds it.

    Raises
    ------
    DegenerateError
        A covariance is not positive definite.
    """
    if covariance_type in ("diag", "spherical"):
        bad = ~(covariances.reshape(len(covariances), -1) > 0).all(axis=1)
        if bad.any():
            raise DegenerateError(_collapse(int(np.flatnonzero(bad)[0])))
        return 1.0 / np.sqrt(covariances)
    if covariance_type == "tied":
        return _inverse_cholesky(covariances, None)
    return np.stack([_inverse_cholesky(c, k) for k, c in enumerate(covariances)])


def _inverse_cholesky(covariance: np.ndarray, k: int | None) -> np.ndarray:
    try:
        lower = cholesky(covariance, lower=True)
    except (LinAlgError, ValueError) as error:  # ValueError: not finite
        raise DegenerateError(_collapse(k)) from error
    return np.ascontiguousarray(solve_triangular(lower, np.eye(len(covariance)), lower=True).T)


def _collapse(k: int | None) -> str:
    which = "the tied covariance" if k is None else f"the covariance of component {k}"
    return (
        f"{which} is not positive definite: it has collapsed onto rows that do not span all columns; raise reg_covar, "
        "use fewer components, or drop columns that others determine"
    )
