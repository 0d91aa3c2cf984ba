"""Matrix products and convolutions."""

from __future__ import annotations

from graphc.frontends.onnx.export.body import Body, Refusal, takes
from graphc.frontends.onnx.export.operators.elementwise import plain
from graphc.frontends.onnx.export.registry import exporter
from graphc.ir.graph import Node


@exporter("dot")
def dot(c: Body, node: Node, *operands: str) -> str:
    return plain(c, "MatMul", node, operands)


@exporter("conv")
def conv(c: Body, node: Node, x: str, w: str) -> str:
    a, dtype = node.attrs, node.inputs[0].dtype
    if not takes("Conv", dtype):
        raise Refusal(f"ONNX's Conv does not take {dtype}")
    pads = (*(p[0] for p in a["padding"]), *(p[1] for p in a["padding"]))
    window = node.inputs[1].shape[2:]
    return str(
        c.emit(
            "Conv",
            x,
            w,
            kernel_shape=window,
            strides=a["strides"],
            pads=pads,
            dilations=a["dilation"],
            group=a.get("groups", 1),
        )
    )
