"""Who reads the blocks: threads in this process (the specification), or a Dask cluster."""

from __future__ import annotations

import sys

from dask_em.model import Executor

__all__ = ["default_executor"]


def default_executor() -> Executor:
    """The active Dask client's cluster; without a client, threads in this process."""
    if "distributed" in sys.modules:  # a client cannot be active in a process that never imported it
        from distributed import Client

        try:
            client = Client.current()
        except ValueError:
            pass
        else:
            from dask_em.executors.dask import DaskExecutor

            return DaskExecutor(client)
    from dask_em.executors.threads import ThreadsExecutor

    return ThreadsExecutor()
