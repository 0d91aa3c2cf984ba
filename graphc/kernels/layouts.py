"""Where values lie in relation to each other: slices of a concatenation, one memory under two shapes, what a node reads
only where it writes. Questions that the builder asks before it gives a value its place; nothing here decides."""

from __future__ import annotations

import numpy as np

from graphc.ir.graph import Graph, Node, Value
from graphc.kernels.program import Placed
from graphc.ops.spec import Kind, Layout

__all__ = ["as_layout", "before_unit_axes", "concat_slots", "elementwise_operands", "same_place"]


def elementwise_operands(node: Node) -> list[int]:
    """The operands that a node reads only at the element it writes: all of an elementwise operation's, and a fusion's
    operands from which every path to the results is elementwise."""
    if node.op.kind is Kind.ELEMENTWISE:
        return list(range(len(node.inputs)))
    if node.op.kind is not Kind.FUSION:
        return []
    body: Graph = node.attrs["body"]
    tainted = {v for n in body.nodes if n.op.kind not in (Kind.ELEMENTWISE, Kind.LEAF) for v in n.inputs}
    for n in reversed(body.nodes):  # an operand of an operation whose result is read elsewhere is read there too
        if any(v in tainted for v in n.outputs):
            tainted.update(n.inputs)
    return [k for k, v in enumerate(body.inputs) if v not in tainted]


def concat_slots(node: Node, result: Placed) -> list[Placed]:
    """The slices of a concatenation's result that its operands fill."""
    axis, at, slots = node.attrs["axis"], 0, []
    for v in node.inputs:
        shape = v.tensor.static_shape
        offset = result.layout.offset + at * result.strides[axis]
        slots.append(Placed(result.buffer, result.dtype, Layout(offset, shape, result.strides)))
        at += shape[axis]
    return slots


def before_unit_axes(value: Value, placed: Placed) -> tuple[Value, Placed]:
    """What a value was before reshapes added or dropped axes of extent 1, and the same place under that shape."""
    while value.node.op.name == "reshape":
        inner = value.node.inputs[0]
        shape, strides = (
            inner.tensor.static_shape,
            [st for d, st in zip(placed.shape, placed.strides, strict=True) if d > 1],
        )
        if [d for d in shape if d > 1] != [d for d in placed.shape if d > 1]:
            break
        # the stride of an axis of extent 1 is never used
        layout = Layout(placed.layout.offset, shape, tuple(strides.pop(0) if d > 1 else 1 for d in shape))
        value, placed = inner, Placed(placed.buffer, placed.dtype, layout)
    return value, placed


def same_place(a: Placed, b: Placed) -> bool:
    """Whether two values of one shape lie at the same addresses."""
    steps = zip(a.shape, a.strides, b.strides, strict=True)
    return (a.buffer, a.layout.offset) == (b.buffer, b.layout.offset) and all(d <= 1 or x == y for d, x, y in steps)


def as_layout(array: np.ndarray) -> tuple[np.ndarray, Layout]:
    """An array's memory as a flat array without repetition, and the layout of the array in it."""
    if array.flags.c_contiguous:
        return array, Layout.dense(array.shape)
    # a broadcast scalar or row keeps stride 0; anything stranger is made dense
    core = array[tuple(slice(0, 1) if s == 0 else slice(None) for s in array.strides)] if array.ndim else array
    core = np.ascontiguousarray(core)
    dense = Layout.dense(core.shape)
    strides = tuple(0 if s == 0 else d for s, d in zip(array.strides, dense.strides, strict=True))
    return core, Layout(0, array.shape, strides)
