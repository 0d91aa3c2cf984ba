"""Lowering of sliding windows: pooling and depthwise convolutions.

On blocked activations the tuned template does it, with an epilogue fused behind; any other shape, axes or element type
becomes a loop nest that reduces over the window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.ir.graph import Node
from graphc.ir.scalar import Scalar, cast, const, index, linear, load, select, temp
from graphc.kernels.build import ProgramBuilder, lowering
from graphc.kernels.epilogue import Axes, Epilogue, Epilogues, fused_epilogue
from graphc.kernels.ir import Launch, LoopNest, Map, Reduce, Store
from graphc.kernels.lower import launches
from graphc.kernels.lower_contraction import names_of
from graphc.kernels.machine import host_machine
from graphc.kernels.program import Placed
from graphc.kernels.windows import NUMBERS, WindowProblem, WindowVariant, arguments, schedule
from graphc.ops.reduce import combine_identity

__all__ = ["WindowKernel"]

_COMBINES = {"add": "add", "maximum": "max"}


@dataclass(frozen=True)
class WindowKernel:
    """A window kernel: the micro-kernel's variant and what is done with its results."""

    variant: WindowVariant
    epilogue: Epilogue | Epilogues

    @property
    def family(self) -> str:
        return "window"


@lowering("depthwise")
def lower_depthwise(builder: ProgramBuilder, node: Node, operands: list[Placed], results: list[Placed]) -> None:
    """Emit the launch of a depthwise convolution on blocked activations."""
    anchor, (x, w) = builder.anchor_operands(node, operands)
    _blocked(builder, node, operands, results, builder.dense(x), builder.dense(w), anchor, "fma", w.shape[1:3])


@lowering("window")
def lower_window(builder: ProgramBuilder, node: Node, operands: list[Placed], results: list[Placed]) -> None:
    """Emit the launches of a `reduce_window`."""
    anchor, (x,) = builder.anchor_operands(node, operands)
    attrs = anchor.attrs
    blocked = len(x.shape) == 5 and attrs["axes"] == (2, 3) and host_machine().has_lanes(x.shape[4], x.dtype.itemsize)
    if blocked and attrs["combine"] in _COMBINES and x.dtype.name in ("float32", "float64"):
        x = builder.dense(x)
        _blocked(builder, node, operands, results, x, x, anchor, _COMBINES[attrs["combine"]], attrs["window"])
    elif node is not anchor:
        builder.apart(node, operands, results)
    else:
        for launch in launches(_nest(x, results[0], attrs), [x, results[0]], builder.threads, names_of(node)):
            builder.emit(launch)


def _blocked(
    builder: ProgramBuilder,
    node: Node,
    operands: list[Placed],
    results: list[Placed],
    x: Placed,
    w: Placed,
    anchor: Node,
    combine: Any,
    kernel: Sequence[int],
) -> None:
    attrs = anchor.attrs
    (top, bottom), (left, right) = attrs["padding"]
    batch, blocks, height, width, lanes = x.shape
    problem = WindowProblem(
        batch,
        blocks,
        height,
        width,
        kernel=(kernel[0], kernel[1]),
        stride=attrs["strides"],
        dilation=attrs["dilation"],
        pads=(top, left, bottom, right),
        lanes=lanes,
        combine=combine,
        dtype=x.dtype.name,
    )
    axes = Axes.of_blocked_image(anchor.outputs[0].tensor.static_shape, lanes)
    fused = fused_epilogue(node, operands, results, axes, builder.dense)
    if fused is None:
        builder.apart(node, operands, results)
        return
    epilogue, placed, integers = fused
    plan = schedule(problem, host_machine(), builder.threads)
    slots = arguments(problem, plan)
    builder.emit(
        Launch(
            WindowKernel(plan.variant, epilogue),
            (x.operand, w.operand, *(p.operand for p in placed)),
            len(results),
            (*(slots[name] for name in NUMBERS), *integers),
            plan.tasks,
            plan.scratch_bytes,
            names_of(node),
            problem.flops,
        )
    )


def _nest(x: Placed, y: Placed, attrs: Mapping[str, Any]) -> LoopNest:
    """Any window over any axes: the output's points outside, the window's inside."""
    axes, rank = attrs["axes"], len(x.shape)
    position: list[Scalar] = [index(k) for k in range(rank)]
    inside: Scalar | None = None
    for n, (axis, stride, dilation, (low, high)) in enumerate(
        zip(axes, attrs["strides"], attrs["dilation"], attrs["padding"], strict=True)
    ):
        at = index(axis) * stride + index(rank + n) * dilation + (-low)
        if low or high:
            bounds = (at >= 0) & (at < x.shape[axis])
            inside = bounds if inside is None else inside & bounds
        position[axis] = at
    value = cast(load(0, linear(position, x.strides), x.dtype), x.dtype.computed_in)
    if inside is not None:
        value = select(inside, value, const(combine_identity(attrs["combine"], value.dtype), value.dtype))
    window = tuple(const(n) for n in attrs["window"])
    target = linear([index(k) for k in range(len(y.strides))], y.strides)
    store = Store(1, target, cast(temp(0, value.dtype), y.dtype))
    return LoopNest(
        (x.dtype, y.dtype),
        1,
        tuple(const(d) for d in y.shape),
        (Reduce(0, attrs["combine"], window, value), Map((), (store,))),
    )
