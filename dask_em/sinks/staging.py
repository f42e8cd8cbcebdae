"""An output is complete or absent: it is written under a hidden name beside its own, and renamed at the end.

Object stores cannot rename: there the objects are copied within the store once all of them are
written, and the one without which the rest is not seen comes last.  What was there before is copied
aside first and removed last, so that whatever ends the copying, an interrupt too, puts it back.
Only a process killed outright while it copies leaves parts: then what was there before is still
under the hidden name ending in ``.old``.
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
        old = f"{source.removesuffix('.part')}.old"
        fs.invalidate_cache()
        with writing(self.target):
            there = _objects(fs, target)
            try:
                _copy_objects(fs, there, target, old)
                _remove(fs, target)
                _copy_objects(fs, names[:-1], source, target)
                _copy_objects(fs, names[-1:], source, target)
            except BaseException:
                if len(_objects(fs, old)) == len(there):  # else it was not all aside yet, and is still in its place
                    _remove(fs, target)
                    _copy_objects(fs, there, old, target)
                _remove(fs, old)
                raise
            _remove(fs, old)


def _objects(fs: Any, path: str) -> list[str]:
    """Names of the objects there, relative to it, the decisive ones of a Zarr array last; one object is itself."""
    if not fs.exists(path):
        return []
    if fs.isfile(path):
        return [""]
    skip = len(path.strip("/")) + 1
    names = [name.strip("/")[skip:] for name in fs.find(path)]
    return sorted(names, key=lambda name: (os.path.basename(name) in _ZARR, name))


def _copy_objects(fs: Any, names: Sequence[str], source: str, target: str) -> None:
    if names:
        fs.copy([f"{source}/{n}".rstrip("/") for n in names], [f"{target}/{n}".rstrip("/") for n in names])
        fs.invalidate_cache()


def _remove(fs: Any, path: str) -> None:
    fs.invalidate_cache()
    if fs.exists(path):
        fs.rm(path, recursive=True)
        fs.invalidate_cache()
