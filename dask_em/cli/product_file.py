"""A YAML file that says which columns have which distribution."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from dask_em.errors import ConfigurationError

EXAMPLE = "- {columns: [age, income], distribution: gaussian, covariance_type: diag}"


def read_product(path: str, known: dict[str, str]) -> Any:
    """The `Product` that a file describes: a list of parts, each with its columns, distribution and parameters of that.

    Parameters
    ----------
    path : str
    known : dict
        From the names of distributions to those of their classes.

    Returns
    -------
    Product

    Raises
    ------
    ConfigurationError
        The file cannot be read, or something in it; the part is numbered from 1.
    """
    import yaml

    import dask_em

    try:
        read = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"{path} cannot be read as YAML: {reason}") from error
    if not isinstance(read, list) or not read:
        raise ConfigurationError(f"{path} should be a list of parts, such as\n{EXAMPLE}")
    parts = []
    for number, part in enumerate(read, start=1):
        where = f"{path}, part {number}"
        if not isinstance(part, dict) or not {"columns", "distribution"} <= set(part):
            raise ConfigurationError(f"{where}: should have the keys columns and distribution, such as\n{EXAMPLE}")
        settings = {str(key): value for key, value in part.items()}
        columns, name = settings.pop("columns"), settings.pop("distribution")
        parts.append((_columns(columns, where), _distribution(name, settings, known, where)))
    try:
        return dask_em.Product(tuple(parts))
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def named_columns(distribution: Any) -> list[str] | None:
    """The columns that a product names, which are all that is read of the data; None: it does not say."""
    from dask_em.distributions.product import Product

    if not isinstance(distribution, Product):
        return None
    columns = [c for own in distribution.columns for c in own]
    return columns if all(isinstance(c, str) for c in columns) else None  # type: ignore[return-value]


def _columns(given: Any, where: str) -> tuple[str | int, ...]:
    columns = tuple(given) if isinstance(given, list) else (given,)
    if not columns or any(isinstance(c, bool) or not isinstance(c, (str, int)) for c in columns):
        raise ConfigurationError(f"{where}: columns: {given!r} should be a name, a position, or a list of those")
    return columns


def _distribution(name: Any, settings: dict[str, Any], known: dict[str, str], where: str) -> Any:
    import dask_em

    if name not in known:
        raise ConfigurationError(f"{where}: distribution: {name!r} should be one of {', '.join(sorted(known))}")
    kind = getattr(dask_em, known[name])
    has = sorted(f.name for f in fields(kind) if f.compare)
    for key in settings:
        if key not in has:
            raise ConfigurationError(f"{where}: {name} has no {key!r}: it has {', '.join(has) or 'no parameters'}")
    made = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    try:
        return kind(**made)
    except (ConfigurationError, TypeError) as error:
        raise ConfigurationError(f"{where}: {name}: {error}") from error
