"""Making arrays. Where nothing says otherwise floats are float32 and integers int64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import GraphTypeError
from graphc.frontends.python.array_api.operands import (
    check_device,
    dtype_or,
    known_size,
    operand,
    shape_of_result,
    to_dtype,
)
from graphc.frontends.python.functions import Array, array_function, as_array, inside, value_of
from graphc.frontends.python.promotion import DEFAULTS, is_number, kind_of
from graphc.frontends.python.tensor import Tensor
from graphc.frontends.python.tracing import current
from graphc.ir.dims import Dim, DimLike
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Value, constant
from graphc.ops import functions
from graphc.ops.functions import unsqueeze
from graphc.ops.shapes import slice_extent

__all__ = [
    "arange", "asarray", "empty", "empty_like", "eye", "from_dlpack", "full", "full_like", "linspace", "meshgrid",
    "ones", "ones_like", "tril", "triu", "zeros", "zeros_like",
]  # fmt: skip

INT64 = dtype_of("int64")
Shape = int | Sequence[int]

# ---------------------------------------------------------------------------------------------------- one number


@array_function
def zeros(shape: Shape, *, dtype: Any = None, device: Any = None) -> Array:
    """An array of zeros."""
    return _filled("zeros", shape, 0, dtype, device)


@array_function
def ones(shape: Shape, *, dtype: Any = None, device: Any = None) -> Array:
    """An array of ones."""
    return _filled("ones", shape, 1, dtype, device)


@array_function
def empty(shape: Shape, *, dtype: Any = None, device: Any = None) -> Array:
    """An array whose elements do not matter: zeros."""
    return _filled("empty", shape, 0, dtype, device)


@array_function
def full(shape: Shape, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Array:
    """An array of one number, in the type of its kind; `fill_value` may also be an array that broadcasts."""
    if is_number(fill_value):
        return _filled("full", shape, fill_value, dtype or DEFAULTS[type(fill_value).__name__], device)
    check_device("full", device)
    v = value_of(fill_value, what="full")
    return ops.broadcast_to(v if dtype is None else to_dtype(v, dtype), shape=shape_of_result("full", shape))


def _filled(name: str, shape: Any, number: Any, dtype: Any, device: Any) -> Value:
    check_device(name, device)
    return functions.full(number, shape_of_result(name, shape), dtype_or(dtype, DEFAULTS["float"]))


@array_function
def zeros_like(x: Array, /, *, dtype: Any = None, device: Any = None) -> Array:
    """Zeros in the shape and element type of x."""
    return _like("zeros_like", x, 0, dtype, device)


@array_function
def ones_like(x: Array, /, *, dtype: Any = None, device: Any = None) -> Array:
    """Ones in the shape and element type of x."""
    return _like("ones_like", x, 1, dtype, device)


@array_function
def empty_like(x: Array, /, *, dtype: Any = None, device: Any = None) -> Array:
    """An array like x whose elements do not matter: zeros."""
    return _like("empty_like", x, 0, dtype, device)


@array_function
def full_like(x: Array, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Array:
    """One number in the shape and element type of x; `fill_value` may also be an array that broadcasts."""
    if is_number(fill_value):
        return _like("full_like", x, fill_value, dtype, device)
    v = operand("full_like", x)
    return ops.broadcast_to(to_dtype(value_of(fill_value), dtype_or(dtype, v.dtype)), shape=v.shape)


def _like(name: str, x: Array, number: Any, dtype: Any, device: Any) -> Value:
    check_device(name, device)
    v = operand(name, x)
    return functions.full(number, v.shape, dtype_or(dtype, v.dtype))


# -------------------------------------------------------------------------------------------------------- ranges


@array_function
def arange(start: Any, /, stop: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None) -> Array:
    """start, start + step, ... before stop; from 0 when only one number is given. Bounds may be symbolic extents.

    int64 where all are integers, else float32.
    """
    check_device("arange", device)
    first, last = (0, start) if stop is None else (start, stop)
    first, last, step = (_bound("arange", b) for b in (first, last, step))
    if not step:
        raise GraphTypeError("arange: the step is 0")
    if all(isinstance(b, int | Dim) for b in (first, last, step)):
        return _integers(first, last, step, dtype_or(dtype, INT64))
    wanted = dtype_or(dtype, DEFAULTS["float"])
    return constant(np.arange(first, last, step, dtype=np.float64).astype(wanted.numpy))


def _bound(name: str, b: Any) -> Any:
    """A bound as a number or a symbolic extent."""
    if isinstance(b, Tensor):
        raise known_size(name, b)
    return b if isinstance(b, Dim) else b.item() if isinstance(b, np.ndarray | np.generic) else b


def _integers(first: DimLike, last: DimLike, step: int, dtype: Any) -> Value:
    if isinstance(first, Dim):
        raise GraphTypeError(f"arange: it starts at {first}, a number is needed")
    extent = slice_extent(first, last, step)
    if isinstance(extent, int) and not -(2**63) <= first + extent * step < 2**63:  # as uint64 can hold
        return constant(np.array([first + k * step for k in range(extent)], dtype.numpy))
    places = ops.iota(shape=(extent,), axis=0, dtype=INT64)
    scaled = places if step == 1 else ops.mul(places, step)
    return to_dtype(scaled if first == 0 else ops.add(scaled, first), dtype)


@array_function
def linspace(
    start: Any, stop: Any, /, num: int, *, dtype: Any = None, device: Any = None, endpoint: bool = True
) -> Array:
    """`num` numbers at equal distances from start to stop, which is left out when `endpoint` is false."""
    check_device("linspace", device)
    first, last = _bound("linspace", start), _bound("linspace", stop)
    default = DEFAULTS["complex" if isinstance(first, complex) or isinstance(last, complex) else "float"]
    return constant(np.linspace(first, last, num, endpoint=endpoint).astype(dtype_or(dtype, default).numpy))


@array_function
def eye(n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: Any = None, device: Any = None) -> Array:
    """Ones on the diagonal `k` places above the main one, zeros elsewhere."""
    check_device("eye", device)
    shape = shape_of_result("eye", (n_rows, n_rows if n_cols is None else n_cols))
    row, column = (ops.iota(shape=shape, axis=axis, dtype=INT64) for axis in (0, 1))
    return to_dtype(ops.eq(ops.sub(column, row), k), dtype_or(dtype, DEFAULTS["float"]))


@array_function
def tril(x: Array, /, *, k: int = 0) -> Array:
    """The lower triangle of the last two axes, diagonal `k` included; the rest is 0."""
    return _triangle("tril", x, k, upper=False)


@array_function
def triu(x: Array, /, *, k: int = 0) -> Array:
    """The upper triangle of the last two axes, diagonal `k` included; the rest is 0."""
    return _triangle("triu", x, k, upper=True)


def _triangle(name: str, x: Array, k: int, *, upper: bool) -> Value:
    v = operand(name, x)
    if v.rank < 2:
        raise GraphTypeError(f"{name} was given {v.type}; it takes matrices, of rank 2 or more")
    return functions.trilu(v, k, upper=upper)


@array_function
def meshgrid(*arrays: Array, indexing: str = "xy") -> list[Array]:
    """Each vector along an axis of its own of a common grid; "xy" exchanges the first two axes, "ij" does not."""
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid: indexing is {indexing!r}; known are 'xy' and 'ij'")
    vectors = [operand("meshgrid", x) for x in arrays]
    rank = len(vectors)
    order = [1, 0, *range(2, rank)] if indexing == "xy" and rank > 1 else list(range(rank))
    for k, v in enumerate(vectors):
        if v.rank > 1:
            raise GraphTypeError(f"meshgrid: operand {k} is {v.type}; vectors are needed")
    lines = [v if v.rank else unsqueeze(v, (0,)) for v in vectors]
    shape = tuple(lines[order.index(axis)].shape[0] for axis in range(rank))
    return [
        ops.broadcast_to(unsqueeze(v, [a for a in range(rank) if a != order[k]]), shape=shape)
        for k, v in enumerate(lines)
    ]


# --------------------------------------------------------------------------------------------- from something else


def asarray(obj: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Array:
    """An array, number, or nested lists of these as an array. Lists of Python numbers take the type of their kind.

    Outside of traces an array that has the element type already is given back as it is, unless `copy` is true; with
    `copy=False` ValueError says that one would be needed.
    """
    check_device("asarray", device)
    if current() is None and not inside() and not isinstance(obj, Tensor):
        return _as_numpy(obj, dtype, copy)
    return _as_value(obj, dtype=dtype)


@array_function
def _as_value(obj: Any, *, dtype: Any) -> Array:
    v = _joined(obj)
    return v if dtype is None else to_dtype(v, dtype)


def _joined(obj: Any) -> Value:
    """Nested lists that hold tensors, as a value."""
    if isinstance(obj, Value | Tensor):
        return operand("asarray", obj)
    if isinstance(obj, list | tuple) and _holds_tensors(obj):
        from graphc.frontends.python.array_api.manipulation import stack

        return stack([_joined(o) for o in obj])
    return constant(_as_numpy(obj, None, None))


def _holds_tensors(obj: Any) -> bool:
    return isinstance(obj, Value | Tensor) or (isinstance(obj, list | tuple) and any(map(_holds_tensors, obj)))


def _as_numpy(obj: Any, dtype: Any, copy: bool | None) -> np.ndarray:
    found = as_array(obj, "asarray")
    wanted = found.dtype if dtype is None else dtype_of(dtype).numpy
    if dtype is None and not _has_dtype(obj) and found.dtype != np.uint64 and kind_of(found.dtype) in DEFAULTS:
        wanted = DEFAULTS[kind_of(found.dtype)]
    owner = isinstance(obj, np.ndarray) or hasattr(obj, "__dlpack__") or hasattr(obj, "__array_interface__")
    if copy is False and (found.dtype != wanted or not owner):
        raise ValueError(f"asarray: a copy is needed to make {wanted} of {type(obj).__name__}, and copy is False")
    return found.astype(wanted, copy=bool(copy))


def _has_dtype(obj: Any) -> bool:
    """Whether something in the lists has an element type of its own."""
    if isinstance(obj, list | tuple):
        return any(map(_has_dtype, obj))
    return not is_number(obj)


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Array:
    """An array that any library made, by the DLPack protocol; it shares memory unless `copy` is true."""
    check_device("from_dlpack", device)
    return asarray(x if isinstance(x, Tensor) else np.from_dlpack(x, copy=copy))
