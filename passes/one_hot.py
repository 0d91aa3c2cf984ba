"""A matrix product with one-hot rows picks rows of the other matrix: look them up instead.

Models made for accelerators write embeddings as `one_hot(i) @ W`, a product with almost only zeros. The pattern is the
comparison of indices with 0, 1, 2, ... along the contracted axis, cast to a float. An index outside gives a row of
zeros, as the product does. The matrix must be constant and finite: zero times infinity is not zero.
"""

from __future__ import annotations

import numpy as np

from graphc import ops
from graphc.ir.graph import Node, Value
from graphc.ir.rules import Uses, rule
from graphc.passes.match import constant_array, is_tensor, uniform

__all__ = ["one_hot_product"]


def _indices(v: Value) -> Value | None:
    """The indices of one-hot rows, one fewer axis than `v`; None when `v` is something else."""
    shape = v.shape
    while v.node.op.name == "reshape" and v.rank > 0 and v.node.inputs[0].shape[-1:] == shape[-1:]:
        v = v.node.inputs[0]
    if v.node.op.name != "cast" or v.node.inputs[0].node.op.name != "eq":
        return None
    for classes, chosen in (operands := v.node.inputs[0].node.inputs), operands[::-1]:
        if not chosen.dtype.is_integer or not _counts(classes):
            continue
        if chosen.node.op.name == "broadcast_to":
            source = chosen.node.inputs[0]
            if source.rank > 0 and source.shape[-1] == 1:
                spread = ops.broadcast_to(source, shape=(*chosen.shape[:-1], 1))
                result: Value = ops.reshape(spread, shape=shape[:-1])
                return result
    return None


def _counts(v: Value) -> bool:
    """Whether a constant is 0, 1, 2, ... along its last axis everywhere."""
    source = v.node.inputs[0] if v.node.op.name == "broadcast_to" else v
    array = constant_array(source)
    if array is None or array.ndim == 0 or array.shape[-1] != v.shape[-1]:
        return False
    return bool((array == np.arange(array.shape[-1])).all())


def _is_lookup(node: Node, uses: Uses) -> str | None:
    a, w = node.inputs
    if a.rank != 2 or not is_tensor(node.outputs[0]):
        return f"the left operand has rank {a.rank}"
    if _indices(a) is None:
        return "the left operand is not one-hot"
    matrix = uniform(w) if uniform(w) is not None else constant_array(w)
    if matrix is None or not np.isfinite(matrix).all():
        return "the right operand is not a finite constant"
    return None


@rule("dot", check=_is_lookup)
def one_hot_product(node: Node) -> Value:
    """one_hot(i) @ w = w[i], or zeros where i is no row"""
    a, w = node.inputs
    indices = _indices(a)
    assert indices is not None
    rows, columns = w.shape
    picked = ops.gather(w, ops.minimum(ops.maximum(indices, 0), rows - 1), axis=0)
    inside = ops.logical_and(ops.ge(indices, 0), ops.lt(indices, rows))
    spread = ops.broadcast_to(ops.reshape(inside, shape=(*indices.shape, 1)), shape=(*indices.shape, columns))
    return ops.select(spread, picked, 0.0)
