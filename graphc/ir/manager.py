"""Passes, and the manager that runs them.

A `Pass` is a named function from Graph to Graph, and the same object back means that nothing changed. `PassManager` runs
passes in order, holds them to their contract and calls its hooks between them; verifying, timing and dumping are hooks.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias
from weakref import WeakSet

from graphc.errors import GraphcError, PassError
from graphc.ir.garbage import collector_waits
from graphc.ir.graph import Graph
from graphc.ir.trace import is_explaining
from graphc.ir.types import TensorType, Type
from graphc.ir.verify import verify

__all__ = ["Dump", "Hook", "Pass", "PassManager", "Timer", "once_settled", "verify_between"]


@dataclass(frozen=True)
class Pass:
    """A step of a compilation: Graph in, Graph out; the same object back means that nothing changed.

    `requires` names passes that must have run before when they are part of the pipeline. `level` is the lowest level of
    optimisation that has it, and `asked` whether the other options ask for it; without one that is `needed` a graph
    cannot be lowered.
    """

    name: str
    run: Callable[[Graph], Graph]
    requires: tuple[str, ...] = ()
    level: int = 0
    asked: bool = True
    needed: bool = False


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
        with collector_waits():
            return self._run(graph)

    def _run(self, graph: Graph) -> Graph:
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
    """A pass keeps the graph's signature: names, ranks and element types. Extents may become known."""
    if before.input_names != after.input_names or before.output_names != after.output_names:
        raise PassError(f"the pass changed the signature from {before!r} to {after!r}")
    for what, names, old, new in (
        ("input", before.input_names, before.inputs, after.inputs),
        ("output", before.output_names, before.outputs, after.outputs),
    ):
        for name, a, b in zip(names, old, new, strict=True):
            if a is not b and _outline(a.type) != _outline(b.type):
                raise PassError(
                    f"the pass changed the {what} {name!r} from {a.type} to {b.type}; rank and element type must stay"
                )


def _outline(t: Type) -> object:
    """What a pass keeps of a type."""
    return (t.dtype, t.rank) if isinstance(t, TensorType) else (type(t), _outline(t.element))


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


_settled: dict[object, WeakSet[Graph]] = {}


def once_settled(key: object, function: Callable[[Graph], Graph], graph: Graph) -> Graph:
    """`function(graph)`, for a function that does nothing to its own results, which are remembered under `key`."""
    done = _settled.setdefault(key, WeakSet())
    if graph in done and not is_explaining():
        return graph
    result = function(graph)
    done.add(result)
    return result
