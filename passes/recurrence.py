"""Recurrent layers that one kernel computes: their weights packed, layers that do not need each other side by side.

What the kernel does not cover stays as it is and becomes a loop over time (`decompose`); the reason is recorded. Layers
are put side by side for the sake of threads: of two directions each gets its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from graphc import ops
from graphc.ir.bodies import deep
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Node, Value, location, remake
from graphc.ir.rules import located
from graphc.ir.trace import record, refuse
from graphc.kernels.machine import Machine
from graphc.ops.recurrence import STATES, has_vector, pack_gates, products

__all__ = ["pack_recurrences"]

#: element types that the kernel computes
COMPUTED = ("float32", "float64")
#: vectors of a panel: the gates of one vector of hidden units, or of several if they are few
VECTORS = 4


def pack_recurrences(graph: Graph, machine: Machine, threads: int) -> Graph:
    """The graph with recurrent layers as their kernel takes them; shapes must be known."""
    return deep(lambda g: _packed(g, machine, threads))(graph)


def _why_not(node: Node) -> str | None:
    """Why the kernel does not compute a layer."""
    x = node.inputs[0].tensor
    if x.dtype.name not in COMPUTED:
        return f"no recurrence kernel computes {x.dtype}"
    if not x.is_static:
        return f"the size {x} is not known"
    return "there is nothing to compute" if 0 in (*x.static_shape, node.inputs[1].shape[1]) else None


def _packed(graph: Graph, machine: Machine, threads: int) -> Graph:
    layers = []
    for node in graph.nodes:
        if node.op.name in STATES:
            why = _why_not(node)
            if why is None:
                layers.append(node)
            else:
                refuse("recurrence", node, why)
    if not layers:
        return graph
    teams = {node: team for team in _teams(graph, layers, threads) for node in team}
    new: dict[Value, Value] = {}
    waiting = list(reversed([v.node for v in graph.outputs]))
    while waiting:  # operands first; the members of a team are there together
        node = waiting[-1]
        team = teams.get(node, (node,))
        missing = [v.node for member in team for v in member.inputs if v not in new]
        if missing and node.outputs[0] not in new:
            waiting += missing
            continue
        waiting.pop()
        if node.outputs[0] in new:
            continue
        if node not in teams:
            made: Sequence[Value] = remake(node, tuple(new[v] for v in node.inputs), node.where)
        else:
            with location(*located(*team)):
                made = _recurrence(team, new, machine)
            for member in team:
                record("recurrence", member)
        new.update(zip((v for member in team for v in member.outputs), made, strict=True))
    return graph.with_outputs(tuple(new[v] for v in graph.outputs))


def _teams(graph: Graph, layers: Sequence[Node], threads: int) -> list[tuple[Node, ...]]:
    """Layers that run side by side: of one kind and shape, and with as many layers before them, so that none needs
    another."""
    chosen = set(layers)
    depth: dict[Node, int] = {}
    alike: dict[object, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        before = max((depth[v.node] for v in node.inputs), default=0)
        depth[node] = before + (node in chosen)
        if node in chosen:
            attrs = tuple(sorted((k, v) for k, v in node.attrs.items() if k != "reverse"))
            lengths = node.inputs[-1] if node.attrs.get("lengths", False) else None
            alike[node.op.name, before, attrs, tuple(v.type for v in node.inputs), lengths].append(node)
    return [tuple(group[k : k + threads]) for group in alike.values() for k in range(0, len(group), threads)]


def _recurrence(team: Sequence[Node], new: dict[Value, Value], machine: Machine) -> Sequence[Value]:
    cell, attrs = team[0].op.name, {k: v for k, v in team[0].attrs.items() if k != "reverse"}
    late = attrs.get("linear_before_reset", False)
    lanes = machine.isa.lanes(team[0].inputs[0].dtype.itemsize)
    operands: list[Value] = []
    for node in team:
        x, r, *rest = (new[v] for v in node.inputs)
        gates = products(cell, late)
        vectors = max(1, min(VECTORS // max(gates), -(-int(r.shape[1]) // lanes)))
        operands += [x, *pack_gates(r, gates, vectors * lanes)]
        operands += rest[: STATES[cell] + has_vector(attrs.get("peephole", False), late)]
    if attrs.get("lengths", False):
        operands.append(ops.cast(new[team[0].inputs[-1]], dtype=dtype_of("int64")))
    reverse = tuple(node.attrs.get("reverse", False) for node in team)
    result: Sequence[Value] = ops.recurrence(*operands, cell=cell, reverse=reverse, **attrs)
    return result
