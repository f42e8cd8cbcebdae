"""The demonstration, on a few pixels: what it promises holds at its own size too."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import zarr

from dask_em.cli.demo import Tables
from dask_em.demo import Size, run, write_pixels
from dask_em.errors import ConfigurationError

Image = pytest.importorskip("PIL.Image")

SMALL = Size(zoom=2, shown=1, memory_limit=400 << 20, n_components=5, nats_per_pixel=1e-3)


def test_the_pixels_take_more_memory_than_the_workers_have() -> None:
    from sklearn.datasets import load_sample_images

    size = Size()
    pixels = sum(image.shape[0] * image.shape[1] for image in load_sample_images().images) * size.zoom**2
    assert pixels * 3 * np.dtype("float32").itemsize > 2 * size.memory_limit
    assert size.zoom % size.shown == 0


def test_every_pixel_of_every_picture_is_a_row_within_its_rounding(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = {
        "a": rng.integers(0, 256, (7, 5, 3), dtype=np.uint8),
        "b": rng.integers(0, 256, (2, 9, 3), dtype=np.uint8),
    }
    shapes = write_pixels(pictures, str(tmp_path / "p.zarr"), 1)
    x = zarr.open_array(str(tmp_path / "p.zarr"), mode="r")[:]
    assert shapes == {"a": (0, (7, 5)), "b": (35, (2, 9))}
    whole = np.concatenate([p.reshape(-1, 3) for p in pictures.values()])
    assert x.shape == whole.shape
    assert np.abs(x - whole).max() <= 0.5
    assert len(np.unique(x)) > len(x)  # and no heaps of equal values are left


def test_pictures_that_exist_are_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "flower.png").write_bytes(b"somebody's")
    with pytest.raises(ConfigurationError, match=r"flower.png exists: .*--overwrite"):
        run(tmp_path, SMALL)
    assert os.listdir(tmp_path) == ["flower.png"]
    assert (tmp_path / "flower.png").read_bytes() == b"somebody's"
    with pytest.raises(ConfigurationError, match="cannot be made"):
        run(tmp_path / "flower.png", SMALL)


@pytest.mark.cluster
def test_workers_of_a_local_cluster_never_wait_for_memory_that_nobody_frees() -> None:
    import dask

    from dask_em.executors.local import local_cluster

    with local_cluster(1, 1, "1GB") as client:
        assert set(client.run(dask.config.get, "distributed.worker.memory.pause").values()) == {False}
    assert dask.config.get("distributed.worker.memory.pause") is not False


@pytest.mark.cluster
def test_the_pictures_are_painted_in_the_colours_of_the_components(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "china.png").write_bytes(b"another picture")
    paths = run(tmp_path, SMALL, overwrite=True, listener=Tables())
    assert sorted(os.listdir(tmp_path)) == ["china.png", "flower.png"]  # and the pixels are cleared away
    colours = set()
    for path in paths:
        picture = np.asarray(Image.open(path))
        assert picture.shape == (427, 640 + 8 + 640, 3)
        painted = picture[:, 648:]
        colours |= {tuple(c) for c in np.unique(painted.reshape(-1, 3), axis=0)}
        original = picture[:, :640].astype(float)
        spread = ((original - original.mean(axis=(0, 1))) ** 2).mean()
        assert ((original - painted) ** 2).mean() < 0.3 * spread  # of five colours, each pixel has one near its own
    assert 2 <= len(colours) <= 5
    said = capsys.readouterr().out
    for word in ("in memory", "census", "log-likelihood", "peak memory", "converged", "a pixel, less than the 0.001"):
        assert word in said
