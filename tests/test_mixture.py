"""The estimator `Mixture`: attributes, predictions, files, selection, streams."""

from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

import dask_em as em


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.poisson(np.repeat([[1.0, 9.0], [8.0, 2.0]], 500, axis=0)).astype(np.float64)


@pytest.fixture(scope="module")
def fitted(counts: np.ndarray) -> em.Mixture:
    return em.Mixture(2, em.Poisson(), random_state=0, verbose=0).fit(counts)


def test_parameters_have_the_names_of_the_distribution(fitted: em.Mixture, counts: np.ndarray) -> None:
    assert fitted.rates_.shape == (2, 2)
    assert fitted.rates_ is fitted.components_.rates
    assert np.sort(fitted.rates_[:, 0]) == pytest.approx([1, 8], rel=0.1)
    assert fitted.weights_.sum() == pytest.approx(1)
    assert fitted.n_parameters() == 5
    labels = fitted.predict(counts)
    assert np.mean(labels[:500] == np.bincount(labels[:500]).argmax()) > 0.98


def test_what_it_says_of_rows(fitted: em.Mixture, counts: np.ndarray) -> None:
    proba = fitted.predict_proba(counts)
    assert proba.sum(axis=1) == pytest.approx(1)
    assert np.array_equal(proba.argmax(axis=1), fitted.predict(counts))
    assert fitted.score_samples(counts).sum() == pytest.approx(fitted.loglik_, rel=1e-12)
    lazy = fitted.predict_proba(da.from_array(counts, chunks=(300, 2)))
    assert isinstance(lazy, da.Array)
    assert np.array_equal(lazy.compute(), proba)


def test_missing_values_are_predicted_from_what_is_there(fitted: em.Mixture, counts: np.ndarray) -> None:
    holed = counts.copy()
    holed[:, 1] = np.nan
    assert np.mean(fitted.predict(holed) == fitted.predict(counts)) > 0.9
    nothing = fitted.predict_proba(np.full((1, 2), np.nan))
    assert nothing[0] == pytest.approx(fitted.weights_)
    frame = pd.DataFrame(holed, columns=["a", "b"])
    holed[0, 1] = 5
    named = em.Mixture(2, em.Poisson(), random_state=0, verbose=0).fit(pd.DataFrame(holed, columns=["a", "b"]))
    assert np.array_equal(named.predict(frame, columns=["a", "b"]), named.predict(frame))


def test_a_column_of_nothing_is_refused(counts: np.ndarray) -> None:
    with pytest.raises(em.DataError, match="column 1 has no value in any of 1000 rows"):
        em.Mixture(2, em.Poisson(), verbose=0).fit(np.column_stack([counts[:, 0], np.full(1000, np.nan)]))


def test_files(fitted: em.Mixture, counts: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    fitted.save(path)
    again = em.load(path)
    assert isinstance(again, em.Mixture)
    assert again.distribution == em.Poisson()
    assert np.array_equal(again.predict_proba(counts), fitted.predict_proba(counts))
    assert again.rates_.tolist() == fitted.rates_.tolist()
    assert b"pickle" not in path.read_bytes()


def test_a_file_is_loaded_in_a_process_that_has_imported_nothing(fitted: em.Mixture, tmp_path: Path) -> None:
    import subprocess
    import sys

    path = tmp_path / "m.safetensors"
    fitted.save(path)
    code = f"import dask_em as em; print(em.load({str(path)!r}).rates_.tolist())"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.strip() == str(fitted.rates_.tolist())


def test_it_is_cloned_and_selected(counts: np.ndarray) -> None:
    mix = em.Mixture(2, em.Poisson(prior=(2.0, 1.0)), random_state=0, verbose=0)
    assert clone(mix).get_params() == mix.get_params()
    found = em.select(mix, counts, n_components=[1, 2, 3], distribution=[em.Poisson(), em.Exponential()])
    assert found.best_params_ == {"n_components": 2, "distribution": em.Poisson()}


def test_the_default_is_a_gaussian(counts: np.ndarray) -> None:
    mix = em.Mixture(2, random_state=0, verbose=0).fit(counts)
    gm = em.GaussianMixture(2, random_state=0, verbose=0).fit(counts)
    assert np.array_equal(mix.means_, gm.means_)
    assert mix.loglik_ == gm.loglik_


def test_a_warm_start_goes_on() -> None:
    close = np.random.default_rng(0).exponential(np.repeat([[1.0], [9.0]], 500, axis=0))
    mix = em.Mixture(2, em.Exponential(), random_state=0, n_init=1, solver="em", tol=1e-6, warm_start=True, verbose=0)
    before = len(mix.fit(close).history_)
    assert before > 20
    assert len(mix.fit(close).history_) < before / 2


def test_a_stream(counts: np.ndarray) -> None:
    mix = em.Mixture(2, em.Poisson(), random_state=0, verbose=0)
    for batch in np.array_split(np.random.default_rng(1).permutation(counts), 5):
        mix.partial_fit(batch)
    assert np.sort(mix.rates_[:, 0]) == pytest.approx([1, 8], rel=0.15)


def test_what_is_no_distribution_is_refused(counts: np.ndarray) -> None:
    with pytest.raises(em.ConfigurationError, match="must be a distribution, such as dask_em.Gaussian"):
        em.Mixture(2, "poisson", verbose=0).fit(counts)  # type: ignore[arg-type]


@pytest.mark.parametrize("distribution", [em.Poisson(), em.Exponential(), em.Categorical(), em.Gamma()])
def test_a_checkpoint_of_anchored_passes_is_gone_on_from(distribution: em.Distribution, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = np.repeat([[1.0, 9.0], [8.0, 2.0]], 3000, axis=0)
    x = rng.gamma(2.0, x) if type(distribution).__name__ in ("Gamma", "Exponential") else rng.poisson(x) % 9
    settings = {"random_state": 0, "solver": "anchored", "sample_bytes": 8000, "tol": 1e-6, "verbose": 0}
    whole = em.Mixture(2, distribution, **settings).fit(x)
    again = em.Mixture(2, distribution, **settings, checkpoint=tmp_path / "c").fit(x)
    assert whole.loglik_ == again.loglik_
    assert em.Mixture(2, distribution, **settings, checkpoint=tmp_path / "c").fit(x).loglik_ == whole.loglik_
