"""Rewriting: local rules with an engine that applies them, and passes with a manager that runs them.

A `Rule` is data: the operations at whose node it may fire, a *check* that says why it does not, and a *rewrite* that
gives the replacement. `rewrite` brings every value of a graph to its normal form under a set of rules, operands first,
in one sweep. A `Pass` is a named function from Graph to Graph, and the same object back means that nothing changed.
`PassManager` runs passes in order and calls its hooks between them; verifying, timing and dumping are hooks.

What happened is recorded where somebody listens: inside `with trace() as t`, every application of a rule is counted,
and with `explain=True` every refusal is kept with its reason.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias
from weakref import WeakSet

from graphc.errors import GraphcError, PassError
from graphc.ir.graph import Graph, Node, Value, describe_location, location, location_of, rebuild, remake, remake_bodies
from graphc.ir.verify import verify

__all__ = [
    "Dump", "Hook", "Pass", "PassManager", "Rule", "Timer", "Trace", "Uses", "deep", "in_bodies", "located",
    "once_settled", "record", "refuse",
    "rewrite", "rule", "trace", "verify_between",
]  # fmt: skip


# --- what happened, for people ---------------------------------------------------------------------------------------


class Event(NamedTuple):
    """One rule at one node: applied, or refused for a reason."""

    rule: str
    op: str
    where: tuple[str, ...]
    why: str  # "" when the rule was applied


@dataclass
class Trace:
    """What rules did: `counts` of applications by rule, and the events (refusals only when `explain` is set)."""

    explain: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    events: list[Event] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{count:6d}  {name}" for name, count in self.counts.most_common()]
        for e in dict.fromkeys(e for e in self.events if e.why):
            where = f" ({', '.join(e.where)})" if e.where else ""
            lines.append(f"{e.rule} not at {e.op}{where}: {e.why}")
        return "\n".join(lines)


_trace: ContextVar[Trace | None] = ContextVar("graphc_trace", default=None)


@contextmanager
def trace(explain: bool = False) -> Iterator[Trace]:
    """Record what rules do inside the block."""
    t = Trace(explain)
    token = _trace.set(t)
    try:
        yield t
    finally:
        _trace.reset(token)


def record(name: str, node: Node) -> None:
    """Note that `name` was applied at `node`; for passes that are not made of rules."""
    if (t := _trace.get()) is not None:
        t.counts[name] += 1
        t.events.append(Event(name, node.op.name, location_of(node), ""))


def refuse(name: str, node: Node, why: str) -> None:
    """Note why `name` was not applied at `node`."""
    if (t := _trace.get()) is not None and t.explain:
        t.events.append(Event(name, node.op.name, location_of(node), why))


# --- rules -----------------------------------------------------------------------------------------------------------


class Uses:
    """How many readers a value has, being an output of the graph counted as one.

    Starts from the graph that is being rewritten and follows each replacement: new nodes come alive, nodes that
    nobody reads any more die and stop counting. A value that a rewrite has only just made counts as read once.
    Rules may use this to decide what pays, never what is right: duplicating a computation is always right here.
    """

    def __init__(self, graph: Graph) -> None:
        self._counts: dict[Value, int] = {v: len(nodes) for v, nodes in graph.users.items()}
        self._outputs = set(graph.outputs)
        self._alive = set(graph.nodes)
        for v in graph.outputs:
            self._counts[v] = self._counts.get(v, 0) + 1

    def __call__(self, value: Value) -> int:
        return self._counts.get(value, 1)

    def is_output(self, value: Value) -> bool:
        """Whether the graph returns the value."""
        return value in self._outputs

    def _replace(self, old: Node, new: Sequence[Value], lookup: Callable[[Value], Value]) -> None:
        """Every reader of `old` reads `new` from now on; `lookup` tells what became of `old`'s own operands."""
        if old not in self._alive:
            return  # only passed through on the way to something else
        for a, b in zip(old.outputs, new, strict=True):
            if a in self._counts:
                self._counts[b] = self._counts.get(b, 0) + self._counts.pop(a)
            if a in self._outputs:
                self._outputs.add(b)
        born = [v.node for v in new]
        while born:
            node = born.pop()
            if node not in self._alive:
                self._alive.add(node)
                for v in node.inputs:
                    self._counts[v] = self._counts.get(v, 0) + 1
                    born.append(v.node)
        dying = [old]
        while dying:
            node = dying.pop()
            if node in self._alive and not any(self._counts.get(v) for v in node.outputs):
                self._alive.discard(node)
                for v in node.inputs:
                    operand = v if v in self._counts else lookup(v)
                    self._counts[operand] = self._counts.get(operand, 1) - 1
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


def _as_values(result: Value | Sequence[Value]) -> tuple[Value, ...]:
    return (result,) if isinstance(result, Value) else tuple(result)


def rewrite(graph: Graph, rules: Iterable[Rule], *, bodies: bool = True, fuel: int | None = None) -> Graph:
    """The graph in normal form: no rule applies anywhere any more. The same object when none did.

    Operands are brought to normal form before the node that reads them, and so is whatever a rewrite makes. `fuel`
    bounds the applications (by default 100 a node). Bodies of control flow are rewritten too unless `bodies` is False.

    Raises PassError when a rule changes a type, when rules undo each other, or when the fuel runs out.
    """
    rules = tuple(rules)
    if bodies:
        graph = in_bodies(graph, lambda body: rewrite(body, rules, fuel=fuel))
    return _Engine(graph, rules, fuel if fuel is not None else 100 * len(graph.nodes) + 1000).run()


class _Engine:
    """One run of `rewrite`; iterative: neither a deep graph nor a long chain of rewrites overflows the stack."""

    def __init__(self, graph: Graph, rules: Sequence[Rule], fuel: int) -> None:
        self.graph, self.fuel = graph, fuel
        self.uses = Uses(graph)
        self.by_root: dict[str, list[Rule]] = {}
        for r in rules:
            for root in r.roots:
                self.by_root.setdefault(root, []).append(r)
        self.final: dict[Node, tuple[Value, ...] | None] = {}  # None: the node itself
        self.forward: dict[Node, tuple[Value, ...]] = {}  # replaced by these, which are not yet in normal form
        self.recent: list[str] = []

    def run(self) -> Graph:
        graph, final = self.graph, self.final
        for node in graph.nodes:  # producers first, so the operands are in normal form
            # most nodes are as they should be, or differ in their operands alone: no stack for them
            if node in final:
                continue
            if any(final[v.node] is not None for v in node.inputs):
                with location(*location_of(node)):
                    made = remake(node, tuple([self.lookup(v) for v in node.inputs]))
                like = made[0].node
                if like not in final and not self.tried(like):
                    self.normalise(like)
                self.finish(node, tuple([self.lookup(v) for v in made]))
            elif not self.tried(node):
                self.normalise(node)
        outputs = tuple(self.lookup(v) for v in graph.outputs)
        return graph if outputs == graph.outputs else graph.with_outputs(outputs)

    def lookup(self, v: Value) -> Value:
        found = self.final[v.node]
        return v if found is None else found[v.index]

    def tried(self, node: Node) -> bool:
        """Whether a node whose operands are in normal form is itself; otherwise what to put in its place is noted."""
        made = self.apply(node) if node.op.name in self.by_root else None
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
                    self.finish(node, tuple(self.lookup(v) for v in self.forward.pop(node)))
                stack += waiting
                continue
            waiting = self.unfinished(node.inputs)
            if waiting:
                stack += waiting
                continue
            inputs = tuple(self.lookup(v) for v in node.inputs)
            if inputs == node.inputs:
                new = self.apply(node)
            else:
                with location(*location_of(node)):
                    new = remake(node, inputs)
            if new is None:
                self.final[node] = None
            else:
                self.forward[node] = new

    def unfinished(self, values: Sequence[Value]) -> list[Node]:
        waiting = list(dict.fromkeys(v.node for v in values if v.node not in self.final))
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
            self.uses._replace(node, values, self.lookup)

    def apply(self, node: Node) -> tuple[Value, ...] | None:
        """The first rule that fires at a node whose operands are in normal form, or None."""
        for r in self.by_root.get(node.op.name, ()):
            why = r.check(node, self.uses)
            if why is not None:
                refuse(r.name, node, why)
                continue
            self.recent.append(r.name)
            if len(self.recent) > self.fuel:
                names = ", ".join(f"{n} ({c})" for n, c in Counter(self.recent[-100:]).most_common(3))
                raise PassError(
                    f"rewriting does not come to an end: {self.fuel} applications; lately {names}"
                    + describe_location(node)
                )
            with location(*location_of(node)):
                values = _as_values(r.rewrite(node))
            types = tuple(v.type for v in values)
            if types != node.types:
                wanted, got = ", ".join(map(str, node.types)), ", ".join(map(str, types))
                raise PassError(
                    f"rule {r.name} changed the type of {node.op.name}{describe_location(node)} from {wanted} to {got}"
                )
            record(r.name, node)
            return values
        return None


_settled: dict[object, WeakSet[Graph]] = {}


def once_settled(key: object, function: Callable[[Graph], Graph], graph: Graph) -> Graph:
    """`function(graph)`, for a function that does nothing to its own results, which are remembered under `key`."""
    done = _settled.setdefault(key, WeakSet())
    t = _trace.get()
    if graph in done and (t is None or not t.explain):
        return graph
    result = function(graph)
    done.add(result)
    return result


# --- bodies ----------------------------------------------------------------------------------------------------------


def in_bodies(graph: Graph, function: Callable[[Graph], Graph]) -> Graph:
    """The graph with `function` applied to the bodies of control flow; a fusion's body is a kernel and left alone."""
    if not any(node.op.body_types is not None for node in graph.nodes):
        return graph

    def transform(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        if not node.bodies or node.op.name == "fusion":
            return remake(node, inputs)
        bodies = {k: function(v) for k, v in node.attrs.items() if isinstance(v, Graph)}
        same = all(body is node.attrs[k] for k, body in bodies.items())
        return remake(node, inputs) if same else remake_bodies(node, inputs, bodies)

    return rebuild(graph, transform)


def deep(function: Callable[[Graph], Graph]) -> Callable[[Graph], Graph]:
    """A function on graphs that works on the bodies of control flow first, innermost outwards, then on the graph."""

    def run(graph: Graph) -> Graph:
        return function(in_bodies(graph, run))

    return run


# --- passes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pass:
    """A step of a compilation: Graph in, Graph out; the same object back means that nothing changed.

    `requires` names passes that must have run before when they are part of the pipeline.
    """

    name: str
    run: Callable[[Graph], Graph]
    requires: tuple[str, ...] = ()


#: called after each pass with the pass, the graph before it, the graph after it, and the seconds it took
Hook: TypeAlias = Callable[[Pass, Graph, Graph, float], None]


class PassManager:
    """Runs passes in order. Raises PassError when a pass stands before one that it requires."""

    def __init__(self, passes: Iterable[Pass], hooks: Iterable[Hook] = ()) -> None:
        self.passes, self.hooks = tuple(passes), tuple(hooks)
        names = [p.name for p in self.passes]
        for i, p in enumerate(self.passes):
            for wanted in p.requires:
                if wanted in names and wanted not in names[:i]:
                    raise PassError(
                        f"pass {p.name!r} needs {wanted!r} to run before it; the order is {', '.join(names)}"
                    )

    def run(self, graph: Graph) -> Graph:
        """The graph after all passes. Errors say which pass they come from."""
        for p in self.passes:
            before, started = graph, time.perf_counter()
            try:
                graph = p.run(before)
                seconds = time.perf_counter() - started
                _check_contract(before, graph)
                for hook in self.hooks:
                    hook(p, before, graph, seconds)
            except GraphcError as e:
                e.add_note(f"in pass {p.name!r}")
                raise
        return graph


def _check_contract(before: Graph, after: Graph) -> None:
    """A pass keeps the graph's signature: names always, ranks and element types too."""
    if before.input_names != after.input_names or before.output_names != after.output_names:
        raise PassError(f"the pass changed the signature from {before!r} to {after!r}")


def verify_between(p: Pass, before: Graph, after: Graph, seconds: float) -> None:
    """Hook: verify what the pass gave, unless it changed nothing."""
    if after is not before:
        verify(after, f"after pass {p.name!r}")


@dataclass
class Timer:
    """Hook: seconds by pass, and whether the pass changed anything."""

    seconds: dict[str, float] = field(default_factory=dict)
    changed: dict[str, bool] = field(default_factory=dict)

    def __call__(self, p: Pass, before: Graph, after: Graph, seconds: float) -> None:
        self.seconds[p.name] = self.seconds.get(p.name, 0.0) + seconds
        self.changed[p.name] = self.changed.get(p.name, False) or after is not before

    def __str__(self) -> str:
        return "\n".join(
            f"{s * 1e3:8.1f} ms  {name}" + ("" if self.changed[name] else "  (no change)")
            for name, s in self.seconds.items()
        )


@dataclass
class Dump:
    """Hook: a numbered text file after each pass that changed something, in `folder` (made when missing)."""

    folder: Path
    number: int = 0

    def __call__(self, p: Pass, before: Graph, after: Graph, seconds: float) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.number == 0:
            (self.folder / "00_start.txt").write_text(str(before), encoding="utf-8")
        self.number += 1
        if after is not before:
            name = re.sub(r"\W+", "_", p.name)
            (self.folder / f"{self.number:02d}_{name}.txt").write_text(str(after), encoding="utf-8")
