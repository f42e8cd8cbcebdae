"""Starts that a user gives a Gaussian mixture: whole, or in part."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from dask_em.distributions.base import filled
from dask_em.distributions.gaussian import Gaussian, GaussianParams
from dask_em.distributions.gaussian_factors import precisions_cholesky
from dask_em.errors import ConfigurationError, DegenerateError
from dask_em.kernels import seeding
from dask_em.model import Chunk
from dask_em.models.mixture import MixtureModel, MixtureParams


@dataclass(frozen=True)
class GivenStart:
    """What of a start is given; None: to be estimated on the sample."""

    weights_init: np.ndarray | None  # (K,)
    means_init: np.ndarray | None  # (K, d)
    precisions_init: np.ndarray | None  # the shape of `precisions_`

    @property
    def empty(self) -> bool:
        """Whether nothing is given."""
        return self.weights_init is None and self.means_init is None and self.precisions_init is None

    def complete(self, distribution: Gaussian) -> MixtureParams | None:
        """The parameters, if all of them are given."""
        if self.weights_init is None or self.means_init is None or self.precisions_init is None:
            return None
        return MixtureParams(self.weights_init, _gaussian(distribution, self.means_init, self.precisions_init))

    def begin(self, model: MixtureModel, sample: Chunk, rng: np.random.Generator) -> MixtureParams:
        """What is given, and the rest estimated from rows assigned to their nearest mean."""
        if self.means_init is None:
            params = model.start(sample, rng)
        else:
            # the columns' scales are taken from the sample, and the means put on them
            both = np.concatenate([filled(sample.x), self.means_init])
            w = np.ones(sample.n_rows) if sample.weight is None else sample.weight
            z = seeding.scaled(both, np.concatenate([w, np.zeros(model.n_components)]))
            labels, _ = seeding.nearest(z[: sample.n_rows], z[sample.n_rows :])
            params = model.from_labels(sample, labels)
        components = params.components
        if self.precisions_init is not None:
            components = _gaussian(cast(Gaussian, model.distribution), components.means, self.precisions_init)
        if self.means_init is not None:
            components = replace(components, means=self.means_init)
        return MixtureParams(params.weights if self.weights_init is None else self.weights_init, components)


def given_start(weights: Any, means: Any, precisions: Any, distribution: Gaussian, k: int, d: int) -> GivenStart:
    """Check what the user gave.

    Raises
    ------
    ConfigurationError
        A wrong shape, weights that are not shares, precisions that are no precisions.
    """
    shapes = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}
    w = _array("weights_init", weights, (k,))
    if w is not None and not ((w >= 0).all() and np.isclose(w.sum(), 1.0)):
        raise ConfigurationError(f"weights_init must be shares that sum to 1, and they sum to {w.sum():g}")
    m = _array("means_init", means, (k, d))
    if m is not None and len(np.unique(m, axis=0)) < k:
        raise ConfigurationError(
            "means_init holds the same mean twice: components that begin alike stay alike; give different means"
        )
    p = _array("precisions_init", precisions, shapes[distribution.covariance_type])
    if p is not None:
        if distribution.covariance_type in ("full", "tied") and not np.allclose(p, np.swapaxes(p, -1, -2)):
            raise ConfigurationError("precisions_init must be symmetric matrices")
        _gaussian(distribution, np.zeros((k, d)), p)
    return GivenStart(w, m, p)


def _array(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    if value is None:
        return None
    try:
        if np.iscomplexobj(value):
            raise TypeError("they are complex")
        a = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{name} must be numbers: {error}") from error
    if a.shape != shape:
        raise ConfigurationError(f"{name} has shape {a.shape}, and this model and data need {shape}")
    if not np.isfinite(a).all():
        raise ConfigurationError(f"{name} holds a value that is not finite")
    return a


def _gaussian(distribution: Gaussian, means: np.ndarray, precisions: np.ndarray) -> GaussianParams:
    kind = distribution.covariance_type
    try:
        if kind in ("diag", "spherical"):
            precisions_cholesky(precisions, kind)  # refuses what is not positive
            return distribution.from_moments(means, 1.0 / precisions)
        precisions_cholesky(precisions, kind)
        return distribution.from_moments(means, np.linalg.inv(precisions))
    except DegenerateError as error:
        raise ConfigurationError("precisions_init must be positive (definite)") from error
