"""An output is complete or absent: it is written under a hidden name beside its own, and renamed at the end.

Object stores cannot rename: there the objects are copied within the store once all of them are
written, and the one without which the rest is not seen comes last.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from dask_em.errors import ConfigurationError, DaskEMError, StoreError
from dask_em.sources.location import Location, locate, refusal, without_secrets

_ZARR = ("zarr.json", ".zarray", ".zgroup")


def check_output(path: Any, storage_options: dict[str, Any] | None = None, *, overwrite: bool = False) -> Location:
    """Where an output will be; refused where that can be known before any work.

    Raises
    ------
    ConfigurationError
        There is something already and `overwrite` is false, or it is not an output that may be
        replaced; its folder does not exist or cannot be written.
    """
    location = locate(path, storage_options)
    if location.is_local:
        _check_folder(location)
        exists = os.path.lexists(location.url)
    else:
        exists = _exists(location)
    if exists and not overwrite:
        raise ConfigurationError(
            f"{location.shown} exists: choose another name, or allow its replacement with --overwrite"
        )
    if exists:
        _check_replaceable(location)
    return location


def _check_folder(location: Location) -> None:
    folder = os.path.dirname(location.url)
    if not os.path.isdir(folder):
        raise ConfigurationError(f"{location.shown} cannot be written: there is no folder {folder}; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(f"{location.shown} cannot be written: its folder {folder} is not writable")


def _exists(location: Location) -> bool:
    fs, path = location.resolve()
    try:
        fs.invalidate_cache()
        return bool(fs.exists(path))
    except Exception as error:
        raise refusal(error, location.shown) from error


def _check_replaceable(location: Location) -> None:
    """Refuse to remove a folder that holds anything but an array or Parquet files: it was meant otherwise."""
    if not location.is_local or not os.path.isdir(location.url):
        return
    names = os.listdir(location.url)
    parquet = all(name.endswith(".parquet") or name.startswith((".", "_")) for name in names)
    if not (parquet or any(name in _ZARR for name in names)):
        raise ConfigurationError(
            f"{location.shown} is a folder that holds neither a Zarr array nor Parquet files alone, so it is not "
            "replaced: choose another name, or remove it yourself"
        )


@contextmanager
def writing(where: Location) -> Iterator[None]:
    """What goes wrong in here is that the place cannot be written, and is said so in a sentence."""
    try:
        yield
    except DaskEMError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise StoreError(f"{where.shown} cannot be written: {error.strerror}") from error
        raise StoreError(f"{where.shown} cannot be written: {without_secrets(str(error)) or error!r}") from error


class Staging:
    """A hidden place for an output that is being written; as a context, it leaves nothing behind.

    Parameters
    ----------
    path : path or URL
        Where the output will be.
    storage_options : dict, optional
    overwrite : bool
        Whether what is there may be replaced, which happens in `publish` and not before.
    """

    def __init__(self, path: Any, storage_options: dict[str, Any] | None = None, *, overwrite: bool = False) -> None:
        self.target = check_output(path, storage_options, overwrite=overwrite)
        folder, _, name = self.target.url.rstrip("/").rpartition("/")
        self._beside = f"{folder}/.{name}.{uuid.uuid4().hex[:12]}"
        self.place = Location(f"{self._beside}.part", self.target.options)
        self._overwrite = overwrite

    def __enter__(self) -> Self:
        if self.target.is_local:
            with writing(self.target):
                os.mkdir(self.place.url)
        return self

    def __exit__(self, *_: object) -> None:
        if self.target.is_local:
            shutil.rmtree(self.place.url, ignore_errors=True)
        else:
            fs, path = self.place.resolve()
            fs.invalidate_cache()
            if fs.exists(path):
                fs.rm(path, recursive=True)

    def names(self) -> list[str]:
        """What has been written, relative to the place."""
        if self.target.is_local:
            found = [os.path.join(folder, f) for folder, _, files in os.walk(self.place.url) for f in files]
            return sorted(os.path.relpath(f, self.place.url) for f in found)
        fs, path = self.place.resolve()
        fs.invalidate_cache()
        skip = len(path.strip("/")) + 1
        return sorted(f.strip("/")[skip:] for f in fs.find(path))

    def publish(self, names: Sequence[str]) -> None:
        """Let the output appear, in place of what was there; `names` are its files, the decisive one last."""
        check_output(self.target.url, self.target.options, overwrite=self._overwrite)
        if self.target.is_local:
            self._rename(names)
        else:
            self._copy(names)

    def _rename(self, names: Sequence[str]) -> None:
        for stray in set(self.names()) - set(names):  # of a task that was started twice
            os.remove(os.path.join(self.place.url, stray))
        old = f"{self._beside}.old"
        there = os.path.lexists(self.target.url)
        if there:
            os.rename(self.target.url, old)
        try:
            os.rename(self.place.url, self.target.url)
        except OSError:
            if there:
                os.rename(old, self.target.url)
            raise
        if there:
            (shutil.rmtree if os.path.isdir(old) and not os.path.islink(old) else os.remove)(old)

    def _copy(self, names: Sequence[str]) -> None:
        fs, source = self.place.resolve()
        target = self.target.resolve()[1].rstrip("/")
        with writing(self.target):
            if fs.exists(target):
                fs.rm(target, recursive=True)
            for some in (list(names[:-1]), list(names[-1:])):
                if some:
                    fs.copy([f"{source}/{n}" for n in some], [f"{target}/{n}" for n in some])
