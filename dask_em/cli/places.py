"""Paths given on the command line: data, outputs, and what they must not do to each other."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from dask_em.errors import ConfigurationError


def data_of(paths: Sequence[str]) -> Any:
    """One path, or the list of them."""
    return paths[0] if len(paths) == 1 else list(paths)


def columns_of(paths: Sequence[str], columns: list[str] | None) -> list[Any] | None:
    """Columns of arrays are positions, those of tables are names, even where they look like numbers."""
    if columns is None or len(paths) != 1 or not all(re.fullmatch(r"-?\d+", c) for c in columns):
        return columns
    from dask_em.sources.location import locate
    from dask_em.sources.zarr_store import is_zarr

    path = paths[0].rstrip("/")
    if path.endswith(".npy") or ".zarr" in path or ("://" not in path and is_zarr(locate(path, None))):
        return [int(c) for c in columns]
    return columns


def options_for(path: str, storage_options: dict[str, Any] | None) -> dict[str, Any] | None:
    """The storage options, for a URL; a local path needs none."""
    return storage_options if "://" in path else None


def refuse_clash(data: Sequence[str], output: str) -> None:
    """Refuse an output in the place of the data, or inside it, or around it."""
    out = _real(output)
    for path in data:
        folder = re.split(r"[*?\[]", path)[0]
        where = _real(path) if folder == path else _real(os.path.dirname(folder))
        if where == out or where.startswith(out + "/") or (folder == path and out.startswith(where + "/")):
            raise ConfigurationError(
                f"the output {output} would be mixed up with the data {path}: choose another place"
            )


def _real(path: str) -> str:
    return path.rstrip("/") if "://" in path else os.path.realpath(os.path.expanduser(path))
