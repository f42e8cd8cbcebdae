"""What tests share: where the real data is, and one cluster for all tests that only need a cluster."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_counts() -> None:
    """A job in the background of a shell begins with Ctrl-C ignored, and tests of it would wait for ever."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; a test that needs it is skipped without it."""
    folder = Path(os.environ.get("DASK_EM_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real data is not at {folder}; DASK_EM_DATA names its folder")
    return folder


@pytest.fixture(scope="session")
def client() -> Iterator[Any]:
    """A client of a cluster of two worker processes."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def three_blobs() -> np.ndarray:
    """(6000, 3) rows of three overlapping Gaussians."""
    rng = np.random.default_rng(0)
    mixing = np.array([[1.0, 0.3, 0.0], [0.0, 1.0, -0.4], [0.0, 0.0, 0.7]])
    parts = [rng.normal(size=(n, 3)) @ mixing + centre for n, centre in ((3000, 0.0), (2000, 4.0), (1000, -5.0))]
    return rng.permutation(np.concatenate(parts))
