"""Standard errors: textbook formulas, second derivatives taken by hand, simulated coverage, and what is not known."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import dask_em as em


def gm(k: int, **settings: Any) -> em.GaussianMixture:
    return em.GaussianMixture(k, **{"random_state": 0, "verbose": 0, "reg_covar": 0.0, "tol": 1e-6, **settings})


def errors(table: pd.DataFrame, parameter: str) -> np.ndarray:
    return table.loc[table["parameter"] == parameter, "standard_error"].to_numpy()


def hessian(f: Any, at: np.ndarray) -> np.ndarray:
    """By central differences of a step that suits each coordinate."""
    h = 1e-3 * np.maximum(np.abs(at), 0.1)
    steps = np.diag(h)
    return np.array(
        [[(f(at + a + b) - f(at + a - b) - f(at - a + b) + f(at - a - b)) / (4 * a.max() * b.max()) for b in steps]
         for a in steps]
    )  # fmt: skip


# ---------------------------------------------------------------- known answers


@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_one_gaussian(shift: float) -> None:
    x = np.random.default_rng(0).normal(5 + shift, 2, size=(500, 1))
    table = gm(1).fit(x).standard_errors(x)
    assert errors(table, "means") == pytest.approx(x.std() / np.sqrt(500), rel=1e-4)
    assert errors(table, "covariances") == pytest.approx(x.var() * np.sqrt(2 / 500), rel=1e-4)
    row = table.iloc[0]
    assert row["estimate"] == pytest.approx(x.mean())
    assert row["upper"] - row["estimate"] == pytest.approx(stats.norm.ppf(0.975) * row["standard_error"])
    narrow = gm(1).fit(x).standard_errors(x, level=0.5)
    assert (narrow["upper"] < table["upper"]).all()


def test_covariances_of_columns_by_wisharts_formula() -> None:
    x = np.random.default_rng(1).normal(size=(2000, 3)) @ np.array([[2.0, 1.0, 0.0], [0.0, 1.0, -0.5], [0.0, 0.0, 0.3]])
    for model in (gm(1), em.GaussianImputer(verbose=0)):
        found = errors(model.fit(x).standard_errors(x), "covariances")
        s = np.cov(x.T, bias=True)
        i, j = np.triu_indices(3)
        assert found == pytest.approx(np.sqrt((s[i, i] * s[j, j] + s[i, j] ** 2) / 2000), rel=1e-4)


def test_weights_are_repetitions() -> None:
    rng = np.random.default_rng(2)
    x, w = rng.poisson(3.0, size=(50, 1)).astype(float), rng.integers(1, 6, size=50).astype(float)
    mix = em.Mixture(1, em.Poisson(), verbose=0).fit(x, sample_weight=w)
    once = errors(mix.standard_errors(x, w), "rates")
    assert once == pytest.approx(np.sqrt(mix.rates_[0] / w.sum()), rel=1e-5)
    assert errors(mix.standard_errors(np.repeat(x, w.astype(int), axis=0)), "rates") == pytest.approx(once, rel=1e-6)


@pytest.mark.parametrize("holes", [False, True])
def test_second_derivatives_taken_by_hand(holes: bool) -> None:
    rng = np.random.default_rng(3)
    labels = rng.random(600) < 0.35
    x = np.where(labels[:, None], rng.normal(0, 1, (600, 2)), rng.normal(2.5, 1.4, (600, 2)))
    if holes:
        x[rng.random(x.shape) < 0.2] = np.nan
    model = gm(2, covariance_type="diag", tol=1e-9).fit(x)

    def loglik(free: np.ndarray) -> float:
        w, means, variances = free[0], free[1:5].reshape(2, 2), free[5:].reshape(2, 2)
        each = [np.nansum(stats.norm.logpdf(x, m, np.sqrt(v)), axis=1) for m, v in zip(means, variances)]
        return float(np.logaddexp(np.log(w) + each[0], np.log(1 - w) + each[1]).sum())

    at = np.concatenate([model.weights_[:1], model.means_.ravel(), model.covariances_.ravel()])
    expected = np.linalg.inv(-hessian(loglik, at))
    own = np.r_[0, 2:10]  # the second weight is what the first leaves
    found = model.covariance_of_estimates(x).to_numpy()[np.ix_(own, own)]
    scale = np.sqrt(np.diag(expected))
    assert found / np.outer(scale, scale) == pytest.approx(expected / np.outer(scale, scale), abs=2e-4)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    hits = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        x = np.concatenate([rng.normal(0, 1, (150, 1)), rng.normal(4, 1, (250, 1))])
        model = gm(2, n_init=1, means_init=[[0.0], [4.0]]).fit(x)
        table = model.standard_errors(x, level=0.9)
        rows = table[table["parameter"] == "means"]
        hits.append((rows["lower"] < [0, 4]) & (rows["upper"] > [0, 4]))
    assert np.mean(hits) == pytest.approx(0.9, abs=0.03)  # 400 intervals: two standard errors


# ---------------------------------------------------------------- kinds


def test_gradients_say_the_same_where_the_model_is_right() -> None:
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.normal(0, 1, (8000, 2)), rng.normal(3, 1, (12000, 2))])
    model = gm(2).fit(x)
    observed, empirical, robust = (model.standard_errors(x, kind=k) for k in ("observed", "empirical", "robust"))
    ratio = np.array([empirical["standard_error"], robust["standard_error"]]) / observed["standard_error"].to_numpy()
    assert ratio == pytest.approx(1, abs=0.05)


def test_the_sandwich_holds_where_the_model_is_wrong() -> None:
    x = np.random.default_rng(5).negative_binomial(2, 0.2, size=(3000, 1)).astype(float)
    mix = em.Mixture(1, em.Poisson(), verbose=0).fit(x)
    assert errors(mix.standard_errors(x, kind="robust"), "rates") == pytest.approx(x.std() / np.sqrt(3000), rel=1e-4)
    assert errors(mix.standard_errors(x), "rates") == pytest.approx(np.sqrt(x.mean() / 3000), rel=1e-4)


def test_many_parameters_are_done_by_gradients() -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(4000, 17))
    model = gm(1).fit(x)  # 170 coordinates
    auto, empirical = model.standard_errors(x), model.standard_errors(x, kind="empirical")
    pd.testing.assert_frame_equal(auto, empirical)
    assert errors(auto, "means") == pytest.approx(x.std(axis=0) / np.sqrt(4000), rel=0.1)


@pytest.mark.parametrize("kind", ["observed", "empirical"])
def test_a_sample_stands_for_data_beyond_it(kind: str) -> None:
    rng = np.random.default_rng(7)
    x = np.concatenate([rng.normal(0, 1, (100_000, 2)), rng.normal(4, 1, (100_000, 2))])
    model = gm(2).fit(x)
    whole = model.standard_errors(x, kind=kind)
    part = model.standard_errors(x, kind=kind, sample_bytes=20_000 * 32)
    assert part["standard_error"].to_numpy() == pytest.approx(whole["standard_error"].to_numpy(), rel=0.05)


def test_threads_and_a_cluster_say_the_same(client: Any) -> None:
    from dask_em.executors.dask import DaskExecutor

    rng = np.random.default_rng(8)
    x = np.concatenate([rng.normal(0, 1, (3000, 2)), rng.normal(4, 1, (3000, 2))])
    blocks = da.from_array(x, chunks=(700, 2))
    model = gm(2).fit(x)
    here = model.standard_errors(blocks)
    model.executor = DaskExecutor(client)
    pd.testing.assert_frame_equal(model.standard_errors(blocks), here, check_exact=True)


# ---------------------------------------------------------------- what numbers are called


def test_numbers_are_named_by_component_and_column() -> None:
    rng = np.random.default_rng(9)
    frame = pd.DataFrame(rng.normal(size=(300, 2)) + 5 * (rng.random((300, 1)) < 0.5), columns=["lat", "lon"])
    tied = gm(2, covariance_type="tied").fit(frame).standard_errors()
    told = tied[tied["parameter"] == "covariances"]
    assert told["component"].isna().all()
    assert told["of"].tolist() == ["lat, lat", "lat, lon", "lon, lon"]
    means = tied[tied["parameter"] == "means"]
    assert means["component"].tolist() == [0, 0, 1, 1]
    assert means["of"].tolist() == ["lat", "lon"] * 2
    matrix = gm(2).fit(frame).covariance_of_estimates()
    assert matrix.loc[("means", 1, "lon"), ("means", 1, "lon")] > 0


def test_parts_of_a_product_are_named_after_their_columns() -> None:
    rng = np.random.default_rng(10)
    frame = pd.DataFrame(
        {"age": rng.normal(40, 10, 500), "smokes": rng.random(500) < 0.3, "drinks": rng.random(500) < 0.6}
    )
    product = em.Product({"age": em.Gaussian("diag"), ("smokes", "drinks"): em.Bernoulli()})
    table = em.Mixture(1, product, verbose=0).fit(frame).standard_errors()
    assert table["parameter"].tolist() == ["age.means", "age.covariances", *["smokes, drinks.probabilities"] * 2]
    assert table["of"].tolist() == ["age", "age", "smokes", "drinks"]
    share = frame["drinks"].mean()
    assert table["standard_error"].iloc[3] == pytest.approx(np.sqrt(share * (1 - share) / 500), rel=1e-4)


def test_factor_analysis_says_it_of_uniquenesses() -> None:
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(8, 2))

    def draw(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return rng.normal(size=(2000, 2)) @ loadings.T + rng.normal(size=(2000, 8))

    fits = [em.FactorAnalysis(2, verbose=0, tol=1e-6).fit(draw(seed)).noise_variance_ for seed in range(100)]
    x = draw(1000)
    found = errors(em.FactorAnalysis(2, verbose=0, tol=1e-6).fit(x).standard_errors(x), "noise_variance")
    assert found == pytest.approx(np.std(fits, axis=0), rel=0.25)


# ---------------------------------------------------------------- what is not known


def test_more_components_than_there_are() -> None:
    x = np.random.default_rng(11).normal(size=(400, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.FitWarning)
        model = gm(2, covariance_type="spherical", means_init=[[0.0], [1e-9]], max_passes=5).fit(x)
    with pytest.warns(em.FitWarning, match="does not bend down along every direction"):
        table = model.standard_errors(x)
    assert table.loc[table["parameter"] == "weights", "standard_error"].isna().all()


def test_a_probability_of_zero_has_none_and_the_others_have() -> None:
    rng = np.random.default_rng(12)
    x = (rng.random((500, 2)) < [0.4, 0.0]).astype(float)
    mix = em.Mixture(1, em.Bernoulli(), verbose=0).fit(x)
    with pytest.warns(em.FitWarning, match="at the edge"):
        found = errors(mix.standard_errors(x), "probabilities")
    share = x[:, 0].mean()
    assert found[0] == pytest.approx(np.sqrt(share * (1 - share) / 500), rel=1e-4)
    assert np.isnan(found[1])


def test_probabilities_on_their_way_to_an_edge_do_not_matter_wherever_the_fit_stops() -> None:
    rng = np.random.default_rng(13)
    first = rng.random(400) < 0.4
    x = (rng.random((400, 5)) < np.where(first[:, None], [1.0, 0.9, 0.7, 1.0, 0.6], [0.0, 0.2, 0.3, 0.4, 0.1])).astype(
        float
    )
    found, mix = [], em.Mixture(2, em.Bernoulli(), verbose=0, tol=1e-6, random_state=0).fit(x)
    p = mix.probabilities_
    low, high = p < 1e-3, p > 1 - 1e-3
    for creep in (0.0, 1e-16, 1e-13, 1e-10, 1e-7, 1e-4):
        mix.probabilities_ = np.where(low, creep, np.where(high, 1 - creep, p))
        with pytest.warns(em.FitWarning, match="at the edge"):
            found.append(
                [mix.standard_errors(x, kind=k)["standard_error"] for k in ("observed", "empirical", "robust")]
            )
    found = np.array(found)
    assert low.any()
    assert high.any()
    assert np.isnan(found[0, 0]).sum() == (low | high).sum()
    assert found == pytest.approx(np.broadcast_to(found[0], found.shape), rel=2e-3, nan_ok=True)


def test_intervals_lie_within_what_is_possible() -> None:
    x = np.r_[np.ones(2), np.zeros(28)][:, None]
    table = em.Mixture(1, em.Bernoulli(), verbose=0).fit(x).standard_errors(x)
    share = 2 / 30
    reach = stats.norm.ppf(0.975) * np.sqrt(1 / (30 * share * (1 - share)))
    odds = np.log(share / (1 - share)) + reach * np.array([-1, 1])
    assert table[["lower", "upper"]].to_numpy()[0] == pytest.approx(1 / (1 + np.exp(-odds)), rel=1e-4)
    y = np.random.default_rng(14).normal(size=(8, 1))
    own = gm(1).fit(y).standard_errors(y).iloc[1]
    assert own["lower"] * own["upper"] == pytest.approx(own["estimate"] ** 2)
    assert own["upper"] / own["estimate"] == pytest.approx(np.exp(stats.norm.ppf(0.975) * np.sqrt(2 / 8)), rel=1e-4)


def test_a_fit_that_has_not_converged_is_said(three_blobs: np.ndarray) -> None:
    with pytest.warns(em.FitWarning):
        model = gm(3, max_passes=2, solver="em", n_init=1).fit(three_blobs)
    with pytest.warns(em.FitWarning, match="max_passes"):
        model.standard_errors(three_blobs)


# ---------------------------------------------------------------- the data of the fit


def test_the_data_of_the_fit_is_found_again(three_blobs: np.ndarray, tmp_path: Path) -> None:
    frame = pd.DataFrame(three_blobs, columns=["a", "b", "c"])
    frame.to_parquet(tmp_path / "x.parquet")
    given = gm(2).fit(frame, columns=["b", "c"])
    again = given.standard_errors()
    pd.testing.assert_frame_equal(again, given.standard_errors(frame))
    path = gm(2).fit(tmp_path / "x.parquet", columns=["b", "c"], filters=[("a", ">", 0)])
    shown = path.standard_errors()
    there = frame[frame["a"] > 0]
    assert shown["standard_error"].to_numpy() == pytest.approx(path.standard_errors(there)["standard_error"].to_numpy())


def test_the_data_is_not_kept_alive_nor_stored(three_blobs: np.ndarray, tmp_path: Path) -> None:
    model = gm(2).fit(three_blobs.copy())
    with pytest.raises(em.DataError, match="no longer in memory: pass it"):
        model.standard_errors()
    model.fit(three_blobs)
    model.save(tmp_path / "m.safetensors")
    for other in (em.load(tmp_path / "m.safetensors"), pickle.loads(pickle.dumps(model))):
        with pytest.raises(em.DataError, match="does not know its data: pass it"):
            other.standard_errors()
        pd.testing.assert_frame_equal(other.standard_errors(three_blobs), model.standard_errors())


def test_what_cannot_be_asked(three_blobs: np.ndarray) -> None:
    model = gm(2).fit(three_blobs)
    with pytest.raises(em.ConfigurationError, match="level=95"):
        model.standard_errors(level=95)
    with pytest.raises(em.ConfigurationError, match="kind='hessian'"):
        model.standard_errors(kind="hessian")
    with pytest.raises(em.DataError, match="2 features"):
        model.standard_errors(three_blobs[:, :2])


def test_categories_are_told_by_their_names() -> None:
    rng = np.random.default_rng(0)
    z = rng.integers(2, size=800)
    frame = pd.DataFrame({
        "party": np.where(rng.random(800) < 0.3 + 0.4 * z, "left", "right"),
        "vote": np.where(rng.random(800) < 0.2 + 0.5 * z, "yes", np.where(rng.random(800) < 0.3, "no", "none")),
        "code": np.minimum(rng.poisson(1 + z), 2),
    })  # fmt: skip
    expected = ["party, left", "party, right", "vote, no", "vote, none", "vote, yes", *(f"code, {i}" for i in range(3))]
    table = em.Mixture(2, em.Categorical(), random_state=0, verbose=0).fit(frame).standard_errors(frame)
    told = table[table["parameter"] == "probabilities"]
    assert told["of"].tolist() == 2 * expected  # and nothing of a third party
    assert (told["standard_error"] > 0).all()
    parts = {("party", "vote"): em.Categorical(), 2: em.Categorical()}
    table = em.Mixture(2, em.Product(parts), random_state=0, verbose=0).fit(frame).standard_errors(frame)
    assert table["of"][2:12].tolist() == 2 * expected[:5]
    assert table["of"][12:].tolist() == 2 * [f"2, {i}" for i in range(3)]


def test_columns_without_parameters_have_none_in_a_product_either() -> None:
    rng = np.random.default_rng(0)
    days = rng.integers(1, 9, 300)
    frame = pd.DataFrame({"a": rng.poisson(days), "b": rng.poisson(3 * days), "days": days, "x": rng.normal(size=300)})
    product = em.Product({("a", "b", "days"): em.Poisson(exposure="days"), "x": em.Gaussian("diag")})
    table = em.Mixture(1, product, random_state=0, verbose=0).fit(frame).standard_errors(frame)
    assert table["of"].tolist() == ["a", "b", "x", "x"]
