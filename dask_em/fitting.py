"""`fit`: any model, to any data, in passes that several fits may share."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from dask_em.callbacks.progress import Progress, progress_callback
from dask_em.engine import Callback
from dask_em.errors import ConfigurationError
from dask_em.executors import default_executor
from dask_em.hashing import Fold
from dask_em.job import Entry, Job
from dask_em.model import Executor, Model, Params, Solver, Source
from dask_em.race import Begin
from dask_em.result import FitResult
from dask_em.settings import Settings
from dask_em.sources.opening import open as open_source

_SMALLEST_SHARE = 0.5  # of this machine's memory that parameters and statistics may take


def fit(
    model: Model,
    data: Any,
    *,
    solver: str | Solver = "auto",
    params: Params | Sequence[Params] | None = None,
    n_init: int = 1,
    random_state: int | None = 0,
    tol: float = 0.05,
    max_passes: int = 500,
    time_limit: float | None = None,
    sample_bytes: int | None = None,
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
    solver : {"auto", "em", "anderson", "anchored"} or Solver
        "auto": anchored EM where the data is much larger than the sample in use, else Anderson
        acceleration; plain EM for a model that defines no more than `start`, `e_step` and `m_step`.
    params : optional
        Start here (a list: at each of these) instead of at starts that are raced on a sample.
    n_init : int
        Starts to race; the best go on to passes over the data, which they share.
    random_state : int or None
        None: another one each time.
    tol : float
        Predicted nats of total log-likelihood still to be gained, below which a run has converged.
    max_passes : int
        Passes at most, the census included.
    time_limit : float, optional
        Seconds after which no further pass begins.
    sample_bytes : int, optional
        Memory for the random sample of the rows; data that fits in it is read once.  Default: the
        option ``em.sample-bytes``.
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
    if not isinstance(model, Model):
        raise ConfigurationError(f"{model!r} is not a dask_em.Model: subclass it, and define start, e_step, m_step")
    settings = Settings(
        solver=solver,
        n_init=n_init,
        seed=random_state,
        tol=tol,
        max_passes=max_passes,
        time_limit=time_limit,
        sample_bytes=sample_bytes,
        checkpoint=None if checkpoint is None else os.fspath(checkpoint),
        checkpoint_options=opening.get("storage_options"),
        verbose=verbose,
    )
    if params is not None and not isinstance(params, (list, tuple)):
        params = [params]
    if params is not None and not params:
        raise ConfigurationError("params is an empty list: give parameters to start at, or leave it out")
    source = open_source(data, **opening)
    return run(model, source, settings, params=params, executor=executor, callbacks=callbacks)


def run(
    model: Model,
    source: Source,
    settings: Settings,
    *,
    params: Sequence[Params] | None = None,
    start: Begin | None = None,
    identity: Mapping[str, Any] | None = None,
    executor: Executor | None = None,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """The whole of a fit to an open source, as estimators use it.

    `start` makes a start in place of the model's own; `identity` names what else, beside the settings, a
    checkpoint of this fit belongs to.
    """
    entry = Entry(model, None if params is None else tuple(params), start)
    return run_together([entry], source, settings, identity=identity, executor=executor, callbacks=callbacks)[0]


def run_together(
    entries: Sequence[Entry],
    source: Source,
    settings: Settings,
    *,
    identity: Mapping[str, Any] | None = None,
    executor: Executor | None = None,
    callbacks: Sequence[Callback] = (),
    fold: Fold | None = None,
) -> list[FitResult]:
    """Several fits to the same data, which share every pass; one result each.

    The rows that `fold` holds out are not learned from: their log-likelihood is in `FitResult.held_out`.
    """
    began = time.monotonic()
    n_sets = sum(len(e.params or ()) or settings.n_init for e in entries)
    _check_memory([e.model for e in entries], source, n_sets)
    progress = progress_callback() if settings.verbose else None
    executor = executor or default_executor()
    try:
        job = Job(entries, source, settings, executor, progress, fold)
        job.prepare(dict(identity or {}))
        if settings.time_limit is not None:
            job.fit.time_limit = max(0.0, settings.time_limit - (time.monotonic() - began))
        job.fit.callbacks = [*job.fit.callbacks, *([] if progress is None else [progress]), *callbacks]
        job.fit.run()
    finally:
        executor.close()
        if isinstance(progress, Progress):
            progress.close()
    return [job.result(group) for group in range(len(entries))]


def _check_memory(models: Sequence[Model], source: Source, n_sets: int) -> None:
    needed = 8 * n_sets * max(m.nbytes(source.n_features) for m in models)  # with sums and their copies in the merge
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    if has and needed > _SMALLEST_SHARE * has:
        raise ConfigurationError(
            f"{n_sets} parameter sets for {source.n_features} columns, and their sums, make {needed / 2**30:.1f} GiB, "
            f"more than half of this machine's {has / 2**30:.1f} GiB: use fewer components, starts or columns, or "
            "covariance_type='diag'"
        )
