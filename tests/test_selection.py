"""Selection: candidates that share their passes, and the table that is kept of them."""

import warnings
from typing import Any

import numpy as np
import pytest

import dask_em as em
from dask_em.sources.array import ArraySource


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = np.array([[-4.0, 0.0], [4.0, 0.0], [0.0, 5.0]])
    return centres[rng.integers(3, size=12_000)] + rng.normal(size=(12_000, 2))


def gm(**settings: Any) -> em.GaussianMixture:
    return em.GaussianMixture(**{"random_state": 0, "verbose": 0, "n_init": 4, **settings})


class Counted(ArraySource):
    """Counts the blocks that are read."""

    in_memory = False
    reads = 0

    def read(self, index: int) -> em.Chunk:
        Counted.reads += 1
        return super().read(index)


@pytest.mark.parametrize("criterion", ["bic", "aic", "icl", "held_out"])
def test_the_number_of_clusters_is_found(x: np.ndarray, criterion: str) -> None:
    best = em.select(gm(), x, n_components=range(1, 6), criterion=criterion)
    if criterion in ("bic", "icl"):
        assert best.best_params_ == {"n_components": 3}
    assert best.best_params_["n_components"] >= 3
    assert list(best.table_["n_components"]) == [1, 2, 3, 4, 5]
    assert best.best_estimator_.n_components == best.table_["n_components"][best.best_index_]
    assert np.isfinite(best.best_estimator_.score(x))


def test_criteria_are_those_of_the_likelihood(x: np.ndarray) -> None:
    best = em.select(gm(), x, n_components=[2, 3], covariance_type=["full", "diag", "tied"], criterion="icl")
    assert len(best.table_) == 6
    gm3 = best.best_estimator_
    row = best.table_.iloc[best.best_index_]
    assert row["covariance_type"] == gm3.covariance_type
    assert row["loglik"] == pytest.approx(gm3.score_samples(x).sum(), rel=1e-10)
    assert row["n_parameters"] == gm3.n_parameters()
    assert row["bic"] == pytest.approx(gm3.bic(x), rel=1e-10)
    assert row["aic"] == pytest.approx(gm3.aic(x), rel=1e-10)
    p = gm3.predict_proba(x)
    entropy = -np.sum(p * np.log(np.maximum(p, 1e-300)))
    assert row["icl"] == pytest.approx(row["bic"] + 2 * entropy, rel=1e-8)


def test_candidates_reach_what_they_reach_alone(x: np.ndarray) -> None:
    best = em.select(gm(), x, n_components=[2, 3], criterion="icl")
    for k, loglik in zip(best.table_["n_components"], best.table_["loglik"], strict=True):
        assert gm(n_components=k).fit(x).loglik_ == pytest.approx(loglik, abs=0.1)


def test_all_candidates_share_the_passes(x: np.ndarray) -> None:
    small = 3000 * (2 * 8 + 16)
    Counted.reads = 0
    best = em.select(gm(sample_bytes=small, max_passes=60), Counted(x, sizes=[1000] * 12), n_components=range(1, 6))
    passes = best.best_estimator_.n_passes_
    assert Counted.reads == 12 * passes
    alone = gm(n_components=3, sample_bytes=small).fit(Counted(x, sizes=[1000] * 12))
    assert passes <= 3 * alone.n_passes_
    ended = set(best.table_["status"])
    assert ended <= {"converged", "surpassed"}
    assert best.table_["status"][best.best_index_] == "converged"


def test_who_has_next_to_nothing_to_gain_has_converged() -> None:
    centres = np.array([[0, 0], [6, 0], [0, 6]])[np.random.default_rng(9).integers(3, size=12_000)]
    x = 1.8 * np.random.default_rng(0).normal(size=(12_000, 2)) + centres
    grid = {"n_components": range(1, 6), "covariance_type": ["full", "diag", "spherical"]}
    table = em.select(gm(sample_bytes=3000 * 32), x, **grid).table_
    passed = table.loc[table["status"] == "surpassed", "message"]
    assert passed.str.extract(r"gain about (\S+) nats")[0].astype(float).min() >= 0.05  # tol
    assert table["status"].isin(["converged", "surpassed"]).all()


def test_the_table_begins_with_what_decides_and_tells_passes_from_steps(x: np.ndarray) -> None:
    for criterion in ("bic", "icl"):
        best = em.select(gm(), x, n_components=range(1, 6), criterion=criterion)
        assert list(best.table_)[:4] == ["n_components", criterion, "loglik", "status"]
    assert set(best.table_["passes"]) == {1}  # the rows stayed in memory
    assert best.table_["steps"].max() > 1
    assert 0 < best.seconds_ < 60
    small = em.select(gm(sample_bytes=3000 * (2 * 8 + 16), max_passes=60), x, n_components=range(1, 6))
    assert (small.table_["passes"] == 1 + small.table_["steps"]).all()


def test_a_best_candidate_at_the_edge_of_the_grid_is_a_reason_to_look_further(x: np.ndarray) -> None:
    with pytest.warns(em.FitWarning, match="the best n_components, 2, is the largest in the grid: a larger one may"):
        em.select(gm(), x, n_components=[1, 2])
    with pytest.warns(em.FitWarning, match="the best n_components, 4, is the smallest in the grid: a smaller one may"):
        em.select(gm(), x, n_components=[4, 5])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        em.select(gm(), x, n_components=range(1, 6))
        em.select(gm(), x[:, :1] * 0 + np.random.default_rng(0).normal(size=(len(x), 1)), n_components=[1, 2])


def test_rows_held_out_are_not_learned_from(x: np.ndarray) -> None:
    small = 3000 * (2 * 8 + 16)
    for settings in ({}, {"sample_bytes": small}):  # over rows in memory, and over passes
        best = em.select(gm(**settings), x, n_components=3, held_out=0.3)
        row = best.table_.iloc[0]
        own = best.best_estimator_
        total = own.score_samples(x).sum()
        n_held = (total - row["loglik"]) / row["held_out"]
        assert 0.28 * len(x) < n_held < 0.32 * len(x)
        assert abs(row["held_out"] - row["loglik"] / (len(x) - n_held)) < 0.05


@pytest.mark.cluster
def test_the_same_table_on_a_cluster(x: np.ndarray, client: Any) -> None:
    small = 3000 * (2 * 8 + 16)
    settings = {"n_components": [2, 3], "criterion": "held_out"}
    here = em.select(gm(sample_bytes=small, executor=em.ThreadsExecutor(2)), x, **settings)
    there = em.select(gm(sample_bytes=small, executor=em.DaskExecutor(client)), x, **settings)
    assert here.table_.equals(there.table_)


def test_weights_count(x: np.ndarray) -> None:
    w = np.random.default_rng(1).integers(0, 3, size=len(x)).astype(float)
    best = em.select(gm(), x, n_components=[2, 3], sample_weight=w)
    own = best.best_estimator_
    assert best.table_["bic"][best.best_index_] == pytest.approx(own.bic(x, sample_weight=w), rel=1e-9)


def test_a_candidate_that_cannot_be_fitted_has_its_row_and_its_reason() -> None:
    few = np.random.default_rng(0).normal(size=(6, 1))
    with pytest.raises(em.DataError, match="n_components=7"):
        em.select(gm(), few, n_components=[7, 8])
    best = em.select(gm(reg_covar=0.01), few, n_components=[1, 7])
    assert best.table_["status"][1] == "failed"
    assert "n_components=7" in best.table_["message"][1]
    assert best.best_params_ == {"n_components": 1}


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"n_component": [1]}, "GaussianMixture has no hyperparameter 'n_component'; it has"),
        ({"n_components": []}, "n_components has no values in the grid"),
        ({"n_components": [0]}, "n_components=0 must be a whole number of at least 1"),
        ({"criterion": "best"}, "criterion='best' is unknown; choose one of"),
        ({"held_out": 1.5}, "held_out=1.5 must be a share between 0 and 1"),
    ],
)
def test_grids_that_make_no_sense(x: np.ndarray, grid: dict[str, Any], words: str) -> None:
    with pytest.raises(em.ConfigurationError, match=words):
        em.select(gm(), x, **grid)


def test_a_grid_that_does_not_fit_in_memory_says_what_would() -> None:
    wide = np.broadcast_to(np.zeros(1), (100, 3000))
    with pytest.raises(em.ConfigurationError, match=r"the [12] smallest of the 3 candidates would fit"):
        em.select(gm(n_init=1), wide, n_components=[1, 20, 400])
    huge = np.broadcast_to(np.zeros(1), (100, 100_000))
    with pytest.raises(em.ConfigurationError, match=r"not even the smallest candidate would fit"):
        em.select(gm(n_init=1), huge, n_components=[1, 2])


def test_partial_fit_tends_to_the_fit_of_all_rows(x: np.ndarray) -> None:
    stream = gm(n_components=3)
    for batch in np.array_split(x, 24):
        assert stream.partial_fit(batch) is stream
    whole = gm(n_components=3).fit(x)
    assert stream.n_passes_ == 24
    assert stream.n_rows_ == len(x)
    assert stream.status_ == "streaming"
    assert "24 batches of a stream" in stream.message_
    short = (whole.score(x) - stream.score(x)) * len(x)
    assert -0.1 < short < 5 * whole.n_parameters()


def test_a_stream_is_saved_and_goes_on(x: np.ndarray, tmp_path: Any) -> None:
    one = gm(n_components=3)
    for batch in np.array_split(x[:6000], 6):
        one.partial_fit(batch)
    one.save(tmp_path / "stream.safetensors")
    other = em.load(tmp_path / "stream.safetensors")
    for stream in (one, other):
        stream.partial_fit(x[6000:7000])
    assert np.array_equal(one.means_, other.means_)
    assert one.n_rows_ == other.n_rows_ == 7000


def test_a_fitted_model_goes_on_as_a_stream(x: np.ndarray) -> None:
    fitted = gm(n_components=3).fit(x[:6000])
    before = fitted.means_
    fitted.partial_fit(x[6000:])
    assert fitted.n_passes_ == 1
    assert 0 < np.abs(fitted.means_ - before).max() < 0.2
    fitted.fit(x[:6000])  # a fit forgets the stream
    assert not hasattr(fitted, "stream_")


def test_batches_of_other_columns_are_refused(x: np.ndarray) -> None:
    with pytest.raises(ValueError, match="3 features"):
        gm(n_components=2).partial_fit(x).partial_fit(np.column_stack([x, x[:, 0]]))


def test_what_has_no_likelihood_is_not_selected_by_one(x: np.ndarray) -> None:
    with pytest.raises(em.ConfigurationError, match="KMeans has no likelihood that a criterion could weigh"):
        em.select(em.KMeans(random_state=0, verbose=0), x, n_clusters=[2, 3])


def test_starts_may_differ_and_what_candidates_share_may_not() -> None:
    x = np.random.default_rng(0).normal(size=(600, 2))
    gm = em.GaussianMixture(2, random_state=0, verbose=0)
    found = em.select(gm, x, n_init=[1, 20])
    assert found.table_.n_init.tolist() == [1, 20]
    assert len(found.best_estimator_.restarts_) == found.best_estimator_.n_init
    for name, values in {"solver": ["em"], "max_passes": [2, 20], "tol": [1.0], "random_state": [0, 1]}.items():
        with pytest.raises(em.ConfigurationError, match=f"{name} is the same for all candidates"):
            em.select(gm, x, **{name: values})


@pytest.mark.parametrize(("first", "second"), [("bic", "aic"), ("icl", "bic"), ("held_out", "bic")])
def test_a_checkpoint_of_another_criterion_is_refused(tmp_path: Any, first: str, second: str) -> None:
    x = np.random.default_rng(0).normal(size=(600, 2))
    own = gm(checkpoint=tmp_path / "c", n_init=1)
    em.select(own, x, n_components=[1, 2], criterion=first)
    words = f"was written by a fit with criterion='{first}', and this one has criterion='{second}'"
    with pytest.raises(em.ConfigurationError, match=words):
        em.select(own, x, n_components=[1, 2], criterion=second)


def test_the_same_call_goes_on_though_its_seed_is_drawn(tmp_path: Any) -> None:
    x = np.random.default_rng(0).normal(size=(600, 2))
    gm = em.GaussianMixture(verbose=0, checkpoint=tmp_path / "c")
    first, again = (em.select(gm, x, n_components=[1, 2]) for _ in range(2))
    assert again.table_.loglik.tolist() == first.table_.loglik.tolist()
