"""The race: many starts cost hardly more passes than one, and what became of each is told."""

import _thread
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import dask_em as em
from dask_em.callbacks import Quiet
from dask_em.derived import grown_starts
from dask_em.engine import Fit, Run
from dask_em.entry import Entry
from dask_em.fitting import run, run_together
from dask_em.model import Chunk
from dask_em.models.mixture import MixtureModel, MixtureParams
from dask_em.resident import ResidentSample
from dask_em.settings import Settings
from dask_em.solvers.em import EM
from dask_em.sources.array import ArraySource

STATUSES = {"converged", "surpassed", "degenerate", "max_passes"}


@pytest.fixture(scope="module")
def crowd() -> np.ndarray:
    """(30000, 2) rows of nine overlapping Gaussians: the likelihood has many maxima."""
    rng = np.random.default_rng(0)
    centres = 2.2 * np.stack(np.meshgrid(np.arange(3), np.arange(3)), axis=-1).reshape(9, 2)
    scales = rng.uniform(0.4, 1.1, size=9)
    labels = rng.integers(9, size=30_000)
    return centres[labels] + scales[labels][:, None] * rng.normal(size=(30_000, 2))


def gm(k: int, n_init: int, **settings: Any) -> em.GaussianMixture:
    defaults = {"random_state": 0, "verbose": 0, "sample_bytes": 4000 * 32}
    return em.GaussianMixture(k, n_init=n_init, **{**defaults, **settings})


@pytest.mark.parametrize("seed", range(3))
def test_many_starts_cost_at_most_twice_the_passes_of_one(crowd: np.ndarray, seed: int) -> None:
    one = gm(6, 1, random_state=seed).fit(crowd)
    many = gm(6, 32, random_state=seed).fit(crowd)
    assert many.n_passes_ <= 2 * one.n_passes_
    assert many.loglik_ > one.loglik_ - 1.0
    assert max(r["runs"] for r in many.history_) <= 3  # at most so many are taken along


def test_a_hundred_starts_cost_at_most_twice_the_passes_of_one(crowd: np.ndarray) -> None:
    one, many = (gm(4, n).fit(crowd) for n in (1, 100))
    assert many.n_passes_ <= 2 * one.n_passes_
    assert many.loglik_ > one.loglik_ - 1.0
    assert len(many.restarts_) == 100


@pytest.mark.parametrize(("k", "seed"), [(6, 0), (6, 5), (9, 1)])
def test_more_starts_do_not_end_lower(crowd: np.ndarray, k: int, seed: int) -> None:
    few, many = (gm(k, n, random_state=seed, sample_bytes=12_000 * 32).fit(crowd) for n in (8, 32))
    assert many.loglik_ > few.loglik_ - 1.0


def test_every_start_that_settled_has_an_optimum(crowd: np.ndarray) -> None:
    table = gm(4, 20).fit(crowd).restarts_
    assert table["optimum"].notna().all()
    numbers = table["optimum"].astype(int)
    assert set(numbers) == set(range(numbers.max() + 1))
    sample = table[(table["passes"] == 0) & table["note"].str.startswith("beaten")]
    assert len(sample) > 0
    assert sample.sort_values("optimum")["per_weight"].is_monotonic_decreasing
    meets = table[table["note"].str.startswith("the same optimum as start")]
    assert len(meets) > 0
    for number, twin in zip(meets["optimum"], meets["note"].str.split().str[-1].astype(int), strict=True):
        assert number == table["optimum"][twin]


def test_every_start_has_its_row(crowd: np.ndarray) -> None:
    fitted = gm(6, 20).fit(crowd)
    table = fitted.restarts_
    assert list(table["start"]) == list(range(20))
    assert set(table["status"]) <= STATUSES
    best = table.loc[table["per_weight"].idxmax()]
    full = table[table["passes"] > 0]  # those that were looked at on all the data
    assert 1 <= len(full) <= 3
    assert (full["rows"] == 30_000).all()
    assert (table.loc[table["passes"] == 0, "rows"] < 30_000).all()
    assert full["loglik"].max() == fitted.loglik_
    assert best["status"] in ("converged", "surpassed")
    winner = full.loc[full["loglik"].idxmax()]
    assert winner["status"] == "converged"
    assert winner["optimum"] == 0
    assert (table.loc[table["status"] == "surpassed", "note"].str.len() > 0).all()


def test_starts_that_meet_have_one_number() -> None:
    rng = np.random.default_rng(0)
    corners = np.array([[0.0, 0.0], [12.0, 0.0], [0.0, 9.0], [12.0, 9.0]])
    x = np.repeat(corners, 500, axis=0) + rng.normal(size=(2000, 2))
    model = em.MixtureModel(2, em.Gaussian("diag", reg_covar=0.0))
    pairs = {"left and right": [0, 1, 0, 1], "low and high": [0, 0, 1, 1]}
    a, b = (model.from_labels(em.Chunk(x), np.repeat(labels, 500)) for labels in (np.array(v) for v in pairs.values()))
    turned = model.permuted(a, np.array([1, 0]))
    result = em.fit(model, x, params=[b, a, turned, b], verbose=0)
    numbers = [r["optimum"] for r in result.restarts]
    assert numbers[1] == numbers[2] == 0  # the better split, whichever component comes first
    assert numbers[0] == numbers[3] == 1
    logliks = [r["loglik"] for r in result.restarts]
    assert logliks[1] == pytest.approx(logliks[2], rel=1e-12)
    assert result.loglik == max(logliks)


def test_the_same_start_again_and_again_is_one_run(crowd: np.ndarray) -> None:
    def begin_alike(model: Any, sample: em.Chunk, rng: np.random.Generator) -> Any:
        return model.start(sample, np.random.default_rng(3))

    entry = Entry(em.MixtureModel(3, em.Gaussian()), begin=begin_alike)
    settings = Settings(n_init=5, verbose=0, sample_bytes=4000 * 32)
    result = run(entry, em.open(crowd), settings)
    assert [r["runs"] for r in result.history[1:]] == [1] * (len(result.history) - 1)
    assert [r["optimum"] for r in result.restarts] == [0] * 5
    assert sorted(r["status"] for r in result.restarts) == ["converged"] + ["surpassed"] * 4


def test_starts_on_separate_clusters_meet() -> None:
    rng = np.random.default_rng(1)
    x = np.array([[0.0, 0.0], [30.0, 0.0], [0.0, 30.0]])[rng.integers(3, size=9000)] + rng.normal(size=(9000, 2))
    table = gm(3, 8).fit(x).restarts_
    assert (table["optimum"] == 0).sum() >= 6
    assert table["note"].str.contains("the same optimum as start").sum() >= 5


def test_few_distinct_rows_end_with_a_status() -> None:
    x = np.repeat(np.array([[0.0, 0.0], [1.0, 5.0], [7.0, 2.0], [3.0, 3.0]]), 2000, axis=0)
    with pytest.warns(em.FitWarning, match="degenerate"):
        fitted = gm(4, 6, sample_bytes=1000 * 32).fit(x)
    assert fitted.status_ == "degenerate"
    assert np.isfinite(fitted.means_).all()
    assert len(fitted.restarts_) == 6


def test_given_means_are_one_start(crowd: np.ndarray) -> None:
    means = crowd[:3] + np.arange(3)[:, None]
    fitted = gm(3, 16, means_init=means).fit(crowd)
    assert len(fitted.restarts_) == 1
    assert np.array_equal(fitted.means_, gm(3, 1, means_init=means).fit(crowd).means_)


def test_the_same_seed_gives_the_same_race(crowd: np.ndarray) -> None:
    a, b = (gm(5, 10, executor=em.ThreadsExecutor(n)).fit(crowd) for n in (1, 3))
    assert a.restarts_.equals(b.restarts_)
    assert np.array_equal(a.means_, b.means_)


# ---------------------------------------------------------------- interrupts and limits


@dataclass(frozen=True)
class Interrupted(em.MixtureModel):
    """Ctrl-C comes with one of its E-steps."""

    at: ClassVar[int] = 0
    steps: ClassVar[int] = 0

    def e_step(self, params: Sequence[Any], chunk: em.Chunk) -> list[Any]:
        Interrupted.steps += 1
        if Interrupted.steps == Interrupted.at:
            _thread.interrupt_main()
        return super().e_step(params, chunk)


@contextmanager
def interrupt_at(step: int) -> Iterator[None]:
    Interrupted.steps, Interrupted.at = 0, step
    try:
        yield
    finally:
        Interrupted.at = 0


@pytest.mark.filterwarnings("ignore::dask_em.FitWarning")
@pytest.mark.parametrize("step", [2, 4, 7, 8, 20, 21, 40])  # six starts are made first, with a step each
def test_ctrl_c_in_the_race_leaves_parameters_and_no_checkpoint(crowd: np.ndarray, tmp_path: Path, step: int) -> None:
    model, path = Interrupted(4, em.Gaussian()), tmp_path / "fit.checkpoint"
    settings: dict[str, Any] = {"n_init": 6, "sample_bytes": 4000 * 32, "verbose": 0, "solver": "anchored"}
    with interrupt_at(step):
        stopped = em.fit(model, crowd, checkpoint=path, **settings)
    assert stopped.status == "interrupted"
    assert stopped.n_passes == 1  # the census
    assert np.isnan(stopped.loglik)
    assert stopped.params.weights.sum() == pytest.approx(1.0)
    assert np.isfinite(stopped.params.components.means).all()
    assert np.isfinite(model.e_step([stopped.params], em.Chunk(crowd))[0].total_loglik)
    assert len(stopped.restarts) == 6
    assert list(tmp_path.iterdir()) == []  # nothing was written: a race is not worth it
    again = em.fit(model, crowd, checkpoint=path, **settings)
    whole = em.fit(model, crowd, **settings)
    assert again.loglik == whole.loglik
    assert np.array_equal(again.params.components.means, whole.params.components.means)


def test_ctrl_c_before_any_start_is_made_leaves_nothing(crowd: np.ndarray, tmp_path: Path) -> None:
    with interrupt_at(1), pytest.raises(KeyboardInterrupt):
        em.fit(Interrupted(4, em.Gaussian()), crowd, checkpoint=tmp_path / "fit.checkpoint", verbose=0)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_starts_grow_from_a_smaller_mixture_ends_the_race(crowd: np.ndarray) -> None:
    resident = ResidentSample(em.Chunk(crowd[:5000]))
    small = em.MixtureModel(3, em.Gaussian())
    smaller = [(small, small.start(resident.chunk, np.random.default_rng(0)))]
    model = Interrupted(6, em.Gaussian())
    with interrupt_at(0):
        assert len(grown_starts(model, resident, smaller, 0, 2)) > 1
        last = Interrupted.steps
    with interrupt_at(last - 1), pytest.raises(KeyboardInterrupt):
        grown_starts(model, resident, smaller, 0, 2)
    entries = [Entry(small), Entry(model)]
    with interrupt_at(0):
        run_together(entries, em.open(crowd), Settings(n_init=1, verbose=0, max_passes=1))
        first = Interrupted.steps
    for step in (3, first // 2, first - 3):  # within the making of starts, of which the first is drawn
        with interrupt_at(step):
            results = run_together(entries, em.open(crowd), Settings(n_init=1, verbose=0))
        assert [r.status for r in results if isinstance(r, em.FitResult)] == ["interrupted"] * 2


@pytest.mark.parametrize("step", [1, 3, 12])  # four starts are made first
def test_ctrl_c_in_the_race_of_one_candidate_ends_all(crowd: np.ndarray, step: int) -> None:
    entries = [Entry(em.MixtureModel(k, em.Gaussian())) for k in (2, 3)] + [Entry(Interrupted(4, em.Gaussian()))]
    settings = Settings(n_init=4, verbose=0, sample_bytes=4000 * 32, solver="anchored")
    with interrupt_at(step):
        results = run_together(entries, em.open(crowd), settings)
    for result in results:
        assert isinstance(result, em.FitResult)
        assert (result.status, result.n_passes) == ("interrupted", 1)
        assert np.isfinite(result.params.components.means).all()


def test_a_limit_in_time_that_the_race_takes_up_leaves_parameters(crowd: np.ndarray) -> None:
    with pytest.warns(em.FitWarning, match="time_limit"):
        fitted = gm(4, 4, time_limit=1e-6).fit(crowd)
    assert fitted.status_ == "time_limit"
    assert np.isfinite(fitted.score(crowd))
    assert fitted.n_passes_ == 1


def test_a_race_that_the_limit_in_time_ends_leaves_no_checkpoint(crowd: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "fit.checkpoint"
    with pytest.warns(em.FitWarning, match="within the race for starts"):
        stopped = gm(4, 6, time_limit=1e-6, checkpoint=path).fit(crowd)
    assert stopped.status_ == "time_limit"
    assert not stopped.restarts_["note"].str.contains("time_limit=0").any()
    assert list(tmp_path.iterdir()) == []
    again, whole = gm(4, 6, checkpoint=path).fit(crowd), gm(4, 6).fit(crowd)
    assert np.array_equal(again.means_, whole.means_)
    assert len(again.restarts_) == 6


class Reads(ArraySource):
    in_memory = False
    reads = 0

    def read(self, index: int) -> em.Chunk:
        Reads.reads += 1
        return super().read(index)


def test_the_race_reads_no_data(crowd: np.ndarray) -> None:
    seen = []

    class AtStart(Quiet):
        def on_start(self, fit: Any) -> None:
            seen.append(Reads.reads)

    Reads.reads = 0
    source = Reads(crowd, sizes=[3000] * 10)
    gm(4, 16, callbacks=[AtStart()]).fit(source)
    assert seen == [10]


class Unlucky(MixtureModel):
    """Some of its starts come to nothing."""

    def start(self, sample: Chunk, rng: np.random.Generator) -> MixtureParams:
        if rng.random() < 0.5:
            raise em.DegenerateError("this start came to nothing")
        return super().start(sample, rng)


def test_every_start_is_listed_with_the_rows_that_it_was_measured_on(crowd: np.ndarray) -> None:
    small = 2000 * (2 * 8 + 16)
    settings = {"n_init": 8, "random_state": 0, "verbose": 0, "sample_bytes": small}
    lines = em.fit(Unlucky(3, em.Gaussian()), crowd, **settings).restarts
    assert [line["start"] for line in lines] == list(range(8))
    void = [line for line in lines if line["note"] == "this start came to nothing"]
    assert 0 < len(void) < 8
    assert all(line["status"] == "degenerate" and line["rows"] == 0 for line in void)
    for line in lines:
        if line["rows"]:
            assert line["rows"] == (len(crowd) if line["passes"] else 2000)
            assert line["loglik"] == pytest.approx(line["per_weight"] * line["rows"])


def test_starts_that_no_pass_looked_at_have_no_rows(crowd: np.ndarray) -> None:
    small = 2000 * (2 * 8 + 16)
    with pytest.warns(em.FitWarning, match="max_passes"):
        table = gm(3, 4, sample_bytes=small, max_passes=1).fit(crowd).restarts_
    unknown = table[table["status"] == "max_passes"]
    assert len(unknown) > 0
    assert (unknown["rows"] == 0).all()
    assert unknown["loglik"].isna().all()


@dataclass(frozen=True)
class Collapsing(EM):
    """EM in which whatever comes above a log-likelihood has collapsed."""

    ceiling: float = np.inf

    def tell(self, model: Any, state: Any, answers: list[Any], resident: Any = None) -> Any:
        state = super().tell(model, state, answers, resident)
        return replace(state, status="degenerate") if state.loglik > self.ceiling else state


def test_who_was_passed_by_goes_on_where_the_leader_collapses(three_blobs: np.ndarray) -> None:
    model = em.MixtureModel(3, em.Gaussian()).about(three_blobs.mean(axis=0))
    sample = em.Chunk(three_blobs)
    good = model.from_labels(sample, np.digitize(three_blobs[:, 0], [0.0, 1.0]))  # twelve passes from its optimum
    poor = model.from_labels(sample, np.digitize(three_blobs[:, 1], [-6.0, -5.0]))  # two hundred, of a poor one
    alone = em.fit(model, three_blobs, params=[poor], solver="em", verbose=0)
    best = em.fit(model, three_blobs, params=[good], solver="em", verbose=0)
    solver = Collapsing(ceiling=best.loglik - 1.0)
    fit = Fit(
        [Run(model, solver.begin(model, p), start=i) for i, p in enumerate((good, poor))],
        ArraySource(three_blobs), solver, em.ThreadsExecutor(1), drop=True,
    )  # fmt: skip
    statuses = [tuple(state.status for state in fit.states) for _ in fit.steps()]
    assert ("running", "surpassed") in statuses
    assert statuses[-1] == ("degenerate", "converged")
    assert fit.states[fit.best].loglik == pytest.approx(alone.loglik, abs=0.1)
