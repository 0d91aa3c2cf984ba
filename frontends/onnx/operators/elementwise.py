"""Arithmetic, comparisons, logic, casts and selection."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

from graphc import ops
from graphc.frontends.onnx.context import Context
from graphc.frontends.onnx.operators._common import BOOL, FLOAT32, random_key, reshape, scalar, to
from graphc.frontends.onnx.registry import importer
from graphc.ir.graph import Value
from graphc.ops import random
from graphc.ops.spec import OpSpec

__all__: list[str] = []


def _unary(name: str, op: OpSpec, *since: int) -> None:
    @importer(name, *since)
    def convert(c: Context, x: Value) -> Value:
        c.ignore("consumed_inputs")
        return op(x)


_UNARY: tuple[tuple[str, OpSpec, tuple[int, ...]], ...] = (
    ("Abs", ops.abs, (6, 13)),
    ("Acos", ops.acos, (7, 22)),
    ("Acosh", ops.acosh, (9, 22)),
    ("Asin", ops.asin, (7, 22)),
    ("Asinh", ops.asinh, (9, 22)),
    ("Atan", ops.atan, (7, 22)),
    ("Atanh", ops.atanh, (9, 22)),
    ("BitwiseNot", ops.bitwise_not, (18,)),
    ("Ceil", ops.ceil, (6, 13)),
    ("Cos", ops.cos, (7, 22)),
    ("Cosh", ops.cosh, (9, 22)),
    ("Erf", ops.erf, (9, 13)),
    ("Exp", ops.exp, (6, 13)),
    ("Floor", ops.floor, (6, 13)),
    ("IsNaN", ops.isnan, (9, 13, 20)),
    ("Log", ops.log, (6, 13)),
    ("Neg", ops.neg, (6, 13)),
    ("Not", ops.logical_not, (1,)),
    ("Reciprocal", ops.reciprocal, (6, 13)),
    ("Round", ops.round, (11, 22)),
    ("Sigmoid", ops.sigmoid, (6, 13)),
    ("Sign", ops.sign, (9, 13)),
    ("Sin", ops.sin, (7, 22)),
    ("Sinh", ops.sinh, (9, 22)),
    ("Sqrt", ops.sqrt, (6, 13)),
    ("Tan", ops.tan, (7, 22)),
    ("Tanh", ops.tanh, (6, 13)),
)
for _name, _op, _since in _UNARY:
    _unary(_name, _op, *_since)


def _aligned(c: Context, x: Value, y: Value) -> Value:
    """The second operand of opset 6: it is broadcast only when told to, and from an axis of the first operand."""
    if c.opset >= 7:
        return y
    axis = c.int("axis", None)
    if not c.flag("broadcast"):
        return y
    first = x.rank - y.rank if axis is None else c.axis(axis, x.rank)
    return reshape(y, (*y.shape, *[1] * (x.rank - y.rank - first)))


def _binary(name: str, op: OpSpec, *since: int) -> None:
    @importer(name, *since)
    def convert(c: Context, x: Value, y: Value) -> Value:
        c.ignore("consumed_inputs")
        return op(x, _aligned(c, x, y))


_BINARY: tuple[tuple[str, OpSpec, tuple[int, ...]], ...] = (
    ("Add", ops.add, (6, 7, 13, 14)),
    ("Sub", ops.sub, (6, 7, 13, 14)),
    ("Mul", ops.mul, (6, 7, 13, 14)),
    ("Div", ops.div, (6, 7, 13, 14)),
    ("And", ops.logical_and, (1, 7)),
    ("Or", ops.logical_or, (1, 7)),
    ("Xor", ops.logical_xor, (1, 7)),
    ("Equal", ops.eq, (1, 7, 11, 13, 19)),
    ("Greater", ops.gt, (1, 7, 9, 13)),
    ("GreaterOrEqual", ops.ge, (12, 16)),
    ("Less", ops.lt, (1, 7, 9, 13)),
    ("LessOrEqual", ops.le, (12, 16)),
    ("BitwiseAnd", ops.bitwise_and, (18,)),
    ("BitwiseOr", ops.bitwise_or, (18,)),
    ("BitwiseXor", ops.bitwise_xor, (18,)),
)
for _name, _op, _since in _BINARY:
    _binary(_name, _op, *_since)


@importer("Pow", 1, 7, 12, 13, 15)
def power(c: Context, x: Value, y: Value) -> Value:
    """The result has the base's element type; the exponent may have another one."""
    y = _aligned(c, x, y)
    if x.dtype.is_integer and y.dtype.is_float:
        return to(ops.pow(to(x, y.dtype), y), x.dtype)
    return ops.pow(x, to(y, x.dtype))


@importer("Mod", 10, 13, 28)
def modulo(c: Context, x: Value, y: Value) -> Value:
    return (ops.fmod if c.flag("fmod") else ops.mod)(x, y)


@importer("BitShift", 11, 28)
def bit_shift(c: Context, x: Value, y: Value) -> Value:
    direction = c.string("direction")
    if direction not in ("LEFT", "RIGHT"):
        c.invalid(f"the direction is {direction!r}; it must be LEFT or RIGHT")
    return (ops.shift_left if direction == "LEFT" else ops.shift_right)(x, y)


def _variadic(name: str, combine: Callable[..., Value], *since: int) -> None:
    @importer(name, *since)
    def convert(c: Context, first: Value, *others: Value) -> Value:
        c.ignore("consumed_inputs")
        return reduce(combine, others, first)


_variadic("Max", ops.maximum, 6, 8, 12, 13)
_variadic("Min", ops.minimum, 6, 8, 12, 13)
_variadic("Sum", ops.add, 6, 8, 13)


@importer("Mean", 6, 8, 13)
def mean(c: Context, first: Value, *others: Value) -> Value:
    total = reduce(ops.add, others, first)
    return ops.mul(total, scalar(1 / (1 + len(others)), first.dtype))


@importer("Clip", 6, 11, 12, 13)
def clip(c: Context, x: Value, low: Value | None = None, high: Value | None = None) -> Value:
    if c.version < 11:  # bounds are attributes; the defaults are the ends of float32, which let everything pass
        c.ignore("consumed_inputs")
        low = scalar(c.float("min"), x.dtype) if c.has("min") else None
        high = scalar(c.float("max"), x.dtype) if c.has("max") else None
    x = x if low is None else ops.maximum(x, low)
    return x if high is None else ops.minimum(x, high)


@importer("Cast", 6, 9, 13, 19, 21, 23, 24, 25, 28)
def cast(c: Context, x: Value) -> Value:
    return _cast(c, x, c.dtype("to"))


@importer("CastLike", 15, 19, 21, 23, 24, 25)
def cast_like(c: Context, x: Value, like: Value) -> Value:
    return _cast(c, x, like.dtype)


def _cast(c: Context, x: Value, dtype: object) -> Value:
    options = {"saturate": c.flag("saturate", True), "rounding": c.string("round_mode", "up")}
    # an option that stands at its default does not become part of the node, so that equal casts are one node
    defaults = {"saturate": True, "rounding": "up"}
    return x if x.dtype == dtype else ops.cast(x, dtype=dtype, **{k: v for k, v in options.items() if v != defaults[k]})


@importer("Where", 9, 16)
def where(c: Context, condition: Value, x: Value, y: Value) -> Value:
    return ops.select(condition, x, y)


@importer("IsInf", 10, 20)
def is_infinite(c: Context, x: Value) -> Value:
    return ops.isinf(x, positive=c.flag("detect_positive", True), negative=c.flag("detect_negative", True))


@importer("Identity", 1, 13, 14, 16, 19, 21, 23, 24, 25)
def identity(c: Context, x: Value) -> Value:
    return x


@importer("Dropout", 6, 7, 10, 12, 13, 22)
def dropout(c: Context, x: Value, ratio: Value | None = None, training: Value | None = None) -> tuple[Value, Value]:
    """At inference nothing is dropped and the mask is true everywhere; in training what is kept is scaled up."""
    if training is not None and c.static(training, "training mode").any():
        known = None if ratio is None else c.known(ratio)
        if known is None or known.any():
            share = to(reshape(ratio, ()), FLOAT32) if ratio is not None else scalar(0.5, FLOAT32)
            kept = ops.ge(random.uniform(random_key(c), x.shape), share)
            factor = to(ops.div(scalar(1, FLOAT32), ops.sub(scalar(1, FLOAT32), share)), x.dtype)
            return ops.select(kept, ops.mul(x, factor), scalar(0, x.dtype)), kept
    c.ignore("seed", "ratio", "is_test")
    mask = scalar(True, BOOL if c.version >= 10 else x.dtype)
    return x, ops.broadcast_to(mask, shape=x.shape)
