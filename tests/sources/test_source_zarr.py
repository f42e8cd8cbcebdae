"""Zarr: both formats, sharded or not, groups, missing and damaged chunks."""

from __future__ import annotations

import os
import pickle
import shutil
import time
import warnings
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr

import dask_em as em
from dask_em.errors import ConfigurationError, DataChangedError, DataError
from dask_em.sources.zarr_chunks import short_way, zstd_size


def write(path, x, **options):
    array = zarr.create_array(str(path), shape=x.shape, dtype=x.dtype, **options)
    array[:] = x
    return array


LAYOUTS = {
    "v3": {"chunks": (1000, 4)},
    "v2": {"chunks": (1000, 4), "zarr_format": 2},
    "v3 columns": {"chunks": (777, 3)},
    "v2 columns": {"chunks": (777, 3), "zarr_format": 2},
    "sharded": {"chunks": (100, 2), "shards": (1000, 4)},
    "sharded in columns": {"chunks": (100, 1), "shards": (1000, 2)},
    "raw": {"chunks": (1000, 4), "compressors": None},
    "v2 raw": {"chunks": (1000, 4), "compressors": None, "zarr_format": 2},
    "blosc": {"chunks": (1000, 4), "compressors": zarr.codecs.BloscCodec(cname="lz4")},
    "gzip": {"chunks": (1000, 4), "compressors": zarr.codecs.GzipCodec()},
    "crc": {"chunks": (1000, 4), "compressors": [zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()]},
    "v2 F": {"chunks": (1000, 3), "zarr_format": 2, "order": "F"},
    "transposed": {"chunks": (1000, 4), "filters": [zarr.codecs.TransposeCodec(order=(1, 0))]},
    "one chunk": {"chunks": (10_000, 4)},
    "large chunk": {"chunks": (20_000, 4)},
    "large gzip": {"chunks": (20_000, 4), "compressors": zarr.codecs.GzipCodec()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["f8", "f4", "i2", ">f8", "?"])
def test_layouts(tmp_path, rows, x, layout, dtype):
    y = (x > 0) if dtype == "?" else (10 * x).astype(dtype)
    array = write(tmp_path / "x.zarr", y, **LAYOUTS[layout])
    for data in (tmp_path / "x.zarr", array):
        source = em.open(data)
        assert (source.n_rows, source.n_features) == y.shape
        np.testing.assert_array_equal(rows(source), y)
    np.testing.assert_array_equal(rows(em.open(array, columns=[3, 0])), y[:, [3, 0]])
    np.testing.assert_array_equal(rows(em.open(array, columns=slice(1, 3))), y[:, 1:3])
    np.testing.assert_array_equal(rows(em.open(array, columns=[0, 2])), y[:, [0, 2]])


def test_small_chunks_and_zstd_take_the_short_way(tmp_path, x):
    short = {name: short_way(write(tmp_path / name, x, **LAYOUTS[name])) is not None for name in LAYOUTS}
    assert {name for name, way in short.items() if not way} == {"crc", "transposed", "large gzip"}


@pytest.mark.parametrize("n", [1, 255, 256, 65_791, 65_792, 5 << 20])
@pytest.mark.parametrize("checksum", [False, True])
def test_the_size_that_a_zstd_frame_states(n, checksum):
    frame = numcodecs.Zstd(checksum=checksum).encode(bytes(n))
    assert zstd_size(frame) == n
    assert zstd_size(frame[:4]) is zstd_size(b"abcd" + frame) is None


@pytest.mark.parametrize("n", [999, 1001])
def test_a_zstd_chunk_of_another_size_is_refused(tmp_path, x, n):
    write(tmp_path / "x.zarr", x, chunks=(1000, 4))
    (tmp_path / "x.zarr" / "c" / "1" / "0").write_bytes(numcodecs.Zstd().encode(np.ones((n, 4))))
    with pytest.raises(DataError, match="rows 1000 to 2000 .* cannot be decoded"):
        em.open(tmp_path / "x.zarr").read(0)


def test_blocks_are_whole_chunks_or_shards(tmp_path):
    y = np.zeros((100_000, 8))
    blocks = em.open(write(tmp_path / "a", y, chunks=(30_000, 8)), missing_chunks="ignore").blocks
    assert [b.rows for b in blocks] == [60_000, 40_000]
    blocks = em.open(write(tmp_path / "b", y, chunks=(1000, 8), shards=(70_000, 8)), missing_chunks="ignore").blocks
    assert [b.rows for b in blocks] == [70_000, 30_000]  # larger than the target, yet never split
    blocks = em.open(write(tmp_path / "c", y, chunks=(100, 8)), missing_chunks="ignore").blocks
    assert [b.rows for b in blocks] == [65_500, 34_500]


def test_only_the_chunks_of_the_columns_are_read(tmp_path, rows, x):
    write(tmp_path / "x.zarr", x, chunks=(1000, 1))
    for path in Path(tmp_path / "x.zarr" / "c").glob("*/[13]"):
        path.write_bytes(b"not to be read")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = em.open(tmp_path / "x.zarr", columns=[2, 0], missing_chunks="error")
    np.testing.assert_array_equal(rows(source), x[:, [2, 0]])


def test_one_dimension_is_one_column(tmp_path, rows, x):
    write(tmp_path / "one.zarr", x[:, 0], chunks=(999,))
    np.testing.assert_array_equal(rows(em.open(tmp_path / "one.zarr")), x[:, :1])


def test_parts_travel_as_addresses(tmp_path, x):
    source = em.open(write(tmp_path / "x.zarr", x, chunks=(100, 4)))
    source.read(0)
    assert len(pickle.dumps(source.part(0, len(source.blocks)))) < 2000


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_groups(tmp_path, rows, x, zarr_format):
    group = zarr.open_group(str(tmp_path / "g.zarr"), mode="w", zarr_format=zarr_format)
    with pytest.raises(DataError, match="is a Zarr group without a two-dimensional array; its arrays are: none at all"):
        em.open(tmp_path / "g.zarr")
    group.create_array("deep/table", shape=x.shape, dtype=x.dtype, chunks=(1000, 4))[:] = x
    group.create_array("labels", shape=(4,), dtype="i8")
    np.testing.assert_array_equal(rows(em.open(tmp_path / "g.zarr")), x)
    group.create_array("other", shape=(10, 2), dtype="f4")
    message = r"group of 2 two-dimensional arrays \(deep/table \(10000, 4\), other \(10, 2\)\): add one's name, as in"
    with pytest.raises(DataError, match=message):
        em.open(tmp_path / "g.zarr")
    np.testing.assert_array_equal(rows(em.open(tmp_path / "g.zarr" / "deep" / "table")), x)
    np.testing.assert_array_equal(rows(em.open(group["deep/table"])), x)


def test_told_by_content_not_name(tmp_path, rows, x):
    write(tmp_path / "anything", x)
    np.testing.assert_array_equal(rows(em.open(tmp_path / "anything")), x)
    (tmp_path / "not.zarr").mkdir()
    with pytest.raises(DataError, match=r"not\.zarr is not a Zarr array or group: it has none of zarr\.json"):
        em.open(tmp_path / "not.zarr")
    with pytest.raises(DataError, match=r"There is no Zarr array or group at .*absent\.zarr"):
        em.open(tmp_path / "absent.zarr")


def test_zip_stores(tmp_path, rows, x):
    store = zarr.storage.ZipStore(tmp_path / "x.zarr.zip", mode="w")
    array = zarr.create_array(store, name="inner", shape=x.shape, dtype=x.dtype, chunks=(1000, 4))
    array[:] = x
    store.close()
    np.testing.assert_array_equal(rows(em.open(tmp_path / "x.zarr.zip")), x)
    np.testing.assert_array_equal(rows(em.open(str(tmp_path / "x.zarr.zip") + "/inner")), x)


def test_stores_in_memory(rows, x):
    array = zarr.create_array(zarr.storage.MemoryStore(), shape=x.shape, dtype=x.dtype, chunks=(100, 4))
    array[:] = x
    source = em.open(array)
    np.testing.assert_array_equal(rows(source), x)
    assert len(pickle.dumps(source.part(0, 1))) < source.blocks[0].nbytes + 2000
    before = source.fingerprint
    array[7, 0] = 5
    assert em.open(array).fingerprint != before


@pytest.mark.parametrize("layout", ["v3", "v2", "v3 columns", "sharded", "crc"])
def test_missing_chunks(tmp_path, rows, x, layout):
    array = write(tmp_path / "x.zarr", x, **LAYOUTS[layout])
    keys = [array.metadata.encode_chunk_key((i, 0)) for i in (2, 5)]
    for key in keys:
        os.remove(tmp_path / "x.zarr" / key)
    height = (array.shards or array.chunks)[0]
    kind = "shards" if array.shards else "chunks"
    found = rf"2 of the \d+ {kind} of .* are missing, the first with rows {2 * height} to {3 * height}"
    with pytest.warns(UserWarning, match=found) as caught:
        source = em.open(tmp_path / "x.zarr")
    assert len(caught) == 1
    expected = x.copy()
    width = (array.shards or array.chunks)[1]
    expected[2 * height : 3 * height, :width] = 0
    expected[5 * height : 6 * height, :width] = 0
    np.testing.assert_array_equal(rows(source), expected)
    with pytest.raises(DataError, match=found):
        em.open(tmp_path / "x.zarr", missing_chunks="error")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        em.open(tmp_path / "x.zarr", missing_chunks="ignore")
    with pytest.raises(ConfigurationError, match="missing_chunks='maybe'"):
        em.open(tmp_path / "x.zarr", missing_chunks="maybe")


def test_missing_inner_chunks_of_a_shard_read_as_the_fill_value(tmp_path, rows, x):
    y = x.copy()
    y[300:400] = 7.0  # equal to the fill value, so Zarr leaves it out of the shard
    write(tmp_path / "x.zarr", y, chunks=(100, 2), shards=(1000, 4), fill_value=7.0)
    np.testing.assert_array_equal(rows(em.open(tmp_path / "x.zarr")), y)


@pytest.mark.parametrize("at", ["start", "end"])
def test_missing_inner_chunks_of_a_shard_are_found_where_that_is_asked(tmp_path, x, at):
    y = x[:9950].copy()  # the last shard is not full, which is as it should be
    y[300:400, 2:] = y[5200:5300] = 0
    sharding = {"shape": (1000, 4), "index_location": at}
    write(tmp_path / "x.zarr", y, chunks=(100, 2), shards=sharding, fill_value=0)
    found = r"3 of the 200 chunks within shards of .*x\.zarr are missing, the first with rows 300 to 400"
    with pytest.raises(DataError, match=found):
        em.open(tmp_path / "x.zarr", missing_chunks="error")
    with pytest.raises(DataError, match="1 of the 100 chunks within shards .* the first with rows 5200 to 5300"):
        em.open(tmp_path / "x.zarr", missing_chunks="error", columns=[0, 1])
    write(tmp_path / "full.zarr", x[:9950], chunks=(100, 2), shards=sharding)
    em.open(tmp_path / "full.zarr", missing_chunks="error")


def test_several_arrays_are_opened_one_at_a_time(tmp_path, rows, x):
    for i in range(2):
        write(tmp_path / f"cor{i}.zarr", x, chunks=(1000, 4))
    for several in (tmp_path / "cor*.zarr", [tmp_path / "cor0.zarr", tmp_path / "cor1.zarr"]):
        with pytest.raises(DataError, match=r"opened one at a time, and .*cor.* 2 of them: open one .*concatenate"):
            em.open(several)
    with pytest.raises(DataError, match=r"No file matches .*other\*\.zarr"):
        em.open(tmp_path / "other*.zarr")


def test_a_group_stands_for_its_only_table(tmp_path, rows, x):
    group = zarr.open_group(tmp_path / "g.zarr", mode="w")
    group.create_array("inside/table", data=x)
    group.create_array("times", data=x[:, 0])
    np.testing.assert_array_equal(rows(em.open(group)), x)
    group.create_array("other", data=x)
    with pytest.raises(DataError, match=r"g\.zarr is a Zarr group of 2 two-dimensional arrays .*add one's name"):
        em.open(group)


def test_a_source_does_not_hold_the_keys_of_its_chunks(tmp_path, x):
    write(tmp_path / "x.zarr", x, chunks=(2, 4))
    source = em.open(tmp_path / "x.zarr")
    held = pickle.dumps({k: v for k, v in vars(source).items() if k not in ("blocks", "store")})
    assert len(held) < 2000  # 5000 keys would take a hundred times that
    before = source.fingerprint
    os.utime(tmp_path / "x.zarr" / "c" / "3" / "0", (1, 1))
    assert em.open(tmp_path / "x.zarr").fingerprint != before


@pytest.mark.parametrize("layout", ["v3", "v2", "sharded", "crc", "large chunk", "blosc", "gzip"])
@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_damaged_chunks_are_named(tmp_path, x, layout, damage):
    array = write(tmp_path / "x.zarr", x, **LAYOUTS[layout])
    source = em.open(tmp_path / "x.zarr")
    height = (array.shards or array.chunks)[0]
    which = min(3, (len(x) - 1) // height)
    path = tmp_path / "x.zarr" / array.metadata.encode_chunk_key((which, 0))
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "noise": b"\xff" * len(content), "empty": b""}[damage])
    step = array.chunks[0]
    with pytest.raises(
        DataError, match=rf"The chunk with rows {which * height} to \d+ of .*x\.zarr cannot be decoded"
    ) as e:
        [source.read(block.index) for block in source.blocks]
    assert "write it again" in str(e.value)
    assert f"to {min(which * height + step, len(x))} of" in str(e.value)


def test_damaged_metadata(tmp_path, x):
    write(tmp_path / "x.zarr", x)
    (tmp_path / "x.zarr" / "zarr.json").write_text('{"zarr_format": 3, "node_type"')
    with pytest.raises(DataError, match=r"The Zarr metadata of .*x\.zarr cannot be read"):
        em.open(tmp_path / "x.zarr")


@pytest.mark.parametrize(
    "shape, dtype, message",
    [
        ((4, 3, 2), "f8", r"has 3 dimensions, shape \(4, 3, 2\): rows by columns are needed"),
        ((4, 3), "c16", "holds values of type complex128, not real numbers"),
        ((4, 3), "M8[s]", "not real numbers"),
        ((0, 3), "f8", r"0 sample\(s\) \(shape=\(0, 3\)\) while a minimum of 1 is required"),
    ],
)
def test_refused_arrays(tmp_path, shape, dtype, message):
    zarr.create_array(str(tmp_path / "x.zarr"), shape=shape, dtype=dtype, chunks=tuple(max(n, 1) for n in shape))
    with pytest.raises(DataError, match=message):
        em.open(tmp_path / "x.zarr")


def test_refused_keywords(tmp_path, x):
    write(tmp_path / "x.zarr", x)
    with pytest.raises(ConfigurationError, match="filters cannot be used here: a Zarr array has no column names"):
        em.open(tmp_path / "x.zarr", filters=[("a", ">", 0)])
    with pytest.raises(ConfigurationError, match="weight as a column's name cannot be used here"):
        em.open(tmp_path / "x.zarr", weight="n")
    with pytest.raises(DataError, match="There is no column 9"):
        em.open(tmp_path / "x.zarr", columns=[9])


def test_an_array_that_changes_shape_is_noticed(tmp_path, x):
    array = write(tmp_path / "x.zarr", x, chunks=(1000, 4))
    source = em.open(tmp_path / "x.zarr")
    before = source.fingerprint
    array.append(x[:10])
    with pytest.raises(DataChangedError, match=r"no longer the array of shape \(10000, 4\)"):
        source.part(0, 1).read(0)
    assert em.open(tmp_path / "x.zarr").fingerprint != before


def test_fingerprint_follows_the_files(tmp_path, x):
    array = write(tmp_path / "x.zarr", x, chunks=(1000, 4))
    before = em.open(tmp_path / "x.zarr").fingerprint
    assert em.open(array).fingerprint == before
    shutil.move(tmp_path / "x.zarr", tmp_path / "moved.zarr")
    assert em.open(tmp_path / "moved.zarr").fingerprint == before
    assert em.open(tmp_path / "moved.zarr", columns=[0]).fingerprint != before
    time.sleep(0.01)
    zarr.open_array(str(tmp_path / "moved.zarr"))[5000, 1] = 3.0
    assert em.open(tmp_path / "moved.zarr").fingerprint != before


def test_weights(tmp_path, rows, x):
    w = np.arange(len(x)) / 7
    write(tmp_path / "x.zarr", x, chunks=(300, 4))
    np.testing.assert_array_equal(rows(em.open(tmp_path / "x.zarr", weight=w), weight=True), w)


def test_a_transient_failure_is_tried_again(tmp_path, x, monkeypatch):
    source = em.open(
        write(tmp_path / "x.zarr", x, chunks=(10_000, 4), filters=[zarr.codecs.TransposeCodec(order=(1, 0))])
    )
    monkeypatch.setattr("dask_em.sources.location.FIRST_WAIT", 0.001)
    failures = [ConnectionResetError("reset by peer"), TimeoutError()]
    get = zarr.storage.LocalStore.get

    async def flaky(self, key, *args, **kwargs):
        if key.startswith("c/") and failures:
            raise failures.pop()
        return await get(self, key, *args, **kwargs)

    monkeypatch.setattr(zarr.storage.LocalStore, "get", flaky)
    np.testing.assert_array_equal(source.read(0).x, x)
    assert not failures
    failures = [ConnectionResetError("reset by peer")] * 50
    with pytest.raises(
        DataError, match=r"Rows 0 to 10000 of .* cannot be read: the store did not answer .* in 5 attempts"
    ):
        source.read(0)


def test_ten_thousand_tiny_chunks_are_quick(tmp_path, x):
    y = np.tile(x, (10, 1))
    write(tmp_path / "x.zarr", y, chunks=(10, 4), compressors=zarr.codecs.ZstdCodec(level=0))
    source = em.open(tmp_path / "x.zarr")
    assert len(source.blocks) == 1
    began = time.process_time()
    np.testing.assert_array_equal(source.read(0).x, y)
    assert time.process_time() - began < 2.0  # about 0.4 s; through Zarr's own way 3 s and more
