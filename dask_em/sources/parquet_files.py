"""Parquet files: finding them, reading their footers, and seeing that they agree."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import numpy as np

from dask_em.errors import DataChangedError, DataError
from dask_em.sources.columns import missing, not_numeric
from dask_em.sources.levels import arrow_text
from dask_em.sources.location import Location, refusal, retrying, stamp
from dask_em.sources.row_columns import RowColumns
from dask_em.sources.sequences import no_ids

SUFFIXES = (".parquet", ".parq", ".pq")
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class DataFile:
    """One Parquet file, as planned."""

    location: Location
    name: str  # relative to the data set, for people and for the fingerprint
    stamp: tuple[Any, ...]  # changes when the file does
    partition: tuple[tuple[str, str], ...] = ()  # from key=value folders
    metadata: Any = field(default=None, compare=False, repr=False)  # the footer; stays where it was planned


def find_files(locations: Sequence[Location]) -> list[DataFile]:
    """The Parquet files of paths, directories and globs, in natural order within each."""
    found = [f for location in locations for f in _expand(location)]
    if len(locations) > 1:  # names must tell files of several places apart
        shared = os.path.commonprefix([f.location.url for f in found])  # noqa: RUF071  URLs, cut at a slash below
        cut = shared.rfind("/") + 1
        found = [DataFile(f.location, f.location.url[cut:], f.stamp, f.partition) for f in found]
    return found


def _expand(location: Location) -> list[DataFile]:
    fs, path = location.resolve()
    try:
        fs.invalidate_cache()
        if any(c in path for c in "*?["):
            infos = retrying(lambda: fs.glob(path, detail=True))
            infos = {p: i for p, i in infos.items() if i["type"] == "file"} or _inside(fs, infos)
            if not infos:
                raise DataError(f"No file matches {location.shown}: check the pattern.")
            root = re.split(r"[*?\[]", path)[0].rpartition("/")[0]
        else:
            info = retrying(lambda: fs.info(path))
            if info["type"] == "file":
                root, infos = path.rpartition("/")[0], {path: info}
            else:
                root, infos = path, _inside(fs, {path: info})
                if not infos:
                    raise DataError(
                        f"{location.shown} is a directory without Parquet files: "
                        f"nothing in it ends in {', '.join(SUFFIXES)}."
                    )
    except DataError:
        raise
    except Exception as error:
        raise refusal(error, location.shown) from error
    return [
        DataFile(_at(location, fs, p), p[len(root) :].strip("/"), stamp(infos[p]), _partition(p[len(root) :]))
        for p in sorted(infos, key=natural)
    ]


def _inside(fs: Any, folders: dict[str, Any]) -> dict[str, Any]:
    """Parquet files under those folders, but for those that are hidden or of a writer's own."""
    found = {}
    for folder, info in folders.items():
        if info["type"] != "directory":
            continue
        for path, inner in retrying(lambda f=folder: fs.find(f, detail=True)).items():  # type: ignore[misc]
            parts = path[len(folder) :].strip("/").split("/")
            if path.endswith(SUFFIXES) and not any(p.startswith((".", "_")) and "=" not in p for p in parts):
                found[path] = inner
    return found


def _at(location: Location, fs: Any, path: str) -> Location:
    return Location(path if location.is_local else fs.unstrip_protocol(path), location.options)


def natural(path: str) -> list[Any]:
    """Sorts part.2 before part.10."""
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.split(r"(\d+)", path)]


def _partition(path: str) -> tuple[tuple[str, str], ...]:
    pairs = [folder.split("=", 1) for folder in path.split("/")[:-1] if "=" in folder]
    return tuple((key, unquote(value)) for key, value in pairs)


def read_footers(files: Sequence[DataFile]) -> list[DataFile]:
    """The files with their footers, several fetched at once."""
    with ThreadPoolExecutor(min(8, len(files))) as pool:
        return list(pool.map(_with_footer, files))


def _with_footer(file: DataFile) -> DataFile:
    with opened(file) as parquet:
        return DataFile(file.location, file.name, file.stamp, file.partition, parquet.metadata)


@contextmanager
def opened(file: DataFile) -> Iterator[Any]:
    """The file as a `pyarrow.parquet.ParquetFile`."""
    parquet = open_file(file)
    try:
        yield parquet
    finally:
        parquet.close(force=True)


def open_file(file: DataFile, metadata: Any = None) -> Any:
    """Open a planned file; refuses one that has changed since."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    where = file.location.shown
    try:
        check_unchanged(file)
        if file.location.is_local:
            return pq.ParquetFile(file.location.url, metadata=metadata)
        fs, path = file.location.resolve()
        return retrying(
            lambda: pq.ParquetFile(fs.open(path, "rb", cache_type="none"), metadata=metadata, pre_buffer=True)
        )
    except DataError:
        raise
    except (pa.ArrowInvalid, EOFError) as error:
        raise DataError(
            f"{where} is not a readable Parquet file ({first_line(error)}): it is cut short or damaged; "
            "write it again, or leave it out."
        ) from error
    except Exception as error:
        raise refusal(error, where) from error


def check_unchanged(file: DataFile) -> None:
    """Raise where the file is not what it was when it was planned."""
    if file.location.is_local:
        info: Any = os.stat(file.location.url)
        found: tuple[Any, ...] = stamp({"size": info.st_size, "mtime": info.st_mtime})
    else:
        fs, path = file.location.resolve()
        fs.invalidate_cache(path)
        found = stamp(retrying(lambda: fs.info(path)))
    if found != file.stamp:
        raise DataChangedError(
            f"{file.location.shown} has changed since the data was opened: open it again and refit, "
            "and let nothing write to it meanwhile."
        )


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    text = str(error).strip()
    return (text.splitlines()[0] if text else type(error).__name__).rstrip(".")


# ---------------------------------------------------------------- columns


def file_columns(file: DataFile) -> dict[str, Any]:
    """Arrow types of the file's columns by name, but for the index that pandas stores."""
    schema = file.metadata.schema.to_arrow_schema()
    described = schema.pandas_metadata or {}
    index = {c for c in described.get("index_columns", ()) if isinstance(c, str)}
    names = [f.name for f in schema]
    if len(set(names)) != len(names):
        twice = sorted({n for n in names if names.count(n) > 1})
        raise DataError(f"{file.location.shown} has more than one column named {', '.join(twice)}: write it again.")
    return {f.name: f.type for f in schema if f.name not in index}


def agreed_columns(files: Sequence[DataFile], columns: Sequence[str] | None, beside: RowColumns) -> list[str]:
    """The names of the columns to use, once every file is seen to have them."""
    first = files[0]
    has = file_columns(first)
    folders = dict(first.partition)
    names = [c for c in has if c not in beside] if columns is None else list(columns)
    wanted = beside.after(names)
    absent = [c for c in wanted if c not in has and c not in folders]
    if absent:
        raise missing(absent, [*has, *(k for k in folders if k not in has)], first.location.shown)
    if not names:
        raise DataError(f"{first.location.shown} has 0 feature(s) while a minimum of 1 is required.")
    for file in files[1:]:
        other = file_columns(file)
        lacks = [c for c in wanted if c not in other and c not in dict(file.partition)]
        extra = [] if columns is not None else [c for c in other if c not in has]
        if lacks or extra:
            column, with_it, without = (lacks[0], first, file) if lacks else (extra[0], file, first)
            raise DataError(
                f"The files do not agree: {with_it.location.shown} has a column {column!r}, "
                f"{without.location.shown} has not. "
                "Choose columns that all files have, or leave that file out."
            )
        for c in wanted:
            if c in has and c in other and _kind(has[c]) != _kind(other[c]):
                raise DataError(
                    f"The files do not agree: column {c!r} is {has[c]} in {first.location.shown} "
                    f"but {other[c]} in {file.location.shown}. "
                    "Write one of them again, or choose columns without it."
                )
    return names


def _kind(arrow: Any) -> str:
    import pyarrow.types as t

    if t.is_integer(arrow) or t.is_floating(arrow):
        return "number"  # any mix of widths is safe: the common type holds them all, or is float64
    return "text" if arrow_text(arrow) else str(arrow)


def column_dtype(files: Sequence[DataFile], name: str) -> np.dtype:
    """The NumPy dtype that holds a column of all files, its nulls as NaN."""
    import pyarrow.types as t

    found = []
    for file in files:
        arrow = file_columns(file).get(name)
        if arrow is None:
            found.append(_partition_dtype(file, name))
            continue
        inner = arrow.value_type if t.is_dictionary(arrow) else arrow
        if not (t.is_integer(inner) or t.is_floating(inner) or t.is_boolean(inner)):
            kind = f"of type {arrow}" if not t.is_dictionary(arrow) else f"of categories ({inner})"
            raise not_numeric(name, kind, file.location.shown)
        if not t.is_floating(inner) and _may_have_nulls(file, name):
            found.append(np.dtype(np.float64))
        else:
            found.append(np.dtype(inner.to_pandas_dtype()))
    kinds = {"i" if d.kind in "iub" else "f" for d in found}
    return np.result_type(*set(found)) if len(kinds) == 1 else np.dtype(np.float64)


def refuse_no_ids(files: Sequence[DataFile], name: str) -> None:
    """Raise where a column's type says that it can hold no sequence ids; the name of a folder always can."""
    import pyarrow.types as t

    for file in files:
        arrow = file_columns(file).get(name)
        if arrow is None or arrow_text(arrow):
            continue
        inner = arrow.value_type if t.is_dictionary(arrow) else arrow
        if not (t.is_integer(inner) or t.is_floating(inner)):
            raise no_ids(f"Column {name!r} of {file.location.shown}", arrow)


def is_text(files: Sequence[DataFile], name: str) -> bool:
    """Whether a column is text: in the files, or in the name of one of the folders."""
    kinds = [file_columns(file).get(name) for file in files]
    if any(kind is not None for kind in kinds):
        return all(kind is not None and arrow_text(kind) for kind in kinds)
    return any(isinstance(partition_value(dict(file.partition)[name]), str) for file in files)


def _may_have_nulls(file: DataFile, name: str) -> bool:
    meta = file.metadata
    at = [i for i in range(meta.num_columns) if meta.schema.column(i).path == name]
    if not at or meta.schema.column(at[0]).max_definition_level == 0:
        return False
    for group in range(meta.num_row_groups):
        statistics = meta.row_group(group).column(at[0]).statistics
        if statistics is None or not statistics.has_null_count or statistics.null_count:
            return True
    return False


def _partition_dtype(file: DataFile, name: str) -> np.dtype:
    value = partition_value(dict(file.partition)[name])
    if isinstance(value, str):
        raise not_numeric(name, f"text ({value!r}) in the folders' names", file.location.shown)
    return np.dtype(np.int64 if isinstance(value, int) else np.float64)


def partition_value(text: str) -> int | float | str | None:
    """What a folder's name says, as a number where it is one."""
    if text == NULL_PARTITION:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
