"""Factor analysis: d columns are linear in q < d hidden factors, and have noise of their own.

    x = μ + Λ z + ε,   z ~ N(0, I),   ε ~ N(0, Ψ),   so that   x ~ N(μ, Λ Λᵀ + Ψ),  Ψ = diag(ψ).

E-step: z given x is normal with mean β (x - μ), β = V Λᵀ Ψ⁻¹, and covariance V = (I + Λᵀ Ψ⁻¹ Λ)⁻¹; M-step: the
regression of x on z (Rubin and Thayer 1982).  Everything that the E-step sums is linear in weight, mean and
second moments of the rows: these sum up the data without loss, which is read once.  Of rows in which values are missing
at random it sums what is expected of them given what is observed, which the moments of each pattern of holes sum up
(Little and Rubin 2019, section 11.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_em import store
from dask_em.distributions.base import filled, real_numbers
from dask_em.distributions.factor_holes import Analyser, HoledRows, HoledSums, of_patterns, of_rows
from dask_em.distributions.gaussian import Gaussian
from dask_em.distributions.gaussian_holes import has_holes
from dask_em.distributions.gaussian_summary import PatternMoments
from dask_em.errors import ColumnError, ConfigurationError, DataError, DegenerateError, check_want
from dask_em.kernels.factors import first_factors
from dask_em.kernels.second_moments import SecondMoments
from dask_em.model import Chunk, Model, Statistics
from dask_em.models.factor_summary import FactorSummary, parted

_AT_FLOOR = 1 + 1e-6  # times the floor: so near is on it
_TILE = 8192  # rows at a time, where rows themselves are asked for


@store.register
@dataclass(frozen=True)
class FactorParams:
    """Mean (d,), loadings (d, q) and noise variances psi (d,), in the units of the columns."""

    mean: np.ndarray
    loadings: np.ndarray
    psi: np.ndarray

    def posterior(self) -> tuple[np.ndarray, np.ndarray]:
        """Regression β (q, d) of the factors on the columns, and covariance V (q, q) of the factors given a row."""
        scaled = self.loadings / self.psi[:, None]
        v = np.linalg.inv(np.eye(self.loadings.shape[1]) + self.loadings.T @ scaled)
        v = (v + v.T) / 2
        return v @ scaled.T, v

    def log_determinant(self) -> float:
        """log |Λ Λᵀ + Ψ|, by the determinant lemma."""
        inner = np.eye(self.loadings.shape[1]) + self.loadings.T @ (self.loadings / self.psi[:, None])
        return float(np.log(self.psi).sum() + np.linalg.slogdet(inner)[1])


@store.register
@dataclass(frozen=True)
class FactorStatistics(Statistics):
    """Sums of x - pivot (d,) and of its squares (d,), of z (q,), z zᵀ (q, q) and (x - pivot) zᵀ (d, q)."""

    first: np.ndarray
    square: np.ndarray
    factors: np.ndarray
    factor_square: np.ndarray
    cross: np.ndarray


@dataclass(frozen=True)
class FactorModel(Model):
    """Factor analysis with `n_factors` factors.  Missing values (NaN) are taken as missing at random.

    Parameters
    ----------
    n_factors : int
    floor : float
        Noise variances are at least this share of their columns' variances.  The likelihood may have its maximum
        where one is zero, a Heywood case, which would be no model of noise at all (Joereskog 1967).
    pivot : ndarray of shape (n_features,), optional
        The point that sums are taken about; a start has its mean there.
    variance : ndarray of shape (n_features,), optional
        Of the columns; without it, what the sums say of it.
    """

    n_factors: int
    floor: float = 0.005
    pivot: np.ndarray | None = None
    variance: np.ndarray | None = None

    accepts_nan = True

    def __post_init__(self) -> None:
        whole = isinstance(self.n_factors, (int, np.integer)) and not isinstance(self.n_factors, (bool, np.bool_))
        if not (whole and self.n_factors >= 1):
            raise ConfigurationError(f"n_components={self.n_factors!r} must be a whole number of at least 1")
        if not (real_numbers((self.floor,), 1) and 0 < self.floor < 1):
            raise ConfigurationError(f"floor={self.floor!r} must be a share of a variance, between 0 and 1")

    @property
    def n_components(self) -> int:
        """The number of factors, by the name that estimators have for it."""
        return self.n_factors

    @property
    def summary(self) -> Callable[[Chunk], Any]:
        """Weight, mean and second central moments; of rows with holes by pattern."""
        return FactorSummary.of

    def check_data(self, n_rows: int, low: np.ndarray, high: np.ndarray) -> None:
        """Refuse a single row, columns that do not vary, and more factors than columns."""
        if n_rows < 2:
            raise DataError(f"n_samples={n_rows} row of positive weight has no spread: give at least 2 rows")
        still = np.flatnonzero(low == high)
        if len(still):
            j = int(still[0])
            raise ColumnError(j, f"is {low[j]:g} in all {n_rows} rows: leave out columns that do not vary")
        if self.n_factors > len(low):
            raise DataError(f"n_components={self.n_factors} factors are more than the {len(low)} columns: use fewer")

    def nbytes(self, n_features: int) -> int:
        """Bytes of one parameter set."""
        return 8 * n_features * (self.n_factors + 2)

    def about(self, center: np.ndarray) -> FactorModel:
        """The same model, its sums taken about a centre."""
        return replace(self, pivot=np.asarray(center, dtype=np.float64))

    def hides_classes_only(self, missing: bool) -> bool:
        """Factors are no classes."""
        return False

    def in_units_of(self, variance: np.ndarray) -> FactorModel:
        """The same model, told the columns' variances, of which the floor is a share."""
        return replace(self, variance=np.asarray(variance, dtype=np.float64))

    def _pivot(self, n_features: int) -> np.ndarray:
        return np.zeros(n_features) if self.pivot is None else self.pivot

    # ---- start

    def start(self, sample: Chunk, rng: np.random.Generator) -> FactorParams:
        """Uniquenesses from the multiple correlations, and the loadings that are best for them (Joereskog 1967)."""
        moments = SecondMoments.of(replace(sample, x=filled(sample.x)) if has_holes(sample.x) else sample)
        covariance = moments.covariance
        still = np.flatnonzero(np.diag(covariance) <= 0)  # a column may not vary in the sample
        covariance[still, still] = 1.0 if self.variance is None else self.variance[still]
        loadings, psi = first_factors(covariance, self.n_factors)
        mean = moments.mean if self.pivot is None else self.pivot
        floor = self.floor * (np.diag(covariance) if self.variance is None else self.variance)
        return FactorParams(mean.copy(), loadings, np.maximum(psi, floor))

    # ---- EM

    def e_step(self, params: Sequence[FactorParams], chunk: Chunk | FactorSummary) -> list[FactorStatistics]:
        """Expected sums at each parameter set, from the rows or from their moments."""
        holed: Chunk | PatternMoments | None
        if isinstance(chunk, FactorSummary):
            whole, holed = chunk.whole, chunk.holed
        else:
            rows, holed = parted(chunk)
            whole = SecondMoments.of(rows)
        sums = [self._sums_of_moments(p, whole) for p in params]
        if holed is None:
            return sums
        analysers = [Analyser(p.mean, p.loadings, p.psi) for p in params]
        if isinstance(holed, PatternMoments):
            expected = [of_patterns(one, holed) for one in analysers]
        else:
            expected = of_rows(analysers, holed.x, holed.weight)
        return [mine + self._sums_of_holed(its, p) for mine, its, p in zip(sums, expected, params, strict=True)]

    def _sums_of_holed(self, sums: HoledSums, params: FactorParams) -> FactorStatistics:
        first, square, cross = sums.about(self._pivot(len(params.mean)), params.mean)
        return FactorStatistics(sums.count, sums.loglik, first, square, sums.factors, sums.factor_square, cross)

    def _sums_of_moments(self, params: FactorParams, moments: SecondMoments) -> FactorStatistics:
        """The sums of rows of which nothing is missing, and their log-likelihood."""
        w, d = moments.weight, len(params.mean)
        pivot = self._pivot(d)
        beta, v = params.posterior()
        s = moments.about(params.mean)
        explained = s @ beta.T  # (d, q) Σ w (x - μ) E[z]ᵀ
        factors = w * (beta @ (moments.mean - params.mean))
        # Σ⁻¹ = Ψ⁻¹ (I - Λ β)
        distance = float(((np.diag(s) - np.einsum("ij,ij->i", params.loadings, explained)) / params.psi).sum())
        loglik = -0.5 * float(w * (d * np.log(2 * np.pi) + params.log_determinant()) + distance)
        off = moments.mean - pivot
        return FactorStatistics(
            weight=w,
            loglik=loglik,
            first=w * off,
            square=np.diag(moments.central) + w * off**2,
            factors=factors,
            factor_square=w * v + beta @ explained,
            cross=explained + np.outer(params.mean - pivot, factors),
        )

    def m_step(self, stats: FactorStatistics) -> FactorParams:
        """The regression of the columns on the factors; noise variances no lower than their floor."""
        w = stats.weight
        if not w > 0:
            raise DegenerateError(f"the rows have a weight of {w:.3g}: a step of the solver went too far")
        square = stats.factor_square - np.outer(stats.factors, stats.factors) / w
        cross = stats.cross - np.outer(stats.first, stats.factors) / w
        variance = (stats.square - stats.first**2 / w) / w
        try:
            loadings = np.linalg.solve(square, cross.T).T
        except np.linalg.LinAlgError as error:
            raise DegenerateError("the factors have no variance left: use fewer of them") from error
        mean = self._pivot(len(variance)) + (stats.first - loadings @ stats.factors) / w
        psi = variance - np.einsum("ij,ij->i", loadings, cross) / w
        psi = np.maximum(psi, self.floor * (variance if self.variance is None else self.variance))
        if not ((psi > 0).all() and np.isfinite(psi).all() and np.isfinite(loadings).all()):
            raise DegenerateError("a column has no variance left, or sums are not finite: scale the columns")
        return FactorParams(mean, loadings, psi)

    def expected_loglik(self, params: FactorParams, stats: FactorStatistics) -> float:
        """Of rows and factors: Σ log N(x; μ + Λ z, Ψ) + log N(z; 0, I)."""
        w, loadings = stats.weight, params.loadings
        off = params.mean - self._pivot(len(params.mean))
        residual = stats.square - 2 * off * stats.first + w * off**2
        residual -= 2 * np.einsum("ij,ij->i", loadings, stats.cross - np.outer(off, stats.factors))
        residual += np.einsum("ij,jk,ik->i", loadings, stats.factor_square, loadings)
        d, q = loadings.shape
        constant = w * ((d + q) * np.log(2 * np.pi) + np.log(params.psi).sum())
        return -0.5 * float(constant + (residual / params.psi).sum() + np.trace(stats.factor_square))

    # ---- vectors

    def to_vector(self, params: FactorParams) -> np.ndarray:
        """Mean, loadings, log noise variances."""
        return np.concatenate([params.mean, params.loadings.ravel(), np.log(params.psi)])

    def from_vector(self, vector: np.ndarray) -> FactorParams:
        """Inverse of `to_vector`; noise variances no lower than their floor, where the columns' variances are known."""
        q = self.n_factors
        d = len(vector) // (q + 2)
        psi = np.exp(vector[d + d * q :])
        if self.variance is not None:
            psi = np.maximum(psi, self.floor * self.variance)
        if not ((psi > 0).all() and np.isfinite(psi).all()):
            raise DegenerateError("a noise variance is zero or infinite there")
        return FactorParams(vector[:d].copy(), vector[d : d + d * q].reshape(d, q).copy(), psi)

    def vector_scale(self, params: FactorParams) -> np.ndarray:
        """1/√ψ of means and loadings, whose factors have variance one, and √½ of log noise variances."""
        root = 1 / np.sqrt(params.psi)
        return np.concatenate([root, np.repeat(root, self.n_factors), np.full(len(root), np.sqrt(0.5))])

    # ---- after the fit

    def n_parameters(self, n_features: int) -> int:
        """Means, loadings less the rotations that change nothing, and noise variances."""
        d, q = n_features, self.n_factors
        return d + d * q + d - q * (q - 1) // 2

    def degeneracies(self, params: FactorParams) -> list[str]:
        """Heywood cases: columns whose noise only the floor holds up."""
        variance = self.variance
        if variance is None:
            variance = (params.loadings**2).sum(axis=1) + params.psi
        low = np.flatnonzero(params.psi <= self.floor * _AT_FLOOR * variance)
        if not len(low):
            return []
        names = ", ".join(str(int(j)) for j in low[:8]) + (", ..." if len(low) > 8 else "")
        columns = f"{len(low)} column{'s' if len(low) > 1 else ''} ({names})"
        remedy = "use fewer factors, or leave out columns that others determine"
        return [f"Heywood case: the noise of {columns} is at its floor of {self.floor:g} of the variance: {remedy}"]

    def observed(self, params: FactorParams, rows: Any) -> np.ndarray | None:
        """(1, d, d) rows in which a column is observed; two that never are together have their factors in common."""
        if isinstance(rows, Chunk):
            present = (~np.isnan(rows.x)).astype(np.float64)
            weight = np.ones(rows.n_rows) if rows.weight is None else rows.weight
        else:
            present, weight = rows.observed()
        return Gaussian("diag").observed(present, weight[:, None])

    def row_loglik(self, params: FactorParams, x: Any) -> np.ndarray:
        """Of each row (n,)."""
        return self.posteriors(params, x, "loglik")

    def posteriors(self, params: FactorParams, x: np.ndarray, want: str) -> np.ndarray:
        """For each row its "loglik" (n,), or the means of its "factors" (n, q), given what is observed of the row."""
        check_want(want, ("loglik", "factors"))
        beta, _ = params.posterior()
        constant = len(params.mean) * np.log(2 * np.pi) + params.log_determinant()
        answers = []
        for start in range(0, max(len(x), 1), _TILE):
            rows = np.asarray(x[start : start + _TILE], dtype=np.float64)
            if has_holes(rows):
                loglik, _, factors, _ = HoledRows.of(rows).factors(Analyser(params.mean, params.loadings, params.psi))
                answers.append(loglik if want == "loglik" else factors)
                continue
            z = rows - params.mean
            factors = z @ beta.T
            if want == "loglik":
                distance = np.einsum("ij,ij->i", z, (z - factors @ params.loadings.T) / params.psi)
                answers.append(-0.5 * (constant + distance))
            else:
                answers.append(factors)
        return np.concatenate(answers)

    def sample(self, params: FactorParams, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """n draws (n, d), and the factors (n, q) of each."""
        factors = rng.standard_normal((n, self.n_factors))
        noise = rng.standard_normal((n, len(params.mean))) * np.sqrt(params.psi)
        return params.mean + factors @ params.loadings.T + noise, factors
