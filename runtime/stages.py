"""Cutting a graph into stages: stretches that become one native program, and what runs on the host between them.

Strings, sequences, optionals and operations whose result sizes depend on the data have no place in a native program
of fixed sizes. They run on the host, and everything else is gathered into as few stretches as possible.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from graphc.ir.dims import Dim, symbols_of
from graphc.ir.graph import Graph, Node, Value, input_value, location, location_of, remake
from graphc.ir.types import TensorType, Type, type_symbols
from graphc.ops.spec import Kind, has_kernel

__all__ = ["Partition", "Stage", "host_reason", "partition"]


@dataclass(frozen=True)
class Stage:
    """One step of a run: reads values by number, writes values by number.

    A native stage holds in `graph` what to compute, its inputs and outputs in the order of `reads` and `writes`. A host
    stage holds the one `node` to run, whose operands that are not constants `reads` gives, and the reason.
    """

    reads: tuple[int, ...]
    writes: tuple[int, ...]
    graph: Graph | None = None
    node: Node | None = None
    reason: str = ""


def host_reason(node: Node) -> str:
    """Why a node cannot be part of a native program; empty when it can."""
    if node.op.kind is Kind.LEAF:
        return ""
    types = [v.type for v in (*node.inputs, *node.outputs)]
    if not all(isinstance(t, TensorType) for t in types):
        return "works on sequences or optionals"
    for t in types:
        assert isinstance(t, TensorType)
        if not has_kernel(t.dtype):
            return f"no kernels for {t.dtype}"
    if node.op.kind is Kind.HOST:
        return "runs on the host"
    if _found_sizes(node):
        return "the size of its result depends on the data"
    for body in node.bodies:
        for inner in body.nodes:
            if reason := host_reason(inner):
                return f"its body has {inner.op.name}: {reason}"
    return ""


def _found_sizes(node: Node) -> frozenset[str]:
    """The symbols that a node brings into the graph: those of its results that neither operands nor attributes have."""
    known = frozenset().union(*(type_symbols(v.type) for v in node.inputs))
    known |= frozenset().union(*(symbols_of(d) for a in node.attrs.values() for d in _dims(a)))
    return frozenset().union(*(type_symbols(v.type) for v in node.outputs)) - known


def _dims(attr: object) -> Iterator[Dim]:
    """The symbolic dimensions in an attribute."""
    if isinstance(attr, Dim):
        yield attr
    elif isinstance(attr, tuple):
        for a in attr:
            yield from _dims(a)


def _is_native(t: Type) -> bool:
    return isinstance(t, TensorType) and has_kernel(t.dtype)


@dataclass(frozen=True)
class Partition:
    """A graph cut into stages. Values have numbers: the inputs 0, 1, ..., then what the stages write; `constants` gives
    the values that are known, and `results` the numbers of the graph's outputs."""

    stages: tuple[Stage, ...]
    results: tuple[int, ...]
    constants: Mapping[int, np.ndarray]


def partition(graph: Graph) -> Partition:
    """Stages that compute the graph. Stretches are as long as dependencies allow: all kernel nodes that are ready, then
    the host nodes that are ready, and so on."""
    numbers: dict[Value, int] = {v: i for i, v in enumerate(graph.inputs)}
    reasons = {n: host_reason(n) for n in graph.nodes}
    if not any(reasons.values()) and all(_is_native(v.type) for v in (*graph.inputs, *graph.outputs)):
        # nearly every model: one stretch, the graph as it is, under its own names
        results = tuple(range(len(graph.inputs), len(graph.inputs) + len(graph.outputs)))
        return Partition((Stage(tuple(range(len(graph.inputs))), results, graph),), results, {})
    constants: dict[int, np.ndarray] = {}
    for v in graph.outputs:
        if v.literal is not None and v not in numbers:
            numbers[v] = len(numbers)
            constants[numbers[v]] = v.literal
    rank = _ranks(graph, reasons)
    needed = set(graph.outputs)
    groups: dict[int, list[Node]] = {}
    for n in graph.nodes:
        if n.op.kind is not Kind.LEAF:
            groups.setdefault(rank[n], []).append(n)
            needed.update(v for v in n.inputs if rank[v.node] != rank[n] or reasons[n] or reasons[v.node])
    stages = []
    for r in sorted(groups):
        on_host = r % 2 == 1
        for batch in [[n] for n in groups[r]] if on_host else [groups[r]]:
            writes = [v for n in batch for v in n.outputs if on_host or v in needed]
            if writes:
                stages.append(_stage(batch, writes, numbers, reasons[batch[0]] if on_host else ""))
    return Partition(tuple(stages), tuple(numbers[v] for v in graph.outputs), constants)


def _ranks(graph: Graph, reasons: dict[Node, str]) -> dict[Node, int]:
    """How many changes between native code (even) and host (odd) lie before each node. A node waits for its operands,
    and for whoever finds out the sizes in its types."""
    finder: dict[str, Node] = {}
    finders: dict[Node, list[Node]] = {}
    for n in graph.nodes:
        for name in _found_sizes(n):
            finder.setdefault(name, n)
    for n in graph.nodes:
        sizes = frozenset().union(*(type_symbols(v.type) for v in n.outputs))
        finders[n] = [finder[name] for name in sizes if name in finder and finder[name] is not n]
    rank = dict.fromkeys(graph.nodes, 0)
    changed = True
    while changed:  # one sweep, and another for each size that is found out later than a node that does not read it
        changed = False
        for n in graph.nodes:
            if n.op.kind is Kind.LEAF:
                continue
            base = max((*(rank[v.node] for v in n.inputs), *(rank[m] + 1 for m in finders[n])), default=0)
            wanted = base if base % 2 == bool(reasons[n]) else base + 1
            if wanted > rank[n]:
                rank[n], changed = wanted, True
    return rank


def _stage(batch: list[Node], writes: list[Value], numbers: dict[Value, int], reason: str) -> Stage:
    inside = set(batch)
    outside = [v for n in batch for v in n.inputs if v.node not in inside and v.node.op.name != "constant"]
    reads = tuple(dict.fromkeys(outside))
    graph = None
    if not reason:
        new: dict[Value, Value] = {v: input_value(f"v{numbers[v]}", v.type) for v in reads}
        for node in batch:
            new.update({v: v for v in node.inputs if v.node.op.name == "constant"})
            with location(*location_of(node)):
                new.update(zip(node.outputs, remake(node, tuple(new[v] for v in node.inputs)), strict=True))
        graph = Graph([new[v] for v in reads], [new.get(v, v) for v in writes])
    read = tuple(numbers[v] for v in reads)
    for v in writes:
        numbers[v] = len(numbers)
    # a host node keeps its own types: made again, it would promise other unknown sizes
    return Stage(read, tuple(numbers[v] for v in writes), graph, batch[0] if reason else None, reason)
