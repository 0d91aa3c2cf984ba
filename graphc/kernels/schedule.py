"""The order in which a graph's nodes are computed, for little memory.

Two rules. Of a node's operands the one with the longest way to it is computed first, so that what is short to compute
waits until its reader is about to run. And a node whose operands are there goes first when it frees more memory than
it takes, because it is the last to read large values. Without that, the gradients of weights would come after the whole
backward pass, with every activation and every cotangent alive until then.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.types import TensorType
from graphc.ops.spec import Kind

__all__ = ["live", "peak", "schedule"]


def schedule(graph: Graph) -> list[Node]:
    """All nodes of the graph, producers first. Shapes must be known. Takes O(n log n) for n uses of values."""
    return _Scheduler(graph).run()


class _Scheduler:
    """Nodes are computed in units: an operation with the rearrangements (packed weights, say) that it alone reads.

    A value lies in a buffer, which views of it share; a buffer is free when the last unit that reads it has run."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.units = _units(graph)
        self.place = {unit: k for k, unit in enumerate(self.units)}
        head = {node: unit for unit, nodes in self.units.items() for node in nodes}
        buffers = _buffers(graph)
        outside = {buffers[v] for v in (*graph.inputs, *graph.outputs)}
        self.nbytes = {b: 0 if b in outside or b.node.op.kind is Kind.LEAF else _bytes(b) for b in buffers.values()}
        self.readers: dict[Value, set[Node]] = {}
        self.reads: dict[Node, list[Value]] = {}
        self.users: dict[Node, list[Node]] = {unit: [] for unit in self.units}
        self.missing: dict[Node, int] = {}
        self.change: dict[Node, int] = {}  # of the memory that is taken, when the unit runs
        for unit, nodes in self.units.items():
            read = dict.fromkeys(v for node in nodes for v in node.inputs if head[v.node] is not unit)
            self.reads[unit] = list(dict.fromkeys(buffers[v] for v in read))
            for b in self.reads[unit]:
                self.readers.setdefault(b, set()).add(unit)
            before = dict.fromkeys(head[v.node] for v in read)
            self.missing[unit] = len(before)
            for producer in before:
                self.users[producer].append(unit)
            self.change[unit] = sum(self.nbytes[v] for v in unit.outputs if buffers[v] == v)
        self.eager: list[int] = []
        self.done: set[Node] = set()
        self.result: list[Node] = []
        for b, readers in self.readers.items():
            self.settle(b, readers)

    def run(self) -> list[Node]:
        units = list(self.units)
        for unit in units:
            self.offer(unit)
        for unit in units:
            while self.eager:
                self.compute(units[heapq.heappop(self.eager)])
            self.compute(unit)
        return self.result

    def compute(self, unit: Node) -> None:
        if unit in self.done:
            return
        self.done.add(unit)
        self.result += self.units[unit]
        for b in self.reads[unit]:
            self.readers[b].discard(unit)
            self.settle(b, self.readers[b])
        for user in self.users[unit]:
            self.missing[user] -= 1
            self.offer(user)

    def settle(self, buffer: Value, readers: set[Node]) -> None:
        """The last reader of a buffer frees it."""
        if len(readers) == 1:
            (last,) = readers
            self.change[last] -= self.nbytes[buffer]
            self.offer(last)

    def offer(self, unit: Node) -> None:
        """A unit whose operands are there goes first when that pays. A view costs nothing and lets its readers go."""
        if not self.missing[unit] and (self.change[unit] < 0 or _is_view(unit) or unit.op.kind is Kind.LEAF):
            heapq.heappush(self.eager, self.place[unit])


def _deep_first(graph: Graph) -> list[Node]:
    """All nodes, producers first: depth first, and of a node's operands the one with the longest way to it first.

    What is short to compute is then computed late, when its reader is about to run (in the spirit of R. Sethi & J.
    Ullman, "The Generation of Optimal Code for Arithmetic Expressions", 1970)."""
    depth: dict[Node, int] = {}
    for node in graph.nodes:
        depth[node] = 1 + max((depth[v.node] for v in node.inputs), default=0)
    seen: dict[Node, None] = {}
    stack = [(v.node, False) for v in reversed((*graph.inputs, *graph.outputs))]
    while stack:
        node, operands_done = stack.pop()
        if node in seen:
            continue
        if operands_done:
            seen[node] = None
        else:
            stack.append((node, True))
            stack += sorted(((v.node, False) for v in reversed(node.inputs)), key=lambda entry: depth[entry[0]])
    return list(seen)


def _units(graph: Graph) -> dict[Node, list[Node]]:
    """Every operation with what it alone reads of rearranged values, producers first; the deepest first."""
    nodes = _deep_first(graph)
    outputs = {v.node for v in graph.outputs}
    head: dict[Node, Node] = {}
    for node in reversed(nodes):
        users = {u for v in node.outputs for u in graph.users.get(v, ())}
        alone = node.op.kind is Kind.INJECTIVE and len(users) == 1 and node not in outputs
        head[node] = head[users.pop()] if alone else node
    units: dict[Node, list[Node]] = {node: [] for node in nodes if head[node] is node}
    for node in nodes:
        units[head[node]].append(node)
    return units


def peak(graph: Graph) -> int:
    """The most bytes that values between inputs and outputs take at once in this order: what a plan is about to need.

    An estimate: it knows nothing of fusion and of workspaces.
    """
    return max(live(graph, schedule(graph)), default=0)


def live(graph: Graph, order: Sequence[Node]) -> list[int]:
    """The bytes that values between inputs and outputs take while each node of `order` runs, its body included."""
    buffer = _buffers(graph)
    outside = {buffer[v] for v in (*graph.inputs, *graph.outputs)}
    left = Counter(buffer[v] for node in graph.nodes for v in set(node.inputs))
    taken, result = 0, []
    for node in order:
        for v in node.outputs:
            if buffer[v] == v and v not in outside and node.op.kind is not Kind.LEAF:
                taken += _bytes(v)
        result.append(taken + max(map(peak, node.bodies), default=0))
        for v in set(node.inputs):
            left[buffer[v]] -= 1
            if not left[buffer[v]] and buffer[v] not in outside and buffer[v].node.op.kind is not Kind.LEAF:
                taken -= _bytes(buffer[v])
    return result


def _is_view(node: Node) -> bool:
    return node.op.kind is Kind.INJECTIVE and node.op.view is not None


def _buffers(graph: Graph) -> dict[Value, Value]:
    """The value in whose memory each value lies: its own, or its operand's when it is a view."""
    buffer: dict[Value, Value] = {}
    for node in graph.nodes:
        for v in node.outputs:
            buffer[v] = buffer[node.inputs[0]] if _is_view(node) else v
    return buffer


def _bytes(v: Value) -> int:
    return v.type.nbytes if isinstance(v.type, TensorType) and v.type.is_static else 0
