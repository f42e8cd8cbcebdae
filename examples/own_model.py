"""A model of one's own, through the public contract: Rao's genetic linkage.

197 animals fall into four cells with probabilities 1/2 + t/4, (1-t)/4, (1-t)/4 and t/4.  The
first cell is really two, of 1/2 and t/4, and how many animals are in which is hidden: with it,
the estimate of t would be a ratio of counts (Rao 1973, section 5g; Dempster, Laird and Rubin 1977).

    python examples/own_model.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import dask_em as em
from dask_em.store import register
from dask_em.testing import check_model

# ---------------------------------------------------------------- the model


@register  # so that it can be saved, and a fit can be checkpointed
@dataclass(frozen=True)
class LinkageParams:
    t: float


@dataclass(frozen=True)
class LinkageSums(em.Statistics):
    """What EM needs of the data; `weight` and `loglik` are inherited, and adding is too."""

    linked: float  # animals of the t/4 cells, the hidden one expected
    other: float  # animals of the (1-t)/4 cells


@dataclass(frozen=True)
class Linkage(em.Model):
    def start(self, sample: em.Chunk, rng: np.random.Generator) -> LinkageParams:
        return LinkageParams(0.5)

    def e_step(self, params: Sequence[LinkageParams], chunk: em.Chunk) -> list[LinkageSums]:
        n = np.bincount(chunk.x[:, 0].astype(int), chunk.weight, minlength=4).astype(float)  # animals in each cell
        return [self._sums(p.t, n) for p in params]

    def _sums(self, t: float, n: np.ndarray) -> LinkageSums:
        loglik = n @ np.log([0.5 + t / 4, (1 - t) / 4, (1 - t) / 4, t / 4])
        hidden = n[0] * (t / 4) / (0.5 + t / 4)
        return LinkageSums(n.sum(), float(loglik), hidden + n[3], n[1] + n[2])

    def m_step(self, stats: LinkageSums) -> LinkageParams:
        return LinkageParams(float(stats.linked / (stats.linked + stats.other)))

    # these three are for check_model, and for solvers that accelerate

    def expected_loglik(self, params: LinkageParams, stats: LinkageSums) -> float:
        return float(stats.linked * np.log(params.t) + stats.other * np.log1p(-params.t))

    def to_vector(self, params: LinkageParams) -> np.ndarray:
        return np.array([np.log(params.t) - np.log1p(-params.t)])

    def from_vector(self, vector: np.ndarray) -> LinkageParams:
        return LinkageParams(float(1 / (1 + np.exp(-vector[0]))))


# ---------------------------------------------------------------- its proofs, and a fit


def main() -> float:
    """Check the model, fit it, and return the estimate of t."""
    cells = np.repeat(np.arange(4), [125, 18, 20, 34])[:, None]  # a row for each animal
    for proved in check_model(Linkage(), [em.Chunk(cells[:60]), em.Chunk(cells[60:])]):
        print("proved:", proved)
    usual = em.fit(Linkage(), cells, verbose=0)
    print(f"t = {usual.params.t:.4f}, {usual.status} after {usual.n_steps} steps")
    result = em.fit(Linkage(), cells, tol=0, max_passes=30, verbose=0)
    print(f"t = {result.params.t:.10f}, to its last digit")
    return float(result.params.t)


if __name__ == "__main__":
    main()
