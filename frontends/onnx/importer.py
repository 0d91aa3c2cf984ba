"""From a checked model to a graph: the registry of importers, what an importer is given, and the walk over the nodes.

An importer turns one ONNX operator into operations of the graph IR. It is registered with the versions of the operator
that it understands, and reads its attributes through a `Context`, which notices attributes that nobody read:

    @importer("Softmax", 13)
    def softmax(c: Context, x: Value) -> Value:
        return functions.softmax(x, axis=c.int("axis", -1))

Operators without an importer whose ONNX definition is a function are imported through that function. Everything that is
not supported is collected over the whole model and reported at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NoReturn, TypeAlias

import numpy as np
import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TypeProto, ValueInfoProto

from graphc.errors import GraphcError, InputError, ModelError, NeedsValue, UnsupportedError, UnsupportedItem
from graphc.frontends.onnx.loader import ModelSource, OnnxModel, _opsets, _subgraphs, domain_of, load_model
from graphc.frontends.onnx.static import Static
from graphc.frontends.onnx.tensors import element_type
from graphc.frontends.onnx.unranked import unranked
from graphc.ir.dims import Dim, DimLike, Symbol, fresh_symbol
from graphc.ir.graph import Graph, Literal, Value, constant, input_value, location
from graphc.ir.types import OptionalType, SequenceType, TensorType, Type
from graphc.ops.spec import Kind

__all__ = ["Context", "NeedsValue", "argument_type", "import_model", "importer", "input_types", "signature", "type_of"]


class _Unsupported(Exception):
    """Raised by an importer for what it cannot do; the walk collects it."""


Result: TypeAlias = "Value | None | Sequence[Value | None]"
ImporterFunction: TypeAlias = Callable[..., Result]


@dataclass(frozen=True, slots=True)
class _Importer:
    since: int
    function: ImporterFunction
    least: int
    most: int | None  # None: any number of operands


_REGISTRY: dict[tuple[str, str], list[_Importer]] = {}


def importer(op: str, *since: int, domain: str = "") -> Callable[[ImporterFunction], ImporterFunction]:
    """Register a function as the importer of the operator's versions `since`, and of the opsets up to the next version.

    The function is called with a `Context` and the operands; absent optional operands are None. It returns the value,
    or a sequence with one entry an output.
    """

    def enter(function: ImporterFunction) -> ImporterFunction:
        parameters = list(inspect.signature(function).parameters.values())[1:]
        variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        positional = [p for p in parameters if p.kind is not p.VAR_POSITIONAL]
        least = sum(p.default is p.empty for p in positional)
        entries = _REGISTRY.setdefault((domain, op), [])
        for version in since:
            if any(e.since == version for e in entries):
                raise ValueError(f"{domain}.{op} version {version} has two importers")
            entries.append(_Importer(version, function, least, None if variadic else len(positional)))
        entries.sort(key=lambda e: -e.since)
        return function

    return enter


def _load_importers() -> None:
    from graphc.frontends.onnx import operators  # noqa: F401  (registers them)


@lru_cache(maxsize=4096)
def _find(domain: str, op: str, opset: int) -> _Importer | None:
    return next((e for e in _REGISTRY.get((domain, op), ()) if e.since <= opset), None)


@lru_cache(maxsize=4096)
def _schema(domain: str, op: str, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op, opset, domain)
    except onnx.defs.SchemaError:
        return None


# --- what an importer is given -----------------------------------------------------------------------------------------

_KINDS = AttributeProto.AttributeType
_REQUIRED: Any = object()


class Context:
    """One ONNX node being imported: its attributes, and what is known of its operands.

    Attribute getters take a default; without one the attribute is required and its absence a ModelError.
    """

    def __init__(
        self,
        run: _Import,
        frame: _Frame,
        node: NodeProto,
        name: str,
        attributes: dict[str, AttributeProto],
        version: int,
    ) -> None:
        self._run, self._frame, self._node, self._attributes = run, frame, node, attributes
        self._read: set[str] = set()
        self.name = name
        self.op = node.op_type
        self.version = version  # the operator's version, as registered

    @property
    def opset(self) -> int:
        """The version of ONNX's operator set around this node."""
        return self._frame.opsets.get("", 0)

    # attributes

    def _attribute(self, name: str, kind: int, default: Any) -> AttributeProto | None:
        self._read.add(name)
        a = self._attributes.get(name)
        if a is None:
            if default is _REQUIRED:
                raise ModelError(f"node {self.name!r} ({self.op}) lacks the attribute {name!r}")
            return None
        if a.type != kind:
            raise ModelError(
                f"node {self.name!r} ({self.op}): attribute {name!r} is {_KINDS.Name(a.type)}, expected {_KINDS.Name(kind)}"
            )
        return a

    def has(self, name: str) -> bool:
        return name in self._attributes

    def ignore(self, *names: str) -> None:
        """Attributes that are hints and change no result."""
        self._read.update(names)

    def int(self, name: str, default: Any = _REQUIRED) -> Any:
        a = self._attribute(name, _KINDS.INT, default)
        return default if a is None else a.i

    def flag(self, name: str, default: bool = False) -> bool:
        return bool(self.int(name, int(default)))

    def float(self, name: str, default: Any = _REQUIRED) -> Any:
        a = self._attribute(name, _KINDS.FLOAT, default)
        return default if a is None else a.f

    def string(self, name: str, default: Any = _REQUIRED) -> Any:
        a = self._attribute(name, _KINDS.STRING, default)
        return default if a is None else self._text(a.s)

    def ints(self, name: str, default: Any = _REQUIRED) -> Any:
        a = self._attribute(name, _KINDS.INTS, default)
        return default if a is None else tuple(a.ints)

    def floats(self, name: str, default: Any = _REQUIRED) -> Any:
        a = self._attribute(name, _KINDS.FLOATS, default)
        return default if a is None else tuple(a.floats)

    def strings(self, name: str, default: Any = _REQUIRED) -> Any:
        a = self._attribute(name, _KINDS.STRINGS, default)
        return default if a is None else tuple(self._text(s) for s in a.strings)

    def tensor(self, name: str, default: Any = _REQUIRED) -> Any:
        """A tensor attribute as a Literal."""
        a = self._attribute(name, _KINDS.TENSOR, default)
        return default if a is None else self._run.model.literal(a.t)

    def sparse_tensor(self, name: str) -> Literal:
        a = self._attribute(name, _KINDS.SPARSE_TENSOR, _REQUIRED)
        return self._run.model.literal(a.sparse_tensor)  # type: ignore[union-attr]

    def graph(self, name: str) -> GraphProto:
        a = self._attribute(name, _KINDS.GRAPH, _REQUIRED)
        return a.g  # type: ignore[union-attr]

    def type_proto(self, name: str) -> TypeProto | None:
        a = self._attribute(name, _KINDS.TYPE_PROTO, None)
        return None if a is None else a.tp

    def dtype(self, name: str, default: Any = _REQUIRED) -> Any:
        """An attribute that holds ONNX's number of an element type, as a DType."""
        number = self.int(name, None if default is not _REQUIRED else _REQUIRED)
        return (
            default if number is None else element_type(number, f"node {self.name!r} ({self.op}): attribute {name!r}")
        )

    def _text(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise ModelError(f"node {self.name!r} ({self.op}) has a string attribute that is not UTF-8") from None

    # operands and outputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs; "" where nobody wants one."""
        return tuple(self._node.output)

    def wants(self, index: int) -> bool:
        return index < len(self._node.output) and bool(self._node.output[index])

    def known(self, v: Value) -> np.ndarray | None:
        """The value's array when it is known while importing (it may hold symbolic dimensions), else None."""
        return self._run.static.value(v)

    def static(self, v: Value, what: str) -> np.ndarray:
        """The value's array, which types depend on; `what` says for what. Raises NeedsValue when inputs decide it."""
        array = self.known(v)
        return array if array is not None else self._run.need(v, f"node {self.name!r} ({self.op})", what)

    def static_ints(self, v: Value, what: str) -> tuple[DimLike, ...]:
        """A vector (or scalar) of integers, each an int or a symbolic dimension."""
        return tuple(self.static(v, what).ravel().tolist())

    def concrete_ints(self, v: Value, what: str) -> tuple[int, ...]:
        """A vector of integers, none of them symbolic."""
        entries = self.static_ints(v, what)
        if any(isinstance(e, Dim) for e in entries):
            self.unsupported(f"{what} {list(map(str, entries))} is symbolic; give the inputs' concrete shapes")
        return entries  # type: ignore[return-value]

    def depends_on_data(self, v: Value) -> bool:
        """Whether only the run can tell the value: not even the values of the inputs would help the importer."""
        return self.known(v) is None and not self._run.deciding_inputs(v)

    def rank_one_extent(self, v: Value) -> int:
        """The number of entries of a vector."""
        if v.rank != 1 or isinstance(v.shape[0], Dim):
            self.invalid(f"{v.type} is no vector of known length")
        return v.shape[0]

    def axis(self, axis: int, rank: int) -> int:
        """A possibly negative axis, checked and counted from the front."""
        if not -rank <= axis < rank:
            raise ModelError(f"node {self.name!r} ({self.op}): axis {axis} is out of range for rank {rank}")
        return axis % rank

    def axes(self, axes: Sequence[int], rank: int) -> tuple[int, ...]:
        found = tuple(self.axis(int(a), rank) for a in axes)
        if len(set(found)) != len(found):
            raise ModelError(f"node {self.name!r} ({self.op}): the axes {list(axes)} repeat one")
        return found

    def unsupported(self, reason: str) -> NoReturn:
        raise _Unsupported(reason)

    def invalid(self, reason: str) -> NoReturn:
        raise ModelError(f"node {self.name!r} ({self.op}): {reason}")

    def constant(self, array: np.ndarray) -> Value:
        """A constant that the importer worked out; importing again gives the very same node, however large it is."""
        return constant(self._run.model.computed(array))

    # subgraphs and calls

    def inline(self, graph: GraphProto, arguments: Sequence[Value] = ()) -> list[Value]:
        """The outputs of a subgraph put in place of this node."""
        return self._run.inline(graph, arguments, self._frame, self.name)

    def body(
        self, graph: GraphProto, types: Sequence[Type], given: Mapping[int, Value] | None = None
    ) -> tuple[Graph, list[Value]]:
        """A subgraph as a closed graph, and the outer values that it captures.

        Its inputs are the subgraph's own, with the given types, then the captured values in the order returned.
        `given` says that an input always has a certain (constant) value; it stays in the signature.
        """
        return self._run.body(graph, types, given or {}, self._frame, self.name)


# --- the walk ------------------------------------------------------------------------------------------------------------


class _Poison:
    """Stands for the outputs of a node that is not supported, and for everything computed from them."""


_POISON = _Poison()
Entry: TypeAlias = "Value | None | _Poison"


class _Scope:
    """Names of one graph. A subgraph's scope looks outwards; a closed body turns what it finds there into inputs."""

    def __init__(self, outer: _Scope | None = None, closed: str = "", alias: dict[Value, Value] | None = None) -> None:
        self.names: dict[str, Entry] = {}
        self.outer = outer
        self.closed = closed  # a closed body's path, which makes its inputs' names unique; "" otherwise
        self.alias = alias if alias is not None else {}
        self.captured: dict[Value, Value] = {}  # outer value -> input of this body

    def find(self, name: str) -> Entry:
        if name in self.names:
            return self.names[name]
        if self.outer is None:
            raise ModelError(f"nothing makes the value {name!r}")
        entry = self.outer.find(name)
        if self.closed and isinstance(entry, Value):
            entry = self.capture(entry, name)
        return entry

    def capture(self, outer: Value, name: str) -> Value:
        if outer.literal is not None:  # constants are at home everywhere
            return outer
        if outer not in self.captured:
            inner = input_value(f"{self.closed}.{name}", outer.type)
            self.captured[outer] = inner
            self.alias[inner] = outer
        return self.captured[outer]


@dataclass(slots=True)
class _Frame:
    """What holds for the nodes of one function or graph: names, versions, the caller's attributes."""

    scope: _Scope
    opsets: Mapping[str, int]
    attributes: Mapping[str, AttributeProto] = field(default_factory=dict)
    path: str = ""
    depth: int = 0

    def inside(self, scope: _Scope, path: str) -> _Frame:
        return _Frame(scope, self.opsets, self.attributes, path, self.depth)


_MAX_CALL_DEPTH = 64
_MAX_NODES = 2_000_000
#: constants up to this many elements are folded while importing; shapes, axes and the like
_FOLD_ELEMENTS = Literal.BY_CONTENT  # so that importing again gives the very same graph
#: an input's value is asked for only where all that lies between is at most this large: shape arithmetic, not a network
_SMALL_ELEMENTS = 4096


class _Import:
    """One import of a model."""

    def __init__(self, model: OnnxModel, shapes: Mapping[str, Any], values: Mapping[str, np.ndarray]) -> None:
        self.model = model
        self.static = Static()
        self.items: list[UnsupportedItem] = []
        self.inputs: dict[Value, str] = {}
        self.values = values
        self.types = input_types(model, shapes)
        self.nodes = 0
        self.bodies = 0

    def graph(self) -> Graph:
        proto = self.model.proto.graph
        frame = _Frame(_Scope(), self.model.opsets)
        inputs = []
        for name, t in self.types.items():
            v = input_value(name, t)
            inputs.append(v)
            self.inputs[v] = name
            frame.scope.names[name] = self._value(name, t) if name in self.values else v
        self._initializers(proto, frame.scope)
        self._nodes(proto.node, frame)
        outputs = [frame.scope.find(v.name) for v in proto.output]
        if self.items:
            raise UnsupportedError(self.items)
        return Graph(inputs, outputs, [v.name for v in proto.output])  # type: ignore[arg-type]

    def _value(self, name: str, t: Type) -> Value:
        if not isinstance(t, TensorType):
            raise UnsupportedError(
                [UnsupportedItem("input", name, f"its value is needed while importing, but it is {t}")]
            )
        array = np.asarray(self.values[name])
        if array.dtype != t.dtype.numpy or any(
            isinstance(d, int) and d != n for d, n in zip(t.shape, array.shape, strict=False)
        ):
            raise InputError(f"the value of input {name!r} is {array.dtype}{list(array.shape)}, expected {t}")
        return constant(array.copy(), t.dtype, name)

    def _initializers(self, graph: GraphProto, scope: _Scope) -> None:
        for t in graph.initializer:
            if t.name not in scope.names:  # an input that the caller named takes its place
                scope.names[t.name] = constant(self.model.literal(t))
        for s in graph.sparse_initializer:
            if s.values.name not in scope.names:
                scope.names[s.values.name] = constant(self.model.literal(s))

    def _nodes(self, nodes: Sequence[NodeProto], frame: _Frame) -> None:
        self.nodes += len(nodes)
        if self.nodes > _MAX_NODES:
            raise ModelError(f"the model's functions expand to more than {_MAX_NODES} nodes")
        find, names = frame.scope.find, frame.scope.names
        for k, node in enumerate(nodes):
            name = frame.path + (node.name or f"{node.op_type}_{k}")
            operands: list[Entry] = [find(n) if n else None for n in node.input]
            if any(o is _POISON for o in operands):
                self._list_unknown([node], frame)
                outputs: Sequence[Entry] = ()
            else:
                with location(name):
                    outputs = self._node(node, name, operands, frame)  # type: ignore[arg-type]
            for n, out in zip(node.output, (*outputs, *[_POISON] * len(node.output)), strict=False):
                if n:
                    names[n] = out

    def _node(self, node: NodeProto, name: str, operands: list[Value | None], frame: _Frame) -> Sequence[Entry]:
        """The node's outputs, or () when it is not supported, which is noted."""
        domain = domain_of(node.domain)
        attributes = self._attributes(node, frame)
        try:
            function = self.model.functions.get((domain, node.op_type, node.overload))
            if function is not None:
                return self._call(function, operands, attributes, name, frame)
            opset = frame.opsets.get(domain)
            if opset is None:
                if domain in {d for d, _ in _REGISTRY}:
                    raise ModelError(
                        f"node {name!r} ({node.op_type}) uses the operator set {domain or 'ai.onnx'!r}, which is not imported"
                    )
                raise _Unsupported(f"unknown operator set {domain!r}")
            entry = _find(domain, node.op_type, opset)
            if entry is None:
                function = _definition(domain, opset, node, operands, attributes, frame)
                if function is None:
                    raise _Unsupported(_why_unknown(domain, node.op_type, opset))
                return self._call(function, operands, attributes, name, frame)
            return self._apply(entry, node, name, operands, attributes, frame)
        except _Unsupported as e:
            if str(e):
                self.items.append(UnsupportedItem(_shown(domain, node.op_type), name, str(e)))
        except (GraphcError, MemoryError):
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as e:
            raise ModelError(
                f"node {name!r} ({node.op_type}): its operands or attributes do not fit the operator ({type(e).__name__}: {e})"
            ) from e
        return ()

    def _apply(
        self,
        entry: _Importer,
        node: NodeProto,
        name: str,
        operands: list[Value | None],
        attributes: dict[str, AttributeProto],
        frame: _Frame,
    ) -> Sequence[Entry]:
        while operands and operands[-1] is None:
            operands.pop()
        if len(operands) < entry.least or (entry.most is not None and len(operands) > entry.most):
            takes = (
                f"{entry.least}"
                if entry.most == entry.least
                else f"{entry.least} to {entry.most}"
                if entry.most
                else f"at least {entry.least}"
            )
            raise ModelError(
                f"node {name!r} ({node.op_type}) has {len(operands)} operands; version {entry.since} of it takes {takes}"
            )
        if None in operands[: entry.least]:
            raise ModelError(f"node {name!r} ({node.op_type}): operand {operands.index(None)} is required")
        c = Context(self, frame, node, name, attributes, entry.since)
        result = entry.function(c, *operands)
        if len(attributes) > len(c._read):
            self._check_attributes(c, domain_of(node.domain))
        outputs: Sequence[Value | None] = (result,) if result is None or isinstance(result, Value) else result
        for k, n in enumerate(node.output):
            if n and (k >= len(outputs) or outputs[k] is None):
                raise _Unsupported(f"its output {k} ({n!r}) is not supported")
        if operands and all(o is None or o.literal is not None for o in operands):
            outputs = [self._fold(v) if v is not None else None for v in outputs]
        return outputs

    def _fold(self, v: Value) -> Value:
        """A small value that only depends on constants, as a constant."""
        if v.literal is not None:
            return v
        t = v.type
        if isinstance(t, TensorType) and (
            v.node.op.kind is Kind.HOST if not t.is_static else isinstance(t.size, int) and t.size <= _FOLD_ELEMENTS
        ):
            array = self.static.value(v)
            if array is not None and (array.dtype != object or t.dtype.kind == "string"):
                return constant(array, t.dtype)
        return v

    def _check_attributes(self, c: Context, domain: str) -> None:
        """Attributes that the importer did not read must have their default value."""
        schema = _schema(domain, c.op, c._frame.opsets.get(domain, 0))
        for name, a in c._attributes.items():
            if name in c._read:
                continue
            known = schema.attributes.get(name) if schema is not None else None
            if known is None:
                raise _Unsupported(
                    f"it has the attribute {name!r}, which version {c.version} of the operator does not know"
                )
            if onnx.helper.get_attribute_value(a) != onnx.helper.get_attribute_value(known.default_value):
                raise _Unsupported(f"attribute {name!r} = {onnx.helper.get_attribute_value(a)!r}")

    @staticmethod
    def _attributes(node: NodeProto, frame: _Frame) -> dict[str, AttributeProto]:
        """The node's attributes by name; references to the enclosing function's attributes are resolved."""
        found: dict[str, AttributeProto] = {}
        for a in node.attribute:
            if not a.ref_attr_name:
                found[a.name] = a
            elif a.ref_attr_name in frame.attributes:
                found[a.name] = frame.attributes[a.ref_attr_name]
        return found

    def _call(
        self,
        function: FunctionProto,
        operands: Sequence[Value | None],
        attributes: Mapping[str, AttributeProto],
        name: str,
        frame: _Frame,
    ) -> Sequence[Entry]:
        """A function's outputs: its nodes imported with the operands and attributes of the call."""
        if frame.depth >= _MAX_CALL_DEPTH:
            raise ModelError(f"node {name!r}: functions are nested deeper than {_MAX_CALL_DEPTH}")
        if len(operands) > len(function.input):
            raise ModelError(
                f"node {name!r} gives {len(operands)} operands to the function {function.name}, which takes {len(function.input)}"
            )
        scope = _Scope()
        for k, formal in enumerate(function.input):
            scope.names[formal] = operands[k] if k < len(operands) else None
        given = {a.name: a for a in function.attribute_proto} | dict(attributes)
        opsets = dict(frame.opsets) | _opsets(function.opset_import, f"the function {function.name}")
        inner = _Frame(scope, opsets, given, f"{name}/", frame.depth + 1)
        self._nodes(function.node, inner)
        # an operator's definition leaves out the outputs that the node does not ask for
        return [scope.names.get(n) for n in function.output]

    def inline(self, graph: GraphProto, arguments: Sequence[Value], frame: _Frame, name: str) -> list[Value]:
        scope = _Scope(frame.scope)
        return self._subgraph(graph, arguments, frame.inside(scope, f"{name}/"))

    def _subgraph(self, graph: GraphProto, arguments: Sequence[Value], frame: _Frame) -> list[Value]:
        scope = frame.scope
        scope.names.update(zip([v.name for v in graph.input], arguments, strict=True))
        self._initializers(graph, scope)
        before = len(self.items)
        self._nodes(graph.node, frame)
        outputs = [scope.find(v.name) for v in graph.output]
        if len(self.items) > before or any(o is _POISON for o in outputs):
            raise _Unsupported("")  # what is missing is listed already
        if any(o is None for o in outputs):
            raise ModelError(f"node {frame.path[:-1]!r}: an output of its body is absent")
        return outputs  # type: ignore[return-value]

    def body(
        self, graph: GraphProto, types: Sequence[Type], given: Mapping[int, Value], frame: _Frame, name: str
    ) -> tuple[Graph, list[Value]]:
        if len(types) != len(graph.input):
            raise ModelError(f"node {name!r}: its body takes {len(graph.input)} inputs but is given {len(types)}")
        self.bodies += 1
        scope = _Scope(frame.scope, closed=f"body{self.bodies}", alias=self.static.alias)
        inputs = [input_value(f"{scope.closed}.{v.name}", t) for v, t in zip(graph.input, types, strict=True)]
        arguments = [given.get(k, v) for k, v in enumerate(inputs)]
        outputs = self._subgraph(graph, arguments, frame.inside(scope, f"{name}/"))
        return Graph([*inputs, *scope.captured.values()], outputs), list(scope.captured)

    def _list_unknown(self, nodes: Sequence[NodeProto], frame: _Frame) -> None:
        """Note the unknown operators of nodes that cannot be imported because an operand's producer could not."""
        pending = [(n, frame.path) for n in nodes]
        while pending:
            node, path = pending.pop()
            domain = domain_of(node.domain)
            name = path + (node.name or node.op_type)
            opset = frame.opsets.get(domain)
            if (domain, node.op_type, node.overload) not in self.model.functions:
                if opset is None:
                    self.items.append(
                        UnsupportedItem(_shown(domain, node.op_type), name, f"unknown operator set {domain!r}")
                    )
                elif _find(domain, node.op_type, opset) is None:
                    schema = _schema(domain, node.op_type, opset)
                    if schema is None or not (schema.has_function or schema.has_context_dependent_function):
                        self.items.append(
                            UnsupportedItem(
                                _shown(domain, node.op_type), name, _why_unknown(domain, node.op_type, opset)
                            )
                        )
            pending += [(n, f"{name}/") for g in _subgraphs(node) for n in g.node]

    def deciding_inputs(self, v: Value) -> list[str]:
        """The inputs whose values would tell `v`; none when what lies between is no small computation on inputs."""
        origins = self.static.origins(v)
        names = [self.inputs[n.outputs[0]] for n in origins if n.op.name == "input" and n.outputs[0] in self.inputs]
        foreign = any(
            n.op.name == "input" and n.outputs[0] not in self.inputs and n.outputs[0] not in self.static.alias
            for n in origins
        )
        small = all(
            isinstance(t, TensorType) and (not isinstance(t.size, int) or t.size <= _SMALL_ELEMENTS)
            for n in origins
            for t in n.types
        )
        return names if small and not foreign else []

    def need(self, v: Value, where: str, what: str) -> NoReturn:
        """Raise for a value that types depend on and that is not known."""
        names = self.deciding_inputs(v)
        if names:
            raise NeedsValue(names, f"{what} of {where}")
        raise _Unsupported(f"{what} depends on data that the model computes")


def _shown(domain: str, op: str) -> str:
    return f"{domain}.{op}" if domain else op


def _why_unknown(domain: str, op: str, opset: int) -> str:
    schema = _schema(domain, op, opset)
    if schema is not None:
        return (
            f"version {schema.since_version} of the operator is not supported"
            if _REGISTRY.get((domain, op))
            else "the operator is not supported"
        )
    if domain in ("", "ai.onnx.ml"):
        return f"opset {opset} has no such operator"
    return f"unknown operator of {domain!r}"


def _definition(
    domain: str,
    opset: int,
    node: NodeProto,
    operands: Sequence[Value | None],
    attributes: Mapping[str, AttributeProto],
    frame: _Frame,
) -> FunctionProto | None:
    """The function by which ONNX defines the operator at this opset, None when it does not."""
    schema = _schema(domain, node.op_type, opset)
    if schema is None or schema.deprecated:
        return None
    version = frame.opsets.get("", onnx.defs.onnx_opset_version())

    def newest(versions: Sequence[int]) -> int:
        fitting = [v for v in versions if v <= version]
        return max(fitting) if fitting else min(versions)

    if schema.has_context_dependent_function:
        resolved = NodeProto()
        resolved.CopyFrom(node)
        del resolved.attribute[:]
        for name, a in attributes.items():
            resolved.attribute.add().CopyFrom(a)
            resolved.attribute[-1].name = name
        types = [_type_proto(v.type).SerializeToString() if v is not None else b"" for v in operands]
        chosen = newest(schema.context_dependent_function_opset_versions)
        data = schema.get_context_dependent_function_with_opset_version(chosen, resolved.SerializeToString(), types)
        return FunctionProto.FromString(data)
    if schema.has_function:
        chosen = newest(schema.function_opset_versions)
        data = schema.get_function_with_opset_version(chosen)
        function = FunctionProto.FromString(data) if isinstance(data, bytes) else data
        present = {a.name for a in function.attribute_proto}
        for name in function.attribute:  # the schema's defaults hold for attributes that the call does not give
            default = schema.attributes[name].default_value
            if name not in present and default.name:
                function.attribute_proto.add().CopyFrom(default)
        return function
    return None


def _type_proto(t: Type) -> TypeProto:
    proto = TypeProto()
    if isinstance(t, TensorType):
        from graphc.frontends.onnx.tensors import _DTYPES

        proto.tensor_type.elem_type = next(n for n, d in _DTYPES.items() if d == t.dtype)
        for d in t.shape:
            dim = proto.tensor_type.shape.dim.add()
            if isinstance(d, int):
                dim.dim_value = d
        if not t.shape:
            proto.tensor_type.shape.SetInParent()
    elif isinstance(t, SequenceType):
        proto.sequence_type.elem_type.CopyFrom(_type_proto(t.element))
    else:
        proto.optional_type.elem_type.CopyFrom(_type_proto(t.element))
    return proto


# --- the model's inputs --------------------------------------------------------------------------------------------------


def input_types(model: OnnxModel, shapes: Mapping[str, Any] | None = None) -> dict[str, Type]:
    """The types of the model's inputs, in the file's order.

    `shapes` gives inputs a shape (ints or dimensions) or a whole type; other inputs take the file's, where named
    dimensions become symbols and nameless ones get a name. Initializers are constants and no inputs, unless `shapes`
    names one. Raises InputError, naming the input, for an unknown name or a shape that does not fit the file's.
    """
    shapes = shapes or {}
    graph = model.proto.graph
    constants = {t.name for t in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    declared = {v.name: v for v in graph.input if v.name not in constants or v.name in shapes}
    unknown = [n for n in shapes if n not in declared]
    if unknown:
        raise InputError(
            f"the model has no input {unknown[0]!r}; its inputs are {', '.join(map(repr, declared)) or 'none'}"
        )
    symbols: dict[str, DimLike] = {}
    for name, given in shapes.items():
        if not isinstance(given, TensorType | SequenceType | OptionalType):
            _bind(declared[name], tuple(given), symbols)
    return {name: _input_type(v, shapes.get(name), symbols) for name, v in declared.items()}


def _bind(info: ValueInfoProto, shape: Sequence[DimLike], symbols: dict[str, DimLike]) -> None:
    """Remember the sizes that a given shape tells of named dimensions, for inputs without a given shape."""
    for dim, size in zip(info.type.tensor_type.shape.dim, shape, strict=False):
        if _is_named(dim.dim_param):
            symbols.setdefault(dim.dim_param, size)


def _is_named(text: str) -> bool:
    return bool(text) and text not in ("?", "-1")


def _input_type(info: ValueInfoProto, given: Any, symbols: dict[str, DimLike]) -> Type:
    if isinstance(given, TensorType | SequenceType | OptionalType):
        return given
    t = info.type
    if not t.HasField("tensor_type"):
        return _declared_type(t, f"input {info.name!r}", symbols, info.name)
    dtype = element_type(t.tensor_type.elem_type, f"input {info.name!r}")
    if given is None:
        return _declared_type(t, f"input {info.name!r}", symbols, info.name)
    shape = tuple(given)
    dims = t.tensor_type.shape.dim
    if t.tensor_type.HasField("shape"):
        expected = [d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else (d.dim_param or "?") for d in dims]
        fits = len(shape) == len(dims) and all(
            not isinstance(e, int) or not isinstance(s, int) or e == s for e, s in zip(expected, shape, strict=True)
        )
        if not fits:
            raise InputError(
                f"input {info.name!r} was given the shape {list(shape)}; the model expects {dtype}[{', '.join(map(str, expected))}]"
            )
    return TensorType(dtype, shape)


def _declared_type(t: TypeProto, what: str, symbols: dict[str, DimLike], prefix: str, inside: bool = False) -> Type:
    """The type that the file states; dimensions it leaves open become symbols."""
    if t.HasField("tensor_type"):
        if not t.tensor_type.HasField("shape"):
            if inside:
                return unranked(element_type(t.tensor_type.elem_type, what))
            raise InputError(f"{what} has no shape in the file, not even a rank; give its shape")
        dims = [_dimension(d, symbols, f"{prefix}_{k}") for k, d in enumerate(t.tensor_type.shape.dim)]
        return TensorType(element_type(t.tensor_type.elem_type, what), tuple(dims))
    if t.HasField("sequence_type"):
        return SequenceType(_declared_type(t.sequence_type.elem_type, what, symbols, prefix, inside=True))
    if t.HasField("optional_type"):
        return OptionalType(_declared_type(t.optional_type.elem_type, what, symbols, prefix, inside=True))
    raise UnsupportedError([UnsupportedItem("input", what, f"its type is {t.WhichOneof('value') or 'missing'}")])


def type_of(proto: TypeProto, what: str) -> Type:
    """A type that an attribute states; the shapes of sequences' elements may be missing (see `unranked`)."""
    return _declared_type(proto, what, {}, "d", inside=True)


def _dimension(dim: onnx.TensorShapeProto.Dimension, symbols: dict[str, DimLike], fallback: str) -> DimLike:
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return int(dim.dim_value)
    if not _is_named(dim.dim_param):
        return Dim(Symbol(_identifier(fallback)))
    return symbols.setdefault(dim.dim_param, Dim(Symbol(_identifier(dim.dim_param))))


def _identifier(text: str) -> str:
    """A symbol's name that the text form can read back."""
    name = "".join(ch if ch.isascii() and (ch.isalnum() or ch == "_") else "_" for ch in text)
    return name if name[:1].isalpha() else f"d{name}"


def signature(model: OnnxModel) -> tuple[list[tuple[str, Type]], list[tuple[str, Type | None]]]:
    """The inputs and outputs as the file declares them, with names: what a caller sees before anything is imported.

    An output's type is None where the file does not state it.
    """
    symbols: dict[str, DimLike] = {}
    outputs: list[tuple[str, Type | None]] = []
    inputs = list(input_types(model).items())
    for v in model.proto.graph.output:
        try:
            outputs.append((v.name, _declared_type(v.type, f"output {v.name!r}", symbols, v.name)))
        except (InputError, UnsupportedError, ModelError):
            outputs.append((v.name, None))
    return inputs, outputs


def argument_type(argument: Any, declared: Type) -> Type:
    """The type of an argument for an input that is declared as `declared`: of an array, a list (sequence) or None.

    The elements of a list may differ in shape; where they do, the dimension is a symbol.
    """
    match declared:
        case TensorType():
            return TensorType(declared.dtype, np.shape(argument))
        case OptionalType():
            return declared if argument is None else OptionalType(argument_type(argument, declared.element))
        case _ if not argument:
            element = declared.element
            return SequenceType(unranked(element.dtype)) if isinstance(element, TensorType) else declared
    elements = [argument_type(a, declared.element) for a in argument]
    first = elements[0]
    if any(not isinstance(e, TensorType) or e.rank != first.rank for e in elements):  # type: ignore[union-attr]
        return SequenceType(first)
    shapes = zip(*(e.shape for e in elements), strict=True)  # type: ignore[union-attr]
    dims = tuple(sizes[0] if len(set(sizes)) == 1 else fresh_symbol("n") for sizes in shapes)
    return SequenceType(TensorType(first.dtype, dims))  # type: ignore[union-attr]


def import_model(
    model: ModelSource, shapes: Mapping[str, Any] | None = None, values: Mapping[str, np.ndarray] | None = None
) -> Graph:
    """The graph of an ONNX model for the given types of its inputs.

    `shapes` is read by `input_types`. `values` holds inputs whose value is known: they stay in the graph's signature but
    their value is used as a constant. Raises NeedsValue when a type depends on the value of inputs that `values` lacks,
    UnsupportedError with everything that graphc lacks, ModelError and InputError for what does not fit together.
    """
    _load_importers()
    return _Import(load_model(model), shapes or {}, values or {}).graph()
