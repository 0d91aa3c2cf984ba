"""Loops that differ only in what they return become one.

Differentiation leaves the loop that the result reads beside a like one that also returns what the backward loop needs
(see `graphc.autodiff.control`). `merged` makes them one, also where the first is a recurrent layer, and turns a scan with checkpoints or windows into its segments
where the gradient was taken of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.autodiff.checkpoint import in_segments
from graphc.ir.graph import Graph, Node, Value, location, make, rebuild, remake, toposort
from graphc.ir.rewrite import in_bodies, located

__all__ = ["merged"]


def merged(graph: Graph) -> Graph:
    """The graph without a loop that another one contains. The same object when there is none."""
    if not any(node.op.body_types is not None for node in graph.nodes):
        return graph
    before = None
    graph = _taken_apart(graph)
    while before is not graph:
        before = graph
        graph = _united(_segmented(graph))
    return in_bodies(graph, merged)  # after the loops themselves: their common body may hold like loops


def _key(node: Node) -> object:
    """Equal for loops that may become one: they take the same turns. None for what is no loop."""
    if node.op.name not in ("scan", "loop"):
        return None
    body = node.attrs["body"]
    attrs = tuple((k, v) for k, v in node.attrs.items() if k != "body")
    return node.op, node.inputs, attrs, body.inputs, body.outputs[: _fixed(node)]


def _fixed(node: Node) -> int:
    """How many results of the body are not stacked."""
    return node.attrs["carries"] + (1 if node.op.name == "loop" else 0)  # type: ignore[no-any-return]


def _taken_apart(graph: Graph) -> Graph:
    """Recurrent layers as the loops they are, where their gradient runs a like one."""
    composed = [node for node in graph.nodes if node.op.decompose is not None]
    if not composed:
        return graph
    loops = {key for node in graph.nodes if (key := _key(node)) is not None}
    found = {n for n in composed if n.op.decompose and any(_key(v.node) in loops for v in n.op.decompose(n))}

    def transform(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        values = remake(node, inputs)
        decompose = node.op.decompose
        return decompose(values[0].node) if decompose is not None and node in found else values

    return rebuild(graph, transform) if found else graph


def _united(graph: Graph) -> Graph:
    groups: dict[object, list[Node]] = {}
    for node in graph.nodes:
        if (key := _key(node)) is not None:
            groups.setdefault(key, []).append(node)
    bodies: dict[Node, tuple[Node, Graph]] = {}
    for nodes in groups.values():
        if len(nodes) > 1:
            fixed, first = _fixed(nodes[0]), nodes[0].attrs["body"]
            every = dict.fromkeys(v for n in nodes for v in n.attrs["body"].outputs[fixed:])
            union = Graph(first.inputs, (*first.outputs[:fixed], *every))
            alike = next((n for n in nodes if n.attrs["body"] == union), None)
            if alike is None and nodes[0].op.name == "loop" and nodes[0].attrs.get("length") is None:
                continue  # each has its own name for the number of turns that only the run can tell
            bodies |= dict.fromkeys(nodes, (alike or nodes[0], union))
    if not bodies:
        return graph

    def transform(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        if node not in bodies:
            return remake(node, inputs)
        like, union = bodies[node]
        with location(*located(*(n for n in bodies if bodies[n] == bodies[node]))):
            made = (
                remake(like, inputs)
                if like.attrs["body"] == union
                else make(node.op, *inputs, **{**node.attrs, "body": union})
            )
        fixed, carries = _fixed(node), node.attrs["carries"]
        at = {v: carries + k for k, v in enumerate(union.outputs[fixed:])}
        return [*made[:carries], *(made[at[v]] for v in node.attrs["body"].outputs[fixed:])]

    return rebuild(graph, transform)


def _segmented(graph: Graph) -> Graph:
    """Scans with checkpoints or windows as their segments, where the graph already runs these."""
    asking = [n for n in graph.nodes if n.op.name == "scan" and (n.attrs.get("checkpoint") or n.attrs.get("window"))]
    if not asking:
        return graph
    there = {_key(node) for node in graph.nodes} - {None}
    wanted = {n for n in asking if any(_key(m) in there for m in _made(in_segments(n), n.inputs))}
    if not wanted:
        return graph

    def transform(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        new = remake(node, inputs)
        return in_segments(new[0].node) if node in wanted else new

    return rebuild(graph, transform)


def _made(values: Iterable[Value], operands: Sequence[Value]) -> list[Node]:
    """The nodes between operands and values."""
    before = set(toposort(operands))
    return [n for n in toposort(values) if n not in before]
