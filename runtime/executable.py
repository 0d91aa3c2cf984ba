"""A compiled model: calls, input checks, and one specialisation for each signature of input shapes.

The first call with new shapes compiles for them; the result is remembered. What was compiled again and why goes to
the log (`logging.getLogger("graphc")`).

What compiles is imported when there is something to compile: a process that finds its model stored never does.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from graphc.errors import InputError, NeedsValue
from graphc.ir.types import OptionalType, SequenceType, TensorType, Type
from graphc.options import Options

if TYPE_CHECKING:
    from graphc.ir.dtypes import DType
    from graphc.ir.graph import Graph
    from graphc.runtime.specialisation import Specialisation
    from graphc.runtime.stored import Store, StoredSpecialisation

__all__ = ["Executable", "GraphSource", "Port", "Source"]


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
        from graphc.ir.interpret import bind_symbols
        from graphc.passes.specialise import specialise

        sizes: dict[str, int] = {}
        for port in self.inputs:
            if not bind_symbols(port.type, arguments[port.name], sizes):
                raise InputError(f"input {port.name!r} does not fit {port.type}")
        return specialise(self._graph, sizes)


class _Call(NamedTuple):
    """The inputs of a call, by name, element type and shape, and what gave the outputs for them."""

    inputs: tuple[tuple[str, np.dtype, tuple[int, ...]], ...]
    run: Callable[[list[np.ndarray]], list[Any]]


class Executable:
    """A compiled model. Call it with arrays, or use `run` as one uses onnxruntime's session.

    Threads may call it at the same time; runs of one specialisation take turns.
    """

    #: specialisations kept; the oldest goes first
    KEEP = 16
    #: how many a process stores on disk, each with its own copy of the weights
    STORE = 4

    def __init__(
        self, source: Source, options: Options, store: Store | None = None, static: tuple[str, ...] = ()
    ) -> None:
        """`store` is where compiled forms are kept between processes, `static` what a former process found out."""
        self.source, self.options = source, options
        self._store = store
        self._specialisations: OrderedDict[object, Specialisation | StoredSpecialisation] = OrderedDict()
        self._static = static  # inputs whose values are part of the signature
        self._lock = threading.RLock()
        self._last: _Call | None = None

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
        if output_names is None and out is None:
            found = self._as_last_time(feeds)
            if found is not None:
                return found
        positions = self._output_positions(output_names)
        arrays = self._check(feeds)
        specialisation = self._specialisation(arrays)
        given = [arrays[p.name] for p in self.inputs]
        results = specialisation.run(given)
        self._remember(given, specialisation)
        for name, target in (out or {}).items():
            _store(name, results[self._output_positions([name])[0]], target)
            results[self._output_positions([name])[0]] = target
        return [results[i] for i in positions]

    def _as_last_time(self, feeds: Mapping[str, Any]) -> list[Any] | None:
        """The outputs, if the inputs are arrays of just the types and shapes of the last call: nothing is left to check.
        None otherwise."""
        last = self._last
        if last is None or type(feeds) is not dict or len(feeds) != len(last.inputs):
            return None
        arrays = []
        for name, dtype, shape in last.inputs:
            array = feeds.get(name)
            if type(array) is not np.ndarray or array.dtype is not dtype or array.shape != shape:
                return None
            arrays.append(array)
        return last.run(arrays)

    def _remember(self, given: Sequence[Any], specialisation: Specialisation | StoredSpecialisation) -> None:
        if self._static or not all(type(a) is np.ndarray and a.dtype.kind in "fiub" for a in given):
            self._last = None  # its values count too, or it is no plain array
            return
        inputs = tuple([(p.name, a.dtype, a.shape) for p, a in zip(self.inputs, given, strict=True)])
        self._last = _Call(inputs, specialisation.runner)

    def prepare(self, **shapes: Sequence[int]) -> Specialisation | StoredSpecialisation:
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

    def specialisation(self, feeds: Mapping[str, Any]) -> Specialisation | StoredSpecialisation:
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

    def _specialisation(self, arrays: Mapping[str, Any]) -> Specialisation | StoredSpecialisation:
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

    def _compile(self, key: object, arrays: Mapping[str, Any]) -> Specialisation | StoredSpecialisation:
        specialisation: Specialisation | StoredSpecialisation | None = None
        if self._store is not None:
            static = self._static
            like = {n: a if n in static else _outline(a) for n, a in arrays.items()}
            graph = functools.partial(self.source.graph, like, static)
            specialisation = self._store.load((static, key), self.options, graph)
        if specialisation is None:
            specialisation = self._compiled(key, arrays)
        self._specialisations[key] = specialisation
        while len(self._specialisations) > self.KEEP:
            self._specialisations.popitem(last=False)
        return specialisation

    def _compiled(self, key: object, arrays: Mapping[str, Any]) -> Specialisation:
        from graphc.runtime.native import helpers_at_hand

        started = time.perf_counter()
        with helpers_at_hand():
            from graphc.runtime.specialisation import Specialisation, log

            specialisation = Specialisation(self.source.graph(arrays, self._static), self.options)
        log.info(
            "compiled %s for %s in %.2f s%s",
            self.source.name,
            ", ".join(f"{n}: {_describe(a)}" for n, a in arrays.items()) or "no inputs",
            time.perf_counter() - started,
            ": new input shapes" if self._specialisations else "",
        )
        if self._store is not None and len(self._specialisations) < self.STORE:
            self._store.keep((self._static, key), specialisation, self.inputs, self.outputs, self._static)
        return specialisation


def _outline(value: Any) -> Any:
    """An array of the same shape and type that takes no memory; anything else as it is."""
    return np.broadcast_to(np.zeros((), value.dtype), value.shape) if isinstance(value, np.ndarray) else value


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
