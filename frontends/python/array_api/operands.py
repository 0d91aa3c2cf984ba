"""Arguments of array functions in normal form: operands of one type and shape, axes, shapes, element types, devices."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import AxisError, GraphTypeError
from graphc.frontends.python.functions import Array, at_once, promote, promoted
from graphc.frontends.python.promotion import kind_of
from graphc.frontends.python.tensor import Tensor
from graphc.frontends.python.tracing import current
from graphc.ir.dims import Dim, DimLike
from graphc.ir.dtypes import DType, dtype_of
from graphc.ir.graph import Value
from graphc.ops.shapes import broadcast_shapes

__all__ = [
    "axes_of", "axis_of", "broadcast", "check_device", "dtype_or", "elementwise", "kept", "kind", "known_size",
    "operand", "shape_of_result", "to_dtype",
]  # fmt: skip

NUMERIC = ("int", "float", "complex")
INT64 = dtype_of("int64")


def kind(v: Value) -> str:
    """ "bool", "int", "float", "complex" or "other"."""
    return kind_of(np.dtype(v.dtype.numpy))


def to_dtype(v: Value, dtype: Any) -> Value:
    """`v` in another element type."""
    wanted = dtype_of(dtype)
    return v if v.dtype == wanted else ops.cast(v, dtype=wanted)


def dtype_or(dtype: Any, default: Any) -> DType:
    """The element type asked for, or the default."""
    return dtype_of(default if dtype is None else dtype)


def elementwise(
    name: str,
    compute: Callable[..., Value],
    *xs: Array,
    accepts: Sequence[str] = NUMERIC,
    floating: bool = False,
    numpy: Callable[..., Any] | None = None,
) -> Value:
    """`compute` on the operands, promoted and broadcast; `floating` makes integers floats first.

    Complex numbers have few kernels: outside of traces NumPy's function of the name (or `numpy`) computes with them.
    Raises GraphTypeError for operands whose kind of element type is not accepted, or whose shapes do not meet.
    """
    values = (promoted if floating else promote)(name, *xs)
    found = kind(values[0])
    if found not in accepts:
        given = " and ".join(str(v.type) for v in values)
        raise GraphTypeError(f"{name} was given {given}; it takes arrays of {' or '.join(accepts)}")
    values = broadcast(name, values)
    if found == "complex" and current() is None:
        return at_once(name, numpy or getattr(np, name), values)
    return compute(*values)


def operand(name: str, x: Array) -> Value:
    """One operand as a value of its own element type."""
    return promote(name, x)[0]


def broadcast(name: str, values: Sequence[Value]) -> tuple[Value, ...]:
    """The values in the shape that NumPy's broadcasting gives them."""
    if all(v.shape == values[0].shape for v in values):
        return tuple(values)
    shape = broadcast_shapes(*(v.shape for v in values), what=name)
    return tuple(v if v.shape == shape else ops.broadcast_to(v, shape=shape) for v in values)


def axis_of(name: str, axis: Any, rank: int) -> int:
    """An axis counted from the front. Raises AxisError when there is no such axis, GraphTypeError for what is no number."""
    if isinstance(axis, Tensor | Value):
        raise GraphTypeError(f"{name}: an axis must be known while the function is traced; this one is data")
    try:
        k = None if isinstance(axis, bool) else operator.index(axis)
    except TypeError:
        k = None
    if k is None:
        raise GraphTypeError(f"{name}: an axis is a whole number, not {axis!r:.80} ({type(axis).__name__})")
    if not -rank <= k < rank:
        raise AxisError(f"{name}: axis {k} does not exist in an array of rank {rank}")
    return k % rank


def axes_of(name: str, axis: Any, rank: int) -> tuple[int, ...]:
    """Sorted axes from an axis, several, or None for all."""
    if axis is None:
        return tuple(range(rank))
    given = axis if isinstance(axis, tuple | list) else (axis,)
    found = [axis_of(name, a, rank) for a in given]
    if len(set(found)) != len(found):
        raise AxisError(f"{name}: an axis stands twice in {axis}")
    return tuple(sorted(found))


def kept(reduced: Value, x: Value, axes: Sequence[int], keepdims: bool) -> Value:
    """A reduction of x over `axes`, with them put back as axes of extent 1 when they are to be kept."""
    if not keepdims or not axes:
        return reduced
    return ops.reshape(reduced, shape=tuple(1 if k in axes else d for k, d in enumerate(x.shape)))


def shape_of_result(name: str, shape: Any, *, rest: bool = False) -> tuple[DimLike, ...]:
    """A shape from an extent or several; extents may be symbolic. Raises GraphTypeError where one is data, or negative
    (but -1 where it may stand for the `rest`)."""
    single = isinstance(shape, Dim | Tensor | Value) or not hasattr(shape, "__iter__")
    found = tuple(d if isinstance(d, Dim) else _extent(name, d) for d in ((shape,) if single else shape))
    for d in found:
        if isinstance(d, int) and d < (-1 if rest else 0):
            raise GraphTypeError(f"{name}: the extent {d} in the shape {found} is negative")
    return found


def _extent(name: str, d: Any) -> int:
    if isinstance(d, Tensor | Value):
        raise known_size(name, d)
    if not hasattr(d, "__index__"):
        raise GraphTypeError(f"{name}: {d!r:.80} stands in a shape; extents are integers")
    return operator.index(d)


def known_size(name: str, x: Tensor | Value) -> GraphTypeError:
    """The error for a size that is data."""
    return GraphTypeError(
        f"{name}: a size is a traced tensor ({x.type}), and a shape must be known while tracing: pass it as a static "
        "argument (static_argnums), or take it from x.shape"
    )


def check_device(name: str, device: Any) -> None:
    """Where an array is to be made. Raises ValueError for anything but "cpu" and None: a compiled program, not an
    array, says where it runs."""
    if device not in (None, "cpu"):
        raise ValueError(f"{name}: device {device!r} is not known; arrays are made on 'cpu'")
