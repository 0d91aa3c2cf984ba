"""Functions under NumPy's names and with its arguments, where the standard has others (or none) for the same thing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.frontends.python.array_api import dtypes, elementwise, manipulation, statistical
from graphc.frontends.python.array_api.operands import operand
from graphc.frontends.python.functions import Array, array_function

__all__ = ["absolute", "concatenate", "cumprod", "cumsum", "power", "transpose"]

absolute = elementwise.abs
power = elementwise.pow


@array_function
def concatenate(arrays: Sequence[Array], axis: int | None = 0, *, dtype: Any = None) -> Array:
    """The standard's `concat`."""
    joined = manipulation.concat(arrays, axis=axis)
    return joined if dtype is None else dtypes.astype(joined, dtype)


@array_function
def transpose(a: Array, axes: Sequence[int] | None = None) -> Array:
    """The standard's `permute_dims`; without `axes` the order is turned round."""
    order = tuple(reversed(range(operand("transpose", a).rank))) if axes is None else tuple(axes)
    return manipulation.permute_dims(a, order)


@array_function
def cumsum(a: Array, axis: int | None = None, dtype: Any = None) -> Array:
    """The standard's `cumulative_sum`; without `axis` of the flattened array."""
    line = manipulation.ravel(a) if axis is None else a
    return statistical.cumulative_sum(line, axis=axis or 0, dtype=dtype)


@array_function
def cumprod(a: Array, axis: int | None = None, dtype: Any = None) -> Array:
    """The standard's `cumulative_prod`; without `axis` of the flattened array."""
    line = manipulation.ravel(a) if axis is None else a
    return statistical.cumulative_prod(line, axis=axis or 0, dtype=dtype)
