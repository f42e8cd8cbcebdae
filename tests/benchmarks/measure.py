"""Tools of the benchmarks: medians of interleaved runs, and Markdown tables."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import dask_em as em
from dask_em.engine import EStep, one_pass
from dask_em.model import Executor, PassResult, Source


def medians(actions: Sequence[Callable[[], Any]], repeats: int = 7) -> list[float]:
    """Median seconds of each action; they take turns, so that a slow moment hits all of them."""
    seconds: list[list[float]] = [[] for _ in actions]
    for action in actions:
        action()  # warm: compiled, cached, paged in
    for _ in range(repeats):
        for own, action in zip(seconds, actions, strict=True):
            began = time.perf_counter()
            action()
            own.append(time.perf_counter() - began)
    return [statistics.median(own) for own in seconds]


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def mixture_data(n: int, d: int, k: int, seed: int = 0) -> np.ndarray:
    """(n, d) rows of k overlapping Gaussians."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(scale=2.0, size=(k, d))
    return centres[rng.integers(k, size=n)] + rng.normal(size=(n, d))


def em_request(x: np.ndarray, k: int, covariance_type: str = "full") -> EStep:
    """The request of one EM pass at ordinary parameters of k components."""
    gaussian = em.Gaussian(covariance_type).about(x.mean(axis=0))  # type: ignore[arg-type]
    model = em.MixtureModel(k, gaussian)
    params = model.start(em.Chunk(x[:20_000]), np.random.default_rng(0))
    return EStep(model, (params,))


def a_pass(source: Source, request: EStep, executor: Executor) -> PassResult:
    """One EM pass."""
    return one_pass(source, [request], executor)
