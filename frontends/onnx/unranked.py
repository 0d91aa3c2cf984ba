"""The element type of a sequence that states no rank: a tensor of one dimension that is called so."""

from __future__ import annotations

from graphc.ir.dims import Dim
from graphc.ir.dtypes import DType
from graphc.ir.types import SequenceType, TensorType, Type

__all__ = ["is_unranked", "unranked"]

_EXTENT = Dim("unranked")


def unranked(dtype: DType) -> TensorType:
    """The element type of an empty sequence of which only the element type's name is known."""
    return TensorType(dtype, (_EXTENT,))


def is_unranked(t: Type) -> bool:
    """Whether this is `unranked`, or a sequence of it."""
    if isinstance(t, SequenceType):
        t = t.element
    return isinstance(t, TensorType) and t.shape == (_EXTENT,)
