"""`select`: many candidates in the same steps, and a table of what each of them reached."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import product
from math import prod
from typing import Any

import numpy as np

from dask_em.entry import Entry
from dask_em.errors import ConfigurationError, DaskEMError, DataError
from dask_em.estimators.base import Estimator
from dask_em.estimators.rows import refuse_wrong_settings
from dask_em.fitting import run_together
from dask_em.hashing import Fold
from dask_em.model import Model, Source
from dask_em.result import FitResult, FitWarning

_MOST = 10_000  # candidates: what they are takes seconds to say, and what they take is told before any step

CRITERIA = ("bic", "aic", "icl", "held_out")


@dataclass(frozen=True)
class Selection:
    """What a selection found.

    Attributes
    ----------
    table_ : pandas.DataFrame
        One row a candidate: its hyperparameters, the criterion, ``loglik``, ``status``, then the rest of
        ``n_parameters``, ``aic``, ``bic``, ``icl`` (smaller is better); ``held_out``, the mean log-likelihood of a
        unit of weight held out (larger is better), if any was.  ``passes`` are the reads of the data until it ended,
        ``steps`` those that its parameters took, each a pass unless the rows were kept in memory.  A status
        ``failed`` means that it was not fitted; ``message`` says why.
    best_estimator_ : Estimator
        The best candidate, fitted.
    best_params_ : dict
        Its hyperparameters.
    best_index_ : int
        Its row in the table.
    criterion : str
    seconds_ : float
        That it took, from the first look at the data.
    """

    table_: Any
    best_estimator_: Any
    best_params_: dict[str, Any]
    best_index_: int
    criterion: str
    seconds_: float

    def __repr__(self) -> str:
        return f"{self._told()}\n{self.table_.drop(columns='message')}"

    def _repr_html_(self) -> str:
        return f"<p>{escape(self._told())}</p>{self.table_.to_html()}"

    def _told(self) -> str:
        best = ", ".join(f"{name}={value!r}" for name, value in self.best_params_.items())
        return f"best by {self.criterion}: {best} (row {self.best_index_} of {len(self.table_)})"


_SHARED = {
    "callbacks", "checkpoint", "checkpoint_options", "executor", "max_passes", "random_state", "sample_bytes", "solver",
    "time_limit", "tol", "verbose", "warm_start",
}  # fmt: skip


def select(
    estimator: Any,
    X: Any,
    *,
    criterion: str = "bic",
    held_out: float | None = None,
    sample_weight: Any = None,
    sequence: Any = None,
    columns: Sequence[Any] | None = None,
    filters: Any = None,
    storage_options: Mapping[str, Any] | None = None,
    missing_chunks: str = "warn",
    **grid: Any,
) -> Selection:
    """Fit every combination of hyperparameters in shared steps over the data, and choose the best.

    Parameters
    ----------
    estimator : Estimator
        Unfitted; what the grid does not name is taken from it. Each candidate races `n_init` starts, and a larger
        mixture also some that are made of the optimum of a smaller one.
    X : array, frame, path, URL or Source
        As in `fit`.
    criterion : {"bic", "aic", "icl", "held_out"}
        Information criteria are of the rows learned from, with the sum of their weights for n. ICL is BIC plus
        twice the entropy of the hidden variables (Biernacki, Celeux and Govaert 2000); NaN for
        candidates that hide more than which component a row comes from, as factors and missing values of Gaussians.
    held_out : float, optional
        Share of the rows that are drawn by hashing and not learned from, between 0 and 1; their log-likelihood
        comes from the same steps. Default: 0.2 for the criterion "held_out", else none.
    sequence : array of shape (n_rows,) or str, optional
        Of hidden Markov chains, as in their `fit`.
    sample_weight, columns, filters, storage_options, missing_chunks
        As in `fit`.
    **grid
        Values of the estimator's hyperparameters: one, or several in a list, tuple, range or array.

    Returns
    -------
    Selection
        A candidate that ended degenerate is chosen only if all did.  By BIC and AIC, one that cannot be
        expected to become the best is not followed to its optimum: its status is ``surpassed``.

    Raises
    ------
    ConfigurationError
        A name or value in the grid, or a grid that does not fit in memory.
    DataError
        No candidate can be fitted to the data.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(-4, 1, (500, 2)), rng.normal(4, 1, (500, 2))])
    >>> best = em.select(em.GaussianMixture(random_state=0, verbose=0), X, n_components=range(1, 4))
    >>> best.best_params_, best.table_.shape[0]
    ({'n_components': 2}, 3)
    """
    began = time.monotonic()
    if criterion not in CRITERIA:
        raise ConfigurationError(f"criterion={criterion!r} is unknown; choose one of {list(CRITERIA)}")
    if held_out is None and criterion == "held_out":
        held_out = 0.2
    if held_out is not None and not (isinstance(held_out, (int, float, np.number)) and 0 < held_out < 1):
        raise ConfigurationError(f"held_out={held_out!r} must be a share between 0 and 1")
    combinations = _combinations(estimator, grid)
    candidates = [type(estimator)(**{**estimator.get_params(deep=False), **c}) for c in combinations]
    models = [candidate._model() for candidate in candidates]  # refuses bad hyperparameters before anything is read
    _refuse_unsuited(models, type(estimator).__name__, criterion, held_out)
    source = candidates[0]._open(
        X,
        reset=True,
        sequence=sequence,
        columns=columns,
        weight=sample_weight,
        filters=filters,
        storage_options=storage_options,
        missing_chunks=missing_chunks,
    )
    for candidate in candidates[1:]:
        candidate._take_columns(source)
    settings = estimator._settings()
    if held_out is not None:  # the fold needs it now; else a checkpoint may know it
        settings = replace(settings, seed=settings.seed_or(None))
    entries, results = _entries(candidates, source, own_n_init="n_init" in grid)

    def penalty(model: Model, weight: float) -> float:
        return model.n_parameters(source.n_features) * (0.5 * float(np.log(weight)) if criterion == "bic" else 1.0)

    fitted = run_together(
        list(entries.values()),
        source,
        settings,
        executor=estimator.executor,
        callbacks=estimator.callbacks or (),
        fold=None if held_out is None else Fold(int(settings.seed or 0), float(held_out)),
        penalty=penalty if criterion in ("bic", "aic") else None,
        criterion=criterion,
    )
    results |= zip(entries, fitted, strict=True)
    rows = [_row(combinations[i], candidates[i], results[i]) for i in range(len(candidates))]
    best = _best(rows, criterion)
    for sentence in _doubts(rows, criterion, combinations, best):
        warnings.warn(sentence, FitWarning, stacklevel=2)
    import pandas

    table = pandas.DataFrame(rows)
    first = [*combinations[best], criterion, "loglik", "status"]  # what a narrow screen is to show
    table = table[[*first, *(name for name in table if name not in first)]]
    return Selection(table, candidates[best], combinations[best], best, criterion, time.monotonic() - began)


def _doubts(
    rows: Sequence[Mapping[str, Any]], criterion: str, combinations: Sequence[Mapping[str, Any]], best: int
) -> Iterator[str]:
    """Why what is called the best may not be it."""
    ended = rows[best]["status"]
    if np.isnan(rows[best][criterion]):
        yield (
            f"no candidate's {criterion} is known, since none was looked at on all rows ({ended}): the first that "
            "could be fitted stands for the best; allow more steps (max_passes) or time"
        )
    elif ended != "interrupted":
        yield from _edges(combinations, best)


def _edges(combinations: Sequence[Mapping[str, Any]], best: int) -> Iterator[str]:
    """A sentence for each number of the best candidate beyond which the grid does not look, though it could."""
    for name, value in combinations[best].items():
        tried = {c[name] for c in combinations}
        if len(tried) < 2 or not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in tried):
            continue
        if value == max(tried):
            yield f"the best {name}, {value}, is the largest in the grid: a larger one may be better, so try some"
        elif value == min(tried) and value != 1:
            yield f"the best {name}, {value}, is the smallest in the grid: a smaller one may be better, so try some"


def _refuse_unsuited(models: Sequence[Model], who: str, criterion: str, held_out: float | None) -> None:
    """Raise `ConfigurationError` where a criterion cannot tell which model is better."""
    if criterion == "icl" and not any(model.hides_classes_only(missing=False) for model in models):
        raise ConfigurationError(
            "criterion='icl' weighs how surely rows belong to components, and these candidates hide factors, to which "
            "no row belongs: use criterion='bic'"
        )
    for model in models:
        if type(model).n_parameters is Model.n_parameters:
            raise ConfigurationError(f"{who} has no likelihood that a criterion could weigh: select among mixtures")
    if held_out is not None and models[0].sequential:
        raise ConfigurationError(
            "held_out= leaves out rows, and rows of a hidden Markov chain depend on one another: use the criterion "
            "'bic'"
        )


def _combinations(estimator: Any, grid: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not isinstance(estimator, Estimator):
        raise ConfigurationError(f"{estimator!r} is no estimator of this library, such as dask_em.GaussianMixture()")
    refuse_wrong_settings(estimator)
    known = estimator.get_params(deep=False)
    for name in grid:
        if name in _SHARED:
            raise ConfigurationError(
                f"{name} is the same for all candidates, which share their steps: set it on the estimator, not in the "
                "grid"
            )
        if name not in known:
            raise ConfigurationError(
                f"{type(estimator).__name__} has no hyperparameter {name!r}; it has {sorted(known)}"
            )
    several = {name: _values(name, value) for name, value in grid.items()}
    n = prod(len(values) for values in several.values())
    if n > _MOST:
        raise ConfigurationError(
            f"the grid has {n:,} candidates, and at most {_MOST:,} are fitted together: try few values of each "
            "hyperparameter, then more about the best of them"
        )
    return [dict(zip(several, values, strict=True)) for values in product(*several.values())]


def _entries(
    candidates: Sequence[Any], source: Source, *, own_n_init: bool
) -> tuple[dict[int, Entry], dict[int, FitResult | DaskEMError]]:
    """What to fit, by candidate, and why others cannot be fitted to this data at all."""
    entries: dict[int, Entry] = {}
    failed: dict[int, FitResult | DaskEMError] = {}
    problem: DaskEMError | None = None
    for i, candidate in enumerate(candidates):
        try:
            entry = candidate._entry(source)
        except (ConfigurationError, DataError) as error:
            failed[i] = problem = error
            continue
        n_init = entry.n_init or (candidate._settings().n_init if own_n_init else None)
        entries[i] = replace(entry, n_init=n_init)
    if not entries and problem is not None:
        raise problem
    return entries, failed


def _values(name: str, value: Any) -> list[Any]:
    single = isinstance(value, (str, bytes)) or not isinstance(value, Iterable)
    values = [value] if single else [v.item() if isinstance(v, np.generic) else v for v in value]
    if not values:
        raise ConfigurationError(f"{name} has no values in the grid: give at least one")
    return values


def _row(combination: dict[str, Any], candidate: Any, result: FitResult | DaskEMError) -> dict[str, Any]:
    """A candidate's line of the table; the candidate takes on what was fitted."""
    if isinstance(result, DaskEMError):
        nothing = dict.fromkeys(("loglik", "n_parameters", "aic", "bic", "icl", "held_out"), np.nan)
        return {**combination, **nothing, "status": "failed", "passes": 0, "steps": 0, "message": str(result)}
    candidate._finish(result)
    p, n = result.model.n_parameters(candidate.n_features_in_), result.trained_weight
    bic = -2 * result.loglik + p * np.log(n)
    held_weight = result.weight - n
    steps, passes = (max((r[name] for r in result.restarts), default=0) for name in ("steps", "passes"))
    return {
        **combination,
        "loglik": result.loglik,
        "n_parameters": p,
        "aic": -2 * result.loglik + 2 * p,
        "bic": bic,
        "icl": bic + 2 * result.entropy,
        "held_out": np.nan if result.held_out is None else result.held_out / held_weight,
        "status": result.status,
        "passes": 1 + passes,  # with the census
        "steps": steps,
        "message": result.message,
    }


def _best(rows: Sequence[Mapping[str, Any]], criterion: str) -> int:
    sign = -1.0 if criterion == "held_out" else 1.0

    def rank(i: int) -> tuple[bool, bool, bool, float]:
        value, status = sign * rows[i][criterion], rows[i]["status"]
        return status == "failed", bool(np.isnan(value)), status == "degenerate", 0.0 if np.isnan(value) else value

    return min(range(len(rows)), key=rank)
