"""Arrays in memory, memory maps and .npy files."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dask_em as em
from dask_em.errors import ConfigurationError, DataChangedError, DataError
from dask_em.model import Source
from dask_em.sources.array import ArraySource


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i8", "i4", "u1", "i1", "?", ">f8", ">i2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_dtype_and_order(rows, dtype, order):
    y = np.asarray(np.random.default_rng(0).integers(0, 2, (50_000, 3)), dtype=dtype, order=order)
    source = em.open(y)
    assert isinstance(source, Source)
    assert source.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(rows(source), y)


def test_blocks_follow_the_data_alone():
    few = em.open(np.zeros((5_000_000, 2), np.float32))
    assert {b.rows for b in few.blocks[:-1]} == {1 << 19}  # 4 MiB of float32
    assert [b.offset for b in few.blocks[:3]] == [0, 1 << 19, 2 << 19]
    assert {b.rows for b in em.open(np.zeros((300_000, 2))).blocks[:-1]} == {37_500}  # small data feeds 8 threads
    assert len(em.open(np.zeros((16_000, 2))).blocks) == 1  # too small to cut
    assert em.open(np.zeros((20_000, 3000), np.int8)).blocks[0].nbytes <= 64 << 20


def test_blocks_are_views(x):
    source = em.open(x)
    assert np.shares_memory(source.read(0).x, x)
    assert np.shares_memory(em.open(x, columns=slice(1, 3)).read(0).x, x)
    assert np.shares_memory(em.open(x, columns=[0, 2]).read(0).x, x)  # evenly spaced


@pytest.mark.parametrize("columns", [[3, 0, 1], [0, 2], slice(1, None), 2, [-1], np.array([1, 3])])
def test_columns(rows, x, columns):
    expected = x[:, [columns]] if isinstance(columns, int) else x[:, columns]
    np.testing.assert_array_equal(rows(em.open(x, columns=columns)), expected)


def test_no_copy_of_large_arrays():
    y = np.zeros((1_000_000, 8), np.float32)
    tracemalloc.start()
    source = em.open(y)
    for block in source.blocks:
        source.read(block.index)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < y.nbytes // 8


def test_parts_hold_only_their_rows(x):
    y = np.zeros((400_000, 4))
    source = em.open(y)
    size = len(pickle.dumps(source.part(1, 2)))
    assert size < source.blocks[1].nbytes + 2000


def test_nested_lists(rows):
    np.testing.assert_array_equal(rows(em.open([[1, 2], [3, 4.5]])), [[1, 2], [3, 4.5]])


def test_object_arrays_of_numbers(rows):
    np.testing.assert_array_equal(rows(em.open(np.array([[1, 2.5], [3, 4]], object))), [[1, 2.5], [3, 4]])


def test_npy_and_maps(tmp_path, rows, x):
    path = tmp_path / "x.npy"
    np.save(path, x)
    source = em.open(path)
    np.testing.assert_array_equal(rows(source), x)
    assert not source.in_memory
    assert len(pickle.dumps(source.part(0, len(source.blocks)))) < 1500
    view = np.load(path, mmap_mode="r")
    np.testing.assert_array_equal(rows(em.open(view[123::3, 1:])), x[123::3, 1:])
    np.testing.assert_array_equal(rows(em.open(view, columns=[3, 0, 1])), x[:, [3, 0, 1]])
    assert len(pickle.dumps(em.open(view[5:]).part(0, 1))) < 1500


def test_fortran_and_one_dimensional_npy(tmp_path, rows, x):
    np.save(tmp_path / "f.npy", np.asfortranarray(x))
    np.testing.assert_array_equal(rows(em.open(tmp_path / "f.npy")), x)
    np.save(tmp_path / "one.npy", x[:, 0])
    np.testing.assert_array_equal(rows(em.open(tmp_path / "one.npy")), x[:, :1])


def test_a_map_with_private_changes_is_read_as_it_is(tmp_path, rows, x):
    np.save(tmp_path / "x.npy", x)
    changed = np.load(tmp_path / "x.npy", mmap_mode="c")
    changed[0, 0] = 99.0
    assert rows(em.open(changed))[0, 0] == 99.0


def test_a_changed_file_is_noticed(tmp_path, x):
    np.save(tmp_path / "x.npy", x)
    source = em.open(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", x[:-1])
    with pytest.raises(DataChangedError, match=r"x\.npy has changed since it was opened"):
        source.read(0)


def test_a_vanished_file_is_named(tmp_path, x):
    np.save(tmp_path / "x.npy", x)
    source = em.open(tmp_path / "x.npy")
    (tmp_path / "x.npy").unlink()
    with pytest.raises(DataError, match=r"x\.npy cannot be read .*every worker needs the file"):
        source.read(0)


def test_weights(rows, x):
    w = np.random.default_rng(1).random(len(x))
    np.testing.assert_array_equal(rows(em.open(x, weight=w), weight=True), w)
    np.testing.assert_array_equal(rows(em.open(x, weight=list(w)), weight=True), w)
    assert em.open(x, weight=w).fingerprint != em.open(x).fingerprint != em.open(x, weight=w + 1).fingerprint


def test_sequences(x):
    ids = np.arange(len(x)) // 10
    source = ArraySource(x, sequence=ids)
    np.testing.assert_array_equal(source.part(0, 1).read(0).sequence, ids[: source.blocks[0].rows])


def test_sparse_rows_when_made_directly():
    y = sparse.random_array((1000, 50), density=0.1, format="csr", rng=np.random.default_rng(0))
    source = ArraySource(y)
    assert (source.read(0).x != y).nnz == 0
    assert source.fingerprint == ArraySource(y.copy()).fingerprint


def test_sparse_rows_of_any_format_become_compressed_ones():
    y = sparse.random_array((70_000, 500), density=0.01, format="coo", rng=np.random.default_rng(0))
    source = em.open(y)
    assert source.sparse
    assert [b.rows for b in source.blocks] == [
        8750
    ] * 8  # each value of theirs is work: eight blocks, of fewer rows than dense ones
    assert isinstance(source.read(1).x, sparse.csr_array)
    assert (sparse.vstack([source.read(b.index).x for b in source.blocks]) != y).nnz == 0
    assert sum(b.nbytes for b in source.blocks) == pytest.approx(16 * y.nnz, rel=0.2)
    chosen = em.open(y, columns=[3, 1]).read(0).x
    assert (chosen != y.tocsr()[: chosen.shape[0], [3, 1]]).nnz == 0


def test_fingerprint_follows_content(x):
    assert em.open(x).fingerprint == em.open(x.copy()).fingerprint
    y = x.copy()
    y[5000, 2] += 1e-12
    assert em.open(y).fingerprint != em.open(x).fingerprint
    assert em.open(x.astype("f4")).fingerprint != em.open(x).fingerprint
    assert em.open(x, columns=[0, 1, 3]).fingerprint != em.open(x, columns=[0, 1, 2]).fingerprint


def test_fingerprint_of_large_arrays_is_cheap():
    y = np.zeros((40_000_000, 4), np.float32)  # 640 MB of zero pages
    tracemalloc.start()
    one = em.open(y).fingerprint
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    y[-1, 0] = 1
    assert em.open(y).fingerprint != one


@pytest.mark.parametrize(
    "bad, message",
    [
        (np.zeros(5), r"X has shape \(5,\) where .*: Reshape your data, as with X.reshape\(-1, 1\)"),
        (np.zeros((2, 3, 4)), r"X has shape \(2, 3, 4\) where .*: Reshape your data, as with X.reshape\(-1, X.sha"),
        (np.zeros((3, 2), complex), "Complex data not supported"),
        (np.zeros((0, 2)), r"0 sample\(s\) \(shape=\(0, 2\)\) while a minimum of 1 is required"),
        (np.zeros((2, 0)), r"0 feature\(s\) \(shape=\(2, 0\)\) while a minimum of 1 is required"),
        ([["a", "b"]], "row 0, column 0 of X is the text 'a': encode it as numbers"),
        (np.array([[1.0, 2.0], [3.0, "b"]], dtype=object), "row 1, column 1 of X is the text 'b': encode it"),
        (np.array([[1.0, {}]], dtype=object), "row 0, column 1 of X is of type dict"),
        ([[1.0, 2.0], [3.0]], "the rows of X are not all of one length"),
    ],
)
def test_what_is_no_table_of_numbers_is_refused_in_one_sentence(bad, message):
    with pytest.raises(ValueError, match=message):
        em.open(bad)


@pytest.mark.parametrize(
    "keywords, error, message",
    [
        ({"columns": [4]}, DataError, "There is no column 4: the array has 4 columns, 0 to 3"),
        ({"columns": ["a"]}, ConfigurationError, "columns of an array are positions"),
        ({"columns": []}, ConfigurationError, "columns is empty"),
        ({"filters": [("a", ">", 0)]}, ConfigurationError, r"filters apply to Parquet files only.*x\[x\[:, 0\] > 0\]"),
        ({"weight": "n"}, ConfigurationError, "names a column, which arrays do not have"),
        ({"weight": np.ones(3)}, DataError, "There are 3 weights for 10000 rows"),
        ({"weight": np.ones((10_000, 2))}, DataError, r"Sample weights must be 1D"),
        ({"weight": ["a"] * 10_000}, DataError, "got shape"),
        ({"storage_options": {"anon": True}}, ConfigurationError, "storage_options apply to paths and URLs only"),
    ],
)
def test_refused_keywords(x, keywords, error, message):
    with pytest.raises(error, match=message):
        em.open(x, **keywords)


def test_a_source_passes_through(x):
    source = em.open(x)
    assert em.open(source) is source
    with pytest.raises(
        ConfigurationError, match="columns and weight cannot be used here: the data is a source already"
    ):
        em.open(source, columns=[0], weight=np.ones(len(x)))


def test_opening_an_array_imports_nothing_heavy():
    code = (
        "import sys, numpy, dask_em.sources.opening as o; "
        "o.open(numpy.zeros((3, 2))); "
        "bad = {'zarr', 'xarray', 'distributed', 'dask.array', 'dask.dataframe', 's3fs'} & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Strict(ArraySource):
    """A source whose fingerprint is dear."""

    @property
    def fingerprint(self):
        raise AssertionError("opening reads no data")


def test_a_source_is_known_without_reading_it(x):
    source = Strict(x)
    assert em.open(source) is source
    gm = em.GaussianMixture(2, random_state=0, verbose=0).fit(x)
    assert gm.predict(source).shape == (len(x),)


@pytest.mark.parametrize("data", [np.ones((3, 2)), [[1.0, 2.0]]])
def test_what_to_do_about_missing_chunks_is_checked_for_all_data(data):
    with pytest.raises(ConfigurationError, match="missing_chunks='err': choose 'warn', 'error' or 'ignore'"):
        em.open(data, missing_chunks="err")


def test_one_weight_for_all_rows_is_refused(x):
    with pytest.raises(DataError, match=r"must be 1D, one a row; got the single number 2\.0.*leave it out"):
        em.open(x, weight=2.0)


def test_masked_values_are_not_fitted(rows, x):
    masked = np.ma.masked_greater(x, 3)
    with pytest.raises(DataError, match=rf"is a masked array, {masked.mask.sum()} of whose values are masked: leave"):
        em.open(masked)
    with pytest.raises(DataError, match="sample_weight is a masked array"):
        em.open(x, weight=np.ma.masked_less(np.arange(len(x)), 5))
    np.testing.assert_array_equal(rows(em.open(np.ma.array(x))), x)


def test_sources_say_what_they_were_made_of(tmp_path, x):
    import dask.array as da
    import zarr

    np.save(tmp_path / "x.npy", x)
    frame = pd.DataFrame(x, columns=list("abcd"))
    frame.to_parquet(tmp_path / "x.parquet")
    zarr.create_array(str(tmp_path / "x.zarr"), data=x)
    said = {
        "the array": [x],
        "the data frame": [frame],
        "the Dask array": [da.from_array(x)],
        **{str(tmp_path / name): [tmp_path / name] for name in ("x.npy", "x.parquet", "x.zarr")},
    }
    for where, data in said.items():
        assert em.open(data[0]).where == where
        assert em.open(data[0], weight=np.ones(len(x))).where == where
