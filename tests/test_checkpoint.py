"""A fit that is stopped and started again ends as if it had never stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dask_em as em
from dask_em.callbacks import Quiet


class StopAfter(Quiet):
    """Ctrl-C after some passes."""

    def __init__(self, n_passes: int) -> None:
        self.n_passes = n_passes

    def on_step(self, fit: Any) -> None:
        if fit.n_passes >= self.n_passes:
            raise KeyboardInterrupt


SMALL = 2000 * (3 * 8 + 16)  # bytes of a sample that the rows do not fit in
SETTINGS: dict[str, Any] = {
    "random_state": 3, "tol": 0, "max_passes": 12, "verbose": 0, "n_init": 2, "solver": "em", "sample_bytes": SMALL
}  # fmt: skip


def same(a: em.GaussianMixture, b: em.GaussianMixture) -> bool:
    names = ("weights_", "means_", "covariances_", "precisions_cholesky_")
    logliks = [[r["loglik"] for r in g.history_[1:]] for g in (a, b)]
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in names) and logliks[0] == logliks[1]


@pytest.mark.filterwarnings("ignore::dask_em.FitWarning")
@pytest.mark.parametrize("stop", [2, 5, 11])
def test_an_interrupted_fit_goes_on_to_the_same_bits(three_blobs: np.ndarray, tmp_path: Path, stop: int) -> None:
    path = tmp_path / "fit.checkpoint"
    whole = em.GaussianMixture(3, **SETTINGS).fit(three_blobs)
    first = em.GaussianMixture(3, checkpoint=path, callbacks=[StopAfter(stop)], **SETTINGS).fit(three_blobs)
    assert first.status_ == "interrupted"
    assert first.n_passes_ == stop
    second = em.GaussianMixture(3, checkpoint=path, **SETTINGS).fit(three_blobs)
    assert same(second, whole)
    assert second.n_passes_ == whole.n_passes_ == 12
    assert sorted(os.listdir(tmp_path)) == ["fit.checkpoint"]


@pytest.mark.filterwarnings("ignore::dask_em.FitWarning")
def test_a_finished_fit_is_not_done_again(three_blobs: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "fit.checkpoint"
    settings = {**SETTINGS, "tol": 0.05, "max_passes": 500}
    first = em.GaussianMixture(3, checkpoint=path, **settings).fit(three_blobs)
    heard: list[int] = []

    class Hear(Quiet):
        def on_step(self, fit: Any) -> None:
            heard.append(fit.n_passes)

    second = em.GaussianMixture(3, checkpoint=path, callbacks=[Hear()], **settings).fit(three_blobs)
    assert heard == []
    assert same(first, second)
    assert second.status_ == "converged"


@pytest.mark.filterwarnings("ignore::dask_em.FitWarning")
def test_more_passes_may_be_granted(three_blobs: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "fit.checkpoint"
    em.GaussianMixture(3, checkpoint=path, **{**SETTINGS, "max_passes": 5}).fit(three_blobs)
    longer = em.GaussianMixture(3, checkpoint=path, **SETTINGS).fit(three_blobs)
    assert same(longer, em.GaussianMixture(3, **SETTINGS).fit(three_blobs))


@pytest.mark.filterwarnings("ignore::dask_em.FitWarning")
@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"random_state": 4}, "random_state=3"),
        ({"n_init": 1}, "n_init=2"),
        ({"tol": 0.1}, "tol=0"),
        ({"reg_covar": 1e-3}, "reg_covar"),
        ({"covariance_type": "diag"}, "covariance_type='full'"),
        ({"means_init": np.zeros((3, 3)) + np.arange(3)[:, None]}, "means_init=None"),
    ],
)
def test_other_hyperparameters_are_refused_by_name(
    three_blobs: np.ndarray, tmp_path: Path, change: dict[str, Any], name: str
) -> None:
    path = tmp_path / "fit.checkpoint"
    settings = {**SETTINGS, "max_passes": 3}
    em.GaussianMixture(3, checkpoint=path, **settings).fit(three_blobs)
    before = path.read_bytes()
    with pytest.raises(em.ConfigurationError, match=f"{path}.*{name}"):
        em.GaussianMixture(3, checkpoint=path, **{**settings, **change}).fit(three_blobs)
    assert path.read_bytes() == before


@pytest.mark.filterwarnings("ignore::dask_em.FitWarning")
def test_other_data_is_refused(three_blobs: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "fit.checkpoint"
    em.GaussianMixture(3, checkpoint=path, **{**SETTINGS, "max_passes": 3}).fit(three_blobs)
    other = three_blobs.copy()
    other[17, 1] += 1
    with pytest.raises(em.DataChangedError, match="other data"):
        em.GaussianMixture(3, checkpoint=path, **SETTINGS).fit(other)


@pytest.mark.filterwarnings("ignore::dask_em.FitWarning")
def test_other_weights_columns_and_sample_sizes_are_refused(three_blobs: np.ndarray, tmp_path: Path) -> None:
    path, settings = tmp_path / "fit.checkpoint", {**SETTINGS, "max_passes": 3}
    weight = np.random.default_rng(0).random(len(three_blobs))

    def fit(**changes: Any) -> em.GaussianMixture:
        how = {"sample_weight": weight, "columns": [0, 2], **changes}
        sample = {"sample_bytes": how.pop("sample_bytes", SMALL)}
        return em.GaussianMixture(3, checkpoint=path, **{**settings, **sample}).fit(three_blobs, **how)

    fit()
    before = path.read_bytes()
    for changes in ({"sample_weight": weight[::-1].copy()}, {"sample_weight": None}, {"columns": [0, 1]}):
        with pytest.raises(em.DataChangedError, match="other data"):
            fit(**changes)
    with pytest.raises(em.ConfigurationError, match=f"sample_bytes={SMALL}"):
        fit(sample_bytes=2 * SMALL)
    assert path.read_bytes() == before


@pytest.mark.filterwarnings("ignore::dask_em.FitWarning")
@pytest.mark.parametrize("place", ["memory://checkpoints/fit.checkpoint", "file"])
@pytest.mark.parametrize("family", ["mixture", "k-means"])
def test_a_checkpoint_may_be_at_a_url(three_blobs: np.ndarray, tmp_path: Path, place: str, family: str) -> None:
    import fsspec

    url = f"file://{tmp_path}/fit.checkpoint" if place == "file" else place
    settings = {**SETTINGS, "max_passes": 9}

    def make(**more: Any) -> Any:
        return (em.GaussianMixture if family == "mixture" else em.KMeans)(3, **settings, **more)

    whole = make().fit(three_blobs)
    first = make(checkpoint=url, callbacks=[StopAfter(4 if family == "mixture" else 2)]).fit(three_blobs)
    assert first.status_ == "interrupted"
    fs, path = fsspec.core.url_to_fs(url)
    try:
        assert fs.exists(path)
        second = make(checkpoint=url).fit(three_blobs)
        assert all(np.array_equal(getattr(second, name), getattr(whole, name)) for name in whole._fitted)
        assert second.reached == whole.reached
        with pytest.raises(em.ConfigurationError, match=r"fit\.checkpoint.*random_state=3"):
            make(checkpoint=url).set_params(random_state=4).fit(three_blobs)
    finally:
        fs.rm(path)


def test_an_unwritable_checkpoint_is_found_before_time_is_spent(three_blobs: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(em.StoreError, match="nowhere"):
        em.GaussianMixture(3, checkpoint=tmp_path / "nowhere" / "fit.checkpoint", **SETTINGS).fit(three_blobs)


def test_a_damaged_checkpoint_is_named(three_blobs: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "fit.checkpoint"
    path.write_bytes(b"no checkpoint at all")
    with pytest.raises(em.StoreError, match=r"fit\.checkpoint"):
        em.GaussianMixture(3, checkpoint=path, **SETTINGS).fit(three_blobs)


KILLED = """
import sys, time, numpy as np, dask_em as em
from dask_em.callbacks import Quiet
class Slow(Quiet):
    def on_step(self, fit):
        print(fit.n_passes, flush=True)
        time.sleep(0.2)
x = np.load(sys.argv[1])
settings = dict(random_state=3, tol=0, max_passes=12, n_init=2, verbose=0, solver="em", sample_bytes=80000)
em.GaussianMixture(3, checkpoint=sys.argv[2], callbacks=[Slow()], **settings).fit(x)
"""


@pytest.mark.filterwarnings("ignore::dask_em.FitWarning")
def test_a_killed_process_leaves_a_checkpoint_to_go_on_from(three_blobs: np.ndarray, tmp_path: Path) -> None:
    rows, path = tmp_path / "rows.npy", tmp_path / "fit.checkpoint"
    np.save(rows, three_blobs)
    command = [sys.executable, "-c", KILLED, str(rows), str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    assert process.stdout is not None
    while process.stdout.readline().strip() != "6":
        assert process.poll() is None
    time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    resumed = em.GaussianMixture(3, checkpoint=path, **SETTINGS).fit(three_blobs)
    assert same(resumed, em.GaussianMixture(3, **SETTINGS).fit(three_blobs))
