"""The generic proofs for every distribution: in a mixture, weighted, with missing values, in single precision."""

import numpy as np
import pytest

import dask_em as em
from dask_em.distributions.base import Distribution
from dask_em.distributions.regression import Regression
from dask_em.testing import check_model

RNG = np.random.default_rng(0)
LABELS = np.repeat([0, 1], [70, 50])
COUNTS = RNG.poisson(np.array([[2.0, 9.0, 4.0], [14.0, 3.0, 6.0]])[LABELS]).astype(np.float64)
REAL = COUNTS + RNG.normal(size=COUNTS.shape)
SPREAD = np.minimum(RNG.poisson(RNG.gamma(1.5, COUNTS / 1.5)), 60).astype(np.float64)
CODES = np.minimum(COUNTS, [3, 2, 4])
LINE = np.c_[COUNTS[:, 0], REAL[:, 1], (2 * LABELS - 1) * COUNTS[:, 0] + RNG.normal(size=120)]
EVENTS = np.c_[COUNTS[:, 1] / 9, REAL[:, 2] / 9, RNG.poisson(np.exp(LABELS + COUNTS[:, 1] / 18))]
ANSWERS = np.c_[COUNTS[:, 1] / 9, REAL[:, 2] / 9, RNG.random(120) < np.where(LABELS, 0.7, 0.2)]

CASES: dict[str, tuple[Distribution, np.ndarray]] = {
    "Gaussian full": (em.Gaussian("full", reg_covar=0), REAL),
    "Gaussian tied": (em.Gaussian("tied", reg_covar=0), REAL),
    "Gaussian diag": (em.Gaussian("diag", reg_covar=0), REAL),
    "Gaussian spherical": (em.Gaussian("spherical", reg_covar=0), REAL),
    "Gaussian full, bounded": (em.Gaussian("full", reg_covar=4.0), REAL),
    "Gaussian tied, bounded": (em.Gaussian("tied", reg_covar=4.0, prior=(3.0, 1.0)), REAL),
    "Gaussian diag, bounded": (em.Gaussian("diag", reg_covar=8.0), REAL),
    "Gaussian spherical, bounded": (em.Gaussian("spherical", reg_covar=8.0), REAL),
    "StudentT full, bounded": (em.StudentT("full", reg_covar=4.0), REAL),
    "StudentT full": (em.StudentT("full", reg_covar=0), REAL),
    "StudentT diag": (em.StudentT("diag", "shared", reg_covar=0), REAL),
    "Factors": (em.Factors(1), np.c_[REAL, REAL + RNG.normal(size=REAL.shape)]),
    "Poisson": (em.Poisson(), COUNTS),
    "NegativeBinomial": (em.NegativeBinomial(), SPREAD),
    "Multinomial": (em.Multinomial(), COUNTS + 1),
    "Bernoulli": (em.Bernoulli(), (COUNTS > 5).astype(np.float64)),
    "Categorical": (em.Categorical((4, 3, 5)), CODES),
    "Exponential": (em.Exponential(), 0.3 * COUNTS + 0.1),
    "Gamma": (em.Gamma(), 0.3 * COUNTS + 0.1),
    "LinearRegression": (em.LinearRegression(2), LINE),
    "PoissonRegression": (em.PoissonRegression(2), EVENTS),
    "LogisticRegression": (em.LogisticRegression(2, ridge=0.1), ANSWERS),
    "Several": (em.Several(2, em.Gaussian("diag", reg_covar=0)), REAL),
    "Several tied": (em.Several(2, em.Gaussian("tied", reg_covar=0)), REAL),
    "Several counts": (em.Several(2, em.Poisson()), COUNTS),
    "Product": (em.Product({0: em.Poisson(), 1: em.Gaussian("diag", reg_covar=0), 2: em.NegativeBinomial()}), COUNTS),
}
BASES = {"Distribution"}


def test_none_is_left_out() -> None:
    every = {
        name for name in em.__all__ if isinstance(kind := getattr(em, name), type) and issubclass(kind, Distribution)
    }
    assert {type(distribution).__name__ for distribution, _ in CASES.values()} == every - BASES


@pytest.mark.parametrize("single", [False, True], ids=["float64", "float32"])
@pytest.mark.parametrize("holes", [False, True], ids=["whole", "holes"])
@pytest.mark.parametrize("weighted", [False, True], ids=["rows", "weights"])
@pytest.mark.parametrize("name", CASES)
def test_the_generic_proofs_hold(name: str, weighted: bool, holes: bool, single: bool) -> None:
    distribution, x = CASES[name]
    x = x.astype(np.float32 if single else np.float64)
    if holes:
        x[::7, 2] = np.nan
        if not isinstance(distribution, Regression):  # which needs its predictors
            x[::5, 0] = x[1::9, 1] = np.nan
            x[11] = np.nan  # nothing is observed of this row
    inside = em.MixtureModel(2, distribution).within(np.nanmin(x, axis=0), np.nanmax(x, axis=0))
    w = np.random.default_rng(1).random(len(x)) if weighted else None
    rows = [slice(0, 50), slice(50, 50), slice(50, 51), slice(51, None)]
    proved = check_model(inside, [em.Chunk(x[r], None if w is None else w[r]) for r in rows])
    assert not [line for line in proved if line.startswith("not proved")]
    assert len(proved) == (12 if inside.exact_m_step else 9)  # those of an exact M-step
