"""Gathers, scatters, and operators whose results are indices or chosen elements."""

from __future__ import annotations

import numpy as np

from graphc import ops
from graphc.frontends.onnx.context import Context
from graphc.frontends.onnx.operators._common import INT64, broadcast, reshape, scalar, to
from graphc.frontends.onnx.registry import importer
from graphc.ir.graph import Value, constant

__all__: list[str] = []


@importer("Gather", 1, 11, 13)
def gather(c: Context, x: Value, indices: Value) -> Value:
    return ops.gather(x, indices, axis=c.axis(c.int("axis", 0), x.rank))


@importer("GatherElements", 11, 13)
def gather_elements(c: Context, x: Value, indices: Value) -> Value:
    return ops.gather_elements(x, indices, axis=c.axis(c.int("axis", 0), x.rank))


@importer("GatherND", 11, 12, 13)
def gather_nd(c: Context, x: Value, indices: Value) -> Value:
    return ops.gather_nd(x, indices, batch_dims=c.int("batch_dims", 0))


def _reduction(c: Context) -> str:
    reduction = c.string("reduction", "none")
    if reduction not in ("none", "add", "mul", "max", "min"):
        c.invalid(f"the reduction is {reduction!r}; known are none, add, mul, max and min")
    return str(reduction)


@importer("Scatter", 9, 11)
@importer("ScatterElements", 11, 13, 16, 18)
def scatter_elements(c: Context, x: Value, indices: Value, updates: Value) -> Value:
    axis = c.axis(c.int("axis", 0), x.rank)
    return ops.scatter_elements(x, indices, updates, axis=axis, reduction=_reduction(c))


@importer("ScatterND", 11, 13, 16, 18)
def scatter_nd(c: Context, x: Value, indices: Value, updates: Value) -> Value:
    return ops.scatter_nd(x, indices, updates, reduction=_reduction(c))


@importer("OneHot", 9, 11, 28)
def one_hot(c: Context, indices: Value, depth: Value, values: Value) -> Value:
    """`values` holds (off, on); negative indices count from the end, those outside give no `on`."""
    (count,) = c.static_ints(to(depth, INT64), "depth")
    axis = c.axis(c.int("axis", -1), indices.rank + 1)
    shape = (*indices.shape[:axis], count, *indices.shape[axis:])
    chosen = to(indices, INT64)
    chosen = ops.select(ops.lt(chosen, 0), ops.add(chosen, scalar(count, INT64)), chosen)
    chosen = broadcast(reshape(chosen, (*indices.shape[:axis], 1, *indices.shape[axis:])), shape)
    off, on = (ops.gather(values, constant(np.int64(k)), axis=0) for k in range(2))
    hit = ops.eq(ops.iota(shape=shape, axis=axis, dtype=INT64), chosen)
    return ops.select(hit, on, off)


@importer("TensorScatter", 24)
def tensor_scatter(c: Context, cache: Value, update: Value, indices: Value | None = None) -> Value:
    """The update written into the cache along the sequence axis, from the position that `indices` gives each batch."""
    axis = c.axis(c.int("axis", -2), cache.rank)
    mode = c.string("mode", "linear")
    place = ops.iota(shape=update.shape, axis=axis, dtype=INT64)
    if indices is not None:
        start = reshape(to(indices, INT64), (indices.shape[0], *[1] * (update.rank - 1)))
        place = ops.add(place, broadcast(start, update.shape))
    if mode == "circular":
        place = ops.mod(place, scalar(cache.shape[axis], INT64))
    elif mode != "linear":
        c.invalid(f"the mode is {mode!r}; known are linear and circular")
    return ops.scatter_elements(cache, place, update, axis=axis, reduction="none")


@importer("TopK", 1, 10, 11, 24)
def top_k(c: Context, x: Value, k: Value | None = None) -> tuple[Value, Value]:
    axis = c.axis(c.int("axis", -1), x.rank)
    count = c.int("k") if k is None else c.concrete_ints(k, "count")[0]
    c.ignore("sorted")  # sorted results are right where any order is
    return ops.top_k(x, k=count, axis=axis, largest=c.flag("largest", True))


def _extreme(name: str, largest: bool) -> None:
    @importer(name, 1, 11, 12, 13)
    def convert(c: Context, x: Value) -> Value:
        axis = c.axis(c.int("axis", 0), x.rank)
        op = ops.argmax if largest else ops.argmin
        last = {"select_last": True} if c.flag("select_last_index") else {}
        out = op(x, axis=axis, **last)
        return reshape(out, [1 if j == axis else d for j, d in enumerate(x.shape)]) if c.flag("keepdims", True) else out


_extreme("ArgMax", True)
_extreme("ArgMin", False)


@importer("NonZero", 9, 13)
def nonzero(c: Context, x: Value) -> Value:
    return ops.nonzero(x)


@importer("Compress", 9, 11, 28)
def compress(c: Context, x: Value, condition: Value) -> Value:
    """Slices of x where the condition holds; without an axis x is flattened first."""
    if not c.has("axis"):
        return ops.compress(reshape(x, (x.tensor.size,)), condition, axis=0)
    return ops.compress(x, condition, axis=c.axis(c.int("axis"), x.rank))


@importer("Unique", 11, 28)
def unique(c: Context, x: Value) -> tuple[Value, Value, Value, Value]:
    ordered = c.flag("sorted", True)
    axis = c.axis(c.int("axis"), x.rank) if c.has("axis") else None
    return ops.unique(x, axis=axis, sorted=ordered)


@importer("NonMaxSuppression", 10, 11)
def non_max_suppression(
    c: Context,
    boxes: Value,
    scores: Value,
    most: Value | None = None,
    overlap: Value | None = None,
    threshold: Value | None = None,
) -> Value:
    def number(v: Value | None, default: Value) -> Value:
        return default if v is None else reshape(v, ())

    return ops.non_max_suppression(
        boxes,
        scores,
        number(most, constant(np.int64(0))),
        number(overlap, constant(np.float32(0))),
        number(threshold, constant(np.float32(-np.inf))),
        center_point_box=c.flag("center_point_box"),
    )
