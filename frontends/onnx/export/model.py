"""A graph as an ONNX model."""

from __future__ import annotations

import onnx
from onnx import GraphProto, ModelProto, ValueInfoProto, helper

from graphc.errors import UnsupportedError
from graphc.frontends.onnx.export import operators  # noqa: F401  (registers the exporters)
from graphc.frontends.onnx.export.body import OPSET, Body, Model, type_proto
from graphc.ir.graph import Graph, Value

__all__ = ["to_onnx"]


def to_onnx(graph: Graph, name: str = "graphc") -> ModelProto:
    """The graph as an ONNX model of opset 24 that computes the same.

    Inputs and outputs keep their names, symbolic dimensions become `dim_param`s, constants initializers (by the names
    they have). Calls are written in place, recurrent layers as the scans they are made of. Raises UnsupportedError
    that lists every node ONNX has no operators for; so are the operations that only passes make.
    """
    model = Model((*graph.input_names, *graph.output_names))
    wanted: dict[Value, str] = {}
    for v, output in zip(graph.outputs, graph.output_names, strict=True):
        if v.node.op.name not in ("input", "constant") and output not in graph.input_names:
            wanted.setdefault(v, output)
    body = Body(model, wanted=wanted)
    for v, input_name in zip(graph.inputs, graph.input_names, strict=True):
        body.define(v, input_name)
    body.write(graph.outputs)
    if model.refused:
        raise UnsupportedError(tuple(model.refused.values()))
    outputs = []
    for v, output in zip(graph.outputs, graph.output_names, strict=True):
        # of an output that is an input of the same name there is nothing to write
        if body.names[v] != output:
            body.nodes.append(helper.make_node("Identity", [body.names[v]], [output]))
        outputs.append(ValueInfoProto(name=output, type=type_proto(v.type)))
    proto = GraphProto(
        name=name,
        node=body.nodes,
        input=[
            ValueInfoProto(name=n, type=type_proto(v.type))
            for v, n in zip(graph.inputs, graph.input_names, strict=True)
        ],
        output=outputs,
        initializer=model.initializers,
    )
    return ModelProto(
        ir_version=onnx.helper.find_min_ir_version_for([helper.make_opsetid("", OPSET)]),
        producer_name="graphc",
        opset_import=[helper.make_opsetid("", OPSET)],
        graph=proto,
    )
