"""Writing updates into a copy of a tensor, at places that another tensor gives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from graphc.ir.types import TensorType
from graphc.ops.injective import tensor_operand, wrapped_indices
from graphc.ops.reduce import accumulator, like
from graphc.ops.spec import Kind, OpSpec, Sample, expect, register

__all__ = ["scatter_elements", "scatter_nd"]

_AT = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _agree(a: object, b: object) -> bool:
    return a == b or not (isinstance(a, int) and isinstance(b, int))


def _check(name: str, x: TensorType, indices: TensorType, updates: TensorType, reduction: str) -> None:
    for k, t in enumerate((x, indices, updates)):
        tensor_operand(name, k, t)
    expect(indices.dtype.is_integer, f"{name}: the indices are {indices}, an integer type is needed")
    expect(
        updates.dtype == x.dtype, f"{name}: the updates are {updates} but the data is {x}; they need one element type"
    )
    expect(
        reduction == "none" or reduction in _AT, f"{name}: reduction is {reduction!r}; known are none, {', '.join(_AT)}"
    )
    expect(
        reduction == "none" or x.dtype.kind in ("float", "int", "uint"),
        f"{name}: {x.dtype} elements cannot be combined by {reduction}",
    )


def _write(x: np.ndarray, where: tuple[Any, ...], updates: np.ndarray, reduction: str) -> np.ndarray:
    if reduction == "none":
        result = x.copy()
        result[where] = updates
        return result
    result = accumulator(x).copy()
    _AT[reduction].at(result, where, accumulator(np.asarray(updates)))
    return like(result, x)


def _scatter_elements_type(
    x: TensorType, indices: TensorType, updates: TensorType, *, axis: int, reduction: str = "none"
) -> TensorType:
    _check("scatter_elements", x, indices, updates, reduction)
    expect(0 <= axis < x.rank, f"scatter_elements: axis {axis} does not exist in {x}")
    expect(
        indices.rank == updates.rank == x.rank and all(map(_agree, indices.shape, updates.shape)),
        f"scatter_elements: indices {indices} and updates {updates} need one shape, of the rank of {x}",
    )
    return x


def _scatter_elements_reference(
    x: np.ndarray, indices: np.ndarray, updates: np.ndarray, *, axis: int, reduction: str = "none"
) -> np.ndarray:
    x, indices = np.asarray(x), np.asarray(indices)
    where: list[np.ndarray] = [*np.indices(indices.shape)]
    where[axis] = wrapped_indices(indices, x.shape[axis], "scatter_elements")
    return _write(x, tuple(where), updates, reduction)


_BOARD = np.arange(12, dtype=np.float32).reshape(3, 4)


def _scatter_elements_samples() -> Iterable[Sample]:
    indices = np.array([[1, 0, -1, 2], [0, 2, 0, 1]])
    updates = np.linspace(-3, 9, 8, dtype=np.float32).reshape(2, 4)
    for reduction in ("none", *_AT):
        yield Sample((_BOARD, indices, updates), {"axis": 0, "reduction": reduction})
    yield Sample(
        (_BOARD.astype(np.int32), indices.T[:3].astype(np.int32), updates.T[:3].astype(np.int32)),
        {"axis": 1, "reduction": "add"},
    )
    yield Sample((_BOARD.astype(np.float16), indices, updates.astype(np.float16)), {"axis": 0, "reduction": "add"})
    yield Sample((_BOARD, indices[:0], updates[:0]), {"axis": 0})


scatter_elements = register(
    OpSpec(
        name="scatter_elements",
        kind=Kind.ANCHOR,
        template="scatter",
        summary="x with x[i with i[axis] = indices[i]] set to, or combined with, updates[i], in order.",
        infer=_scatter_elements_type,
        reference=_scatter_elements_reference,
        samples=_scatter_elements_samples,
    )
)


def _scatter_nd_type(x: TensorType, indices: TensorType, updates: TensorType, *, reduction: str = "none") -> TensorType:
    _check("scatter_nd", x, indices, updates, reduction)
    expect(indices.rank >= 1, "scatter_nd: the indices have rank 0; their last axis must hold the coordinates")
    depth = indices.shape[-1]
    expect(
        isinstance(depth, int) and depth <= x.rank,
        f"scatter_nd: the indices {indices} hold {depth} coordinates, the data is {x}",
    )
    assert isinstance(depth, int)
    wanted = (*indices.shape[:-1], *x.shape[depth:])
    expect(
        len(wanted) == updates.rank and all(map(_agree, wanted, updates.shape)),
        f"scatter_nd: the updates are {updates}; data {x} and indices {indices} need the shape {list(wanted)}",
    )
    return x


def _scatter_nd_reference(
    x: np.ndarray, indices: np.ndarray, updates: np.ndarray, *, reduction: str = "none"
) -> np.ndarray:
    x, indices = np.asarray(x), np.asarray(indices)
    where = tuple(wrapped_indices(indices[..., k], x.shape[k], "scatter_nd") for k in range(indices.shape[-1]))
    return _write(x, where or (...,), updates, reduction)


def _scatter_nd_samples() -> Iterable[Sample]:
    rows = np.array([[2], [0], [2]])
    for reduction in ("none", *_AT):
        yield Sample((_BOARD, rows, np.linspace(-2, 3, 12, dtype=np.float32).reshape(3, 4)), {"reduction": reduction})
    yield Sample((_BOARD, np.array([[[0, 1]], [[-1, 3]]]), np.array([[7], [8]], np.float32)), {})
    yield Sample((np.arange(5), np.array([[1], [1], [3]], np.int32), np.array([10, 20, 30])), {"reduction": "add"})


scatter_nd = register(
    OpSpec(
        name="scatter_nd",
        kind=Kind.ANCHOR,
        template="scatter",
        summary=(
            "x with the slices at the coordinates in the last axis of the indices set to, or combined with, updates."
        ),
        infer=_scatter_nd_type,
        reference=_scatter_nd_reference,
        samples=_scatter_nd_samples,
    )
)
