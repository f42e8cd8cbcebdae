"""Learning from a stream: where a stream stands, and how a batch moves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_em import store
from dask_em.engine import Fit, Run
from dask_em.errors import DataError
from dask_em.executors import default_executor
from dask_em.history import follow
from dask_em.model import Chunk, Source
from dask_em.moments import moments
from dask_em.result import FitResult
from dask_em.solvers.stepwise import StepwiseState

store.register(StepwiseState)


@store.register
@dataclass(frozen=True)
class Stream:
    """Where a stream stands.

    Attributes
    ----------
    center : ndarray of shape (n_features,)
        The point that sums are taken about, the same for all batches.
    state : StepwiseState
    n_rows : int
    variance : ndarray of shape (n_features,), optional
        Of the columns, in whose units priors may be.  None: not known.
    """

    center: np.ndarray
    state: StepwiseState
    n_rows: int
    variance: np.ndarray | None = None


def first_rows(source: Source) -> Chunk:
    """Some rows of the first block that has any: a filter may leave none of a block's."""
    for index in range(len(source.blocks)):
        chunk = source.read(index)
        if chunk.n_rows:
            return Chunk(chunk.x[:1000])
    raise DataError(f"{source.where} has no rows: skip empty batches of a stream")


def learn_batch(estimator: Any, source: Source) -> None:
    """Move an estimator by one batch; its first one is fitted, unless the estimator is fitted already."""
    stream: Stream | None = getattr(estimator, "stream_", None)
    solver, heard = estimator._stepwise(), estimator.callbacks or ()
    if stream is None:
        first = moments(first_rows(source))
        if not hasattr(estimator, "status_"):
            estimator._first_batch(source)
        state = solver.begin(estimator._fitted_model(), estimator._params())
        stream = Stream(first.mean, state, 0, first.variance)
    model = estimator._fitted_model().about(stream.center)
    if stream.variance is not None:
        model = model.in_units_of(stream.variance)
    executor = estimator.executor or default_executor()
    batch = Fit([Run(model, stream.state)], source, solver, executor, callbacks=heard)
    try:
        record = next(batch.steps())
        for callback in heard:
            callback.on_step(batch)
    finally:
        executor.close()
    state, n_rows = batch.states[0], stream.n_rows + record["rows"]
    earlier = list(estimator.history_) if stream.state.n_steps else []
    batches = f"{state.n_steps} batch" + ("es" if state.n_steps != 1 else "")
    estimator._finish(
        FitResult(
            model=model,
            params=state.params,
            loglik=model.reported(state.params, float(state.loglik) + model.log_prior(state.params)),
            status="streaming",  # a stream has no end to converge to
            message=f"{batches} of a stream so far" + (f"; {state.note}" if state.note else ""),
            n_passes=state.n_steps,
            n_steps=state.n_steps,
            n_rows=n_rows,
            weight=float(state.weight),
            fingerprint=source.fingerprint,
            history=[record],
            restarts=[],
        )
    )
    follow(earlier, estimator.history_, resident=False)
    estimator.history_ = earlier
    estimator.stream_ = Stream(stream.center, state, n_rows, stream.variance)
