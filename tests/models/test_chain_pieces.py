"""Hidden Markov chains cut into blocks anywhere: the sums are those of the whole."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp

from dask_em.distributions.categorical import Categorical, CategoricalParams
from dask_em.distributions.gaussian import Gaussian
from dask_em.errors import DataError
from dask_em.model import Chunk
from dask_em.models import chain_pieces
from dask_em.models.chain_pieces import Chain, ChainStatistics, pieces
from dask_em.models.chain_states import Around, ends, states_of, stitched
from dask_em.models.mixture import MixtureModel

N, K = 600, 4


def gaussians(spread: float = 1.0, stay: float = 0.8) -> tuple[Chain, np.ndarray]:
    """A chain, and rows that it made."""
    rng = np.random.default_rng(0)
    a = (1 - stay) * rng.dirichlet(np.ones(K), size=K) + stay * np.eye(K)
    states = np.zeros(N, dtype=int)
    for t in range(1, N):
        states[t] = rng.choice(K, p=a[states[t - 1]])
    x = rng.normal(size=(N, 2)) + spread * states[:, None]
    params = MixtureModel(K, Gaussian("diag")).start(Chunk(x), rng)
    return Chain(rng.dirichlet(np.ones(K)), a, Gaussian("diag"), params.components), x


def whole_and_parts(
    chain: Chain, x: np.ndarray, cuts: Any, weight: np.ndarray | None = None, ids: np.ndarray | None = None
) -> ChainStatistics:
    """Sums of blocks that end at those rows, merged in a tree."""
    parts = [
        pieces(chain, x[a:b], None if weight is None else weight[a:b], None if ids is None else ids[a:b])
        for a, b in pairwise([0, *cuts, len(x)])
    ]
    while len(parts) > 1:
        parts = [reduce(lambda a, b: a.merge(b), parts[i : i + 2]) for i in range(0, len(parts), 2)]
    return parts[0].close()


def apart(one: Any, other: Any) -> float:
    """The largest difference of any two numbers, of their size where that is above one."""
    found = [abs(one.loglik - other.loglik) / max(1.0, abs(one.loglik))]
    arrays = [(one.starts, other.starts), (one.transitions, other.transitions), (one.counts, other.counts)]
    for field in fields(one.components):
        a, b = getattr(one.components, field.name), getattr(other.components, field.name)
        if isinstance(a, np.ndarray):
            arrays.append((a, b))
    found += [float(np.abs(a - b).max() / max(1.0, np.abs(a).max())) for a, b in arrays]
    return max(found)


def serial(chain: Chain, x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Log-likelihood, posterior states and sums of pairs of one sequence, in logarithms: the formulas as written."""
    with np.errstate(divide="ignore"):
        logb, loga = chain.log_density(x), np.log(chain.transmat)
        alpha = [np.log(chain.startprob) + logb[0]]
    for row in logb[1:]:
        alpha.append(logsumexp(alpha[-1][:, None] + loga, axis=0) + row)
    beta = [np.zeros(len(loga))]
    for row in logb[:0:-1]:
        beta.append(logsumexp(loga + row + beta[-1], axis=1))
    beta.reverse()
    loglik = logsumexp(alpha[-1])
    gamma = np.exp(np.array(alpha) + np.array(beta) - loglik)
    pairs = sum(np.exp(alpha[t][:, None] + loga + logb[t + 1] + beta[t + 1] - loglik) for t in range(len(x) - 1))
    return float(loglik), gamma, np.asarray(pairs)


CUTS = {
    "one row a block": range(1, N),
    "64 blocks": range(N // 64, N, N // 64),
    "random": sorted(np.random.default_rng(1).choice(np.arange(1, N), 30, replace=False)),
}
IDS = {
    "one sequence": None,
    "short ones": np.repeat(np.arange(30), 20),
    "of one row": np.arange(N),
    "uneven": np.repeat([5, 1, 2, 9], [3, 350, 1, 246]),
}


def test_one_block_is_the_serial_recursion() -> None:
    chain, x = gaussians()
    found = whole_and_parts(chain, x, [])
    loglik, gamma, pairs = serial(chain, x)
    assert found.loglik == pytest.approx(loglik, rel=1e-12)
    assert found.starts == pytest.approx(gamma[0], abs=1e-10)
    assert found.counts == pytest.approx(gamma.sum(axis=0), rel=1e-10)  # what logarithms lose
    assert found.transitions == pytest.approx(pairs, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("ids", IDS.values(), ids=IDS)
def test_blocks_cut_sequences_anywhere(cuts: Any, ids: np.ndarray | None) -> None:
    chain, x = gaussians()
    assert apart(whole_and_parts(chain, x, [], ids=ids), whole_and_parts(chain, x, cuts, ids=ids)) < 1e-12


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
def test_weights_are_of_sequences(cuts: Any) -> None:
    chain, x = gaussians()
    ids = IDS["short ones"]
    w = np.random.default_rng(2).integers(0, 4, size=30).repeat(20).astype(float)
    weighted = whole_and_parts(chain, x, cuts, w, ids)
    often = np.concatenate([np.flatnonzero(ids == i) for i in range(30) for _ in range(int(w[20 * i]))])
    again = np.repeat(np.arange(len(often) // 20), 20)
    assert apart(weighted, whole_and_parts(chain, x[often], [], ids=again)) < 1e-11


def never_agreeing() -> tuple[Chain, np.ndarray]:
    """States that follow one another in a circle, and that rows hardly tell apart."""
    chain, x = gaussians()
    circle = np.roll(np.eye(K), 1, axis=1) * (1 - 1e-6) + 1e-6 / K
    c = chain.components
    alike = replace(
        c,
        means=c.means[:1] + 1e-4 * np.arange(K)[:, None],
        covariances=np.repeat(c.covariances[:1], K, axis=0),
        precisions_cholesky=np.repeat(c.precisions_cholesky[:1], K, axis=0),
    )
    return replace(chain, transmat=circle / circle.sum(axis=1, keepdims=True), components=alike), x


@pytest.mark.parametrize("held", [10**9, 100, 10], ids=["rows kept", "some", "none"])
@pytest.mark.parametrize("cuts", [[], *list(CUTS.values())[1:]], ids=["one block", *list(CUTS)[1:]])
def test_chains_that_never_agree(held: int, cuts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chain, x = never_agreeing()
    monkeypatch.setattr(chain_pieces, "HELD", 10**9)
    loglik, _, pairs = serial(chain, x)
    whole = whole_and_parts(chain, x, [])
    assert whole.loglik == pytest.approx(loglik, rel=1e-11)
    assert whole.transitions == pytest.approx(pairs, rel=1e-8, abs=1e-8)
    monkeypatch.setattr(chain_pieces, "HELD", held)
    assert apart(whole, whole_and_parts(chain, x, cuts)) < 1e-12


class Coded(Chain):
    """Codes whose zero probabilities are just that."""

    def log_density(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.log(self.components.probabilities[:, 0, x[:, 0].astype(int)].T)


def coded(startprob: np.ndarray, a: np.ndarray, p: np.ndarray) -> Chain:
    return Coded(startprob, a, Categorical(n_categories=p.shape[2]), CategoricalParams(p))


def test_structural_zeros_and_rows_that_only_one_path_allows() -> None:
    # left to right, and emissions so sharp that scaled numbers run out of exponent
    a = np.array([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
    p = np.array([[1.0, 0.0, 0.0], [1e-300, 1.0, 0.0], [1e-300, 1e-300, 1.0]])[:, None, :]
    chain = coded(np.array([1.0, 0.0, 0.0]), a, p)
    x = np.array([0, 0, 0, 1, 1, 0, 0, 1, 2, 2, 1, 0, 2], dtype=float)[:, None]
    loglik, gamma, pairs = serial(chain, x)
    assert np.isfinite(loglik)
    for cuts in ([], [4], range(1, len(x))):
        found = whole_and_parts(chain, x, cuts)
        assert found.loglik == pytest.approx(loglik, rel=1e-12)
        assert found.counts == pytest.approx(gamma.sum(axis=0), abs=1e-10)
        assert found.transitions == pytest.approx(pairs, abs=1e-10)


def test_what_no_path_can_have_made_has_no_likelihood() -> None:
    a = np.array([[0.5, 0.5], [0.0, 1.0]])
    p = np.array([[1.0, 0.0], [0.0, 1.0]])[:, None, :]
    chain = coded(np.array([1.0, 0.0]), a, p)
    x = np.array([0, 1, 0], dtype=float)[:, None]
    for cuts in ([], [1], [2], [1, 2]):
        assert whole_and_parts(chain, x, cuts).loglik == -np.inf


def test_weights_that_change_within_a_sequence_are_refused() -> None:
    chain, x = gaussians()
    w = np.ones(N)
    w[300:] = 2.0
    for cuts in ([], [300]):
        with pytest.raises(DataError, match="weigh 1 and 2: weights are of whole sequences"):
            whole_and_parts(chain, x, cuts, w)


# ---------------------------------------------------------------- states


def in_blocks(chain: Chain, x: np.ndarray, ids: np.ndarray | None, cuts: Any, want: Any) -> np.ndarray:
    """States of rows in blocks, by two sweeps."""
    how: Any = "path" if want == "path" else "shares"
    parts = [(x[a:b], None if ids is None else ids[a:b]) for a, b in pairwise([0, *cuts, len(x)])]
    around = stitched(chain, [ends(chain, own, of, i, how) for i, (own, of) in enumerate(parts)], how)
    return np.concatenate([states_of(chain, own, of, around[i], want) for i, (own, of) in enumerate(parts)])


@pytest.mark.parametrize("want", ["path", "labels", "shares", "filtered"])
@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("ids", IDS.values(), ids=IDS)
@pytest.mark.parametrize("make", [gaussians, never_agreeing])
def test_states_across_blocks(want: Any, cuts: Any, ids: np.ndarray | None, make: Any) -> None:
    chain, x = make()
    whole = states_of(chain, x, ids, Around(), want)
    found = in_blocks(chain, x, ids, cuts, want)
    assert np.abs(whole - found).max() < 1e-10


def test_the_best_path_is_the_best_of_all() -> None:
    chain, x = gaussians(spread=0.5)
    logb = chain.log_density(x[:6])
    paths = np.stack(np.meshgrid(*[np.arange(K)] * 6, indexing="ij"), axis=-1).reshape(-1, 6)
    total = np.log(chain.startprob)[paths[:, 0]] + logb[np.arange(6), paths].sum(axis=1)
    total += np.log(chain.transmat)[paths[:, :-1], paths[:, 1:]].sum(axis=1)
    for cuts in ([], [3], [1, 2, 3, 4, 5]):
        assert in_blocks(chain, x[:6], None, cuts, "path").tolist() == paths[total.argmax()].tolist()


def test_shares_are_the_serial_ones() -> None:
    chain, x = gaussians()
    _, gamma, _ = serial(chain, x)
    assert in_blocks(chain, x, None, range(100, N, 100), "shares") == pytest.approx(gamma, abs=1e-10)
    first = in_blocks(chain, x, None, range(100, N, 100), "filtered")
    assert first[500] == pytest.approx(serial(chain, x[:501])[1][-1], abs=1e-10)
