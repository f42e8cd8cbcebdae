"""``dask-em demo``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dask_em.cli.options import debug_option, overwrite_option

if TYPE_CHECKING:
    from dask_em.demo import Size


@click.command()
@click.option(
    "--out", default="demo-output", show_default=True, metavar="FOLDER", help="Where the pictures are written."
)
@overwrite_option
@debug_option
def demo(out: str, overwrite: bool) -> None:
    """Segment two photographs, out of core, on a cluster of two small workers."""
    from dask_em.cli.session import stopping
    from dask_em.demo import run

    with stopping():
        run(out, overwrite=overwrite, listener=Tables())


class Tables:
    """Tells in tables how the demonstration goes."""

    def begins(self, shapes: dict[str, tuple[int, tuple[int, int]]], size: Size, seconds: float) -> None:
        """What is going to be fitted, and where."""
        from dask_em.cli.show import facts

        n_rows = sum(height * width for _, (height, width) in shapes.values())
        facts(
            {
                "photographs": ", ".join(f"{name}, enlarged to {w} x {h}" for name, (_, (h, w)) in shapes.items()),
                "data": f"{n_rows:,} pixels of 3 colours, written to Zarr in {seconds:.1f} s",
                "size": f"{_mib(12 * n_rows)} in memory",
                "cluster": f"2 workers of {_mib(size.memory_limit)}, {_mib(2 * size.memory_limit)} together: too "
                "little for all pixels at once",
                "to be fitted": f"a mixture of {size.n_components} Gaussians, each a cloud of similar colours",
            }
        )

    def fitted(self, mixture: Any, predicted: float, peak: int, size: Size) -> None:
        """The fit's record, the colours found, and the memory that took."""
        from dask_em.cli.families import family_of
        from dask_em.cli.records import history
        from dask_em.cli.show import facts, table

        table(history(mixture.history_))
        family = family_of(mixture)
        for found in () if family is None else family.tables(mixture):
            table(found)
        facts(
            {
                "status": f"{mixture.status_}: {mixture.message_}{_a_pixel(mixture, size)}",
                "fitted": f"in {mixture.n_passes_} reads of the pixels, which took "
                f"{sum(r['seconds'] for r in mixture.history_):.1f} s",
                "labelled": f"every pixel with its component, in one more read of {predicted:.1f} s",
                "peak memory": f"{_mib(peak)} of a worker's {_mib(size.memory_limit)}",
            }
        )

    def ended(self, paths: list[str], seconds: float) -> None:
        """Where the pictures are."""
        from dask_em.cli.show import facts

        facts({"pictures": ", ".join(paths), "seconds": f"{seconds:.1f}"})


def _a_pixel(mixture: Any, size: Size) -> str:
    """What the gain that is left means."""
    gain = mixture.history_[-1]["gain"]
    if mixture.status_ != "converged" or gain is None:
        return ""
    return (
        f", {gain / mixture.n_rows_:.1g} a pixel, less than the {size.nats_per_pixel:g} that the demonstration cares "
        "for"
    )


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.0f} MiB"
