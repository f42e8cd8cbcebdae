"""`fit`: any model, to any data, in steps that several fits may share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dask_em.callbacks.progress import Progress, progress_callback
from dask_em.coding import open_coded
from dask_em.config import memory
from dask_em.engine import Callback
from dask_em.entry import Entry
from dask_em.errors import ConfigurationError, DaskEMError
from dask_em.executors import default_executor
from dask_em.hashing import Fold
from dask_em.job import Job
from dask_em.model import Executor, Model, Params, Solver, Source
from dask_em.result import FitResult
from dask_em.settings import Settings, check_surroundings

_SMALLEST_SHARE = 0.5  # of this machine's memory that parameters and statistics may take
_COPIES = 24  # of a parameter set: itself, its sums, and vectors of the last ten steps and their residuals
_FINALISTS = 3  # runs that an entry takes to all the data


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
        Starts to race; the best go on to the data, in steps that they share.  `Model.moved` may have changed it.
    random_state : int or None
        None: another one each time.
    tol : float
        Predicted nats of total log-likelihood still to be gained, below which a run has converged.
    max_passes : int
        Steps at most, the census included.  Each is a pass, a read of the data, unless its rows stay in memory.
    time_limit : float, optional
        Seconds after which no further step begins, and the race for starts ends as well.
    sample_bytes : int, optional
        Memory for the random sample of the rows; data that fits in it is read once.  Default: the
        option ``em.sample-bytes``.
    checkpoint : path or URL, optional
        Written after every step; the same call goes on from it.
    executor : Executor, optional
        Default: the active `distributed.Client`'s cluster, else threads in this process.
    callbacks : sequence of Callback
    verbose : int
        0: no progress.
    **opening
        Keywords of `dask_em.open`: columns, weight, sequence, filters, storage_options, missing_chunks.

    Returns
    -------
    FitResult

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em.distributions.gaussian import Gaussian
    >>> from dask_em.models.mixture import MixtureModel
    >>> x = np.concatenate([np.arange(50.0), np.arange(50.0) + 1000])[:, None]
    >>> result = fit(MixtureModel(2, Gaussian()), x)
    >>> result.status, np.sort(result.params.components.means.ravel()).round(3).tolist()
    ('converged', [24.5, 1024.5])
    """
    if not isinstance(model, Model):
        raise ConfigurationError(f"{model!r} is not a dask_em.Model: subclass it, and define start, e_step, m_step")
    check_surroundings(executor, callbacks, checkpoint)
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
    source = open_coded(data, model, executor=executor, **opening)
    names = source.feature_names
    model = model.resolved(names).with_levels(names, getattr(source, "levels", {}))
    entry = Entry(model, None if params is None else tuple(params))
    return run(entry, source, settings, executor=executor, callbacks=callbacks)


def run(
    entry: Entry,
    source: Source,
    settings: Settings,
    *,
    executor: Executor | None = None,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """The whole of a fit to an open source, as estimators use it."""
    result = run_together([entry], source, settings, executor=executor, callbacks=callbacks)[0]
    assert isinstance(result, FitResult)  # the only entry cannot be left out
    return result


def run_together(
    entries: Sequence[Entry],
    source: Source,
    settings: Settings,
    *,
    executor: Executor | None = None,
    callbacks: Sequence[Callback] = (),
    fold: Fold | None = None,
    penalty: Callable[[Model, float], float] | None = None,
    criterion: str | None = None,
) -> list[FitResult | DaskEMError]:
    """Several fits to the same data, which share every step.

    The rows that `fold` holds out are not learned from: their log-likelihood is in `FitResult.held_out`.
    With a `penalty`, in nats for a model given the weight of the data, a fit ends as "surpassed" once its
    log-likelihood less its penalty cannot be expected to become the largest.  A checkpoint belongs to the `criterion`
    by which the fits are compared, as it does to the penalty.

    Returns
    -------
    list
        For each entry its result, or, if there are several, the error that says why it cannot be fitted to
        this data.
    """
    began = time.monotonic()
    _check_memory(entries, source, settings.n_init)
    progress = progress_callback() if settings.verbose else None
    executor = executor or default_executor()
    try:
        job = Job(entries, source, settings, executor, progress, fold, penalty, criterion)
        job.prepare()
        job.fit.time_limit, job.fit.began = settings.time_limit, began
        job.fit.callbacks = [*job.fit.callbacks, *([] if progress is None else [progress]), *callbacks]
        job.fit.run()
        job.look()
    finally:
        executor.close()
        if isinstance(progress, Progress):
            progress.close()
    return [job.result(group) for group in range(len(entries))]


def _check_memory(entries: Sequence[Entry], source: Source, n_init: int) -> None:
    """Refuse in time what cannot fit: each run keeps its parameters, sums and the differences of its last steps."""
    sizes = [_COPIES * e.model.nbytes(source.n_features) for e in entries]
    runs = [len(e.params or ()) or e.n_init or n_init for e in entries]
    needed = max(n * size for n, size in zip(runs, sizes, strict=True)) + _FINALISTS * sum(sizes)
    has = memory()
    if needed <= _SMALLEST_SHARE * has:
        return
    would = "use fewer components, starts or columns, or a model with fewer parameters, such as diagonal covariances"
    if len(entries) > 1:
        order = np.argsort(sizes)
        raced, kept = np.multiply(runs, sizes)[order], np.asarray(sizes)[order]
        fits = int(np.sum(np.maximum.accumulate(raced) + _FINALISTS * np.cumsum(kept) <= _SMALLEST_SHARE * has))
        first = f"the {fits} smallest of the {len(entries)} candidates would fit: ask for those first"
        would = f"{first if fits else 'not even the smallest candidate would fit: select among others'}, or {would}"
    raise ConfigurationError(
        f"parameter sets for {source.n_features} columns, with what solvers remember of them, make "
        f"{needed / 2**30:.1f} GiB, more than half of this machine's {has / 2**30:.1f} GiB: {would}"
    )
