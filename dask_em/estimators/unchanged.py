"""Whether an estimator still describes the model that it was fitted as."""

from __future__ import annotations

from typing import Any

from dask_em.callbacks.checkpoint import described, difference
from dask_em.errors import ConfigurationError


def refuse_changed(estimator: Any) -> None:
    """Raise `ConfigurationError` where a hyperparameter of the model was set to something else since the fit.

    Hyperparameters of how a fit runs, such as `max_passes`, may change at any time.
    """
    before = getattr(estimator, "_fitted_with", None)
    if before is None:
        return
    now = estimator.get_params(deep=False)
    model = described(estimator._model())
    for name, old in before.items():
        if old is now[name]:
            continue
        other = described(type(estimator)(**{**now, name: old})._model())
        if difference(name, other, model) is not None:
            raise ConfigurationError(
                f"{name} was {old!r} when this {type(estimator).__name__} was fitted, and is {now[name]!r} now, which "
                f"its fitted parameters do not belong to: set {name} back, or call fit to begin anew"
            )
