"""Convolutions by minimal filtering (see graphc.ops.minimal), as the layout pass puts them into a graph.

An output tile of `tile` pixels is computed from as many products as its input tile has elements: both image and
weights are brought to the points of the filtering, multiplied there (a matrix product over the channels at each
point), and brought back. The weights are brought there when they are packed:

    w[O, C/groups, KH, KW]  ->  [groups, panels, points, blocks * block, columns]

A convolution of stride (s, t) and few channels is one of stride 1 over the s * t phases of its image. `phases` packs its
weights for that: channel c of phase (i, j) is channel (i * t + j) * deep + c, and its taps are every s-th and t-th from
(i, j) on. With many channels it is a filtering of these strides, whose tiles hold all phases.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from graphc.ir.dims import ceil_div
from graphc.ir.graph import Node, Value
from graphc.ir.types import TensorType
from graphc.ops.injective import tensor_operand
from graphc.ops.layout import LATER, Pairs
from graphc.ops.minimal import Filtering, filtering, points
from graphc.ops.spec import REGISTRY, Kind, OpSpec, Sample, expect, register

__all__ = ["conv_winograd", "pack_winograd_weights"]


def _axes(tile: Sequence[int], kernel: Sequence[int], strides: Sequence[int]) -> list[Filtering]:
    """The filterings down and along."""
    return [filtering(*axis) for axis in zip(tile, kernel, strides, strict=True)]


def _weigh(tile: Sequence[int], kernel: Sequence[int], strides: Sequence[int]) -> np.ndarray:
    """float64 [points, kernel rows * kernel columns]: a filter's taps to its values at the points."""
    down, along = (f.array("weigh") for f in _axes(tile, kernel, strides))
    return np.kron(down, along)


# ------------------------------------------------------------------------------------------------------------ weights


Pair = tuple[int, int]


def _window(kernel: Sequence[int], phases: Pair) -> tuple[int, ...]:
    """The taps of a phase, down and along."""
    return tuple(ceil_div(k, p) for k, p in zip(kernel, phases, strict=True))


def _pack_type(
    w: TensorType,
    *,
    tile: Pair,
    block: int,
    columns: int,
    groups: int = 1,
    phases: Pair = (1, 1),
    strides: Pair = (1, 1),
    deep: int,
) -> TensorType:
    w = tensor_operand("pack_winograd_weights", 0, w)
    expect(w.rank == 4, f"pack_winograd_weights: operand 0 is {w}; [filters, channels, rows, columns] is needed")
    o, c, *kernel = w.static_shape
    expect(o % groups == 0, f"pack_winograd_weights: {o} filters do not divide into {groups} groups")
    expect(deep >= c, f"pack_winograd_weights: {c} channels do not fit into {deep}")
    channels = ceil_div(phases[0] * phases[1] * deep, block) * block
    count = points(tile, _window(kernel, phases), strides)
    return w.with_shape((groups, ceil_div(o // groups, columns), count, channels, columns))


def _pack_reference(
    w: np.ndarray,
    *,
    tile: Pair,
    block: int,
    columns: int,
    groups: int = 1,
    phases: Pair = (1, 1),
    strides: Pair = (1, 1),
    deep: int,
) -> np.ndarray:
    o, c, *kernel = w.shape
    (down, along), window, filters = phases, _window(kernel, phases), o // groups
    weigh = _weigh(tile, window, strides)
    channels = ceil_div(down * along * deep, block) * block
    result = np.zeros((groups, ceil_div(filters, columns), len(weigh), channels, columns), w.dtype)
    for g, panels in enumerate(result):
        for p, panel in enumerate(panels):  # a panel at a time: float64 takes room
            part = w[g * filters + p * columns : min((g + 1) * filters, g * filters + (p + 1) * columns)]
            for k in range(down * along):
                taps = np.zeros((*part.shape[:2], *window))
                chosen = part[:, :, k // along :: down, k % along :: along]
                taps[:, :, : chosen.shape[2], : chosen.shape[3]] = chosen
                at_points = (weigh @ taps.reshape(len(part) * c, -1).T).reshape(len(weigh), len(part), c)
                panel[:, k * deep : k * deep + c, : len(part)] = at_points.transpose(0, 2, 1)
    return result


def _pack_decompose(node: Node) -> tuple[Value, ...]:
    """weights at the points = a matrix product with the taps of each phase, then packed"""
    make = {name: REGISTRY[name] for name in ("dot", "pad", "reshape", "transpose")}
    (w,), a = node.inputs, node.attrs
    groups, panels, points, channels, columns = node.outputs[0].tensor.static_shape
    o, c, *kernel = w.tensor.static_shape
    phases, zero = a.get("phases", (1, 1)), np.zeros((), w.dtype.numpy)
    (down, along), window = phases, _window(kernel, phases)
    room = (0, a["deep"] - c, window[0] * down - kernel[0], window[1] * along - kernel[1])
    taps = make["reshape"](
        make["pad"](w, zero, low=(0,) * 4, high=room), shape=(o, a["deep"], window[0], down, window[1], along)
    )
    depth = down * along * a["deep"]
    taps = make["reshape"](make["transpose"](taps, perm=(0, 3, 5, 1, 2, 4)), shape=(o * depth, window[0] * window[1]))
    at_points = make["dot"](taps, _weigh(a["tile"], window, a.get("strides", (1, 1))).T.astype(w.dtype.numpy))
    grouped = make["reshape"](at_points, shape=(groups, o // groups, depth, points))
    padded = make["pad"](grouped, zero, low=(0,) * 4, high=(0, panels * columns - o // groups, channels - depth, 0))
    apart = make["reshape"](padded, shape=(groups, panels, columns, channels, points))
    return (make["transpose"](apart, perm=(0, 1, 4, 3, 2)),)


_W = np.linspace(-1, 1, 6 * 3 * 3 * 3, dtype=np.float32).reshape(6, 3, 3, 3)

pack_winograd_weights = register(
    OpSpec(
        name="pack_winograd_weights",
        kind=Kind.ANCHOR,
        summary="Weights [O, C/groups, KH, KW] at the points of a minimal filtering, [groups, panels, points, channels, "
        "columns], zero padded.",
        infer=_pack_type,
        reference=_pack_reference,
        decompose=_pack_decompose,
        packs=True,
        made_by_passes=True,
        samples=lambda: [
            Sample((_W,), {"tile": (2, 2), "block": 2, "columns": 4, "groups": 1, "phases": (1, 1), "deep": 3}),
            Sample((_W,), {"tile": (4, 4), "block": 4, "columns": 2, "groups": 2, "phases": (1, 1), "deep": 3}),
            Sample(
                (_W[:, :, :1],), {"tile": (1, 4), "block": 4, "columns": 4, "groups": 1, "phases": (1, 1), "deep": 3}
            ),
            Sample((_W,), {"tile": (3, 5), "block": 4, "columns": 4, "groups": 1, "phases": (2, 2), "deep": 3}),
            Sample((_W,), {"tile": (3, 2), "block": 4, "columns": 4, "groups": 1, "phases": (2, 1), "deep": 4}),
            Sample((_W,), {"tile": (3, 2), "block": 4, "columns": 4, "groups": 2, "strides": (2, 2), "deep": 4}),
        ],
    )
)

# -------------------------------------------------------------------------------------------------------- convolution


def _conv_type(
    x: TensorType,
    w: TensorType,
    *,
    kernel: Pair,
    tile: Pair,
    padding: Pairs,
    filters: int,
    lanes: int,
    strides: Pair = (1, 1),
    pool: Pair = (1, 1),
) -> TensorType:
    x, w = tensor_operand("conv_winograd", 0, x), tensor_operand("conv_winograd", 1, w)
    expect(x.rank == 5, f"conv_winograd: operand 0 is {x}; [N, blocks, H, W, block] is needed")
    expect(w.rank == 5, f"conv_winograd: operand 1 is {w}; weights packed by pack_winograd_weights are needed")
    expect(x.dtype == w.dtype, f"conv_winograd: operand 1 is {w.dtype} but operand 0 is {x.dtype}")
    groups, panels, held, deep, columns = w.static_shape
    needed = points(tile, kernel, strides)
    expect(held == needed, f"conv_winograd: {w} does not hold {needed} points")
    expect(x.shape[1] * x.shape[4] == groups * deep, f"conv_winograd: {x} does not go with weights {w}")
    expect(
        filters % groups == 0 and panels == ceil_div(filters // groups, columns),
        f"conv_winograd: {w} does not hold {filters} filters",
    )
    expect(
        all(m % p == 0 for m, p in zip(tile, pool, strict=True)),
        f"conv_winograd: tiles {tile} cut through windows {pool}",
    )
    window = zip(x.shape[2:4], padding, kernel, strides, strict=True)
    out = ((n + sum(pad) - k) // s + 1 for n, pad, k, s in window)
    pooled = (o // p for o, p in zip(out, pool, strict=True))
    return x.with_shape((x.shape[0], groups * ceil_div(filters // groups, lanes), *pooled, lanes))


def _conv_reference(
    x: np.ndarray,
    w: np.ndarray,
    *,
    kernel: Pair,
    tile: Pair,
    padding: Pairs,
    filters: int,
    lanes: int,
    strides: Pair = (1, 1),
    pool: Pair = (1, 1),
) -> np.ndarray:
    groups, _, points, deep, _ = w.shape
    n, _, h, wd, _ = x.shape
    each, axes = filters // groups, _axes(tile, kernel, strides)
    window = zip((h, wd), padding, kernel, strides, strict=True)
    out = [(size + sum(pad) - k) // s + 1 for size, pad, k, s in window]
    tiles = [ceil_div(o, m) for o, m in zip(out, tile, strict=True)]
    plain = x.transpose(0, 1, 4, 2, 3).reshape(n, groups, deep, h, wd)
    steps = [m * f.stride for m, f in zip(tile, axes, strict=True)]  # from tile to tile, in the image
    reach = [(t - 1) * step + f.inputs for t, step, f in zip(tiles, steps, axes, strict=True)]
    full = np.zeros((n, groups, deep, *(max(r, s + sum(p)) for r, s, p in zip(reach, (h, wd), padding, strict=True))))
    full[..., padding[0][0] : padding[0][0] + h, padding[1][0] : padding[1][0] + wd] = plain
    pieces = np.stack(
        [
            np.stack(
                [
                    full[..., i * steps[0] :, j * steps[1] :][..., : axes[0].inputs, : axes[1].inputs]
                    for j in range(tiles[1])
                ],
                axis=3,
            )
            for i in range(tiles[0])
        ],
        axis=3,
    )  # fmt: skip  [n, groups, deep, tile rows, tile columns, inputs, inputs]
    evaluate = np.kron(axes[0].array("evaluate"), axes[1].array("evaluate"))
    interpolate = np.kron(axes[0].array("interpolate"), axes[1].array("interpolate"))
    at_points = pieces.reshape(*pieces.shape[:5], points) @ evaluate.T
    weights = w.transpose(0, 2, 3, 1, 4).reshape(groups, points, deep, -1)[..., :each]
    products = np.einsum("ngcijp,gpcf->ngfijp", at_points, weights, optimize=True)
    y = (products @ interpolate.T).reshape(n, groups, each, *tiles, *tile).transpose(0, 1, 2, 3, 5, 4, 6)
    y = y.reshape(n, groups, each, tiles[0] * tile[0], tiles[1] * tile[1])[..., : out[0], : out[1]]
    (down, along), blocks = pool, ceil_div(each, lanes)
    out = [out[0] // down, out[1] // along]
    y = y[..., : out[0] * down, : out[1] * along].reshape(n, groups, each, out[0], down, out[1], along).max(axis=(4, 6))
    result = np.zeros((n, groups, blocks * lanes, *out), x.dtype)
    result[:, :, :each] = y
    return np.ascontiguousarray(result.reshape(n, groups * blocks, lanes, *out).transpose(0, 1, 3, 4, 2))


def _conv_samples() -> Iterable[Sample]:
    for tile, kernel, groups, filters, padding, more in (
        ((2, 2), (3, 3), 1, 5, ((1, 1), (1, 1)), {}),
        ((4, 4), (3, 3), 2, 6, ((0, 1), (2, 0)), {}),
        ((1, 4), (1, 3), 1, 8, ((0, 0), (1, 1)), {}),
        ((2, 4), (5, 3), 1, 3, ((2, 2), (0, 0)), {}),
        ((4, 4), (3, 3), 1, 5, ((1, 1), (1, 1)), {"pool": (2, 2)}),
        ((2, 4), (5, 3), 2, 6, ((2, 2), (0, 0)), {"pool": (1, 4)}),
        ((2, 3), (3, 3), 1, 5, ((1, 1), (1, 0)), {"strides": (2, 2)}),
        ((2, 4), (3, 5), 2, 6, ((0, 1), (2, 2)), {"strides": (1, 2), "pool": (1, 2)}),
    ):
        x = np.linspace(-1, 1, 2 * groups * 2 * 6 * 7 * 4, dtype=np.float32).reshape(2, groups * 2, 6, 7, 4)
        size = filters * 8 * kernel[0] * kernel[1]
        w = np.linspace(-1, 1, size, dtype=np.float32).reshape(filters, 8, *kernel)
        strides = more.get("strides", (1, 1))
        packed = _pack_reference(w, tile=tile, block=4, columns=8, groups=groups, strides=strides, deep=8)
        attrs = {"kernel": kernel, "tile": tile, "padding": padding, "filters": filters, "lanes": 4}
        yield Sample((x, packed), attrs | more)


conv_winograd = register(
    OpSpec(
        name="conv_winograd",
        kind=Kind.ANCHOR,
        summary="Convolution of blocked activations, of dilation 1, by minimal filtering of output tiles; the "
        "result is that of conv_blocked up to rounding, or the largest pixels of it in windows `pool` side by side.",
        infer=_conv_type,
        reference=_conv_reference,
        template="winograd",
        takes_epilogue=True,
        dense_images=True,
        made_by_passes=True,
        no_gradient=LATER,
        samples=_conv_samples,
    )
)
