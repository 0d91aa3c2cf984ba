"""Specialise a graph to concrete sizes: symbolic dimensions become numbers, everywhere at once.

Every node is made again, so type inference runs on the numbers and whatever symbolic arithmetic was left in types
and attributes is gone. Kernels are generated from specialised graphs only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphc.ir.dims import Dim, substitute
from graphc.ir.graph import Graph, Node, Value, make, rebuild, remake
from graphc.ir.types import OptionalType, SequenceType, TensorType, substitute_type

__all__ = ["specialise"]


def specialise(graph: Graph, sizes: Mapping[str, int]) -> Graph:
    """The graph with every symbol that `sizes` names replaced by its number, bodies included.

    Raises GraphTypeError when an operation cannot work with these sizes; the message names the node.
    """
    if not sizes:
        return graph

    def transform(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        attrs = {k: _in_attribute(v, sizes) for k, v in node.attrs.items()}
        changed = any(attrs[k] is not v for k, v in node.attrs.items())
        return make(node.op, *inputs, **attrs) if changed else remake(node, inputs)

    return rebuild(graph, transform)


def _in_attribute(value: Any, sizes: Mapping[str, int]) -> Any:
    """The attribute with symbols replaced; the very same object when it has none."""
    match value:
        case Dim():
            return substitute(value, sizes)
        case TensorType() | SequenceType() | OptionalType():
            new = substitute_type(value, sizes)
            return value if new == value else new
        case Graph():
            return specialise(value, sizes)
        case tuple():
            items = tuple(_in_attribute(v, sizes) for v in value)
            return value if all(a is b for a, b in zip(items, value, strict=True)) else items
    return value
