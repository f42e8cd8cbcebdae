"""``dask-em demo``."""

from __future__ import annotations

import click

from dask_em.cli.options import debug_option


@click.command()
@click.option(
    "--out", default="demo-output", show_default=True, metavar="FOLDER", help="Where the pictures are written."
)
@debug_option
def demo(out: str) -> None:
    """Segment two photographs, out of core, on a cluster of two small workers."""
    from dask_em.cli.session import stopping
    from dask_em.demo import run

    with stopping():
        run(out)
