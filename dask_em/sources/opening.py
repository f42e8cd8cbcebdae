"""`em.open`: any data becomes a source."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

import numpy as np
from scipy.sparse import issparse

from dask_em.errors import ConfigurationError, DataError
from dask_em.model import Source
from dask_em.sources.array import ArraySource, MappedSource, mapped_file
from dask_em.sources.base import TableSource, TakesText
from dask_em.sources.beside import with_array
from dask_em.sources.columns import positions
from dask_em.sources.dataframe import FrameSource
from dask_em.sources.location import Location, locate
from dask_em.sources.numbers import checked_array
from dask_em.sources.row_columns import WORDS, RowColumns
from dask_em.sparse import compressed

MissingChunks = Literal["warn", "error", "ignore"]


def open(  # noqa: A001  em.open reads as builtin open does
    data: Any,
    *,
    columns: Any = None,
    weight: Any = None,
    sequence: Any = None,
    filters: Any = None,
    storage_options: dict[str, Any] | None = None,
    missing_chunks: MissingChunks = "warn",
) -> Source:
    """Open data for fitting. Nothing but metadata is read.

    Parameters
    ----------
    data : array, frame, path, URL or source
        A NumPy array or memory map, a nested list, a scipy.sparse array, a Dask array, a pandas or Dask frame, a
        `zarr.Array`, an xarray `DataArray`, a path or URL of a Zarr array or group, of Parquet files (one, a directory,
        a glob, or a list of them) or of a `.npy` file. A source is returned as it is. Give a Zarr array itself, or its
        path, rather than a Dask array of it: it is read several times faster where chunks are small.
    columns : sequence of str or int, or slice, optional
        The columns to use: names for frames and Parquet, positions for arrays. All of them by default.
    weight : array of shape (n_rows,) or str, optional
        Each row's weight, or the name of the column that holds it (frames and Parquet).
    sequence : array of shape (n_rows,) or str, optional
        The id of the sequence that each row belongs to, or the name of the column that holds it (frames and Parquet):
        an integer or a text, the same in all rows of a sequence, which lie one after the other in the order of time.
    filters : list of tuples, or pyarrow.compute.Expression, optional
        Rows of Parquet files to keep, such as ``[("magnitude", ">", 0)]``.
    storage_options : dict, optional
        Options for the store that a URL names, passed to fsspec.
    missing_chunks : {"warn", "error", "ignore"}
        What to do about Zarr chunks that the store does not hold, which read as the fill value. Of a sharded array
        these are whole shards; chunks that a shard lacks are looked for with "error" only, which reads the index of
        each shard.

    Returns
    -------
    Source
        Planned into blocks, ready for `fit`.

    Raises
    ------
    DataError
        Where the data is not there, or is not a table of numbers.
    ConfigurationError
        Where a keyword does not apply to this kind of data.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em.sources
    >>> source = dask_em.sources.open(np.arange(6.0).reshape(3, 2))
    >>> source.n_rows, source.n_features
    (3, 2)
    """
    return opened(data, None, columns, weight, sequence, filters, storage_options, missing_chunks)


def opened(
    data: Any,
    takes_text: TakesText | None = None,
    columns: Any = None,
    weight: Any = None,
    sequence: Any = None,
    filters: Any = None,
    storage_options: Any = None,
    missing_chunks: MissingChunks = "warn",
) -> Source:
    """As `open`; columns of files that `takes_text` allows to be text are read once the source is `coded`."""
    if missing_chunks not in get_args(MissingChunks):
        raise ConfigurationError(f"missing_chunks={missing_chunks!r}: choose 'warn', 'error' or 'ignore'.")
    if is_source(data):
        given = {"columns": columns, "weight": weight, "sequence": sequence, "filters": filters}
        given["storage_options"] = storage_options
        refuse(given, "the data is a source already: give it to em.open, which made the source")
        return data
    paths = as_paths(data)
    if paths is None and storage_options is not None:
        raise ConfigurationError(
            "storage_options apply to paths and URLs only; this data is in memory or open already."
        )
    beside = RowColumns.of(weight, sequence)
    if paths is not None:
        places = [locate(p, storage_options) for p in paths]
        source = _open_paths(places, columns, beside, filters, missing_chunks, takes_text)
    else:
        source = _open_object(data, columns, beside, filters, missing_chunks)
    for field, values in (("weight", weight), ("sequence", sequence)):
        if values is not None and not isinstance(values, str):
            source = with_array(source, field, values)
    return cast(Source, source)


def is_source(data: Any) -> bool:
    """Whether data is a source already, judged without a question to it: some answers cost a read of the data."""
    nothing = object()
    contract = (name for name in vars(Source) if not name.startswith("_"))
    return all(inspect.getattr_static(data, name, nothing) is not nothing for name in contract)


def refuse(given: dict[str, Any], because: str) -> None:
    """Raise where one of the keywords was given."""
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise ConfigurationError(f"{' and '.join(names)} cannot be used here: {because}.")


def as_paths(data: Any) -> list[Any] | None:
    """The paths, where the data is one or a list of them."""
    if isinstance(data, str | os.PathLike):
        return [data]
    if isinstance(data, list | tuple) and data and all(isinstance(d, str | os.PathLike) for d in data):
        return list(data)
    return None


def _open_paths(
    locations: Sequence[Location],
    columns: Any,
    beside: RowColumns,
    filters: Any,
    missing_chunks: MissingChunks,
    takes_text: TakesText | None,
) -> TableSource:
    from dask_em.sources import zarr_store
    from dask_em.sources.parquet_files import SUFFIXES

    first = locations[0]
    refuse_several_arrays(locations)
    if len(locations) == 1 and not re.search(r"[*?\[]", first.url):
        named = {"filters": filters, **beside.given}
        if first.url.endswith(".npy"):
            refuse(
                named, "a .npy file has neither column names nor statistics; pass weights and sequence ids as arrays"
            )
            return _open_npy(first, columns)
        if not first.url.endswith(SUFFIXES) and zarr_store.is_zarr(first):
            from dask_em.sources.zarr import ZarrSource

            refuse(
                named,
                "a Zarr array has no column names; select rows when writing it, and pass weights and sequence ids as "
                "arrays",
            )
            return ZarrSource(zarr_store.open_array(first), columns, missing_chunks=missing_chunks)
        if re.search(r"\.zarr(/|$)", first.url):
            raise _no_zarr(first)
        if first.is_local and not os.path.exists(first.url):
            raise DataError(f"{first.shown} cannot be read: there is nothing at that path.")
        if first.is_local and os.path.isfile(first.url) and not _is_parquet(first.url):
            raise DataError(
                f"{first.shown} is neither Parquet nor Zarr nor .npy, which is what can be read in blocks: "
                "convert it, or load it and pass the array or frame."
            )
    from dask_em.sources.parquet import ParquetSource

    return ParquetSource(locations, columns, *beside, filters, takes_text=takes_text)


def refuse_several_arrays(locations: Sequence[Location]) -> None:
    """Raise where a list or a pattern names Zarr arrays: only Parquet files are taken several at a time."""
    from dask_em.sources import zarr_store

    if len(locations) == 1:
        if not re.search(r"[*?\[]", locations[0].url):
            return
        fs, path = locations[0].resolve()
        found = sorted(fs.glob(path)) if re.search(r"\.zarr(/|$)", path) else []
        named = [path if locations[0].is_local else fs.unstrip_protocol(path) for path in found]
    else:
        named = [location.url for location in locations if not location.url.endswith((".parquet", ".parq", ".pq"))]
    arrays = [url for url in named if zarr_store.is_zarr(Location(url, locations[0].options))]
    if arrays:
        what = f"{len(named)} of them" if len(named) > 1 else Location(arrays[0]).shown
        raise DataError(
            f"Zarr arrays are opened one at a time, and {locations[0].shown} "
            f"{'and others name' if len(locations) > 1 else 'names'} {what}: open one by its own path, or join their "
            "rows, as in dask.array.concatenate([dask.array.from_zarr(path) for path in paths])."
        )


def _no_zarr(location: Location) -> DataError:
    if location.is_local and os.path.exists(location.url):
        return DataError(
            f"{location.shown} is not a Zarr array or group: it has none of zarr.json, .zarray and .zgroup."
        )
    return DataError(f"There is no Zarr array or group at {location.shown}: check the path, and that it can be listed.")


def _is_parquet(path: str) -> bool:
    import builtins

    from dask_em.sources.parquet_files import SUFFIXES

    if path.endswith(SUFFIXES):
        return True
    with builtins.open(path, "rb") as file:
        return file.read(4) == b"PAR1"


def _open_npy(location: Location, columns: Any) -> TableSource:
    if not location.is_local:
        raise DataError(
            f"{location.shown} is a remote .npy file, which cannot be mapped: download it, or store it as Zarr."
        )
    try:
        x = np.load(location.url, mmap_mode="r")
    except (OSError, ValueError) as error:
        reason = "there is nothing at that path" if isinstance(error, FileNotFoundError) else f"{error}"
        raise DataError(f"{location.shown} cannot be read: {reason.rstrip('.')}.") from error
    return _open_object(x[:, None] if x.ndim == 1 else x, columns, RowColumns(), None, "warn")


def _open_object(
    data: Any, columns: Any, beside: RowColumns, filters: Any, missing_chunks: MissingChunks
) -> TableSource:
    module = type(data).__module__.split(".")[0]
    kind = type(data).__name__
    if filters is not None:
        how = "frame[frame.column > 0]" if module in ("pandas", "dask") else "x[x[:, 0] > 0]"
        raise ConfigurationError(f"filters apply to Parquet files only: select the rows beforehand, as in {how}.")
    if module == "pandas" and kind in ("DataFrame", "Series"):
        return FrameSource(data.to_frame() if kind == "Series" else data, columns, *beside)
    if module != "dask":
        for field, name in beside._asdict().items():
            if name is not None:
                raise ConfigurationError(
                    f"{field}={name!r} names a column, which arrays do not have: pass the {WORDS[field]} as an array."
                )
    if module == "zarr" and kind in ("Array", "Group"):
        from dask_em.sources import zarr_store
        from dask_em.sources.zarr import ZarrSource

        if kind == "Group":
            data = zarr_store.only_table(data, zarr_store.shown(data.store, data.path))
        return ZarrSource(data, columns, missing_chunks=missing_chunks)
    if module == "dask":
        return _open_dask(data, columns, beside)
    if module == "xarray":
        return _open_xarray(data, columns)
    return _open_array(data, columns)


def _open_dask(data: Any, columns: Any, beside: RowColumns) -> TableSource:
    from dask_em.sources.dask_collection import DaskArraySource, DaskFrameSource

    kind = type(data)  # asked of the class, since a Delayed claims to have every attribute
    if hasattr(kind, "to_delayed") and hasattr(kind, "numblocks"):
        refuse(beside.given, "arrays have no column names; pass weights and sequence ids as arrays")
        return DaskArraySource(data, columns)
    if hasattr(kind, "npartitions") and hasattr(kind, "to_dask_array") and data.ndim in (1, 2):
        frame = data.to_frame() if data.ndim == 1 else data
        return DaskFrameSource(frame, columns, *beside)
    raise DataError(
        f"A Dask {type(data).__name__} cannot be read in blocks: make an array or a frame of it, "
        "with dask.array.from_delayed, dask.dataframe.from_delayed or bag.to_dataframe()."
    )


def _open_xarray(data: Any, columns: Any) -> TableSource:
    if not hasattr(type(data), "to_dataset"):  # asked of the class: `data.data` would load the whole of a file
        raise DataError(
            f"An xarray {type(data).__name__} holds several arrays: choose one, as in ds['name'], "
            "or stack them as columns with ds.to_array('column').T."
        )
    names = None
    if data.ndim == 2 and data.dims[1] in data.coords:
        labels = data.coords[data.dims[1]].values.tolist()
        names = labels if all(isinstance(label, str) for label in labels) else None
    if data.chunks is None and not data.variable._in_memory:
        data = data.chunk()  # a file that xarray opened: reading `.data` would load the whole of it
    if data.chunks is not None:
        from dask_em.sources.dask_collection import DaskArraySource

        return DaskArraySource(data.data, columns, feature_names=names)
    x = checked_array(data.values)
    return ArraySource(x, columns=positions(columns, x.shape[1], names), feature_names=names)


def _open_array(data: Any, columns: Any) -> TableSource:
    if isinstance(data, np.memmap) and data.ndim == 2 and data.size and data.dtype.kind in "biuf":
        file = mapped_file(data)
        if file is not None:
            return MappedSource(file, columns=positions(columns, data.shape[1]))
    x = compressed(data) if issparse(data) else checked_array(data)
    return ArraySource(x, columns=positions(columns, x.shape[1]))
