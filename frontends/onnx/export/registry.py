"""The registry of exporters: a function for each operation of the graph that has an ONNX spelling.

    @exporter("transpose")
    def transpose(c: Body, node: Node, x: str) -> str:
        return c.emit("Transpose", x, perm=node.attrs["perm"])

An exporter writes ONNX nodes for one graph node. It is given the names of the operands and returns the name of the
result, or one a result. What ONNX lacks is composed: `c.lower(value)` writes a value built from other operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from graphc.ir.graph import Value

__all__ = ["EXPORTERS", "ExporterFunction", "composition", "exporter"]

ExporterFunction: TypeAlias = Callable[..., "str | Sequence[str]"]

#: by the name of the operation
EXPORTERS: dict[str, ExporterFunction] = {}


def exporter(*names: str) -> Callable[[ExporterFunction], ExporterFunction]:
    """Register a function as the exporter of these operations; each may have one."""

    def enter(function: ExporterFunction) -> ExporterFunction:
        for name in names:
            if name in EXPORTERS:
                raise ValueError(f"operation {name!r} has two exporters")
            EXPORTERS[name] = function
        return function

    return enter


def composition(name: str) -> Callable[[Callable[..., Value]], Callable[..., Value]]:
    """Register a function from the operands' values and the attributes to a value of operations that ONNX has."""

    def enter(function: Callable[..., Value]) -> Callable[..., Value]:
        exporter(name)(lambda c, node, *_: c.lower(function(*node.inputs, **node.attrs)))
        return function

    return enter
