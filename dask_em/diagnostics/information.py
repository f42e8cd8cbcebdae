"""Fisher's information about fitted parameters, and what it says of how sure they are.

All is done in the coordinates of `Model.to_vector`, phi.  Fisher's identity makes the gradient of a log-likelihood that
of the expected one, dQ(phi' | phi)/dphi' at phi' = phi, so that expected sums at points about phi are all that the
*observed* information asks of the rows (Louis 1982; Jamshidian and Jennrich 2000); the *empirical* one sums the outer
products of the rows' own gradients (Meilijson 1989; McLachlan and Peel 2000, section 2.15).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from dask_em.engine import EStep, one_pass
from dask_em.gradients import FLAT, STEP, Differences, information_scale, moved
from dask_em.model import Chunk, Executor, Model, Params, Source
from dask_em.sums import Sums

Read = Callable[[np.ndarray], np.ndarray]  # of a vector, the numbers that people read

_BATCH = 64 << 20  # bytes of sums that are asked for at a time
_LOOSE = 1e-2  # share of a number's variation along such directions, from which on it is not known: less is rounding
_EDGE = 1e-8  # of a number: what moves it less has it at the edge of what is possible
_INNER = 0.5  # share of a number's variation that is along inner coordinates, below which it is at an edge
_STRAIGHT = 0.3  # of what a number would move over a standard error if it moved on as it begins to
_FAR = 100.0  # a step that no coordinate is taken beyond: exp of it is still a number


# ---------------------------------------------------------------- numbers that people read


@dataclass(frozen=True)
class Reading:
    """How numbers that people read move with a model's coordinates.

    Attributes
    ----------
    values : ndarray of shape (m,)
        The numbers.
    slopes : ndarray of shape (m, p)
        Along all coordinates.
    inner : ndarray of shape (q,)
        Coordinates along which parameters are not at the edge of what is possible, or creeping there.
    """

    values: np.ndarray
    slopes: np.ndarray
    inner: np.ndarray

    @classmethod
    def about(cls, model: Model, params: Params, weight: float, read: Read) -> Self:
        """Of some parameters, given rows of some weight.

        Toward an edge, as zero is of a probability, a maximum lies infinitely far off along a coordinate such as its
        logarithm, and a fit stops somewhere on the way.  There a standard error of the coordinate, at least, leads to
        where the numbers move no longer: nothing that is said of small steps, as all standard errors are, holds that
        far.  A probability is at an edge by this where fewer than about a tenth of one such row is expected.
        """
        center = model.to_vector(params)
        values, slopes, inner = read(center), [], []
        for j, tells in enumerate(model.vector_scale(params)):
            far = 1 / max(np.sqrt(weight) * tells, 1 / _FAR)  # a standard error, if nothing were hidden
            step = min(STEP / tells, 1e-3 * far) if tells > 0 else STEP
            up, down = (read(moved(center, {j: sign * step})) for sign in (1, -1))
            slope = (up - down) / (2 * step)
            ends = np.abs([read(moved(center, {j: sign * far})) - values for sign in (1, -1)])
            straight = ends.min(axis=0) > _STRAIGHT * far * np.abs(slope)
            slopes.append(slope)
            if straight[slope != 0].any() or not slope.any():  # what moves no number may yet be told from the rows
                inner.append(j)
        return cls(values, np.column_stack(slopes), np.array(inner, dtype=np.intp))


# ---------------------------------------------------------------- information


@dataclass(frozen=True)
class ScoreProducts(Sums):
    """Sums over rows of the outer products of their gradients (p, p)."""

    products: np.ndarray


@dataclass(frozen=True)
class ScoreRequest:
    """Asks for the outer products of the gradients of rows' log-likelihoods."""

    differences: Differences

    @property
    def accepts_nan(self) -> bool:
        """Whether the model knows what to do with missing values."""
        return bool(self.differences.model.accepts_nan)

    def map(self, chunk: Chunk) -> ScoreProducts:
        """Sums of one block."""
        return ScoreProducts(self.differences.products(chunk))


def empirical(model: Model, params: Params, along: np.ndarray, rows: Source, executor: Executor) -> np.ndarray:
    """(p, p) sum over rows of the outer products of their gradients along p coordinates."""
    request = ScoreRequest(Differences.about(model, params, along))
    products: np.ndarray = one_pass(rows, [request], executor).answers[0].products
    return products


def observed(model: Model, params: Params, along: np.ndarray, rows: Source, executor: Executor) -> np.ndarray:
    """(p, p) minus the second derivatives of the log-likelihood, and of the log prior if there is one."""
    near = Differences.about(model, params, along)
    p = len(along)
    (stats,) = _sums(model, [params], rows, executor)
    size = max(1, _BATCH // max(1, 2 * model.nbytes(rows.n_features)))
    hidden = np.empty((p, p))
    for start in range(0, p, size):
        own = range(start, min(start + size, p))
        points = [at[j] for j in own for at in (near.above, near.below)]
        sums = _sums(model, points, rows, executor)
        for place, j in enumerate(own):
            change = (sums[2 * place] - sums[2 * place + 1]) * (0.5 / near.steps[j])
            hidden[:, j] = [near.slope(i, change) for i in range(p)]
    with np.errstate(invalid="ignore"):
        information = _complete(near, params, stats) - hidden
    # a step leads out of what is possible where a weight is next to nothing: of that the rows say nothing
    information = np.where(np.isfinite(information), information, 0.0)
    return (information + information.T) / 2


def _complete(near: Differences, params: Params, stats: Any) -> np.ndarray:
    """(p, p) minus the second derivatives of the expected log-likelihood at given sums, and of the log prior."""
    model, along = near.model, near.along
    center, p = model.to_vector(params), len(along)
    steps = 10 * near.steps  # second differences lose twice the digits

    def value(by: dict[int, int]) -> float:
        at = model.from_vector(moved(center, {int(along[j]): sign * steps[j] for j, sign in by.items()}))
        return model.expected_loglik(at, stats) + model.log_prior(at)

    middle = value({})
    ends = np.array([[value({j: 1}), value({j: -1})] for j in range(p)])
    second = np.diag((ends.sum(axis=1) - 2 * middle) / steps**2)
    for i in range(p):
        for j in range(i):
            both = value({i: 1, j: 1}) + value({i: -1, j: -1})
            second[i, j] = second[j, i] = (both - ends[i].sum() - ends[j].sum() + 2 * middle) / (
                2 * steps[i] * steps[j]
            )
    return -second


def _sums(model: Model, params: Sequence[Params], rows: Source, executor: Executor) -> list[Any]:
    answers: list[Any] = one_pass(rows, [EStep(model, tuple(params))], executor).answers[0]
    return answers


# ---------------------------------------------------------------- what it says


def covariance(
    model: Model,
    params: Params,
    information: np.ndarray,
    weight: float,
    reading: Reading,
    meat: np.ndarray | None = None,
) -> tuple[np.ndarray, bool]:
    """Covariance matrix of the numbers that people read, by the delta method.

    Parameters
    ----------
    model : Model
    params : Params
        A maximum of the likelihood.
    information : ndarray of shape (q, q)
        About the inner coordinates of the reading; the others are held where they are.
    weight : float
        Of the rows that it is of.
    reading : Reading
        Of m numbers.
    meat : ndarray of shape (q, q), optional
        Outer products of the rows' gradients, for variances that hold though the model is wrong (White 1982).

    Returns
    -------
    covariance : ndarray of shape (m, m)
        NaN for numbers that the rows say nothing of, or that are at the edge of what is possible.
    peaked : bool
        Whether the likelihood bends down along all directions that change one of the numbers.
    """
    scale = information_scale(model, params)
    jacobian = reading.slopes / scale  # coordinates in which one row tells about one
    whole = np.linalg.norm(jacobian, axis=1)
    jacobian, unit = jacobian[:, reading.inner], np.sqrt(weight) * scale[reading.inner]
    values, vectors = np.linalg.eigh(information / unit[:, None] / unit)
    known = values > FLAT * max(1.0, values.max(initial=0.0))
    along = jacobian @ vectors
    spread = along[:, known] / values[known]
    if meat is None:
        found = spread @ along[:, known].T
    else:
        own = vectors[:, known]
        found = spread @ (own.T @ (meat / unit[:, None] / unit) @ own) @ spread.T
    # directions that change no number, such as a constant added to all log weights, need not be known
    total = np.linalg.norm(along, axis=1)
    loose = np.linalg.norm(along[:, ~known], axis=1) > _LOOSE * total
    edge = (total <= _EDGE * np.maximum(np.abs(reading.values), _EDGE)) | (total < _INNER * whole)
    found /= weight
    found[loose | edge] = found[:, loose | edge] = np.nan
    return found, not (loose & ~edge).any()
