"""Rules for operations that only move elements: merge them, cancel them, and compute before repeating, not after.

Broadcasts are pushed towards the results (an operation on broadcast operands is done on the small ones), since whatever
is done before a broadcast is done fewer times, and constants under it fold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc import ops
from graphc.ir.dims import DimLike
from graphc.ir.graph import Node, Value
from graphc.ir.rules import Rule, Uses, rule
from graphc.ops.shapes import factor_groups
from graphc.ops.spec import Kind, names_where
from graphc.passes.match import is_constant, is_uniform, needs, size_of, uniform

__all__ = ["MOVEMENT_RULES", "reshaped_source"]


def _operand(node: Node, name: str) -> bool:
    return node.inputs[0].node.op.name == name


# --- one operation that does nothing ---------------------------------------------------------------------------------


@rule("reshape", "broadcast_to", check=needs(lambda n: n.inputs[0].type == n.types[0], "the shape changes"))
def same_shape(node: Node) -> Value:
    """reshape(x, its own shape) = x, and for broadcasts"""
    return node.inputs[0]


@rule("transpose", check=needs(lambda n: n.attrs["perm"] == tuple(range(n.inputs[0].rank)), "the axes are reordered"))
def same_order(node: Node) -> Value:
    """transpose that reorders nothing"""
    return node.inputs[0]


@rule(
    "slice",
    check=needs(
        lambda n: (
            n.inputs[0].type == n.types[0]
            and all(s == 1 for s in n.attrs["steps"])
            and all(s == 0 for s in n.attrs["starts"])
        ),
        "it cuts something off",
    ),
)
def whole_slice(node: Node) -> Value:
    """slice that keeps everything"""
    return node.inputs[0]


@rule(
    "pad", check=needs(lambda n: all(a == 0 for a in (*n.attrs["low"], *n.attrs["high"])), "it adds or crops something")
)
def no_padding(node: Node) -> Value:
    """pad by nothing"""
    return node.inputs[0]


@rule(
    "concat",
    check=needs(
        lambda n: len(n.inputs) == 1 or any(v.shape[n.attrs["axis"]] == 0 for v in n.inputs), "no operand is empty"
    ),
)
def empty_operands(node: Node) -> Value:
    """concat without its empty operands; of one operand, that operand"""
    axis = node.attrs["axis"]
    kept = [v for v in node.inputs if v.shape[axis] != 0] or [node.inputs[0]]
    return kept[0] if len(kept) == 1 else ops.concat(*kept, axis=axis)


# --- two that are one ------------------------------------------------------------------------------------------------


@rule("reshape", check=needs(lambda n: _operand(n, "reshape"), "the operand is not a reshape"))
def merge_reshapes(node: Node) -> Value:
    """reshape of a reshape"""
    return ops.reshape(node.inputs[0].node.inputs[0], shape=node.attrs["shape"])


@rule("transpose", check=needs(lambda n: _operand(n, "transpose"), "the operand is not a transpose"))
def merge_transposes(node: Node) -> Value:
    """transpose of a transpose"""
    inner = node.inputs[0].node
    return ops.transpose(inner.inputs[0], perm=tuple(inner.attrs["perm"][p] for p in node.attrs["perm"]))


def _moves_only_units(node: Node) -> bool:
    shape, perm = node.inputs[0].shape, node.attrs["perm"]
    moved = [p for p in perm if shape[p] != 1]
    return moved == sorted(moved)


@rule("transpose", check=needs(_moves_only_units, "it moves axes of more than one element"))
def transpose_of_units(node: Node) -> Value:
    """transpose that moves only axes of extent 1 = reshape"""
    return ops.reshape(node.inputs[0], shape=node.outputs[0].shape)


@rule("broadcast_to", check=needs(lambda n: _operand(n, "broadcast_to"), "the operand is not a broadcast"))
def merge_broadcasts(node: Node) -> Value:
    """broadcast of a broadcast"""
    return ops.broadcast_to(node.inputs[0].node.inputs[0], shape=node.attrs["shape"])


@rule(
    "broadcast_to",
    check=needs(
        lambda n: n.inputs[0].rank > 0 and n.inputs[0].shape[0] == 1, "the operand has no leading axis of extent 1"
    ),
)
def broadcast_of_leading_units(node: Node) -> Value:
    """broadcast without the operand's leading axes of extent 1, which it would add by itself"""
    shape = node.inputs[0].shape
    leading = next((a for a, d in enumerate(shape) if d != 1), len(shape))
    return ops.broadcast_to(ops.reshape(node.inputs[0], shape=shape[leading:]), **node.attrs)


def _slices_slice(node: Node) -> bool:
    inner = node.inputs[0].node
    return inner.op.name == "slice" and all(
        isinstance(a, int) for n in (node, inner) for key in ("starts", "stops") for a in n.attrs[key]
    ) and all(step > 0 for n in (node, inner) for step in n.attrs["steps"])  # fmt: skip


@rule("slice", check=needs(_slices_slice, "the operand is not a slice with known bounds"))
def merge_slices(node: Node) -> Value:
    """slice of a slice"""
    inner = node.inputs[0].node
    starts, stops, steps = [], [], []
    for a, da, b, db, extent in zip(
        inner.attrs["starts"],
        inner.attrs["steps"],
        node.attrs["starts"],
        node.attrs["steps"],
        node.outputs[0].shape,
        strict=True,
    ):
        starts.append(a + b * da)
        steps.append(da * db)
        stops.append(starts[-1] + (extent - 1) * steps[-1] + 1 if extent else starts[-1])
    return ops.slice(inner.inputs[0], starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))


def _concats_concat(node: Node, uses: Uses) -> str | None:
    inner = [v for v in node.inputs if v.node.op is node.op and v.node.attrs == node.attrs]
    if not inner:
        return "no operand is a concat along that axis"
    # a concat that others read too is made inside the larger one, without a copy; merged it would be copied
    return None if all(uses(v) == 1 for v in inner) else "an inner concat has other readers"


@rule("concat", check=_concats_concat)
def merge_concats(node: Node) -> Value:
    """concat of concats along one axis"""
    flat: list[Value] = []
    for v in node.inputs:
        flat += v.node.inputs if v.node.op is node.op and v.node.attrs == node.attrs else (v,)
    return ops.concat(*flat, **node.attrs)


def _piece(node: Node) -> Value | None:
    """The operand of a concat that a slice takes out as a whole (or takes part of); None when it spans several."""
    inner = node.inputs[0].node
    if inner.op.name != "concat":
        return None
    axis = inner.attrs["axis"]
    start, extent, step = node.attrs["starts"][axis], node.outputs[0].shape[axis], node.attrs["steps"][axis]
    if not isinstance(start, int) or not isinstance(extent, int) or step < 1 or extent == 0:
        return None
    at: DimLike = 0
    for v in inner.inputs:
        d = v.shape[axis]
        if not isinstance(d, int) or not isinstance(at, int):
            return None
        last = start + (extent - 1) * step
        if at <= start and last < at + d:
            starts = tuple(a - at if k == axis else a for k, a in enumerate(node.attrs["starts"]))
            stops = tuple(b - at if k == axis else b for k, b in enumerate(node.attrs["stops"]))
            stops = tuple(min(b, d) if k == axis else b for k, b in enumerate(stops))
            result: Value = ops.slice(v, starts=starts, stops=stops, steps=node.attrs["steps"])
            return result
        at = at + d
    return None


@rule("slice", check=needs(lambda n: _piece(n) is not None, "it is no slice of one operand of a concat"))
def slice_of_concat(node: Node) -> Value:
    """slice that lies inside one operand of a concat = slice of that operand"""
    found = _piece(node)
    assert found is not None
    return found


# --- padding ---------------------------------------------------------------------------------------------------------


@rule(
    "pad",
    check=needs(
        lambda n: all(isinstance(a, int) and a <= 0 for a in (*n.attrs["low"], *n.attrs["high"])), "it adds something"
    ),
)
def crop(node: Node) -> Value:
    """pad by negative amounts = slice, which is a view"""
    low, high, shape = node.attrs["low"], node.attrs["high"], node.inputs[0].shape
    stops = tuple(d + b for d, b in zip(shape, high, strict=True))
    return ops.slice(node.inputs[0], starts=tuple(-a for a in low), stops=stops, steps=(1,) * len(low))


def _pads_for(node: Node, uses: Uses) -> str | None:
    """Why a padding before a convolution or a sliding window cannot become that operation's own."""
    if not _operand(node, "pad"):
        return "the operand is not padded"
    pad = node.inputs[0].node
    axes = node.attrs["axes"] if node.op.name == "reduce_window" else tuple(range(2, node.inputs[0].rank))
    wanted = 0.0
    if node.op.name == "reduce_window":
        wanted = {"add": 0.0, "maximum": -np.inf, "minimum": np.inf}[node.attrs["combine"]]
    if not is_uniform(pad.inputs[1], wanted):
        return f"the padding is not {wanted}"
    for axis, amounts in enumerate(zip(pad.attrs["low"], pad.attrs["high"], strict=True)):
        if axis not in axes and amounts != (0, 0):
            return f"axis {axis} is padded"
        if any(not isinstance(a, int) or a < 0 for a in amounts):
            return "it crops"
    return None


@rule("conv", "reduce_window", check=_pads_for)
def own_padding(node: Node) -> Value:
    """padding before a convolution or pooling becomes its attribute"""
    pad = node.inputs[0].node
    axes = node.attrs["axes"] if node.op.name == "reduce_window" else range(2, node.inputs[0].rank)
    padding = tuple(
        (lo + pad.attrs["low"][a], hi + pad.attrs["high"][a])
        for a, (lo, hi) in zip(axes, node.attrs["padding"], strict=True)
    )
    result: Value = node.op(pad.inputs[0], *node.inputs[1:], **{**node.attrs, "padding": padding})
    return result


# --- reductions ------------------------------------------------------------------------------------------------------

REDUCTIONS = names_where(lambda op: op.kind is Kind.REDUCE)


@rule(
    *REDUCTIONS,
    check=needs(
        lambda n: any(n.inputs[0].shape[a] == 1 for a in n.attrs["axes"]) or not n.attrs["axes"], "no axis has extent 1"
    ),
)
def reduce_of_units(node: Node) -> Value:
    """reduction over axes of extent 1 = reshape"""
    x = node.inputs[0]
    axes = node.attrs["axes"]
    squeezed = ops.reshape(x, shape=tuple(d for a, d in enumerate(x.shape) if not (a in axes and d == 1)))
    kept = [a for a in range(x.rank) if not (a in axes and x.shape[a] == 1)]
    left = tuple(kept.index(a) for a in axes if x.shape[a] != 1)
    return node.op(squeezed, axes=left) if left else squeezed


@rule(*REDUCTIONS, check=needs(lambda n: n.inputs[0].node.op is n.op, "the operand is not the same reduction"))
def merge_reductions(node: Node) -> Value:
    """reduction of a reduction of the same kind"""
    inner = node.inputs[0].node
    kept = [a for a in range(inner.inputs[0].rank) if a not in inner.attrs["axes"]]
    axes = sorted((*inner.attrs["axes"], *(kept[a] for a in node.attrs["axes"])))
    return node.op(inner.inputs[0], axes=tuple(axes))


def _covers_everything(node: Node) -> bool:
    x, a = node.inputs[0], node.attrs
    whole = all(x.shape[axis] == k for axis, k in zip(a["axes"], a["window"], strict=True))
    return whole and bool(a["axes"]) and all(p == (0, 0) for p in a["padding"]) and all(d == 1 for d in a["dilation"])


@rule("reduce_window", check=needs(_covers_everything, "the window is not the whole extent"))
def window_over_everything(node: Node) -> Value:
    """pooling with one window over the whole extent = reduction"""
    reduction = {"add": ops.reduce_sum, "maximum": ops.reduce_max, "minimum": ops.reduce_min}[node.attrs["combine"]]
    return ops.reshape(reduction(node.inputs[0], axes=tuple(sorted(node.attrs["axes"]))), shape=node.outputs[0].shape)


def _one_element(node: Node) -> bool:
    a = node.attrs
    return all(k == 1 for k in (*a["window"], *a["strides"])) and not any(map(any, a["padding"]))


@rule("reduce_window", check=needs(_one_element, "the window or stride is not 1"))
def window_of_one(node: Node) -> Value:
    """pooling with a window of one element"""
    return node.inputs[0]


# --- gathers ---------------------------------------------------------------------------------------------------------


def _fixed_gather(node: Node, uses: Uses) -> str | None:
    x, indices = node.inputs
    extent = x.shape[node.attrs["axis"]]
    if size_of(indices.shape) != 1 or uniform(indices) is None:
        return "the index is not one known number"
    if not isinstance(extent, int):
        return "the extent is not known"
    return None if -extent <= int(uniform(indices)) < extent else "the index is out of range"


@rule("gather", check=_fixed_gather)
def gather_one(node: Node) -> Value:
    """gather of one known index = slice, which is a view"""
    x, indices = node.inputs
    axis = node.attrs["axis"]
    at = int(uniform(indices)) % x.shape[axis]
    starts = tuple(at if a == axis else 0 for a in range(x.rank))
    stops = tuple(at + 1 if a == axis else d for a, d in enumerate(x.shape))
    return ops.reshape(ops.slice(x, starts=starts, stops=stops, steps=(1,) * x.rank), shape=node.outputs[0].shape)


# --- broadcasts outwards ---------------------------------------------------------------------------------------------


def _repeats(v: Value) -> frozenset[int] | None:
    """The axes along which a broadcast repeats; None when the value is not a broadcast."""
    if v.node.op.name != "broadcast_to":
        return None
    inner = v.node.inputs[0]
    added = v.rank - inner.rank
    return frozenset(a for a in range(v.rank) if v.shape[a] != 1 and (a < added or inner.shape[a - added] == 1))


def _common_repeats(node: Node) -> frozenset[int]:
    """The axes along which every operand repeats."""
    found = [_repeats(v) for v in node.inputs]
    known = [f for f in found if f is not None]
    return frozenset.intersection(*known) if known and len(known) == len(found) else frozenset()


def _narrow(v: Value, axes: frozenset[int]) -> Value:
    """A broadcast value before it repeats along these axes, without leading axes of extent 1."""
    inner = v.node.inputs[0]
    shape = tuple(1 if a in axes else d for a, d in enumerate(v.shape))
    full = (1,) * (v.rank - inner.rank) + inner.shape
    leading = next((a for a, d in enumerate(shape) if d != 1), len(shape))
    return ops.broadcast_to(ops.reshape(inner, shape=full[leading:]), shape=shape[leading:])


def elementwise_of_broadcasts_check(node: Node, uses: Uses) -> str | None:
    """Why an elementwise operation is not done before its operands are broadcast."""
    return None if node.inputs and _common_repeats(node) else "the operands do not repeat along a common axis"


def _elementwise_of_broadcasts(node: Node) -> Value:
    axes = _common_repeats(node)
    small = node.op(*(_narrow(v, axes) for v in node.inputs), **node.attrs)
    return ops.broadcast_to(small, shape=node.outputs[0].shape)


ELEMENTWISE = tuple(name for name, op in ops.REGISTRY.items() if op.kind is Kind.ELEMENTWISE)

broadcast_after_elementwise = Rule(
    "broadcast_after_elementwise", ELEMENTWISE, elementwise_of_broadcasts_check, _elementwise_of_broadcasts,
    "f(broadcast(x), broadcast(y)) = broadcast(f(x, y))",
)  # fmt: skip


def _single(node: Node) -> bool:
    return _operand(node, "broadcast_to") and size_of(node.inputs[0].node.inputs[0].shape) == 1


@rule("reshape", "transpose", "slice", check=needs(_single, "the operand does not repeat a single element"))
def broadcast_after_movement(node: Node) -> Value:
    """moving the elements of a repeated number = repeating it in the new shape"""
    return ops.broadcast_to(ops.reshape(node.inputs[0].node.inputs[0], shape=()), shape=node.outputs[0].shape)


def reshaped_source(outer: Value, new: tuple[DimLike, ...]) -> Value | None:
    """What to broadcast to `new` instead of reshaping the broadcast `outer` to it; None when there is nothing smaller.

    A run of axes that the reshape merges or splits must be repeated as a whole or not at all. Of a constant it may also
    be in part: it is then written out along that run.
    """
    if outer.node.op.name != "broadcast_to" or size_of(outer.shape) in (None, 0) or size_of(new) is None:
        return None
    inner = outer.node.inputs[0]
    old = [1] * (outer.rank - inner.rank) + list(inner.shape)
    shape: list[DimLike] = [1] * len(new)
    written = list(old)
    for before, after in factor_groups(outer.shape, new):  # type: ignore[arg-type]
        if all(old[a] == 1 for a in before):
            continue
        for a in before:
            written[a] = outer.shape[a]
        for a in after:
            shape[a] = new[a]
    if written != old and not (is_constant(inner) and size_of(tuple(shape)) != size_of(new)):
        return None
    source = ops.broadcast_to(inner, shape=tuple(written)) if written != old else inner
    return ops.reshape(source, shape=tuple(shape))


def _reshapes_broadcast(node: Node) -> bool:
    return reshaped_source(node.inputs[0], node.outputs[0].shape) is not None


@rule("reshape", check=needs(_reshapes_broadcast, "it is no reshape of a broadcast that keeps repeated axes together"))
def broadcast_after_reshape(node: Node) -> Value:
    """reshape(broadcast(x)) = broadcast(reshape(x))"""
    return ops.broadcast_to(reshaped_source(node.inputs[0], node.outputs[0].shape), shape=node.outputs[0].shape)


@rule("transpose", check=needs(lambda n: _operand(n, "broadcast_to"), "the operand is not a broadcast"))
def broadcast_after_transpose(node: Node) -> Value:
    """transpose(broadcast(x)) = broadcast(transpose(x))"""
    outer = node.inputs[0]
    inner = outer.node.inputs[0]
    full = ops.reshape(inner, shape=(1,) * (outer.rank - inner.rank) + inner.shape)
    return ops.broadcast_to(ops.transpose(full, **node.attrs), shape=node.outputs[0].shape)


MOVEMENT_RULES: Sequence[Rule] = (
    same_shape, same_order, whole_slice, no_padding, empty_operands, merge_reshapes, merge_transposes,
    transpose_of_units, merge_broadcasts, broadcast_of_leading_units, merge_slices, merge_concats, slice_of_concat,
    crop, own_padding, reduce_of_units, merge_reductions, window_over_everything, window_of_one, gather_one,
    broadcast_after_elementwise, broadcast_after_movement, broadcast_after_reshape, broadcast_after_transpose,
)  # fmt: skip
