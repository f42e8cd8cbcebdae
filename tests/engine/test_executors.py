"""What executors refuse, keep and give back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

import dask_em as em
from dask_em.model import Chunk
from dask_em.sources.array import ArraySource


@dataclass(frozen=True)
class Rows:
    n: int
    threads: int

    def merge(self, right: Rows) -> Rows:
        return Rows(self.n + right.n, max(self.threads, right.threads))

    def close(self) -> Rows:
        return self


def blas_threads() -> int:
    import scipy.linalg  # noqa: F401

    return max(lib["num_threads"] for lib in ThreadpoolController().info() if lib["user_api"] == "blas")


@dataclass(frozen=True)
class CountRows:
    """Counts rows, and BLAS threads meanwhile."""

    accepts_nan: bool = False

    def map(self, chunk: Chunk) -> Rows:
        return Rows(chunk.n_rows, blas_threads())


class Unreadable(ArraySource):
    """A source whose planning fails as a disk does."""

    def part(self, start: int, stop: int) -> Any:
        raise OSError("the index of the disk")


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2"])
def test_a_number_of_threads_that_is_none_is_refused(n: Any) -> None:
    with pytest.raises(em.ConfigurationError, match="n_threads=.* must be a whole number of at least 1"):
        em.ThreadsExecutor(n)


@pytest.mark.cluster
@pytest.mark.parametrize("n", [0, -4, 2.0])
def test_batches_of_no_blocks_are_refused(client: Any, n: Any) -> None:
    with pytest.raises(em.ConfigurationError, match="batch_blocks=.* must be a whole number of at least 1"):
        em.DaskExecutor(client, batch_blocks=n)


def test_blas_has_its_threads_back_after_a_pass() -> None:
    source = ArraySource(np.ones((4000, 2)), sizes=[100] * 40)
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        assert em.ThreadsExecutor(2).run(source, [CountRows()]).answers[0] == Rows(4000, 1)
        assert blas_threads() == 2


def test_partial_results_of_threads_may_be_of_any_size() -> None:
    assert em.ThreadsExecutor(2).partial_bytes is None


@pytest.mark.cluster
def test_a_cluster_in_this_process_gives_blas_its_threads_back() -> None:
    from distributed import Client, LocalCluster

    source = ArraySource(np.ones((4000, 2)), sizes=[100] * 40)
    with (
        ThreadpoolController().limit(limits=2, user_api="blas"),
        LocalCluster(
            n_workers=1,
            threads_per_worker=2,
            processes=False,
            dashboard_address=None,
            memory_limit="16GiB",  # of all that pytest holds: a worker nearly full would pause
        ) as cluster,
        Client(cluster, set_as_default=False) as made,
    ):
        executor = em.DaskExecutor(made)
        assert executor.partial_bytes == 2**34 // 2 // 8
        assert executor.run(source, [CountRows()]).answers[0] == Rows(4000, 1)
        executor.close()
        assert blas_threads() == 2
    with pytest.raises(em.ClusterError, match="the client is closed: connect again"):
        em.DaskExecutor(made)


@pytest.mark.cluster
def test_workers_of_their_own_have_one_blas_thread(client: Any) -> None:
    executor = em.DaskExecutor(client)
    source = ArraySource(np.ones((400, 2)), sizes=[10] * 40)
    assert executor.run(source, [CountRows()]).answers[0] == Rows(400, 1)
    executor.close()


@pytest.mark.cluster
def test_data_is_sent_once_whatever_the_timings(client: Any) -> None:
    source = ArraySource(np.ones((64_000, 8)), sizes=[1000] * 64)
    executor = em.DaskExecutor(client)
    executor.run(source, [CountRows()])
    (seen,) = executor._seen.values()
    first, level = [f.key for f in seen.futures], seen.level
    seen.block_seconds = 1e4  # as on a machine that was busy
    executor.run(source, [CountRows()])
    assert [f.key for f in seen.futures] == first
    assert seen.level == level
    executor.close()
    assert not executor._seen


@pytest.mark.cluster
def test_each_fit_has_a_span(client: Any) -> None:
    def spans(dask_scheduler: Any) -> int:
        extension = dask_scheduler.extensions["spans"]
        return sum(len(s) for name, s in extension.spans_search_by_name.items() if name == ("dask-em",))

    source, before = ArraySource(np.ones((40, 2)), sizes=[10] * 4), client.run_on_scheduler(spans)
    executor = em.DaskExecutor(client)
    for _ in range(2):
        executor.run(source, [CountRows()])
        executor.close()
    assert client.run_on_scheduler(spans) == before + 2


@pytest.mark.cluster
def test_a_second_source_with_larger_blocks_is_refused_too() -> None:
    from distributed import Client, LocalCluster

    small, large = (ArraySource(np.ones((n, 8), "u1"), sizes=[n]) for n in (100, 2_000_000))
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None, memory_limit="50MiB", processes=False
        ) as cluster,
        Client(cluster, set_as_default=False) as made,
    ):
        executor = em.DaskExecutor(made)
        assert em.one_pass(small, [CountRows()], executor).rows == 100
        with pytest.raises(em.ClusterError, match="more than half of its 50 MiB"):
            em.one_pass(large, [CountRows()], executor)
        executor.close()


@pytest.mark.cluster
def test_an_oserror_of_a_callback_or_a_source_is_not_a_lost_scheduler(client: Any) -> None:
    source = ArraySource(np.ones((400, 2)), sizes=[10] * 40)
    told: list[int] = []

    def fails(blocks: int, rows: int) -> None:
        told.append(blocks)
        raise OSError("the terminal is gone")

    executor = em.DaskExecutor(client)
    with pytest.raises(OSError, match="the terminal is gone"):
        executor.run(source, [CountRows()], fails)
    assert len(told) == 1
    with pytest.raises(OSError, match="the index of the disk"):
        executor.run(Unreadable(np.ones((400, 2)), sizes=[10] * 40), [CountRows()])
    executor.close()


def test_a_pass_begun_again_is_not_told_of_twice() -> None:
    from dask_em.executors.listening import Listener

    told: list[tuple[int, int]] = []
    heard = Listener(lambda blocks, rows: told.append((blocks, rows)))
    for token in ("first", "second"):
        heard._token, heard._blocks, heard._rows = token, 0, 0
        for _ in range(3):
            heard._hear((0.0, {"token": token, "blocks": 2, "rows": 20}))
            heard.pass_on()
    heard.tell_rest(10, 100)
    assert told == [(2, 20)] * 3 + [(4, 40)]
