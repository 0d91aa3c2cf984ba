"""Cutting a graph into stages: stretches that become one native program, and what runs on the host between them.

Strings, sequences, optionals and operations whose result sizes depend on the data have no place in a native program
of fixed sizes. They run on the host, and everything else is gathered into as few stretches as possible.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.graph import Graph, Node, Value, input_value, location, location_of, remake
from graphc.ir.types import TensorType, Type, type_symbols
from graphc.ops.spec import Kind, has_kernel

__all__ = ["Stage", "host_reason", "partition"]


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
    known = frozenset().union(*(type_symbols(v.type) for v in node.inputs))
    if any(type_symbols(v.type) - known for v in node.outputs):
        return "the size of its result depends on the data"
    for body in node.bodies:
        for inner in body.nodes:
            if reason := host_reason(inner):
                return f"its body has {inner.op.name}: {reason}"
    return ""


def _is_native(t: Type) -> bool:
    return isinstance(t, TensorType) and has_kernel(t.dtype)


def partition(graph: Graph) -> tuple[list[Stage], tuple[int, ...]]:
    """Stages that compute the graph, and the numbers of its outputs; inputs have the numbers 0, 1, ...

    Stretches are as long as dependencies allow: all kernel nodes that are ready, then the host nodes that are ready,
    and so on.
    """
    numbers: dict[Value, int] = {v: i for i, v in enumerate(graph.inputs)}
    reasons = {n: host_reason(n) for n in graph.nodes}
    if not any(reasons.values()) and all(_is_native(v.type) for v in (*graph.inputs, *graph.outputs)):
        # nearly every model: one stretch, the graph as it is, under its own names
        results = tuple(range(len(graph.inputs), len(graph.inputs) + len(graph.outputs)))
        return [Stage(tuple(range(len(graph.inputs))), results, graph)], results
    rank = _ranks(graph, reasons)
    needed = set(graph.outputs)
    groups: dict[int, list[Node]] = {}
    for n in graph.nodes:
        if n.op.kind is not Kind.LEAF:
            groups.setdefault(rank[n], []).append(n)
            needed.update(v for v in n.inputs if rank[v.node] != rank[n] or reasons[n] or reasons[v.node])
    if not groups and any(v not in numbers for v in graph.outputs):
        groups = {0: []}
    stages = []
    for r in sorted(groups):
        batches = [[n] for n in groups[r]] if r % 2 else [groups[r]]
        for batch in batches:
            writes = [v for n in batch for v in n.outputs if v in needed and v not in numbers]
            if not r:  # constants that are outputs, or that the host reads
                writes += [
                    v
                    for n in graph.nodes
                    if n.op.name == "constant"
                    for v in n.outputs
                    if v in needed and v not in numbers
                ]
            if r % 2:
                writes = list(batch[0].outputs)
            if writes:
                stages.append(_stage(batch, writes, numbers, reasons[batch[0]] if r % 2 else ""))
    return stages, tuple(numbers[v] for v in graph.outputs)


def _ranks(graph: Graph, reasons: dict[Node, str]) -> dict[Node, int]:
    """How many changes between native code (even) and host (odd) lie before each node. A node waits for its operands,
    and for whoever finds out the sizes in its types."""
    finder: dict[str, Node] = {}
    finders: dict[Node, list[Node]] = {}
    for n in graph.nodes:
        known = frozenset().union(*(type_symbols(v.type) for v in n.inputs))
        sizes = frozenset().union(*(type_symbols(v.type) for v in n.outputs)) - known
        if reasons[n]:
            for name in sizes:
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
