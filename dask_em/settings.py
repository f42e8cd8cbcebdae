"""How a fit runs, the model and the data aside."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_em.errors import ConfigurationError
from dask_em.model import Solver
from dask_em.solvers import check_solver


@dataclass(frozen=True)
class Settings:
    """How a fit runs; validated when built.

    Parameters
    ----------
    solver : str or Solver
    n_init : int
        Starts that are raced on the sample.
    seed : int or None
        None: another one each time.
    tol : float
        Nats of the total log-likelihood.
    max_passes : int
        Steps at most, the census included, whether they read the data or go through rows in memory.
    time_limit : float, optional
        Seconds after which no further step begins.
    sample_bytes : int, optional
        Memory for the resident sample; None: as the options say.
    checkpoint : str, optional
        Path or URL of a checkpoint to write after every step and to go on from.
    checkpoint_options : mapping, optional
        What fsspec needs to reach it.
    verbose : int
        0 is silent; otherwise progress shows in a terminal or a notebook.
    """

    solver: str | Solver = "auto"
    n_init: int = 1
    seed: int | None = 0
    tol: float = 0.05
    max_passes: int = 500
    time_limit: float | None = None
    sample_bytes: int | None = None
    checkpoint: str | None = None
    checkpoint_options: Mapping[str, Any] | None = None
    verbose: int = 1

    def __post_init__(self) -> None:
        check_solver(self.solver)
        for name in ("n_init", "max_passes", "sample_bytes"):
            value = getattr(self, name)
            if not (_whole(value) and value >= 1) and not (name == "sample_bytes" and value is None):
                raise ConfigurationError(f"{name}={value!r} must be a whole number of at least 1")
        if self.seed is not None and not (_whole(self.seed) and self.seed >= 0):
            raise ConfigurationError(f"random_state={self.seed!r} must be a whole number that is not negative, or None")
        if not (_number(self.tol) and 0 <= self.tol < float("inf")):
            raise ConfigurationError(f"tol={self.tol!r} must be a number of nats that is not negative")
        if self.time_limit is not None and not (_number(self.time_limit) and self.time_limit > 0):
            raise ConfigurationError(f"time_limit={self.time_limit!r} must be a positive number of seconds")

        if not isinstance(self.verbose, (bool, np.bool_)) and not _whole(self.verbose):
            raise ConfigurationError(f"verbose={self.verbose!r} must be a whole number: 0 for silence")

    def seed_or(self, stored: int | None) -> int:
        """The seed; where none is set, the one that a checkpoint began with, or a fresh one."""
        if self.seed is not None:
            return int(self.seed)
        return int(np.random.SeedSequence().generate_state(1)[0]) if stored is None else int(stored)


def check_surroundings(
    executor: Any = None, callbacks: Any = None, checkpoint: Any = None, checkpoint_options: Any = None
) -> None:
    """Raise `ConfigurationError` for what is no executor, callbacks, path or options of a file system."""
    if executor is not None and not callable(getattr(executor, "run", None)):
        raise ConfigurationError(
            f"executor={executor!r} must be an executor, such as dask_em.ThreadsExecutor(), or None to choose one"
        )
    if callbacks is not None:
        several = isinstance(callbacks, Sequence) and not isinstance(callbacks, (str, bytes))
        heard = ("on_start", "on_progress", "on_step", "on_end")
        if not several or not all(callable(getattr(c, name, None)) for c in callbacks for name in heard):
            raise ConfigurationError(
                f"callbacks={callbacks!r} must be a list of callbacks, each with {', '.join(heard)}: subclass "
                "dask_em.callbacks.Quiet, which has them all"
            )
    if checkpoint is not None and not isinstance(checkpoint, (str, os.PathLike)):
        raise ConfigurationError(f"checkpoint={checkpoint!r} must be a path or a URL, or None for no checkpoint")
    if checkpoint_options is not None and not isinstance(checkpoint_options, Mapping):
        raise ConfigurationError(
            f"checkpoint_options={checkpoint_options!r} must be a dict of what fsspec needs to reach the checkpoint"
        )


def _whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
