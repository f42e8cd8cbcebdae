"""Moments of components that are narrow and far from the pivot: about each one's own mean.

A variance is the difference of a second moment and a squared mean; about a pivot that is a thousand
standard deviations away it has lost six digits.  Here each such component's rows are taken minus its mean
first, x - μ_k, which costs a subtraction a number; the others' sums are about the pivot as ever.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dask_em.kernels.gaussian_axes import distances_diag
from dask_em.kernels.gaussian_full import TILE, count, distances, distances_2, outer, scale
from dask_em.kernels.simd import called, compiled, fma, load, splat, store, total, totals
from dask_em.kernels.softmax import GROUP, add_compensated, responsibilities


class Centers(NamedTuple):
    """Where each component's sums are about."""

    at: np.ndarray  # (K, columns), flat: its mean where it is far, else the pivot
    far: np.ndarray  # (K,) bool
    rows: np.ndarray  # TILE groups of (columns, 16): room for rows minus a mean


@called
def subtracted(rows, start, groups, center, at_center, out):  # type: ignore[no-untyped-def]
    """A tile's rows minus a point."""
    columns = rows.columns
    for i in range(columns):
        m = splat(center[at_center + i])
        for g in range(groups):
            at, to = ((start + g) * columns + i) * GROUP, (g * columns + i) * GROUP
            store(out, to, load(rows.x, at) - m)
            store(out, to + 8, load(rows.x, at + 8) - m)


@called
def squares(scaled, z, at_z, groups, columns, out, at):  # type: ignore[no-untyped-def]
    """Add Σ scaled z, column by column."""
    for i in range(columns):
        s0, s1 = splat(0.0), splat(0.0)
        for g in range(groups):
            j = (g * columns + i) * GROUP
            s0 = fma(load(scaled, j), load(z, at_z + j), s0)
            s1 = fma(load(scaled, j + 8), load(z, at_z + j + 8), s1)
        out[at + i] += total(s0 + s1)


@compiled
def sums_far(rows, density, centers, by_column, stride, work, sums):  # type: ignore[no-untyped-def]
    """Add the sums of a slab.

    by_column: variances only, factors (K, columns); stride: numbers from one component's second
    moments to the next one's, none where all share one matrix.
    """
    columns, k_all = rows.columns, sums.counts.size
    step = k_all * GROUP
    for start in range(0, rows.groups, TILE):
        groups, at = min(TILE, rows.groups - start), start * columns * GROUP
        if by_column:
            distances_diag(rows.x, at, groups, columns, density.constant, density.mean, density.factor, work.joint)
        else:
            distances(rows, start, groups, density, work)
        loglik = responsibilities(work.joint, groups, k_all, rows.weight, start * GROUP)
        add_compensated(sums.loglik, loglik)
        for k in range(k_all):
            sums.counts[k] += count(work.joint, k * GROUP, groups, k_all)
            z, at_z = rows.z, at
            if centers.far[k]:
                subtracted(rows, start, groups, centers.at, k * columns, centers.rows)
                z, at_z = centers.rows, 0
            scale(z, at_z, groups, columns, work.joint, k * GROUP, step, work.scaled, sums.first, k * columns)
            if by_column:
                squares(work.scaled, z, at_z, groups, columns, sums.second, k * stride)
            else:
                outer(work.scaled, z, at_z, groups, columns, sums.second, k * stride)


@compiled
def sums_far_2(rows, density, centers, work, sums):  # type: ignore[no-untyped-def]
    """Add the sums of a slab of two columns: as `moments_2`, about each component's own point."""
    k_all = sums.counts.size
    none = splat(0.0)
    for start in range(0, rows.groups, TILE):
        groups = min(TILE, rows.groups - start)
        distances_2(rows, start, groups, density, work)
        loglik = responsibilities(work.joint, groups, k_all, rows.weight, start * GROUP)
        add_compensated(sums.loglik, loglik)
        for k in range(k_all):
            c0, c1 = splat(centers.at[2 * k]), splat(centers.at[2 * k + 1])
            n, f0, f1 = none, none, none
            s00, s01, s11 = none, none, none
            for g in range(groups):
                for lane in range(0, GROUP, 8):
                    at = (start + g) * 2 * GROUP + lane
                    z0, z1 = load(rows.x, at) - c0, load(rows.x, at + GROUP) - c1
                    r = load(work.joint, (g * k_all + k) * GROUP + lane)
                    a0, a1 = r * z0, r * z1
                    n, f0, f1 = n + r, f0 + a0, f1 + a1
                    s00, s01, s11 = fma(a0, z0, s00), fma(a0, z1, s01), fma(a1, z1, s11)
            store(sums.second, 8 * k, load(sums.second, 8 * k) + totals(n, f0, f1, s00, s01, s11, none, none))
