"""What no row informs is said, by the names of its columns."""

import warnings
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest

import dask_em as em

NAN = np.nan


def said(estimator: Any, x: Any, **fitting: Any) -> list[str]:
    """What a fit warns of; it has converged."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator.fit(x, **fitting)
    assert estimator.status_ == "converged"
    told = [str(w.message) for w in caught if issubclass(w.category, em.FitWarning)]
    assert all(sentence.startswith("converged: ") for sentence in told)
    assert all(estimator.message_ in sentence for sentence in told)
    return told


def apart(n: int = 600) -> pd.DataFrame:
    """The columns a and b are never observed together."""
    x = np.random.default_rng(0).normal(size=(n, 3)) @ [[1, 0.3, 0.2], [0, 1, 0.4], [0, 0, 1]]
    x[: n // 2, 0], x[n // 2 :, 1] = NAN, NAN
    return pd.DataFrame(x, columns=["a", "b", "c"])


def clusters(n: int = 600) -> np.ndarray:
    """Two clusters far apart; the second has no value of column 1."""
    x = np.random.default_rng(0).normal(size=(n, 3))
    x[n // 2 :] += 30
    x[n // 2 :, 1] = NAN
    return x


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_columns_never_seen_together_are_named(scale: float) -> None:
    frame = apart()
    want = "no row has both 'a' and 'b': what the fit says of how they go together comes from its start"
    settings: Any = {"random_state": 0, "verbose": 0}
    for estimator in (em.GaussianImputer(**settings), em.GaussianMixture(1, **settings)):
        (told,) = said(estimator, frame, sample_weight=np.full(len(frame), scale))
        assert want in told
        assert "component" not in told


def test_the_sentence_is_true() -> None:
    x = apart().to_numpy()
    fits = [em.fit(em.IncompleteGaussian(), x, random_state=seed, tol=1e-9, verbose=0) for seed in (0, 1)]
    a, b = (fit.params.covariances[0] for fit in fits)
    assert fits[0].loglik == pytest.approx(fits[1].loglik, abs=1e-6)
    assert abs(a[0, 1] - b[0, 1]) > 1e-3
    assert a[0, 2] == pytest.approx(b[0, 2], abs=1e-4)
    assert all(fit.uninformed and fit.uninformed[0] in fit.message for fit in fits)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_a_component_without_values_in_a_column_is_named(kind: str) -> None:
    gm = em.GaussianMixture(2, covariance_type=kind, random_state=0, verbose=0)
    (told,) = said(gm, clusters())
    k = int(np.argmax(gm.means_[:, 0]))
    assert (
        f"no row of component {k} has a value of column 1: what the fit says of it there comes from its start" in told
    )
    assert f"of component {1 - k}" not in told


def test_other_distributions_say_it_too() -> None:
    x = np.random.default_rng(0).poisson(np.r_[np.full((300, 2), 2.0), np.full((300, 2), 90.0)]).astype(float)
    x[300:, 1] = NAN
    mix = em.Mixture(2, em.Poisson(), random_state=0, verbose=0)
    (told,) = said(mix, x)
    assert f"no row of component {int(np.argmax(mix.rates_[:, 0]))} has a value of column 1" in told
    (told,) = said(em.Mixture(2, em.StudentT(df=5), random_state=0, verbose=0), clusters())
    assert "has a value of column 1" in told


def test_pairs_are_those_of_a_component_and_of_one_part() -> None:
    x = np.r_[np.random.default_rng(0).normal(size=(400, 3)), apart(400).to_numpy() + 40]
    gm = em.GaussianMixture(2, random_state=0, verbose=0)
    (told,) = said(gm, x)
    k = int(np.argmax(gm.means_[:, 2]))
    assert f"no row of component {k} has both column 0 and column 1" in told
    for kind in ("tied", "diag"):  # which have no covariance of this component alone
        assert not said(em.GaussianMixture(2, covariance_type=kind, random_state=0, verbose=0), x)
    frame = pd.DataFrame(x, columns=["a", "b", "c"])
    separate = em.Product({"a": em.Gaussian(), ("b", "c"): em.Gaussian()})
    assert not said(em.Mixture(2, separate, random_state=0, verbose=0), frame)
    together = em.Product({("a", "b"): em.Gaussian(), "c": em.Gaussian()})
    (told,) = said(em.Mixture(2, together, random_state=0, verbose=0), frame)
    assert "has both 'a' and 'b'" in told


def test_beyond_the_sample_it_says_how_many_rows_were_looked_at() -> None:
    x = da.from_array(np.random.default_rng(1).permutation(clusters(20_000)), chunks=(4000, 3))
    (told,) = said(em.GaussianMixture(2, random_state=0, sample_bytes=40_000, verbose=0), x)
    assert "of 1000 rows looked at, no row of component" in told


def test_what_rows_inform_is_not_spoken_of() -> None:
    x = np.random.default_rng(0).normal(size=(800, 4))
    x[400:] += 5
    x[np.random.default_rng(1).random(x.shape) < 0.4] = NAN
    settings: Any = {"random_state": 0, "verbose": 0}
    for estimator in (em.GaussianImputer(**settings), em.GaussianMixture(2, **settings)):
        assert not said(estimator, x)
    codes = np.where(np.random.default_rng(2).random((800, 3)) < 0.1, NAN, x[:, :3] > 2)
    assert not said(em.Mixture(2, em.Bernoulli(), **settings), codes)


def test_many_pairs_are_counted() -> None:
    x = np.random.default_rng(0).normal(size=(600, 6))
    x[:300, :3], x[300:, 3:] = NAN, NAN
    (told,) = said(em.GaussianImputer(random_state=0, verbose=0), x)
    assert (
        "no row has both column 0 and column 3, or column 0 and column 4, or column 0 and column 5, or 6 more:" in told
    )
