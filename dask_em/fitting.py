"""`fit`: open the data, take the census, find starts on a sample, and run the passes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_em import store
from dask_em.callbacks.checkpoint import Checkpoint, CheckpointWriter, read_checkpoint
from dask_em.callbacks.progress import Progress, progress_callback
from dask_em.config import option
from dask_em.engine import Callback, Fit, Witness
from dask_em.errors import ConfigurationError, DataError
from dask_em.executors import default_executor
from dask_em.executors.threads import ThreadsExecutor
from dask_em.initialize import Census, Moments, take_census
from dask_em.model import Chunk, Executor, Model, Params, Solver, Source, State
from dask_em.result import FitResult, explain
from dask_em.solvers import EM, make_solver
from dask_em.solvers.em import EMState
from dask_em.sources.array import ArraySource
from dask_em.sources.opening import open as open_source

for _stored in (Checkpoint, Census, Moments, Witness, EMState):
    store.register(_stored)

_SAMPLE_ROWS = 1 << 16  # enough to place components; the passes do the rest
_SAMPLE_TOL = 0.5  # nats of the sample's log-likelihood: closer than sampling error is wasted
_SAMPLE_PASSES = 300
_SMALLEST_SHARE = 0.5  # of this machine's memory that parameters and statistics may take


@dataclass(frozen=True)
class Settings:
    """How a fit runs, the model and the data aside; validated when built.

    Parameters
    ----------
    solver : str or Solver
    n_init : int
        Starts, all of which share every pass.
    seed : int
    tol : float
        Nats of the total log-likelihood.
    max_passes : int
        Complete reads of the data at most, the census included.
    time_limit : float, optional
        Seconds after which no further pass begins.
    checkpoint : str, optional
        Path or URL of a checkpoint to write after every pass and to go on from.
    verbose : int
        0 is silent; otherwise progress shows in a terminal or a notebook.
    """

    solver: str | Solver = "em"
    n_init: int = 1
    seed: int = 0
    tol: float = 0.05
    max_passes: int = 500
    time_limit: float | None = None
    checkpoint: str | None = None
    checkpoint_options: Mapping[str, Any] | None = None
    verbose: int = 1

    def __post_init__(self) -> None:
        whole = {"n_init": self.n_init, "max_passes": self.max_passes}
        for name, value in whole.items():
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
                raise ConfigurationError(f"{name}={value!r} must be a whole number of at least 1")
        if not (isinstance(self.tol, (int, float, np.number)) and 0 <= self.tol < float("inf")):
            raise ConfigurationError(f"tol={self.tol!r} must be a number of nats that is not negative")
        if self.time_limit is not None and not self.time_limit > 0:
            raise ConfigurationError(f"time_limit={self.time_limit!r} must be a positive number of seconds")

    def make_solver(self) -> Solver:
        """The solver that these settings name."""
        return make_solver(self.solver, tol=float(self.tol))


def fit(
    model: Model,
    data: Any,
    *,
    solver: str | Solver = "em",
    params: Params | Sequence[Params] | None = None,
    n_init: int = 1,
    random_state: int = 0,
    tol: float = 0.05,
    max_passes: int = 500,
    time_limit: float | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    callbacks: Sequence[Callback] = (),
    verbose: int = 1,
    **opening: Any,
) -> FitResult:
    """Fit any model that meets the contract, to any data that `open` opens.

    Parameters
    ----------
    model : Model
    data : array, frame, path, URL or Source
        What `dask_em.open` takes.
    solver : "em" or Solver
    params : optional
        Start here (a list: at each of these) instead of at `model.start` and EM on a sample.
    n_init : int
        Starts, which share every pass; the best result is kept.
    random_state : int
    tol : float
        Predicted nats of total log-likelihood still to be gained, below which a run has converged.
    max_passes : int
        Complete reads of the data at most, the census included.
    time_limit : float, optional
        Seconds after which no further pass begins.
    checkpoint : path or URL, optional
        Written after every pass; the same call goes on from it.
    executor : Executor, optional
        Default: the active `distributed.Client`'s cluster, else threads in this process.
    callbacks : sequence of Callback
    verbose : int
        0: no progress.
    **opening
        Keywords of `dask_em.open`: columns, weight, filters, storage_options, missing_chunks.

    Returns
    -------
    FitResult

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em.distributions.gaussian import Gaussian
    >>> from dask_em.models.mixture import Mixture
    >>> x = np.concatenate([np.arange(50.0), np.arange(50.0) + 1000])[:, None]
    >>> result = fit(Mixture(2, Gaussian()), x)
    >>> result.status, np.sort(result.params.components.means.ravel()).round(3).tolist()
    ('converged', [24.5, 1024.5])
    """
    settings = Settings(
        solver,
        n_init,
        random_state,
        tol,
        max_passes,
        time_limit,
        _path(checkpoint),
        opening.get("storage_options"),
        verbose,
    )
    if params is not None and not isinstance(params, (list, tuple)):
        params = [params]
    source = open_source(data, **opening)
    return run(model, source, settings, params=params, identity=None, executor=executor, callbacks=callbacks)


def _path(path: Any) -> str | None:
    return None if path is None else os.fspath(path)


def run(
    model: Model,
    source: Source,
    settings: Settings,
    *,
    params: Sequence[Params] | None = None,
    identity: Mapping[str, Any] | None = None,
    executor: Executor | None = None,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """The whole of a fit to an open source, as estimators use it.

    `identity` names what else, beside the settings, a checkpoint of this fit belongs to.
    """
    began = time.monotonic()
    _check_memory(model, source, settings.n_init if params is None else len(params))
    progress = progress_callback() if settings.verbose else None
    executor = executor or default_executor()
    try:
        job = _prepare(model, source, settings, params, identity or {"model": repr(model)}, executor, progress)
        if settings.time_limit is not None:
            job.time_limit = max(0.0, settings.time_limit - (time.monotonic() - began))
        job.callbacks = [*job.callbacks, *([] if progress is None else [progress]), *callbacks]
        job.run()
    finally:
        executor.close()
        if isinstance(progress, Progress):
            progress.close()
    return _result(job)


def _check_memory(model: Model, source: Source, n_sets: int) -> None:
    needed = 8 * n_sets * model.nbytes(source.n_features)  # parameters, sums and their copies in the merge
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    if has and needed > _SMALLEST_SHARE * has:
        raise ConfigurationError(
            f"{source.n_features} columns make parameters and sums of {needed / 2**30:.1f} GiB, more than half of "
            f"this machine's {has / 2**30:.1f} GiB: use covariance_type='diag', fewer components, starts or columns"
        )


def _prepare(
    model: Model,
    source: Source,
    settings: Settings,
    params: Sequence[Params] | None,
    identity: Mapping[str, Any],
    executor: Executor,
    progress: Any,
) -> Fit:
    """A fit ready to run: resumed from its checkpoint, or begun with a census and starts."""
    solver = settings.make_solver()
    belongs = {**identity, "solver": repr(solver), "n_init": int(settings.n_init), "random_state": int(settings.seed)}
    found = None
    if settings.checkpoint is not None:
        belongs["start"] = "given" if params is not None else "sample"
        found = read_checkpoint(settings.checkpoint, belongs, source.fingerprint, _options(settings))
    if found is not None:
        census, states, history = found.census, found.states, found.history
        model = model.about(census.moments.mean)
    else:
        if progress is not None:
            progress.census(len(source.blocks))
        census, sample = take_census(
            source,
            executor,
            sample_rows=_sample_rows(source),
            seed=settings.seed,
            accepts_nan=model.accepts_nan,
            progress=None if progress is None else progress.on_progress,
        )
        if progress is not None:
            progress.sample()
        model.check_data(census.moments.rows, census.moments.low, census.moments.high)
        model = model.about(census.moments.mean)
        polished = None if params is not None else find_starts(model, sample, settings.n_init, settings.seed)
        starts = list(params or ()) if polished is None else [state.params for state in polished]
        states = [solver.begin(model, start, sample) for start in starts]
        if polished is not None and any(state.status == "interrupted" for state in polished):
            note = "interrupted before the first full pass: these parameters were fitted to a sample of the rows only"
            states = [replace(state, loglik=np.nan, status="interrupted", note=note) for state in states]
        history = [census.record]
    job = Fit(model, source, solver, executor, list(states), census.witness, list(history), settings.max_passes)
    if settings.checkpoint is not None:
        job.callbacks = [CheckpointWriter(settings.checkpoint, belongs, census, _options(settings))]
    job.census = census
    return job


def _options(settings: Settings) -> dict[str, Any] | None:
    return None if settings.checkpoint_options is None else dict(settings.checkpoint_options)


def _sample_rows(source: Source) -> int:
    row_bytes = source.n_features * source.dtype.itemsize + 8
    return int(max(1, min(_SAMPLE_ROWS, option("sample-bytes") // row_bytes)))


def find_starts(model: Model, sample: Chunk, n_init: int, seed: int) -> list[State]:
    """One start for each run: the model's own, then EM on the sample, all runs in the same passes."""
    if sample.n_rows == 0:
        raise DataError("no row has a positive weight: nothing can be learned from the data")
    firsts = [model.start(sample, np.random.default_rng([seed, i])) for i in range(n_init)]
    solver = EM(tol=_SAMPLE_TOL)
    resident = Fit(
        model,
        ArraySource(np.asfortranarray(sample.x), weight=sample.weight, sequence=sample.sequence),
        solver,
        ThreadsExecutor(),
        [solver.begin(model, p) for p in firsts],
        max_passes=_SAMPLE_PASSES,
    )
    resident.run()
    return resident.states


def _result(job: Fit) -> FitResult:
    best = job.states[job.best]
    status, message = explain(best.status, best.note, best.gain, job.model.degeneracies(best.params))
    moments = job.census.moments
    runs = [
        {"start": i, "loglik": float(s.loglik), "status": s.status, "passes": s.n_passes, "note": s.note}
        for i, s in enumerate(job.states)
    ]
    return FitResult(
        model=job.model,
        params=best.params,
        loglik=float(best.loglik),
        status=status,
        message=message,
        n_passes=job.n_passes,
        n_rows=moments.rows,
        weight=moments.weight,
        fingerprint=job.source.fingerprint,
        history=job.history,
        runs=runs,
    )
