"""The compiled k-means kernels against their NumPy specification, and the promises made about both."""

import tracemalloc
from typing import Any

import numpy as np
import pytest

from dask_em.kernels import reference
from dask_em.kernels.kmeans import HardSums, hard_sums, labels, nearest_rows, squared_distances

ROOM = 5


def problem(n: int, d: int, k: int, seed: int = 0, at: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centers = at + 2 * rng.normal(size=(k, d))
    return centers[rng.integers(k, size=n)] + rng.normal(size=(n, d)), centers


def assert_same(sums: HardSums, expected: HardSums, rtol: float = 1e-12) -> None:
    assert sums.inertia + sums.inertia_low == pytest.approx(expected.inertia, rel=rtol)
    np.testing.assert_allclose(sums.counts, expected.counts, rtol=1e-12)
    np.testing.assert_allclose(sums.first, expected.first, rtol=0, atol=rtol * (1 + np.abs(expected.first).max()))
    np.testing.assert_allclose(sums.farthest.squared, expected.farthest.squared, rtol=1e-12)
    np.testing.assert_array_equal(sums.farthest.rows, expected.farthest.rows)


def both(x: Any, weight: Any, centers: np.ndarray) -> tuple[HardSums, HardSums]:
    pivot = np.asarray(x, dtype=np.float64).mean(axis=0)
    return hard_sums(x, weight, pivot, [centers], ROOM)[0], reference.hard_sums(x, weight, pivot, centers, ROOM)


@pytest.mark.parametrize("d", [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 24, 31, 50])
@pytest.mark.parametrize("k", [1, 2, 5, 64])
def test_sums_of_any_shape(d: int, k: int) -> None:
    x, centers = problem(700, d, k)
    assert_same(*both(x, None, centers))
    weight = np.random.default_rng(1).random(700)
    weight[::7] = 0
    assert_same(*both(x, weight, centers))


@pytest.mark.parametrize("n", [1, 7, 8, 15, 16, 17, 33, 5000])
def test_any_number_of_rows(n: int) -> None:
    assert_same(*both(*[problem(n, 5, 3)[0], None, problem(n, 5, 3)[1]]))


def test_a_thousand_centres() -> None:
    x, centers = problem(3000, 16, 1000)
    assert_same(*both(x, None, centers))
    np.testing.assert_array_equal(labels(x, centers), reference.squared_distances(x, centers).argmin(axis=1))


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int64, bool, ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_dtype_and_order(dtype: Any, order: Any) -> None:
    x, centers = problem(999, 6, 4)
    scaled = np.asarray(np.abs(20 * x), dtype=dtype, order=order)
    before = scaled.copy()
    sums, expected = both(scaled, None, 20 * centers)
    assert_same(sums, expected)
    np.testing.assert_array_equal(scaled, before)
    np.testing.assert_array_equal(labels(scaled, 20 * centers), labels(scaled.astype(float), 20 * centers))


@pytest.mark.parametrize("at", [1e6, 1e8])
@pytest.mark.parametrize("d", [1, 5, 16])
def test_far_from_the_origin(at: float, d: int) -> None:
    x, centers = problem(3000, d, 7, at=at)
    assert_same(*both(x, None, centers), rtol=1e-9)
    squared = reference.squared_distances(x, centers)
    np.testing.assert_array_equal(labels(x, centers), squared.argmin(axis=1))
    np.testing.assert_allclose(squared_distances(x, centers), squared, rtol=1e-14)


def test_fine_structure_far_from_the_pivot_is_seen() -> None:
    # two places 2e8 apart, each of two clusters that are 1e-3 apart: products about the middle see nothing of that
    rng = np.random.default_rng(0)
    places = np.array([[-1e8, 0.0], [-1e8, 1e-3], [1e8, 0.0], [1e8, 1e-3]])
    own = rng.integers(4, size=2000)
    x = places[own] + 1e-4 * rng.normal(size=(2000, 2)) * [0.0, 1.0]
    sums = hard_sums(x, None, np.zeros(2), [places], ROOM)[0]
    np.testing.assert_array_equal(sums.counts, np.bincount(own))
    np.testing.assert_array_equal(labels(x, places), own)
    assert sums.inertia == pytest.approx(((x - places[own]) ** 2).sum(), rel=1e-12)


def test_the_first_of_equals_wins() -> None:
    centers = np.array([[3.0, 3.0], [0.0, 0.0], [2.0, 0.0], [0.0, 0.0], [3.0, 3.0]])
    x = np.array([[0.0, 0.0], [3.0, 3.0], [1.0, 0.0], [5.0, 5.0]])
    np.testing.assert_array_equal(labels(x, centers), [1, 0, 1, 0])
    np.testing.assert_array_equal(hard_sums(x, None, x.mean(axis=0), [centers])[0].counts, [2, 2, 0, 0, 0])


def test_rows_of_weight_zero_may_hold_anything() -> None:
    x, centers = problem(100, 9, 3)
    weight = np.ones(100)
    weight[[3, 50, 99]] = 0
    expected = hard_sums(np.delete(x, [3, 50, 99], axis=0), None, np.zeros(9), [centers], ROOM)[0]
    x[[3, 50, 99]] = np.nan
    got = hard_sums(x, weight, np.zeros(9), [centers], ROOM)[0]
    assert_same(got, expected)


def test_equal_rows_are_far_only_once_wherever_they_stand() -> None:
    x, centers = problem(500, 11, 2)
    x[[5, 17, 498, 499]] = 50 + np.arange(11) / 3  # in whole eights and in the rest
    far = hard_sums(x, None, np.zeros(11), [centers], ROOM)[0].farthest
    assert far.squared[0] > 4 * far.squared[1]
    assert len(far.squared) == ROOM
    halves = [hard_sums(part, None, np.zeros(11), [centers], ROOM)[0].farthest for part in (x[:203], x[203:])]
    joined = halves[0] + halves[1]
    np.testing.assert_array_equal(joined.rows, far.rows)
    np.testing.assert_array_equal(joined.squared, far.squared)


def test_several_sets_of_centres_are_answered_as_if_alone() -> None:
    x, a = problem(5000, 6, 3)
    b = problem(10, 6, 9, seed=1)[1]
    pivot = x.mean(axis=0)
    for got, alone in zip(hard_sums(x, None, pivot, [a, b], ROOM), (a, b)):
        expected = hard_sums(x, None, pivot, [alone], ROOM)[0]
        assert got.inertia == expected.inertia
        np.testing.assert_array_equal(got.first, expected.first)
    assert hard_sums(x, None, pivot, []) == []


def test_distances_of_rows_and_of_all_centres_agree() -> None:
    x, centers = problem(3001, 13, 6)
    which, squared = nearest_rows(x, centers)
    everywhere = squared_distances(x, centers)
    np.testing.assert_array_equal(which, everywhere.argmin(axis=1))
    np.testing.assert_allclose(squared, everywhere.min(axis=1), rtol=1e-14)


def test_inertia_of_many_equal_rows_is_summed_without_loss() -> None:
    x = np.full((200_000, 1), 0.1)
    sums = hard_sums(x, None, np.zeros(1), [np.zeros((1, 1))])[0]
    assert sums.inertia + sums.inertia_low == pytest.approx(200_000 * (0.1 * 0.1), rel=4e-15)


def test_memory_does_not_grow_with_rows_times_centres() -> None:
    x, centers = problem(50_000, 4, 500)
    hard_sums(x[:100], None, np.zeros(4), [centers], ROOM)
    tracemalloc.start()
    hard_sums(x, None, np.zeros(4), [centers], ROOM)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * x.nbytes  # (n, K) would be 125 times as much
