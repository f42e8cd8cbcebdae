"""What mixtures and chains have in common: K components of one observation distribution, which knows the columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from dask_em.distributions.base import Distribution
from dask_em.errors import ConfigurationError
from dask_em.model import Chunk, Model, Params


@dataclass(frozen=True)
class ComponentModel(Model):
    """A model whose rows come from components of one distribution.

    Its parameters have a field `components`, those of the distribution.
    """

    n_components: int
    distribution: Distribution

    number: ClassVar[str] = "n_components"  # what people call it

    def __post_init__(self) -> None:
        n = self.n_components
        if not (isinstance(n, (int, np.integer)) and not isinstance(n, (bool, np.bool_)) and n >= 1):
            raise ConfigurationError(f"{self.number}={n!r} must be a whole number of at least 1")
        if not isinstance(self.distribution, Distribution):
            raise ConfigurationError(
                f"distribution={self.distribution!r} must be a distribution, such as dask_em.Gaussian() or one of your "
                "own that subclasses dask_em.Distribution"
            )

    @property
    def accepts_nan(self) -> bool:  # type: ignore[override]
        """Whether the distribution knows what to do with missing values."""
        return self.distribution.accepts_nan

    @property
    def accepts_sparse(self) -> bool:  # type: ignore[override]
        """Whether the distribution takes sparse rows."""
        return self.distribution.accepts_sparse

    def check_rows(self, chunk: Chunk) -> None:
        """Raise `RowError` for a value that no component can have made."""
        self.distribution.check_rows(chunk.x)

    def log_prior(self, params: Params) -> float:
        """Of the components."""
        return self.distribution.log_prior(params.components)

    def within(self, low: np.ndarray, high: np.ndarray) -> Self:
        """The same model, given the columns' extremes."""
        return replace(self, distribution=self.distribution.within(low, high))

    def in_units_of(self, variance: np.ndarray) -> Self:
        """The same model, given the columns' variances."""
        return replace(self, distribution=self.distribution.in_units_of(variance))

    def resolved(self, names: Sequence[str] | None) -> Self:
        """With the distribution's columns by position."""
        return replace(self, distribution=self.distribution.resolved(names))

    def takes_text(self, name: str, position: int) -> bool:
        """What the distribution says."""
        return self.distribution.takes_text(name, position)

    def with_levels(self, names: Sequence[str] | None, levels: Mapping[str, tuple[str, ...]]) -> Self:
        """With the distribution given the levels."""
        return replace(self, distribution=self.distribution.with_levels(names, levels))

    def levels_of(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Those of the distribution."""
        return self.distribution.levels_of(names)

    def categories_of(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Those of the distribution."""
        return self.distribution.categories_of(names)

    def about(self, center: np.ndarray) -> Self:
        """The same model, its components' sums taken about a centre."""
        return replace(self, distribution=self.distribution.about(center))

    @property
    def accelerates(self) -> bool:
        """Whether the distribution defines what accelerated solvers ask for."""
        return self.distribution.accelerates

    @property
    def exact_m_step(self) -> bool:
        """Whether the components' estimates maximise the likelihood itself."""
        return self.distribution.exact

    @property
    def discrete(self) -> bool:
        """Whether the distribution is."""
        return self.distribution.discrete

    @property
    def bounded(self) -> bool:
        """Whether the distribution is."""
        return self.distribution.bounded

    def within_bounds(self, params: Params) -> Params:
        """With components as near as the distribution may estimate."""
        return replace(params, components=self.distribution.within_bounds(params.components))

    def loglik_error(self, params: Params) -> float:
        """That of the components."""
        return self.distribution.loglik_error(params.components)

    def modelled(self, names: Sequence[str]) -> list[str]:
        """Those of the columns that each have parameters."""
        return self.distribution.modelled(names)

    def hides_classes_only(self, missing: bool) -> bool:
        """Whether the components hide nothing of their own."""
        return not self.distribution.hides(missing)

    def remarks(self, params: Params) -> list[str]:
        """Those of the components."""
        return self.distribution.remarks(params.components)
