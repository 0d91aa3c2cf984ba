"""A graph compiled for one signature of inputs: stretches of native code with operations on the host between them."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np

from graphc.errors import GraphcError
from graphc.ir.graph import Graph, Node
from graphc.ir.interpret import bind_symbols, run_node
from graphc.ir.types import type_symbols
from graphc.kernels.choice import using
from graphc.options import Options
from graphc.passes.pipeline import optimise, prepare
from graphc.passes.rematerialise import rematerialise
from graphc.passes.specialise import specialise
from graphc.runtime.assemble import CompiledGraph
from graphc.runtime.control import run_control
from graphc.runtime.executable import Executable, GraphSource
from graphc.runtime.footprint import Footprint, total
from graphc.runtime.planned import arena_bytes
from graphc.runtime.stages import Stage, partition

__all__ = ["Specialisation"]

log = logging.getLogger("graphc")


class Specialisation:
    """A graph compiled for one signature: native stages with host stages between them, if there are any."""

    def __init__(self, graph: Graph, options: Options) -> None:
        if options.tune:
            from graphc.runtime.tuning import Tuner

            plain = replace(options, tune=None)
            Tuner(plain).run(lambda: Specialisation(graph, plain), options.tune)
        self.options = options
        self.graph = prepare(graph, options)
        self.parts = partition(self.graph)
        self._compiled = [_compile_stage(s, options) for s in self.parts.stages]
        self._single = self._compiled[0] if self._straight() else None

    def _straight(self) -> bool:
        """Whether everything is one stretch from the inputs to the outputs, as in most models."""
        if len(self.parts.stages) != 1:
            return False
        (stage,) = self.parts.stages
        return stage.reads == tuple(range(len(self.graph.inputs))) and stage.writes == self.parts.results

    @property
    def plans(self) -> list[CompiledGraph]:
        """The native programs compiled so far, in the order they run."""
        return [p for s in self._compiled for p in s.plans]

    @property
    def footprint(self) -> Footprint:
        """What the native programs compiled so far take together."""
        return total(p.footprint for p in self.plans)

    @property
    def single_plan(self) -> CompiledGraph | None:
        """The native program that is all there is to it; None when there is more."""
        return self._single.plans[0] if isinstance(self._single, _NativeStage) and self._single.plans else None

    @property
    def runner(self) -> Callable[[list[Any]], list[Any]]:
        """What `run` comes to, for those who call often."""
        if isinstance(self._single, _NativeStage) and not self._single.depends_on_sizes:
            return self._single.plans[0].runner
        return self.run

    def sharing(self, given: Iterable[int]) -> dict[int, int]:
        """For outputs, the input among `given` whose array they can be written into: of the same type, and not read
        any more by then. `run` takes it as `donated`."""
        if self._single is None or not self._single.plans:
            return {}
        (plan,) = self._single.plans
        pairs: dict[int, int] = {}
        for number in given:
            for k, v in enumerate(self.graph.outputs):
                same = k not in pairs and v.type == self.graph.inputs[number].type
                if same and plan.program.may_share(number, k):
                    pairs[k] = number
                    break
        return pairs

    def run(self, arguments: list[Any], donated: Mapping[int, int] | None = None) -> list[Any]:
        """The outputs for checked arguments; `donated`: see `sharing`."""
        if self._single is not None:
            return self._single.run(arguments, {}, donated)
        symbols: dict[str, int] = {}  # sizes that the host finds out on the way
        values: dict[int, Any] = dict(enumerate(arguments)) | dict(self.parts.constants)
        for stage, compiled in zip(self.parts.stages, self._compiled, strict=True):
            results = compiled.run([values[i] for i in stage.reads], symbols, None)
            values.update(zip(stage.writes, results, strict=True))
        # a result that is a constant, or the caller's own array, is handed out as a copy
        shared = {*range(len(arguments)), *self.parts.constants}
        return [copy(values[i]) if i in shared else values[i] for i in self.parts.results]


def _compile_stage(stage: Stage, options: Options) -> _NativeStage | _HostStage:
    if stage.graph is not None:
        return _NativeStage(stage.graph, options)
    assert stage.node is not None
    return _HostStage(stage.node, options)


class _NativeStage:
    """A stretch of native code: one plan, or one for each set of sizes that the host found out."""

    def __init__(self, graph: Graph, options: Options) -> None:
        self._graph, self._options = graph, options
        self._plans: OrderedDict[tuple[int, ...], CompiledGraph] = OrderedDict()
        types = [v.type for n in graph.nodes for v in n.outputs]
        self._symbols = sorted(frozenset().union(*map(type_symbols, types)))
        if not self._symbols:
            self._plans[()] = self._plan(graph)

    @property
    def plans(self) -> list[CompiledGraph]:
        return list(self._plans.values())

    @property
    def depends_on_sizes(self) -> bool:
        """Whether there is a plan for each set of sizes, instead of one."""
        return bool(self._symbols)

    def _plan(self, graph: Graph) -> CompiledGraph:
        if self._options.memory_budget is not None:
            graph = rematerialise(graph, self._options.memory_budget, lambda g: arena_bytes(g, self._options))
        if self._options.tune is False:
            with using({}):
                return CompiledGraph(optimise(graph, self._options), self._options)
        return CompiledGraph(optimise(graph, self._options), self._options)

    def run(
        self, arguments: list[np.ndarray], symbols: dict[str, int], donated: Mapping[int, int] | None
    ) -> list[np.ndarray]:
        key = tuple(symbols[name] for name in self._symbols)
        plan = self._plans.get(key)
        if plan is None:
            sizes = dict(zip(self._symbols, key, strict=True))
            log.info("compiling a stretch of %d nodes for %s", len(self._graph.nodes), sizes)
            plan = self._plans[key] = self._plan(prepare(specialise(self._graph, sizes), self._options))
            while len(self._plans) > Executable.KEEP:
                self._plans.popitem(last=False)
        return plan.run(arguments, donated)


class _HostStage:
    """One operation through its reference; the bodies of control flow are compiled like any graph."""

    plans: tuple[CompiledGraph, ...] = ()

    def __init__(self, node: Node, options: Options) -> None:
        self._node = node
        self._reads = tuple(dict.fromkeys(v for v in node.inputs if v.node.op.name != "constant"))
        self._bodies = {b: Executable(GraphSource(b, node.op.name), options) for b in node.bodies}

    def run(self, arguments: list[Any], symbols: dict[str, int], donated: Mapping[int, int] | None) -> list[Any]:
        node = self._node
        given = dict(zip(self._reads, arguments, strict=True))
        operands = [given.get(v, v.literal) for v in node.inputs]
        if node.bodies:
            results = run_control(node, operands, self._run_body)
            for k, (v, result) in enumerate(zip(node.outputs, results, strict=True)):
                if not bind_symbols(v.type, result, symbols):
                    raise GraphcError(f"result {k} of {node.op.name} is not the {v.type} that it should be")
            return list(results)
        return list(run_node(node, operands, symbols))

    def _run_body(self, body: Graph, arguments: Sequence[Any]) -> list[Any]:
        executable = self._bodies[body]
        named = dict(zip(body.input_names, arguments, strict=True))
        return executable._specialisation(named).run([named[n] for n in body.input_names])
