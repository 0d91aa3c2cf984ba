"""Functions on graphs, taken to the bodies of control flow as well."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.ir.graph import Graph, Node, Value, rebuild, remake, remake_bodies

__all__ = ["deep", "in_bodies"]


def in_bodies(graph: Graph, function: Callable[[Graph], Graph]) -> Graph:
    """The graph with `function` applied to the bodies of control flow; a fusion's body is a kernel and left alone."""
    if not any(node.op.is_control_flow for node in graph.nodes):
        return graph

    def transform(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        if not node.op.is_control_flow:
            return remake(node, inputs)
        bodies = {k: function(v) for k, v in node.attrs.items() if isinstance(v, Graph)}
        same = all(body is node.attrs[k] for k, body in bodies.items())
        return remake(node, inputs) if same else remake_bodies(node, inputs, bodies)

    return rebuild(graph, transform)


def deep(function: Callable[[Graph], Graph]) -> Callable[[Graph], Graph]:
    """A function on graphs that works on the bodies of control flow first, innermost outwards, then on the graph."""

    def run(graph: Graph) -> Graph:
        return function(in_bodies(graph, run))

    return run
