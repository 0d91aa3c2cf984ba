"""Matrix products and convolutions by their definition, as loop nests: any element type, any number of axes.

The tuned kernels (graphc.kernels.lower_contraction) take over wherever the layout pass has packed the operands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphc.ir.scalar import Scalar, cast, const, index, linear, load, select, temp
from graphc.kernels.ir import LoopNest, Map, Reduce, Store
from graphc.kernels.program import Placed

__all__ = ["conv_nest", "dot_nest"]


def _nest(x: Placed, w: Placed, y: Placed, inner: tuple[int, ...], product: Scalar) -> LoopNest:
    target = linear([index(k) for k in range(len(y.shape))], y.strides)
    store = Store(2, target, cast(temp(0, product.dtype), y.dtype))
    stages = (Reduce(0, "add", tuple(map(const, inner)), product), Map((), (store,)))
    return LoopNest((x.dtype, w.dtype, y.dtype), 1, tuple(map(const, y.shape)), stages)


def dot_nest(a: Placed, b: Placed, y: Placed) -> LoopNest:
    """y[..., m, n] = sum over k of a[..., m, k] * b[..., k, n]."""
    rank, wide = len(y.shape), a.dtype.computed_in
    *batch, m, n = (index(k) for k in range(rank))
    k = index(rank)
    left = load(0, linear([*batch, m, k], a.strides), a.dtype)
    right = load(1, linear([*batch, k, n], b.strides), b.dtype)
    return _nest(a, b, y, a.shape[-1:], cast(left, wide) * cast(right, wide))


def conv_nest(x: Placed, w: Placed, y: Placed, attrs: Mapping[str, Any]) -> LoopNest:
    """y[n, o, *s] = sum of x[n, c, s * stride + k * dilation - low] * w[o, c, *k] over o's channels c and the window k."""
    rank, wide, groups = len(y.shape), x.dtype.computed_in, attrs["groups"]
    n, o = index(0), index(1)
    channels, filters = w.shape[1], w.shape[0] // groups
    c = index(rank)
    channel = c if groups == 1 else o // filters * channels + c
    position, inside = [n, channel], None
    taps = [index(rank + 1 + a) for a in range(rank - 2)]
    for axis, (tap, stride, dilation, (low, high)) in enumerate(
        zip(taps, attrs["strides"], attrs["dilation"], attrs["padding"], strict=True), start=2
    ):
        at = index(axis) * stride + tap * dilation + (-low)
        position.append(at)
        if low or high:
            bounds = (at >= 0) & (at < x.shape[axis])
            inside = bounds if inside is None else inside & bounds
    left = cast(load(0, linear(position, x.strides), x.dtype), wide)
    if inside is not None:
        left = select(inside, left, const(0, wide))
    right = cast(load(1, linear([o, c, *taps], w.strides), w.dtype), wide)
    return _nest(x, w, y, (channels, *w.shape[2:]), left * right)
