"""How parameters move: solvers ask for points and are told what they answered, one file each."""

from __future__ import annotations

from dask_em.errors import ConfigurationError
from dask_em.model import Model, Solver
from dask_em.solvers.anchored import Anchored
from dask_em.solvers.anderson import Anderson
from dask_em.solvers.certified import Certified
from dask_em.solvers.em import EM
from dask_em.solvers.relative import Relative

__all__ = ["EM", "Anchored", "Anderson", "make_solver"]

_SOLVERS: dict[str, type[EM] | type[Anderson] | type[Anchored]] = {"em": EM, "anderson": Anderson, "anchored": Anchored}


def check_solver(solver: str | Solver) -> None:
    """Raise `ConfigurationError` for what is neither a name of a solver nor one."""
    if isinstance(solver, str):
        if solver != "auto" and solver not in _SOLVERS:
            raise ConfigurationError(f"solver={solver!r} is unknown; choose one of {['auto', *sorted(_SOLVERS)]}")
    elif not all(hasattr(solver, name) for name in ("name", "begin", "ask", "tell")):
        raise ConfigurationError(f"solver={solver!r} is neither a name nor a solver, which has begin, ask and tell")


def make_solver(
    solver: str | Solver,
    model: Model,
    *,
    tol: float,
    rows: int,
    sampled: int,
    in_memory: bool = False,
    certified: bool = True,
) -> Solver:
    """A solver by its name, or the one given.

    "auto" is anchored EM where the resident sample is a small part of the data (sampled of rows), so that asking
    it costs little beside a pass, and Anderson acceleration otherwise, also of sequences, whose stretches begin in any
    state and not as sequences do, so that a sample of them says less; plain EM for a model that has only E- and
    M-step.  Accelerated ones do not end before the slope of the likelihood says so as well, where `certified` asks
    for that.  Those of k-means (`Relative`) may choose by whether the rows stay `in_memory`.
    """
    check_solver(solver)
    if isinstance(solver, Relative):
        return solver.chosen(in_memory=in_memory)
    if not isinstance(solver, str):
        return solver
    if solver == "auto":
        solver = "anchored" if _FEW * sampled <= rows and not model.sequential else "anderson"
        solver = solver if model.accelerates else "em"
    elif solver != "em" and not model.accelerates:
        raise ConfigurationError(
            f"solver={solver!r} needs a model with expected_loglik, to_vector and from_vector, which "
            f"{type(model).__name__} does not define: define them, or use solver='em'"
        )
    made = _SOLVERS[solver](tol=tol)
    return Certified(made, tol, rows) if certified and solver != "em" else made


_FEW = 4  # times as many rows as the sample has
