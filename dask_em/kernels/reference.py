"""What the compiled Gaussian kernels compute, in NumPy: their specification, and the tests' yardstick.

Formulas as written: whitened differences, log-sum-exp, sums about the pivot.  Slow, and holds n x K.
"""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from dask_em.kernels.gaussian import Components, MixtureSums


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
    z = x - pivot
    upper = np.triu_indices(x.shape[1])
    full = np.stack([((z * r[:, None]).T @ z)[upper] for r in resp.T])
    second = {
        "full": lambda: full,
        "tied": lambda: ((z * w[:, None]).T @ z)[upper],
        "diag": lambda: resp.T @ z**2,
        "spherical": lambda: resp.T @ (z**2).sum(axis=1),
    }[components.covariance_type]()
    return MixtureSums(float(w @ loglik), resp.sum(axis=0), resp.T @ z, second)


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
