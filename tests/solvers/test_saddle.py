"""Runs that come to rest look around, and leave a saddle but not a maximum."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dask_em as em
from dask_em.distributions.gaussian import GaussianParams
from dask_em.models.incomplete import IncompleteGaussian
from dask_em.solvers import EM
from dask_em.solvers.saddle import LookingState, PastSaddles

NAN = np.nan
MURRAY = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]] + 2 * [[2, NAN], [-2, NAN], [NAN, 2], [NAN, -2]])


def rows(n: int = 2000, d: int = 5, share: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d)) @ (np.eye(d) + 0.5 * rng.normal(size=(d, d)))
    x[rng.random(x.shape) < share] = NAN
    return x


def on_the_saddle() -> GaussianParams:
    return em.Gaussian().from_moments(np.zeros((1, 2)), 2.5 * np.eye(2)[None])


def course(solver: Any, model: em.Model, params: Any, x: np.ndarray) -> list[Any]:
    """The states of a run, pass by pass."""
    states = [solver.begin(model, params)]
    while states[-1].status == "running":
        assert len(states) < 1000
        states.append(solver.tell(model, states[-1], model.e_step(solver.ask(states[-1]), em.Chunk(x))))
    return states


def largest_eigenvalue(model: IncompleteGaussian, params: Any, x: np.ndarray) -> float:
    """Of the Jacobian of an EM step, all of it, by central differences."""
    v = model.to_vector(params)
    near = [model.from_vector(v + s * e) for e in 1e-5 * np.eye(len(v)) for s in (1, -1)]
    steps = [model.to_vector(model.m_step(s)) for s in model.e_step(near, em.Chunk(x))]
    jacobian = (np.array(steps[::2]) - np.array(steps[1::2])).T / 2e-5
    return float(np.linalg.eigvals(jacobian).real.max())


def ritz(state: LookingState) -> float:
    q = np.array(state.basis)[: len(state.images)]
    return float(np.linalg.eigvals(q @ np.array(state.images).T).real.max())


def test_it_sees_the_eigenvalue_that_makes_a_saddle() -> None:
    model, params = em.IncompleteGaussian(), on_the_saddle()
    states = course(PastSaddles(EM(tol=1e-9)), model, params, MURRAY)
    seen = next(s for s in states if isinstance(s, LookingState) and len(s.images) == len(s.basis) and s.looking)
    truth = largest_eigenvalue(model, params, MURRAY)
    assert truth > 1.05
    assert ritz(seen) == pytest.approx(truth, abs=2e-3)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.4])
def test_a_maximum_is_left_as_it_is(share: float) -> None:
    x = rows(share=share)
    x = x[~np.isnan(x).all(axis=1)]
    model = em.IncompleteGaussian().about(np.nanmean(x, axis=0))
    start = model.start(em.Chunk(x), np.random.default_rng(0))
    plain = course(EM(tol=1e-8), model, start, x)
    states = course(PastSaddles(EM(tol=1e-8)), model, start, x)
    assert np.array_equal(states[-1].params.covariances, plain[-1].params.covariances)
    assert (states[-1].status, states[-1].note) == ("converged", plain[-1].note)
    assert states[-1].n_steps == len(states) - 1 <= len(plain) - 1 + 13
    truth = largest_eigenvalue(model, plain[-1].params, x)
    assert truth < 1
    assert ritz(states[-1]) == pytest.approx(truth, abs=0.1)


def test_a_direction_that_stands_alone_is_found() -> None:
    d, rng = 20, np.random.default_rng(1)
    x = np.full((12 + 400, d), NAN)  # Murray's points in the first two columns, whole rows of noise in the others
    x[:12, :2], x[12:, 2:] = MURRAY, rng.normal(size=(400, d - 2))
    mean, c = np.zeros(d), 2.5 * np.eye(d)
    mean[2:], c[2:, 2:] = x[12:, 2:].mean(axis=0), np.cov(x[12:, 2:].T, bias=True)
    start = em.Gaussian().from_moments(mean[None], c[None])
    found = em.fit(em.IncompleteGaussian(), x, params=start, solver="em", tol=1e-8, max_passes=3000, verbose=0)
    got = found.params.covariances[0]
    assert "left a saddle" in found.message
    assert abs(got[0, 1]) / got[0, 0] == pytest.approx(0.5, abs=1e-2)


def test_a_flat_direction_is_no_saddle() -> None:
    x = np.r_[rows(300, 3, 0.0), rows(300, 3, 0.0) + 1]
    x[:300, 0], x[300:, 1] = NAN, NAN  # the first two are never seen together
    result = em.fit(em.IncompleteGaussian(), x, tol=1e-6, verbose=0)
    assert result.status == "converged"
    assert "saddle" not in result.message


def test_it_is_a_matter_of_what_is_hidden() -> None:
    whole = em.fit(em.IncompleteGaussian(), rows(share=0.0), verbose=0)
    assert "looking around" not in [r["step"] for r in whole.history]
    holed = em.fit(em.IncompleteGaussian(), rows(), verbose=0)
    assert [r["step"] for r in holed.history][-1] == "looking around"
    assert holed.n_passes == 1


def test_the_same_seed_leaves_to_the_same_side() -> None:
    fits = [em.GaussianMixture(1, random_state=0, verbose=0).fit(MURRAY) for _ in range(2)]
    assert np.array_equal(fits[0].covariances_, fits[1].covariances_)


@pytest.mark.parametrize("stop", range(3, 20, 2))
def test_a_checkpoint_goes_on_while_looking_around(stop: int, tmp_path: Path) -> None:
    settings: Any = {"params": on_the_saddle(), "verbose": 0, "tol": 1e-3}
    whole = em.fit(em.IncompleteGaussian(), MURRAY, **settings)
    place = str(tmp_path / "c.safetensors")
    em.fit(em.IncompleteGaussian(), MURRAY, checkpoint=place, max_passes=stop, **settings)
    resumed = em.fit(em.IncompleteGaussian(), MURRAY, checkpoint=place, **settings)
    assert np.array_equal(resumed.params.covariances, whole.params.covariances)
    assert [r["step"] for r in resumed.history] == [r["step"] for r in whole.history]
    assert resumed.message == whole.message


def test_a_way_that_leads_nowhere_ends_the_look() -> None:
    class Narrow(IncompleteGaussian):
        """Has no parameters but those at rest."""

        def from_vector(self, vector: np.ndarray) -> GaussianParams:
            raise em.DegenerateError("none there")

    state = course(PastSaddles(EM(tol=1e-9)), Narrow(), on_the_saddle(), MURRAY)[-1]
    assert state.status == "converged"
    assert state.loglik == pytest.approx(-30.033342, abs=6e-7)
