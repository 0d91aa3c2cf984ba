"""Convolutions and their relatives."""

from __future__ import annotations

from graphc import ops
from graphc.frontends.onnx.context import Context
from graphc.frontends.onnx.operators._common import broadcast, channelwise
from graphc.frontends.onnx.operators._windows import windows
from graphc.frontends.onnx.registry import importer
from graphc.ir.dims import Dim
from graphc.ir.graph import Value
from graphc.ops.convolution import conv_transpose as transposed

__all__ = ["convolve", "kernel_size"]


def kernel_size(c: Context, weights: Value) -> tuple[int, ...]:
    """The spatial extents of the weights; a `kernel_shape` attribute must agree."""
    size = weights.shape[2:]
    if any(isinstance(d, Dim) for d in size):
        c.unsupported("weights with symbolic spatial extents")
    stated = c.ints("kernel_shape", size)
    if tuple(stated) != size:
        c.invalid(f"kernel_shape is {list(stated)} but the weights are {weights.type}")
    return size


def convolve(c: Context, x: Value, weights: Value) -> Value:
    """The convolution that the node's attributes describe, without bias."""
    w = windows(c, x.shape[2:], kernel_size(c, weights))
    return ops.conv(
        x, weights, strides=w.strides, padding=w.full_padding, dilation=w.dilation, groups=c.int("group", 1)
    )


def add_bias(y: Value, bias: Value | None) -> Value:
    """One number a channel added; the broadcast is explicit so that a pass sees a per-channel shift."""
    return y if bias is None else ops.add(y, broadcast(channelwise(bias, y.rank), y.shape))


@importer("Conv", 1, 11, 22)
def conv(c: Context, x: Value, weights: Value, bias: Value | None = None) -> Value:
    return add_bias(convolve(c, x, weights), bias)


@importer("ConvTranspose", 1, 11, 22)
def conv_transpose(c: Context, x: Value, weights: Value, bias: Value | None = None) -> Value:
    """Padding crops the result here: `pads` are cut off the ends, `output_padding` lengthens the far end."""
    rank = x.rank - 2
    size = kernel_size(c, weights)
    strides = c.ints("strides", (1,) * rank)
    dilation = c.ints("dilations", (1,) * rank)
    longer = c.ints("output_padding", (0,) * rank)
    wanted = c.ints("output_shape", None)
    auto = c.string("auto_pad", "NOTSET")
    pads = c.ints("pads", (0,) * (2 * rank))
    padding = []
    for k, (extent, n, stride, gap, more) in enumerate(zip(x.shape[2:], size, strides, dilation, longer, strict=True)):
        whole = (extent - 1) * stride + (n - 1) * gap + 1 + more
        if wanted is not None:
            total = whole - wanted[-rank:][k]
        elif auto in ("SAME_UPPER", "SAME_LOWER"):
            total = whole - extent * stride
        else:
            padding.append((pads[k], pads[k + rank]) if auto in ("NOTSET", "") else (0, 0))
            continue
        if isinstance(total, Dim):
            c.unsupported("a stated output shape for a symbolic extent; give the inputs' concrete shapes")
        half = total // 2
        padding.append((half, total - half) if auto == "SAME_UPPER" else (total - half, half))
    y = transposed(
        x,
        weights,
        strides=strides,
        padding=tuple(padding),
        output_padding=longer,
        dilation=dilation,
        groups=c.int("group", 1),
    )
    return add_bias(y, bias)
