"""Progress: what a terminal and a notebook show, and that nobody else sees any of it."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import dask_em
from dask_em.callbacks import progress
from dask_em.callbacks.display import Line, Terminal
from dask_em.callbacks.progress import Progress, steps_left

ROOT = Path(__file__).resolve().parents[1]
FIT = """
import numpy as np, dask_em, warnings
warnings.simplefilter("ignore")
x = np.random.default_rng(0).normal(size=(200_000, 2)) + np.arange(200_000)[:, None] % 3
dask_em.GaussianMixture(2, random_state=0, max_passes=6, verbose={verbose}).fit(x);
"""


def in_terminal(code: str, columns: int) -> str:
    """What a program writes to a terminal of so many columns, escape sequences left out."""
    ours, its = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": str(columns), "TERM": "xterm", "NO_COLOR": "1"}
    job = subprocess.Popen([sys.executable, "-c", code], stdout=its, stderr=its, env=env)
    os.close(its)
    said = b""
    try:
        while part := os.read(ours, 1 << 16):
            said += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert job.wait(timeout=60) == 0, said
    return re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", said.decode())


def test_a_terminal_shows_passes_and_how_it_ended() -> None:
    said = in_terminal(FIT.format(verbose=1), 120)
    last = said.replace("\r", "\n").strip().splitlines()[-1]
    assert re.match(r"(converged|max_passes) after \d+ pass(?:es)? ━+ loglik -[\d,.]+", last), said
    assert "in all" in last
    assert "steps in memory" in last  # so little data is read once
    assert " left" not in last


def test_a_narrow_terminal_gets_whole_pieces_in_one_line() -> None:
    said = in_terminal(FIT.format(verbose=1), 50)
    lines = [line.rstrip() for line in said.replace("\r", "\n").strip().splitlines()]
    assert max(map(len, lines)) <= 50
    assert "…" not in said
    assert re.match(r"\w+ after \d+ pass(?:es)? ━+", lines[-1])


def test_nothing_is_shown_with_verbose_0() -> None:
    assert in_terminal(FIT.format(verbose=0), 120) == ""


def test_nothing_is_shown_where_nobody_looks() -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    code = FIT.format(verbose=1) + "import sys; assert 'rich' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_notebook_keeps_one_line_of_text_without_widgets(monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cells = [nbformat.v4.new_code_cell(FIT.format(verbose=verbose)) for verbose in (1, 0)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown, silent = notebook.cells
    assert silent.outputs == []
    (output,) = shown.outputs
    assert output.output_type == "display_data"
    assert set(output.data) == {"text/plain", "text/html"}
    assert re.match(
        r"(converged|max_passes) after \d+ pass(?:es)? \[#{20}\] loglik -[\d,.]+", output.data["text/plain"]
    )
    assert "steps in memory" in output.data["text/html"]


# ---------------------------------------------------------------- what is told


class Seen:
    """A display that keeps the line."""

    def __init__(self) -> None:
        self.line: Any = None
        self.refreshed = self.stopped = 0

    def start(self, line: Any) -> None:
        self.line = line

    def refresh(self) -> None:
        self.refreshed += 1

    def stop(self) -> None:
        self.stopped += 1


GAUSSIAN = dask_em.GaussianMixture(2)._model()


def fit(
    history: list[dict[str, Any]],
    *,
    tol: float = 0.05,
    max_passes: int | None = None,
    model: Any = GAUSSIAN,
    **state: Any,
) -> Any:
    states = [SimpleNamespace(**{"status": "running", "loglik": -1.0, **state})]
    return SimpleNamespace(
        history=history,
        n_passes=sum(not record.get("resident") for record in history),
        in_memory=any(record.get("resident") for record in history),
        max_passes=max_passes,
        time_limit=None,
        solver=SimpleNamespace(tol=tol),
        source=SimpleNamespace(blocks=[None] * 4),
        states=states,
        runs=[SimpleNamespace(model=model)],
        best=0,
    )


def record(gain: float | None, **more: Any) -> dict[str, Any]:
    return {"kind": "em", "loglik": -10.0, "gain": gain, "seconds": 10.0, **more}


CENSUS = {"kind": "census", "seconds": 1.0, "rows": 5}


def test_steps_left_follow_the_solvers_tolerance_and_the_limit() -> None:
    history = [CENSUS, record(None), record(64.0), record(32.0)]
    assert steps_left(fit(history, tol=1.0)) == pytest.approx(5)
    assert steps_left(fit(history, tol=4.0)) == pytest.approx(3)
    assert steps_left(fit(history, tol=1.0, max_passes=6)) == 2
    assert steps_left(fit(history, tol=1.0, contraction=2**-2.5)) == pytest.approx(2)
    assert steps_left(fit(history, tol=0.0, max_passes=500)) == 496
    assert steps_left(fit([CENSUS])) is None
    assert steps_left(fit([CENSUS, record(3.0)])) is None
    assert steps_left(fit([CENSUS, record(3.0), record(4.0)])) is None
    assert steps_left(fit([CENSUS, record(3.0), record(0.01)])) == 1


def test_a_gain_is_told_once_steps_contract_and_clusters_have_an_inertia() -> None:
    seen = Seen()
    shown = Progress(seen)
    shown.on_start(fit([CENSUS, record(1234.0, contraction=1.2)]))
    assert "loglik -10.00" in seen.line().told
    assert not any("to gain" in piece for piece in seen.line().told)
    shown.on_step(fit([CENSUS, record(1234.0, contraction=0.9)]))
    assert "about 1,200 nats or more to gain" in seen.line().told
    clusters = dask_em.KMeans(2)._model().in_units_of(np.array([8.0]))  # a nat stands for 16 of inertia
    shown.on_step(fit([CENSUS, record(2.0, contraction=0.5)], model=clusters))
    assert {"inertia 160.00", "about 32 of inertia or more to gain"} <= set(seen.line().told)


def test_time_left_is_told_within_the_census_and_within_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    seen = Seen()
    shown = Progress(seen)
    shown.census(4)
    now[0] += 2
    shown.on_progress(1, 1000)
    assert seen.line() == Line(
        "census", 1, 4, ("about 6 s left in this pass", "1/4 blocks", "500 rows/s", "2 s so far")
    )
    shown.sample(2, 3)
    assert seen.line().stage == "starts, on a sample: fit 2 of 3"
    job = fit([CENSUS, record(64.0), record(32.0)], tol=4.0)
    shown.on_start(job)
    now[0] += 5
    shown.on_progress(2, 10)
    assert "about 25 s left" in seen.line().told  # 5 of this pass, and two more of ten
    assert seen.line().stage == "pass 4"
    job.states[0].status = "converged"
    shown.on_end(job)
    end = seen.line()
    assert (end.stage, end.done, end.total) == ("converged after 3 passes", 4, 4)
    assert not any("left" in piece for piece in end.told)


def test_a_fit_that_fails_before_it_begins_or_on_its_way_is_left_alone() -> None:
    seen = Seen()
    shown = Progress(seen)
    shown.on_end(fit([]))
    shown.close()
    assert (seen.line, seen.stopped) == (None, 0)
    shown.on_start(fit([CENSUS]))
    shown.on_end(fit([CENSUS]))
    assert seen.line().stage == "stopped in pass 2"
    assert seen.stopped == 1


def test_passes_over_rows_in_memory_have_no_blocks_and_cost_little() -> None:
    from rich.console import Console

    screen = io.StringIO()
    shown = Progress(Terminal(Console(file=screen, force_terminal=True, width=100)))
    job = fit([CENSUS, {"kind": "new", "seconds": 0.001, "resident": True, "loglik": -3.0, "gain": None}])
    began = time.monotonic()
    shown.on_start(job)
    assert (shown.line().stage, shown.line().total) == ("step 2", 0)
    for _ in range(2000):
        shown.on_step(job)
    shown.on_end(job)
    assert time.monotonic() - began < 2
    assert screen.getvalue().count("step 2") <= 1 + 8 * 3
    job.states[0].status = "converged"
    shown.on_start(job)
    shown.on_end(job)
    assert shown.line().stage == "converged after 1 pass"
    assert "1 step in memory" in shown.line().told


def test_an_error_in_the_first_pass_is_the_error_that_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen()
    monkeypatch.setattr("dask_em.fitting.progress_callback", lambda: Progress(seen))
    x = np.zeros((100, 2))
    x[50, 1] = np.inf
    with pytest.raises(dask_em.DataError):
        dask_em.GaussianMixture(2).fit("no such file")
    dask_em.fit(dask_em.GaussianMixture(1)._model(), np.random.default_rng(0).normal(size=(50, 2)))
    assert seen.line().stage.startswith("converged after")
    with pytest.raises(dask_em.DataError, match="row 50"):
        dask_em.fit(dask_em.GaussianMixture(1)._model(), x)
    assert seen.stopped == 2
