"""The fitted parameters are the same to the last bit, whoever reads the blocks."""

import hashlib
import time
from typing import Any

import numpy as np
import pytest

import dask_em as em

ROWS = 60_000


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    parts = [rng.normal(c, s, size=(ROWS // 3, 3)) for c, s in ((-3, 1), (3, 2), (0, 5))]
    return rng.permutation(np.concatenate(parts)).astype(np.float32)


@pytest.fixture(scope="module")
def data(rows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same rows in every kind of place, cut into the same blocks where that can be chosen."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import zarr

    folder = tmp_path_factory.mktemp("rows")
    array = zarr.create_array(str(folder / "rows.zarr"), shape=rows.shape, chunks=(1700, 3), dtype=rows.dtype)
    array[:] = rows
    table = pa.table({name: rows[:, j] for j, name in enumerate("abc")})
    pq.write_table(table, folder / "rows.parquet", row_group_size=3000)
    return {"array": rows, "zarr": str(folder / "rows.zarr"), "parquet": str(folder / "rows.parquet")}


def assert_empty(client: Any) -> None:
    """The scheduler knows no task any more: what is released takes a moment to be forgotten."""
    deadline = time.monotonic() + 10
    while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) == 0


def signature(gm: em.GaussianMixture) -> str:
    parts = (gm.weights_, gm.means_, gm.covariances_, gm.precisions_cholesky_, np.float64(gm.loglik_))
    logliks = np.array([r["loglik"] for r in gm.history_ if r["kind"] != "census"])
    return hashlib.sha256(b"".join(a.tobytes() for a in (*parts, logliks))).hexdigest()


# a sample that the rows do not fit in: passes read the data, and anchored EM works on the sample between them
READ_AGAIN = {"solver": "anchored", "sample_bytes": 20_000 * (3 * 4 + 16), "n_init": 2}


def fitted(data: Any, executor: Any, **settings: Any) -> str:
    found = []
    for how in ({**READ_AGAIN, **settings}, settings):  # and fits that read the data once
        gm = em.GaussianMixture(3, random_state=0, executor=executor, verbose=0, **how).fit(data)
        assert gm.n_rows_ == ROWS
        found.append((gm.n_passes_ == 1, signature(gm)))
    assert [once for once, _ in found] == [False, True]
    return "".join(text for _, text in found)


@pytest.fixture(scope="module")
def expected(data: dict[str, Any]) -> dict[str, str]:
    return {kind: fitted(d, em.ThreadsExecutor(1)) for kind, d in data.items()}


@pytest.mark.parametrize("kind", ["array", "zarr", "parquet"])
@pytest.mark.parametrize("n_threads", [2, 3])
def test_any_number_of_threads(data: dict[str, Any], expected: dict[str, str], kind: str, n_threads: int) -> None:
    assert fitted(data[kind], em.ThreadsExecutor(n_threads)) == expected[kind]


@pytest.mark.cluster
@pytest.mark.parametrize(("n_workers", "threads"), [(1, 1), (1, 2), (2, 1), (2, 2), (4, 1), (4, 2)])
def test_any_number_of_workers_and_any_batch(
    data: dict[str, Any], expected: dict[str, str], n_workers: int, threads: int
) -> None:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=n_workers, threads_per_worker=threads, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        for kind, batch_blocks in (("array", None), ("parquet", None), ("zarr", 1), ("zarr", 4), ("zarr", 1000)):
            executor = em.DaskExecutor(client, batch_blocks=batch_blocks)
            assert fitted(data[kind], executor) == expected[kind], (kind, batch_blocks)


@pytest.mark.cluster
def test_an_active_client_is_used_and_nothing_is_left_on_it(
    data: dict[str, Any], expected: dict[str, str], client: Any
) -> None:
    with client.as_current():
        assert fitted(data["zarr"], None) == expected["zarr"]
    assert_empty(client)


@pytest.mark.cluster
@pytest.mark.parametrize("form", ["lazy", "persisted", "shared work"])
def test_dask_arrays_in_any_form(data: dict[str, Any], expected: dict[str, str], client: Any, form: str) -> None:
    import dask.array as da

    rows = data["array"]
    chunks = tuple(b.rows for b in em.open(rows).blocks)
    x = da.from_array(rows, chunks=(chunks, 3))
    if form == "shared work":
        x = da.from_array(rows, chunks=(25_000, 2)).rechunk((chunks, 3))
    with client.as_current():
        if form == "persisted":
            x = x.persist()
        assert fitted(x, None) == expected["array"]
    assert fitted(x, em.ThreadsExecutor(2)) == expected["array"]


def test_stacked_starts_do_not_touch_one_another(data: dict[str, Any]) -> None:
    # a run's course is the same whether or not others share its passes
    model = em.MixtureModel(3, em.Gaussian())
    source = em.open(data["array"])
    rng = np.random.default_rng(0)
    starts = [model.start(em.Chunk(data["array"][:2000]), rng) for _ in range(3)]
    together = em.fit(model, source, params=starts, solver="em", tol=0, max_passes=3, verbose=0)
    for i, start in enumerate(starts):
        alone = em.fit(model, source, params=start, solver="em", tol=0, max_passes=3, verbose=0)
        assert together.restarts[i]["loglik"] == alone.restarts[0]["loglik"] or together.restarts[i]["passes"] < 2
    assert max(r["loglik"] for r in together.restarts) == together.loglik
