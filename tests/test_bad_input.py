"""Bad input gets one sentence that names the place and the remedy, from wherever it is read."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

import dask_em as em
from dask_em.callbacks import Quiet


def gm(k: int = 2, **settings: Any) -> em.GaussianMixture:
    return em.GaussianMixture(k, random_state=0, verbose=0, **settings)


def stored(x: np.ndarray, folder: Path, kind: str) -> str:
    path = str(folder / f"x.{kind}")
    if kind == "zarr":
        import zarr

        zarr.create_array(path, shape=x.shape, chunks=(100, x.shape[1]), dtype=x.dtype)[:] = x
    else:
        pd.DataFrame(x, columns=[f"c{j}" for j in range(x.shape[1])]).to_parquet(path, row_group_size=100)
    return path


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1000, 3))


@pytest.mark.parametrize("family", ["GaussianMixture", "KMeans"])
@pytest.mark.parametrize("ask", ["predict", "score", "transform", "score_samples"])
def test_what_cannot_be_predicted_is_named(x: np.ndarray, family: str, ask: str) -> None:
    fitted = getattr(em, family)(2, random_state=0, verbose=0).fit(x)
    if not hasattr(fitted, ask):
        return
    x[7, 1] = np.inf
    with pytest.raises(em.DataError, match="row 7, column 1 is infinity; replace the infinite values first"):
        getattr(fitted, ask)(x)
    x[7, 1] = np.nan
    if family == "KMeans":
        with pytest.raises(em.DataError, match="row 7, column 1 is NaN; drop or impute"):
            getattr(fitted, ask)(x)
    for bad, words in (
        (x.astype(str), "row 0, column 0 of X is the text"),
        (x + 1j, "Complex data not supported: X is of type complex128; pass its real part"),
        (x.reshape(10, 100, 3), r"X has shape \(10, 100, 3\) where rows and columns are expected"),
        (x[:0], r"X has 0 sample\(s\) .*: pass at least one row"),
    ):
        with pytest.raises(em.DataError, match=words) as error:
            getattr(fitted, ask)(bad)
        assert "\n" not in str(error.value)


def test_a_bad_value_of_a_frame_is_named_by_its_column(x: np.ndarray) -> None:
    frame = pd.DataFrame(x, columns=list("abc"))
    fitted = gm().fit(frame)
    frame.iloc[7, 1] = np.inf
    with pytest.raises(em.DataError, match="row 7, column 'b' is infinity"):
        fitted.predict(frame[["c", "b", "a"]])


@pytest.mark.parametrize("kind", ["zarr", "parquet"])
@pytest.mark.parametrize(("value", "word"), [(np.inf, "infinity"), (-np.inf, "infinity")])
def test_a_value_that_is_not_finite(x: np.ndarray, tmp_path: Path, kind: str, value: float, word: str) -> None:
    x[345, 1] = value
    column = "column 1" if kind == "zarr" else "column 'c1'"
    with pytest.raises(em.DataError, match=rf"x\.{kind}.*row 345.*{column} is {word}; .* first"):
        gm().fit(stored(x, tmp_path, kind))


def test_fewer_rows_than_components(x: np.ndarray) -> None:
    with pytest.raises(em.DataError, match="n_samples=3 rows of positive weight are fewer than n_components=4"):
        gm(4).fit(x[:3])


def test_identical_rows() -> None:
    with pytest.raises(em.DataError, match=r"all 50 rows are identical \(1, 2\): there is no spread"):
        gm().fit(np.tile([1.0, 2.0], (50, 1)))


def test_no_rows(tmp_path: Path) -> None:
    with pytest.raises(em.DataError, match=r"0 sample\(s\)"):
        gm().fit(np.empty((0, 3)))
    pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(em.DataError, match="has no rows that could be kept: loosen the filters"):
        gm().fit(str(tmp_path / "x.parquet"), filters=[("a", ">", 1.5), ("b", "<", 3.5)])
    with pytest.raises(em.DataError, match="has no rows that the filters keep.*: loosen them"):
        gm().fit(str(tmp_path / "x.parquet"), filters=[("a", ">", 9)])


@pytest.mark.parametrize(("weight", "words"), [(-1.0, "is -1"), (np.nan, "is nan"), (np.inf, "is inf")])
def test_a_bad_weight(x: np.ndarray, weight: float, words: str) -> None:
    w = np.ones(1000)
    w[77] = weight
    with pytest.raises(em.DataError, match=f"weight of row 77 {words}.*mend or drop the row"):
        gm().fit(x, sample_weight=w)


def test_weights_that_are_all_zero(x: np.ndarray) -> None:
    with pytest.raises(em.DataError, match="all 1000 weights are zero"):
        gm().fit(x, sample_weight=np.zeros(1000))


def test_weights_of_another_length(x: np.ndarray) -> None:
    with pytest.raises(em.DataError, match="999"):
        gm().fit(x, sample_weight=np.ones(999))


def test_too_many_columns_for_full_covariances(tmp_path: Path) -> None:
    import zarr

    path = str(tmp_path / "wide.zarr")
    zarr.create_array(path, shape=(10, 200_000), chunks=(10, 200_000), dtype="f4")[:] = 1.0
    with pytest.raises(em.ConfigurationError, match="parameter sets for 200000 columns.*diagonal covariances"):
        gm().fit(path)


def test_values_whose_squares_overflow(x: np.ndarray) -> None:
    x[5, 2] = 1e200
    with pytest.raises(em.DataError, match="column 2 runs from .* too far for squares"):
        gm().fit(x)


@pytest.mark.parametrize("kind", ["zarr", "parquet"])
@pytest.mark.parametrize("family", ["GaussianMixture", "KMeans"])
def test_a_damaged_value_is_named(x: np.ndarray, tmp_path: Path, kind: str, family: str) -> None:
    x[345, 1] = 1e300
    column = "column 1" if kind == "zarr" else "column 'c1'"
    with pytest.raises(
        em.DataError, match=rf"{column} runs from .*\(.*x\.{kind}.*: row \d+ is the first\): mend"
    ) as said:
        getattr(em, family)(2, verbose=0).fit(stored(x, tmp_path, kind))
    with pytest.raises(em.DataError, match=r"rows 0 to 1000 of the array: row 345 is the first"):
        getattr(em, family)(2, verbose=0).fit(x)
    assert "\n" not in str(said.value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("unit", [1e145, 1e160, 1e300, 1e-145, 1e-160, 1e-300])
@pytest.mark.parametrize("family", ["GaussianMixture", "KMeans", "FactorAnalysis"])
def test_a_column_of_an_impossible_magnitude(x: np.ndarray, family: str, unit: float) -> None:
    wild = x * [1.0, 1.0, unit]
    words = "too far for squares.*scale it" if unit > 1 else "too near for squares.*scale it"
    for sample_bytes in (None, 100 * 40):
        with pytest.raises(em.DataError, match=f"column 2 runs from .* {words}"):
            getattr(em, family)(2, verbose=0, sample_bytes=sample_bytes).fit(wild)


@pytest.mark.parametrize("unit", [1e100, 1e-100])
def test_a_magnitude_that_is_possible(x: np.ndarray, unit: float) -> None:
    near = gm(reg_covar=0, n_init=1).fit(x)
    far = gm(reg_covar=0, n_init=1).fit(x * unit)
    assert far.loglik_ == pytest.approx(near.loglik_ - x.size * np.log(unit), rel=1e-4)


def test_another_number_of_columns_at_prediction(x: np.ndarray) -> None:
    fitted = gm().fit(x)
    with pytest.raises(ValueError, match="X has 2 features, but GaussianMixture is expecting 3 features"):
        fitted.predict(x[:, :2])


# every pass reads the data: the rows do not fit in the sample
READ_AGAIN: dict[str, Any] = {"tol": 0, "solver": "em", "sample_bytes": 100 * 40}


class Rewrite(Quiet):
    """Writes other data in place of what is being fitted."""

    def __init__(self, path: str, x: np.ndarray) -> None:
        self.path, self.x = path, x

    def on_step(self, fit: Any) -> None:
        if fit.n_passes == 3:
            stored_again = pd.DataFrame(self.x, columns=[f"c{j}" for j in range(self.x.shape[1])])
            stored_again.to_parquet(self.path, row_group_size=100)


@pytest.mark.parametrize("change", ["value", "rows"])
def test_data_that_changes_between_passes(x: np.ndarray, tmp_path: Path, change: str) -> None:
    path = stored(x, tmp_path, "parquet")
    other = x.copy() if change == "value" else x[:-1]
    other[3, 1] = 9.0
    with pytest.raises(em.DataChangedError, match=r"x\.parquet.*changed"):
        gm(callbacks=[Rewrite(path, other)], **READ_AGAIN).fit(path)


class Overwrite(Quiet):
    def __init__(self, path: str) -> None:
        self.path = path

    def on_step(self, fit: Any) -> None:
        import zarr

        if fit.n_passes == 3:
            zarr.open_array(self.path)[17, 1] = 5.0


def test_a_chunk_that_is_overwritten_between_passes(x: np.ndarray, tmp_path: Path) -> None:
    path = stored(x, tmp_path, "zarr")
    with pytest.raises(em.DataChangedError, match="changed"):
        gm(callbacks=[Overwrite(path)], **READ_AGAIN).fit(path)


def test_collapse_is_counted_and_said() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(500, 2)), np.tile([8.0, 8.0], (200, 1))])
    with pytest.warns(em.FitWarning, match=r"1 component .* has collapsed onto the point \(8, 8\): .* repeated"):
        fitted = gm().fit(x)
    assert fitted.status_ == "degenerate"
    assert not fitted.converged_
    assert sorted(fitted.weights_) == pytest.approx([2 / 7, 5 / 7])


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("unit", [1e3, 1.0, 1e-3, 1e-4, 1e-6])
def test_a_reg_covar_that_is_large_beside_the_data_is_no_collapse(kind: str, unit: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 2)) @ np.array([[1.0, 0.9], [0.0, 0.3]]) + np.repeat([[0.0], [3.0]], 1000, axis=0)
    fitted = gm(covariance_type=kind, n_init=2).fit(x * unit)
    assert fitted.status_ == "converged"


@pytest.mark.parametrize("unit", [1e3, 1.0, 1e-3, 1e-6])
@pytest.mark.parametrize(
    ("kind", "second"), [("full", "line"), ("tied", "line"), ("full", "still"), ("tied", "still"), ("diag", "still")]
)
def test_a_direction_without_variance_is_a_collapse_in_any_unit(kind: str, second: str, unit: float) -> None:
    first = np.random.default_rng(0).normal(size=2000)
    x = np.column_stack([first, 2 * first if second == "line" else np.full(2000, 0.7)])
    words = "columns 0, 1 determine one another" if second == "line" else "column 1 is constant.*: leave it out"
    with pytest.warns(em.FitWarning, match=words):
        fitted = gm(1, covariance_type=kind).fit(x * unit)
    assert fitted.status_ == "degenerate"


def test_what_components_collapsed_onto_is_said() -> None:
    x = np.random.default_rng(0).normal(size=(1000, 3)) + np.repeat([[0.0], [4.0]], 500, axis=0)
    with pytest.warns(em.FitWarning, match="collapsed onto a plane of 3 dimensions, since columns 0, 3 determine"):
        gm().fit(np.column_stack([x, x[:, 0]]))
    with pytest.warns(em.FitWarning, match="since columns 0, 1, 3 determine one another there: leave out"):
        gm().fit(np.column_stack([x, x[:, 0] + x[:, 1]]))
    with pytest.warns(em.FitWarning, match=r"the tied covariance has .* columns 0, 3 determine"):
        gm(covariance_type="tied").fit(np.column_stack([x, x[:, 0]]))
    with pytest.warns(em.FitWarning, match="column 3 is constant, and has no width"):
        gm(covariance_type="diag").fit(np.column_stack([x, np.full(1000, 3.0)]))
    with pytest.warns(em.FitWarning, match="the rows are too few for full covariances, so use fewer components"):
        gm(1).fit(np.column_stack([x, x[::-1]])[:4])
    far = x.copy()
    far[3] = 1e3
    for kind in ("full", "diag", "spherical"):
        words = r"1 component \(\d\) has collapsed onto the point \(1000, 1000, 1000\), 3\d standard .* outliers"
        with pytest.warns(em.FitWarning, match=words):
            gm(3, covariance_type=kind).fit(far)


def test_collapse_without_regularisation_ends_the_fit() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(500, 2)), np.tile([8.0, 8.0], (200, 1))])
    with pytest.warns(em.FitWarning, match=r"degenerate: the covariance of component \d is not positive definite"):
        fitted = gm(reg_covar=0).fit(x)
    assert fitted.status_ == "degenerate"
    assert np.isfinite(fitted.means_).all()


def test_a_sample_too_small_to_start_from(x: np.ndarray) -> None:
    with pytest.raises(em.DataError, match="the sample holds 1 row of positive weight, too few .* larger sample_bytes"):
        gm(sample_bytes=10).fit(x)


def test_more_components_than_distinct_rows() -> None:
    x = np.repeat(np.arange(3.0), 20)[:, None]
    with pytest.raises(
        em.DataError,
        match="5 components or clusters are more than the 3 distinct rows of the sample of 60: .* larger sample_bytes",
    ):
        gm(5).fit(x)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"means_init": np.zeros((3, 3))}, r"means_init has shape \(3, 3\), and this model and data need \(2, 3\)"),
        ({"weights_init": [0.5, 0.6]}, "weights_init must be shares that sum to 1"),
        ({"precisions_init": np.zeros((2, 3, 3))}, "precisions_init must be positive"),
        ({"precisions_init": np.triu(np.ones((2, 3, 3)))}, "precisions_init must be symmetric"),
        ({"means_init": "here"}, "means_init must be numbers"),
        ({"means_init": np.ones((2, 3))}, "means_init holds the same mean twice"),
        ({"means_init": np.full((2, 3), np.nan)}, "means_init holds a value that is not finite"),
    ],
)
def test_a_start_that_is_none(x: np.ndarray, given: dict[str, Any], words: str) -> None:
    with pytest.raises(em.ConfigurationError, match=words):
        gm(**given).fit(x)


@pytest.mark.parametrize("ask", ["predict", "score", "sample", "standard_errors", "save", "bic"])
def test_after_a_refused_fit_an_estimator_is_not_fitted(ask: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(50, 2))
    mix = em.Mixture(2, em.Poisson(), verbose=0)
    with pytest.raises(em.DataError, match="Poisson needs a whole number"):
        mix.fit(x)
    given = {"sample": 3, "save": tmp_path / "m.safetensors"}.get(ask, x)
    with pytest.raises(NotFittedError):
        getattr(mix, ask)(given)
