"""Parameters that no row informs, in words: their columns have no values where it would matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dask_em.model import Chunk, Model, Params

_NONE = 0.5  # of a row: fewer are none
_SOME = 10  # rows of a component that are enough to say so of it
_NAMED = 3  # pairs of columns that are named


def told(
    model: Model, params: Params, moments: Any, rows: Chunk, *, summary: Any, whole: bool, names: Sequence[str] | None
) -> list[str]:
    """The sentences about a fit, as far as rows in memory can tell: all there are (`whole`), or a sample.

    moments: the census's; summary: what stands for all rows, if anything does.
    """
    if not moments.missing.any():
        return []
    weight = rows.weight
    if summary is None and weight is not None:
        rows = replace(rows, weight=weight * ((moments.counted if whole else rows.n_rows) / weight.sum()))
    found = model.observed(params, rows if summary is None else summary)
    if found is None:
        return []
    if summary is not None:
        return sentences(found * (moments.counted / moments.weight), names, None)
    return sentences(found, names, None if whole else rows.n_rows)


def sentences(observed: np.ndarray, names: Sequence[str] | None, looked_at: int | None) -> list[str]:
    """What is to be said of the counts (n, d, d) of `Model.observed`.

    Parameters
    ----------
    observed : ndarray of shape (n, d, d)
    names : sequence of str, optional
        Of the columns.
    looked_at : int, optional
        Rows that were counted. None: all there are.

    Examples
    --------
    >>> sentences(np.array([[[20.0, 0.0], [0.0, 30.0]]]), ["a", "b"], None)
    ["no row has both 'a' and 'b': what the fit says of how they go together comes from its start, not from the data"]
    """
    d = observed.shape[1]
    called = [f"column {j}" for j in range(d)] if names is None else [repr(str(name)) for name in names]
    among = "" if looked_at is None else f"of {looked_at} rows looked at, "
    alone = np.einsum("kii->ki", observed)
    there = (alone.max(axis=1) >= _SOME)[:, None]  # the others are too small to tell, or dead
    void = there & (alone < _NONE)
    said = [
        f"{among}no row of component {k} has a value of {_listed([called[j] for j in np.flatnonzero(void[k])])}: what "
        "the fit says of it there comes from its start, not from the data"
        for k in np.flatnonzero(void.any(axis=1))
    ]
    seen = ~void
    apart = there[:, :, None] & (observed < _NONE) & seen[:, :, None] & seen[:, None, :]
    apart &= np.triu(np.ones((d, d), dtype=bool), 1)
    everywhere = (apart | ~there[:, :, None]).all(axis=0) & apart.any(axis=0)
    groups = [("", everywhere), *((f" of component {k}", apart[k] & ~everywhere) for k in range(len(apart)))]
    for whose, which in groups:
        pairs = [f"{called[i]} and {called[j]}" for i, j in np.argwhere(which)]
        if pairs:
            said.append(
                f"{among}no row{whose} has both {_listed(pairs)}: what the fit says of how they go together comes "
                "from its start, not from the data"
            )
    return said


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", or ".join(names[:_NAMED]) + (f", or {more} more" if more > 0 else "")
