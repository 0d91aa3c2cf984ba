"""Sorting and selecting the extremes, with the places they came from. NaN counts as larger than every number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import ml_dtypes
import numpy as np

from graphc.ir.dims import DimLike
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Node, Value
from graphc.ir.types import TensorType
from graphc.ops.batching import next_axis
from graphc.ops.gradient import zeros
from graphc.ops.injective import tensor_operand
from graphc.ops.reduce import accumulator
from graphc.ops.scatter import scatter_elements
from graphc.ops.spec import Kind, OpSpec, Sample, expect, register

__all__ = ["sort", "top_k"]

INT64 = dtype_of("int64")
_TABLE = np.array([[3, 1, 2, 1, 0], [-1, 5, 5, -2, 4]], np.float32)


def _check(name: str, x: TensorType, axis: int) -> None:
    tensor_operand(name, 0, x)
    expect(
        x.dtype.kind in ("float", "int", "uint", "bool"),
        f"{name}: the operand is {x}; {name} takes float int uint bool types",
    )
    expect(0 <= axis < x.rank, f"{name}: axis {axis} does not exist in {x}")


def _order(x: np.ndarray, axis: int, descending: bool) -> np.ndarray:
    """The places of the elements in order; equals keep their order in both directions."""
    keys = accumulator(np.asarray(x))
    if not descending:
        return np.argsort(keys, axis, kind="stable")
    backwards = np.argsort(np.flip(keys, axis), axis, kind="stable")
    return np.flip(keys.shape[axis] - 1 - backwards, axis)


def _gradient(node: Node, cotangents: tuple[Value | None, ...], wanted: tuple[bool, ...]) -> Sequence[Value | None]:
    """Each value's cotangent goes back to the place it came from."""
    (x,), (_, places), (g, _) = node.inputs, node.outputs, cotangents
    if g is None:
        return [None]
    return [scatter_elements(zeros(x.shape, x), places, g, axis=node.attrs["axis"], reduction="add")]


def _sort_type(x: TensorType, *, axis: int, descending: bool = False) -> tuple[TensorType, TensorType]:
    _check("sort", x, axis)
    return x, x.with_dtype(INT64)


def _sort_reference(x: np.ndarray, *, axis: int, descending: bool = False) -> tuple[np.ndarray, np.ndarray]:
    places = _order(x, axis, descending)
    return np.take_along_axis(np.asarray(x), places, axis), places.astype(np.int64)


def _sort_samples() -> Iterable[Sample]:
    for descending in (False, True):
        for axis in (0, 1):
            yield Sample((_TABLE,), {"axis": axis, "descending": descending})
        yield Sample((np.array([2, np.nan, -np.inf, np.inf, 0], np.float32),), {"axis": 0, "descending": descending})
        yield Sample((_TABLE.astype(np.int16),), {"axis": 1, "descending": descending})
    yield Sample((_TABLE.astype(ml_dtypes.bfloat16),), {"axis": 1})
    yield Sample((np.zeros((0, 3), np.int64),), {"axis": 0})


sort = register(
    OpSpec(
        name="sort",
        kind=Kind.ANCHOR,
        template="sort",
        summary="The elements along `axis` in order, and where each one was; stable.",
        infer=_sort_type,
        reference=_sort_reference,
        gradient=_gradient,
        batch=next_axis,
        samples=_sort_samples,
    )
)


def _top_k_type(x: TensorType, *, k: DimLike, axis: int, largest: bool = True) -> tuple[TensorType, TensorType]:
    _check("top_k", x, axis)
    extent = x.shape[axis]
    expect(
        not (isinstance(k, int) and isinstance(extent, int)) or 0 <= k <= extent,
        f"top_k: k is {k}, axis {axis} of {x} has {extent} elements",
    )
    values = x.with_shape(tuple(k if a == axis else d for a, d in enumerate(x.shape)))
    return values, values.with_dtype(INT64)


def _top_k_reference(x: np.ndarray, *, k: int, axis: int, largest: bool = True) -> tuple[np.ndarray, np.ndarray]:
    places = np.take(_order(x, axis, largest), range(k), axis)
    return np.take_along_axis(np.asarray(x), places, axis), places.astype(np.int64)


def _top_k_samples() -> Iterable[Sample]:
    for largest in (True, False):
        yield Sample((_TABLE,), {"k": 3, "axis": 1, "largest": largest})
        yield Sample((_TABLE,), {"k": 1, "axis": 0, "largest": largest})
        yield Sample((_TABLE.astype(np.int64),), {"k": 5, "axis": 1, "largest": largest})
    yield Sample((_TABLE,), {"k": 0, "axis": 1})
    yield Sample((np.array([1, np.nan, 3], np.float64),), {"k": 2, "axis": 0})


top_k = register(
    OpSpec(
        name="top_k",
        kind=Kind.ANCHOR,
        template="sort",
        summary=(
            "The k largest (or smallest) elements along `axis` in order, and where they were; of equals the first wins."
        ),
        infer=_top_k_type,
        reference=_top_k_reference,
        gradient=_gradient,
        batch=next_axis,
        samples=_top_k_samples,
    )
)
