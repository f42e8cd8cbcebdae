from __future__ import annotations

import uuid
from dataclasses import dataclass
from types import SimpleNamespace

import cloudpickle
import dask
import dask.array as da
import dask.dataframe as dd
import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

import dask_em as em
from dask_em import DaskExecutor, ThreadsExecutor
from dask_em.coding import open_coded
from dask_em.errors import CellError, ConfigurationError, DataError
from dask_em.executors.examine import refuse_bad_values
from dask_em.model import Block, Chunk
from dask_em.sources.sequences import ids_kind, sequence_ids

MISSING = "the sequence id is missing: every row belongs to a sequence, so give it one or drop it"


@pytest.fixture
def ids(x) -> np.ndarray:
    """Sequences of 1 to 500 rows, the edges of which are none of any block."""
    rng = np.random.default_rng(2)
    return np.repeat(rng.permutation(1000), rng.integers(1, 500, 1000))[: len(x)] * 1_000_003


@pytest.fixture
def texts(ids) -> np.ndarray:
    return np.array([f"série {i}" for i in ids], object)


@pytest.fixture
def frame(x, ids, texts) -> pd.DataFrame:
    return pd.DataFrame({"a": x[:, 0], "b": np.arange(len(x)), "id": ids, "text": texts})


@dataclass(frozen=True)
class Found:
    sequence: np.ndarray
    weight: np.ndarray | None

    def merge(self, right):
        weight = None if self.weight is None else np.concatenate([self.weight, right.weight])
        return Found(np.concatenate([self.sequence, right.sequence]), weight)

    def close(self):
        return self


@dataclass(frozen=True)
class Ids:
    """Asks a pass for all ids."""

    accepts_nan: bool = False

    def map(self, chunk):
        return Found(chunk.sequence, chunk.weight)


def pass_over(source) -> None:
    """One pass, as a fit makes: it places what is wrong with a row."""
    ThreadsExecutor(1).run(source, [Ids()])


def same_partition(found: np.ndarray, given: np.ndarray) -> bool:
    """Whether rows are equal in one where they are in the other."""
    return bool(np.array_equal(pd.factorize(found)[0], pd.factorize(given)[0]))


# ---------------------------------------------------------------- ids


TEXT = ["b", "a", "b", ""]


@pytest.mark.parametrize(
    "column",
    [
        np.array(TEXT, object),
        np.array(TEXT, dtype=np.dtypes.StringDType()),
        pd.Series(TEXT),
        pd.Series(TEXT, dtype="object"),
        pd.Series(TEXT, dtype="string"),
        pd.Series(TEXT, dtype=pd.ArrowDtype(pa.string())),
        pd.Series(TEXT, dtype="category"),
        pd.Categorical(TEXT, categories=["", "unused", "b", "a"]),
        pa.chunked_array([TEXT[:1], TEXT[1:]]).dictionary_encode().to_pandas(),
    ],
)
def test_a_text_has_one_id_however_it_is_stored(column):
    assert ids_kind(column.dtype) == "text"
    found = sequence_ids(column)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, sequence_ids(np.array(TEXT)))
    assert found[0] == found[2]
    assert len(set(found)) == 3


def test_the_hash_of_a_text_stays_what_it_is():
    assert sequence_ids(np.array(["a"])).tolist() == [1_057_337_978_284_184_663]


@pytest.mark.parametrize(
    "dtype",
    ["i1", "u2", ">i4", "i8", "u8", "f2", "f4", "f8", "g", "Int16", "UInt64", "Float64", "int32[pyarrow]", "category"],
)
def test_numbers_keep_their_values(dtype):
    column = pd.Series([3, 3, 70, 0]).astype(dtype) if dtype not in ("g", ">i4") else np.array([3, 3, 70, 0], dtype)
    assert sequence_ids(column).tolist() == [3, 3, 70, 0]
    assert sequence_ids(column).dtype == np.int64


def test_large_unsigned_ids_stay_different():
    found = sequence_ids(np.array([2**64 - 1, 2**64 - 2, 2**63, 2**63 - 1], np.uint64))
    assert len(set(found.tolist())) == 4


@pytest.mark.parametrize(
    "column, complaint",
    [
        (np.array([1.0, np.nan]), f"row 1, {MISSING}"),
        (np.array(["a", None], object), f"row 1, {MISSING}"),
        (np.array(["a", np.nan], object), f"row 1, {MISSING}"),
        (pd.Series([7, None], dtype="Int64"), f"row 1, {MISSING}"),
        (pd.Series(["a", None]), f"row 1, {MISSING}"),
        (pd.Series(["a", None], dtype="category"), f"row 1, {MISSING}"),
        (np.array([1.0, 2.5]), "row 1, the sequence id is 2.5, not whole: sequence ids are integers or text, so"),
        (pd.Series([1, 1, 2.5], dtype="Float64"), "row 2, the sequence id is 2.5, not whole"),
        (np.array([1.0, np.inf]), "row 1, the sequence id is inf, a number too large for a float to hold exactly"),
        (np.array([2.0**24], "f4"), "row 0, the sequence id is 16777216.0, a number too large"),
        (np.array(["a", "a", 3], object), "row 2, the sequence id is 3 of type int"),
        (np.array([True]), "row 0, the sequence id is of type bool: sequence ids are integers or text"),
        (pd.Series([True, None], dtype="boolean"), "row 0, the sequence id is of type boolean"),
        (np.array(["2020"], "M8[D]"), r"row 0, the sequence id is of type datetime64\[D\]"),
        (np.array([1j]), "row 0, the sequence id is of type complex128"),
    ],
)
def test_what_is_no_id_is_named(column, complaint):
    with pytest.raises(CellError, match=complaint):
        sequence_ids(column)


def test_values_without_a_hash_are_refused():
    with pytest.raises(DataError, match="cannot be told apart"):
        sequence_ids(pd.Series([["a"], ["b"]]))


def test_no_rows_have_no_ids():
    for column in (np.array([]), np.array([], object), np.array([], bool), pd.Series([], dtype="str")):
        assert sequence_ids(column).shape == (0,)


# ---------------------------------------------------------------- arrays


def test_arrays(tmp_path, rows, x, ids, texts):
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "ids.npy", ids)
    store = zarr.create_array(tmp_path / "x.zarr", shape=x.shape, chunks=(900, 2), dtype=x.dtype)
    store[:] = x
    beside = zarr.create_array(tmp_path / "ids.zarr", shape=ids.shape, chunks=(700,), dtype=ids.dtype)
    beside[:] = ids
    mapped = np.load(tmp_path / "ids.npy", mmap_mode="r")
    for data in (x, np.load(tmp_path / "x.npy", mmap_mode="r"), tmp_path / "x.npy", store, tmp_path / "x.zarr"):
        for given in (ids, ids[:, None], list(ids), pd.Series(ids), ids.astype(float), mapped, beside):
            source = em.open(data, sequence=given)
            np.testing.assert_array_equal(rows(source, sequence=True), ids)
            assert source.n_features == 4
        np.testing.assert_array_equal(rows(source), x)
        found = rows(em.open(data, sequence=texts), sequence=True)
        np.testing.assert_array_equal(found, rows(em.open(data, sequence=pd.Categorical(texts)), sequence=True))
        assert same_partition(found, texts)
        prints = {
            em.open(data).fingerprint,
            em.open(data, sequence=ids).fingerprint,
            em.open(data, sequence=ids + 1).fingerprint,
            em.open(data, sequence=texts).fingerprint,
            em.open(data, weight=ids).fingerprint,
            em.open(data, weight=ids, sequence=ids).fingerprint,
        }
        assert len(prints) == 6


def test_weights_and_sequences_go_together(rows, x, ids, frame):
    w = np.arange(len(x)) / 2
    made = dd.from_pandas(frame.assign(w=w), npartitions=6)
    for source in (
        em.open(x, weight=w, sequence=ids),
        em.open(da.from_array(x, chunks=777), weight=w, sequence=da.from_array(ids, chunks=901)),
        em.open(frame.assign(w=w), weight="w", sequence="id", columns=["a"]),
        em.open(frame[["a", "id"]], weight=w, sequence="id"),
        em.open(made, weight="w", sequence="id", columns=["a"]),
    ):
        np.testing.assert_array_equal(rows(source, weight=True), w)
        np.testing.assert_array_equal(rows(source, sequence=True), ids)
        assert "id" not in (source.feature_names or ())


@pytest.mark.parametrize(
    "sequence, kind, complaint",
    [
        ("id", ConfigurationError, "sequence='id' names a column, which arrays do not have: pass the sequence ids as"),
        (np.ones(3, int), DataError, "There are 3 sequence ids for 10000 rows: give each row one"),
        (np.ones((10_000, 2), int), DataError, r"Sequence ids must be 1D, one a row; got shape \(10000, 2\)"),
        (7, DataError, r"Sequence ids must be 1D, one a row; got shape \(\)"),
        (np.ones(10_000, bool), DataError, "The array of sequence ids is of type bool: sequence ids are integers or"),
        (np.zeros(10_000, "M8[s]"), DataError, "The array of sequence ids is of type datetime64"),
        (np.where(np.arange(10_000) == 17, np.nan, 1), DataError, f"the sequence ids: row 17, {MISSING}"),
        (np.ma.masked_less(np.arange(10_000), 5), DataError, "sequence is a masked array"),
    ],
)
def test_bad_arrays_are_refused(x, sequence, kind, complaint):
    with pytest.raises(kind, match=complaint):
        em.open(x, sequence=sequence)


def test_names_are_refused_where_there_are_none(tmp_path, x):
    np.save(tmp_path / "x.npy", x)
    zarr.create_array(tmp_path / "x.zarr", shape=x.shape, dtype=x.dtype)
    for data in (tmp_path / "x.npy", tmp_path / "x.zarr", da.from_array(x)):
        with pytest.raises(ConfigurationError, match="sequence as a column's name cannot be used here"):
            em.open(data, sequence="id")
    with pytest.raises(ConfigurationError, match="sequence cannot be used here: the data is a source already"):
        em.open(em.open(x), sequence=np.ones(len(x), int))


def test_ids_of_other_sources_are_examined(x):
    block = Block(0, "block 0", 3, 0, 0)
    with pytest.raises(DataError, match="block 0: the sequence id of row 1 is NaN; every row belongs to a sequence"):
        refuse_bad_values(Chunk(x[:3], None, np.array([1, np.nan, 2])), block, None, accepts_nan=False)
    with pytest.raises(DataError, match="block 0: 2 sequence ids for 3 rows; give one sequence id a row"):
        refuse_bad_values(Chunk(x[:3], None, np.arange(2)), block, None, accepts_nan=False)


# ---------------------------------------------------------------- frames


def test_frames(rows, frame, ids, texts):
    source = em.open(frame[["a", "b", "id"]], sequence="id")
    assert source.feature_names == ["a", "b"]
    np.testing.assert_array_equal(rows(source, sequence=True), ids)
    np.testing.assert_array_equal(rows(source), frame[["a", "b"]])
    own = em.open(frame, columns=["id", "a"], sequence="id")
    assert own.feature_names == ["id", "a"]
    np.testing.assert_array_equal(rows(own, sequence=True), ids)
    for kind in ("object", "str", "category", "string"):
        found = rows(em.open(frame.astype({"text": kind}), columns=["a"], sequence="text"), sequence=True)
        np.testing.assert_array_equal(found, sequence_ids(texts))
    assert same_partition(found, texts)
    prints = [em.open(f, columns=["a"], sequence="id").fingerprint for f in (frame, frame.assign(id=ids + 1))]
    assert len({*prints, em.open(frame, columns=["a"]).fingerprint}) == 3


def test_bad_columns_are_refused(frame):
    made = dd.from_pandas(frame, npartitions=4)
    for data, where in ((frame, "The data frame"), (made, "The Dask frame")):
        with pytest.raises(DataError, match=f"{where} has no column 'z'"):
            em.open(data, columns=["a"], sequence="z")
        wrong = data.assign(id=data["id"] > 0)
        with pytest.raises(DataError, match=f"Column 'id' of {where.lower().replace('dask', 'Dask')} is of type bool"):
            em.open(wrong, columns=["a"], sequence="id")
    frame.loc[5017, "text"] = None
    with pytest.raises(DataError, match=f"the data frame: row 5017, {MISSING}"):
        em.open(frame, columns=["a"], sequence="text")


def test_columns_of_text_are_coded_beside_a_sequence(rows, frame, ids, tmp_path):
    model = SimpleNamespace(takes_text=lambda name, position: name == "kind")
    frame = frame.assign(kind=np.where(frame.a > 0, "high", "low"))[["a", "kind", "text"]]
    frame.to_parquet(tmp_path / "x.parquet")
    for data in (frame, dd.from_pandas(frame, npartitions=3), tmp_path / "x.parquet"):
        source = open_coded(data, model, sequence="text", executor=ThreadsExecutor(1))
        assert list(source.feature_names) == ["a", "kind"]
        assert source.levels == {"kind": ("high", "low")}
        assert same_partition(rows(source, sequence=True), ids)


# ---------------------------------------------------------------- Dask


@pytest.mark.parametrize("kind", ["numbers", "U", "object"])
def test_dask_arrays(rows, x, ids, texts, kind):
    given = ids if kind == "numbers" else texts.astype("U" if kind == "U" else object)
    known = da.from_array(x, chunks=(777, 2))
    for data in (known, x, da.from_array(x, chunks=((0, 5000, 0, 4999, 1), (4,)))):
        for sequence in (da.from_array(given, chunks=901), da.from_array(given[:, None], chunks=(901, 1))):
            source = em.open(data, sequence=sequence)
            np.testing.assert_array_equal(rows(source, sequence=True), sequence_ids(given))
            np.testing.assert_array_equal(rows(source), x)
    keep = x[:, 0] > 0
    mask = da.from_array(keep, chunks=777)
    source = em.open(known[mask], sequence=da.from_array(given, chunks=777)[mask])
    assert source.n_rows is None
    np.testing.assert_array_equal(rows(source, sequence=True), sequence_ids(given)[keep])
    np.testing.assert_array_equal(rows(source), x[keep])
    assert source.fingerprint != em.open(known[mask]).fingerprint
    assert source.fingerprint != em.open(known[mask], weight=da.from_array(ids, chunks=777)[mask]).fingerprint


def test_dask_arrays_that_do_not_match(x, ids):
    known = da.from_array(x, chunks=(1000, 4))
    with pytest.raises(DataError, match="There are 9 sequence ids for 10000 rows"):
        em.open(known, sequence=da.ones(9, dtype=int))
    unknown = known[known[:, 0] > 0]
    with pytest.raises(ConfigurationError, match="An array of sequence ids needs rows .* column of the data as the"):
        em.open(unknown, sequence=ids)
    with pytest.raises(DataError, match="The sequence ids come in 1 blocks, the data in 10"):
        em.open(unknown, sequence=da.ones(5000, dtype=int))
    with pytest.raises(DataError, match=r"chunk 0 of the Dask array.* holds \d+ rows but 1000 sequence ids"):
        em.open(unknown, sequence=da.ones(10_000, chunks=1000, dtype=int)).read(0)
    with pytest.raises(DataError, match="The array of sequence ids is of type bool"):
        em.open(known, sequence=da.ones(10_000, dtype=bool))
    late = da.from_array(np.where(np.arange(len(x)) == 3017, np.nan, ids), chunks=901)
    with pytest.raises(DataError, match=f"chunk 3 of the sequence ids: row 17, {MISSING}"):
        pass_over(em.open(known, sequence=late))


def test_dask_frames(rows, frame, ids, texts):
    made = dd.from_pandas(frame, npartitions=7)
    for name, given in (("id", ids), ("text", texts)):
        source = em.open(made[["a", "b", name]], sequence=name)
        assert source.feature_names == ["a", "b"]
        np.testing.assert_array_equal(rows(source, sequence=True), sequence_ids(given))
        np.testing.assert_array_equal(rows(source), frame[["a", "b"]])
        kept = em.open(made[made.a > 0], columns=["a"], sequence=name)
        np.testing.assert_array_equal(rows(kept, sequence=True), sequence_ids(given)[frame.a > 0])
        for sequence in (made[name], made[[name]], made.set_index(name, sorted=False, sort=False).index):
            beside = em.open(made[["a"]], sequence=sequence)
            np.testing.assert_array_equal(rows(beside, sequence=True), sequence_ids(given))
    lazy = made.assign(text=made.text.astype("category"))
    np.testing.assert_array_equal(rows(em.open(lazy[["a"]], sequence=lazy.text), sequence=True), sequence_ids(texts))
    np.testing.assert_array_equal(
        rows(em.open(lazy, columns=["a"], sequence="text"), sequence=True), sequence_ids(texts)
    )
    prints = {em.open(made, columns=["a"], sequence=name).fingerprint for name in ("id", "text", None)}
    assert len(prints) == 3


def test_missing_ids_of_dask_frames_are_named(frame):
    frame.loc[5017, "text"] = None
    made = dd.from_pandas(frame, npartitions=4, sort=False)
    with pytest.raises(DataError, match=rf"partition 2 of the Dask frame.*: row \d+, {MISSING}"):
        pass_over(em.open(made, columns=["a", "b"], sequence="text"))
    with pytest.raises(DataError, match=rf"partition 2 of the sequence ids: row \d+, {MISSING}"):
        pass_over(em.open(made[["a", "b"]], sequence=made.text))


def test_partitions_of_another_type_than_promised_are_refused(frame):
    made = dd.from_pandas(frame[["a", "id"]], npartitions=2)
    broken = made.map_partitions(lambda part: part.assign(id=part["id"].astype(str)), meta=made._meta)
    with pytest.raises(DataError, match="Column 'id' of partition 0 .* where the Dask frame promises numbers"):
        em.open(broken, sequence="id").read(0)


@pytest.mark.cluster
def test_on_a_cluster(client, x, ids):
    cloudpickle.register_pickle_by_value(__import__(__name__))
    with client.as_current():
        array = da.from_array(x, chunks=(700, 3))
        kept, given = array.persist(), da.from_array(ids, chunks=901)
        held, weight = given.persist(), da.from_array(np.arange(len(x)), chunks=800).persist()
        shared = kept - kept.sum(axis=0) * 0
        for data in (array, kept, shared):
            for sequence in (ids, given, held):
                executor = DaskExecutor(client)
                answer = executor.run(em.open(data, weight=weight, sequence=sequence), [Ids()]).answers[0]
                np.testing.assert_array_equal(answer.sequence, ids)
                np.testing.assert_array_equal(answer.weight, np.arange(len(x)))
                executor.close()
        late = da.from_array(np.where(np.arange(len(x)) == 3017, np.nan, ids), chunks=901)
        executor = DaskExecutor(client)
        with pytest.raises(DataError, match=rf"chunk 4 of the sequence ids: row 217, {MISSING}"):
            executor.run(em.open(shared, sequence=late), [Ids()])
        executor.close()
        del data, sequence, kept, held, weight, shared


# ---------------------------------------------------------------- Parquet


@pytest.mark.parametrize("name", ["id", "text", "category"])
def test_parquet(tmp_path, rows, frame, ids, texts, name):
    frame = frame.assign(category=pd.Categorical(texts))
    for i, part in enumerate((frame[:3333], frame[3333:])):
        part[["a", "b", name]].to_parquet(tmp_path / f"{i}.parquet", row_group_size=700, index=False)
    given = ids if name == "id" else texts
    with dask.config.set({"em.block-bytes": "20 kiB"}):
        source = em.open(tmp_path, sequence=name)
        assert len(source.blocks) > 5
        assert source.feature_names == ["a", "b"]
        np.testing.assert_array_equal(rows(source, sequence=True), sequence_ids(given))
        np.testing.assert_array_equal(rows(source), frame[["a", "b"]])
        kept = em.open(tmp_path, columns=["a"], sequence=name, filters=[("b", ">", 4500), ("a", "<", 0)])
        np.testing.assert_array_equal(rows(kept, sequence=True), sequence_ids(given)[(frame.b > 4500) & (frame.a < 0)])
        beside = em.open(tmp_path, columns=["a"], sequence=texts)
        np.testing.assert_array_equal(rows(beside, sequence=True), sequence_ids(texts))
        with pytest.raises(ConfigurationError, match="An array of sequence ids needs rows that are known beforehand"):
            em.open(tmp_path, columns=["a"], sequence=ids, filters=[("a", ">", 0)])
    prints = {em.open(tmp_path, columns=["a"], sequence=s).fingerprint for s in (None, name, "b")}
    assert len(prints) == 3


@pytest.mark.parametrize(
    "column, complaint",
    [
        (pa.array([3, None, 3]), f"row 1, {MISSING}"),
        (pa.array([3.0, 3.0, 2.5]), "row 2, the sequence id is 2.5, not whole"),
        (pa.array(["a", None, "a"]), f"row 1, {MISSING}"),
        (pa.array(["a", "b", None]).dictionary_encode(), f"row 2, {MISSING}"),
    ],
)
def test_missing_ids_of_parquet_are_named(tmp_path, column, complaint):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1.0, 2.0, 3.0], "id": column}), path)
    with pytest.raises(DataError, match=rf"x.parquet, row group 0 \(rows 0 to 3\): {complaint}"):
        pass_over(em.open(path, sequence="id"))


def test_parquet_ids_are_exact(tmp_path, rows):
    large = [2**60, 2**60 + 1, 2**60 + 2]
    pq.write_table(pa.table({"a": [1.0, 2.0, 3.0], "id": large}), tmp_path / "x.parquet")
    assert rows(em.open(tmp_path / "x.parquet", sequence="id"), sequence=True).tolist() == large
    assert rows(em.open(dd.read_parquet(tmp_path / "x.parquet"), sequence="id"), sequence=True).tolist() == large


@pytest.mark.parametrize("column", [pa.array([True, False]), pa.array([0, 1], pa.timestamp("s")), pa.array([[1], [2]])])
def test_types_of_parquet_that_are_no_ids_are_refused(tmp_path, column):
    pq.write_table(pa.table({"a": [1.0, 2.0], "id": column}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="Column 'id' of .*x.parquet is of type .*: sequence ids are integers or text"):
        em.open(tmp_path / "x.parquet", sequence="id")


def test_folders_are_sequences(tmp_path, rows, frame):
    for name, stretch in (("7", slice(0, 4000)), ("ward b", slice(4000, 10_000))):
        (tmp_path / f"patient={name}").mkdir()
        frame[stretch][["a", "b"]].to_parquet(tmp_path / f"patient={name}" / "x.parquet", row_group_size=1500)
    given = np.repeat(["7", "ward b"], [4000, 6000])
    source = em.open(tmp_path, columns=["a"], sequence="patient")
    np.testing.assert_array_equal(rows(source, sequence=True), sequence_ids(given))
    (tmp_path / "patient=ward b").rename(tmp_path / "patient=__HIVE_DEFAULT_PARTITION__")
    with pytest.raises(DataError, match=f"row 0 .*{MISSING}"):
        pass_over(em.open(tmp_path, columns=["a", "b"], sequence="patient"))


def test_files_that_no_other_process_reaches_travel_with_their_ids(rows, frame, ids):
    url = f"memory://{uuid.uuid4().hex}/x.parquet"
    with fsspec.open(url, "wb") as file:
        frame[["a", "id"]].to_parquet(file, row_group_size=900)
    np.testing.assert_array_equal(rows(em.open(url, sequence="id"), sequence=True), ids)
