"""Lowering of convolutions by minimal filtering: `conv_winograd`, alone or with an epilogue fused behind it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphc.ir.graph import Node
from graphc.kernels.build import ProgramBuilder, lowering
from graphc.kernels.choice import filtering_plan
from graphc.kernels.epilogue import Axes, Epilogue, Epilogues, fused_epilogue
from graphc.kernels.ir import Launch
from graphc.kernels.lower_contraction import blocked_image, names_of, zeros
from graphc.kernels.machine import host_machine
from graphc.kernels.problems import ConvProblem
from graphc.kernels.program import Placed
from graphc.kernels.winograd import NUMBERS, WinogradVariant, arguments, pooled

__all__ = ["WinogradKernel"]


@dataclass(frozen=True)
class WinogradKernel:
    """A Winograd kernel: its variant and what is done with its results."""

    variant: WinogradVariant
    epilogue: Epilogue | Epilogues

    @property
    def family(self) -> str:
        return "winograd"


@lowering("winograd")
def lower_winograd(builder: ProgramBuilder, node: Node, operands: list[Placed], results: list[Placed]) -> None:
    """Emit the launch of a convolution by minimal filtering."""
    anchor, (x, w) = builder.anchor_operands(node, operands)
    x, w = blocked_image(builder, x), builder.dense(w)
    attrs, (batch, _, height, width, lanes) = anchor.attrs, x.shape
    groups, _, _, deep, columns = w.shape
    (top, bottom), (left, right) = attrs["padding"]
    problem = ConvProblem(
        batch, deep, attrs["filters"] // groups, height, width, kernel=attrs["kernel"],
        stride=attrs.get("strides", (1, 1)), pads=(top, left, bottom, right), groups=groups, block=lanes,
        dtype=x.dtype.name,
    )  # fmt: skip
    pool = attrs.get("pool", (1, 1))
    problem = pooled(problem, pool)
    axes = Axes.of_blocked_image(anchor.outputs[0].tensor.static_shape, lanes)
    fused = fused_epilogue(node, operands, results, axes, builder.dense)
    if fused is None:
        builder.apart(node, operands, results)
        return
    epilogue, placed, integers = fused
    machine = host_machine().with_lanes(lanes, x.dtype.itemsize)
    p = filtering_plan(problem, attrs["tile"], machine, builder.threads, columns // lanes)
    p = replace(p, variant=replace(p.variant, pool=pool))
    slots = arguments(problem, p) | {"x_batch": x.strides[0]}
    nothing = builder.constant(zeros(x.dtype.name))
    builder.emit(
        Launch(
            WinogradKernel(p.variant, epilogue),
            (x.operand, w.operand, nothing.operand, *(o.operand for o in placed)),
            len(results),
            (*(slots[name] for name in NUMBERS), *integers),
            p.tasks,
            p.scratch_bytes,
            names_of(node),
            problem.flops,
        )
    )
