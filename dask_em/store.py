"""Models and checkpoints as safetensors files with a checked header. No pickle anywhere.

A file is a safetensors file like any other: the arrays are its tensors, named by their place in
the tree.  Its metadata hold what safetensors cannot say: format, schema, kind, library version,
the tree itself as JSON in which arrays stand by name, and a checksum of all of it.

In that JSON null, booleans, strings, finite floats (their repr is exact), small ints and lists
are themselves; everything else is an object whose one key says what it is:

======  ===========================================================================
``d``   dict: an object
``t``   tuple: a list
``i``   int of more than 53 bits: hexadecimal, since decimals get rounded or limited
``f``   float that is not finite: its eight bytes in hexadecimal
``n``   NumPy scalar: type, and bytes in hexadecimal
``a``   array: name of a tensor; ``af``: the same, to be laid out in Fortran order
``c``   registered dataclass: its name, and an object of its fields
======  ===========================================================================

A hostile file can at worst be refused: names in it are looked up, never imported or opened.
"""

from __future__ import annotations

import json
import os
import re
import struct
from dataclasses import MISSING, dataclass, fields, is_dataclass
from math import isfinite
from typing import IO, Any, TypeVar

import numpy as np

from dask_em import store_file
from dask_em._version import __version__
from dask_em.errors import StoreError
from dask_em.store_file import DTYPES, NAMES, DamagedError, Entries, shown

SCHEMA = 1  # raised when an older library could no longer read what is written
MAX_DEPTH = 64  # of the tree

Path = str | os.PathLike[str]
C = TypeVar("C", bound=type)
_registry: dict[str, type] = {}


def register(cls: C) -> C:
    """Allow a frozen dataclass to be stored, field by field, under its name.

    Reading looks the name up here, so the module that defines the class must be imported first.
    A field that an older file lacks takes its default.

    Parameters
    ----------
    cls : type
        A frozen dataclass; its fields may hold whatever `save` takes.

    Returns
    -------
    type
        The class itself, so that this can be used as a decorator.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @register
    ... @dataclass(frozen=True)
    ... class Point:
    ...     x: float
    """
    if not (isinstance(cls, type) and is_dataclass(cls) and cls.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        raise TypeError(f"{cls!r} is not a frozen dataclass, and only those can be stored")
    known = _registry.get(cls.__name__)
    if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise TypeError(
            f"{cls.__name__} is the stored name of {known.__module__}.{known.__qualname__}: rename one of them"
        )
    _registry[cls.__name__] = cls
    return cls


def registered(cls: type) -> bool:
    """Whether values of this class can be stored."""
    return _registry.get(cls.__name__) is cls


@dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    kind: str
    schema: int
    version: str  # of the library that wrote it
    nbytes: int  # of the whole file
    arrays: Entries  # place in the tree: (type, shape)


def save(
    tree: Any, path: Path, *, kind: str, storage_options: dict[str, Any] | None = None, overwrite: bool = True
) -> None:
    """Write a tree to a file or URL: completely, or not at all.

    Parameters
    ----------
    tree : object
        Nested dicts (with str keys), lists and tuples of str, int, float, bool, None, NumPy arrays and
        scalars, and registered dataclasses.
    path : str or path-like
        A local file, whose folder must exist, or a URL that fsspec knows.
    kind : str
        What it is, ``"model"`` or ``"checkpoint"``; `load` must name the same.
    storage_options : dict, optional
        For fsspec, where `path` is a URL.
    overwrite : bool
        Whether to take the place of what is there.

    Raises
    ------
    StoreError
        The tree holds something that cannot be stored, or the file cannot be written; what was
        there before is untouched.

    Examples
    --------
    >>> import numpy as np
    >>> save({"means": np.zeros((2, 3)), "note": ("a", 1.5)}, "memory://m.safetensors", kind="model")
    >>> load("memory://m.safetensors", kind="model")["note"]
    ('a', 1.5)
    """
    arrays: dict[str, np.ndarray] = {}
    try:
        text = json.dumps(_encode(tree, arrays, "", 0), allow_nan=False, separators=(",", ":"))
        data = store_file.pack(
            arrays, {"format": "dask_em", "schema": str(SCHEMA), "kind": kind, "version": __version__, "tree": text}
        )
    except DamagedError as err:
        raise StoreError(f"{shown(path)} cannot be written: {err}") from None
    store_file.write(path, data, storage_options, overwrite)


def load(path: Path, *, kind: str, storage_options: dict[str, Any] | None = None) -> Any:
    """Read what `save` wrote.

    Parameters
    ----------
    path : str or path-like
        A local file, or a URL that fsspec knows.
    kind : str
        What it must be, ``"model"`` or ``"checkpoint"``.
    storage_options : dict, optional
        For fsspec, where `path` is a URL.

    Returns
    -------
    object
        The tree, equal to the last bit, types and the layout of arrays included.

    Raises
    ------
    StoreError
        There is no such file, or it is damaged, foreign, too new, or of another kind.

    Examples
    --------
    >>> save([1, 2.5], "memory://x.safetensors", kind="checkpoint")
    >>> load("memory://x.safetensors", kind="checkpoint")
    [1, 2.5]
    """
    where = shown(path)
    with store_file.sentence(f"{where} cannot be read"), store_file.opened(path, storage_options) as file:
        header, metadata = _header(file, where)
        if header.kind != kind:
            raise StoreError(f"{where} holds a {header.kind[:40]}, not a {kind}: name a file that holds a {kind}")
        try:
            arrays = store_file.read_arrays(file, metadata, header.arrays)
            tree = _decode(store_file.parse(metadata.get("tree", "")), arrays, 0)
            if arrays:
                raise DamagedError("it has arrays without a place")
        except DamagedError as err:
            raise _damaged(where, err) from None
    return tree


def describe(path: Path, *, storage_options: dict[str, Any] | None = None) -> Header:
    """What a file says of itself, without its arrays being read.

    Parameters
    ----------
    path : str or path-like
        A local file, or a URL that fsspec knows.
    storage_options : dict, optional
        For fsspec, where `path` is a URL.

    Returns
    -------
    Header

    Raises
    ------
    StoreError
        As `load` does, except that damage inside arrays is not looked for.

    Examples
    --------
    >>> import numpy as np
    >>> save({"means": np.zeros((2, 3))}, "memory://d.safetensors", kind="model")
    >>> describe("memory://d.safetensors").arrays
    {'/means': ('F64', (2, 3))}
    """
    where = shown(path)
    with store_file.sentence(f"{where} cannot be read"), store_file.opened(path, storage_options) as file:
        return _header(file, where)[0]


def exists(path: Path, *, storage_options: dict[str, Any] | None = None) -> bool:
    """Whether there is something at a path or URL.

    Parameters
    ----------
    path : str or path-like
        A local file, or a URL that fsspec knows.
    storage_options : dict, optional
        For fsspec, where `path` is a URL.

    Returns
    -------
    bool

    Raises
    ------
    StoreError
        It cannot be found out, for instance without credentials.

    Examples
    --------
    >>> exists("memory://nothing.safetensors")
    False
    """
    return store_file.exists(path, storage_options)


def _header(file: IO[bytes], where: str) -> tuple[Header, dict[str, str]]:
    try:
        metadata, entries, nbytes = store_file.read_header(file)
    except DamagedError as err:
        raise _damaged(where, err) from None
    if metadata.get("format") != "dask_em":
        raise StoreError(f"{where} is a safetensors file, but not one of dask_em: name a file that dask_em wrote")
    schema, version = metadata.get("schema", ""), metadata.get("version", "?")[:40]
    if not re.fullmatch(r"[0-9]{1,9}", schema, re.ASCII):
        raise _damaged(where, "it has no schema version")
    if int(schema) > SCHEMA:
        raise StoreError(
            f"{where} was written by dask_em {version} with schema {int(schema)}, and dask_em {__version__} reads "
            f"schemas up to {SCHEMA}: upgrade dask_em"
        )
    return Header(metadata.get("kind", ""), int(schema), version, nbytes, entries), metadata


def _damaged(where: str, reason: object) -> StoreError:
    return StoreError(
        f"{where} is damaged, or not a file of dask_em: {reason}; name another file, restore it from a copy, "
        "or write it again"
    )


# ---------------------------------------------------------------- trees


def _encode(value: Any, arrays: dict[str, np.ndarray], place: str, depth: int) -> Any:
    def inner(child: Any, key: object) -> Any:
        return _encode(child, arrays, f"{place}/{key}", depth + 1)

    if depth > MAX_DEPTH:
        raise DamagedError(f"the tree is over {MAX_DEPTH} deep at {place[:60]}...; break the cycle, or flatten it")
    if isinstance(value, np.generic | np.ndarray):
        return _encode_numpy(value, arrays, place)
    kind = type(value)
    if value is None or kind in (bool, str):
        return value
    if kind is int:
        return value if abs(value) < 2**53 else {"i": hex(value)}
    if kind is float:
        return value if isfinite(value) else {"f": struct.pack(">d", value).hex()}
    if kind is list:
        return [inner(v, i) for i, v in enumerate(value)]
    if kind is tuple:
        return {"t": [inner(v, i) for i, v in enumerate(value)]}
    if kind is dict:
        if not all(type(k) is str for k in value):
            raise DamagedError(f"the dict at {place or '/'} has keys that are not str; make them str")
        return {"d": {k: inner(v, k) for k, v in value.items()}}
    if _registry.get(kind.__name__) is kind:
        return {"c": [kind.__name__, {f.name: inner(getattr(value, f.name), f.name) for f in fields(value) if f.init}]}
    raise DamagedError(
        f"{place or 'the tree'} is of type {kind.__module__}.{kind.__qualname__}; "
        "use numbers, strings, arrays, and frozen dataclasses given to dask_em.store.register"
    )


def _encode_numpy(value: Any, arrays: dict[str, np.ndarray], place: str) -> Any:
    dtype = value.dtype.newbyteorder("<")
    masked = isinstance(value, np.ma.MaskedArray)
    if masked or dtype not in NAMES:
        raise DamagedError(
            f"{place or 'the tree'} is {'masked' if masked else f'of dtype {value.dtype}'}; use an array of bools, "
            "integers or floats of up to 64 bits, or a list"
        )
    if isinstance(value, np.generic):
        return {"n": [NAMES[dtype], np.asarray(value, dtype).tobytes().hex()]}
    name = place = place.encode("ascii", "backslashreplace").decode() or "/"
    n = 1
    while name in arrays:  # {"a": {"b": x}, "a/b": y}
        n += 1
        name = f"{place}#{n}"
    # The layout is kept: matrix products round differently on the two, and a resumed fit must not.
    fortran = value.flags.f_contiguous and not value.flags.c_contiguous
    arrays[name] = np.array(value, dtype, order="C", subok=False)
    return {"af" if fortran else "a": name}


def _decode(node: Any, arrays: dict[str, np.ndarray], depth: int) -> Any:
    """The value of a node; arrays are taken out of `arrays`, so that each has one place."""
    if depth > MAX_DEPTH:
        raise DamagedError("its tree is nested too deep")
    if isinstance(node, list):
        return [_decode(v, arrays, depth + 1) for v in node]
    if not isinstance(node, dict):
        return node
    match list(node.items()):
        case [("d", dict(items))]:
            return {k: _decode(v, arrays, depth + 1) for k, v in items.items()}
        case [("t", list(items))]:
            return tuple(_decode(v, arrays, depth + 1) for v in items)
        case [("i", str(digits))] if re.fullmatch(r"-?0x[0-9a-f]+", digits):
            return int(digits, 16)
        case [("f", str(digits))] if re.fullmatch(r"[0-9a-f]{16}", digits):
            return struct.unpack(">d", bytes.fromhex(digits))[0]
        case [("n", [str(name), str(digits)])]:
            return _scalar(name, digits)
        case [(("a" | "af") as tag, str(name))] if name in arrays:
            array = arrays.pop(name)
            return np.asfortranarray(array) if tag == "af" else array
        case [("c", [str(name), dict(values)])]:
            return _build(name, {k: _decode(v, arrays, depth + 1) for k, v in values.items()})
    raise DamagedError("its tree has a node that means nothing")


def _scalar(name: str, digits: str) -> np.generic:
    dtype = DTYPES.get(name)
    if dtype is None or not re.fullmatch(f"[0-9a-f]{{{2 * dtype.itemsize}}}", digits):
        raise DamagedError("a number in its tree cannot be read")
    if name == "BOOL" and digits not in ("00", "01"):
        raise DamagedError("a truth value is neither true nor false")
    return np.frombuffer(bytes.fromhex(digits), dtype)[0]


def _build(name: str, values: dict[str, Any]) -> Any:
    cls = _registry.get(name)
    if cls is None:
        raise DamagedError(f"it holds {name[:60]!r}, which is not known here (import the module that registers it)")
    known = {f.name: f for f in fields(cls) if f.init}
    lacking = [
        f for f in known.values() if f.name not in values and f.default is MISSING and f.default_factory is MISSING
    ]
    if lacking or not known.keys() >= values.keys():
        raise DamagedError(f"the fields of its {name} are not those of this version's")
    try:
        return cls(**values)
    except Exception as err:
        raise DamagedError(f"its {name} is refused: {str(err)[:200]}") from None
