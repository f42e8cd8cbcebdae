"""A likelihood that a sample in memory can stand for: corrected by what one full pass found, and damped.

After a pass at θ gave the statistics S of all rows, with c = W / W_R the ratio of the weights of the data and of
the sample R, what the sample gets wrong there is  Δ = S - c S_R(θ).  The surrogate of the log-likelihood is

    J(t) = c L_R(t) + Q(t; Δ),          damped:  J_μ(t) = (1 - μ) J(t) + μ Q(t; S)

where Q is the expected complete-data log-likelihood, linear in statistics.  As the gradient of L_R at t is that of
Q(·; S_R(t)) (Fisher's identity), J and J_μ have the gradient of the full log-likelihood at θ, whatever the sample.
EM for J_μ is  t <- M((1 - μ)(c S_R(t) + Δ) + μ S): any solver that sees statistics alone can run it.  At μ = 1
its maximum is the step of plain EM; between, μ bounds how far flat directions are followed, in EM's own metric.
(Kin: Jordan, Lee and Yang 2019; Chen, Zhu, Teh and Zhang 2018.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dask_em.errors import LikelihoodFellError
from dask_em.model import Model, Params, Resident, Statistics
from dask_em.solvers.anderson import Anderson

_ENOUGH = 0.02  # share of what a solve gained, below which what it leaves is not worth another step
_TOO_GOOD = 10.0  # times the gain expected: what promises more has left the region where the sample is to be believed


@dataclass(frozen=True)
class Surrogate:
    """J at some θ.

    Attributes
    ----------
    scale : float
        c.
    correction : Statistics
        Δ.
    origin, there : Params, Statistics
        θ, and S.
    value : float
        J(θ), log prior included.
    """

    model: Model
    resident: Resident
    scale: float
    correction: Statistics
    origin: Params
    there: Statistics
    value: float

    @classmethod
    def at(cls, model: Model, params: Params, stats: Statistics, resident: Resident) -> Surrogate:
        """The surrogate about a point, given the statistics of all rows there."""
        own = resident.e_step(model, [params])[0]
        scale = stats.weight / own.weight
        new = cls(model, resident, scale, stats - own * scale, params, stats, 0.0)
        return replace(new, value=new._loglik(params, own) + model.log_prior(params))

    def _loglik(self, params: Params, own: Statistics) -> float:
        return self.scale * own.total_loglik + self.model.expected_loglik(params, self.correction)

    def _e_step(self, params: Sequence[Params], damping: float) -> list[tuple[Statistics, float]]:
        """At each point what EM for J_μ sees, its value for log-likelihood; and J, log prior included."""
        found = []
        for p, own in zip(params, self.resident.e_step(self.model, params), strict=True):
            stats, j = own * self.scale + self.correction, self._loglik(p, own)
            damped = j
            if damping > 0:
                stats = stats * (1 - damping) + self.there * damping
                damped = (1 - damping) * j + damping * self.model.expected_loglik(p, self.there)
            found.append((replace(stats, loglik=damped, loglik_low=0.0), j + self.model.log_prior(p)))
        return found

    def gain(self, params: Params) -> float:
        """By how many nats J is higher at a point than at θ."""
        own = self.resident.e_step(self.model, [params])[0]
        return max(0.0, self._loglik(params, own) + self.model.log_prior(params) - self.value)

    def maximised(self, damping: float, *, tol: float, steps: int, expected: float) -> tuple[Params, float]:
        """A better point of J_μ, and by how many nats J is higher there than at θ.

        Parameters
        ----------
        damping : float
            μ.
        tol : float
            Nats that may be left.
        steps : int
            At most; each asks the sample once.
        expected : float
            Nats that can be believed to be had; the way ends before ten times as many.
        """
        solver = Anderson(tol=tol)
        state = solver.begin(self.model, self.origin)
        best, gain, began = self.origin, 0.0, -float("inf")
        for step in range(steps):
            ((stats, j),) = self._e_step(solver.ask(state), damping)
            if j - self.value > _TOO_GOOD * expected:
                break
            try:
                state = solver.tell(self.model, state, [stats])
            except LikelihoodFellError:  # corrected sums may have negative counts, which no M-step can maximise over
                break
            began = state.loglik if step == 0 else began
            if state.accepted:
                best, gain = state.params, j - self.value
            if state.status != "running" or state.gain < _ENOUGH * (state.loglik - began):
                break
        return best, max(0.0, gain)
