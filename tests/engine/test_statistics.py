"""Sums are a vector space, and the log-likelihood is summed without losing its small parts."""

from dataclasses import dataclass

import numpy as np

from dask_em.sums import Statistics, Sums


@dataclass(frozen=True)
class Inner(Sums):
    a: np.ndarray


@dataclass(frozen=True)
class Outer(Statistics):
    total: np.ndarray
    inner: Inner
    several: tuple[Inner, ...]
    nothing: None = None


def make(value: float) -> Outer:
    return Outer(value, value, np.full(2, value), Inner(np.full(3, value)), (Inner(np.ones(1) * value),))


def test_sums_form_a_vector_space() -> None:
    x = make(3.0) - 2.0 * make(1.0) + make(4.0) * 0.5
    assert x.weight == 3.0
    assert x.total_loglik == 3.0
    assert x.inner.a.tolist() == [3.0] * 3
    assert x.several[0].a.tolist() == [3.0]
    assert x.nothing is None


def test_the_log_likelihood_keeps_what_plain_addition_drops() -> None:
    parts = [Statistics(1.0, 1e16)] + [Statistics(1.0, 1.0)] * 1000 + [Statistics(1.0, -1e16)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    assert sum(p.loglik for p in parts) != 1000.0
    assert total.total_loglik == 1000.0


def test_an_infinite_log_likelihood_stays_infinite() -> None:
    total = Statistics(1.0, -np.inf) + Statistics(1.0, 1.0)
    assert total.total_loglik == -np.inf
