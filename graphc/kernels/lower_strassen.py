"""Lowering of products by Strassen's algorithm: `dot_strassen` and `conv_strassen`, alone or with an epilogue."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod

from graphc.ir.graph import Node
from graphc.kernels.build import ProgramBuilder, lowering
from graphc.kernels.choice import strassen_plan
from graphc.kernels.epilogue import Axes, Epilogue, Epilogues, fused_epilogue
from graphc.kernels.ir import Launch
from graphc.kernels.lower_contraction import blocked_image, names_of
from graphc.kernels.machine import host_machine
from graphc.kernels.problems import ConvProblem, GemmProblem, Problem
from graphc.kernels.program import Placed
from graphc.kernels.strassen import NUMBERS, StrassenProblem, StrassenVariant, arguments, inner_steps

__all__ = ["StrassenKernel"]


@dataclass(frozen=True)
class StrassenKernel:
    """A Strassen kernel: its variant and what is done with its results."""

    variant: StrassenVariant
    epilogue: Epilogue | Epilogues

    @property
    def family(self) -> str:
        return "strassen"


@lowering("strassen")
def lower_strassen(builder: ProgramBuilder, node: Node, operands: list[Placed], results: list[Placed]) -> None:
    """Emit the launch of a product by Strassen's algorithm."""
    anchor, (x, w) = builder.anchor_operands(node, operands)
    w = builder.dense(w)
    prepare = _pointwise if anchor.op.name == "conv_strassen" else _product
    problem, halved, axes, x, strides = prepare(builder, anchor, x)
    fused = fused_epilogue(node, operands, results, axes, builder.dense)
    if fused is None:
        builder.apart(node, operands, results)
        return
    epilogue, placed, integers = fused
    machine = host_machine().with_lanes(axes.lanes, x.dtype.itemsize)
    levels = anchor.attrs.get("levels", 1)
    p = strassen_plan(problem, halved, machine, builder.threads, levels, w.shape[-1] // axes.lanes)
    slots = arguments(halved, p) | strides
    builder.emit(
        Launch(
            StrassenKernel(p.variant, epilogue),
            (x.operand, w.operand, *(o.operand for o in placed)),
            len(results),
            (*(slots[name] for name in NUMBERS), *integers),
            p.tasks,
            p.scratch_bytes,
            names_of(node),
            problem.flops,
        )
    )


Prepared = tuple[Problem, StrassenProblem, Axes, Placed, dict[str, int]]


def _pointwise(builder: ProgramBuilder, anchor: Node, x: Placed) -> Prepared:
    """Rows are pixels, rounds are blocks of channels."""
    x = blocked_image(builder, x)
    batch, blocks, height, width, lanes = x.shape
    shape = anchor.outputs[0].tensor.static_shape
    halved = StrassenProblem(
        height * width, shape[1] * lanes, blocks * lanes, batch, lanes, x.dtype.name, guarded=False
    )
    problem = ConvProblem(
        batch, blocks * lanes, anchor.attrs["filters"], height, width, (1, 1), block=lanes, dtype=x.dtype.name
    )
    axes = Axes.of_blocked_image(shape, lanes)
    return (
        problem,
        halved,
        axes,
        x,
        {"x_batch": x.strides[0], "row_stride": lanes, "step_stride": height * width * lanes},
    )


def _product(builder: ProgramBuilder, anchor: Node, a: Placed) -> Prepared:
    """All leading axes are rows."""
    rows = [(d, s) for d, s in zip(a.shape[:-1], a.strides[:-1], strict=True) if d > 1]
    in_line = all(outer == d * inner for (_, outer), (d, inner) in pairwise(rows))
    if a.strides[-1] != 1 or not in_line or any(s < 0 for _, s in rows):
        a = builder.dense(a)
        rows = []
    shape, k = anchor.outputs[0].tensor.static_shape, a.shape[-1]
    lanes = host_machine().isa.lanes(a.dtype.itemsize)
    halved = StrassenProblem(prod(a.shape[:-1]), shape[-1], k, 1, inner_steps(lanes), a.dtype.name)
    axes = Axes(
        shape, {"b": (), "m": tuple(range(len(shape) - 1))}, column=len(shape) - 1, column_vectors="q", lanes=lanes
    )
    row_stride = rows[-1][1] if rows else k
    problem = GemmProblem(halved.m, halved.n, k, dtype=a.dtype.name)
    return problem, halved, axes, a, {"x_batch": 0, "row_stride": row_stride, "step_stride": halved.inner}
