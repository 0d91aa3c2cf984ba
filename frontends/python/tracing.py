"""Which trace is running. Traces nest: a loop's body, and a function that is differentiated, are traced on their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from graphc.ir.graph import Value

__all__ = ["Trace", "current", "tracing"]


@dataclass(eq=False)
class Trace:
    """One run of a function on traced tensors; `level` is how many traces it is nested in."""

    name: str
    level: int
    open: bool = True
    #: the values that it has read from traces around it, and whose they are
    captured: dict[Value, Trace] = field(default_factory=dict)

    def capture(self, value: Value, owner: Trace) -> None:
        """Note that a value of `owner`, a trace around this one, is read."""
        if owner is not self:
            self.captured.setdefault(value, owner)


_current: ContextVar[Trace | None] = ContextVar("graphc_trace", default=None)


def current() -> Trace | None:
    """The innermost trace that is running; None outside of any, where functions compute at once."""
    return _current.get()


@contextmanager
def tracing(name: str) -> Iterator[Trace]:
    """A new trace inside the current one. Tensors made in it cannot be used after it."""
    outer = _current.get()
    trace = Trace(name, outer.level + 1 if outer else 0)
    token = _current.set(trace)
    try:
        yield trace
    finally:
        trace.open = False
        _current.reset(token)
