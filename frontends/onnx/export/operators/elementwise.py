"""Elementwise operations. Where an operator does not take an element type, a wider one is computed with."""

from __future__ import annotations

import math
from typing import Any

from graphc import ops
from graphc.frontends.onnx.export.body import Body, Refusal, takes
from graphc.frontends.onnx.export.registry import composition, exporter
from graphc.frontends.onnx.tensors import element_number
from graphc.ir.dtypes import DType, dtype_of
from graphc.ir.graph import Node, Value

_SAME = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "pow": "Pow", "maximum": "Max", "minimum": "Min",
    "neg": "Neg", "abs": "Abs", "sign": "Sign", "reciprocal": "Reciprocal", "sqrt": "Sqrt", "floor": "Floor",
    "ceil": "Ceil", "round": "Round", "relu": "Relu", "exp": "Exp", "log": "Log", "sin": "Sin", "cos": "Cos",
    "tan": "Tan", "asin": "Asin", "acos": "Acos", "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh", "tanh": "Tanh",
    "asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh", "sigmoid": "Sigmoid", "softplus": "Softplus", "erf": "Erf",
    "bitwise_and": "BitwiseAnd", "bitwise_or": "BitwiseOr", "bitwise_xor": "BitwiseXor", "bitwise_not": "BitwiseNot",
}  # fmt: skip
_PREDICATES = {
    "isnan": "IsNaN", "eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual",
    "logical_and": "And", "logical_or": "Or", "logical_xor": "Xor", "logical_not": "Not",
}  # fmt: skip
#: what is tried, in this order, where a type will not do; integers wrap when the result is narrowed again
_WIDER = {"float": ("float32", "float64"), "int": ("int32", "int64"), "uint": ("uint32", "uint64", "int64")}


def widened(operator: str, dtype: DType) -> DType:
    """The type itself where the operator takes it, else a wider one of its kind."""
    candidates = (dtype, *(d for d in map(dtype_of, _WIDER.get(dtype.kind, ())) if d.bits >= dtype.bits))
    for d in candidates:
        if takes(operator, d):
            return d
    raise Refusal(f"ONNX's {operator} does not take {dtype}, nor a wider type in its place")


def plain(c: Body, operator: str, node: Node, operands: tuple[str, ...], **attributes: Any) -> str:
    """The operator on the operands, in a type that it takes."""
    dtype = node.inputs[0].dtype
    wide = widened(operator, dtype)
    if wide == dtype:
        return str(c.emit(operator, *operands, **attributes))
    result = c.emit(operator, *(c.cast(x, wide) for x in operands), **attributes)
    return c.cast(result, dtype) if node.types[0].dtype == dtype else result  # type: ignore[union-attr]


@exporter(*_SAME)
def same(c: Body, node: Node, *operands: str) -> str:
    return plain(c, _SAME[node.op.name], node, operands)


@exporter(*_PREDICATES)
def predicate(c: Body, node: Node, *operands: str) -> str:
    return plain(c, _PREDICATES[node.op.name], node, operands)


@exporter("ne")
def ne(c: Body, node: Node, *operands: str) -> str:
    return str(c.emit("Not", plain(c, "Equal", node, operands)))


@exporter("isinf")
def isinf(c: Body, node: Node, x: str) -> str:
    attrs = node.attrs
    return plain(
        c,
        "IsInf",
        node,
        (x,),
        detect_positive=int(attrs.get("positive", True)),
        detect_negative=int(attrs.get("negative", True)),
    )


@exporter("select")
def select(c: Body, node: Node, *operands: str) -> str:
    return str(c.emit("Where", *operands))


@exporter("cast")
def cast(c: Body, node: Node, x: str) -> str:
    dtype, saturate = node.attrs["dtype"], node.attrs.get("saturate", True)
    rounding = node.attrs.get("rounding", "up") if dtype.name == "float8_e8m0fnu" else None
    return str(c.emit("Cast", x, to=element_number(dtype), saturate=None if saturate else 0, round_mode=rounding))


@exporter("stop_gradient", "after")
def passed_on(c: Body, node: Node, x: str, *_: str) -> str:
    """Only gradients and schedules tell these from their first operand."""
    return x


# ------------------------------------------------------------------------------------------------- compositions


@exporter("fmod")
def fmod(c: Body, node: Node, *operands: str) -> str:
    return plain(c, "Mod", node, operands, fmod=1)


@exporter("mod")
def mod(c: Body, node: Node, *operands: str) -> str:
    x, y = node.inputs
    if not x.dtype.is_float:
        return plain(c, "Mod", node, operands)
    rest = ops.fmod(x, y)
    astray = ops.logical_and(ops.ne(rest, 0.0), ops.ne(ops.lt(rest, 0.0), ops.lt(y, 0.0)))
    return c.lower(ops.select(astray, ops.add(rest, y), rest))


@composition("floordiv")
def floordiv(x: Value, y: Value) -> Value:
    if x.dtype.is_float:
        return ops.floor(ops.div(x, y))
    return ops.div(ops.sub(x, ops.mod(x, y)), y)


@composition("rsqrt")
def rsqrt(x: Value) -> Value:
    return ops.reciprocal(ops.sqrt(x))


@composition("trunc")
def trunc(x: Value) -> Value:
    return ops.select(ops.lt(x, 0.0), ops.ceil(x), ops.floor(x))


@composition("log2")
def log2(x: Value) -> Value:
    return ops.mul(ops.log(x), 1 / math.log(2))


@composition("expm1")
def expm1(x: Value) -> Value:
    """2 sinh(x/2) exp(x/2), which loses nothing near 0; far from it the factors would overflow before the result."""
    half = ops.mul(x, 0.5)
    near = ops.mul(ops.mul(ops.sinh(half), 2.0), ops.exp(half))
    return ops.select(ops.lt(ops.abs(x), 1.0), near, ops.sub(ops.exp(x), 1.0))


@composition("log1p")
def log1p(x: Value) -> Value:
    """2 atanh(x / (2 + x)), which loses nothing near 0."""
    near = ops.mul(ops.atanh(ops.div(x, ops.add(x, 2.0))), 2.0)
    return ops.select(ops.lt(ops.abs(x), 0.5), near, ops.log(ops.add(x, 1.0)))


@composition("atan2")
def atan2(y: Value, x: Value) -> Value:
    """The angle in the right half plane, turned by half a circle in the left one. Zeros' signs are not told apart."""
    endless = ops.logical_and(ops.isinf(y), ops.isinf(x))  # their quotient is no number; that of their signs is
    y, x = (ops.select(endless, ops.sign(v), v) for v in (y, x))
    turn = ops.select(ops.lt(y, 0.0), -math.pi, ops.mul(ops.add(ops.mul(y, 0.0), 1.0), math.pi))
    left = ops.add(ops.atan(ops.div(y, x)), ops.select(ops.lt(x, 0.0), turn, 0.0))
    upright = ops.mul(ops.sign(y), math.pi / 2)
    return ops.select(ops.eq(x, 0.0), upright, left)


@composition("logaddexp")
def logaddexp(x: Value, y: Value) -> Value:
    apart = ops.select(ops.eq(x, y), 0.0, ops.abs(ops.sub(x, y)))  # two equal infinities have no difference
    return ops.add(ops.maximum(x, y), ops.softplus(ops.neg(apart)))


@composition("hypot")
def hypot(x: Value, y: Value) -> Value:
    a, b = ops.abs(x), ops.abs(y)
    large, small = ops.maximum(a, b), ops.minimum(a, b)
    ratio = ops.div(small, ops.select(ops.eq(large, 0.0), 1.0, large))
    length = ops.mul(large, ops.sqrt(ops.add(ops.mul(ratio, ratio), 1.0)))
    return ops.select(ops.logical_or(ops.isinf(x), ops.isinf(y)), math.inf, length)


@exporter("shift_left", "shift_right")
def shift(c: Body, node: Node, *operands: str) -> str:
    """BitShift takes unsigned integers. To the right, a negative x is ~(~x >> n)."""
    x, n = node.inputs
    left = node.op.name == "shift_left"
    if x.dtype.kind == "uint":
        return str(c.emit("BitShift", *operands, direction="LEFT" if left else "RIGHT"))
    unsigned = dtype_of(f"u{x.dtype.name}")
    op, by = (ops.shift_left if left else ops.shift_right), ops.cast(n, dtype=unsigned)

    def shifted(v: Value) -> Value:
        return ops.cast(op(ops.cast(v, dtype=unsigned), by), dtype=x.dtype)

    if left:
        return c.lower(shifted(x))
    return c.lower(ops.select(ops.lt(x, 0), ops.bitwise_not(shifted(ops.bitwise_not(x))), shifted(x)))
