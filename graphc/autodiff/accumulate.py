"""The sum of the cotangents that arrive at a value from its uses, without zeros that nobody reads.

The cotangent of a slice is its own cotangent between zeros, so the uses of the pieces of a split arrive as pads. Pads
that lie side by side are laid side by side instead of being added up. The cotangent of a gather is a scatter into
zeros; several are scattered one into the other.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc import ops
from graphc.ir.graph import Node, Value, make

__all__ = ["total"]


def total(parts: Sequence[Value]) -> Value:
    """The sum of `parts`, all of one type."""
    pieces, lookups, others = list[Value](), list[Value](), list[Value]()
    for v in parts:
        (pieces if _padded_axis(v) is not None else lookups if _is_lookup(v) else others).append(v)
    result: Value | None = None
    for v in [*_side_by_side(pieces), *others, *lookups]:
        result = v if result is None else _scattered(v, result) if _is_lookup(v) else ops.add(result, v)
    assert result is not None
    return result


def _is_lookup(v: Value) -> bool:
    """Whether `v` is the cotangent of a gather: something scattered into zeros."""
    node = v.node
    adds = node.op.name in ("scatter_nd", "scatter_elements") and node.attrs.get("reduction") == "add"
    return adds and _is_zero(node.inputs[0])


def _scattered(lookup: Value, into: Value) -> Value:
    node = lookup.node
    return make(node.op, into, *node.inputs[1:], **node.attrs)[0]


def _is_zero(v: Value) -> bool:
    while v.node.op.name == "broadcast_to":
        v = v.node.inputs[0]
    return v.literal is not None and v.literal.size == 1 and not v.literal.any()


def _padded_axis(v: Value) -> int | None:
    """The one axis along which `v` is something between zeros; None when it is not such a pad."""
    node = v.node
    if node.op.name != "pad" or not _is_zero(node.inputs[1]):
        return None
    low, high = node.attrs["low"], node.attrs["high"]
    if not all(isinstance(n, int) and n >= 0 for n in (*low, *high)):
        return None
    axes = [k for k in range(v.rank) if low[k] or high[k]]
    return axes[0] if len(axes) == 1 and isinstance(v.shape[axes[0]], int) else None


def _side_by_side(pads: Sequence[Value]) -> list[Value]:
    """Pads that do not overlap joined by concatenation; what overlaps stays apart."""
    result: list[Value] = []
    by_axis: dict[int, list[Node]] = {}
    for v in pads:
        axis = _padded_axis(v)
        assert axis is not None
        by_axis.setdefault(axis, []).append(v.node)
    for axis, nodes in by_axis.items():
        rows: list[list[Node]] = []  # each holds pads in order, none overlapping
        for node in sorted(nodes, key=lambda n: n.attrs["low"][axis]):
            for row in rows:
                if _end(row[-1], axis) <= node.attrs["low"][axis]:
                    row.append(node)
                    break
            else:
                rows.append([node])
        result += [_joined(row, axis) for row in rows]
    return result


def _end(node: Node, axis: int) -> int:
    return node.outputs[0].shape[axis] - node.attrs["high"][axis]


def _joined(row: list[Node], axis: int) -> Value:
    whole = row[0].outputs[0]
    if len(row) == 1:
        return whole
    pieces: list[Value] = []
    at = 0
    for node in row:
        pieces += _gap(whole, axis, node.attrs["low"][axis] - at, node.inputs[1])
        pieces.append(node.inputs[0])
        at = _end(node, axis)
    pieces += _gap(whole, axis, whole.shape[axis] - at, row[0].inputs[1])
    return ops.concat(*pieces, axis=axis)


def _gap(whole: Value, axis: int, extent: int, zero: Value) -> list[Value]:
    if not extent:
        return []
    return [ops.broadcast_to(zero, shape=tuple(extent if k == axis else d for k, d in enumerate(whole.shape)))]
