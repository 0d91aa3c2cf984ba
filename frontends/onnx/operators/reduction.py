"""Reductions, running totals and losses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphc import ops
from graphc.frontends.onnx.context import Context
from graphc.frontends.onnx.operators._common import BOOL, FLOAT64, axes_operand, broadcast, reshape, scalar, to
from graphc.frontends.onnx.registry import importer
from graphc.ir.dims import Dim, product
from graphc.ir.graph import Value

__all__: list[str] = []

#: (operand, sorted axes) -> the reduced value, without the axes
Reducer = Callable[[Value, tuple[int, ...]], Value]


def _reducer(name: str, reduce: Reducer, axes_since: int = 18, *since: int) -> None:
    """Axes are an attribute before version `axes_since` and an operand from it on."""

    @importer(name, *since)
    def convert(c: Context, x: Value, axes: Value | None = None) -> Value:
        which = axes_operand(c, axes, axes_since)
        keep = c.flag("keepdims", True)
        nothing = c.flag("noop_with_empty_axes")
        if not which:
            # no axes means all of them, unless told that it means none; ReduceL1 and its like still apply
            which = () if nothing else tuple(range(x.rank))
        reduced_axes = tuple(sorted(c.axes(which, x.rank)))
        out = reduce(x, reduced_axes)
        return reshape(out, [1 if k in reduced_axes else d for k, d in enumerate(x.shape)]) if keep else out


def _sum(x: Value, axes: tuple[int, ...]) -> Value:
    return ops.reduce_sum(x, axes=axes)


def _mean(x: Value, axes: tuple[int, ...]) -> Value:
    count = product(tuple(x.shape[a] for a in axes))
    total = _sum(x, axes)
    if isinstance(count, Dim):
        factors = ops.gather(ops.shape_of(x), np.array(axes, np.int64), axis=0)
        divisor = to(ops.reduce_prod(factors, axes=(0,)), x.dtype)
        return ops.div(total, divisor)
    if x.dtype.is_float and count:
        return ops.mul(total, scalar(1 / count, x.dtype))
    return ops.div(total, scalar(count, x.dtype))


def _maximum(x: Value, axes: tuple[int, ...]) -> Value:
    if x.dtype == BOOL:
        return ops.reduce_or(x, axes=axes)
    return ops.reduce_max(x, axes=axes)


def _minimum(x: Value, axes: tuple[int, ...]) -> Value:
    if x.dtype == BOOL:
        return ops.reduce_and(x, axes=axes)
    return ops.reduce_min(x, axes=axes)


def _square_sum(x: Value, axes: tuple[int, ...]) -> Value:
    return _sum(ops.mul(x, x), axes)


def _l2(x: Value, axes: tuple[int, ...]) -> Value:
    total = _square_sum(x, axes)
    if x.dtype.is_float:
        return ops.sqrt(total)
    return to(ops.sqrt(to(total, FLOAT64)), x.dtype)


def _as_float(reduce: Reducer) -> Reducer:
    """The integer versions compute in float64 and convert back."""
    return lambda x, axes: reduce(x, axes) if x.dtype.is_float else to(reduce(to(x, FLOAT64), axes), x.dtype)


def _log_sum(x: Value, axes: tuple[int, ...]) -> Value:
    return ops.log(_sum(x, axes))


def _log_sum_exp(x: Value, axes: tuple[int, ...]) -> Value:
    """With the largest element taken out, so that exp cannot overflow; an infinite one is not (inf - inf is NaN)."""
    largest = ops.reduce_max(x, axes=axes)
    largest = ops.select(ops.isinf(largest), scalar(0, x.dtype), largest)
    kept = [1 if k in axes else d for k, d in enumerate(x.shape)]
    centred = ops.sub(x, broadcast(reshape(largest, kept), x.shape))
    return ops.add(ops.log(_sum(ops.exp(centred), axes)), largest)


_reducer("ReduceSum", _sum, 13, 1, 11, 13)
_reducer("ReduceMean", _mean, 18, 1, 11, 13, 18)
_reducer("ReduceMax", _maximum, 18, 1, 11, 12, 13, 18, 20)
_reducer("ReduceMin", _minimum, 18, 1, 11, 12, 13, 18, 20)
_reducer("ReduceProd", lambda x, axes: ops.reduce_prod(x, axes=axes), 18, 1, 11, 13, 18)
_reducer("ReduceL1", lambda x, axes: _sum(ops.abs(x), axes), 18, 1, 11, 13, 18)
_reducer("ReduceL2", _l2, 18, 1, 11, 13, 18)
_reducer("ReduceSumSquare", _square_sum, 18, 1, 11, 13, 18)
_reducer("ReduceLogSum", _as_float(_log_sum), 18, 1, 11, 13, 18, 28)
_reducer("ReduceLogSumExp", _as_float(_log_sum_exp), 18, 1, 11, 13, 18, 28)


def _running(name: str, *since: int) -> None:
    @importer(name, *since)
    def convert(c: Context, x: Value, axis: Value) -> Value:
        (which,) = c.concrete_ints(axis, "axis")
        options = {k: True for k in ("exclusive", "reverse") if c.flag(k)}
        op = ops.cumsum if name == "CumSum" else ops.cumprod
        return op(x, axis=c.axis(which, x.rank), **options)


_running("CumSum", 11, 14)
_running("CumProd", 26)
