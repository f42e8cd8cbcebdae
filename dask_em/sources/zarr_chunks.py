"""A short way through arrays of very many small chunks."""

from __future__ import annotations

from typing import Any


def fast_decoder(array: Any, grid: tuple[int, ...]) -> Any:
    return None
