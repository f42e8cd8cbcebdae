"""scikit-learn's own checks of KMeans."""

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import dask_em as em

EXEMPT = {
    "check_sample_weight_equivalence_on_dense_data": (
        "the random start draws from other rows if a row of weight 2 becomes two rows, so another local optimum may "
        "be reached; from the same start the two are equal (tests/models)"
    ),
}


@parametrize_with_checks(
    [em.KMeans(2, verbose=0), em.KMeans(3, init="k-means||", tol=0, verbose=0)],
    expected_failed_checks=lambda estimator: EXEMPT,
)
def test_scikit_learn_checks(estimator: Any, check: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.FitWarning)
        check(estimator)


def test_it_works_in_a_pipeline(three_blobs: np.ndarray) -> None:
    pipeline = make_pipeline(StandardScaler(), em.KMeans(3, random_state=0, verbose=0)).fit(three_blobs)
    assert pipeline.predict(three_blobs).shape == (6000,)
    assert pipeline.transform(three_blobs).shape == (6000, 3)
    assert list(pipeline.get_feature_names_out()) == ["kmeans0", "kmeans1", "kmeans2"]


@pytest.mark.parametrize(
    "bad",
    [
        {"n_clusters": 0},
        {"n_clusters": 2.5},
        {"init": "kmeans"},
        {"init": [["a"] * 3] * 8},
        {"init": np.zeros((2, 3))},
        {"init": np.zeros((8, 3))},
        {"n_init": "all"},
        {"n_init": 0},
        {"tol": -1},
        {"max_passes": 0},
        {"solver": "newton"},
        {"time_limit": 0},
    ],
)
def test_a_bad_hyperparameter_is_named(bad: dict[str, Any], three_blobs: np.ndarray) -> None:
    name = next(iter(bad))
    with pytest.raises(em.ConfigurationError, match=name):
        em.KMeans(**bad).fit(three_blobs)
