"""Lowering of operations about places: where an extreme is, and updates written to places that data gives.

All become loop nests. An extreme's place takes two reductions: the extreme, then the first (or last) index that has it.
A scatter reads and writes its result at an offset that it loads; its updates run in order, on one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.ir.graph import Node
from graphc.ir.scalar import Scalar, const, index, linear, load, scalar, select, temp
from graphc.kernels.build import ProgramBuilder, lowering
from graphc.kernels.ir import LoopNest, Map, Reduce, Store
from graphc.kernels.lower import launches
from graphc.kernels.lower_contraction import names_of
from graphc.kernels.program import Placed
from graphc.ops.injective import wrap_index

__all__ = ["argreduce_nest", "scatter_nest", "window_argmax_nest"]

_COMBINES = {"add": "add", "mul": "mul", "max": "maximum", "min": "minimum"}


@lowering("argreduce")
def lower_argreduce(builder: ProgramBuilder, node: Node, operands: list[Placed], results: list[Placed]) -> None:
    """Emit the launch of an argmax or argmin."""
    if node.op.name == "fusion":
        builder.apart(node, operands, results)
        return
    nest = argreduce_nest(node.op.name == "argmax", operands[0], results[0], **node.attrs)
    _emit(builder, node, nest, [*operands, *results])


@lowering("window_argmax")
def lower_window_argmax(builder: ProgramBuilder, node: Node, operands: list[Placed], results: list[Placed]) -> None:
    """Emit the launch of a window_argmax."""
    if node.op.name == "fusion":
        builder.apart(node, operands, results)
        return
    _emit(builder, node, window_argmax_nest(operands[0], results[0], **node.attrs), [*operands, *results])


@lowering("scatter")
def lower_scatter(builder: ProgramBuilder, node: Node, operands: list[Placed], results: list[Placed]) -> None:
    """Emit a copy of the operand into the result and the launch that writes the updates over it."""
    if node.op.name == "fusion":
        builder.apart(node, operands, results)
        return
    (x, indices, updates), (y,) = operands, results
    builder.copy(x, y)
    if 0 not in updates.shape:
        nest = scatter_nest(y, indices, updates, node.attrs.get("axis"), node.attrs.get("reduction", "none"))
        for launch in launches(nest, [indices, updates, y], 1, names_of(node), ordered=True):
            builder.emit(launch)


def _emit(builder: ProgramBuilder, node: Node, nest: LoopNest, placed: Sequence[Placed]) -> None:
    for launch in launches(nest, placed, builder.threads, names_of(node)):
        builder.emit(launch)


def _extreme_place(
    maximum: bool, value: Scalar, place: Scalar, inner: tuple[Scalar, ...], last: bool, y: Placed, x: Placed
) -> LoopNest:
    """Two reductions over the inner loops: the extreme of `value`, and the first or last `place` that holds it (or NaN)."""
    best = temp(0, value.dtype)
    found = scalar("eq", value, best)
    if value.dtype.is_float:
        found = scalar("or", found, scalar("isnan", value))
    nowhere = const(-1 if last else 2**63 - 1)
    combine = "maximum" if last else "minimum"
    store = Store(1, linear([index(k) for k in range(len(y.shape))], y.strides), temp(1, place.dtype))
    stages = (
        Reduce(0, "maximum" if maximum else "minimum", inner, value),
        Reduce(1, combine, inner, select(found, place, nowhere)),
        Map((), (store,)),
    )
    return LoopNest((x.dtype, y.dtype), 1, tuple(map(const, y.shape)), stages)


def argreduce_nest(maximum: bool, x: Placed, y: Placed, *, axis: int, select_last: bool = False) -> LoopNest:
    """y = the place of the extreme of x along `axis`; buffers x, y."""
    inner = index(len(y.shape))
    position = [index(k if k < axis else k - 1) if k != axis else inner for k in range(len(x.shape))]
    value = load(0, linear(position, x.strides), x.dtype)
    return _extreme_place(maximum, value, inner, (const(x.shape[axis]),), select_last, y, x)


def window_argmax_nest(
    x: Placed,
    y: Placed,
    *,
    axes: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    column_major: bool = False,
) -> LoopNest:
    """y = the place in all of x, counted flat, of each window's largest element; buffers x, y."""
    rank = len(x.shape)
    position = [index(k) for k in range(rank)]
    inside: Scalar | None = None
    for n, (axis, stride, (low, high), step) in enumerate(zip(axes, strides, padding, dilation, strict=True)):
        position[axis] = at = index(axis) * stride + index(rank + n) * step + (-low)
        if low or high:
            bounds = (at >= 0) & (at < x.shape[axis])
            inside = bounds if inside is None else inside & bounds
    order = [*(k for k in range(rank) if k not in axes), *(reversed(axes) if column_major else axes)]
    place, size = const(0), 1
    for k in reversed(order):
        place, size = place + position[k] * size, size * x.shape[k]
    value = load(0, linear(position, x.strides), x.dtype)
    nest = _extreme_place(True, value, place, tuple(map(const, window)), False, y, x)
    if inside is None:
        return nest
    # padding loses even against -inf: it has no place
    first, second, store = nest.stages
    assert isinstance(first, Reduce)
    assert isinstance(second, Reduce)
    lowest = const(_lowest(x), x.dtype)
    stages = (
        Reduce(0, first.combine, first.extents, select(inside, value, lowest)),
        Reduce(1, second.combine, second.extents, select(inside, second.value, const(2**63 - 1))),
        store,
    )
    return LoopNest(nest.buffers, 1, nest.extents, stages)


def _lowest(x: Placed) -> Any:
    from graphc.ops.reduce import combine_identity

    return combine_identity("maximum", x.dtype)


def scatter_nest(y: Placed, indices: Placed, updates: Placed, axis: int | None, reduction: str) -> LoopNest:
    """Updates written into y, in order. With `axis` as scatter_elements places them, without as scatter_nd; buffers indices, updates, y."""
    loops = [index(k) for k in range(len(updates.shape))]
    if axis is not None:
        at = load(0, linear(loops, indices.strides), indices.dtype)
        position = [wrap_index(at, y.shape[axis]) if k == axis else i for k, i in enumerate(loops)]
    else:
        outer, depth = len(indices.shape) - 1, indices.shape[-1]
        position = []
        for k in range(depth):
            at = load(0, linear([*loops[:outer], const(k)], indices.strides), indices.dtype)
            position.append(wrap_index(at, y.shape[k]))
        position += loops[outer:]
    target = linear(position, y.strides)
    value: Scalar = load(1, linear(loops, updates.strides), updates.dtype)
    if reduction != "none":
        value = scalar(_COMBINES[reduction], load(2, target, y.dtype), value)
    return LoopNest(
        (indices.dtype, updates.dtype, y.dtype),
        1,
        tuple(map(const, updates.shape)),
        (Map((), (Store(2, target, value),)),),
    )
