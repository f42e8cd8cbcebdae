"""The surrogate likelihood: right to first order at its origin, whatever the sample."""

import numpy as np
import pytest
from courses import KINDS, gaussians, overlapping

import dask_em as em
from dask_em.models.kmeans import KMeansModel
from dask_em.resident import ResidentSample
from dask_em.solvers.surrogate import Surrogate


def about(kind: str, rows: slice, weighted: bool) -> tuple[em.MixtureModel, em.Chunk, Surrogate]:
    """A mixture, all rows, and the surrogate that some of them make two EM steps from a start."""
    x = overlapping(1500, seed=2)
    w = np.random.default_rng(0).uniform(0.2, 3.0, size=len(x)) if weighted else None
    model, chunk = gaussians(x, 3, kind), em.Chunk(x, w)
    params = model.start(chunk, np.random.default_rng(0))
    for _ in range(2):
        params = model.m_step(model.e_step([params], chunk)[0])
    part = ResidentSample(em.Chunk(x[rows], None if w is None else w[rows]))
    return model, chunk, Surrogate.at(model, params, model.e_step([params], chunk)[0], part)


def slope(f, at: np.ndarray) -> np.ndarray:
    """Central differences."""
    step = 1e-5
    sides = [(f(at + step * e), f(at - step * e)) for e in np.eye(len(at))]
    return np.array([(up - down) / (2 * step) for up, down in sides])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rows", [slice(0, 60), slice(500, 1500)])
@pytest.mark.parametrize("kind", KINDS)
def test_it_has_the_gradient_of_the_likelihood_at_its_origin(kind: str, rows: slice, weighted: bool) -> None:
    model, chunk, surrogate = about(kind, rows, weighted)
    at = model.to_vector(surrogate.origin)

    def full(v: np.ndarray) -> float:
        return model.e_step([model.from_vector(v)], chunk)[0].total_loglik

    def value(v: np.ndarray, damping: float = 0.0) -> float:
        ((stats, j),) = surrogate._e_step([model.from_vector(v)], damping)
        return stats.loglik if damping else j

    wanted = slope(full, at)
    assert np.abs(wanted).max() > 1  # not at rest, where any would do
    assert slope(value, at) == pytest.approx(wanted, rel=1e-4, abs=1e-4 * np.abs(wanted).max())
    damped = slope(lambda v: value(v, 0.3), at)
    assert damped == pytest.approx(wanted, rel=1e-4, abs=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("weighted", [False, True])
def test_gains_are_told_from_its_value_at_the_origin(weighted: bool) -> None:
    _, _, surrogate = about("full", slice(0, 400), weighted)
    assert surrogate.gain(surrogate.origin) == pytest.approx(0.0, abs=1e-8)
    ((_, j),) = surrogate._e_step([surrogate.origin], 0.0)
    assert j == pytest.approx(surrogate.value, rel=1e-13)
    better, gain = surrogate.maximised(0.0, tol=1e-6, steps=100, expected=np.inf)
    assert gain > 1
    assert surrogate.gain(better) == pytest.approx(gain, rel=1e-9)


def test_where_the_sample_is_all_the_data_it_is_the_likelihood() -> None:
    model, chunk, surrogate = about("full", slice(0, 1500), True)
    other = model.start(chunk, np.random.default_rng(7))
    own, there = (model.e_step([p], chunk)[0].total_loglik for p in (surrogate.origin, other))
    ((_, j),) = surrogate._e_step([other], 0.0)
    assert j - surrogate.value == pytest.approx(there - own, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_fully_damped_its_maximum_is_the_step_of_plain_em(kind: str) -> None:
    model, chunk, surrogate = about(kind, slice(0, 200), False)
    step = model.to_vector(model.m_step(model.e_step([surrogate.origin], chunk)[0]))
    found, _ = surrogate.maximised(1.0, tol=1e-12, steps=50, expected=np.inf)
    assert model.to_vector(found) == pytest.approx(step, abs=1e-10)
    # and the less of it there is left, the nearer
    apart = [
        np.abs(model.to_vector(surrogate.maximised(d, tol=1e-6, steps=80, expected=np.inf)[0]) - step).max()
        for d in (0.2, 0.8, 0.99)
    ]
    assert apart[0] > apart[1] > apart[2]


def test_what_promises_too_much_is_not_followed() -> None:
    _, _, surrogate = about("full", slice(0, 60), False)
    _, far = surrogate.maximised(0.0, tol=1e-6, steps=100, expected=np.inf)
    _, near = surrogate.maximised(0.0, tol=1e-6, steps=100, expected=far / 1000)
    assert near <= far / 100


def test_sums_that_no_m_step_can_maximise_over_end_the_solve() -> None:
    """Less what the sample gets wrong, a cluster can hold less than no rows."""
    rng = np.random.default_rng(107)
    x = rng.normal(size=(3000, rng.integers(1, 4)))
    model, chunk, part = KMeansModel(60).about(x.mean(axis=0)), em.Chunk(x), ResidentSample(em.Chunk(x[:75]))
    params = model.start(chunk, rng)
    for i in range(15):
        stats = model.e_step([params], chunk)[0]
        for damping in (0.0, 0.64):
            better, gain = Surrogate.at(model, params, stats, part).maximised(
                damping, tol=1e-3, steps=150, expected=np.inf
            )
            assert gain >= 0
        params = model.m_step(stats) if i % 2 else better
