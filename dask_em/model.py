"""The contract between data, models, solvers and the engine. Read this first.

EM needs nothing of the data but sums. A *source* hands out blocks; a block in memory is a `Chunk`; a *request* maps a
chunk to a partial result; partial results `merge` in block order and `close` to `Statistics`; a *solver* turns these
into new parameters with the model's `m_step`. All else in this library is one of those; `engine.py` is the loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from dask_em.measure import Measure
from dask_em.named_columns import NamedColumns
from dask_em.sums import Statistics as Statistics

Params = Any  # a model's own parameters: a frozen dataclass of arrays, scalars and such dataclasses


# ---------------------------------------------------------------- data


@dataclass(frozen=True, slots=True)
class Block:
    """What a source hands out: a stretch of rows, not yet read."""

    index: int  # position in the source; the reduction tree is fixed by it
    name: str  # for people: "quakes/a.parquet, row group 3", "rows 0 to 65536 of x.zarr"
    rows: int | None  # None: known only once read (a row filter, a dask frame)
    nbytes: int  # decoded size, an estimate where rows is None
    offset: int | None = 0  # first row's number in the data set; None: not known yet


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one block holds, in memory. Nothing may write to it."""

    x: Any  # (n_rows, n_features) ndarray or csr_array; any float, integer or bool dtype, C or F order
    weight: np.ndarray | None = None  # (n_rows,) non-negative; None: one each
    sequence: np.ndarray | None = None  # (n_rows,) id of the sequence a row belongs to, rows in time order
    block: int = 0  # index of the block it came from; (block, row) names a row for hashing

    @property
    def n_rows(self) -> int:
        """Rows, those of weight zero included."""
        return int(self.x.shape[0])


class Reader(Protocol):
    """Reads blocks. Picklable, and no larger than the blocks that it was made for need."""

    def read(self, index: int) -> Chunk: ...


@runtime_checkable
class Source(Protocol):
    """Where the data is. Planned once; read inside the tasks."""

    @property
    def blocks(self) -> Sequence[Block]: ...

    @property
    def n_features(self) -> int: ...

    @property
    def feature_names(self) -> Sequence[str] | None: ...

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def n_rows(self) -> int | None:
        """Rows of all blocks. None: known only after a pass."""

    @property
    def where(self) -> str:
        """What was opened, for people, as in "x.zarr has no rows"."""

    @property
    def fingerprint(self) -> str:
        """A hash that changes when the data does; cheap to compute.

        Of a Dask collection it is the layout's: columns, types and chunks.  Its values are known
        only once computed, and what an earlier pass saw of them, its checksum, tells changed ones.
        """

    @property
    def in_memory(self) -> bool:
        """Whether reading costs nothing: no read-ahead then, and a cluster is sent the blocks once."""

    @property
    def graph(self) -> Any:
        """A Dask graph that the keys in `dependencies` belong to, or None."""

    def read(self, index: int) -> Chunk: ...

    def part(self, start: int, stop: int) -> Reader:
        """A reader for blocks start <= index < stop."""

    def dependencies(self, start: int, stop: int) -> Sequence[Any]:
        """Futures, or keys of `graph`, whose values `bind` needs before the part can be read."""

    @staticmethod
    def bind(part: Reader, values: Sequence[Any]) -> Reader:
        """The part, able to read, given the values of its dependencies."""


# ---------------------------------------------------------------- answers


class Partial(Protocol):
    """What a request answers for some rows; usually `Statistics` itself."""

    def merge(self, right: Any) -> Any:
        """Join with the rows that follow. Associative; called left to right in block order."""

    def close(self) -> Any:
        """The finished answer, once every row is merged."""


class Request(Protocol):
    """A question put to the data. A pass answers any number of them from one read."""

    @property
    def accepts_nan(self) -> bool:
        """Whether rows may hold NaN (missing values)."""

    def map(self, chunk: Chunk) -> Partial: ...


# ---------------------------------------------------------------- models


class Model(NamedColumns, ABC):
    """A latent structure to fit: hyperparameters only, no data. Make it a frozen dataclass.

    `start`, `e_step` and `m_step` are enough to fit.  `expected_loglik`, `to_vector` and
    `from_vector` let solvers accelerate and `dask_em.testing.check_model` prove the rest.
    """

    accepts_nan: bool = False
    accepts_sparse: bool = False
    raced: bool = True  # whether starts are told apart, and taken further, on a sample of the rows
    sequential: bool = False  # whether rows of a sequence depend on one another, so that their order counts

    @property
    def measure(self) -> Measure:
        """What people are told of the log-likelihood."""
        return Measure()

    @abstractmethod
    def start(self, sample: Chunk, rng: np.random.Generator) -> Params:
        """Parameters to begin from, given a random sample of the rows."""

    def grown(self, smaller: Model, params: Params, sample: Chunk, rng: np.random.Generator) -> list[Params]:
        """Parameters to begin from that are made of those of a smaller model of the same kind, if it is one."""
        return []

    def moved(self, params: Params, sample: Chunk, rng: np.random.Generator) -> list[Params]:
        """Parameters to go on from, where a start may have settled with parts of the model in the wrong places."""
        return []

    @abstractmethod
    def e_step(self, params: Sequence[Params], chunk: Chunk) -> list[Any]:
        """One partial result for each of the parameter sets, from one look at the chunk."""

    @abstractmethod
    def m_step(self, stats: Any) -> Params:
        """The maximum of `expected_loglik(params, stats) + log_prior(params)`; `DegenerateError` if there is none."""

    def expected_loglik(self, params: Params, stats: Any) -> float:
        """Expected complete-data log-likelihood of `params`: linear in `stats`."""
        raise TypeError(f"{type(self).__name__} does not define expected_loglik, which this solver needs")

    def to_vector(self, params: Params) -> np.ndarray:
        """The parameters as an unconstrained vector."""
        raise TypeError(f"{type(self).__name__} does not define to_vector, which this solver needs")

    def from_vector(self, vector: np.ndarray) -> Params:
        """Inverse of `to_vector`."""
        raise TypeError(f"{type(self).__name__} does not define from_vector, which this solver needs")

    def implied(self, params: Params, weight: float | None) -> Any:
        """Statistics, of weight one, whose M-step at so much weight is `params`; None: it cannot be said.

        Without a weight, those of rows like the data's that lead to about such parameters.
        """
        return None

    def vector_scale(self, params: Params) -> np.ndarray:
        """Square roots of the diagonal of the complete-data information, a unit of weight, along `to_vector`."""
        return np.ones_like(self.to_vector(params))

    def check_rows(self, chunk: Chunk) -> None:
        """Raise `RowError` for a value that cannot be fitted, such as a negative count. Missing values are none."""

    @property
    def summary(self) -> Callable[[Chunk], Any] | None:
        """What sums up a chunk without loss for this model, so that the data need be read only once; None: nothing.

        It answers what has `merge` and `close`, as a request's partial result; `close` answers None for what became too
        large, and otherwise what takes the place of a chunk in `e_step`.  Models fitted together share equal ones.
        """
        return None

    def check_data(self, n_rows: int, low: np.ndarray, high: np.ndarray) -> None:
        """Raise `DataError` for data that cannot be fitted, given its rows and each column's extremes."""

    def nbytes(self, n_features: int) -> int:
        """Bytes of one parameter set or of its statistics, roughly, to refuse in time what cannot fit."""
        return 0

    def about(self, center: np.ndarray) -> Model:
        """The same model, its sums taken about a centre (n_features,) so that large means cost no digits."""
        return self

    def within(self, low: np.ndarray, high: np.ndarray) -> Model:
        """The same model, given the columns' extremes (n_features,)."""
        return self

    def n_parameters(self, n_features: int) -> int:
        """Free parameters, for information criteria."""
        raise TypeError(f"{type(self).__name__} does not define n_parameters, which information criteria need")

    def hides_classes_only(self, missing: bool) -> bool:
        """Whether all that is hidden is a row's class, so that its entropy is ICL's; `missing`: if values are."""
        return True

    def in_units_of(self, variance: np.ndarray) -> Model:
        """The same model, given the columns' variances (n_features,), for one whose log-likelihood needs a scale."""
        return self

    def of_sequences(self, count: int, rows: int) -> Model:
        """The same model, told how many sequences there are in so many rows, for a sequential one."""
        return self

    def log_prior(self, params: Params) -> float:
        """Log prior density, up to a constant. Zero: maximum likelihood."""
        return 0.0

    def reported(self, params: Params, loglik: float) -> float:
        """What people are told of a log-likelihood that has the log prior in it: that of the data alone."""
        return loglik - self.log_prior(params)

    @property
    def accelerates(self) -> bool:
        """Whether it defines what accelerated solvers ask for: `expected_loglik`, `to_vector`, `from_vector`."""
        own = type(self)
        return all(getattr(own, n) is not getattr(Model, n) for n in ("expected_loglik", "to_vector", "from_vector"))

    @property
    def exact_m_step(self) -> bool:
        """Whether `m_step` is the exact maximum, so that the likelihood can never fall."""
        return True

    @property
    def discrete(self) -> bool:
        """Whether rows have probabilities, none above one, so that the likelihood has no spikes."""
        return False

    @property
    def bounded(self) -> bool:
        """Whether `m_step` may end at a bound of the parameters, where the expected log-likelihood has a slope."""
        return False

    def within_bounds(self, params: Params) -> Params:
        """The nearest parameters that `m_step` may lead to: given starts are taken there."""
        return params

    def row_loglik(self, params: Params, x: Any) -> np.ndarray | None:
        """(n,) log-likelihood of each of some rows, log prior aside; None: it is not known row by row."""
        return None

    def loglik_error(self, params: Params) -> float:
        """Nats a unit of weight by which rounding may move the log-likelihood at `params`, 1e-10 of it aside."""
        return 0.0

    def degeneracies(self, params: Params) -> list[str]:
        """Sentences about boundary solutions in `params`, such as a collapsed component."""
        return []

    def observed(self, params: Params, rows: Any) -> np.ndarray | None:
        """(K, d, d) of rows that tell of two columns, or of one; infinite: no parameter. None: nothing to say."""
        return None

    def remarks(self, params: Params) -> list[str]:
        """Sentences about limits that `params` are at and that are no fault."""
        return []


# ---------------------------------------------------------------- solvers

Status = Literal["running", "converged", "max_passes", "degenerate", "interrupted", "time_limit", "surpassed"]


@dataclass(frozen=True)
class State:
    """Where a solver's run stands, as plain data: a checkpoint is just the states. A solver may subclass it."""

    params: Params  # the point last accepted; its log-likelihood is `loglik` once a step has been there
    loglik: float = -np.inf  # at `params`, log prior included
    gain: float = np.inf  # predicted nats that are still to be gained
    n_steps: int = 0  # that were told to the solver
    status: Status = "running"
    note: str = ""  # why it ended, in a sentence
    accepted: bool = True  # whether the last step's point was taken
    step: str | None = None  # how a solver that looks at points of several kinds found the one that it took
    weight: float = np.nan  # of the rows learned from
    entropy: float = np.nan  # of the hidden variables given the rows, at `params`, in nats
    contraction: float | None = None  # by what factor the remaining gain last shrank, where that is known


class Resident(Protocol):
    """A random sample of the rows in the memory of the process that runs the fit: to ask it costs no pass."""

    @property
    def rows(self) -> int: ...

    @property
    def weight(self) -> float:
        """Sum of its rows' weights."""

    @property
    def chunk(self) -> Chunk:
        """The rows, weighted for what they stand for."""

    def e_step(self, model: Model, params: Sequence[Params]) -> list[Any]:
        """Finished `Statistics` of the sample at each of the parameter sets."""

    def first(self, rows: int) -> Resident:
        """The first so many rows, which are a random sample too; all of them, if there are no more."""


class Solver(Protocol):
    """How parameters move: ask where the next step should look, tell what it answered."""

    @property
    def name(self) -> str: ...

    def begin(self, model: Model, params: Params) -> State: ...

    def ask(self, state: Any) -> list[Params]:
        """The parameter sets that it wants the next step to answer."""

    def tell(self, model: Model, state: Any, answers: list[Any], resident: Resident | None = None) -> State:
        """The state after a step, given one finished `Statistics` for each set asked.

        A solver that works on a sample between passes finds it in `resident`.  One that has
        ``portions(model, state, rows, blocks, nbytes)`` says into how many parts the next pass is to be divided, and
        is told of each with ``portion=(number, of)``.
        """


# ---------------------------------------------------------------- passes


@dataclass(frozen=True)
class PassResult:
    """What one complete read of the data gave."""

    answers: list[Any]  # one closed answer for each request
    rows: int
    checksum: int  # of the bits of every value and weight, whatever the order: tells changed data
    seconds_read: float = 0.0  # summed over threads
    seconds_compute: float = 0.0
    seconds: float = 0.0  # wall clock


class Executor(Protocol):
    """Who reads the blocks. The threads executor is the specification."""

    def run(
        self, source: Source, requests: Sequence[Request], progress: Callable[[int, int], None] | None = None
    ) -> PassResult:
        """Read every block once; `progress(blocks, rows)` hears of what was done since it last did."""

    @property
    def partial_bytes(self) -> int | None:
        """Bytes that one partial result may safely take; None: no bound but this machine's memory."""

    def close(self) -> None:
        """Give back what was held for the sources seen."""
