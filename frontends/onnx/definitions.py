"""Operators that ONNX itself defines as functions of simpler operators, and types in ONNX's terms for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import AttributeProto, FunctionProto, NodeProto, TypeProto

from graphc.frontends.onnx.registry import schema_of
from graphc.frontends.onnx.tensors import element_number
from graphc.ir.graph import Value
from graphc.ir.types import SequenceType, TensorType, Type

__all__ = ["definition"]


def definition(
    domain: str,
    opset: int,
    node: NodeProto,
    operands: Sequence[Value | None],
    attributes: Mapping[str, AttributeProto],
    opsets: Mapping[str, int],
) -> FunctionProto | None:
    """The function by which ONNX defines the operator at this opset, None when it does not."""
    schema = schema_of(domain, node.op_type, opset)
    if schema is None or schema.deprecated:
        return None
    version = opsets.get("", onnx.defs.onnx_opset_version())

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
        proto.tensor_type.elem_type = element_number(t.dtype)
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
