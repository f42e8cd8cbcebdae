"""Poisson regressions, for mixtures of them (Wang, Puterman, Cockburn and Le 1996).

y | z, k ~ Poisson(t exp(β₀_k + β_kᵀ z)),   t being the exposure
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import gammaln

from dask_em import store
from dask_em.distributions.columns import refuse
from dask_em.distributions.exposure import exposures, refuse_exposures
from dask_em.distributions.generalized_regression import GeneralizedRegression, response_mask
from dask_em.distributions.named import check_column, position
from dask_em.errors import ConfigurationError

_HIGHEST = 690.0  # of a log mean: the largest whose exponential is a float, nearly


@store.register
@dataclass(frozen=True)
class PoissonRegression(GeneralizedRegression):
    """Poisson regressions of counts in one column on all others, one for each component; the link is the logarithm.

    Parameters
    ----------
    response : str or int
        Name or position of the counts; all other columns are predictors, but an exposure.
    fit_intercept : bool, default True
    ridge : float, default 0.0
        Of a normal prior on every coefficient, β_j ~ N(0, 1 / (ridge v_j)) with v_j the predictor's variance, whose
        mode is found in place of maximum likelihood.
    exposure : str or int, optional
        Name or position of a column that is no predictor, but how long, or of how many, each row's counts were taken:
        its logarithm is added to the linear predictor (R's offset).  It is above zero.  Default: one for every row.
    names, pivot, variance, extremes : optional
        What a fit learns of the columns.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> import dask_em as em
    >>> rng = np.random.default_rng(0)
    >>> age = rng.uniform(-2, 2, 2000)
    >>> eta = np.where(np.arange(2000) < 1000, 1 + 0.8 * age, 2 - 0.5 * age)
    >>> frame = pd.DataFrame({"age": age, "visits": rng.poisson(np.exp(eta))})
    >>> mix = em.Mixture(2, em.PoissonRegression(response="visits"), random_state=0, verbose=0).fit(frame)
    >>> np.sort(mix.coef_.ravel()).round(1).tolist(), np.sort(mix.intercept_).round(1).tolist()
    ([-0.5, 0.8], [1.0, 2.0])
    """

    exposure: str | int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.exposure is not None:
            check_column("exposure", self.exposure)
            if self.exposure == self.response:
                raise ConfigurationError(f"exposure={self.exposure!r} is the response: name another column")

    # ---- columns

    @property
    def n_others(self) -> int:
        """The response, and the exposure if there is one."""
        return 1 if self.exposure is None else 2

    def others(self, n_features: int | None) -> list[int]:
        """Where these are."""
        return super().others(n_features) + ([] if self.exposure is None else [self._at(n_features)])

    def _at(self, n_features: int | None) -> int:
        assert self.exposure is not None  # is asked before
        return position("PoissonRegression", "exposure", self.exposure, self.names, n_features)

    def offset(self, x: np.ndarray) -> np.ndarray | float:
        """Log exposures."""
        if self.exposure is None:
            return 0.0
        return np.log(exposures("PoissonRegression", x, self._at(x.shape[1])))[:, None]

    def mean_offset(self, n_features: int) -> float:
        """The logarithm of the average exposure."""
        if self.exposure is None or self.pivot is None:
            return 0.0
        return float(np.log(self.pivot[self._at(n_features)]))

    # ---- the family

    def check_rows(self, x: np.ndarray) -> None:
        """Counts are whole and not negative, exposures above zero."""
        j = self.position(x.shape[1])
        y = x[:, j]
        refuse("PoissonRegression", x, response_mask(x, (y < 0) | (np.floor(y) < y), j), "a count for its response")
        if self.exposure is not None:
            refuse_exposures("PoissonRegression", x, self._at(x.shape[1]))

    def mean(self, eta: np.ndarray) -> np.ndarray:
        """exp η, or the largest number."""
        mean: np.ndarray = np.exp(np.minimum(eta, _HIGHEST))
        return mean

    def spread(self, mean: np.ndarray) -> np.ndarray:
        """The mean itself."""
        return mean

    def mean_spread(self, middle: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """The mean of a log-normal."""
        return self.mean(middle + variance / 2)

    def log_likelihood(self, y: np.ndarray, eta: np.ndarray) -> np.ndarray:
        """Y η - exp η - log y!."""
        value: np.ndarray = y * eta - self.mean(eta) - gammaln(y + 1.0)
        return value
