"""What estimators take and keep: arguments, files, names of columns, secrets."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dask_em as em
from dask_em import store
from dask_em.callbacks import Quiet
from dask_em.estimators.files import RECORD


def gm(k: int = 2, **settings: Any) -> em.GaussianMixture:
    return em.GaussianMixture(k, random_state=0, verbose=0, **settings)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(-3, 1, (300, 3)), rng.normal(3, 1, (300, 3))])


@pytest.fixture(scope="module")
def named(x: np.ndarray) -> em.GaussianMixture:
    return gm().fit(pd.DataFrame(x, columns=["a", "b", "c"]))


# ---------------------------------------------------------------- secrets


def test_secrets_are_neither_saved_nor_shown(x: np.ndarray, tmp_path: Path) -> None:
    secret = "hunter2hunter2"
    fitted = gm(
        checkpoint=f"s3://user:{secret}@bucket/c.safetensors",
        checkpoint_options={"skip_instance_cache": False, "token": secret},
        callbacks=[Quiet()],
        executor=em.ThreadsExecutor(),
    )
    assert secret not in repr(fitted)
    assert "token" in repr(fitted)
    assert secret not in fitted._repr_html_()
    assert fitted.checkpoint_options["token"] == secret
    fitted = (
        gm(callbacks=[Quiet()]).fit(x).set_params(checkpoint_options={"token": secret}, checkpoint=f"s3://{secret}")
    )
    fitted.save(tmp_path / "m.safetensors")
    assert secret.encode() not in (tmp_path / "m.safetensors").read_bytes()
    back = em.load(tmp_path / "m.safetensors")
    assert back.checkpoint_options is None
    assert np.array_equal(back.predict(x), fitted.predict(x))


# ---------------------------------------------------------------- files that are not to be believed


def tree_of(model: em.GaussianMixture, path: Path) -> dict[str, Any]:
    model.save(path)
    tree: dict[str, Any] = store.load(path, kind="model")
    return tree


WRONG: dict[str, Any] = {
    "covariance_type": lambda t: t["hyperparameters"].update(covariance_type="bogus"),
    "hyperparameters": lambda t: t.update(hyperparameters=[1]),
    "fitted": lambda t: t.update(fitted=None),
    "n_components": lambda t: t["hyperparameters"].update(n_components="two"),
    "loglik_": lambda t: t["fitted"].pop("loglik_"),
    "history_": lambda t: t["fitted"].update(history_=3),
    "restart_records_": lambda t: t["fitted"].update(restart_records_=[1, 2]),
    "n_rows_": lambda t: t["fitted"].update(n_rows_=-1),
    "names": lambda t: t.update(feature_names=["a", "b"]),
    "names' type": lambda t: t.update(feature_names="abc"),
    "NaN": lambda t: t["fitted"].update(means_=np.full((2, 3), np.nan)),
    "shape": lambda t: t["fitted"].update(covariances_=np.ones((3, 3))),
    "text": lambda t: t["fitted"].update(weights_="abc"),
    "shares": lambda t: t["fitted"].update(weights_=np.array([3.0, -2.0])),
    "surplus": lambda t: t["fitted"].update(predict=1),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_file_that_describes_no_model_is_refused(named: em.GaussianMixture, tmp_path: Path, fault: str) -> None:
    path = tmp_path / "m.safetensors"
    tree = tree_of(named, path)
    WRONG[fault](tree)
    store.save(tree, path, kind="model")
    with pytest.raises(em.StoreError, match="m.safetensors does not hold a usable GaussianMixture: .*; save the model"):
        em.load(path)


def test_the_whole_record_is_saved(named: em.GaussianMixture, tmp_path: Path) -> None:
    back = em.load(tree_of(named, tmp_path / "m.safetensors") and tmp_path / "m.safetensors")
    assert all(getattr(back, name) == getattr(named, name) for name in RECORD)


def test_a_class_cannot_take_another_ones_name() -> None:
    with pytest.raises(TypeError, match="GaussianMixture is the stored name of dask_em.estimators.gaussian_mixture"):
        type("GaussianMixture", (em.GaussianMixture,), {"__module__": "elsewhere"})


# ---------------------------------------------------------------- starts


@pytest.mark.parametrize(("before", "after"), [("full", "diag"), ("tied", "diag"), ("diag", "tied"), ("full", "full")])
def test_a_warm_start_goes_on_only_from_parameters_of_the_same_kind(x: np.ndarray, before: str, after: str) -> None:
    fitted = gm(3, covariance_type=before, warm_start=True, tol=5).fit(x)
    cold = gm(3, covariance_type=after, tol=5).fit(x)
    warm = fitted.set_params(covariance_type=after).fit(x)  # three columns, three components: shapes can agree
    if before == after:
        assert warm.loglik_ >= cold.loglik_
        assert warm.n_passes_ <= cold.n_passes_
    else:
        assert np.array_equal(warm.means_, cold.means_)


def test_fewer_rows_that_count_than_components(x: np.ndarray) -> None:
    weight = np.zeros(len(x))
    weight[[3, 400]] = 1.0
    with pytest.raises(em.DataError, match="n_samples=2 rows of positive weight.*n_components=4"):
        gm(4).fit(x, sample_weight=weight)


def test_seeding_holds_no_distance_of_every_row_to_every_centre() -> None:
    import tracemalloc

    from dask_em.kernels import seeding

    rng = np.random.default_rng(0)
    z = rng.normal(size=(20_000, 2))
    tracemalloc.start()
    labels = seeding.lloyd(z, None, z[:1000], 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000 * 1000 * 8 / 3
    assert len(np.unique(labels)) == 1000
    few = seeding.lloyd(z[:3], np.array([1.0, 0.0, 1.0]), np.zeros((5, 2)), 3)
    assert len(few) == 3


# ---------------------------------------------------------------- columns, weights and filters at prediction


def test_named_columns_are_asked_only_of_what_has_names(
    named: em.GaussianMixture, x: np.ndarray, tmp_path: Path
) -> None:
    import dask.array as da
    import xarray
    import zarr

    zarr.create_array(str(tmp_path / "x.zarr"), shape=x.shape, chunks=(100, 3), dtype=x.dtype)[:] = x
    np.save(tmp_path / "x.npy", x)
    wide = pd.DataFrame(np.column_stack([x[:, ::-1], x[:, 0]]), columns=["c", "b", "a", "d"])
    wide.to_parquet(tmp_path / "x.parquet")
    labelled = xarray.DataArray(wide.to_numpy(), dims=("row", "column"), coords={"column": list(wide.columns)})
    expected, score = named.predict(wide[["a", "b", "c"]]), named.score(wide[["a", "b", "c"]])
    for data in (
        tmp_path / "x.zarr", tmp_path / "x.npy", tmp_path / "x.parquet", labelled, labelled.chunk({"row": 100}),
        da.from_array(x, chunks=(100, 3)),
    ):  # fmt: skip
        assert np.array_equal(np.asarray(named.predict(data)), expected), data
        assert named.score(data) == pytest.approx(score), data
    assert np.array_equal(np.asarray(named.predict(labelled, columns=["a", "b", "c"])), expected)


def test_an_array_gives_an_array_whatever_the_columns(named: em.GaussianMixture, x: np.ndarray) -> None:
    wide = np.column_stack([x, x[:, 0]])
    expected = named.predict(pd.DataFrame(x, columns=["a", "b", "c"]))
    for columns in ([0, 1, 2], slice(0, 3), [3, 1, 2]):
        answer = named.predict(wide, columns=columns)
        assert type(answer) is np.ndarray
        assert np.array_equal(answer, expected)
    with pytest.raises(em.DataError, match="2 columns are chosen, but GaussianMixture is expecting 3"):
        named.predict(wide, columns=[0, 1])


def test_what_opens_the_data_of_a_fit_opens_it_for_the_prediction(x: np.ndarray, tmp_path: Path) -> None:
    frame = pd.DataFrame(x, columns=["a", "b", "c"])
    frame.to_parquet(tmp_path / "x.parquet")
    labels = gm().fit_predict(tmp_path / "x.parquet", columns=["a", "b"], filters=[("c", ">", 0.0)])
    kept = frame[frame.c > 0][["a", "b"]]
    assert np.array_equal(labels.compute(), gm().fit_predict(kept))
    weight = np.random.default_rng(0).random(600)
    assert np.array_equal(gm().fit_predict(x, sample_weight=weight), gm().fit(x, sample_weight=weight).predict(x))


def test_criteria_take_weights_and_use_the_estimators_executor(x: np.ndarray) -> None:
    class Counting(em.ThreadsExecutor):
        runs = 0

        def run(self, *args: Any, **kwargs: Any) -> Any:
            Counting.runs += 1
            return super().run(*args, **kwargs)

    fitted = gm(executor=Counting()).fit(x)
    before, twice = Counting.runs, np.full(600, 2.0)
    p = fitted.n_parameters()
    total = fitted.score_samples(x).sum()
    assert fitted.bic(x, sample_weight=twice) == pytest.approx(-4 * total + p * np.log(1200))
    assert fitted.aic(x, sample_weight=twice) == pytest.approx(-4 * total + 2 * p)
    fitted.score(x)
    assert Counting.runs == before + 3


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([], "X is an empty list"),
        ({"a": [1.0]}, "X is a dict, not a table"),
        (None, "X is None, not a table"),
        (3.0, "X is a float, not a table"),
        ([1.0, 2.0], r"X has shape \(2,\).*Reshape your data"),
        (np.arange(3.0), r"X has shape \(3,\).*Reshape your data"),
    ],
)
def test_what_is_no_table_gets_a_sentence(named: em.GaussianMixture, bad: Any, words: str) -> None:
    for method in (gm().fit, named.predict, named.score):
        with pytest.raises(em.DataError, match=words) as caught:
            method(bad)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "bad",
    [
        {"time_limit": "1m"},
        {"n_components": True},
        {"reg_covar": "a"},
        {"executor": 5},
        {"solver": 5},
        {"covariance_type": ["full"]},
    ],
)
def test_a_hyperparameter_of_another_type_is_named(bad: dict[str, Any], x: np.ndarray) -> None:
    with pytest.raises(em.ConfigurationError, match=next(iter(bad))):
        em.GaussianMixture(**bad).fit(x)


def test_a_tied_collapse_is_the_tied_covariances() -> None:
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.normal(size=200), np.arange(200) % 2])  # each component one of two values
    with pytest.warns(em.FitWarning, match="the tied covariance has collapsed to a single value of column 1"):
        gm(2, covariance_type="tied").fit(rows)
    rows[:, 1] = 0.0
    with pytest.warns(em.FitWarning, match="column 1 is constant, and has no width but what reg_covar gives"):
        gm(2, covariance_type="tied").fit(rows)


def test_public_names_are_there() -> None:
    for name in ("Solver", "Partial", "Request", "one_pass", "Distribution", "State"):
        assert getattr(em, name).__name__ == name
        assert name in em.__all__
