"""Sums over pixels move before the contraction that computes the pixels, which then computes fewer.

A pointwise convolution mixes the channels of every pixel, a sum over a window mixes the pixels of every channel: done in
the other order they give the same numbers, up to rounding. Average pooling that halves an image leaves a quarter of the
convolution (the transitions of a DenseNet), and the mean over all pixels, or over the rows of a matrix product, leaves
one pixel or row of it.

A bias between the two is counted once for every pixel of a window. Where the windows also cover padding, which has no
bias, those counts differ, and nothing moves. Nor does it in half precision: the sums, which are larger than what comes of
them, would be rounded to it.
"""

from __future__ import annotations

import math

from graphc import ops
from graphc.ir.graph import Graph, Node, Value, location
from graphc.ir.rewrite import rewrite
from graphc.ir.rules import Rule, Uses, located, rule
from graphc.passes.match import channel_axis, varying_axes, vector_along

__all__ = ["SUM_RULES", "sum_first"]

#: moving must leave at most this share of the arithmetic
MUST_SAVE = 0.9


def sum_first(graph: Graph) -> Graph:
    """The graph with sums over pixels before the pointwise convolutions and products that they follow; static shapes."""
    return rewrite(graph, SUM_RULES)


def _contraction_and_bias(v: Value) -> tuple[Node, Value | None]:
    """What `v` is computed by, and the bias added to it."""
    if v.node.op.name != "add":
        return v.node, None
    product, bias = v.node.inputs
    return product.node, bias


def _pointwise(contraction: Node) -> str | None:
    """Why a contraction is no product of each pixel, or row, by itself with the same weights."""
    if contraction.op.name == "dot":
        return None
    if contraction.op.name != "conv":
        return f"the operand is a {contraction.op.name}, not a convolution or matrix product"
    a, kernel = contraction.attrs, contraction.inputs[1].shape[2:]
    if any(d != 1 for d in (*kernel, *a["strides"])) or any(map(any, a["padding"])):
        return "the convolution is not pointwise"
    return None


def _taps(node: Node) -> int:
    """Pixels of a window, or all that are summed."""
    return math.prod(node.attrs.get("window") or [node.inputs[0].shape[a] for a in node.attrs["axes"]])


def _saves(node: Node, contraction: Node) -> bool:
    """Whether there is less arithmetic with the sum first; additions and multiplications count alike."""
    x, w = contraction.inputs
    axis, product = channel_axis(contraction), contraction.outputs[0]
    channels, filters = x.shape[axis], product.shape[axis]
    before = math.prod(product.shape) // filters
    after = math.prod(node.outputs[0].shape) // filters
    weights = math.prod(w.shape) if contraction.op.name == "conv" else channels * filters
    first = after * (_taps(node) * channels + weights)
    return first <= MUST_SAVE * (before * weights + after * _taps(node) * filters)


def _sum_behind(node: Node, uses: Uses) -> str | None:
    summed = node.inputs[0]
    if summed.dtype.name not in ("float32", "float64"):
        return f"sums of {summed.dtype} would be rounded before the product"
    if node.attrs.get("combine", "add") != "add":
        return "the window takes the maximum or minimum"
    contraction, bias = _contraction_and_bias(summed)
    if why := _pointwise(contraction):
        return why
    product, axes = contraction.outputs[0], node.attrs["axes"]
    pixels = range(2, product.rank) if contraction.op.name == "conv" else (product.rank - 2,)
    if not set(axes) <= set(pixels):
        return f"it sums along the axes {axes}, and pixels lie along {tuple(pixels)}"
    if uses(summed) != 1 or uses(product) != 1:
        return "the pixels before the sum have another reader"
    if bias is not None and varying_axes(bias) not in (frozenset(), frozenset({channel_axis(contraction)})):
        return "what is added is not one number for each channel"
    if bias is not None and any(map(any, node.attrs.get("padding", ()))):
        return "padding has no bias"
    if 0 in product.shape or 0 in node.outputs[0].shape or not _saves(node, contraction):
        return "there would not be less to compute"
    return None


@rule("reduce_window", "reduce_sum", check=_sum_behind)
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
            axis = channel_axis(contraction)
            total = ops.mul(vector_along(bias, axis), float(_taps(node)))
            shown = ops.reshape(total, shape=tuple(d if a == axis else 1 for a, d in enumerate(y.shape)))
            y = ops.add(y, ops.broadcast_to(shown, shape=y.shape))
        result: Value = ops.reshape(y, shape=node.outputs[0].shape)
    return result


SUM_RULES: tuple[Rule, ...] = (sum_before,)
