"""Sequences and optionals.

A sequence whose elements are known one by one is taken apart while importing: picking, counting and joining its
elements need no sequence at run time. What remains runs on the host.

ONNX's SequenceEmpty states no rank, and neither do many files; graph types do. Such a sequence has the element type
`unranked`, and is known to be empty: it takes its element's type from the first value that is put into it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc import ops
from graphc.frontends.onnx.context import Context
from graphc.frontends.onnx.inputs import type_of
from graphc.frontends.onnx.operators._common import FLOAT32, INT64, reshape, to
from graphc.frontends.onnx.registry import importer
from graphc.frontends.onnx.unranked import is_unranked, unranked
from graphc.ir.dims import Dim
from graphc.ir.graph import Value, constant
from graphc.ir.types import OptionalType, SequenceType, TensorType
from graphc.ops import functions

__all__: list[str] = []


def _elements(sequence: Value) -> tuple[Value, ...] | None:
    """The elements of a sequence that was built one by one, None when they are not known."""
    if sequence.node.op.name == "sequence_construct":
        return sequence.node.inputs
    if sequence.node.op.name == "sequence_empty" or (
        isinstance(sequence.type, SequenceType) and is_unranked(sequence.type.element)
    ):
        return ()
    return None


def _build(c: Context, elements: Sequence[Value], like: Value) -> Value:
    if elements:
        return ops.sequence_construct(*elements)
    if not isinstance(like.type, SequenceType):
        c.invalid(f"{like.type} is no sequence")
    return ops.sequence_empty(element=like.type.element)


def _place(c: Context, position: Value | None, count: int, default: int) -> int | None:
    """A position that is known, counted from the front."""
    if position is None:
        return default
    known = c.known(position)
    if known is None or known.dtype == object:
        return None
    place = int(known.reshape(()).item())
    if not -count <= place <= count:
        c.invalid(f"position {place} is out of range for {count} elements")
    return place + count if place < 0 else place


@importer("SequenceEmpty", 11)
def sequence_empty(c: Context) -> Value:
    return ops.sequence_empty(element=unranked(c.dtype("dtype", FLOAT32)))


@importer("SequenceConstruct", 11)
def sequence_construct(c: Context, *items: Value) -> Value:
    return ops.sequence_construct(*items)


@importer("SequenceAt", 11)
def sequence_at(c: Context, sequence: Value, position: Value) -> Value:
    elements = _elements(sequence)
    if elements is not None:
        place = _place(c, position, len(elements), 0)
        if place is not None and place < len(elements):
            return elements[place]
    return ops.sequence_at(sequence, _position(position))


def _position(v: Value) -> Value:
    return reshape(to(v, INT64), ())


@importer("SequenceInsert", 11)
def sequence_insert(c: Context, sequence: Value, item: Value, position: Value | None = None) -> Value:
    elements = _elements(sequence)
    if elements is not None:
        place = _place(c, position, len(elements), len(elements))
        if place is not None:
            return ops.sequence_construct(*elements[:place], item, *elements[place:])
    return ops.sequence_insert(sequence, item, *([] if position is None else [_position(position)]))


@importer("SequenceErase", 11)
def sequence_erase(c: Context, sequence: Value, position: Value | None = None) -> Value:
    elements = _elements(sequence)
    if elements is not None:
        place = _place(c, position, len(elements), len(elements) - 1)
        if place is not None:
            return _build(c, elements[:place] + elements[place + 1 :], sequence)
    return ops.sequence_erase(sequence, *([] if position is None else [_position(position)]))


@importer("SequenceLength", 11)
def sequence_length(c: Context, sequence: Value) -> Value:
    elements = _elements(sequence)
    return ops.sequence_length(sequence) if elements is None else constant(np.int64(len(elements)))


@importer("ConcatFromSequence", 11)
def concat_from_sequence(c: Context, sequence: Value) -> Value:
    new_axis = c.flag("new_axis")
    elements = _elements(sequence)
    element = sequence.type.element if isinstance(sequence.type, SequenceType) else None
    if not isinstance(element, TensorType):
        c.invalid(f"{sequence.type} is no sequence of tensors")
    axis = c.axis(c.int("axis"), element.rank + new_axis)
    if elements:
        parts = [functions.unsqueeze(v, (axis,)) for v in elements] if new_axis else elements
        return parts[0] if len(parts) == 1 else ops.concat(*parts, axis=axis)
    return ops.concat_from_sequence(sequence, axis=axis, **({"new_axis": True} if new_axis else {}))


@importer("SplitToSequence", 11, 24)
def split_to_sequence(c: Context, x: Value, sizes: Value | None = None) -> Value:
    axis = c.axis(c.int("axis", 0), x.rank)
    keep = c.flag("keepdims", True) or sizes is not None
    known = np.array(1) if sizes is None else c.known(sizes)
    extent = x.shape[axis]
    if known is not None and known.dtype != object and not isinstance(extent, Dim) and extent:
        if known.ndim == 0:
            step = int(known)
            if step < 1:
                c.invalid(f"parts of {step} elements")
            lengths = [min(step, extent - start) for start in range(0, extent, step)]
        else:
            lengths = known.tolist()
        parts = functions.split(x, lengths, axis)
        return ops.sequence_construct(*(parts if keep else (functions.squeeze(p, (axis,)) for p in parts)))
    options = {} if keep else {"keepdims": False}
    return ops.split_to_sequence(x, *([] if sizes is None else [to(sizes, INT64)]), axis=axis, **options)


@importer("Optional", 15, 28)
def optional(c: Context, value: Value | None = None) -> Value:
    declared = c.type_proto("type")
    if value is not None:
        return ops.optional(value)
    if declared is None:
        c.invalid("it has neither a value nor a type")
    t = type_of(declared, f"node {c.name!r} (Optional)")
    return ops.optional(element=t.element if isinstance(t, OptionalType) else t)


@importer("OptionalHasElement", 15, 18, 28)
def optional_has_element(c: Context, value: Value | None = None) -> Value:
    if value is None:
        return constant(np.False_)
    if not isinstance(value.type, OptionalType):
        return constant(np.True_)
    if value.node.op.name == "optional":
        return constant(np.bool_(len(value.node.inputs) > 0))
    return ops.optional_has_element(value)


@importer("OptionalGetElement", 15, 18, 28)
def optional_get_element(c: Context, value: Value) -> Value:
    if not isinstance(value.type, OptionalType):
        return value
    if value.node.op.name == "optional" and value.node.inputs:
        return value.node.inputs[0]
    return ops.optional_get_element(value)
