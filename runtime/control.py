"""Control flow on the host: for bodies that cannot be part of a native program, because sizes in them change from turn
to turn or they work on sequences. The bodies themselves are compiled; only the decisions are made here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.errors import CompileError
from graphc.ir.graph import Graph, Node, describe_location

__all__ = ["run_control"]

RunBody = Callable[[Graph, Sequence[Any]], list[Any]]


def run_control(node: Node, operands: Sequence[Any], run: RunBody) -> list[Any]:
    """The results of an `if_` or a `loop`; `run(body, arguments)` runs a body."""
    attrs = node.attrs
    if node.op.name == "if_":
        condition, *arguments = operands
        return run(attrs["then_body"] if bool(condition) else attrs["else_body"], arguments)
    if node.op.name == "loop":
        return _loop(operands, attrs["body"], attrs["carries"], run)
    raise CompileError(f"{node.op.name}: its body cannot be compiled for a fixed size{describe_location(node)}")


def _loop(operands: Sequence[Any], body: Graph, carries: int, run: RunBody) -> list[Any]:
    """ONNX's Loop: (i, condition, carries, captures) -> (condition, carries, slices), the slices stacked."""
    trips, condition, *rest = operands
    state, captures = list(rest[:carries]), rest[carries:]
    slices: list[list[Any]] = [[] for _ in body.outputs[1 + carries :]]
    i = 0
    while i < int(trips) and bool(condition):
        condition, *results = run(body, [np.asarray(i, np.int64), np.asarray(condition), *state, *captures])
        state = results[:carries]
        for collected, item in zip(slices, results[carries:], strict=True):
            collected.append(item)
        i += 1
    stacked = [
        np.stack(items) if items else np.zeros((0, *_static(v.tensor.shape)), v.dtype.numpy)
        for items, v in zip(slices, body.outputs[1 + carries :], strict=True)
    ]
    return [*state, *stacked]


def _static(shape: Sequence[Any]) -> tuple[int, ...]:
    """The shape of a slice that was never made: unknown extents are 0."""
    return tuple(d if isinstance(d, int) else 0 for d in shape)
