"""Rewriting: the engine that brings every value of a graph to its normal form under a set of rules.

One sweep, operands first. What costs in a large graph is the nodes at which nothing happens, and those that only read
something that was replaced; both have a short way through the engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from graphc.errors import PassError
from graphc.ir.bodies import in_bodies
from graphc.ir.graph import Graph, Node, Value, describe_location, location, remake
from graphc.ir.rules import Rule, Uses
from graphc.ir.trace import is_explaining, record, refuse

__all__ = ["Evaluate", "rewrite"]

#: gives the values of a node that depends on no input, or None when they are not computed now
Evaluate: TypeAlias = Callable[[Node], Sequence[Value] | None]


def rewrite(
    graph: Graph,
    rules: Iterable[Rule],
    *,
    bodies: bool = True,
    fuel: int | None = None,
    evaluate: Evaluate | None = None,
) -> Graph:
    """The graph in normal form: no rule applies anywhere any more. The same object when none did.

    Operands are brought to normal form before the node that reads them, and so is whatever a rewrite makes. `fuel`
    bounds the applications (by default 100 a node). Bodies of control flow are rewritten too unless `bodies` is False.
    `evaluate` goes before the rules at nodes that depend on no input: what rules make of constants is folded at once.

    Raises PassError when a rule changes a type, when rules undo each other, or when the fuel runs out.
    """
    rules = tuple(rules)
    if bodies:
        graph = in_bodies(graph, lambda body: rewrite(body, rules, fuel=fuel, evaluate=evaluate))
    return _Engine(graph, rules, fuel if fuel is not None else 100 * len(graph.nodes) + 1000, evaluate).run()


class _Engine:
    """One run of `rewrite`; iterative: neither a deep graph nor a long chain of rewrites overflows the stack."""

    def __init__(self, graph: Graph, rules: Sequence[Rule], fuel: int, evaluate: Evaluate | None) -> None:
        self.graph, self.fuel, self.evaluate = graph, fuel, evaluate
        self.by_root: dict[str, list[Rule]] = {}
        for r in rules:
            for root in r.roots:
                self.by_root.setdefault(root, []).append(r)
        self.final: dict[Node, tuple[Value, ...] | None] = {}  # None: the node itself
        self.uses = Uses(graph, self.final)
        self.forward: dict[Node, tuple[Value, ...]] = {}  # replaced by these, which are not yet in normal form
        self.recent: list[str] = []
        self.explaining = is_explaining()

    def run(self) -> Graph:
        graph, final = self.graph, self.final
        for node in graph.nodes:  # producers first, so the operands are in normal form
            if node in final:
                continue
            for v in node.inputs:
                if final[v.node] is not None:
                    self.move(node)
                    break
            else:
                if not self.tried(node):
                    self.normalise(node)
        outputs = tuple(self.lookup(v) for v in graph.outputs)
        return graph if outputs == graph.outputs else graph.with_outputs(outputs)

    def move(self, node: Node) -> None:
        """Finish a node some of whose operands, all in normal form, were replaced."""
        made = remake(node, tuple([self.lookup(v) for v in node.inputs]), node.where)
        like = made[0].node
        if like not in self.final and not self.tried(like):
            self.normalise(like)
        self.final[node] = values = self.final[like] or made
        self.uses.replaced(node, values)

    def lookup(self, v: Value) -> Value:
        found = self.final[v.node]
        return v if found is None else found[v.index]

    def tried(self, node: Node) -> bool:
        """Whether a node whose operands are in normal form is itself; otherwise what to put in its place is noted."""
        made = self.apply(node)
        if made is None:
            self.final[node] = None
        else:
            self.forward[node] = made
        return made is None

    def normalise(self, root: Node) -> None:
        stack = [root]
        while stack:
            node = stack[-1]
            if node in self.final:
                stack.pop()
                continue
            if node in self.forward:
                waiting = self.unfinished(self.forward[node])
                if not waiting:
                    self.finish(node, tuple([self.lookup(v) for v in self.forward.pop(node)]))
                stack += waiting
                continue
            waiting = self.unfinished(node.inputs)
            if waiting:
                stack += waiting
                continue
            inputs = tuple([self.lookup(v) for v in node.inputs])
            new = self.apply(node) if inputs == node.inputs else remake(node, inputs, node.where)
            if new is None:
                self.final[node] = None
            else:
                self.forward[node] = new

    def unfinished(self, values: Sequence[Value]) -> list[Node]:
        waiting = list(dict.fromkeys([v.node for v in values if v.node not in self.final]))
        for node in waiting:
            if node in self.forward:
                names = ", ".join(dict.fromkeys(self.recent[-6:]))
                raise PassError(
                    f"rewriting goes round in circles at {node.op.name}{describe_location(node)}; last rules: {names}"
                )
        return waiting[::-1]

    def finish(self, node: Node, values: tuple[Value, ...]) -> None:
        if values == node.outputs:
            self.final[node] = None
        else:
            self.final[node] = values
            self.uses.replaced(node, values)

    def apply(self, node: Node) -> tuple[Value, ...] | None:
        """What the first rule that fires gives for a node whose operands are in normal form, or None."""
        if node.level < 0 and self.evaluate is not None and node.inputs:
            values = self.evaluate(node)
            if values is not None:
                return tuple(values)
        for r in self.by_root.get(node.op.name, ()):
            why = r.check(node, self.uses)
            if why is None:
                return self.fire(r, node)
            if self.explaining:
                refuse(r.name, node, why)
        return None

    def fire(self, r: Rule, node: Node) -> tuple[Value, ...]:
        """What the rule puts in the place of the node, of the very same types."""
        self.recent.append(r.name)
        if len(self.recent) > self.fuel:
            names = ", ".join(f"{n} ({c})" for n, c in Counter(self.recent[-100:]).most_common(3))
            raise PassError(
                f"rewriting does not come to an end: {self.fuel} applications; lately {names}{describe_location(node)}"
            )
        with location(*node.where):
            result = r.rewrite(node)
        values = (result,) if isinstance(result, Value) else tuple(result)
        types = tuple([v.type for v in values])
        if types != node.types:
            wanted, got = ", ".join(map(str, node.types)), ", ".join(map(str, types))
            raise PassError(
                f"rule {r.name} changed the type of {node.op.name}{describe_location(node)} from {wanted} to {got}"
            )
        record(r.name, node)
        return values
