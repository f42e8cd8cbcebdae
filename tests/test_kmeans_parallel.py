"""k-means||: seeds from passes over all rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dask_em as em
from dask_em.callbacks import Quiet
from dask_em.callbacks.checkpoint import read_checkpoint
from dask_em.kmeans_parallel import Round, kmeans_parallel
from dask_em.model import Chunk
from dask_em.sources.array import ArraySource


@pytest.fixture(scope="module")
def rare() -> tuple[np.ndarray, np.ndarray]:
    """200,000 rows, and the centres of ten clusters of four rows each that lie off the rest."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200_000, 3)).astype(np.float32)
    angle = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    places = 1000 * np.column_stack([np.cos(angle), np.sin(angle), np.zeros(10)])
    at = rng.choice(len(x), size=40, replace=False)
    x[at] += np.repeat(places, 4, axis=0).astype(np.float32)
    return x, places


def found(centers: np.ndarray, places: np.ndarray) -> int:
    return int((np.sqrt(((places[:, None] - centers) ** 2).sum(axis=2)).min(axis=1) < 20).sum())


@pytest.mark.parametrize("seed", range(3))
def test_it_finds_clusters_that_a_sample_misses(rare: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    x, places = rare
    settings: dict[str, Any] = {"random_state": seed, "sample_bytes": 40_000, "verbose": 0}
    km = em.KMeans(11, init="k-means||", **settings).fit(x)
    assert found(km.cluster_centers_, places) == 10
    assert [r["kind"] for r in km.history_].count("k-means||") == 7
    sample = x[np.random.default_rng(seed).choice(len(x), 2000, replace=False)]
    assert found(sample, places) < 5


def test_it_spreads_as_well_as_kmeans_plus_plus() -> None:
    rng = np.random.default_rng(1)
    places = rng.normal(size=(50, 5)) * 10
    x = places[rng.integers(50, size=20_000)] + rng.normal(size=(20_000, 5))
    least = 5 * len(x)
    costs = []
    for seed in range(5):
        centers = kmeans_parallel(em.open(x), em.ThreadsExecutor(1), 50, seed).centers
        costs.append(((x[:, None] - centers) ** 2).sum(axis=2).min(axis=1).sum() / least)
    assert np.median(costs) < 1.3


def fitted(x: Any, executor: Any) -> bytes:
    km = em.KMeans(20, init="k-means||", random_state=3, executor=executor, verbose=0).fit(x)
    assert km.n_rows_ == 60_000
    return km.cluster_centers_.tobytes() + np.float64(km.inertia_).tobytes()


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> str:
    import zarr

    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(60_000, 4)) + 3 * rng.integers(5, size=(60_000, 1))).astype(np.float32)
    path = str(tmp_path_factory.mktemp("rows") / "rows.zarr")
    array = zarr.create_array(path, shape=rows.shape, chunks=(1700, 4), dtype=rows.dtype)
    array[:] = rows
    return path


@pytest.mark.parametrize("n_threads", [2, 3])
def test_the_same_to_the_last_bit_on_any_number_of_threads(stored: str, n_threads: int) -> None:
    assert fitted(stored, em.ThreadsExecutor(n_threads)) == fitted(stored, em.ThreadsExecutor(1))


@pytest.mark.cluster
def test_the_same_to_the_last_bit_on_a_cluster(stored: str, client: Any) -> None:
    expected = fitted(stored, em.ThreadsExecutor(1))
    for batch_blocks in (None, 1, 5):
        assert fitted(stored, em.DaskExecutor(client, batch_blocks=batch_blocks)) == expected


def test_draws_merge_to_the_draw_of_all_rows_in_any_grouping() -> None:
    rng = np.random.default_rng(0)
    chunks = [Chunk(rng.normal(size=(n, 2)), rng.random(n), block=i) for i, n in enumerate((1, 40, 3, 100))]
    request = Round(5, 10, rng.normal(size=(4, 2)))
    a, b, c, d = (request.map(chunk) for chunk in chunks)
    left, right = a.merge(b).merge(c).merge(d), a.merge(b.merge(c.merge(d)))
    np.testing.assert_array_equal(left.rows, right.rows)
    np.testing.assert_array_equal(left.keys, right.keys)
    assert len(left.keys) == 10
    everything = Round(5, 1000, request.centers)
    whole = np.concatenate([everything.map(chunk).keys for chunk in chunks])
    np.testing.assert_array_equal(left.keys, np.sort(whole)[::-1][:10])


def test_rows_are_drawn_in_proportion_to_their_mass() -> None:
    x = np.array([[0.0], [1.0], [2.0], [3.0]])
    weight = np.array([5.0, 9.0, 1.0, 0.0])  # masses 0, 9, 4, 0
    first = [Round(seed, 1, np.zeros((1, 1))).map(Chunk(x, weight)).rows[0, 0] for seed in range(4000)]
    assert set(first) == {1.0, 2.0}
    assert np.mean(np.array(first) == 1.0) == pytest.approx(9 / 13, abs=0.03)


def test_few_distinct_rows_end_the_rounds() -> None:
    x = np.repeat([[0.0], [5.0]], 50, axis=0)
    seeds = kmeans_parallel(em.open(x), em.ThreadsExecutor(1), 2, seed=0)
    assert np.sort(seeds.centers.ravel()).tolist() == [0, 5]
    assert seeds.counts.sum() == 100


def test_weights_that_are_all_zero_are_named() -> None:
    with pytest.raises(em.DataError, match="all 10 weights are zero"):
        em.KMeans(2, init="k-means||", verbose=0).fit(np.arange(10.0)[:, None], sample_weight=np.zeros(10))


def test_a_row_far_away_is_one_cluster_and_hides_no_other() -> None:
    rng = np.random.default_rng(0)
    near = np.concatenate([rng.normal(m, 1, (300, 2)) for m in (-10, 0, 10, 20)])
    x = np.r_[near, [[1e8, 1e8]]]
    assert em.KMeans(5, random_state=0, verbose=0).fit(x).inertia_ < 3000
    assert em.GaussianMixture(5, random_state=0, verbose=0).fit(x).n_rows_ == 1201


# ---------------------------------------------------------------- within a fit


class Counted(ArraySource):
    """Counts the reads of its first block."""

    in_memory = False
    reads = 0

    def read(self, index: int) -> Chunk:
        self.reads += index == 0
        return super().read(index)


class StopAfter(Quiet):
    """Ctrl-C after some passes, those of the seeding not counted."""

    def __init__(self, n_passes: int) -> None:
        self.n_passes = n_passes

    def on_step(self, fit: Any) -> None:
        if sum(record["runs"] > 0 for record in fit.history) >= self.n_passes:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def blurred() -> np.ndarray:
    rng = np.random.default_rng(4)
    return rng.normal(size=(9000, 2)) + 2 * rng.integers(5, size=(9000, 1))


def test_rows_that_fit_in_memory_are_read_once(blurred: np.ndarray) -> None:
    source = Counted(blurred, sizes=[900] * 10)
    km = em.KMeans(12, init="k-means||", random_state=0, verbose=0).fit(source)
    assert (source.reads, km.n_passes_) == (1, 1)
    kinds = [(r["kind"], r["resident"]) for r in km.history_]
    assert kinds[:8] == [("census", False)] + [("k-means||", True)] * 7
    assert [r["number"] for r in km.history_] == list(range(1, len(kinds) + 1))
    assert {r["pass"] for r in km.history_} == {1}
    assert km.n_iter_ == km.n_steps_ == len(kinds) - 8


@pytest.mark.filterwarnings("ignore::dask_em.FitWarning")
@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("solver", ["anchored", "em"])
def test_it_goes_on_from_a_checkpoint_without_seeding_again(
    blurred: np.ndarray, tmp_path: Path, solver: str, seed: int | None
) -> None:
    settings: dict[str, Any] = {
        "init": "k-means||", "solver": solver, "sample_bytes": 20_000, "tol": 1e-9, "max_passes": 20, "verbose": 0,
        "checkpoint": tmp_path / "c", "random_state": seed,
    }  # fmt: skip
    stopped = em.KMeans(12, callbacks=[StopAfter(2)], **settings).fit(Counted(blurred, sizes=[900] * 10))
    assert stopped.status_ == "interrupted"
    assert stopped.n_passes_ == 1 + 7 + 2
    source = Counted(blurred, sizes=[900] * 10)
    resumed = em.KMeans(12, **settings).fit(source)
    assert source.reads == resumed.n_passes_ - stopped.n_passes_
    identity = read_checkpoint(str(tmp_path / "c"), None)
    assert identity is not None
    settings |= {"checkpoint": None, "random_state": identity.identity["random_state"]}
    whole = em.KMeans(12, **settings).fit(Counted(blurred, sizes=[900] * 10))
    assert np.array_equal(resumed.cluster_centers_, whole.cluster_centers_)
    assert [r["inertia"] for r in resumed.history_] == [r["inertia"] for r in whole.history_]


@pytest.mark.filterwarnings("ignore::dask_em.FitWarning")
def test_the_limit_of_passes_counts_none_of_the_seeding(blurred: np.ndarray) -> None:
    source = Counted(blurred, sizes=[900] * 10)
    km = em.KMeans(12, init="k-means||", random_state=0, sample_bytes=20_000, tol=0, max_passes=3, verbose=0)
    km.fit(source)
    assert (km.status_, km.n_passes_, km.n_iter_) == ("max_passes", 10, 2)
    assert source.reads == 10


def test_a_checkpoint_of_other_seeds_is_refused(blurred: np.ndarray, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"checkpoint": tmp_path / "c", "random_state": 0, "verbose": 0}
    em.KMeans(3, init="k-means++", **settings).fit(blurred)
    with pytest.raises(em.ConfigurationError, match="seeding"):
        em.KMeans(3, init="k-means||", **settings).fit(blurred)
