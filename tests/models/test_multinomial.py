"""Multinomial rows, dense and sparse: the same answers, and sparse ones never made dense."""

import tracemalloc
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from scipy import sparse, stats
from scipy.optimize import minimize

import dask_em as em
from dask_em.distributions.multinomial import MultinomialParams
from dask_em.errors import RowError
from dask_em.models.mixture import MixtureParams
from dask_em.moments import moments
from dask_em.testing import check_model

P = np.array([[0.4, 0.3, 0.2, 0.1, 0.0], [0.05, 0.1, 0.15, 0.3, 0.4]])


def texts(n: int, total: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.6).astype(int)
    return rng.multinomial(rng.integers(0, total, n), P[labels]).astype(np.float64), labels


X, LABELS = texts(200)
RARE = sparse.random_array((600, 90), density=0.05, format="csr", rng=np.random.default_rng(0))
RARE.data = np.ceil(4 * RARE.data)
SETTINGS: dict[str, Any] = {"random_state": 0, "verbose": 0}


@pytest.mark.parametrize("prior", [0.0, 0.5])
@pytest.mark.parametrize("thin", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_the_generic_proofs_hold(prior: float, thin: bool, weighted: bool, dtype: Any) -> None:
    x = X.astype(dtype)
    x = sparse.csr_array(x) if thin else x
    w = np.random.default_rng(1).random(200) if weighted else None
    chunks = [em.Chunk(x[rows], None if w is None else w[rows]) for rows in (slice(77), slice(77, None))]
    proved = check_model(em.MixtureModel(2, em.Multinomial(prior)), chunks)
    assert len(proved) == 12
    assert not [line for line in proved if line.startswith("not proved")]


def test_densities_are_those_of_scipy() -> None:
    x = X[X[:, 4] == 0]
    assert (x.sum(axis=1) == 0).any()
    theirs = np.array([stats.multinomial.logpmf(x, x.sum(axis=1).astype(int), p) for p in P]).T
    for rows in (x, sparse.csr_array(x)):
        assert em.Multinomial().log_density(MultinomialParams(P), rows) == pytest.approx(theirs, rel=1e-12, abs=1e-12)


def test_one_component_has_the_shares_of_all_counts() -> None:
    mix = em.Mixture(1, em.Multinomial(), **SETTINGS).fit(X)
    assert mix.probabilities_[0] == pytest.approx(X.sum(axis=0) / X.sum(), rel=1e-12)
    theirs = stats.multinomial.logpmf(X, X.sum(axis=1).astype(int), mix.probabilities_[0]).sum()
    assert mix.loglik_ == pytest.approx(theirs, rel=1e-12)
    assert mix.n_parameters() == 4


def test_a_prior_adds_counts_to_every_category() -> None:
    mix = em.Mixture(1, em.Multinomial(prior=2.0), **SETTINGS).fit(X)
    assert mix.probabilities_[0] == pytest.approx((X.sum(axis=0) + 2) / (X.sum() + 10), rel=1e-12)


@pytest.mark.parametrize("thin", [False, True])
def test_mixtures_are_recovered(thin: bool) -> None:
    x, labels = texts(20_000, 30)
    mix = em.Mixture(2, em.Multinomial(), **SETTINGS).fit(sparse.csr_array(x) if thin else x)
    order = np.argsort(-mix.probabilities_[:, 0])
    assert mix.probabilities_[order] == pytest.approx(P, abs=0.005)
    assert mix.weights_[order] == pytest.approx([0.4, 0.6], abs=0.01)
    full = x.sum(axis=1) > 10
    assert (order[labels[full]] == mix.predict(x)[full]).mean() > 0.99
    assert mix.predict_proba(np.zeros((1, 5)))[0] == pytest.approx(mix.weights_)


def every_kind(x: sparse.csr_array) -> dict[str, Any]:
    whole = da.from_array(x.toarray(), chunks=(250, -1))
    return {
        "csr array": x,
        "csr matrix": sparse.csr_matrix(x),
        "csc": sparse.csc_array(x),
        "coo": sparse.coo_array(x),
        "twice": sparse.coo_array(
            (np.repeat(x.data / 2, 2), [np.repeat(c, 2) for c in x.tocoo().coords]), shape=x.shape
        ),
        "dask": whole.map_blocks(sparse.csr_array),
        "dask of matrices": whole.map_blocks(sparse.csc_matrix),
    }


@pytest.mark.parametrize("kind", ["csr array", "csr matrix", "csc", "coo", "twice", "dask", "dask of matrices"])
@pytest.mark.parametrize("weighted", [False, True])
def test_sparse_rows_have_the_fit_of_dense_ones(kind: str, weighted: bool) -> None:
    w = np.random.default_rng(0).integers(0, 3, 600).astype(float) if weighted else None
    x, rows = every_kind(RARE)[kind], RARE.toarray()  # in blocks that are cut alike, as starts are of rows by block
    in_blocks = da.from_array(rows, chunks=(250, -1)) if kind.startswith("dask") else rows
    dense = em.Mixture(3, em.Multinomial(0.1), **SETTINGS).fit(in_blocks, sample_weight=w)
    thin = em.Mixture(3, em.Multinomial(0.1), **SETTINGS).fit(x, sample_weight=w)
    assert thin.loglik_ == pytest.approx(dense.loglik_, rel=1e-9)
    order = np.argsort(thin.weights_)[np.argsort(np.argsort(dense.weights_))]
    assert thin.probabilities_[order] == pytest.approx(dense.probabilities_, abs=1e-4)
    assert thin.score(x, sample_weight=w) == pytest.approx(dense.score(RARE.toarray(), sample_weight=w), rel=1e-9)
    ours, theirs = np.asarray(thin.predict_proba(x)), thin.predict_proba(RARE.toarray())
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_columns_of_sparse_rows_are_chosen_by_position() -> None:
    columns = list(range(5, 60))
    thin = em.Mixture(2, em.Multinomial(0.1), **SETTINGS).fit(RARE, columns=columns)
    dense = em.Mixture(2, em.Multinomial(0.1), **SETTINGS).fit(RARE.toarray(), columns=columns)
    assert thin.loglik_ == pytest.approx(dense.loglik_, rel=1e-9)
    assert (thin.predict(RARE, columns=columns) == thin.predict(RARE.toarray(), columns=columns)).all()


@pytest.mark.parametrize("w", [None, np.arange(600.0) % 3])
def test_the_census_of_sparse_rows_is_that_of_dense_ones(w: np.ndarray | None) -> None:
    x = RARE.copy()
    x.data -= 3
    full = sparse.hstack([x, sparse.csr_array(np.full((600, 1), 2.0))], format="csr")
    thin, dense = moments(em.Chunk(full, w)), moments(em.Chunk(full.toarray(), w))
    for name, value in vars(dense).items():
        assert getattr(thin, name) == pytest.approx(value, rel=1e-12, abs=1e-12), name


def test_sparse_rows_are_never_made_dense() -> None:
    rng = np.random.default_rng(0)
    n, d, words = 20_000, 100_000, 20  # 16 GB, were it dense
    topic = rng.integers(2, size=n)
    columns = (rng.integers(d // 2, size=(n, words)) + topic[:, None] * (d // 2)).ravel()
    x = sparse.csr_array((np.ones(n * words), columns, np.arange(0, n * words + 1, words)), shape=(n, d))
    tracemalloc.start()
    mix = em.Mixture(2, em.Multinomial(1.0), n_init=2, **SETTINGS).fit(x)
    assert tracemalloc.get_traced_memory()[1] < 400e6
    tracemalloc.stop()
    assert abs(np.corrcoef(mix.predict(x), topic)[0, 1]) > 0.999


def test_sparse_data_beyond_the_sample_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    x = sparse.csr_array(texts(24_000, 60)[0])
    settings = {**SETTINGS, "sample_bytes": 200_000, "n_init": 2}
    at_once = em.Mixture(3, em.Multinomial(0.1), **settings).fit(x)
    assert at_once.n_passes_ > 1
    place = tmp_path / "c"
    with pytest.warns(em.FitWarning):
        em.Mixture(3, em.Multinomial(0.1), checkpoint=place, max_passes=2, **settings).fit(x)
    again = em.Mixture(3, em.Multinomial(0.1), checkpoint=place, **settings).fit(x)
    assert again.loglik_ == at_once.loglik_
    assert np.array_equal(again.probabilities_, at_once.probabilities_)


def test_a_stream_and_a_selection_take_sparse_rows(tmp_path: Path) -> None:
    mix = em.Mixture(2, em.Multinomial(0.1), **SETTINGS)
    for start in (0, 200, 400):
        mix.partial_fit(RARE[start : start + 200])
    assert mix.n_rows_ == 600
    best = em.select(
        em.Mixture(1, em.Multinomial(0.1), **SETTINGS), sparse.csr_array(texts(3000, 40)[0]), n_components=[1, 2]
    )
    assert best.best_params_ == {"n_components": 2}
    mix.save(tmp_path / "m.safetensors")
    assert (em.load(tmp_path / "m.safetensors").predict(RARE) == mix.predict(RARE)).all()


def test_what_takes_dense_rows_only_says_so() -> None:
    thin = da.from_array(X, chunks=(90, -1)).map_blocks(sparse.csr_array)
    for x in (sparse.csr_array(X), sparse.csr_matrix(X), thin):
        for estimator in (
            em.GaussianMixture(2, **SETTINGS),
            em.KMeans(2, **SETTINGS),
            em.Mixture(2, em.Poisson(), **SETTINGS),
            em.FactorAnalysis(1, verbose=0),
        ):
            with pytest.raises(em.DataError, match=r"the data is sparse, and this model takes dense rows only"):
                estimator.fit(x)
        with pytest.raises(em.DataError, match="dense rows only"):
            em.fit(em.MixtureModel(2, em.Poisson()), x, verbose=0)
        fitted = em.Mixture(2, em.Poisson(), **SETTINGS).fit(X)
        with pytest.raises((em.DataError, TypeError), match=r"dense"):
            fitted.predict(x)
        with pytest.raises(em.DataError, match="dense rows only"):
            fitted.score(x)


@pytest.mark.parametrize("value", [-1.0, 0.5])
def test_what_is_no_count_is_refused_with_its_place(value: float) -> None:
    x = X.copy()
    x[7, 1] = value
    for rows in (x, sparse.csr_array(x)):
        with pytest.raises(RowError, match=f"is {value:g}, where Multinomial needs a whole number") as caught:
            em.Multinomial().check_rows(rows)
        assert (caught.value.row, caught.value.column) == (7, 1)
        with pytest.raises(em.DataError, match=rf"row 7, column 1 is {value:g}"):
            em.Mixture(1, em.Multinomial(), **SETTINGS).fit(rows)
    x[7, 1] = np.nan
    with pytest.raises(em.DataError, match="row 7, column 1 is NaN, where Multinomial needs a whole number"):
        em.Mixture(1, em.Multinomial(), **SETTINGS).fit(sparse.csr_array(x))


def test_counts_that_are_missing_are_left_out_of_their_row() -> None:
    """What is observed is multinomial given its own total; the hidden counts are no more than a way to the optimum."""
    p = np.array([[0.5, 0.3, 0.1, 0.1]])
    x = np.array([[3.0, 1.0, np.nan, 2.0], [np.nan, 4.0, 1.0, np.nan], [np.nan] * 4, [0.0, np.nan, 0.0, np.nan]])
    found = em.Multinomial().log_density(MultinomialParams(p), x)[:, 0]
    expected = [
        stats.multinomial(6, p[0, [0, 1, 3]] / 0.9).logpmf([3, 1, 2]),
        stats.multinomial(5, p[0, [1, 2]] / 0.4).logpmf([4, 1]),
        0.0,
        0.0,
    ]
    assert found == pytest.approx(np.array(expected, dtype=float), abs=1e-12)


def test_probabilities_are_recovered_where_counts_are_missing() -> None:
    rng = np.random.default_rng(5)
    p = np.array([[0.6, 0.2, 0.1, 0.1], [0.1, 0.1, 0.2, 0.6]])
    x = rng.multinomial(40, p[rng.integers(2, size=6000)]).astype(float)
    x[rng.random(x.shape) < 0.25] = np.nan
    mix = em.Mixture(2, em.Multinomial(), **SETTINGS).fit(x)
    order = np.argsort(-mix.probabilities_[:, 0])
    assert mix.probabilities_[order] == pytest.approx(p, abs=0.005)
    zeros = em.Mixture(2, em.Multinomial(), **SETTINGS).fit(np.nan_to_num(x))
    assert np.abs(zeros.probabilities_[np.argsort(-zeros.probabilities_[:, 0])] - p).max() > 0.02


@pytest.mark.parametrize("solver", ["em", "anderson"])
def test_one_multinomial_with_missing_counts_is_what_a_general_maximiser_finds(solver: str) -> None:
    rng = np.random.default_rng(6)
    x = rng.multinomial(9, [0.4, 0.3, 0.2, 0.1], 200).astype(float)
    x[rng.random(x.shape) < 0.3] = np.nan
    seen = ~np.isnan(x)

    def loss(v: np.ndarray) -> float:
        q = np.append(v, 0.0) - np.log(np.exp(np.append(v, 0.0)).sum())
        return -float(
            (np.nan_to_num(x) @ q - np.nansum(x, axis=1) * np.log(seen @ np.exp(q) + ~seen.any(axis=1))).sum()
        )

    best = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-7}).x
    best = np.exp(np.append(best, 0.0)) / np.exp(np.append(best, 0.0)).sum()
    mix = em.Mixture(1, em.Multinomial(), solver=solver, tol=1e-8, **SETTINGS).fit(x)
    assert mix.probabilities_[0] == pytest.approx(best, abs=1e-5)


def test_sparse_tables_that_are_none_are_refused() -> None:
    with pytest.raises(em.DataError, match=r"shape \(0, 3\)"):
        em.open(sparse.csr_array((0, 3)))
    with pytest.raises(em.DataError, match="complex128, not real numbers"):
        em.open(sparse.csr_array(np.eye(3, dtype=complex)))


def test_a_component_without_counts_takes_those_of_all() -> None:
    x = np.array([[1.0, 3.0], [0.0, 0.0]])
    mn = em.Multinomial()
    assert mn.estimate(mn.statistics(x, np.eye(2))).probabilities.tolist() == [[0.25, 0.75], [0.25, 0.75]]


def test_draws_have_the_total_of_the_data_or_the_one_given() -> None:
    params = MixtureParams(np.array([0.25, 0.75]), MultinomialParams(P))
    x, labels = em.MixtureModel(2, em.Multinomial(total=30)).sample(params, 40_000, np.random.default_rng(3))
    assert (x.sum(axis=1) == 30).all()
    assert x[labels == 1].mean(axis=0) / 30 == pytest.approx(P[1], abs=0.005)
    with pytest.raises(em.ConfigurationError, match="give it a total"):
        em.Multinomial().sample(MultinomialParams(P), np.zeros(2, dtype=int), np.random.default_rng(0))
    drawn, _ = em.Mixture(2, em.Multinomial(), **SETTINGS).fit(X).sample(10)
    assert (drawn.sum(axis=1) == round(X.sum() / 200)).all()


@pytest.mark.parametrize(
    "settings", [{"prior": -1.0}, {"prior": "a"}, {"prior": np.nan}, {"total": 2.5}, {"total": -1}]
)
def test_hyperparameters_are_checked(settings: Any) -> None:
    with pytest.raises(em.ConfigurationError, match=next(iter(settings))):
        em.Multinomial(**settings)


def test_standard_errors_of_sparse_rows() -> None:
    x = sparse.csr_array(X)
    table = em.Mixture(1, em.Multinomial(), **SETTINGS).fit(x).standard_errors(x)
    p = X.sum(axis=0) / X.sum()
    assert table["standard_error"].to_numpy() == pytest.approx(np.sqrt(p * (1 - p) / X.sum()), rel=1e-4)
