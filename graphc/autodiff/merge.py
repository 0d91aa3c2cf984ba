"""Loops that differ only in what they return become one.

Differentiation leaves the loop that the result reads beside a like one that also returns what the backward loop needs
(see `graphc.autodiff.control`). `merged` makes them one, also where the first is a recurrent layer, and turns a scan with checkpoints or windows into its segments
where the gradient was taken of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.autodiff.checkpoint import in_segments
from graphc.ir.bodies import in_bodies
from graphc.ir.graph import Graph, Node, Value, rebuild, remake, remake_bodies, toposort
from graphc.ir.types import TensorType, Type, fresh_renames

__all__ = ["merged", "returning"]


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
    return node.attrs["carries"] + (1 if node.op.name == "loop" else 0)


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
    unions: dict[Node, tuple[Graph, tuple[Type, ...]]] = {}
    for nodes in groups.values():
        if len(nodes) > 1 and (union := _union(nodes)) is not None:
            unions |= dict.fromkeys(nodes, union)
    if not unions:
        return graph

    def transform(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        if node not in unions:
            return remake(node, inputs)
        body, types = unions[node]
        made = returning(node, inputs, body, types)
        fixed, carries = _fixed(node), node.attrs["carries"]
        at = {v: carries + k for k, v in enumerate(body.outputs[fixed:])}
        return [*made[:carries], *(made[at[v]] for v in node.attrs["body"].outputs[fixed:])]

    return rebuild(graph, transform)


def _union(nodes: Sequence[Node]) -> tuple[Graph, tuple[Type, ...]] | None:
    """The body that returns what any of these loops' bodies does, and the types of the results of the loop with it.

    None when they have different names for a number of turns that only the run can tell."""
    fixed, carries, first = _fixed(nodes[0]), nodes[0].attrs["carries"], nodes[0].attrs["body"]
    stacks = {v: t for n in nodes for v, t in zip(n.attrs["body"].outputs[fixed:], n.types[carries:], strict=True)}
    if len({t.shape[0] for t in stacks.values() if isinstance(t, TensorType)}) > 1:
        return None
    return Graph(first.inputs, (*first.outputs[:fixed], *stacks)), (*nodes[0].types[:carries], *stacks.values())


def returning(node: Node, inputs: tuple[Value, ...], body: Graph, types: tuple[Type, ...]) -> tuple[Value, ...]:
    """The loop with another body and results of exactly these types, perhaps followed by more.

    Interning may know it from another graph, with another name for a number of turns that only the run can tell; one
    more result then tells the two apart. Types that inference does not agree with are not insisted on."""
    while True:
        made = remake_bodies(node, inputs, {"body": body}, types)
        found = tuple(v.type for v in made)
        operands = [v.type for v in inputs]
        if found == types or operands != [v.type for v in node.inputs] or fresh_renames(types, found, operands) is None:
            return made
        body, types = Graph(body.inputs, (*body.outputs, body.outputs[-1])), (*types, types[-1])


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
