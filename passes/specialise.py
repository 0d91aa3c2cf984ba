"""Specialise a graph to concrete sizes: symbolic dimensions become numbers, everywhere at once.

Every node is made again, so type inference runs on the numbers and whatever symbolic arithmetic was left in types
and attributes is gone. Kernels are generated from specialised graphs only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphc.errors import InputError
from graphc.ir.dims import Dim, DimLike, substitute
from graphc.ir.graph import Graph, Node, Value, make, rebuild, remake
from graphc.ir.types import OptionalType, SequenceType, TensorType, Type, substitute_type

__all__ = ["bind_shapes", "specialise"]


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


def bind_shapes(graph: Graph, shapes: Sequence[Sequence[int]]) -> dict[str, int]:
    """The sizes that symbols take when the graph's inputs have these shapes, for `specialise`.

    Inputs that are not tensors take an empty shape and are skipped. Raises InputError, naming the input, when a rank
    or a fixed dimension differs or when two inputs give one symbol two sizes.
    """
    sizes: dict[str, int] = {}
    origin: dict[str, str] = {}
    computed: list[tuple[str, int, DimLike, int]] = []
    for value, shape in zip(graph.inputs, shapes, strict=True):
        name, t = value.node.attrs["name"], value.type
        if not isinstance(t, TensorType):
            continue
        if len(shape) != t.rank:
            raise InputError(f"input {name!r} has rank {len(shape)}, shape {tuple(shape)}; the model takes {t}")
        for axis, (wanted, given) in enumerate(zip(t.shape, shape, strict=True)):
            symbol = wanted.name if isinstance(wanted, Dim) else None
            if symbol is None:
                computed.append((name, axis, wanted, given))
            elif sizes.setdefault(symbol, given) != given:
                raise InputError(
                    f"input {name!r} has size {given} on axis {axis}, but {symbol} is {sizes[symbol]} on input {origin[symbol]!r}"
                )
            else:
                origin.setdefault(symbol, name)
    for name, axis, dim, given in computed:
        wanted = substitute(dim, sizes)
        if wanted != given:
            raise InputError(f"input {name!r} has size {given} on axis {axis}; the model takes {_type_of(graph, name)}, so {wanted} there")
    return sizes


def _type_of(graph: Graph, name: str) -> Type:
    return next(v.type for v in graph.inputs if v.node.attrs["name"] == name)
