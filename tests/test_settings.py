"""Settings of a wrong type get a sentence that names them and what they take."""

from typing import Any

import numpy as np
import pytest

import dask_em as em

COMPLEX = np.array([[1j, 2], [0, 1]])
OF_A_FIT: list[tuple[dict[str, Any], str]] = [
    ({"callbacks": 3}, "callbacks=3 must be a list of callbacks"),
    ({"callbacks": "x"}, "callbacks='x' must be a list of callbacks"),
    ({"callbacks": [3]}, r"callbacks=\[3\] must be a list of callbacks, each with on_start"),
    ({"checkpoint": 5}, "checkpoint=5 must be a path or a URL"),
    ({"checkpoint_options": 5}, "checkpoint_options=5 must be a dict"),
    ({"verbose": "a"}, "verbose='a' must be a whole number"),
    ({"random_state": "a"}, "random_state='a' must be a whole number"),
    ({"random_state": 1.5}, "random_state=1.5 must be a whole number"),
]


@pytest.mark.parametrize(("settings", "words"), OF_A_FIT, ids=str)
@pytest.mark.parametrize("family", [em.GaussianMixture, em.KMeans, em.Mixture])
def test_of_a_fit(family: Any, settings: dict[str, Any], words: str) -> None:
    x = np.random.default_rng(0).normal(size=(50, 2))
    estimator = family(2, **{"verbose": 0, "random_state": 0, **settings})
    with pytest.raises(em.ConfigurationError, match=words):
        estimator.fit(x)
    with pytest.raises(em.ConfigurationError, match=words):
        estimator.partial_fit(x)


@pytest.mark.parametrize(("settings", "words"), OF_A_FIT[:4], ids=str)
def test_of_a_selection_and_of_any_model(settings: dict[str, Any], words: str) -> None:
    x = np.random.default_rng(0).normal(size=(50, 2))
    with pytest.raises(em.ConfigurationError, match=words):
        em.select(em.GaussianMixture(verbose=0, **settings), x, n_components=[1, 2])
    with pytest.raises(em.ConfigurationError, match=words):
        em.fit(em.MixtureModel(2, em.Gaussian()), x, verbose=0, **settings)


@pytest.mark.parametrize("held_out", ["0.2", [0.2], True, float("nan")])
def test_a_share_that_is_none(held_out: Any) -> None:
    with pytest.raises(em.ConfigurationError, match=r"held_out=.* must be a share between 0 and 1"):
        em.select(em.GaussianMixture(verbose=0), np.ones((5, 2)), n_components=[1, 2], held_out=held_out)


@pytest.mark.filterwarnings("error")
def test_starts_that_are_complex() -> None:
    x = np.random.default_rng(0).normal(size=(50, 2))
    with pytest.raises(em.ConfigurationError, match="means_init must be numbers: they are complex"):
        em.GaussianMixture(2, means_init=COMPLEX, verbose=0).fit(x)
    with pytest.raises(em.ConfigurationError, match="init must be numbers, .* they are complex"):
        em.KMeans(2, init=COMPLEX, verbose=0).fit(x)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (em.Exponential, {"prior": 3}),
        (em.Bernoulli, {"prior": ("a", "b")}),
        (em.Poisson, {"prior": "ab"}),
        (em.Gamma, {"prior": (1, 2j, 3)}),
        (em.Factors, {"floor": "a"}),
    ],
)
def test_of_a_distribution(kind: Any, given: dict[str, Any]) -> None:
    with pytest.raises(em.ConfigurationError, match=f"{next(iter(given))}=.* must be"):
        kind(**given)


def test_of_a_factor_analysis() -> None:
    with pytest.raises(em.ConfigurationError, match="floor='a' must be a share"):
        em.FactorAnalysis(1, floor="a", verbose=0).fit(np.eye(4))
