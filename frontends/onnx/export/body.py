"""ONNX nodes as they are written: one `Body` for the model's graph and one for each body of control flow.

Constants of every body are initializers of the model's graph, which bodies may read; so are values around a body, which
is why captures cost nothing. Extents that only a run knows are read from the shapes of values that show them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, helper

from graphc.errors import UnsupportedItem
from graphc.frontends.onnx.export.registry import EXPORTERS
from graphc.frontends.onnx.tensors import element_number
from graphc.ir.dims import Dim, DimLike, Symbol
from graphc.ir.dtypes import DType, dtype_of
from graphc.ir.graph import Graph, Literal, Node, Value, location_of, toposort
from graphc.ir.types import OptionalType, TensorType, Type

__all__ = ["OPSET", "Body", "Model", "Refusal", "allowed", "type_proto"]

#: The first that has every element type up to 4 bits and the smallest exponents (float8_e8m0fnu, float4_e2m1fn).
OPSET = 24


class Refusal(Exception):  # noqa: N818  (it is caught where it is collected, never seen as an error)
    """A node that cannot be written, and why; collected over the whole graph."""


def type_proto(t: Type) -> TypeProto:
    """A type as ONNX spells it; an extent that is no plain symbol is left open."""
    if isinstance(t, TensorType):
        shape = [d if isinstance(d, int) else d.name for d in t.shape]
        return helper.make_tensor_type_proto(element_number(t.dtype), shape)
    make = helper.make_optional_type_proto if isinstance(t, OptionalType) else helper.make_sequence_type_proto
    return make(type_proto(t.element))


@cache
def allowed(operator: str, operand: int = 0) -> frozenset[str]:
    """The element types that an operator takes there, by ONNX's names: {"float", "int64", ...}."""
    schema = onnx.defs.get_schema(operator, OPSET)
    formal = schema.inputs[min(operand, len(schema.inputs) - 1)]
    return frozenset(t.removeprefix("tensor(").removesuffix(")") for t in formal.types)


def takes(operator: str, dtype: DType, operand: int = 0) -> bool:
    return _ONNX_NAMES.get(dtype.name, dtype.name) in allowed(operator, operand)


_ONNX_NAMES = {
    "float32": "float", "float64": "double",
    "float8_e4m3fn": "float8e4m3fn", "float8_e4m3fnuz": "float8e4m3fnuz", "float8_e5m2": "float8e5m2",
    "float8_e5m2fnuz": "float8e5m2fnuz", "float8_e8m0fnu": "float8e8m0", "float4_e2m1fn": "float4e2m1",
}  # fmt: skip


def encode(array: np.ndarray, dtype: DType, name: str) -> TensorProto:
    """A constant as ONNX stores it: raw little-endian bytes, types narrower than a byte packed, strings as UTF-8."""
    tensor = TensorProto(name=name, data_type=element_number(dtype), dims=array.shape)
    if dtype.kind == "string":
        tensor.string_data.extend(str(s).encode() for s in array.ravel())
    elif 0 < dtype.bits < 8 and dtype.kind != "bool":
        fields = np.ascontiguousarray(array).reshape(-1).view(np.uint8) & ((1 << dtype.bits) - 1)
        each = 8 // dtype.bits
        fields = np.concatenate([fields, np.zeros(-len(fields) % each, np.uint8)]).reshape(-1, each)
        shifts = np.arange(0, 8, dtype.bits, dtype=np.uint8)
        tensor.raw_data = np.bitwise_or.reduce(fields << shifts, axis=1).astype(np.uint8).tobytes()
    else:
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        tensor.raw_data = np.ascontiguousarray(little).tobytes()
    return tensor


class Model:
    """What all bodies share: the names that are taken, the initializers, and what could not be written."""

    def __init__(self, names: Iterable[str]) -> None:
        self.taken = set(names)
        self.counts: dict[str, int] = {}
        self.initializers: list[TensorProto] = []
        self.refused: dict[Node, UnsupportedItem] = {}
        self._literals: dict[Literal, str] = {}

    def fresh(self, stem: str) -> str:
        """A name that nothing has yet."""
        name = stem
        while not name or name in self.taken:
            number = self.counts.get(stem, 0)
            self.counts[stem] = number + 1
            name = f"{stem or 'value'}_{number}"
        self.taken.add(name)
        return name

    def initializer(self, literal: Literal) -> str:
        """The name of the constant; equal constants are one."""
        name = self._literals.get(literal)
        if name is None:
            name = self._literals[literal] = self.fresh(literal.name or "constant")
            self.initializers.append(encode(literal.array, literal.dtype, name))
        return name


class Body:
    """The nodes of one ONNX graph while they are written, and the names of the values in it.

    `wanted` are the names that some values are to have. An inlined call shares the `nodes` of the body around it.
    """

    def __init__(
        self,
        model: Model,
        parent: Body | None = None,
        wanted: Mapping[Value, str] | None = None,
        nodes: list[NodeProto] | None = None,
    ) -> None:
        self.model, self.parent, self.wanted = model, parent, dict(wanted or {})
        self.nodes: list[NodeProto] = [] if nodes is None else nodes
        self.names: dict[Value, str] = {}
        self._symbols: dict[str, tuple[str, int]] = {}

    # ------------------------------------------------------------------------------------- what exporters call

    def emit(self, operator: str, *operands: str, results: int = 1, **attributes: Any) -> Any:
        """Write a node; the name of its result, or a tuple of names. Attributes that are None are left out."""
        outputs = [self.model.fresh(operator.lower()) for _ in range(results)]
        given = {k: v for k, v in attributes.items() if v is not None}
        self.nodes.append(helper.make_node(operator, operands, outputs, **given))
        return outputs[0] if results == 1 else tuple(outputs)

    def constant(self, array: Any, dtype: object = None) -> str:
        """The name of a constant, int64 unless another type is given."""
        wanted = dtype_of(dtype or "int64")
        return self.model.initializer(Literal(np.asarray(array, wanted.numpy), "", wanted))

    def cast(self, name: str, dtype: object) -> str:
        return str(self.emit("Cast", name, to=element_number(dtype_of(dtype))))

    def lower(self, value: Value) -> str:
        """The name of a value built from the operands; the nodes that it needs are written."""
        self.write([value])
        return self.names[value]

    def ints(self, dims: Sequence[DimLike]) -> str:
        """The name of an int64 vector of extents, which may be known to the run alone."""
        if all(isinstance(d, int) for d in dims):
            return self.constant(np.array(dims, np.int64))
        parts = [self.extent(d) for d in dims]
        return parts[0] if len(parts) == 1 else str(self.emit("Concat", *parts, axis=0))

    def extent(self, d: DimLike) -> str:
        """The name of an int64[1] that holds the extent."""
        if isinstance(d, int):
            return self.constant([d])
        total = ""
        for monomial, coefficient in d.terms:
            factors = [self._atom(a) for a in monomial]
            if coefficient != 1 or not factors:
                factors.append(self.constant([coefficient]))
            term = factors[0]
            for factor in factors[1:]:
                term = self.emit("Mul", term, factor)
            total = self.emit("Add", total, term) if total else term
        return total

    def _atom(self, atom: Any) -> str:
        if isinstance(atom, Symbol):
            return self._symbol(atom.name)
        left, right = self.extent(atom.left), self.extent(atom.right)
        if atom.function in ("max", "min"):
            return str(self.emit(atom.function.capitalize(), left, right))
        remainder = self.emit("Mod", left, right)
        return str(self.emit("Div", self.emit("Sub", left, remainder), right))  # Div rounds towards zero

    def _symbol(self, symbol: str) -> str:
        scope: Body | None = self
        while scope is not None and symbol not in scope._symbols:
            scope = scope.parent
        if scope is None:
            raise Refusal(f"no value that comes before shows the extent {symbol}")
        name, axis = scope._symbols[symbol]
        return str(self.emit("Shape", name, start=axis, end=axis + 1))

    def body(
        self, graph: Graph, captures: Sequence[str], own: int, extra: Sequence[tuple[str, Type]] = ()
    ) -> GraphProto:
        """A body of control flow whose first `own` inputs are its own and whose others are read from around it.

        `extra` are inputs after them that ONNX demands and the graph does not have.
        """
        inner = Body(self.model, self)
        inputs = []
        for v in graph.inputs[:own]:
            name = self.model.fresh(v.node.attrs["name"])
            inner.define(v, name)
            inputs.append(ValueInfoProto(name=name, type=type_proto(v.type)))
        inputs += [ValueInfoProto(name=self.model.fresh(n), type=type_proto(t)) for n, t in extra]
        for v, name in zip(graph.inputs[own:], captures, strict=True):
            inner.define(v, name)
        inner.write(graph.outputs)
        outputs: list[ValueInfoProto] = []
        for v in graph.outputs:
            # a result must be made inside, and each result has a name of its own
            made = {name for node in inner.nodes for name in node.output} - {o.name for o in outputs}
            name = inner.names[v] if inner.names[v] in made else inner.emit("Identity", inner.names[v])
            outputs.append(ValueInfoProto(name=name, type=type_proto(v.type)))
        return GraphProto(name=self.model.fresh("body"), node=inner.nodes, input=inputs, output=outputs)

    def inline(self, graph: Graph, operands: Sequence[str]) -> list[str]:
        """A call, written in place."""
        inner = Body(self.model, self, nodes=self.nodes)
        for v, name in zip(graph.inputs, operands, strict=True):
            inner.define(v, name)
        inner.write(graph.outputs)
        return [inner.names[v] for v in graph.outputs]

    # ------------------------------------------------------------------------------------------------ the walk

    def define(self, v: Value, name: str) -> None:
        """The value stands under this name from here on."""
        self.names[v] = name
        if isinstance(v.type, TensorType):
            for axis, d in enumerate(v.type.shape):
                if isinstance(d, Dim) and d.name is not None:
                    self._symbols.setdefault(d.name, (name, axis))

    def write(self, values: Sequence[Value]) -> None:
        """Every node that the values need and that is not there yet, producers first."""
        for node in self._missing(values):
            try:
                names = self._export(node)
            except Refusal as e:
                where = ", ".join(location_of(node)) or node.op.name
                self.model.refused[node] = UnsupportedItem(node.op.name, where, str(e))
                names = [self.model.fresh("refused") for _ in node.types]
            for v, name in zip(node.outputs, names, strict=True):
                self.define(v, name)

    def _missing(self, values: Sequence[Value]) -> list[Node]:
        """Those nodes; the walk stops at values that have a name."""
        if all(v in self.names for v in values):
            return []
        known = {v.node for v in self.names}
        return [n for n in toposort_until(values, known) if n not in known]

    def _export(self, node: Node) -> list[str]:
        if node.op.name == "constant":
            return [self.model.initializer(node.attrs["data"])]
        if node.op.made_by_passes:
            raise Refusal("it is made by passes; export the graph as it is before they run")
        for t in node.types:
            if isinstance(t, TensorType) and t.dtype.bits == 2:
                raise Refusal(f"opset {OPSET} has no {t.dtype}; cast to int4 or uint4, which hold it")
        function = EXPORTERS.get(node.op.name)
        before = len(self.nodes)
        if function is not None:
            found = function(self, node, *(self.names[v] for v in node.inputs))
            names = [found] if isinstance(found, str) else list(found)
        elif node.op.decompose is not None:
            names = [self.lower(v) for v in node.op.decompose(node)]
        else:
            raise Refusal(
                "ONNX has no such operator, nor operators that it could be made of; save the parts before and after it"
            )
        made = {name for n in self.nodes[before:] for name in n.output}
        for k, v in enumerate(node.outputs):
            if v in self.wanted:
                wanted = self.wanted[v]
                if names[k] in made and names.count(names[k]) == 1 and names[k] not in self.names.values():
                    _rename(self.nodes[before:], names[k], wanted)
                else:
                    self.nodes.append(helper.make_node("Identity", [names[k]], [wanted]))
                names[k] = wanted
        return names


def toposort_until(values: Sequence[Value], known: set[Node]) -> list[Node]:
    """Like `toposort`, but not past the nodes that are known."""
    if not known:
        return toposort(values)
    seen: dict[Node, None] = dict.fromkeys(known)
    stack = [(v.node, False) for v in reversed(values)]
    while stack:
        node, ready = stack.pop()
        if node in seen:
            continue
        if ready:
            seen[node] = None
        else:
            stack.append((node, True))
            stack += [(v.node, False) for v in reversed(node.inputs)]
    return list(seen)


def _rename(nodes: Sequence[NodeProto], old: str, new: str) -> None:
    """A name that only these nodes mention becomes another."""
    for node in nodes:
        for names in (node.input, node.output):
            for k, name in enumerate(names):
                if name == old:
                    names[k] = new
