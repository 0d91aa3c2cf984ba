"""`after`: a value that is not used before other values are there.

Interning makes equal computations one, which is what recomputation must avoid: a value computed a second time to save
memory would be merged with the first one and stay alive. Computed from `after(x, token)` it is another computation,
and it cannot begin before the token is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from graphc.errors import GraphTypeError
from graphc.ir.graph import Node, Value
from graphc.ir.types import TensorType, Type
from graphc.ops.batching import lead
from graphc.ops.spec import Kind, OpSpec, Sample, register

__all__ = ["after"]


def _after_type(x: Type, *tokens: Type) -> TensorType:
    for k, t in enumerate((x, *tokens)):
        if not isinstance(t, TensorType):
            raise GraphTypeError(f"after: operand {k} is {t}, a tensor is needed")
    assert isinstance(x, TensorType)
    return x


def _gradient(node: Node, cotangents: tuple[Value | None, ...], wanted: tuple[bool, ...]) -> Sequence[Value | None]:
    return [cotangents[0], *(None for _ in node.inputs[1:])]


def _samples() -> Iterable[Sample]:
    yield Sample((np.arange(6, dtype=np.float32).reshape(2, 3),))
    yield Sample((np.array([3, 1, 2]),))


after: OpSpec = register(
    OpSpec(
        name="after",
        kind=Kind.INJECTIVE,
        summary="The first operand, not before the others are computed; costs nothing. Recomputations begin with it.",
        infer=_after_type,
        reference=lambda x, *tokens: x,
        compute=lambda result, readers, index: readers[0](*index),
        view=lambda layout, result: layout,
        apart=True,
        gradient=_gradient,
        batch=lambda node, operands, batched, size: [after(lead(operands[0], size, batched[0]), *operands[1:])],
        samples=_samples,
    )
)
