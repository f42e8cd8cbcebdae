"""The same outputs from a cluster, from workers that die, and in stores that are no file system."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pytest
import zarr

from dask_em.errors import ConfigurationError, DataError
from dask_em.executors.threads import ThreadsExecutor
from dask_em.sinks import zarr as zarr_sink
from dask_em.sinks.answers import Answer
from dask_em.sinks.writing import write_rows
from dask_em.sources.array import ArraySource

SIZES = [130, 70, 0, 99, 1, 200, 500]


@dataclass(frozen=True)
class Identity:
    """A stand-in for a fitted model: a row's log-likelihood is its number."""

    n_components: int = 3
    accepts_nan: bool = False

    def posteriors(self, params: Any, x: np.ndarray, want: str) -> np.ndarray:
        return np.array(x[:, 0], dtype=np.float64)


@dataclass(frozen=True)
class DiesOnce(Identity):
    """Ends the process of the worker that is first asked for the last rows."""

    flag: str = ""

    def posteriors(self, params: Any, x: np.ndarray, want: str) -> np.ndarray:
        if x[-1, 0] == 999 and not os.path.exists(self.flag):
            Path(self.flag).touch()
            time.sleep(0.5)  # so that other parts are written and lost with it
            os.kill(os.getpid(), signal.SIGKILL)
        return super().posteriors(params, x, want)


def rows() -> np.ndarray:
    return np.column_stack([np.arange(1000.0), np.ones(1000)])


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dask_em.sinks.writing.chunk_rows", lambda answer, n_rows: min(n_rows, 100))


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs="CRITICAL"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def files(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.mark.cluster
@pytest.mark.parametrize("name", ["o.zarr", "o.parquet"])
@pytest.mark.parametrize("batch_blocks", [1, 4])
def test_a_cluster_writes_the_same_bytes_as_threads(tmp_path: Path, client: Any, name: str, batch_blocks: int) -> None:
    from dask_em.executors.dask import DaskExecutor

    answer = Answer(Identity(), None, "loglik")
    write_rows(ArraySource(rows(), sizes=SIZES), answer, tmp_path / name, ThreadsExecutor(1))
    executor = DaskExecutor(client, batch_blocks=batch_blocks)
    write_rows(ArraySource(rows(), sizes=SIZES), answer, tmp_path / f"d-{name}", executor)
    executor.close()
    assert files(tmp_path / f"d-{name}") == files(tmp_path / name)


@pytest.mark.cluster
@pytest.mark.parametrize("name", ["o.zarr", "o.parquet"])
def test_a_worker_that_dies_changes_no_byte(tmp_path: Path, client: Any, name: str) -> None:
    from dask_em.executors.dask import DaskExecutor

    write_rows(
        ArraySource(rows(), sizes=SIZES), Answer(Identity(), None, "loglik"), tmp_path / name, ThreadsExecutor(1)
    )
    executor = DaskExecutor(client, batch_blocks=1)
    deadly = Answer(DiesOnce(flag=str(tmp_path / "died")), None, "loglik")
    write_rows(ArraySource(rows(), sizes=SIZES), deadly, tmp_path / f"d-{name}", executor)
    executor.close()
    assert (tmp_path / "died").exists()
    assert files(tmp_path / f"d-{name}") == files(tmp_path / name)
    client.wait_for_workers(2, timeout=30)


@pytest.mark.cluster
def test_an_error_on_a_worker_leaves_nothing(tmp_path: Path, client: Any) -> None:
    from dask_em.executors.dask import DaskExecutor

    x = rows()
    x[900, 0] = np.inf
    executor = DaskExecutor(client)
    with pytest.raises(DataError, match="900"):
        write_rows(ArraySource(x, sizes=SIZES), Answer(Identity(), None, "loglik"), tmp_path / "o.zarr", executor)
    executor.close()
    assert os.listdir(tmp_path) == []


# ---------------------------------------------------------------- stores that cannot rename


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, Any]]:
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"key": "k", "secret": "s", "endpoint_url": f"http://{host}:{port}"}
    fsspec.filesystem("s3", **options).mkdir("bucket")
    yield options
    server.stop()


def read(url: str, options: dict[str, Any] | None) -> np.ndarray:
    fsspec.url_to_fs(url, **(options or {}))[0].invalidate_cache()
    if url.endswith(".zarr"):
        return zarr.open_array(url, mode="r", storage_options=options)[:]
    return pd.read_parquet(url, storage_options=options)["loglik"].to_numpy()


def check_store(root: str, name: str, options: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    fs, folder = fsspec.url_to_fs(root, **(options or {}))
    url = f"{root}/{name}"
    good, executor = Answer(Identity(), None, "loglik"), ThreadsExecutor(2)
    write_rows(ArraySource(rows()[:250]), good, url, executor, storage_options=options)
    assert np.array_equal(read(url, options), np.arange(250))
    with pytest.raises(ConfigurationError, match="exists"):
        write_rows(ArraySource(rows(), sizes=SIZES), good, url, executor, storage_options=options)

    bad = rows()
    bad[-1] = np.nan
    with pytest.raises(DataError, match="NaN"):
        write_rows(ArraySource(bad, sizes=SIZES), good, url, executor, storage_options=options, overwrite=True)
    assert np.array_equal(read(url, options), np.arange(250))
    fs.invalidate_cache()
    assert [f.rsplit("/", 1)[-1] for f in fs.ls(folder, detail=False)] == [name]

    copied: list[str] = []
    copy = fs.copy
    monkeypatch.setattr(fs, "copy", lambda a, b, **k: (copied.extend(b), copy(a, b, **k))[1])
    write_rows(ArraySource(rows(), sizes=SIZES), good, url, executor, storage_options=options, overwrite=True)
    assert np.array_equal(read(url, options), np.arange(1000))
    if name.endswith(".zarr"):  # without its metadata an array is not seen
        assert copied[-1].endswith("zarr.json")
        aside = [path for path in copied if ".old/" in path]
        assert len(aside) == 4  # three chunks and the metadata of what was there, kept till the end
        assert len(copied) == 4 + 11
    fs.invalidate_cache()
    assert [f.rsplit("/", 1)[-1] for f in fs.ls(folder, detail=False)] == [name]
    fs.rm(folder + "/" + name, recursive=True)


@pytest.mark.parametrize("name", ["o.zarr", "o.parquet"])
def test_memory_store(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_store("memory://sinks-test", name, None, monkeypatch)


@pytest.mark.parametrize("name", ["o.zarr", "o.parquet"])
def test_object_store(s3: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_store("s3://bucket", name, s3, monkeypatch)


def test_a_chunk_is_complete_only_with_its_last_row() -> None:
    target = zarr_sink.Target(None, 250, 100)  # type: ignore[arg-type]
    assert [target.end_of_chunk(r) for r in (0, 99, 100, 249)] == [100, 100, 200, 250]
    assert target.whole(200, 250)
    assert not target.whole(200, 249)
    assert not target.whole(1, 100)
