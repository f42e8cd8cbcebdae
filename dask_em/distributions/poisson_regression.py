"""Poisson regressions, for mixtures of them (Wang, Puterman, Cockburn and Le 1996).

y | z, k ~ Poisson(t exp(β₀_k + β_kᵀ z)),   t being the exposure
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from scipy.special import gammaln

from dask_em import store
from dask_em.distributions.columns import refuse
from dask_em.distributions.generalized_regression import GeneralizedRegression, response_mask
from dask_em.distributions.sizes import EXPOSURE, Size

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

    size: ClassVar[Size] = EXPOSURE

    def check_rows(self, x: np.ndarray) -> None:
        """Counts are whole and not negative, exposures above zero."""
        j = self.position(x.shape[1])
        y = x[:, j]
        refuse("PoissonRegression", x, response_mask(x, (y < 0) | (np.floor(y) < y), j), "a count for its response")
        if self.exposure is not None:
            self.size.refuse("PoissonRegression", x, self.size_at(x.shape[1]))
        super().check_rows(x)

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

    def begin(self, mean_size: float) -> float:
        """Where the average row has a mean of one."""
        return -float(np.log(mean_size))

    def quantiles(self, mean: np.ndarray, size: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Of Poisson distributions."""
        from scipy.stats import poisson

        return np.asarray(np.maximum(poisson.ppf(u, mean), 0.0))

    def log_likelihood(self, y: np.ndarray, eta: np.ndarray, size: np.ndarray) -> np.ndarray:
        """Y (η + log t) - t exp η - log y!."""
        value: np.ndarray = y * (eta + np.log(size)) - size * self.mean(eta) - gammaln(y + 1.0)
        return value
