"""Stepwise EM for streams: every batch moves a running average of the statistics.

    s_t = (1 - γ_t) s_{t-1} + γ_t s(batch; θ_{t-1}),   θ_t = M(s_t),   γ_t = (τ + t + 1)^-κ

(Cappé and Moulines 2009; with 1/2 < κ <= 1 it converges, and forgets its start the sooner the smaller κ.  For topics it
is the natural gradient of Hoffman, Blei and Bach 2010.)  The first batch is all there is to average, but for a model
that can say which statistics its start stands for.
Statistics are averaged a unit of weight, and given to the M-step at the weight seen so far, so that a prior
counts as it would if all batches were fitted at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from dask_em.errors import ConfigurationError
from dask_em.model import Model, Params, Resident, State, Statistics
from dask_em.solvers.ascent import mapped


@dataclass(frozen=True)
class StepwiseState(State):
    """A run over a stream."""

    average: Any = None  # s_t, a unit of weight
    weight: float = 0.0  # of all batches so far
    rate: float = 1.0  # γ of the last batch


@dataclass(frozen=True)
class Stepwise:
    """Stepwise EM: each step is over a new batch.

    Parameters
    ----------
    kappa : float
        Between 1/2 and 1: how fast the steps shrink.
    offset : float
        τ in γ_t = (τ + t + 1)^-κ, which makes the first steps smaller.
    size : float, optional
        Weight that the M-step takes the stream to have.  None: that of the batches so far.
    """

    kappa: float = 0.6
    offset: float = 0.0
    size: float | None = None
    name: ClassVar[str] = "stepwise"

    def __post_init__(self) -> None:
        if not 0.5 < self.kappa <= 1:
            raise ConfigurationError(f"kappa={self.kappa!r} must be above 0.5 and at most 1: steps must settle")
        if not 0 <= self.offset < float("inf"):
            raise ConfigurationError(f"offset={self.offset!r} must be a number that is not negative")

    def begin(self, model: Model, params: Params) -> StepwiseState:
        """A stream that starts at `params`."""
        return StepwiseState(params=params)

    def ask(self, state: StepwiseState) -> list[Params]:
        """Where the last batch led."""
        return [state.params]

    def tell(
        self, model: Model, state: StepwiseState, answers: list[Any], resident: Resident | None = None
    ) -> StepwiseState:
        """Average the batch's statistics into those before, and take the M-step.

        A batch without weight, or one that would leave a component without a density, changes no parameters.
        """
        stats: Statistics = answers[0]
        if not (stats.weight > 0 and np.isfinite(stats.total_loglik)):
            return replace(state, accepted=False, note="the batch has no weight, or no density where the model is")
        batch = stats * (1 / stats.weight)
        rate = (self.offset + state.n_steps + 1) ** -self.kappa
        seen = state.weight + stats.weight
        weight = seen if self.size is None else self.size
        before = model.implied(state.params, weight) if state.average is None else state.average
        average = batch if before is None else before * (1 - rate) + batch * rate
        params, why = mapped(model, average * weight)
        return replace(
            state,
            params=state.params if params is None else params,
            loglik=average.total_loglik * weight,
            average=average,
            weight=seen,
            rate=rate,
            n_steps=state.n_steps + 1,
            accepted=params is not None,
            note=why,
        )
