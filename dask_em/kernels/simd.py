"""Eight rows at a time: a vector type for compiled code, and exp and log on it.

LLVM lowers a vector of eight doubles to whatever the machine has (one AVX-512 register, two of
AVX2, four of NEON), so the arithmetic, and with it every sum, is the same however the compiler
feels about a loop.  Inside `numba.njit` code:

    load(a, i)        a[i : i + 8]                  store(a, i, v)      a[i : i + 8] = v
    splat(s)          eight times the number s      fma(a, b, c)        a * b + c
    maximum(a, b)     the larger; b where a is NaN  where_less(a, b, x, y)   x where a < b, else y
    total(v)          sum of the eight              totals(a, ..., h)   eight such sums as a vector
    transpose(a, ..., h)   eight rows into eight columns
    a + b, a - b, a * b, a / b
    exp(v), log(v)    to about one unit in the last place

Nothing checks bounds: the arrays are flat, contiguous and float64.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils
from numba.core.datamodel.models import PrimitiveModel
from numba.core.datamodel.registry import register_default
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic

LANES = 8
_DOUBLES = ir.VectorType(ir.DoubleType(), LANES)
_BITS = ir.VectorType(ir.IntType(64), LANES)
_INDEX = ir.IntType(32)


class Vector(types.Type):
    """Eight float64."""

    def __init__(self) -> None:
        super().__init__(name="dask_em.Vector8")


vector = Vector()


@register_default(Vector)
class _VectorModel(PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, _DOUBLES)


# ---------------------------------------------------------------- arithmetic


def _infix(op: Any, instruction: str) -> None:
    @infer_global(op)
    class Template(ConcreteTemplate):
        cases: ClassVar = [signature(vector, vector, vector)]

    @lower_builtin(op, vector, vector)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args)


for _op, _instruction in (
    (operator.add, "fadd"),
    (operator.iadd, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _infix(_op, _instruction)


def _broadcast(builder: Any, scalar: Any) -> Any:
    one = builder.insert_element(ir.Constant(_DOUBLES, ir.Undefined), scalar, _INDEX(0))
    return builder.shuffle_vector(one, ir.Constant(_DOUBLES, ir.Undefined), ir.Constant(_lanes(8), [0] * LANES))


def _lanes(n: int) -> Any:
    return ir.VectorType(_INDEX, n)


def _constant(value: float) -> Any:
    return ir.Constant(_DOUBLES, [value] * LANES)


def _bits(value: int) -> Any:
    return ir.Constant(_BITS, [value] * LANES)


def _llvm(builder: Any, name: str, *args: Any) -> Any:
    kind = ir.FunctionType(_DOUBLES, [_DOUBLES] * len(args))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f64"), args)


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return _llvm(builder, "fmuladd", a, b, c)


def _element(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _DOUBLES.as_pointer())


@intrinsic
def load(typing: Any, a: Any, i: Any) -> Any:
    """a[i : i + 8]."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_element(context, builder, sig.args[0], *args), align=8)

    return vector(a, types.intp), codegen


@intrinsic
def store(typing: Any, a: Any, i: Any, v: Any) -> Any:
    """a[i : i + 8] = v."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[2], _element(context, builder, sig.args[0], *args[:2]), align=8)
        return context.get_dummy_value()

    return types.void(a, types.intp, vector), codegen


@intrinsic
def splat(typing: Any, s: Any) -> Any:
    """The same number eight times."""
    return vector(types.float64), lambda context, builder, sig, args: _broadcast(builder, args[0])


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """A * b + c."""
    return vector(vector, vector, vector), lambda context, builder, sig, args: _fma(builder, *args)


@intrinsic
def maximum(typing: Any, a: Any, b: Any) -> Any:
    """The larger of each two; b where a is NaN."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return vector(vector, vector), codegen


@intrinsic
def where_less(typing: Any, a: Any, b: Any, x: Any, y: Any) -> Any:
    """X where a < b, else y."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", *args[:2]), *args[2:])

    return vector(vector, vector, vector, vector), codegen


# ---------------------------------------------------------------- sums across lanes


def _pairwise(builder: Any, vectors: list[Any]) -> Any:
    """The sums of eight vectors, by three rounds in which two vectors fold into one."""
    for step in (1, 2, 4):
        low = [i for i in range(LANES) if not i & step]
        folded = []
        for a, b in zip(vectors[::2], vectors[1::2], strict=True):
            pick = [low[0]] * LANES
            for n, i in enumerate(low):  # lane i of the result: a's half; lane i + step: b's half
                pick[i], pick[i + step] = low[n], LANES + low[n]
            left = builder.shuffle_vector(a, b, ir.Constant(_lanes(8), pick))
            right = builder.shuffle_vector(a, b, ir.Constant(_lanes(8), [p + step for p in pick]))
            folded.append(builder.fadd(left, right))
        vectors = folded
    return vectors[0]


@intrinsic
def totals(typing: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> Any:
    """Lane n is the sum of the n-th argument's lanes."""
    return vector(*[vector] * 8), lambda context, builder, sig, args: _pairwise(builder, list(args))


@intrinsic
def transpose(typing: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> Any:
    """Eight vectors, the n-th of the n-th lanes of the arguments."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        rows = list(args)
        for step in (1, 2, 4):  # swap the off-diagonal blocks of size `step`
            upper = ir.Constant(_lanes(8), [LANES + i - step if i & step else i for i in range(LANES)])
            lower = ir.Constant(_lanes(8), [LANES + i if i & step else i + step for i in range(LANES)])
            for i in (i for i in range(LANES) if not i & step):
                x, y = rows[i], rows[i + step]
                rows[i] = builder.shuffle_vector(x, y, upper)
                rows[i + step] = builder.shuffle_vector(x, y, lower)
        return context.make_tuple(builder, sig.return_type, rows)

    return types.UniTuple(vector, LANES)(*[vector] * LANES), codegen


@intrinsic
def total(typing: Any, v: Any) -> Any:
    """Sum of the eight lanes, in a fixed order."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = [builder.extract_element(args[0], _INDEX(i)) for i in range(LANES)]
        while len(lanes) > 1:
            lanes = [builder.fadd(x, y) for x, y in zip(lanes[::2], lanes[1::2], strict=True)]
        return lanes[0]

    return types.float64(vector), codegen


# ---------------------------------------------------------------- exp and log

_LOG2E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # the high part has 21 trailing zero bits
_SMALLEST = -650.0  # below, exp is taken for zero: products with what is left are not denormal, which would be slow
_SHIFT = 6755399441055744.0 + 1023.0  # 1.5 * 2**52: adding it puts an integer into the low bits

# (exp(r) - 1 - r) / r² on |r| <= log(2) / 2, highest power first: Chebyshev interpolation, error 5e-18
_EXP = (
    2.510038549551032e-08,
    2.7620088445409746e-07,
    2.7557268459997064e-06,
    2.4801521295954376e-05,
    0.00019841269863053618,
    0.0013888888917213717,
    0.008333333333330062,
    0.04166666666662413,
    0.16666666666666669,
    0.5000000000000001,
)


@intrinsic
def exp(typing: Any, v: Any) -> Any:
    """Exp of each lane for arguments up to 700; zero below -650."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x = args[0]
        n = _llvm(builder, "rint", builder.fmul(x, _constant(_LOG2E)))
        r = _fma(builder, n, _constant(-_LN2_HIGH), x)
        r = _fma(builder, n, _constant(-_LN2_LOW), r)
        p = _horner(builder, r, _EXP)
        p = _fma(builder, builder.fmul(r, r), p, r)
        power = builder.bitcast(builder.fadd(n, _constant(_SHIFT)), _BITS)
        scale = builder.bitcast(builder.shl(power, _bits(52)), _DOUBLES)
        result = _fma(builder, p, scale, scale)
        return builder.select(builder.fcmp_ordered("<", x, _constant(_SMALLEST)), _constant(0.0), result)

    return vector(vector), codegen


def _horner(builder: Any, x: Any, coefficients: tuple[float, ...]) -> Any:
    p = _constant(coefficients[0])
    for c in coefficients[1:]:
        p = _fma(builder, p, x, _constant(c))
    return p


@intrinsic
def log(typing: Any, v: Any) -> Any:
    """Natural logarithm of each lane, for positive normal numbers; NaN where it is NaN."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], _BITS)
        offset = builder.sub(bits, _bits(0x3FE6A09E667F3BCD))  # bits of sqrt(1/2)
        e = builder.ashr(offset, _bits(52))
        m = builder.bitcast(builder.sub(bits, builder.shl(e, _bits(52))), _DOUBLES)  # in [sqrt(1/2), sqrt(2))
        n = builder.sitofp(e, _DOUBLES)
        f = builder.fsub(m, _constant(1.0))
        s = builder.fdiv(f, builder.fadd(m, _constant(1.0)))  # log m = 2 atanh(s)
        s2 = builder.fmul(s, s)
        series = _horner(builder, s2, tuple(2.0 / k for k in range(21, 1, -2)))
        # 2 s = f - s f exactly enough, so that log m keeps f's digits
        rest = builder.fmul(s, builder.fsub(builder.fmul(s2, series), f))
        low = _fma(builder, n, _constant(_LN2_LOW), rest)
        result = _fma(builder, n, _constant(_LN2_HIGH), builder.fadd(f, low))
        return builder.select(builder.fcmp_unordered("uno", args[0], args[0]), args[0], result)

    return vector(vector), codegen


_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False, "_nrt": False}
_FILES = [path.stat() for path in sorted(Path(__file__).parent.glob("*.py"))]
_STAMP = (max(f.st_mtime for f in _FILES), sum(f.st_size for f in _FILES))


def inlined(function: Callable[..., Any]) -> Any:
    """A piece of a compiled function."""
    return njit(function, forceinline=True, **_OPTIONS)


def called(function: Callable[..., Any]) -> Any:
    """A large piece of a compiled function, which need not be compiled again wherever it is used."""
    return njit(function, **_OPTIONS)


def compiled(function: Callable[..., Any]) -> Any:
    """Compile on first call, once for each set of argument types, and keep it for later processes."""
    return _kept(function)


def compiled_for(signature: Any) -> Callable[..., Any]:
    """Compile now, for one set of argument types, which others are converted to."""

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = _kept(function)
        dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher

    return decorate


def _kept(function: Callable[..., Any]) -> Any:
    """Compiled code that later processes find in a file, which goes stale when any file of this folder changes.

    Pieces are inlined across files, and numba by itself looks at one.  Where no folder can be written to,
    as in a read-only container, each process compiles for itself.
    """
    try:
        dispatcher = njit(function, cache=True, **_OPTIONS)
    except RuntimeError:  # numba's, where it finds no place for its files
        return njit(function, **_OPTIONS)
    with contextlib.suppress(AttributeError):  # not part of numba's interface: a test tells when it has gone
        dispatcher._cache._cache_file._source_stamp = _STAMP
    return dispatcher
