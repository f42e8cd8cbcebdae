"""The resident sample: which rows it holds, how many bytes, and that data which fits in it is read once."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dask_em as em
from dask_em.callbacks import Quiet
from dask_em.callbacks.checkpoint import read_checkpoint
from dask_em.executors.threads import ThreadsExecutor
from dask_em.initialize import CensusRequest, Sample, take_census
from dask_em.model import Chunk
from dask_em.resident import ResidentSample
from dask_em.sources.array import ArraySource

ROW = 3 * 8 + 16  # bytes of a row of three columns, with its key and weight


class Counted(ArraySource):
    """Counts the reads of each block; some come late."""

    in_memory = False

    def __init__(self, x: np.ndarray, late: int | None = None, **kwargs: Any) -> None:
        super().__init__(x, **kwargs)
        self.reads = [0] * len(self.blocks)
        self.late, self.lock = late, threading.Lock()

    def read(self, index: int) -> Chunk:
        with self.lock:
            self.reads[index] += 1
        if self.late is not None and index % 7 == self.late:
            time.sleep(0.005)
        return super().read(index)


class Holds(Quiet):
    """What the fit holds."""

    def on_start(self, fit: Any) -> None:
        self.resident, self.in_memory = fit.resident, fit.in_memory


def sizes(n: int, each: int) -> list[int]:
    return [min(each, n - i) for i in range(0, n, each)]


def gm(**settings: Any) -> em.GaussianMixture:
    return em.GaussianMixture(**{"n_components": 3, "random_state": 0, "verbose": 0, "n_init": 2, **settings})


@pytest.mark.parametrize("solver", ["auto", "em", "anderson", "anchored"])
def test_data_that_fits_is_read_once(three_blobs: np.ndarray, solver: str) -> None:
    source = Counted(three_blobs, sizes=sizes(6000, 500))
    fitted = gm(solver=solver, sample_bytes=6000 * ROW).fit(source)
    assert source.reads == [1] * 12
    assert fitted.n_passes_ == 1
    assert fitted.status_ == "converged"
    assert [r["resident"] for r in fitted.history_] == [False] + [True] * (len(fitted.history_) - 1)
    again = gm(solver=solver, sample_bytes=2000 * ROW).fit(three_blobs)
    assert fitted.loglik_ == pytest.approx(again.loglik_, abs=0.2)


def test_data_that_does_not_fit_is_read_for_every_pass(three_blobs: np.ndarray) -> None:
    source = Counted(three_blobs, sizes=sizes(6000, 500))
    fitted = gm(sample_bytes=5999 * ROW).fit(source)
    assert fitted.n_passes_ == len(fitted.history_) > 1
    assert source.reads == [fitted.n_passes_] * 12
    assert not any(r["resident"] for r in fitted.history_)
    assert [(r["number"], r["pass"]) for r in fitted.history_] == [(i, i) for i in range(1, fitted.n_passes_ + 1)]
    assert fitted.n_steps_ == fitted.n_passes_ - 1  # the census moves nothing
    assert fitted.restarts_["passes"].max() == fitted.restarts_["steps"].max() == fitted.n_steps_


@pytest.mark.parametrize(("rows", "dtype"), [(500, np.float64), (500, np.float32), (5999, np.float64)])
def test_its_bytes_are_bounded(three_blobs: np.ndarray, rows: int, dtype: Any) -> None:
    x = three_blobs.astype(dtype)
    holds = Holds()
    allowed = rows * (x[0].nbytes + 16)
    gm(sample_bytes=allowed, callbacks=[holds]).fit(x)
    chunk = holds.resident.chunk
    assert holds.resident.rows == rows
    assert chunk.x.dtype == dtype
    assert chunk.x.nbytes + (0 if chunk.weight is None else chunk.weight.nbytes) <= allowed


def sample_of(source: ArraySource, executor: em.ThreadsExecutor, capacity: int = 700, seed: int = 5) -> Sample:
    return take_census(source, executor, CensusRequest(capacity, seed))[1].sample


@pytest.mark.parametrize("weighted", [False, True])
def test_its_rows_depend_on_no_thread_and_no_order(three_blobs: np.ndarray, weighted: bool) -> None:
    w = np.random.default_rng(0).uniform(0.5, 2, size=6000) if weighted else None
    wanted = sample_of(ArraySource(three_blobs, weight=w, sizes=sizes(6000, 100)), ThreadsExecutor(1))
    assert len(wanted.keys) == 700
    for threads, late in ((1, 3), (2, 0), (5, None), (5, 4)):
        source = Counted(three_blobs, late, weight=w, sizes=sizes(6000, 100))
        found = sample_of(source, ThreadsExecutor(threads))
        assert np.array_equal(found.keys, wanted.keys)
        assert np.array_equal(found.x, wanted.x)
        assert found.weight is wanted.weight or np.array_equal(found.weight, wanted.weight)
    other = sample_of(ArraySource(three_blobs, weight=w, sizes=sizes(6000, 100)), ThreadsExecutor(1), seed=6)
    assert len(np.intersect1d(other.x[:, 0], wanted.x[:, 0])) < 200  # of 82 that chance gives


@pytest.mark.cluster
@pytest.mark.parametrize("weighted", [False, True])
def test_its_rows_are_the_same_on_a_cluster(three_blobs: np.ndarray, weighted: bool, client: Any) -> None:
    w = np.random.default_rng(0).uniform(0.5, 2, size=6000) if weighted else None
    source = ArraySource(three_blobs, weight=w, sizes=sizes(6000, 100))
    executor = em.DaskExecutor(client)
    found, wanted = (sample_of(source, e) for e in (executor, ThreadsExecutor(2)))  # type: ignore[arg-type]
    executor.close()
    assert np.array_equal(found.keys, wanted.keys)
    assert np.array_equal(found.x, wanted.x)


def test_partial_samples_merge_in_any_grouping(three_blobs: np.ndarray) -> None:
    request = CensusRequest(300, seed=1, n_rows=6000)
    parts = [request.map(Chunk(three_blobs[i * 500 : (i + 1) * 500], block=i)).sample for i in range(12)]

    def joined(groups: list[list[Sample]]) -> Sample:
        merged = []
        for group in groups:
            total = group[0]
            for part in group[1:]:
                total = total.merge(part)
            merged.append(total)
        return merged[0] if len(merged) == 1 else joined([merged])

    left = joined([parts])
    for groups in ([parts[:1], parts[1:]], [parts[:5], parts[5:9], parts[9:]]):
        assert np.array_equal(joined(groups).keys, left.keys)
        assert np.array_equal(joined(groups).x, left.x)


def test_every_row_is_as_likely_as_any_other() -> None:
    x = np.arange(20_000.0)[:, None]
    drawn = [
        sample_of(ArraySource(x, sizes=sizes(20_000, 999)), ThreadsExecutor(1), 2000, s).x[:, 0] for s in range(40)
    ]
    deciles = np.bincount((np.concatenate(drawn) // 2000).astype(int), minlength=10)  # 8000 each, sd about 80
    assert np.abs(deciles - 8000).max() < 350
    times = np.bincount(np.concatenate(drawn).astype(int), minlength=20_000)  # binomial: 40 draws of a tenth
    assert times.var() == pytest.approx(3.6, rel=0.1)


def test_its_first_rows_are_a_sample_too(three_blobs: np.ndarray) -> None:
    x = three_blobs[np.argsort(three_blobs[:, 0])]  # an order that a part could not be representative in
    holds = Holds()
    gm(sample_bytes=3000 * ROW, callbacks=[holds]).fit(x)
    first = holds.resident.first(400)
    assert first.rows == 400
    assert np.array_equal(first.chunk.x, holds.resident.chunk.x[:400])
    assert np.abs(first.chunk.x.mean(axis=0) - x.mean(axis=0)).max() < 5 * x.std(axis=0).max() / 20


def heavy() -> tuple[np.ndarray, np.ndarray]:
    """20,000 rows about zero, and twenty at ten, each of which weighs as much as a thousand of the others."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 3))
    w = rng.uniform(0.5, 1.5, size=20_000)
    rare = rng.choice(20_000, size=20, replace=False)
    x[rare] += 10
    w[rare] *= 1000
    return x, w


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("each", [20_000, 777])
def test_rows_that_outweigh_many_are_always_in_it(seed: int, each: int) -> None:
    x, w = heavy()
    source = ArraySource(x, weight=w, sizes=sizes(20_000, each))
    sample = sample_of(source, ThreadsExecutor(1), 1000, seed)
    resident = ResidentSample.ranked(sample.chunk(), sample.keys, sample.beyond)
    first = resident.first(100)
    for part, error in ((resident, 0.1), (first, 0.4)):  # a light row of the first hundred stands for 250
        chunk = part.chunk
        rare = chunk.x[:, 0] > 5
        assert np.count_nonzero(rare) == 20
        assert chunk.weight[rare].sum() == pytest.approx(w[x[:, 0] > 5].sum(), rel=0.03)
        assert chunk.weight[~rare].sum() == pytest.approx(w[x[:, 0] < 5].sum(), rel=error)
    sums = first.chunk.weight @ (first.chunk.x > 5)[:, 0] / first.weight
    assert sums == pytest.approx(w @ (x > 5)[:, 0] / w.sum(), rel=0.4)


def test_what_it_stands_for_is_right_on_average() -> None:
    x, w = heavy()
    w[:100] = 40.0  # in some samples, and not in others
    samples = [sample_of(ArraySource(x, weight=w), ThreadsExecutor(1), 600, s).first(300) for s in range(300)]
    drawn = [ResidentSample.ranked(s.chunk(), s.keys, s.beyond) for s in samples]
    for part, rows in (("first", 120), ("whole", 300)):
        chunks = [(d.first(rows) if part == "first" else d).chunk for d in drawn]
        found = np.array([[c.weight.sum(), *(c.weight @ c.x)] for c in chunks])
        wanted = np.array([w.sum(), *(w @ x)])
        error = found.std(axis=0) / 300**0.5
        assert (np.abs(found.mean(axis=0) - wanted) < 4 * error).all()


def test_a_cluster_of_few_heavy_rows_is_found_from_a_sample() -> None:
    x, w = heavy()
    for seed in range(4):
        found = gm(n_components=2, sample_bytes=1000 * ROW, random_state=seed, n_init=1).fit(x, sample_weight=w)
        assert sorted(found.means_[:, 0].round()) == [0, 10]
        share = w[x[:, 0] > 5].sum() / w.sum()
        assert found.weights_.max() == pytest.approx(max(share, 1 - share), abs=1e-3)


def sparse(positive: int) -> tuple[np.ndarray, np.ndarray]:
    """400,000 rows of which few have a weight; the others would lead anywhere else."""
    rng = np.random.default_rng(0)
    x = np.full((400_000, 3), 1e6)
    counted = rng.choice(400_000, size=positive, replace=False)
    x[counted] = rng.normal(size=(positive, 3)) + np.where(rng.random(positive) < 0.5, 6.0, 0.0)[:, None]
    w = np.zeros(400_000)
    w[counted] = rng.uniform(0.5, 1.5, size=positive)
    return x, w


def test_rows_of_weight_zero_never_enter_it() -> None:
    x, w = sparse(30_000)
    holds = Holds()
    fitted = em.GaussianMixture(2, sample_bytes=5000 * ROW, random_state=0, verbose=0, callbacks=[holds])
    fitted.fit(x, sample_weight=w)
    assert holds.resident.rows == 5000
    assert (holds.resident.chunk.weight > 0).all()
    assert np.abs(holds.resident.chunk.x).max() < 100
    assert fitted.n_rows_ == 400_000
    assert fitted.weight_ == pytest.approx(w.sum())
    alone = em.GaussianMixture(2, random_state=0, verbose=0, n_init=1).fit(x[w > 0], sample_weight=w[w > 0])
    assert fitted.loglik_ == pytest.approx(alone.loglik_, abs=0.2)


def test_few_rows_of_weight_are_all_kept_and_read_once() -> None:
    x, w = sparse(900)
    source = Counted(x, weight=w, sizes=sizes(400_000, 50_000))
    fitted = em.GaussianMixture(2, sample_bytes=5000 * ROW, random_state=0, verbose=0).fit(source)
    assert source.reads == [1] * 8
    alone = em.GaussianMixture(2, random_state=0, verbose=0).fit(x[w > 0], sample_weight=w[w > 0])
    assert fitted.loglik_ == pytest.approx(alone.loglik_, abs=0.1)


# ---------------------------------------------------------------- checkpoints


class StopAfter(Quiet):
    """Ctrl-C after some passes."""

    def __init__(self, n_passes: int) -> None:
        self.n_passes = n_passes

    def on_step(self, fit: Any) -> None:
        if len(fit.history) >= self.n_passes:
            raise KeyboardInterrupt


def same(a: em.GaussianMixture, b: em.GaussianMixture) -> bool:
    names = ("weights_", "means_", "covariances_")
    return a.loglik_ == b.loglik_ and all(np.array_equal(getattr(a, n), getattr(b, n)) for n in names)


HELD: dict[str, Any] = {"tol": 1e-6, "n_init": 3, "max_passes": 12, "n_components": 6}


@pytest.mark.filterwarnings("ignore::dask_em.FitWarning")
@pytest.mark.parametrize("after", [1, 3])
@pytest.mark.parametrize(("solver", "rows"), [("anchored", 500), ("anchored", 6000), ("anderson", 6000)])
def test_a_fit_with_a_sample_goes_on_to_the_same_bits(
    three_blobs: np.ndarray, tmp_path: Path, solver: str, rows: int, after: int
) -> None:
    settings = {**HELD, "solver": solver, "sample_bytes": rows * ROW}
    whole = gm(**settings).fit(three_blobs)
    path = tmp_path / "fit.checkpoint"
    stopped = gm(**settings, checkpoint=path, callbacks=[StopAfter(after + 1)]).fit(three_blobs)
    assert stopped.status_ == "interrupted"
    source = Counted(three_blobs)
    resumed = gm(**settings, checkpoint=path).fit(source)
    assert same(resumed, whole)
    assert [r["loglik"] for r in resumed.history_] == [r["loglik"] for r in whole.history_]
    if rows < 6000:  # neither the census nor a pass is done again
        assert set(source.reads) == {len(whole.history_) - (after + 1)}


@pytest.mark.filterwarnings("ignore::dask_em.FitWarning")
def test_without_a_seed_it_goes_on_with_the_one_it_began_with(three_blobs: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "fit.checkpoint"
    settings = {**HELD, "solver": "anchored", "sample_bytes": 1500 * ROW, "random_state": None}
    gm(**settings, checkpoint=path, callbacks=[StopAfter(3)]).fit(three_blobs)
    found = read_checkpoint(str(path), None)
    assert found is not None
    resumed = gm(**settings, checkpoint=path).fit(three_blobs)
    whole = gm(**{**settings, "random_state": found.identity["random_state"]}).fit(three_blobs)
    assert same(resumed, whole)
