"""Where the data is: each source plans its blocks once, and reads them inside the tasks."""

from __future__ import annotations

from dask_em.sources.opening import open

__all__ = ["open"]
