"""Estimators of hidden Markov chains, on data of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy.special import logsumexp
from sklearn.base import clone

import dask_em as em

SETTINGS: dict[str, Any] = {"random_state": 0, "verbose": 0}
N = 6000
RNG = np.random.default_rng(0)
STATES = np.repeat(RNG.integers(3, size=N // 10), 10)
X = RNG.normal(size=(N, 2)) + 2.5 * STATES[:, None]
IDS = np.repeat(np.arange(60), N // 60)


@pytest.fixture(scope="module")
def fitted() -> em.GaussianHMM:
    return em.GaussianHMM(3, **SETTINGS).fit(X, sequence=IDS)


def test_states_are_found(fitted: em.GaussianHMM) -> None:
    assert fitted.status_ == "converged"
    assert fitted.n_passes_ == 1
    order = np.argsort(fitted.means_[:, 0])
    assert fitted.means_[order, 0] == pytest.approx([0, 2.5, 5], abs=0.1)
    assert np.diag(fitted.transmat_) == pytest.approx(0.93, abs=0.02)
    assert np.mean(np.argsort(order)[fitted.predict(X, IDS)] == STATES) > 0.99
    assert fitted.score(X, sequence=IDS) == pytest.approx(fitted.loglik_, rel=1e-12)
    shares = fitted.predict_proba(X, IDS)
    assert shares.sum(axis=1) == pytest.approx(1.0)
    assert (shares.argmax(axis=1) == fitted.predict(X, IDS, method="posterior")).all()
    assert fitted.filter(X, IDS)[99] == pytest.approx(shares[99])  # the last of its sequence
    assert fitted.stationary_distribution() @ fitted.transmat_ == pytest.approx(fitted.stationary_distribution())


def test_lengths_say_what_ids_do(fitted: em.GaussianHMM) -> None:
    lengths = [N // 60] * 60
    other = em.GaussianHMM(3, **SETTINGS).fit(X, lengths=lengths)
    assert np.array_equal(other.means_, fitted.means_)
    assert np.array_equal(other.predict(X, lengths=lengths), fitted.predict(X, IDS))
    with pytest.raises(em.ConfigurationError, match="say the same: give one of them"):
        other.fit(X, sequence=IDS, lengths=lengths)
    with pytest.raises(em.ConfigurationError, match="whole and positive"):
        other.fit(X, lengths=[N, 0])
    with pytest.raises(em.DataError, match="6000 rows"):
        other.fit(X, lengths=[10, 20])
    with pytest.raises(em.DataError, match="lengths add up to 30, and X has 6000 rows"):
        other.predict(X, lengths=[10, 20])


@pytest.mark.parametrize(
    ("ids", "why"),
    [
        (np.zeros((N, 2)), "must be 1D"),
        (np.where(np.arange(N) == 7, np.nan, 1.0), "row 7, the sequence id is missing"),
        (np.arange(N) > 5, "of type bool"),
        ("who", "names a column, which arrays do not have"),
    ],
)
def test_ids_that_are_none_are_refused_alike(fitted: em.GaussianHMM, ids: Any, why: str) -> None:
    for ask in (fitted.predict, fitted.score, em.GaussianHMM(2, **SETTINGS).fit):
        with pytest.raises(em.DaskEMError, match=why):
            ask(X, sequence=ids)
    with pytest.raises(em.DataError, match="no column 'who'"):
        fitted.predict(pd.DataFrame(X), sequence="who")


def test_files_and_collections_say_the_same(fitted: em.GaussianHMM, tmp_path: Path) -> None:
    frame = pd.DataFrame(X, columns=["a", "b"]).assign(who=[f"id {i}" for i in IDS])
    frame.to_parquet(tmp_path / "x.parquet", row_group_size=700)
    zarr.create_array(tmp_path / "x.zarr", data=X, chunks=(900, 2))
    table = dd.from_pandas(frame, npartitions=7)
    expected = fitted.predict(X, IDS)
    for data, ids in [
        (frame, "who"),
        (table, "who"),
        (tmp_path / "x.parquet", "who"),
        (tmp_path / "x.zarr", IDS),
        (da.from_array(X, chunks=(1234, 2)), IDS),
        (da.from_array(X, chunks=(500, 1)), IDS),
    ]:
        assert fitted.score(data, sequence=ids) == pytest.approx(fitted.loglik_, rel=1e-12)
        own = fitted.predict(data, sequence=ids)
        assert np.array_equal(np.asarray(own), expected), type(data)
        assert np.asarray(fitted.predict_proba(data, sequence=ids)) == pytest.approx(
            fitted.predict_proba(X, IDS), abs=1e-12
        )


def test_one_long_sequence_of_many_blocks() -> None:
    blocks = da.from_array(X, chunks=(97, 2))
    hmm = em.GaussianHMM(3, sample_bytes=2000 * 40, **SETTINGS).fit(blocks)
    assert hmm.n_passes_ > 1
    assert hmm.status_ == "converged"
    whole = em.GaussianHMM(3, **SETTINGS).fit(X)
    assert hmm.loglik_ == pytest.approx(whole.loglik_, abs=0.1)
    assert hmm.score(X) == pytest.approx(hmm.loglik_, rel=1e-12)
    assert np.array_equal(hmm.predict(blocks).compute(), hmm.predict(X))
    assert hmm.filter(blocks).compute() == pytest.approx(hmm.filter(X), abs=1e-12)


def test_threads_and_a_cluster_say_the_same(client: Any) -> None:
    from dask_em.executors.dask import DaskExecutor

    blocks = da.from_array(X, chunks=(97, 2))
    here, there = (
        em.GaussianHMM(3, sample_bytes=2000 * 40, executor=executor, **SETTINGS).fit(blocks)
        for executor in (em.ThreadsExecutor(), DaskExecutor(client))
    )
    assert here.loglik_ == there.loglik_
    assert np.array_equal(here.transmat_, there.transmat_)
    assert np.array_equal(here.means_, there.means_)


def test_a_fit_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    blocks = da.from_array(X, chunks=(97, 2))
    settings = {"sample_bytes": 2000 * 40, "checkpoint": tmp_path / "fit", **SETTINGS}
    with pytest.warns(em.FitWarning):
        em.GaussianHMM(3, max_passes=2, **settings).fit(blocks, sequence=IDS)
    went_on = em.GaussianHMM(3, **settings).fit(blocks, sequence=IDS)
    straight = em.GaussianHMM(3, sample_bytes=2000 * 40, **SETTINGS).fit(blocks, sequence=IDS)
    assert np.array_equal(went_on.transmat_, straight.transmat_)


def test_any_distribution() -> None:
    frame = pd.DataFrame({"level": X[:, 0], "count": RNG.poisson(1 + 4 * STATES), "on": RNG.random(N) < STATES / 3})
    product = em.Product({"level": em.Gaussian("diag"), "count": em.Poisson(), "on": em.Bernoulli()})
    hmm = em.HiddenMarkov(3, product, **SETTINGS).fit(frame, sequence=IDS)
    order = np.argsort(hmm.components_["count"].rates[:, 0])
    assert hmm.components_["count"].rates[order, 0] == pytest.approx([1, 5, 9], rel=0.1)
    letters = pd.DataFrame({"base": np.array(list("acgt"))[(STATES + (RNG.random(N) < 0.2)) % 4]})
    codes = em.CategoricalHMM(3, **SETTINGS).fit(letters, sequence=IDS)
    assert codes.distribution_.levels == (("a", "c", "g", "t"),)
    assert codes.emissionprob_.shape == (3, 4)
    assert len(codes.predict(letters, IDS)) == N


def test_rows_and_values_may_be_missing(fitted: em.GaussianHMM) -> None:
    x = X.copy()
    x[RNG.random(X.shape) < 0.1] = np.nan
    x[1000:1010] = np.nan
    holes = em.GaussianHMM(3, **SETTINGS).fit(x, sequence=IDS)
    order = np.argsort(holes.means_[:, 0])
    assert holes.means_[order, 0] == pytest.approx([0, 2.5, 5], abs=0.1)
    assert np.isfinite(holes.predict_proba(x, IDS)).all()


def test_covariances_as_hmmlearn_has_them() -> None:
    for kind in ("full", "tied", "diag", "spherical"):
        hmm = em.GaussianHMM(2, kind, **SETTINGS).fit(X[:500])
        assert hmm.covars_.shape == (2, 2, 2)
        assert (np.linalg.eigvalsh(hmm.covars_) > 0).all()


def test_left_to_right() -> None:
    steps = np.tile(np.repeat([0, 1, 2], [5, 10, 5]), 50)
    x = np.random.default_rng(1).normal(size=(1000, 1)) + 3 * steps[:, None]
    hmm = em.GaussianHMM(3, transitions="left-right", **SETTINGS).fit(x, lengths=[20] * 50)
    assert hmm.startprob_.tolist() == [1, 0, 0]
    assert (hmm.transmat_ > 0).tolist() == [[True, True, False], [False, True, True], [False, False, True]]
    assert hmm.means_.ravel() == pytest.approx([0, 3, 6], abs=0.2)
    masked = em.GaussianHMM(3, transitions=[[1, 1, 0], [0, 1, 1], [1, 0, 1]], **SETTINGS).fit(x, lengths=[20] * 50)
    assert masked.transmat_[0, 2] == masked.transmat_[1, 0] == masked.transmat_[2, 1] == 0


def test_states_that_are_mixtures(tmp_path: Path) -> None:
    part = np.random.default_rng(3).integers(2, size=N)
    x = np.random.default_rng(4).normal(10.0 * STATES + 3 * part, 0.5)[:, None]
    hmm = em.HiddenMarkov(3, em.Mixture(2, em.Gaussian("diag")), **SETTINGS).fit(x, sequence=IDS)
    means = np.sort(hmm.components_.parts.means.ravel())
    assert means == pytest.approx([0, 3, 10, 13, 20, 23], abs=0.1)
    assert hmm.components_.shares == pytest.approx(0.5, abs=0.05)
    hmm.save(tmp_path / "m.safetensors")
    back = em.load(tmp_path / "m.safetensors")
    assert np.array_equal(back.predict(x, IDS), hmm.predict(x, IDS))
    assert back.fit(x, sequence=IDS).loglik_ == hmm.loglik_


def test_states_to_come(fitted: em.GaussianHMM) -> None:
    ahead = fitted.forecast(X, 3)
    assert ahead.shape == (3, 3)
    assert ahead[1] == pytest.approx(fitted.filter(X)[-1] @ fitted.transmat_ @ fitted.transmat_)
    assert fitted.forecast(X, 500)[-1] == pytest.approx(fitted.stationary_distribution())
    each = fitted.forecast(X, 2, IDS)
    assert each.shape == (60, 2, 3)
    assert each[4, 0] == pytest.approx(fitted.filter(X[:500], IDS[:500])[-1] @ fitted.transmat_)
    assert fitted.forecast(da.from_array(X, chunks=(700, 2)), 3) == pytest.approx(ahead)
    with pytest.raises(em.ConfigurationError, match="steps=0"):
        fitted.forecast(X, 0)


def test_what_is_given_stays_or_is_begun_with(fitted: em.GaussianHMM) -> None:
    own = em.GaussianHMM(3, params="st", init_params="st", **SETTINGS)
    with pytest.raises(em.ConfigurationError, match="set means_ before the fit"):
        own.fit(X, sequence=IDS)
    own.means_, own.covariances_ = fitted.means_ + 0.1, fitted.covariances_
    own.fit(X, sequence=IDS)
    assert np.array_equal(own.means_, fitted.means_ + 0.1)
    assert own.transmat_ == pytest.approx(fitted.transmat_, abs=0.02)
    assert own.n_parameters() == 2 + 6
    begun = em.GaussianHMM(3, init_params="", **SETTINGS)
    begun.startprob_, begun.transmat_ = np.full(3, 1 / 3), np.full((3, 3), 1 / 3)
    begun.means_, begun.covariances_ = fitted.means_[[1, 0, 2]] + 0.3, fitted.covariances_
    begun.fit(X, sequence=IDS)
    assert begun.means_ == pytest.approx(fitted.means_[[1, 0, 2]], abs=0.01)
    counts = em.PoissonHMM(2, params="l", init_params="l", **SETTINGS)
    counts.startprob_, counts.transmat_ = np.array([0.5, 0.5]), np.array([[0.9, 0.1], [0.1, 0.9]])
    counts.fit(RNG.poisson(1 + 5 * (STATES > 0))[:, None])
    assert counts.transmat_.tolist() == [[0.9, 0.1], [0.1, 0.9]]
    assert counts.startprob_.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("masks", "why"),
    [
        ({"params": "x"}, "params='x' must be some of the letters 'stmc'"),
        ({"params": "stm"}, "c and m are estimated together"),
        ({"params": "st"}, "params leaves components as it is, and init_params begins it anew"),
        ({"init_params": "mc"}, "set startprob_ before the fit"),
    ],
)
def test_masks_that_do_not_go_together(masks: dict[str, Any], why: str) -> None:
    with pytest.raises(em.ConfigurationError, match=why):
        em.GaussianHMM(2, **masks, **SETTINGS).fit(X)


def test_what_the_chain_is_like(fitted: em.GaussianHMM) -> None:
    assert fitted.occupancy(X, IDS) == pytest.approx(fitted.predict_proba(X, IDS).sum(axis=0))
    assert fitted.expected_durations() == pytest.approx(1 / (1 - np.diag(fitted.transmat_)))
    length = fitted.coalescence(X)
    assert length is not None
    assert 3 < length < 200
    after_another = np.vstack([X[STATES == 2][:1], X[:length]])
    assert fitted.filter(X[:length])[-1] == pytest.approx(fitted.filter(after_another)[-1], abs=1e-12)
    assert fitted.coalescence(X[:2]) is None


def test_a_state_that_nothing_leads_to_is_said() -> None:
    hmm = em.GaussianHMM(2, params="tmc", init_params="mc", **SETTINGS)
    hmm.startprob_, hmm.transmat_ = np.array([1.0, 0.0]), np.array([[1.0, 0.0], [0.5, 0.5]])
    with pytest.warns(em.FitWarning, match="no way in, from the start or any other state"):
        hmm.fit(X)
    assert hmm.status_ == "degenerate"


def test_a_row_that_no_state_can_have_made_is_named() -> None:
    class Never(em.Poisson):
        """Counts, none of which is 7."""

        def log_density(self, params: Any, x: np.ndarray) -> np.ndarray:
            density: np.ndarray = super().log_density(params, x)
            density[x[:, 0] == 7] = -np.inf
            return density

    counts = RNG.integers(0, 5, size=(100, 1))
    hmm = em.HiddenMarkov(2, Never(), **SETTINGS).fit(counts)
    counts[42] = 7
    with pytest.raises(em.DataError, match="row 42, the density is zero under every state"):
        hmm.predict(counts)


def test_saved_and_loaded(fitted: em.GaussianHMM, tmp_path: Path) -> None:
    fitted.save(tmp_path / "hmm.safetensors")
    back = em.load(tmp_path / "hmm.safetensors")
    assert isinstance(back, em.GaussianHMM)
    assert np.array_equal(back.predict(X, IDS), fitted.predict(X, IDS))
    assert back.loglik_ == fitted.loglik_
    assert clone(back).get_params()["n_states"] == 3


def test_a_warm_start_stays(fitted: em.GaussianHMM) -> None:
    again = clone(fitted).set_params(warm_start=True).fit(X, sequence=IDS)
    again.fit(X, sequence=IDS)
    assert again.loglik_ >= fitted.loglik_ - 0.05


def test_rows_are_drawn_in_order(fitted: em.GaussianHMM) -> None:
    x, states = fitted.sample(20_000)
    assert x.shape == (20_000, 2)
    moves = np.zeros((3, 3))
    np.add.at(moves, (states[:-1], states[1:]), 1)
    assert moves / moves.sum(axis=1, keepdims=True) == pytest.approx(fitted.transmat_, abs=0.02)
    assert x[states == 0].mean(axis=0) == pytest.approx(fitted.means_[0], abs=0.1)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"method": "map"}, "method='map': choose one of 'viterbi', 'posterior'"),
    ],
)
def test_what_is_not_asked_so(fitted: em.GaussianHMM, asked: dict[str, Any], why: str) -> None:
    with pytest.raises(em.ConfigurationError, match=why):
        fitted.predict(X, IDS, **asked)


def test_weights_are_of_sequences() -> None:
    w = np.ones(N)
    w[150] = 2.0
    with pytest.raises(em.DataError, match="rows of sequence 1 weigh 1 and 2"):
        em.GaussianHMM(2, **SETTINGS).fit(X, sequence=IDS, sample_weight=w)


@pytest.mark.parametrize("rows", [N, 130])
def test_rows_of_one_sequence_are_one_after_another(rows: int) -> None:
    ids = IDS.copy()
    ids[-5:] = 3
    blocks = da.from_array(X, chunks=(rows, 2))
    with pytest.raises(em.DataError, match="rows of 1 sequence, such as 3, go on after those of others: sort"):
        em.GaussianHMM(2, **SETTINGS).fit(blocks, sequence=ids)


def test_a_code_that_was_never_seen_is_refused_by_a_score_too() -> None:
    hmm = em.CategoricalHMM(2, random_state=0, verbose=0).fit(np.array([[0], [1]] * 50 + [[2]]))
    for ask in (hmm.score, hmm.bic, hmm.predict):
        with pytest.raises(em.DataError, match=r"row 1, column 0 is 3, where Categorical needs a code from 0 to 2"):
            ask(np.array([[0], [3]]))


def test_lengths_that_do_not_add_up_are_said() -> None:
    x = np.zeros((10, 1))
    for n in ([3, 4], [10, 1]):
        with pytest.raises(em.DataError, match=f"lengths add up to {sum(n)}, and X has 10 rows"):
            em.GaussianHMM(2, verbose=0).fit(x, lengths=n)


# ---------------------------------------------------------------- states that cannot follow one another


def _given(start: Any, moves: Any, means: Any) -> Any:
    """A chain of those parameters, of variance one."""
    hmm = em.GaussianHMM(len(start), params="", init_params="", verbose=0)
    hmm.startprob_, hmm.transmat_ = np.array(start, float), np.array(moves, float)
    hmm.means_, hmm.covariances_ = np.array(means, float)[:, None], np.ones((len(start), 1, 1))
    return hmm.fit(np.arange(9.0)[:, None])


def _in_logs(hmm: Any, x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Log-likelihood, smoothed and filtered shares, by plain recursions in logarithms."""
    with np.errstate(divide="ignore"):
        start, moves = np.log(hmm.startprob_), np.log(hmm.transmat_)
    logb = -0.5 * (x - hmm.means_.T) ** 2 - 0.5 * np.log(2 * np.pi)
    forward, backward = np.empty_like(logb), np.zeros_like(logb)
    forward[0] = start + logb[0]
    for t in range(1, len(x)):
        forward[t] = logsumexp(forward[t - 1][:, None] + moves, axis=0) + logb[t]
    for t in range(len(x) - 2, -1, -1):
        backward[t] = logsumexp(moves + logb[t + 1] + backward[t + 1], axis=1)
    both = forward + backward
    return (
        float(logsumexp(forward[-1])),
        np.exp(both - logsumexp(both, axis=1, keepdims=True)),
        np.exp(forward - logsumexp(forward, axis=1, keepdims=True)),
    )


LEFT_RIGHT = ([1, 0, 0], [[0.9, 0.1, 0], [0, 0.9, 0.1], [0, 0, 1]])
ROUND = ([0.5, 0.5, 0], [[0.8, 0.2, 0], [0, 0.5, 0.5], [0.3, 0, 0.7]])


@pytest.mark.parametrize("kind", [LEFT_RIGHT, ROUND], ids=["left-right", "round"])
@pytest.mark.parametrize("spread", [3.0, 15.0, 40.0])
@pytest.mark.parametrize("rows", [1, 7, 50, 300])
def test_far_states_that_cannot_follow_one_another(kind: Any, spread: float, rows: int) -> None:
    """A state's share may be far too small for a number, and all that is possible later."""
    rng = np.random.default_rng(int(spread))
    means = rng.normal(0, spread, 3)
    x = (rng.choice(means, size=20).repeat(10) + rng.normal(size=200))[:, None]
    hmm = _given(*kind, means)
    loglik, smoothed, filtered = _in_logs(hmm, x)
    blocks = da.from_array(x, chunks=(rows, 1))
    assert np.isclose(hmm.score(blocks), loglik, rtol=1e-11)
    assert np.allclose(hmm.predict_proba(blocks).compute(), smoothed, atol=1e-9)
    assert np.allclose(hmm.filter(blocks).compute(), filtered, atol=1e-9)
    assert np.allclose(hmm.predict_proba(x)[-1], hmm.filter(x)[-1], atol=1e-12)


def test_an_underflow_at_the_end_of_a_long_block_loses_nothing() -> None:
    x = np.r_[np.zeros(34_000), np.full(34_000, 200.0)][:, None]  # more rows than are kept
    hmm = _given(*LEFT_RIGHT, [0, 50, 200])
    assert np.isclose(hmm.score(da.from_array(x, chunks=(34_000, 1))), _in_logs(hmm, x)[0], rtol=1e-11)


def test_questions_refuse_torn_sequences_and_take_weights() -> None:
    x = np.random.default_rng(0).normal(size=(40, 1))
    hmm = em.GaussianHMM(2, random_state=0, verbose=0).fit(x)
    torn = np.repeat([0, 1, 0, 2], 10)
    for ask in (hmm.score, hmm.predict, hmm.predict_proba, hmm.filter, hmm.occupancy):
        with pytest.raises(em.DataError, match="go on after those of others"):
            ask(x, sequence=torn)
    assert np.isclose(hmm.score(x, sample_weight=np.full(40, 2.0)), 2 * hmm.score(x))
