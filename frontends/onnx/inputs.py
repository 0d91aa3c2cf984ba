"""The types of a model's inputs and outputs: as declared in the file, as given by a caller, as arguments have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorShapeProto, TypeProto, ValueInfoProto

from graphc.errors import InputError, ModelError, UnsupportedError, UnsupportedItem
from graphc.frontends.onnx.loader import OnnxModel
from graphc.frontends.onnx.tensors import element_type
from graphc.frontends.onnx.unranked import unranked
from graphc.ir.dims import Dim, DimLike, Symbol, fresh_symbol
from graphc.ir.types import OptionalType, SequenceType, TensorType, Type

__all__ = ["argument_type", "input_types", "signature", "type_of"]


def input_types(model: OnnxModel, shapes: Mapping[str, Any] | None = None) -> dict[str, Type]:
    """The types of the model's inputs, in the file's order.

    `shapes` gives inputs a shape (ints or dimensions) or a whole type; other inputs take the file's, where named
    dimensions become symbols and nameless ones get a name. Initializers are constants and no inputs, unless `shapes`
    names one. Raises InputError, naming the input, for an unknown name or a shape that does not fit the file's.
    """
    shapes = shapes or {}
    graph = model.proto.graph
    constants = {t.name for t in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    declared = {v.name: v for v in graph.input if v.name not in constants or v.name in shapes}
    unknown = [n for n in shapes if n not in declared]
    if unknown:
        raise InputError(
            f"the model has no input {unknown[0]!r}; its inputs are {', '.join(map(repr, declared)) or 'none'}"
        )
    symbols: dict[str, DimLike] = {}
    for name, given in shapes.items():
        if not isinstance(given, TensorType | SequenceType | OptionalType):
            _bind(declared[name], tuple(given), symbols)
    return {name: _input_type(v, shapes.get(name), symbols) for name, v in declared.items()}


def _bind(info: ValueInfoProto, shape: Sequence[DimLike], symbols: dict[str, DimLike]) -> None:
    """Remember the sizes that a given shape tells of named dimensions, for inputs without a given shape."""
    for dim, size in zip(info.type.tensor_type.shape.dim, shape, strict=False):
        if _is_named(dim.dim_param):
            symbols.setdefault(dim.dim_param, size)


def _is_named(text: str) -> bool:
    return isinstance(text, str) and text not in ("", "?", "-1")


def _input_type(info: ValueInfoProto, given: Any, symbols: dict[str, DimLike]) -> Type:
    if isinstance(given, TensorType | SequenceType | OptionalType):
        return given
    t = info.type
    if not t.HasField("tensor_type"):
        return _declared_type(t, f"input {info.name!r}", symbols, info.name)
    dtype = element_type(t.tensor_type.elem_type, f"input {info.name!r}")
    if given is None:
        return _declared_type(t, f"input {info.name!r}", symbols, info.name)
    shape = tuple(given)
    dims = t.tensor_type.shape.dim
    if t.tensor_type.HasField("shape"):
        expected = [d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else (d.dim_param or "?") for d in dims]
        fits = len(shape) == len(dims) and all(
            not isinstance(e, int) or not isinstance(s, int) or e == s for e, s in zip(expected, shape, strict=True)
        )
        if not fits:
            raise InputError(
                f"input {info.name!r} was given the shape {list(shape)}; "
                f"the model expects {dtype}[{', '.join(map(str, expected))}]"
            )
    return TensorType(dtype, shape)


def _declared_type(t: TypeProto, what: str, symbols: dict[str, DimLike], prefix: str, inside: bool = False) -> Type:
    """The type that the file states; dimensions it leaves open become symbols."""
    if t.HasField("tensor_type"):
        if not t.tensor_type.HasField("shape"):
            if inside:
                return unranked(element_type(t.tensor_type.elem_type, what))
            raise InputError(f"{what} has no shape in the file, not even a rank; give its shape")
        dims = [_dimension(d, symbols, f"{prefix}_{k}") for k, d in enumerate(t.tensor_type.shape.dim)]
        return TensorType(element_type(t.tensor_type.elem_type, what), tuple(dims))
    if t.HasField("sequence_type"):
        return SequenceType(_declared_type(t.sequence_type.elem_type, what, symbols, prefix, inside=True))
    if t.HasField("optional_type"):
        return OptionalType(_declared_type(t.optional_type.elem_type, what, symbols, prefix, inside=True))
    raise UnsupportedError([UnsupportedItem("input", what, f"its type is {t.WhichOneof('value') or 'missing'}")])


def type_of(proto: TypeProto, what: str) -> Type:
    """A type that an attribute states; the shapes of sequences' elements may be missing (see `unranked`)."""
    return _declared_type(proto, what, {}, "d", inside=True)


def _dimension(dim: TensorShapeProto.Dimension, symbols: dict[str, DimLike], fallback: str) -> DimLike:
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return int(dim.dim_value)
    if not _is_named(dim.dim_param):
        return Dim(Symbol(_identifier(fallback)))
    return symbols.setdefault(dim.dim_param, Dim(Symbol(_identifier(dim.dim_param))))


def _identifier(text: str) -> str:
    """A symbol's name that the text form can read back."""
    name = "".join(ch if ch.isascii() and (ch.isalnum() or ch == "_") else "_" for ch in text)
    return name if name[:1].isalpha() else f"d{name}"


def signature(model: OnnxModel) -> tuple[list[tuple[str, Type]], list[tuple[str, Type | None]]]:
    """The inputs and outputs as the file declares them, with names: what a caller sees before anything is imported.

    An output's type is None where the file does not state it.
    """
    symbols: dict[str, DimLike] = {}
    outputs: list[tuple[str, Type | None]] = []
    inputs = list(input_types(model).items())
    for v in model.proto.graph.output:
        try:
            outputs.append((v.name, _declared_type(v.type, f"output {v.name!r}", symbols, v.name)))
        except (InputError, UnsupportedError, ModelError):
            outputs.append((v.name, None))
    return inputs, outputs


def argument_type(argument: Any, declared: Type) -> Type:
    """The type of an argument for an input that is declared as `declared`: of an array, a list (sequence) or None.

    The elements of a list may differ in shape; where they do, the dimension is a symbol.
    """
    match declared:
        case TensorType():
            return TensorType(declared.dtype, np.shape(argument))
        case OptionalType():
            return declared if argument is None else OptionalType(argument_type(argument, declared.element))
        case _ if not argument:
            element = declared.element
            return SequenceType(unranked(element.dtype)) if isinstance(element, TensorType) else declared
    elements = [argument_type(a, declared.element) for a in argument]
    first = elements[0]
    if any(not isinstance(e, TensorType) or e.rank != first.rank for e in elements):  # type: ignore[union-attr]
        return SequenceType(first)
    shapes = zip(*(e.shape for e in elements), strict=True)  # type: ignore[union-attr]
    dims = tuple(sizes[0] if len(set(sizes)) == 1 else fresh_symbol("n") for sizes in shapes)
    return SequenceType(TensorType(first.dtype, dims))  # type: ignore[union-attr]
