"""Factor analysers: Gaussians for hundreds of columns, each of few factors and a noise of its own for each column.

    x | k = μ_k + Λ_k z + ε,   z ~ N(0, I_q),   ε ~ N(0, Ψ_k),  Ψ_k = diag(ψ_k),

a mixture of which has K d (q + 2) parameters where full covariances have K d² / 2 (Ghahramani and Hinton 1996;
McLachlan and Peel 2000, chapter 8).  Densities go by Woodbury's identity, n d q operations; the factors are hidden
as the components are, so that the sums are those at the current parameters, with β_k = V_k Λ_kᵀ Ψ_k⁻¹ and
V_k = (I + Λ_kᵀ Ψ_k⁻¹ Λ_k)⁻¹:  E[z | x, k] = β_k (x - μ_k),  Cov[z | x, k] = V_k.

Where values are missing at random, what is observed of a row tells of the factors, and these of the rest: exact, by
d q² operations a row (`factor_holes`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from dask_em import store
from dask_em.distributions.base import Distribution, components_have, filled, possible_counts, real_numbers
from dask_em.distributions.factor_holes import TILE, Analyser, HoledRows, of_tile
from dask_em.distributions.gaussian_holes import has_holes
from dask_em.distributions.spread_prior import Given, check_spread_prior, spread_prior
from dask_em.errors import ConfigurationError, DataError, DegenerateError
from dask_em.kernels.factors import first_factors
from dask_em.kernels.second_moments import SecondMoments
from dask_em.model import Chunk
from dask_em.sums import Sums

_TILE = 4096  # rows at a time
_AT_FLOOR = 1 + 1e-6  # times the floor: so near is on it
_SHRUNK = 10.0  # rows with the covariance of all that a start adds to each cluster, which may have fewer than columns


@store.register
@dataclass(frozen=True)
class FactorsParams:
    """Means (K, d), loadings (K, d, q) and noise variances (K, d)."""

    means: np.ndarray
    loadings: np.ndarray
    noise_variances: np.ndarray

    def posterior(self) -> tuple[np.ndarray, np.ndarray]:
        """Regressions β (K, q, d) of the factors on the columns, and their covariances V (K, q, q) given a row."""
        scaled = self.loadings / self.noise_variances[:, :, None]
        inner = np.eye(self.loadings.shape[2]) + np.swapaxes(self.loadings, 1, 2) @ scaled
        v = np.linalg.inv(inner)
        return v @ np.swapaxes(scaled, 1, 2), v

    def each(self) -> Iterator[Analyser]:
        """The analysers, one by one."""
        return map(Analyser, self.means, self.loadings, self.noise_variances)


@store.register
@dataclass(frozen=True)
class FactorsSums(Sums):
    """Sums about the pivot: r (K,), r x (K, d), r x² (K, d), r z (K, q), r z zᵀ (K, q, q) and r x zᵀ (K, d, q)."""

    counts: np.ndarray
    first: np.ndarray
    square: np.ndarray
    factors: np.ndarray
    factor_square: np.ndarray
    cross: np.ndarray


@store.register
@dataclass(frozen=True)
class Factors(Distribution):
    """Factor analysers, for mixtures of Gaussians in hundreds of columns.

    Missing values (NaN) are taken as missing at random, and handled exactly.

    Parameters
    ----------
    n_factors : int, default 1
    floor : float, default 1e-3
        The noise of a column has at least this share of the column's range as its standard deviation, in every
        component: the likelihood has no bound where it may vanish.
    prior : float or tuple, optional
        Of the noise variances, as `Gaussian` has it of covariances: as if so many more residuals had been seen in
        every component.  Default: none.
    pivot : ndarray of shape (n_features,), optional
        The point that sums are taken about; set by a fit.
    ranges : ndarray of shape (n_features,), optional
        Of the columns; set by a fit.
    variance : ndarray of shape (n_features,), optional
        Of the columns; set by a fit.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(600, 1)) * np.ones(40) + rng.normal(size=(600, 40))
    >>> x[:300, :20] += 3
    >>> mix = em.Mixture(2, em.Factors(1), random_state=0, verbose=0).fit(x)
    >>> mix.weights_.round(2).tolist(), mix.loadings_.shape
    ([0.5, 0.5], (2, 40, 1))
    """

    n_factors: int = 1
    floor: float = 1e-3
    prior: Given = None
    pivot: np.ndarray | None = None
    ranges: np.ndarray | None = None
    variance: np.ndarray | None = None

    accepts_nan: ClassVar[bool] = True

    def __post_init__(self) -> None:
        whole = isinstance(self.n_factors, (int, np.integer)) and not isinstance(self.n_factors, (bool, np.bool_))
        if not (whole and self.n_factors >= 1):
            raise ConfigurationError(f"n_factors={self.n_factors!r} must be a whole number of at least 1")
        if not (real_numbers((self.floor,), 1) and 0 < self.floor < 1):
            raise ConfigurationError(f"floor={self.floor!r} must be a share of a range, between 0 and 1")
        check_spread_prior(self.prior)

    def about(self, center: np.ndarray) -> Factors:
        """The same distribution, its sums taken about a centre."""
        return replace(self, pivot=np.asarray(center, dtype=np.float64))

    def within(self, low: np.ndarray, high: np.ndarray) -> Factors:
        """The same distribution, told the columns' ranges, of which the floor is a share."""
        if self.n_factors > len(low):
            raise DataError(f"n_factors={self.n_factors} factors are more than the {len(low)} columns: use fewer")
        ranges = np.asarray(high, dtype=np.float64) - np.asarray(low, dtype=np.float64)
        return replace(self, ranges=np.where(ranges > 0, ranges, 1.0))

    def in_units_of(self, variance: np.ndarray) -> Factors:
        """The same distribution, given the columns' variances."""
        return replace(self, variance=np.asarray(variance, dtype=np.float64))

    def hides(self, missing: bool) -> bool:
        """The factors."""
        return True

    def _pivot(self, n_features: int) -> np.ndarray:
        return np.zeros(n_features) if self.pivot is None else self.pivot

    def _lowest(self) -> np.ndarray | float:
        """Noise variances (d,) at the floor."""
        return np.finfo(np.float64).tiny if self.ranges is None else (self.floor * self.ranges) ** 2

    # ---- rows

    def log_density(self, params: FactorsParams, x: np.ndarray) -> np.ndarray:
        """(n_rows, K) log densities of what is observed; of whole rows by z'Σ⁻¹z = z'Ψ⁻¹z - (Λ'Ψ⁻¹z)'β z."""
        if has_holes(x):
            return self._log_density_with_holes(params, x)
        beta, v = params.posterior()
        k, d = params.means.shape
        constant = d * np.log(2 * np.pi) + np.log(params.noise_variances).sum(axis=1) - np.linalg.slogdet(v)[1]
        joint = np.empty((len(x), k))
        for start in range(0, len(x), _TILE):
            rows = np.asarray(x[start : start + _TILE], dtype=np.float64)
            for i in range(k):
                z = rows - params.means[i]
                y = z / params.noise_variances[i]
                distance = np.einsum("ij,ij->i", z, y) - np.einsum("ij,ij->i", y @ params.loadings[i], z @ beta[i].T)
                joint[start : start + _TILE, i] = -0.5 * (constant[i] + distance)
        return joint

    def statistics(self, x: np.ndarray, resp: np.ndarray) -> FactorsSums:
        """Sums where nothing is known of the factors yet, as at loadings of zero; nor of what is missing."""
        k, d, q = resp.shape[1], x.shape[1], self.n_factors
        nothing = FactorsParams(np.zeros((k, d)), np.zeros((k, d, q)), np.ones((k, d)))
        return self.expected_statistics(nothing, filled(x), resp)

    def expected_statistics(self, params: FactorsParams, x: np.ndarray, resp: np.ndarray) -> FactorsSums:
        """Sums of rows and of the factors that `params` expect of them."""
        if has_holes(x):
            return self._sums_with_holes(params, x, resp)
        beta, v = params.posterior()
        pivot = self._pivot(x.shape[1])
        off = np.asarray(x, dtype=np.float64) - pivot
        counts = resp.sum(axis=0)
        # β (x - μ) of all components at once: (n, K, q)
        shift = np.einsum("kqd,kd->kq", beta, params.means - pivot)
        z = np.einsum("nd,kqd->nkq", off, beta, optimize=True) - shift
        weighted = resp[:, :, None] * z
        return FactorsSums(
            counts=counts,
            first=resp.T @ off,
            square=resp.T @ off**2,
            factors=weighted.sum(axis=0),
            factor_square=counts[:, None, None] * v + np.einsum("nkq,nkp->kqp", weighted, z, optimize=True),
            cross=np.einsum("nd,nkq->kdq", off, weighted, optimize=True),
        )

    def _log_density_with_holes(self, params: FactorsParams, x: np.ndarray) -> np.ndarray:
        joint = np.empty((len(x), len(params.means)))
        for start in range(0, len(x), TILE):
            rows = HoledRows.of(x[start : start + TILE])
            for i, own in enumerate(params.each()):
                joint[start : start + TILE, i] = rows.factors(own)[0]
        return joint

    def _sums_with_holes(self, params: FactorsParams, x: np.ndarray, resp: np.ndarray) -> FactorsSums:
        rows, pivot = HoledRows.of(x), self._pivot(x.shape[1])
        parts = []
        for own, weight in zip(params.each(), resp.T, strict=True):
            sums = of_tile(own, rows, weight)
            parts.append((sums.count, *sums.about(pivot, own.mean), sums.factors, sums.factor_square))
        counts, first, square, cross, factors, factor_square = map(np.array, zip(*parts, strict=True))
        return FactorsSums(counts, first, square, factors, factor_square, cross)

    # ---- estimates

    def from_labels(self, x: np.ndarray, weight: np.ndarray, labels: np.ndarray, n_components: int) -> FactorsParams:
        """Factors of each cluster's covariance, shrunk a little to that of all rows; what is missing is filled in."""
        x = filled(x)
        whole = SecondMoments.of(Chunk(x, weight))
        overall = whole.covariance
        spread = np.diag(overall)
        overall = overall + np.diag(np.where(spread > 0, 1e-9 * spread, 1.0))
        means, loadings, noise = [], [], []
        for i in range(n_components):
            own = SecondMoments.of(Chunk(x[labels == i], weight[labels == i]))
            a, psi = first_factors((own.central + _SHRUNK * overall) / (own.weight + _SHRUNK), self.n_factors)
            means.append(own.mean if own.weight else whole.mean)
            loadings.append(a)
            noise.append(np.maximum(psi, self._lowest()))
        return FactorsParams(np.array(means), np.array(loadings), np.array(noise))

    def estimate(self, stats: FactorsSums) -> FactorsParams:
        """Regressions of the columns on the factors; a component without rows takes what all have."""
        counts = possible_counts(stats.counts)
        void = counts <= 0
        n = np.where(void, 1.0, counts)
        mean, factors = stats.first / n[:, None], stats.factors / n[:, None]
        variance = stats.square / n[:, None] - mean**2
        square = stats.factor_square / n[:, None, None] - factors[:, :, None] * factors[:, None, :]
        cross = stats.cross / n[:, None, None] - mean[:, :, None] * factors[:, None, :]
        square[void] = np.eye(self.n_factors)
        try:
            loadings = np.swapaxes(np.linalg.solve(square, np.swapaxes(cross, 1, 2)), 1, 2)
        except np.linalg.LinAlgError as error:
            raise DegenerateError("the factors of a component have no variance left: use fewer of them") from error
        psi = variance - (loadings * cross).sum(axis=2)
        means = mean - np.einsum("kdq,kq->kd", loadings, factors)
        if void.any():
            overall = stats.first.sum(axis=0) / counts.sum()
            means[void], loadings[void] = overall, 0.0
            psi[void] = stats.square.sum(axis=0) / counts.sum() - overall**2
        prior = spread_prior(self.prior, len(psi), psi.shape[1], self.variance)
        if prior is not None:
            psi = prior.blended(counts, psi)
        return FactorsParams(means + self._pivot(means.shape[1]), loadings, self._usable(psi))

    def _usable(self, psi: np.ndarray) -> np.ndarray:
        psi = np.maximum(psi, self._lowest())
        if not np.isfinite(psi).all():
            raise DegenerateError("a noise variance is not finite there: scale the columns")
        return psi

    def expected_loglik(self, params: FactorsParams, stats: FactorsSums) -> float:
        """Of rows and factors: Σ r (log N(x; μ + Λ z, Ψ) + log N(z; 0, I))."""
        n, a = stats.counts, params.loadings
        _, d, q = a.shape
        m = params.means - self._pivot(d)
        residual = stats.square - 2 * m * stats.first + n[:, None] * m**2
        residual -= 2 * (a * (stats.cross - m[:, :, None] * stats.factors[:, None, :])).sum(axis=2)
        residual += ((a @ stats.factor_square) * a).sum(axis=2)
        constant = n @ ((d + q) * np.log(2 * np.pi) + np.log(params.noise_variances).sum(axis=1))
        prior = np.trace(stats.factor_square, axis1=1, axis2=2).sum()
        return -0.5 * float(constant + (residual / params.noise_variances).sum() + prior)

    def log_prior(self, params: FactorsParams) -> float:
        """Of the noise variances."""
        psi = params.noise_variances
        prior = spread_prior(self.prior, len(psi), psi.shape[1], self.variance)
        return 0.0 if prior is None else prior.log_density(np.log(psi), 1 / psi)

    # ---- vectors

    def to_vector(self, params: FactorsParams) -> np.ndarray:
        """Means, loadings, log noise variances."""
        return np.concatenate([params.means.ravel(), params.loadings.ravel(), np.log(params.noise_variances).ravel()])

    def from_vector(self, vector: np.ndarray, n_components: int) -> FactorsParams:
        """Inverse of `to_vector`; noise variances no lower than their floor."""
        k, q = n_components, self.n_factors
        d = len(vector) // (k * (q + 2))
        means, loadings, noise = np.split(vector, [k * d, k * d * (q + 1)])
        psi = self._usable(np.exp(noise).reshape(k, d))
        return FactorsParams(means.reshape(k, d).copy(), loadings.reshape(k, d, q).copy(), psi)

    def vector_scale(self, params: FactorsParams, weights: np.ndarray) -> np.ndarray:
        """√(π/ψ) of means and loadings, whose factors have variance one, and √(π/2) of log noise variances."""
        root = np.sqrt(weights[:, None] / params.noise_variances)
        noise = np.broadcast_to(np.sqrt(weights / 2)[:, None], root.shape)
        return np.concatenate([root.ravel(), np.repeat(root.ravel(), self.n_factors), noise.ravel()])

    # ---- after the fit

    def nbytes(self, n_components: int, n_features: int) -> int:
        """Bytes of the parameters."""
        return 8 * n_components * n_features * (self.n_factors + 2)

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Of each component: means, loadings less the rotations that change nothing, and noise variances."""
        q = self.n_factors
        return n_components * (n_features * (q + 2) - q * (q - 1) // 2)

    def degeneracies(self, params: FactorsParams) -> list[str]:
        """Components in which the noise of a column is held up by its floor."""
        held = np.flatnonzero((params.noise_variances <= _AT_FLOOR * self._lowest()).any(axis=1))
        if not len(held):
            return []
        remedy = "use fewer factors or components, or leave out columns that others determine"
        return [
            f"{components_have(held)} a column whose noise is at its floor of {self.floor:g} of the range: {remedy}"
        ]

    def sample(self, params: FactorsParams, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, d) draws."""
        n, d = len(labels), params.means.shape[1]
        z = rng.standard_normal((n, self.n_factors))
        drawn = rng.standard_normal((n, d)) * np.sqrt(params.noise_variances[labels]) + params.means[labels]
        for i in range(len(params.means)):
            own = labels == i
            drawn[own] += z[own] @ params.loadings[i].T
        return drawn
