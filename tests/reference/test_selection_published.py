"""Published choices of a model: mclust's for faithful, and clusters that anybody finds."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dask_em as em

SHAPES = ["full", "tied", "diag", "spherical"]


def test_faithful_is_three_components_of_one_shape(real_data: Path) -> None:
    """mclust 5 chooses EEE with 3 components, BIC -2314.316 (with its sign), among 1 to 9 components."""
    x = pd.read_csv(real_data / "small" / "r_datasets_faithful.csv")[["eruptions", "waiting"]].to_numpy(float)
    base = em.GaussianMixture(reg_covar=0.0, n_init=20, tol=1e-3, max_passes=5000, random_state=0, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.FitWarning)  # candidates that collapse are set aside
        best = em.select(base, x, n_components=range(1, 7), covariance_type=SHAPES, criterion="bic")
    assert best.best_params_ == {"n_components": 3, "covariance_type": "tied"}
    table = best.table_.set_index(["covariance_type", "n_components"])
    assert table.loc[("tied", 3), "bic"] == pytest.approx(2314.316, abs=0.03)
    assert table.loc[("tied", 3), "loglik"] == pytest.approx(-1126.3159, abs=5e-3)
    assert table.loc[("full", 2), "loglik"] == pytest.approx(-1130.2640, abs=5e-3)
    assert table.loc[("tied", 2), "loglik"] == pytest.approx(-1140.1868, abs=5e-3)
    assert table.loc[("tied", 3), "n_parameters"] == 11


@pytest.mark.parametrize("covariance_type", SHAPES)
def test_three_blobs_in_chunks_of_no_five_and_ninety_five_rows(covariance_type: str) -> None:
    import dask.array as da
    from sklearn.cluster import KMeans

    rng = np.random.default_rng(0)
    x = np.repeat([-7.0, 0.0, 7.0], [33, 33, 34])[:, None] + 0.1 * rng.normal(size=(100, 2))
    x = rng.permutation(x)
    chunked = da.concatenate([da.from_array(x[i:j], chunks=-1) for i, j in ((0, 0), (0, 5), (5, 100))])
    gm = em.GaussianMixture(3, covariance_type=covariance_type, random_state=0, verbose=0).fit(chunked)
    centres = KMeans(3, n_init=5, random_state=0).fit(x).cluster_centers_
    assert np.sort(gm.means_[:, 0]) == pytest.approx(np.sort(centres[:, 0]), abs=1e-4)
    assert np.sort(gm.means_[:, 1]) == pytest.approx(np.sort(centres[:, 1]), abs=1e-4)
    assert np.sort(gm.weights_) == pytest.approx([0.33, 0.33, 0.34], abs=1e-9)
