"""A distribution that a user writes with three methods, in a mixture."""

from dataclasses import dataclass

import numpy as np
import pytest

import dask_em as em
from dask_em import store
from dask_em.models.mixture import MixtureParams
from dask_em.sums import Sums
from dask_em.testing import check_model


@store.register
@dataclass(frozen=True)
class Rates:
    rates: np.ndarray  # (K,)


@dataclass(frozen=True)
class ExponentialSums(Sums):
    counts: np.ndarray
    totals: np.ndarray


@dataclass(frozen=True)
class Exponential(em.Distribution):
    """Waiting times; a time below zero has density zero."""

    def log_density(self, params: Rates, x: np.ndarray) -> np.ndarray:
        return np.where(x >= 0, np.log(params.rates) - params.rates * x, -np.inf)

    def statistics(self, x: np.ndarray, resp: np.ndarray) -> ExponentialSums:
        return ExponentialSums(resp.sum(axis=0), resp.T @ x[:, 0])

    def estimate(self, stats: ExponentialSums) -> Rates:
        return Rates(stats.counts / stats.totals)


@dataclass(frozen=True)
class WithVectors(Exponential):
    def expected_loglik(self, params: Rates, stats: ExponentialSums) -> float:
        return float(stats.counts @ np.log(params.rates) - stats.totals @ params.rates)

    def to_vector(self, params: Rates) -> np.ndarray:
        return np.log(params.rates)

    def from_vector(self, vector: np.ndarray, n_components: int) -> Rates:
        return Rates(np.exp(vector))


@pytest.fixture
def waits() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.exponential(1.0, 300), rng.exponential(50.0, 300)])[:, None]


def test_the_generic_proofs_hold(waits: np.ndarray) -> None:
    proved = check_model(em.MixtureModel(2, WithVectors()), [em.Chunk(waits[:100]), em.Chunk(waits[100:])])
    assert len(proved) == 12
    assert not any("not proved" in line for line in proved)


def test_three_methods_are_enough_and_what_they_leave_unproved_is_said(waits: np.ndarray) -> None:
    said = check_model(em.MixtureModel(2, Exponential()), [em.Chunk(waits)])
    unproved = [line for line in said if line.startswith("not proved, since MixtureModel does not define")]
    assert [line.rpartition(": ")[2] for line in unproved] == [
        "parameters survive the way to a vector and back", "m_step maximises expected_loglik", "Fisher's identity holds"
    ]  # fmt: skip
    result = em.fit(em.MixtureModel(2, Exponential()), waits, verbose=0)
    assert result.status == "converged"
    assert np.sort(1 / result.params.components.rates) == pytest.approx([1, 50], rel=0.2)


def test_a_row_without_weight_counts_for_nothing_whatever_its_density(waits: np.ndarray) -> None:
    model, params = em.MixtureModel(2, Exponential()), MixtureParams(np.array([0.5, 0.5]), Rates(np.array([1.0, 0.02])))
    impossible = np.concatenate([waits, [[-3.0]]])
    weight = np.append(np.ones(len(waits)), 0.0)
    a = model.e_step([params], em.Chunk(impossible, weight))[0]
    b = model.e_step([params], em.Chunk(waits))[0]
    assert (a.loglik, a.weight, a.counts.tolist()) == (b.loglik, b.weight, b.counts.tolist())
    assert model.e_step([params], em.Chunk(impossible))[0].loglik == -np.inf
    nothing = model.e_step([params], em.Chunk(waits[:0]))[0]
    assert (nothing.loglik, nothing.weight, nothing.counts.tolist()) == (0.0, 0.0, [0.0, 0.0])


def test_what_is_not_defined_says_so() -> None:
    params = MixtureParams(np.array([0.5, 0.5]), Rates(np.array([1.0, 2.0])))
    mixture = em.MixtureModel(2, Exponential())
    with pytest.raises(TypeError, match="Exponential does not define to_vector"):
        mixture.to_vector(params)
    with pytest.raises(TypeError, match="Exponential does not define sample"):
        mixture.sample(params, 3, np.random.default_rng(0))
    assert mixture.permuted(params, np.array([1, 0])).components.rates.tolist() == [2.0, 1.0]
    with pytest.raises(em.ConfigurationError, match="subclasses dask_em.Distribution"):
        em.MixtureModel(2, object())  # type: ignore[arg-type]
