"""The hidden Markov model proves itself, whatever its distribution, transitions and sequences."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import dask_em as em
from dask_em.model import Chunk
from dask_em.models.hidden_markov import HiddenMarkovModel, HiddenMarkovParams
from dask_em.models.stationary import stationary
from dask_em.testing import check_model

RNG = np.random.default_rng(0)
STATES = np.repeat(RNG.integers(3, size=50), 6)
IDS = np.repeat(np.arange(12), 25)
CUTS = [0, 70, 71, 200, 300]
REALS = RNG.normal(size=(300, 2)) + 2 * STATES[:, None]
COUNTS = RNG.poisson(1 + 3 * STATES)[:, None].astype(float)
CODES = (RNG.random((300, 2)) < 0.2 + 0.3 * STATES[:, None]).astype(float)
ROWS: dict[str, tuple[em.Distribution, np.ndarray]] = {
    "full": (em.Gaussian("full", reg_covar=0), REALS),
    "tied": (em.Gaussian("tied", reg_covar=0), REALS),
    "diag": (em.Gaussian("diag", reg_covar=0), REALS),
    "spherical": (em.Gaussian("spherical", reg_covar=0), REALS),
    "bounded": (em.Gaussian("diag"), REALS),
    "t": (em.StudentT(df=4), REALS),
    "poisson": (em.Poisson(), COUNTS),
    "negative binomial": (em.NegativeBinomial(), COUNTS),
    "categorical": (em.Categorical(n_categories=2), CODES),
    "bernoulli": (em.Bernoulli(), CODES),
    "several": (em.Several(2, em.Gaussian("diag", reg_covar=0)), REALS),
    "several tied": (em.Several(2, em.Gaussian("tied", reg_covar=0)), REALS),
    "several counts": (em.Several(2, em.Poisson()), COUNTS),
    "regression": (em.LinearRegression(1), REALS),
}
CHAINS: dict[str, dict[str, Any]] = {
    "full": {},
    "left-right": {"transitions": "left-right"},
    "masked": {"transitions": ((True, True, False), (False, True, True), (True, False, True))},
    "stationary": {"begins": "stationary"},
    "prior": {"start_prior": 2.0, "transition_prior": 0.5},
}


def chunks(x: np.ndarray, ids: np.ndarray | None, weight: np.ndarray | None = None) -> list[Chunk]:
    parts = [slice(a, b) for a, b in pairwise(CUTS)]
    return [Chunk(x[s], None if weight is None else weight[s], None if ids is None else ids[s]) for s in parts]


@pytest.mark.parametrize("ids", [None, IDS], ids=["one sequence", "several"])
@pytest.mark.parametrize(("distribution", "x"), ROWS.values(), ids=ROWS)
def test_with_every_distribution(distribution: em.Distribution, x: np.ndarray, ids: np.ndarray | None) -> None:
    said = check_model(HiddenMarkovModel(3, distribution), chunks(x, ids))
    assert [line for line in said if line.startswith("not") and "row_loglik" not in line] == []


@pytest.mark.parametrize("ids", [None, IDS], ids=["one sequence", "several"])
@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_with_every_kind_of_chain(chain: dict[str, Any], ids: np.ndarray | None) -> None:
    model = HiddenMarkovModel(3, em.Poisson(), **chain)
    said = check_model(model, chunks(COUNTS, ids))
    assert [line for line in said if line.startswith("not") and "row_loglik" not in line] == []


@pytest.mark.parametrize("name", ["full", "diag", "t", "poisson", "categorical"])
def test_with_weights_holes_and_float32(name: str) -> None:
    distribution, x = ROWS[name]
    x = x.copy()
    x[RNG.random(x.shape) < 0.15] = np.nan
    x[40:45] = np.nan  # nothing is observed at all
    weight = np.repeat(RNG.integers(0, 3, size=12), 25).astype(float)
    said = check_model(HiddenMarkovModel(3, distribution), chunks(x.astype(np.float32), IDS, weight))
    assert [line for line in said if line.startswith("not") and "row_loglik" not in line] == []


def test_equal_rows_of_transitions_are_a_mixture() -> None:
    from dask_em.models.mixture import MixtureModel

    mixture = MixtureModel(3, em.Gaussian("full"))
    params = mixture.start(Chunk(REALS), np.random.default_rng(1))
    chain = HiddenMarkovParams(params.weights, np.tile(params.weights, (3, 1)), params.components)
    one = mixture.e_step([params], Chunk(REALS))[0].close()
    other = HiddenMarkovModel(3, em.Gaussian("full")).e_step([chain], Chunk(REALS))[0].close()
    assert other.total_loglik == pytest.approx(one.total_loglik, rel=1e-12)
    assert other.counts == pytest.approx(one.counts, rel=1e-12)
    assert other.components.second == pytest.approx(one.components.second, rel=1e-10)


def test_one_state_is_the_closed_form() -> None:
    model = HiddenMarkovModel(1, em.Gaussian("full", reg_covar=0))
    params = model.start(Chunk(REALS), np.random.default_rng(0))
    found = model.m_step(model.e_step([params], Chunk(REALS))[0].close()).components
    assert found.means[0] == pytest.approx(REALS.mean(axis=0))
    assert found.covariances[0] == pytest.approx(np.cov(REALS.T, bias=True))


def test_shares_in_the_long_run() -> None:
    a = np.random.default_rng(3).dirichlet(np.ones(5), size=5)
    shares = stationary(a)
    assert shares @ a == pytest.approx(shares, rel=1e-13)
    assert shares.sum() == pytest.approx(1.0)
    assert stationary(np.roll(np.eye(4), 1, axis=1)) == pytest.approx(np.full(4, 0.25))  # of a circle
    assert stationary(np.array([[0.5, 0.5], [0.0, 1.0]])) == pytest.approx([0.0, 1.0])


def test_allowed_transitions_stay_the_only_ones() -> None:
    model = HiddenMarkovModel(3, em.Poisson(), **CHAINS["masked"])
    params = model.start(Chunk(COUNTS), np.random.default_rng(0))
    for _ in range(3):
        params = model.m_step(model.e_step([params], Chunk(COUNTS))[0].close())
    assert np.array_equal(params.transmat > 0, model.allowed)
    left_right = HiddenMarkovModel(3, em.Poisson(), **CHAINS["left-right"])
    begun = left_right.start(Chunk(COUNTS, sequence=IDS), np.random.default_rng(0))
    assert begun.startprob.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"transitions": "up"}, "transitions must be 'full', 'left-right', or 3 rows"),
        ({"transitions": ((True, True),) * 2}, "transitions must be"),
        ({"transitions": ((True,) * 3, (False,) * 3, (True,) * 3)}, "at least one of them true in each row"),
        ({"begins": "anyhow"}, "begins='anyhow': choose 'free' or 'stationary'"),
        ({"begins": "stationary", "start_prior": 1.0}, "leaves no shares of first states"),
        ({"transition_prior": -1.0}, "transition_prior=-1.0 must be a number that is not negative"),
    ],
)
def test_what_is_no_chain_is_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(em.ConfigurationError, match=why):
        HiddenMarkovModel(3, em.Poisson(), **wrong)


def test_states_are_a_whole_number() -> None:
    with pytest.raises(em.ConfigurationError, match="n_states=0 must be a whole number of at least 1"):
        HiddenMarkovModel(0, em.Poisson())
