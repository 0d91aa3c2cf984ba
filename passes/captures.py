"""Captures: what a control-flow body reads from outside, reduced to what really varies.

A captured constant moves into the body, where it can fold (packed weights of a recurrence, say), and a capture that
the body does not read is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.bodies import deep
from graphc.ir.graph import Graph, Node, Value, inline, rebuild, remake, remake_bodies
from graphc.ir.trace import record

__all__ = ["captures_of", "sink_constants"]


def captures_of(node: Node) -> tuple[int, int]:
    """(first captured operand, first body input that receives a capture); operands and inputs go on in step."""
    match node.op.name:
        case "if_":
            return 1, 0
        case "loop":
            return 2 + node.attrs["carries"], 2 + node.attrs["carries"]
        case "scan":
            first = node.attrs["carries"] + node.attrs["scanned"]
            return first, first
    raise ValueError(f"{node.op.name} has no captures")


def sink_constants(graph: Graph) -> Graph:
    """The graph with constant captures inside the bodies that read them, and unread captures gone."""
    if not any(node.op.body_types is not None for node in graph.nodes):
        return graph
    return deep(lambda g: rebuild(g, _sunk))(graph)


def _sunk(old: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
    if old.op.name not in ("if_", "loop", "scan"):
        return remake(old, inputs)
    first, offset = captures_of(old)
    bodies = {name: body for name, body in old.attrs.items() if isinstance(body, Graph)}
    read = {v for body in bodies.values() for n in body.nodes for v in n.inputs} | {
        v for b in bodies.values() for v in b.outputs
    }
    kept = []
    for k in range(first, len(inputs)):
        arguments = [body.inputs[offset + k - first] for body in bodies.values()]
        if inputs[k].literal is None and any(v in read for v in arguments):
            kept.append(k)
    if len(kept) == len(inputs) - first:
        return remake(old, inputs)
    record("sink_constants", old)
    for name, body in bodies.items():
        places = {offset + k - first: inputs[k] for k in range(first, len(inputs)) if k not in kept}
        arguments = [
            places[i] if i in places and places[i].literal is not None else v for i, v in enumerate(body.inputs)
        ]
        outputs = inline(body, arguments)
        bodies[name] = Graph([v for i, v in enumerate(body.inputs) if i not in places], outputs, body.output_names)
    return remake_bodies(old, (*inputs[:first], *(inputs[k] for k in kept)), bodies)
