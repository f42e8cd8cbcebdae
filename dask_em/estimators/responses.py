"""What mixtures of regressions say of the response, given the predictors of rows."""

from __future__ import annotations

from typing import cast

import numpy as np

from dask_em.distributions.regression import Regression
from dask_em.errors import RowError
from dask_em.hashing import uniforms
from dask_em.model import Block
from dask_em.models.mixture import MixtureModel, MixtureParams


def mean_responses(model: MixtureModel, params: MixtureParams, x: np.ndarray) -> np.ndarray:
    """(n, K) means under each component; the rows (n, d) or, without the response, (n, d - 1)."""
    distribution = cast(Regression, model.distribution)
    means: np.ndarray = distribution.response_means(params.components, _predictors(distribution, params, x))
    return means


def mean_response(model: MixtureModel, params: MixtureParams, x: np.ndarray) -> np.ndarray:
    """(n,) means under all of them: nothing but the response tells components apart."""
    mean: np.ndarray = mean_responses(model, params, x) @ params.weights
    return mean


def drawn_response(model: MixtureModel, params: MixtureParams, seed: int, x: np.ndarray, block: Block) -> np.ndarray:
    """(n,) responses, drawn by where the rows are."""
    distribution, rows = cast(Regression, model.distribution), np.arange(len(x)) + (block.offset or 0)
    u = uniforms(seed, 0, block.index if block.offset is None else None, rows, np.tile([0, 1], (len(x), 1)))
    labels = np.searchsorted(np.cumsum(params.weights)[:-1], u[:, 0], side="right")
    return distribution.response_quantiles(params.components, _predictors(distribution, params, x), labels, u[:, 1])


def _predictors(distribution: Regression, params: MixtureParams, x: np.ndarray) -> np.ndarray:
    """The rows, checked, with a missing response, which has no say, not even as one that cannot be."""
    d = distribution.n_columns(params.components.coef)
    at, lacks = distribution.position(d), x.shape[1] < d
    x = np.array(x, dtype=np.float64)
    if lacks:
        x = np.insert(x, at, np.nan, axis=1)
    x[:, at] = np.nan
    try:
        distribution.check_rows(x)
    except RowError as error:
        raise RowError(error.row, error.column - (lacks and error.column > at), error.why) from None
    return x
