"""What an importer is given: the node's attributes, and what is known of its operands while importing."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, TypeProto

from graphc.errors import ModelError
from graphc.frontends.onnx.tensors import element_type
from graphc.ir.dims import Dim, DimLike
from graphc.ir.graph import Graph, Literal, Value, constant
from graphc.ir.types import TensorType, Type

if TYPE_CHECKING:
    from graphc.frontends.onnx.importer import Frame, Import

__all__ = ["Context", "Unsupported"]


class Unsupported(Exception):  # noqa: N818  (a remark on one node, which the walk collects)
    """Raised by an importer for what it cannot do."""


_KINDS = AttributeProto.AttributeType
_REQUIRED: Any = object()
#: shapes, axes, scales and the like have few entries
_MOST_STATIC = 1 << 20


class Context:
    """One ONNX node being imported: its attributes, and what is known of its operands.

    Attribute getters take a default; without one the attribute is required and its absence a ModelError.
    """

    def __init__(
        self,
        run: Import,
        frame: Frame,
        node: NodeProto,
        name: str,
        attributes: dict[str, AttributeProto],
        version: builtins.int,
    ) -> None:
        self._run, self._frame, self._node, self._attributes = run, frame, node, attributes
        self._read: set[str] = set()
        self.name = name
        self.op = node.op_type
        self.version = version  # the operator's version, as registered

    @property
    def opset(self) -> builtins.int:
        """The version of ONNX's operator set around this node."""
        return self._frame.opsets.get("", 0)

    # attributes

    def _attribute(self, name: str, kind: builtins.int, default: Any) -> AttributeProto | None:
        self._read.add(name)
        a = self._attributes.get(name)
        if a is None:
            if default is _REQUIRED:
                raise ModelError(f"node {self.name!r} ({self.op}) lacks the attribute {name!r}")
            return None
        if a.type != kind:
            raise ModelError(
                f"node {self.name!r} ({self.op}): attribute {name!r} is {_KINDS.Name(a.type)}, not {_KINDS.Name(kind)}"
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

    def named(self, name: str) -> Value:
        """The value that has this name here. Raises ModelError when nothing before the node makes it."""
        return self._run.named(name, self._frame)

    def wants(self, index: builtins.int) -> bool:
        return index < len(self._node.output) and bool(self._node.output[index])

    def known(self, v: Value) -> np.ndarray | None:
        """The value's array when it is known while importing (it may hold symbolic dimensions), else None."""
        return self._run.static.value(v)

    def static(self, v: Value, what: str) -> np.ndarray:
        """The value's array, which types depend on; `what` says for what. Raises NeedsValue when inputs decide it."""
        if isinstance(v.type, TensorType) and isinstance(v.type.size, builtins.int) and v.type.size > _MOST_STATIC:
            self.invalid(f"its {what} would have {v.type.size} entries")
        array = self.known(v)
        return array if array is not None else self._run.need(v, f"node {self.name!r} ({self.op})", what)

    def static_ints(self, v: Value, what: str) -> tuple[DimLike, ...]:
        """A vector (or scalar) of integers, each an int or a symbolic dimension."""
        return tuple(self.static(v, what).ravel().tolist())

    def concrete_ints(self, v: Value, what: str) -> tuple[builtins.int, ...]:
        """A vector of integers, none of them symbolic."""
        entries = self.static_ints(v, what)
        if any(isinstance(e, Dim) for e in entries):
            self.unsupported(f"{what} {list(map(str, entries))} is symbolic; give the inputs' concrete shapes")
        return entries  # type: ignore[return-value]

    def depends_on_data(self, v: Value) -> bool:
        """Whether only the run can tell the value: not even the values of the inputs would help the importer."""
        return self.known(v) is None and not self._run.deciding_inputs(v)

    def rank_one_extent(self, v: Value) -> builtins.int:
        """The number of entries of a vector."""
        if v.rank != 1 or isinstance(v.shape[0], Dim):
            self.invalid(f"{v.type} is no vector of known length")
        return v.shape[0]

    def axis(self, axis: builtins.int, rank: builtins.int) -> builtins.int:
        """A possibly negative axis, checked and counted from the front."""
        if not -rank <= axis < rank:
            raise ModelError(f"node {self.name!r} ({self.op}): axis {axis} is out of range for rank {rank}")
        return axis % rank

    def axes(self, axes: Sequence[builtins.int], rank: builtins.int) -> tuple[builtins.int, ...]:
        found = tuple(self.axis(int(a), rank) for a in axes)
        if len(set(found)) != len(found):
            raise ModelError(f"node {self.name!r} ({self.op}): the axes {list(axes)} repeat one")
        return found

    def unsupported(self, reason: str) -> NoReturn:
        raise Unsupported(reason)

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
        self, graph: GraphProto, types: Sequence[Type], given: Mapping[builtins.int, Value] | None = None
    ) -> tuple[Graph, list[Value]]:
        """A subgraph as a closed graph, and the outer values that it captures.

        Its inputs are the subgraph's own, with the given types, then the captured values in the order returned.
        `given` says that an input always has a certain (constant) value; it stays in the signature.
        """
        return self._run.body(graph, types, given or {}, self._frame, self.name)
