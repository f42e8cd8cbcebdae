"""Topics on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from click.testing import CliRunner

import dask_em as em
from dask_em.cli import em as main

RNG = np.random.default_rng(0)
TOPIC = RNG.integers(2, size=200)
COUNTS = np.array([RNG.multinomial(30, np.eye(2)[t].repeat(5) / 5) for t in TOPIC])
DOC, WORD = np.nonzero(COUNTS)
WORDS = ["apple", "pear", "plum", "fig", "lime", "bolt", "nut", "screw", "nail", "hinge"]


def run(*args: Any) -> Any:
    done = CliRunner().invoke(main, [str(arg) for arg in args])
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("topics")
    frame = pd.DataFrame({"doc": DOC, "word": WORD, "count": COUNTS[DOC, WORD]})
    frame.to_parquet(path / "triplets.parquet", row_group_size=170, index=False)
    (path / "vocab.txt").write_text("\n".join(WORDS))
    run(
        "fit", "lda", path / "triplets.parquet", "--n-components", 2, "--vocabulary", path / "vocab.txt",
        "--out", path / "topics.safetensors",
    )  # fmt: skip
    return path


def test_topics_are_shown(folder: Path) -> None:
    shown = run("inspect", folder / "topics.safetensors").output
    assert "apple" in shown
    assert "hinge" in shown
    assert "bound" in shown
    told = json.loads(run("inspect", folder / "topics.safetensors", "--json").output)
    words = [set(em.load(folder / "topics.safetensors").top_words(n=5)[k]) for k in range(2)]
    assert sorted(map(sorted, words)) == sorted([sorted(WORDS[:5]), sorted(WORDS[5:])])
    assert told


def test_shares_are_written(folder: Path) -> None:
    data = folder / "triplets.parquet"
    run("predict", folder / "topics.safetensors", data, "--shares", "--out", folder / "shares.zarr")
    shares = zarr.open_array(folder / "shares.zarr")[:]
    assert shares.shape == (200, 2)
    assert len(set(zip(shares.argmax(axis=1), TOPIC, strict=True))) == 2
    run("predict", folder / "topics.safetensors", data, "--shares", "--out", folder / "shares.parquet")
    table = pd.read_parquet(folder / "shares.parquet")
    assert np.allclose(table[["topic_0", "topic_1"]], shares)


def test_a_score_is_a_bound(folder: Path) -> None:
    found = json.loads(run("score", folder / "topics.safetensors", folder / "triplets.parquet", "--json").output)
    assert np.isclose(found["bound"], em.load(folder / "topics.safetensors").bound_)
    assert found["topics"] == 2
    assert found["rows"] == 200


def test_what_topics_have_not_is_refused(folder: Path) -> None:
    done = CliRunner().invoke(
        main,
        [
            "predict",
            str(folder / "topics.safetensors"),
            str(folder / "triplets.parquet"),
            "--out",
            str(folder / "l.zarr"),
        ],
    )
    assert done.exit_code != 0
    assert "write --shares, --loglik" in done.output
    done = CliRunner().invoke(
        main,
        [
            "fit", "lda", str(folder / "triplets.parquet"), "--n-components", "2", "--vocabulary",
            str(folder / "none.txt"), "--out", str(folder / "no.safetensors"),
        ],
    )  # fmt: skip
    assert done.exit_code != 0
    assert "none.txt, the vocabulary, cannot be read" in done.output
