"""`load`: the estimator that a file holds, of whichever family."""

from __future__ import annotations

import os
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from dask_em import distributions, estimators, store
from dask_em.errors import StoreError
from dask_em.estimators.base import FAMILIES


def load(path: str | os.PathLike[str], *, storage_options: Any = None) -> Any:
    """Read an estimator that `save` wrote.

    Parameters
    ----------
    path : path or URL
    storage_options : dict, optional
        For a URL, what fsspec needs.

    Returns
    -------
    Estimator
        Of the family that was saved, fitted.

    Raises
    ------
    StoreError
        The file is not there, not whole, or not a model of this library.

    Examples
    --------
    >>> import numpy as np, tempfile, os
    >>> import dask_em as em
    >>> gm = em.GaussianMixture(1).fit(np.arange(10.0)[:, None])
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> gm.save(path)
    >>> em.load(path).means_.tolist() == gm.means_.tolist()
    True
    """
    name = os.fspath(path)
    for package in (distributions, estimators):  # a family, and what is stored, is known once its module is imported
        for module in iter_modules(package.__path__):
            import_module(f"{package.__name__}.{module.name}")
    tree = store.load(name, kind="model", storage_options=storage_options)
    parts = ("family", "hyperparameters", "feature_names", "fitted")
    if not isinstance(tree, dict) or any(part not in tree for part in parts):
        raise StoreError(f"{name} is not a model of this library: save one with estimator.save")
    family = FAMILIES.get(tree["family"]) if isinstance(tree["family"], str) else None
    if family is None:
        raise StoreError(
            f"{name} holds a model of the family {tree['family']!r}, which this version does not know: "
            f"it knows {sorted(FAMILIES)}"
        )
    return family.restore(tree, name)
