"""Calls expanded: the bodies of `call` and `custom_vjp` in their place, and loops that do no more than is read.

Both operations matter to differentiation only, which is over when a graph is compiled.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.autodiff.prune import tidied
from graphc.ir.bodies import deep
from graphc.ir.graph import Graph, Node, Value, inline, rebuild, remake
from graphc.ir.trace import record

__all__ = ["expand_calls"]

_CALLS = ("call", "custom_vjp")


def expand_calls(graph: Graph) -> Graph:
    """The graph without calls, without a loop that another one contains and without what nobody reads of a loop."""
    if not any(node.op.body_types is not None for node in graph.nodes):
        return graph
    return tidied(deep(lambda g: rebuild(g, _expanded))(graph))


def _expanded(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
    if node.op.name not in _CALLS:
        return remake(node, inputs)
    record("expand_calls", node)
    body: Graph = node.attrs["body"]
    if any(inner.op.name in _CALLS for inner in body.nodes):  # calls in the body of a call
        body = rebuild(body, _expanded)
    return inline(body, inputs)
