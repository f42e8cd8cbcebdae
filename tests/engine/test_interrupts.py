"""Ctrl-C, limits and time: a fit ends cleanly, and says how."""

import _thread
import threading
import time
from typing import Any

import numpy as np
import pytest

import dask_em as em
from dask_em.callbacks import Quiet
from dask_em.model import Chunk
from dask_em.sources.array import ArraySource

# plain EM that never has enough, on data that is read again for every pass
ENDLESS: dict[str, Any] = {
    "tol": 0, "max_passes": 10**6, "random_state": 0, "verbose": 0, "solver": "em", "sample_bytes": 2000 * 40
}  # fmt: skip


class Slow(ArraySource):
    """A hundredth of a second a block."""

    in_memory = False

    def read(self, index: int) -> Chunk:
        time.sleep(0.01)
        return super().read(index)


class InterruptAfter(Quiet):
    """Ctrl-C comes so many seconds after the steps began: before, there may be no parameters to keep."""

    def __init__(self, seconds: float) -> None:
        self.timer = threading.Timer(seconds, _thread.interrupt_main)

    def on_start(self, fit: Any) -> None:
        self.timer.start()


@pytest.mark.parametrize("n_threads", [1, 3])
def test_ctrl_c_within_a_pass_keeps_the_last_complete_one(three_blobs: np.ndarray, n_threads: int) -> None:
    source = Slow(three_blobs, sizes=[100] * 60)
    ctrl_c = InterruptAfter(0.6 * 5.5 / n_threads)  # a pass takes 0.6 s on one thread
    before = threading.active_count()
    executor = em.ThreadsExecutor(n_threads)
    with pytest.warns(em.FitWarning, match="interrupted"):
        gm = em.GaussianMixture(3, executor=executor, callbacks=[ctrl_c], **ENDLESS).fit(source)
    ctrl_c.timer.join()
    assert gm.status_ == "interrupted"
    assert not gm.converged_
    assert 1 <= gm.n_passes_ <= 7
    assert gm.score(three_blobs) * 6000 == pytest.approx(gm.loglik_, rel=1e-10) or gm.n_passes_ == 1
    time.sleep(0.1)
    assert threading.active_count() <= before


class Again(Quiet):
    def __init__(self, at: int) -> None:
        self.at = at

    def on_step(self, fit: Any) -> None:
        if fit.n_passes == self.at:
            raise KeyboardInterrupt


@pytest.mark.cluster
def test_ctrl_c_leaves_the_scheduler_empty(three_blobs: np.ndarray, client: Any) -> None:
    executor = em.DaskExecutor(client)
    ctrl_c = InterruptAfter(2.0)
    with pytest.warns(em.FitWarning, match="interrupted"):
        em.GaussianMixture(3, executor=executor, callbacks=[ctrl_c], **ENDLESS).fit(three_blobs)
    ctrl_c.timer.join()
    deadline = time.monotonic() + 10
    while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) == 0


def test_max_passes_is_said_with_what_is_left(three_blobs: np.ndarray) -> None:
    with pytest.warns(
        em.FitWarning,
        match=r"max_passes: stopped after 5 passes, as max_passes=5 says, at log-likelihood -[\d,.]+"
        r"(, with about [\d,.]+ nats or more still to gain)?: raise max_passes",
    ):
        gm = em.GaussianMixture(3, **{**ENDLESS, "max_passes": 5}).fit(three_blobs)
    assert gm.status_ == "max_passes"
    assert gm.n_passes_ == 5
    assert len(gm.history_) == 5


def test_a_time_limit_ends_a_fit(three_blobs: np.ndarray) -> None:
    with pytest.warns(em.FitWarning, match=r"time_limit: stopped after \d+ passes, as time_limit=0.5 says, at log-lik"):
        gm = em.GaussianMixture(3, time_limit=0.5, **ENDLESS).fit(three_blobs)
    assert gm.status_ == "time_limit"
    assert f"at log-likelihood {gm.loglik_:,.6f}" in gm.message_
    assert "raise time_limit; to go on from here, begin at these parameters (warm_start=True" in gm.message_
    assert "of em.fit, params=result.params" in gm.message_
    assert "give checkpoint=, with which the same call goes on" in gm.message_


def test_steps_in_memory_are_not_called_passes(three_blobs: np.ndarray) -> None:
    with pytest.warns(em.FitWarning, match="stopped after 1 pass and 2 steps in memory, as max_passes=3 says"):
        gm = em.GaussianMixture(5, max_passes=3, tol=0, verbose=0, random_state=0).fit(three_blobs)
    assert (gm.n_passes_, gm.n_steps_, gm.to_sklearn().n_iter_) == (1, 2, 2)
    assert [(r["number"], r["pass"]) for r in gm.history_] == [(1, 1), (2, 1), (3, 1)]
    looked = gm.restarts_[gm.restarts_["steps"] > 0]
    assert set(looked["steps"]) == {2}
    assert set(looked["passes"]) == {0}
    with pytest.warns(em.FitWarning, match="2 steps in memory, as .* at inertia") as said:
        em.KMeans(5, max_passes=3, tol=0, verbose=0, random_state=0, n_init=1).fit(three_blobs)
    assert "nats" not in str(said[0].message)
    batch = em.GaussianMixture(2, random_state=0, verbose=0).partial_fit(three_blobs[:500])
    assert batch.message_ == "1 batch of a stream so far"


def test_the_reported_likelihood_is_that_of_the_parameters(three_blobs: np.ndarray) -> None:
    gm = em.GaussianMixture(3, random_state=0, verbose=0).fit(three_blobs)
    assert gm.score_samples(three_blobs).sum() == pytest.approx(gm.loglik_, rel=1e-12)
    assert gm.history_[-1]["loglik"] == gm.loglik_


def test_warm_start_goes_on_from_the_last_parameters(three_blobs: np.ndarray) -> None:
    gm = em.GaussianMixture(3, warm_start=True, **{**ENDLESS, "max_passes": 4})
    with pytest.warns(em.FitWarning):
        first = gm.fit(three_blobs).loglik_
    with pytest.warns(em.FitWarning):
        second = gm.fit(three_blobs).history_[1]["loglik"]
    assert second == first


LIMITS = [{"max_passes": 1}, {"time_limit": 1e-9}]


@pytest.mark.filterwarnings("ignore::dask_em.FitWarning")
@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_parameters_that_no_pass_looked_at_are_asked_where_that_costs_no_read(
    three_blobs: np.ndarray, limit: dict[str, Any]
) -> None:
    gm = em.GaussianMixture(3, random_state=0, verbose=0, **limit).fit(three_blobs)
    assert gm.n_passes_ == 1
    assert gm.loglik_ == pytest.approx(gm.score_samples(three_blobs).sum(), rel=1e-12)
    assert f"at log-likelihood {gm.loglik_:,.6f}" in gm.message_
    assert "before a step" not in gm.message_
    km = em.KMeans(3, random_state=0, verbose=0, **limit).fit(three_blobs)
    assert km.inertia_ == pytest.approx(-km.score(three_blobs), rel=1e-12)
    settings = {"random_state": 0, "verbose": 0, "n_init": 2, **limit}
    found = em.select(em.GaussianMixture(**settings), three_blobs, n_components=[1, 2, 3], held_out=0.2)
    assert np.isfinite(found.table_[["bic", "icl", "held_out"]]).all(axis=None)


@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_what_no_pass_looked_at_is_not_known_and_says_so(three_blobs: np.ndarray, limit: dict[str, Any]) -> None:
    settings = {"random_state": 0, "verbose": 0, "n_init": 2, "sample_bytes": 2000 * 40, **limit}
    words = "before a step looked at these parameters, so that their log-likelihood is not known, and `score` may tell"
    with pytest.warns(em.FitWarning, match=words):
        gm = em.GaussianMixture(3, **settings).fit(three_blobs)
    assert np.isnan(gm.loglik_)
    assert np.isfinite(gm.score(three_blobs))
    with pytest.warns(em.FitWarning, match="their inertia is not known"):
        km = em.KMeans(3, **settings).fit(three_blobs)
    assert np.isnan(km.inertia_)
    with pytest.warns(em.FitWarning, match="no candidate's bic is known, since none was looked at on all rows"):
        found = em.select(em.GaussianMixture(**settings), three_blobs, n_components=[1, 2])
    assert found.table_["bic"].isna().all()


def test_ctrl_c_before_the_end_of_the_first_pass_speaks_of_no_complete_one(
    three_blobs: np.ndarray, tmp_path: Any
) -> None:
    class Stop(Quiet):
        def on_start(self, fit: Any) -> None:
            raise KeyboardInterrupt

    with pytest.warns(
        em.FitWarning, match="interrupted: stopped by an interrupt, before a step looked at these parameters"
    ):
        gm = em.GaussianMixture(3, callbacks=[Stop()], **ENDLESS).fit(three_blobs)
    assert gm.status_ == "interrupted"
    assert np.isnan(gm.loglik_)
    assert "complete pass" not in gm.message_
    gm.save(tmp_path / "m")
    assert np.isnan(em.load(tmp_path / "m").loglik_)
