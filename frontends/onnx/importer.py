"""From a checked model to a graph: the walk over the nodes.

Each node is given to its operator's importer (see registry); operators without one are imported through ONNX's own
definition, and calls of local functions are expanded. What is not supported is collected over the whole model and
reported at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

import numpy as np
import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto

from graphc.errors import GraphcError, InputError, ModelError, NeedsValue, UnsupportedError, UnsupportedItem
from graphc.frontends.onnx.context import Context, Unsupported
from graphc.frontends.onnx.definitions import definition
from graphc.frontends.onnx.inputs import input_types
from graphc.frontends.onnx.loader import (
    FunctionKey,
    ModelSource,
    OnnxModel,
    domain_of,
    load_model,
    read_opsets,
    subgraphs_of,
)
from graphc.frontends.onnx.registry import Importer, domains, find, load_importers, schema_of, versions
from graphc.frontends.onnx.static import Static
from graphc.ir.graph import Graph, Literal, Value, constant, inline, input_value, location
from graphc.ir.types import TensorType, Type
from graphc.ops.spec import Kind

__all__ = ["check_operators", "import_model"]


class _Poison:
    """Stands for the outputs of a node that is not supported, and for everything computed from them."""


_POISON = _Poison()
Entry: TypeAlias = "Value | _Poison | None"


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
class Frame:
    """What holds for the nodes of one function or graph: names, versions, the caller's attributes."""

    scope: _Scope
    opsets: Mapping[str, int]
    attributes: Mapping[str, AttributeProto] = field(default_factory=dict)
    path: str = ""
    depth: int = 0

    def inside(self, scope: _Scope, path: str) -> Frame:
        return Frame(scope, self.opsets, self.attributes, path, self.depth)


_MAX_CALL_DEPTH = 64
#: functions and unrolled loops may make this many nodes, or this many times those of the file
_MAX_NODES, _MAX_GROWTH = 100_000, 20
#: constants up to this many elements are folded while importing; shapes, axes and the like
_FOLD_ELEMENTS = Literal.BY_CONTENT  # so that importing again gives the very same graph
#: an input's value is asked for only where all that lies between is at most this large: shape arithmetic, not a network
_SMALL_ELEMENTS = 4096


class Import:
    """One import of a model."""

    def __init__(self, model: OnnxModel, shapes: Mapping[str, Any], values: Mapping[str, np.ndarray]) -> None:
        self.model = model
        self.static = Static()
        self.items: list[UnsupportedItem] = []
        self.inputs: dict[Value, str] = {}
        # initializers that Gradient nodes name: equal constants are one value, but they are different variables
        self.variables = {n for node in _all_nodes(model) if node.op_type == "Gradient" for n in _strings(node, "xs")}
        self.stand_ins: dict[Value, Value] = {}
        self.values = values
        self.types = input_types(model, shapes)
        self.nodes, self.most_nodes = 0, max(_MAX_NODES, _MAX_GROWTH * len(model.proto.graph.node))
        self.bodies = 0

    def graph(self) -> Graph:
        proto = self.model.proto.graph
        frame = Frame(_Scope(), self.model.opsets)
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
        if self.stand_ins:
            whole = Graph(self.stand_ins, outputs)  # type: ignore[arg-type]
            outputs = list(inline(whole, list(self.stand_ins.values())))
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
                scope.names[t.name] = self._initializer(t)
        for s in graph.sparse_initializer:
            if s.values.name not in scope.names:
                scope.names[s.values.name] = constant(self.model.literal(s))

    def _initializer(self, t: TensorProto) -> Value:
        v = constant(self.model.literal(t))
        if t.name not in self.variables:
            return v
        stand_in = input_value(f"variable{len(self.stand_ins)}.{t.name}", v.type)
        self.stand_ins[stand_in] = self.static.alias[stand_in] = v
        return stand_in

    def _nodes(self, nodes: Sequence[NodeProto], frame: Frame) -> None:
        self.nodes += len(nodes)
        if self.nodes > self.most_nodes:
            raise ModelError(f"the model's functions and loops expand to more than {self.most_nodes} nodes")
        find, names = frame.scope.find, frame.scope.names
        for k, node in enumerate(nodes):
            name = frame.path + (node.name or f"{node.op_type}_{k}")
            operands: list[Entry] = [find(n) if n else None for n in node.input]
            if any(o is _POISON for o in operands):
                self.list_unknown([node], frame)
                outputs: Sequence[Entry] = ()
            else:
                with location(name):
                    outputs = self._node(node, name, operands, frame)  # type: ignore[arg-type]
            for n, out in zip(node.output, (*outputs, *[_POISON] * len(node.output)), strict=False):
                if n:
                    names[n] = out

    def _node(self, node: NodeProto, name: str, operands: list[Value | None], frame: Frame) -> Sequence[Entry]:
        """The node's outputs, or () when it is not supported, which is noted."""
        domain = domain_of(node.domain)
        attributes = self._attributes(node, frame)
        try:
            function = self.model.functions.get((domain, node.op_type, node.overload))
            if function is not None:
                return self._call(function, operands, attributes, name, frame)
            opset = frame.opsets.get(domain)
            if opset is None:
                if domain in domains():
                    raise ModelError(
                        f"node {name!r} ({node.op_type}) uses the operator set {domain or 'ai.onnx'!r}, "
                        "which the model does not import"
                    )
                raise Unsupported(f"unknown operator set {domain!r}")
            entry = find(domain, node.op_type, opset)
            if entry is None:
                function = definition(domain, opset, node, operands, attributes, frame.opsets)
                if function is None:
                    raise Unsupported(_why_unknown(domain, node.op_type, opset) or "ONNX does not define it here")
                return self._call(function, operands, attributes, name, frame)
            return self._apply(entry, node, name, operands, attributes, frame)
        except Unsupported as e:
            if str(e):
                self.items.append(UnsupportedItem(_shown(domain, node.op_type), name, str(e)))
        except GraphcError:
            raise
        except MemoryError as e:
            raise ModelError(f"node {name!r} ({node.op_type}) needs more memory than there is") from e
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as e:
            raise ModelError(
                f"node {name!r} ({node.op_type}): its operands or attributes do not fit the operator "
                f"({type(e).__name__}: {e})"
            ) from e
        return ()

    def _apply(
        self,
        entry: Importer,
        node: NodeProto,
        name: str,
        operands: list[Value | None],
        attributes: dict[str, AttributeProto],
        frame: Frame,
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
                f"node {name!r} ({node.op_type}) has {len(operands)} operands; version {entry.since} takes {takes}"
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
                raise Unsupported(f"its output {k} ({n!r}) is not supported")
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
        schema = schema_of(domain, c.op, c._frame.opsets.get(domain, 0))
        for name, a in c._attributes.items():
            if name in c._read:
                continue
            known = schema.attributes.get(name) if schema is not None else None
            if known is None:
                raise Unsupported(
                    f"it has the attribute {name!r}, which version {c.version} of the operator does not know"
                )
            if onnx.helper.get_attribute_value(a) != onnx.helper.get_attribute_value(known.default_value):
                raise Unsupported(f"attribute {name!r} = {onnx.helper.get_attribute_value(a)!r}")

    @staticmethod
    def _attributes(node: NodeProto, frame: Frame) -> dict[str, AttributeProto]:
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
        frame: Frame,
    ) -> Sequence[Entry]:
        """A function's outputs: its nodes imported with the operands and attributes of the call."""
        if frame.depth >= _MAX_CALL_DEPTH:
            raise ModelError(f"node {name!r}: functions are nested deeper than {_MAX_CALL_DEPTH}")
        if len(operands) > len(function.input):
            raise ModelError(
                f"node {name!r} gives {len(operands)} operands to the function {function.name}, "
                f"which takes {len(function.input)}"
            )
        scope = _Scope()
        for k, formal in enumerate(function.input):
            scope.names[formal] = operands[k] if k < len(operands) else None
        given = {a.name: a for a in function.attribute_proto} | dict(attributes)
        inner = Frame(scope, self._function_opsets(function, frame.opsets), given, f"{name}/", frame.depth + 1)
        self._nodes(function.node, inner)
        # an operator's definition leaves out the outputs that the node does not ask for
        return [scope.names.get(n) for n in function.output]

    @staticmethod
    def _function_opsets(function: FunctionProto, outer: Mapping[str, int]) -> Mapping[str, int]:
        return dict(outer) | read_opsets(function.opset_import, f"the function {function.name}")

    def inline(self, graph: GraphProto, arguments: Sequence[Value], frame: Frame, name: str) -> list[Value]:
        scope = _Scope(frame.scope)
        return self._subgraph(graph, arguments, frame.inside(scope, f"{name}/"))

    def _subgraph(self, graph: GraphProto, arguments: Sequence[Value], frame: Frame) -> list[Value]:
        scope = frame.scope
        scope.names.update(zip([v.name for v in graph.input], arguments, strict=True))
        self._initializers(graph, scope)
        before = len(self.items)
        self._nodes(graph.node, frame)
        outputs = [scope.find(v.name) for v in graph.output]
        if len(self.items) > before or any(o is _POISON for o in outputs):
            raise Unsupported("")  # what is missing is listed already
        if any(o is None for o in outputs):
            raise ModelError(f"node {frame.path[:-1]!r}: an output of its body is absent")
        return outputs  # type: ignore[return-value]

    def body(
        self, graph: GraphProto, types: Sequence[Type], given: Mapping[int, Value], frame: Frame, name: str
    ) -> tuple[Graph, list[Value]]:
        if len(types) != len(graph.input):
            raise ModelError(f"node {name!r}: its body takes {len(graph.input)} inputs but is given {len(types)}")
        self.bodies += 1
        scope = _Scope(frame.scope, closed=f"body{self.bodies}", alias=self.static.alias)
        inputs = [input_value(f"{scope.closed}.{v.name}", t) for v, t in zip(graph.input, types, strict=True)]
        arguments = [given.get(k, v) for k, v in enumerate(inputs)]
        outputs = self._subgraph(graph, arguments, frame.inside(scope, f"{name}/"))
        return Graph([*inputs, *scope.captured.values()], outputs), list(scope.captured)

    def named(self, name: str, frame: Frame) -> Value:
        entry = frame.scope.find(name)
        if not isinstance(entry, Value):
            raise Unsupported("")  # what is missing is listed already
        return entry

    def list_unknown(self, nodes: Sequence[NodeProto], frame: Frame) -> None:
        """Note the unknown operators among nodes, in their bodies and in the functions they call.

        For nodes that cannot be imported because an operand's producer could not, or not yet.
        """
        expanded: set[FunctionKey] = set()
        pending = [(n, frame.path, frame.opsets) for n in reversed(nodes)]
        while pending:
            node, path, opsets = pending.pop()
            domain = domain_of(node.domain)
            name = path + (node.name or node.op_type)
            key = (domain, node.op_type, node.overload)
            inner = [n for g in subgraphs_of(node) for n in g.node]
            if key in self.model.functions:
                if key not in expanded:  # once is enough, from wherever it is called
                    expanded.add(key)
                    function = self.model.functions[key]
                    inner, opsets = list(function.node), self._function_opsets(function, opsets)
            elif reason := _why_unknown(domain, node.op_type, opsets.get(domain)):
                self.items.append(UnsupportedItem(_shown(domain, node.op_type), name, reason))
            pending += [(n, f"{name}/", opsets) for n in reversed(inner)]

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
        raise Unsupported(f"{what} depends on data that the model computes")


def _all_nodes(model: OnnxModel) -> Iterator[NodeProto]:
    """The model's nodes, those of functions and bodies too."""
    pending = [*model.proto.graph.node, *(n for f in model.functions.values() for n in f.node)]
    while pending:
        node = pending.pop()
        yield node
        pending += [n for g in subgraphs_of(node) for n in g.node]


def _strings(node: NodeProto, name: str) -> list[str]:
    return [s.decode(errors="replace") for a in node.attribute if a.name == name for s in a.strings]


def _shown(domain: str, op: str) -> str:
    return f"{domain}.{op}" if domain else op


def _why_unknown(domain: str, op: str, opset: int | None) -> str:
    """Why an operator can neither be imported nor replaced by its definition; "" when it can."""
    if opset is None:
        return f"unknown operator set {domain!r}"
    if find(domain, op, opset) is not None:
        return ""
    schema = schema_of(domain, op, opset)
    if schema is not None:
        if schema.has_function or schema.has_context_dependent_function:
            return ""
        if versions(domain, op):
            return f"version {schema.since_version} of the operator is not supported"
        return "the operator is not supported"
    return f"opset {opset} has no such operator" if domain in ("", "ai.onnx.ml") else f"unknown operator of {domain!r}"


def check_operators(model: OnnxModel) -> None:
    """Raise UnsupportedError listing every operator that has no importer; needs to know nothing of the inputs."""
    load_importers()
    check = Import(model, {}, {})
    check.list_unknown(model.proto.graph.node, Frame(_Scope(), model.opsets))
    if check.items:
        raise UnsupportedError(check.items)


def import_model(
    model: ModelSource, shapes: Mapping[str, Any] | None = None, values: Mapping[str, np.ndarray] | None = None
) -> Graph:
    """The graph of an ONNX model for the given types of its inputs.

    `shapes` is read by `input_types`. `values` holds inputs whose value is known: they stay in the graph's signature
    but their value is used as a constant. Raises NeedsValue when a type depends on the value of inputs that
    `values` lacks, UnsupportedError with everything that graphc lacks, ModelError and InputError for what does not
    fit together.
    """
    load_importers()
    return Import(load_model(model), shapes or {}, values or {}).graph()
