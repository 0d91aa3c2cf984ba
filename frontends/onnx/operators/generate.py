"""Operators that make tensors: constants, ranges, random numbers."""

from __future__ import annotations

import numpy as np

from graphc import ops
from graphc.frontends.onnx.context import Context
from graphc.frontends.onnx.operators._common import FLOAT32, INT64, broadcast, random_key, reshape, scalar, to
from graphc.frontends.onnx.registry import importer
from graphc.ir.dims import Dim, DimLike
from graphc.ir.dtypes import DType, dtype_of
from graphc.ir.graph import Value, constant
from graphc.ops import functions, random

__all__: list[str] = []


@importer("Constant", 1, 9, 11, 12, 13, 19, 21, 23, 24, 25)
def convert_constant(c: Context) -> Value:
    if c.has("value"):
        return constant(c.tensor("value"))
    if c.has("sparse_value"):
        return constant(c.sparse_tensor("sparse_value"))
    if c.has("value_float"):
        return constant(np.float32(c.float("value_float")))
    if c.has("value_int"):
        return constant(np.int64(c.int("value_int")))
    if c.has("value_string"):
        return constant(np.array(c.string("value_string"), object), dtype_of("string"))
    if c.has("value_floats"):
        return c.constant(np.array(c.floats("value_floats"), np.float32))
    if c.has("value_ints"):
        return c.constant(np.array(c.ints("value_ints"), np.int64))
    if c.has("value_strings"):
        return c.constant(np.array(c.strings("value_strings"), object))
    return c.invalid("it holds no value")


@importer("ConstantOfShape", 9, 20, 21, 23, 24, 25)
def constant_of_shape(c: Context, shape: Value) -> Value:
    """A broadcast, so that nothing of the tensor's size is stored."""
    literal = c.tensor("value", None)
    if literal is not None and literal.array.size != 1:
        c.invalid(f"its value has {literal.array.size} elements; it needs one")
    value = scalar(0, FLOAT32) if literal is None else reshape(constant(literal), ())
    wanted = c.static_ints(shape, "shape")
    if any(isinstance(d, int) and d < 0 for d in wanted):
        c.invalid(f"the shape {list(wanted)} has a negative extent")
    return broadcast(value, wanted)


@importer("EyeLike", 9, 22)
def eye_like(c: Context, x: Value) -> Value:
    dtype = c.dtype("dtype", x.dtype)
    rows = ops.iota(shape=x.shape, axis=0, dtype=INT64)
    columns = ops.iota(shape=x.shape, axis=1, dtype=INT64)
    return to(ops.eq(ops.add(rows, c.int("k", 0)), columns), dtype)


@importer("Range", 11, 27)
def convert_range(c: Context, start: Value, limit: Value, delta: Value) -> Value:
    first, last, step = (
        c.static(v, what).reshape(()).item() for v, what in ((start, "start"), (limit, "limit"), (delta, "step"))
    )
    count: DimLike
    if isinstance(first, Dim) or isinstance(last, Dim) or isinstance(step, Dim):
        if isinstance(step, Dim) or step <= 0:
            c.unsupported("a symbolic or negative step with a symbolic range; give the inputs' concrete shapes")
        count = (last - first + step - 1) // step
    else:
        if step == 0:
            c.invalid("the step is 0")
        count = max(int(np.ceil((last - first) / step)), 0)
    places = ops.iota(shape=(count,), axis=0, dtype=start.dtype if start.dtype.bits >= 32 else FLOAT32)
    wide = places.dtype
    line = ops.add(
        ops.mul(places, broadcast(reshape(to(delta, wide), ()), (count,))),
        broadcast(reshape(to(start, wide), ()), (count,)),
    )
    return to(line, start.dtype)


# --- random numbers


def _random(c: Context, shape: tuple[DimLike, ...], dtype: DType, normal: bool) -> Value:
    if normal:
        return random.normal(random_key(c), shape, mean=c.float("mean", 0.0), scale=c.float("scale", 1.0), dtype=dtype)
    return random.uniform(random_key(c), shape, low=c.float("low", 0.0), high=c.float("high", 1.0), dtype=dtype)


def _random_pair(name: str, normal: bool) -> None:
    @importer(name, 1, 22)
    def convert(c: Context) -> Value:
        return _random(c, c.ints("shape"), c.dtype("dtype", FLOAT32), normal)

    @importer(f"{name}Like", 1, 22)
    def convert_like(c: Context, x: Value) -> Value:
        return _random(c, x.shape, c.dtype("dtype", x.dtype if x.dtype.is_float else FLOAT32), normal)


_random_pair("RandomUniform", False)
_random_pair("RandomNormal", True)


@importer("Bernoulli", 15, 22)
def bernoulli(c: Context, x: Value) -> Value:
    return to(random.bernoulli(random_key(c), x), c.dtype("dtype", x.dtype))


@importer("Multinomial", 7, 22)
def multinomial(c: Context, x: Value) -> Value:
    """Samples by inverting the running total of the (unnormalised log-) probabilities."""
    count = c.int("sample_size", 1)
    wide = x.dtype if x.dtype.bits >= 32 else FLOAT32
    batch, classes = x.shape
    total = ops.cumsum(functions.softmax(to(x, wide), axis=1), axis=1)
    drawn = random.uniform(random_key(c), (batch, count), dtype=wide)
    shape = (batch, count, classes)
    below = ops.le(
        broadcast(reshape(total, (batch, 1, classes)), shape), broadcast(reshape(drawn, (batch, count, 1)), shape)
    )
    places = ops.reduce_sum(to(below, INT64), axes=(2,))
    largest = scalar(classes - 1 if isinstance(classes, int) else 0, INT64)
    return to(ops.minimum(places, largest), c.dtype("dtype", dtype_of("int32")))


@importer("MelWeightMatrix", 17)
def mel_weight_matrix(c: Context, bins: Value, length: Value, rate: Value, low: Value, high: Value) -> Value:
    """Triangular filters evenly spaced on the mel scale, over the bins of a DFT: [length // 2 + 1, bins]."""

    def number(v: Value, what: str) -> float:
        return float(c.static(v, what).reshape(()).item())

    count, spectrum = int(number(bins, "number of bins")), int(number(length, "DFT length")) // 2 + 1
    edges = np.arange(count + 2, dtype=np.float64)
    lowest, highest = (2595 * np.log10(1 + number(v, "edge frequency") / 700) for v in (low, high))
    hertz = 700 * (10 ** ((edges * ((highest - lowest) / (count + 2)) + lowest) / 2595) - 1)
    marks = ((int(number(length, "DFT length")) + 1) * hertz // number(rate, "sample rate")).astype(np.int64)
    weights = np.zeros((spectrum, count))
    for k in range(count):
        lower, centre, upper = marks[k : k + 3]
        if centre == lower:
            weights[centre, k] = 1
        else:
            rising = np.arange(lower, centre + 1)
            weights[rising, k] = (rising - lower) / (centre - lower)
        if upper > centre:
            falling = np.arange(centre, upper)
            weights[falling, k] = (upper - falling) / (upper - centre)
    dtype = c.dtype("output_datatype", FLOAT32)
    return constant(weights.astype(dtype.numpy), dtype)
