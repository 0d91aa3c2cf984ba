"""NumPy's indexing: ints, slices, `...`, None, integer arrays and masks, mixed in any way; `take`; updates by `.at`.

One slice takes the basic part, and one gather the part with arrays. Ints and masks must be known while tracing, arrays
of integers need not be.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from graphc import ops
from graphc.errors import GraphTypeError, TraceError
from graphc.frontends.python.array_api.operands import axis_of, broadcast, kind, operand, to_dtype
from graphc.frontends.python.functions import Array, array_function, as_array, value_of
from graphc.frontends.python.promotion import is_number
from graphc.frontends.python.tensor import At, Tensor
from graphc.ir.dims import Dim, DimLike, product
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Value, constant
from graphc.ops import functions
from graphc.ops.shapes import broadcast_shapes, slice_bounds

__all__ = ["at", "take", "take_along_axis"]

INT64 = dtype_of("int64")

# ------------------------------------------------------------------------------------------------ reading the key


class _Axis(NamedTuple):
    """What the key says of one axis of the array: start, stop and step, and which elements of those."""

    start: DimLike
    stop: DimLike
    step: int
    number: bool = False  # an int: the axis is dropped
    places: Value | None = None  # indices along the axis


class _Key(NamedTuple):
    axes: list[_Axis]  # of the array, in order
    order: list[int | None]  # axes of the array, and None for new ones, as the key names them


def _parse(key: Any, v: Value) -> _Key:
    items = _expanded(key if isinstance(key, tuple) else (key,), v)
    axes: list[_Axis] = []
    order: list[int | None] = []
    for item in items:
        if item is None:
            order.append(None)
            continue
        axis = len(axes)
        extent = v.shape[axis]
        order.append(axis)
        if isinstance(item, slice):
            axes.append(_slice(item, axis, extent))
        elif isinstance(item, int | Dim):
            axes.append(_number(item, axis, v))
        else:
            axes.append(_Axis(0, extent, 1, places=_checked(item, axis, v)))
    return _Key(axes, order)


def _expanded(key: tuple[Any, ...], v: Value) -> list[Any]:
    """The key with one item an axis (and None): `...` written out, masks as indices, lists as arrays."""
    items: list[Any] = []
    dots = None
    used = 0
    for item in key:
        if item is Ellipsis:
            if dots is not None:
                raise IndexError(f"an index has two ellipses: {key}")
            dots = len(items)
        elif item is None or isinstance(item, slice | Dim):
            items.append(item)
            used += item is not None
        else:
            found = _item(item, used, v)
            items += found
            used += len(found)
    if used > v.rank:
        raise IndexError(f"{used} indices for {v.type}, which has {v.rank} axes")
    at = len(items) if dots is None else dots
    return [*items[:at], *[slice(None)] * (v.rank - used), *items[at:]]


def _item(item: Any, axis: int, v: Value) -> list[Any]:
    """An int, an array of indices, or the places where a mask holds: one for each of its axes."""
    if isinstance(item, Tensor | Value):
        x = item.value if isinstance(item, Tensor) else item
        if kind(x) == "bool":
            raise TraceError(
                f"axis {axis} of {v.type} is indexed by a mask that is traced ({x.type}): how much it selects is not "
                "known. Use graphc.where(mask, x, other), or graphc.nonzero(mask) where an open size will do"
            )
        if kind(x) != "int":
            raise IndexError(f"axis {axis} of {v.type} is indexed by {x.type}; indices are integers")
        return [x]
    if isinstance(item, str):
        raise IndexError(f"axis {axis} of {v.type} is indexed by text, {item!r}")
    if not isinstance(item, bool | np.ndarray | list | tuple) and hasattr(item, "__index__"):
        return [operator.index(item)]
    array = as_array(item, "an index")
    if isinstance(item, list | tuple) and not array.size:
        array = array.astype(np.int64)
    if array.dtype != np.bool_:
        if array.dtype.kind not in "iu":
            raise IndexError(f"axis {axis} of {v.type} is indexed by {array.dtype}; indices are integers")
        return [array]
    for k, n in enumerate(array.shape):
        d = v.shape[axis + k] if axis + k < v.rank else None
        if d != n and (d is None or isinstance(d, int)):
            raise IndexError(f"a mask has extent {n} where axis {axis + k} of {v.type} has {d}")
    if not array.ndim:
        raise IndexError(f"a single bool is no index of {v.type}; use graphc.where")
    return list(np.nonzero(array))


def _slice(item: slice, axis: int, extent: DimLike) -> _Axis:
    for part in (item.start, item.stop, item.step):
        if isinstance(part, Tensor):
            raise TraceError(
                f"the bounds of a slice of axis {axis} are traced, and its size must be known. Gather the slices: "
                "x[start + graphc.arange(size)]"
            )
    step = 1 if item.step is None else operator.index(item.step)
    bounds = [b if b is None or isinstance(b, Dim) else operator.index(b) for b in (item.start, item.stop)]
    start, stop = slice_bounds(bounds[0], bounds[1], step, extent)
    return _Axis(start, stop, step)


def _number(item: DimLike, axis: int, v: Value) -> _Axis:
    extent = v.shape[axis]
    if isinstance(item, int) and isinstance(extent, int) and not -extent <= item < extent:
        raise IndexError(f"index {item} is out of range for axis {axis} of {v.type}, whose extent is {extent}")
    start = item + extent if isinstance(item, int) and item < 0 else item
    return _Axis(start, start + 1, 1, number=True)


def _checked(item: Any, axis: int, v: Value) -> Value:
    """Indices as a value; those that are known must lie in the array."""
    places = item if isinstance(item, Value) else constant(item)
    extent, known = v.shape[axis], places.literal
    if known is not None and known.size and isinstance(extent, int):
        low, high = int(known.min()), int(known.max())
        if low < -extent or high >= extent:
            wrong = low if low < -extent else high
            raise IndexError(f"index {wrong} is out of range for axis {axis} of {v.type}, whose extent is {extent}")
    return places


# -------------------------------------------------------------------------------------------------------- reading


@array_function
def get_item(x: Array, key: Any) -> Array:
    """`x[key]` of a traced tensor."""
    return _get(operand("indexing", x), key)


def _get(v: Value, key: Any) -> Value:
    parsed = _parse(key, v)
    axes = parsed.axes
    if any(a.start != 0 or a.stop != d or a.step != 1 for a, d in zip(axes, v.shape, strict=True)):
        starts, stops, steps = (tuple(a[k] for a in axes) for k in range(3))
        v = ops.slice(v, starts=starts, stops=stops, steps=steps)
    left = [k for k, a in enumerate(axes) if not a.number]  # axes of the array that v still has
    if len(left) < v.rank:
        v = ops.reshape(v, shape=tuple(v.shape[k] for k in left))
    indexed = [k for k in left if axes[k].places is not None]
    if not indexed:
        order: list[Any] = [k for k in parsed.order if k is None or k in left]
        return _with_new_axes(v, [k is None for k in order])
    places = _broadcast_places([axes[k].places for k in indexed])  # type: ignore[misc]
    rank = places[0].rank
    picked = _gathered(v, [left.index(k) for k in indexed], places)  # the places' axes first
    # NumPy: they stand where the first of the indices stood if these are neighbours, else in front
    advanced = [
        n for n, k in enumerate(parsed.order) if k is not None and (axes[k].number or axes[k].places is not None)
    ]
    together = advanced[-1] - advanced[0] == len(advanced) - 1
    before = list(parsed.order[: advanced[0]]) if together else []
    rest = [k for k in parsed.order if k is None or (not axes[k].number and axes[k].places is None)]
    lead = sum(k is not None for k in before)
    perm = (*range(rank, rank + lead), *range(rank), *range(rank + lead, picked.rank))
    picked = ops.transpose(picked, perm=perm) if lead else picked
    new = [k is None for k in before] + [False] * rank + [k is None for k in rest[len(before) :]]
    return _with_new_axes(picked, new)


def _with_new_axes(v: Value, new: Sequence[bool]) -> Value:
    if not any(new):
        return v
    old = iter(v.shape)
    return ops.reshape(v, shape=tuple(1 if is_new else next(old) for is_new in new))


def _broadcast_places(places: Sequence[Value]) -> list[Value]:
    """Indices of several axes in one shape and type."""
    if len(places) == 1:
        return list(places)
    try:
        return list(broadcast("indexing", [to_dtype(p, INT64) for p in places]))
    except GraphTypeError:
        shapes = " and ".join(str(list(p.shape)) for p in places)
        raise IndexError(f"the arrays in an index have the shapes {shapes}, which do not broadcast") from None


def _gathered(v: Value, axes: Sequence[int], places: Sequence[Value]) -> Value:
    """The elements at the places along `axes`, with the places' axes before the others."""
    others = [k for k in range(v.rank) if k not in axes]
    order = (*axes, *others)
    v = v if order == tuple(range(v.rank)) else ops.transpose(v, perm=order)
    if len(places) == 1:
        return ops.gather(v, places[0], axis=0)
    return ops.gather_nd(v, _coordinates(places))


def _coordinates(places: Sequence[Value]) -> Value:
    """Indices of several axes side by side on a last axis."""
    return ops.concat(*(functions.unsqueeze(p, (p.rank,)) for p in places), axis=places[0].rank)


@array_function
def take(x: Array, indices: Array, /, *, axis: int | None = None) -> Array:
    """The slices of x along `axis` at the indices, which may have any shape; without `axis` of a vector."""
    v, places = operand("take", x), operand("take", indices)
    if axis is None:
        if v.rank != 1:
            raise GraphTypeError(f"take was given {v.type}; which axis has to be said unless the array is a vector")
        axis = 0
    at = axis_of("take", axis, v.rank)
    return ops.gather(v, _checked(_integers("take", places), at, v), axis=at)


@array_function
def take_along_axis(x: Array, indices: Array, /, *, axis: int = -1) -> Array:
    """x[..., indices[..., i, ...], ...]: an element for each index, at its own place along the other axes."""
    v, places = operand("take_along_axis", x), _integers("take_along_axis", operand("take_along_axis", indices))
    if v.rank != places.rank:
        raise GraphTypeError(f"take_along_axis was given {v.type} and indices {places.type}; ranks must agree")
    at = axis_of("take_along_axis", axis, v.rank)
    outer = broadcast_shapes(_without(v.shape, at), _without(places.shape, at), what="take_along_axis")
    shapes = [(*outer[:at], w.shape[at], *outer[at:]) for w in (v, places)]
    v, places = (
        w if w.shape == shape else ops.broadcast_to(w, shape=shape)
        for w, shape in zip((v, places), shapes, strict=True)
    )
    return ops.gather_elements(v, _checked(places, at, v), axis=at)


def _without(shape: tuple[DimLike, ...], axis: int) -> tuple[DimLike, ...]:
    return (*shape[:axis], *shape[axis + 1 :])


def _integers(name: str, places: Value) -> Value:
    if kind(places) != "int":
        raise IndexError(f"{name} was given indices {places.type}; they are integers")
    return places


# ------------------------------------------------------------------------------------------------------- updating


def at(x: Array, /) -> At:
    """`graphc.at(x)[i].set(v)`: `x.at[i].set(v)` for NumPy arrays as well, which have no `at` (array-api-extra's)."""
    return At(x)


@array_function
def updated(x: Array, key: Any, values: Array, reduction: str) -> Array:
    """x with the elements at `key` set to `values` ("none"), or combined with them ("add", "mul", "min", "max").

    Where a key names an element several times it is combined several times, and set to the last. The values broadcast.
    Trailing axes that are taken whole are written as slices.
    """
    v = operand("at", x)
    items = _expanded(key if isinstance(key, tuple) else (key,), v)
    depth = v.rank
    if not any(item is None for item in items):
        while depth and isinstance(items[depth - 1], slice) and _whole(items[depth - 1], v.shape[depth - 1]):
            depth -= 1
    lead, tail = v.shape[:depth], v.shape[depth:]
    size = product(lead)
    numbers = ops.reshape(ops.iota(shape=(size,), axis=0, dtype=INT64), shape=lead)
    places = _get(numbers, tuple(items) if depth == v.rank else tuple(items[:depth]))
    new = _cast_to(values, v)
    shape = (*places.shape, *tail)
    try:
        wide = ops.broadcast_to(new, shape=shape)
    except GraphTypeError:
        raise GraphTypeError(f"x.at[...] names elements of shape {list(shape)}, the values are {new.type}") from None
    count = product(places.shape)
    flat = ops.scatter_nd(
        ops.reshape(v, shape=(size, *tail)),
        ops.reshape(places, shape=(count, 1)),
        ops.reshape(wide, shape=(count, *tail)),
        reduction=reduction,
    )
    return ops.reshape(flat, shape=v.shape)


def _whole(item: slice, extent: DimLike) -> bool:
    """Whether a slice takes everything in order."""
    return item.start in (None, 0) and item.step in (None, 1) and (item.stop is None or item.stop == extent)


def _cast_to(values: Array, v: Value) -> Value:
    """New elements in the element type of the array."""
    if is_number(values):
        return constant(np.asarray(values).astype(v.dtype.numpy), v.dtype)
    return to_dtype(values.value if isinstance(values, Tensor) else value_of(values), v.dtype)
