"""Reverse mode: the cotangents of some values of a graph from those of others, as more graph.

One walk from the results back to what is asked for, by the rules that stand in the operations' entries
(`OpSpec.gradient`). What comes out is ordinary graph: it can be differentiated again, and every pass applies to it.

The walk is pruned twice: only values that depend on what is asked for are visited, and only cotangents that lead there
are computed. A zero is never built: where nothing arrives the cotangent is None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from graphc.autodiff.accumulate import total
from graphc.errors import GradientNotWrittenError, NotDifferentiableError
from graphc.ir.garbage import collector_waits
from graphc.ir.graph import (
    Graph,
    Node,
    Value,
    describe_location,
    inline,
    input_value,
    location,
    location_of,
    remake,
    toposort,
)
from graphc.ir.types import TensorType, Type

__all__ = ["PROBE_LEVEL", "active_nodes", "carries_gradient", "pullback", "through_decomposition"]

#: the lowest level of inputs that stand for something no result depends on; above the levels of all traces
PROBE_LEVEL = 1 << 30


def carries_gradient(t: Type) -> bool:
    """Whether values of this type have derivatives: floating point tensors."""
    return isinstance(t, TensorType) and t.dtype.is_float


def active_nodes(outputs: Iterable[Value], wrt: Iterable[Value]) -> list[Node]:
    """The nodes between `wrt` and `outputs`, producers first: those that depend on a value of `wrt` through floats."""
    found: dict[Node, None] = {}
    sources = set(wrt)
    # what belongs to traces further out cannot depend on a source (see input_value): the walk does not go there
    level = min((v.node.level for v in sources), default=0)
    for node in toposort(outputs, level):
        if any((v in sources or v.node in found) and carries_gradient(v.type) for v in node.inputs):
            found[node] = None
    return list(found)


def pullback(
    outputs: Sequence[Value], cotangents: Sequence[Value | None], wrt: Sequence[Value]
) -> tuple[Value | None, ...]:
    """The cotangents of the values in `wrt`: the derivatives of sum(outputs * cotangents) with respect to them.

    None where no differentiable path leads from a value to an output whose cotangent is not None.
    Raises NotDifferentiableError, or GradientNotWrittenError, naming the operation on the path that has no gradient.
    """
    with collector_waits():
        return _pullback(outputs, cotangents, wrt)


def _pullback(
    outputs: Sequence[Value], cotangents: Sequence[Value | None], wrt: Sequence[Value]
) -> tuple[Value | None, ...]:
    sources = set(wrt)
    active = active_nodes(outputs, wrt)
    known = set(active)
    arriving: dict[Value, list[Value]] = {}
    for v, g in zip(outputs, cotangents, strict=True):
        if g is not None:
            arriving.setdefault(v, []).append(g)
    done: dict[Value, Value] = {}
    for node in reversed(active):
        results = tuple(_arrived(arriving, done, v) for v in node.outputs)
        if all(g is None for g in results):
            continue
        wanted = tuple((v in sources or v.node in known) and carries_gradient(v.type) for v in node.inputs)
        with location(*(f"gradient of {where}" for where in location_of(node))):
            for v, g, want in zip(node.inputs, _rule(node, results, wanted), wanted, strict=True):
                if want and g is not None:
                    arriving.setdefault(v, []).append(g)
    return tuple(_arrived(arriving, done, v) for v in wrt)


def _arrived(arriving: dict[Value, list[Value]], done: dict[Value, Value], value: Value) -> Value | None:
    """The sum of all cotangents that have arrived at a value; nothing more may arrive afterwards."""
    parts = arriving.pop(value, None)
    if parts:
        done[value] = total(parts)
    return done.get(value)


def _rule(node: Node, cotangents: tuple[Value | None, ...], wanted: tuple[bool, ...]) -> Sequence[Value | None]:
    """What the operation's own rule gives, or else its decomposition's; checked."""
    op = node.op
    gradient = op.gradient or (through_decomposition if op.decompose is not None else None)
    if gradient is None:
        where = describe_location(node)
        if op.no_gradient:
            raise NotDifferentiableError(f"{op.name} has no derivative{where}: {op.no_gradient}")
        raise GradientNotWrittenError(f"the gradient of {op.name} is not written{where}; see OpSpec.gradient")
    found = gradient(node, cotangents, wanted)
    for k, (v, g) in enumerate(zip(node.inputs, found, strict=True)):
        if g is not None and (g.dtype != v.dtype or g.rank != v.rank):
            raise AssertionError(f"{op.name}: the cotangent of operand {k} is {g.type}, the operand is {v.type}")
    return found


def through_decomposition(
    node: Node,
    cotangents: tuple[Value | None, ...],
    wanted: tuple[bool, ...],
    decompose: Callable[[Node], Sequence[Value]] | None = None,
) -> Sequence[Value | None]:
    """The gradient of an operation that is made of others: the pullback of what it decomposes into, which is what its
    entry says unless `decompose` is given.

    It is taken between stand-ins for the operands, which do not depend on one another as the operands may, and then
    put in the place of the node.
    """
    operands = [
        input_value(f"operand{k}", v.type) if want or v.literal is None else v
        for k, (v, want) in enumerate(zip(node.inputs, wanted, strict=True))
    ]
    arriving = [None if g is None else input_value(f"cotangent{k}", g.type) for k, g in enumerate(cotangents)]
    alike = remake(node, tuple(operands))[0].node
    decompose = decompose or alike.op.decompose
    assert decompose is not None
    sources = [k for k, want in enumerate(wanted) if want]
    pulled = pullback(decompose(alike), arriving, [operands[k] for k in sources])
    stand_ins = {
        stand_in: v
        for stand_in, v in zip((*operands, *arriving), (*node.inputs, *cotangents), strict=True)
        if stand_in is not None and v is not None and stand_in != v
    }
    there = [k for k, g in zip(sources, pulled, strict=True) if g is not None]
    graph = Graph(stand_ins, [g for g in pulled if g is not None])
    result: list[Value | None] = [None] * len(node.inputs)
    for k, g in zip(there, inline(graph, list(stand_ins.values())), strict=True):
        result[k] = g
    return result
