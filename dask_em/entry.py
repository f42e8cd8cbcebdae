"""What a fit is asked for: a model, and where to begin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dask_em.hashing import Resampling
from dask_em.history import Record
from dask_em.model import Model, Params
from dask_em.race import Begin

Seeding = Callable[..., tuple[Params, list[Record]]]  # of rows, an executor and a seed; and witness=, progress=


@dataclass(frozen=True)
class Entry:
    """A model to fit, and where to begin.

    Parameters
    ----------
    model : Model
    params : tuple of Params, optional
        Begin exactly at these; otherwise at starts raced on a sample.
    begin : callable, optional
        ``begin(model, sample, rng)`` makes a start, in place of the model's own `start`.
    n_init : int, optional
        Starts to race, in place of the settings' number: one, where nothing about a start is random.
    seeding : callable, optional
        ``seeding(rows, executor, seed, witness=, progress=)`` finds parameters to begin at by steps of its own, and
        tells of them in records like those of a fit's history.
    resampling : Resampling, optional
        The data set, drawn from the rows, that `params` are to be fitted to.
    grows : bool
        Whether starts may also be made of what smaller models of the same fit reached.
    """

    model: Model
    params: tuple[Params, ...] | None = None
    begin: Begin | None = None
    n_init: int | None = None
    seeding: Seeding | None = None
    resampling: Resampling | None = None
    grows: bool = True
