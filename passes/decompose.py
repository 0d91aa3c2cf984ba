"""Decomposition: operations without a kernel of their own become smaller ones that have.

- what an operation's entry says it decomposes into (recurrent layers: a scan over time);
- half precision contractions compute in float32 and round once, as their references do;
- integer matrix products become products and a sum, which is one loop nest;
- a convolution of one channel along a line (a filter bank, a spectrogram) becomes a matrix product;
- a convolution over one or over three and more spatial dimensions becomes convolutions over two;
- an integer convolution becomes a matrix product for every position of its window.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from graphc import ops
from graphc.ir.dims import ceil_div
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.rewrite import rewrite
from graphc.ir.rules import Rule, Uses, rule
from graphc.ops.frames import frames
from graphc.passes.match import needs

__all__ = ["DECOMPOSITIONS", "decompose"]

FLOAT32 = dtype_of("float32")
#: element types that the contraction kernels compute
CONTRACTED = ("float32", "float64")
HALF = ("float16", "bfloat16")


def decompose(graph: Graph) -> Graph:
    """The graph with every operation that no kernel computes taken apart."""
    own = tuple(name for name, op in ops.REGISTRY.items() if op.decompose is not None)
    by_entry = Rule("by_entry", own, lambda node, uses: None, _by_entry, "what the operation's entry says")
    return rewrite(graph, (by_entry, *DECOMPOSITIONS))


def _by_entry(node: Node) -> Sequence[Value]:
    assert node.op.decompose is not None
    return node.op.decompose(node)


@rule(
    "dot",
    "conv",
    check=needs(lambda n: n.outputs[0].dtype.name in HALF, "the element type is not a half precision one"),
)
def half_precision(node: Node) -> Value:
    """contraction in float32 between casts"""
    wide = [ops.cast(v, dtype=FLOAT32) for v in node.inputs]
    return ops.cast(node.op(*wide, **node.attrs), dtype=node.outputs[0].dtype)


@rule("dot", check=needs(lambda n: not n.outputs[0].dtype.is_float, "the contraction kernels compute it"))
def integer_product(node: Node) -> Value:
    """integer matrix product = sum of products"""
    a, b = node.inputs
    *batch, m, k = a.shape
    n = b.shape[-1]
    shape = (*batch, m, n, k)
    order = (*range(len(batch)), len(batch) + 1, len(batch))
    left = ops.broadcast_to(ops.reshape(a, shape=(*batch, m, 1, k)), shape=shape)
    right = ops.broadcast_to(ops.reshape(ops.transpose(b, perm=order), shape=(*batch, 1, n, k)), shape=shape)
    return ops.reduce_sum(ops.mul(left, right), axes=(len(shape) - 1,))


def _convolves(spatial: range) -> object:
    def check(node: Node, uses: Uses) -> str | None:
        if node.outputs[0].dtype.name not in CONTRACTED:
            return f"{node.outputs[0].dtype} is taken apart otherwise"
        return None if node.inputs[0].rank - 2 in spatial else f"it has {node.inputs[0].rank - 2} spatial dimensions"

    return check


#: a matrix product fills its kernel's lanes with at least this many columns
COLUMNS = 16
#: taps from which a convolution of one channel along a line is worth more as a matrix product
TAPS = 16


def _along_a_line(node: Node, uses: Uses) -> str | None:
    x, w = node.inputs
    a = node.attrs
    if node.outputs[0].dtype.name not in CONTRACTED:
        return f"{node.outputs[0].dtype} is taken apart otherwise"
    if x.shape[1] != 1:
        return f"it has {x.shape[1]} channels"
    long = [k for k in range(x.rank - 2) if (x.shape[2 + k], w.shape[2 + k], a["padding"][k]) != (1, 1, (0, 0))]
    if len(long) != 1 or a["dilation"][long[0]] != 1 or w.shape[2 + long[0]] < TAPS:
        return f"it is not along one line with {TAPS} taps or more"
    return None


@rule("conv", check=_along_a_line)
def convolution_of_one_channel(node: Node) -> Value:
    """convolution of one channel along a line = matrix product of its frames with the filters

    With few filters, R neighbouring outputs make one row: the frames are longer, and the matrix holds R shifted copies
    of the filters.
    """
    x, w = node.inputs
    out = node.outputs[0]
    axis = next(k for k in range(x.rank - 2) if (x.shape[2 + k], w.shape[2 + k]) != (1, 1))
    batch, filters, taps, count = x.shape[0], w.shape[0], w.shape[2 + axis], out.shape[2 + axis]
    step, (low, _) = node.attrs["strides"][axis], node.attrs["padding"][axis]
    together = max(1, COLUMNS // filters)
    rows = ceil_div(count, together)
    size = taps + (together - 1) * step
    length = (rows - 1) * together * step + size
    # at the end, so many zeros that the last row is whole; or cut what no output reads
    line = ops.reshape(x, shape=(batch, x.shape[2 + axis]))
    line = ops.pad(line, np.zeros((), x.dtype.numpy), low=(0, low), high=(0, length - low - x.shape[2 + axis]))
    columns = ops.transpose(ops.reshape(w, shape=(filters, taps)), perm=(1, 0))
    zero = np.zeros((), w.dtype.numpy)
    shifted = [ops.pad(columns, zero, low=(k * step, 0), high=((together - 1 - k) * step, 0)) for k in range(together)]
    matrix = ops.concat(*shifted, axis=1)
    pieces = frames(line, size=size, step=together * step)
    product = ops.dot(pieces, ops.broadcast_to(matrix, shape=(batch, *matrix.shape)))
    y = ops.reshape(product, shape=(batch, rows * together, filters))
    y = ops.slice(y, starts=(0, 0, 0), stops=(batch, count, filters), steps=(1, 1, 1))
    return ops.reshape(ops.transpose(y, perm=(0, 2, 1)), shape=out.shape)


@rule("conv", check=_convolves(range(1, 2)))  # type: ignore[arg-type]
def convolution_in_one_dimension(node: Node) -> Value:
    """convolution along a line = along the rows of an image one row high"""
    x, w = node.inputs
    a = node.attrs
    y = ops.conv(
        ops.reshape(x, shape=(*x.shape[:2], 1, x.shape[2])),
        ops.reshape(w, shape=(*w.shape[:2], 1, w.shape[2])),
        strides=(1, *a["strides"]),
        padding=((0, 0), *a["padding"]),
        dilation=(1, *a["dilation"]),
        groups=a.get("groups", 1),
    )
    return ops.reshape(y, shape=node.outputs[0].shape)


@rule("conv", check=_convolves(range(3, 100)))  # type: ignore[arg-type]
def convolution_in_slices(node: Node) -> Value:
    """convolution over a volume = over slices, the depths of its window side by side as channels

    Of several groups, whose channels are neighbours already: for every depth one over slices, summed.
    """
    x, w = node.inputs
    a, out = node.attrs, node.outputs[0]
    low, high = a["padding"][0]
    padded = ops.pad(x, np.zeros((), x.dtype.numpy), low=_at(x.rank, 2, low), high=_at(x.rank, 2, high))
    images = []
    for k in range(w.shape[2]):
        start, step = k * a["dilation"][0], a["strides"][0]
        stop = start + (out.shape[2] - 1) * step + 1
        # the depth joins the batch
        taken = ops.transpose(_sliced(padded, 2, start, stop, step), perm=(0, 2, 1, *range(3, x.rank)))
        images.append(ops.reshape(taken, shape=(x.shape[0] * out.shape[2], x.shape[1], *x.shape[3:])))
    rest: dict[str, Any] = {key: a[key][1:] for key in ("strides", "padding", "dilation")}
    if a.get("groups", 1) == 1:
        weights = ops.transpose(w, perm=(0, 2, 1, *range(3, w.rank)))
        weights = ops.reshape(weights, shape=(w.shape[0], w.shape[2] * w.shape[1], *w.shape[3:]))
        total = ops.conv(ops.concat(*images, axis=1), weights, **rest, groups=1)
    else:
        parts = []
        for k, image in enumerate(images):
            weights = ops.reshape(_sliced(w, 2, k, k + 1), shape=(*w.shape[:2], *w.shape[3:]))
            parts.append(ops.conv(image, weights, **rest, groups=a["groups"]))
        total = reduce(ops.add, parts)
    total = ops.reshape(total, shape=(x.shape[0], out.shape[2], out.shape[1], *out.shape[3:]))
    return ops.transpose(total, perm=(0, 2, 1, *range(3, x.rank)))


@rule("conv", check=needs(lambda n: not n.outputs[0].dtype.is_float, "the contraction kernels compute it"))
def integer_convolution(node: Node) -> Value:
    """integer convolution = a matrix product for every position of the window, summed"""
    x, w = node.inputs
    a, out = node.attrs, node.outputs[0]
    groups = a.get("groups", 1)

    low = (0, 0, *(p[0] for p in a["padding"]))
    high = (0, 0, *(p[1] for p in a["padding"]))
    padded = ops.pad(x, np.zeros((), x.dtype.numpy), low=low, high=high)
    parts = []
    for taps in itertools.product(*(range(k) for k in w.shape[2:])):
        taken, weights = padded, w
        for n, tap in enumerate(taps):
            start, step = tap * a["dilation"][n], a["strides"][n]
            taken = _sliced(taken, 2 + n, start, start + (out.shape[2 + n] - 1) * step + 1, step)
            weights = _sliced(weights, 2 + n, tap, tap + 1)
        pixels = int(np.prod(out.shape[2:], dtype=np.int64))
        rows = ops.reshape(weights, shape=(1, groups, w.shape[0] // groups, w.shape[1]))
        columns = ops.reshape(taken, shape=(x.shape[0], groups, w.shape[1], pixels))
        rows = ops.broadcast_to(rows, shape=(x.shape[0], *rows.shape[1:]))
        parts.append(ops.dot(rows, columns))

    return ops.reshape(reduce(ops.add, parts), shape=out.shape)


def _at(rank: int, axis: int, amount: int) -> tuple[int, ...]:
    return tuple(amount if a == axis else 0 for a in range(rank))


def _sliced(x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    """x[..., start:stop:step, ...] along one axis."""
    result: Value = ops.slice(
        x,
        starts=_at(x.rank, axis, start),
        stops=tuple(stop if a == axis else d for a, d in enumerate(x.shape)),
        steps=tuple(step if a == axis else 1 for a in range(x.rank)),
    )
    return result


DECOMPOSITIONS: tuple[Rule, ...] = (
    half_precision, integer_product, convolution_of_one_channel, convolution_in_one_dimension, convolution_in_slices,
    integer_convolution,
)  # fmt: skip
