"""The mean of the response of mixtures of regressions, of data in memory and beyond."""

from pathlib import Path
from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import zarr
from click.testing import CliRunner

import dask_em as em
from dask_em.cli import em as command

RNG = np.random.default_rng(0)
KIND = RNG.integers(2, size=1000)
FRAME = pd.DataFrame({"age": RNG.normal(40, 5, 1000), "days": RNG.integers(1, 30, 1000), "dose": RNG.normal(size=1000)})
ETA = np.where(KIND, 1.0 - 0.5 * FRAME["dose"], 0.5 * FRAME["dose"])
SETTINGS: dict[str, Any] = {"random_state": 0, "verbose": 0}
RESPONSES = {
    "linear": (em.LinearRegression("y"), ETA + RNG.normal(size=1000)),
    "poisson": (em.PoissonRegression("y", exposure="days"), RNG.poisson(FRAME["days"] * np.exp(ETA))),
    "logistic": (em.LogisticRegression("y", trials="days"), RNG.binomial(FRAME["days"], 1 / (1 + np.exp(-ETA)))),
}


@pytest.fixture(scope="module", params=RESPONSES)
def fitted(request: Any) -> tuple[str, em.Mixture, pd.DataFrame]:
    distribution, y = RESPONSES[request.param]
    data = FRAME.assign(y=y)[["age", "y", "days", "dose"]].astype(float)
    return request.param, em.Mixture(2, distribution, **SETTINGS).fit(data), data


def test_it_is_what_the_coefficients_say(fitted: tuple[str, em.Mixture, pd.DataFrame]) -> None:
    name, mix, data = fitted
    predictors = mix.distribution_.predictors(4)
    eta = mix.intercept_ + data[predictors].to_numpy() @ mix.coef_.T
    days = data[["days"]].to_numpy()
    means = {"linear": eta, "poisson": days * np.exp(eta), "logistic": days / (1 + np.exp(-eta))}[name]
    assert mix.predict_response(data, by_component=True) == pytest.approx(means, rel=1e-10)
    assert mix.predict_response(data) == pytest.approx(means @ mix.weights_, rel=1e-10)


def test_responses_are_drawn_as_they_are_distributed(fitted: tuple[str, em.Mixture, pd.DataFrame]) -> None:
    name, mix, data = fitted
    many = pd.concat([data.iloc[:5]] * 4000, ignore_index=True)
    drawn = mix.sample_response(many.drop(columns="y"), random_state=1)
    means = mix.predict_response(data.iloc[:5], by_component=True)
    own = {  # variances given the component
        "linear": lambda m: mix.sigma_**2 + 0 * m if hasattr(mix, "sigma_") else m,
        "poisson": lambda m: m,
        "logistic": lambda m: m * (1 - m / data["days"].to_numpy()[:5, None]),
    }[name](means)
    mean = means @ mix.weights_
    variance = (own + means**2) @ mix.weights_ - mean**2
    each = drawn.reshape(4000, 5)
    assert (np.abs(each.mean(axis=0) - mean) < 4 * np.sqrt(variance / 4000)).all()
    assert each.var(axis=0) == pytest.approx(variance, rel=0.15)
    if name != "linear":
        assert (drawn == np.floor(drawn)).all()
        assert (drawn >= 0).all()
    assert np.array_equal(drawn, mix.sample_response(many, random_state=1))  # the response has no say
    assert not np.array_equal(drawn, mix.sample_response(many, random_state=2))
    lazy = mix.sample_response(da.from_array(many.to_numpy(), chunks=(777, 4)), random_state=1)
    assert np.array_equal(lazy.compute(), drawn)


def test_the_response_has_no_say_and_may_be_absent(
    fitted: tuple[str, em.Mixture, pd.DataFrame], tmp_path: Path
) -> None:
    _, mix, data = fitted
    expected = mix.predict_response(data)
    assert np.array_equal(mix.predict_response(data.assign(y=-7.5)), expected)
    without = data.drop(columns="y")
    data.to_parquet(tmp_path / "x.parquet")
    without.to_parquet(tmp_path / "thin.parquet")
    zarr.save_array(tmp_path / "thin.zarr", without.to_numpy())
    for x in (
        tmp_path / "thin.parquet",
        tmp_path / "thin.zarr",
        without,
        without[["dose", "days", "age"]],
        dd.from_pandas(without, npartitions=3),
        dd.from_pandas(data, npartitions=3),
        tmp_path / "x.parquet",
    ):
        assert np.asarray(mix.predict_response(x)) == pytest.approx(expected, rel=1e-12)


def test_arrays_may_lack_the_response() -> None:
    x = FRAME[["age", "dose"]].assign(y=RESPONSES["linear"][1])[["age", "y", "dose"]].to_numpy()
    mix = em.Mixture(2, em.LinearRegression(1), **SETTINGS).fit(x)
    expected = mix.predict_response(x, by_component=True)
    assert expected.shape == (1000, 2)
    thin = np.delete(x, 1, axis=1)
    assert np.array_equal(mix.predict_response(thin, by_component=True), expected)
    assert mix.predict_response(thin.tolist()) == pytest.approx(expected @ mix.weights_)
    lazy = mix.predict_response(da.from_array(thin, chunks=(300, 1)), by_component=True)
    assert isinstance(lazy, da.Array)
    assert lazy.compute() == pytest.approx(expected)
    with pytest.raises(em.DataError, match="1 features"):
        mix.predict_response(thin[:, :1])


def test_what_is_no_regression_has_no_response() -> None:
    mix = em.Mixture(1, em.Poisson(), **SETTINGS).fit(RNG.poisson(3.0, (50, 2)))
    with pytest.raises(em.ConfigurationError, match="a mixture of Poisson has no response"):
        mix.predict_response(np.ones((3, 2)))


def test_the_command_writes_it(fitted: tuple[str, em.Mixture, pd.DataFrame], tmp_path: Path) -> None:
    _, mix, data = fitted
    model, rows = str(tmp_path / "m"), str(tmp_path / "x.parquet")
    mix.save(model)
    data.drop(columns="y").to_parquet(rows)
    for name in ("out.parquet", "out.zarr"):
        run = CliRunner().invoke(command, ["predict", model, rows, "--response", "--out", str(tmp_path / name)])
        assert run.exit_code == 0, run.output
    expected = mix.predict_response(data)
    assert pd.read_parquet(tmp_path / "out.parquet")["response"].to_numpy() == pytest.approx(expected, rel=1e-12)
    assert zarr.open_array(tmp_path / "out.zarr")[:] == pytest.approx(expected, rel=1e-12)
    both = CliRunner().invoke(
        command, ["predict", model, rows, "--response", "--proba", "--out", str(tmp_path / "no.zarr")]
    )
    assert "--proba and --response exclude each other" in both.output
    assert both.exit_code == 78


def test_the_command_refuses_models_without_responses(tmp_path: Path) -> None:
    x = FRAME[["age", "dose"]]
    x.to_parquet(tmp_path / "x.parquet")
    for estimator, words in (
        (em.Mixture(1, em.Gaussian(), **SETTINGS), "a mixture of Gaussian has no response"),
        (em.KMeans(2, **SETTINGS), "is a KMeans, which has no --response"),
    ):
        estimator.fit(x).save(tmp_path / "m")
        asked = ["predict", str(tmp_path / "m"), str(tmp_path / "x.parquet"), "--response"]
        run = CliRunner().invoke(command, [*asked, "--out", str(tmp_path / "o.zarr")])
        assert run.exit_code == 78
        assert words in run.output
        assert not (tmp_path / "o.zarr").exists()


def test_a_predictor_that_cannot_be_is_named_in_a_file_without_responses(tmp_path: Path) -> None:
    distribution, y = RESPONSES["poisson"]
    mix = em.Mixture(2, distribution, **SETTINGS).fit(FRAME.assign(y=y)[["y", "age", "days", "dose"]].astype(float))
    wrong = FRAME.astype(float)
    wrong.loc[700, "days"] = 0.0
    wrong.to_parquet(tmp_path / "x.parquet")
    with pytest.raises(em.DataError, match=r"row 700, column 'days' is 0, where PoissonRegression needs an exposure"):
        mix.predict_response(tmp_path / "x.parquet").compute()
