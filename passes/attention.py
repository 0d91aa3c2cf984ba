"""Attention: two matrix products with a softmax between them become one operation, so that the scores stay in cache.

    dot(softmax(dot(q, k^T) * scale + mask), v)

as frontends write it: the softmax in its parts, the scale as a factor, a divisor or none, the mask added or chosen by a
condition, and the weights set to 0 where they are NaN, or in rows that a condition names. Nothing else may read the scores or the weights, or they would be computed
twice. A transposition behind it that puts the heads beside their elements is a matter of where results are written.

Sums are added up in another order than in the parts and divisions come after the second product, so
`precision="strict"` leaves the pass out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphc import ops
from graphc.ir.graph import Graph, Node, Value, constant, location
from graphc.ir.rewrite import rewrite
from graphc.ir.rules import Uses, located, rule
from graphc.ops.attention import attention as attend
from graphc.passes.match import is_tensor, is_uniform, uniform

__all__ = ["ATTENTION_RULES", "fuse_attention"]

_HEADS_LAST = (0, 2, 1, 3)


def fuse_attention(graph: Graph) -> Graph:
    """The graph with `attention` in the place of its parts; all shapes must be known."""
    return rewrite(graph, ATTENTION_RULES)


@dataclass
class _Parts:
    """What a pattern was made of; `read` says of each value inside how many of its readers are inside too, and `empty`
    which rows have no weights, when something says so."""

    read: dict[Value, int]
    scale: float = 1.0
    mask: Value | None = None
    fill: bool = False
    no_nan: bool = False
    empty: Value | None = None
    q: Value | None = None
    k: Value | None = None


class _OtherError(Exception):
    """Why a product is no attention."""


def _same(v: Value, operation: str, axis: int) -> Value | None:
    """The operand of a reduction of `v`'s last axis, when `v` is its result spread along that axis again."""
    while v.node.op.name in ("broadcast_to", "reshape"):
        v = v.node.inputs[0]
    found = v.node.op.name == operation and v.node.attrs["axes"] == (axis,)
    return v.node.inputs[0] if found else None


def _operand(v: Value, operation: str, why: str) -> tuple[Value, ...]:
    if v.node.op.name != operation:
        raise _OtherError(f"{why}: {v.node.op.name} instead of {operation}")
    return v.node.inputs


def _softmax(v: Value, parts: _Parts) -> Value:
    """The operand of the softmax along the last axis that gives `v`."""
    axis = v.rank - 1
    if v.node.op.name == "select":
        condition, zero, weights = v.node.inputs
        if not is_uniform(zero, 0.0):
            raise _OtherError("the weights are chosen, but not to be 0")
        if condition.node.op.name == "isnan" and condition.node.inputs[0] == weights:
            parts.no_nan, parts.read[weights] = True, 2
        elif condition.node.op.name == "broadcast_to" and condition.node.inputs[0].shape[-1:] == (1,):
            parts.empty, parts.read[weights] = condition.node.inputs[0], 1
        else:
            raise _OtherError("the weights are chosen by something that is not the same for a whole row")
        parts.read[v] = 1
        v = weights
    else:
        parts.read[v] = 1
    exps, total = _operand(v, "div", "the left operand is no softmax")
    if _same(total, "reduce_sum", axis) != exps:
        raise _OtherError("the left operand is no softmax: it is not divided by its sum")
    (shifted,) = _operand(exps, "exp", "the left operand is no softmax")
    scores, top = _operand(shifted, "sub", "the left operand is no softmax")
    if _same(top, "reduce_max", axis) != scores:
        raise _OtherError("the left operand is no softmax: its largest score is not subtracted")
    parts.read |= {exps: 2, scores: 2}
    return scores


def _masked(v: Value, parts: _Parts) -> Value:
    """The scores under the mask, if there is one."""
    if v.node.op.name == "add":
        for scores, mask in (v.node.inputs, v.node.inputs[::-1]):
            if _scaled(scores, _Parts({})).node.op.name == "dot":
                parts.mask, parts.read[scores] = mask, 1
                return scores
    elif v.node.op.name == "select":
        condition, *sides = v.node.inputs
        for k in (0, 1):
            number = uniform(sides[1 - k])
            if number is not None and number != 0 and not math.isnan(number):
                parts.mask, parts.fill, parts.read[sides[k]] = _filled(condition, number, k == 0, v), True, 1
                return sides[k]
    return v


def _filled(condition: Value, number: float, kept: bool, like: Value) -> Value:
    """A mask that holds `number` where scores are replaced, 0 elsewhere; made before the condition is broadcast."""
    small = condition.node.inputs[0] if condition.node.op.name == "broadcast_to" else condition
    zero, other = (ops.broadcast_to(constant(n, like.dtype), shape=small.shape) for n in (0.0, float(number)))
    mask = ops.select(small, zero, other) if kept else ops.select(small, other, zero)
    result: Value = mask if small is condition else ops.broadcast_to(mask, shape=like.shape)
    return result


def _scaled(v: Value, parts: _Parts) -> Value:
    """The scores before they are multiplied with a number."""
    if v.node.op.name in ("mul", "div"):
        pairs = (v.node.inputs, v.node.inputs[::-1]) if v.node.op.name == "mul" else (v.node.inputs,)
        for scores, factor in pairs:
            number = uniform(factor)
            if number is not None and math.isfinite(number) and number != 0:
                parts.scale, parts.read[scores] = float(number) if v.node.op.name == "mul" else 1 / float(number), 1
                return scores
    return v


def _parts(node: Node) -> _Parts:
    """What an attention whose last product is `node` is made of; raises _OtherError for any other product."""
    y = node.outputs[0]
    if not is_tensor(y) or y.dtype.name not in ("float32", "float64"):
        raise _OtherError(f"no attention kernel computes {y.type}")
    if y.rank > 4 or 0 in y.shape or 0 in node.inputs[0].shape:
        raise _OtherError(f"its shape is {y.shape}")
    parts = _Parts({})
    scores = _masked(_softmax(node.inputs[0], parts), parts)
    scores = _scaled(scores, parts)
    parts.q, parts.k = _operand(scores, "dot", "the scores are no product")
    if 0 in parts.q.shape:
        raise _OtherError("a product without steps")
    return parts


def _is_attention(node: Node, uses: Uses) -> str | None:
    try:
        parts = _parts(node)
    except _OtherError as reason:
        return str(reason)
    if any(uses.is_output(v) or uses(v) > inside for v, inside in parts.read.items()):
        return "something else reads the scores or the weights"
    return None


@rule("dot", check=_is_attention)
def attention(node: Node) -> Value:
    """dot(softmax(dot(q, k^T) * scale + mask), v) = attention(q, k, v, mask)"""
    parts = _parts(node)
    q, k = parts.q, parts.k
    assert q is not None
    assert k is not None
    masks = () if parts.mask is None else (parts.mask,)
    with location(*located(*(v.node for v in reversed(parts.read)), node)):
        result: Value = attend(
            q, _transposed(k), node.inputs[1], *masks, scale=parts.scale, fill=parts.fill, no_nan=parts.no_nan
        )
        if parts.empty is not None:
            result = ops.select(ops.broadcast_to(parts.empty, shape=result.shape), 0.0, result)
    return result


def _transposed(x: Value) -> Value:
    """Each matrix transposed; of a transposed value its operand."""
    perm = (*range(x.rank - 2), x.rank - 1, x.rank - 2)
    if x.node.op.name == "transpose":
        perm = tuple(x.node.attrs["perm"][a] for a in perm)
        x = x.node.inputs[0]
    result: Value = x if perm == tuple(range(x.rank)) else ops.transpose(x, perm=perm)
    return result


def _puts_heads_last(node: Node, uses: Uses) -> str | None:
    (v,) = node.inputs
    if v.node.op.name != "attention" or v.node.attrs.get("heads_last", False):
        return "its operand is no attention"
    if node.attrs["perm"] != _HEADS_LAST:
        return f"its axes are {node.attrs['perm']}"
    return "the attention is read in its own order too" if uses(v) > 1 or uses.is_output(v) else None


@rule("transpose", check=_puts_heads_last)
def heads_last(node: Node) -> Value:
    """transpose(attention(...)) = attention(..., heads_last=True)"""
    inner = node.inputs[0].node
    with location(*located(inner, node)):
        result: Value = attend(*inner.inputs, **{**inner.attrs, "heads_last": True})
    return result


ATTENTION_RULES = (attention, heads_last)
