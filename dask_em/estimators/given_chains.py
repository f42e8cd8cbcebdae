"""Parts of a hidden Markov chain that are given, to begin or stay at, as by hmmlearn's `params` and `init_params`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from dask_em.distributions.base import Distribution
from dask_em.distributions.gaussian import Gaussian
from dask_em.distributions.poisson import Poisson, PoissonParams
from dask_em.errors import ConfigurationError, DegenerateError
from dask_em.model import Chunk
from dask_em.models.hidden_markov import HiddenMarkovModel, HiddenMarkovParams

PARTS = {"startprob": frozenset("s"), "transmat": frozenset("t"), "components": frozenset("mcle")}


def letters(given: str | None, known: str, name: str) -> frozenset[str]:
    """The letters of a mask; None: all that there are.

    Raises
    ------
    ConfigurationError
        One is unknown, or only some of those of the states' parameters are there, which are estimated together.
    """
    if given is None:
        return frozenset(known)
    if not isinstance(given, str) or not set(given) <= set(known):
        raise ConfigurationError(f"{name}={given!r} must be some of the letters {known!r}, or None for all of them")
    found, own = frozenset(given), frozenset(known) & PARTS["components"]
    if found & own not in (own, frozenset()):
        raise ConfigurationError(
            f"{name}={given!r}: {' and '.join(sorted(own))} are estimated together, so give both letters or none"
        )
    return found


def given_parts(
    estimator: Any, distribution: Distribution, n_features: int, learned: frozenset[str], begun: frozenset[str]
) -> dict[str, Any]:
    """What attributes say of the parts that are not begun anew, by the names of `PARTS`."""
    given, k = dict[str, Any](), int(estimator.n_states)
    for name, own in PARTS.items():
        if own & begun:
            if not own & learned:
                raise ConfigurationError(
                    f"params leaves {name} as it is, and init_params begins it anew: set the attributes that say what "
                    "it is, and leave its letters out of init_params too"
                )
        elif name == "components":
            given[name] = _components(estimator, distribution, k, n_features)
        else:
            given[name] = _shares(estimator, f"{name}_", (k,) if name == "startprob" else (k, k))
    return given


def _shares(estimator: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
    shares = np.asarray(_attribute(estimator, name), dtype=np.float64)
    if shares.shape != shape or not (shares >= 0).all() or not np.allclose(shares.sum(axis=-1), 1.0):
        raise ConfigurationError(f"{name} must be shares of shape {shape} that sum to 1")
    return shares


def _attribute(estimator: Any, name: str) -> Any:
    if not hasattr(estimator, name):
        raise ConfigurationError(f"init_params begins no {name.rstrip('_')}, so set {name} before the fit")
    return getattr(estimator, name)


def _components(estimator: Any, distribution: Distribution, k: int, d: int) -> Any:
    if isinstance(distribution, Gaussian):
        means, covariances = (np.asarray(_attribute(estimator, n), dtype=float) for n in ("means_", "covariances_"))
        shape = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}[distribution.covariance_type]
        if means.shape != (k, d) or covariances.shape != shape:
            raise ConfigurationError(f"means_ and covariances_ must have shapes {(k, d)} and {shape}")
        try:
            return distribution.from_moments(means, covariances)
        except DegenerateError as error:
            raise ConfigurationError("covariances_ must be positive (definite)") from error
    if isinstance(distribution, Poisson) and hasattr(estimator, "rates_"):
        rates = np.asarray(estimator.rates_, dtype=float)
        if rates.shape != (k, d) or not (rates >= 0).all():
            raise ConfigurationError(f"rates_ must be {(k, d)} numbers that are not negative")
        return PoissonParams(rates)
    return _attribute(estimator, "components_")


def begin_with(
    given: dict[str, Any], model: HiddenMarkovModel, sample: Chunk, rng: np.random.Generator
) -> HiddenMarkovParams:
    """A start in which what is given is as it is."""
    return replace(model.start(sample, rng), **given)
