"""The file under a stored tree: safetensors, written whole and read with suspicion.

Nothing a file claims is believed before it is compared with what is there: sizes before memory is
asked for, names and types against short lists, all of it against a checksum.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import isfinite, prod
from typing import IO, Any

import numpy as np

from dask_em.errors import StoreError

MAX_HEADER = 64 * 2**20  # bytes
MAX_VALUES = 2**21  # in it: small values cost up to 30 times their text once they are objects
MAX_DATA = 16 * 2**30  # bytes of arrays; a model is kilobytes to a few gigabytes

_CODES = {"BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8"}
DTYPES = {k: np.dtype(v) for k, v in (_CODES | {"I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8"}).items()}
NAMES = {dtype: name for name, dtype in DTYPES.items()}

Entries = dict[str, tuple[str, tuple[int, ...]]]  # array name: (dtype name, shape)


class DamagedError(ValueError):
    """Why a file cannot be what it should be, to be completed with its name."""


# ---------------------------------------------------------------- places


def shown(path: str | os.PathLike[str]) -> str:
    """A path for people: without a user, password or query."""
    text = os.fspath(path)
    return re.sub(r"(?<=://)[^/@]*@|\?.*$", "", text) if "://" in text else text


@contextmanager
def sentence(what: str) -> Iterator[None]:
    """Turn whatever a file system raises into one StoreError that begins with `what`."""
    try:
        yield
    except StoreError:
        raise
    except (FileNotFoundError, NotADirectoryError) as err:
        raise StoreError(f"{what}: there is no such file, folder or bucket; check the name") from err
    except PermissionError as err:
        raise StoreError(f"{what}: access is denied; check permissions or credentials") from err
    except MemoryError as err:
        raise StoreError(f"{what}: it does not fit in memory; use a larger machine") from err
    except ImportError as err:
        raise StoreError(f"{what}: a package for such URLs is not installed ({err})") from err
    except Exception as err:  # object stores raise what they like
        line = (getattr(err, "strerror", None) or str(err)).strip().split("\n")[0]
        line = re.sub(r"(?<=://)[^/@\s]*@|(?<=[?&])\S+", "", line)[:300] or "no reason was given"
        raise StoreError(f"{what}: {line} ({type(err).__name__}); put it right, or choose another place") from err


def _locate(path: str | os.PathLike[str], options: dict[str, Any] | None) -> tuple[Any, str]:
    """The fsspec file system, None for this machine's own, and the name in it."""
    text = os.fspath(path)
    for scheme in ("file://", "local://"):
        text = text.removeprefix(scheme)
    if "://" not in text and "::" not in text:
        return None, os.path.realpath(os.path.expanduser(text))  # a link stays a link
    from fsspec.core import url_to_fs

    fs, name = url_to_fs(text, **(options or {}))
    fs.invalidate_cache(name)  # listings may be older than the file
    return fs, name


def exists(path: str | os.PathLike[str], options: dict[str, Any] | None) -> bool:
    """Whether there is something at a path or URL."""
    with sentence(f"{shown(path)} cannot be looked up"):
        fs, name = _locate(path, options)
        return os.path.lexists(name) if fs is None else bool(fs.exists(name))


@contextmanager
def opened(path: str | os.PathLike[str], options: dict[str, Any] | None) -> Iterator[IO[bytes]]:
    """A file or URL, open for reading bytes."""
    fs, name = _locate(path, options)
    if fs is not None:
        with fs.open(name, "rb") as file:
            yield file
        return
    mode = os.stat(name).st_mode
    if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
        raise StoreError(f"{shown(path)} is {'a folder' if stat.S_ISDIR(mode) else 'not a regular file'}: name a file")
    with open(name, "rb") as file:
        yield file


# ---------------------------------------------------------------- writing


def write(path: str | os.PathLike[str], data: bytes, options: dict[str, Any] | None, overwrite: bool) -> None:
    """Put `data` at a path or URL, completely or not at all."""
    where = shown(path)
    with sentence(f"{where} cannot be written"):
        fs, name = _locate(path, options)
        if fs is None:
            _write_local(name, data, overwrite, where)
        elif overwrite:
            fs.pipe_file(name, data)  # one put: readers see the old object or the new one
        elif fs.exists(name):
            raise _refused(where)
        else:
            try:
                fs.pipe_file(name, data, mode="create")  # if-none-match, where the service knows it
            except FileExistsError:
                raise _refused(where) from None


def _refused(where: str) -> StoreError:
    return StoreError(f"{where} exists: choose another name, or say that it may be overwritten")


def _write_local(path: str, data: bytes, overwrite: bool, where: str) -> None:
    folder, name = os.path.split(path)
    if os.path.isdir(path):
        raise StoreError(f"{where} is a folder: name a file in it")
    if not os.path.isdir(folder):
        raise StoreError(f"{where} cannot be written: there is no folder {folder}; make it first")
    if not overwrite and os.path.lexists(path):
        raise _refused(where)
    temporary = os.path.join(folder, f".{name[:50]}.{secrets.token_hex(6)}.tmp")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            if os.path.exists(path):
                os.chmod(temporary, stat.S_IMODE(os.stat(path).st_mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            os.replace(temporary, path)
        else:
            _rename_to_new(temporary, path, where)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    with suppress(OSError):  # some file systems cannot; the rename is done all the same
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # else the rename may not outlive a power failure
        finally:
            os.close(descriptor)


def _rename_to_new(temporary: str, path: str, where: str) -> None:
    """A rename that fails where `path` has come to exist meanwhile, which rename itself does not."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise _refused(where) from None
    except OSError:  # no hard links here
        if os.path.lexists(path):
            raise _refused(where) from None
        os.replace(temporary, path)
    else:
        os.unlink(temporary)


# ---------------------------------------------------------------- bytes


def pack(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """A safetensors file of C-ordered arrays, with a checksum among its metadata."""
    from safetensors.numpy import save

    entries = {name: (NAMES[a.dtype], a.shape) for name, a in arrays.items()}
    data = save(arrays, metadata | {"sha256": _checksum(metadata, entries, arrays)})
    header = int.from_bytes(data[:8], "little")
    if header > MAX_HEADER or len(data) - header > MAX_DATA:
        raise DamagedError(f"it would hold more than {MAX_HEADER} bytes of text or {MAX_DATA} bytes of arrays")
    if _values(data[8 : 8 + header]) > MAX_VALUES:
        raise DamagedError(f"it would hold more than {MAX_VALUES} values outside of arrays; make arrays of them")
    return data


def read_header(file: IO[bytes]) -> tuple[dict[str, str], Entries, int]:
    """Metadata, arrays in the order of their bytes, and size in bytes, compared with the file's own."""
    length = int.from_bytes(_read(file, 8), "little")
    if not 2 <= length <= MAX_HEADER:
        raise DamagedError("it does not begin like one")
    text = _read(file, length)
    if not text.startswith(b"{"):
        raise DamagedError("it does not begin like one")
    if len(text) < length:
        raise DamagedError("it is cut short")
    header = parse(text)
    if not isinstance(header, dict):
        raise DamagedError("its header is not an object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise DamagedError("its metadata are not strings")
    entries, data = _check_entries(header)
    size = 8 + length + data
    if file.seekable():
        there = file.seek(0, os.SEEK_END)
        if there != size:
            raise DamagedError("it is cut short" if there < size else "it goes on after its end")
        file.seek(8 + length)
    return metadata, entries, size


def _check_entries(header: dict[str, Any]) -> tuple[Entries, int]:
    """Arrays as claimed, in the order of their bytes, which must follow each other without gaps."""
    claims = []
    for name, entry in header.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise DamagedError("the description of an array is not complete")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise DamagedError("an array is of a type that is not stored here")
        if not (_sizes(shape) and _sizes(offsets) and len(offsets) == 2 and len(shape) <= 32):
            raise DamagedError("an array has an impossible shape or place")
        if prod(shape) * DTYPES[dtype].itemsize != offsets[1] - offsets[0]:
            raise DamagedError("the shape of an array disagrees with its size")
        claims.append((offsets[0], offsets[1], name, dtype, tuple(shape)))
    end = 0
    for start, stop, *_ in sorted(claims):
        if start != end:
            raise DamagedError("its arrays overlap or leave gaps")
        end = stop
    if end > MAX_DATA:
        raise DamagedError(f"its arrays are larger than {MAX_DATA} bytes")
    return {name: (dtype, shape) for _, _, name, dtype, shape in sorted(claims)}, end


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**48 for n in value)


def read_arrays(file: IO[bytes], metadata: dict[str, str], entries: Entries) -> dict[str, np.ndarray]:
    """The arrays, read from where `read_header` stopped, once the checksum has been found right."""
    sizes = {name: prod(shape) * DTYPES[dtype].itemsize for name, (dtype, shape) in entries.items()}
    total = sum(sizes.values())
    data = _read(file, total + 1)
    if len(data) != total:
        raise DamagedError("it is cut short" if len(data) < total else "it goes on after its end")
    arrays, start = {}, 0
    for name, (dtype, shape) in entries.items():
        raw = data[start : start + sizes[name]]  # a copy: aligned, writable, and its neighbours can be freed
        if dtype == "BOOL" and raw.translate(None, b"\0\1"):
            raise DamagedError("a truth value is neither true nor false")
        arrays[name] = np.frombuffer(raw, DTYPES[dtype]).reshape(shape)
        start += sizes[name]
    metadata = dict(metadata)
    if metadata.pop("sha256", "") != _checksum(metadata, entries, arrays):
        raise DamagedError("its checksum does not match its content")
    return arrays


def _read(file: IO[bytes], n: int) -> bytearray:
    """Up to `n` bytes, asking for memory only as they come."""
    data = bytearray()
    while len(data) < n:
        more = file.read(min(n - len(data), 2**22))
        if not more:
            break
        data += more
    return data


def _checksum(metadata: dict[str, str], entries: Entries, arrays: dict[str, np.ndarray]) -> str:
    import hashlib
    import json

    names = sorted(entries)
    digest = hashlib.sha256(json.dumps([sorted(metadata.items()), [(name, entries[name]) for name in names]]).encode())
    for name in names:
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _values(text: bytes | bytearray) -> int:
    """No fewer values than this text of JSON holds."""
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def parse(text: str | bytes | bytearray) -> Any:
    """JSON as the standard has it: UTF-8, no NaN, no key twice, not too deep."""
    import json

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise DamagedError("a name occurs twice in its header")
        return found

    def finite(digits: str) -> float:
        if not isfinite(number := float(digits)):
            raise DamagedError("a number in its header is too large")
        return number

    def constant(name: str) -> Any:
        raise DamagedError(f"its header has a bare {name}")

    try:
        raw = text.encode() if isinstance(text, str) else text
        if _values(raw) > MAX_VALUES:
            raise DamagedError("its header holds too many values")
        text = raw.decode()
        return json.loads(text, object_pairs_hook=unique, parse_float=finite, parse_constant=constant)
    except DamagedError:
        raise
    except RecursionError:
        raise DamagedError("its header is nested too deep") from None
    except ValueError:  # not UTF-8, not JSON, an integer of thousands of digits
        raise DamagedError("its header cannot be read as JSON") from None
