"""Published factor analyses, to the printed digits, and scikit-learn's."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import FactorAnalysis as Sklearn

import dask_em as em


@pytest.fixture(scope="module")
def ability(real_data: Path) -> pd.DataFrame:
    """Covariances of six tests of ability of 112 people."""
    table = pd.read_csv(real_data / "small" / "r_datasets_ability_cov.csv", index_col=0)
    cov = table.filter(like="cov.")
    return cov.rename(columns=lambda name: name.removeprefix("cov."))


@pytest.mark.parametrize(
    ("factors", "uniquenesses", "statistic", "df", "digits"),
    [
        (1, [0.535, 0.853, 0.748, 0.910, 0.232, 0.280], 75.18, 9, 5e-3),
        (2, [0.455, 0.589, 0.218, 0.769, 0.052, 0.334], 6.107, 4, 5e-4),
    ],
)
def test_ability(
    ability: pd.DataFrame, factors: int, uniquenesses: list[float], statistic: float, df: int, digits: float
) -> None:
    fa = em.FactorAnalysis(factors, tol=1e-12, verbose=0).fit_covariance(ability, 112)
    assert fa.uniquenesses_ == pytest.approx(uniquenesses, abs=5e-4)
    fit = fa.goodness_of_fit()
    assert fit["statistic"] == pytest.approx(statistic, abs=digits)
    assert fit["df"] == df
    assert list(fa.feature_names_in_) == ["general", "picture", "blocks", "maze", "reading", "vocab"]
    assert (fa.n_rows_, fa.weight_, fa.n_passes_) == (112, pytest.approx(112), 1)


@pytest.mark.parametrize("factors", [1, 3])
def test_the_optimum_is_scikit_learns_or_better(factors: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 3)) @ rng.normal(size=(3, 8)) + rng.normal(size=(1000, 8)) * rng.uniform(0.5, 2, 8)
    x /= x.std(axis=0)
    theirs = Sklearn(factors, svd_method="lapack", tol=1e-10, max_iter=100_000).fit(x)
    ours = em.FactorAnalysis(factors, tol=1e-10, verbose=0).fit(x)
    assert ours.loglik_ >= theirs.loglike_[-1] - 1e-6
    assert ours.get_covariance() == pytest.approx(theirs.get_covariance(), abs=1e-4)
    assert ours.score_samples(x) == pytest.approx(theirs.score_samples(x), abs=1e-3)
    # the factors are theirs up to a rotation: what they say of the columns is the same
    back = theirs.transform(x) @ theirs.components_
    assert ours.transform(x) @ ours.components_ == pytest.approx(back, abs=1e-3)


def test_personality_items(real_data: Path) -> None:
    """R's factanal of the 25 items of psych's bfi: chi-square 1490.59 on 185 df, p 1.22e-202."""
    items = pd.read_csv(real_data / "small" / "r_psych_bfi.csv").loc[:, "A1":"O5"].dropna()
    assert items.shape == (2436, 25)
    fit = em.FactorAnalysis(5, verbose=0).fit(items).goodness_of_fit()
    assert fit["statistic"] == pytest.approx(1490.59, abs=5e-3)
    assert fit["df"] == 185
    assert fit["p_value"] == pytest.approx(1.22e-202, abs=5e-205)
