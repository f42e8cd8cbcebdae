"""Student-t mixtures: the generic proofs, conditional moments row by row, a minimiser, outliers, fixed points."""

from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize
from scipy.special import psi

import dask_em as em
from dask_em.distributions.student_t import StudentTParams
from dask_em.models.mixture import MixtureParams
from dask_em.testing import check_model


def rows(n: int = 300) -> np.ndarray:
    rng = np.random.default_rng(0)
    z = np.sqrt([1.0, 2.0, 0.5]) * rng.standard_normal((n, 3)) / np.sqrt(rng.chisquare(4, (n, 1)) / 4)
    z[:, 2] += 0.5 * z[:, 0]
    return z + np.where(np.arange(n)[:, None] % 2, [4.0, 0, 1], [0.0, 0, 1])


def with_holes(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[np.random.default_rng(1).random(x.shape) < 0.2] = np.nan
    x[7] = np.nan
    return x


@pytest.mark.parametrize("kind", ["full", "diag"])
@pytest.mark.parametrize("df", ["each", "shared", 4.0])
@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_generic_proofs_hold(kind: Any, df: Any, holes: bool, weighted: bool, dtype: Any) -> None:
    x = (with_holes(rows()) if holes else rows()).astype(dtype)
    w = np.random.default_rng(1).random(len(x)) if weighted else None
    chunks = [em.Chunk(x[part], None if w is None else w[part]) for part in (slice(77), slice(77, None))]
    model = em.MixtureModel(2, em.StudentT(kind, df, reg_covar=0)).about(np.array([1.0, 0.5, 1.0]))
    proved = check_model(model, chunks)
    assert len(proved) == 12
    assert not [line for line in proved if line.startswith("not proved")]


def params(kind: str, far: float = 0.0) -> MixtureParams:
    c = np.array([[[1.0, 0.3, 0.2], [0.3, 2.0, -0.4], [0.2, -0.4, 0.5]], [[2.0, 0, 0.9], [0, 0.6, 0], [0.9, 0, 1.0]]])
    if kind == "diag":
        c = c[:, range(3), range(3)]
    u = 1 / np.sqrt(c) if kind == "diag" else np.linalg.inv(np.linalg.cholesky(c)).swapaxes(1, 2)
    locations = np.array([[0.0, 0, 1], [4.0, 0, 1]]) + far
    return MixtureParams(np.array([0.3, 0.7]), StudentTParams(locations, c, u, np.array([2.5, 60.0])))


def matrices(p: StudentTParams) -> np.ndarray:
    return p.scatters if p.scatters.ndim == 3 else np.array([np.diag(v) for v in p.scatters])


def row_by_row(p: MixtureParams, x: np.ndarray, w: np.ndarray) -> tuple[Any, ...]:
    """Log-likelihood and the sums of r, r u, r log u, u (x - μ) and u (x - μ)(x - μ)ᵀ, as the textbook has them."""
    n, a, b, first, second, loglik = np.zeros(2), np.zeros(2), np.zeros(2), np.zeros((2, 3)), np.zeros((2, 3, 3)), 0.0
    c = p.components
    for row, weight in zip(x, w, strict=True):
        o, m = np.flatnonzero(~np.isnan(row)), np.flatnonzero(np.isnan(row))
        joint, found = np.log(p.weights), []
        for k, (mean, s, df) in enumerate(zip(c.locations, matrices(c), c.df, strict=True)):
            slope = s[np.ix_(m, o)] @ np.linalg.inv(s[np.ix_(o, o)])
            y = np.zeros(3)
            y[o] = row[o] - mean[o]
            y[m] = slope @ y[o]
            left = np.zeros((3, 3))
            left[np.ix_(m, m)] = s[np.ix_(m, m)] - slope @ s[np.ix_(o, m)]
            if len(o):
                joint[k] += stats.multivariate_t(mean[o], s[np.ix_(o, o)], df).logpdf(row[o])
            shape = (df + len(o)) / 2
            rate = (df + y[o] @ np.linalg.inv(s[np.ix_(o, o)]) @ y[o]) / 2
            u = shape / rate
            found.append((u, psi(shape) - np.log(rate), u * y, u * np.outer(y, y) + left))
        total = np.logaddexp(*joint)
        r = weight * np.exp(joint - total)
        loglik += weight * total
        n += r
        for k, (u, log_u, y, yy) in enumerate(found):
            a[k] += r[k] * u
            b[k] += r[k] * log_u
            first[k] += r[k] * y
            second[k] += r[k] * yy
    return loglik, n, a, b, first, second


@pytest.mark.parametrize("kind", ["full", "diag"])
@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("far", [0.0, 1e5])
def test_sums_are_those_of_the_textbook(kind: Any, holes: bool, far: float) -> None:
    x = (with_holes(rows(150)) if holes else rows(150)) + far
    w = np.random.default_rng(2).random(len(x))
    p = params(kind, far)
    stats_ = em.MixtureModel(2, em.StudentT(kind)).e_step([p], em.Chunk(x, w))[0]
    loglik, n, a, b, first, second = row_by_row(p, x, w)
    weighted = stats_.components.weighted.about(p.components.locations)
    assert stats_.loglik == pytest.approx(loglik, rel=1e-9)
    assert stats_.counts == pytest.approx(n, rel=1e-9)
    assert stats_.components.logs == pytest.approx(b, rel=1e-8)
    assert weighted.counts == pytest.approx(a, rel=1e-9)
    assert weighted.first == pytest.approx(first, rel=1e-7, abs=1e-7)
    upper = second[:, range(3), range(3)] if kind == "diag" else second[(slice(None), *np.triu_indices(3))]
    assert weighted.second == pytest.approx(upper, rel=1e-7, abs=1e-7)


def test_sums_given_responsibilities_are_those_of_the_whole_e_step() -> None:
    x, p, t = rows(), params("full"), em.StudentT()
    joint = t.log_density(p.components, x) + np.log(p.weights)
    resp = np.exp(joint - np.logaddexp(*joint.T)[:, None])
    fused = t.mixture_sums(x, None, [(np.log(p.weights), p.components)])[0][2]
    plain = t.expected_statistics(p.components, x, resp)
    for one, other in ((fused, plain), (fused.weighted, plain.weighted)):
        for name in ("counts", "logs") if one is fused else ("counts", "first", "second"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-11)


def test_densities_are_those_of_scipy() -> None:
    x, p = rows(), params("full").components
    theirs = [stats.multivariate_t(m, c, df).logpdf(x) for m, c, df in zip(p.locations, p.scatters, p.df, strict=True)]
    assert em.StudentT().log_density(p, x) == pytest.approx(np.array(theirs).T, rel=1e-11)
    nothing = em.StudentT().log_density(p, np.full((1, 3), np.nan))
    assert nothing == pytest.approx(np.zeros((1, 2)), abs=1e-12)


@pytest.mark.parametrize("df", ["each", "shared", 3.0])
def test_one_column_reaches_the_maximum_that_a_minimiser_finds(df: Any) -> None:
    """The likelihood itself is maximised over all parameters."""
    rng = np.random.default_rng(5)
    x = np.concatenate([rng.standard_t(3, 400), 8 + 2 * rng.standard_t(5, 600)])
    t = em.StudentT(df=df, reg_covar=0)
    mix = em.Mixture(2, t, random_state=0, tol=1e-8, verbose=0).fit(x[:, None])

    def degrees(v: np.ndarray) -> np.ndarray:
        return np.exp(v[5:]) * np.ones(2) if isinstance(df, str) else np.full(2, df)

    def loss(v: np.ndarray) -> float:
        a, b = (stats.t.logpdf(x, degrees(v)[k], v[1 + k], np.exp(v[3 + k])) for k in (0, 1))
        return -float(np.logaddexp(a - np.logaddexp(0, v[0]), b - np.logaddexp(0, -v[0])).sum())

    start = [0.5, 0.0, 8.0, 0.0, 0.7, *{"each": [1.0, 1.6], "shared": [1.3]}.get(df, [])]
    found = minimize(loss, start, method="BFGS", options={"gtol": 1e-4})
    assert mix.loglik_ == pytest.approx(-found.fun, abs=1e-5)
    order = np.argsort(mix.locations_[:, 0])
    assert mix.locations_[order, 0] == pytest.approx(found.x[1:3], abs=2e-3)
    assert np.sqrt(mix.scatters_[order, 0, 0]) == pytest.approx(np.exp(found.x[3:5]), rel=2e-3)
    assert mix.df_[order] == pytest.approx(degrees(found.x), rel=1e-2)
    n_df = {"each": 2, "shared": 1}.get(df, 0)
    assert t.n_parameters(2, 3) == 2 * 3 + 2 * 6 + n_df
    assert mix.status_ == "converged"


def test_four_local_maxima_of_a_location() -> None:
    """x = (-20, 1, 2, 3), ν = .05, scale 1 (McLachlan and Krishnan 2008, section 1.4)."""
    x = np.array([[-20.0], [1], [2], [3]])
    t = em.StudentT(df=0.05, reg_covar=0)

    def climb(location: float) -> float:
        for _ in range(2000):
            p = StudentTParams(np.array([[location]]), np.ones((1, 1, 1)), np.ones((1, 1, 1)), np.array([0.05]))
            weighted = t.expected_statistics(p, x, np.ones((4, 1))).weighted
            location = weighted.first[0, 0] / weighted.counts[0]
        return float(location)

    assert [round(climb(a), 4) for a in x[:, 0]] == [-19.9932, 1.0862, 1.9975, 2.9056]


@pytest.mark.parametrize("reach", [20, 200])
def test_outliers_do_not_spoil_it_where_they_spoil_gaussians(reach: float) -> None:
    rng = np.random.default_rng(0)
    clean = rng.normal(size=(4000, 2)) + np.repeat([[0.0, 0], [6, 0]], 2000, axis=0)
    x = np.concatenate([clean, rng.uniform(-reach, reach, size=(200, 2))])
    t = em.Mixture(2, em.StudentT(df=3.0), random_state=0, verbose=0).fit(x)
    order = np.argsort(t.locations_[:, 0])
    assert t.locations_[order] == pytest.approx(np.array([[0.0, 0], [6, 0]]), abs=0.1)
    assert np.mean(t.predict(clean) == order[np.repeat([0, 1], 2000)]) > 0.99
    gaussian = em.Mixture(2, em.Gaussian(), random_state=0, verbose=0).fit(x)
    assert np.abs(np.sort(gaussian.means_[:, 0]) - [0, 6]).max() > 1


def test_light_tails_are_a_gaussians() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, size=(2000, 2))
    t = em.Mixture(1, em.StudentT(reg_covar=0), verbose=0).fit(x)
    gaussian = em.Mixture(1, em.Gaussian(reg_covar=0), verbose=0).fit(x)
    assert t.df_[0] > 100
    assert t.status_ == "converged"
    assert t.loglik_ == pytest.approx(gaussian.loglik_, abs=20)
    assert t.loglik_ < gaussian.loglik_


def test_tails_at_the_lower_bound_have_a_sentence() -> None:
    x = np.random.default_rng(0).standard_t(0.5, size=(2000, 1))
    with pytest.warns(em.FitWarning, match=r"1 component \(0\) has the fewest degrees of freedom allowed, 1"):
        t = em.Mixture(1, em.StudentT(), verbose=0).fit(x)
    assert t.df_.tolist() == [1.0]
    assert t.status_ == "degenerate"
    assert em.Mixture(1, em.StudentT(df_bounds=(0.1, 1000)), verbose=0).fit(x).df_ == pytest.approx([0.5], rel=0.1)


def test_missing_values_are_not_missed() -> None:
    """The rows that lose their second column are those with a large first one."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((20_000, 2)) / np.sqrt(rng.chisquare(5, (20_000, 1)) / 5)
    z[:, 1] = 0.9 * z[:, 0] + 0.5 * z[:, 1]
    x = np.where((np.arange(2) == 1) & (z[:, :1] > 0.5), np.nan, z)
    t = em.Mixture(1, em.StudentT(), verbose=0).fit(x)
    assert np.nanmean(x[:, 1]) < -0.3
    assert t.locations_[0] == pytest.approx([0, 0], abs=0.03)
    assert t.scatters_[0] == pytest.approx(np.array([[1, 0.9], [0.9, 1.06]]), abs=0.05)
    assert t.df_[0] == pytest.approx(5, abs=0.5)


def test_draws_have_the_parameters_that_they_were_drawn_with() -> None:
    model = em.MixtureModel(2, em.StudentT())
    p = params("full")
    x, labels = model.sample(p, 40_000, np.random.default_rng(3))
    assert labels.mean() == pytest.approx(0.7, abs=0.02)
    found = em.fit(model, x, params=p, verbose=0).params.components
    assert found.locations == pytest.approx(p.components.locations, abs=0.05)
    assert found.scatters == pytest.approx(p.components.scatters, abs=0.1)
    assert found.df[0] == pytest.approx(2.5, rel=0.1)
    assert found.df[1] > 20


def test_a_part_of_a_product() -> None:
    x = np.column_stack([with_holes(rows()), np.random.default_rng(0).poisson(3, 300)])
    product = em.Product({(0, 1, 2): em.StudentT(reg_covar=0), 3: em.Poisson()})
    assert len(check_model(em.MixtureModel(2, product), [em.Chunk(x[:77]), em.Chunk(x[77:])])) == 12


def test_scales_are_the_information_of_one_row() -> None:
    t = em.StudentT("diag", reg_covar=0)
    model, p = (
        em.MixtureModel(1, t),
        StudentTParams(np.zeros((1, 2)), np.ones((1, 2)), np.ones((1, 2)), np.array([4.0])),
    )
    x, _ = model.sample(MixtureParams(np.ones(1), p), 100_000, np.random.default_rng(0))
    start = MixtureParams(np.ones(1), p)
    sums = model.e_step([start], em.Chunk(x))[0]
    v, scale, h = model.to_vector(start), model.vector_scale(start), 1e-3
    for i in range(1, len(v)):
        step = np.eye(len(v))[i] * h
        up, here, down = (model.expected_loglik(model.from_vector(v + s * step), sums) for s in (1, 0, -1))
        assert (2 * here - up - down) / (h * h * len(x)) == pytest.approx(scale[i] ** 2, rel=0.03)


@pytest.mark.parametrize(
    "make",
    [
        lambda: em.StudentT("tied"),  # type: ignore[arg-type]
        lambda: em.StudentT(df="own"),  # type: ignore[arg-type]
        lambda: em.StudentT(df=0),
        lambda: em.StudentT(df=True),
        lambda: em.StudentT(df=np.inf),
        lambda: em.StudentT(reg_covar=-1),
        lambda: em.StudentT(df_bounds=(5, 2)),
        lambda: em.StudentT(df_bounds=3),  # type: ignore[arg-type]
    ],
)
def test_hyperparameters_are_checked(make: Any) -> None:
    with pytest.raises(em.ConfigurationError):
        make()


def test_sums_that_no_rows_have_are_refused() -> None:
    t = em.StudentT()
    sums = t.statistics(rows(), np.ones((300, 1)))
    with pytest.raises(em.DegenerateError):
        t.estimate(sums - 2 * sums)
