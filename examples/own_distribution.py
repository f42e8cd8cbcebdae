"""A distribution of one's own in a mixture: how often something was tried before it went well.

python examples/own_distribution.py
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import dask_em as em
from dask_em.store import register
from dask_em.sums import Sums
from dask_em.testing import check_model

# ---------------------------------------------------------------- the distribution


@register  # so that it can be saved
@dataclass(frozen=True)
class GeometricParams:
    chances: np.ndarray  # (K,) of success at each try


@dataclass(frozen=True)
class GeometricSums(Sums):
    counts: np.ndarray  # (K,) expected rows of each component
    failures: np.ndarray  # (K,) and the failures in them


@register
@dataclass(frozen=True)
class Geometric(em.Distribution):
    """x failures before the first success: p(x) = p (1 - p)^x, all K components at once."""

    def log_density(self, params: GeometricParams, x: np.ndarray) -> np.ndarray:
        return np.log(params.chances) + np.asarray(x, float) * np.log1p(-params.chances)

    def statistics(self, x: np.ndarray, resp: np.ndarray) -> GeometricSums:
        return GeometricSums(resp.sum(axis=0), resp.T @ np.asarray(x[:, 0], float))

    def estimate(self, stats: GeometricSums) -> GeometricParams:
        return GeometricParams(stats.counts / (stats.counts + stats.failures))

    # these let solvers accelerate, `check_model` prove more, and criteria count parameters

    def expected_loglik(self, params: GeometricParams, stats: GeometricSums) -> float:
        return float(stats.counts @ np.log(params.chances) + stats.failures @ np.log1p(-params.chances))

    def to_vector(self, params: GeometricParams) -> np.ndarray:
        return np.log(params.chances) - np.log1p(-params.chances)

    def from_vector(self, vector: np.ndarray, n_components: int) -> GeometricParams:
        return GeometricParams(1 / (1 + np.exp(-vector)))

    def n_parameters(self, n_components: int, n_features: int) -> int:
        return n_components


# ---------------------------------------------------------------- its proofs, and a fit


def main() -> em.Mixture:
    """Check the distribution, and find two kinds of players."""
    rng = np.random.default_rng(0)
    failures = (rng.geometric(np.repeat([0.1, 0.7], [400, 600])) - 1)[:, None]
    for proved in check_model(em.MixtureModel(2, Geometric()), [em.Chunk(failures[:300]), em.Chunk(failures[300:])]):
        print("proved:", proved)
    mix = em.Mixture(2, Geometric(), random_state=0, verbose=0).fit(failures)
    for weight, chance in sorted(zip(mix.weights_, mix.chances_, strict=True)):
        print(f"{weight:.0%} of the players succeed {chance:.0%} of the time")
    return mix


if __name__ == "__main__":
    main()
