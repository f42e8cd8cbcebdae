"""Expectation-Maximization on data that does not fit on one machine."""

from __future__ import annotations

import gc
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dask_em._version import __version__

if TYPE_CHECKING:
    from dask_em.distributions.base import Distribution
    from dask_em.distributions.bernoulli import Bernoulli
    from dask_em.distributions.categorical import Categorical
    from dask_em.distributions.exponential import Exponential
    from dask_em.distributions.factors import Factors
    from dask_em.distributions.gamma import Gamma
    from dask_em.distributions.gaussian import Gaussian
    from dask_em.distributions.linear_regression import LinearRegression
    from dask_em.distributions.logistic_regression import LogisticRegression
    from dask_em.distributions.multinomial import Multinomial
    from dask_em.distributions.negative_binomial import NegativeBinomial
    from dask_em.distributions.poisson import Poisson
    from dask_em.distributions.poisson_regression import PoissonRegression
    from dask_em.distributions.product import Product
    from dask_em.distributions.student_t import StudentT
    from dask_em.documents import corpus
    from dask_em.engine import one_pass
    from dask_em.errors import (
        ClusterError,
        ConfigurationError,
        DaskEMError,
        DataChangedError,
        DataError,
        DegenerateError,
        LikelihoodFellError,
        StoreError,
    )
    from dask_em.estimators.factor_analysis import FactorAnalysis
    from dask_em.estimators.gaussian_mixture import GaussianMixture
    from dask_em.estimators.imputer import GaussianImputer
    from dask_em.estimators.kmeans import KMeans
    from dask_em.estimators.loading import load
    from dask_em.estimators.mixture import Mixture
    from dask_em.estimators.topics import LatentDirichletAllocation
    from dask_em.executors.dask import DaskExecutor
    from dask_em.executors.threads import ThreadsExecutor
    from dask_em.fitting import fit
    from dask_em.model import Chunk, Model, Partial, Request, Solver, State, Statistics
    from dask_em.models.frozen import FrozenMixture
    from dask_em.models.incomplete import IncompleteGaussian
    from dask_em.models.mixture import MixtureModel
    from dask_em.resampling import Bootstrap, bootstrap
    from dask_em.result import FitResult, FitWarning
    from dask_em.selection import Selection, select
    from dask_em.sources.opening import open

# imported when first asked for: `import dask_em` must not cost what scikit-learn and numba cost
_WHERE = {
    "Bernoulli": "distributions.bernoulli",
    "Bootstrap": "resampling",
    "Categorical": "distributions.categorical",
    "Chunk": "model",
    "ClusterError": "errors",
    "ConfigurationError": "errors",
    "DaskEMError": "errors",
    "DaskExecutor": "executors.dask",
    "DataChangedError": "errors",
    "DataError": "errors",
    "DegenerateError": "errors",
    "Distribution": "distributions.base",
    "Exponential": "distributions.exponential",
    "FactorAnalysis": "estimators.factor_analysis",
    "Factors": "distributions.factors",
    "FitResult": "result",
    "FitWarning": "result",
    "FrozenMixture": "models.frozen",
    "Gamma": "distributions.gamma",
    "Gaussian": "distributions.gaussian",
    "GaussianImputer": "estimators.imputer",
    "GaussianMixture": "estimators.gaussian_mixture",
    "GaussianHMM": "estimators.hidden_markov",
    "HiddenMarkov": "estimators.hidden_markov",
    "PoissonHMM": "estimators.hidden_markov",
    "CategoricalHMM": "estimators.hidden_markov",
    "IncompleteGaussian": "models.incomplete",
    "KMeans": "estimators.kmeans",
    "LatentDirichletAllocation": "estimators.topics",
    "LikelihoodFellError": "errors",
    "LinearRegression": "distributions.linear_regression",
    "LogisticRegression": "distributions.logistic_regression",
    "Mixture": "estimators.mixture",
    "MixtureModel": "models.mixture",
    "Model": "model",
    "Multinomial": "distributions.multinomial",
    "NegativeBinomial": "distributions.negative_binomial",
    "Partial": "model",
    "Poisson": "distributions.poisson",
    "PoissonRegression": "distributions.poisson_regression",
    "Product": "distributions.product",
    "Request": "model",
    "Selection": "selection",
    "Several": "distributions.several",
    "Solver": "model",
    "State": "model",
    "Statistics": "model",
    "StoreError": "errors",
    "StudentT": "distributions.student_t",
    "ThreadsExecutor": "executors.threads",
    "bootstrap": "resampling",
    "corpus": "documents",
    "fit": "fitting",
    "load": "estimators.loading",
    "one_pass": "engine",
    "open": "sources.opening",
    "select": "selection",
}

__all__ = [
    "Bernoulli",
    "Bootstrap",
    "Categorical",
    "Chunk",
    "ClusterError",
    "ConfigurationError",
    "DaskEMError",
    "DaskExecutor",
    "DataChangedError",
    "DataError",
    "DegenerateError",
    "Distribution",
    "Exponential",
    "FactorAnalysis",
    "Factors",
    "FitResult",
    "FitWarning",
    "FrozenMixture",
    "Gamma",
    "Gaussian",
    "GaussianImputer",
    "GaussianMixture",
    "GaussianHMM",
    "HiddenMarkov",
    "PoissonHMM",
    "CategoricalHMM",
    "IncompleteGaussian",
    "KMeans",
    "LatentDirichletAllocation",
    "LikelihoodFellError",
    "LinearRegression",
    "LogisticRegression",
    "Mixture",
    "MixtureModel",
    "Model",
    "Multinomial",
    "NegativeBinomial",
    "Partial",
    "Poisson",
    "PoissonRegression",
    "Product",
    "Request",
    "Selection",
    "Several",
    "Solver",
    "State",
    "Statistics",
    "StoreError",
    "StudentT",
    "ThreadsExecutor",
    "__version__",
    "bootstrap",
    "corpus",
    "fit",
    "load",
    "one_pass",
    "open",
    "select",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        # scikit-learn and numba make a million objects that stay: looking for garbage among them, again and again
        # while they are imported, takes a quarter of a second
        collecting = gc.isenabled()
        gc.disable()
        try:
            value = getattr(import_module(f"dask_em.{_WHERE[name]}"), name)
        finally:
            if collecting:
                gc.enable()
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
