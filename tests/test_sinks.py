"""Answers written a row at a time: the right ones, in order, whole or not at all."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import fsspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import zarr
from fsspec.implementations.memory import MemoryFileSystem

from dask_em.errors import ConfigurationError, DataChangedError, DataError, StoreError
from dask_em.executors.threads import ThreadsExecutor
from dask_em.model import Chunk
from dask_em.sinks import zarr as zarr_sink
from dask_em.sinks.answers import Answer
from dask_em.sinks.writing import write_rows
from dask_em.sources.array import ArraySource
from dask_em.sources.opening import open as open_source

BLOCKINGS = {
    "one block": [1000],
    "blocks that are chunks": [100] * 10,
    "blocks across chunks": [130, 70, 99, 1, 201, 499],
    "single rows": [1] * 150 + [850],
    "empty blocks": [0, 0, 333, 0, 600, 67, 0],
    "one large, many small": [951] + [7] * 7,
}


@dataclass(frozen=True)
class Rounded:
    """A stand-in for a fitted model, whose answers can be told from the rows alone."""

    n_components: int = 3
    accepts_nan: bool = False

    def posteriors(self, params: float, x: np.ndarray, want: str) -> np.ndarray:
        labels = x[:, 0].astype(int) % self.n_components
        if want == "labels":
            return labels
        if want == "loglik":
            return -x[:, 0] * params
        return np.eye(self.n_components)[labels]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zarr_sink, "chunk_rows", lambda answer, n_rows: min(n_rows, 100))
    monkeypatch.setattr("dask_em.sinks.writing.chunk_rows", lambda answer, n_rows: min(n_rows, 100))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """First rows of the chunks written, in the order of writing."""
    starts: list[int] = []
    write = zarr_sink.Target.write

    def noted(self: zarr_sink.Target, start: int, values: np.ndarray) -> None:
        starts.append(start)
        write(self, start, values)

    monkeypatch.setattr(zarr_sink.Target, "write", noted)
    return starts


def rows(n: int = 1000) -> np.ndarray:
    return np.column_stack([np.arange(n, dtype=np.float32), np.ones(n, dtype=np.float32)])


def expected(want: str, n: int = 1000) -> np.ndarray:
    return Rounded().posteriors(0.5, rows(n), want)


def read_parquet(path: Path) -> np.ndarray:
    values = pd.read_parquet(path).to_numpy()
    return values[:, 0] if values.shape[1] == 1 else values


def visible(folder: Path) -> list[str]:
    """Everything in a folder, hidden or not."""
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("want", ["labels", "proba", "loglik"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("sizes", BLOCKINGS.values(), ids=BLOCKINGS)
def test_zarr_holds_every_row_in_order_each_chunk_written_once(
    tmp_path: Path, written: list[int], sizes: list[int], threads: int, want: str
) -> None:
    source = ArraySource(rows(), sizes=sizes)
    count = write_rows(source, Answer(Rounded(), 0.5, want), tmp_path / "out.zarr", ThreadsExecutor(threads))
    array = zarr.open_array(tmp_path / "out.zarr", mode="r")
    assert count == 1000
    assert array.metadata.zarr_format == 3
    assert np.array_equal(array[:], expected(want))
    assert sorted(written) == list(range(0, 1000, 100))
    assert visible(tmp_path) == ["out.zarr"]


@pytest.mark.parametrize("want", ["labels", "proba", "loglik"])
@pytest.mark.parametrize("sizes", BLOCKINGS.values(), ids=BLOCKINGS)
def test_parquet_reads_back_in_row_order(tmp_path: Path, sizes: list[int], want: str) -> None:
    source = ArraySource(rows(), sizes=sizes)
    write_rows(source, Answer(Rounded(), 0.5, want), tmp_path / "out.parquet", ThreadsExecutor(2))
    assert np.array_equal(read_parquet(tmp_path / "out.parquet"), expected(want))
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 1000
    names = {"labels": ["label"], "loglik": ["loglik"], "proba": ["proba_0", "proba_1", "proba_2"]}[want]
    assert pq.read_schema(tmp_path / "out.parquet" / "part-00002.parquet").names == names if len(sizes) > 2 else True
    assert visible(tmp_path) == ["out.parquet"]


def test_dask_and_this_library_read_the_parquet_parts_in_order(tmp_path: Path) -> None:
    import dask.dataframe as dd

    write_rows(ArraySource(rows(), sizes=[80] * 12 + [40]), Answer(Rounded(), 0.5, "loglik"), tmp_path / "o.parquet",
               ThreadsExecutor(2))  # fmt: skip
    assert np.array_equal(dd.read_parquet(tmp_path / "o.parquet").compute()["loglik"], expected("loglik"))
    assert open_source(str(tmp_path / "o.parquet")).n_rows == 1000


def test_labels_take_one_byte_a_row(tmp_path: Path) -> None:
    assert Answer(Rounded(128), 1.0, "labels").dtype == np.int8
    assert Answer(Rounded(129), 1.0, "labels").dtype == np.int16
    write_rows(ArraySource(rows()), Answer(Rounded(), 0.5, "labels"), tmp_path / "o.zarr", ThreadsExecutor(1))
    array = zarr.open_array(tmp_path / "o.zarr", mode="r")
    assert array.dtype == np.int8
    assert array.fill_value == -1  # a chunk that is lost later cannot pass for component 0


def test_chunks_of_the_fill_value_are_written(tmp_path: Path, written: list[int]) -> None:
    @dataclass(frozen=True)
    class Fill(Rounded):
        def posteriors(self, params: float, x: np.ndarray, want: str) -> np.ndarray:
            return np.full(len(x), -1)

    write_rows(ArraySource(rows()), Answer(Fill(), 0.5, "labels"), tmp_path / "o.zarr", ThreadsExecutor(1))
    assert len(os.listdir(tmp_path / "o.zarr" / "c")) == 10


def test_a_large_answer_is_made_a_tile_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dask_em.sinks.answers._TILE_VALUES", 60)
    seen: list[int] = []

    @dataclass(frozen=True)
    class Noted(Rounded):
        def posteriors(self, params: float, x: np.ndarray, want: str) -> np.ndarray:
            seen.append(len(x))
            return super().posteriors(params, x, want)

    for name in ("o.zarr", "o.parquet"):
        write_rows(
            ArraySource(rows(), sizes=[1000]), Answer(Noted(), 0.5, "proba"), tmp_path / name, ThreadsExecutor(1)
        )
    assert max(seen) == 20
    assert np.array_equal(read_parquet(tmp_path / "o.parquet"), expected("proba"))
    assert np.array_equal(zarr.open_array(tmp_path / "o.zarr", mode="r")[:], expected("proba"))


@pytest.mark.parametrize("name", ["o.zarr", "o.parquet"])
def test_rows_left_by_a_filter_are_counted_first(tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame({"a": np.arange(1000.0), "keep": np.arange(1000) % 3 == 0})
    frame.loc[200:499, "keep"] = False  # whole row groups without a row to keep
    frame.to_parquet(tmp_path / "in.parquet", row_group_size=70)
    source = open_source(str(tmp_path / "in.parquet"), columns=["a"], filters=[("keep", "==", True)])
    kept = frame["a"][frame["keep"]].to_numpy()
    assert write_rows(source, Answer(Rounded(), 1.0, "loglik"), tmp_path / name, ThreadsExecutor(2)) == len(kept)
    got = zarr.open_array(tmp_path / name, mode="r")[:] if name == "o.zarr" else read_parquet(tmp_path / name)
    assert np.array_equal(got, -kept)


@pytest.mark.parametrize("name", ["o.zarr", "o.parquet"])
def test_a_crash_leaves_nothing_and_what_was_there_untouched(tmp_path: Path, name: str) -> None:
    write_rows(ArraySource(rows(50)), Answer(Rounded(), 1.0, "loglik"), tmp_path / name, ThreadsExecutor(1))
    before = {p: p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
    x = rows()
    x[777, 1] = np.nan
    source = ArraySource(x, sizes=[130] * 7 + [90])
    for overwrite, path in ((True, tmp_path / name), (False, tmp_path / f"new-{name}")):
        with pytest.raises(DataError, match="row 777"):
            write_rows(source, Answer(Rounded(), 1.0, "loglik"), path, ThreadsExecutor(2), overwrite=overwrite)
    assert {p: p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()} == before
    assert visible(tmp_path) == [name]


@pytest.mark.parametrize("name", ["o.zarr", "o.parquet"])
def test_an_output_that_exists_is_refused_before_the_data_is_read(tmp_path: Path, name: str) -> None:
    answer = Answer(Rounded(), 1.0, "loglik")
    write_rows(ArraySource(rows(50)), answer, tmp_path / name, ThreadsExecutor(1))

    class Unread(ArraySource):
        def part(self, start: int, stop: int) -> None:
            raise AssertionError("the data was read")

    with pytest.raises(ConfigurationError, match=f"{name} exists"):
        write_rows(Unread(rows()), answer, tmp_path / name, ThreadsExecutor(1))
    write_rows(ArraySource(rows()), answer, tmp_path / name, ThreadsExecutor(1), overwrite=True)
    got = zarr.open_array(tmp_path / name, mode="r")[:] if name == "o.zarr" else read_parquet(tmp_path / name)
    assert np.array_equal(got, -rows()[:, 0])
    assert visible(tmp_path) == [name]


def test_a_folder_of_other_things_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious.parquet").mkdir()
    (tmp_path / "precious.parquet" / "thesis.tex").write_text("chapter 1")
    with pytest.raises(ConfigurationError, match="neither a Zarr array nor Parquet"):
        write_rows(ArraySource(rows()), Answer(Rounded(), 1.0, "labels"), tmp_path / "precious.parquet",
                   ThreadsExecutor(1), overwrite=True)  # fmt: skip
    assert (tmp_path / "precious.parquet" / "thesis.tex").read_text() == "chapter 1"


@pytest.mark.parametrize(
    "name, message",
    [("no/such/o.zarr", "no folder"), ("o.csv", "neither .zarr nor .parquet")],
)
def test_places_that_cannot_be_written_are_named(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        write_rows(ArraySource(rows()), Answer(Rounded(), 1.0, "labels"), tmp_path / name, ThreadsExecutor(1))


@pytest.mark.parametrize("name", ["o.zarr", "o.parquet"])
def test_a_write_that_fails_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dask_em.sinks.parquet.ParquetRequest._write", full)
    monkeypatch.setattr("dask_em.sinks.zarr._open", full)
    with pytest.raises(StoreError, match=r"cannot be written: No space left on device"):
        write_rows(ArraySource(rows()), Answer(Rounded(), 1.0, "labels"), tmp_path / name, ThreadsExecutor(2))
    assert visible(tmp_path) == []


class Unplanned(ArraySource):
    """Rows that are known only once read; the last one goes missing after `stable` reads."""

    stable = 10**6
    n_rows = None  # type: ignore[assignment]
    reads = 0

    def __init__(self, x: np.ndarray, sizes: list[int]) -> None:
        super().__init__(x, sizes=sizes)
        self._edges = np.cumsum([0, *sizes])
        self.blocks = [replace(b, rows=None, offset=None) for b in self.blocks]

    def read(self, index: int) -> Chunk:
        self.reads += 1
        rows = slice(*self._edges[index : index + 2])
        return Chunk(self.x[rows] if self.reads <= self.stable else self.x[rows][:-1], block=index)


def test_rows_that_are_not_planned_are_counted_in_one_more_pass(tmp_path: Path) -> None:
    source = Unplanned(rows(), [300, 0, 650, 50])
    write_rows(source, Answer(Rounded(), 1.0, "loglik"), tmp_path / "o.zarr", ThreadsExecutor(1))
    assert np.array_equal(zarr.open_array(tmp_path / "o.zarr", mode="r")[:], -rows()[:, 0])
    assert source.reads == 8


def test_data_that_changes_between_counting_and_writing_is_refused(tmp_path: Path) -> None:
    source = Unplanned(rows(), [300, 700])
    source.stable = 3
    with pytest.raises(DataChangedError, match="data changed while it was read"):
        write_rows(source, Answer(Rounded(), 1.0, "labels"), tmp_path / "o.zarr", ThreadsExecutor(1))
    assert visible(tmp_path) == []


class Brittle(MemoryFileSystem):
    """A store within which a number of objects can be copied, after which the user loses patience."""

    protocol = "brittle"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    copies_left = 10**6

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(str(path).replace("brittle://", "memory://"))

    def cp_file(self, path1: str, path2: str, **kwargs: object) -> None:
        if Brittle.copies_left == 0:
            Brittle.copies_left = 10**6  # the next attempt, such as to put back what was there, succeeds
            raise KeyboardInterrupt
        Brittle.copies_left -= 1
        super().cp_file(path1, path2, **kwargs)


@pytest.fixture
def brittle() -> Iterator[Brittle]:
    fsspec.register_implementation("brittle", Brittle, clobber=True)
    fs = Brittle()
    yield fs
    Brittle.store.clear()
    Brittle.copies_left = 10**6


def contents(fs: Brittle) -> dict[str, bytes]:
    return {name: fs.cat(name) for name in fs.find("/")}


@pytest.mark.parametrize("name", ["o.zarr", "o.parquet"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_copy_that_is_interrupted_leaves_all_or_nothing(brittle: Brittle, name: str, overwrite: bool) -> None:
    url, answer = f"brittle://bucket/{name}", Answer(Rounded(), 1.0, "loglik")
    source = ArraySource(rows(300), sizes=[100] * 3)
    if overwrite:
        write_rows(ArraySource(rows(500), sizes=[100] * 5), answer, url, ThreadsExecutor(1))
    before = contents(brittle)
    assert bool(before) == overwrite
    copies = 0
    while True:
        Brittle.copies_left = copies
        try:
            write_rows(source, answer, url, ThreadsExecutor(1), overwrite=overwrite)
            break
        except KeyboardInterrupt:
            assert contents(brittle) == before
        copies += 1
    new = 4 if name == "o.zarr" else 3
    assert copies == new + len(before)
    assert len(contents(brittle)) == new
    if name == "o.parquet":
        found = [pd.read_parquet(io.BytesIO(data)) for _, data in sorted(contents(brittle).items())]
        assert np.array_equal(pd.concat(found)["loglik"], -rows(300)[:, 0])
