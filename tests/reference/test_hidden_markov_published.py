"""Published hidden Markov models, and hmmlearn from the same start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dask_em as em
from dask_em.model import Chunk
from dask_em.models.chain_states import Around, states_of
from dask_em.models.hidden_markov import HiddenMarkovModel, HiddenMarkovParams

SETTINGS: dict[str, Any] = {"random_state": 2, "verbose": 0, "tol": 1e-9}


@pytest.fixture(scope="module")
def earthquakes(real_data: Path) -> np.ndarray:
    """Great earthquakes of each year from 1900 to 2006."""
    return pd.read_csv(real_data / "small" / "astsa_EQcount.csv")[["value"]].to_numpy(np.float64)


@pytest.mark.parametrize(
    ("begins", "k", "minus_loglik"),
    [
        ("free", 2, 341.8787),
        ("free", 3, 328.5275),
        ("stationary", 2, 342.3183),
        ("stationary", 3, 329.4603),
        ("stationary", 4, 327.8316),
    ],
)
def test_earthquakes_of_zucchini_and_macdonald(
    earthquakes: np.ndarray, begins: str, k: int, minus_loglik: float
) -> None:
    hmm = em.PoissonHMM(k, begins=begins, **SETTINGS).fit(earthquakes)
    assert -hmm.loglik_ == pytest.approx(minus_loglik, abs=6e-5)
    if (begins, k) == ("free", 2):
        assert np.sort(hmm.lambdas_.ravel()) == pytest.approx([15.4208, 26.0182], abs=6e-5)


def test_four_states_of_earthquakes_end_no_lower_than_published(earthquakes: np.ndarray) -> None:
    assert -em.PoissonHMM(4, n_init=16, **SETTINGS).fit(earthquakes).loglik_ < 326.4636


def test_response_times_of_depmix(real_data: Path) -> None:
    times = pd.read_csv(real_data / "small" / "depmixS4_speed.csv")[["rt"]].to_numpy(np.float64)
    one = em.GaussianHMM(2, **SETTINGS).fit(times)
    assert one.loglik_ == pytest.approx(-88.7306, abs=6e-5)
    assert one.aic(times) == pytest.approx(191.5, abs=0.06)
    assert one.bic(times) == pytest.approx(220.1, abs=0.06)
    three = em.GaussianHMM(2, **SETTINGS).fit(times, lengths=[168, 134, 137])
    assert three.loglik_ == pytest.approx(-84.3417, abs=6e-5)


# ---------------------------------------------------------------- hmmlearn

LENGTHS = [1, 400, 99, 500]
IDS = np.repeat(np.arange(4), LENGTHS)


def rows(k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    states = np.repeat(rng.integers(k, size=125), 8)
    return states, rng.normal(size=(1000, 3)) + 1.5 * states[:, None]


def one_step(model: HiddenMarkovModel, params: HiddenMarkovParams, x: np.ndarray) -> tuple[HiddenMarkovParams, float]:
    stats = model.e_step([params], Chunk(x, sequence=IDS))[0].close()
    return model.m_step(stats), stats.total_loglik


def begun(model: HiddenMarkovModel, x: np.ndarray) -> HiddenMarkovParams:
    params = model.start(Chunk(x, sequence=IDS), np.random.default_rng(0))
    return HiddenMarkovParams(np.array([0.4, 0.3, 0.2, 0.1]), params.transmat, params.components)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_a_step_of_gaussians_is_hmmlearns(kind: str) -> None:
    from hmmlearn.hmm import GaussianHMM

    _, x = rows()
    model = HiddenMarkovModel(4, em.Gaussian(kind, reg_covar=0))
    params = begun(model, x)
    priors = {"covars_prior": 0.0, "covars_weight": {"full": 0, "tied": 0}.get(kind, 1), "means_weight": 0.0}
    other = GaussianHMM(4, kind, n_iter=1, init_params="", min_covar=0.0, implementation="scaling", **priors)
    other.startprob_, other.transmat_, other.means_ = params.startprob, params.transmat, params.components.means
    other.covars_ = params.components.covariances.copy()
    found, loglik = one_step(model, params, x)
    assert loglik == pytest.approx(other.score(x, LENGTHS), rel=1e-12)
    assert states_of(model.chain(params), x, IDS, Around(), "path").tolist() == other.predict(x, LENGTHS).tolist()
    assert states_of(model.chain(params), x, IDS, Around(), "shares") == pytest.approx(
        other.predict_proba(x, LENGTHS), abs=1e-10
    )
    other.fit(x, LENGTHS)
    assert found.startprob == pytest.approx(other.startprob_, abs=1e-10)
    assert found.transmat == pytest.approx(other.transmat_, abs=1e-10)
    assert found.components.means == pytest.approx(other.means_, abs=1e-10)
    theirs = other._covars_[:, 0] if kind == "spherical" else other._covars_  # which hmmlearn repeats by column
    assert found.components.covariances == pytest.approx(theirs, abs=1e-10)


def test_a_step_of_counts_is_hmmlearns() -> None:
    from hmmlearn.hmm import PoissonHMM

    states, _ = rows()
    x = np.random.default_rng(1).poisson(1 + 3 * states)[:, None]
    model = HiddenMarkovModel(4, em.Poisson())
    params = begun(model, x.astype(float))
    other = PoissonHMM(4, n_iter=1, init_params="", lambdas_prior=0.0, lambdas_weight=0.0, implementation="scaling")
    other.startprob_, other.transmat_, other.lambdas_ = params.startprob, params.transmat, params.components.rates
    found, loglik = one_step(model, params, x.astype(float))
    assert loglik == pytest.approx(other.score(x, LENGTHS), rel=1e-12)
    other.fit(x, LENGTHS)
    assert found.transmat == pytest.approx(other.transmat_, abs=1e-10)
    assert found.components.rates == pytest.approx(other.lambdas_, abs=1e-10)


def test_a_step_of_categories_is_hmmlearns() -> None:
    from hmmlearn.hmm import CategoricalHMM

    states, _ = rows()
    x = (states + np.random.default_rng(1).integers(3, size=1000))[:, None] % 5
    model = HiddenMarkovModel(4, em.Categorical(n_categories=5))
    params = begun(model, x.astype(float))
    other = CategoricalHMM(4, n_iter=1, init_params="", implementation="scaling")
    other.startprob_, other.transmat_ = params.startprob, params.transmat
    other.emissionprob_, other.n_features = params.components.probabilities[:, 0], 5
    found, loglik = one_step(model, params, x.astype(float))
    assert loglik == pytest.approx(other.score(x, LENGTHS), rel=1e-12)
    other.fit(x, LENGTHS)
    assert found.transmat == pytest.approx(other.transmat_, abs=1e-10)
    assert found.components.probabilities[:, 0] == pytest.approx(other.emissionprob_, abs=1e-10)
