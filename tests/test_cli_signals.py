"""Jobs that are stopped: SIGTERM and Ctrl-C to the real program, and going on from where it stood."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dask_em

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "x.npy"
    np.save(path, np.random.default_rng(0).normal(size=(200_000, 3)).astype(np.float32))
    return path


def start(*args: Any, **kwargs: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dask_em", *(str(a) for a in args)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment, **kwargs)


SMALL = 100_000  # bytes of a sample that the rows do not fit in


def fit(data: Path, out: Path, *more: Any) -> list[Any]:
    """A fit that would never end."""
    endless = ("--n-components", 6, "--n-init", 1, "--tol", 0, "--solver", "em", "--sample-bytes", SMALL)
    return ["fit", "gaussian-mixture", data, *endless, "--out", out, *more]


def wait_for(job: subprocess.Popen[str], event: str, count: int = 1) -> list[dict[str, Any]]:
    """Read the log until an event was seen so often."""
    assert job.stderr is not None
    seen = []
    for line in job.stderr:
        seen.append(json.loads(line))
        count -= seen[-1]["event"] == event
        if count == 0:
            return seen
    raise AssertionError(f"the program ended with {job.wait()} after {seen}")


def any_left(group: int) -> bool:
    """Whether any process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def end(job: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = job.communicate(timeout=60)
    return job.returncode, said


def test_sigterm_leaves_a_checkpoint_from_which_the_same_command_goes_on(data: Path, tmp_path: Path) -> None:
    out, checkpoint = tmp_path / "m", tmp_path / "c"
    command = fit(data, out, "--checkpoint", checkpoint, "--log-format", "json", "--max-passes")
    job = start(*command, 100_000)
    wait_for(job, "pass", 4)
    job.send_signal(signal.SIGTERM)
    code, said = end(job)
    assert code == 75, said
    last = json.loads(said.splitlines()[-1])
    assert (last["event"], last["status"]) == ("end", "interrupted")
    stopped = dask_em.load(out)
    assert stopped.status_ == "interrupted"
    assert sorted(os.listdir(tmp_path)) == ["c", "m"]

    passes = stopped.n_passes_ + 5  # the model that was left may be replaced by whoever left it
    job = start(*command, passes)
    code, said = end(job)
    assert code == 0, said
    assert [json.loads(line)["event"] for line in said.splitlines()][:2] == ["start", "resume"]
    with pytest.warns(dask_em.FitWarning):
        whole = dask_em.GaussianMixture(
            6, n_init=1, tol=0, solver="em", sample_bytes=SMALL, max_passes=passes, random_state=0
        ).fit(str(data))
    resumed = dask_em.load(out)
    assert resumed.n_passes_ == whole.n_passes_ == passes
    assert resumed.means_.tobytes() == whole.means_.tobytes()
    assert resumed.loglik_ == whole.loglik_

    job = start(*command, passes)  # a finished job's output is nobody's to replace
    assert end(job)[0] == 78


def test_ctrl_c_says_how_to_go_on(data: Path, tmp_path: Path) -> None:
    job = start(*fit(data, tmp_path / "m", "--max-passes", 100_000, "--checkpoint", tmp_path / "c"))
    seen: set[int] = set()
    while len(seen) < 3:  # each pass puts a new file in the place of the last
        assert job.poll() is None
        time.sleep(0.01)
        if (tmp_path / "c").exists():
            seen.add((tmp_path / "c").stat().st_mtime_ns)
    job.send_signal(signal.SIGINT)
    code, said = end(job)
    assert code == 75
    assert f"run the same command again to go on from {tmp_path / 'c'}" in said
    assert "Traceback" not in said
    assert dask_em.load(tmp_path / "m").status_ == "interrupted"


@pytest.mark.cluster
def test_ctrl_c_in_a_terminal_ends_a_local_cluster_too(data: Path, tmp_path: Path) -> None:
    job = start(
        *fit(data, tmp_path / "m", "--max-passes", 100_000, "--workers", 2, "--log-format", "json"),
        start_new_session=True,
    )
    wait_for(job, "pass", 3)
    os.killpg(job.pid, signal.SIGINT)  # a terminal sends it to every process
    code, said = end(job)
    assert code == 75, said
    assert "Traceback" not in said
    assert dask_em.load(tmp_path / "m").status_ == "interrupted"
    deadline = time.monotonic() + 20
    while any_left(job.pid):
        assert time.monotonic() < deadline, "a worker is left behind"
        time.sleep(0.1)


def test_a_prediction_that_is_stopped_leaves_nothing(data: Path, tmp_path: Path) -> None:
    with pytest.warns(dask_em.FitWarning):
        dask_em.GaussianMixture(6, max_passes=2).fit(str(data)).save(tmp_path / "m")
    job = start("predict", tmp_path / "m", data, "--out", tmp_path / "o.zarr", "--log-format", "json")
    wait_for(job, "start")
    job.send_signal(signal.SIGTERM)
    code, said = end(job)
    assert code == 75, said
    assert (
        json.loads(said.splitlines()[-1])["message"] == "interrupted: no output was written; run the same command again"
    )
    assert os.listdir(tmp_path) == ["m"]
