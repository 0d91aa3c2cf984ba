"""Overlapping pieces of a line, as a view: what turns a convolution along a line into a matrix product."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Value
from graphc.ir.scalar import Scalar
from graphc.ir.types import TensorType
from graphc.ops.batching import leading
from graphc.ops.elementwise import add, mul
from graphc.ops.gradient import by_operand, put
from graphc.ops.injective import iota, tensor_operand
from graphc.ops.spec import Kind, Layout, OpSpec, Reader, Sample, expect, register

__all__ = ["frames"]


def _count(length: int, size: int, step: int) -> int:
    return (length - size) // step + 1


def _frames_type(x: TensorType, *, size: int, step: int) -> TensorType:
    tensor_operand("frames", 0, x)
    expect(x.rank >= 1, f"frames: operand 0 is {x}, at least one axis is needed")
    expect(size >= 1 and step >= 1, f"frames: size {size} and step {step} must be positive")
    length = x.shape[-1]
    expect(
        not isinstance(length, int) or length >= size,
        f"frames: {x} is shorter along its last axis than one frame of {size}",
    )
    return x.with_shape((*x.shape[:-1], (length - size) // step + 1, size))


def _frames_compute(
    result: TensorType, readers: Sequence[Reader], index: Sequence[Scalar], *, size: int, step: int
) -> Scalar:
    *outer, frame, k = index
    return readers[0](*outer, frame * step + k)


def _frames_view(layout: Layout, result: TensorType, *, size: int, step: int) -> Layout:
    stride = layout.strides[-1]
    return Layout(layout.offset, result.static_shape, (*layout.strides[:-1], step * stride, stride))


def _frames_gradient(g: Value, x: Value, y: Value, *, size: int, step: int) -> Value:
    """Each frame added where it was taken from."""
    count = g.shape[-2]
    starts, places = (iota(shape=(count, size), axis=k, dtype=dtype_of("int64")) for k in (0, 1))
    return put(g, x.shape, add(mul(starts, step), places), x.rank - 1)


frames = register(
    OpSpec(
        name="frames",
        kind=Kind.INJECTIVE,
        summary="Pieces of `size` elements of the last axis, `step` apart: "
        "[..., L] to [..., (L - size) // step + 1, size].",
        infer=_frames_type,
        reference=lambda x, *, size, step: np.lib.stride_tricks.sliding_window_view(np.asarray(x), size, -1)[
            ..., ::step, :
        ],
        compute=_frames_compute,
        view=_frames_view,
        gradient=by_operand(_frames_gradient),
        batch=leading(),
        samples=lambda: [
            Sample((np.arange(22, dtype=np.float32).reshape(2, 11),), {"size": 4, "step": 2}),
            Sample((np.arange(7, dtype=np.int64),), {"size": 7, "step": 3}),
            Sample((np.arange(6, dtype=np.float64),), {"size": 1, "step": 1}),
        ],
    )
)
