"""Proofs that a model meets the contract, for the models here and for users' own.

None of them needs a reference implementation: additivity, Fisher's identity and the ascent
property hold for every correct E-step and M-step, and fail for nearly every wrong one.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.sparse import issparse, vstack

from dask_em import store
from dask_em.distributions.base import Distribution
from dask_em.errors import DegenerateError, StoreError
from dask_em.model import Chunk, Model, Params, Statistics
from dask_em.sums import Sums

__all__ = ["check_model"]

_EXACT = 1e-9  # relative: two ways to add the same numbers
_SLOPE = 2e-5  # relative: finite differences


def check_model(
    model: Model, chunks: Sequence[Chunk], *, params: Params = None, seed: int = 0, em_steps: int = 20
) -> list[str]:
    """Prove that a model's E-step and M-step are what EM needs.

    Proved are: the E-step is additive under any split of the rows; an empty chunk and rows of
    weight zero change nothing; weight 2 equals the row twice; inputs are not written to;
    the rows' own log-likelihoods, where a model tells them, add up to the E-step's;
    permuting components permutes the answer (models with a method `permuted(params, order)`, unless they say that
    they are not `interchangeable`);
    parameters survive saving, and the way to a vector and back; and, for models whose M-step is
    exact, that `m_step` is a maximum of `expected_loglik` plus `log_prior`, that the gradient of
    the log-likelihood equals that of `expected_loglik` (Fisher's identity), and that the
    likelihood never falls under plain EM.

    Parameters
    ----------
    model : Model
        What it does not define (`expected_loglik`, `to_vector`, `from_vector`, `row_loglik`) leaves proofs out; the
        answer says which.
    chunks : sequence of Chunk
        Some hundred rows are enough; several chunks, of odd sizes, prove more.
    params : optional
        Where to look; default: two EM steps from `model.start`.
    seed : int
    em_steps : int
        Steps of plain EM under which the likelihood is watched.

    Returns
    -------
    list of str
        What was proved, and, each with a sentence that begins with "not proved", what could not be.

    Raises
    ------
    AssertionError
        Names the proof that failed, and by how much.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em.distributions.gaussian import Gaussian
    >>> from dask_em.model import Chunk
    >>> from dask_em.models.mixture import MixtureModel
    >>> x = np.random.default_rng(0).normal(size=(90, 2))
    >>> proved = check_model(MixtureModel(2, Gaussian(reg_covar=0)), [Chunk(x[:40]), Chunk(x[40:])])
    >>> len(proved)
    12
    """
    rng = np.random.default_rng(seed)
    whole = _joined(chunks)
    if model.sequential and whole.sequence is None:
        whole = replace(whole, sequence=np.zeros(whole.n_rows, dtype=np.int64))
    if params is None:
        params = model.start(whole, rng)
        for _ in range(2):
            params = model.m_step(_e_step(model, params, chunks))
    said = []
    for name, needs, prove in _proofs(model, params, whole, rng, em_steps):
        lacks = [method for method in needs if not _defines(model, method)]
        if lacks:
            said.append(f"not proved, since {type(model).__name__} does not define {' and '.join(lacks)}: {name}")
            continue
        try:
            prove()
        except StoreError as error:
            name = f"not proved, since {error}: {name}"
        said.append(name)
    return said


def _proofs(
    model: Model, params: Params, whole: Chunk, rng: np.random.Generator, em_steps: int
) -> list[tuple[str, tuple[str, ...], Callable[[], None]]]:
    """What is proved, the optional methods that takes, and the proof; what others would be misled by comes first."""
    vector = ("to_vector", "from_vector")
    proofs: list[tuple[str, tuple[str, ...], Callable[[], None]]] = [
        ("the E-step writes to none of its inputs", (), lambda: _read_only(model, params, whole)),
        ("the E-step is additive under any split of the rows", (), lambda: _additive(model, params, whole, rng)),
        ("an empty chunk changes nothing", (), lambda: _empty(model, params, whole)),
        ("rows of weight zero change nothing", (), lambda: _weight_zero(model, params, whole, rng)),
        ("weight 2 equals the row twice", (), lambda: _weight_two(model, params, whole)),
        ("the rows' own log-likelihoods add up", ("row_loglik",), lambda: _by_row(model, params, whole)),
        ("parameters survive the way to a vector and back", vector, lambda: _vector(model, params, whole)),
        ("parameters survive saving and loading", (), lambda: _stored(params)),
    ]
    if hasattr(model, "permuted") and getattr(model, "interchangeable", True):
        permuted = ("permuting components permutes the answer", (), lambda: _permuted(model, params, whole, rng))
        proofs.append(permuted)
    if model.exact_m_step:
        both = ("expected_loglik", *vector)
        proofs += [
            ("m_step maximises expected_loglik", both, lambda: _maximum(model, params, whole, rng)),
            ("Fisher's identity holds", both, lambda: _fisher(model, params, whole)),
            ("the likelihood never falls under plain EM", (), lambda: _ascent(model, params, whole, em_steps)),
        ]
    return proofs


def _defines(model: Any, method: str) -> bool:
    """Whether a model, and the distribution that it may be made of, define an optional method themselves."""
    base = {Model: model, Distribution: getattr(model, "distribution", None)}
    return all(
        getattr(type(part), method) is not getattr(kind, method)
        for kind, part in base.items()
        if isinstance(part, kind) and hasattr(kind, method)
    )


# ---------------------------------------------------------------- the proofs


def _additive(model: Model, params: Params, whole: Chunk, rng: np.random.Generator) -> None:
    at_once = _e_step(model, params, [whole])
    n = whole.n_rows
    for cuts in (
        [1],
        [n // 2],
        sorted(rng.choice(np.arange(1, n), size=min(7, n - 1), replace=False)),
        range(1, min(n, 30)),
    ):
        edges = [0, *(int(c) for c in cuts), n]
        parts = [_rows(whole, slice(a, b)) for a, b in pairwise(edges)]
        _same_sums(at_once, _e_step(model, params, parts), f"split at {edges[1:-1]}, the E-step gave other sums")


def _empty(model: Model, params: Params, whole: Chunk) -> None:
    # the engine never hands over an empty chunk, so only what a slice of one row can show is asked
    nothing = _rows(whole, slice(0, 0))
    try:
        stats = model.e_step([params], nothing)[0]
    except Exception as error:
        raise AssertionError(f"the E-step of a chunk without rows raised {error!r}") from error
    left = model.e_step([params], whole)[0]
    _same_sums(left.merge(stats).close(), left.close(), "an empty chunk changed the sums")


def _weight_zero(model: Model, params: Params, whole: Chunk, rng: np.random.Generator) -> None:
    w = _weights(whole)
    if whole.sequence is None:
        extra = rng.permutation(whole.n_rows)[: max(1, whole.n_rows // 3)]
    else:
        extra = np.flatnonzero(np.isin(whole.sequence, np.unique(whole.sequence)[::3]))
    more = _followed(whole, extra, np.concatenate([w, np.zeros(len(extra))]))
    _same_sums(_e_step(model, params, [more]), _e_step(model, params, [whole]), "rows of weight zero changed the sums")


def _weight_two(model: Model, params: Params, whole: Chunk) -> None:
    w = _weights(whole)
    doubled = replace(whole, weight=2 * w)
    twice = _followed(whole, np.arange(whole.n_rows), np.concatenate([w, w]))
    _same_sums(
        _e_step(model, params, [doubled]), _e_step(model, params, [twice]), "weight 2 is not the same as the row twice"
    )


def _by_row(model: Model, params: Params, whole: Chunk) -> None:
    each, w = model.row_loglik(params, whole.x), _weights(whole)
    assert each is not None, "row_loglik answered None"
    assert each.shape == (whole.n_rows,), f"row_loglik answered shape {each.shape} for {whole.n_rows} rows"
    total, loglik = float(each @ w), _e_step(model, params, [whole]).total_loglik
    most = _EXACT * float(np.abs(each) @ w) + float(w.sum()) * model.loglik_error(params)
    assert abs(total - loglik) <= most, (
        f"the rows' log-likelihoods add up to {total:.10g}, the E-step's is {loglik:.10g}"
    )


def _read_only(model: Model, params: Params, whole: Chunk) -> None:
    frozen = Chunk(whole.x.copy(), _weights(whole).copy(), whole.sequence, whole.block)
    before = [a.copy() for a in _arrays(params)]
    for buffer in _buffers(frozen.x):
        buffer.flags.writeable = False
    assert frozen.weight is not None
    frozen.weight.flags.writeable = False
    try:
        model.e_step([params], frozen)
    except ValueError as error:
        raise AssertionError(f"the E-step writes to its rows or weights: {error}") from error
    for old, new in zip(before, _arrays(params), strict=True):
        assert np.array_equal(old, new, equal_nan=True), "the E-step changed the parameters it was given"


def _vector(model: Model, params: Params, whole: Chunk) -> None:
    back = model.from_vector(model.to_vector(params))
    _same_sums(
        _e_step(model, params, [whole]),
        _e_step(model, back, [whole]),
        "from_vector(to_vector(params)) is another parameter set",
        tolerance=1e-7,
    )


def _stored(params: Params) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "params.safetensors")
        store.save(params, path, kind="model")
        back = store.load(path, kind="model")
    assert type(back) is type(params), f"a saved {type(params).__name__} came back as {type(back).__name__}"
    for old, new in zip(_arrays(params), _arrays(back), strict=True):
        assert np.array_equal(old, new, equal_nan=True), "an array was not the same after saving and loading"


def _permuted(model: Any, params: Params, whole: Chunk, rng: np.random.Generator) -> None:
    order = rng.permutation(model.n_components)
    straight = model.permuted(model.m_step(_e_step(model, params, [whole])), order)
    turned = model.m_step(_e_step(model, model.permuted(params, order), [whole]))
    for a, b in zip(_arrays(straight), _arrays(turned), strict=True):
        assert np.allclose(a, b, rtol=1e-6, atol=1e-8), "permuting the components changed more than their order"


def _maximum(model: Model, params: Params, whole: Chunk, rng: np.random.Generator) -> None:
    stats = _e_step(model, params, [whole])

    def objective(v: np.ndarray) -> float:
        new = model.from_vector(v)
        return model.expected_loglik(new, stats) + model.log_prior(new)

    v = model.to_vector(model.m_step(stats))
    slope = _rises(objective, v) if model.bounded else _gradient(objective, v)
    size = np.abs(slope).max()
    assert size <= _SLOPE * (stats.weight + 1), (
        f"m_step is not a stationary point of expected_loglik: a slope of {size:.3g} is left there"
    )
    top = objective(v)
    for _ in range(10):
        near = objective(v + 1e-2 * rng.standard_normal(len(v)))
        assert near <= top + 1e-9 * (abs(top) + 1), f"m_step is not a maximum: {near - top:.3g} higher close by"


def _fisher(model: Model, params: Params, whole: Chunk) -> None:
    stats = _e_step(model, params, [whole])
    v = model.to_vector(params)
    observed = _gradient(lambda u: _e_step(model, model.from_vector(u), [whole]).total_loglik, v)
    expected = _gradient(lambda u: model.expected_loglik(model.from_vector(u), stats), v)
    apart = np.abs(observed - expected)
    worst = int(apart.argmax())
    assert apart[worst] <= _SLOPE * (stats.weight + np.abs(observed).max()), (
        f"Fisher's identity fails: along parameter {worst} of the vector the log-likelihood has slope "
        f"{observed[worst]:.6g} and expected_loglik {expected[worst]:.6g}"
    )


def _ascent(model: Model, params: Params, whole: Chunk, em_steps: int) -> None:
    last = -np.inf
    for step in range(em_steps):
        stats = _e_step(model, params, [whole])
        now = stats.total_loglik + model.log_prior(params)
        assert now >= last - 1e-9 * (abs(now) + 1), f"the likelihood fell by {last - now:.3g} nats in EM step {step}"
        last = now
        try:
            params = model.m_step(stats)
        except DegenerateError:
            return  # the likelihood has no maximum from this start, which is no fault of the model


# ---------------------------------------------------------------- tools


def _e_step(model: Model, params: Params, chunks: Sequence[Chunk]) -> Statistics:
    partials = [model.e_step([params], chunk)[0] for chunk in chunks if chunk.n_rows]
    total = partials[0]
    for right in partials[1:]:
        total = total.merge(right)
    closed: Statistics = total.close()
    return closed


def _joined(chunks: Sequence[Chunk]) -> Chunk:
    w = None if all(c.weight is None for c in chunks) else np.concatenate([_weights(c) for c in chunks])
    sequences = [c.sequence for c in chunks if c.sequence is not None]
    return Chunk(_stacked([c.x for c in chunks]), w, np.concatenate(sequences) if sequences else None)


def _followed(chunk: Chunk, again: np.ndarray, weight: np.ndarray) -> Chunk:
    """The rows, and some of them again, as sequences of their own."""
    ids = chunk.sequence
    if ids is not None:
        ids = np.unique(ids, return_inverse=True)[1]
        ids = np.concatenate([ids, ids[again] + ids.max() + 1])
    return Chunk(_stacked([chunk.x, chunk.x[again]]), weight, ids)


def _stacked(parts: Sequence[Any]) -> Any:
    """One array of the rows of several, dense or sparse."""
    if all(isinstance(x, np.ndarray) for x in parts):
        return np.concatenate(parts)
    if any(issparse(x) for x in parts):
        return vstack(parts, format="csr")
    return np.concatenate([np.asarray(x) for x in parts])


def _buffers(x: Any) -> list[np.ndarray]:
    return [x.data, x.indices, x.indptr] if issparse(x) else [x]


def _rows(chunk: Chunk, rows: slice) -> Chunk:
    return replace(
        chunk,
        x=chunk.x[rows],
        weight=None if chunk.weight is None else chunk.weight[rows],
        sequence=None if chunk.sequence is None else chunk.sequence[rows],
    )


def _weights(chunk: Chunk) -> np.ndarray:
    return np.ones(chunk.n_rows) if chunk.weight is None else np.asarray(chunk.weight, dtype=np.float64)


def _gradient(f: Callable[[np.ndarray], float], v: np.ndarray) -> np.ndarray:
    """Central differences of fourth order."""
    slope = np.empty(len(v))
    for i in range(len(v)):
        h = 1e-4 * max(1.0, abs(v[i]))
        step = np.zeros(len(v))
        step[i] = h
        slope[i] = (8 * (f(v + step) - f(v - step)) - (f(v + 2 * step) - f(v - 2 * step))) / (12 * h)
    return slope


def _rises(f: Callable[[np.ndarray], float], v: np.ndarray) -> np.ndarray:
    """How fast it rises to either side: not at all at a maximum, at a bound as well."""
    rise = np.empty(len(v))
    for i in range(len(v)):
        h = 1e-4 * max(1.0, abs(v[i]))
        step = np.zeros(len(v))
        step[i] = h
        rise[i] = max(f(v + step), f(v - step), f(v)) - f(v)
        rise[i] /= h
    return rise


def _arrays(tree: Any) -> list[np.ndarray]:
    """Every number in nested dataclasses, tuples and dicts, as arrays in a fixed order."""
    if is_dataclass(tree) and not isinstance(tree, type):
        return [a for f in fields(tree) for a in _arrays(getattr(tree, f.name))]
    if isinstance(tree, dict):
        return [a for value in tree.values() for a in _arrays(value)]
    if isinstance(tree, (list, tuple)):
        return [a for value in tree for a in _arrays(value)]
    if isinstance(tree, (np.ndarray, np.number, float, int)):
        return [np.asarray(tree)]
    return []


def _same_sums(a: Sums, b: Sums, message: str, tolerance: float = _EXACT) -> None:
    for x, y in zip(_arrays(a), _arrays(b), strict=True):
        scale = max(float(np.abs(x).max(initial=0.0)), 1.0)
        apart = float(np.abs(x - y).max(initial=0.0))
        assert apart <= tolerance * scale, f"{message}: they differ by {apart:.3g}, where {scale:.3g} is the largest"
