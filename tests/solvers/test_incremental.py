"""Incremental EM, and plain EM that ends before it would fall."""

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

import dask_em as em
from dask_em.engine import Fit, Run
from dask_em.executors.threads import ThreadsExecutor
from dask_em.model import Chunk
from dask_em.models.mixture import MixtureModel
from dask_em.models.topics import TopicModel
from dask_em.solvers.batch import Batch
from dask_em.solvers.incremental import Incremental, IncrementalState
from dask_em.sources.array import ArraySource
from dask_em.sources.portion import Portion

RNG = np.random.default_rng(0)
TOPICS = RNG.dirichlet(np.full(80, 0.05), 5)
X = csr_array(np.array([RNG.multinomial(60, s @ TOPICS) for s in RNG.dirichlet(np.full(5, 0.2), 600)]))


def course(solver: Any, steps: int = 30) -> Fit:
    model = TopicModel(5).about(np.asarray(X.mean(axis=0)))
    start = model.start(Chunk(X), np.random.default_rng(0))
    fit = Fit([Run(model, solver.begin(model, start))], ArraySource(X, sizes=[50] * 12), solver, ThreadsExecutor(1))
    for _, _ in zip(range(steps), fit.steps(), strict=False):
        pass
    return fit


def test_a_step_is_one_pass_whatever_its_portions() -> None:
    fit = course(Incremental(), 1)
    state = fit.states[0]
    assert isinstance(state, IncrementalState)
    assert len(state.kept) == 4
    assert fit.history[0]["rows"] == 600
    assert fit.n_passes == 1
    assert fit.witness is not None
    assert fit.witness.rows == 600


def test_it_needs_fewer_passes_than_plain_em_to_go_as_far() -> None:
    plain = [r["loglik"] for r in course(Batch(share=1e-5)).history]
    quick = [r["loglik"] for r in course(Incremental(share=1e-5)).history]
    aim = plain[6]
    assert sum(v < aim for v in quick) <= 4


def test_what_it_says_of_the_likelihood_is_never_too_much() -> None:
    fit = course(Incremental(), 3)
    state, model = fit.states[0], fit.runs[0].model
    exact = model.e_step([state.params], Chunk(X))[0].total_loglik + model.log_prior(state.params)
    assert state.loglik <= exact


def test_the_end_is_a_look_at_the_last_parameters() -> None:
    fit = course(Incremental())
    state, model = fit.states[0], fit.runs[0].model
    assert state.status == "converged"
    exact = model.e_step([state.params], Chunk(X))[0].total_loglik + model.log_prior(state.params)
    assert np.isclose(state.loglik, exact, rtol=1e-12)
    assert state.kept == ()


def test_models_that_cannot_say_what_a_start_implies_do_without() -> None:
    rows = np.concatenate([RNG.normal(0, 1, 3000), RNG.normal(6, 1, 3000)])[:, None]
    result = em.fit(MixtureModel(2, em.Gaussian()), RNG.permutation(rows), solver=Incremental(1e-6), verbose=0)
    assert result.status == "converged"
    assert np.allclose(np.sort(result.params.components.means.ravel()), [0, 6], atol=0.1)


@pytest.mark.parametrize("of", [1, 2, 5, 13])
def test_portions_are_all_of_the_rows(of: int) -> None:
    source = ArraySource(X, sizes=[50] * 12)
    parts = [Portion(source, i, of) for i in range(of)]
    assert sum(p.n_rows or 0 for p in parts) == 600
    names = [b.name for p in parts for b in p.blocks]
    assert sorted(names) == sorted(b.name for b in source.blocks)
    for p in parts:
        for block in p.blocks:
            own, far = p.read(block.index), p.part(block.index, block.index + 1).read(block.index)
            assert abs(own.x - far.x).sum() == 0
    assert len({p.fingerprint for p in parts}) == of


def test_plain_em_ends_before_it_falls() -> None:
    fit = course(Batch(share=0.0), 200)
    bounds = [r["loglik"] for r in fit.history]
    assert np.diff(bounds).min() >= 0
