"""Columns of text and categories: the same fit as of their codes, from frames and files, on threads and a cluster."""

import json
from collections.abc import Iterator
from pathlib import Path

import dask
import dask.dataframe as dd
import distributed
import numpy as np
import pandas as pd
import pytest

import dask_em as em
from dask_em.errors import ConfigurationError, DataError

LEVELS = {"party": ("left", "middle", "right"), "region": ("east", "west")}


@pytest.fixture(scope="module")
def answers() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n, hidden = 4000, rng.random(4000) < 0.4
    party = np.where(hidden, rng.choice(3, n, p=[0.8, 0.1, 0.1]), rng.choice(3, n, p=[0.1, 0.3, 0.6]))
    region = np.where(rng.random(n) < np.where(hidden, 0.9, 0.2), 0, 1)
    frame = pd.DataFrame({"party": np.array(LEVELS["party"])[party], "region": np.array(LEVELS["region"])[region]})
    frame["age"] = np.where(hidden, 30.0, 60.0) + rng.normal(0, 5, n)
    frame["old"] = frame.age > 50
    frame.loc[rng.choice(n, 200, replace=False), "party"] = None
    return frame


def coded(frame: pd.DataFrame) -> pd.DataFrame:
    own = {c: pd.Categorical(frame[c], LEVELS[c]).codes.astype(float) for c in LEVELS}
    return frame.assign(**{c: np.where(v < 0, np.nan, v) for c, v in own.items()})


def mixture(**kwargs: object) -> em.Mixture:
    return em.Mixture(2, em.Categorical(), random_state=0, verbose=0, **kwargs)


@pytest.fixture(scope="module")
def texts(answers: pd.DataFrame) -> pd.DataFrame:
    return answers[["party", "region"]]


@pytest.fixture(scope="module")
def expected(texts: pd.DataFrame) -> em.Mixture:
    return mixture().fit(coded(texts))


@pytest.fixture(autouse=True)
def small_blocks() -> Iterator[None]:
    with dask.config.set({"em.block-bytes": 12_000}):  # of some row groups each
        yield


@pytest.fixture
def client() -> Iterator[distributed.Client]:
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        yield client


def write(frame: pd.DataFrame, path: Path) -> str:
    frame.to_parquet(path, row_group_size=700, index=False)
    return str(path)


def forms(texts: pd.DataFrame, folder: Path) -> dict[str, object]:
    categories = texts.astype({c: pd.CategoricalDtype(list(LEVELS[c])) for c in LEVELS})
    (folder / "hive").mkdir()
    for region, own in texts.groupby("region"):
        (folder / "hive" / f"region={region}").mkdir()
        write(own[["party"]], folder / "hive" / f"region={region}" / "a.parquet")
    return {
        "objects": texts.astype(object),
        "strings": texts.astype("string"),
        "arrow": texts.astype("string[pyarrow]"),
        "categories": categories,
        "dask": dd.from_pandas(texts, npartitions=5, sort=False),
        "dask categories": dd.from_pandas(categories, npartitions=5, sort=False),
        "dask unknown": dd.from_pandas(texts, npartitions=5, sort=False).astype("category"),
        "parquet": write(texts, folder / "texts.parquet"),
        "dictionary": write(categories, folder / "categories.parquet"),
        "hive": str(folder / "hive"),
    }


def test_every_form_gives_the_same_fit(texts: pd.DataFrame, expected: em.Mixture, tmp_path: Path) -> None:
    for name, data in forms(texts, tmp_path).items():
        columns = ["party", "region"] if name == "hive" else None
        found = mixture().fit(data, columns=columns)
        assert found._levels() == LEVELS, name
        if name == "hive":  # whose rows are in another order
            assert found.loglik_ == pytest.approx(expected.loglik_, rel=1e-12)
            continue
        assert found.probabilities_.tobytes() == expected.probabilities_.tobytes(), name
        assert found.loglik_ == expected.loglik_, name
        labels = np.asarray(found.predict(data))
        assert (labels == expected.predict(coded(texts))).all(), name
        assert found.score(data) == pytest.approx(expected.score(coded(texts)), rel=1e-12)


def test_a_cluster_gives_the_same_fit(
    texts: pd.DataFrame, expected: em.Mixture, tmp_path: Path, client: distributed.Client
) -> None:
    for name, data in forms(texts, tmp_path).items():
        if name == "hive":
            continue
        found = mixture().fit(data)
        assert found._levels() == LEVELS, name
        assert found.probabilities_.tobytes() == expected.probabilities_.tobytes(), name
        assert (np.asarray(found.predict(data)) == expected.predict(coded(texts))).all(), name


def test_declared_categories_keep_their_order_and_count_though_none_is_seen(texts: pd.DataFrame) -> None:
    order = ["west", "north", "east"]
    found = mixture().fit(texts[["region"]].astype(pd.CategoricalDtype(order)))
    assert found._levels() == {"region": tuple(order)}
    assert found.probabilities_.shape == (2, 1, 3)
    assert (found.probabilities_[:, 0, 1] == 0).all()


def test_in_a_product_only_what_is_categorical_may_be_text(answers: pd.DataFrame, tmp_path: Path) -> None:
    people = em.Product({
        "age": em.Gaussian("diag"), ("party", "region"): em.Categorical(), "old": em.Bernoulli()
    })  # fmt: skip
    expected = em.Mixture(2, people, random_state=0, verbose=0).fit(coded(answers))
    path = write(answers, tmp_path / "a.parquet")
    for data in (answers, path):
        found = em.Mixture(2, people, random_state=0, verbose=0).fit(data)
        assert found._levels() == LEVELS
        assert found.loglik_ == expected.loglik_
        assert (np.asarray(found.predict(data)) == expected.predict(coded(answers))).all()
    wrong = em.Product({("age", "party"): em.Gaussian("diag"), "region": em.Categorical(), "old": em.Bernoulli()})
    for data in (answers, path):
        with pytest.raises(DataError, match="'party'"):
            em.Mixture(2, wrong, verbose=0).fit(data)


def test_other_models_refuse_text_by_name(texts: pd.DataFrame, tmp_path: Path) -> None:
    for data in (texts, write(texts, tmp_path / "a.parquet")):
        with pytest.raises(DataError, match="'party'"):
            em.GaussianMixture(2).fit(data)


def test_weights_go_with_text(texts: pd.DataFrame, tmp_path: Path) -> None:
    path, w = write(texts, tmp_path / "a.parquet"), np.random.default_rng(1).random(len(texts))
    expected = mixture().fit(coded(texts), sample_weight=w)
    for data in (texts, path):
        found = mixture().fit(data, sample_weight=w)
        assert found.loglik_ == pytest.approx(expected.loglik_, rel=1e-12)
        assert found._levels() == LEVELS


def test_a_level_that_was_not_fitted_is_named_with_its_place(texts: pd.DataFrame, tmp_path: Path) -> None:
    mix = mixture().fit(texts)
    other = texts.copy()
    other.loc[2105, "region"] = "moon"
    said = "row {}.*column 'region' is 'moon', which is none of its levels 'east', 'west'"
    path = write(other, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="the data frame: " + said.format(2105)):
        mix.predict(other)
    with pytest.raises(DataError, match="a.parquet, row group 3.*" + said.format(5)):
        mix.predict(path).compute()
    with pytest.raises(DataError, match="a.parquet, row group.*" + said.format("")):
        mix.score(path)
    with pytest.raises(DataError, match="partition 2.*" + said.format("")):
        mix.predict(dd.from_pandas(other, npartitions=4, sort=False)).compute()
    other.loc[2105, "region"] = None
    assert len(mix.predict(other)) == len(other)


def test_numbers_in_place_of_text_are_refused(texts: pd.DataFrame, tmp_path: Path) -> None:
    mix, numbers = mixture().fit(texts), coded(texts)
    for data in (numbers, write(numbers, tmp_path / "a.parquet")):
        with pytest.raises(DataError, match="'party'"):
            np.asarray(mix.predict(data))


def test_too_many_levels_are_refused_by_name(tmp_path: Path) -> None:
    frame = pd.DataFrame({"name": [f"person {i}" for i in range(1200)], "region": ["east", "west"] * 600})
    forms = (
        frame,
        frame.astype("category"),
        write(frame, tmp_path / "a.parquet"),
        dd.from_pandas(frame, npartitions=3),
    )
    for data in forms:
        with pytest.raises(DataError, match="Column 'name' holds text of more than 1000 levels.*leave it out"):
            mixture().fit(data)


def test_a_saved_model_knows_its_levels(texts: pd.DataFrame, tmp_path: Path) -> None:
    mix = mixture().fit(texts)
    mix.save(tmp_path / "m.safetensors")
    again = em.load(tmp_path / "m.safetensors")
    assert again._levels() == LEVELS
    assert (again.predict(texts) == mix.predict(texts)).all()


def test_a_checkpoint_of_other_levels_is_refused(texts: pd.DataFrame, tmp_path: Path) -> None:
    mixture(checkpoint=tmp_path / "c").fit(texts)
    with pytest.raises(ConfigurationError, match="levels"):
        mixture(checkpoint=tmp_path / "c").fit(texts.replace({"party": {"left": "far left"}}))


def test_a_stream_keeps_the_levels_of_its_first_batch(texts: pd.DataFrame) -> None:
    mix = mixture().partial_fit(texts[:2000]).partial_fit(texts[2000:])
    assert mix._levels() == LEVELS
    assert mix.n_rows_ == len(texts)
    with pytest.raises(DataError, match="'moon'"):
        mix.partial_fit(texts.replace({"region": {"east": "moon"}}))


def test_select_and_fit_take_text(texts: pd.DataFrame) -> None:
    best = em.select(mixture(), texts, n_components=[1, 2])
    assert best.best_estimator_._levels() == LEVELS
    result = em.fit(em.MixtureModel(2, em.Categorical()), texts, n_init=8, verbose=0)
    assert result.model.levels_of(["party", "region"]) == LEVELS


def test_inspect_names_the_levels(texts: pd.DataFrame, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from dask_em.cli import em as main

    path, model = write(texts, tmp_path / "a.parquet"), str(tmp_path / "m.safetensors")
    run = CliRunner()
    fit = [
        "fit",
        "mixture",
        path,
        "--distribution",
        "categorical",
        "--n-components",
        "2",
        "--out",
        model,
        "--seed",
        "0",
    ]
    assert (done := run.invoke(main, fit)).exit_code == 0, done.output
    shown = run.invoke(main, ["inspect", model])
    assert all(word in shown.output for word in ("middle", "component 1")), shown.output
    everything = json.loads(run.invoke(main, ["inspect", model, "--json"]).output)
    assert {k: tuple(v) for k, v in everything["levels"].items()} == LEVELS
