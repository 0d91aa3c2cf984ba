"""Searching, counting, sorting and sets.

NaN counts as larger than every number, and as different from every other NaN. What data decides the size of
(`nonzero`, the sets) has a symbolic extent in a trace, and splits the compiled program in two.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from graphc import ops
from graphc.errors import GraphTypeError
from graphc.frontends.python.array_api.operands import axes_of, axis_of, kept, kind, operand, to_dtype
from graphc.frontends.python.array_api.statistical import EmptyError
from graphc.frontends.python.functions import Array, array_function, at_once, promote
from graphc.frontends.python.tracing import current
from graphc.ir.dims import product
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Value
from graphc.ops import functions
from graphc.ops.shapes import broadcast_shapes

__all__ = [
    "argmax", "argmin", "argsort", "count_nonzero", "nonzero", "searchsorted", "sort", "top_k", "unique_all",
    "unique_counts", "unique_inverse", "unique_values", "where",
]  # fmt: skip

INT64 = dtype_of("int64")

# ----------------------------------------------------------------------------------------------------- searching


@array_function
def where(condition: Array, x1: Array, x2: Array, /) -> Array:
    """x1 where the condition holds, else x2. Where it decides between a NaN and a number, derivatives see both."""
    test = to_dtype(operand("where", condition), np.bool_)
    a, b = promote("where", x1, x2)
    shape = broadcast_shapes(test.shape, a.shape, b.shape, what="where")
    test, a, b = (v if v.shape == shape else ops.broadcast_to(v, shape=shape) for v in (test, a, b))
    return ops.select(test, a, b)


@array_function
def argmax(x: Array, /, *, axis: int | None = None, keepdims: bool = False) -> Array:
    """Where the largest element along `axis` is, the first of equals, or the first NaN; by default in the flattened
    array."""
    return _position("argmax", ops.argmax, x, axis, keepdims)


@array_function
def argmin(x: Array, /, *, axis: int | None = None, keepdims: bool = False) -> Array:
    """Where the smallest element along `axis` is, the first of equals, or the first NaN; by default in the flattened
    array."""
    return _position("argmin", ops.argmin, x, axis, keepdims)


def _position(name: str, compute: Any, x: Array, axis: int | None, keepdims: bool) -> Value:
    v = operand(name, x)
    v = to_dtype(v, np.uint8) if kind(v) == "bool" else v
    axes = axes_of(name, axis, v.rank)
    for k in axes:
        if v.shape[k] == 0:
            raise EmptyError(f"{name}: axis {k} of {v.type} is empty and has no extreme")
    line = v if axis is not None else ops.reshape(v, shape=(product(v.shape),))
    return kept(compute(line, axis=axes[0] if axis is not None else 0), v, axes, keepdims)


@array_function
def count_nonzero(x: Array, /, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
    """How many elements over the axes, by default all, are other than 0."""
    v = operand("count_nonzero", x)
    axes = axes_of("count_nonzero", axis, v.rank)
    return kept(ops.reduce_sum(to_dtype(to_dtype(v, np.bool_), INT64), axes=axes), v, axes, keepdims)


@array_function
def nonzero(x: Array, /) -> tuple[Array, ...]:
    """Where the elements other than 0 are: a vector of indices for each axis."""
    v = operand("nonzero", x)
    if not v.rank:
        raise EmptyError("nonzero: an array of rank 0 has no indices; it takes arrays of rank 1 or more")
    rows = ops.nonzero(to_dtype(v, np.bool_))
    return tuple(functions.squeeze(row, (0,)) for row in functions.split(rows, (1,) * v.rank, 0))


@array_function
def searchsorted(x1: Array, x2: Array, /, *, side: str = "left", sorter: Array | None = None) -> Array:
    """Before which element of the sorted vector x1 each element of x2 belongs: before equals ("left") or after them.

    Every element is compared with every other: made for short x1.
    """
    if side not in ("left", "right"):
        raise ValueError(f"searchsorted: side is {side!r}; known are 'left' and 'right'")
    line, wanted = promote("searchsorted", x1, x2)
    if line.rank != 1:
        raise GraphTypeError(f"searchsorted: x1 is {line.type}; a vector is needed")
    if sorter is not None:
        line = ops.gather(line, operand("searchsorted", sorter), axis=0)
    wanted = functions.unsqueeze(wanted, (wanted.rank,))
    below = (ops.lt if side == "left" else ops.le)(line, wanted)
    if kind(line) == "float":  # NaN is after all numbers
        after = ops.isnan(wanted)
        after = after if side == "right" else ops.logical_and(after, ops.logical_not(ops.isnan(line)))
        below = ops.logical_or(below, after)
    return ops.reduce_sum(ops.cast(below, dtype=INT64), axes=(below.rank - 1,))


# ------------------------------------------------------------------------------------------------------- sorting


@array_function
def sort(x: Array, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    """The elements along `axis` in order."""
    return _sorted("sort", x, axis, descending)[0]


@array_function
def argsort(x: Array, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    """The indices that put the elements along `axis` in order; equal ones keep theirs."""
    return _sorted("argsort", x, axis, descending)[1]


def _sorted(name: str, x: Array, axis: int, descending: bool) -> tuple[Value, Value]:
    v = operand(name, x)
    return ops.sort(v, axis=axis_of(name, axis, v.rank), descending=descending)


class TopK(NamedTuple):
    """The extremes in order, and where they were."""

    values: Any
    indices: Any


@array_function
def top_k(x: Array, k: int, /, *, axis: int = -1, largest: bool = True) -> TopK:
    """The k largest (or smallest) elements along `axis`, the most extreme first, and where they were."""
    v = operand("top_k", x)
    return TopK(*ops.top_k(v, k=k, axis=axis_of("top_k", axis, v.rank), largest=largest))


# ---------------------------------------------------------------------------------------------------------- sets


class UniqueAll(NamedTuple):
    """Different elements, where each is first, which one each element of the array is, and how often each occurs."""

    values: Any
    indices: Any
    inverse_indices: Any
    counts: Any


class UniqueCounts(NamedTuple):
    """Different elements and how often each occurs."""

    values: Any
    counts: Any


class UniqueInverse(NamedTuple):
    """Different elements and which one each element of the array is."""

    values: Any
    inverse_indices: Any


@array_function
def unique_all(x: Array, /) -> UniqueAll:
    """The different elements of x in order, where each is first in the flattened array, which of them each element is,
    and how often each occurs."""
    return _unique("unique_all", x)


@array_function
def unique_counts(x: Array, /) -> UniqueCounts:
    """The different elements of x in order, and how often each occurs."""
    found = _unique("unique_counts", x)
    return UniqueCounts(found.values, found.counts)


@array_function
def unique_inverse(x: Array, /) -> UniqueInverse:
    """The different elements of x in order, and which of them each element is."""
    found = _unique("unique_inverse", x)
    return UniqueInverse(found.values, found.inverse_indices)


@array_function
def unique_values(x: Array, /) -> Array:
    """The different elements of x in order."""
    return _unique("unique_values", x).values


def _unique(name: str, x: Array) -> UniqueAll:
    """Sorted, an element is new where it differs from the one before it: so every NaN is."""
    v = operand(name, x)
    size = product(v.shape)
    flat = ops.reshape(v, shape=(size,))
    if kind(v) == "complex" and current() is None:
        parts = [at_once(name, lambda a, k=k: np.unique_all(a)[k], [flat]) for k in range(4)]
        return UniqueAll(parts[0], parts[1], ops.reshape(parts[2], shape=v.shape), parts[3])
    ordered, places = ops.sort(flat, axis=0)
    before, after = (
        ops.slice(ordered, starts=(start,), stops=(start + size - 1,), steps=(1,)) if size != 0 else ordered
        for start in (0, 1)
    )
    differs = ops.logical_xor(before, after) if kind(v) == "bool" else ops.ne(before, after)
    new = ops.pad(differs, np.True_, low=(1,), high=(0,)) if size != 0 else differs
    (starts,) = nonzero(new)
    count = starts.shape[0]
    number = ops.sub(ops.cumsum(ops.cast(new, dtype=INT64), axis=0), 1)
    inverse = ops.scatter_elements(functions.full(0, (size,), INT64), places, number, axis=0)
    ends = ops.concat(starts, _extent(flat), axis=0)
    counts = ops.sub(
        ops.slice(ends, starts=(1,), stops=(count + 1,), steps=(1,)),
        ops.slice(ends, starts=(0,), stops=(count,), steps=(1,)),
    )
    return UniqueAll(
        ops.gather(ordered, starts, axis=0),
        ops.gather(places, starts, axis=0),
        ops.reshape(inverse, shape=v.shape),
        counts,
    )


def _extent(flat: Value) -> Value:
    """The number of elements of a vector, as a vector of one."""
    return functions.unsqueeze(functions.element_count(flat, (0,), INT64), (0,))
