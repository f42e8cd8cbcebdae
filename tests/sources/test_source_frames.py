"""pandas frames."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import dask_em as em
from dask_em.errors import ConfigurationError, DataError


@pytest.fixture
def frame(x):
    n = len(x)
    return pd.DataFrame({"f8": x[:, 0], "f4": x[:, 1].astype("f4"), "i4": np.arange(n, dtype="i4"), "b": x[:, 3] > 0})


def test_mixed_columns(rows, frame):
    source = em.open(frame)
    assert (source.dtype, source.feature_names) == (np.float64, ["f8", "f4", "i4", "b"])
    np.testing.assert_array_equal(rows(source), frame.to_numpy(float))


@pytest.mark.parametrize("columns, dtype", [(["f4"], "f4"), (["i4", "b"], "i4"), (["f8", "i4"], "f8"), ("b", "?")])
def test_columns(rows, frame, columns, dtype):
    source = em.open(frame, columns=columns)
    assert source.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(rows(source), frame[columns if isinstance(columns, list) else [columns]])


def test_frames_of_one_dtype_are_not_copied(x):
    source = em.open(pd.DataFrame(x, columns=list("abcd")))
    assert np.shares_memory(source.read(0).x, x) or not source.read(0).x.flags.owndata


def test_no_second_copy_of_a_mixed_frame():
    n = 1_000_000
    frame = pd.DataFrame({"a": np.zeros(n), "b": np.zeros(n, "i8"), "c": np.zeros(n, "f4")})
    tracemalloc.start()
    source = em.open(frame)
    for block in source.blocks:
        source.read(block.index)
    assert tracemalloc.get_traced_memory()[1] < n * 24 // 3
    tracemalloc.stop()


@pytest.mark.parametrize("dtype", ["Float64", "Float32", "Int64", "UInt8", "boolean"])
@pytest.mark.parametrize("nulls", [True, False])
def test_nullable_columns(rows, dtype, nulls):
    values = [None if nulls and i % 5 == 0 else i % 2 for i in range(1000)]
    frame = pd.DataFrame({"a": pd.array(values, dtype=dtype)})
    source = em.open(frame)
    if nulls:
        assert source.dtype == (np.float32 if dtype == "Float32" else np.float64)
    np.testing.assert_array_equal(rows(source)[:, 0].astype(float), np.array(values, float))


@pytest.mark.parametrize("kind", ["int64", "double", "float", "bool"])
def test_arrow_columns(rows, kind):
    values = [None if i % 5 == 0 else i % 2 for i in range(1000)]
    dtype = pd.ArrowDtype(pa.float64() if kind == "double" else pa.type_for_alias(kind))
    frame = pd.DataFrame({"a": pd.array(values, dtype=dtype), "b": 1.0})
    source = em.open(frame)
    np.testing.assert_array_equal(rows(source)[:, 0], np.array(values, float))


def test_parts_hold_only_their_rows():
    frame = pd.DataFrame({"a": pd.array(np.zeros(400_000), dtype=pd.ArrowDtype(pa.float64())), "b": np.zeros(400_000)})
    source = em.open(frame)
    assert len(pickle.dumps(source.part(1, 2))) < source.blocks[1].nbytes + 3000


@pytest.mark.parametrize(
    "column, message",
    [
        (["x", "y"], "is of type str"),
        (pd.to_datetime(["2020", "2021"]), "is a time, not a number"),
        (pd.Categorical(["x", "y"]), "is of type category"),
        (pd.Categorical([1, 2]), "is of type category"),
        (pd.array([1, 2], dtype=pd.ArrowDtype(pa.decimal128(5, 2))), "is of type decimal128"),
        (pd.array([1, 2], dtype=pd.ArrowDtype(pa.timestamp("s"))), "is of type timestamp"),
        (np.array([1, object()], object), "is of Python objects"),
        ([1j, 2j], "is complex"),
    ],
)
def test_columns_that_hold_no_numbers(column, message):
    frame = pd.DataFrame({"good": [1.0, 2.0], "bad": column})
    with pytest.raises(DataError, match=rf"Column 'bad' of the data frame {message}.*choose numeric columns"):
        em.open(frame)
    assert em.open(frame, columns=["good"]).n_features == 1


def test_weights(rows, frame):
    source = em.open(frame, columns=["f8"], weight="i4")
    np.testing.assert_array_equal(rows(source, weight=True), frame["i4"])
    source = em.open(frame, weight="i4")
    assert "i4" not in source.feature_names
    np.testing.assert_array_equal(rows(em.open(frame, weight=frame["f8"] ** 2), weight=True), frame["f8"] ** 2)


def test_series(rows, frame):
    np.testing.assert_array_equal(rows(em.open(frame["f8"])), frame[["f8"]])
    assert em.open(frame["f8"]).feature_names == ["f8"]


def test_names_only_where_all_are_strings(x):
    assert em.open(pd.DataFrame(x)).feature_names is None


def test_fingerprint(frame):
    before = em.open(frame).fingerprint
    assert em.open(frame.copy()).fingerprint == before
    changed = frame.copy()
    changed.loc[9, "f8"] = 0.0
    assert em.open(changed).fingerprint != before


def test_refusals(frame):
    with pytest.raises(DataError, match=r"The data frame has no column 'z'; its columns are 'f8', 'f4', 'i4', 'b'"):
        em.open(frame, columns=["z"])
    with pytest.raises(ConfigurationError, match=r"filters apply to Parquet.*frame\[frame\.column > 0\]"):
        em.open(frame, filters=[("f8", ">", 0)])
    with pytest.raises(DataError, match=r"The data frame is empty, with 0 sample\(s\): pass at least one row"):
        em.open(frame[:0])
    with pytest.raises(DataError, match=r"0 feature\(s\)"):
        em.open(frame[[]])
    with pytest.raises(DataError, match="more than one column named f8: rename them"):
        em.open(frame[["f8", "f8"]])
