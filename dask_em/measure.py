"""What a log-likelihood is called where people read of it, and in which unit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """What people are told of a log-likelihood: a name, a unit, and how much of it a nat is."""

    name: str = "loglik"
    unit: str = "nats"
    scale: float = 1.0
    relative: bool = False  # its gains are judged by what part of it they are

    def of(self, loglik: float) -> float:
        """The figure that a log-likelihood stands for."""
        return loglik * self.scale

    def gain(self, nats: float, of: float | None = None) -> str:
        """So many nats, in two digits: a prediction is not better than that; and what part `of` a log-likelihood.

        Examples
        --------
        >>> Measure().gain(0.0123), Measure("inertia", "of inertia", -2.0, relative=True).gain(61.0, of=-4e6)
        ('0.012 nats', '120 of inertia (1.5e-05 of it)')
        """
        part = f" ({nats / abs(of):.2g} of it)" if self.relative and of else ""
        return f"{float(f'{nats * abs(self.scale):.2g}'):,.15g} {self.unit}{part}"
