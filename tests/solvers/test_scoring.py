"""Slopes and the information of a few rows: how far the maximum is, and in which direction."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from courses import KINDS, course, gaussians, overlapping

import dask_em as em
from dask_em.gradients import Differences
from dask_em.resident import ResidentSample
from dask_em.solvers import Anderson
from dask_em.solvers.scoring import Scoring, _corrected, sample_rows, slope_at


def loglik(model: em.MixtureModel, params: Any, x: np.ndarray, w: np.ndarray | None = None) -> float:
    total: float = model.e_step([params], em.Chunk(x, w))[0].close().total_loglik
    return total + model.log_prior(params)


def looked(model: em.MixtureModel, params: Any, x: np.ndarray, rows: int, w: np.ndarray | None = None) -> Scoring:
    stats = model.e_step([params], em.Chunk(x, w))[0].close()
    near = Differences.about(model, params)
    sample = ResidentSample(em.Chunk(x[:rows], None if w is None else w[:rows]))
    found = Scoring.at(near, (model.to_vector(params), slope_at(near, stats)), stats.weight, sample)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_slope_is_that_of_the_log_likelihood(kind: str, weighted: bool) -> None:
    x = overlapping(700, seed=3)
    w = np.random.default_rng(1).uniform(0.1, 3.0, len(x)) if weighted else None
    model = gaussians(x, 3, kind)
    params = model.start(em.Chunk(x), np.random.default_rng(0))
    slope = slope_at(Differences.about(model, params), model.e_step([params], em.Chunk(x, w))[0].close())
    center, step = model.to_vector(params), 1e-5
    for j in range(len(center)):
        move = step * np.eye(len(center))[j]
        rise = loglik(model, model.from_vector(center + move), x, w) - loglik(
            model, model.from_vector(center - move), x, w
        )
        assert slope[j] == pytest.approx(rise / (2 * step), abs=2e-4 * len(x) ** 0.5 + 1e-5 * abs(slope[j]))


def test_the_slope_counts_a_prior() -> None:
    x = (np.random.default_rng(0).random((300, 4)) < 0.3).astype(float)
    model = em.MixtureModel(2, em.Bernoulli(prior=(2.0, 3.0)))
    params = model.start(em.Chunk(x), np.random.default_rng(0))
    for _ in range(3000):
        params = model.m_step(model.e_step([params], em.Chunk(x))[0].close())
    slope = slope_at(Differences.about(model, params), model.e_step([params], em.Chunk(x))[0].close())
    assert np.abs(slope).max() < 1e-3


def test_what_reg_covar_holds_has_no_slope() -> None:
    """At a bound the likelihood rises outwards: where EM ends counts as flat."""
    x = overlapping(800, seed=1)
    model = em.MixtureModel(3, em.Gaussian(reg_covar=0.5).about(x.mean(axis=0)))
    params = model.start(em.Chunk(x), np.random.default_rng(0))
    for _ in range(3000):
        params = model.m_step(model.e_step([params], em.Chunk(x))[0].close())
    near, stats = Differences.about(model, params), model.e_step([params], em.Chunk(x))[0].close()
    assert np.abs(near.gradient(stats)).max() > 5
    assert np.abs(slope_at(near, stats)).max() < 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_to_gain_is_told_from_a_few_rows(kind: str) -> None:
    x = overlapping(20_000, seed=0)
    model = gaussians(x, 3, kind)
    start = model.start(em.Chunk(x), np.random.default_rng(0))
    best = course(model, x, Anderson(tol=0), start, max_passes=500).last
    there = model.to_vector(best.params)
    rng = np.random.default_rng(1)
    for _ in range(5):
        away = rng.normal(size=len(there)) * 0.02
        params = model.from_vector(there + away)
        left = best.loglik - loglik(model, params, x)
        found = looked(model, params, x, rows=2000)
        assert left / 2 < found.gain < 2 * left
        after = found.step(1e-6)
        assert after is not None
        assert best.loglik - loglik(model, after, x) < 0.5 * left


def test_weights_count_as_repeated_rows() -> None:
    x = overlapping(400, seed=0)
    w = np.random.default_rng(0).integers(1, 4, len(x))
    model = gaussians(x, 3)
    params = model.start(em.Chunk(x), np.random.default_rng(0))
    weighted = looked(model, params, x, len(x), w.astype(float))
    repeated = looked(model, params, np.repeat(x, w, axis=0), int(w.sum()))
    assert weighted.gain == pytest.approx(repeated.gain, rel=1e-6)
    assert weighted.values == pytest.approx(repeated.values, rel=1e-6, abs=1e-9)


def test_the_sample_must_tell_of_all_coordinates() -> None:
    class Rows:
        def __init__(self, rows: int) -> None:
            self.rows = rows

    assert sample_rows(100, Rows(399)) == 0  # type: ignore[arg-type]
    assert sample_rows(100, Rows(400)) == 400  # type: ignore[arg-type]
    assert sample_rows(100, Rows(10**6)) == 1424  # type: ignore[arg-type]
    assert sample_rows(1001, Rows(10**6)) == 0  # type: ignore[arg-type]


def test_curvature_is_corrected_by_how_slopes_fell() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(6, 6))
    true = a @ a.T + np.eye(6)
    moves = [rng.normal(size=6) * 2.0**-i for i in range(9)]
    found = _corrected(np.eye(6), [(move, true @ move) for move in moves])
    assert found @ moves[-1] == pytest.approx(true @ moves[-1], rel=1e-9)  # the shortest move has the last word
    assert np.linalg.norm(found - true) < 0.5 * np.linalg.norm(np.eye(6) - true)
    bent = _corrected(found, [(moves[0], -moves[0])])  # the likelihood bends upwards there
    assert np.linalg.eigvalsh(bent).min() > 0


def test_a_step_that_leads_too_far_leads_nowhere() -> None:
    x = overlapping(2000, seed=0)
    model = gaussians(x, 3)
    params = model.start(em.Chunk(x), np.random.default_rng(0))
    found = looked(model, params, x, 2000)
    assert found.step(1e-3) is not None
    assert replace(found, slopes=found.slopes * 1e9).step(1e-3) is None
