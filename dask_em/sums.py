"""Sums over rows: what a pass answers, and all that EM needs of the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import numpy as np


def _combine(a: Any, b: Any, f: Callable[[Any, Any], Any]) -> Any:
    if a is None:
        return None
    if isinstance(a, tuple):
        return tuple(_combine(x, y, f) for x, y in zip(a, b, strict=True))
    return f(a, b)


class Sums:
    """A frozen dataclass whose fields are sums over rows: a vector space, field by field.

    Fields are numbers, arrays, other `Sums`, tuples of those, or None.
    """

    def __add__(self, other: Self) -> Self:
        return self._with(other, lambda a, b: a + b)

    def __sub__(self, other: Self) -> Self:
        return self._with(other, lambda a, b: a - b)

    def __mul__(self, scalar: float) -> Self:
        return self._with(self, lambda a, _: a * scalar)

    __rmul__ = __mul__

    def merge(self, right: Self) -> Self:
        """Sum with the partial result of the rows that follow."""
        return self + right

    def close(self) -> Self:
        """The finished sums: plain sums are finished at any time."""
        return self

    def _with(self, other: Self, f: Callable[[Any, Any], Any]) -> Self:
        new = {c.name: _combine(getattr(self, c.name), getattr(other, c.name), f) for c in fields(self)}  # type: ignore[arg-type]
        return replace(self, **new)  # type: ignore[type-var]


@dataclass(frozen=True)
class Statistics(Sums):
    """Expected sufficient statistics of some rows at some parameters, and the log-likelihood there.

    Subclass it (as a frozen dataclass) with the model's own arrays.  `loglik` is summed with
    compensation: what rounding dropped from it is in `loglik_low`.
    """

    weight: float  # sum of the rows' weights
    loglik: float  # natural log-likelihood, not counting a prior
    loglik_low: float = field(default=0.0, kw_only=True)

    @property
    def total_loglik(self) -> float:
        """The log-likelihood with its compensation added."""
        return self.loglik + self.loglik_low

    def __add__(self, other: Self) -> Self:
        total = super().__add__(other)
        a, b, s = self.loglik, other.loglik, total.loglik  # Knuth's two-sum
        a_part = s - b
        low = (a - a_part) + (b - (s - a_part))
        return replace(total, loglik_low=self.loglik_low + other.loglik_low + low) if np.isfinite(low) else total
