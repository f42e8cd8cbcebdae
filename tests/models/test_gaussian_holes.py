"""Gaussian mixtures of rows with holes: against conditional moments row by row, and what must not change."""

from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import stats
from scipy.special import logsumexp

import dask_em as em
from dask_em.distributions.gaussian import GaussianParams
from dask_em.distributions.gaussian_factors import precisions_cholesky
from dask_em.models.mixture import MixtureParams
from dask_em.testing import check_model

KINDS = ["full", "tied", "diag", "spherical"]


def params(kind: str, k: int, d: int, seed: int = 0, scale: float = 1.0, far: float = 0.0) -> MixtureParams:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(k, d, d)) / d**0.5 + np.eye(d)
    full = scale * root @ np.swapaxes(root, 1, 2)
    c = {"full": full, "tied": full[0], "diag": full[:, range(d), range(d)], "spherical": full[:, 0, 0]}[kind]
    means = far + 2 * rng.normal(size=(k, d))
    return MixtureParams(rng.dirichlet(np.ones(k)), GaussianParams(means, c, precisions_cholesky(c, kind)))


def matrices(p: MixtureParams, kind: str) -> np.ndarray:
    k, d = p.components.means.shape
    c = p.components.covariances
    if kind == "spherical":
        return c[:, None, None] * np.eye(d)
    return np.array([np.diag(v) for v in c]) if kind == "diag" else np.broadcast_to(c, (k, d, d))


def row_by_row(p: MixtureParams, kind: str, x: np.ndarray, w: np.ndarray) -> tuple[Any, ...]:
    """Log-likelihood, counts, and sums of E[x - μ] and E[(x - μ)(x - μ)ᵀ], as the textbook has them."""
    k, d = p.components.means.shape
    loglik, counts, first, second = 0.0, np.zeros(k), np.zeros((k, d)), np.zeros((k, d, d))
    for row, weight in zip(x.astype(np.float64), w, strict=True):
        o = np.flatnonzero(~np.isnan(row))
        m = np.flatnonzero(np.isnan(row))
        joint, moments = np.log(p.weights), []
        for j, (mean, c) in enumerate(zip(p.components.means, matrices(p, kind), strict=True)):
            y, left = np.zeros(d), np.zeros((d, d))
            if len(o):
                joint[j] += stats.multivariate_normal(mean[o], c[np.ix_(o, o)], allow_singular=True).logpdf(row[o])
                y[o] = row[o] - mean[o]
                slope = c[np.ix_(m, o)] @ np.linalg.inv(c[np.ix_(o, o)])
                y[m] = slope @ y[o]
                left[np.ix_(m, m)] = c[np.ix_(m, m)] - slope @ c[np.ix_(o, m)]
            else:
                left = c
            moments.append((y, np.outer(y, y) + left))
        r = weight * np.exp(joint - logsumexp(joint))
        loglik += weight * logsumexp(joint)
        counts += r
        first += r[:, None] * np.array([y for y, _ in moments])
        second += r[:, None, None] * np.array([s for _, s in moments])
    return loglik, counts, first, second


def expected(kind: str, found: tuple[Any, ...]) -> np.ndarray:
    second = found[3]
    d = second.shape[1]
    upper = np.triu_indices(d)
    if kind == "full":
        return second[:, upper[0], upper[1]]
    if kind == "tied":
        return second.sum(axis=0)[upper]
    squares = second[:, range(d), range(d)]
    return squares if kind == "diag" else squares.sum(axis=1)


def holed(n: int, d: int, share: float, seed: int = 0, scale: float = 1.0, far: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = far + scale * 2 * rng.normal(size=(n, d))
    x[rng.random(x.shape) < share] = np.nan
    x[n // 2] = np.nan
    return x


CASES = {
    "random": {},
    "one column": {"d": 1},
    "two columns": {"d": 2},
    "nine columns, many patterns": {"d": 9, "share": 0.5},
    "one row": {"n": 1},
    "float32": {"dtype": np.float32},
    "far from the origin": {"far": 1e6},
    "narrow": {"scale": 1e-6},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("weighted", [False, True])
def test_sums_are_those_of_the_textbook(kind: str, name: str, weighted: bool) -> None:
    case = {"n": 120, "d": 4, "share": 0.3, "scale": 1.0, "far": 0.0, "dtype": np.float64, **CASES[name]}
    p = params(kind, 3, case["d"], scale=case["scale"] ** 2, far=case["far"])
    x = holed(case["n"], case["d"], case["share"], scale=case["scale"], far=case["far"]).astype(case["dtype"])
    w = np.random.default_rng(1).integers(0, 3, len(x)).astype(float) if weighted and len(x) > 1 else None
    model = em.MixtureModel(3, em.Gaussian(kind, reg_covar=0)).about(np.full(case["d"], case["far"]))  # type: ignore[arg-type]
    found = model.e_step([p, p], em.Chunk(x, w))
    textbook = row_by_row(p, kind, x, np.ones(len(x)) if w is None else w)
    about = found[0].components.about(p.components.means)
    assert found[0].loglik == pytest.approx(textbook[0], rel=1e-9)
    assert found[0].counts == pytest.approx(textbook[1], rel=1e-8, abs=1e-10)
    spread = case["scale"] * len(x)
    assert about.first == pytest.approx(textbook[2], rel=1e-7, abs=1e-8 * spread)
    assert about.second == pytest.approx(expected(kind, textbook), rel=1e-6, abs=1e-7 * spread * case["scale"])
    assert np.array_equal(found[0].components.second, found[1].components.second)


@pytest.mark.parametrize("kind", KINDS)
def test_components_far_from_the_pivot_keep_their_digits(kind: str) -> None:
    p = params(kind, 2, 3, scale=1e-8)
    rng = np.random.default_rng(0)
    x = p.components.means[rng.integers(2, size=200)] + 1e-4 * rng.normal(size=(200, 3))
    x[rng.random(x.shape) < 0.3] = np.nan
    model = em.MixtureModel(2, em.Gaussian(kind, reg_covar=0)).about(np.full(3, 5.0))  # type: ignore[arg-type]
    found = model.e_step([p], em.Chunk(x))[0].components.about(p.components.means)
    textbook = row_by_row(p, kind, x, np.ones(len(x)))
    assert found.second == pytest.approx(expected(kind, textbook), rel=1e-6, abs=1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_generic_proofs_hold(kind: str, weighted: bool, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [rng.normal(c, 1 + c / 3, (60, 3)) @ (np.eye(3) + 0.4 * rng.normal(size=(3, 3))) for c in (0, 4)]
    )
    x[rng.random(x.shape) < 0.3] = np.nan
    x[5] = np.nan
    x = x.astype(dtype)
    w = rng.random(len(x)) if weighted else None
    model = em.MixtureModel(2, em.Gaussian(kind, reg_covar=0)).about(np.nanmean(x, axis=0))  # type: ignore[arg-type]
    chunks = [em.Chunk(x[rows], None if w is None else w[rows]) for rows in (slice(50), slice(50, None))]
    proved = check_model(model, chunks)
    assert len(proved) == 12
    assert not [line for line in proved if line.startswith("not proved")]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_said_of_rows(kind: str) -> None:
    p = params(kind, 3, 4)
    x = holed(300, 4, 0.3)
    model = em.MixtureModel(3, em.Gaussian(kind))  # type: ignore[arg-type]
    joint = np.tile(np.log(p.weights), (300, 1))
    for j, (mean, c) in enumerate(zip(p.components.means, matrices(p, kind), strict=True)):
        for i, row in enumerate(x):
            o = np.flatnonzero(~np.isnan(row))
            if len(o):
                joint[i, j] += stats.multivariate_normal(mean[o], c[np.ix_(o, o)]).logpdf(row[o])
    loglik = logsumexp(joint, axis=1)
    assert model.posteriors(p, x, "loglik") == pytest.approx(loglik, rel=1e-10)
    assert model.posteriors(p, x, "proba") == pytest.approx(np.exp(joint - loglik[:, None]), abs=1e-10)
    assert np.array_equal(model.posteriors(p, x, "labels"), joint.argmax(axis=1))
    whole = np.where(np.isnan(x), 0.0, x)
    assert model.distribution.log_density(p.components, whole) == pytest.approx(
        model.distribution.log_density(p.components, np.vstack([whole, x[150]]))[:-1], rel=1e-10
    )


# ---------------------------------------------------------------- fits


def mixture_with_holes(n: int = 6000, share: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=n)
    mixing = np.array([[[1, 0.5, 0.2], [0, 1, 0.4], [0, 0, 1]], [[1.5, -0.5, 0], [0, 1, 0.3], [0, 0, 0.7]]])
    x = np.array([[0.0, 0, 0], [4, 3, -3]])[labels] + np.einsum("nij,nj->ni", mixing[labels], rng.normal(size=(n, 3)))
    holes = x.copy()
    holes[rng.random(x.shape) < share] = np.nan
    return x, holes


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_with_holes_is_near_the_one_without(kind: str) -> None:
    x, holes = mixture_with_holes()
    whole, fitted = (
        em.GaussianMixture(2, covariance_type=kind, random_state=0, verbose=0).fit(data) for data in (x, holes)
    )
    order = np.argsort(fitted.means_[:, 0])
    assert fitted.status_ == "converged"
    assert fitted.means_[order] == pytest.approx(whole.means_[np.argsort(whole.means_[:, 0])], abs=0.15)
    assert fitted.score(holes) * len(x) == pytest.approx(fitted.loglik_, rel=1e-12)
    assert np.mean(fitted.predict(holes) == fitted.predict(x)) > 0.9


@pytest.mark.cluster
def test_every_source_executor_and_chunking_gives_the_same_bits(tmp_path: Any) -> None:
    from distributed import Client, LocalCluster

    _, holes = mixture_with_holes()
    settings = {"random_state": 0, "sample_bytes": 40_000, "verbose": 0}
    data = da.from_array(holes, chunks=((1, 0, 1999, 4000), (3,)))
    here = em.GaussianMixture(2, executor=em.ThreadsExecutor(2), **settings).fit(data)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as cluster,
        Client(cluster),
    ):
        there = em.GaussianMixture(2, **settings).fit(data)
    assert here.n_passes_ > 1
    for name in ("weights_", "means_", "covariances_"):
        assert np.array_equal(getattr(here, name), getattr(there, name))


def test_nulls_of_frames_and_files_are_missing_values(tmp_path: Any) -> None:
    _, holes = mixture_with_holes(2000)
    frame = pd.DataFrame(holes, columns=list("abc"))
    frame.convert_dtypes(dtype_backend="pyarrow").to_parquet(tmp_path / "x.parquet")
    fits = [
        em.GaussianMixture(2, random_state=0, verbose=0).fit(data)
        for data in (holes, frame, frame.convert_dtypes(), tmp_path / "x.parquet")
    ]
    assert all(np.allclose(f.means_, fits[0].means_, rtol=1e-12) for f in fits)


def test_holes_come_from_anywhere(tmp_path: Any) -> None:
    _, holes = mixture_with_holes(2000)
    frame = pd.DataFrame(holes, columns=list("abc"))
    stored = zarr.create_array(str(tmp_path / "x.zarr"), shape=holes.shape, chunks=(300, 3), dtype=holes.dtype)
    stored[:] = holes
    want = em.GaussianMixture(2, random_state=0, verbose=0).fit(holes)
    nullable = dd.from_pandas(frame.convert_dtypes(), npartitions=4)
    arrow = dd.from_pandas(frame.convert_dtypes(dtype_backend="pyarrow"), npartitions=2)
    plain = dd.from_pandas(frame, npartitions=3)
    for data in (stored, tmp_path / "x.zarr", plain, nullable, arrow, da.from_array(holes)):
        found = em.GaussianMixture(2, random_state=0, verbose=0).fit(data)
        assert found.loglik_ == pytest.approx(want.loglik_, abs=0.05)
        assert np.sort(found.means_, axis=0) == pytest.approx(np.sort(want.means_, axis=0), abs=1e-2)
        assert found.score(data) * len(holes) == pytest.approx(found.loglik_, rel=1e-12)
        assert np.asarray(found.score_samples(data)) == pytest.approx(found.score_samples(holes), rel=1e-12)


def test_criteria_are_of_what_is_observed() -> None:
    _, holes = mixture_with_holes(2000)
    gm = em.GaussianMixture(2, random_state=0, verbose=0).fit(holes)
    joint = np.log(gm.weights_) + np.zeros((len(holes), 2))
    for i, row in enumerate(holes):
        o = ~np.isnan(row)
        for k in range(2) if o.any() else ():
            joint[i, k] += stats.multivariate_normal(gm.means_[k, o], gm.covariances_[k][np.ix_(o, o)]).logpdf(row[o])
    loglik = logsumexp(joint, axis=1)
    assert gm.score(holes) == pytest.approx(loglik.mean(), rel=1e-10)
    assert gm.score_samples(holes) == pytest.approx(loglik, rel=1e-8)
    assert gm.bic(holes) == pytest.approx(-2 * loglik.sum() + 19 * np.log(2000), rel=1e-10)
    assert gm.aic(holes) == pytest.approx(-2 * loglik.sum() + 2 * 19, rel=1e-10)


def test_batches_of_a_stream_may_have_holes() -> None:
    _, holes = mixture_with_holes(20_000)
    holes[4000:8000, 2] = np.nan  # a batch with no value of a column
    gm = em.GaussianMixture(2, random_state=0, verbose=0)
    for batch in np.split(holes, 5):
        gm.partial_fit(batch)
    whole = em.GaussianMixture(2, random_state=0, verbose=0).fit(holes)
    order, want = np.argsort(gm.means_[:, 0]), np.argsort(whole.means_[:, 0])
    assert gm.n_passes_ == 5
    assert gm.means_[order] == pytest.approx(whole.means_[want], abs=0.1)
    assert gm.covariances_[order] == pytest.approx(whole.covariances_[want], abs=0.25)


def test_means_that_are_given_start_a_fit_with_holes() -> None:
    _, holes = mixture_with_holes(2000)
    fitted = em.GaussianMixture(2, means_init=[[0, 0, 0], [4, 3, -3]], verbose=0).fit(holes)
    assert fitted.means_ == pytest.approx(np.array([[0, 0, 0], [4, 3, -3]]), abs=0.3)


def test_a_column_that_is_all_missing_is_refused() -> None:
    _, holes = mixture_with_holes(200)
    holes[:, 1] = np.nan
    with pytest.raises(em.DataError, match="column 1 has no value in any of 200 rows"):
        em.GaussianMixture(2, verbose=0).fit(holes)


def test_rows_with_nothing_observed_count_but_say_nothing() -> None:
    _, holes = mixture_with_holes(2000)
    more = np.vstack([holes, np.full((500, 3), np.nan)])
    a, b = (em.GaussianMixture(2, random_state=0, tol=1e-6, verbose=0).fit(data) for data in (holes, more))
    order = [np.argsort(f.means_[:, 0]) for f in (a, b)]
    assert b.means_[order[1]] == pytest.approx(a.means_[order[0]], abs=1e-3)
    assert b.loglik_ == pytest.approx(a.loglik_, abs=1e-3)
    assert b.n_rows_ == 2500


MIXING = np.array([[1.0, 0, 0], [0.6, 0.8, 0], [0.9, 0.1, 0.4]])
CENTERS = np.array([[0.0, 0, 0], [6, -5, 4]])


def missing_at_random(n: int, components: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows, and the component of each; the third column is missed the more often, the larger the first one is."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(components, size=n)
    x = CENTERS[labels] + rng.normal(size=(n, 3)) @ MIXING.T
    share = 1 / (1 + np.exp(-3 * (x[:, 0] - CENTERS[labels, 0])))
    x[rng.random(n) < share, 2] = np.nan
    return x, labels


def estimates(x: np.ndarray, components: int) -> np.ndarray:
    """(K, 3 + 6) means and covariances, in order of the first column."""
    gm = em.GaussianMixture(components, random_state=0, reg_covar=0, tol=1e-4, verbose=0).fit(x)
    order = np.argsort(gm.means_[:, 0])
    upper = gm.covariances_[order][:, *np.triu_indices(3)]
    return np.hstack([gm.means_[order], upper])


def standard_errors(x: np.ndarray, center: np.ndarray) -> np.ndarray:
    """(9,) of the means and covariances of a component, given its rows, by the observed information at the truth."""
    i, j = np.triu_indices(3)
    truth = np.r_[center, (MIXING @ MIXING.T)[i, j]]
    patterns = [(x[own][:, :d], d) for own, d in ((~np.isnan(x[:, 2]), 3), (np.isnan(x[:, 2]), 2))]

    def loglik(theta: np.ndarray) -> float:
        c = np.empty((3, 3))
        c[i, j] = c[j, i] = theta[3:]
        each = [stats.multivariate_normal(theta[:d], c[:d, :d]).logpdf(rows).sum() for rows, d in patterns]
        return float(sum(each))

    h = 1e-3 * np.eye(9)
    hessian = [
        [sum(s * t * loglik(truth + s * a + t * b) for s in (1, -1) for t in (1, -1)) / 4e-6 for a in h] for b in h
    ]
    return np.sqrt(np.diag(np.linalg.inv(-np.array(hessian))))


@pytest.mark.parametrize("components", [1, 2])
def test_the_truth_is_recovered_where_complete_rows_are_far_off(components: int) -> None:
    x, labels = missing_at_random(40_000, components, 1)
    found = estimates(x, components)
    whole = ~np.isnan(x).any(axis=1)
    for k in range(components):  # seven standard deviations apart, so that errors are those of rows told apart
        truth = np.r_[CENTERS[k], (MIXING @ MIXING.T)[np.triu_indices(3)]]
        error = standard_errors(x[labels == k], CENTERS[k])
        assert error[:2] == pytest.approx(np.sqrt(truth[[3, 6]] / (labels == k).sum()), rel=1e-2)
        assert (np.abs(found[k] - truth) < 3 * error).all()
        complete = x[whole & (labels == k)].mean(axis=0)  # even with the component of each row known
        assert (np.abs(complete - CENTERS[k]) > 10 * error[:3]).all()
