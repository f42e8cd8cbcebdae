"""Components that are moved: two become one, another two, where a start has settled with them in the wrong places."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import dask_em as em
from dask_em.climbing import Start, climbed, race_rows
from dask_em.climbing import begun as at_the_beginning
from dask_em.derived import moved
from dask_em.model import Model
from dask_em.models.frozen import FrozenMixture
from dask_em.race import given_up, make_starts, race
from dask_em.resident import ResidentSample

SETTINGS: dict[str, Any] = {"random_state": 0, "verbose": 0}


@pytest.fixture(scope="module")
def pairs() -> np.ndarray:
    """(8000, 2) rows of two pairs of clusters, close together within each."""
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [4.0, 0.0], [60.0, 0.0], [64.0, 0.0]])
    return centres[rng.integers(4, size=8000)] + rng.normal(size=(8000, 2))


def one_and_three(x: np.ndarray) -> np.ndarray:
    """Labels that give one component to the left pair, and three to the right one: where EM stays."""
    return np.where(x[:, 0] < 30, 0, 1 + np.digitize(x[:, 0], [60, 64]))


def begun(model: Model, params: Any, resident: ResidentSample) -> Start:
    rows = resident.first(race_rows(model, resident))
    return climbed(model, rows, [at_the_beginning(model, rows, params, 0)], 300)[0]


def test_em_alone_stays_where_a_move_leads_out(pairs: np.ndarray) -> None:
    model = em.MixtureModel(4, em.Gaussian()).about(pairs.mean(axis=0))
    resident = ResidentSample(em.Chunk(pairs))
    stuck = begun(model, model.from_labels(em.Chunk(pairs), one_and_three(pairs)), resident)
    assert stuck.state.status == "converged"
    better = moved(model, resident, stuck, seed=0)
    assert better.moves >= 1
    assert better.state.loglik > stuck.state.loglik + 1000
    means = np.sort(better.state.params.components.means[:, 0])
    assert means == pytest.approx([0, 4, 60, 64], abs=0.3)
    again = moved(model, resident, better, seed=1)  # nothing is better than the truth
    assert again.moves == better.moves


def test_what_is_known_of_a_mixture_stays(pairs: np.ndarray) -> None:
    whole = em.MixtureModel(4, em.Gaussian("diag")).about(pairs.mean(axis=0))
    labels = one_and_three(pairs)
    known = em.MixtureModel(1, whole.distribution).from_labels(
        em.Chunk(pairs[labels == 1]), np.zeros((labels == 1).sum(), int)
    )
    model = FrozenMixture(4, whole.distribution, frozen=known.components)
    made = model.moved(model.from_labels(em.Chunk(pairs), labels), em.Chunk(pairs), np.random.default_rng(0))
    assert len(made) > 2
    for params in made:
        assert params.weights.sum() == pytest.approx(1.0)
        assert np.array_equal(params.components.means[0], known.components.means[0])
    all_known = FrozenMixture(1, whole.distribution, frozen=known.components)
    assert all_known.moved(known, em.Chunk(pairs), np.random.default_rng(0)) == []


@pytest.mark.parametrize("k", [1, 2])
def test_there_is_nothing_to_move_of_few_components(pairs: np.ndarray, k: int) -> None:
    model = em.MixtureModel(k, em.Gaussian()).about(pairs.mean(axis=0))
    params = model.start(em.Chunk(pairs), np.random.default_rng(0))
    assert model.moved(params, em.Chunk(pairs), np.random.default_rng(0)) == []


@pytest.mark.parametrize("seed", range(6))
def test_one_start_finds_all_clusters(seed: int) -> None:
    rng = np.random.default_rng(seed)
    centres = rng.uniform(-100, 100, size=(12, 2))
    x = centres[rng.integers(12, size=12_000)] + rng.normal(size=(12_000, 2))
    fitted = em.GaussianMixture(12, n_init=1, random_state=seed, verbose=0).fit(x)
    truth = em.GaussianMixture(12, means_init=centres, random_state=0, verbose=0).fit(x)
    assert fitted.loglik_ == pytest.approx(truth.loglik_, abs=1.0)


def test_restarts_tell_of_moves_and_who_was_left_behind(pairs: np.ndarray) -> None:
    labels = one_and_three(pairs)

    def begin(model: Any, sample: em.Chunk, rng: np.random.Generator) -> Any:
        own = one_and_three(sample.x)
        return model.from_labels(sample, own if rng.random() < 2 else labels)

    from dask_em.entry import Entry
    from dask_em.fitting import run
    from dask_em.settings import Settings

    result = run(Entry(em.MixtureModel(4, em.Gaussian()), begin=begin), em.open(pairs), Settings(n_init=3, verbose=0))
    first, *others = result.restarts
    assert first["moves"] >= 1
    assert first["optimum"] == 0
    assert [line["moves"] for line in others] == [0, 0]
    assert [line["optimum"] for line in others] == [1, 1]  # all three were there; the first went on
    assert all("before components of that one were moved" in line["note"] for line in others)
    assert first["loglik"] > others[0]["loglik"] + 1000


def test_given_starts_are_taken_as_they_are(pairs: np.ndarray) -> None:
    means = np.array([pairs[one_and_three(pairs) == k].mean(axis=0) for k in range(4)])
    fitted = em.GaussianMixture(4, means_init=means, **SETTINGS).fit(pairs)
    assert fitted.restarts_["moves"].tolist() == [0]
    assert (fitted.means_[:, 0] > 30).sum() == 3


def test_moves_are_the_same_on_any_number_of_threads(pairs: np.ndarray) -> None:
    fits = [em.GaussianMixture(5, n_init=2, executor=em.ThreadsExecutor(n), **SETTINGS).fit(pairs) for n in (1, 2)]
    assert np.array_equal(fits[0].means_, fits[1].means_)
    assert fits[0].restarts_.equals(fits[1].restarts_)


def test_the_end_of_time_leaves_one_start_at_least(pairs: np.ndarray) -> None:
    model = em.MixtureModel(4, em.Gaussian()).about(pairs.mean(axis=0))
    made, rest = make_starts(model, ResidentSample(em.Chunk(pairs)), 5, 0, None, until=0.0)
    assert [s.number for s in made] == [0]
    assert [(s.number, s.state.status) for s in rest] == [(i, "time_limit") for i in range(1, 5)]


@pytest.mark.parametrize("status", ["time_limit", "interrupted"])
def test_what_ends_one_start_ends_all(pairs: np.ndarray, status: str) -> None:
    model = em.MixtureModel(4, em.Gaussian()).about(pairs.mean(axis=0))
    made, _ = make_starts(model, ResidentSample(em.Chunk(pairs)), 3, 0, None)
    stopped = replace(made[1], state=replace(made[1].state, status=status))
    assert [s.state.status for s in given_up([made[0], stopped, made[2]])] == [status] * 3


def test_the_end_of_time_ends_the_race(pairs: np.ndarray) -> None:
    model = em.MixtureModel(4, em.Gaussian()).about(pairs.mean(axis=0))
    resident = ResidentSample(em.Chunk(pairs))
    params = model.from_labels(em.Chunk(pairs), one_and_three(pairs))
    starts = [at_the_beginning(model, resident, params, i) for i in range(3)]
    finalists, others = race(model, resident, starts, polish=True, moves=0, until=0.0)
    assert [s.state.status for s in finalists] == ["time_limit"]
    assert len(others) == 2
    assert finalists[0].state.n_steps == 0
    settled = begun(model, params, resident)
    assert moved(model, resident, settled, seed=0, until=0.0) is settled
