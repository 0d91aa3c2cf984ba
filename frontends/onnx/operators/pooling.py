"""Pooling: a reduction in sliding windows, or over all of space."""

from __future__ import annotations

from functools import reduce

import numpy as np

from graphc import ops
from graphc.frontends.onnx.context import Context
from graphc.frontends.onnx.operators._common import broadcast, full, reshape, scalar
from graphc.frontends.onnx.operators._windows import Windows, windows
from graphc.frontends.onnx.registry import importer
from graphc.ir.dims import Dim, product
from graphc.ir.graph import Value

__all__: list[str] = []


def _slide(x: Value, combine: str, w: Windows) -> Value:
    return ops.reduce_window(
        x,
        combine=combine,
        axes=tuple(range(2, x.rank)),
        window=w.size,
        strides=w.strides,
        padding=w.full_padding,
        dilation=w.dilation,
    )


@importer("MaxPool", 1, 8, 10, 11, 12, 22)
def max_pool(c: Context, x: Value) -> tuple[Value, Value | None]:
    w = windows(c, x.shape[2:], c.ints("kernel_shape"), c.flag("ceil_mode"))
    places = None
    column_major = {"column_major": True} if c.flag("storage_order") else {}
    if c.wants(1):
        places = ops.window_argmax(
            x,
            axes=tuple(range(2, x.rank)),
            window=w.size,
            strides=w.strides,
            padding=w.full_padding,
            dilation=w.dilation,
            **column_major,
        )
    return _slide(x, "maximum", w), places


@importer("AveragePool", 1, 7, 10, 11, 19, 22)
def average_pool(c: Context, x: Value) -> Value:
    w = windows(c, x.shape[2:], c.ints("kernel_shape"), c.flag("ceil_mode"))
    return _divide_by_count(c, x, _slide(x, "add", w), w, c.flag("count_include_pad"))


def _divide_by_count(c: Context, x: Value, total: Value, w: Windows, with_padding: bool) -> Value:
    """The sums divided by how many elements each window really has; one number where all windows have as many."""
    counted = [(low, high) if with_padding else (0, 0) for low, high in w.padding]
    if counted == list(w.full_padding):
        return ops.mul(total, scalar(1 / np.prod(w.size), x.dtype))
    extents = x.shape[2:]
    if any(isinstance(d, Dim) for d in extents):
        ones = full(1, x.dtype, (1, 1, *extents))
        if with_padding:
            low, high = zip(*w.padding, strict=True)
            ones = ops.pad(ones, scalar(1, x.dtype), low=(0, 0, *low), high=(0, 0, *high))
            w = w._replace(padding=((0, 0),) * len(extents))
        return ops.div(total, broadcast(_slide(ones, "add", w), total.shape))
    counts = [
        _counts(d, out, n, s, gap, low, (a, b))
        for d, out, n, s, gap, (low, _), (a, b) in zip(
            extents, total.shape[2:], w.size, w.strides, w.dilation, w.padding, counted, strict=True
        )
    ]
    array = reduce(np.multiply.outer, counts)
    return ops.div(total, broadcast(c.constant(array.astype(x.dtype.numpy)[None, None]), total.shape))


def _counts(
    extent: int, windows: int, size: int, stride: int, gap: int, low: int, counted: tuple[int, int]
) -> np.ndarray:
    """How many elements of each window along one axis lie in the data, or in the part of the padding that counts."""
    places = np.arange(windows)[:, None] * stride - low + np.arange(size) * gap
    return ((places >= -counted[0]) & (places < extent + counted[1])).sum(axis=1)


@importer("LpPool", 1, 2, 11, 18, 22)
def lp_pool(c: Context, x: Value) -> Value:
    w = windows(c, x.shape[2:], c.ints("kernel_shape"), c.flag("ceil_mode"))
    return _root(_slide(_powers(x, c.int("p", 2)), "add", w), c.int("p", 2))


def _powers(x: Value, p: int) -> Value:
    if p == 1:
        return ops.abs(x)
    return ops.mul(x, x) if p == 2 else ops.pow(ops.abs(x), scalar(p, x.dtype))


def _root(x: Value, p: int) -> Value:
    if p == 1:
        return x
    return ops.sqrt(x) if p == 2 else ops.pow(x, scalar(1 / p, x.dtype))


def _over_space(x: Value, op: object) -> Value:
    reduced = op(x, axes=tuple(range(2, x.rank)))  # type: ignore[operator]
    return reshape(reduced, (*x.shape[:2], *[1] * (x.rank - 2)))


@importer("GlobalMaxPool", 1, 22)
def global_max_pool(c: Context, x: Value) -> Value:
    return _over_space(x, ops.reduce_max)


@importer("GlobalAveragePool", 1, 22)
def global_average_pool(c: Context, x: Value) -> Value:
    count = product(x.shape[2:])
    total = _over_space(x, ops.reduce_sum)
    if isinstance(count, Dim):
        factors = ops.slice(ops.shape_of(x), starts=(2,), stops=(x.rank,), steps=(1,))
        return ops.div(total, ops.cast(ops.reduce_prod(factors, axes=(0,)), dtype=x.dtype))
    return ops.mul(total, scalar(1 / max(count, 1), x.dtype))


@importer("GlobalLpPool", 2, 22)
def global_lp_pool(c: Context, x: Value) -> Value:
    p = c.int("p", 2)
    return _root(_over_space(_powers(x, p), ops.reduce_sum), p)


@importer("MaxUnpool", 9, 11, 22)
def max_unpool(c: Context, x: Value, places: Value, target: Value | None = None) -> Value:
    """Each element goes back to its flat place in the unpooled tensor; everything else is zero."""
    w = windows(c, x.shape[2:], c.ints("kernel_shape"))
    smallest = tuple(
        (d - 1) * s + n - low - high
        for d, s, n, (low, high) in zip(x.shape[2:], w.strides, w.size, w.padding, strict=True)
    )
    shape = (*x.shape[:2], *smallest)
    size = product(shape)
    zeros = full(0, x.dtype, (size,))
    flat = ops.scatter_elements(
        zeros, reshape(places, (x.tensor.size,)), reshape(x, (x.tensor.size,)), axis=0, reduction="none"
    )
    out = reshape(flat, shape)
    if target is None:
        return out
    wanted = c.static_ints(target, "output shape")
    high = tuple(a - b for a, b in zip(wanted, shape, strict=True))
    return ops.pad(out, scalar(0, x.dtype), low=(0,) * out.rank, high=high)
