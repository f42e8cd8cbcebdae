"""Weights of a mixture as coordinates: their logarithms, which may be off by a constant."""

from __future__ import annotations

import numpy as np

_DEAD = -50.0  # log weight of a component that no row comes from: e^-50 of all rows is no row


def to_logits(weights: np.ndarray) -> np.ndarray:
    """Log weights (K,); a component without weight stands where extrapolating leaves it, which is finite."""
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(weights), _DEAD)


def from_logits(logits: np.ndarray) -> np.ndarray:
    """Weights (K,) that sum to one."""
    logits = logits - logits.max()
    logits -= np.log(np.exp(logits).sum())
    # a nat of room, since a shift of the others moves a dead one too
    weights: np.ndarray = np.where(logits > _DEAD + 1, np.exp(logits), 0.0)
    return weights / weights.sum()
