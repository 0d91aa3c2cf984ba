"""Activation functions."""

from __future__ import annotations

import numpy as np

from graphc import ops
from graphc.frontends.onnx.context import Context
from graphc.frontends.onnx.operators._common import channelwise, scalar
from graphc.frontends.onnx.registry import importer
from graphc.ir.graph import Value
from graphc.ops import functions

__all__: list[str] = []


@importer("Relu", 6, 13, 14)
def relu(c: Context, x: Value) -> Value:
    c.ignore("consumed_inputs")
    return ops.relu(x) if x.dtype.is_float else ops.maximum(x, 0)


@importer("LeakyRelu", 6, 16)
def leaky_relu(c: Context, x: Value) -> Value:
    c.ignore("consumed_inputs")
    return functions.leaky_relu(x, alpha=c.float("alpha", 0.01))


@importer("PRelu", 6, 7, 9, 16)
def prelu(c: Context, x: Value, slope: Value) -> Value:
    c.ignore("consumed_inputs")
    if c.version < 7 and slope.rank == 1 and slope.shape != (1,):  # one slope a channel
        slope = channelwise(slope, x.rank)
    return functions.prelu(x, slope)


@importer("Elu", 6, 22)
def elu(c: Context, x: Value) -> Value:
    c.ignore("consumed_inputs")
    return functions.elu(x, alpha=c.float("alpha", 1.0))


@importer("Celu", 12, 28)
def celu(c: Context, x: Value) -> Value:
    return functions.celu(x, alpha=c.float("alpha", 1.0))


@importer("Selu", 6, 22)
def selu(c: Context, x: Value) -> Value:
    c.ignore("consumed_inputs")
    alpha = c.float("alpha", float(np.float32(1.67326319217681884765625)))
    return functions.selu(x, alpha=alpha, gamma=c.float("gamma", float(np.float32(1.05070102214813232421875))))


@importer("ThresholdedRelu", 10, 22)
def thresholded_relu(c: Context, x: Value) -> Value:
    return functions.thresholded_relu(x, alpha=c.float("alpha", 1.0))


@importer("HardSigmoid", 6, 22)
def hard_sigmoid(c: Context, x: Value) -> Value:
    c.ignore("consumed_inputs")
    return functions.hard_sigmoid(x, alpha=c.float("alpha", 0.2), beta=c.float("beta", 0.5))


@importer("HardSwish", 14, 22)
def hard_swish(c: Context, x: Value) -> Value:
    return functions.hard_swish(x)


@importer("Softplus", 1, 22)
def softplus(c: Context, x: Value) -> Value:
    return ops.softplus(x)


@importer("Softsign", 1, 22)
def softsign(c: Context, x: Value) -> Value:
    return functions.softsign(x)


@importer("Mish", 18, 22)
def mish(c: Context, x: Value) -> Value:
    return functions.mish(x)


@importer("Gelu", 20)
def gelu(c: Context, x: Value) -> Value:
    return functions.gelu(x, approximate=c.string("approximate", "none"))


@importer("Swish", 24)
def swish(c: Context, x: Value) -> Value:
    alpha = c.float("alpha", 1.0)
    return ops.mul(x, ops.sigmoid(x if alpha == 1 else ops.mul(x, scalar(alpha, x.dtype))))


@importer("Shrink", 9)
def shrink(c: Context, x: Value) -> Value:
    """Values within [-lambd, lambd] become 0, the others move towards 0 by the bias."""
    bias, limit = c.float("bias", 0.0), c.float("lambd", 0.5)
    signed = x.dtype.kind != "uint"

    def number(v: float) -> Value:
        return scalar(v, x.dtype)

    above = ops.select(ops.gt(x, number(limit)), ops.sub(x, number(bias)), number(0))
    return ops.select(ops.lt(x, number(-limit)), ops.add(x, number(bias)), above) if signed else above


def _coerced(x: Value, axis: int) -> tuple[Value, int]:
    """The operand of version 1 to 12 as a matrix: all axes before `axis` are one, all from it on are the other."""
    return functions.flatten(x, axis=axis), 1


@importer("Softmax", 1, 11, 13)
def softmax(c: Context, x: Value) -> Value:
    return _soft(c, x, functions.softmax)


@importer("LogSoftmax", 1, 11, 13)
def log_softmax(c: Context, x: Value) -> Value:
    return _soft(c, x, functions.log_softmax)


def _soft(c: Context, x: Value, function: object) -> Value:
    axis = c.int("axis", -1 if c.version >= 13 else 1)
    axis = c.axis(axis, x.rank) if x.rank else 0
    if c.version >= 13 or axis == x.rank - 1:
        return function(x, axis=axis)  # type: ignore[operator]
    # Before version 13 all axes from `axis` on are normalised together.
    matrix, last = _coerced(x, axis)
    return ops.reshape(function(matrix, axis=last), shape=x.shape)  # type: ignore[operator]


@importer("Hardmax", 1, 11, 13)
def hardmax(c: Context, x: Value) -> Value:
    return _soft(c, x, _hardmax)


def _hardmax(x: Value, axis: int) -> Value:
    """1 at the first largest element along the axis, 0 elsewhere."""
    best = functions.unsqueeze(ops.argmax(x, axis=axis), axes=(axis,))
    place = ops.iota(shape=x.shape, axis=axis, dtype=best.dtype)
    return ops.cast(ops.eq(place, best), dtype=x.dtype)
