"""Priors of variances: rows seen before, the modes of inverse Wishart distributions, and what they are for."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

import dask_em as em
from dask_em.distributions.base import Distribution
from dask_em.distributions.gaussian import GaussianParams
from dask_em.testing import check_model

RNG = np.random.default_rng(0)
X = np.concatenate([RNG.normal(0, 1, (60, 3)), RNG.normal(5, 2, (40, 3))])
SETTINGS: dict[str, Any] = {"random_state": 0, "verbose": 0}
GIVEN = (4.0, 0.5, 1.0, 2.0)

DISTRIBUTIONS: dict[str, Distribution] = {
    "full": em.Gaussian("full", reg_covar=0, prior=GIVEN),
    "tied": em.Gaussian("tied", reg_covar=0, prior=GIVEN),
    "diag": em.Gaussian("diag", reg_covar=0, prior=GIVEN),
    "spherical": em.Gaussian("spherical", reg_covar=0, prior=GIVEN),
    "one variance": em.Gaussian("full", reg_covar=0, prior=(4.0, 0.5)),
    "full t": em.StudentT("full", reg_covar=0, prior=GIVEN),
    "diag t": em.StudentT("diag", "shared", reg_covar=0, prior=GIVEN),
    "factors": em.Factors(1, prior=GIVEN),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_generic_proofs_hold(name: str, holes: bool, dtype: Any) -> None:
    x = X.copy()
    if holes:
        x[::5, 0] = np.nan
        x[::7, 2] = np.nan
    w = np.random.default_rng(1).random(len(x))
    x = x.astype(dtype)
    chunks = [em.Chunk(x[rows], w[rows]) for rows in (slice(55), slice(55, None))]
    proved = check_model(em.MixtureModel(2, DISTRIBUTIONS[name]), chunks)
    assert len(proved) == 12
    assert not [line for line in proved if line.startswith("not proved")]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_one_gaussian_with_holes_has_it_too(dtype: Any) -> None:
    x = X.astype(dtype)
    x[::3, 1] = np.nan
    model = em.IncompleteGaussian(prior=GIVEN)
    assert len(check_model(model, [em.Chunk(x[:30]), em.Chunk(x[30:])])) == 11  # a single component cannot be permuted


def test_it_is_an_inverse_wishart_density() -> None:
    gaussian = em.Gaussian("full", prior=(10.0, 0.5, 2.0))
    a, b = np.array([[2.0, 0.3], [0.3, 1.0]]), np.array([[1.0, -0.2], [-0.2, 0.4]])
    wishart = stats.invwishart(10 - 3, 10 * np.diag([0.5, 2.0]))
    ours = [gaussian.log_prior(gaussian.from_moments(np.zeros((1, 2)), c[None])) for c in (a, b)]
    assert ours[0] - ours[1] == pytest.approx(wishart.logpdf(a) - wishart.logpdf(b), rel=1e-12)
    spherical = em.Gaussian("spherical", prior=(10.0, 0.5))
    gamma = stats.invgamma(10 * 3 / 2 - 1, scale=10 * 3 * 0.5 / 2)
    ours = [spherical.log_prior(spherical.from_moments(np.zeros((1, 3)), np.array([v]))) for v in (0.3, 2.0)]
    assert ours[0] - ours[1] == pytest.approx(gamma.logpdf(0.3) - gamma.logpdf(2.0), rel=1e-12)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_it_is_rows_seen_before(kind: Any) -> None:
    """Rows in pairs about the mean of a component, whose variances are those of the prior."""
    resp = np.repeat([[1.0, 0.0], [0.0, 1.0]], [60, 40], axis=0)
    gaussian, plain = em.Gaussian(kind, 0.0, prior=GIVEN), em.Gaussian(kind, 0.0)
    found = gaussian.estimate(gaussian.statistics(X, resp))
    rows, *variances = GIVEN
    both, shares = [X], [resp]
    for k, own in enumerate(plain.estimate(plain.statistics(X, resp)).means):
        off = np.diag(np.sqrt(3 * np.array(variances)))
        both.append(own + np.concatenate([off, -off]))
        shares.append(np.eye(2)[[k] * 6] * rows / 6 / (2 if kind == "tied" else 1))
    seen = plain.estimate(plain.statistics(np.concatenate(both), np.concatenate(shares)))
    assert found.means == pytest.approx(seen.means)
    assert found.covariances == pytest.approx(seen.covariances)


def test_variances_that_are_not_given_are_those_of_the_data() -> None:
    scale = np.array([1.0, 100.0, 0.01])
    own = X.var(axis=0) * 2 ** (-2 / 3)
    for make in (em.Gaussian, em.StudentT):
        a = em.Mixture(2, make(reg_covar=0, prior=6), tol=1e-9, **SETTINGS).fit(X)
        b = em.Mixture(2, make(reg_covar=0, prior=(6, *own)), tol=1e-9, **SETTINGS).fit(X)
        c = em.Mixture(2, make(reg_covar=0, prior=6), tol=1e-9, **SETTINGS).fit(X * scale)
        name = "means_" if hasattr(a, "means_") else "locations_"
        of_a, of_b, of_c = (m[np.argsort(m[:, 0])] for m in (getattr(mix, name) for mix in (a, b, c)))
        assert of_a == pytest.approx(of_b, rel=1e-5)
        assert of_c == pytest.approx(of_a * scale, rel=1e-3)
    with pytest.raises(em.ConfigurationError, match=r"prior=5 takes its variances from the data.*\(5, 0.1\)"):
        em.Gaussian(prior=5).log_prior(em.Gaussian().from_moments(np.zeros((1, 2)), np.eye(2)[None]))


@pytest.mark.parametrize("kind", ["full", "diag", "spherical"])
def test_components_of_repeated_rows_do_not_collapse(kind: Any) -> None:
    x = np.concatenate([X, np.tile([[20.0, 20.0, 20.0]], (30, 1))])
    with pytest.warns(em.FitWarning, match="degenerate"):
        em.GaussianMixture(3, covariance_type=kind, **SETTINGS).fit(x)
    gm = em.GaussianMixture(3, covariance_type=kind, prior=5, **SETTINGS).fit(x)
    assert gm.status_ == "converged"
    spike = int(np.argmax(gm.means_[:, 0]))
    assert gm.weights_[spike] == pytest.approx(30 / 130, abs=0.01)
    expected = 5 * x.var(axis=0) * 3 ** (-2 / 3) / 35
    own = gm.covariances_[spike]
    variances = np.diag(own) if kind == "full" else own
    assert variances == pytest.approx(expected.mean() if kind == "spherical" else expected, rel=0.02)


def test_the_log_likelihood_and_criteria_are_of_the_data_alone() -> None:
    gm = em.GaussianMixture(prior=5, **SETTINGS)
    found = em.select(gm, X, n_components=[1, 2, 3])
    best = found.best_estimator_
    assert found.best_params_ == {"n_components": 2}
    assert best.loglik_ == pytest.approx(best.score_samples(X).sum(), rel=1e-12)
    assert found.table_["bic"].min() == pytest.approx(best.bic(X), rel=1e-12)
    prior = best.history_[-1]["loglik"] - best.loglik_
    model = em.MixtureModel(2, em.Gaussian(prior=5)).in_units_of(X.var(axis=0))
    components = GaussianParams(best.means_, best.covariances_, best.precisions_cholesky_)
    assert prior == pytest.approx(model.distribution.log_prior(components), rel=1e-9)


def test_more_columns_than_rows_can_be_filled_in_with_it() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(12, 2)) @ rng.normal(size=(2, 20)) + 0.1 * rng.normal(size=(12, 20))
    holed = np.where(rng.random(x.shape) < 0.1, np.nan, x)
    with pytest.raises(em.DataError, match="or set reg_covar or a prior"):
        em.GaussianImputer(verbose=0).fit(holed)
    imputer = em.GaussianImputer(prior=1, verbose=0).fit(holed)
    assert imputer.status_ == "converged"
    gaps = np.isnan(holed)
    wrong = np.square(imputer.transform(holed) - x)[gaps].mean()
    by_means = np.square(np.where(gaps, np.nanmean(holed, axis=0), holed) - x)[gaps].mean()
    assert wrong < by_means / 2


@pytest.mark.parametrize("kind", [em.Gaussian, em.StudentT, em.Factors])
@pytest.mark.parametrize("prior", [-1, "5", (5, -0.1), (5, 0), (), (np.nan,), True, (5, "a"), np.inf, {}])
def test_what_is_no_prior_is_refused(kind: Any, prior: Any) -> None:
    with pytest.raises(em.ConfigurationError, match="must be a number of rows that is not negative"):
        kind(prior=prior)


def test_a_prior_of_other_columns_is_refused() -> None:
    with pytest.raises(em.ConfigurationError, match="has 2 variances, and the data has 3 columns"):
        em.GaussianMixture(2, prior=(5, 1.0, 2.0), **SETTINGS).fit(X)


def test_no_rows_are_no_prior() -> None:
    a, b = (em.GaussianMixture(2, prior=p, **SETTINGS).fit(X) for p in (0, None))
    assert np.array_equal(a.covariances_, b.covariances_)


def test_saved_models_have_it(tmp_path: Any) -> None:
    em.GaussianMixture(2, prior=(5, 1.0, 2.0, 3.0), **SETTINGS).fit(X).save(tmp_path / "a")
    assert em.load(tmp_path / "a").prior == (5, 1.0, 2.0, 3.0)
    fitted = em.Mixture(2, em.StudentT(prior=3.0), **SETTINGS).fit(X)
    fitted.save(tmp_path / "b")
    loaded = em.load(tmp_path / "b")
    assert loaded.distribution_.prior == 3.0
    found = loaded.standard_errors(X)["standard_error"]
    assert np.array_equal(found, fitted.standard_errors(X)["standard_error"], equal_nan=True)
    assert np.isfinite(found[loaded.standard_errors(X)["parameter"] != "df"]).all()  # df may grow without end


@pytest.mark.parametrize(
    "make", [em.GaussianMixture, lambda k, prior, **s: em.Mixture(k, em.StudentT(prior=prior), **s)]
)
def test_streams_have_it(make: Any, tmp_path: Any) -> None:
    x = np.random.default_rng(3).permutation(np.tile(X, (20, 1)))
    strong, none = (make(2, prior=prior, **SETTINGS) for prior in (2000.0, None))
    for batch in np.array_split(x, 4):
        strong.partial_fit(batch)
        none.partial_fit(batch)
        strong.save(tmp_path / "m")
        strong = em.load(tmp_path / "m")
    name = "covariances_" if hasattr(none, "covariances_") else "scatters_"
    a, b = (np.abs(getattr(m, name)[:, 0, 1] / getattr(m, name)[:, 0, 0]).max() for m in (strong, none))
    assert np.linalg.det(getattr(strong, name)).min() > np.linalg.det(getattr(none, name)).min()
    assert a < max(b, 0.2)
