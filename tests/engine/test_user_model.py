"""A model that a user writes through the public contract: Rao's genetic linkage."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dask_em as em
from dask_em import store
from dask_em.testing import check_model


@store.register
@dataclass(frozen=True)
class RaoParams:
    theta: float


@dataclass(frozen=True)
class LinkageStatistics(em.Statistics):
    hidden: float  # expected count of the hidden cell
    fourth: float
    middle: float


@dataclass(frozen=True)
class Linkage(em.Model):
    """197 animals in four cells of probability 1/2 + t/4, (1-t)/4, (1-t)/4, t/4 (Rao 1973)."""

    def start(self, sample: em.Chunk, rng: np.random.Generator) -> RaoParams:
        return RaoParams(0.5)

    def e_step(self, params: Sequence[RaoParams], chunk: em.Chunk) -> list[LinkageStatistics]:
        w = np.ones(chunk.n_rows) if chunk.weight is None else chunk.weight
        y = np.bincount(chunk.x[:, 0].astype(int), w, minlength=4)
        return [self._at(p.theta, y) for p in params]

    def _at(self, t: float, y: np.ndarray) -> LinkageStatistics:
        p = np.array([0.5 + t / 4, (1 - t) / 4, (1 - t) / 4, t / 4])
        share = (t / 4) / (0.5 + t / 4)
        return LinkageStatistics(float(y.sum()), float(y @ np.log(p)), y[0] * share, y[3], y[1] + y[2])

    def m_step(self, stats: LinkageStatistics) -> RaoParams:
        up = stats.hidden + stats.fourth
        return RaoParams(up / (up + stats.middle))

    def expected_loglik(self, params: RaoParams, stats: LinkageStatistics) -> float:
        return (stats.hidden + stats.fourth) * np.log(params.theta) + stats.middle * np.log1p(-params.theta)

    def to_vector(self, params: RaoParams) -> np.ndarray:
        return np.array([np.log(params.theta / (1 - params.theta))])

    def from_vector(self, vector: np.ndarray) -> RaoParams:
        return RaoParams(float(1 / (1 + np.exp(-vector[0]))))


CELLS = np.repeat(np.arange(4), [125, 18, 20, 34])[:, None]


def test_linkage_reaches_the_published_estimate() -> None:
    assert em.fit(Linkage(), CELLS, verbose=0).status == "converged"
    result = em.fit(Linkage(), CELLS, tol=0, max_passes=30, verbose=0)  # on, to the last digit
    assert result.params.theta == pytest.approx(0.6268214979, abs=5e-11)


@pytest.mark.parametrize("sample_rows", [197, 120, 30])
@pytest.mark.parametrize("solver", ["em", "anderson", "anchored", "auto"])
def test_every_solver_reaches_the_published_estimate(solver: str, sample_rows: int) -> None:
    rows = np.random.default_rng(0).permutation(CELLS)
    options = {"verbose": 0, "solver": solver, "sample_bytes": sample_rows * (8 + 16), "params": RaoParams(0.05)}
    assert em.fit(Linkage(), rows, **options).status == "converged"
    result = em.fit(Linkage(), rows, tol=0, max_passes=40, **options)  # on, to the last digit that it tells
    digits = 2e-7 if result.history[-1]["kind"] == "anchored" else 5e-11  # a sample's gains are differences
    assert result.params.theta == pytest.approx(0.6268214979, abs=digits)
    if sample_rows < 197 and solver in ("anderson", "anchored"):
        assert em.fit(Linkage(), rows, tol=1e-6, **options).n_passes <= 6


@dataclass(frozen=True)
class Bare(em.Model):
    """The same, of no more than what plain EM needs."""

    def start(self, sample: em.Chunk, rng: np.random.Generator) -> RaoParams:
        return RaoParams(0.5)

    def e_step(self, params: Sequence[RaoParams], chunk: em.Chunk) -> list[LinkageStatistics]:
        return Linkage().e_step(params, chunk)

    def m_step(self, stats: LinkageStatistics) -> RaoParams:
        return Linkage().m_step(stats)


def test_a_model_of_three_methods_is_fitted_by_plain_em() -> None:
    result = em.fit(Bare(), CELLS, tol=1e-9, verbose=0)
    assert result.params.theta == pytest.approx(0.6268214979, abs=1e-6)
    assert {r["kind"] for r in result.history} == {"census", "em"}
    assert {r["kind"] for r in em.fit(Linkage(), CELLS, verbose=0).history} == {"census", "anderson"}


@pytest.mark.parametrize("solver", ["anderson", "anchored"])
def test_a_model_of_three_methods_cannot_be_accelerated(solver: str) -> None:
    with pytest.raises(em.ConfigurationError, match=rf"solver='{solver}' needs a model with .*to_vector.* Bare .*'em'"):
        em.fit(Bare(), CELLS, solver=solver, verbose=0)


def test_counts_as_weights_are_the_same_as_rows() -> None:
    rows = em.fit(Linkage(), CELLS, tol=1e-12, verbose=0)
    counts = em.fit(Linkage(), np.arange(4.0)[:, None], weight=np.array([125.0, 18, 20, 34]), tol=1e-12, verbose=0)
    assert counts.params.theta == pytest.approx(rows.params.theta, abs=1e-12)
    assert counts.loglik == pytest.approx(rows.loglik, abs=1e-9)


def test_the_generic_proofs_hold() -> None:
    proved = check_model(Linkage(), [em.Chunk(CELLS[:50]), em.Chunk(CELLS[50:])])
    assert len(proved) == 11
    assert [line for line in proved if line.startswith("not proved")] == [
        "not proved, since Linkage does not define row_loglik: the rows' own log-likelihoods add up"
    ]


@dataclass(frozen=True)
class WrongMStep(Linkage):
    def m_step(self, stats: LinkageStatistics) -> RaoParams:
        return RaoParams(super().m_step(stats).theta * 0.99)


@dataclass(frozen=True)
class WrongEStep(Linkage):
    def _at(self, t: float, y: np.ndarray) -> LinkageStatistics:
        good = super()._at(t, y)
        return replace(good, hidden=good.hidden * 1.05)


@dataclass(frozen=True)
class NotAdditive(Linkage):
    def _at(self, t: float, y: np.ndarray) -> LinkageStatistics:
        good = super()._at(t, y)
        return replace(good, fourth=good.fourth + 0.1)


@dataclass(frozen=True)
class WritesToRows(Linkage):
    def e_step(self, params: Sequence[RaoParams], chunk: em.Chunk) -> list[LinkageStatistics]:
        chunk.x[:1] = chunk.x[:1]
        return super().e_step(params, chunk)


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (WrongMStep(), "stationary"),
        (WrongEStep(), "Fisher"),
        (NotAdditive(), "split"),
        (WritesToRows(), "writes"),
    ],
)
def test_the_generic_proofs_find_wrong_models(model: Linkage, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_model(model, [em.Chunk(CELLS)])


@dataclass(frozen=True)
class Falling(Linkage):
    def m_step(self, stats: LinkageStatistics) -> RaoParams:
        return RaoParams(super().m_step(stats).theta ** 2)


def test_a_falling_likelihood_is_an_error() -> None:
    with pytest.raises(em.LikelihoodFellError, match="check_model"):
        em.fit(Falling(), CELLS, params=RaoParams(0.6268214979), verbose=0)


def test_a_model_may_name_its_columns() -> None:
    rng = np.random.default_rng(0)
    low = rng.random(1000) < 0.5
    frame = pd.DataFrame({"size": rng.normal(np.where(low, 0, 20), 1.0), "visits": rng.poisson(np.where(low, 1, 9))})
    named = em.Product({"visits": em.Poisson(), "size": em.Gaussian("diag")})
    placed = em.Product({1: em.Poisson(), 0: em.Gaussian("diag")})
    found, expected = (em.fit(em.MixtureModel(2, d), frame, n_init=4, verbose=0) for d in (named, placed))
    assert found.loglik == expected.loglik
    line = em.fit(em.MixtureModel(1, em.LinearRegression(response="visits")), frame, verbose=0)
    assert line.params.components.coef.shape == (1, 1)
    with pytest.raises(em.ConfigurationError, match="'weight'"):
        em.fit(em.MixtureModel(1, em.LinearRegression(response="weight")), frame, verbose=0)


@pytest.mark.parametrize("estimator", [em.Mixture(2), em.KMeans(2), em.FactorAnalysis(1), em.GaussianImputer()])
def test_an_unknown_question_about_rows_is_refused(estimator: Any) -> None:
    x = np.random.default_rng(0).normal(size=(200, 4))
    fitted = estimator.set_params(verbose=0).fit(x)
    with pytest.raises(ValueError, match="want='colour': choose one of"):
        fitted._fitted_model().posteriors(fitted._params(), x, "colour")
