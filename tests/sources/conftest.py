from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # for s3_server
from s3_server import Bucket, s3_bucket

from dask_em.config import option


@pytest.fixture(autouse=True)
def _small_blocks() -> Iterator[None]:
    option("block-bytes")  # puts the defaults in place, which must outlive the change below
    with dask.config.set({"em.block-bytes": "4 MiB"}):
        yield


@pytest.fixture(scope="session")
def bucket() -> Iterator[Bucket]:
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    with s3_bucket() as made:
        yield made


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(10_000, 4))


@pytest.fixture(scope="session")
def rows() -> Callable:
    """Every row of a source, as read here; checked against parts that were pickled on the way."""

    def read(source, *, weight: bool = False, sequence: bool = False) -> np.ndarray:
        n = len(source.blocks)
        assert [b.index for b in source.blocks] == list(range(n))
        here = [source.read(i) for i in range(n)]
        middle = n // 2
        for start, stop in ((0, middle), (middle, n)):
            if source.graph is not None or source.dependencies(start, stop):
                continue
            part = pickle.loads(pickle.dumps(source.part(start, stop)))
            for i in range(start, stop):
                chunk = part.read(i)
                np.testing.assert_array_equal(chunk.x, here[i].x)
                assert chunk.block == i
                for own, other in ((chunk.weight, here[i].weight), (chunk.sequence, here[i].sequence)):
                    assert (own is None) == (other is None)
                    if own is not None:
                        np.testing.assert_array_equal(own, other)
        offset: int | None = 0
        for block, chunk in zip(source.blocks, here, strict=True):
            assert chunk.x.ndim == 2
            assert chunk.x.dtype == source.dtype
            assert chunk.x.shape[1] == source.n_features
            assert block.rows in (None, chunk.n_rows)
            assert block.offset in (None, offset)
            offset += chunk.n_rows
        assert source.n_rows in (None, offset)
        return np.concatenate([c.weight if weight else c.sequence if sequence else c.x for c in here])

    return read
