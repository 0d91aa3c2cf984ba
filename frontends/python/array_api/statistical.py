"""Reductions and running totals: statistics, `all`, `any`, `diff`.

Sums of bools and of integers narrower than int64 are int64 (uint64 for unsigned ones). Means, variances and deviations
of integers are float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import GraphTypeError
from graphc.frontends.python.array_api.operands import axes_of, axis_of, kept, kind, operand, to_dtype
from graphc.frontends.python.functions import Array, array_function, at_once, promote, promoted
from graphc.frontends.python.tracing import current
from graphc.ir.dims import product
from graphc.ir.dtypes import DType, dtype_of
from graphc.ir.graph import Value, constant
from graphc.ops import functions

__all__ = [
    "all", "any", "cumulative_prod", "cumulative_sum", "diff", "logsumexp", "max", "mean", "min", "prod", "std",
    "sum", "var",
]  # fmt: skip

Axis = int | tuple[int, ...] | None

# --------------------------------------------------------------------------------------------- sums and products


@array_function
def sum(x: Array, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Array:
    """The sum over the axes, by default all; 0 over nothing."""
    return _total("sum", ops.reduce_sum, x, axis, dtype, keepdims)


@array_function
def prod(x: Array, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Array:
    """The product over the axes, by default all; 1 over nothing."""
    return _total("prod", ops.reduce_prod, x, axis, dtype, keepdims)


def _total(name: str, reduce: Callable[..., Value], x: Array, axis: Axis, dtype: Any, keepdims: bool) -> Value:
    v = operand(name, x)
    v = to_dtype(v, _summed(v.dtype) if dtype is None else dtype)
    axes = axes_of(name, axis, v.rank)
    return kept(reduce(v, axes=axes), v, axes, keepdims)


def _summed(dtype: DType) -> DType:
    """The element type of a sum."""
    if dtype.kind == "bool" or (dtype.kind == "int" and dtype.bits < 64):
        return dtype_of("int64")
    return dtype_of("uint64") if dtype.kind == "uint" else dtype


@array_function
def cumulative_sum(x: Array, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Array:
    """The sums up to each element along `axis`; `include_initial` puts the empty sum before them."""
    return _running("cumulative_sum", ops.cumsum, np.cumsum, 0, x, axis, dtype, include_initial)


@array_function
def cumulative_prod(x: Array, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Array:
    """The products up to each element along `axis`; `include_initial` puts the empty product before them."""
    return _running("cumulative_prod", ops.cumprod, np.cumprod, 1, x, axis, dtype, include_initial)


def _running(
    name: str,
    compute: Callable[..., Value],
    numpy: Callable[..., Any],
    empty: int,
    x: Array,
    axis: int | None,
    dtype: Any,
    include_initial: bool,
) -> Value:
    v = operand(name, x)
    if axis is None:
        if v.rank != 1:
            raise GraphTypeError(f"{name} was given {v.type}; which axis has to be said unless the array is a vector")
        axis = 0
    v = to_dtype(v, _summed(v.dtype) if dtype is None else dtype)
    at = axis_of(name, axis, v.rank)
    if kind(v) == "complex" and current() is None:
        result = at_once(name, lambda a: numpy(a, axis=at), [v])
    else:
        result = compute(v, axis=at)
    if not include_initial:
        return result
    first = functions.full(empty, tuple(1 if k == at else d for k, d in enumerate(v.shape)), v.dtype)
    return ops.concat(first, result, axis=at)


# ------------------------------------------------------------------------------------------------------ extremes


@array_function
def max(x: Array, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """The largest element over the axes, by default all; NaN when one is NaN. Equal ones share the gradient."""
    return _extreme("max", ops.reduce_max, x, axis, keepdims)


@array_function
def min(x: Array, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """The smallest element over the axes, by default all; NaN when one is NaN. Equal ones share the gradient."""
    return _extreme("min", ops.reduce_min, x, axis, keepdims)


def _extreme(name: str, reduce: Callable[..., Value], x: Array, axis: Axis, keepdims: bool) -> Value:
    v = operand(name, x)
    axes = axes_of(name, axis, v.rank)
    for k in axes:
        if v.shape[k] == 0:
            raise EmptyError(f"{name}: axis {k} of {v.type} is empty and has no extreme")
    if kind(v) == "bool":
        logical = ops.reduce_or if name == "max" else ops.reduce_and
        return kept(logical(v, axes=axes), v, axes, keepdims)
    return kept(reduce(v, axes=axes), v, axes, keepdims)


class EmptyError(GraphTypeError, ValueError):
    """Nothing to choose from; ValueError as NumPy's is."""


# ---------------------------------------------------------------------------------------------- means and spreads


@array_function
def mean(x: Array, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Array:
    """The mean over the axes, by default all; NaN over nothing."""
    (v,) = promoted("mean", x) if dtype is None else (to_dtype(operand("mean", x), dtype),)
    axes = axes_of("mean", axis, v.rank)
    return kept(_mean(v, axes), v, axes, keepdims)


def _mean(v: Value, axes: Sequence[int], correction: float = 0.0) -> Value:
    """The sum over the number of elements, less a correction."""
    total = ops.reduce_sum(v, axes=tuple(axes))
    known = product(tuple(v.shape[k] for k in axes))
    if isinstance(known, int):
        return ops.div(total, constant(np.asarray(np.maximum(known - correction, 0)).astype(v.dtype.numpy), v.dtype))
    count = functions.element_count(v, axes, v.dtype)
    return ops.div(total, ops.sub(count, correction) if correction else count)


@array_function
def var(x: Array, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Array:
    """The mean squared distance from the mean; the sum is divided by the number of elements less `correction`."""
    return _variance("var", x, axis, correction, keepdims)


@array_function
def std(x: Array, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Array:
    """The square root of `var`."""
    return ops.sqrt(_variance("std", x, axis, correction, keepdims))


def _variance(name: str, x: Array, axis: Axis, correction: float, keepdims: bool) -> Value:
    (v,) = promoted(name, x)
    if kind(v) == "complex":
        raise GraphTypeError(f"{name} was given {v.type}; it takes real arrays")
    axes = axes_of(name, axis, v.rank)
    centred = ops.sub(v, kept(_mean(v, axes), v, axes, keepdims=True))
    return kept(_mean(ops.mul(centred, centred), axes, correction), v, axes, keepdims)


@array_function
def logsumexp(x: Array, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """log(sum(exp(x))) over the axes, by default all, without overflow (JAX's; not in the standard)."""
    (v,) = promoted("logsumexp", x)
    return functions.logsumexp(v, axes_of("logsumexp", axis, v.rank), keepdims=keepdims)


# ------------------------------------------------------------------------------------------------------- utility


@array_function
def all(x: Array, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Whether all elements over the axes are other than 0; true over nothing."""
    return _truth("all", ops.reduce_and, x, axis, keepdims)


@array_function
def any(x: Array, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Whether any element over the axes is other than 0; false over nothing."""
    return _truth("any", ops.reduce_or, x, axis, keepdims)


def _truth(name: str, reduce: Callable[..., Value], x: Array, axis: Axis, keepdims: bool) -> Value:
    v = to_dtype(operand(name, x), np.bool_)
    axes = axes_of(name, axis, v.rank)
    return kept(reduce(v, axes=axes), v, axes, keepdims)


@array_function
def diff(
    x: Array, /, *, axis: int = -1, n: int = 1, prepend: Array | None = None, append: Array | None = None
) -> Array:
    """Each element less the one before it along `axis`, n times over; true for bools that differ.

    `prepend` and `append` are put before and after x first.
    """
    if n < 0:
        raise ValueError(f"diff: n is {n}; it must not be negative")
    parts = promote("diff", *(a for a in (prepend, x, append) if a is not None))
    at = axis_of("diff", axis, parts[0].rank)
    v = parts[0] if len(parts) == 1 else ops.concat(*parts, axis=at)
    for _ in range(n):
        if v.shape[at] == 0:
            break
        size = v.shape[at] - 1
        before, after = (_window(v, at, start, size) for start in (0, 1))
        v = ops.logical_xor(after, before) if kind(v) == "bool" else ops.sub(after, before)
    return v


def _window(v: Value, axis: int, start: int, size: Any) -> Value:
    return ops.slice(
        v,
        starts=tuple(start if k == axis else 0 for k in range(v.rank)),
        stops=tuple(start + size if k == axis else d for k, d in enumerate(v.shape)),
        steps=(1,) * v.rank,
    )
