"""What a fitted estimator found, as tables for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

_MATRICES = {"covariances": "sd", "scatters": "scale"}  # parameters, and what the roots of their diagonals are
_DERIVED = ("precisions_cholesky",)  # said by others
_TOP_WORDS = 10
_MOST_COLUMNS = 30  # whose correlations a person looks at; --json has all


@dataclass(frozen=True)
class Table:
    """Something to be shown.

    Parameters
    ----------
    title : str
    headings : sequence of str
        The first is that of the rows' names.
    rows : sequence of sequences
        Names first, which are shown as they are; numbers after them.
    tall : bool
        Whether rows stay rows: then texts and headings that are too wide break between words.
    texts : sequence of str
        Headings of the columns that hold no numbers.
    lead : int
        Columns that name the rows.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Any]]
    tall: bool = False
    texts: Sequence[str] = ()
    lead: int = 1


def feature_names(estimator: Any, n_features: int) -> list[str]:
    """Names of the fitted columns, x0, x1, ... where they have none."""
    return [str(name) for name in getattr(estimator, "feature_names_in_", [f"x{j}" for j in range(n_features)])]


def gaussian_tables(estimator: Any) -> list[Table]:
    """Weights, means and standard deviations; and correlations, where there are such."""
    import numpy as np

    k, d = estimator.means_.shape
    c = np.asarray(estimator.covariances_)
    variances = {
        "full": lambda: np.diagonal(c, axis1=1, axis2=2),
        "tied": lambda: np.broadcast_to(np.diagonal(c), (k, d)),
        "diag": lambda: c,
        "spherical": lambda: np.broadcast_to(c[:, None], (k, d)),
    }[estimator.covariance_type]()
    names = feature_names(estimator, d)
    rows = [
        [str(i), estimator.weights_[i], *(v for pair in zip(estimator.means_[i], np.sqrt(variances[i])) for v in pair)]
        for i in range(k)
    ]
    heads = ["component", "weight", *(h for name in names for h in (name, f"{name} sd"))]
    tables = [Table("components", heads, rows)]
    if estimator.covariance_type in ("full", "tied") and 1 < d <= _MOST_COLUMNS:
        tables.append(_matrix_table("correlations", c, names))
    return tables


def _matrix_table(title: str, matrices: Any, names: Sequence[str], root: str | None = None) -> Table:
    """Correlations of (K, d, d), or (d, d) of all components; before them roots of diagonals, if these are named."""
    import numpy as np

    rows = []
    each = [("all", matrices)] if matrices.ndim == 2 else [(str(i), own) for i, own in enumerate(matrices)]
    correlated = 1 < len(names) <= _MOST_COLUMNS
    for who, own in each:
        sd = np.sqrt(np.diag(own))
        for name, size, line in zip(names, sd, own / sd[:, None] / sd, strict=True):
            rows.append([who, name, *([] if root is None else [size]), *(line if correlated else [])])
    heads = ["component", "column", *([] if root is None else [root]), *(names if correlated else [])]
    return Table(title, heads, rows, tall=True, lead=2)


def mixture_tables(estimator: Any) -> list[Table]:
    """The components' weights, and a table for each of their parameters."""
    weights = [[str(i), w] for i, w in enumerate(estimator.weights_)]
    return [Table("components", ["component", "weight"], weights), *_component_tables(estimator, len(weights))]


def chain_tables(estimator: Any) -> list[Table]:
    """The states: how sequences begin and go on, how long each lasts, and a table for each of their parameters."""
    k, stay = len(estimator.startprob_), estimator.transmat_.diagonal()
    share = estimator.stationary_distribution()
    lasts = [1 / (1 - p) if p < 1 else math.inf for p in stay]
    states = [[str(i), estimator.startprob_[i], share[i], lasts[i]] for i in range(k)]
    moves = [[str(i), *row] for i, row in enumerate(estimator.transmat_)]
    return [
        Table("states", ["state", "first", "in the long run", "rows on end"], states),
        Table("transitions", ["from", *(f"to {j}" for j in range(k))], moves),
        *(replace(t, headings=["state", *t.headings[1:]]) for t in _component_tables(estimator, k)),
    ]


def _component_tables(estimator: Any, k: int) -> list[Table]:
    from dask_em.distributions.product import Product

    names = feature_names(estimator, estimator.n_features_in_)
    components, distribution = estimator.components_, estimator.distribution_
    if not isinstance(distribution, Product):
        return _parameter_tables(distribution, components, k, names)
    tables = []
    for kind, columns, part in zip(distribution.distributions, components.columns, components.parts, strict=True):
        own = [names[c] if isinstance(c, int) else c for c in columns]
        of = _parameter_tables(kind, part, k, own)
        tables += [replace(table, title=f"{table.title} of {', '.join(own)}") for table in of]
    return tables


def _parameter_tables(distribution: Any, components: Any, k: int, names: list[str]) -> list[Table]:
    """A table for each parameter that there is one of for each of k components, or also for each column."""
    import numpy as np

    from dask_em.distributions.regression import Regression

    tables = []
    if isinstance(distribution, Regression):
        heads = ["intercept", *distribution.predictors(len(names))]
        columns = np.column_stack([components.intercept, components.coef])
        if hasattr(components, "sigma"):
            heads, columns = [*heads, "residual sd"], np.column_stack([columns, components.sigma])
        return [Table("coefficients", ["component", *heads], [[str(i), *row] for i, row in enumerate(columns)])]
    names = distribution.modelled(names)
    for field in fields(components):
        a = np.asarray(getattr(components, field.name))
        title = "variances" if field.name == "covariances" else field.name  # where a column, or all, have one
        if field.name in _DERIVED:
            continue
        if field.name in _MATRICES and a.shape[-2:] == 2 * (len(names),) and (a.ndim == 3 or not distribution.separate):
            root = _MATRICES[field.name]
            tables.append(_matrix_table(f"{field.name}: {root}s, and correlations", a, names, root))
        elif field.name == "loadings":
            rows = [[str(i), name, *row] for i, own in enumerate(a) for name, row in zip(names, own, strict=True)]
            heads = ["component", "column", *(f"factor {j}" for j in range(a.shape[2]))]
            tables.append(Table(field.name, heads, rows, tall=True, lead=2))
        elif a.shape == (k, len(names)):
            tables.append(Table(title, ["component", *names], [[str(i), *row] for i, row in enumerate(a)]))
        elif a.shape == (k,):
            tables.append(Table(title, ["component", title], [[str(i), value] for i, value in enumerate(a)]))
        elif field.name == "probabilities" and (levels := distribution.levels_of(names)):
            tables.append(_level_table(a, names, levels))
        elif a.ndim == 3 and a.shape[:2] == (k, len(names)) and field.name == "probabilities":
            rows = [[str(i), name, *shares] for i, own in enumerate(a) for name, shares in zip(names, own, strict=True)]
            heads = ["component", "column", *(str(code) for code in range(a.shape[2]))]
            tables.append(Table(field.name, heads, rows, lead=2))
    return tables


def _level_table(probabilities: Any, names: Sequence[str], levels: Mapping[str, Sequence[str]]) -> Table:
    """A line for each level of each column, codes where a column has no text; a column for each component."""
    rows = []
    for j, name in enumerate(names):
        own = levels.get(name, [str(code) for code in range(probabilities.shape[2])])
        rows += [[name, level, *probabilities[:, j, code]] for code, level in enumerate(own)]
    heads = [f"component {i}" for i in range(len(probabilities))]
    return Table("probabilities", ["column", "level", *heads], rows, lead=2)


def centre_tables(estimator: Any) -> list[Table]:
    """The centres."""
    names = feature_names(estimator, estimator.n_features_in_)
    rows = [[str(i), *centre] for i, centre in enumerate(estimator.cluster_centers_)]
    return [Table("centres", ["cluster", *names], rows)]


def topic_tables(estimator: Any) -> list[Table]:
    """What share of words each topic is expected to have, and its first words."""
    prior = estimator.doc_topic_prior_ / estimator.doc_topic_prior_.sum()
    rows = [[str(k), prior[k], " ".join(map(str, words))] for k, words in enumerate(estimator.top_words(n=_TOP_WORDS))]
    return [Table("topics", ["topic", "share", "words"], rows, tall=True, texts=("words",))]


def factor_tables(estimator: Any) -> list[Table]:
    """Loadings, and what the factors leave of each column."""
    names = feature_names(estimator, estimator.n_features_in_)
    factors = [f"factor {k}" for k in range(estimator.n_components)]
    loadings = [[name, *row] for name, row in zip(names, estimator.loadings_, strict=True)]
    shares = [
        [name, unique, 1 - unique, noise]
        for name, unique, noise in zip(names, estimator.uniquenesses_, estimator.noise_variance_, strict=True)
    ]
    return [
        Table("loadings", ["column", *factors], loadings, tall=True),
        Table("uniquenesses", ["column", "uniqueness", "communality", "noise variance"], shares, tall=True),
    ]


def imputer_tables(estimator: Any) -> list[Table]:
    """Means, standard deviations and correlations."""
    import numpy as np

    names = feature_names(estimator, estimator.n_features_in_)
    sd = np.sqrt(np.diag(estimator.covariance_))
    correlation = estimator.covariance_ / sd[:, None] / sd
    rows = [[name, *own] for name, own in zip(names, zip(estimator.mean_, sd), strict=True)]
    return [
        Table("columns", ["column", "mean", "sd"], rows, tall=True),
        Table(
            "correlations", ["column", *names], [[n, *r] for n, r in zip(names, correlation, strict=True)], tall=True
        ),
    ]
