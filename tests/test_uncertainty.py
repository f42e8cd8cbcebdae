"""How clearly rows belong to components, row by row and in total."""

from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy.stats import entropy

import dask_em as em
from dask_em.cli import em as commands


def test_rows_are_as_their_probabilities_say(three_blobs: np.ndarray) -> None:
    gm = em.GaussianMixture(3, random_state=0, verbose=0).fit(three_blobs)
    proba = gm.predict_proba(three_blobs)
    assert gm.uncertainty(three_blobs) == pytest.approx(1 - proba.max(axis=1), abs=1e-15)
    assert gm.entropy(three_blobs) == pytest.approx(entropy(proba, axis=1), abs=1e-12)
    lazy = gm.entropy(da.from_array(three_blobs, chunks=(1000, 3)))
    assert isinstance(lazy, da.Array)
    assert np.array_equal(lazy.compute(), gm.entropy(three_blobs))
    w = np.arange(6000.0)
    told = 1 - (w * entropy(proba, axis=1)).sum() / (w.sum() * np.log(3))
    assert gm.relative_entropy(three_blobs, w) == pytest.approx(told, rel=1e-12)


def test_its_ends() -> None:
    far = np.concatenate([np.zeros((50, 1)), np.full((50, 1), 1e3)]) + np.random.default_rng(0).normal(size=(100, 1))
    gm = em.GaussianMixture(2, random_state=0, verbose=0).fit(far)
    assert gm.relative_entropy(far) == pytest.approx(1.0)
    assert (gm.uncertainty(far) == 0).all()
    assert np.isnan(em.GaussianMixture(1, verbose=0).fit(far).relative_entropy(far))
    gm.means_ = np.zeros((2, 1))
    gm.weights_, gm.covariances_ = np.full(2, 0.5), gm.covariances_[[0, 0]]
    gm.precisions_cholesky_ = gm.precisions_cholesky_[[0, 0]]
    assert gm.relative_entropy(far) == pytest.approx(0.0)
    assert gm.uncertainty(far) == pytest.approx(0.5)


def test_commands_know_what_a_model_learned_of_its_columns(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"gnp": rng.normal(size=400), "answer": rng.integers(0, 3, 400).astype(float)})
    frame["co2"] = np.where(rng.random(400) < 0.5, 2 * frame["gnp"], -frame["gnp"]) + rng.normal(size=400) * 0.1
    frame.to_parquet(tmp_path / "x.parquet")
    regression = em.Mixture(2, em.LinearRegression(response="co2"), random_state=0, verbose=0)
    classes = em.Mixture(2, em.Categorical(), random_state=0, verbose=0)
    for model, columns in ((regression, ["gnp", "co2"]), (classes, ["answer"])):
        model.fit(frame, columns=columns).save(tmp_path / "m.safetensors")
        for command in (["score"], ["predict", "--out", str(tmp_path / "p.zarr"), "--overwrite"]):
            args = [command[0], str(tmp_path / "m.safetensors"), str(tmp_path / "x.parquet"), *command[1:]]
            done = CliRunner().invoke(commands, args)
            assert done.exit_code == 0, done.output
