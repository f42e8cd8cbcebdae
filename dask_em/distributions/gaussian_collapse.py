"""Gaussian components that only `reg_covar` holds up: what they collapsed onto, in words, and what would help.

In some direction such a component has the least variance that `reg_covar` allows, and next to none of what all rows
have there: the former alone, where `reg_covar` is large beside the data, is no collapse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dask_em.distributions.base import components_have
from dask_em.distributions.gaussian_bounds import constant

_COLLAPSED = 1e-4  # of the variance of all rows: a component a hundredth as wide has collapsed
_NONE = 1e-12  # of the least variance: no variance at all
_ROUNDING = 1e-9  # of the least variance, and of
_EPS = 64 * float(np.finfo(np.float64).eps)  # the largest
_TAKES_PART = 0.05  # of the largest share that a column has in a direction: those with less are not named
_FAR = 10.0  # standard deviations from the mean of all rows
_NAMED = 6  # columns, or coordinates of a point, that are told


@dataclass(frozen=True)
class Collapse:
    """What tells a collapse.

    Attributes
    ----------
    least : ndarray of shape (d,)
        The least variances of columns.
    variance : ndarray of shape (d,)
        Of the columns over all rows; infinite where it is not known.
    center : ndarray of shape (d,)
        Mean of all rows.
    """

    least: np.ndarray
    variance: np.ndarray
    center: np.ndarray

    def sentences(self, means: np.ndarray, covariances: np.ndarray, tied: bool) -> list[str]:
        """A sentence for each cause of collapse, with the components that share it.

        covariances: full (K, d, d); tied (1, d, d); diag and spherical (K, d).

        Examples
        --------
        >>> collapse = Collapse(np.full(2, 1e-6), np.array([3.0, 0.0]), np.zeros(2))
        >>> print(*collapse.sentences(np.zeros((2, 2)), np.array([[1.0, 1e-6], [4.0, 1e-6]]), tied=False))
        column 1 is constant, and has no width but what reg_covar gives: leave it out
        """
        narrow = np.flatnonzero((self.variance < self.least) & ~self._constant)
        if len(narrow):
            return [_too_large(narrow, float(self.least[narrow[0]]))]
        causes: dict[str, list[int]] = {}
        for k, c in enumerate(covariances):
            cause = self._cause(None if tied else means[k], c)
            if cause:
                causes.setdefault(cause, []).append(k)
        return [_sentence(cause, who, tied) for cause, who in causes.items()]

    def _none_of_its_own(self, values: np.ndarray, whole: np.ndarray, rounding: float = 0.0) -> np.ndarray:
        """Which variances, in units of the least, are that alone; whole: those of all rows in the same directions."""
        held = values - 1 <= max(_ROUNDING, rounding)
        return np.asarray(held & ((_COLLAPSED * whole >= 1) | (whole <= _NONE)))

    def _cause(self, mean: np.ndarray | None, c: np.ndarray) -> str:
        """Why a component has collapsed; empty: it has not. mean: None where covariances are tied."""
        columns = c if c.ndim == 1 else np.diagonal(c)
        still = self._none_of_its_own(columns / self.least, self._units)
        if still.all() and mean is not None and len(columns) > int(self._constant.any()):
            return self._point(mean)
        if (still & self._constant).any():
            return f"{_columns(np.flatnonzero(still & self._constant))} constant, and {_NO_WIDTH}: leave it out"
        if still.any():
            which = np.flatnonzero(still)
            return (
                f"collapsed to a single value of {_columns(which, verb=False)}: values there are repeated or rounded, "
                "so add jitter of the size of the rounding, use fewer components or raise reg_covar"
            )
        return "" if c.ndim == 1 else self._plane(c)

    @property
    def _units(self) -> np.ndarray:
        """Variances of columns in units of the least; zero, where a column is constant."""
        return np.where(self._constant, 0.0, self.variance / self.least)

    @property
    def _constant(self) -> np.ndarray:
        return constant(self.variance, self.center)

    def _point(self, mean: np.ndarray) -> str:
        apart = np.abs(mean - self.center) / np.sqrt(np.where(self.variance > 0, self.variance, np.inf))
        where = ", ".join(f"{v:.6g}" for v in mean[:_NAMED]) + (", ..." if len(mean) > _NAMED else "")
        if apart.max(initial=0.0) > _FAR:
            return (
                f"collapsed onto the point ({where}), {apart.max():.0f} standard deviations from the mean: drop or "
                "mend the rows there if they are outliers, or use em.StudentT, which they do not spoil"
            )
        return (
            f"collapsed onto the point ({where}): such spikes come from repeated or rounded values, or a component of "
            "a single row, so use fewer components, add jitter of the size of the rounding, or raise reg_covar"
        )

    def _plane(self, c: np.ndarray) -> str:
        unit = np.sqrt(self.least)
        values, vectors = np.linalg.eigh(c / np.outer(unit, unit))
        rounding = _EPS * float(values.max())
        flat = self._none_of_its_own(values, np.einsum("ij,i->j", vectors**2, self._units), rounding)
        if rounding > 1 or not flat.any():  # of columns in such units rounding is wider than the least variance
            return ""
        share = np.abs(vectors[:, flat]) * (np.sqrt(np.diagonal(c)) / unit)[:, None]
        which = np.flatnonzero((share > _TAKES_PART * share.max(axis=0)).any(axis=1))
        return (
            f"collapsed onto a plane of {len(c) - int(flat.sum())} dimensions, since "
            f"{_columns(which, verb=False)} determine one another there: leave out columns that others determine; "
            "where all rows together do not lie so, the rows are too few for full covariances, so use fewer components "
            'or covariance_type="diag"'
        )


def _too_large(which: np.ndarray, least: float) -> str:
    return (
        f"all rows together vary less in {_columns(which, verb=False)} than reg_covar lets a component do, {least:g}: "
        "give a smaller one, or leave it out"
    )


_NO_WIDTH = "has no width but what reg_covar gives"


def _columns(which: Sequence[int] | np.ndarray, verb: bool = True) -> str:
    told = ", ".join(str(int(j)) for j in which[:_NAMED]) + (", ..." if len(which) > _NAMED else "")
    many = len(which) > 1
    return f"column{'s' if many else ''} {told}" + ((" are" if many else " is") if verb else "")


def _sentence(cause: str, who: list[int], tied: bool) -> str:
    if not cause.startswith("collapsed"):
        return cause  # of all rows, whichever the component
    return f"the tied covariance has {cause}" if tied else f"{components_have(who)} {cause}"
