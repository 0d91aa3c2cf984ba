"""Scalar expressions in the form that CUDA kernels print: arithmetic, choices, and functions of libdevice.

Everything stands inside the kernel: numba-cuda compiles functions of its own only where there is a device, and graphc
makes PTX where there is none. So the transcendental functions of float32 are expanded (graphc.codegen.math), and what
Python lacks is written with choices.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.codegen.math import expansion
from graphc.codegen.scalar import Dialect
from graphc.errors import CompileError
from graphc.ir.dtypes import DType
from graphc.ir.scalar import Scalar, const, scalar, select, walk

__all__ = ["CUDA", "expanded"]

#: functions keep their type in their name: graphc.codegen.cuda.primitives has one for each
CUDA = Dialect(function=lambda name, dtype: f"{name}_{dtype}", ternary=True)


def expanded(roots: list[Scalar]) -> list[Scalar]:
    """The expressions with everything replaced that CUDA text has no form for.

    Raises CompileError for an element type that CUDA kernels do not compute.
    """
    new: dict[Scalar, Scalar] = {}
    for e in walk(roots):
        if (e.dtype.is_float or e.dtype.is_integer) and not _computed(e.dtype):
            raise CompileError(f"CUDA kernels do not compute {e.dtype} yet")
        new[e] = _settled(e.with_args(tuple(new[a] for a in e.args)))
    return [new[r] for r in roots]


def _computed(dtype: DType) -> bool:
    return dtype.bits >= 32 if dtype.is_float else dtype.bits >= 8


def _settled(e: Scalar) -> Scalar:
    """One operation in a form that can be printed; what a replacement is made of is replaced in turn."""
    replacement = _replacement(e)
    return e if replacement is None else expanded([replacement])[0]


def _replacement(e: Scalar) -> Scalar | None:
    if not e.args or e.op in ("load", "cast", "bitcast", "select"):
        return None
    operand = e.args[0].dtype
    rule = _RULES.get(e.op)
    if rule is not None:
        return rule(*e.args)
    if operand.is_float:
        return _FLOAT_RULES[e.op](*e.args) if e.op in _FLOAT_RULES else expansion(e.op, *e.args)
    return _INTEGER_RULES[e.op](*e.args) if e.op in _INTEGER_RULES else None


def _either_nan(x: Scalar) -> Scalar:
    return scalar("ne", x, x)


def _maximum(x: Scalar, y: Scalar) -> Scalar:
    better = x > y
    return select(scalar("or", better, _either_nan(x)) if x.dtype.is_float else better, x, y)


def _minimum(x: Scalar, y: Scalar) -> Scalar:
    better = x < y
    return select(scalar("or", better, _either_nan(x)) if x.dtype.is_float else better, x, y)


def _float_mod(x: Scalar, y: Scalar) -> Scalar:
    r = scalar("fmod", x, y)
    zero = const(0, x.dtype)
    other_sign = scalar("and", scalar("ne", r, zero), scalar("xor", r < zero, y < zero))
    return select(other_sign, r + y, r)


def _divided(x: Scalar, y: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """(quotient, remainder, whether y is 0) of integers, rounded towards zero."""
    zero = const(0, x.dtype)
    by_zero = scalar("eq", y, zero)
    safe = select(by_zero, const(1, x.dtype), y)
    magnitude_x, magnitude_y = (select(v < zero, -v, v) if x.dtype.kind == "int" else v for v in (x, safe))
    # floor division of what is not negative: the signs are put back
    quotient = scalar("floordiv", magnitude_x, magnitude_y)
    if x.dtype.kind == "int":
        quotient = select(scalar("xor", x < zero, safe < zero), -quotient, quotient)
    return quotient, x - quotient * safe, by_zero


def _truncated(x: Scalar, y: Scalar) -> Scalar:
    quotient, _, by_zero = _divided(x, y)
    return select(by_zero, const(0, x.dtype), quotient)


def _remainder(x: Scalar, y: Scalar) -> Scalar:
    _, remainder, by_zero = _divided(x, y)
    return select(by_zero, const(0, x.dtype), remainder)


def _integer_sign(x: Scalar) -> Scalar:
    zero = const(0, x.dtype)
    above = select(x > zero, const(1, x.dtype), zero)
    return select(x < zero, const(-1, x.dtype), above) if x.dtype.kind == "int" else above


def _integer_power(x: Scalar, y: Scalar) -> Scalar:
    raise CompileError(f"CUDA kernels do not raise {x.dtype} to powers yet")


def _identity(x: Scalar) -> Scalar:
    return x


_RULES: dict[str, Callable[..., Scalar]] = {"maximum": _maximum, "minimum": _minimum}
_FLOAT_RULES: dict[str, Callable[..., Scalar]] = {
    "floordiv": lambda x, y: scalar("floor", x / y),
    "mod": _float_mod,
    "isnan": _either_nan,
    "isinf": lambda x: scalar("eq", scalar("abs", x), const(float("inf"), x.dtype)),
    "isposinf": lambda x: scalar("eq", x, const(float("inf"), x.dtype)),
    "isneginf": lambda x: scalar("eq", x, const(float("-inf"), x.dtype)),
    "exp2": lambda x: expansion("exp2", x) or scalar("pow", const(2.0, x.dtype), x),
}
_INTEGER_RULES: dict[str, Callable[..., Scalar]] = {
    "div": _truncated,
    "fmod": _remainder,
    "abs": lambda x: select(x < 0, -x, x),
    "sign": _integer_sign,
    "pow": _integer_power,
    "floor": _identity,
    "ceil": _identity,
    "trunc": _identity,
    "round": _identity,
}
