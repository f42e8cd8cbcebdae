"""One read answers all requests, refuses what cannot be fitted, and tells changed data."""

import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import dask_em as em
from dask_em.engine import Witness, one_pass
from dask_em.executors.dask import DaskExecutor
from dask_em.executors.threads import ThreadsExecutor
from dask_em.model import Chunk, Statistics
from dask_em.sources.array import ArraySource


@dataclass(frozen=True)
class Count:
    """Rows and the sum of the first column."""

    accepts_nan: bool = False

    def map(self, chunk: Chunk) -> Statistics:
        return Statistics(float(chunk.n_rows), float(chunk.x[:, 0].sum()))


class CountingSource(ArraySource):
    """Counts how often each block is read, and how many are held at once."""

    in_memory = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reads = [0] * len(self.blocks)
        self.lock = threading.Lock()

    def read(self, index: int) -> Chunk:
        with self.lock:
            self.reads[index] += 1
        return super().read(index)


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_every_block_is_read_once_for_all_requests(n_threads: int) -> None:
    source = CountingSource(np.arange(1000.0)[:, None], sizes=[100] * 10)
    result = one_pass(source, [Count(), Count(), Count()], ThreadsExecutor(n_threads))
    assert source.reads == [1] * 10
    assert [a.weight for a in result.answers] == [1000.0] * 3
    assert result.answers[0].loglik == 499500.0
    assert result.rows == 1000


def test_progress_adds_up_to_the_blocks_and_rows() -> None:
    heard: list[tuple[int, int]] = []
    source = ArraySource(np.ones((1000, 1)), sizes=[10] * 100)
    one_pass(source, [Count()], ThreadsExecutor(3), progress=lambda b, r: heard.append((b, r)))
    assert np.sum(heard, axis=0).tolist() == [100, 1000]


@pytest.mark.cluster
def test_progress_on_a_cluster_adds_up_too(client: Any) -> None:
    heard: list[tuple[int, int]] = []
    source = ArraySource(np.ones((1000, 1)), sizes=[10] * 100)
    executor = DaskExecutor(client)
    one_pass(source, [Count()], executor, progress=lambda b, r: heard.append((b, r)))
    executor.close()
    assert np.sum(heard, axis=0).tolist() == [100, 1000]


class Slow(ArraySource):
    in_memory = False

    def read(self, index: int) -> Chunk:
        time.sleep(0.05)
        return super().read(index)


@dataclass(frozen=True)
class SlowCount(Count):
    def map(self, chunk: Chunk) -> Statistics:
        time.sleep(0.05)
        return super().map(chunk)


def test_the_next_block_is_read_while_the_last_is_worked_on() -> None:
    source = Slow(np.ones((20, 1)), sizes=[1] * 20)
    result = one_pass(source, [SlowCount()], ThreadsExecutor(1))
    # 20 reads and 20 maps of 0.05 s each: 2 s one after the other, 1.05 s if they overlap
    assert result.seconds < 0.8 * (result.seconds_read + result.seconds_compute)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, r"rows 300 to 400 of the array: row 7 \(row 307 of the data\), column 1 is NaN"),
        (np.inf, "is infinity"),
    ],
)
def test_a_value_that_is_not_finite_is_named(value: float, message: str) -> None:
    x = np.ones((1000, 2))
    x[307, 1] = value
    x[900, 0] = value
    with pytest.raises(em.DataError, match=message):
        one_pass(ArraySource(x, sizes=[100] * 10), [Count()], ThreadsExecutor(1))


def test_large_finite_values_are_not_taken_for_infinite() -> None:
    x = np.full((1000, 2), 1e308)
    assert one_pass(ArraySource(x), [Count()], ThreadsExecutor(1)).rows == 1000
    half = np.full((1000, 2), 60000, dtype=np.float16)
    assert one_pass(ArraySource(half), [Count()], ThreadsExecutor(1)).rows == 1000


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_a_weight_that_is_none_is_named(bad: float) -> None:
    w = np.ones(1000)
    w[123] = bad
    with pytest.raises(em.DataError, match=r"the weight of row 23 \(row 123 of the data\) is"):
        one_pass(ArraySource(np.ones((1000, 2)), weight=w, sizes=[100] * 10), [Count()], ThreadsExecutor(1))


def test_changed_data_is_told_from_the_same_data() -> None:
    x = np.random.default_rng(0).normal(size=(1000, 3))
    source = ArraySource(x, sizes=[100] * 10)
    first = one_pass(source, [Count()], ThreadsExecutor(1))
    seen = Witness(first.rows, first.checksum)
    one_pass(source, [Count()], ThreadsExecutor(2), witness=seen)
    x[500, 2] = np.nextafter(x[500, 2], 9)  # the smallest change there is
    with pytest.raises(em.DataChangedError, match="other values"):
        one_pass(source, [Count()], ThreadsExecutor(1), witness=seen)


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i1", "u2", "i8", "?"])
@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_the_checksum_depends_on_values_not_on_layout(dtype: str, order: str) -> None:
    x = np.random.default_rng(0).integers(0, 2, size=(500, 4)).astype(dtype)
    y = {"C": x.copy(), "F": np.asarray(x, order="F"), "strided": np.repeat(x, 2, axis=1)[:, ::2]}[order]
    sums = [one_pass(ArraySource(a), [Count()], ThreadsExecutor(1)).checksum for a in (x, y)]
    assert sums[0] == sums[1]


class ShrinkingSource(ArraySource):
    def read(self, index: int) -> Chunk:
        return Chunk(super().read(index).x[:-1])


def test_a_block_with_fewer_rows_than_planned_is_named() -> None:
    with pytest.raises(em.DataChangedError, match="rows 0 to 100 of the array holds 99 rows where 100 were planned"):
        one_pass(ShrinkingSource(np.ones((200, 1)), sizes=[100, 100]), [Count()], ThreadsExecutor(1))


@dataclass(frozen=True)
class Failing(Count):
    def map(self, chunk: Chunk) -> Statistics:
        raise ZeroDivisionError("of the model's own")


@pytest.mark.parametrize("n_threads", [1, 3])
def test_an_error_of_a_model_comes_through_with_its_block(n_threads: int) -> None:
    source = ArraySource(np.ones((1000, 1)), sizes=[10] * 100)
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError) as caught:
        one_pass(source, [Failing()], ThreadsExecutor(n_threads))
    assert any("while working on rows" in note for note in caught.value.__notes__)
    assert threading.active_count() == before


def test_no_thread_outlives_a_pass() -> None:
    before = threading.active_count()
    one_pass(CountingSource(np.ones((1000, 1)), sizes=[10] * 100), [Count()], ThreadsExecutor(4))
    assert threading.active_count() == before
