"""Checkpoints: the solver's states after every pass, and what they belong to.

A checkpoint refuses other data and other hyperparameters by name.  Limits (passes, time) are no
part of what it belongs to: raise them and the fit goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_em import store
from dask_em.callbacks import Quiet
from dask_em.engine import Fit, Record
from dask_em.errors import ConfigurationError, DataChangedError
from dask_em.initialize import Census

Identity = dict[str, Any]  # everything that the course of a fit depends on, the data aside


@dataclass(frozen=True)
class Checkpoint:
    """What a fit needs to go on as if it had never stopped."""

    identity: Identity
    fingerprint: str
    census: Census
    states: list[Any]
    history: list[Record]


class CheckpointWriter(Quiet):
    """Writes a checkpoint before the first pass and after every one, each in place of the last.

    Parameters
    ----------
    path : str
        A file, or a URL that fsspec reaches.
    identity : dict
        Hyperparameters, seeds and starts, by name.
    census : Census
    storage_options : dict, optional
    """

    def __init__(
        self, path: str, identity: Identity, census: Census, storage_options: dict[str, Any] | None = None
    ) -> None:
        self._path, self._identity, self._census, self._options = path, identity, census, storage_options

    def on_start(self, fit: Fit) -> None:
        """Write before the first pass, so that an unwritable path is found before time is spent."""
        self.on_pass(fit)

    def on_pass(self, fit: Fit) -> None:
        """Write where the fit stands."""
        now = Checkpoint(self._identity, fit.source.fingerprint, self._census, fit.states, fit.history)
        store.save(now, self._path, kind="checkpoint", storage_options=self._options)


def read_checkpoint(
    path: str, identity: Identity, fingerprint: str, storage_options: dict[str, Any] | None = None
) -> Checkpoint | None:
    """The checkpoint at `path`, or None where there is none.

    Raises
    ------
    ConfigurationError
        It belongs to a fit with other hyperparameters.
    DataChangedError
        It belongs to other data.
    StoreError
        It cannot be read.
    """
    if not store.exists(path, storage_options=storage_options):
        return None
    found: Checkpoint = store.load(path, kind="checkpoint", storage_options=storage_options)
    for name in sorted({*identity, *found.identity}):
        old, new = found.identity.get(name), identity.get(name)
        if not _same(old, new):
            raise ConfigurationError(
                f"the checkpoint {path} was written by a fit with {name}={_short(old)}, and this one has "
                f"{name}={_short(new)}: use the same, or another path for this fit"
            )
    if found.fingerprint != fingerprint:
        raise DataChangedError(
            f"the checkpoint {path} was written by a fit to other data (or the data changed since): "
            "use the same data, or another path for this fit"
        )
    return found


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and np.array_equal(a, b)
    return type(a) is type(b) and a == b


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
