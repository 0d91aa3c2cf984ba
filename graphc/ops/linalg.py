"""Matrix products."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import ml_dtypes
import numpy as np

from graphc.ir.dims import DimLike
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Node, Value
from graphc.ir.types import TensorType
from graphc.ops.batching import move_axis
from graphc.ops.gradient import by_operand
from graphc.ops.injective import reshape, tensor_operand, transpose
from graphc.ops.reduce import accumulator, like
from graphc.ops.spec import Kind, OpSpec, Sample, expect, register

__all__ = ["dot", "exact"]


def _dot_type(a: TensorType, b: TensorType) -> TensorType:
    tensor_operand("dot", 0, a)
    tensor_operand("dot", 1, b)
    expect(
        a.dtype == b.dtype and a.dtype.is_numeric, f"dot: the operands are {a} and {b}; both need the same numeric type"
    )
    expect(a.rank >= 2 and a.rank == b.rank, f"dot: the operands are {a} and {b}; both need the same rank, at least 2")
    pairs = [*zip(a.shape[:-2], b.shape[:-2], strict=True), (a.shape[-1], b.shape[-2])]
    expect(
        all(m == n or not (isinstance(m, int) and isinstance(n, int)) for m, n in pairs),
        f"dot: the operands are {a} and {b}; leading dimensions, and {a.shape[-1]} and {b.shape[-2]}, must agree",
    )
    batch = tuple(n if isinstance(n, int) else m for m, n in pairs[:-1])
    return a.with_shape((*batch, a.shape[-2], b.shape[-1]))


def exact(x: np.ndarray) -> np.ndarray:
    """Floats in float64, for references of contractions: the order of summation then hardly matters."""
    return x.astype(np.float64) if dtype_of(x).is_float else accumulator(x)


def _dot_reference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = np.asarray(a), np.asarray(b)
    with np.errstate(all="ignore"):
        return like(np.matmul(exact(a), exact(b)), a)


def _dot_samples() -> Iterable[Sample]:
    draw = np.random.default_rng(0).standard_normal
    for dtype in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16):
        yield Sample((draw((5, 7)).astype(dtype), draw((7, 3)).astype(dtype)))
    yield Sample((draw((2, 3, 4, 9)).astype(np.float32), draw((2, 3, 9, 17)).astype(np.float32)))
    yield Sample((draw((1, 33)).astype(np.float32), draw((33, 40)).astype(np.float32)))
    yield Sample(((10 * draw((4, 6))).astype(np.int32), (10 * draw((6, 5))).astype(np.int32)))
    yield Sample(((10 * draw((4, 6))).astype(np.int64), (10 * draw((6, 1))).astype(np.int64)))
    yield Sample((np.ones((3, 0), np.float32), np.ones((0, 2), np.float32)))
    yield Sample((np.ones((0, 4), np.float32), np.ones((4, 2), np.float32)))


def _transposed(x: Value) -> Value:
    """Each matrix transposed."""
    return transpose(x, perm=(*range(x.rank - 2), x.rank - 1, x.rank - 2))


def _dot_batch(node: Node, operands: tuple[Value, ...], batched: tuple[bool, ...], size: DimLike) -> Sequence[Value]:
    """Where one operand is the same in all cases they are rows, or columns, of one larger product."""
    a, b = operands
    if all(batched):
        return [dot(a, b)]
    if batched[0]:
        row = b.rank - 2
        a = move_axis(a, 0, row)
        folded = reshape(a, shape=(*a.shape[:row], size * a.shape[row + 1], a.shape[-1]))
        y = dot(folded, b)
        return [move_axis(reshape(y, shape=(*a.shape[:-1], y.shape[-1])), row, 0)]
    column = a.rank - 1
    b = move_axis(b, 0, column)
    folded = reshape(b, shape=(*b.shape[:column], size * b.shape[-1]))
    y = dot(a, folded)
    return [move_axis(reshape(y, shape=(*y.shape[:-1], size, b.shape[-1])), column, 0)]


dot: OpSpec = register(
    OpSpec(
        name="dot",
        kind=Kind.ANCHOR,
        template="contraction",
        summary="The matrix product a[..., M, K] b[..., K, N] of each pair of matrices; leading dimensions are equal.",
        infer=_dot_type,
        reference=_dot_reference,
        takes_epilogue=True,
        gradient=by_operand(
            lambda g, a, b, y: dot(g, _transposed(b)),
            lambda g, a, b, y: dot(_transposed(a), g),
        ),
        batch=_dot_batch,
        samples=_dot_samples,
    )
)
