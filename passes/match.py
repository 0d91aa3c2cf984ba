"""What rules ask about values: is it a constant, the same number everywhere, does it vary along an axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from graphc import ops
from graphc.ir.dims import DimLike
from graphc.ir.graph import Node, Value
from graphc.ir.rules import Uses
from graphc.ir.types import TensorType
from graphc.ops.shapes import factor_groups
from graphc.ops.spec import Kind

__all__ = [
    "channel_axis",
    "channels_chosen",
    "constant_array",
    "constant_source",
    "is_constant",
    "is_tensor",
    "is_uniform",
    "needs",
    "size_of",
    "uniform",
    "varying_axes",
    "vector_along",
]

#: larger constants are not searched for being uniform
SEARCHED_ELEMENTS = 4096

_uniform: WeakKeyDictionary[Node, Any] = WeakKeyDictionary()


def needs(test: Callable[[Node], bool], why: str) -> Callable[[Node, Uses], str | None]:
    """A rule's check from a predicate on the node and what to say when it does not hold."""
    return lambda node, uses: None if test(node) else why


#: what leaves a constant one: its numbers elsewhere, repeated, or some of them
REARRANGING = ("broadcast_to", "reshape", "slice", "transpose")


def constant_source(v: Value) -> Value | None:
    """The constant that `v` is, under any broadcasts, reshapes, slices and transposes; else None."""
    if v.node.level >= 0:  # it depends on an input, as most values do
        return None
    while v.node.op.name in REARRANGING:
        v = v.node.inputs[0]
    return v if v.node.op.name == "constant" else None


def uniform(v: Value) -> Any:
    """The number that every element of a constant is, or None when they differ or are not known."""
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
    known = [d for d in shape if isinstance(d, int)]
    return math.prod(known) if len(known) == len(shape) else None


def is_constant(v: Value) -> bool:
    """Whether the value is computed from constants alone; folding may not have been there yet."""
    if v.node.level >= 0:
        return False
    pending = [v.node]
    while pending:
        node = pending[-1]
        if node in _constant:
            pending.pop()
            continue
        if node.op.kind is Kind.LEAF or not node.inputs or node.op.kind is Kind.HOST:
            _constant[node] = node.op.name == "constant"
            continue
        unknown = [u.node for u in node.inputs if u.node not in _constant]
        if unknown and not any(_constant.get(u.node) is False for u in node.inputs):
            pending += unknown
        else:
            _constant[node] = all(_constant.get(u.node, False) for u in node.inputs)
    return _constant[v.node]


_constant: WeakKeyDictionary[Node, bool] = WeakKeyDictionary()


_varying: WeakKeyDictionary[Node, frozenset[int]] = WeakKeyDictionary()


def varying_axes(v: Value) -> frozenset[int] | None:
    """The axes along which a constant can vary, as far as broadcasts in it tell; None when it is not a constant.

    `broadcast_to(constant[1, 64, 1, 1])` varies along axis 1 only, and so does its product with a single number.
    """
    if not is_constant(v):
        return None
    pending = [v.node]
    while pending:
        node = pending[-1]
        if node not in _varying:
            looked_through = node.op.kind is Kind.ELEMENTWISE or node.op.name == "broadcast_to"
            unknown = [u.node for u in node.inputs if u.node not in _varying] if looked_through else []
            if unknown:
                pending += unknown
                continue
            _varying[node] = _axes(node)
        pending.pop()
    return _varying[v.node]


def _axes(node: Node) -> frozenset[int]:
    """The axes along which a constant's node varies, from those of its operands."""
    if node.op.kind is Kind.ELEMENTWISE:
        return frozenset().union(*(_varying[u.node] for u in node.inputs))
    shape = node.outputs[0].shape
    if node.op.name == "broadcast_to":
        inner = node.inputs[0]
        added = len(shape) - inner.rank
        return frozenset(a + added for a in _varying[inner.node] if inner.shape[a] != 1)
    return frozenset(a for a, d in enumerate(shape) if d != 1)


def channel_axis(contraction: Node) -> int:
    """The axis of the result that a contraction's right operand gives."""
    return 1 if contraction.op.name == "conv" else contraction.outputs[0].rank - 1


def vector_along(v: Value, axis: int) -> Value:
    """A constant that varies along one axis alone, as a vector along it."""
    starts = (0,) * v.rank
    stops = tuple(d if a == axis else 1 for a, d in enumerate(v.shape))
    result: Value = ops.reshape(ops.slice(v, starts=starts, stops=stops, steps=(1,) * v.rank), shape=(v.shape[axis],))
    return result


def constant_array(v: Value) -> np.ndarray | None:
    """The elements of a constant seen through broadcasts, reshapes, slices and transposes, as a NumPy view where possible."""
    if v.node.level >= 0:
        return None
    chain: list[Node] = []
    while v.node.op.name in REARRANGING:
        chain.append(v.node)
        v = v.node.inputs[0]
    array = v.literal
    for node in reversed(chain):
        if array is None or not is_tensor(node.outputs[0]) or node.op.reference is None:
            return None
        array = node.op.reference(array, **node.attrs)
    return array


def channels_chosen(node: Node) -> tuple[Value, np.ndarray] | None:
    """The value of which a node's result is some channels (axis 1), and which ones in what order; None when it is not.

    That is a slice or a gather along the channels alone, or a channel shuffle: channels split into several axes,
    these exchanged, and put together again.
    """
    if node.op.name not in ("slice", "gather", "reshape"):
        return None
    x, a = node.inputs[0], node.attrs
    if node.op.name == "slice":
        cut = [k for k, d in enumerate(x.shape) if (a["starts"][k], a["stops"][k], a["steps"][k]) != (0, d, 1)]
        return (x, np.arange(a["starts"][1], a["stops"][1], a["steps"][1])) if cut == [1] else None
    if node.op.name == "gather":
        indices = constant_array(node.inputs[1])
        return (x, indices % x.shape[1]) if a["axis"] == 1 and indices is not None and indices.ndim == 1 else None
    return _shuffled(node)


def _shuffled(node: Node) -> tuple[Value, np.ndarray] | None:
    exchange = node.inputs[0].node
    split = exchange.inputs[0].node if exchange.op.name == "transpose" else None
    if split is None or split.op.name != "reshape" or split.inputs[0].shape != node.outputs[0].shape:
        return None
    x = split.inputs[0]
    parts = next((after for before, after in factor_groups(x.shape, split.outputs[0].shape) if before == (1,)), ())
    perm = exchange.attrs["perm"]
    if len(parts) < 2 or any(p != k for k, p in enumerate(perm) if k not in parts):
        return None
    extents = [split.outputs[0].shape[k] for k in parts]
    order = np.arange(x.shape[1]).reshape(extents).transpose([perm[k] - parts[0] for k in parts])
    return x, order.reshape(-1)
