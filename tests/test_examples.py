"""The examples run, and show what they say they show."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_a_model_of_ones_own_reaches_the_published_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(EXAMPLES / "own_model.py"))
    assert example["main"]() == pytest.approx(0.6268214979, abs=5e-11)
    assert "proved: Fisher's identity holds" in capsys.readouterr().out


def test_a_distribution_of_ones_own_finds_two_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    mix = runpy.run_path(str(EXAMPLES / "own_distribution.py"))["main"]()
    assert sorted(mix.chances_.round(1)) == [0.1, 0.7]
    said = capsys.readouterr().out
    assert "proved: Fisher's identity holds" in said
    assert "not proved" not in said


def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # kept without outputs: they would only age
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    said = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    assert "converged after" in said
