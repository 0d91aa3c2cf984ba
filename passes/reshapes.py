"""Reshapes move behind elementwise operations, so that an anchor and its epilogue meet.

A matrix product over merged axes is often followed by a reshape back and only then by its bias and activation. The
arithmetic does not care about the shape: done before the reshape it can be part of the product's kernel. The other
operands are reshaped instead, which is free: they are constants, broadcasts, or results that lie densely in memory.

A reshape moves only as long as everything that reads it is elementwise: where a reduction reads the value too, its
shape there matters, and the arithmetic around the reduction is better left with it.
"""

from __future__ import annotations

from graphc import ops
from graphc.ir.graph import Graph, Node, Value, location, location_of, remake
from graphc.ir.rewrite import deep, record, refuse
from graphc.ir.types import TensorType
from graphc.ops.spec import Kind
from graphc.passes.match import uniform
from graphc.passes.movement import reshaped_source

__all__ = ["sink_reshapes"]


def sink_reshapes(graph: Graph) -> Graph:
    """The graph with reshapes of anchors' results behind the elementwise operations that follow."""
    return deep(_sink)(graph)


def _sink(graph: Graph) -> Graph:
    new: dict[Value, Value] = {}
    inner: dict[Value, Value] = {}  # of values that are reshapes of an anchor's result or epilogue: what they reshape
    epilogue: set[Value] = set()  # anchors' results and what elementwise operations made of them
    outputs = set(graph.outputs)

    def may_move(v: Value) -> bool:
        return v not in outputs and all(u.op.kind is Kind.ELEMENTWISE for u in graph.users.get(v, ()))

    for node in graph.nodes:
        operands = tuple(new.get(v, v) for v in node.inputs)
        with location(*location_of(node)):
            moved = _behind(node, operands, inner)
            outs = remake(node, operands) if moved is None else (ops.reshape(moved, shape=node.outputs[0].shape),)
        for old, made in zip(node.outputs, outs, strict=True):
            if old != made:
                new[old] = made
        if len(outs) != 1:
            continue
        (old,), (made,) = node.outputs, outs
        if moved is not None:
            record("sink_reshape", node)
            epilogue.add(moved)
            if may_move(old):
                inner[made] = moved
        elif node.op.kind is Kind.ANCHOR or (node.op.kind is Kind.ELEMENTWISE and any(v in epilogue for v in operands)):
            epilogue.add(made)
        elif node.op.name == "reshape" and operands[0] in epilogue and may_move(old):
            inner[made] = operands[0]
    results = tuple(new.get(v, v) for v in graph.outputs)
    return graph if results == graph.outputs else graph.with_outputs(results)


def _behind(node: Node, operands: tuple[Value, ...], inner: dict[Value, Value]) -> Value | None:
    """The operation done before the reshape of its operand; None when it has no such operand or another is not free to reshape."""
    found = next((v for v in operands if v in inner), None)
    if found is None or node.op.kind is not Kind.ELEMENTWISE or not isinstance(node.types[0], TensorType) or not node.types[0].is_static:
        return None
    shape = inner[found].shape
    for v in operands:
        if v not in inner and not _is_free(v, shape):
            refuse("sink_reshape", node, f"reshaping {v.node.op.name} would cost a copy")
            return None
    result: Value = node.op(*(_in_shape(v, shape, inner) for v in operands), **node.attrs)
    return result


def _in_shape(v: Value, shape: tuple[int, ...], inner: dict[Value, Value]) -> Value:
    if v in inner and inner[v].shape == shape:
        return inner[v]
    if v.node.op.name == "broadcast_to" and (source := reshaped_source(v, shape)) is not None:
        return ops.broadcast_to(ops.reshape(v.node.inputs[0], shape=source), shape=shape)  # type: ignore[no-any-return]
    return ops.reshape(v, shape=shape)  # type: ignore[no-any-return]


def _is_free(v: Value, shape: tuple[int, ...]) -> bool:
    """Whether reshaping an operand costs nothing."""
    if v.node.op.name == "broadcast_to":
        return uniform(v) is not None or reshaped_source(v, shape) is not None
    return v.node.op.kind is not Kind.INJECTIVE or v.node.op.view is None or v.node.op.name == "reshape"
