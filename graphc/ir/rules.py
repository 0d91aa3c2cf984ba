"""Rules: local rewrites as data.

A `Rule` names the operations at whose nodes it may fire, a *check* that says why it does not, and a *rewrite* that gives
the replacement. `graphc.ir.rewrite` applies them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from graphc.ir.graph import Graph, Node, Value, location_of

__all__ = ["Check", "Rewrite", "Rule", "Uses", "located", "rule"]


class Uses:
    """How many readers a value has, being an output of the graph counted as one.

    Starts from the graph that is being rewritten and follows each replacement: new nodes come alive, nodes that
    nobody reads any more die and stop counting. A value that a rewrite has only just made counts as read once.
    Rules may use this to decide what pays, never what is right: duplicating a computation is always right here.
    """

    def __init__(self, graph: Graph, final: Mapping[Node, tuple[Value, ...] | None]) -> None:
        self._graph, self._final = graph, final  # what became of each node, None where it stayed
        # Few rules ask, so counting begins with the first question; until then replacements are only noted.
        self._counts: dict[Value, int] | None = None
        self._outputs: set[Value] = set()
        self._alive: set[Node] = set()
        self._noted: list[tuple[Node, Sequence[Value]]] = []

    def __call__(self, value: Value) -> int:
        return self._up_to_date().get(value, 1)

    def is_output(self, value: Value) -> bool:
        """Whether the graph returns the value."""
        self._up_to_date()
        return value in self._outputs

    def replaced(self, old: Node, new: Sequence[Value]) -> None:
        """Note that every reader of `old` reads `new` from now on, both in normal form."""
        self._noted.append((old, new))

    def _up_to_date(self) -> dict[Value, int]:
        counts = self._counts
        if counts is None:
            graph = self._graph
            counts = self._counts = {v: len(nodes) for v, nodes in graph.users.items()}
            self._outputs, self._alive = set(graph.outputs), set(graph.nodes)
            for v in graph.outputs:
                counts[v] = counts.get(v, 0) + 1
        for old, new in self._noted:
            self._replace(counts, old, new)
        self._noted.clear()
        return counts

    def _replace(self, counts: dict[Value, int], old: Node, new: Sequence[Value]) -> None:
        if old not in self._alive:
            return  # only passed through on the way to something else
        for a, b in zip(old.outputs, new, strict=True):
            if a in counts:
                counts[b] = counts.get(b, 0) + counts.pop(a)
            if a in self._outputs:
                self._outputs.add(b)
        born = [v.node for v in new]
        while born:
            node = born.pop()
            if node not in self._alive:
                self._alive.add(node)
                for v in node.inputs:
                    counts[v] = counts.get(v, 0) + 1
                    born.append(v.node)
        dying = [old]
        while dying:
            node = dying.pop()
            if node in self._alive and not any(counts.get(v) for v in node.outputs):
                self._alive.discard(node)
                for v in node.inputs:
                    final = self._final[v.node] if v not in counts else None
                    operand = v if final is None else final[v.index]
                    counts[operand] = counts.get(operand, 1) - 1
                    dying.append(operand.node)


Check: TypeAlias = Callable[[Node, Uses], str | None]
Rewrite: TypeAlias = Callable[[Node], Value | Sequence[Value]]


@dataclass(frozen=True, eq=False)
class Rule:
    """A local rewrite.

    roots       names of the operations whose nodes it looks at
    check       why it does not apply to a node, or None when it does
    rewrite     what to put in the node's place: its value (or values), of the same types
    """

    name: str
    roots: tuple[str, ...]
    check: Check
    rewrite: Rewrite
    summary: str = ""


def rule(*roots: str, check: Check) -> Callable[[Rewrite], Rule]:
    """Make a function the rewrite of a Rule, which takes the function's name and documentation."""

    def decorate(function: Rewrite) -> Rule:
        return Rule(function.__name__, roots, check, function, (function.__doc__ or "").strip())

    return decorate


def located(*nodes: Node) -> tuple[str, ...]:
    """The places of several nodes together, each once, in order: where a node made from all of them comes from."""
    return tuple(dict.fromkeys(place for node in nodes for place in location_of(node)))
