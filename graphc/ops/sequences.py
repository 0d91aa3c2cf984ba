"""Sequences and optionals: lists of tensors, and values that may be absent. They live on the host."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Any

import numpy as np

from graphc.ir.dims import DimLike, fresh_symbol
from graphc.ir.dtypes import dtype_of
from graphc.ir.types import OptionalType, SequenceType, TensorType, Type, tensor
from graphc.ops.host import host_op
from graphc.ops.injective import tensor_operand
from graphc.ops.spec import Sample, expect
from graphc.ops.typing import join

__all__ = [
    "concat_from_sequence", "optional", "optional_get_element", "optional_has_element", "sequence_at",
    "sequence_construct", "sequence_empty", "sequence_erase", "sequence_insert", "sequence_length",
    "split_to_sequence",
]  # fmt: skip

INT64, BOOL = dtype_of("int64"), dtype_of("bool")
LISTS = "gradients do not go through sequences"

_A, _B = np.arange(3, dtype=np.float32), np.arange(4, dtype=np.float32)
_LIST: Any = [_A, _B]


def _sequence(name: str, t: Type) -> SequenceType:
    expect(isinstance(t, SequenceType), f"{name}: operand 0 is {t}, a sequence is needed")
    return t  # type: ignore[return-value]


def _position(name: str, k: int, t: Type) -> None:
    expect(
        isinstance(t, TensorType) and t.dtype.is_integer and t.rank == 0,
        f"{name}: operand {k} is {t}, an integer of rank 0 is needed",
    )


def _at(items: list[Any], position: np.ndarray | np.int64, what: str, *, end: bool = False) -> int:
    """A position counted from the front; `end` allows the place after the last element."""
    k, count = int(position), len(items)
    if not -count <= k < count + end:
        raise IndexError(f"{what}: position {k} in a sequence of {count}")
    return k + count if k < 0 else k


# ---------------------------------------------------------------------------------------------------------- sequences


def _construct_type(*types: Type) -> SequenceType:
    expect(len(types) > 0, "sequence_construct: there is no operand; sequence_empty makes an empty sequence")
    return SequenceType(reduce(lambda a, b: join(a, b, "sequence_construct"), types))


sequence_construct = host_op(
    "sequence_construct",
    "A sequence of the operands.",
    _construct_type,
    lambda *items: list(items),
    lambda: [Sample((_A, _B)), Sample((_A,))],
    no_gradient=LISTS,
)


def _empty_type(*, element: Type) -> SequenceType:
    return SequenceType(element)


sequence_empty = host_op(
    "sequence_empty",
    "A sequence without elements, to hold elements of the type `element`.",
    _empty_type,
    lambda *, element: [],
    lambda: [Sample((), {"element": tensor("float32", 2)})],
    no_gradient=LISTS,
)


def _at_type(sequence: Type, position: Type) -> Type:
    _position("sequence_at", 1, position)
    return _fresh(_sequence("sequence_at", sequence).element)


def _fresh(t: Type) -> Type:
    """The type of one element: where the sequence's elements differ, this one's extents are its own."""
    if isinstance(t, TensorType):
        return t.with_shape(tuple(d if isinstance(d, int) else fresh_symbol() for d in t.shape))
    return type(t)(_fresh(t.element))


sequence_at = host_op(
    "sequence_at",
    "The element at a position; negative ones count from the end.",
    _at_type,
    lambda items, position: items[_at(items, position, "sequence_at")],
    lambda: [Sample((_LIST, np.int64(1))), Sample((_LIST, np.int32(-2)))],
    no_gradient=LISTS,
)


def _insert_type(sequence: Type, item: Type, *position: Type) -> SequenceType:
    expect(len(position) <= 1, f"sequence_insert: {len(position)} positions, at most one is needed")
    for t in position:
        _position("sequence_insert", 2, t)
    return SequenceType(join(_sequence("sequence_insert", sequence).element, item, "sequence_insert"))


def _insert_reference(items: list[Any], item: Any, *position: np.ndarray) -> list[Any]:
    k = _at(items, position[0], "sequence_insert", end=True) if position else len(items)
    return [*items[:k], item, *items[k:]]


sequence_insert = host_op(
    "sequence_insert",
    "The sequence with an element more before a position, at the end when none is given.",
    _insert_type,
    _insert_reference,
    lambda: [Sample((_LIST, _A)), Sample((_LIST, _B, np.int64(-1))), Sample((_LIST, _B, np.int64(2)))],
    no_gradient=LISTS,
)


def _erase_type(sequence: Type, *position: Type) -> SequenceType:
    for t in position:
        _position("sequence_erase", 1, t)
    return _sequence("sequence_erase", sequence)


def _erase_reference(items: list[Any], *position: np.ndarray) -> list[Any]:
    k = _at(items, position[0] if position else np.int64(-1), "sequence_erase")
    return [*items[:k], *items[k + 1 :]]


sequence_erase = host_op(
    "sequence_erase",
    "The sequence without the element at a position, the last when none is given.",
    _erase_type,
    _erase_reference,
    lambda: [Sample((_LIST,)), Sample((_LIST, np.int64(0)))],
    no_gradient=LISTS,
)


def _length_type(sequence: Type) -> TensorType:
    _sequence("sequence_length", sequence)
    return tensor(INT64)


sequence_length = host_op(
    "sequence_length",
    "How many elements the sequence has.",
    _length_type,
    lambda items: np.int64(len(items)),
    lambda: [Sample((_LIST,))],
    no_gradient=LISTS,
)


def _split_type(x: Type, *sizes: Type, axis: int, keepdims: bool = True) -> SequenceType:
    t = tensor_operand("split_to_sequence", 0, x)
    expect(0 <= axis < t.rank, f"split_to_sequence: axis {axis} does not exist in {t}")
    expect(
        len(sizes) <= 1 and all(isinstance(v, TensorType) and v.dtype.is_integer and v.rank <= 1 for v in sizes),
        f"split_to_sequence: the sizes are {', '.join(map(str, sizes))}; an integer or a vector of them is needed",
    )
    piece: DimLike = fresh_symbol() if sizes else 1
    kept = tuple(piece if k == axis else d for k, d in enumerate(t.shape))
    return SequenceType(t.with_shape(kept if keepdims or sizes else kept[:axis] + kept[axis + 1 :]))


def _split_reference(x: np.ndarray, *sizes: np.ndarray, axis: int, keepdims: bool = True) -> list[np.ndarray]:
    x = np.asarray(x)
    extent = x.shape[axis]
    size = np.asarray(sizes[0]) if sizes else np.array(1)
    if size.ndim:
        pieces = np.split(x, np.cumsum(size)[:-1], axis)
    else:
        pieces = np.split(x, np.arange(int(size), extent, int(size)), axis) if extent else []
    return [p.squeeze(axis) for p in pieces] if not keepdims and not sizes else pieces


split_to_sequence = host_op(
    "split_to_sequence",
    (
        "Pieces of x along `axis`: of the sizes given, of one size given, or of 1 each, then without the axis "
        "unless `keepdims`."
    ),
    _split_type,
    _split_reference,
    lambda: [
        Sample((np.arange(10).reshape(2, 5),), {"axis": 1}),
        Sample((np.arange(10).reshape(2, 5),), {"axis": 1, "keepdims": False}),
        Sample((np.arange(10).reshape(2, 5), np.int64(2)), {"axis": 1}),
        Sample((np.arange(10).reshape(2, 5), np.array([4, 1])), {"axis": 1}),
        Sample((np.arange(0), np.array([0, 0, 0])), {"axis": 0}),
    ],
    no_gradient=LISTS,
)


def _concat_type(sequence: Type, *, axis: int, new_axis: bool = False) -> TensorType:
    t = tensor_operand("concat_from_sequence", 0, _sequence("concat_from_sequence", sequence).element)
    rank = t.rank + new_axis
    expect(0 <= axis < rank, f"concat_from_sequence: axis {axis} does not exist in a result of rank {rank}")
    shape = list(_fresh(t).shape)  # type: ignore[union-attr]
    if new_axis:
        shape.insert(axis, fresh_symbol())
    else:
        shape[axis] = fresh_symbol()
    return t.with_shape(tuple(shape))


concat_from_sequence = host_op(
    "concat_from_sequence",
    "The elements one after the other along `axis`, or stacked on a new one.",
    _concat_type,
    lambda items, *, axis, new_axis=False: (np.stack if new_axis else np.concatenate)(items, axis),
    lambda: [Sample((_LIST,), {"axis": 0}), Sample(([_A, _A],), {"axis": 1, "new_axis": True})],
    no_gradient=LISTS,
)

# ---------------------------------------------------------------------------------------------------------- optionals


def _optional_type(*value: Type, element: Type | None = None) -> OptionalType:
    expect(len(value) == (element is None), "optional: either a value or, for an empty one, an element type is needed")
    return OptionalType(value[0] if value else element)  # type: ignore[arg-type]


optional = host_op(
    "optional",
    "The operand as an optional; without one an empty optional of the type `element`.",
    _optional_type,
    lambda *value, element=None: value[0] if value else None,
    lambda: [Sample((_A,)), Sample((), {"element": tensor("float32", 2)})],
    no_gradient=LISTS,
)


def _has_type(*value: Type) -> TensorType:
    return tensor(BOOL)


optional_has_element = host_op(
    "optional_has_element",
    "Whether the optional holds a value; anything that is no optional does, no operand does not.",
    _has_type,
    lambda *value: np.bool_(len(value) > 0 and value[0] is not None),
    lambda: [Sample((_A,)), Sample(())],
    no_gradient=LISTS,
)


def _get_type(value: Type) -> Type:
    return value.element if isinstance(value, OptionalType) else value


def _get_reference(value: Any) -> Any:
    if value is None:
        raise ValueError("optional_get_element: the optional is empty")
    return value


def _get_samples() -> Iterable[Sample]:
    yield Sample((_A,))
    yield Sample((_LIST,))


optional_get_element = host_op(
    "optional_get_element",
    "The value that an optional holds; an error when it is empty.",
    _get_type,
    _get_reference,
    _get_samples,
    no_gradient=LISTS,
)
