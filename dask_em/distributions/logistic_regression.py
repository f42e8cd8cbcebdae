"""Logistic regressions, for mixtures of them (Follmann and Lambert 1991).

    P(y = 1 | z, k) = 1 / (1 + exp(-β₀_k - β_kᵀ z)),   or y ~ binomial(n, such a probability), n being the trials

Not every mixture of them can be told from others: its predictors must take enough values, (K + 1)² - 2 of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from scipy.special import betaln, expit

from dask_em import store
from dask_em.distributions.columns import refuse
from dask_em.distributions.generalized_regression import GeneralizedRegression, response_mask
from dask_em.distributions.sizes import TRIALS, Size


@store.register
@dataclass(frozen=True)
class LogisticRegression(GeneralizedRegression):
    """Logistic regressions of answers of 0 and 1 in one column on all others, one for each component.

    Parameters
    ----------
    response : str or int
        Name or position of the answers; all other columns are predictors.
    fit_intercept : bool, default True
    ridge : float, default 0.0
        Of a normal prior on every coefficient, β_j ~ N(0, 1 / (ridge v_j)) with v_j the predictor's variance, whose
        mode is found in place of maximum likelihood; it keeps coefficients finite where a component's answers can
        be told without an error.
    trials : str or int, optional
        Name or position of a column that is no predictor, but of how many trials each row's response counts the ones.
        Default: one for every row.
    names, pivot, variance, extremes : optional
        What a fit learns of the columns.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> import dask_em as em
    >>> rng = np.random.default_rng(0)
    >>> dose = rng.normal(size=20_000)
    >>> eta = 6 * np.where(np.arange(20_000) < 10_000, dose - 1, dose + 1)
    >>> frame = pd.DataFrame({"dose": dose, "cured": rng.random(20_000) < 1 / (1 + np.exp(-eta))})
    >>> mix = em.Mixture(2, em.LogisticRegression(response="cured"), random_state=0, verbose=0).fit(frame)
    >>> np.sort((mix.intercept_ / mix.coef_[:, 0]).round(1)).tolist()
    [-1.0, 1.0]
    """

    trials: str | int | None = field(default=None, kw_only=True)

    size: ClassVar[Size] = TRIALS

    def check_rows(self, x: np.ndarray) -> None:
        """Answers are 0 or 1, or whole numbers no larger than the trials."""
        j, name = self.position(x.shape[1]), "LogisticRegression"
        y = x[:, j]
        if self.trials is None:
            wrong, should = (y != 0) & (y != 1) & ~np.isnan(y), "0 or 1 for its response"
        else:
            at = self.size_at(x.shape[1])
            self.size.refuse(name, x, at)
            wrong, should = (y < 0) | (y > x[:, at]) | (np.floor(y) < y), "a whole number from 0 to the row's trials"
            should += " for its response"
        refuse(name, x, response_mask(x, wrong, j), should)
        super().check_rows(x)

    def mean(self, eta: np.ndarray) -> np.ndarray:
        """The probability of 1."""
        probability: np.ndarray = expit(eta)
        return probability

    def spread(self, mean: np.ndarray) -> np.ndarray:
        """μ (1 - μ)."""
        return mean * (1 - mean)

    def mean_spread(self, middle: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """By the probit approximation of the logistic function (MacKay 1992)."""
        flat = np.sqrt(1 + np.pi * variance / 8)
        return self.spread(self.mean(middle / flat)) / flat

    def quantiles(self, mean: np.ndarray, size: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Of binomial distributions."""
        from scipy.stats import binom

        return np.asarray(np.maximum(binom.ppf(u, size, mean / size), 0.0))

    def log_likelihood(self, y: np.ndarray, eta: np.ndarray, size: np.ndarray) -> np.ndarray:
        """Y η - n log(1 + exp η), and the logarithm of the number of ways in which y ones can lie among n."""
        ways = 0.0 if self.trials is None else -betaln(y + 1, size - y + 1) - np.log1p(size)
        value: np.ndarray = y * eta - size * np.logaddexp(0.0, eta) + ways
        return value
