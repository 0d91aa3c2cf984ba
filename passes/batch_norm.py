"""Batch-norm folding: scale and shift of channels, next to a convolution or matrix product, go into its weights.

An inference batch normalisation is imported as `x * scale + shift` with one number a channel. After a convolution the
scale multiplies into the filters, and a product is saved for every element; shifts that follow each other have already
been gathered into one bias by the simplification rules. Before a convolution the scale goes into the channels of the
weights, and a shift becomes a bias behind it, if nothing is padded (padding comes after the shift, so the border would
get another one).

A rule fires only when the weights are constant, the convolution has no other reader, the factor is a constant that
varies along the channels alone, and the element type is a float.
"""

from __future__ import annotations

from graphc import ops
from graphc.ir.graph import Graph, Node, Value, location
from graphc.ir.rewrite import rewrite
from graphc.ir.rules import Rule, Uses, located, rule
from graphc.passes.algebra import gather_constants
from graphc.passes.match import channel_axis, is_constant, varying_axes, vector_along

__all__ = ["BATCH_NORM_RULES", "fold_batch_norm"]


def fold_batch_norm(graph: Graph) -> Graph:
    """The graph with channel scales and shifts folded into weights and biases; constant folding then computes them."""
    return rewrite(graph, BATCH_NORM_RULES)


def _constant_weights(contraction: Node) -> str | None:
    if contraction.op.name not in ("conv", "dot"):
        return f"the operand is a {contraction.op.name}, not a convolution or matrix product"
    if not contraction.outputs[0].dtype.is_float:
        return f"the element type is {contraction.outputs[0].dtype}"
    return None if is_constant(contraction.inputs[1]) else "the weights are not constant"


def _along(v: Value, axis: int) -> str | None:
    """Why a factor cannot go into weights: it must be a constant that varies along this axis alone."""
    axes = varying_axes(v)
    if axes is None:
        return "the factor is not a constant"
    return None if axes <= {axis} else f"the factor varies along the axes {sorted(axes)}, not along {axis} alone"


def _sole_reader(v: Value, uses: Uses) -> str | None:
    if uses.is_output(v):
        return "the convolution's result is an output of the graph"
    return None if uses(v) == 1 else "the convolution's result has another reader"


# --- after the contraction ------------------------------------------------------------------------------------------


def _scale_after(node: Node, uses: Uses) -> str | None:
    inner, factor = node.inputs
    return (
        _constant_weights(inner.node)
        or _sole_reader(inner, uses)
        or (None if all(isinstance(d, int) for d in factor.shape) else "the shape is not known")
        or _along(factor, channel_axis(inner.node))
    )


def _scaled_weights(contraction: Node, vector: Value) -> Value:
    """The weights with every filter (or column) multiplied by its number."""
    w = contraction.inputs[1]
    axis = 0 if contraction.op.name == "conv" else w.rank - 1
    return ops.mul(w, ops.reshape(vector, shape=tuple(d if a == axis else 1 for a, d in enumerate(w.shape))))


@rule("mul", check=_scale_after)
def scale_after(node: Node) -> Value:
    """conv(x, w) * scale = conv(x, w * scale)"""
    inner = node.inputs[0].node
    with location(*located(inner, node)):
        return inner.op(
            inner.inputs[0], _scaled_weights(inner, vector_along(node.inputs[1], channel_axis(inner))), **inner.attrs
        )


def _scale_after_bias(node: Node, uses: Uses) -> str | None:
    inner, factor = node.inputs
    if inner.node.op.name != "add":
        return "the operand is no sum"
    contraction, bias = inner.node.inputs
    return (
        _constant_weights(contraction.node)
        or _sole_reader(inner, uses)
        or _sole_reader(contraction, uses)
        or (None if is_constant(bias) else "the bias is not constant")
        or _along(factor, channel_axis(contraction.node))
    )


@rule("mul", check=_scale_after_bias)
def scale_after_bias(node: Node) -> Value:
    """(conv(x, w) + bias) * scale = conv(x, w * scale) + bias * scale"""
    inner, factor = node.inputs
    contraction, bias = inner.node.inputs
    with location(*located(inner.node, node)):
        return ops.add(ops.mul(contraction, factor), ops.mul(bias, factor))


def _negated(node: Node, uses: Uses) -> str | None:
    return _constant_weights(node.inputs[0].node) or _sole_reader(node.inputs[0], uses)


@rule("neg", check=_negated)
def negation_after(node: Node) -> Value:
    """-conv(x, w) = conv(x, -w)"""
    inner = node.inputs[0].node
    with location(*located(inner, node)):
        return inner.op(inner.inputs[0], ops.neg(inner.inputs[1]), **inner.attrs)


# --- before the contraction -----------------------------------------------------------------------------------------


def _before(node: Node, uses: Uses) -> str | None:
    if why := _constant_weights(node):
        return why
    inner = node.inputs[0]
    if inner.node.op.name not in ("mul", "add"):
        return "the operand is neither scaled nor shifted"
    axis = 1 if node.op.name == "conv" else inner.rank - 1
    if why := _along(inner.node.inputs[1], axis):
        return why
    if uses(inner) != 1 or uses.is_output(inner):
        return "the scaled operand has another reader"
    if not all(isinstance(d, int) for d in node.inputs[1].shape):
        return "the shape of the weights is not known"
    if inner.node.op.name == "add":
        if node.op.name != "conv":
            return "a shift before a matrix product stays: it would only move"
        if any(map(any, node.attrs["padding"])):
            return "the convolution pads with zeros after the shift"
        if inner.node.inputs[0].node.op.name != "mul":
            return "only a shift behind a scale is worth moving"
    return None


def _per_channel(node: Node, vector: Value) -> Value:
    """A number for every input channel, in the shape of the weights' first filter."""
    w = node.inputs[1]
    if node.op.name == "dot":
        return ops.reshape(vector, shape=(*(1,) * (w.rank - 2), w.shape[-2], 1))
    groups = node.attrs.get("groups", 1)
    filters, channels, *kernel = w.shape
    grouped = ops.reshape(vector, shape=(groups, 1, channels))
    spread = ops.broadcast_to(grouped, shape=(groups, filters // groups, channels))
    return ops.reshape(spread, shape=(filters, channels, *(1 for _ in kernel)))


@rule("conv", "dot", check=_before)
def scale_before(node: Node) -> Value:
    """conv(x * scale + shift, w) = conv(x, w * scale) + sum(w * shift)"""
    inner, w = node.inputs
    axis = 1 if node.op.name == "conv" else inner.rank - 1
    factors = _per_channel(node, vector_along(inner.node.inputs[1], axis))
    with location(*located(inner.node, node)):
        if inner.node.op.name == "mul":
            return node.op(inner.node.inputs[0], ops.mul(w, factors), **node.attrs)
        y = node.op(inner.node.inputs[0], w, **node.attrs)
        bias = ops.reduce_sum(ops.mul(w, factors), axes=tuple(range(1, w.rank)))
        return ops.add(y, ops.reshape(bias, shape=tuple(d if a == 1 else 1 for a, d in enumerate(y.shape))))


BATCH_NORM_RULES: tuple[Rule, ...] = (gather_constants, scale_after, scale_after_bias, negation_after, scale_before)
