"""`KMeans`: scikit-learn's interface to k-means, for data of any size."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin

from dask_em.engine import Callback
from dask_em.entry import Entry
from dask_em.errors import ConfigurationError
from dask_em.estimators.prediction import Predictor
from dask_em.estimators.rows import is_array_like
from dask_em.estimators.scoring import logliks
from dask_em.history import Record
from dask_em.kmeans_parallel import kmeans_parallel
from dask_em.model import Executor, Solver, Source
from dask_em.models.kmeans import KMeansModel, KMeansParams
from dask_em.result import FitResult
from dask_em.settings import Settings
from dask_em.solvers import EM, Anchored, Anderson
from dask_em.solvers.relative import Relative

_STARTS = 8  # raced, or clusterings of k-means||'s candidates, where n_init is "auto"
_SOLVERS: dict[str, EM | Anderson | Anchored] = {"em": EM(), "anderson": Anderson(), "anchored": Anchored()}


class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, Predictor):
    """k-means clustering of data that need not fit in memory.

    Rows go to their nearest centre, by distances that are exact to double precision whatever the data's type and
    wherever it lies; a cluster that loses all its rows takes those that are farthest from their centres.

    Parameters
    ----------
    n_clusters : int, default 8
    init : {"k-means++", "k-means||"} or array-like of shape (n_clusters, n_features), default "k-means++"
        Where to begin.  "k-means++": on a random sample of the rows, several starts of which are raced.
        "k-means||": by seven more steps over all rows, which see clusters too rare for a sample.
    n_init : "auto" or int, default "auto"
        Starts to race on the sample ("k-means||": clusterings of its candidates, in memory).  "auto": 8; one for
        given centres.
    max_passes : int, default 300
        Steps at most, the census included, those of k-means|| not.  Each is a pass, a read of the data, unless its
        rows stay in memory.
    tol : float, default 1e-5
        The fit has converged once further steps would lower the inertia by less than this share of it, by
        prediction.  0: go on until no row changes its cluster.
    random_state : int, RandomState or None, default None
    solver : {"auto", "em", "anderson", "anchored"} or Solver, default "auto"
        "em" is Lloyd's algorithm.  "auto": that for rows that stay in memory, and "anchored", which needs a few
        passes where Lloyd's needs a hundred, for data that is read again at every step.
    sample_bytes : int, optional
        Memory for the random sample of the rows; data that fits in it is read once.
    time_limit : float, optional
        Seconds after which no further step begins.
    checkpoint : path or URL, optional
        Written after every step; the same call goes on from it.
    checkpoint_options : dict, optional
        What fsspec needs to reach the checkpoint.
    executor : Executor, optional
        Default: the cluster of the active `distributed.Client`, else threads in this process.
    callbacks : sequence of Callback, optional
    verbose : int, default 1
        0: silent. Otherwise progress shows in a terminal or a notebook.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_clusters, n_features)
    inertia_ : float
        Sum of the rows' squared distances from their centres, times their weights.
    labels_ : ndarray of shape (n_rows,)
        The cluster of each row; only where X is in memory.  For anything larger ask `predict`, which is lazy.
    n_iter_ : int
        Steps that moved the centres or found that they need not move; the same as `n_steps_`.
    n_passes_ : int
        Complete reads of the data, the census included.
    status_ : {"converged", "max_passes", "degenerate", "interrupted", "time_limit", "streaming"}
    message_ : str
        How the fit ended, and what would help.
    history_ : list of dict
        One record a step; "inertia" is that of the centres that the step looked at and that were taken.
    restarts_ : DataFrame
        One row a start.

    See Also
    --------
    sklearn.cluster.KMeans : In memory, one process.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_em as em
    >>> X = np.array([[1.0, 2.0], [1.0, 4.0], [1.0, 0.0], [10.0, 2.0], [10.0, 4.0], [10.0, 0.0]])
    >>> km = em.KMeans(2, random_state=0).fit(X)
    >>> km.cluster_centers_[np.argsort(km.cluster_centers_[:, 0])].tolist(), km.inertia_
    ([[1.0, 2.0], [10.0, 2.0]], 16.0)
    """

    answers: ClassVar[tuple[str, ...]] = ("labels", "distances", "loglik")
    _fitted: ClassVar[tuple[str, ...]] = ("cluster_centers_",)
    _figures: ClassVar[dict[str, type]] = {"inertia_": float, "n_iter_": int}

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "k-means++",
        n_init: int | str = "auto",
        max_passes: int = 300,
        tol: float = 1e-5,
        random_state: Any = None,
        solver: str | Solver = "auto",
        sample_bytes: int | None = None,
        time_limit: float | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_options: Mapping[str, Any] | None = None,
        executor: Executor | None = None,
        callbacks: Sequence[Callback] | None = None,
        verbose: int = 1,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_passes = max_passes
        self.tol = tol
        self.random_state = random_state
        self.solver = solver
        self.sample_bytes = sample_bytes
        self.time_limit = time_limit
        self.checkpoint = checkpoint
        self.checkpoint_options = checkpoint_options
        self.executor = executor
        self.callbacks = callbacks
        self.verbose = verbose

    # ---- fit

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, **opening: Any) -> Self:
        """Fit to all rows of X.

        Parameters
        ----------
        X : array, frame, path, URL or Source
            NumPy or dask array, pandas or dask frame, `zarr.Array`, xarray DataArray, the path or
            URL of a Zarr array or of Parquet files, or what `dask_em.open` made.
        y : ignored
        sample_weight : array of shape (n_rows,) or str, optional
            Weight of each row; for frames and Parquet files also a column's name.
        **opening
            columns, filters, storage_options and missing_chunks, as in `dask_em.open`.

        Returns
        -------
        self

        Raises
        ------
        DataError
            The data cannot be fitted; the message names the place and the remedy.
        ConfigurationError
            A hyperparameter is not usable.
        """
        super().fit(X, y, sample_weight, **opening)
        if (is_array_like(X) or (isinstance(X, np.ndarray) and self._stayed)) and opening.get("columns") is None:
            self.labels_ = np.asarray(self.predict(X))
        return self

    def _model(self) -> KMeansModel:
        return KMeansModel(self.n_clusters)

    def _params(self) -> KMeansParams:
        return KMeansParams(self.cluster_centers_)

    def _entry(self, source: Source) -> Entry:
        model = self._model()
        settings = self._settings()  # what it refuses, it refuses before any read
        if not isinstance(self.init, str):
            return Entry(model, (KMeansParams(self._given(source.n_features)),))
        if self.init == "k-means++":
            return Entry(model)
        if self.init != "k-means||":
            raise ConfigurationError(
                f"init={self.init!r} is unknown; choose 'k-means++', 'k-means||' or give the centres"
            )
        return Entry(model, seeding=partial(_seeded, n_clusters=self.n_clusters, tries=settings.n_init))

    def _given(self, n_features: int) -> np.ndarray:
        try:
            if np.iscomplexobj(self.init):
                raise TypeError("they are complex")
            centers = np.array(self.init, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"init must be numbers, 'k-means++' or 'k-means||': {error}") from error
        if centers.shape != (self.n_clusters, n_features):
            raise ConfigurationError(
                f"init has shape {centers.shape}, and {self.n_clusters} clusters of {n_features} columns need "
                f"{(self.n_clusters, n_features)}"
            )
        if not np.isfinite(centers).all():
            raise ConfigurationError("init holds a value that is not finite: give centres that are numbers")
        distinct, first, inverse = np.unique(centers, axis=0, return_index=True, return_inverse=True)
        if len(distinct) < len(centers):
            twin = next(i for i, j in enumerate(inverse.ravel()) if first[j] != i)
            raise ConfigurationError(
                f"init holds the same centre twice, in rows {first[inverse.ravel()[twin]]} and {twin}: the second "
                "would have no rows, so give distinct centres"
            )
        return centers

    @property
    def _stayed(self) -> bool:
        """Whether the rows of the fit stayed in memory."""
        return bool(self.history_[-1]["resident"])

    def _settings(self) -> Settings:
        if isinstance(self.n_init, str) and self.n_init != "auto":
            raise ConfigurationError(f"n_init={self.n_init!r} must be 'auto' or a whole number of at least 1")
        given: Any = self.n_init
        self.n_init = _STARTS if given == "auto" else given
        try:
            settings = super()._settings()
        finally:
            self.n_init = given
        if not isinstance(self.solver, str):
            return settings
        return replace(settings, solver=Relative(_SOLVERS.get(self.solver), float(self.tol)))  # "auto" is none of them

    def _finish(self, result: FitResult) -> None:
        super()._finish(result)
        self.n_iter_ = max(1, result.n_steps)
        self.__dict__.pop("labels_", None)  # of the rows of an earlier fit

    def _keep(self, params: KMeansParams) -> None:
        self.cluster_centers_ = params.centers

    # ---- rows

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None, **opening: Any) -> Any:
        """Fit, then the cluster of each row; see `fit` and `predict`."""
        self.fit(X, y, sample_weight, **opening)
        return self.labels_ if hasattr(self, "labels_") else self.predict(X, **opening)

    def transform(self, X: Any, **opening: Any) -> Any:
        """Distances of each row from all centres, (n_rows, n_clusters); see `predict`."""
        return self._rows(X, "distances", self.n_clusters, np.float64, **opening)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None, **opening: Any) -> float:
        """Minus the inertia of X about the fitted centres, read in one pass."""
        return self._total(logliks, X, sample_weight, **opening)[0]

    def figures_of(self, loglik: float, weight: float) -> dict[str, Any]:
        """What minus the inertia of rows of some weight says of the clusters, by name."""
        return {"mean_inertia": -loglik / weight, "inertia": -loglik, "clusters": int(self.n_clusters)}

    @property
    def _n_features_out(self) -> int:
        """Columns of what `transform` gives."""
        return int(self.cluster_centers_.shape[0])

    def _check_loaded(self) -> None:
        if self.cluster_centers_.shape != (self.n_clusters, self.n_features_in_):
            raise ValueError(f"cluster_centers_ has the shape {self.cluster_centers_.shape}")


def _seeded(
    rows: Source, executor: Executor, seed: int, *, n_clusters: int, tries: int, **heard: Any
) -> tuple[KMeansParams, list[Record]]:
    seeds = kmeans_parallel(rows, executor, n_clusters, seed, tries=tries, **heard)
    return KMeansParams(seeds.centers), seeds.history
