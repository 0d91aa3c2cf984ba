"""A compiled model: calls, input checks, and one specialisation for each signature of input shapes.

The first call with new shapes compiles for them; the result is remembered. What was compiled again and why goes to
the log (`logging.getLogger("graphc")`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from graphc.errors import GraphcError, InputError, NeedsValue
from graphc.ir.dtypes import DType
from graphc.ir.graph import Graph, Node
from graphc.ir.interpret import bind_symbols, run_node
from graphc.ir.types import OptionalType, SequenceType, TensorType, Type, type_symbols
from graphc.options import Options
from graphc.passes.pipeline import optimise, prepare
from graphc.passes.rematerialise import rematerialise
from graphc.passes.specialise import specialise
from graphc.runtime.assemble import CompiledGraph
from graphc.runtime.control import run_control
from graphc.runtime.planned import arena_bytes
from graphc.runtime.stages import Stage, partition

__all__ = ["Executable", "GraphSource", "Port", "Source"]

log = logging.getLogger("graphc")


@dataclass(frozen=True)
class Port:
    """An input or output: its name, and its type with symbolic dimensions (None where a model's output states none)."""

    name: str
    type: Any  # a graphc.ir.types.Type, which every input has

    @property
    def shape(self) -> list[int | str]:
        """Dimensions as onnxruntime shows them: ints, and names of symbolic ones."""
        if not isinstance(self.type, TensorType):
            return []
        return [d if isinstance(d, int) else str(d) for d in self.type.shape]


class Source(Protocol):
    """Where an executable gets its graphs from: an imported model, a graph, a traced function."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def check(self) -> None:
        """Raise UnsupportedError for what no input could make work, before anything is known of the inputs."""
        ...

    def graph(self, arguments: Mapping[str, Any], known: Collection[str]) -> Graph:
        """The graph for arguments like these: their types, and the values of those in `known`. Raises NeedsValue."""
        ...


class GraphSource:
    """A Graph as a source."""

    def __init__(self, graph: Graph, name: str = "graph") -> None:
        self.name, self._graph = name, graph
        self.inputs = tuple(Port(n, v.type) for n, v in zip(graph.input_names, graph.inputs, strict=True))
        self.outputs = tuple(Port(n, v.type) for n, v in zip(graph.output_names, graph.outputs, strict=True))

    def check(self) -> None:
        """A graph holds nothing but known operations."""

    def graph(self, arguments: Mapping[str, Any], known: Collection[str]) -> Graph:
        sizes: dict[str, int] = {}
        for port in self.inputs:
            if not bind_symbols(port.type, arguments[port.name], sizes):
                raise InputError(f"input {port.name!r} does not fit {port.type}")
        return specialise(self._graph, sizes)


class Executable:
    """A compiled model. Call it with arrays, or use `run` as one uses onnxruntime's session.

    Threads may call it at the same time; runs of one specialisation take turns.
    """

    #: specialisations kept; the oldest goes first
    KEEP = 16

    def __init__(self, source: Source, options: Options) -> None:
        self.source, self.options = source, options
        self._specialisations: OrderedDict[object, Specialisation] = OrderedDict()
        self._static: tuple[str, ...] = ()  # inputs whose values are part of the signature
        self._lock = threading.RLock()

    # -- what it takes and gives --------------------------------------------------------------------------------------

    @property
    def inputs(self) -> tuple[Port, ...]:
        """The inputs, in order."""
        return self.source.inputs

    @property
    def outputs(self) -> tuple[Port, ...]:
        """The outputs, in order."""
        return self.source.outputs

    def get_inputs(self) -> tuple[Port, ...]:
        """`inputs`, under onnxruntime's name."""
        return self.inputs

    def get_outputs(self) -> tuple[Port, ...]:
        """`outputs`, under onnxruntime's name."""
        return self.outputs

    # -- running ------------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run on arrays given in order or by name. One output comes as an array, several as a tuple."""
        names = [p.name for p in self.inputs]
        if len(args) > len(names):
            raise InputError(
                f"{self.source.name} takes {len(names)} inputs ({', '.join(names)}), {len(args)} were given"
            )
        feeds = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name in feeds:
                raise InputError(f"input {name!r} was given twice")
            feeds[name] = value
        results = self.run(None, feeds)
        return results[0] if len(results) == 1 else tuple(results)

    def run(
        self,
        output_names: Sequence[str] | None,
        feeds: Mapping[str, Any],
        *,
        out: Mapping[str, np.ndarray] | None = None,
    ) -> list[Any]:
        """Run as onnxruntime's `session.run`: the named outputs (None: all), in the order asked for.

        `feeds` maps every input's name to an array (anything with DLPack or `__array__` will do). `out` may map
        output names to arrays of the right shape and type that receive the results.
        Raises InputError for a name that does not exist or is missing, and for a wrong element type, rank or shape.
        """
        positions = self._output_positions(output_names)
        arrays = self._check(feeds)
        specialisation = self._specialisation(arrays)
        results = specialisation.run([arrays[p.name] for p in self.inputs])
        for name, target in (out or {}).items():
            _store(name, results[self._output_positions([name])[0]], target)
            results[self._output_positions([name])[0]] = target
        return [results[i] for i in positions]

    def prepare(self, **shapes: Sequence[int]) -> Specialisation:
        """Compile for the given input shapes now, without running; inputs of fixed shape may be left out.

        Raises NeedsValue when sizes in the model depend on the value of an input: it then compiles when it is called.
        """
        feeds = {}
        for p in self.inputs:
            shape = shapes.pop(p.name, None)
            if shape is None:
                if not isinstance(p.type, TensorType) or not p.type.is_static:
                    raise InputError(f"input {p.name!r} is {p.type}: give its shape")
                shape = p.type.static_shape
            assert isinstance(p.type, TensorType)
            feeds[p.name] = np.zeros(tuple(shape), p.type.dtype.numpy)
        if shapes:
            raise InputError(
                f"no input {next(iter(shapes))!r}; the inputs are {', '.join(p.name for p in self.inputs)}"
            )
        arrays = self._check(feeds)
        with self._lock:
            if self._static:
                raise NeedsValue(self._static, self.source.name)
            key = self._key(arrays)
            return self._specialisations.get(key) or self._compile(key, arrays)

    def specialisation(self, feeds: Mapping[str, Any]) -> Specialisation:
        """The compiled form that `run` would use for these inputs; compiles it when there is none yet."""
        return self._specialisation(self._check(feeds))

    def _output_positions(self, names: Sequence[str] | None) -> list[int]:
        known = {p.name: i for i, p in enumerate(self.outputs)}
        if names is None:
            return list(range(len(known)))
        for name in names:
            if name not in known:
                raise InputError(f"no output {name!r}; the outputs are {', '.join(known)}")
        return [known[n] for n in names]

    def _check(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs as arrays of the declared type, each checked."""
        if not isinstance(feeds, Mapping):
            raise InputError(f"inputs must be a mapping from names to arrays, not {type(feeds).__name__}")
        ports = {p.name: p for p in self.inputs}
        for name in feeds:
            if name not in ports:
                raise InputError(f"no input {name!r}; the inputs are {', '.join(ports)}")
        missing = [n for n, p in ports.items() if n not in feeds and not isinstance(p.type, OptionalType)]
        if missing:
            raise InputError(f"missing input{'s' if len(missing) > 1 else ''} {', '.join(map(repr, missing))}")
        symbols: dict[str, tuple[int, str]] = {}
        return {n: _as_input(p, feeds.get(n), symbols) for n, p in ports.items()}

    def _specialisation(self, arrays: Mapping[str, Any]) -> Specialisation:
        key = self._key(arrays)
        found = self._specialisations.get(key)
        if found is not None:
            return found
        with self._lock:
            while True:
                key = self._key(arrays)
                if key in self._specialisations:  # another thread was faster
                    return self._specialisations[key]
                try:
                    return self._compile(key, arrays)
                except NeedsValue as request:
                    self._static = tuple(sorted({*self._static, *request.names}))

    def _key(self, arrays: Mapping[str, Any]) -> object:
        shapes = tuple(map(_signature, arrays.values()))
        return shapes if not self._static else (shapes, tuple(_value_key(arrays[n]) for n in self._static))

    def _compile(self, key: object, arrays: Mapping[str, Any]) -> Specialisation:
        started = time.perf_counter()
        specialisation = Specialisation(self.source.graph(arrays, self._static), self.options)
        log.info(
            "compiled %s for %s in %.2f s%s",
            self.source.name,
            ", ".join(f"{n}: {_describe(a)}" for n, a in arrays.items()) or "no inputs",
            time.perf_counter() - started,
            ": new input shapes" if self._specialisations else "",
        )
        self._specialisations[key] = specialisation
        while len(self._specialisations) > self.KEEP:
            self._specialisations.popitem(last=False)
        return specialisation


class Specialisation:
    """A graph compiled for one signature: native stages with host stages between them, if there are any."""

    def __init__(self, graph: Graph, options: Options) -> None:
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

    def _plan(self, graph: Graph) -> CompiledGraph:
        if self._options.memory_budget is not None:
            graph = rematerialise(graph, self._options.memory_budget, lambda g: arena_bytes(g, self._options))
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


def _describe(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__


def _signature(value: Any) -> object:
    """What a specialisation is chosen by: the shape of an array, those of a sequence's elements."""
    if isinstance(value, np.ndarray):
        return value.shape
    return tuple(map(_signature, value)) if isinstance(value, list) else None


def _value_key(value: Any) -> object:
    if not isinstance(value, np.ndarray):
        return repr(value)
    return (value.shape, repr(value.tolist()) if value.dtype == object else value.tobytes())


def _as_input(port: Port, value: Any, symbols: dict[str, tuple[int, str]]) -> Any:
    """`value` as what `port` declares; checks sizes that share a symbol against each other."""
    expected: Type = port.type
    if isinstance(expected, SequenceType | OptionalType):
        return _as_container(port.name, expected, value)
    array = _to_array(port.name, value, expected.dtype)
    dtype = array.dtype
    if dtype != expected.dtype.numpy and not (expected.dtype.kind == "string" and dtype.kind in "USO"):
        raise InputError(
            f"input {port.name!r}: expected {expected.dtype} but got {dtype}; "
            f"convert it with .astype({expected.dtype.name!r})"
        )
    if array.ndim != expected.rank:
        raise InputError(
            f"input {port.name!r}: expected rank {expected.rank} {_show(expected.shape)} "
            f"but got rank {array.ndim} {array.shape}"
        )
    for axis, (d, n) in enumerate(zip(expected.shape, array.shape, strict=True)):
        if isinstance(d, int):
            if d != n:
                raise InputError(
                    f"input {port.name!r}: axis {axis} must be {d} in {_show(expected.shape)} "
                    f"but is {n} in {array.shape}"
                )
        elif d.name is not None:
            first, where = symbols.setdefault(d.name, (n, f"axis {axis} of input {port.name!r}"))
            if first != n:
                raise InputError(f"input {port.name!r}: axis {axis} is {n}, but {d.name} is {first} at {where}")
    return array


def _as_container(name: str, expected: Type, value: Any) -> Any:
    """A sequence as a list, an optional as its value or None; element types are checked, shapes are free."""
    if isinstance(expected, OptionalType):
        return None if value is None else _as_container(name, expected.element, value)
    if isinstance(expected, SequenceType):
        if not isinstance(value, list | tuple):
            raise InputError(f"input {name!r}: expected a list of {expected.element} but got {type(value).__name__}")
        return [_as_container(f"{name}[{k}]", expected.element, item) for k, item in enumerate(value)]
    array = _to_array(name, value, expected.dtype)
    if array.dtype != expected.dtype.numpy and not (expected.dtype.kind == "string" and array.dtype.kind in "USO"):
        raise InputError(f"input {name!r}: expected {expected.dtype} but got {array.dtype}")
    return array


def _to_array(name: str, value: Any, dtype: DType) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    if value is None:
        raise InputError(f"input {name!r}: expected an array but got None")
    if hasattr(value, "__dlpack__"):
        return np.from_dlpack(value)
    if isinstance(value, bool | int | float | list | tuple | str):
        try:
            return np.asarray(value, dtype.numpy)
        except (TypeError, ValueError) as e:
            raise InputError(f"input {name!r}: cannot make a {dtype} array: {e}") from None
    try:
        return np.asarray(value)
    except Exception as e:
        raise InputError(f"input {name!r}: cannot make an array of {type(value).__name__}: {e}") from None


def _show(shape: Sequence[Any]) -> str:
    return f"({', '.join(map(str, shape))})"


def _store(name: str, result: Any, target: np.ndarray) -> None:
    if not isinstance(target, np.ndarray) or target.shape != result.shape or target.dtype != result.dtype:
        got = f"{target.dtype} {target.shape}" if isinstance(target, np.ndarray) else type(target).__name__
        raise InputError(f"out[{name!r}]: expected {result.dtype} {result.shape} but got {got}")
    np.copyto(target, result)
