"""Operators that move elements without computing on them: shapes, axes, slices, pads, concatenation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc import ops
from graphc.frontends.onnx.context import Context
from graphc.frontends.onnx.operators._common import INT64, axes_operand, broadcast, reshape, scalar, shape_value, to
from graphc.frontends.onnx.registry import importer
from graphc.ir.dims import Dim, DimLike, ceil_div, product
from graphc.ir.graph import Value, constant
from graphc.ops import functions
from graphc.ops.shapes import broadcast_shapes, resolve_shape, slice_bounds

__all__ = ["pad_by_index"]


@importer("Shape", 1, 13, 15, 19, 21, 23, 24, 25)
def shape(c: Context, x: Value) -> Value:
    start, stop, _ = slice(c.int("start", 0), c.int("end", None)).indices(x.rank)
    return shape_value(x, start, max(start, stop))


@importer("Size", 1, 13, 19, 21, 23, 24, 25)
def size(c: Context, x: Value) -> Value:
    if isinstance(x.tensor.size, int):
        return constant(np.int64(x.tensor.size))
    return ops.reduce_prod(shape_value(x), axes=(0,))


@importer("Reshape", 5, 13, 14, 19, 21, 23, 24, 25)
def convert_reshape(c: Context, x: Value, target: Value) -> Value:
    wanted = list(c.static_ints(target, "target shape"))
    if not c.flag("allowzero"):  # 0 keeps the extent
        if any(d == 0 and k >= x.rank for k, d in enumerate(wanted)):
            c.invalid(f"the target shape {wanted} copies an extent that {x.type} does not have")
        wanted = [x.shape[k] if isinstance(d, int) and d == 0 else d for k, d in enumerate(wanted)]
    return reshape(x, resolve_shape(x.shape, wanted))


@importer("Flatten", 1, 9, 11, 13, 21, 23, 24, 25)
def flatten(c: Context, x: Value) -> Value:
    axis = c.int("axis", 1)
    if not -x.rank <= axis <= x.rank:
        c.invalid(f"axis {axis} is out of range for rank {x.rank}")
    axis += x.rank if axis < 0 else 0
    return reshape(x, (product(x.shape[:axis]), product(x.shape[axis:])))


@importer("Transpose", 1, 13, 21, 23, 24, 25)
def transpose(c: Context, x: Value) -> Value:
    perm = c.ints("perm", tuple(reversed(range(x.rank))))
    return x if perm == tuple(range(x.rank)) else ops.transpose(x, perm=perm)


@importer("Squeeze", 1, 11, 13, 21, 23, 24, 25)
def squeeze(c: Context, x: Value, axes: Value | None = None) -> Value:
    which = axes_operand(c, axes, 13)
    if which is None:
        dropped = tuple(k for k, d in enumerate(x.shape) if isinstance(d, int) and d == 1)
    else:
        dropped = c.axes(which, x.rank)
        if any(isinstance(x.shape[a], int) and x.shape[a] != 1 for a in dropped):
            c.invalid(f"the axes {list(dropped)} of {x.type} cannot be dropped: their extents are not 1")
    return reshape(x, [d for k, d in enumerate(x.shape) if k not in dropped])


@importer("Unsqueeze", 1, 11, 13, 21, 23, 24, 25)
def unsqueeze(c: Context, x: Value, axes: Value | None = None) -> Value:
    which = axes_operand(c, axes, 13)
    if which is None:
        c.invalid("the axes are missing")
    rank = x.rank + len(which)
    added = c.axes(which, rank)
    extents = iter(x.shape)
    return reshape(x, [1 if k in added else next(extents) for k in range(rank)])


@importer("Expand", 8, 13)
def expand(c: Context, x: Value, target: Value) -> Value:
    wanted = c.static_ints(target, "target shape")
    return broadcast(x, broadcast_shapes(x.shape, wanted, what="Expand"))


@importer("Concat", 4, 11, 13)
def concat(c: Context, *xs: Value) -> Value:
    if not xs:
        c.invalid("there is nothing to concatenate")
    axis = c.axis(c.int("axis"), xs[0].rank)
    return xs[0] if len(xs) == 1 else ops.concat(*xs, axis=axis)


def _window(x: Value, axis: int, start: DimLike, stop: DimLike, step: int = 1) -> Value:
    """`x[start:stop:step]` along one axis; bounds in normal form."""
    if step == 1 and start == 0 and stop == x.shape[axis]:
        return x
    starts: list[DimLike] = [0] * x.rank
    stops, steps = list(x.shape), [1] * x.rank
    starts[axis], stops[axis], steps[axis] = start, stop, step
    return ops.slice(x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))


@importer("Split", 2, 11, 13, 18)
def split(c: Context, x: Value, sizes: Value | None = None) -> list[Value]:
    axis = c.axis(c.int("axis", 0), x.rank)
    extent, count = x.shape[axis], len(c.outputs)
    given = (
        c.ints("split", None)
        if c.version < 13
        else None
        if sizes is None
        else c.static_ints(sizes, "sizes of the parts")
    )
    if given is None:
        if c.int("num_outputs", count) != count:
            c.invalid(f"num_outputs is {c.int('num_outputs')} but there are {count} outputs")
        part = ceil_div(extent, count)  # the last part may be smaller
        given = [part] * (count - 1) + [extent - part * (count - 1)]
    if len(given) != count:
        c.invalid(f"there are {len(given)} sizes for {count} outputs")
    if isinstance(extent, int) and all(isinstance(g, int) for g in given) and (sum(given) != extent or min(given) < 0):
        c.invalid(f"the parts {list(given)} do not add up to the extent {extent} of axis {axis}")
    parts: list[Value] = []
    start: DimLike = 0
    for length in given:
        parts.append(_window(x, axis, start, start + length))
        start = start + length
    return parts


@importer("Slice", 1, 10, 11, 13)
def convert_slice(
    c: Context,
    x: Value,
    starts: Value | None = None,
    ends: Value | None = None,
    axes: Value | None = None,
    steps: Value | None = None,
) -> Value:
    if c.version < 10:
        first, last = c.ints("starts"), c.ints("ends")
        which, by = c.ints("axes", tuple(range(len(first)))), (1,) * len(first)
    else:
        if starts is None or ends is None:
            c.invalid("the bounds are missing")
        count = c.rank_one_extent(starts)
        which = tuple(range(count)) if axes is None else c.concrete_ints(axes, "axes")
        by = (1,) * count if steps is None else c.concrete_ints(steps, "steps")
        if c.depends_on_data(starts) or c.depends_on_data(ends):
            return _slice_by_data(c, x, starts, ends, c.axes(which, x.rank), by)
        first, last = c.static_ints(starts, "starts"), c.static_ints(ends, "ends")
    if not len(first) == len(last) == len(which) == len(by):
        c.invalid(f"there are {len(first)} starts, {len(last)} ends, {len(which)} axes and {len(by)} steps")
    lower: list[DimLike] = [0] * x.rank
    upper, step = list(x.shape), [1] * x.rank
    for axis, a, b, s in zip(c.axes(which, x.rank), first, last, by, strict=True):
        lower[axis], upper[axis] = slice_bounds(a, b, s, x.shape[axis])
        step[axis] = s
    if all(d == 0 for d in lower) and upper == list(x.shape) and step == [1] * x.rank:
        return x
    return ops.slice(x, starts=tuple(lower), stops=tuple(upper), steps=tuple(step))


def _slice_by_data(
    c: Context, x: Value, starts: Value, ends: Value, axes: Sequence[int], steps: Sequence[int]
) -> Value:
    """A slice whose extents only the run can tell: the elements between bounds that are computed."""
    if any(s != 1 for s in steps):
        c.unsupported("computed bounds with a step other than 1")
    zero = scalar(0, INT64)
    for k, axis in enumerate(axes):
        extent = reshape(shape_value(x, axis, axis + 1), ())
        low, high = (ops.gather(to(v, INT64), constant(np.int64(k)), axis=0) for v in (starts, ends))
        low, high = (ops.select(ops.lt(v, zero), ops.add(v, extent), v) for v in (low, high))
        place = ops.iota(shape=(x.shape[axis],), axis=0, dtype=INT64)
        inside = ops.logical_and(ops.ge(place, low), ops.lt(place, high))
        x = ops.compress(x, inside, axis=axis)
    return x


@importer("Pad", 2, 11, 13, 18, 19, 21, 23, 24, 25)
def pad(
    c: Context, x: Value, pads: Value | None = None, value: Value | None = None, axes: Value | None = None
) -> Value:
    mode = c.string("mode", "constant")
    if c.version < 11:
        amounts: Sequence[DimLike] = c.ints("pads")
        value = scalar(c.float("value", 0.0), x.dtype)
    elif pads is None:
        c.invalid("the amounts are missing")
    else:
        amounts = c.static_ints(pads, "amounts of padding")
    which = tuple(range(x.rank)) if axes is None else c.axes(c.concrete_ints(axes, "axes"), x.rank)
    if len(amounts) != 2 * len(which):
        c.invalid(f"there are {len(amounts)} amounts for {len(which)} axes; two each are needed")
    low: list[DimLike] = [0] * x.rank
    high: list[DimLike] = [0] * x.rank
    for k, axis in enumerate(which):
        low[axis], high[axis] = amounts[k], amounts[k + len(which)]
    if all(isinstance(a, int) and a == 0 for a in amounts):
        return x
    if mode == "constant":
        if value is None:
            value = constant(np.array("" if x.dtype.kind == "string" else 0).astype(x.dtype.numpy), x.dtype)
        return ops.pad(x, reshape(value, ()), low=tuple(low), high=tuple(high))
    if mode not in ("reflect", "edge", "wrap"):
        c.invalid(f"the mode is {mode!r}; known are constant, reflect, edge and wrap")
    if any(isinstance(d, Dim) for d in (*low, *high)):
        c.unsupported(f"{mode} padding by symbolic amounts; give the inputs' concrete shapes")
    return pad_by_index(c, x, low, high, mode)  # type: ignore[arg-type]


def pad_by_index(c: Context, x: Value, low: Sequence[int], high: Sequence[int], mode: str) -> Value:
    """Padding with the tensor's own elements: a gather along each padded axis. Negative amounts crop."""
    for axis, (before, after) in enumerate(zip(low, high, strict=True)):
        if not before and not after:
            continue
        extent = x.shape[axis]
        if isinstance(extent, Dim):
            c.unsupported(f"{mode} padding of a symbolic extent; give the inputs' concrete shapes")
        if extent == 0:
            c.invalid(f"{mode} padding of the empty axis {axis}")
        places = np.arange(-before, extent + after)
        if mode == "edge":
            places = places.clip(0, extent - 1)
        elif mode == "wrap":
            places %= extent
        elif extent == 1:
            places[:] = 0
        else:  # mirrored without repeating the border
            period = 2 * (extent - 1)
            places = (extent - 1) - np.abs(places % period - (extent - 1))
        x = ops.gather(x, c.constant(places), axis=axis)
    return x


@importer("Tile", 6, 13)
def tile(c: Context, x: Value, repeats: Value) -> Value:
    return functions.tile(x, c.concrete_ints(repeats, "repeats"))


@importer("DepthToSpace", 1, 11, 13, 28)
def depth_to_space(c: Context, x: Value) -> Value:
    mode = c.string("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        c.invalid(f"the mode is {mode!r}; known are DCR and CRD")
    n, channels, *space = x.shape
    block = c.int("blocksize")
    rank = len(space)
    blocks = (block,) * rank
    depth = channels // block**rank
    if mode == "DCR":  # the block's axes come before the depth that stays
        split_shape = (n, *blocks, depth, *space)
        perm = (0, rank + 1, *(k for i in range(rank) for k in (rank + 2 + i, 1 + i)))
    else:
        split_shape = (n, depth, *blocks, *space)
        perm = (0, 1, *(k for i in range(rank) for k in (rank + 2 + i, 2 + i)))
    moved = ops.transpose(reshape(x, split_shape), perm=perm)
    return reshape(moved, (n, depth, *(d * block for d in space)))


@importer("SpaceToDepth", 1, 13, 28)
def space_to_depth(c: Context, x: Value) -> Value:
    mode = c.string("mode", "DCR")
    n, channels, *space = x.shape
    block = c.int("blocksize")
    rank = len(space)
    divided = reshape(x, (n, channels, *(e for d in space for e in (d // block, block))))
    inner, outer = tuple(3 + 2 * k for k in range(rank)), tuple(2 + 2 * k for k in range(rank))
    perm = (0, *inner, 1, *outer) if mode == "DCR" else (0, 1, *inner, *outer)
    return reshape(ops.transpose(divided, perm=perm), (n, channels * block**rank, *(d // block for d in space)))


@importer("Trilu", 14)
def trilu(c: Context, x: Value, k: Value | None = None) -> Value:
    """The upper or lower triangle, k diagonals up; zero elsewhere."""
    upper = c.flag("upper", True)
    rows = ops.iota(shape=x.shape, axis=x.rank - 2, dtype=INT64)
    columns = ops.iota(shape=x.shape, axis=x.rank - 1, dtype=INT64)
    if k is not None:
        rows = ops.add(rows, broadcast(reshape(to(k, INT64), ()), x.shape))
    kept = ops.ge(columns, rows) if upper else ops.le(columns, rows)
    return ops.select(kept, x, scalar(0, x.dtype))


@importer("ReverseSequence", 10, 28)
def reverse_sequence(c: Context, x: Value, lengths: Value) -> Value:
    """The first `lengths[b]` elements along the time axis, reversed for every b along the batch axis."""
    time, batch = c.axis(c.int("time_axis", 0), x.rank), c.axis(c.int("batch_axis", 1), x.rank)
    place = ops.iota(shape=x.shape, axis=time, dtype=INT64)
    length = broadcast(reshape(to(lengths, INT64), [d if k == batch else 1 for k, d in enumerate(x.shape)]), x.shape)
    source = ops.select(ops.lt(place, length), ops.sub(ops.sub(length, place), 1), place)
    return ops.gather_elements(x, source, axis=time)
