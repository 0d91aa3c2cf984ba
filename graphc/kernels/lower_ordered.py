"""Lowering of what goes along an axis in order: running totals and sorting.

Operands and results are dense; an axis splits them into rows x length x width elements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphc.ir.dims import ceil_div
from graphc.ir.dtypes import DType
from graphc.ir.graph import Node
from graphc.kernels.build import ProgramBuilder, lowering
from graphc.kernels.ir import Launch
from graphc.kernels.loops import PANEL
from graphc.kernels.lower_contraction import names_of
from graphc.kernels.program import Placed

__all__ = ["ScanKernel", "SortKernel"]

_TASK_WORK = 30_000


@dataclass(frozen=True)
class ScanKernel:
    """Running totals: `combine` is "add" or "mul"; `narrow` when the axis is the last, so that elements are neighbours.

    Operands x, y; integers rows, length, width, chunk (rows a task).
    """

    dtype: DType
    combine: str
    exclusive: bool
    reverse: bool
    narrow: bool

    @property
    def family(self) -> str:
        return "scan"


@dataclass(frozen=True)
class SortKernel:
    """The first `count` elements of a stable sort and their places. `few` keeps a short sorted list instead of sorting all.

    Operands x, values, places; integers lines (rows * width), length, width, count, chunk (lines a task).
    """

    dtype: DType
    descending: bool
    few: bool

    @property
    def family(self) -> str:
        return "sort"


def _split(x: Placed, axis: int) -> tuple[int, int, int]:
    """Rows, length and width around an axis."""
    return math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])


def _tasks(steps: int, work: int, threads: int) -> tuple[int, int]:
    """How many tasks, and the steps of each."""
    tasks = max(1, min(threads, steps, work // _TASK_WORK))
    chunk = ceil_div(steps, tasks)
    return ceil_div(steps, chunk), chunk


@lowering("scan_sum")
def lower_cumsum(builder: ProgramBuilder, node: Node, operands: list[Placed], results: list[Placed]) -> None:
    """Emit the launch of a cumsum."""
    _scan(builder, node, operands, results, "add")


@lowering("scan_prod")
def lower_cumprod(builder: ProgramBuilder, node: Node, operands: list[Placed], results: list[Placed]) -> None:
    """Emit the launch of a cumprod."""
    _scan(builder, node, operands, results, "mul")


def _scan(builder: ProgramBuilder, node: Node, operands: list[Placed], results: list[Placed], combine: str) -> None:
    if node.op.name == "fusion":
        builder.apart(node, operands, results)
        return
    x, y = builder.dense(operands[0]), results[0]
    rows, length, width = _split(x, node.attrs["axis"])
    kernel = ScanKernel(
        x.dtype, combine, node.attrs.get("exclusive", False), node.attrs.get("reverse", False), width == 1
    )
    work = 2 * rows * length * width
    tasks, chunk = _tasks(rows, work, builder.threads)
    scratch = 0 if kernel.narrow else 8 * PANEL
    builder.emit(
        Launch(kernel, (x.operand, y.operand), 1, (rows, length, width, chunk), tasks, scratch, names_of(node), work)
    )


@lowering("sort")
def lower_sort(builder: ProgramBuilder, node: Node, operands: list[Placed], results: list[Placed]) -> None:
    """Emit the launch of a sort or top_k."""
    if node.op.name == "fusion":
        builder.apart(node, operands, results)
        return
    x, (values, places) = builder.dense(operands[0]), results
    rows, length, width = _split(x, node.attrs["axis"])
    count = node.attrs.get("k", length)
    descending = (
        node.attrs["largest"] if node.op.name == "top_k" and "largest" in node.attrs else node.op.name == "top_k"
    )
    if node.op.name == "sort":
        descending = node.attrs.get("descending", False)
    few = count <= 32 and count < length
    kernel = SortKernel(x.dtype, descending, few)
    lines = rows * width
    work = lines * length * (8 if few else 8 * max(length, 2).bit_length())
    tasks, chunk = _tasks(lines, work, builder.threads)
    scratch = 16 * (2 * count if few else 2 * length) + 64
    operand = (x.operand, values.operand, places.operand)
    builder.emit(Launch(kernel, operand, 2, (lines, length, width, count, chunk), tasks, scratch, names_of(node), work))
