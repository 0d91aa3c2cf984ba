"""Lowering of contractions: `conv_blocked`, `conv_picked` and `dot_packed`, alone or with an epilogue fused behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Node, location_of
from graphc.kernels.build import ProgramBuilder, lowering
from graphc.kernels.choice import choose_product
from graphc.kernels.contraction import NUMBERS, ContractionVariant, arguments, offset_table, picked_table
from graphc.kernels.direct import conv_nest, dot_nest
from graphc.kernels.epilogue import Axes, Epilogue, Epilogues, fused_epilogue
from graphc.kernels.ir import Launch, Operand
from graphc.kernels.lower import launches
from graphc.kernels.machine import host_machine
from graphc.kernels.problems import ConvProblem, GemmProblem, Problem, picked_problem
from graphc.kernels.program import Placed
from graphc.ops.layout import summed_in, together
from graphc.ops.spec import Layout

__all__ = ["ContractionKernel", "blocked_image", "conv_problem", "names_of", "zeros"]

#: columns from which a left operand whose steps lie apart (a transposed matrix) is copied first: every panel of columns
#: reads it again, and a step a cache line, at strides that meet in few sets of the cache, halves the speed
WORTH_A_COPY = 64


@dataclass(frozen=True)
class ContractionKernel:
    """A contraction kernel: the micro-kernel's variant and what is done with its results."""

    variant: ContractionVariant
    epilogue: Epilogue | Epilogues

    @property
    def family(self) -> str:
        return "contraction"


@lowering("contraction")
def lower_contraction(builder: ProgramBuilder, node: Node, operands: list[Placed], results: list[Placed]) -> None:
    """Emit the launches of a contraction. The result (and every output of the fusion) is dense."""
    anchor, (x, w) = builder.anchor_operands(node, operands)
    if anchor.op.name in ("dot", "conv"):
        _by_definition(builder, node, anchor, operands, results)
        return
    prepare = _product if anchor.op.name == "dot_packed" else _convolution
    problem, axes, x, w = prepare(builder, anchor, x, w)
    fused = fused_epilogue(node, operands, results, axes, builder.dense)
    if fused is None:
        builder.apart(node, operands, results)
        return
    epilogue, placed, integers = fused
    machine = host_machine().with_lanes(axes.lanes, anchor.outputs[0].dtype.itemsize)
    columns = w.shape[-1] if together(w.dtype) == 1 else w.shape[-2]
    plan = choose_product(problem, machine, builder.threads, vectors=columns // axes.lanes)
    slots = arguments(problem, plan)
    table, nothing = Operand(x.buffer), Operand(x.buffer)
    if plan.variant.mode == "picked":
        table = builder.constant(_picked_table(problem, anchor.attrs["places"])).operand
    elif plan.variant.mode == "table":
        assert isinstance(problem, ConvProblem)
        table = builder.constant(_table(problem, plan.variant)).operand
        assert problem.inner <= len(zeros(problem.dtype)), "padding would be read past the area of zeros"
        nothing = builder.constant(zeros(problem.dtype)).operand
    slots["x_batch"] = x.strides[0] if isinstance(problem, ConvProblem) else slots["x_batch"]
    builder.emit(
        Launch(
            ContractionKernel(plan.variant, epilogue),
            (x.operand, w.operand, table, nothing, *(p.operand for p in placed)),
            len(results),
            (*(slots[name] for name in NUMBERS), *integers),
            plan.tasks,
            plan.scratch_bytes,
            names_of(node),
            problem.flops,
        )
    )


def names_of(node: Node) -> tuple[str, ...]:
    """What a launch says it computes: the places its node came from."""
    return location_of(node) or (node.op.name,)


def _by_definition(
    builder: ProgramBuilder, node: Node, anchor: Node, operands: list[Placed], results: list[Placed]
) -> None:
    if node is not anchor:
        builder.apart(node, operands, results)
        return
    (x, w), (y,) = operands, results
    nest = dot_nest(x, w, y) if anchor.op.name == "dot" else conv_nest(x, w, y, anchor.attrs)
    for launch in launches(nest, [x, w, y], builder.threads, names_of(node)):
        builder.emit(launch)


# ------------------------------------------------------------------------------------------------------ convolutions


def conv_problem(x: Sequence[int], w: Sequence[int], attrs: Mapping[str, Any], dtype: str) -> ConvProblem:
    """The problem of a `conv_blocked` or `conv_picked` with operands of these shapes."""
    groups, _, blocks, kh, kw, size, _, *pair = w
    size *= prod(pair)
    if "places" in attrs:
        return picked_problem(x, size, attrs["filters"] // groups, groups, dtype)
    (top, bottom), (left, right) = attrs["padding"]
    return ConvProblem(
        batch=x[0],
        channels=blocks * size,
        filters=attrs["filters"] // groups,
        height=x[2],
        width=x[3],
        kernel=(kh, kw),
        stride=attrs["strides"],
        dilation=attrs["dilation"],
        pads=(top, left, bottom, right),
        groups=groups,
        block=size,
        dtype=dtype,
    )


def blocked_image(builder: ProgramBuilder, x: Placed) -> Placed:
    """Blocked images, each dense in itself; they may lie apart."""
    if not Layout(0, x.shape[1:], x.strides[1:]).is_dense:
        return builder.dense(x)
    # extents of 1 make strides meaningless
    image = Layout.dense(x.shape[1:])
    return Placed(x.buffer, x.dtype, Layout(x.layout.offset, x.shape, (x.strides[0], *image.strides)))


def _convolution(builder: ProgramBuilder, anchor: Node, x: Placed, w: Placed) -> tuple[Problem, Axes, Placed, Placed]:
    x, w = blocked_image(builder, x), builder.dense(w)
    problem = conv_problem(x.shape, w.shape, anchor.attrs, x.dtype.name)
    axes = Axes.of_blocked_image(anchor.outputs[0].tensor.static_shape, anchor.attrs["lanes"])
    return problem, axes, x, w


@lru_cache(maxsize=256)
def _table(problem: ConvProblem, variant: ContractionVariant) -> np.ndarray:
    return offset_table(problem, variant)


@lru_cache(maxsize=256)
def _picked_table(problem: ConvProblem, places: tuple[tuple[int, ...], ...]) -> np.ndarray:
    return picked_table(problem, places)


@lru_cache(maxsize=8)
def zeros(dtype: str) -> np.ndarray:
    """A little area of zeros, for kernels to read where there is padding."""
    return np.zeros(64, dtype)


# --------------------------------------------------------------------------------------------------- matrix products


def _product(builder: ProgramBuilder, anchor: Node, a: Placed, w: Placed) -> tuple[Problem, Axes, Placed, Placed]:
    """Rows m, columns n, steps k; leading axes are rows too when the right operand is shared and memory allows."""
    w = builder.dense(w)
    shape = anchor.outputs[0].tensor.static_shape
    *batch, m, k = a.shape
    n = shape[-1]
    lanes = host_machine().isa.lanes(dtype_of(summed_in(a.dtype)).itemsize)
    pair = together(a.dtype)
    panels = w.layout.shape[: len(w.layout.shape) - (2 if pair == 1 else 3)]
    shared = panels[:-1] == () or not batch
    if k > 1 and m > 1 and a.strides[-1] != 1 and (n >= WORTH_A_COPY or pair > 1):
        a = builder.dense(a)
    last = a.strides[-1] if k > 1 else 1
    row_axes: tuple[int, ...] = (len(batch),)
    if shared and batch:
        steps = [(d, st) for d, st in zip(a.shape[:-1], a.strides[:-1], strict=True) if d > 1]
        if any(outer != d * inner for (_, outer), (d, inner) in pairwise(steps)):
            a = builder.dense(a)
            last = 1
        row_axes, m, batch = tuple(range(len(shape) - 1)), prod(shape[:-1]), []
    elif len([d for d in batch if d > 1]) > 2 or any(st < 0 for st in a.strides):
        a = builder.dense(a)
        last = 1
    real = [i for i, d in enumerate(batch) if d > 1]
    if len(real) > 2:  # dense now: leading batch axes are one
        outer_axes, inner_axes = tuple(real[:-1]), tuple(real[-1:])
    else:
        outer_axes, inner_axes = tuple(real[:1]) if len(real) == 2 else (), tuple(real[-1:])
    extents = [prod(shape[i] for i in axes) for axes in (outer_axes, inner_axes)]
    rows = [(d, st) for d, st in zip(a.shape[:-1], a.strides[:-1], strict=True) if d > 1]
    row_stride = (rows[-1][1] if rows else k) if len(row_axes) > 1 else a.strides[-2] if m > 1 else k
    problem = GemmProblem(
        m=m,
        n=n,
        k=k,
        batch=extents[0],
        groups=extents[1],
        row_stride=row_stride,
        step_stride=last,
        batch_stride=a.strides[outer_axes[-1]] if outer_axes else 0,
        group_stride=a.strides[inner_axes[-1]] if inner_axes else 0,
        shared=extents[0] == 1,
        dtype=a.dtype.name,
    )
    axes = Axes(
        shape, {"b": outer_axes, "g": inner_axes, "m": row_axes}, column=len(shape) - 1, column_vectors="q", lanes=lanes
    )
    return problem, axes, a, w
