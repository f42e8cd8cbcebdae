"""`write_rows`: one answer for each row of a source, written in one pass (two where rows must be counted)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_em.engine import Witness, one_pass
from dask_em.errors import ConfigurationError, StoreError
from dask_em.model import Chunk, Executor, Source
from dask_em.sinks.answers import RowAnswers
from dask_em.sinks.parquet import ParquetRequest
from dask_em.sinks.staging import Staging
from dask_em.sinks.zarr import Target, ZarrRequest, chunk_rows, create_array

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BlockRows:
    """The numbers of some blocks, and how many rows each turned out to hold."""

    blocks: tuple[int, ...]
    rows: tuple[int, ...]

    def merge(self, right: BlockRows) -> BlockRows:
        """Together with the blocks that follow."""
        return BlockRows(self.blocks + right.blocks, self.rows + right.rows)

    def close(self) -> BlockRows:
        """Finished at any time."""
        return self


@dataclass(frozen=True)
class CountRequest:
    """Asks how many rows each block holds."""

    accepts_nan: bool

    def map(self, chunk: Chunk) -> BlockRows:
        """One block's rows."""
        return BlockRows((chunk.block,), (chunk.n_rows,))


def kind_of(path: Any) -> str:
    """What is written to a path, by its ending.

    Raises
    ------
    ConfigurationError
        It is neither ``.zarr`` nor ``.parquet``.
    """
    name = os.fspath(path).rstrip("/")
    for kind in ("zarr", "parquet"):
        if name.endswith(f".{kind}"):
            return kind
    raise ConfigurationError(f"the output {name} ends in neither .zarr nor .parquet, which is what can be written")


def write_rows(
    source: Source,
    answer: RowAnswers,
    path: str | os.PathLike[str],
    executor: Executor,
    *,
    storage_options: dict[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write one answer for each row, in the order of the rows; never are all of them in memory.

    Parameters
    ----------
    source : Source
    answer : RowAnswers
    path : path or URL
        ``.zarr``: one array, its first axis the rows'.  ``.parquet``: a folder of files with the columns that the
        answer's schema names.  Workers of a cluster must reach it too.
    executor : Executor
    storage_options : dict, optional
        For a URL, what fsspec needs.
    overwrite : bool
        Replace what is there, once the new output is complete.
    progress : callable, optional
        As in `one_pass`.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    ConfigurationError
        The output exists, or its place cannot be written.
    DataError
        The data cannot be read; then there is no output, and what was there before still is.
    """
    kind = kind_of(path)
    with Staging(path, storage_options, overwrite=overwrite) as staging:
        write = _write_zarr if kind == "zarr" else _write_parquet
        return write(source, answer, staging, executor, progress)


def _write_parquet(
    source: Source, answer: RowAnswers, staging: Staging, executor: Executor, progress: Progress | None
) -> int:
    digits = max(5, len(str(len(source.blocks) - 1)))
    offsets, witness = _offsets(source, answer, executor, progress) if answer.needs_place else (None, None)
    request = ParquetRequest(answer, staging.place, digits, offsets)
    written = one_pass(source, [request], executor, witness=witness, progress=progress).answers[0]
    names = [name for name in staging.names() if name.startswith("part-") and name.endswith(".parquet")]
    _check_there(len(names), written.parts, staging)
    staging.publish(names)
    return int(written.rows)


def _write_zarr(
    source: Source, answer: RowAnswers, staging: Staging, executor: Executor, progress: Progress | None
) -> int:
    offsets, witness = _offsets(source, answer, executor, progress)
    n_rows = int(offsets[-1])
    target = Target(staging.place, n_rows, chunk_rows(answer, n_rows))
    create_array(target, answer)
    request = ZarrRequest(answer, target, offsets)
    rows = one_pass(source, [request], executor, witness=witness, progress=progress).answers[0]
    names = [name for name in staging.names() if name.startswith("c/") and not name.endswith(".partial")]
    _check_there(len(names), -(-n_rows // target.chunk_rows), staging)
    staging.publish([*names, "zarr.json"])
    return int(rows)


def _offsets(
    source: Source, answer: RowAnswers, executor: Executor, progress: Progress | None
) -> tuple[np.ndarray, Witness | None]:
    """Number of each block's first row, and of all rows; counted in a pass of its own where they are not planned."""
    rows = np.zeros(len(source.blocks), dtype=np.int64)
    witness = None
    if source.n_rows is not None:
        rows[:] = [block.rows or 0 for block in source.blocks]
    else:
        counted = one_pass(source, [CountRequest(answer.accepts_nan)], executor, progress=progress)
        found = counted.answers[0]
        rows[list(found.blocks)] = found.rows
        witness = Witness(counted.rows, counted.checksum)
    return np.concatenate([[0], np.cumsum(rows)]), witness


def _check_there(found: int, written: int, staging: Staging) -> None:
    if found != written:
        raise StoreError(
            f"{found} of the {written} parts of {staging.target.shown} are where they were written to: the workers "
            "must write to a file system or object store that this process reaches too"
        )
