"""scikit-learn's own checks of an estimator."""

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import dask_em as em

EXEMPT = {
    "check_sample_weight_equivalence_on_dense_data": (
        "with several components the random start draws from other rows if a row of weight 2 becomes two rows, so "
        "another local maximum may be reached; from the same start the two are equal (tests/reference)"
    ),
}


@parametrize_with_checks(
    [em.GaussianMixture(verbose=0), em.GaussianMixture(2, covariance_type="diag", verbose=0)],
    expected_failed_checks=lambda estimator: EXEMPT if estimator.n_components > 1 else {},
)
def test_scikit_learn_checks(estimator: Any, check: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.FitWarning)
        check(estimator)


def test_it_works_in_a_pipeline_and_a_grid_search(three_blobs: np.ndarray) -> None:
    pipeline = make_pipeline(StandardScaler(), em.GaussianMixture(random_state=0, verbose=0))
    search = GridSearchCV(pipeline, {"gaussianmixture__n_components": [1, 3]}, cv=2).fit(three_blobs)
    assert search.best_params_ == {"gaussianmixture__n_components": 3}
    assert search.predict(three_blobs).shape == (6000,)


@pytest.mark.parametrize(
    "bad",
    [
        {"n_components": 0},
        {"n_components": 2.5},
        {"reg_covar": -1},
        {"covariance_type": "ful"},
        {"tol": -1},
        {"max_passes": 0},
        {"n_init": 0},
        {"solver": "newton"},
        {"time_limit": 0},
    ],
)
def test_a_bad_hyperparameter_is_named(bad: dict[str, Any], three_blobs: np.ndarray) -> None:
    name = next(iter(bad))
    with pytest.raises(em.ConfigurationError, match=name):
        em.GaussianMixture(**bad).fit(three_blobs)
