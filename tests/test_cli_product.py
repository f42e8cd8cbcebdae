"""Products on the command line: a YAML file says which columns have which distribution."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

import dask_em
from dask_em.cli import em

PEOPLE = """
- {columns: age, distribution: gaussian, covariance_type: diag}
- columns: [smokes, owns_car]
  distribution: bernoulli
  prior: [2, 2]
- columns: visits
  distribution: poisson
"""


def run(*args: Any) -> Result:
    return CliRunner().invoke(em, [str(a) for a in args])


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    old = rng.random(3000) < 0.4
    frame = pd.DataFrame(
        {
            "id": np.arange(3000),
            "age": rng.normal(np.where(old, 70, 25), 5.0),
            "visits": rng.poisson(np.where(old, 9, 1)),
            "smokes": rng.random(3000) < np.where(old, 0.1, 0.4),
            "owns_car": rng.random(3000) < 0.5,
            "name": "x",
        }
    )
    folder = tmp_path_factory.mktemp("people")
    frame.to_parquet(folder / "people.parquet")
    (folder / "people.yaml").write_text(PEOPLE)
    return folder


def test_a_file_is_the_product_that_it_describes(people: Path, tmp_path: Path) -> None:
    out, data, file = tmp_path / "m.safetensors", people / "people.parquet", people / "people.yaml"
    done = run("fit", "mixture", data, "--distribution", file, "--n-components", 2, "--out", out)
    assert done.exit_code == 0, done.output
    parts = {
        "age": dask_em.Gaussian("diag"),
        ("smokes", "owns_car"): dask_em.Bernoulli(prior=(2, 2)),
        "visits": dask_em.Poisson(),
    }
    columns = ["age", "smokes", "owns_car", "visits"]
    own = dask_em.Mixture(2, dask_em.Product(parts), random_state=0, verbose=0).fit(data, columns=columns)
    model = dask_em.load(out)
    assert model.loglik_ == own.loglik_
    assert np.array_equal(model.components_["visits"].rates, own.components_["visits"].rates)
    assert run("score", out, data).exit_code == 0
    shown = run("inspect", out).output
    for heading in ("probabilities of smokes, owns_car", "rates of visits", "means of age"):
        assert heading in shown
    asked = ("--distribution", file, "--n-components", "1:3", "--out", out, "--overwrite", "--quiet")
    assert run("select", "mixture", data, *asked).exit_code == 0
    assert dask_em.load(out).n_components == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("age: gaussian", "should be a list of parts, such as"),
        ("- {columns: age}", "part 1: should have the keys columns and distribution"),
        ("- {columns: age, distribution: normal}", "part 1: distribution: 'normal' should be one of bernoulli, "),
        ("- {columns: 1.5, distribution: gaussian}", "part 1: columns: 1.5 should be a name, a position"),
        ("- {columns: age, distribution: gaussian, df: 3}", "part 1: gaussian has no 'df': it has covariance_type"),
        (
            "- {columns: age, distribution: gaussian, covariance_type: round}",
            "part 1: gaussian: covariance_type='round'",
        ),
        ("- {columns: age, distribution: poisson}\n- {columns: age, distribution: gaussian}", "people.yaml: "),
        ("- {columns: height, distribution: gaussian}", "has no column 'height'"),
        ("- [columns: {", "cannot be read as YAML"),
    ],
)
def test_what_is_wrong_in_it_is_named(people: Path, tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "people.yaml"
    file.write_text(text)
    asked = ("--distribution", file, "--n-components", 2, "--out", tmp_path / "m")
    done = run("fit", "mixture", people / "people.parquet", *asked)
    assert done.exit_code in (65, 78)
    assert said in " ".join((done.output + str(done.exception)).split())
    assert not (tmp_path / "m").exists()


def test_a_file_that_is_not_there_and_options_beside_one(people: Path, tmp_path: Path) -> None:
    data, rest = people / "people.parquet", ("--n-components", 2, "--out", tmp_path / "m")
    missing = run("fit", "mixture", data, "--distribution", tmp_path / "no.yaml", *rest)
    assert missing.exit_code == 78
    assert "no.yaml cannot be read" in " ".join(missing.output.split())
    both = run("fit", "mixture", data, "--distribution", people / "people.yaml", "--reg-covar", "0.1", *rest)
    assert both.exit_code == 78
    assert "put --reg-covar there" in " ".join(both.output.split())
