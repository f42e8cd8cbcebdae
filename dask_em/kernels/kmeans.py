"""k-means: a whole E-step of hard assignment from one load of the rows, and what it says of each row.

The specification is `dask_em.kernels.reference`; the loops are in `kmeans_loops`.  The nearest centre is found
by products z·c - |c|²/2 about the pivot, and its distance is measured by differences, so that inertia keeps its
digits wherever the data lies.  Where a slab's rows are so far from the pivot that products could mistake rows by
more than a trifle of their inertia, the nearest is found by differences too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dask_em.kernels.gaussian_tiles import aligned, into_groups, slab_groups
from dask_em.kernels.kmeans_loops import (
    HardTotals,
    Near,
    Tiled,
    add_rows,
    all_squared,
    come_closer,
    nearest,
    nearest_exact,
    only_squared,
    potentials,
)
from dask_em.kernels.softmax import GROUP

_CENTER_BYTES = 1 << 14  # of centres at a time: half of a first-level cache
_LOSS = 1e-10  # share of a slab's inertia that rows mistaken by rounding may cost at the very worst


@dataclass(frozen=True)
class Farthest:
    """Distinct rows that are farthest from their centres, the farthest first.

    Not a sum: to add keeps the farthest of both, and what scales or takes away sums leaves it as it is.
    """

    room: int  # rows kept, at most
    squared: np.ndarray  # (m,) squared distances
    rows: np.ndarray  # (m, d)

    def __add__(self, other: Farthest) -> Farthest:
        return kept(self.room, np.concatenate([self.squared, other.squared]), np.concatenate([self.rows, other.rows]))

    def __sub__(self, other: Farthest) -> Farthest:
        return self

    def __mul__(self, scalar: float) -> Farthest:
        return self


def kept(room: int, squared: np.ndarray, rows: np.ndarray) -> Farthest:
    """The farthest of some rows, in an order that does not depend on theirs."""
    order = np.lexsort((*rows.T[::-1], -squared))
    squared, rows = squared[order], rows[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    chosen = np.flatnonzero(new & (squared > 0))[:room]
    return Farthest(room, squared[chosen], rows[chosen])


def _distinct_bound(squared: np.ndarray, room: int) -> float:
    """The smallest of the `room` largest different values: rows below it can have no place among the farthest."""
    top = np.unique(np.partition(squared, len(squared) - room)[-room:])
    return float(top[0]) if len(top) == room else float(np.unique(squared)[-room:][0])


@dataclass(frozen=True)
class HardSums:
    """What one E-step sums; w_i are weights and z_i = x_i - pivot."""

    inertia: float  # Σ_i w_i |x_i - c|², c the nearest centre
    inertia_low: float  # what rounding dropped from it
    counts: np.ndarray  # (K,): Σ w_i of the rows nearest to a centre
    first: np.ndarray  # (K, d): Σ w_i z_i of those
    farthest: Farthest


def hard_sums(
    x: np.ndarray, weight: np.ndarray | None, pivot: np.ndarray, runs: Sequence[np.ndarray], room: int = 0
) -> list[HardSums]:
    """The E-step's sums for every set of centres.

    Parameters
    ----------
    x : ndarray of shape (n, d)
        Any real dtype and order. Not written to.
    weight : ndarray of shape (n,) or None
    pivot : ndarray of shape (d,)
        The point that sums are taken about.
    runs : sequence of ndarray of shape (K, d)
        Centres; each run may have its own K.
    room : int
        Rows to keep of those that are farthest from their centres.
    """
    pivot = np.ascontiguousarray(pivot, dtype=np.float64)
    tasks = [_Task(centers, pivot, room) for centers in runs]
    for slab in _slabs(x, weight, pivot):
        for task in tasks:
            task.add(slab)
    return [task.sums() for task in tasks]


def labels(x: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """(n,) number of each row's nearest centre, the first of equals."""
    return nearest_rows(x, centers)[0]


def nearest_rows(x: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) number of each row's nearest centre, and (n,) the exact squared distance from it."""
    pivot = centers.mean(axis=0)
    task = _Task(centers, pivot, 0)
    which, squared = np.empty(len(x), dtype=np.intp), np.empty(len(x))
    for slab in _slabs(x, None, pivot):
        near = task.nearest(slab)
        which[slab.start : slab.start + slab.n] = near.which[: slab.n]
        squared[slab.start : slab.start + slab.n] = near.squared[: slab.n]
    return which, squared


def squared_distances(x: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """(n, K) exact squared distances of each row from every centre."""
    n, d = x.shape
    k = len(centers)
    tiled = _tiled(np.asarray(centers, dtype=np.float64), np.zeros(d))
    wide = tiled.offset.size
    step = slab_groups(n, max(wide, d))
    room, out = aligned(step * wide * GROUP), np.empty((n, k))
    for slab in _slabs(x, None, np.zeros(d), step):
        all_squared(slab.z, slab.groups, d, tiled, room)
        by_row = room[: slab.groups * wide * GROUP].reshape(slab.groups, wide, GROUP).transpose(0, 2, 1)
        out[slab.start : slab.start + slab.n] = by_row.reshape(-1, wide)[: slab.n, :k]
    return out


# ---------------------------------------------------------------- rows


class _Slab(NamedTuple):
    """Some rows, both ways: one after the other, and in groups about the pivot."""

    source: np.ndarray  # flat, (n, d), with room for eight more numbers to be read
    weight: np.ndarray
    z: np.ndarray  # groups of (d, 16)
    n: int
    start: int
    groups: int


def _slabs(x: np.ndarray, weight: np.ndarray | None, pivot: np.ndarray, step: int | None = None) -> Iterator[_Slab]:
    """All rows, `step` groups at a time. A slab is overwritten by the next."""
    n, d = x.shape
    step = slab_groups(n, d) if step is None else step
    z, w = aligned(step * d * GROUP), aligned(step * GROUP)
    as_is = x.dtype == np.float64 and x.flags.c_contiguous and x.flags.aligned and d % 8 == 0
    room = np.zeros(0 if as_is else step * GROUP * d + 8)
    for start in range(0, n, step * GROUP):
        stop = min(start + step * GROUP, n)
        n_rows = stop - start
        groups = -(-n_rows // GROUP)
        w[:n_rows] = 1.0 if weight is None else weight[start:stop]
        w[n_rows : groups * GROUP] = 0.0
        if as_is:
            source = np.asarray(x[start:stop]).reshape(-1)
        else:
            room[: n_rows * d].reshape(n_rows, d)[...] = x[start:stop]
            source = room
        into_groups(source, n_rows, pivot, d, w, z, z)  # of the two copies that it makes only the last is wanted
        yield _Slab(source, w, z, n_rows, start, groups)


# ---------------------------------------------------------------- one set of centres


def _tiled(centers: np.ndarray, pivot: np.ndarray) -> Tiled:
    k, d = centers.shape
    n_tiles = -(-k // 4)
    padded = np.zeros((n_tiles * 4, d))
    padded[:k] = centers - pivot
    offset = np.full(n_tiles * 4, -np.inf)
    offset[:k] = -0.5 * np.einsum("ij,ij->i", padded[:k], padded[:k])
    tiles = aligned(padded.size)
    tiles[:] = padded.reshape(n_tiles, 4, d).transpose(0, 2, 1).reshape(-1)
    return Tiled(tiles, offset)


class _Task:
    """One set of centres in the kernel's form, and its sums so far."""

    def __init__(self, centers: np.ndarray, pivot: np.ndarray, room: int) -> None:
        self.given = np.asarray(centers, dtype=np.float64)
        self.pivot, self.room = pivot, room
        self.k, self.d = self.given.shape
        self.wide = -(-self.d // 8) * 8
        self.centers, self.padded_pivot = np.zeros((self.k, self.wide)), np.zeros(self.wide)
        self.centers[:, : self.d], self.padded_pivot[: self.d] = self.given, pivot
        self.tiled = _tiled(self.given, pivot)
        self.longest = float(np.sqrt(-2 * self.tiled.offset[: self.k].min()))
        self.block = max(1, _CENTER_BYTES // (32 * self.d))
        self.totals = HardTotals(np.zeros(2), np.zeros(self.k), np.zeros(self.k * self.wide))
        self.far = [(np.zeros(0), np.zeros((0, self.d)))]  # squared distances and rows, some too many
        self.bound = 0.0  # squared distance from which a row may be among the farthest
        self.near = Near(aligned(0), aligned(0), aligned(0))

    def _assign(self, slab: _Slab) -> None:
        if len(self.near.which) < slab.groups * GROUP + 8:
            self.near = Near(*(aligned(slab.groups * GROUP + 8) for _ in range(3)))
        nearest(slab.z, slab.groups, self.d, self.tiled, self.block, self.near)

    def _assign_exactly(self, slab: _Slab) -> None:
        raw = aligned(slab.groups * self.d * GROUP)
        origin = np.zeros(self.d)
        into_groups(slab.source, slab.n, origin, self.d, slab.weight, raw, raw)
        exact = _tiled(self.given, origin)
        offset = np.where(np.arange(exact.offset.size) < self.k, 0.0, -np.inf)
        nearest_exact(raw, slab.groups, self.d, exact._replace(offset=offset), self.near)

    def _mistaken(self, top: float, inertia: float, weight: float) -> bool:
        """Whether products may have cost more than a trifle: one is off by some eps |z| |c| at most.

        top: the largest squared distance of a row from the centre that it was given to.
        """
        if self.k == 1:
            return False
        reach = top**0.5 + self.longest
        error = 4 * np.finfo(np.float64).eps * self.longest * (reach + self.longest)
        return not error * weight <= _LOSS * inertia

    def nearest(self, slab: _Slab) -> Near:
        """The nearest centre of each row of a slab and the squared distance from it."""
        flat = self.centers.reshape(-1)
        self._assign(slab)
        only_squared(slab.source, slab.n, self.d, self.near.which, self.near.squared, flat, self.wide)
        squared = self.near.squared[: slab.n]
        if self._mistaken(float(squared.max()), float(squared.sum()), slab.n):
            self._assign_exactly(slab)
            only_squared(slab.source, slab.n, self.d, self.near.which, self.near.squared, flat, self.wide)
        return self.near

    def add(self, slab: _Slab) -> None:
        """Add the sums of a slab."""
        self._assign(slab)
        own = self._sums_of(slab)
        top = float(self.near.squared[: slab.n].max())
        if self._mistaken(top, float(own.inertia.sum()), float(own.counts.sum())):
            self._assign_exactly(slab)
            own = self._sums_of(slab)
        t = self.totals
        t.counts[:] += own.counts
        t.first[:] += own.first
        high, term = t.inertia[0], own.inertia[0]
        t.inertia[0] = high + term
        part = t.inertia[0] - high
        t.inertia[1] += own.inertia[1] + (high - (t.inertia[0] - part)) + (term - part)
        if self.room and top >= self.bound:
            self._look_far(slab)

    def _sums_of(self, slab: _Slab) -> HardTotals:
        own = HardTotals(np.zeros(2), np.zeros(self.k), np.zeros(self.k * self.wide))
        add_rows(
            slab.source, slab.n, self.d, slab.weight, self.near.which, self.near.squared, self.centers.reshape(-1),
            self.padded_pivot, own.counts, own.first, own.inertia,
        )  # fmt: skip
        return own

    def _look_far(self, slab: _Slab) -> None:
        squared = self.near.squared[: slab.n]  # of rows without weight it is zero
        far = np.flatnonzero(squared >= self.bound)
        if len(far) > 4 * self.room:
            bound = _distinct_bound(squared[far], self.room)
            far, self.bound = far[squared[far] >= bound], max(bound, self.bound)
        rows = slab.source[: slab.n * self.d].reshape(slab.n, self.d)
        self.far.append((squared[far], rows[far]))
        if sum(len(own) for own, _ in self.far) > 16 * self.room:
            self._sort_far()

    def _sort_far(self) -> Farthest:
        """The farthest rows so far; none that is nearer than the last of them needs to be looked at again."""
        squared, rows = zip(*self.far)
        farthest = kept(self.room, np.concatenate(squared), np.concatenate(rows))
        self.far = [(farthest.squared, farthest.rows)]
        if self.room and len(farthest.squared) == self.room:
            self.bound = float(farthest.squared[-1])
        return farthest

    def sums(self) -> HardSums:
        """The sums of all slabs."""
        first = self.totals.first.reshape(self.k, self.wide)[:, : self.d].copy()
        high, low = self.totals.inertia
        return HardSums(float(high), float(low), self.totals.counts.copy(), first, self._sort_far())


# ---------------------------------------------------------------- seeds


class Field:
    """Rows in memory and their squared distances from the nearest of the seeds so far.

    Parameters
    ----------
    x : ndarray of shape (n, d)
        About its middle.
    weight : ndarray of shape (n,)

    Attributes
    ----------
    near : ndarray
        Of the rows, and of a few more that only fill up; infinite before the first seed.
    """

    def __init__(self, x: np.ndarray, weight: np.ndarray) -> None:
        n, self.d = x.shape
        self.groups = -(-n // GROUP)
        (slab,) = _slabs(x, weight, np.zeros(self.d), self.groups)
        self.z, self.weight = slab.z, slab.weight
        by_column = self.z.reshape(self.groups, self.d, GROUP)
        self.norm, self.near = aligned(self.groups * GROUP), aligned(self.groups * GROUP)
        self.norm[:] = np.einsum("gir,gir->gr", by_column, by_column).reshape(-1)
        self.near[:] = np.finfo(np.float64).max

    def potentials(self, seeds: np.ndarray) -> np.ndarray:
        """(m,) what the weighted sum of squared distances would be with each of m seeds alone added."""
        tiled = _tiled(np.asarray(seeds, dtype=np.float64), np.zeros(self.d))
        out = np.empty(tiled.offset.size)
        potentials(self.z, self.groups, self.d, self.norm, self.weight, self.near, tiled, out)
        return out[: len(seeds)]

    def add(self, seed: np.ndarray) -> None:
        """One more seed."""
        center = np.ascontiguousarray(seed, dtype=np.float64)
        come_closer(self.z, self.groups, self.d, self.norm, self.near, center)
