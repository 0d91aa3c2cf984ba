"""What rules ask about values: is it a constant, the same number everywhere, does it vary along an axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from graphc.ir.dims import DimLike
from graphc.ir.graph import Node, Value
from graphc.ir.rewrite import Uses
from graphc.ir.types import TensorType

__all__ = ["constant_source", "is_tensor", "is_uniform", "needs", "size_of", "uniform", "varying_axes"]

#: larger constants are not searched for being uniform
SEARCHED_ELEMENTS = 4096

_uniform: WeakKeyDictionary[Node, Any] = WeakKeyDictionary()


def needs(test: Callable[[Node], bool], why: str) -> Callable[[Node, Uses], str | None]:
    """A rule's check from a predicate on the node and what to say when it does not hold."""
    return lambda node, uses: None if test(node) else why


def constant_source(v: Value) -> Value | None:
    """The constant that `v` is, under any broadcasts, reshapes and transposes; else None."""
    while v.node.op.name in ("broadcast_to", "reshape", "transpose"):
        v = v.node.inputs[0]
    return v if v.node.op.name == "constant" else None


def uniform(v: Value) -> Any:
    """The number that every element of a constant is (a Python or NumPy scalar), or None when they differ or are not known."""
    source = constant_source(v)
    if source is None:
        return None
    if source.node not in _uniform:
        data = source.literal
        assert data is not None
        result = None
        if 0 < data.size <= SEARCHED_ELEMENTS and data.dtype.kind != "O":
            first = data.flat[0]
            result = first if (data == first).all() else None
        _uniform[source.node] = result
    return _uniform[source.node]


def is_uniform(v: Value, number: float) -> bool:
    """Whether `v` is a constant with this number everywhere (0.0 and -0.0 are told apart only by name)."""
    found = uniform(v)
    return found is not None and bool(found == number)


def is_tensor(v: Value) -> bool:
    """Whether the value is a tensor whose dimensions are all known."""
    return isinstance(v.type, TensorType) and v.type.is_static


def size_of(shape: tuple[DimLike, ...]) -> int | None:
    """The number of elements, or None when a dimension is symbolic."""
    return math.prod(shape) if all(isinstance(d, int) for d in shape) else None  # type: ignore[arg-type]


def varying_axes(v: Value) -> frozenset[int] | None:
    """The axes along which a constant, seen through broadcasts and reshapes of unit axes, can vary; None if not a constant.

    `broadcast_to(constant[1, 64, 1, 1])` varies along axis 1 only.
    """
    if v.node.op.name == "constant":
        return frozenset(a for a, d in enumerate(v.shape) if d != 1)
    if constant_source(v) is None:
        return None
    if v.node.op.name == "broadcast_to":
        inner = v.node.inputs[0]
        below = varying_axes(inner)
        added = v.rank - inner.rank
        return None if below is None else frozenset(a + added for a in below if inner.shape[a] != 1)
    return frozenset(a for a, d in enumerate(v.shape) if d != 1)


def constant_array(v: Value) -> np.ndarray | None:
    """The elements of a constant seen through broadcasts, reshapes and transposes, as a NumPy view where possible."""
    chain: list[Node] = []
    while v.node.op.name in ("broadcast_to", "reshape", "transpose"):
        chain.append(v.node)
        v = v.node.inputs[0]
    array = v.literal
    for node in reversed(chain):
        if array is None or not is_tensor(node.outputs[0]) or node.op.reference is None:
            return None
        array = node.op.reference(array, **node.attrs)
    return array
