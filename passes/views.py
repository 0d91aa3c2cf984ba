"""Views move behind elementwise operations, so that an anchor and its epilogue meet.

A matrix product over merged axes is often followed by a reshape back, a transpose, and only then by its bias and
activation. The arithmetic does not care: done before the view it can be part of the product's kernel. Behind a reshape
the other operands are reshaped instead, which is free: they are constants, broadcasts, or results that lie densely in
memory. Behind other views only operations move whose other operands are constants.

A view moves only as long as everything that reads it is elementwise: where a reduction reads the value too, its shape
there matters, and the arithmetic around the reduction is better left with it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from graphc import ops
from graphc.ir.bodies import deep
from graphc.ir.graph import Graph, Node, Value, constant, location, remake
from graphc.ir.trace import record, refuse
from graphc.ir.types import TensorType
from graphc.ops.spec import Kind, OpSpec
from graphc.passes.match import is_constant, uniform
from graphc.passes.movement import reshaped_source

__all__ = ["sink_views"]


def sink_views(graph: Graph) -> Graph:
    """The graph with views of anchors' results behind the elementwise operations that follow."""
    return deep(_sink)(graph)


class _Seen(NamedTuple):
    """An anchor's result, or what elementwise operations made of it, and the views through which it is seen."""

    source: Value
    views: tuple[tuple[OpSpec, tuple[tuple[str, Any], ...], tuple[Any, ...]], ...] = ()  # with what shape they see

    def again(self, source: Value, shape: tuple[int, ...]) -> Value:
        """The same views of another source of the same shape."""
        if self.is_reshape:
            return ops.reshape(source, shape=shape)
        for op, attrs, _ in self.views:
            source = op(source, **dict(attrs))
        return source

    def undone(self, v: Value) -> Value | None:
        """A value before these views, seen through which it is `v`; None when they drop elements."""
        for op, attrs, shape in reversed(self.views):
            if op.name == "slice":
                return None
            perm = dict(attrs).get("perm")
            v = ops.reshape(v, shape=shape) if perm is None else ops.transpose(v, perm=tuple(np.argsort(perm).tolist()))
        return v

    @property
    def is_reshape(self) -> bool:
        return all(op.name == "reshape" for op, *_ in self.views)


def _sink(graph: Graph) -> Graph:
    new: dict[Value, Value] = {}
    seen: dict[Value, _Seen] = {}
    outputs = set(graph.outputs)

    movable: dict[Value, bool] = {}  # asked by each of a value's users, and there may be many

    def may_move(v: Value) -> bool:
        if v not in movable:
            users = graph.users.get(v, ())
            movable[v] = v not in outputs and all(u.op.kind is Kind.ELEMENTWISE for u in users)
        return movable[v]

    for node in graph.nodes:
        for v in node.inputs:
            if v in seen or v in new:
                break
        else:  # most nodes have nothing to do with it
            if node.op.kind is Kind.ANCHOR and len(node.types) == 1:
                seen[node.outputs[0]] = _Seen(node.outputs[0])
            continue
        operands = tuple([new.get(v, v) for v in node.inputs])
        moved = None
        if node.op.kind is Kind.ELEMENTWISE:
            ready = {v for old, v in zip(node.inputs, operands, strict=True) if v in seen and may_move(old)}
            if ready:
                with location(*node.where):
                    moved = _behind(node, operands, {v: seen[v] for v in ready})
        if moved is None:
            outs = remake(node, operands, node.where)
        else:
            with location(*node.where):
                outs = (moved.again(moved.source, node.outputs[0].shape),)
        if outs[0].node is not node:
            new.update(zip(node.outputs, outs, strict=True))
        if len(outs) != 1:
            continue
        (made,) = outs
        if moved is not None:
            record("sink_view", node)
            seen[moved.source] = _Seen(moved.source)
            seen[made] = moved
        elif node.op.kind is Kind.ANCHOR or (
            node.op.kind is Kind.ELEMENTWISE and any(v in seen and not seen[v].views for v in operands)
        ):
            seen[made] = _Seen(made)
        elif operands and operands[0] in seen and _keeps_most(node):
            before = seen[operands[0]]
            seen[made] = _Seen(before.source, (*before.views, (node.op, tuple(node.attrs.items()), operands[0].shape)))
    results = tuple(new.get(v, v) for v in graph.outputs)
    return graph if results == graph.outputs else graph.with_outputs(results)


def _keeps_most(node: Node) -> bool:
    """Whether an operation is a view of nearly all elements of its operand, each once."""
    if node.op.name in ("reshape", "transpose"):
        return True
    t, x = node.types[0], node.inputs[0].type if node.inputs else None
    if node.op.name != "slice" or not (
        isinstance(t, TensorType) and isinstance(x, TensorType) and t.is_static and x.is_static
    ):
        return False
    return 5 * t.nbytes >= 4 * x.nbytes


def _behind(node: Node, operands: tuple[Value, ...], seen: dict[Value, _Seen]) -> _Seen | None:
    """The operation done before the views of its operand; None when it has none or another operand prevents it."""
    found = next((seen[v] for v in operands if v in seen and seen[v].views), None)
    t = node.types[0]
    if found is None or node.op.kind is not Kind.ELEMENTWISE or not isinstance(t, TensorType) or not t.is_static:
        return None
    shape = found.source.shape
    inner: list[Value] = []
    for v in operands:
        same = _in_shape(v, shape, seen) if found.is_reshape else _through_views(v, found, seen)
        if same is None:
            refuse("sink_view", node, f"{v.node.op.name} would have to be copied")
            return None
        inner.append(same)
    return _Seen(node.op(*inner, **node.attrs), found.views)


def _through_views(v: Value, found: _Seen, seen: dict[Value, _Seen]) -> Value | None:
    """The operand before the views of `found`: seen through the very same ones, or a constant."""
    if v in seen and seen[v].views == found.views:
        return seen[v].source
    number = uniform(v)
    if number is not None:
        return ops.broadcast_to(constant(number, v.dtype), shape=found.source.shape)
    return found.undone(v) if is_constant(v) else None


def _in_shape(v: Value, shape: tuple[int, ...], seen: dict[Value, _Seen]) -> Value | None:
    """The operand in another shape; None when that would cost a copy."""
    if v in seen and seen[v].is_reshape and seen[v].source.shape == shape:
        return seen[v].source
    if v.node.op.name == "broadcast_to":
        number = uniform(v)
        if number is not None:
            return ops.broadcast_to(constant(number, v.dtype), shape=shape)
        source = reshaped_source(v, shape)
        return None if source is None else ops.broadcast_to(source, shape=shape)
    if v.node.op.kind is Kind.INJECTIVE and v.node.op.view is not None and v.node.op.name != "reshape":
        return None
    return ops.reshape(v, shape=shape)
