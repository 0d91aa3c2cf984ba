"""Elementwise operations: arithmetic, comparisons, logic, transcendental functions, casts and selection.

All operands have one shape (calling an operation broadcasts them first); element types must agree. Each entry gives
the NumPy reference and the scalar expression that kernels compute; both follow ONNX where NumPy and ONNX differ.

Integer arithmetic wraps around. Division, remainder and floor division by the integer 0 give 0. References accept
object arrays of symbolic dimensions where shape arithmetic needs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

from graphc.ir import scalar as s
from graphc.ir.dims import dim_max, dim_min
from graphc.ir.dtypes import DType, dtype_of
from graphc.ir.graph import Value
from graphc.ir.scalar import Scalar
from graphc.ir.types import TensorType
from graphc.ops.casting import ROUNDINGS, convert, keep_dtype
from graphc.ops.gradient import by_operand, zero
from graphc.ops.spec import Gradient, Kind, OpSpec, Sample, expect, register

BOOL = dtype_of("bool")
INTEGER = "int uint"
REAL = "float int uint"
NUMERIC = "float int uint complex"
ANY = "float int uint complex bool string"
DISCRETE = "its result is constant almost everywhere"


def _same(name: str, accepts: str, arity: int) -> Callable[..., TensorType]:
    """Inference for `arity` operands of one type: `accepts` lists the kinds of element types allowed."""

    kinds = frozenset(accepts.split())

    def infer(*types: TensorType) -> TensorType:
        expect(len(types) == arity, f"{name} takes {arity} operand{'s' * (arity > 1)}, not {len(types)}")
        first = types[0]
        if isinstance(first, TensorType) and first.dtype.kind in kinds and all(t == first for t in types):
            return first  # no message needs to be put together
        for k, t in enumerate(types):
            expect(isinstance(t, TensorType), f"{name}: operand {k} is {t}, a tensor is needed")
            expect(
                t.shape == first.shape,
                f"{name}: operand {k} has shape {list(t.shape)} but operand 0 has {list(first.shape)}",
            )
            expect(
                t.dtype == first.dtype,
                f"{name}: operand {k} is {t.dtype} but operand 0 is {first.dtype}; cast one of them",
            )
            expect(t.dtype.kind in kinds, f"{name}: operand {k} is {t.dtype}; {name} takes {accepts} types")
        return first

    return infer


def _predicate(name: str, accepts: str, arity: int) -> Callable[..., TensorType]:
    same = _same(name, accepts, arity)
    return lambda *types: same(*types).with_dtype(BOOL)


_GRID = np.array([-2.5, -1.0, -0.5, -0.0, 0.25, 0.5, 1.0, 3.0], np.float32)
_SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], np.float32)
_UNIT = np.array([-0.99, -0.5, -0.0, 0.0, 0.1, 0.5, 0.75, 0.99], np.float32)
_POSITIVE = np.array([1e-6, 0.1, 0.5, 1.0, 1.5, 3.0, 10.0, 1e6], np.float32)
_INTS = np.array([-7, -2, -1, 0, 1, 2, 3, 100], np.int64)
_INTS_RIGHT = np.array([3, 2, 5, 1, 7, -2, -3, 0], np.int64)
_BOOLS = np.array([True, False, True, False])


def _float_samples(*grids: np.ndarray) -> Iterable[Sample]:
    """The same values in every float type and in shapes of rank 1, 2 and 0, and an empty one."""
    yield Sample(grids)
    yield Sample(tuple(g.reshape(2, -1).astype(np.float64) for g in grids))
    yield Sample(tuple(np.clip(g, -6e4, 6e4).astype(np.float16) for g in grids))
    yield Sample(tuple(g.astype(ml_dtypes.bfloat16) for g in grids))
    yield Sample(tuple(g[1].reshape(()) for g in grids))
    yield Sample(tuple(g[:0].reshape(0, 3) for g in grids))
    yield Sample(tuple(np.roll(_SPECIAL, k) for k, _ in enumerate(grids)))


def _int_samples(*grids: np.ndarray) -> Iterable[Sample]:
    yield Sample(grids)
    yield Sample(tuple(g.reshape(2, -1).astype(np.int32) for g in grids))
    yield Sample(tuple(np.abs(g).astype(np.uint8) for g in grids))
    yield Sample(tuple(g.astype(np.int8) for g in grids))


def _samples(
    accepts: str, floats: tuple[np.ndarray, ...], ints: tuple[np.ndarray, ...]
) -> Callable[[], Iterable[Sample]]:
    """Cases for an operation that takes these kinds of element types."""

    def samples() -> Iterable[Sample]:
        kinds = accepts.split()
        if "float" in kinds:
            yield from _float_samples(*floats)
        if "int" in kinds:
            yield from _int_samples(*ints)
        if "bool" in kinds:
            yield Sample(tuple(np.roll(np.repeat(_BOOLS, 2), k) for k, _ in enumerate(floats)))
            yield Sample(tuple(_BOOLS[k] for k, _ in enumerate(floats)))

    return samples


def _scalar_of(name: str) -> Callable[..., Scalar]:
    """The scalar operation of the same name."""
    if name not in s.OPERATIONS:
        raise ValueError(
            f"no scalar operation is called {name!r}: give {name} a scalar= made of those in graphc.ir.scalar"
        )
    return partial(s.scalar, name)


def unary(
    name: str,
    reference: Callable[..., Any],
    *,
    summary: str,
    accepts: str = "float",
    scalar: Callable[..., Scalar] | None = None,
    grid: np.ndarray = _GRID,
    predicate: bool = False,
    gradient: Gradient | None = None,
    no_gradient: str = "",
    **traits: Any,
) -> OpSpec:
    """Register an operation of one operand; the scalar operation has the same name unless given.

    `grid` are the operands of the samples, an even number of them; its second element is a sample alone. `traits` are
    flags of `OpSpec`, such as `keeps_finite`."""
    if len(grid) % 2:
        raise ValueError(f"{name}: a grid of {len(grid)} elements; an even number is needed")
    return register(
        OpSpec(
            name=name,
            kind=Kind.ELEMENTWISE,
            summary=summary,
            infer=(_predicate if predicate else _same)(name, accepts, 1),
            reference=reference if predicate else keep_dtype(reference),
            scalar=scalar or _scalar_of(name),
            promote=True,
            gradient=gradient,
            no_gradient=no_gradient,
            samples=_samples(accepts, (grid,), (_INTS,)),
            **traits,
        )
    )


def binary(
    name: str,
    reference: Callable[..., Any],
    *,
    summary: str,
    accepts: str = NUMERIC,
    scalar: Callable[..., Scalar] | None = None,
    grids: tuple[np.ndarray, np.ndarray] = (_GRID, _GRID[::-1]),
    ints: tuple[np.ndarray, np.ndarray] = (_INTS, _INTS_RIGHT),
    predicate: bool = False,
    gradient: Gradient | None = None,
    no_gradient: str = "",
    **traits: Any,
) -> OpSpec:
    """Register an operation of two operands of one type; `traits` are flags of `OpSpec`."""
    return register(
        OpSpec(
            name=name,
            kind=Kind.ELEMENTWISE,
            summary=summary,
            infer=(_predicate if predicate else _same)(name, accepts, 2),
            reference=reference if predicate else keep_dtype(reference),
            scalar=scalar or _scalar_of(name),
            promote=True,
            gradient=gradient,
            no_gradient=no_gradient,
            samples=_samples(accepts, grids, ints),
            **traits,
        )
    )


# ---------------------------------------------------------------------------------------------------- arithmetic


def _divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Integers round towards zero (ONNX, C), where NumPy's // rounds down."""
    if "O" in (x.dtype.kind, y.dtype.kind):  # dimensions: never negative, so rounding down is the same
        return np.floor_divide(x, y)
    if x.dtype.kind not in "iu":
        return np.divide(x, y)
    down = np.floor_divide(x, y)
    return np.where((y != 0) & (np.fmod(x, y) != 0) & ((x < 0) != (y < 0)), down + 1, down)


def _floor_divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.floor_divide(x, y) if x.dtype.kind in "iuO" else np.floor(np.divide(x, y))


def _floor_divide_scalar(x: Scalar, y: Scalar) -> Scalar:
    return s.scalar("floor", x / y) if x.dtype.is_float else x // y


def _power(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Powers; an integer to a negative power is its reciprocal rounded towards zero, and 0 for the base 0."""
    if x.dtype.kind != "i":
        return np.power(x, y)
    inverse = np.where(x == 1, 1, np.where(x == -1, np.where(y % 2 == 0, 1, -1), 0))
    return np.where(y < 0, inverse, np.power(x, np.maximum(y, 0)))


def _extreme(numpy: Callable[..., Any], symbolic: Callable[..., Any]) -> Callable[..., Any]:
    """A maximum or minimum that also takes symbolic dimensions."""
    on_objects = np.frompyfunc(symbolic, 2, 1)
    return lambda x, y: on_objects(x, y) if "O" in (x.dtype.kind, y.dtype.kind) else numpy(x, y)


def _constant_number(v: Value) -> float | None:
    """The number that every element of `v` is, where the graph says so."""
    while v.node.op.name == "broadcast_to":
        v = v.node.inputs[0]
    return float(v.literal[()]) if v.literal is not None and v.literal.ndim == 0 else None


def _pow_base_gradient(g: Value, x: Value, y: Value, result: Value) -> Value:
    """y * x**(y - 1), and 0 for y = 0 whatever x is.

    Where x is neither 0 nor NaN the product is 0 by itself, and its own derivative is right there as well.
    """
    n = _constant_number(y)
    if n is not None:
        return mul(g, mul(x if n == 2 else pow(x, n - 1), n)) if n else mul(g, 0.0)
    flat = logical_and(eq(y, 0.0), logical_not(gt(abs(x), 0.0)))
    return mul(g, mul(y, pow(select(flat, 1.0, x), sub(y, 1.0))))


def _pow_exponent_gradient(g: Value, x: Value, y: Value, result: Value) -> Value:
    """log(x) * x**y, with 0 instead of log(0); NaN below 0, where x**y is defined for integer y only."""
    return mul(g, mul(result, log(select(eq(x, 0.0), 1.0, x))))


def _extreme_gradient(wins: Callable[[Value, Value], Value]) -> Gradient:
    """The operand that wins takes the cotangent; at a tie each takes half."""

    def share(g: Value, mine: Value, other: Value) -> Value:
        return select(eq(mine, other), mul(g, 0.5), select(wins(mine, other), g, 0.0))

    return by_operand(lambda g, x, y, _: share(g, x, y), lambda g, x, y, _: share(g, y, x))


def _atan2_gradient(g: Value, y: Value, x: Value) -> Value:
    return div(g, add(mul(x, x), mul(y, y)))


add = binary(
    "add",
    np.add,
    summary="x + y.",
    keeps_finite=True,
    nondecreasing=True,
    commutative=True,
    gradient=by_operand(lambda g, x, y, _: g, lambda g, x, y, _: g),
)
sub = binary(
    "sub",
    np.subtract,
    summary="x - y.",
    keeps_finite=True,
    gradient=by_operand(lambda g, x, y, _: g, lambda g, x, y, _: neg(g)),
)
mul: OpSpec = binary(
    "mul",
    np.multiply,
    summary="x * y.",
    keeps_finite=True,
    commutative=True,
    gradient=by_operand(lambda g, x, y, _: mul(g, y), lambda g, x, y, _: mul(g, x)),
)
div: OpSpec = binary(
    "div",
    _divide,
    summary="x / y; integers round towards zero.",
    gradient=by_operand(lambda g, x, y, _: div(g, y), lambda g, x, y, result: neg(mul(div(g, y), result))),
)
floordiv = binary(
    "floordiv",
    _floor_divide,
    accepts=REAL,
    scalar=_floor_divide_scalar,
    gradient=zero,
    no_gradient=DISCRETE,
    summary="floor(x / y).",
)
mod = binary(
    "mod",
    np.mod,
    accepts=REAL,
    summary="Remainder with the sign of the divisor (Python, NumPy).",
    gradient=by_operand(lambda g, x, y, _: g, lambda g, x, y, _: neg(mul(g, floor(div(x, y))))),
)
fmod = binary(
    "fmod",
    np.fmod,
    accepts=REAL,
    summary="Remainder with the sign of the dividend (C).",
    gradient=by_operand(lambda g, x, y, _: g, lambda g, x, y, _: neg(mul(g, trunc(div(x, y))))),
)
pow = binary(
    "pow",
    _power,
    accepts=REAL,
    grids=(_POSITIVE, _GRID),
    summary="x to the power y.",
    gradient=by_operand(_pow_base_gradient, _pow_exponent_gradient),
)
maximum = binary(
    "maximum",
    _extreme(np.maximum, dim_max),
    accepts=REAL,
    summary="The larger of two; NaN when either is NaN.",
    keeps_finite=True,
    nondecreasing=True,
    commutative=True,
    gradient=_extreme_gradient(lambda x, y: gt(x, y)),
)
minimum = binary(
    "minimum",
    _extreme(np.minimum, dim_min),
    accepts=REAL,
    summary="The smaller of two; NaN when either is NaN.",
    keeps_finite=True,
    nondecreasing=True,
    commutative=True,
    gradient=_extreme_gradient(lambda x, y: lt(x, y)),
)
atan2 = binary(
    "atan2",
    np.arctan2,
    accepts="float",
    summary="The angle of the point (y, x): atan2(y, x), in (-pi, pi].",
    gradient=by_operand(
        lambda g, y, x, _: mul(_atan2_gradient(g, y, x), x), lambda g, y, x, _: neg(mul(_atan2_gradient(g, y, x), y))
    ),
)

neg: OpSpec = unary(
    "neg", np.negative, accepts=NUMERIC, summary="-x.", keeps_finite=True, gradient=by_operand(lambda g, x, y: neg(g))
)
abs = unary(
    "abs",
    np.abs,
    accepts=REAL,
    summary="The magnitude of x.",
    keeps_finite=True,
    idempotent=True,
    gradient=by_operand(lambda g, x, y: mul(g, sign(x))),
)
sign: OpSpec = unary(
    "sign",
    np.sign,
    accepts=REAL,
    keeps_finite=True,
    nondecreasing=True,
    idempotent=True,
    gradient=zero,
    no_gradient=DISCRETE,
    summary="-1, 0 or 1; NaN for NaN.",
)
reciprocal = unary(
    "reciprocal", lambda x: 1 / x, summary="1 / x.", gradient=by_operand(lambda g, x, y: neg(mul(g, mul(y, y))))
)
sqrt = unary(
    "sqrt",
    np.sqrt,
    grid=_POSITIVE,
    summary="The square root; NaN below zero.",
    gradient=by_operand(lambda g, x, y: div(mul(g, 0.5), y)),
)
rsqrt = unary(
    "rsqrt",
    lambda x: 1 / np.sqrt(x),
    grid=_POSITIVE,
    summary="1 / sqrt(x).",
    gradient=by_operand(lambda g, x, y: mul(g, mul(div(y, x), -0.5))),
)
floor: OpSpec = unary(
    "floor",
    np.floor,
    keeps_finite=True,
    nondecreasing=True,
    idempotent=True,
    gradient=zero,
    no_gradient=DISCRETE,
    summary="The largest integer not above x.",
)
ceil = unary(
    "ceil",
    np.ceil,
    keeps_finite=True,
    nondecreasing=True,
    idempotent=True,
    gradient=zero,
    no_gradient=DISCRETE,
    summary="The smallest integer not below x.",
)
round = unary(
    "round",
    np.round,
    keeps_finite=True,
    nondecreasing=True,
    idempotent=True,
    gradient=zero,
    no_gradient=DISCRETE,
    summary="The nearest integer, ties to even.",
)
trunc: OpSpec = unary(
    "trunc",
    np.trunc,
    keeps_finite=True,
    nondecreasing=True,
    idempotent=True,
    gradient=zero,
    no_gradient=DISCRETE,
    summary="x rounded towards zero.",
)
relu = unary(
    "relu",
    lambda x: np.maximum(x, x.dtype.type(0)),
    accepts=REAL,
    scalar=lambda x: s.scalar("maximum", x, s.const(0, x.dtype)),
    summary="max(x, 0), NaN for NaN; its own operation because its gradient at 0 is 0, not a tie's half.",
    keeps_finite=True,
    nondecreasing=True,
    idempotent=True,
    gradient=by_operand(lambda g, x, y: select(gt(y, 0.0), g, 0.0)),
)


def _identity(x: np.ndarray) -> np.ndarray:
    return x


stop_gradient = unary(
    "stop_gradient",
    _identity,
    accepts=ANY,
    scalar=lambda x: x,
    nondecreasing=True,
    gradient=zero,
    no_gradient="it was asked to stop gradients",
    summary="x itself, seen as a constant by gradients.",
)

# ------------------------------------------------------------------------------------- transcendental functions

_erf_one_by_one = np.frompyfunc(math.erf, 1, 1)


def _erf(x: np.ndarray) -> np.ndarray:
    return np.asarray(_erf_one_by_one(x.astype(np.float64))).astype(x.dtype)


def _one_minus_square(x: Value) -> Value:
    """1 - x*x as a product, accurate near 1."""
    return mul(sub(1.0, x), add(x, 1.0))


exp = unary(
    "exp", np.exp, summary="e to the power x.", nondecreasing=True, gradient=by_operand(lambda g, x, y: mul(g, y))
)
expm1 = unary(
    "expm1",
    np.expm1,
    summary="exp(x) - 1, accurate near 0.",
    nondecreasing=True,
    gradient=by_operand(lambda g, x, y: mul(g, add(y, 1.0))),
)
log = unary(
    "log", np.log, grid=_POSITIVE, summary="The natural logarithm.", gradient=by_operand(lambda g, x, y: div(g, x))
)
log2 = unary(
    "log2",
    np.log2,
    grid=_POSITIVE,
    summary="The logarithm to base 2.",
    gradient=by_operand(lambda g, x, y: div(g, mul(x, math.log(2)))),
)
log1p = unary(
    "log1p",
    np.log1p,
    grid=_UNIT,
    summary="log(1 + x), accurate near 0.",
    gradient=by_operand(lambda g, x, y: div(g, add(x, 1.0))),
)
sin = unary(
    "sin",
    np.sin,
    summary="The sine of x radians.",
    keeps_finite=True,
    gradient=by_operand(lambda g, x, y: mul(g, cos(x))),
)
cos: OpSpec = unary(
    "cos",
    np.cos,
    summary="The cosine of x radians.",
    keeps_finite=True,
    gradient=by_operand(lambda g, x, y: neg(mul(g, sin(x)))),
)
tan = unary(
    "tan", np.tan, summary="The tangent of x radians.", gradient=by_operand(lambda g, x, y: mul(g, add(mul(y, y), 1.0)))
)
asin = unary(
    "asin",
    np.arcsin,
    grid=_UNIT,
    summary="The angle in [-pi/2, pi/2] whose sine is x.",
    gradient=by_operand(lambda g, x, y: mul(g, rsqrt(_one_minus_square(x)))),
)
acos = unary(
    "acos",
    np.arccos,
    grid=_UNIT,
    summary="The angle in [0, pi] whose cosine is x.",
    gradient=by_operand(lambda g, x, y: neg(mul(g, rsqrt(_one_minus_square(x))))),
)
atan = unary(
    "atan",
    np.arctan,
    summary="The angle in (-pi/2, pi/2) whose tangent is x.",
    keeps_finite=True,
    nondecreasing=True,
    gradient=by_operand(lambda g, x, y: div(g, add(mul(x, x), 1.0))),
)
sinh = unary(
    "sinh",
    np.sinh,
    summary="The hyperbolic sine.",
    nondecreasing=True,
    gradient=by_operand(lambda g, x, y: mul(g, cosh(x))),
)
cosh: OpSpec = unary(
    "cosh", np.cosh, summary="The hyperbolic cosine.", gradient=by_operand(lambda g, x, y: mul(g, sinh(x)))
)
tanh = unary(
    "tanh",
    np.tanh,
    summary="The hyperbolic tangent.",
    keeps_finite=True,
    nondecreasing=True,
    gradient=by_operand(lambda g, x, y: mul(g, sub(1.0, mul(y, y)))),
)
asinh = unary(
    "asinh",
    np.arcsinh,
    summary="The inverse hyperbolic sine.",
    keeps_finite=True,
    nondecreasing=True,
    gradient=by_operand(lambda g, x, y: mul(g, rsqrt(add(mul(x, x), 1.0)))),
)
acosh = unary(
    "acosh",
    np.arccosh,
    grid=_POSITIVE + np.float32(1),
    summary="The inverse hyperbolic cosine.",
    gradient=by_operand(lambda g, x, y: mul(g, rsqrt(mul(sub(x, 1.0), add(x, 1.0))))),
)
atanh = unary(
    "atanh",
    np.arctanh,
    grid=_UNIT,
    summary="The inverse hyperbolic tangent.",
    gradient=by_operand(lambda g, x, y: div(g, _one_minus_square(x))),
)
sigmoid = unary(
    "sigmoid",
    lambda x: 1 / (1 + np.exp(-x)),
    summary="1 / (1 + exp(-x)).",
    keeps_finite=True,
    nondecreasing=True,
    gradient=by_operand(lambda g, x, y: mul(g, mul(y, sub(1.0, y)))),
)
erf = unary(
    "erf",
    _erf,
    summary="The error function, 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x.",
    keeps_finite=True,
    nondecreasing=True,
    gradient=by_operand(lambda g, x, y: mul(g, mul(exp(neg(mul(x, x))), 2 / math.sqrt(math.pi)))),
)


# These three are operations, though they could be composed of others: the pieces have kinks where the whole is smooth.


def _softplus_scalar(x: Scalar) -> Scalar:
    return s.scalar("maximum", x, 0.0) + s.scalar("log1p", s.scalar("exp", -s.scalar("abs", x)))


softplus = unary(
    "softplus",
    lambda x: np.logaddexp(x, x.dtype.type(0)),
    scalar=_softplus_scalar,
    keeps_finite=True,
    nondecreasing=True,
    summary="log(1 + exp(x)), without overflow.",
    gradient=by_operand(lambda g, x, y: mul(g, sigmoid(x))),
)


def _logaddexp_scalar(x: Scalar, y: Scalar) -> Scalar:
    # two equal infinities have no difference
    apart = s.select(s.scalar("eq", x, y), s.const(0.0, x.dtype), s.scalar("abs", x - y))
    return s.scalar("maximum", x, y) + s.scalar("log1p", s.scalar("exp", -apart))


def _difference(x: Value, y: Value) -> Value:
    """x - y, and 0 for two equal infinities."""
    return select(logical_and(eq(x, y), isinf(x)), 0.0, sub(x, y))


logaddexp = binary(
    "logaddexp",
    np.logaddexp,
    accepts="float",
    scalar=_logaddexp_scalar,
    keeps_finite=True,
    nondecreasing=True,
    commutative=True,
    summary="log(exp(x) + exp(y)), without overflow.",
    gradient=by_operand(
        lambda g, x, y, _: mul(g, sigmoid(_difference(x, y))), lambda g, x, y, _: mul(g, sigmoid(_difference(y, x)))
    ),
)


def _hypot_scalar(x: Scalar, y: Scalar) -> Scalar:
    a, b = s.scalar("abs", x), s.scalar("abs", y)
    large, small = s.scalar("maximum", a, b), s.scalar("minimum", a, b)
    ratio = small / s.select(large > 0.0, large, 1.0)
    length = large * s.scalar("sqrt", ratio * ratio + 1.0)
    return s.select(s.scalar("isinf", x) | s.scalar("isinf", y), math.inf, length)


def _hypot_gradient(g: Value, x: Value, length: Value) -> Value:
    """x / length: the cosine of the angle; 0 at the tip of the cone."""
    tip = eq(length, 0.0)
    return mul(g, select(tip, 0.0, div(x, select(tip, 1.0, length))))


hypot = binary(
    "hypot",
    np.hypot,
    accepts="float",
    scalar=_hypot_scalar,
    keeps_finite=True,
    commutative=True,
    summary="sqrt(x^2 + y^2), without overflow.",
    gradient=by_operand(
        lambda g, x, y, length: _hypot_gradient(g, x, length), lambda g, x, y, length: _hypot_gradient(g, y, length)
    ),
)

# ---------------------------------------------------------------------------------------- comparisons and logic


isnan = unary("isnan", np.isnan, predicate=True, gradient=zero, no_gradient=DISCRETE, summary="Whether x is NaN.")


def _isinf_type(x: TensorType, *, positive: bool = True, negative: bool = True) -> TensorType:
    return _predicate("isinf", "float", 1)(x)


def _isinf(x: np.ndarray, *, positive: bool = True, negative: bool = True) -> np.ndarray:
    return np.isinf(x) & np.where(x > 0, positive, negative)


def _isinf_scalar(x: Scalar, *, positive: bool = True, negative: bool = True) -> Scalar:
    if positive and negative:
        return s.scalar("isinf", x)
    return s.scalar("isposinf" if positive else "isneginf", x) if positive or negative else s.const(False, BOOL)


isinf = register(
    OpSpec(
        name="isinf",
        kind=Kind.ELEMENTWISE,
        summary="Whether x is infinite; `positive` and `negative` say which infinities count.",
        infer=_isinf_type,
        reference=_isinf,
        scalar=_isinf_scalar,
        promote=True,
        gradient=zero,
        no_gradient=DISCRETE,
        samples=lambda: [
            Sample((_SPECIAL,)),
            Sample((_SPECIAL,), {"positive": False}),
            Sample((_SPECIAL.astype(np.float64),), {"negative": False}),
            Sample((_SPECIAL.astype(np.float16),), {"positive": False, "negative": False}),
        ],
    )
)


def _comparison(name: str, numpy: Callable[..., Any], accepts: str, summary: str, **traits: Any) -> OpSpec:
    return binary(
        name,
        numpy,
        accepts=accepts,
        predicate=True,
        keeps_finite=True,
        gradient=zero,
        no_gradient=DISCRETE,
        summary=summary,
        **traits,
    )


eq = _comparison("eq", np.equal, ANY, "x == y.", commutative=True)
ne = _comparison("ne", np.not_equal, ANY, "x != y.", commutative=True)
lt: OpSpec = _comparison("lt", np.less, REAL, "x < y.")
le = _comparison("le", np.less_equal, REAL, "x <= y.")
gt: OpSpec = _comparison("gt", np.greater, REAL, "x > y.")
ge = _comparison("ge", np.greater_equal, REAL, "x >= y.")


def _bits(name: str, scalar_name: str, numpy: Callable[..., Any], accepts: str, summary: str, **traits: Any) -> OpSpec:
    return binary(
        name,
        numpy,
        accepts=accepts,
        scalar=lambda x, y: s.scalar(scalar_name, x, y),
        gradient=zero,
        no_gradient=DISCRETE,
        summary=summary,
        **traits,
    )


def _not(x: Scalar) -> Scalar:
    return s.scalar("not", x)


logical_and = _bits("logical_and", "and", np.logical_and, "bool", "Both.", keeps_finite=True, commutative=True)
logical_or = _bits("logical_or", "or", np.logical_or, "bool", "Either or both.", keeps_finite=True, commutative=True)
logical_xor = _bits("logical_xor", "xor", np.logical_xor, "bool", "Exactly one.", keeps_finite=True, commutative=True)
logical_not = unary(
    "logical_not",
    np.logical_not,
    accepts="bool",
    scalar=_not,
    keeps_finite=True,
    gradient=zero,
    no_gradient=DISCRETE,
    summary="Not x.",
)
bitwise_and = _bits("bitwise_and", "and", np.bitwise_and, INTEGER, "The bits set in both.", commutative=True)
bitwise_or = _bits("bitwise_or", "or", np.bitwise_or, INTEGER, "The bits set in either.", commutative=True)
bitwise_xor = _bits("bitwise_xor", "xor", np.bitwise_xor, INTEGER, "The bits set in exactly one.", commutative=True)
bitwise_not = unary(
    "bitwise_not",
    np.invert,
    accepts=INTEGER,
    scalar=_not,
    gradient=zero,
    no_gradient=DISCRETE,
    summary="All bits flipped.",
)


def _shift(name: str, scalar_name: str, numpy: Callable[..., Any], summary: str) -> OpSpec:
    """Shifts by the width or more push every bit out; a processor's own shift would wrap the distance round instead."""

    def scalar(x: Scalar, y: Scalar) -> Scalar:
        out = s.const(0, x.dtype)
        if scalar_name == "shr" and x.dtype.kind == "int":
            out = s.select(x < 0, s.const(-1, x.dtype), out)
        inside = (y < x.dtype.bits) & (y >= 0) if y.dtype.kind == "int" else y < x.dtype.bits
        return s.select(inside, s.scalar(scalar_name, x, y), out)

    distances = np.array([0, 1, 2, 3, 7, 8, 63, 64], np.int64)
    return binary(
        name, numpy, accepts=INTEGER, scalar=scalar, ints=(_INTS, distances), gradient=zero, no_gradient=DISCRETE, summary=summary
    )  # fmt: skip


shift_left = _shift("shift_left", "shl", np.left_shift, "x times 2**y, keeping the low bits.")
shift_right = _shift("shift_right", "shr", np.right_shift, "x // 2**y; the sign is kept.")

# ------------------------------------------------------------------------------------------- selection and casts


def _select_type(condition: TensorType, a: TensorType, b: TensorType) -> TensorType:
    expect(
        isinstance(condition, TensorType) and condition.dtype == BOOL,
        f"select: the condition is {condition}, a bool tensor is needed",
    )
    result = _same("select", ANY, 2)(a, b)
    expect(
        condition.shape == a.shape,
        f"select: the condition has shape {list(condition.shape)} but the choices have {list(a.shape)}",
    )
    return result


def _select_samples() -> Iterable[Sample]:
    flags = np.repeat(_BOOLS, 2)
    yield Sample((flags, _GRID, _GRID[::-1]))
    yield Sample((flags.reshape(4, 2), _INTS.reshape(4, 2), _INTS_RIGHT.reshape(4, 2)))
    yield Sample((flags[0], np.float16(1), np.float16(2)))
    yield Sample((_BOOLS, _BOOLS, ~_BOOLS))
    yield Sample((_BOOLS[:2], np.array(["a", "b"], object), np.array(["c", "d"], object)))


select: OpSpec = register(
    OpSpec(
        name="select",
        kind=Kind.ELEMENTWISE,
        summary="a where the condition holds, else b.",
        infer=_select_type,
        reference=lambda condition, a, b: np.where(condition, a, b),
        scalar=s.select,
        promote=True,
        keeps_finite=True,
        gradient=by_operand(
            None,
            lambda g, condition, a, b, _: select(condition, g, 0.0),
            lambda g, condition, a, b, _: select(condition, 0.0, g),
        ),
        samples=_select_samples,
    )
)


def _cast_type(x: TensorType, *, dtype: DType, saturate: bool = True, rounding: str = "up") -> TensorType:
    expect(isinstance(x, TensorType), f"cast: the operand is {x}, a tensor is needed")
    expect(
        isinstance(dtype, DType), f"cast: dtype is {dtype!r}, a DType is needed (graphc.ir.dtypes.dtype_of makes one)"
    )
    expect(rounding in ROUNDINGS, f"cast: rounding is {rounding!r}; known are {', '.join(ROUNDINGS)}")
    return x.with_dtype(dtype)


def _cast_scalar(x: Scalar, *, dtype: DType, saturate: bool = True, rounding: str = "up") -> Scalar:
    return s.scalar("ne", x, s.const(0, x.dtype)) if dtype == BOOL and x.dtype != BOOL else s.cast(x, dtype)


def _cast_samples() -> Iterable[Sample]:
    values = np.array([0.0, -1.5, 2.5, 100.75, -100.0], np.float32)
    floats = "float64 float16 bfloat16 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float4_e2m1fn"
    for name in f"{floats} int64 int32 int8 int4 int2 bool".split():
        yield Sample((values,), {"dtype": dtype_of(name)})
    yield Sample(
        (np.array([0.3, 2.0, 5.0, np.nan], np.float32),), {"dtype": dtype_of("float8_e8m0fnu"), "rounding": "nearest"}
    )
    yield Sample((np.array([1e6, -1e6, np.inf, np.nan], np.float32),), {"dtype": dtype_of("float8_e5m2")})
    yield Sample(
        (np.array([1e6, -1e6, np.inf, np.nan], np.float32),), {"dtype": dtype_of("float8_e4m3fn"), "saturate": False}
    )
    for name in ["float32", "float16", "uint8", "int8", "int16", "uint32", "uint4", "bool"]:
        yield Sample((np.array([[-1, 0, 1], [300, 70000, -5]], np.int64),), {"dtype": dtype_of(name)})
    yield Sample((_BOOLS,), {"dtype": dtype_of("float32")})
    yield Sample((_BOOLS,), {"dtype": dtype_of("int32")})
    yield Sample((np.array(["1.5", "NaN", "-INF"], object),), {"dtype": dtype_of("float32")})
    yield Sample((np.array(["7", "-3"], object),), {"dtype": dtype_of("int64")})
    yield Sample((_GRID,), {"dtype": dtype_of("string")})
    yield Sample((np.zeros((0, 3), np.float32),), {"dtype": dtype_of("int32")})


cast: OpSpec = register(
    OpSpec(
        name="cast",
        kind=Kind.ELEMENTWISE,
        summary=(
            "x in another element type (see graphc.ops.casting); `saturate` and `rounding` matter for 8-bit floats."
        ),
        infer=_cast_type,
        reference=convert,
        scalar=_cast_scalar,
        promote=True,
        keeps_finite=True,
        gradient=by_operand(lambda g, x, y, **_: cast(g, dtype=x.dtype)),
        samples=_cast_samples,
    )
)
