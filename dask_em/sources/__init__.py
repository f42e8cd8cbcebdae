"""Where the data is: each source plans its blocks once, and reads them inside the tasks."""

from __future__ import annotations

from dask_em.sources.opening import open  # noqa: A004  em.open reads as builtin open does

__all__ = ["open"]
