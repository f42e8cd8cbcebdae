"""What the tests of solvers share: data, starts, and a solver's course pass by pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import dask_em as em
from dask_em.engine import Fit, Run
from dask_em.resident import ResidentSample
from dask_em.sources.array import ArraySource

KINDS = ["full", "tied", "diag", "spherical"]


@dataclass
class Course:
    """A solver's states, one a pass."""

    states: list[Any]

    @property
    def last(self) -> Any:
        return self.states[-1]

    @property
    def logliks(self) -> np.ndarray:
        return np.array([s.loglik for s in self.states])

    def passes_to(self, loglik: float) -> int:
        """Passes until it is at least so high; a thousand more than there are, if never."""
        there = np.flatnonzero(self.logliks >= loglik)
        return int(there[0]) + 1 if len(there) else len(self.states) + 1000


def course(
    model: em.Model,
    x: np.ndarray,
    solver: Any,
    state: Any,
    *,
    weight: np.ndarray | None = None,
    sample: int | None = None,
    max_passes: int = 1000,
) -> Course:
    """Pass after pass, from a state or parameters, with a resident sample of the first so many rows."""
    resident = None
    if sample is not None:
        resident = ResidentSample(em.Chunk(x[:sample], None if weight is None else weight[:sample]))
    if not isinstance(state, em.State):
        state = solver.begin(model, state)
    source = ArraySource(x, weight=weight, sizes=[len(x)])
    fit = Fit([Run(model, state)], source, solver, em.ThreadsExecutor(1), max_passes=max_passes, resident=resident)
    states = []
    for _ in fit.steps():
        states.append(fit.states[0])
        if len(states) == max_passes:
            break
    return Course(states)


def gaussians(x: np.ndarray, k: int, kind: Any = "full") -> em.MixtureModel:
    """A maximum-likelihood mixture."""
    return em.MixtureModel(k, em.Gaussian(kind, reg_covar=0.0).about(x.mean(axis=0)))


def overlapping(
    n: int, seed: int, d: int = 2, apart: float = 1.5, shares: Sequence[float] = (0.5, 0.3, 0.2)
) -> np.ndarray:
    """Rows of a few Gaussians that plain EM needs long to tell apart, in random order."""
    rng = np.random.default_rng(seed)
    centres = apart * np.stack([rng.permutation(np.arange(len(shares))) for _ in range(d)], axis=1)
    labels = rng.choice(len(shares), size=n, p=shares)
    scales = np.linspace(0.7, 1.3, len(shares))
    return centres[labels] + scales[labels][:, None] * rng.normal(size=(n, d))


def residual(model: em.Model, x: np.ndarray, params: Any, weight: np.ndarray | None = None) -> float:
    """How far a step of plain EM leads, in the parameters' own units."""
    stats = model.e_step([params], em.Chunk(x, weight))[0].close()
    return float(np.abs(model.to_vector(model.m_step(stats)) - model.to_vector(params)).max())
