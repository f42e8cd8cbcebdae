"""Dask arrays and frames, computed in place or bound to what a cluster holds; xarray."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cloudpickle
import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import sparse

import dask_em as em
from dask_em.errors import ConfigurationError, DataError
from dask_em.sources import shared_work

ROOT = Path(__file__).resolve().parents[2]


def shipped(source):
    """All rows, as tasks would read them: parts go by value, dependencies come back as values."""
    n = len(source.blocks)
    out = []
    for start, stop in ((0, n // 2), (n // 2, n)):
        part = cloudpickle.loads(cloudpickle.dumps(source.part(start, stop)))
        wanted = list(source.dependencies(start, stop))
        if wanted:
            values = [w.result() for w in wanted] if source.graph is None else dask.get(source.graph, wanted)
            part = type(source).bind(part, values)
        out += [part.read(i).x for i in range(start, stop)]
    return np.concatenate(out)


COLLECTIONS = {
    "plain": lambda x: (da.from_array(x, chunks=(1000, 4)), x),
    "uneven": lambda x: (da.from_array(x, chunks=((1, 9000, 999), (3, 1))), x),
    "in columns": lambda x: (da.from_array(x, chunks=(700, 1)), x),
    "computed": lambda x: ((da.from_array(x, chunks=(1000, 4)) * 2 + 1).astype("f4"), (x * 2 + 1).astype("f4")),
    "unknown sizes": lambda x: ((lambda d: d[d[:, 0] > 0])(da.from_array(x, chunks=(999, 4))), x[x[:, 0] > 0]),
    "empty chunks": lambda x: (da.from_array(x, chunks=((0, 5000, 0, 5000, 0), (4,))), x),
    "rechunked": lambda x: (da.from_array(x, chunks=(700, 3)).rechunk((911, 2)), x),
    "transposed": lambda x: (da.from_array(np.ascontiguousarray(x.T), chunks=(2, 800)).T, x),
    "sliced": lambda x: (da.from_array(x, chunks=(1000, 4))[55:-7:3, 1:], x[55:-7:3, 1:]),
    "integers": lambda x: (da.from_array((9 * x).astype("i2"), chunks=(1000, 4)), (9 * x).astype("i2")),
    "kept in memory": lambda x: (da.from_array(x, chunks=(1000, 2)).persist(scheduler="synchronous"), x),
    "mean of all": lambda x: (
        (lambda d: d - d.sum(axis=0))(da.from_array(np.round(x), chunks=(100, 4))),
        np.round(x) - np.round(x).sum(0),
    ),
}


@pytest.mark.parametrize("name", COLLECTIONS)
def test_arrays(rows, x, name):
    made, expected = COLLECTIONS[name](x)
    source = em.open(made)
    np.testing.assert_array_equal(rows(source), expected)
    np.testing.assert_array_equal(shipped(source), expected)
    if expected.shape[1] == 4:
        np.testing.assert_array_equal(rows(em.open(made, columns=[3, 0])), expected[:, [3, 0]])


def test_how_blocks_are_computed(x):
    plain = da.from_array(x, chunks=(1000, 4))
    assert em.open(plain).graph is None
    assert em.open(plain).in_memory  # the graph carries the values: place them once
    lazy = da.random.random((10_000, 4), chunks=(1000, 4))
    assert not em.open(lazy).in_memory
    assert em.open(lazy - lazy.mean(axis=0)).graph is not None  # the mean needs all blocks
    assert em.open(dd.from_pandas(pd.DataFrame(x, columns=list("abcd")), npartitions=7).shuffle("a")).graph is not None


def test_shared_work_is_read_without_a_cluster_too(x):
    frame = pd.DataFrame(x, columns=list("abcd"))
    source = em.open(dd.from_pandas(frame, npartitions=5).shuffle("a"))
    found = np.concatenate([source.read(i).x for i in range(len(source.blocks))])
    np.testing.assert_array_equal(found[found[:, 0].argsort()], x[x[:, 0].argsort()])
    found = shipped(source)
    np.testing.assert_array_equal(found[found[:, 0].argsort()], x[x[:, 0].argsort()])


def test_many_tiny_chunks_are_cheap_to_plan_and_read(tmp_path):
    array = zarr.create_array(str(tmp_path / "x.zarr"), shape=(20_000, 2), chunks=(4, 2), dtype="f4")
    array[0] = 1  # the rest is not stored, and costs nothing to decode
    began = time.process_time()
    source = em.open(da.from_zarr(array) + 1)
    planned = time.process_time() - began
    assert len(source.blocks) == 5000
    assert planned < 5
    assert len(cloudpickle.dumps(source.part(0, 10))) < 50_000
    part = source.part(0, 500)
    np.testing.assert_array_equal(part.read(0).x, array[:4] + 1)


def test_weights(rows, x):
    w = np.random.default_rng(1).random(len(x))
    known = da.from_array(x, chunks=(777, 2))
    for weight in (w, pd.Series(w), da.from_array(w, chunks=901), da.from_array(w[:, None], chunks=(901, 1))):
        source = em.open(known, weight=weight)
        np.testing.assert_array_equal(rows(source, weight=True), w)
        np.testing.assert_array_equal(rows(source), x)
    gaps = da.from_array(x, chunks=((0, 5000, 0, 5000, 0), (4,)))
    np.testing.assert_array_equal(rows(em.open(gaps, weight=da.from_array(w, chunks=901)), weight=True), w)
    keep = x[:, 0] > 0
    mask = da.from_array(keep, chunks=777)
    source = em.open(known[mask], weight=da.from_array(w, chunks=777)[mask])
    np.testing.assert_array_equal(rows(source, weight=True), w[keep])
    np.testing.assert_array_equal(rows(em.open(x, weight=da.from_array(w, chunks=901)), weight=True), w)


def test_weights_that_do_not_match(rows, x):
    known = da.from_array(x, chunks=(1000, 4))
    with pytest.raises(DataError, match="There are 9 weights for 10000 rows"):
        em.open(known, weight=da.ones(9))
    unknown = known[known[:, 0] > 0]
    with pytest.raises(ConfigurationError, match="needs rows that are known beforehand"):
        em.open(unknown, weight=np.ones(10))
    with pytest.raises(DataError, match="The weights come in 1 blocks, the data in 10"):
        em.open(unknown, weight=da.ones(5000))
    source = em.open(unknown, weight=da.ones(10_000, chunks=1000))
    with pytest.raises(DataError, match=r"chunk 0 of the Dask array.* holds \d+ rows but 1000 weights"):
        source.read(0)


@pytest.fixture
def frame(x):
    return pd.DataFrame({"a": x[:, 0], "b": np.arange(len(x)), "c": x[:, 2].astype("f4"), "s": "text"})


def test_frames(rows, frame):
    made = dd.from_pandas(frame, npartitions=7)
    source = em.open(made, columns=["b", "a"], weight="c")
    assert source.n_rows is None
    assert source.feature_names == ["b", "a"]
    np.testing.assert_array_equal(rows(source), frame[["b", "a"]])
    np.testing.assert_array_equal(shipped(source), frame[["b", "a"]])
    np.testing.assert_array_equal(rows(source, weight=True), frame["c"])
    np.testing.assert_array_equal(rows(em.open(made["a"])), frame[["a"]])
    np.testing.assert_array_equal(rows(em.open(made[made.a > 0][["a"]])), frame[frame.a > 0][["a"]])
    weighted = em.open(made[["a"]], weight=made["a"] ** 2)
    np.testing.assert_array_equal(rows(weighted, weight=True), frame["a"] ** 2)
    with pytest.raises(DataError, match=r"Column 's' of the Dask frame is of type"):
        em.open(made)
    with pytest.raises(DataError, match="The Dask frame has no column 'z'"):
        em.open(made, columns=["z"])


def test_frames_read_from_files_read_only_the_columns(tmp_path, rows, frame):
    frame.to_parquet(tmp_path / "x.parquet", row_group_size=1000)
    source = em.open(dd.read_parquet(tmp_path / "x.parquet"), columns=["c", "a"])
    np.testing.assert_array_equal(rows(source), frame[["c", "a"]])


@pytest.mark.parametrize(
    "made, message",
    [
        (lambda: da.ones(5), r"Expected 2D array, got 1D array instead.*Reshape your data"),
        (lambda: da.ones((5, 2, 2)), "Expected 2D array, got 3D array"),
        (lambda: da.ones((0, 2)), r"0 sample\(s\)"),
        (lambda: da.ones((2, 0)), r"0 feature\(s\)"),
        (lambda: da.ones((5, 2), dtype=complex), "Complex data not supported"),
        (lambda: da.from_array(np.array([["a", "b"]])), "not real numbers"),
        (lambda: da.ones((5, 2)).to_delayed()[0, 0], "A Dask Delayed cannot be read in blocks"),
    ],
)
def test_refused_collections(made, message):
    with pytest.raises(DataError, match=message):
        em.open(made())


def test_metadata_that_lies_is_found_out():
    short = da.ones((10, 2), chunks=(5, 2)).map_blocks(lambda b: b[:3], dtype=float, meta=np.empty((0, 2)))
    with pytest.raises(DataError, match=r"chunk 0 .* has shape \(3, 2\), where the Dask array promises \(5, 2\)"):
        em.open(short).read(0)
    broken = da.ones((10, 2), chunks=(5, 2)).map_blocks(lambda b: 1 / 0, dtype=float, meta=np.empty((0, 2)))
    with pytest.raises(DataError, match=r"chunk 1 .*rows 5 to 10.* cannot be computed: ZeroDivisionError"):
        em.open(broken).read(1)
    thin = da.ones((10, 2), chunks=(5, 2)).map_blocks(sparse.csr_array, meta=np.empty((0, 2)))
    with pytest.raises(DataError, match=r"is sparse, where the Dask array promises dense rows"):
        em.open(thin).read(0)
    thick = da.ones((10, 2), chunks=(5, 2)).map_blocks(lambda b: b, meta=sparse.csr_array((0, 2)))
    with pytest.raises(DataError, match=r"is dense, where the Dask array promises sparse rows"):
        em.open(thick).read(0)


def test_sparse_chunks_are_read_as_they_are():
    thin = da.ones((10, 2), chunks=(5, 2)).map_blocks(sparse.csc_array)
    source = em.open(thin)
    assert source.sparse
    assert isinstance(source.read(1).x, sparse.csr_array)
    assert (source.read(1).x.toarray() == 1).all()


def test_the_fingerprint_is_the_layouts(tmp_path, x):
    made = da.from_array(x, chunks=(1000, 4))
    given = em.open(made).fingerprint
    assert em.open(made.map_blocks(lambda b: b)).fingerprint == given  # Dask names this one anew in each process
    others = [made.rechunk((500, 4)), made.astype("f4"), made[:, :3], made[:9000]]
    assert len({given, *(em.open(o).fingerprint for o in others)}) == 5
    frame = pd.DataFrame(x, columns=list("abcd"))
    frames = [dd.from_delayed([dask.delayed(frame.copy)() for _ in range(n)], meta=frame) for n in (2, 2, 3)]
    first, again, longer = (em.open(f).fingerprint for f in frames)
    assert first == again != longer
    assert (
        first != em.open(frames[0], columns=["b", "a", "c", "d"]).fingerprint != em.open(frames[0][["a"]]).fingerprint
    )


@pytest.mark.parametrize("room", [1000 * 48, 1 << 28])  # for a sample, and for all rows, which are then read once
def test_a_fit_to_a_dask_frame_is_resumed_in_another_process(tmp_path, x, room):
    pd.DataFrame(x, columns=list("abcd")).to_parquet(tmp_path / "x.parquet", row_group_size=1000)
    code = f"""
import dask.dataframe as dd, dask_em as em
frame = dd.read_parquet({str(tmp_path / "x.parquet")!r}) * SCALE
how = dict(random_state=0, verbose=0, tol=0, solver="em", max_passes=PASSES, checkpoint={str(tmp_path / "c")!r})
gm = em.GaussianMixture(2, sample_bytes=BYTES, **how).fit(frame)
print(len(gm.history_))
"""

    def run(passes, scale):
        made = code.replace("PASSES", str(passes)).replace("SCALE", str(scale)).replace("BYTES", str(room))
        command = [sys.executable, "-W", "ignore", "-c", made]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert run(3, 1).stdout == "3\n"
    assert run(5, 1).stdout == "5\n"
    assert "DataChangedError: the data changed between passes" in run(6, 2).stderr


LOADED: list[int] = []  # rows of each chunk that was loaded


def loaded(b):
    LOADED.append(len(b))
    return b


def counted(x, rows):
    return da.from_array(x, chunks=(rows, 4)).map_blocks(loaded, dtype=x.dtype, meta=np.empty((0, 0)))


@pytest.mark.parametrize("n_threads", [1, 3])
def test_what_blocks_have_in_common_is_computed_once(monkeypatch, x, n_threads):
    monkeypatch.setattr(shared_work, "KEPT_BYTES", 100_000)  # three of the chunks
    made = {
        "mean": (lambda d: d - d.mean(axis=0), x - x.mean(axis=0), [200, 100]),
        "z-scores": (lambda d: (d - d.mean(axis=0)) / d.std(axis=0), (x - x.mean(0)) / x.std(0), [300, 100]),
        "rechunk": (lambda d: d.rechunk((130, 4)), x, [105, 105]),
    }
    for name, (make, expected, most) in made.items():
        source = em.open(make(counted(x, 100)))
        for n in most:
            LOADED.clear()
            found = dict(concurrent_reads(source, n_threads))
            np.testing.assert_allclose(np.concatenate([found[i] for i in range(len(found))]), expected, atol=1e-12)
            assert len(LOADED) <= n, name


def concurrent_reads(source, n_threads):
    with ThreadPoolExecutor(n_threads) as pool:
        yield from pool.map(lambda i: (i, source.read(i).x), range(len(source.blocks)))


def test_work_that_cannot_be_kept_is_said_to_be_repeated(monkeypatch, x):
    monkeypatch.setattr(shared_work, "KEPT_BYTES", 10_000)
    columns = [counted(x[:, [j] * 4], 500)[:, :1] for j in range(4)]
    turned = da.concatenate(columns, axis=1)[::-1].T.rechunk((1, 9999)).T.rechunk((100, 4))
    source = em.open(turned)
    with pytest.warns(UserWarning, match="more work in common than can be kept.*write the collection") as said:
        found = np.concatenate(
            [c for _, c in concurrent_reads(source, 1)] + [c for _, c in concurrent_reads(source, 1)]
        )
    np.testing.assert_array_equal(found, np.concatenate([x[::-1], x[::-1]]))
    assert len(said) == 1


def test_shuffles_are_warned_of(x):
    frame = dd.from_pandas(pd.DataFrame(x, columns=list("abcd")), npartitions=5)
    for made in (frame.shuffle("a"), frame.sort_values("b")):
        with pytest.warns(UserWarning, match=r"shuffled.*keep the result with frame.persist\(\)"):
            em.open(made)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        em.open(frame.shuffle("a").persist(scheduler="synchronous"))
        em.open(frame[frame.a > 0])


def partitions(*frames, meta):
    return dd.from_delayed([dask.delayed(f.copy)() for f in frames], meta=meta, verify_meta=False)


def test_partitions_that_disagree_are_named(tmp_path):
    good = pd.DataFrame({"a": np.arange(9.0), "b": np.arange(9.0)})
    text, whole = good.assign(b=good.b.astype(str)), good.assign(a=1)
    with pytest.raises(DataError, match="^Column 'b' of partition 1 of the Dask frame is of type str"):
        em.open(partitions(good, text, meta=good)).read(1)
    with pytest.raises(DataError, match=r"^Column 'a' of partition 1 .* float64, where the Dask frame promises int64"):
        em.open(partitions(whole, good, meta=whole)[["a"]]).read(1)
    with pytest.raises(
        DataError, match="partition 1 of the Dask frame.* has no column 'b'|a column that this partition"
    ):
        em.open(partitions(good, good[["a"]], meta=good)).read(1)
    good.to_parquet(tmp_path / "0.parquet")
    text.to_parquet(tmp_path / "1.parquet")
    with pytest.raises(DataError, match="Column 'b' of partition 1 of the Dask frame is of type"):
        em.open(dd.read_parquet(tmp_path)).read(1)
    good[["a"]].to_parquet(tmp_path / "1.parquet")
    with pytest.raises(DataError, match=r"partition 1 .*'b'.*open the files themselves, as in em.open"):
        em.open(dd.read_parquet(tmp_path)).read(1)


def test_values_are_not_cut_to_the_type_that_is_promised(x):
    made = da.from_array(x, chunks=(1000, 4)).map_blocks(lambda b: b, dtype="i4", meta=np.empty((0, 0), "i4"))
    with pytest.raises(DataError, match="chunk 0 .* holds values of type float64, where the Dask array promises int32"):
        em.open(made).read(0)


def test_xarray(tmp_path, rows, x):
    xr = pytest.importorskip("xarray")
    plain = xr.DataArray(x, dims=["row", "column"], coords={"column": list("abcd")})
    source = em.open(plain)
    assert source.feature_names == list("abcd")
    np.testing.assert_array_equal(rows(source), x)
    assert np.shares_memory(source.read(0).x, x)
    source = em.open(plain.chunk({"row": 1000}), columns=["d", "a"])
    assert source.feature_names == ["d", "a"]
    np.testing.assert_array_equal(rows(source), x[:, [3, 0]])
    plain.to_dataset(name="table").drop_vars("column").to_zarr(tmp_path / "x.zarr", consolidated=False)
    stored = xr.open_zarr(tmp_path / "x.zarr", chunks=None, consolidated=False)
    source = em.open(stored["table"])
    assert not source.in_memory  # not loaded whole
    np.testing.assert_array_equal(rows(source), x)
    np.testing.assert_array_equal(rows(em.open(tmp_path / "x.zarr")), x)
    with pytest.raises(DataError, match="An xarray Dataset holds several arrays: choose one"):
        em.open(stored)


@dataclass(frozen=True)
class Sum:
    n: int
    total: np.ndarray
    weighted: np.ndarray

    def merge(self, right):
        return Sum(self.n + right.n, self.total + right.total, self.weighted + right.weighted)

    def close(self):
        return self


@dataclass(frozen=True)
class SumOfRows:
    accepts_nan: bool = True

    def map(self, chunk):
        weight = np.ones(chunk.n_rows) if chunk.weight is None else chunk.weight
        return Sum(chunk.n_rows, chunk.x.sum(axis=0), weight @ chunk.x)


@pytest.mark.cluster
def test_on_a_cluster(client, x):
    from dask_em import DaskExecutor

    cloudpickle.register_pickle_by_value(__import__(__name__))
    frame = pd.DataFrame(np.round(100 * x), columns=list("abcd"))
    values = frame.to_numpy()
    with client.as_current():
        array, table = da.from_array(values, chunks=(700, 3)), dd.from_pandas(frame, npartitions=7)
        kept, held = array.persist(), table.persist()
        made = [array, kept, kept * 1, kept.rechunk((911, 4)), kept - kept.sum(axis=0) * 0]
        made += [table, held, held[["a", "b", "c", "d"]], table.shuffle("a"), held.shuffle("a")]
        seen = set()
        for data in made:
            source = em.open(data)
            executor = DaskExecutor(client)
            for _ in range(2):  # a pass can be repeated
                result = executor.run(source, [SumOfRows()])
                answer = result.answers[0]
                assert answer.n == len(x)
                np.testing.assert_array_equal(answer.total, values.sum(axis=0))
                seen.add(result.checksum)
            executor.close()
        assert len(seen) == 1
        weights = da.from_array(np.arange(len(x)), chunks=901).persist()
        for data in (kept, array, kept - kept.sum(axis=0) * 0):
            source = em.open(data, weight=weights)
            executor = DaskExecutor(client)
            answer = executor.run(source, [SumOfRows()]).answers[0]
            np.testing.assert_array_equal(answer.weighted, np.arange(len(x)) @ values)
            executor.close()
        del weights
        del source, data, made, kept, held
    deadline = time.monotonic() + 10
    while tasks := client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
        assert time.monotonic() < deadline, f"{tasks} tasks are left on the scheduler"
        time.sleep(0.1)
