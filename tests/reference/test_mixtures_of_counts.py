"""Published mixtures of counts and latent classes, to the printed digits."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import poisson

import dask_em as em

DEATHS = np.array([162, 267, 271, 185, 111, 61, 27, 8, 3, 1])  # days with 0 to 9 notices (Hasselblad 1969)


@pytest.mark.parametrize("repeated", [False, True])
def test_the_london_times(repeated: bool) -> None:
    mix = em.Mixture(2, em.Poisson(), random_state=0, tol=1e-9, verbose=0)
    days = np.arange(10)[:, None]
    mix.fit(np.repeat(days, DEATHS, axis=0)) if repeated else mix.fit(days, sample_weight=DEATHS)
    order = np.argsort(mix.rates_[:, 0])
    assert mix.weights_[order] == pytest.approx([0.3598854, 0.6401146], abs=5e-7)
    assert mix.rates_[order, 0] == pytest.approx([1.2560951, 2.6634044], abs=5e-7)
    assert mix.loglik_ == pytest.approx(-1989.945859883, abs=5e-10)


def test_standard_errors_of_the_london_times() -> None:
    days = np.arange(10.0)[:, None]
    mix = em.Mixture(2, em.Poisson(), random_state=0, tol=1e-9, verbose=0).fit(days, sample_weight=DEATHS)
    order = np.argsort(mix.rates_[:, 0])
    found = mix.standard_errors(days, DEATHS)["standard_error"].to_numpy()[[order[0], 2 + order[0], 2 + order[1]]]
    assert found == pytest.approx(_by_second_derivatives(mix.weights_[order[0]], mix.rates_[order, 0]), rel=5e-5)
    # published from second derivatives that were rounded: the exact ones are .1947, .3500, .2505
    assert found == pytest.approx([0.1948, 0.3503, 0.2507], rel=1e-3)


def _by_second_derivatives(share: float, rates: np.ndarray) -> np.ndarray:
    """Standard errors of (share, rate, rate) from the exact Hessian of a mixture of two Poisson distributions."""
    y = np.arange(10.0)
    a, b = (poisson.pmf(y, rate) for rate in rates)
    da, db = ((y / rate - 1) * f for f, rate in zip((a, b), rates))
    daa, dbb = (((y / rate - 1) ** 2 - y / rate**2) * f for f, rate in zip((a, b), rates))
    density, rest, none = share * a + (1 - share) * b, 1 - share, np.zeros(10)
    first = np.array([a - b, share * da, rest * db]) / density
    second = np.array([[none, da, -db], [da, share * daa, none], [-db, none, rest * dbb]]) / density
    information = -((second - first[:, None] * first) * DEATHS).sum(axis=2)
    return np.sqrt(np.diag(np.linalg.inv(information)))


def test_plain_em_from_the_usual_start_takes_over_1500_steps() -> None:
    from dask_em.distributions.poisson import PoissonParams
    from dask_em.models.mixture import MixtureParams

    start = MixtureParams(np.array([0.5, 0.5]), PoissonParams(np.array([[1.0], [3.0]])))
    data = np.repeat(np.arange(10), DEATHS)[:, None]
    settings = {"params": start, "tol": 1e-9, "max_passes": 5000, "verbose": 0}
    plain = em.fit(em.MixtureModel(2, em.Poisson()), data, solver="em", **settings)
    fast = em.fit(em.MixtureModel(2, em.Poisson()), data, solver="anderson", **settings)
    assert len(plain.history) > 1500
    assert len(fast.history) < 45
    assert fast.loglik == pytest.approx(plain.loglik, abs=1e-8)


@pytest.fixture(scope="module")
def carcinoma(real_data: Path) -> np.ndarray:
    return pd.read_csv(real_data / "small" / "poLCA_carcinoma.csv")[list("ABCDEFG")].to_numpy() - 1


@pytest.mark.parametrize("distribution", [em.Bernoulli(), em.Categorical()])
def test_latent_classes_of_carcinoma(carcinoma: np.ndarray, distribution: em.Distribution) -> None:
    fits = {
        k: em.Mixture(k, distribution, random_state=0, n_init=40, tol=1e-7, verbose=0).fit(carcinoma) for k in (2, 3, 4)
    }
    assert fits[2].loglik_ == pytest.approx(-317.2568, abs=5e-5)
    assert fits[3].loglik_ == pytest.approx(-293.7050, abs=5e-5)
    assert fits[3].aic(carcinoma) == pytest.approx(633.41, abs=5e-3)
    assert fits[3].bic(carcinoma) == pytest.approx(697.1357, abs=5e-5)
    assert np.sort(fits[3].weights_) == pytest.approx([0.1817, 0.3736, 0.4447], abs=5e-5)
    assert fits[4].loglik_ == pytest.approx(-289.2858, abs=5e-4)
    # some probabilities are nearly zero there, and the way from far too small ones is long and flat
    far = {"solver": "em", "warm_start": True, "tol": 1e-10, "max_passes": 20_000}
    assert fits[4].set_params(**far).fit(carcinoma).loglik_ == pytest.approx(-289.2858, abs=5e-5)
    assert all(f.n_passes_ == 1 for f in fits.values())


@pytest.mark.parametrize("seed", range(5))
def test_the_default_finds_the_best_of_four_classes_of_carcinoma(carcinoma: np.ndarray, seed: int) -> None:
    mix = em.Mixture(4, em.Bernoulli(), random_state=seed, verbose=0).fit(carcinoma)
    assert mix.loglik_ == pytest.approx(-289.2858, abs=0.05)


def test_mites_on_apple_leaves() -> None:
    leaves = np.array([70, 38, 17, 10, 9, 3, 2, 1])  # with 0 to 7 European red mites (Bliss and Fisher 1953, table 1)
    mix = em.Mixture(1, em.NegativeBinomial(), verbose=0).fit(np.arange(8)[:, None], sample_weight=leaves)
    assert mix.means_[0, 0] == pytest.approx(1.14667, abs=5e-6)
    assert mix.sizes_[0, 0] == pytest.approx(1.02459, abs=5e-6)


def test_latent_classes_of_the_election_as_text(real_data: Path, tmp_path: Path) -> None:
    """What people said of two candidates in 12 questions of 4 answers each; poLCA leaves out who did not say all."""
    people = pd.read_csv(real_data / "small" / "poLCA_election.csv").iloc[:, :12].dropna()
    people.to_parquet(tmp_path / "election.parquet")
    published = {1: -18647.31, 2: -17344.92, 3: -16714.66}
    for k, loglik in published.items():
        own = {"random_state": 0, "tol": 1e-4, "verbose": 0}
        text, file = (
            em.Mixture(k, em.Categorical(), **own).fit(data) for data in (people, tmp_path / "election.parquet")
        )
        codes = people.apply(lambda c: c.str[0].astype(float) - 1)
        known = em.Mixture(k, em.Categorical(), **own).fit(codes)
        assert text.loglik_ == pytest.approx(loglik, abs=0.02)
        assert text.loglik_ == file.loglik_ == known.loglik_
        assert text.n_parameters() == k * 36 + k - 1
    assert text.distribution_.levels[0] == ("1 Extremely well", "2 Quite well", "3 Not too well", "4 Not well at all")
