"""Pointwise convolutions that pick their channels one by one, from wherever these stand among an image's blocks.

After a channel shuffle, and where the channels of a group fill no whole blocks, a group's channels do not lie in blocks of
their own. A pointwise convolution reads one element of each pixel a step, so it can take them from any place: no copy of
the image is made, and nothing is multiplied that only fills a block. The layout pass puts this operation into a graph.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from graphc.ir.dims import ceil_div
from graphc.ir.types import TensorType
from graphc.ops.injective import tensor_operand
from graphc.ops.layout import LATER, pack_conv_weights
from graphc.ops.spec import Kind, OpSpec, Sample, expect, register

__all__ = ["conv_picked"]

#: the places of each group's channels, counted through the lanes of all blocks
Places = tuple[tuple[int, ...], ...]


def _type(x: TensorType, w: TensorType, *, places: Places, filters: int, lanes: int) -> TensorType:
    tensor_operand("conv_picked", 0, x)
    expect(
        x.rank == 5 and x.shape[4] == lanes,
        f"conv_picked: operand 0 is {x}; [N, blocks, H, W, {lanes}] is needed",
    )
    expect(x.dtype == w.dtype, f"conv_picked: operand 1 is {w.dtype} but operand 0 is {x.dtype}")
    expect(w.rank == 7, f"conv_picked: operand 1 is {w}; weights packed by pack_conv_weights are needed")
    groups, panels, blocks, kh, kw, steps, columns = w.static_shape
    expect((blocks, kh, kw) == (1, 1, 1), f"conv_picked: {w} is not one block of a pointwise convolution's channels")
    expect(
        len(places) == groups and {len(p) for p in places} == {steps},
        f"conv_picked: {len(places)} groups of places do not go with weights {w}",
    )
    last, room = max(map(max, places)), x.static_shape[1] * lanes
    expect(last < room, f"conv_picked: place {last} is past the {room} lanes of {x}")
    expect(
        filters % groups == 0 and panels == ceil_div(filters // groups, columns),
        f"conv_picked: {w} does not hold {filters} filters",
    )
    return x.with_shape((x.shape[0], groups * ceil_div(filters // groups, lanes), *x.shape[2:]))


def _reference(x: np.ndarray, w: np.ndarray, *, places: Places, filters: int, lanes: int) -> np.ndarray:
    groups, _, _, _, _, steps, _ = w.shape
    n, _, h, wd, _ = x.shape
    each = filters // groups
    channels = np.moveaxis(x, -1, 2).reshape(n, -1, h, wd)[:, np.asarray(places)]  # [n, groups, steps, h, wd]
    columns = w.reshape(groups, -1, steps, w.shape[-1]).swapaxes(1, 2).reshape(groups, steps, -1)[..., :each]
    full = np.zeros((n, groups, ceil_div(each, lanes) * lanes, h, wd), x.dtype)
    full[:, :, :each] = np.einsum("ngkhw,gkf->ngfhw", channels, columns, optimize=True)
    return np.ascontiguousarray(np.moveaxis(full.reshape(n, -1, lanes, h, wd), 2, -1))


def _samples() -> Iterable[Sample]:
    x = np.linspace(-1, 1, 2 * 3 * 5 * 7 * 8, dtype=np.float32).reshape(2, 3, 5, 7, 8)
    for filters, places in (
        (6, ((0, 2, 4, 6, 8), (1, 3, 5, 7, 23))),  # a shuffle
        (19, ((9, 8, 3),)),
        (48, ((0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 20), (8, 9, 10, 11, 12, 13, 14, 15, 23, 22, 21, 19))),
    ):
        steps = len(places[0])
        w = np.linspace(0, 1, filters * steps, dtype=np.float32).reshape(filters, steps, 1, 1)
        assert pack_conv_weights.reference is not None
        packed = pack_conv_weights.reference(w, block=steps, columns=16, groups=len(places))
        yield Sample((x, packed), {"places": places, "filters": filters, "lanes": 8})


conv_picked = register(
    OpSpec(
        name="conv_picked",
        kind=Kind.ANCHOR,
        summary="Pointwise convolution of blocked activations whose channels `places` finds, group by group, among the lanes "
        "of all blocks; weights packed as one block. The result is that of conv_blocked.",
        infer=_type,
        reference=_reference,
        template="contraction",
        takes_epilogue=True,
        dense_images=True,
        made_by_passes=True,
        no_gradient=LATER,
        samples=_samples,
    )
)
