"""Parquet: files, directories, partitions, nulls, filters, damage."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import dask_em as em
from dask_em.errors import ConfigurationError, DataChangedError, DataError
from dask_em.sources.parquet import ParquetReader, coalesce


def write(path, columns, **options):
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pq.write_table(table, path, **options)
    return str(path)


@pytest.fixture
def columns(x):
    return {"a": x[:, 0], "b": x[:, 1], "c": x[:, 2]}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zstd", "use_byte_stream_split": True, "use_dictionary": False},
        {"compression": "none"},
        {"row_group_size": 700},
        {"data_page_version": "2.0", "row_group_size": 3000},
        {"write_statistics": False},
    ],
)
def test_encodings(tmp_path, rows, x, columns, options):
    source = em.open(write(tmp_path / "x.parquet", columns, **options))
    assert source.feature_names == ["a", "b", "c"]
    np.testing.assert_array_equal(rows(source), x[:, :3])
    assert source.read(0).x.flags.f_contiguous


def test_columns_in_the_order_asked_for(tmp_path, rows, x, columns):
    path = write(tmp_path / "x.parquet", columns, row_group_size=1000)
    source = em.open(path, columns=["c", "a"])
    assert source.feature_names == ["c", "a"]
    np.testing.assert_array_equal(rows(source), x[:, [2, 0]])
    np.testing.assert_array_equal(rows(em.open(path, columns="b")), x[:, [1]])


def test_only_the_columns_asked_for_are_read(tmp_path):
    path = write(tmp_path / "x.parquet", {f"c{j}": np.random.default_rng(j).normal(size=100_000) for j in range(20)})
    source = em.open(path, columns=["c3"])
    source.read(0)
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    tracemalloc.start()
    source.read(0)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert pool.bytes_allocated() - before < 2 << 20  # one column is 0.8 MB, all are 16


@pytest.mark.parametrize(
    "types, dtype",
    [
        (["float32", "float32"], "f4"),
        (["float16", "float16"], "f2"),
        (["float32", "float64"], "f8"),
        (["uint8", "uint8"], "u1"),
        (["uint8", "int8"], "i2"),
        (["int32", "uint16"], "i4"),
        (["int64", "bool"], "i8"),
        (["bool", "bool"], "?"),
        (["float32", "int8"], "f8"),
        (["int64", "uint64"], "f8"),
    ],
)
def test_the_common_type(tmp_path, rows, types, dtype):
    values = [np.arange(100) % 2, np.arange(100) // 2 % 2]
    names = {"bool": "bool", "float16": "halffloat"}
    arrays = [
        pa.array(v.astype(t), type=pa.float16() if t == "float16" else pa.type_for_alias(names.get(t, t)))
        for v, t in zip(values, types, strict=True)
    ]
    source = em.open(write(tmp_path / "x.parquet", pa.table(dict(zip("ab", arrays, strict=True)))))
    assert source.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(rows(source), np.column_stack(values))


@pytest.mark.parametrize("kind", ["float", "double", "int8", "int64", "bool"])
@pytest.mark.parametrize("statistics", [True, False])
def test_nulls_are_nan(tmp_path, rows, kind, statistics):
    values = [None if i % 7 == 3 else i % 2 for i in range(1000)]
    table = pa.table({"a": pa.array(values, pa.float64()).cast(kind)})
    source = em.open(write(tmp_path / "x.parquet", table, row_group_size=100, write_statistics=statistics))
    assert source.dtype == (np.float32 if kind == "float" else np.float64)
    np.testing.assert_array_equal(rows(source)[:, 0], np.array(values, float))


def test_dictionaries_of_numbers(tmp_path, rows):
    table = pa.table({"a": pa.array([1.5, 2.5, 1.5, None]).dictionary_encode()})
    np.testing.assert_array_equal(rows(em.open(write(tmp_path / "x.parquet", table)))[:, 0], [1.5, 2.5, 1.5, np.nan])


@pytest.mark.parametrize(
    "column, message",
    [
        (pa.array(["x", "y"]), "of type string, not a number"),
        (pa.array(["x", "y"]).dictionary_encode(), r"of categories \(string\)"),
        (pa.array([1, 2], pa.timestamp("ms")), r"of type timestamp\[ms\]"),
        (pa.array([1, 2], pa.decimal128(5, 2)), r"of type decimal128\(5, 2\)"),
        (pa.array([[1.0], [2.0]]), "of type list<"),
        (pa.array([1, 2], pa.date32()), r"of type date32"),
    ],
)
def test_columns_that_hold_no_numbers(tmp_path, column, message):
    path = write(tmp_path / "x.parquet", pa.table({"a": [1.0, 2.0], "bad": column}))
    with pytest.raises(DataError, match=rf"Column 'bad' of .*x\.parquet is {message}.*choose numeric columns"):
        em.open(path)
    assert em.open(path, columns=["a"]).n_features == 1


def test_missing_columns_list_those_there(tmp_path, columns):
    path = write(tmp_path / "x.parquet", columns)
    with pytest.raises(DataError, match=r"x\.parquet has no column 'd'; its columns are 'a', 'b', 'c'"):
        em.open(path, columns=["a", "d"])
    with pytest.raises(DataError, match="has no column 'n'"):
        em.open(path, weight="n")


def test_weights(tmp_path, rows, x, columns):
    path = write(tmp_path / "x.parquet", {**columns, "n": np.arange(len(x))}, row_group_size=999)
    source = em.open(path, weight="n")
    assert source.feature_names == ["a", "b", "c"]
    np.testing.assert_array_equal(rows(source, weight=True), np.arange(len(x)))
    w = np.random.default_rng(3).random(len(x))
    np.testing.assert_array_equal(rows(em.open(path, columns=["a"], weight=w), weight=True), w)
    with pytest.raises(ConfigurationError, match="An array of weights needs rows that are known beforehand"):
        em.open(path, weight=w, filters=[("a", ">", 0)])


def test_the_index_of_pandas_is_no_feature(tmp_path, x):
    frame = pd.DataFrame(x, columns=list("abcd"), index=np.arange(len(x)) * 3)
    frame.to_parquet(tmp_path / "x.parquet")
    assert em.open(tmp_path / "x.parquet").feature_names == list("abcd")


def test_row_groups_together_and_apart(tmp_path):
    path = write(tmp_path / "x.parquet", {"a": np.zeros(3_000_000)}, row_group_size=100_000)
    assert {b.rows for b in em.open(path).blocks} == {500_000}  # 4 MiB holds 524,288 rows
    path = write(tmp_path / "y.parquet", {"a": np.zeros(3_000_000)}, row_group_size=1_000_000)
    blocks = em.open(path).blocks
    assert [b.rows for b in blocks] == [1_000_000] * 3
    assert blocks[1].name == f"{path}, row group 1 (rows 1000000 to 2000000)"
    assert coalesce([0, 1, 3, 4], [1, 1, 1, 1, 1], 10) == [(0, 1), (3, 4)]


def test_directories_globs_and_lists(tmp_path, rows, x):
    frame = pd.DataFrame(x, columns=list("abcd"))
    for i in range(12):  # part.10 after part.9
        frame[i * 900 : (i + 1) * 900].to_parquet(tmp_path / f"part.{i}.parquet", index=False)
    (tmp_path / "_metadata").write_bytes(b"ignored")
    (tmp_path / ".part.3.parquet.tmp").write_bytes(b"ignored")
    (tmp_path / "_temporary").mkdir()
    (tmp_path / "_temporary" / "x.parquet").write_bytes(b"ignored")
    np.testing.assert_array_equal(rows(em.open(tmp_path)), x)
    np.testing.assert_array_equal(rows(em.open(f"{tmp_path}/part.*.parquet")), x)
    paths = [tmp_path / f"part.{i}.parquet" for i in (11, 2)]
    np.testing.assert_array_equal(rows(em.open(paths)), np.concatenate([x[9900:], x[1800:2700]]))


def test_parts_name_only_their_files(tmp_path, x):
    frame = pd.DataFrame(x, columns=list("abcd"))
    for i in range(20):
        frame.to_parquet(tmp_path / f"{i}.parquet", row_group_size=500)
    source = em.open(tmp_path)
    part = source.part(3, 5)
    assert isinstance(part, ParquetReader)
    assert len(part.files) == 2
    assert len(pickle.dumps(part)) < 2500


@pytest.fixture
def hive(tmp_path, x):
    frame = pd.DataFrame(x, columns=list("abcd"))
    frame["year"] = 2000 + np.arange(len(frame)) % 3
    frame["site"] = np.where(np.arange(len(frame)) % 2, "north", "south")
    frame.to_parquet(tmp_path / "hive", partition_cols=["year", "site"], index=False)
    return str(tmp_path / "hive"), frame.sort_values(["year", "site"], kind="stable")


def test_hive_partitions(rows, hive):
    path, frame = hive
    source = em.open(path)
    assert source.feature_names == list("abcd")
    np.testing.assert_array_equal(rows(source), frame[list("abcd")])
    source = em.open(path, columns=["year", "a"])
    np.testing.assert_array_equal(rows(source), frame[["year", "a"]])
    np.testing.assert_array_equal(rows(em.open(path, columns=["year"])), frame[["year"]])
    np.testing.assert_array_equal(rows(em.open(path, weight="year"), weight=True), frame["year"])
    with pytest.raises(DataError, match=r"Column 'site' of .* is text \('north'\) in the folders' names"):
        em.open(path, columns=["a", "site"])


@pytest.mark.parametrize(
    "filters, keep",
    [
        ([("a", ">", 0)], lambda f: f.a > 0),
        ([("a", ">", 0), ("b", "<=", 1)], lambda f: (f.a > 0) & (f.b <= 1)),
        ([[("a", ">", 1)], [("site", "==", "north")]], lambda f: (f.a > 1) | (f.site == "north")),
        ([("year", "==", 2001)], lambda f: f.year == 2001),
        ([("year", "in", {2000, 2002}), ("site", "!=", "north")], lambda f: (f.year != 2001) & (f.site != "north")),
        ((pc.field("d") < 0) & (pc.field("year") > 2000), lambda f: (f.d < 0) & (f.year > 2000)),
    ],
)
def test_filters(rows, hive, filters, keep):
    path, frame = hive
    source = em.open(path, columns=["b", "c"], filters=filters)
    assert source.n_rows is None
    assert {b.rows for b in source.blocks} == {None}
    np.testing.assert_array_equal(rows(source), frame[keep(frame)][["b", "c"]])
    assert source.fingerprint != em.open(path, columns=["b", "c"]).fingerprint


def test_filters_leave_out_row_groups_and_files(tmp_path, rows, hive):
    path = write(tmp_path / "x.parquet", {"a": np.arange(1_000_000.0), "b": np.ones(1_000_000)}, row_group_size=10_000)
    source = em.open(path, columns=["b"], filters=[("a", ">=", 985_000)])
    assert len(source.blocks) == 1
    assert source.blocks[0].name.endswith("row groups 98 to 99 (rows 980000 to 1000000)")
    assert len(rows(source)) == 15_000
    assert {
        f.location.url.split("/")[-3] for f in em.open(hive[0], filters=[("year", "=", 2002)]).part(0, 9).files
    } == {"year=2002"}
    with pytest.raises(DataError, match=r"has no rows that the filters keep, 0 sample\(s\): loosen them"):
        em.open(path, filters=[("a", "<", -1)])


def test_bad_filters(tmp_path, columns):
    path = write(tmp_path / "x.parquet", columns)
    for bad in ([("z", ">", 0)], [("a", "~", 0)], "a > 0", [("a", ">", "x")]):
        with pytest.raises(DataError, match=r"filters=.* cannot be applied .*give tuples such as"):
            em.open(path, filters=bad)


def test_files_that_disagree(tmp_path, rows):
    write(tmp_path / "1.parquet", {"a": [1.0], "b": [2.0]})
    write(tmp_path / "2.parquet", {"a": [1.0]})
    with pytest.raises(DataError, match=r"1\.parquet has a column 'b', .*2\.parquet has not"):
        em.open(tmp_path)
    np.testing.assert_array_equal(rows(em.open(tmp_path, columns=["a"])), [[1.0], [1.0]])
    write(tmp_path / "2.parquet", {"b": [3.0], "c": [0.0], "a": [1.0]})
    with pytest.raises(DataError, match=r"2\.parquet has a column 'c', .*1\.parquet has not"):
        em.open(tmp_path)
    np.testing.assert_array_equal(rows(em.open(tmp_path, columns=["a", "b"])), [[1.0, 2.0], [1.0, 3.0]])
    write(tmp_path / "2.parquet", {"a": [1.0], "b": ["x"]})
    with pytest.raises(DataError, match=r"column 'b' is double in .*1\.parquet but string in .*2\.parquet"):
        em.open(tmp_path)
    write(tmp_path / "2.parquet", {"a": [1], "b": pa.array([2], pa.float32())})  # numbers of any width go together
    source = em.open(tmp_path)
    assert source.dtype == np.float64
    np.testing.assert_array_equal(rows(source), [[1.0, 2.0], [1.0, 2.0]])


def test_damage(tmp_path, x, columns):
    path = write(tmp_path / "x.parquet", columns, row_group_size=1000, use_dictionary=False, compression="zstd")
    whole = Path(path).read_bytes()
    for bad in (whole[: len(whole) // 2], b"", b"PAR1", whole[:-8] + b"\xff" * 8):
        Path(path).write_bytes(bad)
        with pytest.raises(
            DataError, match=r"x\.parquet is not a readable Parquet file .*write it again, or leave it out"
        ):
            em.open(path)
    offset = pq.ParquetFile(pa.BufferReader(whole)).metadata.row_group(7).column(0).data_page_offset
    Path(path).write_bytes(whole[: offset + 30] + b"\xff" * 3000 + whole[offset + 3030 :])
    found = r"x\.parquet, row group 7 \(rows 7000 to 8000\) cannot be decoded .*the file is damaged"
    with pytest.raises(DataError, match=found):  # the block is all ten of them
        em.open(path).read(0)


def test_a_file_is_open_for_as_long_as_a_part_is_read(tmp_path, columns):
    path = write(tmp_path / "x.parquet", columns, row_group_size=1000)
    with dask.config.set({"em.block-bytes": "100 kiB"}):
        source = em.open(path)

    def is_open():
        return any(os.path.realpath(f"/proc/self/fd/{fd}") == str(path) for fd in os.listdir("/proc/self/fd"))

    n = len(source.blocks)
    assert n > 2
    assert not is_open()
    part = pickle.loads(pickle.dumps(source.part(1, n)))
    for i in range(1, n - 1):
        part.read(i)
        assert is_open()
    part.read(n - 1)
    assert not is_open()


def test_the_footer_is_read_once_here(tmp_path, columns, monkeypatch):
    path = write(tmp_path / "x.parquet", columns, row_group_size=1000)
    source = em.open(path)
    given = []
    opened = pq.ParquetFile
    monkeypatch.setattr(pq, "ParquetFile", lambda *a, **k: given.append(k["metadata"]) or opened(*a, **k))
    source.read(0)
    assert given == [source.files[0].metadata]
    assert given[0] is not None


def test_a_changed_file_is_noticed(tmp_path, columns):
    path = write(tmp_path / "x.parquet", columns, row_group_size=1000)
    source = em.open(path)
    before = source.fingerprint
    source.read(0)
    os.utime(path, (1, 1))
    with pytest.raises(DataChangedError, match=r"x\.parquet has changed since the data was opened"):
        source.read(0)
    assert em.open(path).fingerprint != before
    os.remove(path)
    with pytest.raises(DataError, match=r"x\.parquet cannot be read: there is nothing at that path"):
        source.part(0, 1).read(0)


def test_fingerprint_does_not_follow_the_place(tmp_path, columns):
    (tmp_path / "one").mkdir()
    write(tmp_path / "one" / "x.parquet", columns)
    before = em.open(tmp_path / "one").fingerprint
    os.rename(tmp_path / "one", tmp_path / "two")
    assert em.open(tmp_path / "two").fingerprint == before != em.open(tmp_path / "two", columns=["a"]).fingerprint


@pytest.mark.parametrize(
    "path, message",
    [
        ("absent.parquet", r"absent\.parquet cannot be read: there is nothing at that path"),
        ("absent", "cannot be read: there is nothing at that path"),
        ("*.parquet", r"No file matches .*\*\.parquet"),
        ("empty", "is a directory without Parquet files"),
        ("table.csv", r"table\.csv is neither Parquet nor Zarr nor \.npy"),
    ],
)
def test_paths_that_lead_nowhere(tmp_path, path, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=message):
        em.open(tmp_path / path)


def test_two_columns_of_one_name(tmp_path):
    table = pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], names=["a", "a"])
    with pytest.raises(DataError, match=r"x\.parquet has more than one column named a"):
        em.open(write(tmp_path / "x.parquet", table))


def test_columns_with_dots_in_their_names(tmp_path, rows):
    path = write(tmp_path / "x.parquet", {"PM2": [1.0], "PM2.5": [2.0]})
    np.testing.assert_array_equal(rows(em.open(path, columns=["PM2"])), [[1.0]])
    np.testing.assert_array_equal(rows(em.open(path, columns=["PM2.5"], filters=[("PM2", "==", 1)])), [[2.0]])


def test_empty_files(tmp_path, rows, x, columns):
    write(tmp_path / "1.parquet", {k: v[:0] for k, v in columns.items()})
    with pytest.raises(DataError, match=r"is empty, with 0 sample\(s\): nothing can be learned"):
        em.open(tmp_path / "1.parquet")
    write(tmp_path / "2.parquet", columns)
    np.testing.assert_array_equal(rows(em.open(tmp_path)), x[:, :3])


def test_real_earthquakes(real_data, rows):
    path = real_data / "scedc_quakes_1932_2026.parquet"
    expected = pd.read_parquet(path, columns=["lat", "lon", "depth", "mag"])
    source = em.open(path, columns=["lat", "lon", "depth"])
    assert source.n_rows == 854_213
    np.testing.assert_array_equal(rows(source), expected[["lat", "lon", "depth"]])
    source = em.open(path, columns=["lat", "lon"], filters=[("mag", ">", 4)])
    np.testing.assert_array_equal(rows(source), expected[expected.mag > 4][["lat", "lon"]])
    with pytest.raises(DataError, match=r"Column 'time' .* is of type timestamp\[ms\], not a number"):
        em.open(path)


def test_real_pixels(real_data, rows):
    source = em.open(real_data / "kodak_pixels.parquet", columns=["r", "g", "b"])
    assert (source.dtype, source.n_rows) == (np.uint8, 9_437_184)
    expected = pq.read_table(real_data / "kodak_pixels.parquet", columns=["g"])["g"].to_numpy()
    np.testing.assert_array_equal(rows(source)[:, 1], expected)


def test_real_air_has_gaps(real_data, rows):
    source = em.open(real_data / "beijing_air.parquet", columns=["PM2.5", "TEMP"])
    expected = pd.read_parquet(real_data / "beijing_air.parquet", columns=["PM2.5", "TEMP"])
    assert source.dtype == np.float32
    np.testing.assert_array_equal(rows(source), expected)
    with pytest.raises(DataError, match=r"Column 'station' .* is of categories \(string\)"):
        em.open(real_data / "beijing_air.parquet")
