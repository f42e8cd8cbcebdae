"""Sequences of rows: whether the rows of each are one after another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dask_em.errors import DataError

_WHOLE = 1 << 53
_MOST = 1 << 22  # ids that are remembered: 32 MiB; where there are more, what is torn is not looked for any more


@dataclass(frozen=True)
class Sequences:
    """The ids of the sequences of some rows, in order, each as often as its rows begin anew.

    Parameters
    ----------
    ids : ndarray or None
        None: too many to remember.
    first, last : int
        Of the first and the last row.
    count : int
    """

    ids: np.ndarray | None
    first: int
    last: int
    count: int

    @classmethod
    def of(cls, sequence: np.ndarray) -> Sequences:
        """Of the ids (n,) of the rows of a block."""
        ids = sequence[np.flatnonzero(np.concatenate([[True], sequence[1:] != sequence[:-1]]))]
        return cls(ids if len(ids) <= _MOST else None, sequence[0], sequence[-1], len(ids))

    def merge(self, right: Sequences) -> Sequences:
        """With those of the rows that follow."""
        goes_on = int(self.last == right.first)
        count = self.count + right.count - goes_on
        ids = None
        if self.ids is not None and right.ids is not None and count <= _MOST:
            ids = np.concatenate([self.ids, right.ids[goes_on:]])
        return Sequences(ids, self.first, right.last, count)

    def refuse_torn(self, where: str) -> None:
        """Raise `DataError` for a sequence whose rows are not one after another."""
        if self.ids is None:
            return
        ordered = np.sort(self.ids)
        again = ordered[1:][ordered[1:] == ordered[:-1]]
        if len(again):
            named = f", such as {again[0]}," if abs(int(again[0])) < _WHOLE else ""  # else a hash of a text
            n = len(np.unique(again))
            raise DataError(
                f"{where}: rows of {n} sequence{'s' * (n > 1)}{named} go on after those of others: sort the rows "
                "by sequence, and by time within each"
            )
