"""Products that share their left operand run as one: the queries, keys and values of attention, branches of 1x1 filters.

The weights lie side by side, and each sibling is a slice of the result, which costs nothing where it is read by strides.
What follows all siblings alike (a bias each, the same activation) moves before the slices, or it could not be done to
results in registers. A sibling stays alone when what follows it would then need a pass over memory of its own: further
arithmetic, or a place in a concatenation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphc import ops
from graphc.ir.bodies import deep
from graphc.ir.graph import Graph, Node, Value, constant, location, rebuild, remake
from graphc.ir.rules import located
from graphc.ir.trace import record, refuse
from graphc.ops.spec import Kind
from graphc.passes.match import constant_array, constant_source, is_tensor, uniform, varying_axes, vector_along

__all__ = ["merge_siblings"]

#: filters of a convolution that fill whole blocks of any machine's lanes
WHOLE_BLOCKS = 16


@dataclass(frozen=True)
class _Sibling:
    """A contraction, and the arithmetic behind it that moves along: each step's node, and its other operand if any."""

    contraction: Node
    steps: tuple[tuple[Node, Value | None], ...]

    @property
    def axis(self) -> int:
        """The axis of the result that the weights give."""
        return 1 if self.contraction.op.name == "conv" else self.contraction.outputs[0].rank - 1

    @property
    def result(self) -> Value:
        node = self.steps[-1][0] if self.steps else self.contraction
        return node.outputs[0]


def merge_siblings(graph: Graph) -> Graph:
    """The graph with contractions of one operand and constant weights made one; all shapes must be known."""
    return deep(_merge)(graph)


def _merge(graph: Graph) -> Graph:
    families: dict[Hashable, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        key = _family(node)
        if key is not None:
            families[key].append(node)
    groups = [
        g for nodes in families.values() if len(nodes) > 1 for g in _alike(graph, [_followed(graph, n) for n in nodes])
    ]
    if not groups:
        return graph
    group_of = {s.contraction: group for group in groups for s in group}
    slices: dict[Node, Value] = {}

    def visit(old: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        group = group_of.get(old)
        if group is not None and group[0].result.node not in slices:
            slices.update(_merged(group, inputs[0]))
        return (slices[old],) if old in slices else remake(old, inputs)

    return rebuild(graph, visit)


def _family(node: Node) -> Hashable:
    """What siblings have in common; None for whatever has none."""
    if node.op.name not in ("conv", "dot") or not is_tensor(node.outputs[0]) or not node.outputs[0].dtype.is_float:
        return None
    x, w = node.inputs
    if constant_source(w) is None or x.node.level < 0 or node.attrs.get("groups", 1) > 1:
        return None
    if node.op.name == "dot":
        return (x, w.shape[0]) if w.rank == 2 else None
    return (x, w.shape[1:], tuple(sorted(node.attrs.items())))


def _followed(graph: Graph, contraction: Node) -> _Sibling:
    """A contraction with the arithmetic behind it that varies along the columns alone."""
    steps: list[tuple[Node, Value | None]] = []
    found = _Sibling(contraction, ())
    while (step := _next(graph, found)) is not None:
        steps.append(step)
        found = _Sibling(contraction, tuple(steps))
    return found


def _next(graph: Graph, s: _Sibling) -> tuple[Node, Value | None] | None:
    v = s.result
    readers = graph.users.get(v, ())
    if len(readers) != 1 or v in graph.outputs or readers[0].op.kind is not Kind.ELEMENTWISE:
        return None
    (node,) = readers
    if len(node.inputs) == 1:
        return node, None
    if len(node.inputs) > 2 or node.inputs[0] != v:
        return None
    axes = varying_axes(node.inputs[1])
    return (node, node.inputs[1]) if axes is not None and axes <= {s.axis} else None


def _alike(graph: Graph, family: Sequence[_Sibling]) -> Iterator[list[_Sibling]]:
    """Those of a family that are followed by the same arithmetic and by nothing that forbids it."""
    groups: dict[Hashable, list[_Sibling]] = defaultdict(list)
    for s in family:
        why = _why_alone(graph, s)
        if why is not None:
            refuse("siblings", s.contraction, why)
            continue
        chain = tuple((n.op.name, tuple(sorted(n.attrs.items())), other is None) for n, other in s.steps)
        groups[chain].append(s)
    for group in groups.values():
        ragged = [s for s in group if _columns(s) % WHOLE_BLOCKS and s.contraction.op.name == "conv"]
        whole = [s for s in group if s not in ragged]
        found = [*whole, *ragged[:1]]  # the last one may fill no whole blocks
        if len(found) > 1:
            yield found


def _columns(s: _Sibling) -> int:
    return int(s.result.shape[s.axis])


def _weights(s: _Sibling) -> np.ndarray:
    found = constant_array(s.contraction.inputs[1])
    assert found is not None, "only weights that are known make a family"
    return found


def _why_alone(graph: Graph, s: _Sibling) -> str | None:
    if s.result in graph.outputs:
        return "its result is an output, which is computed in its place"
    for reader in graph.users.get(s.result, ()):
        if reader.op.kind in (Kind.ELEMENTWISE, Kind.REDUCE):
            return f"{reader.op.name} behind it can be done to results in registers"
        if reader.op.name == "concat":
            return "its result is computed in its place of a concatenation"
    return None


def _merged(siblings: Sequence[_Sibling], x: Value) -> dict[Node, Value]:
    """The siblings' results, by the nodes that gave them, as slices of one product with `x`."""
    first, axis = siblings[0], siblings[0].axis
    filters = 0 if first.contraction.op.name == "conv" else 1
    joined = constant(np.concatenate([_weights(s) for s in siblings], axis=filters))
    with location(*located(*(n for s in siblings for n in (s.contraction, *(node for node, _ in s.steps))))):
        y: Value = first.contraction.op(x, joined, **first.contraction.attrs)
        for k, (node, other) in enumerate(first.steps):
            others = [] if other is None else [_side_by_side([s.steps[k][1] for s in siblings], y, axis)]
            y = node.op(y, *others, **node.attrs)
        record("siblings", first.contraction)
        found, start = {}, 0
        for s in siblings:
            stop = start + _columns(s)
            starts, stops = [0] * y.rank, list(y.shape)
            starts[axis], stops[axis] = start, stop
            found[s.result.node] = ops.slice(y, starts=tuple(starts), stops=tuple(stops), steps=(1,) * y.rank)
            start = stop
    return found


def _side_by_side(operands: Sequence[Value | None], y: Value, axis: int) -> Value:
    """The siblings' numbers for their columns, for the merged result `y`; one number stays one."""
    given = [v for v in operands if v is not None]
    numbers = {uniform(v) for v in given}
    if len(numbers) == 1 and None not in numbers:
        return ops.broadcast_to(constant(numbers.pop(), given[0].dtype), shape=y.shape)
    vector = ops.concat(*(vector_along(v, axis) for v in given), axis=0)
    extents = tuple(d if k == axis else 1 for k, d in enumerate(y.shape))
    result: Value = ops.broadcast_to(ops.reshape(vector, shape=extents), shape=y.shape)
    return result
