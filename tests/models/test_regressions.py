"""Mixtures of regressions: the generic proofs, weighted least squares, columns by name, what is refused."""

from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

import dask_em as em
from dask_em.distributions.linear_regression import LinearRegressionParams
from dask_em.models.mixture import MixtureParams
from dask_em.testing import check_model

RNG = np.random.default_rng(0)
KIND = np.repeat([0, 1], 100)
Z = RNG.normal(size=(200, 2)) * [1.0, 3.0] + [0.0, 2.0]
INTERCEPT, COEF = np.array([1.0, -1.0]), np.array([[2.0, 0.3], [-1.0, -0.3]])
ETA = INTERCEPT[KIND] + (Z * COEF[KIND]).sum(axis=1)
LINEAR = np.column_stack([Z[:, 0], ETA + RNG.normal(size=200) * np.where(KIND, 0.5, 1.0), Z[:, 1]])

CASES: dict[str, tuple[Any, np.ndarray]] = {
    "linear": (em.LinearRegression(1), LINEAR),
    "linear, one variance": (em.LinearRegression(1, shared_variance=True), LINEAR),
    "linear, no intercept": (em.LinearRegression(1, fit_intercept=False), LINEAR),
    "linear with a ridge": (em.LinearRegression(1, ridge=5.0), LINEAR),
    "linear with a prior": (em.LinearRegression(1, shared_variance=True, ridge=2.0, prior=(3.0, 0.7)), LINEAR),
    "linear, no predictor": (em.LinearRegression(0), LINEAR[:, [1]]),
}


def informed(distribution: Any, x: np.ndarray) -> Any:
    """The distribution, told of the columns as a fit tells it."""
    return distribution.within(x.min(axis=0), x.max(axis=0)).about(x.mean(axis=0)).in_units_of(x.var(axis=0))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_generic_proofs_hold(name: str, weighted: bool, dtype: Any) -> None:
    distribution, x = CASES[name]
    x = x.astype(dtype)
    w = np.random.default_rng(1).random(len(x)) if weighted else None
    chunks = [em.Chunk(x[rows], None if w is None else w[rows]) for rows in (slice(77), slice(77, None))]
    for own in (distribution, informed(distribution, x.astype(np.float64))):
        proved = check_model(em.MixtureModel(2, own), chunks)
        assert not [line for line in proved if line.startswith("not proved")]
        assert len(proved) == 12


def test_an_estimate_is_weighted_least_squares_by_the_textbook() -> None:
    x, w = LINEAR, RNG.random((200, 2))
    for distribution in (em.LinearRegression(1), informed(em.LinearRegression(1), x)):
        found = distribution.estimate(distribution.statistics(x, w))
        for k in range(2):
            design = np.column_stack([np.ones(200), x[:, [0, 2]]])
            root = np.sqrt(w[:, k])
            theta = np.linalg.lstsq(design * root[:, None], x[:, 1] * root, rcond=None)[0]
            assert np.append(found.intercept[k], found.coef[k]) == pytest.approx(theta, rel=1e-10)
            variance = w[:, k] @ (x[:, 1] - design @ theta) ** 2 / w[:, k].sum()
            assert found.sigma[k] ** 2 == pytest.approx(variance, rel=1e-10)


def test_large_means_cost_no_digits() -> None:
    far = LINEAR + [1e7, -1e6, 1e8]
    near, there = (informed(em.LinearRegression(1), x) for x in (LINEAR, far))
    resp = np.column_stack([1 - KIND, KIND]).astype(float)
    a, b = near.estimate(near.statistics(LINEAR, resp)), there.estimate(there.statistics(far, resp))
    assert b.coef == pytest.approx(a.coef, rel=1e-6)
    assert b.sigma == pytest.approx(a.sigma, rel=1e-6)
    assert there.log_density(b, far) == pytest.approx(near.log_density(a, LINEAR), abs=1e-5)


def test_a_ridge_is_rows_that_say_zero() -> None:
    """The prior of the coefficients is the likelihood of rows with one predictor each, and the response zero."""
    d = informed(em.LinearRegression(1, fit_intercept=False, ridge=5.0), LINEAR)
    said = np.sqrt(5.0 * LINEAR.var(axis=0))
    more = np.vstack([LINEAR, [[said[0], 0, 0], [0, 0, said[2]]]])
    plain = em.LinearRegression(1, fit_intercept=False)
    found = d.estimate(d.statistics(LINEAR, np.ones((200, 1))))
    theirs = plain.estimate(plain.statistics(more, np.ones((202, 1))))
    assert found.coef == pytest.approx(theirs.coef)
    assert found.sigma == pytest.approx(theirs.sigma)


def test_a_component_without_rows_takes_the_regression_of_all() -> None:
    d = em.LinearRegression(1)
    resp = np.column_stack([np.ones(200), np.zeros(200)])
    found = d.estimate(d.statistics(LINEAR, resp))
    assert found.coef[1] == pytest.approx(found.coef[0])
    assert found.sigma[1] == pytest.approx(found.sigma[0])


def test_a_response_by_name_wherever_the_data_is(tmp_path: Path) -> None:
    frame = pd.DataFrame(LINEAR, columns=["gnp", "co2", "area"])
    by_name = em.Mixture(2, em.LinearRegression(response="co2"), random_state=0, verbose=0).fit(frame)
    order = np.argsort(by_name.coef_[:, 0])[::-1]
    assert by_name.coef_[order] == pytest.approx(COEF, abs=0.3)
    assert by_name.intercept_[order] == pytest.approx(INTERCEPT, abs=0.5)
    assert by_name.sigma_[order] == pytest.approx([1.0, 0.5], abs=0.15)
    assert by_name.distribution_.predictors(3) == ["gnp", "area"]
    assert by_name.n_parameters() == 1 + 2 * 4
    by_place = em.Mixture(2, em.LinearRegression(1), random_state=0, verbose=0).fit(LINEAR)
    assert by_place.loglik_ == by_name.loglik_
    lazy = em.Mixture(2, em.LinearRegression("co2"), random_state=0, verbose=0).fit(
        dd.from_pandas(frame, npartitions=3)
    )
    assert lazy.loglik_ == pytest.approx(by_name.loglik_, abs=0.05)
    frame.to_parquet(tmp_path / "x.parquet")
    chosen = em.Mixture(2, em.LinearRegression("co2"), random_state=0, verbose=0)
    chosen.fit(str(tmp_path / "x.parquet"), columns=["co2", "gnp"])
    assert chosen.distribution_.predictors(2) == ["gnp"]
    labels = by_name.predict(frame)
    assert max(np.mean(labels == KIND), np.mean(labels != KIND)) > 0.85
    by_name.save(tmp_path / "m.safetensors")
    again = em.load(tmp_path / "m.safetensors")
    assert np.array_equal(again.predict_proba(frame), by_name.predict_proba(frame))
    assert again.distribution == em.LinearRegression("co2")


def test_a_sample_is_enough_to_begin_with(tmp_path: Path) -> None:
    """Data larger than the sample is fitted in a few passes, from a checkpoint as from the start."""
    x = np.tile(LINEAR, (100, 1)) + 0.01 * RNG.normal(size=(20_000, 3))
    whole = em.Mixture(2, em.LinearRegression(1), random_state=0, verbose=0).fit(x)
    settings: dict[str, Any] = {"random_state": 0, "verbose": 0, "sample_bytes": 40_000}
    part = em.Mixture(2, em.LinearRegression(1), **settings).fit(x)
    assert part.loglik_ == pytest.approx(whole.loglik_, abs=0.05)
    assert 1 < part.n_passes_ <= 12
    place = tmp_path / "c.safetensors"
    cut = em.Mixture(2, em.LinearRegression(1), checkpoint=place, max_passes=2, **settings)
    with pytest.warns(em.FitWarning):
        cut.fit(x)
    assert cut.set_params(max_passes=500).fit(x).loglik_ == part.loglik_


def test_a_regression_is_a_part_of_a_product() -> None:
    frame = pd.DataFrame(LINEAR, columns=["gnp", "co2", "area"])
    frame["visits"] = RNG.poisson(np.where(KIND, 1, 9))
    product = em.Product({("area", "co2", "gnp"): em.LinearRegression("co2"), "visits": em.Poisson()})
    mix = em.Mixture(2, product, random_state=0, verbose=0).fit(frame)
    order = np.argsort(mix.components_["visits"].rates.ravel())[::-1]
    assert mix.components_["co2"].coef[order] == pytest.approx(COEF[:, ::-1], abs=0.3)
    model = em.MixtureModel(2, product.resolved(list(frame.columns)))
    assert len(check_model(model, [em.Chunk(frame.to_numpy(dtype=float))])) == 12
    with pytest.raises(em.ConfigurationError, match="has the response 'visits', and the data has columns 'gnp', 'co2'"):
        em.Product({("gnp", "co2"): em.LinearRegression("visits")}).resolved(["gnp", "co2"])


@pytest.mark.parametrize(
    ("response", "x", "said"),
    [
        ("co2", LINEAR, "names its response 'co2', and the data has columns without names: give its position"),
        ("co", pd.DataFrame(LINEAR, columns=["a", "b", "co2"]), "has the response 'co', and the data has columns 'a'"),
        (3, LINEAR, "column 3 for its response, and the data has 3 columns, 0 to 2"),
    ],
)
def test_a_response_that_is_no_column_is_refused(response: Any, x: Any, said: str) -> None:
    with pytest.raises(em.ConfigurationError, match=said):
        em.Mixture(2, em.LinearRegression(response), verbose=0).fit(x)


def test_nothing_to_fit_is_refused() -> None:
    with pytest.raises(em.ConfigurationError, match="neither predictors nor an intercept"):
        em.Mixture(2, em.LinearRegression(0, fit_intercept=False), verbose=0).fit(LINEAR[:, :1])


def test_predictors_that_depend_on_each_other_are_named() -> None:
    frame = pd.DataFrame(LINEAR, columns=["gnp", "co2", "area"])
    frame["double"] = 2 * frame["gnp"] + 1
    with pytest.raises(em.DegenerateError, match="as gnp and double are linearly dependent in its rows: leave a"):
        em.Mixture(2, em.LinearRegression("co2"), verbose=0).fit(frame)
    mix = em.Mixture(2, em.LinearRegression("co2", ridge=1e-3), random_state=0, verbose=0).fit(frame)
    assert mix.converged_
    constant = np.column_stack([LINEAR[:, :2], np.ones(200)])
    with pytest.raises(em.DegenerateError, match="as x2 is always the same in its rows"):
        em.Mixture(2, em.LinearRegression(1), verbose=0).fit(constant)
    with pytest.raises(em.DegenerateError, match="as x2 is always zero in its rows"):
        em.Mixture(2, em.LinearRegression(1, fit_intercept=False), verbose=0).fit(constant * [1, 1, 0])


def test_a_component_that_passes_through_its_rows_ends_its_start() -> None:
    x = np.column_stack([LINEAR[:, 0], np.where(KIND, LINEAR[:, 0], LINEAR[:, 1])])
    d = em.LinearRegression(1)
    sums = d.statistics(x, np.column_stack([1 - KIND, KIND]).astype(float))
    with pytest.raises(em.DegenerateError, match="passes through its rows exactly, where the likelihood has no bound"):
        d.estimate(sums)
    held = em.Mixture(2, em.LinearRegression(1, prior=(1.0, 0.1)), random_state=0, verbose=0).fit(x)
    assert held.converged_
    assert held.sigma_.min() == pytest.approx(0.01, abs=0.003)  # (1 x 0.1²) / (100 + 1)


MISSING = [
    (em.LinearRegression("y"), lambda eta, rng: eta + rng.normal(size=len(eta))),
    (em.PoissonRegression("y"), lambda eta, rng: rng.poisson(np.exp(eta))),
    (em.LogisticRegression("y"), lambda eta, rng: rng.random(len(eta)) < 1 / (1 + np.exp(-eta))),
]


@pytest.mark.parametrize(("distribution", "draw"), MISSING)
def test_a_predictor_that_is_missing_is_refused_by_its_place(distribution: Any, draw: Any) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"z": rng.normal(size=50), "y": draw(np.zeros(50), rng).astype(float)})
    frame.loc[5, "z"] = np.nan
    words = "row 5, column 'z' is NaN, where .* needs all but the response: fill predictors in first"
    with pytest.raises(em.DataError, match=words):
        em.Mixture(2, distribution, verbose=0).fit(frame)


@pytest.mark.parametrize(("distribution", "draw"), MISSING)
def test_rows_whose_response_is_missing_say_nothing(distribution: Any, draw: Any) -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=3000)
    frame = pd.DataFrame({"z": z, "y": draw(np.where(np.arange(3000) < 1500, 2 * z - 1, 1 - z), rng).astype(float)})
    frame.loc[rng.random(3000) < 0.3, "y"] = np.nan
    settings: dict[str, Any] = {"random_state": 0, "verbose": 0, "tol": 1e-8}
    k = 1 if isinstance(distribution, em.LogisticRegression) else 2  # single answers hardly tell two of them apart
    holed = em.Mixture(k, distribution, **settings).fit(frame)
    whole = em.Mixture(k, distribution, **settings).fit(frame.dropna())
    a, b = np.argsort(holed.coef_[:, 0]), np.argsort(whole.coef_[:, 0])
    assert holed.loglik_ == pytest.approx(whole.loglik_, abs=1e-5)
    assert holed.coef_[a] == pytest.approx(whole.coef_[b], abs=2e-3)
    assert holed.weights_[a] == pytest.approx(whole.weights_[b], abs=2e-3)
    missing = frame["y"].isna().to_numpy()
    assert holed.predict_proba(frame)[missing] == pytest.approx(np.tile(holed.weights_, (missing.sum(), 1)))
    assert holed.score_samples(frame)[missing] == pytest.approx(0, abs=1e-15)
    assert np.isfinite(holed.predict_response(frame)).all()


def test_no_response_at_all_is_said() -> None:
    x = np.column_stack([np.arange(20.0), np.full(20, np.nan)])
    with pytest.raises(em.DataError, match="column 1"):
        em.Mixture(1, em.LinearRegression(1), verbose=0).fit(x)


def test_hardly_any_residuals_are_said() -> None:
    d = informed(em.LinearRegression(1), LINEAR)
    thin = LinearRegressionParams(COEF, INTERCEPT, np.array([1.0, 1e-7]))
    assert d.degeneracies(thin)[0].startswith("1 component (1) has hardly any residuals")
    model = em.MixtureModel(2, d)
    assert model.degeneracies(MixtureParams(np.array([0.5, 0.5]), thin)) == d.degeneracies(thin)


def test_rows_cannot_be_drawn_without_predictors() -> None:
    mix = em.Mixture(2, em.LinearRegression(1), random_state=0, verbose=0).fit(LINEAR)
    with pytest.raises(TypeError, match="cannot draw rows, .* Mixture.sample_response draws responses"):
        mix.sample(3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: em.LinearRegression(-1),
        lambda: em.LinearRegression(1.5),  # type: ignore[arg-type]
        lambda: em.LinearRegression(True),
        lambda: em.LinearRegression("y", ridge=-1),
        lambda: em.LinearRegression("y", prior=(1, 0)),
        lambda: em.LinearRegression("y", prior=(-1, 1)),
        lambda: em.LinearRegression("y", prior=5),  # type: ignore[arg-type]
        lambda: em.LinearRegression("y", prior=("1", 1)),  # type: ignore[arg-type]
    ],
)
def test_hyperparameters_are_checked(make: Any) -> None:
    with pytest.raises(em.ConfigurationError):
        make()


def test_a_predictor_that_is_missing_is_refused_in_predictions_too() -> None:
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"z": rng.normal(size=90), "y": rng.poisson(3, 90)})
    mix = em.Mixture(2, em.PoissonRegression("y"), random_state=0, verbose=0).fit(frame)
    frame = frame.astype(float)
    frame.loc[50, "z"] = np.nan
    words = "column 'z' is NaN, where PoissonRegression needs all but the response"
    for ask in (mix.predict, mix.score, mix.entropy, mix.predict_response):
        with pytest.raises(em.DataError, match=f"row 50, {words}"):
            ask(frame)
    lazy = mix.predict(dd.from_pandas(frame, npartitions=2))
    with pytest.raises(em.DataError, match=rf"chunk 1 .*: row 5, {words}"):
        lazy.compute(scheduler="threads")


def test_what_is_in_the_response_has_no_say_in_its_prediction() -> None:
    rng = np.random.default_rng(2)
    x = np.column_stack([rng.normal(size=90), rng.poisson(3, 90)])
    mix = em.Mixture(2, em.PoissonRegression(1), random_state=0, verbose=0).fit(x)
    other = x.copy()
    other[:, 1] = -0.5
    assert np.array_equal(mix.predict_response(other), mix.predict_response(x))
    with pytest.raises(em.DataError, match=r"row 0, column 1 is -0.5, where PoissonRegression needs a count"):
        mix.predict(other)
