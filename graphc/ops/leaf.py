"""Leaves: a graph's inputs and its constants."""

from __future__ import annotations

from graphc.ir.graph import Literal
from graphc.ir.types import TensorType
from graphc.ops.spec import Kind, OpSpec, register

input = register(
    OpSpec(
        name="input",
        kind=Kind.LEAF,
        summary="A value that the caller gives; `name` and `type` are its identity (for `level` see `input_value`).",
        infer=lambda *, name, type, level=0: type,  # noqa: A006
    )
)


def _constant_type(*, data: Literal) -> TensorType:
    return data.type


constant = register(
    OpSpec(
        name="constant",
        kind=Kind.LEAF,
        summary="An array known when the program is compiled; `data` is a Literal.",
        infer=_constant_type,
        reference=lambda *, data: data.array,
    )
)

__all__ = ["constant", "input"]
