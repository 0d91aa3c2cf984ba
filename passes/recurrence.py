"""Recurrent layers that one kernel computes: their weights packed, layers that do not need each other side by side.

What the kernel does not cover stays as it is and becomes a loop over time (`decompose`); the reason is recorded. Layers
are put side by side for the sake of threads: of two directions each gets its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from graphc import ops
from graphc.ir.bodies import deep
from graphc.ir.dims import ceil_div
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Node, Value, location, remake
from graphc.ir.rules import located
from graphc.ir.trace import record, refuse
from graphc.kernels.machine import Machine
from graphc.kernels.recurrence import halves_pay
from graphc.kernels.strassen import column_scales, inner_steps
from graphc.ops.recurrence import STATES, pack_gates, pack_halves, products, recurrence
from graphc.passes.match import uniform

__all__ = ["pack_recurrences"]

#: element types that the kernel computes
COMPUTED = ("float32", "float64")
#: vectors of a panel: the gates of one vector of hidden units, or of several if they are few
VECTORS = 4
#: rows from which a step's own projection of its inputs fills the registers
ROWS = 4


def pack_recurrences(graph: Graph, machine: Machine, threads: int, algorithms: frozenset[str] = frozenset()) -> Graph:
    """The graph with recurrent layers as their kernel takes them; shapes must be known. `algorithms` are those allowed
    beside the plain sum (see graphc.kernels.choice.ALGORITHMS)."""
    return deep(lambda g: _packed(g, machine, threads, "strassen" in algorithms))(graph)


def _why_not(node: Node) -> str | None:
    """Why the kernel does not compute a layer."""
    x = node.inputs[0].tensor
    if x.dtype.name not in COMPUTED:
        return f"no recurrence kernel computes {x.dtype}"
    if not x.is_static:
        return f"the size {x} is not known"
    return "there is nothing to compute" if 0 in (*x.static_shape, node.inputs[1].shape[1]) else None


def _packed(graph: Graph, machine: Machine, threads: int, halves: bool) -> Graph:
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
                made = _recurrence(graph, team, new, machine, halves)
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


def _recurrence(
    graph: Graph, team: Sequence[Node], new: dict[Value, Value], machine: Machine, halves: bool
) -> Sequence[Value]:
    cell, attrs = team[0].op.name, {k: v for k, v in team[0].attrs.items() if k != "reverse"}
    inside = [_projection(graph, node, machine) for node in team]
    if len({p.x.type if p else None for p in inside}) > 1:
        inside = [None] * len(team)
    halved = halves and all(_halves(*pair, machine) for pair in zip(team, inside, strict=True))
    gates, width = _panels(team[0], machine, halved)
    operands: list[Value] = []
    for node, projection in zip(team, inside, strict=True):
        x, r, *rest = (new[v] for v in node.inputs)
        if projection is None:
            operands.append(x)
        else:
            steps, batch, _ = x.shape
            x, w, bias = projection
            operands.append(ops.reshape(new[x], shape=(steps, batch, x.shape[-1])))
            weights = ops.transpose(new[w], perm=(1, 0))
            if halved:
                r = ops.concat(r, weights, axis=1)
            else:
                operands += pack_gates(weights, gates, width)
            zero = np.zeros((), w.dtype.numpy)
            operands.append(
                ops.broadcast_to(zero, shape=w.shape[1:]) if bias is None else ops.reshape(new[bias], shape=w.shape[1:])
            )
        steps = 2 * inner_steps(_lanes(node, machine))
        operands += (
            pack_halves(r, gates, width, ceil_div(r.shape[1], steps) * steps) if halved else pack_gates(r, gates, width)
        )
        operands += rest[: len(node.inputs) - 2 - attrs.get("lengths", False)]
    if attrs.get("lengths", False):
        operands.append(ops.cast(new[team[0].inputs[-1]], dtype=dtype_of("int64")))
    result: Sequence[Value] = recurrence(
        *operands,
        cell=cell,
        reverse=tuple(node.attrs.get("reverse", False) for node in team),
        inputs=inside[0] is not None,
        halved=halved,
        from_zero=all(map(_starts_from_zero, team)),
        **attrs,
    )
    return result


def _lanes(node: Node, machine: Machine) -> int:
    return machine.isa.lanes(node.inputs[0].dtype.itemsize)


def _panels(node: Node, machine: Machine, halved: bool) -> tuple[tuple[int, ...], int]:
    """The gates of each product of a layer, and how many hidden units a panel holds."""
    gates = products(node.op.name, node.attrs.get("linear_before_reset", False))
    lanes = _lanes(node, machine)
    vectors = max(1, min(VECTORS // max(gates), ceil_div(int(node.inputs[1].shape[1]), lanes)))
    if halved and any(n * vectors % 2 for n in gates):
        vectors *= 2
    return gates, vectors * lanes


def _halves(node: Node, projection: _Projection | None, machine: Machine) -> bool:
    """Whether a layer's products are done by Strassen's algorithm, with those of its inputs if it projects them."""
    r, w = node.inputs[1].literal, projection.w.literal if projection else None
    if r is None or (projection and (w is None or node.attrs.get("linear_before_reset", False))):
        return False  # weights that change; or a gate that takes the two apart
    weights = r if w is None else np.concatenate([r, w.T], axis=1)
    (gates, width), (batch, hidden) = _panels(node, machine, True), node.inputs[2].shape
    if not halves_pay(machine, batch, weights.shape[1], hidden, gates, [width] * len(gates), r.dtype.name):
        return False
    # columns that are added must be of like size
    units, first = ceil_div(hidden, width) * width, 0
    for n in gates:
        part = np.zeros((n, units, weights.shape[1]), r.dtype)
        part[:, :hidden] = weights[first * hidden : (first + n) * hidden].reshape(n, hidden, -1)
        columns = part.reshape(n, -1, width, weights.shape[1]).transpose(3, 1, 0, 2).reshape(weights.shape[1], -1)
        scales = column_scales(columns, n * width // 2)
        if scales is None or not (scales == 1).all():
            return False
        first += n
    return True


class _Projection(NamedTuple):
    """x[..., I] times w[I, gates * H], plus the bias[gates * H] if there is one: a layer's projected inputs."""

    x: Value
    w: Value
    bias: Value | None


def _projection(graph: Graph, node: Node, machine: Machine) -> _Projection | None:
    """The projection of a layer's inputs that its kernel had better do itself; None where it stays a product of its own.

    One product for all steps reads its weights least often, but its result is gates times as large as the states and goes
    through memory twice. The kernel keeps it in registers, as long as all weights stay in the core's own cache; and a
    layer of one step has nothing to gain from a product before it.
    """
    columns, bias = node.inputs[0].shape[2], None

    def behind_reshapes(v: Value) -> list[Value]:
        found = [v]
        while found[-1].node.op.name == "reshape":
            found.append(found[-1].node.inputs[0])
        return found

    chain = behind_reshapes(node.inputs[0])
    if chain[-1].node.op.name == "add":
        for product, added in (chain[-1].node.inputs, chain[-1].node.inputs[::-1]):
            seen = added.node.inputs[0] if added.node.op.name == "broadcast_to" else added
            for_each_row = seen.shape[-1:] == (columns,) == added.shape[-1:] and all(d == 1 for d in seen.shape[:-1])
            if for_each_row and behind_reshapes(product)[-1].node.op.name == "dot":
                chain, bias = chain + behind_reshapes(product), seen
                break
    v = chain[-1]
    if v.node.op.name != "dot" or v.node.inputs[1].rank != 2 or v.shape[-1] != columns:
        return None
    if any(len(graph.users[part]) > 1 or part in graph.outputs for part in chain):
        return None  # somebody else needs the product
    x, w = v.node.inputs
    steps, batch, _ = node.inputs[0].shape
    hidden, itemsize = node.inputs[1].shape[1], v.dtype.itemsize
    fits = columns * (hidden + w.shape[0]) * itemsize <= machine.l2_bytes * 3 // 4
    backwards = node.attrs.get("lengths", False) and node.attrs.get("reverse", False)  # each row walks its own way
    if backwards or not (steps == 1 or (fits and batch >= ROWS)):
        return None
    return _Projection(x, w, bias)


def _starts_from_zero(node: Node) -> bool:
    """Whether the first step multiplies zeros; with finite weights, or the product would be NaN."""
    r = node.inputs[1].literal
    return uniform(node.inputs[2]) == 0 and r is not None and bool(np.isfinite(r).all())
