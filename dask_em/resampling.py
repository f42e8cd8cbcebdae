"""`bootstrap`: the same model fitted to many data sets drawn from the rows, in shared steps."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.base import clone

from dask_em.entry import Entry
from dask_em.errors import ConfigurationError, DataError
from dask_em.estimators.base import seed_of
from dask_em.estimators.prediction import Density
from dask_em.estimators.standard_errors import axis_of, check_level, layout_of, table_of
from dask_em.fitting import run_together
from dask_em.hashing import Resampling
from dask_em.model import Params, Source
from dask_em.result import FitResult, FitWarning

_TOL = 1e-3  # nats that a replicate may be from its optimum: a twentieth of a standard error
_TOGETHER = 256 << 20  # bytes of parameters, sums and steps of the replicates that share their steps
_COPIES = 32  # of its parameters that a run keeps of such
_FAR = 1e3  # times what chance moves a number by: farther is not told apart


@dataclass(frozen=True)
class Bootstrap:
    """What a bootstrap found.

    Attributes
    ----------
    table_ : pandas.DataFrame
        A row for each number: parameter, component, of (which columns it is about), estimate (of all the rows),
        standard_error (standard deviation of the replicates), lower, upper (their quantiles).
    replicates_ : pandas.DataFrame of shape (n, m)
        The numbers of every replicate, in the order of the table's rows; without those that failed.
    failed_ : int
        Replicates that had no maximum, or in which a component collapsed as none did in the first fit.
    estimator_ : Estimator
        Fitted to all the rows.
    n_passes_ : int
        Reads of the data, those of the first fit not counted.
    seconds_ : float
    """

    table_: Any
    replicates_: Any
    failed_: int
    estimator_: Any
    n_passes_: int
    seconds_: float


def bootstrap(
    estimator: Any,
    X: Any,
    n: int = 200,
    *,
    level: float = 0.95,
    random_state: Any = 0,
    sample_weight: Any = None,
    columns: Sequence[Any] | None = None,
    filters: Any = None,
    storage_options: Mapping[str, Any] | None = None,
    missing_chunks: str = "warn",
) -> Bootstrap:
    """Standard errors and percentile intervals by fitting to many data sets drawn from the rows, with replacement.

    In each of them a row counts a number of times that has the Poisson distribution with mean 1, hashed where the row
    is: no row need be moved, all replicates share every pass over the data, and the answer is the same on threads
    and on any number of workers.  Each begins at the optimum of all the rows, so that it stays near that local
    maximum; components that change places are put back.

    Parameters
    ----------
    estimator : Estimator
        A mixture, factor analysis or imputer. One that is fitted is taken as it is, another is fitted first; it is
        not changed.
    X : array, frame, path, URL or Source
        As in `fit`: the data that it was fitted to, if it is fitted.
    n : int
        Replicates. A standard error is known to about one part in sqrt(2 n); intervals ask for some hundreds.
    level : float
        Of the intervals.
    random_state : int, RandomState or None
        None: other data sets each time.
    sample_weight : array or str, optional
        A row that is drawn has its weight; so weights are not taken as repetitions, which would be drawn each.
    columns, filters, storage_options, missing_chunks
        As in `fit`.

    Returns
    -------
    Bootstrap

    Raises
    ------
    ConfigurationError
        `n`, `level`, or an estimator without a likelihood.
    DataError
        No replicate has a maximum.

    Notes
    -----
    A step costs as much as n steps of one fit; the data is read as often as the slowest replicate asks, the rows in
    memory not again.  Distinct rows that stand for all (see `Mixture`) are drawn from in their place.

    References
    ----------
    Efron, B. and Tibshirani, R. (1993). An Introduction to the Bootstrap. Chapman and Hall.
    Chamandy, N., Muralidharan, O., Najmi, A. and Naidu, S. (2012). Estimating uncertainty for massive data streams.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> x = np.random.default_rng(0).exponential(2.0, size=(500, 1))
    >>> found = em.bootstrap(em.Mixture(1, em.Exponential(), verbose=0), x, n=400)
    >>> error = found.table_["standard_error"][0]
    >>> bool(abs(error - x.std() / 500**0.5) < 0.1 * error)
    True
    """
    began = time.monotonic()
    check_level(level)
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 2:
        raise ConfigurationError(f"n={n!r} must be a whole number of at least 2: replicates")
    if not isinstance(estimator, Density):
        raise ConfigurationError(f"{estimator!r} has no likelihood to maximise on data drawn anew: give a mixture")
    if estimator._model().sequential:
        raise ConfigurationError(
            "the bootstrap draws rows, and rows of a hidden Markov chain depend on one another: standard_errors has "
            "those of the likelihood's second derivatives"
        )
    opening = {
        "columns": columns,
        "filters": filters,
        "storage_options": storage_options,
        "missing_chunks": missing_chunks,
    }
    if not hasattr(estimator, "status_"):
        estimator = clone(estimator).fit(X, sample_weight=sample_weight, **opening)
    source = estimator._open(X, reset=False, weight=sample_weight, **opening)
    seed = seed_of(random_state)
    if seed is None:
        seed = int(np.random.default_rng().integers(2**31))
    fits, passes = _replicates(estimator, source, int(n), seed, counts=sample_weight is None)
    layout = layout_of(estimator)
    middle = estimator._params()
    rows = [layout.read(estimator._estimates(params)) for params in _put_back(estimator, fits, middle)]
    if n - len(fits):
        warnings.warn(
            f"{n - len(fits)} of {n} data sets drawn from the rows have no maximum and are left out: the model asks "
            "for more rows, fewer components, or a larger reg_covar",
            FitWarning,
            stacklevel=2,
        )
    found, tail = np.array(rows), (1 - level) / 2
    numbers, values = layout.numbers(), layout.read(estimator._estimates(middle))
    lower, upper = np.quantile(found, [tail, 1 - tail], axis=0)
    table = table_of(numbers, values, found.std(axis=0, ddof=1), lower, upper)
    import pandas

    replicates = pandas.DataFrame(found, columns=axis_of(numbers))
    return Bootstrap(table, replicates, int(n) - len(fits), estimator, passes, time.monotonic() - began)


def _replicates(estimator: Any, source: Source, n: int, seed: int, *, counts: bool) -> tuple[list[FitResult], int]:
    """The fits that have a maximum, and the reads that all of them took."""
    model, params = estimator._fitted_model(), estimator._params()
    solver = estimator.solver
    if isinstance(solver, str) and solver in ("auto", "anchored"):  # what is anchored in a sample of all the rows
        solver = "anderson" if model.accelerates else "em"
    settings = replace(
        estimator._settings(),
        solver=solver,
        seed=seed,
        tol=min(float(estimator.tol), _TOL),
        checkpoint=None,
        checkpoint_options=None,
    )
    size = max(1, _TOGETHER // (_COPIES * max(1, model.nbytes(source.n_features))))
    fits, passes, problem = list[FitResult](), 0, None
    for start in range(0, n, size):
        entries = [
            Entry(model, (params,), resampling=Resampling(seed, i, counts)) for i in range(start, min(start + size, n))
        ]
        done = run_together(entries, source, settings, executor=estimator.executor, callbacks=estimator.callbacks or ())
        passes += max((d.n_passes for d in done if isinstance(d, FitResult)), default=0)
        for result in done:
            if not isinstance(result, FitResult):
                problem = result
            elif result.status != "degenerate" or estimator.status_ == "degenerate":
                fits.append(result)
    if len(fits) < 2:
        raise problem or DataError("the data sets drawn from the rows have no maxima: the model asks for more rows")
    return fits, passes


def _put_back(estimator: Any, fits: Sequence[FitResult], middle: Params) -> list[Params]:
    """Parameters whose components are in the order in which they are nearest to those of the first fit."""
    model = estimator._fitted_model()
    k = int(model.n_components) if hasattr(model, "permuted") else 1
    if k == 1:
        return [fit.params for fit in fits]
    there = _of_components(estimator._estimates(middle), k)
    here = np.array([_of_components(estimator._estimates(fit.params), k) for fit in fits])  # (n, K, anything)
    # most have not changed places, so that the median of how far they went is what chance moves a number by
    chance = np.median(np.abs(here - there), axis=0).mean(axis=0)
    unit = np.maximum(chance, 1e-12 * np.maximum(np.abs(there).max(axis=0), np.finfo(float).tiny))
    ordered = []
    for fit, own in zip(fits, here, strict=True):
        apart = (np.minimum(np.abs(own[None] - there[:, None]) / unit, _FAR) ** 2).sum(axis=2)
        ordered.append(model.permuted(fit.params, linear_sum_assignment(apart)[1]))
    return ordered


def _of_components(arrays: Mapping[str, np.ndarray], k: int) -> np.ndarray:
    """(K, anything): the numbers of each component."""
    own = [a.reshape(k, -1) for a in arrays.values() if a.ndim and a.shape[0] == k]
    return np.concatenate(own, axis=1)
