"""Products of vectors and matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import GraphTypeError
from graphc.frontends.python.array_api.einsum import einsum
from graphc.frontends.python.array_api.elementwise import conj
from graphc.frontends.python.array_api.operands import axes_of, axis_of, broadcast, kept, kind, operand
from graphc.frontends.python.functions import Array, array_function, promote, promoted
from graphc.ir.dims import product
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Value
from graphc.ops import functions

__all__ = [
    "diagonal", "dot", "einsum", "inner", "matmul", "matrix_transpose", "norm", "outer", "tensordot", "trace_of",
    "vecdot",
]  # fmt: skip

INT64 = dtype_of("int64")


@array_function
def matmul(x1: Array, x2: Array, /) -> Array:
    """The matrix product: vectors are a row at the left and a column at the right, leading dimensions broadcast."""
    a, b = _numbers("matmul", *promote("matmul", x1, x2))
    if not a.rank or not b.rank:
        raise GraphTypeError(f"matmul was given {a.type} and {b.type}; arrays of rank 0 are multiplied with *")
    rows, columns = a.shape[-1], b.shape[-2 if b.rank > 1 else 0]
    _agree("matmul", a, a.rank - 1, rows, b, max(b.rank - 2, 0), columns)
    return functions.matmul(a, b)


def _numbers(name: str, *values: Value) -> tuple[Value, ...]:
    for v in values:
        if kind(v) == "bool":
            raise GraphTypeError(f"{name} was given {v.type}; bools have no products, convert them with astype")
    return values


def _agree(name: str, a: Value, k: int, m: Any, b: Value, j: int, n: Any) -> None:
    """Raise GraphTypeError when two axes that are summed over have different extents."""
    if isinstance(m, int) and isinstance(n, int) and m != n:
        raise GraphTypeError(
            f"{name} was given {a.type} and {b.type}: axis {k} of the first has extent {m}, axis {j} of the second {n}"
        )


@array_function
def matrix_transpose(x: Array, /) -> Array:
    """x with its last two axes exchanged."""
    v = operand("matrix_transpose", x)
    if v.rank < 2:
        raise GraphTypeError(f"matrix_transpose was given {v.type}; it takes matrices, of rank 2 or more")
    return ops.transpose(v, perm=(*range(v.rank - 2), v.rank - 1, v.rank - 2))


@array_function
def tensordot(x1: Array, x2: Array, /, *, axes: int | tuple[Sequence[int], Sequence[int]] = 2) -> Array:
    """The sum of products over axes of both: the last `axes` of x1 with the first of x2, or those that are named."""
    a, b = _numbers("tensordot", *promote("tensordot", x1, x2))
    if isinstance(axes, int):
        if axes > min(a.rank, b.rank) or axes < 0:
            raise GraphTypeError(
                f"tensordot was given {a.type} and {b.type}, which do not have {axes} axes to sum over"
            )
        left, right = list(range(a.rank - axes, a.rank)), list(range(axes))
    else:
        given = [list(s) if isinstance(s, tuple | list) else [s] for s in axes]
        left = [axis_of("tensordot", k, a.rank) for k in given[0]]
        right = [axis_of("tensordot", k, b.rank) for k in given[1]]
    if len(left) != len(right):
        raise GraphTypeError(f"tensordot: {len(left)} axes of the first operand and {len(right)} of the second")
    for j, k in zip(left, right, strict=True):
        _agree("tensordot", a, j, a.shape[j], b, k, b.shape[k])
    rows = [k for k in range(a.rank) if k not in left]
    columns = [k for k in range(b.rank) if k not in right]
    outer_a, outer_b = tuple(a.shape[k] for k in rows), tuple(b.shape[k] for k in columns)
    inner_size = product(tuple(a.shape[k] for k in left))
    flat_a = ops.reshape(ops.transpose(a, perm=(*rows, *left)), shape=(product(outer_a), inner_size))
    flat_b = ops.reshape(ops.transpose(b, perm=(*right, *columns)), shape=(inner_size, product(outer_b)))
    return ops.reshape(ops.dot(flat_a, flat_b), shape=(*outer_a, *outer_b))


@array_function
def vecdot(x1: Array, x2: Array, /, *, axis: int = -1) -> Array:
    """The sum of products along `axis`, which counts from the end; the first operand is conjugated."""
    a, b = _numbers("vecdot", *promote("vecdot", x1, x2))
    if not a.rank or not b.rank:
        raise GraphTypeError(f"vecdot was given {a.type} and {b.type}; arrays of rank 1 or more are needed")
    j, k = axis_of("vecdot", axis, a.rank), axis_of("vecdot", axis, b.rank)
    _agree("vecdot", a, j, a.shape[j], b, k, b.shape[k])
    a, b = broadcast("vecdot", (a, b))
    return ops.reduce_sum(ops.mul(conj(a), b), axes=(axis_of("vecdot", axis, a.rank),))


@array_function
def dot(a: Array, b: Array, /) -> Array:
    """NumPy's dot: over the last axis of a and the last but one of b (the only one of a vector)."""
    x, y = promote("dot", a, b)
    if not x.rank or not y.rank:
        return ops.mul(x, y)
    return tensordot(x, y, axes=([x.rank - 1], [max(y.rank - 2, 0)]))


@array_function
def inner(a: Array, b: Array, /) -> Array:
    """The sum of products over the last axes of both (NumPy's)."""
    x, y = promote("inner", a, b)
    if not x.rank or not y.rank:
        return ops.mul(x, y)
    return tensordot(x, y, axes=([x.rank - 1], [y.rank - 1]))


@array_function
def outer(x1: Array, x2: Array, /) -> Array:
    """All products of an element of x1 with one of x2, both flattened: a matrix."""
    a, b = promote("outer", x1, x2)
    return ops.mul(ops.reshape(a, shape=(product(a.shape), 1)), ops.reshape(b, shape=(1, product(b.shape))))


@array_function
def diagonal(x: Array, /, *, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    """The diagonal of two axes, `offset` places above the main one, as a new last axis (NumPy's)."""
    v = operand("diagonal", x)
    j, k = axis_of("diagonal", axis1, v.rank), axis_of("diagonal", axis2, v.rank)
    rows, columns = v.shape[j], v.shape[k]
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise GraphTypeError(f"diagonal: the extents of axes {j} and {k} of {v.type} must be known")
    first = np.arange(max(0, -offset), max(max(0, -offset), min(rows, columns - offset)))
    others = [a for a in range(v.rank) if a not in (j, k)]
    ordered = ops.transpose(v, perm=(j, k, *others))
    picked = ops.gather_nd(ordered, np.stack([first, first + offset], axis=-1))
    return ops.transpose(picked, perm=(*range(1, picked.rank), 0))


@array_function
def trace_of(x: Array, /, *, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    """The sum of a diagonal: NumPy's trace, which is not called so because `graphc.trace` makes a graph."""
    line = diagonal(x, offset=offset, axis1=axis1, axis2=axis2)
    return ops.reduce_sum(line, axes=(line.rank - 1,))


@array_function
def norm(x: Array, /, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False, ord: float = 2) -> Array:  # noqa: A002
    """The vector norm over the axes, by default all: (sum of |x|**ord)**(1/ord); the extremes for inf and -inf.

    The derivative of the Euclidean norm at the zero vector is NaN.
    """
    (v,) = promoted("norm", x)
    axes = axes_of("norm", axis, v.rank)
    size = ops.abs(v)
    if ord in (np.inf, -np.inf):
        result = (ops.reduce_max if ord > 0 else ops.reduce_min)(size, axes=axes)
    elif ord == 0:
        result = ops.reduce_sum(ops.cast(ops.ne(v, 0.0), dtype=v.dtype), axes=axes)
    elif ord == 1:
        result = ops.reduce_sum(size, axes=axes)
    elif ord == 2:
        result = ops.sqrt(ops.reduce_sum(ops.mul(v, v), axes=axes))
    else:
        result = ops.pow(ops.reduce_sum(ops.pow(size, float(ord)), axes=axes), 1 / ord)
    return kept(result, v, axes, keepdims)
