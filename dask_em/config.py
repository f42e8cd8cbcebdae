"""Options of the library: Dask's configuration under the key ``em``.

``dask_em.yaml`` holds the defaults and says what each option means.  Dask is imported at the
first question, not with the library: that is most of what ``import dask_em`` would cost.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from functools import cache
from typing import Any

from dask_em.errors import ConfigurationError


def option(name: str) -> Any:
    """The value of an option, checked and in its unit.

    Workers do not inherit the client's configuration, so ask in the process that runs the fit
    and send the answer along.

    Parameters
    ----------
    name : str
        Name under ``em``, such as ``"cluster.retries"``.

    Returns
    -------
    int or float
        Sizes in bytes, times in seconds; ``threads`` is resolved to a number.

    Raises
    ------
    ConfigurationError
        No such option, or its value makes no sense.

    Examples
    --------
    >>> import dask
    >>> from dask_em.config import option
    >>> with dask.config.set({"em.block-bytes": "2 MiB", "em.threads": 3}):
    ...     option("block-bytes"), option("threads")
    (2097152, 3)
    """
    read = _OPTIONS.get(name)
    if read is None:
        raise ConfigurationError(f"option em.{name} does not exist; choose one of {', '.join(_OPTIONS)}")
    import dask.config

    # a default is asked for again: leaving the first `dask.config.set` that names an option takes the section with it
    *sections, last = name.split(".")
    value: Any = _defaults()
    for part in (*sections, last):
        value = value[part]
    if isinstance(dask.config.get(".".join(("em", *sections)), {}), dict):
        value = dask.config.get(f"em.{name}", value)
    else:  # a section that was set to something that is not one, such as em.cluster: 3
        value = None
    try:
        return read(value)
    except (TypeError, ValueError, KeyError, OverflowError) as err:
        raise ConfigurationError(
            f"option em.{name} is {value!r}, but should be {_WANTED[read]}; correct it in Dask's configuration"
        ) from err


@cache
def _defaults() -> Any:
    """The defaults; Dask is told of them once, where they give way to whatever the user has set."""
    import dask.config
    import yaml

    path = os.path.join(os.path.dirname(__file__), "dask_em.yaml")
    dask.config.ensure_file(source=path)  # a commented copy, to be found and edited by the user
    with open(path, encoding="utf-8") as file:
        tree = yaml.safe_load(file)
    dask.config.update_defaults(tree)
    return tree["em"]


def memory() -> int:
    """Bytes of memory that this process may use: the machine's, or the container's if that is less."""
    known = hasattr(os, "sysconf")
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if known else 1 << 62
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):  # version 2, and 1
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
            machine = min(machine, int(file.read()))
    return machine


def _threads(value: object) -> int:
    if value is None:
        from dask.system import cpu_count  # min of affinity and the container's quota

        return int(cpu_count())
    return _at_least(value, 1)


def _count(value: object) -> int:
    return _at_least(value, 0)


def _at_least(value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(value)
    return value


def _bytes(value: Any) -> int:
    from dask.utils import parse_bytes

    if value is None or isinstance(value, bool):
        raise TypeError(value)
    size = int(parse_bytes(value))
    if size < 1:
        raise ValueError(value)
    return size


def _seconds(value: Any) -> float:
    from dask.utils import parse_timedelta

    if value is None or isinstance(value, bool):
        raise TypeError(value)
    seconds = float(parse_timedelta(value))
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(value)
    return seconds


_OPTIONS: dict[str, Callable[[Any], int | float]] = {
    "threads": _threads,
    "block-bytes": _bytes,
    "sample-bytes": _bytes,
    "cluster.workers-timeout": _seconds,
    "cluster.batch-seconds": _seconds,
    "cluster.retries": _count,
}
_WANTED: dict[Callable[[Any], int | float], str] = {
    _threads: "a number of threads from 1, or null for the cores there are",
    _bytes: "a size such as '64 MiB'",
    _seconds: "a time such as '30 s'",
    _count: "a whole number from 0",
}
