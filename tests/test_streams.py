"""What a stream of batches leaves of an earlier fit, and what may change between batches."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dask_em as em
from dask_em.callbacks import Quiet


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3000, 3))


def test_a_stream_forgets_what_was_said_of_a_fit(x: np.ndarray, tmp_path: Path) -> None:
    km = em.KMeans(3, random_state=0, verbose=0).fit(x)
    before = km.cluster_centers_
    km.partial_fit(x[:1000])
    assert not hasattr(km, "labels_")
    assert len(km.restarts_) == 0
    assert km.n_iter_ == 1
    apart = ((x[:1000, None] - before) ** 2).sum(axis=2).min(axis=1)
    assert km.inertia_ == pytest.approx(apart.sum(), rel=1e-12)  # of the batch, at the centres that it met
    assert km.history_[-1]["inertia"] == km.inertia_
    km.save(tmp_path / "m")
    assert em.load(tmp_path / "m").inertia_ == km.inertia_
    gm = em.GaussianMixture(2, random_state=0, verbose=0).partial_fit(x)
    assert len(gm.restarts_) == 0
    fa = em.FactorAnalysis(1, verbose=0).partial_fit(x)
    assert np.isnan(fa.saturated_loglik_)


CHANGES: list[tuple[Any, dict[str, Any], str]] = [
    (em.KMeans(3, random_state=0, verbose=0), {"n_clusters": 4}, "n_clusters was 3 when this KMeans was fitted"),
    (em.GaussianMixture(2, random_state=0, verbose=0), {"n_components": 3}, "n_components was 2 when"),
    (em.GaussianMixture(2, random_state=0, verbose=0), {"covariance_type": "diag"}, "covariance_type was 'full' when"),
    (em.Mixture(2, random_state=0, verbose=0), {"distribution": em.Factors(1)}, "distribution was None when"),
    (em.FactorAnalysis(1, verbose=0), {"n_components": 2}, "n_components was 1 when this FactorAnalysis was fitted"),
]


@pytest.mark.parametrize(("estimator", "change", "words"), CHANGES, ids=lambda v: str(v) if isinstance(v, dict) else "")
def test_another_model_between_batches_is_refused(
    x: np.ndarray, tmp_path: Path, estimator: Any, change: dict[str, Any], words: str
) -> None:
    before = {name: estimator.get_params()[name] for name in change}
    estimator.partial_fit(x[:1000])
    estimator.set_params(max_passes=7).partial_fit(x[1000:2000])  # how fits run is no part of the model
    estimator.save(tmp_path / "m")
    for stream in (estimator, em.load(tmp_path / "m")):
        stream.set_params(**change)
        with pytest.raises(em.ConfigurationError, match=f"{words}.*or call fit to begin anew"):
            stream.partial_fit(x[2000:])
        with pytest.raises(em.ConfigurationError, match=words):
            stream.save(tmp_path / "other")
        stream.set_params(**before).partial_fit(x[2000:])
    assert [f.name for f in tmp_path.iterdir()] == ["m"]
    estimator.set_params(**change).fit(x).save(tmp_path / "m")
    assert em.load(tmp_path / "m").get_params()[next(iter(change))] == next(iter(change.values()))


def test_a_stream_may_begin_with_a_block_that_a_filter_empties(x: np.ndarray, tmp_path: Path) -> None:
    frame = pd.DataFrame(x, columns=list("abc")).assign(d=np.arange(len(x)) % 2.0)
    frame.loc[:999, "d"] = [0.0, 2.0] * 500  # the first block may have rows that the filter keeps, and has none
    frame.to_parquet(tmp_path / "x.parquet", row_group_size=1000)
    gm = em.GaussianMixture(2, random_state=0, verbose=0)
    for _ in range(2):
        gm.partial_fit(tmp_path / "x.parquet", columns=list("abc"), filters=[("d", "==", 1.0)])
    assert gm.status_ == "streaming"
    assert np.isfinite(gm.means_).all()
    assert np.isfinite(gm.stream_.center).all()


class Heard(Quiet):
    def __init__(self) -> None:
        self.passes = 0

    def on_step(self, fit: Any) -> None:
        self.passes += 1


def test_callbacks_hear_of_every_batch(x: np.ndarray) -> None:
    heard = Heard()
    gm = em.GaussianMixture(2, random_state=0, verbose=0, callbacks=[heard]).fit(x)
    gm.partial_fit(x[:1000])
    before = heard.passes
    gm.partial_fit(x[1000:])
    assert heard.passes == before + 1
