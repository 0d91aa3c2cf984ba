"""Sampling of images at computed places: grid sampling, regions of interest, deformable convolution, and Col2Im."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import product as combinations

import numpy as np

from graphc import ops
from graphc.frontends.onnx.context import Context
from graphc.frontends.onnx.operators._common import INT64, broadcast, channelwise, full, reshape, scalar, to
from graphc.frontends.onnx.operators._windows import windows
from graphc.frontends.onnx.operators.convolution import kernel_size
from graphc.frontends.onnx.registry import importer
from graphc.ir.dims import Dim, DimLike, product
from graphc.ir.graph import Value

__all__: list[str] = []


def _fetch(x: Value, places: Sequence[Value], inside: Value | None) -> Value:
    """`x[n, :, places[n]]` as [N, C, P]: x is [N, C, *S], places one int64 [N, P] a spatial axis; 0 if not `inside`."""
    n, channels, *space = x.shape
    flat = places[0]
    for extent, place in zip(space[1:], places[1:], strict=True):
        flat = ops.add(ops.mul(flat, scalar(extent, INT64)), place)
    count = flat.shape[1]
    shape = (n, channels, count)
    index = broadcast(reshape(flat, (n, 1, count)), shape)
    values = ops.gather_elements(reshape(x, (n, channels, product(tuple(space)))), index, axis=2)
    if inside is None:
        return values
    return ops.select(broadcast(reshape(inside, (n, 1, count)), shape), values, scalar(0, x.dtype))


def _clamped(place: Value, extent: DimLike) -> Value:
    return ops.minimum(ops.maximum(place, scalar(0, place.dtype)), scalar(extent - 1, place.dtype))


def _within(place: Value, extent: DimLike) -> Value:
    return ops.logical_and(ops.ge(place, scalar(0, place.dtype)), ops.lt(place, scalar(extent, place.dtype)))


def _bilinear(x: Value, positions: Sequence[Value]) -> Value:
    """x [N, C, *S] at positions, one float [N, P] a spatial axis; elements outside count as zero. [N, C, P]."""
    parts = []
    floors = [ops.floor(p) for p in positions]
    for corner in combinations((0, 1), repeat=len(positions)):
        places, weights, masks = [], [], []
        for p, low, step, extent in zip(positions, floors, corner, x.shape[2:], strict=True):
            place = to(ops.add(low, scalar(step, low.dtype)), INT64)
            fraction = ops.sub(p, low)
            weights.append(fraction if step else ops.sub(scalar(1, p.dtype), fraction))
            masks.append(_within(place, extent))
            places.append(_clamped(place, extent))
        values = _fetch(x, places, reduce(ops.logical_and, masks))
        weight = reduce(ops.mul, weights)
        parts.append(ops.mul(values, broadcast(reshape(weight, (weight.shape[0], 1, weight.shape[1])), values.shape)))
    return reduce(ops.add, parts)


# --- GridSample -----------------------------------------------------------------------------------------------------


@importer("GridSample", 16, 20, 22)
def grid_sample(c: Context, x: Value, grid: Value) -> Value:
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(m := c.string("mode", "linear"), m)
    padding, corners = c.string("padding_mode", "zeros"), c.flag("align_corners")
    if mode not in ("linear", "nearest", "cubic") or padding not in ("zeros", "border", "reflection"):
        c.invalid(f"mode {mode!r} with padding {padding!r} is not known")
    n, channels, *space = x.shape
    rank = len(space)
    if any(isinstance(d, Dim) for d in (*space, *grid.shape[1:-1])):
        c.unsupported("symbolic spatial extents; give the inputs' concrete shapes")
    points = int(np.prod(grid.shape[1:-1]))
    positions, limits = [], []
    for k, extent in enumerate(space):
        # the grid's last axis counts the spatial axes from the last one
        g = ops.slice(
            grid,
            starts=(*[0] * (grid.rank - 1), rank - 1 - k),
            stops=(*grid.shape[:-1], rank - k),
            steps=(1,) * grid.rank,
        )
        g = to(reshape(g, (n, points)), x.dtype)
        low, high = (0.0, extent - 1.0) if corners else (-0.5, extent - 0.5)
        # -1 and 1 are the limits of the image
        middle, half = (low + high) / 2, (high - low) / 2
        p = ops.add(ops.mul(g, scalar(half, g.dtype)), scalar(middle, g.dtype))
        limits.append((low, high))
        positions.append(ops.round(p) if mode == "nearest" else p)
    if padding != "zeros":
        positions = [_padded(p, d, lim, padding) for p, d, lim in zip(positions, space, limits, strict=True)]

    def at(places: Sequence[Value]) -> Value:
        whole = [to(p, INT64) for p in places]
        if padding == "zeros":
            inside = reduce(ops.logical_and, [_within(p, d) for p, d in zip(whole, space, strict=True)])
            return _fetch(x, [_clamped(p, d) for p, d in zip(whole, space, strict=True)], inside)
        padded = [_padded(p, d, lim, padding) for p, d, lim in zip(places, space, limits, strict=True)]
        return _fetch(x, [_clamped(to(p, INT64), d) for p, d in zip(padded, space, strict=True)], None)

    if mode == "nearest":
        sampled = at(positions)
    else:
        sampled = _weighted(at, positions, _linear_weights if mode == "linear" else _cubic_weights)
    return reshape(sampled, (n, channels, *grid.shape[1:-1]))


def _padded(position: Value, extent: int, limits: tuple[float, float], padding: str) -> Value:
    """A position brought into the image: clamped, or reflected at its limits until it lies inside."""
    dtype = position.dtype
    if padding == "border":
        return _clamped(position, extent)
    low, high = limits
    span = high - low
    if span == 0:
        return broadcast(scalar(0, dtype), position.shape)
    turned = ops.mod(ops.sub(position, scalar(low, dtype)), scalar(2 * span, dtype))
    back = ops.sub(scalar(2 * span, dtype), turned)
    return ops.add(ops.minimum(turned, back), scalar(low, dtype))


Weights = Callable[[Value], list[tuple[int, Value]]]


def _weighted(at: Callable[[Sequence[Value]], Value], positions: Sequence[Value], weights: Weights) -> Value:
    """The sum over the neighbours of each position; `weights` gives the steps from the floor and their weights."""
    floors = [ops.floor(p) for p in positions]
    axes = [weights(ops.sub(p, low)) for p, low in zip(positions, floors, strict=True)]
    parts = []
    for choice in combinations(*axes):
        places = [ops.add(low, scalar(step, low.dtype)) for low, (step, _) in zip(floors, choice, strict=True)]
        values = at(places)
        weight = reduce(ops.mul, [w for _, w in choice])
        parts.append(ops.mul(values, broadcast(reshape(weight, (weight.shape[0], 1, weight.shape[1])), values.shape)))
    return reduce(ops.add, parts)


def _linear_weights(t: Value) -> list[tuple[int, Value]]:
    return [(0, ops.sub(scalar(1, t.dtype), t)), (1, t)]


def _cubic_weights(t: Value, a: float = -0.75) -> list[tuple[int, Value]]:
    def polynomial(x: Value, *coefficients: float) -> Value:
        y = scalar(coefficients[0], x.dtype)
        for k in coefficients[1:]:
            y = ops.add(ops.mul(y, x), scalar(k, x.dtype))
        return y

    one = scalar(1, t.dtype)
    near, far = (a + 2, -(a + 3), 0.0, 1.0), (a, -5 * a, 8 * a, -4 * a)
    return [
        (-1, polynomial(ops.add(t, one), *far)),
        (0, polynomial(t, *near)),
        (1, polynomial(ops.sub(one, t), *near)),
        (2, polynomial(ops.sub(scalar(2, t.dtype), t), *far)),
    ]


@importer("AffineGrid", 20)
def affine_grid(c: Context, theta: Value, size: Value) -> Value:
    """Each output element's place in the input, both from -1 to 1: theta [N, d, d + 1] applied to a regular grid."""
    n, _, *space = c.concrete_ints(size, "size")
    corners, rank = c.flag("align_corners"), len(space)
    if theta.rank != 3 or theta.shape[1:] != (rank, rank + 1):
        c.invalid(f"theta is {theta.type}, [{n}, {rank}, {rank + 1}] is needed")
    lines = []
    for extent in space:
        steps = np.arange(extent, dtype=np.float64)
        lines.append(steps * (2 / max(extent - 1, 1)) - 1 if corners else (2 * steps + 1) / extent - 1)
    points = np.meshgrid(*lines, indexing="ij")
    # coordinates count the spatial axes from the last one, and 1 takes the translation
    base = np.stack([*(p.ravel() for p in reversed(points)), np.ones(points[0].size)], -1)[None]
    rows = c.constant(base.astype(theta.dtype.numpy))
    grid = ops.dot(broadcast(rows, (n, *rows.shape[1:])), ops.transpose(theta, perm=(0, 2, 1)))
    return reshape(grid, (n, *space, rank))


# --- regions of interest --------------------------------------------------------------------------------------------


@importer("RoiAlign", 10, 16, 22)
def roi_align(c: Context, x: Value, rois: Value, batch: Value) -> Value:
    """Each region [x1, y1, x2, y2] as a grid of cells, each cell the mean or maximum of bilinear samples."""
    default = "half_pixel" if c.version >= 16 else "output_half_pixel"
    shift = 0.5 if c.string("coordinate_transformation_mode", default) == "half_pixel" else 0.0
    mode, samples = c.string("mode", "avg"), c.int("sampling_ratio", 0)
    rows, columns = c.int("output_height", 1), c.int("output_width", 1)
    scale = c.float("spatial_scale", 1.0)
    if samples <= 0:
        c.unsupported("sampling_ratio = 0 (a number of samples that depends on the regions)")
    count, dtype = rois.shape[0], x.dtype
    _, channels, height, width = x.shape

    def corner(k: int) -> Value:
        v = ops.slice(rois, starts=(0, k), stops=(count, k + 1), steps=(1, 1))
        return ops.sub(ops.mul(v, scalar(scale, dtype)), scalar(shift, dtype))

    def places(low: Value, high: Value, cells: int, extent: DimLike) -> tuple[Value, Value]:
        """Sample positions along an axis [R, cells * samples] and whether they count."""
        span = ops.sub(high, low)
        if shift == 0:  # regions are at least one element wide in the older definition
            span = ops.maximum(span, scalar(1, dtype))
        steps = (np.arange(cells)[:, None] + (np.arange(samples) + 0.5) / samples).ravel() / cells
        line = c.constant(steps.astype(dtype.numpy)[None])
        shape = (count, cells * samples)
        p = ops.add(ops.mul(broadcast(span, shape), broadcast(line, shape)), broadcast(low, shape))
        within = ops.logical_and(ops.ge(p, scalar(-1, dtype)), ops.le(p, scalar(extent, dtype)))
        return ops.minimum(ops.maximum(p, scalar(0, dtype)), scalar(extent - 1, dtype)), within

    ys, y_inside = places(corner(1), corner(3), rows, height)
    xs, x_inside = places(corner(0), corner(2), columns, width)
    grid = (count, rows * samples, columns * samples)
    points = grid[1] * grid[2]

    def over_grid(v: Value, along_rows: bool) -> Value:
        column = reshape(v, (count, v.shape[1], 1) if along_rows else (count, 1, v.shape[1]))
        return reshape(broadcast(column, grid), (count, points))

    image = ops.gather(x, to(batch, INT64), axis=0)
    inside = ops.logical_and(over_grid(y_inside, True), over_grid(x_inside, False))
    corners = _weighted_corners(image, over_grid(ys, True), over_grid(xs, False), inside)
    if mode == "max":  # the largest weighted neighbour counts, not the largest sample
        values = reduce(ops.maximum, corners)
    else:
        values = reduce(ops.add, corners)
    cells = reshape(values, (count, channels, rows, samples, columns, samples))
    if mode == "max":
        return ops.reduce_max(cells, axes=(3, 5))
    return ops.mul(ops.reduce_sum(cells, axes=(3, 5)), scalar(1 / samples**2, dtype))


def _weighted_corners(x: Value, ys: Value, xs: Value, inside: Value) -> list[Value]:
    """The four neighbours of positions inside the image, each times its bilinear weight. [N, C, P] each."""
    parts = []
    for dy, dx in combinations((0, 1), repeat=2):
        places, weights = [], []
        for p, step, extent in ((ys, dy, x.shape[2]), (xs, dx, x.shape[3])):
            low = ops.floor(p)
            fraction = ops.sub(p, low)
            weights.append(fraction if step else ops.sub(scalar(1, p.dtype), fraction))
            places.append(_clamped(to(ops.add(low, scalar(step, p.dtype)), INT64), extent))
        weight = ops.mul(*weights)
        values = _fetch(x, places, inside)
        parts.append(ops.mul(values, broadcast(reshape(weight, (weight.shape[0], 1, weight.shape[1])), values.shape)))
    return parts


# --- convolutions that gather or scatter ----------------------------------------------------------------------------


@importer("DeformConv", 19, 22)
def deform_conv(
    c: Context, x: Value, weights: Value, offset: Value, bias: Value | None = None, mask: Value | None = None
) -> Value:
    """A convolution whose taps are moved by `offset` and scaled by `mask`: sampled columns, then a matrix product."""
    size = kernel_size(c, weights)
    w = windows(c, x.shape[2:], size)
    groups, shared = c.int("group", 1), c.int("offset_group", 1)
    n, channels, *space = x.shape
    out_channels, outputs = weights.shape[0], offset.shape[2:]
    if any(isinstance(d, Dim) for d in (*x.shape, *offset.shape)):
        c.unsupported("symbolic extents; give the inputs' concrete shapes")
    taps, points, rank = int(np.prod(size)), int(np.prod(outputs)), len(size)
    moved = reshape(offset, (n * shared, taps, rank, points))
    positions = []
    taps_at = np.indices(size).reshape(rank, taps)
    points_at = np.indices(outputs).reshape(rank, points)
    for k in range(rank):
        base = taps_at[k][:, None] * w.dilation[k] + points_at[k] * w.strides[k] - w.padding[k][0]
        shift = ops.slice(
            moved,
            starts=(0, 0, k, 0),
            stops=(n * shared, taps, k + 1, points),
            steps=(1,) * 4,
        )
        shape = (n * shared, taps * points)
        fixed = broadcast(c.constant(base.astype(x.dtype.numpy).reshape(1, -1)), shape)
        positions.append(ops.add(reshape(shift, shape), fixed))
    sampled = _bilinear(reshape(x, (n * shared, channels // shared, *space)), positions)
    columns = reshape(sampled, (n, shared, channels // shared, taps, points))
    if mask is not None:
        columns = ops.mul(columns, broadcast(reshape(mask, (n, shared, 1, taps, points)), columns.shape))
    columns = reshape(columns, (n, groups, channels // groups * taps, points))
    rows = reshape(weights, (1, groups, out_channels // groups, channels // groups * taps))
    y = ops.dot(broadcast(rows, (n, *rows.shape[1:])), columns)
    y = reshape(y, (n, out_channels, *outputs))
    return y if bias is None else ops.add(y, broadcast(channelwise(bias, y.rank), y.shape))


@importer("Col2Im", 18)
def col2im(c: Context, x: Value, image: Value, block: Value) -> Value:
    """Columns of blocks added up at the places in the image that they came from."""
    extents, size = c.concrete_ints(image, "image shape"), c.concrete_ints(block, "block shape")
    w = windows(c, extents, size)
    n = x.shape[0]
    channels = x.shape[1] // int(np.prod(size))
    padded = [d + low + high for d, (low, high) in zip(extents, w.padding, strict=True)]
    counts = [(d - span) // s + 1 for d, span, s in zip(padded, w.span, w.strides, strict=True)]
    places = np.zeros((*size, *counts), np.int64)
    for k, (extent, stride, gap) in enumerate(zip(padded, w.strides, w.dilation, strict=True)):
        taps = np.arange(size[k]).reshape([-1 if j == k else 1 for j in range(2 * len(size))])
        starts = np.arange(counts[k]).reshape([-1 if j == len(size) + k else 1 for j in range(2 * len(size))])
        places = places * extent + taps * gap + starts * stride
    shape = (n, channels, places.size)
    index = broadcast(c.constant(places.reshape(1, 1, -1)), shape)
    zeros = full(0, x.dtype, (n, channels, int(np.prod(padded))))
    summed = ops.scatter_elements(zeros, index, reshape(x, shape), axis=2, reduction="add")
    out = reshape(summed, (n, channels, *padded))
    if all(pair == (0, 0) for pair in w.padding):
        return out
    low = tuple(low for low, _ in w.padding)
    stops = tuple(a + d for a, d in zip(low, extents, strict=True))
    return ops.slice(out, starts=(0, 0, *low), stops=(n, channels, *stops), steps=(1,) * out.rank)
