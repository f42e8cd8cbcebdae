"""Products: columns of several kinds, each with its part's distribution."""

from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

import dask_em as em
from dask_em.distributions.product import ProductParams
from dask_em.errors import RowError
from dask_em.testing import check_model

RNG = np.random.default_rng(0)
OLD = np.repeat([False, True], 100)
# columns of the parts are neither together nor in order
X = np.column_stack(
    [
        RNG.poisson(np.where(OLD, 6, 1)),  # visits
        RNG.normal(np.where(OLD, 3, 0), 1.0),  # height
        RNG.random(200) < np.where(OLD, 0.2, 0.7),  # smokes
        RNG.integers(0, np.where(OLD, 3, 2)),  # region
        RNG.normal(np.where(OLD, 2, 0), 1.0),  # weight
        RNG.random(200) < np.where(OLD, 0.6, 0.3),  # owns_car
    ]
).astype(np.float64)
X[:, 4] += 0.5 * X[:, 1]
NAMES = ["visits", "height", "smokes", "region", "weight", "owns_car"]


def people(kind: Any = "full", reg_covar: float = 0.0) -> em.Product:
    return em.Product(
        {
            ("weight", "height"): em.Gaussian(kind, reg_covar=reg_covar),
            ("smokes", "owns_car"): em.Bernoulli(prior=(1, 1)),
            "region": em.Categorical(3),
            "visits": em.Poisson(),
        }
    )


def with_holes(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    for j in range(6):
        x[j :: 5 + 2 * j, j] = np.nan
    x[11] = np.nan
    return x


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_generic_proofs_hold(kind: str, holes: bool, weighted: bool, dtype: Any) -> None:
    x = (with_holes(X) if holes else X).astype(dtype)
    w = np.random.default_rng(1).random(len(x)) if weighted else None
    chunks = [em.Chunk(x[rows], None if w is None else w[rows]) for rows in (slice(77), slice(77, None))]
    model = em.MixtureModel(2, people(kind).resolved(NAMES)).about(np.nanmean(X, axis=0))
    proved = check_model(model, chunks)
    assert len(proved) == 12
    assert not [line for line in proved if line.startswith("not proved")]


def test_a_product_is_the_sum_of_its_parts() -> None:
    product = people().resolved(NAMES)
    resp = np.column_stack([~OLD, OLD]).astype(np.float64)
    params = product.estimate(product.statistics(X, resp))
    alone = em.Gaussian("full", reg_covar=0)
    gaussian = alone.estimate(alone.statistics(X[:, [4, 1]], resp))
    assert params["height"].means == pytest.approx(gaussian.means)
    assert params["weight"] is params["height"]
    assert params["visits"].rates[:, 0] == pytest.approx([X[~OLD, 0].mean(), X[OLD, 0].mean()])
    with pytest.raises(KeyError, match="no part has column 'age'"):
        params["age"]
    whole = product.log_density(params, X)
    by_part = alone.log_density(gaussian, X[:, [4, 1]])
    by_part = by_part + em.Poisson().log_density(params["visits"], X[:, [0]])
    by_part = by_part + em.Bernoulli().log_density(params["smokes"], X[:, [2, 5]])
    by_part = by_part + em.Categorical(3).log_density(params["region"], X[:, [3]])
    assert whole == pytest.approx(by_part, rel=1e-12)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_one_gaussian_part_is_the_gaussian_mixture(kind: Any) -> None:
    """Also where values are missing: what is expected of them is the Gaussian's own, exactly."""
    x = with_holes(X)[:, [1, 4]]
    gaussian = em.MixtureModel(2, em.Gaussian(kind, reg_covar=0)).about(np.nanmean(x, axis=0))
    product = em.MixtureModel(2, em.Product({(0, 1): em.Gaussian(kind, reg_covar=0)})).about(np.nanmean(x, axis=0))
    a = gaussian.start(em.Chunk(x), np.random.default_rng(0))
    b = product.start(em.Chunk(x), np.random.default_rng(0))
    for _ in range(20):
        s, t = gaussian.e_step([a], em.Chunk(x))[0], product.e_step([b], em.Chunk(x))[0]
        assert t.loglik == pytest.approx(s.loglik, rel=1e-12)
        a, b = gaussian.m_step(s), product.m_step(t)
    assert b.components.parts[0].covariances == pytest.approx(a.components.covariances, rel=1e-9)


def test_two_poisson_parts_are_one() -> None:
    x = RNG.poisson(np.repeat([[1.0, 9.0], [8.0, 2.0]], 500, axis=0)).astype(np.float64)
    one = em.Mixture(2, em.Poisson(), random_state=0, verbose=0).fit(x)
    two = em.Mixture(2, em.Product({1: em.Poisson(), 0: em.Poisson()}), random_state=0, verbose=0).fit(x)
    assert two.loglik_ == pytest.approx(one.loglik_, abs=0.05)
    assert two.n_parameters() == one.n_parameters() == 5
    assert two.n_passes_ == one.n_passes_ == 1  # few distinct rows, whatever the parts


def test_a_frame_with_holes_is_fitted_stored_and_predicted(tmp_path: Path) -> None:
    n = 4000
    rng = np.random.default_rng(5)
    old = rng.random(n) < 0.4
    frame = pd.DataFrame(
        {
            "age": rng.normal(np.where(old, 70, 25), 6.0),
            "visits": rng.poisson(np.where(old, 9, 1)),
            "smokes": rng.random(n) < np.where(old, 0.1, 0.5),
            "region": rng.integers(0, np.where(old, 4, 2)),
        }
    )
    frame.loc[::9, "age"] = np.nan
    product = em.Product(
        {"region": em.Categorical(), "age": em.Gaussian("diag"), "smokes": em.Bernoulli(), "visits": em.Poisson()}
    )
    mix = em.Mixture(2, product, random_state=0, verbose=0).fit(frame)
    labels = mix.predict(frame)
    assert max(np.mean(labels == old), np.mean(labels != old)) > 0.99
    assert np.sort(mix.components_["age"].means.ravel()) == pytest.approx([25, 70], abs=0.6)
    assert np.sort(mix.components_["visits"].rates.ravel()) == pytest.approx([1, 9], rel=0.06)
    assert mix.n_parameters() == 1 + 2 * (3 + 2 + 1 + 1)
    mix.save(tmp_path / "m.safetensors")
    again = em.load(tmp_path / "m.safetensors")
    assert again.distribution == product
    assert np.array_equal(again.predict_proba(frame), mix.predict_proba(frame))
    lazy = em.Mixture(2, product, random_state=0, verbose=0).fit(dd.from_pandas(frame, npartitions=3))
    assert lazy.loglik_ == pytest.approx(mix.loglik_, abs=0.05)
    drawn, _ = mix.sample(1000)
    assert mix.distribution_.check_rows(drawn) is None
    assert np.nanmean(drawn[:, 0]) == pytest.approx(frame["age"].mean(), abs=3)


def test_values_without_a_density_are_refused_with_their_place_in_the_whole() -> None:
    x = X.copy()
    x[7, 5] = 2.0
    with pytest.raises(RowError, match="is 2, where Bernoulli needs 0 or 1") as caught:
        people().resolved(NAMES).check_rows(x)
    assert (caught.value.row, caught.value.column) == (7, 5)


def test_a_collapsed_part_is_named() -> None:
    product = people("diag", reg_covar=1e-3).resolved(NAMES)
    x = X.copy()
    x[~OLD, 1] = 0.0
    params = product.estimate(product.statistics(x, np.column_stack([~OLD, OLD]).astype(np.float64)))
    assert product.degeneracies(params)[0].startswith("columns 'weight', 'height': 1 component (0) has collapsed")
    bare = people("diag").resolved(NAMES)
    with pytest.raises(em.DegenerateError, match="columns 'weight', 'height': "):
        bare.estimate(bare.statistics(x, np.column_stack([~OLD, OLD]).astype(np.float64)))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"a": em.Poisson(), "c": em.Poisson()}, "names column 'c', and the data has columns 'a', 'b'"),
        ({"a": em.Poisson()}, "no distribution for column 'b': give every column one, .* by columns=.'a'"),
        ({"a": em.Poisson(), ("b", 0): em.Poisson()}, "column 'a' more than once"),
        ({"a": em.Poisson(), ("b", 2): em.Poisson()}, "names column 2, and the data has 2 columns"),
    ],
)
def test_columns_that_do_not_fit_the_data_are_refused(parts: Any, said: str) -> None:
    frame = pd.DataFrame({"a": [1.0, 2, 3], "b": [0.0, 1, 4]})
    with pytest.raises(em.ConfigurationError, match=said):
        em.Mixture(1, em.Product(parts), verbose=0).fit(frame)


def test_names_need_named_columns_and_positions_cover_them_all() -> None:
    with pytest.raises(em.ConfigurationError, match="columns without names: give their positions"):
        em.Mixture(1, em.Product({"a": em.Poisson()}), verbose=0).fit(np.ones((3, 1)))
    with pytest.raises(em.ConfigurationError, match="no distribution for column 1"):
        em.Mixture(1, em.Product({0: em.Poisson()}), verbose=0).fit(np.arange(6.0).reshape(3, 2))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({}, "must be a dict"),
        ("age", "must be a dict"),
        ({"a": "poisson"}, "must be a distribution"),
        ({"a": em.Product({"a": em.Poisson()})}, "no product itself"),
        ({("a", "a"): em.Poisson()}, "names column 'a' more than once"),
        ({-1: em.Poisson()}, "column -1 of Product must be a name"),
        ({1.5: em.Poisson()}, "column 1.5 of Product must be a name"),
        ({(): em.Poisson()}, "has no columns"),
    ],
)
def test_parts_are_checked(parts: Any, said: str) -> None:
    with pytest.raises(em.ConfigurationError, match=said):
        em.Product(parts)


def test_parameters_keep_the_names_that_were_given() -> None:
    params = ProductParams((1, 2), (("a", 3), ("b",)))
    assert params["a"] == params[3] == 1


def test_the_command_line_shows_each_part_with_its_columns() -> None:
    from dask_em.cli.families import family_of

    frame = pd.DataFrame(X[:, [1, 0]], columns=["height", "visits"])
    product = em.Product({"height": em.Gaussian("diag"), 1: em.Poisson()})
    mix = em.Mixture(2, product, random_state=0, verbose=0).fit(frame)
    family = family_of(mix)
    assert family is not None
    titles = {table.title: list(table.headings) for table in family.tables(mix)}
    assert titles["means of height"] == ["component", "height"]
    assert titles["rates of visits"] == ["component", "visits"]
