"""What the compiled kernels compute, in NumPy: their specification, and the tests' yardstick.

Formulas as written: whitened differences, log-sum-exp, sums about the pivot or a mean.  Slow, and holds n x K.
"""

from __future__ import annotations

import numpy as np
from scipy.special import digamma, gammaln, logsumexp

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


# ---------------------------------------------------------------- topics


def document_shares(counts: np.ndarray, words: np.ndarray, alpha: np.ndarray, rounds: int = 10_000) -> np.ndarray:
    """(n, K) Dirichlet parameters γ of documents' shares, where rounds from equal shares lead.

    counts: (n, V); words: (V, K), E log β of each word in each topic.
    """
    gamma = alpha + counts.sum(axis=1, keepdims=True) / len(alpha)
    b = np.exp(words)
    for _ in range(rounds):
        e = np.exp(digamma(gamma))
        p = e @ b.T
        gamma = alpha + e * (np.divide(counts, p, out=np.zeros_like(p), where=counts > 0) @ b)
    return gamma


def document_bounds(counts: np.ndarray, words: np.ndarray, alpha: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """(n,) bounds: Σ c log Σ_k exp(E log θ_k + E log β_k) + E log p(θ | α) - E log q(θ | γ)."""
    log_shares = digamma(gamma) - digamma(gamma.sum(axis=1, keepdims=True))
    said = logsumexp(log_shares[:, None, :] + words, axis=2)
    prior = gammaln(alpha.sum()) - gammaln(alpha).sum() + log_shares @ (alpha - 1)
    own = gammaln(gamma.sum(axis=1)) - gammaln(gamma).sum(axis=1) + ((gamma - 1) * log_shares).sum(axis=1)
    return (counts * said).sum(axis=1) + prior - own


def words_of_topics(counts: np.ndarray, words: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """(V, K) words that are expected of each topic, Σ_d c_w φ_wk."""
    log_shares = digamma(gamma) - digamma(gamma.sum(axis=1, keepdims=True))
    phi = np.exp(log_shares[:, None, :] + words)  # (n, V, K)
    phi /= phi.sum(axis=2, keepdims=True)
    return np.einsum("nv,nvk->vk", counts, phi)
