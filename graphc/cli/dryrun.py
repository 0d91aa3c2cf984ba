"""A compilation up to the generated source, kept step by step: what `graphc inspect` looks at.

It goes the way of `graphc.runtime.executable`, and stops before the kernels become machine code.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from graphc.errors import NeedsValue
from graphc.ir.graph import Graph, Node
from graphc.ir.manager import Pass
from graphc.ir.trace import Trace, trace
from graphc.ir.types import TensorType
from graphc.options import Options
from graphc.passes.pipeline import optimise, prepare
from graphc.runtime.executable import Source
from graphc.runtime.planned import Planned, planned
from graphc.runtime.stages import partition

__all__ = ["DryRun", "PassRecord", "dry_run"]


@dataclass(frozen=True)
class PassRecord:
    """What one pass left and how long it took."""

    name: str
    graph: Graph
    changed: bool
    seconds: float


@dataclass
class DryRun:
    """Everything seen on the way.

    `graphs` are the final graphs of the stretches of native code, `host` the nodes between them with the reasons;
    `unplanned` counts stretches whose sizes only a run knows.
    """

    options: Options
    imported: Graph
    import_seconds: float
    prepared: Graph
    trace: Trace
    passes: list[PassRecord] = field(default_factory=list)
    graphs: list[Graph] = field(default_factory=list)
    host: list[tuple[Node, str]] = field(default_factory=list)
    unplanned: int = 0

    @cached_property
    def stretches(self) -> list[Planned]:
        """The programs of `graphs`; made when asked for: a graph that cannot be lowered can be looked at."""
        return [planned(graph, self.options) for graph in self.graphs]


def dry_run(model: Source, feeds: Mapping[str, np.ndarray], options: Options, explain: bool = False) -> DryRun:
    """Go through a compilation for inputs like `feeds`. Raises what compiling would raise."""
    started = time.perf_counter()
    imported = _import(model, feeds)
    import_seconds = time.perf_counter() - started
    records: list[PassRecord] = []

    def hook(p: Pass, before: Graph, after: Graph, seconds: float) -> None:
        records.append(PassRecord(p.name, after, after is not before, seconds))

    with trace(explain=explain) as events:
        prepared = prepare(imported, options, hooks=(hook,))
        seen = DryRun(options, imported, import_seconds, prepared, events, records)
        for stage in partition(prepared).stages:
            if stage.node is not None:
                seen.host.append((stage.node, stage.reason))
                continue
            assert stage.graph is not None
            if all(isinstance(v.type, TensorType) and v.type.is_static for n in stage.graph.nodes for v in n.outputs):
                seen.graphs.append(optimise(stage.graph, options, hooks=(hook,)))
            else:
                seen.unplanned += 1
    return seen


def _import(model: Source, feeds: Mapping[str, np.ndarray]) -> Graph:
    arguments = {port.name: feeds.get(port.name) for port in model.inputs}
    known: set[str] = set()
    while True:
        try:
            return model.graph(arguments, known)
        except NeedsValue as request:
            known.update(request.names)
