"""Writing updates into a copy of a tensor, at places that another tensor gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.ir.dims import DimLike, product
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Node, Value, make
from graphc.ir.types import TensorType
from graphc.ops.batching import lead, next_axis, with_case
from graphc.ops.elementwise import cast, div, eq, mul, select, sub
from graphc.ops.gradient import zeros
from graphc.ops.injective import iota, reshape, tensor_operand, wrapped_indices
from graphc.ops.reduce import accumulator, like
from graphc.ops.spec import Kind, OpSpec, Sample, expect, register

__all__ = ["scatter_elements", "scatter_nd"]

_INT64 = dtype_of("int64")
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


# ------------------------------------------------------------------------------------------------------ gradients


def _gradient(node: Node, cotangents: tuple[Value | None, ...], wanted: tuple[bool, ...]) -> Sequence[Value | None]:
    """Both operands read the result's cotangent where the result shows them; `reduction` says how much of it."""
    (x, indices, updates), (y,), (g,) = node.inputs, node.outputs, cotangents
    assert g is not None

    def write(data: Value, values: Value, how: str) -> Value:
        return make(node.op, data, indices, values, **{**node.attrs, "reduction": how})[0]

    def read(data: Value) -> Value:
        """What stands where each update went."""
        if node.op.name == "scatter_nd":
            return ops.gather_nd(data, indices)
        return ops.gather_elements(data, indices, axis=node.attrs["axis"])

    for_x: Value | None = None
    for_updates: Value | None = None
    match node.attrs.get("reduction", "none"):
        case "add":
            for_x, for_updates = g, read(g) if wanted[2] else None
        case "none":
            for_x = write(g, zeros(updates.shape, g), "none") if wanted[0] else None
            for_updates = ops.select(_remains(node), read(g), 0.0) if wanted[2] else None
        case "mul":
            for_x = write(g, updates, "mul") if wanted[0] else None
            for_updates = _factor_gradient(mul(g, x), updates, read, write) if wanted[2] else None
        case _:  # max, min: all that are equal to the result take the same part
            shown_x, shown_updates = eq(x, y), eq(updates, read(y))
            count = write(cast(shown_x, dtype=x.dtype), cast(shown_updates, dtype=x.dtype), "add")
            part = div(g, count)
            for_x = select(shown_x, part, 0.0) if wanted[0] else None
            for_updates = select(shown_updates, read(part), 0.0) if wanted[2] else None
    return [for_x, None, for_updates]


def _remains(node: Node) -> Value:
    """Whether each update is still to be seen at the end: of several at one place the last one is."""
    x, indices, updates = node.inputs
    if node.op.name == "scatter_elements":
        number = reshape(iota(shape=(product(indices.shape),), axis=0, dtype=_INT64), shape=indices.shape)
        board = make(node.op, zeros(x.shape, number), indices, number, axis=node.attrs["axis"])[0]
        return eq(ops.gather_elements(board, indices, axis=node.attrs["axis"]), number)
    outer, depth = indices.shape[:-1], indices.shape[-1]
    number = reshape(iota(shape=(product(outer),), axis=0, dtype=_INT64), shape=outer)
    board = make(node.op, zeros(x.shape[:depth], number), indices, number)[0]
    last = reshape(eq(ops.gather_nd(board, indices), number), shape=(*outer, *(1 for _ in updates.shape[len(outer) :])))
    return ops.broadcast_to(last, shape=updates.shape)


def _factor_gradient(
    scaled: Value, updates: Value, read: Callable[[Value], Value], write: Callable[[Value, Value, str], Value]
) -> Value:
    """`scaled` times the other updates at each update's place, right where some of them are 0 too.

    Division takes an update out of the product of all that are not 0. The zeros are counted, and added up: the sum of
    one zero is that very factor, which has its derivative.
    """
    is_zero = eq(updates, 0.0)
    nonzero = select(is_zero, 1.0, updates)
    others = div(read(write(scaled, nonzero, "mul")), nonzero)
    nothing = zeros(scaled.shape, scaled)
    count, factor = cast(is_zero, dtype=updates.dtype), select(is_zero, updates, 0.0)
    count, factor = (sub(read(write(nothing, v, "add")), v) for v in (count, factor))
    return mul(others, select(eq(count, 0.0), 1.0, select(eq(count, 1.0), factor, 0.0)))


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
        writes_strided=True,
        summary="x with x[i with i[axis] = indices[i]] set to, or combined with, updates[i], in order.",
        infer=_scatter_elements_type,
        reference=_scatter_elements_reference,
        gradient=_gradient,
        batch=next_axis,
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


def _scatter_nd_batch(
    node: Node, operands: tuple[Value, ...], batched: tuple[bool, ...], size: DimLike
) -> Sequence[Value]:
    """One scatter into all cases: the case is the first coordinate."""
    x, indices, updates = (lead(v, size, b) for v, b in zip(operands, batched, strict=True))
    return make(node.op, x, with_case(indices), updates, **node.attrs)


scatter_nd = register(
    OpSpec(
        name="scatter_nd",
        kind=Kind.ANCHOR,
        template="scatter",
        writes_strided=True,
        summary=(
            "x with the slices at the coordinates in the last axis of the indices set to, or combined with, updates."
        ),
        infer=_scatter_nd_type,
        reference=_scatter_nd_reference,
        gradient=_gradient,
        batch=_scatter_nd_batch,
        samples=_scatter_nd_samples,
    )
)
