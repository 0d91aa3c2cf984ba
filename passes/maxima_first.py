"""Maximum pooling moves before bias and activation, so that these are computed for the pixels that are left.

The largest of some results is the result of the largest, where an operation never gives less for more. Pooling then stands
next to the convolution that computes the pixels, whose kernel may do it (`pool_tiles`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphc import ops
from graphc.ir.graph import Graph, Node, Value, constant, location
from graphc.ir.rewrite import rewrite
from graphc.ir.rules import Rule, Uses, located, rule
from graphc.ops.spec import OpSpec
from graphc.passes.match import constant_array, varying_axes

__all__ = ["MAXIMUM_RULES", "maximum_first"]

#: moving must leave at most this share of the pixels
MOST_PIXELS = 0.75


def maximum_first(graph: Graph) -> Graph:
    """The graph with maximum pooling before the elementwise operations that it follows; static shapes."""
    return rewrite(graph, MAXIMUM_RULES)


def _never_decreases(op: OpSpec, constants: list[np.ndarray]) -> bool:
    return op.nondecreasing or (op.name == "mul" and all((c > 0).all() for c in constants))


def _once(v: Value, axes: Sequence[int]) -> np.ndarray | None:
    """The numbers of a constant that does not vary along these axes, with one element there; None for any other value."""
    numbers = constant_array(v)
    return None if numbers is None else numbers[tuple(slice(1 if a in axes else None) for a in range(v.rank))]


def _maximum_behind(node: Node, uses: Uses) -> str | None:
    pooled, a = node.inputs[0], node.attrs
    inner = pooled.node
    if a["combine"] != "maximum":
        return f"the window combines by {a['combine']}"
    constants = {v: c for v in inner.inputs if (c := _once(v, a["axes"])) is not None}
    if not pooled.dtype.is_float or not _never_decreases(inner.op, [*constants.values()]):
        return f"the largest result of {inner.op.name} on {pooled.dtype} need not be that of the largest"
    if uses(pooled) != 1:
        return "the pixels before the pooling have another reader"
    if len(inner.inputs) - len(constants) != 1:
        return "what is pooled depends on several values"
    for v, numbers in constants.items():
        if set(varying_axes(v) or ()) & set(a["axes"]):
            return "the constant varies along the window"
        if not np.isfinite(numbers).all():
            return "the constant is not finite"
    sizes = zip(a["axes"], a["window"], a["strides"], a["dilation"], a["padding"], strict=True)
    for axis, window, stride, dilation, (low, _) in sizes:
        last = (node.outputs[0].shape[axis] - 1) * stride - low
        if dilation != 1 or low >= window or last >= pooled.shape[axis]:
            return "a window may see nothing but padding"
    if math.prod(node.outputs[0].shape) > MOST_PIXELS * math.prod(pooled.shape):
        return "the windows leave nearly as many pixels"
    return None


@rule("reduce_window", check=_maximum_behind)
def maximum_before(node: Node) -> Value:
    """max(f(x)) = f(max(x)) over each window, for an f that never decreases"""
    inner, shape = node.inputs[0].node, node.outputs[0].shape
    with location(*located(inner, node)):
        operands = []
        for v in inner.inputs:
            numbers = _once(v, node.attrs["axes"])
            if numbers is None:
                operands.append(node.op(v, **node.attrs))
            else:
                operands.append(ops.broadcast_to(constant(numbers), shape=shape))
        result: Value = inner.op(*operands, **inner.attrs)
    return result


MAXIMUM_RULES: tuple[Rule, ...] = (maximum_before,)
