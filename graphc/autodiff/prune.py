"""Control flow without the results that nobody reads, and without what those alone read.

A graph's dead nodes are unreachable, but a loop is one node: while one of its results is read all are computed.
`pruned` looks inside. From the results that are read it follows what the body reads for them, and round the loop: a
carry is needed when a needed result of a turn reads it. Everything else goes, results, carries and operands, and with
the operands what was computed for them alone.

Differentiation makes such results, and forward mode rests on this: its probes are operands of backward loops whose
results they do not influence (see `graphc.autodiff.transforms.pushforward`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from graphc.autodiff.merge import merged
from graphc.ir.dims import Dim, symbols_of
from graphc.ir.graph import Graph, Node, Value, location, location_of, make, remake, remake_bodies, toposort
from graphc.ir.types import TensorType

__all__ = ["pruned", "tidied"]


def tidied(graph: Graph) -> Graph:
    """The graph with loops that contain one another merged, and nothing in them that nobody reads."""
    if not any(node.op.body_types is not None for node in graph.nodes):
        return graph
    graph = merged(graph)
    outputs = tuple(pruned(graph.outputs))
    return graph if outputs == graph.outputs else Graph(graph.inputs, outputs, graph.output_names)


def pruned(values: Sequence[Value], level: int = -1) -> list[Value]:
    """The values, computed by control flow that does no more than they need.

    Nodes below `level` are left as they are (see `graphc.ir.graph.input_value`).
    """
    return _Pruning().values(values, level)


class _Roles(NamedTuple):
    """How the operands and results of control flow belong to the inputs and outputs of its bodies."""

    operand: int  # the operand of a body's first input
    output: int  # the output of a body that is the first result; those before it are always needed
    fixed: frozenset[int]  # inputs that are always there
    carried: Mapping[int, int]  # inputs that come round again, and the results that they end as


def _roles(node: Node) -> _Roles | None:
    """None for what is no control flow; a `custom_vjp` is left whole, its bodies have to fit each other."""
    carries: int = node.attrs.get("carries", 0)
    match node.op.name:
        case "scan":
            return _Roles(0, 0, frozenset(), {k: k for k in range(carries)})
        case "loop":
            return _Roles(0, 1, frozenset({0, 1}), {2 + k: k for k in range(carries)})
        case "if_":
            return _Roles(1, 0, frozenset(), {})
        case "call":
            return _Roles(0, 0, frozenset(), {})
    return None


class _Part(NamedTuple):
    """What is needed of a node: numbers of results, and of inputs of its bodies, in order."""

    results: tuple[int, ...]
    inputs: tuple[int, ...]


class _Pruning:
    """One run; what it found out about a node or a body it knows when it comes by again."""

    def __init__(self) -> None:
        self._needed: dict[tuple[tuple[Value, ...], int], dict[Node, frozenset[int]]] = {}
        self._parts: dict[tuple[Node, frozenset[int]], _Part] = {}
        self._bodies: dict[Graph, Graph] = {}

    def values(self, values: Sequence[Value], level: int = -1) -> list[Value]:
        new: dict[Value, Value] = {}
        needs = self._needs(values, level)
        for node, results in needs.items():
            inputs = tuple(new.get(v, v) for v in node.inputs)
            if node.op.name == "after":
                there = [v.node.level < level or v.index in needs.get(v.node, ()) for v in node.inputs]
                inputs = tuple(v for v, is_there in zip(inputs, there, strict=True) if is_there)
                with location(*location_of(node)):
                    new[node.outputs[0]] = inputs[0] if len(inputs) == 1 else make(node.op, *inputs)[0]
                continue
            with location(*location_of(node)):
                new |= self._narrowed(node, inputs, self._part(node, results))
        return [new.get(v, v) for v in values]

    def _needs(self, values: Sequence[Value], level: int = -1) -> dict[Node, frozenset[int]]:
        """The nodes that `values` need, producers first, and the numbers of their results that are read."""
        key = tuple(values), level
        if key not in self._needed:
            order = toposort(values, level)
            sizes = _mentioned(order)
            used = set(values)
            found: dict[Node, frozenset[int]] = {}
            for node in reversed(order):
                results = frozenset(k for k, v in enumerate(node.outputs) if v in used)
                results |= _telling(node, sizes) if sizes else frozenset()
                if results:
                    found[node] = results
                    used.update(self._operands(node, results))
            self._needed[key] = dict(reversed(found.items()))
        return self._needed[key]

    def _operands(self, node: Node, results: frozenset[int]) -> Iterable[Value]:
        if node.op.name == "after":  # what is waited for only is not computed for that
            return node.inputs[:1]
        roles = _roles(node)
        if roles is None:
            return node.inputs
        first = roles.operand
        return (*node.inputs[:first], *(node.inputs[first + k] for k in self._part(node, results).inputs))

    def _body(self, body: Graph) -> Graph:
        """The body with its loops merged: pruned one by one they would not be alike any more."""
        if body not in self._bodies:
            self._bodies[body] = merged(body)
        return self._bodies[body]

    def _part(self, node: Node, results: frozenset[int]) -> _Part:
        roles = _roles(node)
        if roles is None:
            return _Part(tuple(range(len(node.types))), ())
        key = node, results
        if key not in self._parts:
            self._parts[key] = self._around(node, roles, results)
        return self._parts[key]

    def _around(self, node: Node, roles: _Roles, wanted: frozenset[int]) -> _Part:
        """The least part with the `wanted` results that is closed under "a needed result of a turn reads the carry"."""
        results = set(wanted)
        while True:
            inputs = set(roles.fixed) | {k for k, result in roles.carried.items() if result in results}
            for body in map(self._body, node.bodies):
                inputs |= self._read(body, _results(body, roles, sorted(results)), inputs)
            if node.op.name == "scan":
                inputs |= _counting(node, inputs)
            more = {result for k, result in roles.carried.items() if k in inputs} - results
            if not more:
                return _Part(tuple(sorted(results)), tuple(sorted(inputs)))
            results |= more

    def _read(self, body: Graph, outputs: Sequence[Value], known: Iterable[int]) -> set[int]:
        """The numbers of the inputs that a body reads for some outputs, by value or by a size that they alone show."""
        needs = self._needs(outputs)
        found = {k for k, v in enumerate(body.inputs) if v.node in needs}
        sizes = _mentioned(needs)
        for k in {*known, *found}:
            sizes -= _symbols(body.inputs[k])
        for k in reversed(range(len(body.inputs))):
            if sizes and k not in found and sizes & (shown := _symbols(body.inputs[k])):
                found.add(k)
                sizes -= shown
        return found

    def _narrowed(self, node: Node, operands: tuple[Value, ...], part: _Part) -> dict[Value, Value]:
        """The node's needed results, from a node that has no others."""
        roles = _roles(node)
        if roles is None:
            return dict(zip(node.outputs, remake(node, operands), strict=True))
        attrs: dict[str, Any] = {}
        for name, old in node.attrs.items():
            if isinstance(old, Graph):
                body = self._body(old)
                outputs = self.values(_results(body, roles, part.results))
                inputs = [body.inputs[k] for k in part.inputs]
                attrs[name] = Graph(inputs, outputs) if (*inputs, *outputs) != (*old.inputs, *old.outputs) else old
        if "carries" in node.attrs:
            attrs["carries"] = sum(k in roles.carried for k in part.inputs)
        if node.op.name == "scan":
            carries, scanned = node.attrs["carries"], node.attrs["scanned"]
            attrs["scanned"] = sum(carries <= k < carries + scanned for k in part.inputs)
            if scanned and not attrs["scanned"]:
                attrs["length"] = node.inputs[carries].shape[0]
        kept = (*operands[: roles.operand], *(operands[roles.operand + k] for k in part.inputs))
        types = tuple(node.types[k] for k in part.results)
        made = remake_bodies(node, kept, attrs, types)
        if tuple(v.type for v in made) != types:  # known from elsewhere, with other names for sizes
            return dict(zip(node.outputs, remake(node, operands), strict=True))
        return dict(zip((node.outputs[k] for k in part.results), made, strict=True))


def _results(body: Graph, roles: _Roles, results: Iterable[int]) -> list[Value]:
    """A body's outputs for these results."""
    return [*body.outputs[: roles.output], *(body.outputs[roles.output + k] for k in results)]


def _counting(node: Node, inputs: set[int]) -> set[int]:
    """What a scan walks over for the number of its turns alone, where a number cannot say it: nothing or one input."""
    carries, scanned = node.attrs["carries"], node.attrs["scanned"]
    rows = range(carries, carries + scanned)
    if not rows or inputs.intersection(rows) or isinstance(node.inputs[carries].shape[0], int):
        return set()
    return {min(rows, key=lambda k: node.inputs[k].node.level)}  # none that stands for something


def _telling(node: Node, sizes: set[str]) -> frozenset[int]:
    """The results that are the first to show one of the sizes: they are needed for that."""
    if node.op.name == "input":
        return frozenset()
    known = {name for v in node.inputs for name in _symbols(v)}
    return frozenset(k for k, v in enumerate(node.outputs) if _symbols(v) & sizes - known)


def _symbols(v: Value) -> frozenset[str]:
    """The names of the open sizes that a value's shape shows."""
    if not isinstance(v.type, TensorType) or v.type.is_static:
        return frozenset()
    return frozenset().union(*(symbols_of(d) for d in v.shape if isinstance(d, Dim)))


def _mentioned(nodes: Iterable[Node]) -> set[str]:
    """The names of the open sizes that attributes of the nodes speak of."""
    found: set[str] = set()
    for node in nodes:
        for attr in node.attrs.values():
            for d in attr if isinstance(attr, tuple) else (attr,):
                if isinstance(d, Dim):
                    found |= symbols_of(d)
    return found
