"""Checkpoints: the runs after every step, and what they belong to.

A checkpoint refuses other data and other hyperparameters by name.  Limits (steps, time) are no
part of what it belongs to: raise them and the fit goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np

from dask_em import store
from dask_em.callbacks import Quiet
from dask_em.engine import Fit, Run
from dask_em.errors import ConfigurationError, DataChangedError
from dask_em.history import Record
from dask_em.initialize import Census
from dask_em.model import Model
from dask_em.sparse import Parts

Identity = dict[str, Any]  # everything that the course of a fit depends on, the data aside


@store.register
@dataclass(frozen=True)
class StoredRun:
    """A run without its model, which the hyperparameters describe."""

    state: Any
    group: int
    start: int
    held_out: float | None
    moves: int = 0


@store.register
@dataclass(frozen=True)
class Checkpoint:
    """What a fit needs to go on as if it had never stopped.

    `sample` holds rows, weights and sequences of the resident sample; None where the data was read whole,
    and can be again.
    `failed` says of each fit that shares the steps why it could not be made; None: it could.
    """

    identity: Identity
    fingerprint: str
    census: Census
    sample: tuple[np.ndarray | Parts, np.ndarray | None, np.ndarray | None] | None
    runs: list[StoredRun]
    beaten: list[list[Record]]
    history: list[Record]
    failed: list[str | None] = field(default_factory=list)

    def going_on(self, models: Sequence[Model]) -> list[Run]:
        """The runs, of which those that a limit or an interrupt ended go on."""
        ended = ("converged", "degenerate", "surpassed")
        states = [
            r.state if r.state.status in ended else replace(r.state, status="running", note="") for r in self.runs
        ]
        return [
            Run(models[r.group], state, r.group, r.start, r.held_out, moves=r.moves)
            for r, state in zip(self.runs, states, strict=True)
        ]


class CheckpointWriter(Quiet):
    """Writes a checkpoint before the first step and after every one, each in place of the last.

    Parameters
    ----------
    path : str
        A file, or a URL that fsspec reaches.
    whole : Checkpoint
        What does not change from step to step; its runs and history are replaced.
    storage_options : dict, optional
    """

    def __init__(self, path: str, whole: Checkpoint, storage_options: dict[str, Any] | None = None) -> None:
        self._path, self._whole, self._options = path, whole, storage_options

    def on_start(self, fit: Fit) -> None:
        """Write before the first step, so that an unwritable path is found before time is spent."""
        self.on_step(fit)

    def on_step(self, fit: Fit) -> None:
        """Write where the fit stands."""
        runs = [StoredRun(r.state, r.group, r.start, r.held_out, r.moves) for r in fit.runs]
        failed = [str(fit.failed[g]) if g in fit.failed else None for g in range(len(self._whole.beaten))]
        now = replace(self._whole, runs=runs, history=fit.history, failed=failed)
        store.save(now, self._path, kind="checkpoint", storage_options=self._options)


def read_checkpoint(path: str, storage_options: dict[str, Any] | None = None) -> Checkpoint | None:
    """The checkpoint at `path`, or None where there is none.

    Raises
    ------
    StoreError
        It cannot be read.
    """
    if not store.exists(path, storage_options=storage_options):
        return None
    found: Checkpoint = store.load(path, kind="checkpoint", storage_options=storage_options)
    return found


def check_belongs(found: Checkpoint, path: str, identity: Identity, fingerprint: str) -> None:
    """Refuse a checkpoint of another fit.

    Raises
    ------
    ConfigurationError
        It belongs to a fit with other hyperparameters.
    DataChangedError
        It belongs to other data.
    """
    differs = difference("identity", found.identity, identity)
    if differs is not None:
        name, old, new = differs
        raise ConfigurationError(
            f"the checkpoint {path} was written by a fit with {name}={_short(old)}, and this one has "
            f"{name}={_short(new)}: use the same, or another path for this fit"
        )
    if found.fingerprint != fingerprint:
        raise DataChangedError(
            f"the checkpoint {path} was written by a fit to other data (or the data changed since): "
            "use the same data, or another path for this fit"
        )


def described(value: Any) -> Any:
    """A model, a solver or parameters as nested dicts, lists and arrays that tell one from another."""
    if is_dataclass(value) and not isinstance(value, type):
        named = {f.name: described(getattr(value, f.name)) for f in fields(value) if f.compare}
        return {"type": type(value).__name__, **named}
    if isinstance(value, dict):
        return {str(k): described(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [described(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str, np.ndarray)):
        return value
    return value.item() if isinstance(value, np.generic) else type(value).__name__


def difference(name: str, old: Any, new: Any) -> tuple[str, Any, Any] | None:
    """The first thing in which two descriptions differ: its name, and both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        inner = [(key, old.get(key), new.get(key)) for key in sorted({*old, *new})]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        inner = [(name, a, b) for a, b in zip(old, new)]
    elif isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
        return None if np.array_equal(old, new) else (name, old, new)
    else:
        return None if type(old) is type(new) and bool(old == new) else (name, old, new)
    return next((d for d in (difference(*each) for each in inner) if d is not None), None)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
