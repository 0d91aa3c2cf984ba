"""What rules and passes did, for people: inside `with trace() as t`, every application of a rule is counted, and with
`explain=True` every refusal is kept with its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple

from graphc.ir.graph import Node, location_of

__all__ = ["Event", "Trace", "absorb", "is_explaining", "record", "refuse", "trace"]


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


def absorb(other: Trace) -> None:
    """Note all that another trace has seen: of the attempt that was kept, among several."""
    if (t := _trace.get()) is not None:
        t.counts.update(other.counts)
        t.events.extend(other.events)


def is_explaining() -> bool:
    """Whether somebody wants to know why things are not done; asks where a reason is costly to put in words."""
    t = _trace.get()
    return t is not None and t.explain


def record(name: str, node: Node) -> None:
    """Note that `name` was applied at `node`; for passes that are not made of rules."""
    if (t := _trace.get()) is not None:
        t.counts[name] += 1
        t.events.append(Event(name, node.op.name, location_of(node), ""))


def refuse(name: str, node: Node, why: str) -> None:
    """Note why `name` was not applied at `node`."""
    if (t := _trace.get()) is not None and t.explain:
        t.events.append(Event(name, node.op.name, location_of(node), why))
