"""Convolutions over any number of spatial dimensions, channels first."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from graphc import ops
from graphc.ir.dims import DimLike, ceil_div
from graphc.ir.graph import Node, Value, make
from graphc.ir.types import TensorType
from graphc.ops.batching import case_by_case, move_axis
from graphc.ops.gradient import by_operand
from graphc.ops.injective import pad, reshape, slice_, tensor_operand, transpose
from graphc.ops.linalg import exact
from graphc.ops.reduce import like, window_extent, windows
from graphc.ops.spec import Kind, OpSpec, Sample, expect, register

__all__ = ["conv", "conv_transpose"]

Ints = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]


def _conv_type(
    x: TensorType, w: TensorType, *, strides: Ints, padding: Padding, dilation: Ints, groups: int = 1
) -> TensorType:
    tensor_operand("conv", 0, x)
    tensor_operand("conv", 1, w)
    spatial = x.rank - 2
    expect(x.dtype == w.dtype and x.dtype.is_numeric, f"conv: input {x} and weights {w} need the same numeric type")
    expect(
        spatial >= 1 and w.rank == x.rank,
        f"conv: input {x} and weights {w} need the same rank, at least 3 (batch, channels, spatial dimensions)",
    )
    for what, values in {"strides": strides, "padding": padding, "dilation": dilation}.items():
        expect(len(values) == spatial, f"conv: {what} has {len(values)} entries for {spatial} spatial dimensions")
    expect(
        all(v > 0 for v in (*strides, *dilation)),
        f"conv: strides {list(strides)} and dilation {list(dilation)} must be positive",
    )
    expect(
        all(v >= 0 for p in padding for v in p), f"conv: padding {list(padding)} is negative; slice the input instead"
    )
    window = w.shape[2:]
    expect(
        all(isinstance(k, int) and k > 0 for k in window),
        f"conv: the window of the weights {w} must be known and not empty",
    )
    channels, per_group, outs = x.shape[1], w.shape[1], w.shape[0]
    expect(
        groups >= 1
        and (channels == per_group * groups or not (isinstance(channels, int) and isinstance(per_group, int))),
        f"conv: input {x} has {channels} channels, weights {w} with {groups} groups need {per_group * groups}",
    )
    expect(
        not isinstance(outs, int) or outs % groups == 0,
        f"conv: {outs} output channels do not split into {groups} groups",
    )
    extents = (
        window_extent(d, k, s, p, e)  # type: ignore[arg-type]
        for d, k, s, p, e in zip(x.shape[2:], window, strides, padding, dilation, strict=True)
    )
    return x.with_shape((x.shape[0], outs, *extents))


def _conv_reference(
    x: np.ndarray, w: np.ndarray, *, strides: Ints, padding: Padding, dilation: Ints, groups: int = 1
) -> np.ndarray:
    """Every window laid out as a row (im2col), then a matrix product a group."""
    x, w = np.asarray(x), np.asarray(w)
    spatial = x.ndim - 2
    view = windows(exact(x), 0, tuple(range(2, x.ndim)), w.shape[2:], strides, padding, dilation)
    per_group = w.shape[1]
    parts = []
    for g, filters in enumerate(np.split(exact(w), groups)):
        inside = view[:, g * per_group : (g + 1) * per_group]
        contracted = [1, *range(2 + spatial, 2 + 2 * spatial)]
        parts.append(np.moveaxis(np.tensordot(inside, filters, (contracted, list(range(1, w.ndim)))), -1, 1))
    return like(np.concatenate(parts, 1), x)


def _conv_samples() -> Iterable[Sample]:
    draw = np.random.default_rng(0).standard_normal

    def case(x: Sequence[int], w: Sequence[int], dtype: Any = np.float32, **changes: Any) -> Sample:
        n = len(x) - 2
        attrs = {"strides": (1,) * n, "padding": ((0, 0),) * n, "dilation": (1,) * n, "groups": 1, **changes}
        return Sample(((3 * draw(x)).astype(dtype), (3 * draw(w)).astype(dtype)), attrs)

    yield case((1, 3, 9, 8), (4, 3, 3, 3), padding=((1, 1), (1, 1)))
    yield case((2, 8, 7, 7), (16, 8, 1, 1))
    yield case((2, 5, 11, 6), (7, 5, 3, 2), strides=(2, 1), padding=((1, 0), (0, 2)))
    yield case((1, 6, 9, 9), (4, 3, 3, 3), dilation=(2, 3), padding=((2, 2), (1, 3)), groups=2)
    yield case((1, 8, 6, 6), (8, 1, 3, 3), padding=((1, 1), (1, 1)), groups=8)
    yield case((2, 3, 12), (4, 3, 5), strides=(3,))
    yield case((1, 2, 4, 5, 6), (3, 2, 2, 2, 3))
    yield case((1, 3, 6, 6), (4, 3, 3, 3), np.float64)
    yield case((1, 3, 6, 6), (4, 3, 3, 3), np.float16)
    yield case((1, 3, 6, 6), (4, 3, 3, 3), ml_dtypes.bfloat16)
    yield case((1, 3, 6, 6), (4, 3, 3, 3), np.int32)
    yield case((0, 3, 6, 6), (4, 3, 3, 3))


def _conv_batch(node: Node, operands: tuple[Value, ...], batched: tuple[bool, ...], size: DimLike) -> Sequence[Value]:
    """The cases are more images, more filters of each group, or more groups."""
    (x, w), groups = operands, node.attrs.get("groups", 1)
    if not batched[1]:
        y = make(node.op, reshape(x, shape=(size * x.shape[1], *x.shape[2:])), w, **node.attrs)[0]
        return [reshape(y, shape=(size, x.shape[1], *y.shape[1:]))]
    outs = w.shape[1] // groups
    filters = reshape(w, shape=(size, groups, outs, *w.shape[2:]))
    if not batched[0]:
        filters = reshape(move_axis(filters, 0, 1), shape=(size * w.shape[1], *w.shape[2:]))
        y = make(node.op, x, filters, **node.attrs)[0]
        return [_unfold(y, (groups, size, outs), 1)]
    if not isinstance(size, int):  # the number of groups must be known
        return case_by_case(node, operands, batched, size)
    images = reshape(move_axis(x, 0, 1), shape=(x.shape[1], size * x.shape[2], *x.shape[3:]))
    filters = reshape(w, shape=(size * w.shape[1], *w.shape[2:]))
    y = make(node.op, images, filters, **{**node.attrs, "groups": size * groups})[0]
    return [_unfold(y, (size, groups, outs), 0)]


def _unfold(y: Value, folded: Sequence[DimLike], cases: int) -> Value:
    """y[N, C, ...] with its channels taken apart into three axes, and that of the cases put in front."""
    apart = reshape(y, shape=(y.shape[0], *folded, *y.shape[2:]))
    first = move_axis(apart, 1 + cases, 0)
    return reshape(first, shape=(*first.shape[:2], first.shape[2] * first.shape[3], *first.shape[4:]))


conv = register(
    OpSpec(
        name="conv",
        kind=Kind.ANCHOR,
        template="contraction",
        summary="Cross-correlation of x[N, C, *S] with w[O, C/groups, *K], padded with zeros; no bias.",
        infer=_conv_type,
        reference=_conv_reference,
        takes_epilogue=True,
        gradient=by_operand(
            lambda g, x, w, y, **window: _input_cotangent(g, x, w, **window),
            lambda g, x, w, y, **window: _weight_cotangent(g, x, w, **window),
        ),
        batch=_conv_batch,
        samples=_conv_samples,
    )
)

# --------------------------------------------------------------------------------------------------------- gradients


def _input_cotangent(
    g: Value, x: Value, w: Value, *, strides: Ints, padding: Padding, dilation: Ints, groups: int = 1
) -> Value:
    """The transposed convolution of g[N, O, *Q] with the same weights, as long as x."""
    windows = zip(x.shape[2:], g.shape[2:], w.shape[2:], strides, padding, dilation, strict=True)
    # what the last windows did not reach
    rest = [d + low + high - ((q - 1) * s + (k - 1) * e + 1) for d, q, k, s, (low, high), e in windows]
    return conv_transpose(g, w, strides=strides, padding=padding, dilation=dilation, groups=groups, output_padding=rest)


def _weight_cotangent(
    g: Value, x: Value, w: Value, *, strides: Ints, padding: Padding, dilation: Ints, groups: int = 1
) -> Value:
    """dw[o, c, k] = sum over n, q of g[n, o, q] x[n, c, q stride + k dilation - low], in the cheapest of three ways."""
    channels, filters = w.shape[1], w.shape[0]
    if groups > 1 and channels == 1 and filters == groups:
        return _tap_by_tap(_sum_of_products, g, x, w, strides, padding, dilation, groups)
    if math.prod(w.shape[2:]) == 1 or not all(isinstance(q, int) for q in g.shape[2:]):
        return _tap_by_tap(_matrix_product, g, x, w, strides, padding, dilation, groups)
    return _as_convolution(g, x, w, strides, padding, dilation, groups)


def _as_convolution(
    g: Value, x: Value, w: Value, strides: Ints, padding: Padding, dilation: Ints, groups: int
) -> Value:
    """A convolution of x with the window g whose channels are the batch: batch and channels change places, and so do
    stride and dilation. The groups of channels become groups of the batch."""
    batch, spatial = x.shape[0], x.rank - 2
    channels = w.shape[1]
    rest = range(3, 3 + spatial)
    image = reshape(x, shape=(batch, groups, channels, *x.shape[2:]))
    image = reshape(transpose(image, perm=(2, 1, 0, *rest)), shape=(channels, groups * batch, *x.shape[2:]))
    window = transpose(g, perm=(1, 0, *range(2, 2 + spatial)))
    # at the end, what makes exactly K positions; elements that no window of the forward pass reached are cut off
    ends = [
        (k - 1) * e + (q - 1) * s + 1 - low - d
        for d, q, k, s, (low, _), e in zip(
            x.shape[2:], g.shape[2:], w.shape[2:], strides, padding, dilation, strict=True
        )
    ]
    stops = (channels, groups * batch, *(d + min(end, 0) for d, end in zip(x.shape[2:], ends, strict=True)))
    if stops != image.shape:
        image = slice_(image, starts=(0,) * x.rank, stops=stops, steps=(1,) * x.rank)
    found = conv(
        image,
        window,
        strides=dilation,
        padding=tuple((low, max(end, 0)) for (low, _), end in zip(padding, ends, strict=True)),
        dilation=strides,
        groups=groups,
    )
    return transpose(found, perm=(1, 0, *range(2, 2 + spatial)))


def _tap_by_tap(
    contract: Callable[[Value, Value, int], Value],
    g: Value,
    x: Value,
    w: Value,
    strides: Ints,
    padding: Padding,
    dilation: Ints,
    groups: int,
) -> Value:
    """For each position of the window a contraction of g with the elements of x under it: [O, C/groups] each."""
    padded = pad(
        x, np.zeros((), x.dtype.numpy), low=(0, 0, *(p[0] for p in padding)), high=(0, 0, *(p[1] for p in padding))
    )
    parts = []
    for taps in itertools.product(*(range(k) for k in w.shape[2:])):
        starts = [tap * e for tap, e in zip(taps, dilation, strict=True)]
        stops = [a + (q - 1) * s + 1 for a, q, s in zip(starts, g.shape[2:], strides, strict=True)]
        under = slice_(padded, starts=(0, 0, *starts), stops=(*x.shape[:2], *stops), steps=(1, 1, *strides))
        parts.append(reshape(contract(g, under, groups), shape=(*w.shape[:2], 1)))
    return reshape(ops.concat(*parts, axis=2), shape=w.shape)


def _matrix_product(g: Value, x: Value, groups: int) -> Value:
    """[O, C/groups] of g[N, O, *Q] and x[N, C, *Q]: for each group [O/groups, N Q] [N Q, C/groups]."""
    (batch, filters), channels, pixels = g.shape[:2], x.shape[1], math.prod(g.shape[2:])
    rows = reshape(g, shape=(batch, groups, filters // groups, pixels))
    rows = reshape(transpose(rows, perm=(1, 2, 0, 3)), shape=(groups, filters // groups, batch * pixels))
    columns = reshape(x, shape=(batch, groups, channels // groups, pixels))
    columns = reshape(transpose(columns, perm=(1, 0, 3, 2)), shape=(groups, batch * pixels, channels // groups))
    return ops.dot(rows, columns)


def _sum_of_products(g: Value, x: Value, groups: int) -> Value:
    """[C] of g[N, C, *Q] and x[N, C, *Q], for a convolution of each channel with its own filter."""
    return ops.reduce_sum(ops.mul(g, x), axes=(0, *range(2, g.rank)))


def conv_transpose(
    x: Value,
    w: Value,
    *,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    groups: int = 1,
    output_padding: Sequence[int] | None = None,
) -> Value:
    """The transposed convolution of x[N, C, *S] with w[C, O/groups, *K], as ordinary convolutions.

    Result extent: (S - 1) * stride + (K - 1) * dilation + 1 + output_padding - padding at both ends.

    With stride s, output element q*s + r sums x[q - j] * w[j*s + r] over j: every phase r is a convolution of x with
    every s-th tap. Phases become output channels of one convolution (those with fewer taps of another one, if there
    are enough filters to fill it); a transpose then weaves them together. No zeros are inserted between the elements of
    x. Phases that no tap belongs to (K < s) are zeros laid between the others.
    """
    spatial = x.rank - 2
    extra = tuple(output_padding) if output_padding is not None else (0,) * spatial
    if all(s == 1 for s in strides):
        steps = tuple(dilation)  # the convolution itself can skip
    else:
        w = _dilate(w, dilation)
        steps = (1,) * spatial
    taps = [int(k) for k in w.shape[2:]]
    apart = int(w.shape[1]) >= FEW_FILTERS
    phases = [_phases(k, s, apart) for k, s in zip(taps, strides, strict=True)]

    # the convolutions compute only the phases' elements that the result keeps
    wanted: list[DimLike] = []
    dropped: list[int] = []
    skip: list[int] = []
    after: list[int] = []
    for d, k, s, e, (low, high), more, alike in zip(
        x.shape[2:], taps, strides, steps, padding, extra, phases, strict=True
    ):
        extent = (d - 1) * s + (k - 1) * e + 1 - low - high + more
        fewest, most = _reach(k, s, alike[-1]), _reach(k, s, alike[0])
        dropped.append(min(low // s, (fewest - 1) * e))
        skip.append(low - dropped[-1] * s)
        wanted.append(extent)
        end = (skip[-1] + extent + s - 1) // s - d + dropped[-1]
        after.append(max(end, 0) if isinstance(end, int) else (most - 1) * e)

    w = _by_phases(w, groups, taps, strides, phases)

    def some_phases(chosen: Sequence[range]) -> Value:
        """[N, groups, *phases, O/groups, *positions] for some of the phases, by one convolution."""
        reach = [_reach(k, s, rs) for k, s, rs in zip(taps, strides, chosen, strict=True)]
        ends = [((j - 1) * e - first, last) for j, e, first, last in zip(reach, steps, dropped, after, strict=True)]
        filters = _filters(w, reach, chosen)
        y = conv(x, filters, strides=(1,) * spatial, padding=tuple(ends), dilation=steps, groups=groups)
        return reshape(y, shape=(x.shape[0], groups, *map(len, chosen), w.shape[2], *y.shape[2:]))

    def all_phases(chosen: tuple[range, ...] = ()) -> Value:
        axis = len(chosen)
        if axis == spatial:
            return some_phases(chosen)
        parts = [all_phases((*chosen, alike)) for alike in phases[axis]]
        return parts[0] if len(parts) == 1 else ops.concat(*parts, axis=2 + axis)

    y = all_phases()
    weave = [n for k in range(spatial) for n in (3 + spatial + k, 2 + k)]
    y = transpose(y, perm=(0, 1, 2 + spatial, *weave))
    y = _pad_high(y, [0, 0, 0, *(n for s, alike in zip(strides, phases, strict=True) for n in (0, s - alike[-1].stop))])
    positions = (q * s for q, s in zip(y.shape[3::2], strides, strict=True))
    y = reshape(y, shape=(x.shape[0], groups * w.shape[2], *positions))
    # output padding may reach past the last element that any tap touches
    missing = [
        max(n + r - d, 0) if isinstance(n, int) and isinstance(d, int) else 0
        for n, r, d in zip(wanted, skip, y.shape[2:], strict=True)
    ]
    y = _pad_high(y, [0, 0, *missing])
    starts, stops = (0, 0, *skip), (*y.shape[:2], *(r + n for r, n in zip(skip, wanted, strict=True)))
    if any(skip) or stops != y.shape:
        y = slice_(y, starts=starts, stops=stops, steps=(1,) * y.rank)
    return y


#: fewer output channels than this do not fill the vectors of a convolution
FEW_FILTERS = 16


def _phases(taps: int, stride: int, apart: bool) -> list[range]:
    """The phases 0 to stride - 1 that taps belong to; `apart`: those with one tap less stand for themselves, last."""
    longer = taps % stride
    if taps < stride or not longer or not apart:
        return [range(min(taps, stride))]
    return [range(longer), range(longer, stride)]


def _reach(taps: int, stride: int, phases: range) -> int:
    """How many taps each of the phases has."""
    return ceil_div(taps - phases.start, stride)


def _by_phases(
    w: Value, groups: int, taps: Sequence[int], strides: Sequence[int], phases: Sequence[Sequence[range]]
) -> Value:
    """Weights [C, O/groups, *K] as [groups, C/groups, O/groups, *(reach, phases)]: tap j*s + r at (j, r)."""
    split = [(_reach(k, s, alike[0]), alike[-1].stop) for k, s, alike in zip(taps, strides, phases, strict=True)]
    w = _pad_high(w, [0, 0, *(j * r - k for (j, r), k in zip(split, taps, strict=True))])
    channels, per_group = int(w.shape[0]), int(w.shape[1])
    shape = (groups, channels // groups, per_group, *(n for pair in split for n in pair))
    return reshape(w, shape=shape)


def _filters(w: Value, reach: Sequence[int], phases: Sequence[range]) -> Value:
    """The weights of some phases for `conv`: [groups * phases * O/groups, C/groups, *reach], taps in reverse.

    Phases stand before filters, so that blocks of filters stay whole when the phases are woven together.
    """
    spatial = len(reach)
    outer = tuple(int(d) for d in w.shape[:3])
    w = slice_(
        w,
        starts=(0, 0, 0, *(n for j, rs in zip(reach, phases, strict=True) for n in (j - 1, rs.start))),
        stops=(*outer, *(n for rs in phases for n in (-1, rs.stop))),
        steps=(1, 1, 1, *(n for _ in range(spatial) for n in (-1, 1))),
    )
    js, rs = [3 + 2 * k for k in range(spatial)], [4 + 2 * k for k in range(spatial)]
    w = transpose(w, perm=(0, *rs, 2, 1, *js))
    filters = math.prod(outer[::2]) * math.prod(map(len, phases))
    return reshape(w, shape=(filters, outer[1], *reach))


def _pad_high(x: Value, amounts: Sequence[int]) -> Value:
    if not any(amounts):
        return x
    return pad(x, np.zeros((), x.dtype.numpy), low=(0,) * x.rank, high=tuple(amounts))


def _dilate(w: Value, dilation: Sequence[int]) -> Value:
    """Weights with dilation - 1 zeros between their taps."""
    for k, e in enumerate(dilation):
        axis, taps = 2 + k, int(w.shape[2 + k])
        if e > 1 and taps > 1:
            apart = reshape(w, shape=(*w.shape[: axis + 1], 1, *w.shape[axis + 1 :]))
            apart = _pad_high(apart, [e - 1 if a == axis + 1 else 0 for a in range(apart.rank)])
            merged = reshape(apart, shape=(*w.shape[:axis], taps * e, *w.shape[axis + 1 :]))
            end = tuple((taps - 1) * e + 1 if a == axis else d for a, d in enumerate(merged.shape))
            w = slice_(merged, starts=(0,) * w.rank, stops=end, steps=(1,) * w.rank)
    return w
