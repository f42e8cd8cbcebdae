"""What the compiled kernels compute, in NumPy: their specification, and the tests' yardstick.

Formulas as written: whitened differences, log-sum-exp, sums about the pivot or a mean.  Slow, and holds n x K.
"""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from dask_em.kernels.gaussian import Components, MixtureSums
from dask_em.kernels.kmeans import HardSums, kept


def log_density(x: np.ndarray, components: Components) -> np.ndarray:
    """(n, K) log N(x_i | μ_k, Σ_k), with Σ_k⁻¹ = U_k U_kᵀ."""
    n, d = x.shape
    out = np.empty((n, len(components.means)))
    for k, mean in enumerate(components.means):
        u = factor(components, k, d)
        y = (np.asarray(x, dtype=np.float64) - mean) @ u
        out[:, k] = np.log(np.diag(u)).sum() - 0.5 * (d * np.log(2 * np.pi) + (y**2).sum(axis=1))
    return out


def factor(components: Components, k: int, d: int) -> np.ndarray:
    """U_k as a (d, d) matrix, whatever the covariance type."""
    u = components.precisions_cholesky
    if components.covariance_type == "tied":
        return u
    own = u[k]
    return own if components.covariance_type == "full" else own * np.eye(d)


def mixture_sums(x: np.ndarray, weight: np.ndarray | None, pivot: np.ndarray, components: Components) -> MixtureSums:
    """Sums of one parameter set."""
    counted = np.ones(len(x), dtype=bool) if weight is None else weight > 0
    x = np.asarray(x[counted], dtype=np.float64)
    w = np.ones(len(x)) if weight is None else weight[counted]
    joint = log_density(x, components) + components.log_weights
    loglik = logsumexp(joint, axis=1)
    resp = np.exp(joint - loglik[:, None]) * w[:, None]  # (n, K)
    far = np.zeros(resp.shape[1], dtype=bool) if components.far is None else components.far
    z = x - np.where(far[:, None], components.means, pivot)[:, None, :]  # (K, n, d)
    first = np.einsum("ik,kij->kj", resp, z)
    each = np.stack([(own * r[:, None]).T @ own for own, r in zip(z, resp.T, strict=True)])  # (K, d, d)
    upper = np.triu_indices(x.shape[1])
    second = {
        "full": lambda: each[:, upper[0], upper[1]],
        "tied": lambda: each.sum(axis=0)[upper],
        "diag": lambda: np.einsum("kjj->kj", each),
        "spherical": lambda: np.einsum("kjj->k", each),
    }[components.covariance_type]()
    return MixtureSums(float(w @ loglik), resp.sum(axis=0), first, second)


def posteriors(x: np.ndarray, components: Components, want: str) -> np.ndarray:
    """What the mixture says of each row: "labels" (n,), "proba" (n, K), "loglik" (n,) or "log_density" (n, K)."""
    density = log_density(x, components)
    if want == "log_density":
        return density
    joint = density + components.log_weights
    if want == "labels":
        return joint.argmax(axis=1)
    loglik = logsumexp(joint, axis=1)
    return loglik if want == "loglik" else np.exp(joint - loglik[:, None])


# ---------------------------------------------------------------- k-means


def hard_sums(x: np.ndarray, weight: np.ndarray | None, pivot: np.ndarray, centers: np.ndarray, room: int) -> HardSums:
    """Sums of one set of centres."""
    counted = np.ones(len(x), dtype=bool) if weight is None else weight > 0
    x = np.asarray(x[counted], dtype=np.float64)
    w = np.ones(len(x)) if weight is None else weight[counted]
    squared = squared_distances(x, centers)
    own = np.zeros_like(squared)  # (n, K): the row's weight at its nearest centre, the first of equals
    own[np.arange(len(x)), squared.argmin(axis=1)] = w
    nearest = squared.min(axis=1)
    return HardSums(float(w @ nearest), 0.0, own.sum(axis=0), own.T @ (x - pivot), kept(room, nearest, x))


def squared_distances(x: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """(n, K) squared distances of each row from every centre, by differences."""
    return ((np.asarray(x, dtype=np.float64)[:, None] - centers) ** 2).sum(axis=2)
