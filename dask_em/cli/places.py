"""Paths given on the command line: data, outputs, and what they must not do to each other."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Sequence
from typing import Any

from dask_em.errors import ConfigurationError


def data_of(paths: Sequence[str]) -> Any:
    """One path, or the list of them."""
    return paths[0] if len(paths) == 1 else list(paths)


def columns_of(
    paths: Sequence[str], columns: list[str] | None, storage_options: dict[str, Any] | None
) -> list[Any] | None:
    """Columns of arrays are positions, those of tables are names, even where they look like numbers."""
    if columns is None or len(paths) != 1 or not all(re.fullmatch(r"-?\d+", c) for c in columns):
        return columns
    from dask_em.sources.location import locate
    from dask_em.sources.zarr_store import is_zarr

    path = paths[0].rstrip("/")
    if path.endswith(".parquet") or _GLOB.search(path):
        return columns
    if path.endswith(".npy") or ".zarr" in path or is_zarr(locate(path, storage_options)):
        return [int(c) for c in columns]
    return columns


READING = ("columns", "filters", "storage_options", "missing_chunks")  # what `data_options` ask for


def reading(data: Sequence[str], options: dict[str, Any]) -> dict[str, Any]:
    """How the data is to be read, as `fit` and others take it; those of the options that say so are taken out."""
    found = {name: options.pop(name) for name in READING}
    return {**found, "columns": columns_of(data, found["columns"], found["storage_options"])}


def options_for(path: str, storage_options: dict[str, Any] | None) -> dict[str, Any] | None:
    """The storage options, for a URL; a local path needs none."""
    return storage_options if "://" in _plain(path) else None


def refuse_clash(data: Sequence[str], output: str) -> None:
    """Refuse an output in the place of the data, or inside it, or around it."""
    out = _real(output)
    inside = [out, *_parents(out)]
    for path in data:
        where = _real(path)
        around = [where, *_parents(where)]  # of a pattern these are patterns too
        if any(_matches(place, where) for place in inside) or any(_matches(out, place) for place in around):
            raise ConfigurationError(
                f"the output {output} would be mixed up with the data {path}: choose another place"
            )


_GLOB = re.compile(r"[*?\[]")


def _matches(place: str, pattern: str) -> bool:
    return place == pattern or fnmatch.fnmatchcase(place, pattern)


def _parents(path: str) -> list[str]:
    return [path[: i.start()] for i in re.finditer("/", path) if i.start() > 0]


def _plain(path: str) -> str:
    """A local path without the protocol that fsspec would have it begin with."""
    return re.sub(r"^(file|local)://", "", path)


def _real(path: str) -> str:
    """One name for each place: links followed, and URLs as their file system writes them."""
    path = _plain(path.rpartition("::")[2])  # of a chain such as simplecache::s3://..., the place at its end
    if "://" not in path:
        return os.path.realpath(os.path.expanduser(path))
    from fsspec import get_filesystem_class

    protocol = path.partition("://")[0]
    try:
        system = get_filesystem_class(protocol)
        name = str(system._strip_protocol(path))
    except (ImportError, ValueError):  # whoever opens it says what is wrong
        return path.rstrip("/")
    first = system.protocol if isinstance(system.protocol, str) else system.protocol[0]
    return f"{first}://{name.strip('/')}"
