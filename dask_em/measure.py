"""What a log-likelihood is called where people read of it, and in which unit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """What people are told of a log-likelihood: a name, a unit, and how much of it a nat is."""

    name: str = "loglik"
    unit: str = "nats"
    scale: float = 1.0

    def of(self, loglik: float) -> float:
        """The figure that a log-likelihood stands for."""
        return loglik * self.scale

    def gain(self, nats: float) -> str:
        """So many nats, in two digits: a prediction is not better than that."""
        return f"{float(f'{nats * abs(self.scale):.2g}'):,.15g} {self.unit}"
