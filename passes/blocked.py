"""What operations do to blocked values: for each one that can, the result's blocked form from its operand's.

A blocked form keeps every axis of the plain value in its place; only the channels' axis counts blocks of channels
instead, and the lanes of a block are one more axis at the end. So most operations are the same operation again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from graphc import ops
from graphc.ir.dims import ceil_div
from graphc.ir.graph import Node, Value, constant
from graphc.ops.shapes import factor_groups
from graphc.passes.match import uniform

__all__ = ["TRANSFERS", "Blocked", "Forms", "arranged", "picked", "to_blocks", "to_plain"]

#: operands of a concatenation keep blocks of their own if that takes at most this many times the blocks
MOST_ROOM = 1.25


@dataclass(frozen=True)
class Blocked:
    """A value in blocks of channels.

    value     the blocks: the plain value's shape with blocks in place of channels, and the lanes behind
    channels  how many channels there are
    axis      the channels' axis
    groups    the channels of each group fill blocks of their own
    places    where each channel stands, counted through the lanes of all blocks, if they are not in order
    shared    whether the channels were picked from those of another value, not all of them or not each once
    """

    value: Value
    channels: int
    axis: int = 1
    groups: int = 1
    places: tuple[int, ...] | None = None
    shared: bool = False

    @property
    def lanes(self) -> int:
        return int(self.value.shape[-1])

    @property
    def exact(self) -> bool:
        """Whether every lane holds a channel."""
        return not self.shared and self.channels == self.value.shape[self.axis] * self.lanes

    @property
    def slots(self) -> np.ndarray:
        """The place of each channel."""
        return np.asarray(self.places or _in_order(self.channels, self.lanes, self.groups))

    @property
    def mostly_empty(self) -> bool:
        """Whether more lanes are past the channels than hold one."""
        return 2 * self.channels < self.lanes

    def like(self, other: Blocked) -> bool:
        """Whether channels stand in the same places."""
        return (self.axis, self.lanes, self.groups, self.places) == (
            other.axis,
            other.lanes,
            other.groups,
            other.places,
        )

    def shape(self, plain: tuple[Any, ...]) -> tuple[Any, ...]:
        """The blocks' shape for a plain shape with these channels."""
        blocks = self.value.shape[self.axis]
        return (*plain[: self.axis], blocks, *plain[self.axis + 1 :], self.lanes)


def to_blocks(v: Value, lanes: int, axis: int = 1, groups: int = 1) -> Blocked:
    """A plain value in blocks; static shapes."""
    outer, inner = v.shape[:axis], v.shape[axis + 1 :]
    image = (outer[0] if axis == 1 else math.prod(outer), v.shape[axis], *(inner or (1,)))
    blocks = ops.block(_reshaped(v, image), size=lanes, groups=groups)
    return Blocked(_reshaped(blocks, (*outer, blocks.shape[1], *inner, lanes)), v.shape[axis], axis, groups)


def arranged(v: Value, like: Blocked, axis: int) -> Value:
    """A plain value in blocks, its channels where they stand in another form."""
    if like.places is None:
        return to_blocks(v, like.lanes, axis, like.groups).value
    blocks = like.value.shape[like.axis]
    outer, inner = v.shape[:axis], v.shape[axis + 1 :]
    sources = np.full(blocks * like.lanes, like.channels)
    sources[like.slots] = np.arange(like.channels)
    room = tuple(int(k == axis) for k in range(v.rank))  # a zero, for the lanes that hold no channel
    padded = ops.pad(v, np.zeros((), v.dtype.numpy), low=(0,) * v.rank, high=room)
    lanes = ops.reshape(ops.gather(padded, constant(sources), axis=axis), shape=(*outer, blocks, like.lanes, *inner))
    result: Value = ops.transpose(lanes, perm=(*range(axis + 1), *range(axis + 2, v.rank + 1), axis + 1))
    return result


def to_plain(form: Blocked, shape: tuple[Any, ...]) -> Value:
    """The plain value, of this shape, from its blocks."""
    outer, inner = shape[: form.axis], shape[form.axis + 1 :]
    blocks = form.value.shape[form.axis]
    if form.places is not None:
        return _lanes_of(form, form.slots)
    image = (outer[0] if form.axis == 1 else math.prod(outer), blocks, *(inner or (1,)), form.lanes)
    return _reshaped(ops.unblock(_reshaped(form.value, image), channels=form.channels, groups=form.groups), shape)


def _lanes_of(form: Blocked, chosen: np.ndarray) -> Value:
    """Some lanes, counted through all blocks, as the channels of a plain value."""
    axis, rank = form.axis, form.value.rank
    *outer, blocks = form.value.shape[: axis + 1]
    lanes = ops.transpose(form.value, perm=(*range(axis + 1), rank - 1, *range(axis + 1, rank - 1)))
    lanes = ops.reshape(lanes, shape=(*outer, blocks * form.lanes, *form.value.shape[axis + 1 : -1]))
    result: Value = ops.gather(lanes, constant(chosen), axis=axis)
    return result


def _put_in_order(form: Blocked, groups: int) -> Blocked:
    """The channels group by group, from wherever they stand. What fills the last block of a group is its own first
    channel once more: it reaches no group in which it does not count."""
    each = form.channels // groups
    slots = form.slots.reshape(groups, each)
    room = ceil_div(each, form.lanes) * form.lanes
    lanes = np.concatenate([slots, np.repeat(slots[:, :1], room - each, axis=1)], axis=1)
    blocks = to_blocks(_lanes_of(form, lanes.reshape(-1)), form.lanes, form.axis)
    return Blocked(blocks.value, form.channels, form.axis, groups)


def _reshaped(v: Value, shape: tuple[Any, ...]) -> Value:
    return v if v.shape == shape else ops.reshape(v, shape=shape)


class Forms:
    """The forms of a graph's values: plain, in blocks, or both. One that is missing is made when asked for, once."""

    def __init__(self) -> None:
        self.plain_forms: dict[Value, Value] = {}
        self.blocked_forms: dict[Value, Blocked] = {}

    def plain(self, v: Value) -> Value:
        """The value as it was, converted from blocks at the first call."""
        if v not in self.plain_forms:
            self.plain_forms[v] = to_plain(self.blocked_forms[v], v.shape)
        return self.plain_forms[v]

    def form_of(self, v: Value) -> Blocked | None:
        """The value's blocked form, if it has one."""
        return self.blocked_forms.get(v)

    def blocks(self, v: Value, lanes: int, groups: int = 1, axis: int = 1) -> Blocked | None:
        """The value in blocks, converted at the first call; None when it has no such axis, or not so many groups."""
        form = self.blocked_forms.get(v)
        if form is not None and (form.lanes, form.groups, form.axis, form.places) == (lanes, groups, axis, None):
            return form
        if axis >= v.rank or v.shape[axis] % groups:
            return None
        if form is not None and form.places is not None and (form.lanes, form.axis) == (lanes, axis):
            converted = _put_in_order(form, groups)
        else:
            converted = to_blocks(self.plain(v), lanes, axis, groups)
        if form is None:
            self.blocked_forms[v] = converted
        return converted


#: from the node and the blocked form of its first operand: its result, blocked or (without channels) plain, or why not
Transfer = Callable[[Forms, Node, Blocked], "Blocked | Value | str"]


def _broadcast(forms: Forms, node: Node, form: Blocked) -> Blocked | str:
    x, shape = node.inputs[0], node.attrs["shape"]
    axis = form.axis + len(shape) - x.rank
    if shape[axis] != form.channels:
        return "it repeats along the channels"
    moved = replace(form, axis=axis)
    target = (*shape[:axis], form.value.shape[form.axis], *shape[axis + 1 :], form.lanes)
    return replace(moved, value=ops.broadcast_to(form.value, shape=target))


def _reshape(forms: Forms, node: Node, form: Blocked) -> Blocked | str:
    """The channels stay to themselves, or whole blocks of them are split off in front or taken in."""
    x, shape = node.inputs[0], node.attrs["shape"]
    blocks = form.value.shape[form.axis]
    for before, after in factor_groups(x.shape, shape):
        if form.axis not in before:
            continue
        alone = before == (form.axis,) and len(after) == 1
        split = before == (form.axis,) and len(after) > 1 and form.exact and shape[after[-1]] % form.lanes == 0
        merged = before[-1] == form.axis and len(after) == 1 and form.exact
        if not alone and (form.groups > 1 or form.places is not None or not (split or merged)):
            return "it mixes channels with other axes"
        axis = after[-1]
        new_blocks = blocks if alone else shape[axis] // form.lanes
        target = (*shape[:axis], new_blocks, *shape[axis + 1 :], form.lanes)
        return replace(form, value=_reshaped(form.value, target), channels=shape[axis], axis=axis)
    return "there is a single channel"


def _transpose(forms: Forms, node: Node, form: Blocked) -> Blocked | str:
    perm = node.attrs["perm"]
    return replace(form, value=ops.transpose(form.value, perm=(*perm, len(perm))), axis=perm.index(form.axis))


def _slice(forms: Forms, node: Node, form: Blocked) -> Blocked | str:
    a, axis = node.attrs, form.axis
    start, stop, step = a["starts"][axis], a["stops"][axis], a["steps"][axis]
    whole = (start, stop, step) == (0, form.channels, 1)
    aligned = step == 1 and start % form.lanes == 0 and (stop % form.lanes == 0 or stop == form.channels)
    if not whole and (form.groups > 1 or form.places is not None or not aligned):
        return "it cuts through a block of channels"
    starts, stops, steps = (*a["starts"], 0), (*a["stops"], form.lanes), (*a["steps"], 1)
    first, last = (0, form.value.shape[axis]) if whole else (start // form.lanes, ceil_div(stop, form.lanes))
    part = ops.slice(
        form.value,
        starts=(*starts[:axis], first, *starts[axis + 1 :]),
        stops=(*stops[:axis], last, *stops[axis + 1 :]),
        steps=steps,
    )
    return replace(form, value=part, channels=stop - start)


def _pad(forms: Forms, node: Node, form: Blocked) -> Blocked | str:
    low, high = node.attrs["low"], node.attrs["high"]
    if low[form.axis] or high[form.axis]:
        return "it adds or drops channels"
    number = uniform(node.inputs[1])
    if not form.exact and (number is None or not np.isfinite(number)):
        return "lanes past the last channel would not be finite"
    return replace(form, value=ops.pad(form.value, forms.plain(node.inputs[1]), low=(*low, 0), high=(*high, 0)))


def _gather(forms: Forms, node: Node, form: Blocked) -> Blocked | str:
    indices, axis = node.inputs[1], node.attrs["axis"]
    if axis == form.axis:
        return "it picks channels"
    picked = ops.gather(form.value, forms.plain(indices), axis=axis)
    return replace(form, value=picked, axis=form.axis + (indices.rank - 1 if axis < form.axis else 0))


def _concat(forms: Forms, node: Node, form: Blocked) -> Blocked | str:
    axis, out = node.attrs["axis"], node.outputs[0]
    plain_bytes = sum(v.tensor.nbytes for v in node.inputs if forms.form_of(v) is None)
    if 2 * plain_bytes > out.tensor.nbytes:
        return "most of its operands are plain"
    found = [f for f in map(forms.form_of, node.inputs) if f is not None]
    in_order = all(f.groups == 1 and f.places is None for f in found)
    if axis == form.axis and not (in_order and all(v.shape[axis] % form.lanes == 0 for v in node.inputs[:-1])):
        return _side_by_side(forms, node, form)
    if form.places is not None:
        return "its operand's channels are not in order"
    values = []
    for v in node.inputs:
        part = forms.blocks(v, form.lanes, form.groups, form.axis)
        if part is None:
            return "an operand has no blocked form"
        values.append(part.value)
    return replace(form, value=ops.concat(*values, axis=axis), channels=out.shape[form.axis])


def _side_by_side(forms: Forms, node: Node, like: Blocked) -> Blocked | str:
    """Operands whose channels fill no whole blocks, block after block: whoever reads them has to know the places."""
    values, places, blocks = [], [], 0
    for v in node.inputs:
        form = forms.form_of(v)
        if form is None or form.shared or (form.axis, form.lanes) != (like.axis, like.lanes):
            form = forms.blocks(v, like.lanes, axis=like.axis)
        if form is None:
            return "an operand has no blocked form"
        values.append(form.value)
        places.append(form.slots + blocks * like.lanes)
        blocks += form.value.shape[like.axis]
    channels = node.outputs[0].shape[like.axis]
    if blocks > MOST_ROOM * ceil_div(channels, like.lanes):
        return "an operand's channels do not fill whole blocks"
    joined = ops.concat(*values, axis=like.axis)
    return Blocked(joined, channels, like.axis, places=tuple(map(int, np.concatenate(places))))


def picked(form: Blocked, order: np.ndarray) -> Blocked:
    """The form of some of the channels, or of all of them in another order: nothing is moved."""
    places = tuple(map(int, form.slots[order]))
    shared = form.shared or len(set(places)) < max(form.channels, len(places))
    natural = not shared and places == _in_order(len(places), form.lanes, 1)
    return replace(form, channels=len(places), groups=1, places=None if natural else places, shared=shared)


def _reduction(forms: Forms, node: Node, form: Blocked) -> Blocked | Value | str:
    """Along other axes the result stays blocked; along the channels it has none left."""
    axes = node.attrs["axes"]
    if form.axis not in axes:
        axis = form.axis - sum(a < form.axis for a in axes)
        return replace(form, value=node.op(form.value, axes=axes), axis=axis)
    if not form.exact:
        return "it would take in lanes past the last channel"
    result: Value = node.op(form.value, axes=(*axes, form.value.rank - 1))
    return result


def _window(forms: Forms, node: Node, form: Blocked) -> Blocked | str:
    x, a = node.inputs[0], node.attrs
    if form.axis in a["axes"]:
        return "its window covers channels"
    if form.axis != 1 or x.rank not in (3, 4) or 0 in a["axes"]:
        return replace(form, value=ops.reduce_window(form.value, **a))
    # the window kernel works on images: a line is an image one row high, and both axes are given
    place = {axis + 4 - x.rank: k for k, axis in enumerate(a["axes"])}

    def entries(key: str, default: Any) -> tuple[Any, ...]:
        return tuple(a[key][place[axis]] if axis in place else default for axis in (2, 3))

    n, blocks, *pixels, lanes = form.value.shape
    image = _reshaped(form.value, (n, blocks, *(1,) * (2 - len(pixels)), *pixels, lanes))
    pooled = ops.reduce_window(
        image,
        combine=a["combine"],
        axes=(2, 3),
        window=entries("window", 1),
        strides=entries("strides", 1),
        padding=entries("padding", (0, 0)),
        dilation=entries("dilation", 1),
    )
    return replace(form, value=_reshaped(pooled, form.shape(node.outputs[0].shape)))


@lru_cache(maxsize=256)
def _in_order(channels: int, lanes: int, groups: int) -> tuple[int, ...]:
    """The place of each channel where those of each group fill blocks of their own, in order."""
    each = channels // groups
    room = ceil_div(each, lanes) * lanes
    return tuple(g * room + c for g in range(groups) for c in range(each))


TRANSFERS: Mapping[str, Transfer] = {
    "broadcast_to": _broadcast,
    "reshape": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "pad": _pad,
    "gather": _gather,
    "concat": _concat,
    "reduce_window": _window,
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min"), _reduction),
}
