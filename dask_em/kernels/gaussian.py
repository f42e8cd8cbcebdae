"""Gaussian mixtures: a whole E-step from one load of the rows, and what it says of each row.

The specification is `dask_em.kernels.reference`; the loops are in `gaussian_full`, `gaussian_axes`,
`gaussian_many` and `gaussian_far`.
Rows pass by in slabs that fit a core's second-level cache, whatever their dtype and order; every
parameter set is answered from the same slab, each by the same arithmetic as if it were alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from dask_em.kernels import gaussian_axes as axes
from dask_em.kernels import gaussian_far
from dask_em.kernels import gaussian_full as full
from dask_em.kernels import gaussian_many as many
from dask_em.kernels.gaussian_tiles import Rows, aligned, slab_groups, slabs
from dask_em.kernels.softmax import GROUP, row_posteriors

_MANY = 24  # columns from which it pays to cut distances short
Want = Literal["labels", "proba", "loglik", "log_density"]


@dataclass(frozen=True)
class Components:
    """One parameter set, ready for the kernel.

    Attributes
    ----------
    log_weights : ndarray of shape (K,)
        Minus infinity for a component without weight.
    means : ndarray of shape (K, d)
    precisions_cholesky : ndarray
        full (K, d, d) and tied (d, d): upper triangular U with precision U Uᵀ; diag (K, d) and
        spherical (K,): one over the standard deviation.
    covariance_type : {"full", "tied", "diag", "spherical"}
    far : ndarray of shape (K,), bool, optional
        Components whose moments are to be about their own mean; None: all about the pivot.
    """

    log_weights: np.ndarray
    means: np.ndarray
    precisions_cholesky: np.ndarray
    covariance_type: str
    far: np.ndarray | None = None


@dataclass(frozen=True)
class MixtureSums:
    """What one E-step sums; r_ik are responsibilities, w_i weights and z_i = x_i - pivot, or x_i - μ_k."""

    loglik: float  # Σ_i w_i log p(x_i)
    counts: np.ndarray  # (K,): Σ_i w_i r_ik
    first: np.ndarray  # (K, d): Σ_i w_i r_ik z_i
    second: (
        np.ndarray
    )  # of z zᵀ: full (K, d(d+1)/2) upper triangles by row, tied (d(d+1)/2,), diag (K, d), spherical (K,)


def mixture_sums(
    x: np.ndarray, weight: np.ndarray | None, pivot: np.ndarray, runs: Sequence[Components]
) -> list[MixtureSums]:
    """The E-step's sums of every parameter set.

    Parameters
    ----------
    x : ndarray of shape (n, d)
        Any real dtype and order. Not written to.
    weight : ndarray of shape (n,) or None
    pivot : ndarray of shape (d,)
        The point that moments are taken about, but those of components that are `far`.
    runs : sequence of Components
        Of one covariance type; they may differ in K.
    """
    if not runs:
        return []
    d = x.shape[1]
    pivot = np.ascontiguousarray(pivot, dtype=np.float64)
    tasks = [_task(run, d, pivot) for run in runs]
    columns = tasks[0].columns
    square = _Square(d, columns) if any(isinstance(task, _Tied) for task in tasks) else None
    for rows in slabs(x, weight, pivot, columns, slab_groups(len(x), columns)):
        for task in tasks:
            task.add(rows)
        if square is not None:
            square.add(rows)
    return [task.sums(None if square is None else square.packed()) for task in tasks]


def posteriors(x: np.ndarray, components: Components, want: Want) -> np.ndarray:
    """What the mixture says of each row.

    Returns
    -------
    ndarray
        "labels": (n,) the likeliest component; "proba": (n, K); "loglik": (n,) log density of the
        mixture; "log_density": (n, K) of each component, its weight left out.
    """
    n, d = x.shape
    k = len(components.means)
    if want == "log_density":
        components = replace(components, log_weights=np.zeros(k))
    out = np.empty(n, dtype=np.intp) if want == "labels" else np.empty(n if want == "loglik" else (n, k))
    pivot = components.means.mean(axis=0)
    task = _task(components, d, pivot)
    step = slab_groups(n, max(k, task.columns))
    joint, loglik = aligned(step * k * GROUP), aligned(step * GROUP)
    start = 0
    for rows in slabs(x, None, pivot, task.columns, step):
        task.joint(rows, joint)
        if want in ("proba", "loglik"):
            row_posteriors(joint, loglik, rows.groups, k)
        stop = min(start + rows.groups * GROUP, n)
        by_row = joint[: rows.groups * k * GROUP].reshape(rows.groups, k, GROUP)
        if want == "loglik":
            out[start:stop] = loglik[: stop - start]
        elif want == "labels":
            out[start:stop] = by_row.argmax(axis=1).reshape(-1)[: stop - start]
        else:
            out[start:stop] = by_row.transpose(0, 2, 1).reshape(-1, k)[: stop - start]
        start = stop
    return out


# ---------------------------------------------------------------- one parameter set


def _task(run: Components, d: int, pivot: np.ndarray) -> _Task:
    if run.far is not None:
        return _FarTwo(run, d, pivot) if run.covariance_type == "full" and d <= 2 else _Far(run, d, pivot)
    kinds = {
        "full": _Two if d <= 2 else _Full if d < _MANY else _Many,
        "tied": _Tied,
        "diag": _Diag,
        "spherical": _Diag,
    }
    return kinds[run.covariance_type](run, d, pivot)


class _Task:
    """One parameter set in the kernel's form, and its sums so far."""

    columns: int

    def __init__(self, run: Components, d: int, pivot: np.ndarray) -> None:
        self.run, self.d, self.k, self.pivot = run, d, len(run.means), pivot
        self.columns = self._columns()
        log_norm = _log_det(run, d) - 0.5 * d * np.log(2 * np.pi)
        self.constant = np.asarray(run.log_weights, dtype=np.float64) + log_norm
        self.work = full.Work(aligned(full.TILE * self.k * GROUP), aligned(full.TILE * self.columns * GROUP))
        first = np.zeros(self.k * self.columns)
        self.totals = full.Totals(np.zeros(2), np.zeros(self.k), first, np.zeros(self._second_size()))
        self.density = full.Density(self.constant, self._padded(run.means).reshape(-1), self._factor())

    def _columns(self) -> int:
        return -(-self.d // 4) * 4

    def _padded(self, a: np.ndarray, axes: int = 1) -> np.ndarray:
        """With the last axes filled up with zeros."""
        wide = np.zeros(a.shape[: a.ndim - axes] + (self.columns,) * axes)
        inner = wide[..., : self.d] if axes == 1 else wide[..., : self.d, : self.d]
        inner[...] = a
        return wide

    def _second_size(self) -> int:
        return self.k * full.n_blocks(self.columns) * 16

    def _factor(self) -> np.ndarray:
        return self._padded(self.run.precisions_cholesky, axes=2).reshape(-1)

    @cached_property
    def _centers(self) -> gaussian_far.Centers:
        assert self.run.far is not None
        at = np.where(self.run.far[:, None], self.run.means, self.pivot)
        room = aligned(full.TILE * self.columns * GROUP)
        return gaussian_far.Centers(self._padded(at).reshape(-1), self.run.far, room)

    @property
    def loglik(self) -> float:
        return float(self.totals.loglik.sum())

    def add(self, rows: Rows) -> None:
        raise NotImplementedError

    def joint(self, rows: Rows, out: np.ndarray) -> None:
        raise NotImplementedError

    def sums(self, square: np.ndarray | None) -> MixtureSums:
        raise NotImplementedError


class _Full(_Task):
    """A matrix each."""

    def add(self, rows: Rows) -> None:
        full.sums_any(rows, self.density, self.work, self.totals)

    def joint(self, rows: Rows, out: np.ndarray) -> None:
        full.joint_any(rows, self.density, self.work._replace(joint=out))

    def sums(self, square: np.ndarray | None) -> MixtureSums:
        first = self.totals.first.reshape(self.k, -1)[:, : self.d].copy()
        second = full.packed(self.totals.second.reshape(self.k, -1), self.d, self.columns)
        return MixtureSums(self.loglik, self.totals.counts, first, second)


class _Many(_Full):
    """A matrix each, of many columns."""

    def __init__(self, run: Components, d: int, pivot: np.ndarray) -> None:
        super().__init__(run, d, pivot)
        rows = many.tile(self.columns) * GROUP
        wide = rows * self.columns
        chosen, likeliest = np.empty((2, rows + 1), dtype=np.int64)  # one more: a list's end may be written to
        self.room = many.Room(
            aligned(rows * self.k),
            aligned(wide),
            aligned(wide),
            aligned(rows + GROUP),
            aligned(rows),
            chosen,
            likeliest,
            np.zeros(1, dtype=np.int64),
        )
        self.few = -(-self.columns // 12) * 4
        self.nowhere = np.zeros(self.columns)

    def add(self, rows: Rows) -> None:
        many.sums_many(rows, self.density, self.few, self.room, self.totals, self.nowhere)


class _Two(_Task):
    """A matrix each, of one or two columns."""

    def _columns(self) -> int:
        return 2

    def _second_size(self) -> int:
        return 8 * self.k

    def add(self, rows: Rows) -> None:
        full.sums_2(rows, self.density, self.work, self.totals)

    def joint(self, rows: Rows, out: np.ndarray) -> None:
        full.joint_2(rows, self.density, self.work._replace(joint=out))

    def sums(self, square: np.ndarray | None) -> MixtureSums:
        s = self.totals.second.reshape(self.k, 8)
        second = s[:, [3, 4, 5]] if self.d == 2 else s[:, [3]]
        return MixtureSums(self.loglik, s[:, 0].copy(), s[:, 1 : 1 + self.d].copy(), second)


class _FarTwo(_Two):
    """A matrix each, of one or two columns, and some components far from the pivot."""

    def add(self, rows: Rows) -> None:
        gaussian_far.sums_far_2(rows, self.density, self._centers, self.work, self.totals)


class _Far(_Task):
    """Any shape, and some components far from the pivot."""

    def _second_size(self) -> int:
        blocks = full.n_blocks(self.columns) * 16
        return {"full": self.k * blocks, "tied": blocks}.get(self.run.covariance_type, self.k * self.columns)

    def _factor(self) -> np.ndarray:
        kind = self.run.covariance_type
        if kind in ("full", "tied"):
            u = self._padded(self.run.precisions_cholesky, axes=2)
            return np.broadcast_to(u, (self.k, *u.shape[-2:])).reshape(-1)
        u = np.broadcast_to(self.run.precisions_cholesky.reshape(self.k, -1), (self.k, self.d))
        return self._padded(u).reshape(-1)

    def add(self, rows: Rows) -> None:
        kind = self.run.covariance_type
        stride = 0 if kind == "tied" else self.totals.second.size // self.k
        by_column = kind in ("diag", "spherical")
        gaussian_far.sums_far(rows, self.density, self._centers, by_column, stride, self.work, self.totals)

    def sums(self, square: np.ndarray | None) -> MixtureSums:
        kind, second = self.run.covariance_type, self.totals.second
        first = self.totals.first.reshape(self.k, -1)[:, : self.d].copy()
        if kind == "full":
            second = full.packed(second.reshape(self.k, -1), self.d, self.columns)
        elif kind == "tied":
            second = full.packed(second[None], self.d, self.columns)[0]
        else:
            second = second.reshape(self.k, -1)[:, : self.d]
            second = second.copy() if kind == "diag" else second.sum(axis=1)
        return MixtureSums(self.loglik, self.totals.counts, first, second)


class _Diag(_Task):
    """A variance for each column, or one for all of them."""

    def _second_size(self) -> int:
        return 2 * self.k * self.columns

    def _factor(self) -> np.ndarray:
        u = np.asarray(self.run.precisions_cholesky, dtype=np.float64)
        u = u[:, None] if self.run.covariance_type == "spherical" else u
        return self._padded(np.broadcast_to(u, (self.k, self.d))).reshape(-1)

    def add(self, rows: Rows) -> None:
        axes.sums_diag(rows, self.density, self.work, self.totals)

    def joint(self, rows: Rows, out: np.ndarray) -> None:
        axes.joint_diag(rows, self.density, self.work._replace(joint=out))

    def sums(self, square: np.ndarray | None) -> MixtureSums:
        both = self.totals.second.reshape(self.k, -1, 2, 4)
        first, second = (both[:, :, i].reshape(self.k, -1)[:, : self.d].copy() for i in (0, 1))
        if self.run.covariance_type == "spherical":
            second = second.sum(axis=1)
        return MixtureSums(self.loglik, self.totals.counts, first, second)


class _Tied(_Diag):
    """One matrix for all."""

    def _factor(self) -> np.ndarray:
        u = self._padded(self.run.precisions_cholesky, axes=2)
        self._u = u.reshape(-1)
        offset = self._padded(self.run.means - self.pivot)
        self._white = offset @ u
        self._reach = np.abs(offset).max(initial=0.0)
        self._stretch = np.abs(u).sum(axis=0).max()
        return np.broadcast_to(u, (self.k, *u.shape)).reshape(-1)

    def _tied(self, rows: Rows) -> axes.Tied:
        z = rows.z[: rows.groups * self.columns * GROUP]
        reach = max(z.max(), -z.min(), self._reach)
        safe = np.finfo(float).eps * self._stretch * reach < _SAFE
        return axes.Tied(self.constant, self._u, self._padded(self.pivot), self._white.reshape(-1), bool(safe))

    def add(self, rows: Rows) -> None:
        axes.sums_tied(rows, self._tied(rows), self.density, self.work, self.totals)

    def joint(self, rows: Rows, out: np.ndarray) -> None:
        scaled = aligned(rows.groups * self.columns * GROUP)
        axes.joint_tied(rows, self._tied(rows), self.density, full.Work(out, scaled))

    def sums(self, square: np.ndarray | None) -> MixtureSums:
        own = super().sums(None)
        assert square is not None
        return MixtureSums(own.loglik, own.counts, own.first, square)


# A whitened row is off by at most eps times this stretch and reach; a distance by that times twice the
# distance's root. Rows that decide anything are within about 30 of a component: their distance keeps 1e-9.
_SAFE = 1e-11


class _Square:
    """Σ w z zᵀ, which is the same for every run with one matrix for all."""

    def __init__(self, d: int, columns: int) -> None:
        self.d, self.columns = d, columns
        self.scaled = aligned(full.TILE * columns * GROUP)
        self.blocks = np.zeros(full.n_blocks(columns) * 16)

    def add(self, rows: Rows) -> None:
        axes.weighted_squares(rows, self.scaled, self.blocks)

    def packed(self) -> np.ndarray:
        return full.packed(self.blocks[None], self.d, self.columns)[0]


def _log_det(run: Components, d: int) -> np.ndarray | float:
    u = run.precisions_cholesky
    if run.covariance_type == "spherical":
        return d * np.log(u)
    if run.covariance_type == "diag":
        return np.log(u).sum(axis=1)
    return np.log(np.diagonal(u, axis1=-2, axis2=-1)).sum(axis=-1)
