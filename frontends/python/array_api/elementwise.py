"""Elementwise functions of the array API standard.

Integers become floats in functions whose results are no integers, as in JAX and PyTorch (the standard leaves it open).
Complex numbers are computed outside of traces only, beyond what has a kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from graphc import ops
from graphc.frontends.python.array_api.operands import elementwise, kind, to_dtype
from graphc.frontends.python.functions import Array, array_function, at_once, promote, value_of
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Value
from graphc.ops.functions import full

__all__ = [
    "abs", "acos", "acosh", "add", "asin", "asinh", "atan", "atan2", "atanh", "bitwise_and", "bitwise_invert",
    "bitwise_left_shift", "bitwise_or", "bitwise_right_shift", "bitwise_xor", "ceil", "clip", "conj", "copysign",
    "cos", "cosh", "divide", "equal", "exp", "exp2", "expm1", "floor", "floor_divide", "fmod", "greater",
    "greater_equal", "hypot", "imag", "isfinite", "isinf", "isnan", "less", "less_equal", "log", "log1p", "log2",
    "log10", "logaddexp", "logical_and", "logical_not", "logical_or", "logical_xor", "maximum", "minimum",
    "multiply", "negative", "nextafter", "not_equal", "positive", "pow", "real", "reciprocal", "remainder",
    "round", "sign", "signbit", "sin", "sinh", "sqrt", "square", "stop_gradient", "subtract", "tan", "tanh",
    "trunc",
]  # fmt: skip

BOOL = dtype_of("bool")
REAL = ("int", "float")
FLOATING = ("float", "complex")
ANY = ("bool", "int", "float", "complex")
BITS = ("bool", "int")

# ---------------------------------------------------------------------------------------------------- arithmetic


@array_function
def add(x1: Array, x2: Array, /) -> Array:
    """x1 + x2."""
    return elementwise("add", ops.add, x1, x2)


@array_function
def subtract(x1: Array, x2: Array, /) -> Array:
    """x1 - x2."""
    return elementwise("subtract", ops.sub, x1, x2)


@array_function
def multiply(x1: Array, x2: Array, /) -> Array:
    """x1 * x2."""
    return elementwise("multiply", ops.mul, x1, x2)


@array_function
def divide(x1: Array, x2: Array, /) -> Array:
    """x1 / x2 in floating point."""
    return elementwise("divide", ops.div, x1, x2, accepts=FLOATING, floating=True)


@array_function
def floor_divide(x1: Array, x2: Array, /) -> Array:
    """The largest integer not above x1 / x2; 0 where an integer is divided by 0."""
    return elementwise("floor_divide", ops.floordiv, x1, x2, accepts=REAL)


@array_function
def remainder(x1: Array, x2: Array, /) -> Array:
    """What is left of x1 after division by x2, with x2's sign; 0 where an integer is divided by 0."""
    return elementwise("remainder", ops.mod, x1, x2, accepts=REAL)


@array_function
def fmod(x1: Array, x2: Array, /) -> Array:
    """What is left of x1 after division by x2, with x1's sign (NumPy's; not in the standard)."""
    return elementwise("fmod", ops.fmod, x1, x2, accepts=REAL)


@array_function
def pow(x1: Array, x2: Array, /) -> Array:
    """x1 to the power x2; an integer to a negative power is its reciprocal rounded towards zero."""
    return elementwise("pow", ops.pow, x1, x2)


@array_function
def positive(x: Array, /) -> Array:
    """x itself."""
    return elementwise("positive", lambda v: v, x)


@array_function
def negative(x: Array, /) -> Array:
    """-x."""
    return elementwise("negative", ops.neg, x)


@array_function
def abs(x: Array, /) -> Array:
    """The magnitude; its derivative at 0 is 0."""
    return elementwise("abs", ops.abs, x)


@array_function
def sign(x: Array, /) -> Array:
    """-1, 0 or 1; NaN for NaN, x / |x| for complex numbers."""
    return elementwise("sign", ops.sign, x)


@array_function
def square(x: Array, /) -> Array:
    """x * x."""
    return elementwise("square", lambda v: ops.mul(v, v), x)


@array_function
def reciprocal(x: Array, /) -> Array:
    """1 / x."""
    return elementwise("reciprocal", ops.reciprocal, x, accepts=FLOATING, floating=True)


@array_function
def sqrt(x: Array, /) -> Array:
    """The square root; NaN below zero."""
    return elementwise("sqrt", ops.sqrt, x, accepts=FLOATING, floating=True)


@array_function
def hypot(x1: Array, x2: Array, /) -> Array:
    """sqrt(x1**2 + x2**2), without overflow."""
    return elementwise("hypot", ops.hypot, x1, x2, accepts=("float",), floating=True)


@array_function
def maximum(x1: Array, x2: Array, /) -> Array:
    """The larger of two; NaN when either is NaN. At a tie each takes half of the gradient."""
    return elementwise("maximum", ops.maximum, x1, x2, accepts=REAL)


@array_function
def minimum(x1: Array, x2: Array, /) -> Array:
    """The smaller of two; NaN when either is NaN. At a tie each takes half of the gradient."""
    return elementwise("minimum", ops.minimum, x1, x2, accepts=REAL)


@array_function
def clip(x: Array, /, min: Array | None = None, max: Array | None = None) -> Array:  # noqa: A002
    """min(max(x, `min`), `max`), in x's element type where the bounds are of its kind."""
    bounds = [b for b in (min, max) if b is not None]
    (own,) = promote("clip", x)
    if not bounds:
        return own

    def between(v: Value, *limits: Value) -> Value:
        rest = list(limits)
        if min is not None:
            v = ops.maximum(v, rest.pop(0))
        return v if max is None else ops.minimum(v, rest.pop(0))

    result = elementwise("clip", between, x, *bounds, accepts=REAL)
    return to_dtype(result, own.dtype) if kind(result) == kind(own) else result


# ------------------------------------------------------------------------------------------------------ rounding


@array_function
def floor(x: Array, /) -> Array:
    """The largest integer not above x."""
    return elementwise("floor", lambda v: v if kind(v) == "int" else ops.floor(v), x, accepts=REAL)


@array_function
def ceil(x: Array, /) -> Array:
    """The smallest integer not below x."""
    return elementwise("ceil", lambda v: v if kind(v) == "int" else ops.ceil(v), x, accepts=REAL)


@array_function
def trunc(x: Array, /) -> Array:
    """x rounded towards zero."""
    return elementwise("trunc", lambda v: v if kind(v) == "int" else ops.trunc(v), x, accepts=REAL)


@array_function
def round(x: Array, /) -> Array:
    """The nearest integer, ties to even."""
    return elementwise("round", lambda v: v if kind(v) == "int" else ops.round(v), x)


# ------------------------------------------------------------------------------------ exponentials and logarithms


@array_function
def exp(x: Array, /) -> Array:
    """e to the power x."""
    return elementwise("exp", ops.exp, x, accepts=FLOATING, floating=True)


@array_function
def exp2(x: Array, /) -> Array:
    """2 to the power x (NumPy's; not in the standard)."""
    return elementwise("exp2", lambda v: ops.pow(full(2.0, v.shape, v.dtype), v), x, accepts=FLOATING, floating=True)


@array_function
def expm1(x: Array, /) -> Array:
    """exp(x) - 1, accurate near 0."""
    return elementwise("expm1", ops.expm1, x, accepts=FLOATING, floating=True)


@array_function
def log(x: Array, /) -> Array:
    """The natural logarithm; NaN below zero."""
    return elementwise("log", ops.log, x, accepts=FLOATING, floating=True)


@array_function
def log1p(x: Array, /) -> Array:
    """log(1 + x), accurate near 0."""
    return elementwise("log1p", ops.log1p, x, accepts=FLOATING, floating=True)


@array_function
def log2(x: Array, /) -> Array:
    """The logarithm to base 2."""
    return elementwise("log2", ops.log2, x, accepts=FLOATING, floating=True)


@array_function
def log10(x: Array, /) -> Array:
    """The logarithm to base 10."""
    return elementwise("log10", lambda v: ops.div(ops.log(v), math.log(10)), x, accepts=FLOATING, floating=True)


@array_function
def logaddexp(x1: Array, x2: Array, /) -> Array:
    """log(exp(x1) + exp(x2)), without overflow."""
    return elementwise("logaddexp", ops.logaddexp, x1, x2, accepts=("float",), floating=True)


# -------------------------------------------------------------------------------- trigonometric and hyperbolic


@array_function
def sin(x: Array, /) -> Array:
    """The sine of x radians."""
    return elementwise("sin", ops.sin, x, accepts=FLOATING, floating=True)


@array_function
def cos(x: Array, /) -> Array:
    """The cosine of x radians."""
    return elementwise("cos", ops.cos, x, accepts=FLOATING, floating=True)


@array_function
def tan(x: Array, /) -> Array:
    """The tangent of x radians."""
    return elementwise("tan", ops.tan, x, accepts=FLOATING, floating=True)


@array_function
def asin(x: Array, /) -> Array:
    """The angle in [-pi/2, pi/2] whose sine is x."""
    return elementwise("asin", ops.asin, x, accepts=FLOATING, floating=True)


@array_function
def acos(x: Array, /) -> Array:
    """The angle in [0, pi] whose cosine is x."""
    return elementwise("acos", ops.acos, x, accepts=FLOATING, floating=True)


@array_function
def atan(x: Array, /) -> Array:
    """The angle in [-pi/2, pi/2] whose tangent is x."""
    return elementwise("atan", ops.atan, x, accepts=FLOATING, floating=True)


@array_function
def atan2(x1: Array, x2: Array, /) -> Array:
    """The angle of the point (x2, x1), in [-pi, pi]."""
    return elementwise("atan2", ops.atan2, x1, x2, accepts=("float",), floating=True)


@array_function
def sinh(x: Array, /) -> Array:
    """The hyperbolic sine."""
    return elementwise("sinh", ops.sinh, x, accepts=FLOATING, floating=True)


@array_function
def cosh(x: Array, /) -> Array:
    """The hyperbolic cosine."""
    return elementwise("cosh", ops.cosh, x, accepts=FLOATING, floating=True)


@array_function
def tanh(x: Array, /) -> Array:
    """The hyperbolic tangent."""
    return elementwise("tanh", ops.tanh, x, accepts=FLOATING, floating=True)


@array_function
def asinh(x: Array, /) -> Array:
    """The inverse hyperbolic sine."""
    return elementwise("asinh", ops.asinh, x, accepts=FLOATING, floating=True)


@array_function
def acosh(x: Array, /) -> Array:
    """The inverse hyperbolic cosine; NaN below 1."""
    return elementwise("acosh", ops.acosh, x, accepts=FLOATING, floating=True)


@array_function
def atanh(x: Array, /) -> Array:
    """The inverse hyperbolic tangent."""
    return elementwise("atanh", ops.atanh, x, accepts=FLOATING, floating=True)


# --------------------------------------------------------------------------------------------- parts of a number


@array_function
def real(x: Array, /) -> Array:
    """The real part."""
    return elementwise("real", lambda v: v, x)


@array_function
def imag(x: Array, /) -> Array:
    """The imaginary part; 0 for real numbers."""
    return elementwise("imag", lambda v: full(0, v.shape, v.dtype), x)


@array_function
def conj(x: Array, /) -> Array:
    """The complex conjugate; a real number is its own."""
    return elementwise("conj", lambda v: v, x)


@array_function
def signbit(x: Array, /) -> Array:
    """Whether the sign bit is set, as it is in -0.0. A NaN's sign is not seen."""
    return elementwise("signbit", _signbit, x, accepts=("float",), floating=True)


def _signbit(v: Value) -> Value:
    return ops.select(ops.eq(v, 0.0), ops.lt(ops.reciprocal(v), 0.0), ops.lt(v, 0.0))


@array_function
def copysign(x1: Array, x2: Array, /) -> Array:
    """The magnitude of x1 with the sign of x2 (see `signbit`)."""

    def signed(x: Value, y: Value) -> Value:
        size = ops.abs(x)
        return ops.select(_signbit(y), ops.neg(size), size)

    return elementwise("copysign", signed, x1, x2, accepts=("float",), floating=True)


@array_function
def nextafter(x1: Array, x2: Array, /) -> Array:
    """The next number that x1's type can hold, towards x2. Not in traces: there is no kernel for it."""
    return elementwise(
        "nextafter",
        lambda *values: at_once("nextafter", np.nextafter, values),
        x1,
        x2,
        accepts=("float",),
        floating=True,
    )


@array_function
def stop_gradient(x: Array, /) -> Array:
    """x itself, seen as a constant by derivatives."""
    return ops.stop_gradient(value_of(x))


# --------------------------------------------------------------------------------------------------- comparisons


@array_function
def equal(x1: Array, x2: Array, /) -> Array:
    """x1 == x2."""
    return elementwise("equal", ops.eq, x1, x2, accepts=ANY)


@array_function
def not_equal(x1: Array, x2: Array, /) -> Array:
    """x1 != x2."""
    return elementwise("not_equal", ops.ne, x1, x2, accepts=ANY)


@array_function
def less(x1: Array, x2: Array, /) -> Array:
    """x1 < x2."""
    return elementwise("less", ops.lt, x1, x2, accepts=REAL)


@array_function
def less_equal(x1: Array, x2: Array, /) -> Array:
    """x1 <= x2."""
    return elementwise("less_equal", ops.le, x1, x2, accepts=REAL)


@array_function
def greater(x1: Array, x2: Array, /) -> Array:
    """x1 > x2."""
    return elementwise("greater", ops.gt, x1, x2, accepts=REAL)


@array_function
def greater_equal(x1: Array, x2: Array, /) -> Array:
    """x1 >= x2."""
    return elementwise("greater_equal", ops.ge, x1, x2, accepts=REAL)


@array_function
def isnan(x: Array, /) -> Array:
    """Whether x is NaN."""
    return elementwise("isnan", lambda v: _never(v) if kind(v) == "int" else ops.isnan(v), x)


@array_function
def isinf(x: Array, /) -> Array:
    """Whether x is infinite."""
    return elementwise("isinf", lambda v: _never(v) if kind(v) == "int" else ops.isinf(v), x)


@array_function
def isfinite(x: Array, /) -> Array:
    """Whether x is neither infinite nor NaN."""

    def finite(v: Value) -> Value:
        return ops.logical_not(_never(v)) if kind(v) == "int" else ops.lt(ops.abs(v), math.inf)

    return elementwise("isfinite", finite, x)


def _never(v: Value) -> Value:
    return full(False, v.shape, BOOL)


# ---------------------------------------------------------------------------------------------- logic and bits


@array_function
def logical_and(x1: Array, x2: Array, /) -> Array:
    """Both."""
    return elementwise("logical_and", ops.logical_and, *map(_truth, (x1, x2)), accepts=("bool",))


@array_function
def logical_or(x1: Array, x2: Array, /) -> Array:
    """Either or both."""
    return elementwise("logical_or", ops.logical_or, *map(_truth, (x1, x2)), accepts=("bool",))


@array_function
def logical_xor(x1: Array, x2: Array, /) -> Array:
    """Exactly one."""
    return elementwise("logical_xor", ops.logical_xor, *map(_truth, (x1, x2)), accepts=("bool",))


@array_function
def logical_not(x: Array, /) -> Array:
    """Not x."""
    return elementwise("logical_not", ops.logical_not, _truth(x), accepts=("bool",))


def _truth(x: Array) -> Value:
    """Whether each element is other than 0."""
    (v,) = promote("logic", x)
    return v if kind(v) == "bool" else to_dtype(v, np.bool_)


@array_function
def bitwise_and(x1: Array, x2: Array, /) -> Array:
    """The bits set in both."""
    return elementwise("bitwise_and", _logical_or_bits(ops.logical_and, ops.bitwise_and), x1, x2, accepts=BITS)


@array_function
def bitwise_or(x1: Array, x2: Array, /) -> Array:
    """The bits set in either."""
    return elementwise("bitwise_or", _logical_or_bits(ops.logical_or, ops.bitwise_or), x1, x2, accepts=BITS)


@array_function
def bitwise_xor(x1: Array, x2: Array, /) -> Array:
    """The bits set in exactly one."""
    return elementwise("bitwise_xor", _logical_or_bits(ops.logical_xor, ops.bitwise_xor), x1, x2, accepts=BITS)


@array_function
def bitwise_invert(x: Array, /) -> Array:
    """All bits flipped; not x for bools."""
    return elementwise("bitwise_invert", _logical_or_bits(ops.logical_not, ops.bitwise_not), x, accepts=BITS)


def _logical_or_bits(logical: Callable[..., Value], bits: Callable[..., Value]) -> Callable[..., Value]:
    return lambda *values: (logical if kind(values[0]) == "bool" else bits)(*values)


@array_function
def bitwise_left_shift(x1: Array, x2: Array, /) -> Array:
    """x1 times 2**x2, keeping the low bits; x2 from 0 to the type's width."""
    return elementwise("bitwise_left_shift", ops.shift_left, x1, x2, accepts=("int",))


@array_function
def bitwise_right_shift(x1: Array, x2: Array, /) -> Array:
    """x1 // 2**x2; x2 from 0 to the type's width."""
    return elementwise("bitwise_right_shift", ops.shift_right, x1, x2, accepts=("int",))
