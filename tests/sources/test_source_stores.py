"""Object stores and other file systems: S3 over a real connection, fsspec's memory."""

from __future__ import annotations

import pickle

import fsspec
import numpy as np
import pandas as pd
import pytest
import zarr

import dask_em as em
from dask_em.errors import DataChangedError, DataError
from dask_em.sources.location import Location, is_transient, locate, refusal, retrying, without_secrets


@pytest.fixture
def s3(bucket):
    import s3fs

    return s3fs.S3FileSystem(**bucket.storage_options)


def put_zarr(bucket, name, x, **options):
    store = zarr.storage.FsspecStore.from_url(bucket.url(name), storage_options=bucket.storage_options)
    array = zarr.create_array(store, shape=x.shape, dtype=x.dtype, overwrite=True, **options)
    array[:] = x
    return array


@pytest.mark.parametrize(
    "options",
    [{"chunks": (1000, 4)}, {"chunks": (1000, 2), "zarr_format": 2}, {"chunks": (100, 4), "shards": (1000, 4)}],
)
def test_zarr_on_s3(bucket, s3, rows, x, options):
    array = put_zarr(bucket, "a.zarr", x, **options)
    source = em.open(bucket.url("a.zarr"), storage_options=bucket.storage_options)
    np.testing.assert_array_equal(rows(source), x)
    assert len(pickle.dumps(source.part(0, 1))) < 3000
    np.testing.assert_array_equal(rows(em.open(array)), x)
    key = array.metadata.encode_chunk_key((3, 0))
    before = source.fingerprint
    s3.pipe_file(f"{bucket.name}/a.zarr/{key}", b"\xff" * 50)
    damaged = em.open(bucket.url("a.zarr"), storage_options=bucket.storage_options)
    assert damaged.fingerprint != before
    with pytest.raises(DataError, match=r"The chunk with rows 3000 to \d+ of s3://data-\w+/a\.zarr cannot be decoded"):
        damaged.read(0)
    s3.rm(f"{bucket.name}/a.zarr/{key}")
    with pytest.warns(
        UserWarning, match=r"1 of the \d+ (chunks|shards) of .* are missing, the first with rows 3000 to 4000"
    ):
        em.open(bucket.url("a.zarr"), storage_options=bucket.storage_options)


def test_zarr_groups_on_s3(bucket, rows, x):
    store = zarr.storage.FsspecStore.from_url(bucket.url("g.zarr"), storage_options=bucket.storage_options)
    zarr.open_group(store, mode="w").create_array("in/table", shape=x.shape, dtype="f8", chunks=(5000, 4))[:] = x
    for url in ("g.zarr", "g.zarr/in/table"):
        source = em.open(bucket.url(url), storage_options=bucket.storage_options)
        np.testing.assert_array_equal(rows(source), x)


def test_parquet_on_s3(bucket, s3, rows, x):
    frame = pd.DataFrame(x, columns=list("abcd"))
    frame["year"] = 2000 + np.arange(len(x)) // 5000
    frame.to_parquet(
        f"{bucket.url('p')}", partition_cols=["year"], row_group_size=1000, storage_options=bucket.storage_options
    )
    for url in ("p", "p/*/*.parquet", "p/year=*"):
        source = em.open(bucket.url(url), storage_options=bucket.storage_options)
        np.testing.assert_array_equal(rows(source), x)
    source = em.open(bucket.url("p"), columns=["a", "year"], storage_options=bucket.storage_options)
    np.testing.assert_array_equal(rows(source), frame[["a", "year"]])
    filters = [("a", ">", 0), ("year", "==", 2001)]
    source = em.open(bucket.url("p"), columns=["b"], filters=filters, storage_options=bucket.storage_options)
    np.testing.assert_array_equal(rows(source), frame[(frame.a > 0) & (frame.year == 2001)][["b"]])
    source = em.open(bucket.url("p"), columns=["b"], storage_options=bucket.storage_options)
    source.read(0)
    name = source.files[0].location.url.removeprefix("s3://")
    s3.pipe_file(name, s3.cat_file(name)[:-1] + b"x")
    with pytest.raises(DataChangedError, match=r"\.parquet has changed since the data was opened"):
        source.read(0)
    with pytest.raises(DataError, match=r"\.parquet is not a readable Parquet file"):
        em.open(bucket.url("p"), storage_options=bucket.storage_options)
    s3.rm(name)
    with pytest.raises(DataError, match=r"\.parquet cannot be read: there is nothing at that path"):
        source.part(0, 1).read(0)


@pytest.mark.parametrize("path", ["absent.zarr", "absent.parquet", "absent/*.parquet", "absent"])
def test_nothing_there_on_s3(bucket, path):
    with pytest.raises(DataError, match=r"no Zarr array or group at|there is nothing at that path|No file matches"):
        em.open(bucket.url(path), storage_options=bucket.storage_options)


@pytest.mark.parametrize("path", ["x.zarr", "x.parquet", "x/*.parquet"])
def test_no_such_bucket(bucket, path):
    with pytest.raises(DataError) as error:
        em.open(f"s3://no-such-bucket-here/{path}", storage_options=bucket.storage_options)
    assert "test-secret-1234" not in str(error.value)


def test_no_server_is_told_after_some_attempts(bucket, monkeypatch):
    monkeypatch.setattr("dask_em.sources.location.FIRST_WAIT", 0.001)
    options = {
        **bucket.storage_options,
        "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"},
        "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 0.2},
    }
    with pytest.raises(DataError, match=r"s3://b/x\.parquet cannot be read: the store did not answer"):
        em.open("s3://b/x.parquet", storage_options=options)


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    yield fs
    fs.rm("/", recursive=True)


def test_stores_of_this_process(memory, rows, x):
    store = zarr.storage.FsspecStore.from_url("memory://x.zarr")
    zarr.create_array(store, shape=x.shape, dtype="f8", chunks=(1000, 4))[:] = x
    np.testing.assert_array_equal(rows(em.open("memory://x.zarr")), x)
    frame = pd.DataFrame(x, columns=list("abcd"))
    frame.to_parquet("memory://p/1.parquet", row_group_size=1000)
    source = em.open("memory://p")
    np.testing.assert_array_equal(rows(source), x)
    part = pickle.dumps(source.part(0, 1))
    memory.rm("/p", recursive=True)
    np.testing.assert_array_equal(pickle.loads(part).read(0).x, x)  # the rows travelled, as nobody else sees the store


def test_files_as_urls(tmp_path, rows, x):
    pd.DataFrame(x, columns=list("abcd")).to_parquet(tmp_path / "x.parquet")
    np.testing.assert_array_equal(rows(em.open(f"file://{tmp_path}/x.parquet")), x)


def test_unknown_protocols():
    with pytest.raises(DataError, match=r"nowhere://x\.parquet cannot be opened"):
        em.open("nowhere://x.parquet")


def test_secrets_stay_secret():
    place = Location("https://user:password@host/x.parquet?sig=abc", {"secret": "hidden"})
    assert place.shown == "https://host/x.parquet"
    assert "hidden" not in repr(place)
    text = without_secrets("403 for https://me:pw@host secret_key=hidden&x token: abc\nmore")
    assert "hidden" not in text
    assert "pw@" not in text
    assert "abc" not in text
    error = refusal(PermissionError("AWS key AKIA1234 Forbidden"), "s3://b/x")
    assert str(error) == (
        "s3://b/x cannot be read: access is denied: check the credentials and that they allow reading and listing."
    )


def test_what_is_tried_again(monkeypatch):
    monkeypatch.setattr("dask_em.sources.location.FIRST_WAIT", 0.0)
    assert is_transient(OSError(16, "Please reduce your request rate."))
    assert is_transient(TimeoutError())
    assert not is_transient(FileNotFoundError())
    assert not is_transient(PermissionError())
    assert not is_transient(ValueError("timeout"))
    calls = []

    def flaky():
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionResetError
        return "read"

    assert retrying(flaky) == "read"
    assert len(calls) == 3
    calls = [1] * -10

    def denied():
        calls.append(1)
        raise PermissionError

    with pytest.raises(PermissionError):
        retrying(denied)
    assert len(calls) == 1


def test_paths_are_made_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert locate("x.zarr", None).url == str(tmp_path / "x.zarr")
    assert locate("s3://b/x", None).url == "s3://b/x"


def test_only_the_bytes_needed_leave_the_store(bucket, s3, monkeypatch):
    import s3fs

    frame = pd.DataFrame({f"c{j}": np.random.default_rng(j).normal(size=50_000) for j in range(20)})
    frame.to_parquet(bucket.url("wide.parquet"), storage_options=bucket.storage_options)
    total = s3.info(f"{bucket.name}/wide.parquet")["size"]
    fetched = []
    fetch = s3fs.core.S3File._fetch_range

    def counted(self, start, end):
        fetched.append(end - start)
        return fetch(self, start, end)

    monkeypatch.setattr(s3fs.core.S3File, "_fetch_range", counted)
    source = em.open(bucket.url("wide.parquet"), columns=["c7"], storage_options=bucket.storage_options)
    np.testing.assert_array_equal(source.read(0).x[:, 0], frame["c7"])
    assert 0 < sum(fetched) < total / 8  # a column, and the footer twice
