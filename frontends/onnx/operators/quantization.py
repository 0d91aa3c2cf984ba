"""Quantised operators: scales and zero points spelled out as arithmetic."""

from __future__ import annotations

from graphc import ops
from graphc.frontends.onnx.context import Context
from graphc.frontends.onnx.operators._common import FLOAT32, broadcast, reshape, scalar, to
from graphc.frontends.onnx.operators.convolution import convolve
from graphc.frontends.onnx.registry import importer
from graphc.frontends.onnx.tensors import element_type
from graphc.ir.dtypes import DType, dtype_of
from graphc.ir.graph import Value
from graphc.ops import functions

__all__: list[str] = []

_INT32, _UINT8 = dtype_of("int32"), dtype_of("uint8")


def _spread(c: Context, v: Value, x: Value, axis: int, block: int) -> Value:
    """A scale or zero point for every element of x: one for all, one an index of the axis, or one a block along it."""
    if v.tensor.size == 1:
        return broadcast(reshape(v, ()), x.shape)
    if v.rank == 1 and not block:
        axis = c.axis(axis, x.rank)
        return broadcast(reshape(v, [d if k == axis else 1 for k, d in enumerate(x.shape)]), x.shape)
    axis = c.axis(axis, x.rank)
    apart = reshape(v, (*v.shape[: axis + 1], 1, *v.shape[axis + 1 :]))
    repeated = broadcast(apart, (*v.shape[: axis + 1], block, *v.shape[axis + 1 :]))
    long = reshape(repeated, (*v.shape[:axis], v.shape[axis] * block, *v.shape[axis + 1 :]))
    if long.shape == x.shape:
        return long
    return ops.slice(long, starts=(0,) * x.rank, stops=x.shape, steps=(1,) * x.rank)  # the last block may be cut


def _bounds(dtype: DType) -> tuple[int, int]:
    return (0, 2**dtype.bits - 1) if dtype.kind == "uint" else (-(2 ** (dtype.bits - 1)), 2 ** (dtype.bits - 1) - 1)


def _quantize(x: Value, scale: Value, zero: Value | None, dtype: DType, saturate: bool = True) -> Value:
    """round(x / scale) + zero point, saturated; x, scale and zero point have one shape."""
    ratio = ops.div(x, scale)
    if dtype.is_float:
        if zero is not None:
            ratio = ops.add(ratio, to(zero, ratio.dtype))
        return ops.cast(ratio, dtype=dtype, **({} if saturate else {"saturate": False}))
    ratio = to(ops.round(ratio), FLOAT32)
    if zero is not None:
        ratio = ops.add(ratio, to(zero, FLOAT32))
    low, high = _bounds(dtype)
    # float32 holds the bounds of 16-bit types exactly
    bounded = ops.minimum(ops.maximum(ratio, scalar(low, FLOAT32)), scalar(high, FLOAT32))
    return to(to(bounded, _INT32), dtype)


@importer("QuantizeLinear", 10, 13, 19, 21, 23, 24, 25, 28)
def quantize_linear(c: Context, x: Value, scale: Value, zero: Value | None = None) -> Value:
    axis, block = c.int("axis", 1), c.int("block_size", 0)
    dtype = zero.dtype if zero is not None else c.dtype("output_dtype", _UINT8) if c.int("output_dtype", 0) else _UINT8
    precision = c.int("precision", 0)
    wide = element_type(precision, f"node {c.name!r}: precision") if precision else scale.dtype
    if x.dtype == _INT32 or x.dtype.bits < wide.bits:
        x = to(x, wide)
    scale = to(_spread(c, scale, x, axis, block), x.dtype)
    zero = None if zero is None else _spread(c, zero, x, axis, block)
    return _quantize(x, scale, zero, dtype, c.flag("saturate", True))


@importer("DequantizeLinear", 10, 13, 19, 21, 23, 24, 25, 28)
def dequantize_linear(c: Context, x: Value, scale: Value, zero: Value | None = None) -> Value:
    """(x - zero point) * scale, of the scale's element type."""
    axis, block = c.int("axis", 1), c.int("block_size", 0)
    dtype = c.dtype("output_dtype") if c.int("output_dtype", 0) else scale.dtype
    difference = to(x, FLOAT32)
    if zero is not None:
        difference = ops.sub(difference, to(_spread(c, zero, x, axis, block), FLOAT32))
    return to(ops.mul(difference, to(_spread(c, scale, x, axis, block), FLOAT32)), dtype)


@importer("DynamicQuantizeLinear", 11)
def dynamic_quantize_linear(c: Context, x: Value) -> tuple[Value, Value, Value]:
    """uint8 with the scale and zero point of x's own range, 0 included."""
    axes = tuple(range(x.rank))
    nothing = scalar(0, x.dtype)
    low = ops.minimum(ops.reduce_min(x, axes=axes), nothing)
    high = ops.maximum(ops.reduce_max(x, axes=axes), nothing)
    scale = ops.div(ops.sub(high, low), scalar(255, x.dtype))
    zero = ops.round(ops.minimum(ops.maximum(ops.div(ops.neg(low), scale), nothing), scalar(255, x.dtype)))
    zero = to(to(zero, _INT32), _UINT8)
    y = _quantize(x, broadcast(scale, x.shape), broadcast(zero, x.shape), _UINT8)
    return y, scale, zero


def _centred(c: Context, x: Value, zero: Value | None, axis: int) -> Value:
    """x - zero point as int32."""
    wide = to(x, _INT32)
    if zero is None:
        return wide
    return ops.sub(wide, _along(to(zero, _INT32), wide, axis))


def _along(v: Value, x: Value, axis: int) -> Value:
    """A number for all, one an index of `axis`, or anything that already broadcasts to x."""
    if v.tensor.size == 1:
        v = reshape(v, ())
    elif v.rank == 1:
        v = reshape(v, [d if k == axis % x.rank else 1 for k, d in enumerate(x.shape)])
    return broadcast(v, x.shape)


@importer("MatMulInteger", 10)
def matmul_integer(c: Context, a: Value, b: Value, a_zero: Value | None = None, b_zero: Value | None = None) -> Value:
    return functions.matmul(_centred(c, a, a_zero, -2), _centred(c, b, b_zero, -1))


@importer("ConvInteger", 10)
def conv_integer(c: Context, x: Value, w: Value, x_zero: Value | None = None, w_zero: Value | None = None) -> Value:
    return convolve(c, _centred(c, x, x_zero, 1), _centred(c, w, w_zero, 0))


def _requantize(
    c: Context, product: Value, scales: tuple[Value, Value, Value], zero: Value, axis: int, first_axis: int
) -> Value:
    """An int32 product as the output's quantised type: one multiplication by the ratio of the scales."""
    a, b, out = (to(s, FLOAT32) for s in scales)
    factor = ops.div(ops.mul(_along(a, product, first_axis), _along(b, product, axis)), _along(out, product, axis))
    scaled = ops.mul(to(product, FLOAT32), factor)
    one = broadcast(scalar(1, FLOAT32), scaled.shape)
    return _quantize(scaled, one, _along(zero, scaled, axis), zero.dtype)


@importer("QLinearMatMul", 10, 21)
def qlinear_matmul(
    c: Context,
    a: Value,
    a_scale: Value,
    a_zero: Value,
    b: Value,
    b_scale: Value,
    b_zero: Value,
    y_scale: Value,
    y_zero: Value,
) -> Value:
    product = functions.matmul(_centred(c, a, a_zero, -2), _centred(c, b, b_zero, -1))
    return _requantize(c, product, (a_scale, b_scale, y_scale), y_zero, -1, -2)


@importer("QLinearConv", 10)
def qlinear_conv(
    c: Context,
    x: Value,
    x_scale: Value,
    x_zero: Value,
    w: Value,
    w_scale: Value,
    w_zero: Value,
    y_scale: Value,
    y_zero: Value,
    bias: Value | None = None,
) -> Value:
    product = convolve(c, _centred(c, x, x_zero, 1), _centred(c, w, w_zero, 0))
    if bias is not None:
        product = ops.add(product, _along(bias, product, 1))
    return _requantize(c, product, (x_scale, w_scale, y_scale), y_zero, 1, 1)
