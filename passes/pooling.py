"""Pooling moves towards the contraction that computes the pixels, so that less is computed of them.

**Sums.** A pointwise convolution mixes the channels of every pixel, a sum over a window mixes the pixels of every channel: done in
the other order they give the same numbers, up to rounding. Average pooling that halves an image leaves a quarter of the
convolution (the transitions of a DenseNet), and the mean over all pixels, or over the rows of a matrix product, leaves
one pixel or row of it.

A bias between the two is counted once for every pixel of a window. Where the windows also cover padding, which has no
bias, those counts differ, and nothing moves.

**Maxima.** The largest of some results is the result of the largest, where an operation never gives less for more: bias
and activation of a convolution are computed for the pixels that are left. Pooling then stands next to the convolution,
whose kernel may do it (`conv_neighbours`).
"""

from __future__ import annotations

import math

import numpy as np

from graphc import ops
from graphc.ir.graph import Graph, Node, Value, constant, location
from graphc.ir.rewrite import rewrite
from graphc.ir.rules import Rule, Uses, located, rule
from graphc.ops.spec import names_where
from graphc.passes.match import constant_array, varying_axes, vector_along

__all__ = ["POOLING_RULES", "pool_first"]

#: moving must leave at most this share of the pixels: sums over windows that overlap may have more to read before than after
MOST_PIXELS = 0.75


def pool_first(graph: Graph) -> Graph:
    """The graph with sums before the contractions, and maxima before the elementwise operations, that they follow; static
    shapes."""
    return rewrite(graph, POOLING_RULES)


def _leaves_fewer(node: Node) -> str | None:
    fewer = math.prod(node.outputs[0].shape) <= MOST_PIXELS * math.prod(node.inputs[0].shape)
    return None if fewer else "the windows leave nearly as many pixels"


# --- sums -----------------------------------------------------------------------------------------------------------


def _contraction_and_bias(v: Value) -> tuple[Node, Value | None]:
    """What `v` is computed by, and the bias added to it."""
    if v.node.op.name != "add":
        return v.node, None
    product, bias = v.node.inputs
    return product.node, bias


def _channel_axis(contraction: Node) -> int:
    return 1 if contraction.op.name == "conv" else contraction.outputs[0].rank - 1


def _mixes_channels_alone(contraction: Node) -> str | None:
    """Why a contraction is no product of each pixel, or row, by itself with the same weights."""
    if contraction.op.name == "dot":
        return None
    if contraction.op.name != "conv":
        return f"the operand is a {contraction.op.name}, not a convolution or matrix product"
    a, kernel = contraction.attrs, contraction.inputs[1].shape[2:]
    if any(d != 1 for d in (*kernel, *a["strides"])) or any(map(any, a["padding"])):
        return "the convolution is not pointwise"
    return None


def _sum_pays(node: Node, uses: Uses) -> str | None:
    summed = node.inputs[0]
    if not summed.dtype.is_float:
        return f"the element type is {summed.dtype}"
    if node.attrs.get("combine", "add") != "add":
        return "the window takes the maximum or minimum"
    contraction, bias = _contraction_and_bias(summed)
    if why := _mixes_channels_alone(contraction):
        return why
    product, axes = contraction.outputs[0], node.attrs["axes"]
    pixels = range(2, product.rank) if contraction.op.name == "conv" else (product.rank - 2,)
    if not set(axes) <= set(pixels):
        return f"it sums along the axes {axes}, and pixels lie along {tuple(pixels)}"
    if uses(summed) != 1 or uses(product) != 1:
        return "the pixels before the sum have another reader"
    if bias is not None and varying_axes(bias) not in (frozenset(), frozenset({_channel_axis(contraction)})):
        return "what is added is not one number for each channel"
    if bias is not None and any(map(any, node.attrs.get("padding", ()))):
        return "padding has no bias"
    return _leaves_fewer(node)


@rule("reduce_window", "reduce_sum", check=_sum_pays)
def sum_before(node: Node) -> Value:
    """sum(conv(x, w) + bias) = conv(sum(x), w) + count * bias, for a pointwise convolution and a sum over pixels"""
    contraction, bias = _contraction_and_bias(node.inputs[0])
    x, w = contraction.inputs
    axes = node.attrs["axes"]
    with location(*located(contraction, node)):
        sums = node.op(x, **node.attrs)
        if sums.rank < x.rank:  # contractions want every axis
            sums = ops.reshape(sums, shape=tuple(1 if a in axes else d for a, d in enumerate(x.shape)))
        y = contraction.op(sums, w, **contraction.attrs)
        if bias is not None:
            axis = _channel_axis(contraction)
            count = math.prod(node.attrs.get("window") or (x.shape[a] for a in axes))
            each = ops.mul(vector_along(bias, axis), float(count))
            shown = ops.reshape(each, shape=tuple(d if a == axis else 1 for a, d in enumerate(y.shape)))
            y = ops.add(y, ops.broadcast_to(shown, shape=y.shape))
        result: Value = ops.reshape(y, shape=node.outputs[0].shape)
    return result


# --- maxima ---------------------------------------------------------------------------------------------------------


def _largest_stays_largest(node: Node, uses: Uses) -> str | None:
    pooled, a = node.inputs[0], node.attrs
    inner = pooled.node
    if a["combine"] != "maximum":
        return f"the window combines by {a['combine']}"
    if inner.op.name not in _NONDECREASING or not pooled.dtype.is_float:
        return f"the largest result of {inner.op.name} on {pooled.dtype} need not be that of the largest"
    if uses(pooled) != 1:
        return "the pixels before the pooling have another reader"
    if sum(constant_array(v) is None for v in inner.inputs) != 1:
        return "what is pooled depends on several values"
    for v in inner.inputs:
        numbers = constant_array(v)
        if numbers is not None and set(varying_axes(v) or ()) & set(a["axes"]):
            return "the constant varies along the window"
        if numbers is not None and not np.isfinite(numbers).all():
            return "the constant is not finite"
    sizes = zip(a["axes"], a["window"], a["strides"], a["dilation"], a["padding"], strict=True)
    for axis, window, stride, dilation, (low, _) in sizes:
        last = (node.outputs[0].shape[axis] - 1) * stride - low
        if dilation != 1 or low >= window or last >= pooled.shape[axis]:
            return "a window may see nothing but padding"
    return _leaves_fewer(node)


_NONDECREASING = frozenset(names_where(lambda op: op.nondecreasing))


@rule("reduce_window", check=_largest_stays_largest)
def maximum_before(node: Node) -> Value:
    """max(f(x)) = f(max(x)) over each window, for an f that never decreases"""
    inner, shape = node.inputs[0].node, node.outputs[0].shape
    with location(*located(inner, node)):
        operands = []
        for v in inner.inputs:
            numbers = constant_array(v)
            if numbers is None:
                operands.append(node.op(v, **node.attrs))
            else:
                once = tuple(slice(1 if a in node.attrs["axes"] else None) for a in range(v.rank))
                operands.append(ops.broadcast_to(constant(numbers[once]), shape=shape))
        result: Value = inner.op(*operands, **inner.attrs)
    return result


POOLING_RULES: tuple[Rule, ...] = (sum_before, maximum_before)
