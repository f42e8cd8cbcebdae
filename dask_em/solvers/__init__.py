"""How parameters move: solvers ask for passes and are told what they answered, one file each."""

from __future__ import annotations

from dask_em.errors import ConfigurationError
from dask_em.model import Solver
from dask_em.solvers.em import EM

__all__ = ["EM", "make_solver"]

_SOLVERS = {"em": EM}


def make_solver(solver: str | Solver, *, tol: float) -> Solver:
    """A solver by its name, or the one given."""
    if not isinstance(solver, str):
        return solver
    if solver not in _SOLVERS:
        raise ConfigurationError(f"solver={solver!r} is unknown; choose one of {sorted(_SOLVERS)}")
    return _SOLVERS[solver](tol=tol)
