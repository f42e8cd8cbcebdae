"""A mixture part of which is known: its first components, or the weights, are held where they are.

The M-step is that of the others, since each component is estimated from its own sums.  Vectors, and counts of
parameters, are of what is estimated.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from dask_em.distributions.base import alike
from dask_em.errors import ConfigurationError
from dask_em.model import Chunk, Model, Params
from dask_em.models import splitting
from dask_em.models.mixture import MixtureModel, MixtureParams, MixtureStatistics
from dask_em.models.weights import from_logits, to_logits

_IMPOSSIBLE = -1e9  # nats of a row that a known component cannot have made


@dataclass(frozen=True)
class FrozenMixture(MixtureModel):
    """A mixture of which the first components, or the weights, do not move.

    Parameters
    ----------
    n_components : int
        Of all.
    distribution : Distribution
    frozen : parameters of the distribution, optional
        Of the first components, as `Mixture.components_` has them.
    fixed_weights : "equal" or sequence of float, optional
        Shares of the components, that sum to 1.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> rng = np.random.default_rng(0)
    >>> noise = em.Gaussian().from_moments(np.zeros((1, 1)), np.ones((1, 1, 1)))
    >>> x = np.concatenate([rng.normal(0, 1, 900), rng.normal(3, 1, 100)])[:, None]
    >>> result = em.fit(em.FrozenMixture(2, em.Gaussian(), noise), x, tol=1e-6, verbose=0)
    >>> result.params.components.means[0], result.model.n_parameters(1)
    (array([0.]), 3)
    """

    frozen: Params | None = None
    fixed_weights: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frozen is not None:
            self._check_frozen()
        if self.fixed_weights is not None:
            self._check_weights()

    def _check_frozen(self) -> None:
        name = type(self.distribution).__name__
        arrays = _arrays(self.frozen)
        if not arrays:
            raise ConfigurationError(
                f"frozen={self.frozen!r:.60} must be parameters of {name}, as components_ of a fitted em.Mixture"
            )
        if len({len(a) for a in arrays}) > 1 or not self.distribution.separate:
            raise ConfigurationError(
                f"components of {self.distribution!r} share parameters, and so cannot be frozen one by one: let each "
                "have its own"
            )
        if self._n_frozen > self.n_components:
            raise ConfigurationError(
                f"frozen has {self._n_frozen} components, and n_components={self.n_components} counts them in: "
                f"use at least {self._n_frozen}"
            )

    def _check_weights(self) -> None:
        given = self.fixed_weights
        if isinstance(given, str) and given == "equal":
            return
        try:
            w = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError):
            w = np.empty(0)
        if not (w.shape == (self.n_components,) and (w > 0).all() and np.isclose(w.sum(), 1.0)):
            raise ConfigurationError(
                f"fixed_weights={given!r} must be 'equal', or {self.n_components} positive shares that sum to 1"
            )

    @property
    def _n_frozen(self) -> int:
        return 0 if self.frozen is None else len(_arrays(self.frozen)[0])

    @property
    def _n_free(self) -> int:
        return self.n_components - self._n_frozen

    @property
    def _whole(self) -> MixtureModel:
        """The mixture of which nothing is known."""
        return MixtureModel(self.n_components, self.distribution)

    @property
    def interchangeable(self) -> bool:
        """Whether the components' order says nothing."""
        return self.frozen is None and isinstance(self.fixed_weights, str)

    def _held(self, params: MixtureParams) -> MixtureParams:
        """With what is known in its place."""
        weights, components = params.weights, params.components
        if self.fixed_weights is not None:
            equal = isinstance(self.fixed_weights, str)
            weights = np.full(len(weights), 1 / len(weights)) if equal else np.asarray(self.fixed_weights, np.float64)
        if self.frozen is not None:
            components = _joined(self.frozen, _taken(components, slice(self._n_frozen, None)))
        return MixtureParams(weights, components)

    # ---- start

    def start(self, sample: Chunk, rng: np.random.Generator) -> MixtureParams:
        """A start of the whole mixture, in which known components take the clusters that lose least by them."""
        return self._matched(self._whole.start(sample, rng), sample)

    def from_labels(self, sample: Chunk, labels: np.ndarray) -> MixtureParams:
        """The M-step on clusters, some of them taken by known components."""
        return self._matched(self._whole.from_labels(sample, labels), sample)

    def grown(
        self, smaller: Model, params: MixtureParams, sample: Chunk, rng: np.random.Generator
    ) -> list[MixtureParams]:
        """None, but of a mixture that knows the same."""
        if not isinstance(smaller, FrozenMixture) or smaller.frozen is not self.frozen:
            return []
        same = alike(smaller.fixed_weights, self.fixed_weights)
        return super().grown(smaller, params, sample, rng) if same else []

    def moved(self, params: MixtureParams, sample: Chunk, rng: np.random.Generator) -> list[MixtureParams]:
        """With those that are not known moved."""
        return splitting.moved(self, params, sample, self._n_frozen, rng)

    def _matched(self, params: MixtureParams, sample: Chunk) -> MixtureParams:
        """With known components in the place of those nearest to them, and the largest where the largest are due."""
        order = np.arange(self.n_components)
        if self.frozen is not None:
            _joined(self.frozen, _taken(params.components, order[: self._n_free]))  # refuses those of other shapes
            own = self.distribution.log_density(params.components, sample.x)
            known = np.maximum(self.distribution.log_density(self.frozen, sample.x), _IMPOSSIBLE)
            resp = self._whole.posteriors(params, sample.x, "proba")
            resp = resp if sample.weight is None else resp * sample.weight[:, None]
            lost = np.einsum("nk,nk->k", resp, np.maximum(own, _IMPOSSIBLE)) - known.T @ resp  # (frozen, K)
            taken = linear_sum_assignment(lost)[1]
            order = np.concatenate([taken, np.setdiff1d(order, taken)])
        if self.fixed_weights is not None and not isinstance(self.fixed_weights, str):
            free = order[self._n_frozen :]
            due = np.argsort(np.argsort(-np.asarray(self.fixed_weights[self._n_frozen :]), kind="stable"))
            order[self._n_frozen :] = free[np.argsort(-params.weights[free], kind="stable")][due]
        return self._held(self.permuted(params, order))

    # ---- EM

    def m_step(self, stats: MixtureStatistics) -> MixtureParams:
        """The estimates of what is not known."""
        return self._held(super().m_step(stats))

    def to_vector(self, params: MixtureParams) -> np.ndarray:
        """Log weights, unless they are known, and the components that are not."""
        if not self._n_free:
            return to_logits(params.weights) if self.fixed_weights is None else np.empty(0)
        free = _taken(params.components, slice(self._n_frozen, None))
        components = self.distribution.to_vector(free)
        if self.fixed_weights is not None:
            return components
        return np.concatenate([to_logits(params.weights), components])

    def from_vector(self, vector: np.ndarray) -> MixtureParams:
        """Inverse of `to_vector`."""
        k = self.n_components if self.fixed_weights is None else 0
        weights = from_logits(vector[:k]) if k else np.ones(self.n_components)
        if not self._n_free:
            return self._held(MixtureParams(weights, self.frozen))
        free = self.distribution.from_vector(vector[k:], self._n_free)
        components = free if self.frozen is None else _joined(self.frozen, free)
        return self._held(MixtureParams(weights, components))

    def vector_scale(self, params: MixtureParams) -> np.ndarray:
        """Those of the coordinates of `to_vector`."""
        weights = np.sqrt(params.weights)[: None if self.fixed_weights is None else 0]
        if not self._n_free:
            return weights
        free = slice(self._n_frozen, None)
        own = self.distribution.vector_scale(_taken(params.components, free), params.weights[free])
        return np.concatenate([weights, own])

    # ---- after the fit

    def n_parameters(self, n_features: int) -> int:
        """Of what is estimated."""
        weights = self.n_components - 1 if self.fixed_weights is None else 0
        return weights + (self.distribution.n_parameters(self._n_free, n_features) if self._n_free else 0)


def _arrays(params: Any) -> list[np.ndarray]:
    """The arrays of parameters, those of all parts of a product."""
    if isinstance(params, np.ndarray):
        return [params]
    if isinstance(params, (tuple, list)):
        return [a for part in params for a in _arrays(part)]
    if is_dataclass(params) and not isinstance(params, type):
        return [a for f in fields(params) for a in _arrays(getattr(params, f.name))]
    return []


def _taken(params: Any, which: Any) -> Any:
    """The parameters of some of the components."""
    if isinstance(params, np.ndarray):
        return params[which]
    if isinstance(params, tuple):
        return tuple(_taken(part, which) for part in params)
    if is_dataclass(params) and not isinstance(params, type):
        return replace(params, **{f.name: _taken(getattr(params, f.name), which) for f in fields(params)})
    return params


def _joined(first: Any, second: Any) -> Any:
    """The parameters of known components, then of others; raises `ConfigurationError` where they do not go together."""
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray) and first.shape[1:] == second.shape[1:]:
        return np.concatenate([first, second])
    if isinstance(first, tuple) and isinstance(second, tuple) and len(first) == len(second):
        return tuple(_joined(a, b) for a, b in zip(first, second))
    if is_dataclass(first) and not isinstance(first, type) and type(first) is type(second):
        return replace(
            first, **{f.name: _joined(getattr(first, f.name), getattr(second, f.name)) for f in fields(first)}
        )
    if not isinstance(first, (np.ndarray, tuple)) and not is_dataclass(first) and first == second:
        return first
    raise ConfigurationError(
        f"frozen components have {_shape(first)} where those of this mixture have {_shape(second)}: give such as the "
        "same distribution has of the same columns"
    )


def _shape(part: Any) -> str:
    return f"arrays of shape {part.shape[1:]} each" if isinstance(part, np.ndarray) else type(part).__name__
