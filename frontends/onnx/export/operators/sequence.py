"""Sequences and optionals: each operation is an ONNX operator."""

from __future__ import annotations

from graphc.frontends.onnx.export.body import Body, Refusal, type_proto
from graphc.frontends.onnx.export.registry import exporter
from graphc.frontends.onnx.tensors import element_number
from graphc.ir.graph import Node
from graphc.ir.types import TensorType

_SAME = {
    "sequence_construct": "SequenceConstruct", "sequence_at": "SequenceAt", "sequence_insert": "SequenceInsert",
    "sequence_erase": "SequenceErase", "sequence_length": "SequenceLength",
    "optional_has_element": "OptionalHasElement", "optional_get_element": "OptionalGetElement",
}  # fmt: skip


@exporter(*_SAME)
def same(c: Body, node: Node, *operands: str) -> str:
    return str(c.emit(_SAME[node.op.name], *operands))


@exporter("sequence_empty")
def sequence_empty(c: Body, node: Node) -> str:
    element = node.attrs["element"]
    if not isinstance(element, TensorType):
        raise Refusal(f"ONNX's SequenceEmpty holds tensors, not {element}")
    return str(c.emit("SequenceEmpty", dtype=element_number(element.dtype)))


@exporter("split_to_sequence")
def split_to_sequence(c: Body, node: Node, *operands: str) -> str:
    keep = int(node.attrs.get("keepdims", True))
    return str(c.emit("SplitToSequence", *operands, axis=node.attrs["axis"], keepdims=keep))


@exporter("concat_from_sequence")
def concat_from_sequence(c: Body, node: Node, sequence: str) -> str:
    new_axis = int(node.attrs.get("new_axis", False))
    return str(c.emit("ConcatFromSequence", sequence, axis=node.attrs["axis"], new_axis=new_axis))


@exporter("optional")
def optional(c: Body, node: Node, *operands: str) -> str:
    return str(c.emit("Optional", *operands, type=None if operands else type_proto(node.attrs["element"])))
