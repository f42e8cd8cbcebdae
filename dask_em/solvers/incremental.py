"""Incremental EM: the M-step is taken several times within a pass, each time after a portion of the blocks.

The sums of every portion are kept, and replaced when it is read again, so that what the M-step is given is always of
all rows, most of it at parameters a little older (Neal and Hinton 1998; for topics, Hughes and Sudderth 2013).  What
has not been read yet is stood for by the sums that the start implies, so that the first steps are no bolder than what
they know.  The sums given are moved beyond where they lead,

    s ← s + ω (Σ_p s_p - s),    1 <= ω < 2,

which the steps of EM, always short, gain from (Salakhutdinov and Roweis 2003).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from dask_em import store
from dask_em.model import Model, Params, Resident, State, Statistics
from dask_em.solvers.ascent import mapped

_ROWS = 10  # a portion has for each component, at least
_MOST = 4  # portions: of more, each has less to say, and topics that begin with it stay as it left them
_AT_REST = "a further pass would not raise the bound"
_KEPT_BYTES = 1 << 31  # of all their sums together


@store.register
@dataclass(frozen=True)
class IncrementalState(State):
    """A run of incremental EM."""

    candidate: Params = None  # where the next step looks
    kept: tuple[Any, ...] = ()  # the last sums of each portion that was read
    hidden: tuple[float, ...] = ()  # nats of each, L - Q, at the parameters that its sums were taken at
    start: Any = None  # sums that stand for what was not read yet, of weight one
    given: Any = None  # sums that the last M-step was given
    careful: bool = False  # a pass lost something: sums are no longer moved beyond where they lead
    settled: bool = False  # the next pass only looks how good `params` are


@dataclass(frozen=True)
class Incremental:
    """Incremental EM, which ends where a pass gains little, with a last pass that says how good the parameters are.

    Parameters
    ----------
    share : float
        Of the log-likelihood, below which what a pass gained is not worth another.
    omega : float
        How far sums are moved, in units of the step of EM.
    """

    share: float = 1e-3
    omega: float = 1.6
    name: ClassVar[str] = "incremental"

    def portions(self, model: Any, state: IncrementalState, rows: int, blocks: int, nbytes: int) -> int:
        """Into how many parts the next pass is to be divided."""
        if state.settled:
            return 1
        enough = min(rows // (_ROWS * model.n_components), _KEPT_BYTES // max(nbytes, 1))
        return int(max(1, min(_MOST, enough, blocks // 2)))  # several workers are to have some of each

    def begin(self, model: Model, params: Params) -> IncrementalState:
        """A run that starts at `params`."""
        return IncrementalState(params=params, candidate=params)

    def ask(self, state: IncrementalState) -> list[Params]:
        """Where the last M-step led."""
        return [state.candidate]

    def tell(
        self,
        model: Model,
        state: IncrementalState,
        answers: list[Any],
        resident: Resident | None = None,
        portion: tuple[int, int] = (0, 1),
    ) -> IncrementalState:
        """The state after a portion, the first of two numbers, of the second."""
        stats: Statistics = answers[0]
        if not math.isfinite(stats.total_loglik):
            return replace(state, status="degenerate", note="the log-likelihood is not finite at the next parameters")
        if state.settled:
            return _looked_at(model, state, stats)
        number, of = portion
        if not state.kept and of > 1:
            state = replace(state, start=model.implied(state.candidate, None))
        hidden = stats.total_loglik - model.expected_loglik(state.candidate, stats)
        state = replace(
            state,
            kept=(*state.kept[:number], stats, *state.kept[number + 1 :]),
            hidden=(*state.hidden[:number], hidden, *state.hidden[number + 1 :]),
        )
        whole = _whole(state, of)
        given = whole
        if state.given is not None or state.start is not None:
            before = state.start * whole.weight if state.given is None else state.given
            given = before + (whole - before) * (1.0 if state.careful else self.omega)
        candidate, why = mapped(model, given)
        if candidate is None:
            given = whole
            candidate, why = mapped(model, whole)
        if candidate is None:
            return replace(state, status="degenerate", note=why)
        state = replace(state, candidate=candidate, given=given)
        return state if number + 1 < of else self._passed(model, state, whole)

    def _passed(self, model: Model, state: IncrementalState, whole: Statistics) -> IncrementalState:
        """A pass is over: how good the parameters of its own sums are at least, and whether that is enough."""
        plain, why = mapped(model, whole)
        if plain is None:
            return replace(state, status="degenerate", note=why)
        loglik = model.expected_loglik(plain, whole) + sum(state.hidden) + model.log_prior(plain)
        gained = loglik - state.loglik
        lost = gained < 0
        state = replace(
            state,
            params=plain,
            loglik=loglik,
            weight=whole.weight,
            gain=math.inf if lost else gained,
            n_steps=state.n_steps + 1,
            settled=bool(gained < self.share * abs(loglik)) and (state.careful or not lost),
            careful=state.careful or lost,
        )
        return replace(state, candidate=plain, given=whole) if lost or state.settled else state


def _whole(state: IncrementalState, of: int) -> Any:
    """The sums of all rows, as far as they are known."""
    whole = state.kept[0]
    for stats in state.kept[1:]:
        whole = whole + stats
    unread = of - len(state.kept)
    if not unread or state.start is None:
        return whole
    return whole + state.start * (whole.weight * unread / len(state.kept))


def _looked_at(model: Model, state: IncrementalState, stats: Statistics) -> IncrementalState:
    """The end: the log-likelihood at the last parameters, and what a pass gained when there was still one."""
    loglik = stats.total_loglik + model.log_prior(state.candidate)
    return replace(
        state,
        loglik=loglik,
        weight=stats.weight,
        n_steps=state.n_steps + 1,
        status="converged",
        note=f"the last pass gained {model.measure.gain(state.gain, of=loglik)}" if state.gain < math.inf else _AT_REST,
        gain=0.0 if state.gain == math.inf else state.gain,
        kept=(),
        start=None,
        given=None,
    )
