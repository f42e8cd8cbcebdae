"""Negative binomial columns: the maximum of the likelihood, tables of counts, and the edge at Poisson's."""

from typing import Any

import numpy as np
import pytest
from scipy import special, stats
from scipy.optimize import minimize, minimize_scalar

import dask_em as em
from dask_em.distributions.count_table import cell_values, in_cells, n_cells
from dask_em.distributions.negative_binomial import NegativeBinomialParams
from dask_em.kernels.rising import log_rising, rising_slopes
from dask_em.models.mixture import MixtureParams
from dask_em.testing import check_model

RNG = np.random.default_rng(0)
X = RNG.negative_binomial(3.0, np.repeat([[0.6, 0.3], [0.2, 0.7]], 100, axis=0)).astype(np.float64)
X[::50, 1] = [70, 3, 150, 64]


def nbinom(mean: Any, size: Any) -> Any:
    return stats.nbinom(size, size / (size + mean))


def exact_rising(x: float, s: float) -> tuple[float, float]:
    """By adding up."""
    terms = s + np.arange(x)
    return float(np.log(terms).sum()), float((1 / terms).sum())


@pytest.mark.parametrize("s", [1e-6, 0.3, 7.0, 99.9, 100.0, 101.0, 1e4, 1e9])
@pytest.mark.parametrize("x", [0.0, 1.0, 2.0, 40.0, 63.0, 64.0, 5000.0])
def test_rising_factorials_keep_their_digits(s: float, x: float) -> None:
    log, slope = exact_rising(x, s)
    values, at = np.array([x]), np.array([s])
    assert log_rising(values, at) == pytest.approx(log, rel=1e-12, abs=1e-300)
    first, second = rising_slopes(values, at)
    assert first == pytest.approx(slope, rel=1e-12, abs=1e-300)
    assert second == pytest.approx((1 / (s + np.arange(x)) ** 2).sum(), rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("s", [1e-3, 1.0, 30.0, 1e5])
def test_a_table_of_counts_has_the_sums_of_the_counts(s: float) -> None:
    x = np.concatenate([np.arange(200), 2 ** np.arange(40) - 1, 2 ** np.arange(40), RNG.integers(0, 10**6, 99)])
    x, at = x.astype(float), np.array([s])
    n = n_cells(x.max())
    shares, values = in_cells(x, n), cell_values(n)
    assert len(values) == n
    assert shares @ log_rising(values, at) == pytest.approx(log_rising(x, at), rel=1e-13)
    assert shares @ rising_slopes(values, at)[0] == pytest.approx(rising_slopes(x, at)[0], rel=1e-13)
    assert shares @ np.ones(n) == pytest.approx(1.0)
    assert (shares[:64, :64].toarray() == np.eye(64)).all()


@pytest.mark.parametrize("size", ["each", "shared", 2.5])
@pytest.mark.parametrize("prior", [None, (2.0, 0.5)])
@pytest.mark.parametrize("size_prior", [None, (2.0, 0.5)])
@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_generic_proofs_hold(
    size: Any, prior: Any, size_prior: Any, holes: bool, weighted: bool, dtype: Any
) -> None:
    if size_prior and not isinstance(size, str):
        return
    x = X.copy()
    if holes:
        x[::7, 0] = np.nan
        x[::5, 1] = np.nan
    w = np.random.default_rng(1).random(len(x)) if weighted else None
    x = x.astype(dtype)
    chunks = [em.Chunk(x[rows], None if w is None else w[rows]) for rows in (slice(60), slice(60, None))]
    proved = check_model(em.MixtureModel(2, em.NegativeBinomial(size, prior, size_prior)), chunks)
    assert len(proved) == 12
    assert not [line for line in proved if line.startswith("not proved")]


def test_densities_are_those_of_scipy() -> None:
    params = NegativeBinomialParams(np.array([[1.0, 5.0], [60.0, 0.5]]), np.array([[0.7, 200.0], [1.5, 1e4]]))
    theirs = [nbinom(m, s).logpmf(X).sum(axis=1) for m, s in zip(params.means, params.sizes, strict=True)]
    assert em.NegativeBinomial().log_density(params, X) == pytest.approx(np.array(theirs).T, rel=1e-10)
    nothing = em.NegativeBinomial().log_density(params, np.full((1, 2), np.nan))
    assert nothing.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(("mean", "size"), [(0.3, 0.1), (4.0, 2.0), (900.0, 0.8), (3000.0, 40.0)])
def test_one_component_is_the_maximum_of_the_likelihood(mean: float, size: float) -> None:
    x = nbinom(mean, size).rvs(2000, random_state=3).astype(float)
    x, w = np.append(x, np.nan), np.append(RNG.random(2000), 5.0)
    mix = em.Mixture(1, em.NegativeBinomial(), verbose=0).fit(x[:, None], sample_weight=w)
    seen, own = x[:-1], w[:-1]
    assert mix.means_[0, 0] == pytest.approx(np.average(seen, weights=own), rel=1e-12)
    found = minimize_scalar(
        lambda u: -own @ nbinom(mix.means_[0, 0], np.exp(u)).logpmf(seen),
        (np.log(size) - 1, np.log(size) + 1),
        tol=1e-9,
    )
    assert mix.loglik_ == pytest.approx(-found.fun, rel=1e-11)
    assert mix.sizes_[0, 0] == pytest.approx(np.exp(found.x), rel=1e-5)
    slope = own @ (special.psi(seen + mix.sizes_[0, 0]) - special.psi(mix.sizes_[0, 0]))
    assert slope == pytest.approx(own.sum() * np.log1p(mix.means_[0, 0] / mix.sizes_[0, 0]), rel=1e-11)


@pytest.mark.parametrize("shared", [False, True])
def test_two_components_reach_the_maximum_that_a_minimiser_finds(shared: bool) -> None:
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.negative_binomial(3.0, 0.5, 400), rng.negative_binomial(5.0, 0.1, 600)]).astype(float)
    distribution = em.NegativeBinomial("shared" if shared else "each")
    mix = em.Mixture(2, distribution, random_state=0, tol=1e-8, verbose=0).fit(x[:, None])

    def loss(v: np.ndarray) -> float:  # log odds, log means, log sizes
        s = np.exp(v[3:])[[0, -1]]
        a, b = (nbinom(np.exp(v[1 + k]), s[k]).logpmf(x) for k in (0, 1))
        return -float(np.logaddexp(a - np.logaddexp(0, v[0]), b - np.logaddexp(0, -v[0])).sum())

    found = minimize(loss, [0.0, 1.0, 4.0, 1.0, 1.0][: 4 if shared else 5], method="BFGS", options={"gtol": 1e-4})
    assert mix.loglik_ == pytest.approx(-found.fun, abs=1e-6)
    order = np.argsort(mix.means_.ravel())
    assert mix.means_.ravel()[order] == pytest.approx(np.exp(found.x[1:3]), rel=1e-3)
    assert mix.sizes_.ravel()[order] == pytest.approx(np.exp(found.x[3:])[[0, -1]], rel=1e-3)
    assert mix.bic(x[:, None]) == pytest.approx(2 * found.fun + (4 if shared else 5) * np.log(1000), abs=1e-4)


def test_mixtures_are_recovered() -> None:
    truth = MixtureParams(
        np.array([0.3, 0.7]),
        NegativeBinomialParams(np.array([[2.0, 300.0], [20.0, 30.0]]), np.array([[1.0, 5.0], [4.0, 0.5]])),
    )
    x, _ = em.MixtureModel(2, em.NegativeBinomial()).sample(truth, 40_000, np.random.default_rng(0))
    mix = em.Mixture(2, em.NegativeBinomial(), random_state=0, verbose=0).fit(x)
    order = np.argsort(mix.means_[:, 0])
    assert mix.weights_[order] == pytest.approx(truth.weights, abs=0.01)
    assert mix.means_[order] == pytest.approx(truth.components.means, rel=0.05)
    assert mix.sizes_[order] == pytest.approx(truth.components.sizes, rel=0.08)


def test_counts_with_less_spread_than_poisson_are_poisson_and_the_fit_says_so() -> None:
    x = np.repeat([[0.0], [1.0]], [30, 70], axis=0)
    mix = em.Mixture(1, em.NegativeBinomial(), verbose=0).fit(x)
    assert (mix.status_, mix.sizes_[0, 0]) == ("converged", pytest.approx(1e9))
    assert "1 component (0) has counts with no more spread than Poisson's" in mix.message_
    assert mix.score_samples(x) == pytest.approx(stats.poisson(0.7).logpmf(x[:, 0]), abs=1e-8)
    held = em.Mixture(1, em.NegativeBinomial(size_prior=(2.0, 0.1)), verbose=0).fit(x)
    assert 1 < held.sizes_[0, 0] < 100
    assert "Poisson" not in held.message_


@pytest.mark.parametrize("excess", [0.999, 1.001])
def test_a_size_is_finite_where_the_variance_is_above_the_mean(excess: float) -> None:
    x = np.arange(40.0)[:, None]
    w = stats.poisson(9.0).pmf(x[:, 0]) * np.exp((excess - 1) * (x[:, 0] - 9) ** 2 / 18)
    mean = np.average(x[:, 0], weights=w)
    above = np.average((x[:, 0] - mean) ** 2, weights=w) > mean
    nb = em.NegativeBinomial()
    size = nb.estimate(nb.statistics(x, w[:, None])).sizes[0, 0]
    assert above == (excess > 1)
    assert (size < 9e8) == above


def test_a_column_of_zeros_has_a_mean_of_zero() -> None:
    x = np.column_stack([np.zeros(9), np.arange(9.0)])
    nb = em.NegativeBinomial()
    params = nb.estimate(nb.statistics(x, np.ones((9, 1))))
    assert params.means[0].tolist() == [0.0, 4.0]
    assert np.isfinite(params.sizes).all()
    assert nb.log_density(params, np.array([[0.0, np.nan]]))[0, 0] == 0


def test_a_component_that_saw_nothing_of_a_column_takes_what_all_saw() -> None:
    x = np.array([[1.0, np.nan], [30.0, np.nan], [5.0, 4.0], [70.0, 60.0]])
    resp = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    for size in ("each", "shared"):
        nb = em.NegativeBinomial(size)  # type: ignore[arg-type]
        params = nb.estimate(nb.statistics(x, resp))
        assert params.means.tolist() == [[15.5, 32.0], [37.5, 32.0]]
        assert params.sizes[0, 1] == params.sizes[1, 1]


def test_a_prior_moves_the_size_to_the_mode() -> None:
    x = nbinom(4.0, 2.0).rvs(300, random_state=3).astype(float)[:, None]
    for size in ("each", "shared"):
        nb = em.NegativeBinomial(size, size_prior=(50.0, 5.0))  # type: ignore[arg-type]
        stats_ = nb.statistics(x, np.ones((300, 1)))
        params = nb.estimate(stats_)
        found = minimize_scalar(
            lambda u: -nbinom(x.mean(), np.exp(u)).logpmf(x).sum() - 49 * u + 5 * np.exp(u), (0, 2), tol=1e-9
        )
        assert params.sizes[0, 0] == pytest.approx(np.exp(found.x), rel=1e-5)
        assert nb.log_prior(params) == pytest.approx(49 * np.log(params.sizes[0, 0]) - 5 * params.sizes[0, 0])


@pytest.mark.parametrize(("mean", "size"), [(0.3, 0.1), (4.0, 2.0), (50.0, 0.8), (3.0, 40.0)])
def test_scales_are_near_the_information_of_one_row(mean: float, size: float) -> None:
    x = np.arange(20_000.0)
    p = nbinom(mean, size).pmf(x)
    of_size = size**2 * (p @ rising_slopes(x, np.array([size]))[1] - mean / (size * (size + mean)))
    params = NegativeBinomialParams(np.array([[mean]]), np.array([[size]]))
    squares = em.NegativeBinomial().vector_scale(params, np.array([0.5])) ** 2
    assert squares[0] == pytest.approx(0.5 * mean * size / (size + mean))
    assert 0.5 * of_size <= squares[1] < 0.5 * of_size * 2.5
    shared = em.NegativeBinomial("shared").vector_scale(
        NegativeBinomialParams(np.full((2, 1), mean), np.full((2, 1), size)), np.array([0.25, 0.25])
    )
    assert shared**2 == pytest.approx([squares[0] / 2, squares[0] / 2, squares[1]])


def test_sums_of_blocks_of_small_and_large_counts_go_together() -> None:
    nb = em.NegativeBinomial()
    small, large = np.array([[1.0], [3.0]]), np.array([[5000.0], [2.0]])
    both = nb.statistics(np.concatenate([small, large]), np.ones((4, 1)))
    for total in (
        nb.statistics(small, np.ones((2, 1))) + nb.statistics(large, np.ones((2, 1))),
        nb.statistics(large, np.ones((2, 1))) + nb.statistics(small, np.ones((2, 1))),
    ):
        assert np.array_equal(total.table, both.table)
        assert nb.estimate(total).sizes == pytest.approx(nb.estimate(both).sizes, rel=1e-12)


@pytest.mark.parametrize("size", ["all", 0.0, -1.0, True, np.inf, 1e10])
def test_sizes_are_checked(size: Any) -> None:
    with pytest.raises(em.ConfigurationError, match="size="):
        em.NegativeBinomial(size)


@pytest.mark.parametrize("size", ["each", "shared", 2.5])
@pytest.mark.parametrize("size_prior", [None, (3.0, 0.5)])
@pytest.mark.parametrize("prior", [(1.0, 4.0), (60.0, 3.0), (2.0, 1e-9), (1.0, 0.0)])
def test_priors_move_means_and_sizes_to_the_mode(size: Any, size_prior: Any, prior: Any) -> None:
    if size_prior and not isinstance(size, str):
        return
    rng = np.random.default_rng(3)
    x = np.concatenate([nbinom(4.0, 2.0).rvs(30, random_state=rng), nbinom(9.0, 1.0).rvs(20, random_state=rng)])
    resp = np.repeat([[0.9, 0.1], [0.2, 0.8]], [30, 20], axis=0)
    nb = em.NegativeBinomial(size, prior, size_prior)
    sums = nb.statistics(x.astype(float)[:, None], resp)

    def value(v: np.ndarray) -> float:
        params = nb.from_vector(v, 2)
        return nb.expected_loglik(params, sums) + nb.log_prior(params)

    best = nb.to_vector(nb.estimate(sums))
    slope = [(value(best + e) - value(best - e)) / 2e-5 for e in 1e-5 * np.eye(len(best))]
    assert np.abs(slope).max() < 1e-4
    for scale in (0.01, 0.1, 0.7):
        assert all(value(best + scale * rng.standard_normal(len(best))) < value(best) for _ in range(20))


@pytest.mark.parametrize(
    "settings",
    [
        {"prior": (0.5, 1.0)},
        {"prior": (2.0, 0.0)},
        {"size_prior": (1.0, -1.0)},
        {"size": 2.0, "size_prior": (2.0, 1.0)},
    ],
)
def test_priors_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(em.ConfigurationError, match="prior="):
        em.NegativeBinomial(**settings)


def test_what_is_no_count_is_refused_with_its_place() -> None:
    x = np.array([[1.0, np.nan], [2.0, 0.5]])
    with pytest.raises(em.DataError, match=r"row 1, column 1 is 0\.5, where NegativeBinomial needs a whole number"):
        em.Mixture(1, em.NegativeBinomial(), verbose=0).fit(x)


def test_parameters_are_counted() -> None:
    assert em.NegativeBinomial().n_parameters(3, 2) == 12
    assert em.NegativeBinomial("shared").n_parameters(3, 2) == 8
    assert em.NegativeBinomial(1.0).n_parameters(3, 2) == 6


def test_a_product_passes_on_what_is_said() -> None:
    x = np.column_stack([np.repeat([0.0, 1.0], [30, 70]), np.arange(100) % 7])
    parts = em.Product({0: em.NegativeBinomial(), 1: em.Poisson()})
    mix = em.Mixture(1, parts, verbose=0).fit(x)
    assert "0: 1 component (0) has counts with no more spread than Poisson's" in mix.message_


def test_standard_errors_are_those_of_the_information_of_one_row() -> None:
    x = np.arange(3000.0)[:, None]
    w = 500 * nbinom(6.0, 2.0).pmf(x[:, 0])
    table = (
        em.Mixture(1, em.NegativeBinomial(), tol=1e-9, verbose=0)
        .fit(x, sample_weight=w)
        .standard_errors(x, sample_weight=w)
    )
    bend = w @ rising_slopes(x[:, 0], np.array([2.0]))[1] - 500 * 6.0 / (2.0 * 8.0)
    assert table["estimate"].to_numpy() == pytest.approx([6.0, 2.0], rel=1e-6)
    assert table["standard_error"].to_numpy() == pytest.approx([np.sqrt((6 + 18) / 500), 1 / np.sqrt(bend)], rel=1e-4)
