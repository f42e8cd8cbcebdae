"""One BLAS thread under each of our threads.

More would fight for the cores, and their number would show in the last bits of the sums.  The
number is the process's, and whoever sets it must give it back from the same thread: threadpoolctl
ignores all threads but the first for as long as that one lives.
"""

from __future__ import annotations

import os
import uuid
from contextlib import AbstractContextManager
from functools import cache
from typing import Any


def one_blas_thread() -> AbstractContextManager[Any]:
    """While a pass runs, in the process that waits for it; its threads, and workers within it, have the same BLAS."""
    return _controller().limit(limits=1, user_api="blas")


def one_blas_thread_on_worker(client_process: str) -> None:
    """For good, in a process that is a worker's own: nobody but Dask's threads computes there."""
    if this_process() != client_process:
        _limit_for_good(os.getpid())


def this_process() -> str:
    """A name that no other process has, on whatever machine."""
    return _name(os.getpid())


@cache
def _name(pid: int) -> str:  # by number: a forked process is another
    return uuid.uuid4().hex


@cache
def _limit_for_good(pid: int) -> None:
    _controller().limit(limits=1, user_api="blas")


@cache
def _controller() -> Any:
    import scipy.linalg  # noqa: F401  its BLAS must be loaded to be found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
