"""How sure fitted parameters are: standard errors and confidence intervals, from Fisher's information."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, logit, ndtri

from dask_em.callbacks.progress import Progress, progress_callback
from dask_em.diagnostics import information
from dask_em.diagnostics.numbers import Layout, Number
from dask_em.entry import Entry
from dask_em.errors import ConfigurationError
from dask_em.executors import default_executor
from dask_em.job import Job
from dask_em.model import Source
from dask_em.result import FitWarning
from dask_em.settings import Settings

KINDS = ("auto", "observed", "empirical", "robust")
_OBSERVED = 150  # coordinates at most for which "auto" takes second derivatives: their time grows with the square
_ROWS = 1 << 14  # of the sample for gradients of rows at least,
_PER_COORDINATE = 20  # and so many for each coordinate


@dataclass(frozen=True)
class Estimates:
    """Fitted numbers and the covariance matrix (m, m) of their errors."""

    numbers: list[Number]
    values: np.ndarray
    covariance: np.ndarray

    def table(self, level: float) -> Any:
        """A `pandas.DataFrame` with a row for each number."""
        errors = np.sqrt(np.diag(self.covariance))
        lower, upper = intervals(self.numbers, self.values, ndtri(0.5 + level / 2) * errors)
        return table_of(self.numbers, self.values, errors, lower, upper)

    def matrix(self) -> Any:
        """The covariance matrix as a `pandas.DataFrame`, both of whose axes say what the numbers are."""
        import pandas

        axis = axis_of(self.numbers)
        return pandas.DataFrame(self.covariance, index=axis, columns=axis)


def table_of(
    numbers: Sequence[Number], values: np.ndarray, errors: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> Any:
    """A `pandas.DataFrame` with a row for each number: what it is, its standard error and interval."""
    import pandas

    return pandas.DataFrame(
        {
            "parameter": [n.name for n in numbers],
            "component": pandas.array([n.component for n in numbers], dtype="Int64"),
            "of": [n.of for n in numbers],
            "estimate": values,
            "standard_error": errors,
            "lower": lower,
            "upper": upper,
        }
    )


def intervals(numbers: Sequence[Number], values: np.ndarray, reach: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of intervals that reach so far, of log odds for shares and of logarithms for what is positive.

    So they lie within what is possible: the delta method (Agresti 2013, Categorical Data Analysis, section 3.1.6).
    """
    lower, upper = values - reach, values + reach
    least, most = np.array([n.least for n in numbers]), np.array([n.most for n in numbers])
    with np.errstate(all="ignore"):  # NaN, where there is no standard error
        odds, far = logit(values), reach / (values * (1 - values))
        share, positive = most == 1, (least == 0) & (most > 1)
        lower[share], upper[share] = expit(odds - far)[share], expit(odds + far)[share]
        factor = np.exp(reach / values)
        lower[positive], upper[positive] = (values / factor)[positive], (values * factor)[positive]
    return lower, upper


def axis_of(numbers: Sequence[Number]) -> Any:
    """A `pandas.MultiIndex` that says what the numbers are."""
    import pandas

    told = [(n.name, "" if n.component is None else n.component, n.of) for n in numbers]
    return pandas.MultiIndex.from_tuples(told, names=["parameter", "component", "of"])


def check_level(level: Any) -> None:
    """Refuse what is no level of an interval."""
    if isinstance(level, bool) or not isinstance(level, (int, float, np.number)) or not 0 < level < 1:
        raise ConfigurationError(f"level={level!r} must be between 0 and 1, as 0.95")


def layout_of(estimator: Any) -> Layout:
    """Which numbers there are of a fitted estimator, and what they are called."""
    model, params = estimator._fitted_model(), estimator._params()
    arrays = turned = estimator._estimates(params)
    k = int(model.n_components) if hasattr(model, "permuted") else 1
    if k > 1:
        turned = estimator._estimates(model.permuted(params, np.arange(k)[::-1]))
    names = getattr(estimator, "feature_names_in_", [str(i) for i in range(estimator.n_features_in_)])
    names = [str(name) for name in names]
    modelled = model.modelled(names) if hasattr(model, "modelled") else names
    categories = model.categories_of(names)
    by_position = {str(i): categories[name] for i, name in enumerate(names) if name in categories}
    sizes = {label for i, name in enumerate(names) if name not in modelled for label in (name, str(i))} - {*modelled}
    return Layout.of(arrays, turned, k, modelled, by_position | categories, frozenset(sizes))


def estimates(estimator: Any, source: Source, kind: str, sample_bytes: int | None) -> Estimates:
    """The fitted numbers of an estimator, and how sure rows make them."""
    if kind not in KINDS:
        raise ConfigurationError(f"kind={kind!r}: choose one of {', '.join(map(repr, KINDS))}")
    model, params = estimator._fitted_model(), estimator._params()
    if not model.accelerates:
        raise ConfigurationError(
            "standard errors need what accelerated solvers do of a model: define expected_loglik, to_vector and "
            "from_vector"
        )
    if model.sequential and kind not in ("auto", "observed"):
        raise ConfigurationError(
            f"kind={kind!r} asks for gradients of rows that are independent of one another, and those of a hidden "
            "Markov chain are not: use kind='observed'"
        )
    layout = layout_of(estimator)
    covariance, peaked = _covariance(estimator, model, params, source, kind, sample_bytes, layout)
    _warn(estimator, covariance, peaked)
    return Estimates(layout.numbers(), layout.read(estimator._estimates(params)), covariance)


def _covariance(
    estimator: Any, model: Any, params: Any, source: Source, kind: str, sample_bytes: int | None, layout: Layout
) -> tuple[np.ndarray, bool]:
    """The covariance matrix of the numbers, and whether the rows say something about all of them."""

    def read(vector: np.ndarray) -> np.ndarray:
        return layout.read(estimator._estimates(model.from_vector(vector)))

    settings = Settings(seed=0, sample_bytes=sample_bytes, verbose=estimator.verbose)
    progress = progress_callback() if estimator.verbose else None
    executor = estimator.executor or default_executor()
    try:
        job = Job([Entry(model, (params,))], source, settings, executor, progress, None)
        job.prepare()
        model = job.fit.runs[0].model
        weight = float(job.census.moments.weight)
        reading = information.Reading.about(model, params, weight, read)
        along, meat = reading.inner, None
        if kind == "auto":
            kind = "observed" if model.sequential or len(along) <= _OBSERVED else "empirical"
        if kind != "observed":
            rows = job.resident.first(max(_ROWS, _PER_COORDINATE * len(along)))
            meat = information.empirical(model, params, along, rows.source, rows.executor) * (weight / rows.weight)
        if kind == "empirical":
            assert meat is not None
            return information.covariance(model, params, meat, weight, reading)
        whole = job.complete
        asked, reader = (job.rows, job.reader) if whole else (job.resident.source, job.resident.executor)
        bend = information.observed(model, params, along, asked, reader)
        bend = bend if whole else bend * (weight / job.resident.weight)
        return information.covariance(model, params, bend, weight, reading, meat)
    finally:
        executor.close()
        if isinstance(progress, Progress):
            progress.close()


def _warn(estimator: Any, covariance: np.ndarray, peaked: bool) -> None:
    said = []
    if estimator.status_ not in ("converged", "streaming"):
        said.append(
            f"the fit ended as {estimator.status_!r}, and standard errors are of a maximum: go on to convergence"
        )
    if not peaked:
        said.append(
            "the likelihood does not bend down along every direction, so that some parameters are not known at all "
            "(NaN): if a smaller tol does not help, use fewer components, or another start"
        )
    elif np.isnan(np.diag(covariance)).any():
        said.append(
            "parameters that are held fixed, or at the edge of what is possible, have no standard error (NaN); those "
            "of the others take them as known. A prior holds probabilities off the edge"
        )
    for sentence in said:
        warnings.warn(sentence, FitWarning, stacklevel=5)
