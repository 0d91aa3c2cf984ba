"""Rearranging arrays: joining, splitting, reshaping, reordering, repeating."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import AxisError, GraphTypeError
from graphc.frontends.python.array_api.operands import axes_of, axis_of, operand, shape_of_result
from graphc.frontends.python.functions import Array, array_function, as_array, promote
from graphc.frontends.python.tensor import Tensor
from graphc.ir.dims import Dim, product
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Value
from graphc.ops import functions
from graphc.ops.shapes import resolve_shape

__all__ = [
    "concat", "expand_dims", "flip", "moveaxis", "pad", "permute_dims", "ravel", "repeat", "reshape", "roll",
    "split", "squeeze", "stack", "swapaxes", "tile", "unstack",
]  # fmt: skip

INT64 = dtype_of("int64")

# ----------------------------------------------------------------------------------------------- joining, splitting


@array_function
def concat(arrays: Sequence[Array], /, *, axis: int | None = 0) -> Array:
    """The arrays one after the other along `axis`; flattened first when it is None."""
    values = _several("concat", arrays)
    if axis is None:
        values = [_flat(v) for v in values]
        axis = 0
    if not values[0].rank:
        raise GraphTypeError("concat: arrays of rank 0 have no axis to be joined along; graphc.stack makes one")
    at = axis_of("concat", axis, values[0].rank)
    for k, v in enumerate(values):
        if v.rank != values[0].rank:
            raise GraphTypeError(f"concat: operand {k} is {v.type} and operand 0 is {values[0].type}; ranks must agree")
    return ops.concat(*values, axis=at)


@array_function
def stack(arrays: Sequence[Array], /, *, axis: int = 0) -> Array:
    """The arrays, all of one shape, side by side on a new axis."""
    values = _several("stack", arrays)
    for k, v in enumerate(values):
        if v.shape != values[0].shape:
            raise GraphTypeError(f"stack: operand {k} is {v.type} and operand 0 is {values[0].type}; shapes must agree")
    at = axis_of("stack", axis, values[0].rank + 1)
    return ops.concat(*(functions.unsqueeze(v, (at,)) for v in values), axis=at)


def _several(name: str, arrays: Any) -> list[Value]:
    """A sequence of arrays (or the slices of one) as values of one element type."""
    items = list(unstack(arrays)) if isinstance(arrays, Tensor | Value | np.ndarray) else list(arrays)
    if not items:
        raise GraphTypeError(f"{name}: it was given no arrays, at least one is needed")
    return list(promote(name, *items))


@array_function
def unstack(x: Array, /, *, axis: int = 0) -> tuple[Array, ...]:
    """The slices of x along `axis`, without it. Its extent must be known."""
    v = operand("unstack", x)
    at = axis_of("unstack", axis, v.rank)
    if not isinstance(v.shape[at], int):
        raise GraphTypeError(f"unstack: the extent of axis {at} of {v.type} is not known; graphc.scan goes over it")
    return tuple(functions.squeeze(piece, (at,)) for piece in functions.split(v, (1,) * v.shape[at], at))


@array_function
def split(x: Array, indices_or_sections: int | Sequence[int], /, axis: int = 0) -> list[Array]:
    """Consecutive pieces of x along `axis`: so many of equal size, or cut at the places given (NumPy's)."""
    v = operand("split", x)
    at = axis_of("split", axis, v.rank)
    extent = v.shape[at]
    if isinstance(indices_or_sections, int):
        if isinstance(extent, int) and extent % indices_or_sections:
            raise GraphTypeError(
                f"split: axis {at} of {v.type} has extent {extent}, no multiple of {indices_or_sections}"
            )
        return list(functions.split(v, (extent // indices_or_sections,) * indices_or_sections, at))
    if not isinstance(extent, int):
        raise GraphTypeError(f"split: the extent of axis {at} of {v.type} is not known; slice it")
    cuts = [0, *(slice(c).indices(extent)[1] for c in indices_or_sections), extent]
    return list(functions.split(v, [max(b - a, 0) for a, b in itertools.pairwise(cuts)], at))


# ----------------------------------------------------------------------------------------------------- new shapes


@array_function
def reshape(x: Array, /, shape: Any, *, copy: bool | None = None) -> Array:
    """The same elements, row by row, in another shape; one extent may be -1: what is left of the elements."""
    v = operand("reshape", x)
    wanted = resolve_shape(v.shape, shape_of_result("reshape", shape, rest=True), "reshape")
    return ops.reshape(v, shape=wanted)


@array_function
def ravel(x: Array, /) -> Array:
    """The elements as a vector, row by row."""
    return _flat(operand("ravel", x))


def _flat(v: Value) -> Value:
    return v if v.rank == 1 else ops.reshape(v, shape=(product(v.shape),))


@array_function
def expand_dims(x: Array, /, axis: int | Sequence[int] = 0) -> Array:
    """x with axes of extent 1 inserted, which count in the result."""
    v = operand("expand_dims", x)
    count = len(axis) if isinstance(axis, tuple | list) else 1
    return functions.unsqueeze(v, axes_of("expand_dims", axis, v.rank + count))


@array_function
def squeeze(x: Array, /, axis: int | Sequence[int] | None = None) -> Array:
    """x without the axes, whose extents must be 1; without all that are known to be 1 when None is given."""
    v = operand("squeeze", x)
    if axis is None:
        return functions.squeeze(v)
    axes = axes_of("squeeze", axis, v.rank)
    for k in axes:
        if isinstance(v.shape[k], int) and v.shape[k] != 1:
            raise AxisError(f"squeeze: axis {k} of {v.type} has extent {v.shape[k]}, not 1")
    return functions.squeeze(v, axes)


# ------------------------------------------------------------------------------------------------------ new orders


@array_function
def permute_dims(x: Array, /, axes: Sequence[int]) -> Array:
    """x with its axes reordered: axis k of the result is axis axes[k] of x."""
    v = operand("permute_dims", x)
    order = tuple(axis_of("permute_dims", a, v.rank) for a in axes)
    return ops.transpose(v, perm=order)


@array_function
def moveaxis(x: Array, source: int | Sequence[int], destination: int | Sequence[int], /) -> Array:
    """x with the axes `source` at the places `destination`; the others keep their order."""
    v = operand("moveaxis", x)
    froms, tos = (
        [axis_of("moveaxis", a, v.rank) for a in (axes if isinstance(axes, tuple | list) else (axes,))]
        for axes in (source, destination)
    )
    if len(froms) != len(tos) or len(set(froms)) != len(froms) or len(set(tos)) != len(tos):
        raise AxisError(f"moveaxis: {source} cannot go to {destination}: as many different axes are needed")
    order = [k for k in range(v.rank) if k not in froms]
    for to, k in sorted(zip(tos, froms, strict=True)):
        order.insert(to, k)
    return ops.transpose(v, perm=tuple(order))


@array_function
def swapaxes(x: Array, axis1: int, axis2: int, /) -> Array:
    """x with two axes exchanged (NumPy's)."""
    v = operand("swapaxes", x)
    a, b = axis_of("swapaxes", axis1, v.rank), axis_of("swapaxes", axis2, v.rank)
    order = list(range(v.rank))
    order[a], order[b] = b, a
    return ops.transpose(v, perm=tuple(order))


@array_function
def flip(x: Array, /, *, axis: int | Sequence[int] | None = None) -> Array:
    """x turned round along the axes, by default all."""
    v = operand("flip", x)
    turned = axes_of("flip", axis, v.rank)
    return ops.slice(
        v,
        starts=tuple(d - 1 if k in turned else 0 for k, d in enumerate(v.shape)),
        stops=tuple(-1 if k in turned else d for k, d in enumerate(v.shape)),
        steps=tuple(-1 if k in turned else 1 for k in range(v.rank)),
    )


@array_function
def roll(x: Array, /, shift: int | Sequence[int], *, axis: int | Sequence[int] | None = None) -> Array:
    """x with its elements moved by `shift` places; what leaves at one end comes in at the other.

    Without `axis` over the flattened array.
    """
    v = operand("roll", x)
    if axis is None:
        total = sum(shift) if isinstance(shift, tuple | list) else shift
        return ops.reshape(_rolled(_flat(v), total, 0), shape=v.shape)
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    shifts = shift if isinstance(shift, tuple | list) else (shift,) * len(axes)
    if len(shifts) == 1:
        shifts = tuple(shifts) * len(axes)
    if len(shifts) != len(axes):
        raise GraphTypeError(f"roll: there are {len(shifts)} shifts for {len(axes)} axes")
    for n, a in zip(shifts, axes, strict=True):
        v = _rolled(v, n, axis_of("roll", a, v.rank))
    return v


def _rolled(v: Value, shift: Any, axis: int) -> Value:
    """The last `shift` slices before the others."""
    extent, n = v.shape[axis], operator.index(shift)
    if isinstance(extent, int):
        n = n % extent if extent else 0
    if not n:
        return v
    sizes = (extent - n, n) if n > 0 else (-n, extent + n)
    first, last = functions.split(v, sizes, axis)
    return ops.concat(last, first, axis=axis)


# ------------------------------------------------------------------------------------------------------ repetition


@array_function
def repeat(x: Array, repeats: Any, /, *, axis: int | None = None) -> Array:
    """Each slice along `axis` so many times: a number, or one for each slice, known while tracing.

    Without `axis` over the flattened array.
    """
    v = operand("repeat", x)
    if axis is None:
        v, axis = _flat(v), 0
    at = axis_of("repeat", axis, v.rank)
    if isinstance(repeats, Tensor):
        raise GraphTypeError("repeat: the numbers of repetitions are traced, and the result's size must be known")
    if isinstance(repeats, Dim):
        counts: Any = repeats
    else:
        array = as_array(repeats, "repeat")
        counts = operator.index(array.reshape(())[()]) if array.size == 1 else array
    if isinstance(counts, int | Dim):
        apart = functions.unsqueeze(v, (at + 1,))
        wide = ops.broadcast_to(apart, shape=(*v.shape[: at + 1], counts, *v.shape[at + 1 :]))
        return ops.reshape(wide, shape=(*v.shape[:at], v.shape[at] * counts, *v.shape[at + 1 :]))
    if counts.ndim != 1 or counts.shape[0] != v.shape[at]:
        raise GraphTypeError(f"repeat: {list(counts.shape)} numbers of repetitions do not fit axis {at} of {v.type}")
    return ops.gather(v, np.repeat(np.arange(len(counts)), counts), axis=at)


@array_function
def tile(x: Array, repetitions: int | Sequence[int], /) -> Array:
    """x repeated so many times along each axis; missing axes are added at the left, missing numbers are 1."""
    v = operand("tile", x)
    counts = shape_of_result("tile", repetitions)
    v = functions.unsqueeze(v, range(len(counts) - v.rank)) if len(counts) > v.rank else v
    if not all(isinstance(n, int) for n in counts):
        raise GraphTypeError(f"tile: the repetitions are {list(counts)}; numbers are needed, repeat takes open sizes")
    return functions.tile(v, (*(1 for _ in range(v.rank - len(counts))), *(n for n in counts if isinstance(n, int))))


@array_function
def pad(x: Array, pad_width: Any, mode: str = "constant", *, constant_values: Any = 0) -> Array:
    """x with `pad_width` elements around: a number, (before, after), or a pair for each axis (NumPy's).

    `mode` is "constant", "edge", "reflect", "symmetric" or "wrap".
    """
    v = operand("pad", x)
    widths = [tuple(map(int, w)) for w in np.broadcast_to(np.asarray(pad_width), (v.rank, 2))]
    if mode == "constant":
        (fill,) = promote("pad", constant_values)
        return ops.pad(
            v, ops.cast(fill, dtype=v.dtype), low=tuple(a for a, _ in widths), high=tuple(b for _, b in widths)
        )
    if mode not in ("edge", "reflect", "symmetric", "wrap"):
        raise ValueError(f"pad: mode is {mode!r}; known are constant, edge, reflect, symmetric and wrap")
    for axis, (low, high) in enumerate(widths):
        if low or high:
            extent = v.shape[axis]
            if not isinstance(extent, int):
                raise GraphTypeError(f"pad: mode {mode!r} needs the extent of axis {axis} of {v.type}")
            places = np.pad(np.arange(extent), (low, high), mode=mode)  # type: ignore[call-overload]
            v = ops.gather(v, places, axis=axis)
    return v
