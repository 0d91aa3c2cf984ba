"""Blocked layouts: the operations that the layout pass puts into a graph, and the contractions that read them.

Activations of a convolution are stored with a block of channels innermost, so that a vector register holds channels:

    x[N, C, H, W]  ->  [N, groups * ceil(C/groups / size), H, W, size]

and its weights in the order in which the micro-kernel reads them (see graphc.kernels.contraction). Changing the layout
is an operation like any other, so constant folding packs weights at compile time and pairs of changes cancel.

Contractions of bfloat16 sum in float32 and give float32: nothing is rounded but the operands. Two steps are done at once
(`together`), so their number is even, and packed weights hold pairs of steps, [..., steps / 2, columns, 2].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from graphc.ir import scalar as s
from graphc.ir.dims import DimLike, ceil_div
from graphc.ir.dtypes import dtype_of
from graphc.ir.scalar import Scalar
from graphc.ir.types import TensorType
from graphc.ops.spec import Kind, Layout, OpSpec, Reader, Sample, expect, register

__all__ = [
    "block",
    "conv_blocked",
    "depthwise_blocked",
    "dot_packed",
    "pack_conv_weights",
    "pack_depthwise_weights",
    "pack_matrix",
    "summed_in",
    "together",
    "unblock",
    "window_output",
]

Pairs = tuple[tuple[int, int], ...]
LATER = "layouts are chosen after differentiation"


def together(dtype: object) -> int:
    """Steps that contractions of this element type do at once: two of bfloat16, which are 32 bits."""
    return 2 if str(dtype) == "bfloat16" else 1


def summed_in(dtype: object) -> str:
    """The element type of a contraction's sums, and of its results."""
    return "float32" if str(dtype) == "bfloat16" else str(dtype)


def _sums(t: TensorType, shape: Sequence[Any]) -> TensorType:
    """The type of a contraction's results for operands like `t`."""
    return TensorType(dtype_of(summed_in(t.dtype)), tuple(shape))


def _as_summed(x: np.ndarray) -> np.ndarray:
    """An operand as the numbers that are multiplied: exact in the element type of the sums."""
    return x.astype(summed_in(x.dtype.name), copy=False)


def _panel(steps: DimLike, columns: int, dtype: object) -> tuple[DimLike, ...]:
    """How steps and columns lie in a panel, padded to whole groups of steps."""
    pair = together(dtype)
    return (steps, columns) if pair == 1 else (ceil_div(steps, pair), columns, pair)


def _interleaved(panels: np.ndarray) -> np.ndarray:
    """[..., steps, columns], steps padded, as `_panel` says."""
    pair = together(panels.dtype.name)
    if pair == 1:
        return np.ascontiguousarray(panels)
    *others, steps, columns = panels.shape
    return np.ascontiguousarray(panels.reshape(*others, steps // pair, pair, columns).swapaxes(-1, -2))


def _unleaved(packed: np.ndarray) -> np.ndarray:
    """The inverse: [..., steps, columns], as the numbers that are multiplied."""
    if together(packed.dtype.name) > 1:
        packed = packed.swapaxes(-1, -2)
        packed = packed.reshape(*packed.shape[:-3], -1, packed.shape[-1])
    return _as_summed(packed)


# ------------------------------------------------------------------------------------------------ block and unblock


def _block_type(x: TensorType, *, size: int, groups: int = 1) -> TensorType:
    expect(x.rank >= 3, f"block: operand 0 is {x}; batch, channels and at least one more axis are needed")
    channels = x.shape[1]
    expect(
        not isinstance(channels, int) or channels % groups == 0,
        f"block: {channels} channels do not divide into {groups} groups",
    )
    return x.with_shape((x.shape[0], groups * ceil_div(channels // groups, size), *x.shape[2:], size))


def _block_reference(x: np.ndarray, *, size: int, groups: int = 1) -> np.ndarray:
    n, c, *spatial = x.shape
    each = c // groups
    blocks = ceil_div(each, size)
    full = np.zeros((n, groups, blocks * size, *spatial), x.dtype)
    full[:, :, :each] = x.reshape(n, groups, each, *spatial)
    return np.ascontiguousarray(np.moveaxis(full.reshape(n, groups * blocks, size, *spatial), 2, -1))


def _block_compute(
    result: TensorType,
    read: Reader | Callable[..., Scalar],
    index: Sequence[Scalar],
    *,
    size: int,
    groups: int = 1,
    channels: int,
) -> Scalar:
    n, cb, *spatial, lane = index
    each = channels // groups
    blocks = ceil_div(each, size)
    group, inside = (s.const(0), cb) if groups == 1 else (cb // blocks, cb % blocks)
    channel = inside * size + lane
    if each % size == 0:
        return read(n, group * each + channel, *spatial)
    # a lane past the last channel reads the last one and drops it
    value = read(n, group * each + s.scalar("minimum", channel, each - 1), *spatial)
    return s.select(channel < each, value, s.const(0, result.dtype))


def _block_view(layout: Layout, result: TensorType, *, size: int, groups: int = 1) -> Layout | None:
    n, c, *spatial = layout.shape
    if (c // groups) % size:
        return None
    sn, sc, *rest = layout.strides
    return Layout(layout.offset, (n, c // size, *spatial, size), (sn, sc * size, *rest, sc))


_X = np.arange(2 * 6 * 3 * 2, dtype=np.float32).reshape(2, 6, 3, 2)

block = register(
    OpSpec(
        name="block",
        kind=Kind.INJECTIVE,
        summary="Channels (axis 1) in blocks of `size`, the block innermost; groups are zero-padded to blocks.",
        infer=_block_type,
        reference=_block_reference,
        compute=lambda result, readers, index, *, size, groups=1: _block_compute(
            result,
            readers[0],
            index,
            size=size,
            groups=groups,
            channels=readers[0].type.static_shape[1],
        ),
        view=_block_view,
        made_by_passes=True,
        no_gradient=LATER,
        samples=lambda: [
            Sample((_X,), {"size": 2}),
            Sample((_X,), {"size": 4}),
            Sample((_X,), {"size": 2, "groups": 2}),
        ],
    )
)


def _unblock_type(x: TensorType, *, channels: int, groups: int = 1) -> TensorType:
    expect(x.rank >= 4, f"unblock: operand 0 is {x}; batch, blocks, at least one more axis and lanes are needed")
    n, cb, *spatial, size = x.shape
    expect(
        cb == groups * ceil_div(channels // groups, size),
        f"unblock: {cb} blocks of {size} do not hold {channels} channels in {groups} groups",
    )
    return x.with_shape((n, channels, *spatial))


def _unblock_reference(x: np.ndarray, *, channels: int, groups: int = 1) -> np.ndarray:
    n, cb, *spatial, size = x.shape
    full = np.moveaxis(x, -1, 2).reshape(n, groups, cb // groups * size, *spatial)
    return np.ascontiguousarray(full[:, :, : channels // groups].reshape(n, channels, *spatial))


def _unblock_compute(
    result: TensorType, readers: Sequence[Reader], index: Sequence[Scalar], *, channels: int, groups: int = 1
) -> Scalar:
    n, c, *spatial = index
    size, each = readers[0].type.static_shape[-1], channels // groups
    if groups == 1 or each % size == 0:
        return readers[0](n, c // size, *spatial, c % size)
    group, inside = c // each, c % each
    return readers[0](n, group * ceil_div(each, size) + inside // size, *spatial, inside % size)


def _unblock_view(layout: Layout, result: TensorType, *, channels: int, groups: int = 1) -> Layout | None:
    n, cb, *spatial, size = layout.shape
    sn, sb, *rest, lane = layout.strides
    one_stride = cb == 1 or sb == size * lane
    if not one_stride or (groups > 1 and (channels // groups) % size):
        return None
    return Layout(layout.offset, (n, channels, *spatial), (sn, lane, *rest))


unblock = register(
    OpSpec(
        name="unblock",
        kind=Kind.INJECTIVE,
        summary="The inverse of `block`: [N, blocks, *S, size] to [N, channels, *S].",
        infer=_unblock_type,
        reference=_unblock_reference,
        compute=_unblock_compute,
        view=_unblock_view,
        made_by_passes=True,
        no_gradient=LATER,
        samples=lambda: [
            Sample((_block_reference(_X, size=2),), {"channels": 6}),
            Sample((_block_reference(_X, size=4),), {"channels": 6}),
            Sample((_block_reference(_X, size=2, groups=2),), {"channels": 6, "groups": 2}),
        ],
    )
)

# ------------------------------------------------------------------------------------------------------ packed weights


def _pack_conv_type(w: TensorType, *, block: int, columns: int, groups: int = 1) -> TensorType:
    expect(w.rank == 4, f"pack_conv_weights: operand 0 is {w}; [filters, channels, rows, columns] is needed")
    o, c, kh, kw = w.static_shape
    expect(o % groups == 0, f"pack_conv_weights: {o} filters do not divide into {groups} groups")
    expect(
        block % together(w.dtype) == 0, f"pack_conv_weights: blocks of {block} channels, but {w.dtype} goes in pairs"
    )
    panel = _panel(block, columns, w.dtype)
    return w.with_shape((groups, ceil_div(o // groups, columns), ceil_div(c, block), kh, kw, *panel))


def _pack_conv_reference(w: np.ndarray, *, block: int, columns: int, groups: int = 1) -> np.ndarray:
    o, c, kh, kw = w.shape
    filters, panels, blocks = o // groups, ceil_div(o // groups, columns), ceil_div(c, block)
    full = np.zeros((groups, panels * columns, blocks * block, kh, kw), w.dtype)
    full[:, :filters, :c] = w.reshape(groups, filters, c, kh, kw)
    return _interleaved(full.reshape(groups, panels, columns, blocks, block, kh, kw).transpose(0, 1, 3, 5, 6, 4, 2))


def _plain_step(index: Sequence[Scalar], packed: TensorType) -> Sequence[Scalar]:
    """An index of packed weights with the number of the step in place of its pair."""
    if together(packed.dtype) == 1:
        return index
    *others, pair, column, half = index
    return (*others, pair * together(packed.dtype) + half, column)


def _pack_conv_compute(
    result: TensorType, readers: Sequence[Reader], index: Sequence[Scalar], *, block: int, columns: int, groups: int = 1
) -> Scalar:
    g, panel, cb, i, j, k, n = _plain_step(index, result)
    o, c, *_ = readers[0].type.static_shape
    filters = o // groups
    f, ch = panel * columns + n, cb * block + k
    inside = [cond for cond, exact in ((f < filters, filters % columns == 0), (ch < c, c % block == 0)) if not exact]
    f = f if filters % columns == 0 else s.scalar("minimum", f, filters - 1)
    ch = ch if c % block == 0 else s.scalar("minimum", ch, c - 1)
    value = readers[0](g * filters + f, ch, i, j)
    for condition in inside:
        value = s.select(condition, value, s.const(0, result.dtype))
    return value


_W = np.arange(6 * 3 * 2 * 2, dtype=np.float32).reshape(6, 3, 2, 2) + 1

pack_conv_weights = register(
    OpSpec(
        name="pack_conv_weights",
        kind=Kind.INJECTIVE,
        summary="Weights [O, C/groups, KH, KW] as [groups, panels, blocks, KH, KW, block, columns], zero padded; of "
        "bfloat16 as [..., block/2, columns, 2].",
        infer=_pack_conv_type,
        reference=_pack_conv_reference,
        compute=_pack_conv_compute,
        packs=True,
        made_by_passes=True,
        no_gradient=LATER,
        samples=lambda: [
            Sample((_W,), {"block": 2, "columns": 4}),
            Sample((_W,), {"block": 3, "columns": 2, "groups": 2}),
            Sample((_W.astype(ml_dtypes.bfloat16),), {"block": 4, "columns": 4}),
        ],
    )
)


def _pack_matrix_type(b: TensorType, *, columns: int) -> TensorType:
    expect(b.rank >= 2, f"pack_matrix: operand 0 is {b}, a matrix is needed")
    *batch, k, n = b.shape
    return b.with_shape((*batch, ceil_div(n, columns), *_panel(k, columns, b.dtype)))


def _pack_matrix_reference(b: np.ndarray, *, columns: int) -> np.ndarray:
    *batch, k, n = b.shape
    panels = ceil_div(n, columns)
    steps = k + -k % together(b.dtype.name)
    full = np.zeros((*batch, steps, panels * columns), b.dtype)
    full[..., :k, :n] = b
    return _interleaved(np.moveaxis(full.reshape(*batch, steps, panels, columns), -2, -3))


def _pack_matrix_compute(
    result: TensorType, readers: Sequence[Reader], index: Sequence[Scalar], *, columns: int
) -> Scalar:
    *batch, panel, k, lane = _plain_step(index, result)
    *_, steps, n = readers[0].type.static_shape
    column = panel * columns + lane
    odd, partial = steps % together(result.dtype) != 0, n % columns != 0
    value = readers[0](
        *batch,
        s.scalar("minimum", k, steps - 1) if odd else k,
        s.scalar("minimum", column, n - 1) if partial else column,
    )
    for condition in [k < steps] * odd + [column < n] * partial:
        value = s.select(condition, value, s.const(0, result.dtype))
    return value


pack_matrix = register(
    OpSpec(
        name="pack_matrix",
        kind=Kind.INJECTIVE,
        summary="Right operands [..., K, N] as panels [..., ceil(N/columns), K, columns], zero padded; of bfloat16 as "
        "[..., ceil(K/2), columns, 2].",
        infer=_pack_matrix_type,
        reference=_pack_matrix_reference,
        compute=_pack_matrix_compute,
        packs=True,
        made_by_passes=True,
        no_gradient=LATER,
        samples=lambda: [
            Sample((np.arange(30, dtype=np.float32).reshape(3, 10),), {"columns": 4}),
            Sample((np.arange(48, dtype=np.float64).reshape(2, 3, 8),), {"columns": 4}),
            Sample((np.arange(48).reshape(2, 3, 8).astype(ml_dtypes.bfloat16),), {"columns": 4}),
            Sample((np.arange(28).reshape(4, 7).astype(ml_dtypes.bfloat16),), {"columns": 4}),
        ],
    )
)


def _pack_depthwise_type(w: TensorType, *, size: int) -> TensorType:
    expect(
        w.rank == 4 and w.shape[1] == 1,
        f"pack_depthwise_weights: operand 0 is {w}; [channels, 1, rows, columns] is needed",
    )
    c, _, kh, kw = w.static_shape
    return w.with_shape((ceil_div(c, size), kh, kw, size))


pack_depthwise_weights = register(
    OpSpec(
        name="pack_depthwise_weights",
        kind=Kind.INJECTIVE,
        summary="Depthwise weights [C, 1, KH, KW] as [ceil(C/size), KH, KW, size], zero padded.",
        infer=_pack_depthwise_type,
        reference=lambda w, *, size: _block_reference(w.reshape(1, w.shape[0], *w.shape[2:]), size=size)[0],
        compute=lambda result, readers, index, *, size: _block_compute(
            result,
            lambda n, c, i, j: readers[0](c, s.const(0), i, j),
            (s.const(0), *index),
            size=size,
            channels=readers[0].type.static_shape[0],
        ),
        packs=True,
        made_by_passes=True,
        no_gradient=LATER,
        samples=lambda: [
            Sample((np.arange(5 * 9, dtype=np.float32).reshape(5, 1, 3, 3),), {"size": 4}),
            Sample((np.arange(4 * 2, dtype=np.float32).reshape(4, 1, 1, 2),), {"size": 2}),
        ],
    )
)

# ---------------------------------------------------------------------------------------------------- contractions


def window_output(
    shape: Sequence[Any], kernel: Sequence[int], strides: Sequence[int], padding: Pairs, dilation: Sequence[int]
) -> tuple[Any, ...]:
    """How many places a window has along each axis; `padding` is (before, after) for each."""
    return tuple(
        (n + lo + hi - d * (k - 1) - 1) // st + 1
        for n, k, st, (lo, hi), d in zip(shape, kernel, strides, padding, dilation, strict=True)
    )


def _conv_blocked_type(
    x: TensorType,
    w: TensorType,
    *,
    strides: Sequence[int],
    padding: Pairs,
    dilation: Sequence[int],
    filters: int,
    lanes: int,
) -> TensorType:
    expect(x.rank == 5, f"conv_blocked: operand 0 is {x}; [N, blocks, H, W, block] is needed")
    expect(x.dtype == w.dtype, f"conv_blocked: operand 1 is {w.dtype} but operand 0 is {x.dtype}")
    rank = 7 if together(w.dtype) == 1 else 8
    expect(w.rank == rank, f"conv_blocked: operand 1 is {w}; weights packed by pack_conv_weights are needed")
    groups, panels, blocks, kh, kw, size, columns, *_ = w.static_shape
    size *= together(w.dtype)
    expect(x.shape[1] == groups * blocks and x.shape[4] == size, f"conv_blocked: {x} does not go with weights {w}")
    expect(
        filters % groups == 0 and panels == ceil_div(filters // groups, columns),
        f"conv_blocked: {w} does not hold {filters} filters",
    )
    out = window_output(x.shape[2:4], (kh, kw), strides, padding, dilation)
    return _sums(x, (x.shape[0], groups * ceil_div(filters // groups, lanes), *out, lanes))


def _conv_blocked_reference(
    x: np.ndarray,
    w: np.ndarray,
    *,
    strides: Sequence[int],
    padding: Pairs,
    dilation: Sequence[int],
    filters: int,
    lanes: int,
) -> np.ndarray:
    x, w = _as_summed(x), _unleaved(w)
    groups, panels, blocks, kh, kw, size, columns = w.shape
    n, _, h, wd, _ = x.shape
    each = filters // groups
    out_blocks = ceil_div(each, lanes)
    oh, ow = window_output((h, wd), (kh, kw), strides, padding, dilation)
    xp = np.pad(x, ((0, 0), (0, 0), *padding, (0, 0))).reshape(
        n, groups, blocks, h + sum(padding[0]), wd + sum(padding[1]), size
    )
    y = np.zeros((n, groups, oh, ow, panels * columns), x.dtype)
    for i in range(kh):
        for j in range(kw):
            tap = xp[:, :, :, i * dilation[0] :, j * dilation[1] :][
                :, :, :, : (oh - 1) * strides[0] + 1 : strides[0], : (ow - 1) * strides[1] + 1 : strides[1]
            ]
            y += np.einsum("ngbhwc,gpbck->nghwpk", tap, w[:, :, :, i, j], optimize=True).reshape(y.shape)
    full = np.zeros((n, groups, oh, ow, out_blocks * lanes), x.dtype)
    full[..., :each] = y[..., :each]
    return np.ascontiguousarray(
        full.reshape(n, groups, oh, ow, out_blocks, lanes)
        .transpose(0, 1, 4, 2, 3, 5)
        .reshape(n, groups * out_blocks, oh, ow, lanes)
    )


def _conv_samples() -> Iterable[Sample]:
    for groups, filters, stride, pad in ((1, 5, 1, 1), (2, 6, 2, 0), (1, 8, 1, 0)):
        x = _block_reference(
            _X[..., None, :].repeat(2, 3).reshape(2, 6, 6, 2), size=4 if groups == 1 else 3, groups=groups
        )
        w = np.linspace(-1, 1, filters * (6 // groups) * 2 * 2, dtype=np.float32).reshape(filters, 6 // groups, 2, 2)
        packed = _pack_conv_reference(w, block=x.shape[-1], columns=8, groups=groups)
        half = [v.astype(ml_dtypes.bfloat16) for v in (x, w)]
        attrs = {
            "strides": (stride, 1),
            "padding": ((pad, 0), (0, pad)),
            "dilation": (1, 1),
            "filters": filters,
            "lanes": 4,
        }
        yield Sample((x, packed), attrs)
        if groups == 1:
            narrow = _pack_conv_reference(half[1], block=x.shape[-1], columns=8)
            yield Sample((half[0], narrow), attrs)


conv_blocked = register(
    OpSpec(
        name="conv_blocked",
        kind=Kind.ANCHOR,
        summary="Convolution of blocked activations with packed weights: [N, groups * ceil(filters/groups / lanes), "
        "OH, OW, lanes]; lanes past the last filter of a group are 0. Of bfloat16 numbers it is summed in, and gives, float32.",
        infer=_conv_blocked_type,
        reference=_conv_blocked_reference,
        template="contraction",
        takes_epilogue=True,
        dense_images=True,
        made_by_passes=True,
        no_gradient=LATER,
        samples=_conv_samples,
    )
)


def _dot_packed_type(a: TensorType, b: TensorType, *, columns_total: int) -> TensorType:
    rank = 3 if together(b.dtype) == 1 else 4
    expect(
        a.rank >= 2 and b.rank >= rank, f"dot_packed: operands are {a} and {b}; a matrix and packed panels are needed"
    )
    expect(a.dtype == b.dtype, f"dot_packed: operand 1 is {b.dtype} but operand 0 is {a.dtype}")
    *batch, panels, k, columns = b.shape[: b.rank - (together(b.dtype) > 1)]
    k = k * together(b.dtype)
    expect(a.shape[-1] == k, f"dot_packed: operand 0 has {a.shape[-1]} columns but operand 1 holds {k} rows")
    expect(tuple(batch) in ((), a.shape[:-2]), f"dot_packed: batches of {a} and {b} differ")
    expect(panels == ceil_div(columns_total, columns), f"dot_packed: {b} does not hold {columns_total} columns")
    return _sums(a, (*a.shape[:-1], columns_total))


def _dot_packed_reference(a: np.ndarray, b: np.ndarray, *, columns_total: int) -> np.ndarray:
    b = _unleaved(b)
    *batch, panels, k, columns = b.shape
    unpacked = np.moveaxis(b, -3, -2).reshape(*batch, k, panels * columns)[..., :columns_total]
    return np.matmul(_as_summed(a), unpacked)


dot_packed = register(
    OpSpec(
        name="dot_packed",
        kind=Kind.ANCHOR,
        summary="Matrix product of a[..., M, K] and an operand packed by pack_matrix (one, or one a batch). Of bfloat16 "
        "numbers it is summed in, and gives, float32; K is then even.",
        infer=_dot_packed_type,
        reference=_dot_packed_reference,
        template="contraction",
        takes_epilogue=True,
        made_by_passes=True,
        no_gradient=LATER,
        samples=lambda: [
            Sample(
                (
                    np.linspace(-1, 1, m * k).reshape(m, k).astype(t),
                    _pack_matrix_reference(np.linspace(0, 2, k * n).reshape(k, n).astype(t), columns=8),
                ),
                {"columns_total": n},
            )
            for m, n, k, t in (
                (1, 5, 7, np.float32),
                (13, 16, 7, np.float32),
                (4, 19, 7, np.float64),
                (9, 19, 8, ml_dtypes.bfloat16),
            )
        ],
    )
)


def _depthwise_type(
    x: TensorType, w: TensorType, *, strides: Sequence[int], padding: Pairs, dilation: Sequence[int]
) -> TensorType:
    expect(
        x.rank == 5 and w.rank == 4,
        f"depthwise_blocked: operands are {x} and {w}; [N, blocks, H, W, size] and [blocks, KH, KW, size] are needed",
    )
    expect(x.dtype == w.dtype, f"depthwise_blocked: operand 1 is {w.dtype} but operand 0 is {x.dtype}")
    expect((x.shape[1], x.shape[4]) == (w.shape[0], w.shape[3]), f"depthwise_blocked: {x} does not go with weights {w}")
    out = window_output(x.shape[2:4], w.static_shape[1:3], strides, padding, dilation)
    return x.with_shape((*x.shape[:2], *out, x.shape[4]))


def _depthwise_reference(
    x: np.ndarray, w: np.ndarray, *, strides: Sequence[int], padding: Pairs, dilation: Sequence[int]
) -> np.ndarray:
    _, kh, kw, _ = w.shape
    oh, ow = window_output(x.shape[2:4], (kh, kw), strides, padding, dilation)
    xp = np.pad(x, ((0, 0), (0, 0), *padding, (0, 0)))
    y = np.zeros((*x.shape[:2], oh, ow, x.shape[4]), x.dtype)
    for i in range(kh):
        for j in range(kw):
            tap = xp[:, :, i * dilation[0] :, j * dilation[1] :][
                :, :, : (oh - 1) * strides[0] + 1 : strides[0], : (ow - 1) * strides[1] + 1 : strides[1]
            ]
            y += tap * w[:, i, j][None, :, None, None]
    return y


depthwise_blocked = register(
    OpSpec(
        name="depthwise_blocked",
        kind=Kind.ANCHOR,
        summary="Convolution of each channel with its own filter, on blocked activations.",
        infer=_depthwise_type,
        reference=_depthwise_reference,
        template="depthwise",
        takes_epilogue=True,
        dense_images=True,
        made_by_passes=True,
        no_gradient=LATER,
        samples=lambda: [
            Sample(
                (
                    np.linspace(-1, 1, 2 * 2 * 5 * 6 * 4, dtype=np.float32).reshape(2, 2, 5, 6, 4),
                    np.linspace(0, 1, 2 * 9 * 4, dtype=np.float32).reshape(2, 3, 3, 4),
                ),
                {"strides": (stride, stride), "padding": ((1, 1), (1, 0)), "dilation": (1, 1)},
            )
            for stride in (1, 2)
        ],
    )
)
