"""Work that every turn of a loop would repeat is done once, before the loop.

What a body computes from captures and constants alone becomes a capture itself: packed weights, in training, where
they are no constants. Views stay where they are, since they cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.bodies import deep
from graphc.ir.graph import (
    Graph,
    Node,
    UnusedNames,
    Value,
    inline,
    input_value,
    rebuild,
    remake,
    remake_bodies,
    substitute,
)
from graphc.ir.trace import record
from graphc.ops.spec import Kind
from graphc.passes.captures import captures_of

__all__ = ["hoist"]


def hoist(graph: Graph) -> Graph:
    """The graph with what does not change from turn to turn computed outside the loops."""
    if not any(node.op.body_types is not None for node in graph.nodes):
        return graph
    return deep(lambda g: rebuild(g, _hoisted))(graph)


def _hoisted(old: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
    node = remake(old, inputs)[0].node
    if node.op.name not in ("scan", "loop"):
        return node.outputs
    body: Graph = node.attrs["body"]
    first, offset = captures_of(node)
    held = body.inputs[offset:]
    fixed = set(held)
    for inner in body.nodes:
        if inner.op.name != "input" and all(v in fixed for v in inner.inputs):
            fixed.update(inner.outputs)
    worth = [v for v in _frontier(body, fixed) if v.node.op.kind not in (Kind.LEAF, Kind.HOST)]
    if not worth:
        return node.outputs
    record("hoist", node)
    outside = inline(Graph(held, worth), inputs[first:])
    unused = UnusedNames(body.input_names)
    stand_ins = {v: input_value(unused(f"once{k}"), v.type) for k, v in enumerate(worth)}
    again = Graph((*body.inputs, *stand_ins.values()), substitute(body.outputs, stand_ins), body.output_names)
    return remake_bodies(node, (*inputs, *outside), {"body": again})


def _frontier(body: Graph, fixed: set[Value]) -> list[Value]:
    """The fixed values that something else reads, past the views at the end of their computation."""
    asked: dict[Value, None] = {}
    for inner in body.nodes:
        if not all(v in fixed for v in inner.outputs):
            asked |= dict.fromkeys(v for v in inner.inputs if v in fixed)
    asked |= dict.fromkeys(v for v in body.outputs if v in fixed)
    return list(dict.fromkeys(_before_views(v) for v in asked))


def _before_views(v: Value) -> Value:
    while v.node.op.kind is Kind.INJECTIVE and v.node.op.view is not None:
        v = v.node.inputs[0]
    return v
