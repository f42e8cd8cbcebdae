"""What every executor does with a run of blocks: read ahead, examine, map, merge in a fixed tree.

The reduction tree is fixed by block index: the node at level l with number j covers blocks
j 2^l <= index < (j+1) 2^l.  A batch is an aligned run of 2^b blocks, so that its result is a
node of that tree whatever b is, and the answer does not depend on batch size, arrival order or
the number of workers, to the last bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral
from typing import Any

from dask_em.errors import CellError, ConfigurationError, DataChangedError, RowError
from dask_em.executors.examine import checksum_of, refuse_bad_values, refused
from dask_em.model import Block, Chunk, PassResult, Reader, Request

_QUICK = 2e-4  # seconds reading a block, below which the next one is read in place


@dataclass(frozen=True)
class Tally:
    """The partial results of some consecutive blocks, and what reading them took."""

    answers: tuple[Any, ...] | None  # one for each request; None: no rows so far
    rows: int
    checksum: int
    seconds_read: float
    seconds_compute: float

    def merge(self, right: Tally) -> Tally:
        """Join with the blocks that follow."""
        began = time.perf_counter()
        if self.answers is None or right.answers is None:
            answers = right.answers if self.answers is None else self.answers
        else:
            answers = tuple(a.merge(b) for a, b in zip(self.answers, right.answers, strict=True))
        return Tally(
            answers,
            self.rows + right.rows,
            (self.checksum + right.checksum) % 2**64,
            self.seconds_read + right.seconds_read,
            self.seconds_compute + right.seconds_compute + time.perf_counter() - began,
        )

    def close(self, seconds: float) -> PassResult:
        """The finished pass."""
        answers = [] if self.answers is None else [a.close() for a in self.answers]
        return PassResult(answers, self.rows, self.checksum, self.seconds_read, self.seconds_compute, seconds)


class Tree:
    """A binary counter of partial results pushed in block order; holds log2(n) of them."""

    def __init__(self) -> None:
        self._nodes: list[tuple[int, Tally]] = []  # (level, node), levels strictly falling

    def push(self, node: Tally) -> None:
        """Add the next node at the lowest level."""
        level = 0
        while self._nodes and self._nodes[-1][0] == level:
            node = self._nodes.pop()[1].merge(node)
            level += 1
        self._nodes.append((level, node))

    def root(self) -> Tally:
        """Everything pushed so far, joined as the fixed tree joins it."""
        node = self._nodes[-1][1]
        for _, left in reversed(self._nodes[:-1]):
            node = left.merge(node)
        return node


def merge_in_order(nodes: Iterable[Tally]) -> Tally:
    """Join consecutive nodes of one level, the first of which is aligned."""
    tree = Tree()
    for node in nodes:
        tree.push(node)
    return tree.root()


def whole_number(name: str, value: Any) -> int:
    """A parameter of an executor that counts something, from 1 on."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ConfigurationError(f"{name}={value!r} must be a whole number of at least 1, or None for the default")
    return int(value)


def batch_level(n_blocks: int, wanted_batches: int) -> int:
    """The b for which runs of 2^b blocks come nearest to, but not below, the wanted number of batches."""
    return max(0, (max(1, n_blocks) // max(1, wanted_batches)).bit_length() - 1)


def read_ahead(
    reader: Reader, blocks: Iterable[Block], *, in_memory: bool = False
) -> Iterator[tuple[Block, Chunk, float]]:
    """Yield (block, chunk, seconds reading), reading the next block while the last is worked on.

    At most two blocks are held: the one yielded and the one being read.
    """
    if in_memory:
        for block in blocks:
            yield (block, *_read(reader, block))
        return
    ahead = iter(blocks)
    seconds = float("inf")  # that the last block took

    def begin(block: Block) -> Callable[[], tuple[Chunk, float]]:
        if seconds < _QUICK:  # handing it to the other thread would take longer than reading it
            return partial(_read, reader, block)
        return pool.submit(_read, reader, block).result

    with ThreadPoolExecutor(1, thread_name_prefix="dask-em-read") as pool:
        # `blocks` may claim work from a shared list: ask it for one block at a time
        upcoming = next(ahead, None)
        pending = None if upcoming is None else begin(upcoming)
        while pending is not None and upcoming is not None:
            current = upcoming
            chunk, seconds = pending()
            upcoming = next(ahead, None)
            pending = None if upcoming is None else begin(upcoming)
            yield current, chunk, seconds
            del chunk


def _read(reader: Reader, block: Block) -> tuple[Chunk, float]:
    began = time.perf_counter()
    try:
        chunk = reader.read(block.index)
    except CellError as error:
        raise error.located(block.name, block.offset) from None
    except Exception as error:
        error.add_note(f"while reading {block.name}")
        raise
    if block.rows is not None and chunk.n_rows != block.rows:
        raise DataChangedError(
            f"{block.name} holds {chunk.n_rows} rows where {block.rows} were planned: the data changed after it was "
            "opened; open it again once nothing writes to it"
        )
    if chunk.block != block.index:
        chunk = replace(chunk, block=block.index)
    return chunk, time.perf_counter() - began


def map_block(
    requests: Sequence[Request], block: Block, chunk: Chunk, seconds_read: float, names: Sequence[str] | None
) -> Tally:
    """One block's partial results."""
    began = time.perf_counter()
    if chunk.n_rows == 0:  # an empty block changes nothing, not even a sign of zero
        return Tally(None, 0, 0, seconds_read, 0.0)
    refuse_bad_values(chunk, block, names, accepts_nan=all(r.accepts_nan for r in requests))
    bits = checksum_of(chunk)
    try:
        answers = tuple(request.map(chunk) for request in requests)
    except RowError as error:
        raise refused(error, block, names) from None
    except Exception as error:
        error.add_note(f"while working on {block.name}")
        raise
    return Tally(answers, chunk.n_rows, bits, seconds_read, time.perf_counter() - began)


def run_batch(
    reader: Reader,
    blocks: Sequence[Block],
    requests: Sequence[Request],
    *,
    names: Sequence[str] | None = None,
    in_memory: bool = False,
) -> Tally:
    """One aligned run of blocks: read each once, and join the partial results."""
    work = partial(map_block, requests, names=names)
    tree = Tree()
    for block, chunk, seconds in read_ahead(reader, blocks, in_memory=in_memory):
        tree.push(work(block=block, chunk=chunk, seconds_read=seconds))
        del chunk
    return tree.root()
