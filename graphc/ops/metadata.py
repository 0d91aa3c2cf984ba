"""What a program can ask of a value's type while it runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir import scalar as s
from graphc.ir.dtypes import dtype_of
from graphc.ir.scalar import Scalar
from graphc.ir.types import TensorType
from graphc.ops.spec import Kind, OpSpec, Reader, Sample, expect, register

__all__ = ["shape_of"]

_INT64 = dtype_of("int64")


def _infer(x: TensorType) -> TensorType:
    expect(isinstance(x, TensorType), f"shape_of: the operand is {x}, a tensor is needed")
    return TensorType(_INT64, (x.rank,))


def _compute(result: TensorType, readers: Sequence[Reader], index: Sequence[Scalar]) -> Scalar:
    extents = [s.const(d, _INT64) for d in readers[0].type.static_shape]  # type: ignore[attr-defined]
    element = extents[-1]
    for k in reversed(range(len(extents) - 1)):
        element = s.select(index[0] < k + 1, extents[k], element)
    return element


shape_of = register(
    OpSpec(
        name="shape_of",
        kind=Kind.INJECTIVE,
        summary="The extents of x as int64: for dimensions that are symbolic when the graph is built.",
        infer=_infer,
        reference=lambda x: np.array(np.shape(x), np.int64),
        compute=_compute,
        no_gradient="it does not depend on the operand's elements",
        samples=lambda: [Sample((np.zeros((2, 3), np.float32),)), Sample((np.zeros((0, 1, 4), np.int64),))],
    )
)
