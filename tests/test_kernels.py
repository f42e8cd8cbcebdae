"""The compiled Gaussian kernels against their NumPy specification, and the promises made about both."""

import threading
import tracemalloc
from decimal import Decimal, localcontext

import numpy as np
import pytest
from scipy.linalg import solve_triangular

from dask_em.kernels import gaussian_axes, gaussian_tiles, reference
from dask_em.kernels.gaussian import Components, mixture_sums, posteriors

TYPES = ("full", "tied", "diag", "spherical")
WANTS = ("labels", "proba", "loglik", "log_density")
FIELDS = ("counts", "first", "second")


def factors(covariances, covariance_type):
    """precisions_cholesky from (K, d, d) covariances, of which the type keeps what it can."""
    if covariance_type == "spherical":
        return 1 / np.sqrt(np.trace(covariances, axis1=1, axis2=2) / covariances.shape[1])
    if covariance_type == "diag":
        return 1 / np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
    lower = np.linalg.cholesky(covariances)
    u = np.stack([solve_triangular(own, np.eye(len(own)), lower=True).T for own in lower])
    return u[0] if covariance_type == "tied" else u


def problem(rng, n, d, k, covariance_type, spread=1.0, cond=10.0, at=0.0):
    """Rows drawn from k components of condition number `cond`, around `at`; and those components."""
    means = at + spread * rng.standard_normal((k, d))
    basis = np.linalg.qr(rng.standard_normal((k, d, d)))[0]
    roots = basis * np.geomspace(1, cond**-0.5, d)
    if covariance_type == "tied":
        roots[:] = roots[0]
    labels = rng.integers(k, size=n)
    x = means[labels] + np.einsum("nij,nj->ni", roots[labels], rng.standard_normal((n, d)))
    u = factors(roots @ roots.transpose(0, 2, 1), covariance_type)
    return x, Components(np.log(rng.dirichlet(np.full(k, 5.0))), means, u, covariance_type)


def assert_same(sums, expected, rtol=1e-11):
    """Equal up to rounding, each field on the scale of the terms that it sums: first moments may cancel."""
    assert sums.loglik == pytest.approx(expected.loglik, rel=rtol, abs=1e-9)
    squares = np.abs(expected.second).max(initial=0)
    scale = {"counts": expected.counts.sum(), "first": np.sqrt(expected.counts.sum() * squares), "second": squares}
    for name in FIELDS:
        got, want = getattr(sums, name), getattr(expected, name)
        assert got.shape == want.shape, name
        np.testing.assert_allclose(got, want, rtol=0, atol=rtol * scale[name], err_msg=name)


def assert_identical(sums, expected):
    assert sums.loglik == expected.loglik
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(sums, name), getattr(expected, name), err_msg=name)


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize(
    "d, k", [(1, 3), (2, 1), (2, 16), (3, 4), (4, 5), (5, 7), (8, 2), (16, 16), (23, 3), (24, 6), (50, 10)]
)
@pytest.mark.parametrize("spread", [0.3, 3.0, 30.0])
def test_sums_and_posteriors_equal_the_specification(covariance_type, d, k, spread):
    rng = np.random.default_rng(d * 100 + k)
    x, components = problem(rng, 1500, d, k, covariance_type, spread)
    weight = np.where(rng.random(len(x)) < 0.2, 0.0, rng.random(len(x)))
    pivot = x.mean(axis=0)
    for w in (None, weight):
        assert_same(mixture_sums(x, w, pivot, [components])[0], reference.mixture_sums(x, w, pivot, components))
    for want in WANTS:
        got, expected = posteriors(x, components, want), reference.posteriors(x, components, want)
        assert got.shape == expected.shape
        assert got.dtype.kind == expected.dtype.kind
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11, err_msg=want)


def test_several_hundred_columns():
    rng = np.random.default_rng(0)
    for covariance_type in TYPES:
        x, components = problem(rng, 700, 301, 3, covariance_type, 0.2)
        pivot = x.mean(axis=0)
        assert_same(mixture_sums(x, None, pivot, [components])[0], reference.mixture_sums(x, None, pivot, components))


# ---------------------------------------------------------------- what x may be


@pytest.mark.parametrize("d", [1, 2, 3, 9, 30])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_same_values_give_the_same_bits_whatever_holds_them(d, covariance_type, tmp_path):
    rng = np.random.default_rng(d)
    integers = rng.integers(0, 100, size=(1234, d)).astype(np.uint8)
    x = integers.astype(np.float64)
    _, components = problem(rng, 1, d, 4, covariance_type, spread=20.0, at=50.0)
    pivot = x.mean(axis=0) + 0.125
    expected = mixture_sums(x, None, pivot, [components])[0]
    wide = np.zeros((2 * len(x), 3 * d))
    wide[::2, 1::3] = x
    read_only = x.copy()
    read_only.setflags(write=False)
    mapped = np.memmap(tmp_path / "x.bin", dtype=np.float64, mode="w+", shape=x.shape)
    mapped[:] = x
    unaligned = np.frombuffer(b"?" + x.tobytes(), dtype=np.uint8)[1:].view(np.float64).reshape(x.shape)
    others = {
        "float32": x.astype(np.float32),
        "float16": x.astype(np.float16),
        "uint8": integers,
        "int64": integers.astype(np.int64),
        "uint8 by column": np.asfortranarray(integers),
        "by column": np.asfortranarray(x),
        "big endian": x.astype(">f8"),
        "strided": wide[::2, 1::3],
        "backwards": np.ascontiguousarray(x[::-1])[::-1],
        "read-only": read_only,
        "memory map": np.memmap(tmp_path / "x.bin", dtype=np.float64, mode="r", shape=x.shape),
        "unaligned": unaligned,
        "weights of one": x,
    }
    for name, other in others.items():
        before = other.copy()
        weight = np.ones(len(x)) if name == "weights of one" else None
        assert_identical(mixture_sums(other, weight, pivot, [components])[0], expected)
        np.testing.assert_array_equal(other, before, err_msg=f"{name} was written to")
        for want in WANTS:
            np.testing.assert_array_equal(posteriors(other, components, want), posteriors(x, components, want), name)


def test_booleans():
    rng = np.random.default_rng(0)
    x = rng.random((500, 5)) < 0.3
    _, components = problem(rng, 1, 5, 3, "full")
    pivot = x.mean(axis=0)
    assert_identical(mixture_sums(x, None, pivot, [components])[0], mixture_sums(x * 1.0, None, pivot, [components])[0])


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("d", [2, 5, 40])
@pytest.mark.parametrize("n", [0, 1, 7, 8, 15, 16, 17, 255, 257])
def test_any_number_of_rows(covariance_type, d, n):
    x, components = problem(np.random.default_rng(n), n, d, 3, covariance_type)
    pivot = np.full(d, 0.25)
    assert_same(mixture_sums(x, None, pivot, [components])[0], reference.mixture_sums(x, None, pivot, components))
    for want in WANTS:
        expected = reference.posteriors(x, components, want)
        np.testing.assert_allclose(posteriors(x, components, want), expected, rtol=1e-11, atol=1e-11)


def test_no_runs_no_answers():
    assert mixture_sums(np.zeros((3, 2)), None, np.zeros(2), []) == []


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("d", [2, 6, 30])
def test_rows_of_weight_zero_contribute_nothing_whatever_stands_in_them(covariance_type, d):
    rng = np.random.default_rng(1)
    x, components = problem(rng, 400, d, 3, covariance_type)
    weight = rng.random(400)
    weight[100:130] = 0.0
    pivot = x.mean(axis=0)
    clean = mixture_sums(x, weight, pivot, [components])[0]
    x[100:110], x[110:120], x[120:130] = np.nan, np.inf, 1e200
    assert_identical(mixture_sums(x, weight, pivot, [components])[0], clean)


@pytest.mark.parametrize("d", [2, 6, 30])
def test_a_row_that_is_not_a_number_is_not_hidden(d):
    x, components = problem(np.random.default_rng(1), 400, d, 3, "full")
    x[37, 1] = np.nan
    assert np.isnan(mixture_sums(x, None, np.zeros(d), [components])[0].loglik)
    assert np.isnan(posteriors(x, components, "loglik")).nonzero()[0].tolist() == [37]


# ---------------------------------------------------------------- hard numbers


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("d", [2, 5, 40])
def test_rows_so_far_that_every_density_underflows(covariance_type, d):
    x, components = problem(np.random.default_rng(3), 300, d, 4, covariance_type)
    x[::3] *= 1e6
    pivot = np.zeros(d)
    sums = mixture_sums(x, None, pivot, [components])[0]
    assert np.isfinite(sums.loglik)
    assert sums.counts.sum() == pytest.approx(300, rel=1e-12)
    assert_same(sums, reference.mixture_sums(x, None, pivot, components))


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("d", [2, 5, 40])
def test_a_component_of_weight_zero_gets_nothing(covariance_type, d):
    x, components = problem(np.random.default_rng(4), 300, d, 4, covariance_type)
    components.log_weights[[0, 2]] = -np.inf
    sums = mixture_sums(x, None, np.zeros(d), [components])[0]
    assert sums.counts[[0, 2]].tolist() == [0, 0]
    assert np.isfinite(sums.loglik)
    assert_same(sums, reference.mixture_sums(x, None, np.zeros(d), components))
    assert (posteriors(x, components, "proba")[:, [0, 2]] == 0).all()
    assert np.isfinite(posteriors(x, components, "log_density")).all()


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
@pytest.mark.parametrize("d", [2, 8, 40])
def test_condition_1e10(covariance_type, d):
    # Rounding moves a whitened row by eps * 1e5 on a scale of one; both sides do so, in another order.
    x, components = problem(np.random.default_rng(5), 800, d, 3, covariance_type, spread=0.1, cond=1e10)
    pivot = x.mean(axis=0)
    sums, expected = mixture_sums(x, None, pivot, [components])[0], reference.mixture_sums(x, None, pivot, components)
    assert_same(sums, expected, rtol=1e-8)
    assert sums.loglik == pytest.approx(expected.loglik, abs=1e-9 * abs(expected.loglik))


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("offset", [1e6, 1e8])
@pytest.mark.parametrize("d", [1, 2, 5, 40])
def test_far_from_the_origin_costs_no_digits(covariance_type, offset, d):
    # the grid makes rows, means and pivot exact on both sides, so that shifting them changes no bit of a difference
    rng = np.random.default_rng(6)
    x, components = problem(rng, 600, d, 3, covariance_type)
    grid = 2.0**-20
    x, means = np.round(x / grid) * grid, np.round(components.means / grid) * grid
    near = Components(components.log_weights, means, components.precisions_cholesky, covariance_type)
    far = Components(components.log_weights, means + offset, components.precisions_cholesky, covariance_type)
    pivot = np.round(x.mean(axis=0) / grid) * grid
    a = mixture_sums(x, None, pivot, [near])[0]
    b = mixture_sums(x + offset, None, pivot + offset, [far])[0]
    assert_identical(a, b)


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("d", [1, 2, 5, 40])
def test_a_narrow_component_far_from_the_pivot(covariance_type, d):
    # Width 1e-7, 10 from the pivot: z = x - pivot keeps 1e-8 of a width, x - mu all of it.
    rng = np.random.default_rng(7)
    x, components = problem(rng, 600, d, 2, covariance_type, spread=3.0)
    x, means = 10 + 1e-7 * x, 10 + 1e-7 * components.means
    narrow = Components(components.log_weights, means, components.precisions_cholesky * 1e7, covariance_type)
    pivot = np.zeros(d)
    expected = reference.posteriors(x, narrow, "loglik")
    np.testing.assert_allclose(posteriors(x, narrow, "loglik"), expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    assert_same(mixture_sums(x, None, pivot, [narrow])[0], reference.mixture_sums(x, None, pivot, narrow), rtol=1e-10)


def test_tied_rows_are_whitened_once_only_where_that_is_safe(monkeypatch):
    seen = []
    original = gaussian_axes.sums_tied
    monkeypatch.setattr(
        gaussian_axes, "sums_tied", lambda rows, tied, *a: (seen.append(tied.safe), original(rows, tied, *a))
    )
    x, components = problem(np.random.default_rng(8), 500, 6, 3, "tied", spread=2.0)
    mixture_sums(x, None, x.mean(axis=0), [components])
    assert seen == [True]
    pivot = np.full(6, 1e7)
    sums = mixture_sums(x, None, pivot, [components])[0]
    assert seen == [True, False]
    assert sums.loglik == pytest.approx(reference.mixture_sums(x, None, pivot, components).loglik, rel=1e-14)


@pytest.mark.parametrize("d", [2, 16, 50])
def test_a_nearly_dead_component_keeps_its_moments(d):
    # Every responsibility of the second component is below 1e-30, and they still say where it would go next.
    x, components = problem(np.random.default_rng(9), 3000, d, 1, "full")
    means = np.stack([components.means[0], components.means[0] + np.sqrt(200.0 / d)])
    u = np.stack([np.eye(d), np.eye(d)])
    pair = Components(np.array([0.0, -80.0]), means, u, "full")
    pivot = x.mean(axis=0)
    sums, expected = mixture_sums(x, None, pivot, [pair])[0], reference.mixture_sums(x, None, pivot, pair)
    assert 0 < expected.counts[1] < 1e-20
    np.testing.assert_allclose(sums.first[1], expected.first[1], rtol=1e-9)
    np.testing.assert_allclose(sums.second[1], expected.second[1], rtol=1e-9, atol=1e-12 * expected.second[1].max())


def test_loglik_of_many_equal_rows_is_summed_without_loss():
    x = np.full((200_000, 2), 0.1)
    components = Components(np.zeros(1), np.zeros((1, 2)), np.ones((1, 2)), "diag")
    one = mixture_sums(x[:1], None, np.zeros(2), [components])[0].loglik
    many = mixture_sums(x, None, np.zeros(2), [components])[0].loglik
    assert many == pytest.approx(200_000 * one, rel=3e-16)


# ---------------------------------------------------------------- runs, threads, memory


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("d", [2, 7, 30])
def test_stacked_runs_are_bit_for_bit_the_separate_ones(covariance_type, d):
    rng = np.random.default_rng(10)
    x, _ = problem(rng, 3000, d, 4, covariance_type)
    runs = [problem(rng, 1, d, k, covariance_type)[1] for k in (1, 4, 9, 4)]
    pivot = x.mean(axis=0)
    weight = rng.random(len(x))
    for together, run in zip(mixture_sums(x, weight, pivot, runs), runs, strict=True):
        assert_identical(together, mixture_sums(x, weight, pivot, [run])[0])


@pytest.mark.parametrize("covariance_type", TYPES)
def test_threads_do_not_disturb_each_other(covariance_type):
    problems = [problem(np.random.default_rng(i), 20_000, d, 5, covariance_type) for i, d in enumerate((2, 7, 30, 7))]
    expected = [mixture_sums(x, None, np.zeros(x.shape[1]), [c])[0] for x, c in problems]
    answers = [[] for _ in problems]

    def work(i):
        x, components = problems[i]
        for _ in range(5):
            answers[i].append(mixture_sums(x, None, np.zeros(x.shape[1]), [components])[0])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(problems))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for own, want in zip(answers, expected, strict=True):
        assert len(own) == 5
        for sums in own:
            assert_identical(sums, want)


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("d, dtype", [(2, np.float64), (2, np.float32), (30, np.float32)])
def test_memory_does_not_grow_with_the_rows(covariance_type, d, dtype):
    rng = np.random.default_rng(11)
    x = rng.standard_normal((400_000, d)).astype(dtype)  # (n, K) float64 would be 51 MB, a float64 copy 6 or 96 MB
    _, components = problem(rng, 1, d, 16, covariance_type)
    mixture_sums(x[:100], None, np.zeros(d), [components])
    tracemalloc.start()
    try:
        mixture_sums(x, None, np.zeros(d), [components])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5e6


# ---------------------------------------------------------------- pieces


def units_off(got, exact):
    """Distance in units of the last place of what is exact."""
    return abs(float(Decimal(float(got)) - exact)) / np.spacing(abs(float(exact)))


def test_exp_and_log_to_a_unit_in_the_last_place():
    from dask_em.kernels import simd

    exp, load, log, store = simd.exp, simd.load, simd.log, simd.store

    @simd.njit
    def both(x, e, ln):
        for i in range(0, x.size, 8):
            store(e, i, exp(load(x, i)))
            store(ln, i, log(exp(load(x, i))))

    rng = np.random.default_rng(0)
    x = np.concatenate(
        [rng.uniform(-650, 0, 2000), rng.uniform(-1, 1, 2000), rng.uniform(-1e-9, 1e-9, 88), np.zeros(8)]
    )
    e, ln = np.empty_like(x), np.empty_like(x)
    both(x, e, ln)
    with localcontext(prec=40):
        worst = max(units_off(got, Decimal(float(v)).exp()) for got, v in zip(e, x, strict=True))
        off = max(units_off(got, Decimal(float(v)).ln()) for got, v in zip(ln, e, strict=True))
    assert worst < 1.1
    assert off < 1.1
    assert (e[-8:] == 1).all()
    assert (ln[-8:] == 0).all()
    special = np.array([-649.9, -650.1, -1e300, -np.inf, np.nan, 0.0, -0.0, 700.0])
    both(special, e[:8], ln[:8])
    assert e[0] > 0
    assert e[1:4].tolist() == [0, 0, 0]
    assert np.isnan(e[4])
    assert e[5:7].tolist() == [1, 1]
    assert e[7] == pytest.approx(np.exp(700.0), rel=3e-16)


@pytest.mark.parametrize("d", [1, 3, 7, 8, 9, 20])
@pytest.mark.parametrize("n", [1, 7, 16, 100])
def test_rows_in_groups_hold_every_row_once(d, n):
    x = np.arange(n * d, dtype=np.float64).reshape(n, d)
    pivot = np.linspace(0.5, 1.5, d)
    columns = d + 3
    seen = 0
    for rows in gaussian_tiles.slabs(x, None, pivot, columns, 2):
        shape = (rows.groups, columns, 16)
        size = rows.groups * columns * 16
        raw, centred = (a[:size].reshape(shape).transpose(0, 2, 1).reshape(-1, columns) for a in (rows.x, rows.z))
        here = int(rows.weight[: rows.groups * 16].sum())
        np.testing.assert_array_equal(raw[:here, :d], x[seen : seen + here])
        np.testing.assert_array_equal(centred[:here, :d], x[seen : seen + here] - pivot)
        assert (centred[here:] == 0).all()
        assert (raw[:, d:] == 0).all()
        seen += here
    assert seen == n


def test_importing_the_library_does_not_import_the_compiler():
    import subprocess
    import sys

    code = "import sys, dask_em; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
