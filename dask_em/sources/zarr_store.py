"""Zarr stores: opening them from a path or URL, finding the array in a group, listing their files."""

from __future__ import annotations

import os
import re
from functools import cache
from typing import Any

from dask_em.errors import DataError
from dask_em.sources.location import Location, refusal, retrying, stamp

MARKERS = ("zarr.json", ".zarray", ".zgroup")


def is_zarr(location: Location) -> bool:
    """Whether there is a Zarr array or group at that place; it is told by its metadata, not its name."""
    if location.is_local:
        return (
            any(os.path.isfile(os.path.join(location.url, m)) for m in MARKERS) or _zip_split(location.url) is not None
        )
    fs, path = location.resolve()
    try:
        return any(retrying(lambda m=m: fs.exists(f"{path.rstrip('/')}/{m}")) for m in MARKERS)  # type: ignore[misc]
    except Exception as error:
        raise refusal(error, location.shown) from error


@cache
def bound_threads() -> None:
    """Once a process: as many threads for Zarr's decoding as cores, unless Zarr's configuration gives a number.

    Zarr has one pool a process, made at its first read, which all threads that read share, Dask's too: their number
    says nothing about how many should decode.  Zarr would count the cores of the machine, not those of the container.
    """
    import zarr
    from dask.system import CPU_COUNT

    if zarr.config.get("threading.max_workers", None) is None:
        zarr.config.set({"threading.max_workers": CPU_COUNT})


def open_array(location: Location) -> Any:
    """The Zarr array at that place, or the only two-dimensional one of the group there."""
    import zarr

    bound_threads()
    store, path = make_store(location)
    try:
        node = retrying(lambda: zarr.open(store=store, path=path, mode="r"))
    except FileNotFoundError as error:
        raise DataError(f"There is no Zarr array or group at {location.shown}: check the path.") from error
    except Exception as error:
        raise refusal(error, f"The Zarr metadata of {location.shown}") from error
    return node if isinstance(node, zarr.Array) else only_table(node, location.shown)


def only_table(group: Any, where: str) -> Any:
    """The only two-dimensional array in a group."""
    import zarr

    arrays = {name: node for name, node in group.members(max_depth=None) if isinstance(node, zarr.Array)}
    tables = {name: node for name, node in arrays.items() if node.ndim == 2}
    if len(tables) == 1:
        return next(iter(tables.values()))
    if tables:
        names = ", ".join(f"{name} {node.shape}" for name, node in sorted(tables.items()))
        first = min(tables)
        raise DataError(
            f"{where} is a Zarr group of {len(tables)} two-dimensional arrays ({names}): "
            f"add one's name, as in {where}/{first}."
        )
    names = ", ".join(f"{name} {node.shape}" for name, node in sorted(arrays.items())) or "none at all"
    raise DataError(f"{where} is a Zarr group without a two-dimensional array; its arrays are: {names}.")


def make_store(location: Location) -> tuple[Any, str]:
    """A read-only Zarr store, and the path in it."""
    from zarr.storage import FsspecStore, LocalStore, ZipStore

    if location.is_local:
        split = _zip_split(location.url)
        if split is not None:
            return ZipStore(split[0], mode="r"), split[1]
        return LocalStore(location.url, read_only=True), ""
    try:
        return FsspecStore.from_url(location.url, storage_options=location.options or None, read_only=True), ""
    except Exception as error:
        raise refusal(error, location.shown) from error


def is_process_local(store: Any) -> bool:
    """Whether the data is in this process's memory."""
    return type(store).__name__ in ("MemoryStore", "GpuMemoryStore") or _protocol(store) == "memory"


def shown(store: Any, path: str) -> str:
    """A store's address for people, without secrets."""
    protocol = _protocol(store)
    if type(store).__name__ == "MemoryStore":
        text = "the Zarr array in memory"
    elif protocol is not None:
        text = f"{protocol}://{store.path.lstrip('/')}"
    else:
        text = re.sub(r"(?<=://)[^/@]*@", "", str(store)).removeprefix("file://")
    return f"{text.rstrip('/')}/{path}" if path else text.rstrip("/")


def _protocol(store: Any) -> str | None:
    """That of an fsspec store's file system."""
    fs = getattr(store, "fs", None)
    protocol = getattr(getattr(fs, "sync_fs", fs), "protocol", None)
    return protocol[0] if isinstance(protocol, tuple | list) else protocol


def list_files(store: Any, path: str) -> dict[str, Any] | None:
    """The keys of a node, relative to it, each with what tells versions of it apart. None: the store cannot list."""
    from zarr.core.sync import sync
    from zarr.storage import FsspecStore, LocalStore

    prefix = path.rstrip("/") + "/" if path else ""
    try:
        if isinstance(store, LocalStore):
            return _walk(os.path.join(store.root, path) if path else str(store.root))
        if isinstance(store, FsspecStore):
            root = f"{store.path.rstrip('/')}/{prefix}".rstrip("/")
            store.fs.invalidate_cache()
            found = retrying(lambda: sync(store.fs._find(root, detail=True)))
            skip = len(root.strip("/")) + 1
            return {name.strip("/")[skip:]: stamp(info) for name, info in found.items()}
        if not store.supports_listing:
            return None
        return {key[len(prefix) :]: None for key in sync(_collect(store, prefix))}
    except (NotImplementedError, AttributeError):
        return None


async def _collect(store: Any, prefix: str) -> list[str]:
    return [key async for key in store.list_prefix(prefix)]


def _walk(root: str) -> dict[str, Any]:
    found, folders = {}, [""]
    while folders:
        folder = folders.pop()
        with os.scandir(os.path.join(root, folder)) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir():
                    folders.append(name)
                else:
                    info = entry.stat()
                    found[name] = (info.st_size, info.st_mtime_ns)
    return found


def _zip_split(path: str) -> tuple[str, str] | None:
    match = re.match(r"(.*\.zip)(?:/(.*))?$", path)
    return (match[1], match[2] or "") if match and os.path.isfile(match[1]) else None
