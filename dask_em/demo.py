"""Two photographs, a mixture of Gaussians, and a cluster with less memory than the pixels take.

The photographs that scikit-learn ships are enlarged and become one Zarr array with a row for
each pixel.  A mixture of colours is fitted to all rows, block by block, on two workers; then
every pixel is painted in the mean colour of the component it most probably comes from.
"""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dask_em.errors import ConfigurationError

_ALIKE = 5.0  # levels of 256 that look alike: without it components would go to shadows of which one colour is zero
_CHUNK_ROWS = 1 << 18  # 3 MiB of float32 colours
_BAND = 64  # rows of a picture that are jittered or painted at a time


@dataclass(frozen=True)
class Size:
    """How large the demonstration is.

    Parameters
    ----------
    zoom : int
        Factor by which the photographs are enlarged, each way.
    shown : int
        Factor of the pictures that are written, a divisor of `zoom`.
    memory_limit : int
        Bytes for each of the two workers.
    n_components : int
    nats_per_pixel : float
        The fit ends once it would gain less than this, on average.
    """

    zoom: int = 12
    shown: int = 2
    memory_limit: int = 400 << 20
    n_components: int = 12
    nats_per_pixel: float = 5e-5


class Listener(Protocol):
    """Hears how the demonstration goes, and tells it to whoever watches."""

    def begins(self, shapes: dict[str, tuple[int, tuple[int, int]]], size: Size, seconds: float) -> None:
        """The pixels are written; for each picture its first row, height and width."""

    def fitted(self, mixture: Any, predicted: float, peak: int, size: Size) -> None:
        """The mixture is fitted and every pixel labelled, in so many seconds and at most so many bytes a worker."""

    def ended(self, paths: list[str], seconds: float) -> None:
        """The pictures are written."""


def run(
    out: str | os.PathLike[str] = "demo-output",
    size: Size | None = None,
    *,
    overwrite: bool = False,
    listener: Listener | None = None,
) -> list[str]:
    """Run the demonstration.

    Parameters
    ----------
    out : path
        Folder for the pictures; made if need be.
    size : Size, optional
    overwrite : bool
        Whether pictures of the same names may be replaced.
    listener : Listener, optional

    Returns
    -------
    list of str
        The pictures written.

    Raises
    ------
    ConfigurationError
        There are pictures already, or the folder cannot be made.
    KeyboardInterrupt
        It was stopped; nothing is left of it.
    """
    from dask_em.executors.local import local_cluster

    size = size or Size()
    photographs = _photographs()
    paths = {name: os.path.join(out, f"{name}.png") for name in photographs}
    began = time.monotonic()
    with _folder(out, paths.values(), overwrite), tempfile.TemporaryDirectory(prefix=".pixels-", dir=out) as folder:
        pixels, labels = os.path.join(folder, "pixels.zarr"), os.path.join(folder, "labels.zarr")
        shapes = write_pixels(photographs, pixels, size.zoom)
        if listener is not None:
            listener.begins(shapes, size, time.monotonic() - began)
        with local_cluster(2, 1, str(size.memory_limit)) as client:
            mixture = _fit(pixels, size)
            predicted = _predict(mixture, pixels, labels)
            peak = max(client.run(_peak_bytes).values())
        if listener is not None:
            listener.fitted(mixture, predicted, peak, size)
        for name, (first, shape) in shapes.items():
            painted = paint(
                os.path.join(folder, f"{name}.png"), photographs[name], labels, first, shape, mixture.means_, size
            )
            os.replace(painted, paths[name])
    if listener is not None:
        listener.ended(list(paths.values()), time.monotonic() - began)
    return list(paths.values())


@contextmanager
def _folder(out: str | os.PathLike[str], paths: Iterable[str], overwrite: bool) -> Iterator[None]:
    """The folder of the pictures, which goes again if it was made here and stays empty."""
    there = [path for path in paths if os.path.lexists(path)]
    if there and not overwrite:
        raise ConfigurationError(
            f"{there[0]} exists: choose another folder with --out, or allow its replacement with --overwrite"
        )
    made = not os.path.isdir(out)
    try:
        os.makedirs(out, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"the folder {os.fspath(out)} cannot be made ({error.strerror}): choose another with --out"
        ) from error
    try:
        yield
    finally:
        if made and not os.listdir(out):
            os.rmdir(out)


# ---------------------------------------------------------------- the data


def _photographs() -> dict[str, np.ndarray]:
    """The pictures by name, (height, width, 3) uint8."""
    try:
        from sklearn.datasets import load_sample_images

        found = load_sample_images()
    except ImportError as error:
        raise ConfigurationError("the demonstration reads and writes pictures: pip install 'dask-em[plot]'") from error
    return {
        os.path.splitext(os.path.basename(name))[0]: image
        for name, image in zip(found.filenames, found.images, strict=True)
    }


def write_pixels(photographs: dict[str, np.ndarray], path: str, zoom: int) -> dict[str, tuple[int, tuple[int, int]]]:
    """Write one row for each pixel of the enlarged pictures; for each, its first row, height and width.

    Colours are whole numbers, and heaps of equal rows would draw a Gaussian into a spike.  A
    uniform jitter of the width of the rounding, ±1/2, undoes it honestly.
    """
    import zarr
    from PIL import Image

    shapes, n_rows = {}, 0
    for name, image in photographs.items():
        height, width = image.shape[0] * zoom, image.shape[1] * zoom
        shapes[name] = n_rows, (height, width)
        n_rows += height * width
    # uncompressed: noise does not compress, and what is shown is memory, not a codec
    array = zarr.create_array(path, shape=(n_rows, 3), chunks=(_CHUNK_ROWS, 3), dtype="float32", compressors=None)
    rng = np.random.default_rng(0)
    for name, (first, (height, width)) in shapes.items():
        large = np.asarray(Image.fromarray(photographs[name]).resize((width, height), Image.Resampling.BICUBIC))
        flat = large.reshape(-1, 3)
        for start in range(
            first - first % _CHUNK_ROWS, first + len(flat), _CHUNK_ROWS
        ):  # by whole chunks but at the ends
            rows = slice(max(start, first), min(start + _CHUNK_ROWS, first + len(flat)))
            jitter = rng.random((rows.stop - rows.start, 3), dtype=np.float32) - np.float32(0.5)
            array[rows] = jitter + flat[rows.start - first : rows.stop - first]
    return shapes


# ---------------------------------------------------------------- the work


def _fit(pixels: str, size: Size) -> Any:
    from dask_em import FitWarning, GaussianMixture
    from dask_em import open as open_source

    source = open_source(pixels)
    tol = size.nats_per_pixel * (source.n_rows or 1)
    mixture = GaussianMixture(size.n_components, reg_covar=_ALIKE**2, tol=tol, max_passes=12, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # how it ended is shown in full
        mixture.fit(source)
    if mixture.status_ == "interrupted":
        raise KeyboardInterrupt
    mixture.feature_names_in_ = np.array(["red", "green", "blue"], dtype=object)
    return mixture


def _predict(mixture: Any, pixels: str, labels: str) -> float:
    """Write the component of every pixel; seconds taken."""
    from dask_em import open as open_source
    from dask_em.executors import default_executor
    from dask_em.sinks.writing import write_rows

    began, executor = time.monotonic(), default_executor()
    try:
        write_rows(open_source(pixels), mixture.answer("labels"), labels, executor)
    finally:
        executor.close()
    return time.monotonic() - began


def _peak_bytes() -> int:
    """The most memory this process has held."""
    import resource

    try:  # what getrusage says counts the process that it was forked from, too
        with open("/proc/self/status", encoding="ascii") as file:
            return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def paint(
    path: str,
    photograph: np.ndarray,
    labels: str,
    first: int,
    shape: tuple[int, int],
    means: np.ndarray,
    size: Size,
) -> str:
    """Write the photograph, and beside it the same with each pixel in its component's mean colour."""
    import zarr
    from PIL import Image

    (height, width), step = shape, size.zoom // size.shown
    array = zarr.open_array(labels, mode="r")
    colours = np.clip(np.rint(means), 0, 255).astype(np.uint8)
    middle = step // 2  # of each square of step x step pixels one is shown
    rows = []
    for top in range(0, height, _BAND * step):
        bottom = min(top + _BAND * step, height)
        band = array[first + top * width : first + bottom * width].reshape(bottom - top, width)
        rows.append(colours[band[middle::step, middle::step]])
    painted = np.concatenate(rows)
    original = Image.fromarray(photograph).resize(painted.shape[1::-1], Image.Resampling.BICUBIC)
    gap = np.full((len(painted), 8 * size.shown, 3), 255, dtype=np.uint8)
    Image.fromarray(np.concatenate([np.asarray(original), gap, painted], axis=1)).save(path, optimize=True)
    return path
