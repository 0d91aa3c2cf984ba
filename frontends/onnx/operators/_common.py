"""Small helpers that several families of importers share."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from graphc import ops
from graphc.frontends.onnx.context import Context, Unsupported
from graphc.ir.dims import Dim, DimLike
from graphc.ir.dtypes import DType, dtype_of
from graphc.ir.graph import Value, constant
from graphc.ops import random

__all__ = [
    "BOOL",
    "FLOAT32",
    "FLOAT64",
    "INT64",
    "axes_operand",
    "broadcast",
    "channelwise",
    "full",
    "random_key",
    "reshape",
    "scalar",
    "shape_value",
    "to",
]

BOOL, FLOAT32, FLOAT64, INT64 = (dtype_of(n) for n in ("bool", "float32", "float64", "int64"))


def scalar(number: float | bool | Dim, dtype: DType) -> Value:
    """A constant of rank 0; not for a symbolic extent."""
    if isinstance(number, Dim):
        raise Unsupported(f"computing with the symbolic extent {number}; give the inputs' concrete shapes")
    return constant(np.asarray(number).astype(dtype.numpy), dtype)


def full(number: float | bool, dtype: DType, shape: Sequence[DimLike]) -> Value:
    """A tensor of one number, as a broadcast: nothing is stored."""
    return broadcast(scalar(number, dtype), shape)


def broadcast(x: Value, shape: Sequence[DimLike]) -> Value:
    return x if x.shape == tuple(shape) else ops.broadcast_to(x, shape=tuple(shape))


def reshape(x: Value, shape: Sequence[DimLike]) -> Value:
    return x if x.shape == tuple(shape) else ops.reshape(x, shape=tuple(shape))


def to(x: Value, dtype: DType) -> Value:
    """`x` cast to `dtype`, itself when it is that already."""
    return x if x.dtype == dtype else ops.cast(x, dtype=dtype)


def channelwise(v: Value, rank: int) -> Value:
    """A vector of one number a channel, shaped `[1, C, 1, ...]` to go with a tensor of `rank`."""
    return reshape(v, (1, v.shape[0], *[1] * (rank - 2)))


def shape_value(x: Value, start: int = 0, stop: int | None = None) -> Value:
    """The extents `x.shape[start:stop]` as an int64 vector: a constant as far as the shape is known."""
    extents = x.shape[start:stop]
    if not any(isinstance(d, Dim) for d in extents):
        return constant(np.array(extents, np.int64))
    stop = start + len(extents)
    return ops.slice(ops.shape_of(x), starts=(start,), stops=(stop,), steps=(1,))


def random_key(c: Context) -> Value:
    """A random operator's key, from its seed or else from its name: a model gives the same numbers each time."""
    if c.has("seed"):  # an int for Dropout, a float for the others
        seed = c.int("seed") if c.op == "Dropout" else int(np.float32(c.float("seed")).view(np.uint32))
        return constant(random.make_key(seed))
    # two operators without a seed must not give the same numbers
    return constant(random.make_key((1 << 32) | zlib.crc32(c.name.encode())))


def axes_operand(
    c: Context, axes: Value | None, since: int, default: tuple[int, ...] | None = None
) -> tuple[int, ...] | None:
    """Axes that are an attribute before version `since` of the operator and an operand from it on."""
    if c.version < since:
        found: tuple[int, ...] | None = c.ints("axes", default)
        return found
    return default if axes is None else c.concrete_ints(axes, "axes")
