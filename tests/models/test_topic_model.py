"""Topics: the generic proofs, and the published values."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

import dask_em as em
from dask_em.errors import DegenerateError
from dask_em.model import Chunk
from dask_em.models.topics import TopicModel, TopicParams
from dask_em.solvers.stepwise import Stepwise
from dask_em.testing import check_model


def _documents(n: int = 80) -> tuple[csr_array, TopicParams]:
    """Documents whose shares are even enough to have one optimum."""
    rng = np.random.default_rng(0)
    beta = rng.dirichlet(np.full(9, 0.3), 3)
    shares = rng.dirichlet([2.0, 3.0, 4.0], n)
    counts = np.array([rng.multinomial(rng.poisson(60), t @ beta) for t in shares]).astype(float)
    return csr_array(counts), TopicParams(np.ascontiguousarray(beta.T * 1000 + 0.3), np.array([2.0, 3.0, 4.0]), 0.3)


@pytest.mark.parametrize(
    "priors",
    [{}, {"doc_prior": 1.0}, {"word_prior": 0.2}, {"doc_prior": (0.5, 0.7, 0.9), "word_prior": 0.1}],
    ids=["learned", "alpha given", "eta given", "both given"],
)
@pytest.mark.parametrize("dense", [False, True])
def test_the_generic_proofs(priors: dict[str, Any], dense: bool) -> None:
    x, params = _documents()
    if "word_prior" in priors:
        params = replace(params, eta=priors["word_prior"])
    if "doc_prior" in priors:
        params = replace(params, alpha=np.broadcast_to(priors["doc_prior"], 3).copy())
    model = TopicModel(3, document_tol=1e-13, document_rounds=100_000, **priors)
    rows = x.toarray() if dense else x
    proved = check_model(model, [Chunk(rows[:20]), Chunk(rows[20:])], params=params)
    assert not [p for p in proved if p.startswith("not proved")]
    assert len(proved) == (11 if isinstance(priors.get("doc_prior"), tuple) else 12)


def test_the_bound_of_one_word_is_the_published_one() -> None:
    """Of the topics as Spark's tests have them, the topic term included."""
    concentration = np.array(
        [
            [1.86738052, 1.94056535, 1.89981687, 0.0833265, 0.07405918, 0.07940597],
            [0.15081551, 0.08637973, 0.12428538, 1.9474897, 1.94615165, 1.95204124],
        ]
    ).T.copy()
    model = TopicModel(2, 0.01, 0.01, document_tol=1e-12)
    params = TopicParams(concentration, np.full(2, 0.01), 0.01)
    word = Chunk(csr_array(([1.0], ([0], [0])), shape=(1, 6)))
    bound = model.e_step([params], word)[0].total_loglik + model.log_prior(params)
    assert round(bound, 6) == -25.970696


def test_one_online_step_is_the_published_one() -> None:
    """That of onlineldavb and of Spark: two documents of three words each."""
    before = np.array([[1.1, 1.2, 1.3, 0.9, 0.8, 0.7], [0.9, 0.8, 0.7, 1.1, 1.2, 1.3]])
    model = TopicModel(2, 0.5, 0.5, document_tol=1e-12)
    solver = Stepwise(kappa=0.51, offset=1023.0, size=2.0)  # the first step is number one
    state = solver.begin(model, TopicParams(before.T.copy(), np.full(2, 0.5), 0.5))
    documents = Chunk(np.array([[1.0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]))
    state = solver.tell(model, state, model.e_step(solver.ask(state), documents))
    expected = [1.1101, 1.2076, 1.3050, 0.8899, 0.7924, 0.6950]
    assert np.round(state.params.concentration.T, 4).tolist() == [expected, expected[3:] + expected[:3]]


def test_the_bound_never_falls_in_batches_on_real_text(real_data: Path) -> None:
    triplets = pd.read_parquet(real_data / "text" / "ap" / "ap_triplets.parquet")
    x = csr_array((triplets["count"].to_numpy(float), (triplets["doc"], triplets["word"])))
    chunk, model = Chunk(x), TopicModel(20)
    params, bounds = model.start(chunk, np.random.default_rng(0)), []
    for _ in range(25):
        stats = model.e_step([params], chunk)[0]
        bounds.append(stats.total_loglik + model.log_prior(params))
        params = model.m_step(stats)
    assert np.diff(bounds).min() > 0


def test_what_the_start_implies_leads_back_to_it() -> None:
    x, _ = _documents()
    model = TopicModel(3).about(np.asarray(x.mean(axis=0)))
    params = model.start(Chunk(x), np.random.default_rng(0))
    fixed = replace(model, word_prior=params.eta)
    back = fixed.m_step(fixed.implied(params, 80.0) * 80.0)
    assert np.allclose(back.concentration, params.concentration)
    assert np.isclose(model.implied(params, None).words, x.sum() / 80)


def test_no_documents_with_words_are_no_start() -> None:
    with pytest.raises(DegenerateError, match="no document of the sample has any words"):
        TopicModel(2).start(Chunk(csr_array((5, 4))), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"n_components": 0}, "n_components=0"),
        ({"doc_prior": -1.0}, "doc_topic_prior=-1.0"),
        ({"doc_prior": (0.1, 0.2)}, "2 values for 3 topics"),
        ({"word_prior": 0.0}, "topic_word_prior=0.0"),
        ({"document_tol": 0.0}, "document_tol=0.0"),
    ],
)
def test_bad_settings_are_named(bad: dict[str, Any], said: str) -> None:
    with pytest.raises(em.ConfigurationError, match=said):
        TopicModel(**{"n_components": 3, **bad})


def test_sums_do_not_depend_on_how_memory_has_the_words() -> None:
    x, params = _documents()
    turned = TopicParams(np.asfortranarray(params.concentration), params.alpha, params.eta)
    one, other = (TopicModel(3).e_step([p], Chunk(x))[0] for p in (params, turned))
    assert one.counts.tobytes() == other.counts.tobytes()
    assert turned.concentration.flags.c_contiguous
