"""Control flow: If, Loop and Scan, whose bodies read captures from around them; calls are written in place."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.frontends.onnx.export.body import Body
from graphc.frontends.onnx.export.registry import exporter
from graphc.ir.graph import Node
from graphc.ir.types import tensor


def _several(found: object, results: int) -> Sequence[str]:
    return [found] if results == 1 else found  # type: ignore[list-item,return-value]


@exporter("call", "custom_vjp")
def call(c: Body, node: Node, *operands: str) -> Sequence[str]:
    return c.inline(node.attrs["body"], operands)


@exporter("if_")
def if_(c: Body, node: Node, condition: str, *operands: str) -> Sequence[str]:
    bodies = {
        "then_branch": c.body(node.attrs["then_body"], operands, 0),
        "else_branch": c.body(node.attrs["else_body"], operands, 0),
    }
    return _several(c.emit("If", condition, results=len(node.types), **bodies), len(node.types))


@exporter("loop")
def loop(c: Body, node: Node, trips: str, condition: str, *operands: str) -> Sequence[str]:
    carries = node.attrs["carries"]
    body = c.body(node.attrs["body"], operands[carries:], 2 + carries)
    found = c.emit("Loop", trips, condition, *operands[:carries], results=len(node.types), body=body)
    return _several(found, len(node.types))


@exporter("scan")
def scan(c: Body, node: Node, *operands: str) -> Sequence[str]:
    a = node.attrs
    carries, scanned, direction = a["carries"], a["scanned"], int(a.get("reverse", False))
    extra, rows = [], list(operands[carries : carries + scanned])
    if not scanned:  # ONNX counts the turns by something that is scanned
        turns = c.emit("Squeeze", c.extent(a["length"]))
        rows, extra = [c.emit("Range", c.constant(0), turns, c.constant(1))], [("turn", tensor("int64"))]
    body = c.body(a["body"], operands[carries + scanned :], carries + scanned, extra)
    stacked = len(node.types) - carries
    found = c.emit(
        "Scan",
        *operands[:carries],
        *rows,
        results=len(node.types),
        body=body,
        num_scan_inputs=len(rows),
        scan_input_directions=[direction] * len(rows) if direction else None,
        scan_output_directions=[direction] * stacked if direction and stacked else None,
    )
    return _several(found, len(node.types))
