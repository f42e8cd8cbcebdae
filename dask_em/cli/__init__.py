"""Commands ``dask-em fit``, ``select``, ``predict``, ``inspect`` and others, also of ``dask em``.

Only click is imported here: the rest is, once a command runs, so that ``--help`` costs nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from dask_em._version import __version__
from dask_em.cli.demo import demo
from dask_em.cli.fit import fit
from dask_em.cli.impute import impute
from dask_em.cli.inspection import inspect
from dask_em.cli.predict import predict
from dask_em.cli.program import Program, report
from dask_em.cli.score import score
from dask_em.cli.select import select
from dask_em.cli.standard_errors import standard_errors

__all__ = ["em", "main"]


_HELP = """Expectation-Maximization on data that need not fit in memory.

\b
Exit codes:
  0   done
  65  bad data: the message names the place
  75  interrupted, or the cluster was lost: run the same command again
  78  bad configuration
  1   anything else
"""


@click.group(name="em", cls=Program, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="dask-em", prog_name="dask-em")
def em() -> None:
    """The commands, as ``dask em`` and ``dask-em`` have them."""


for _command in (fit, select, predict, impute, score, standard_errors, inspect, demo):
    em.add_command(_command)


def main(args: Sequence[str] | None = None) -> None:
    """The program ``dask-em``."""
    try:
        code = em.main(args, prog_name="dask-em", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:  # what is wrong before any command is known
        code = report(error, {})
    sys.exit(code if isinstance(code, int) else 0)
