"""Compositions of operations that importers and users share: activations, softmax, normalisations, rearrangements.

Each is a plain function from values to a value that builds ordinary graph; there is nothing behind it that a pass
cannot see, and fusion puts the pieces back together. Definitions follow the ONNX operator of the same name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphc.errors import GraphTypeError
from graphc.ir.dims import DimLike, product
from graphc.ir.dtypes import DType, dtype_of
from graphc.ir.graph import Value, constant
from graphc.ops.convolution import conv_transpose
from graphc.ops.elementwise import (
    abs as abs_,
)  # fmt: skip
from graphc.ops.elementwise import (
    add,
    cast,
    div,
    eq,
    erf,
    exp,
    expm1,
    ge,
    gt,
    le,
    log,
    lt,
    maximum,
    minimum,
    mul,
    rsqrt,
    select,
    sigmoid,
    softplus,
    sqrt,
    sub,
    tanh,
)
from graphc.ops.elementwise import (
    pow as pow_,
)
from graphc.ops.injective import broadcast_to, gather, iota, reshape, shape_of, slice_, transpose
from graphc.ops.linalg import dot
from graphc.ops.reduce import reduce_max, reduce_prod, reduce_sum, reduce_window
from graphc.ops.shapes import broadcast_shapes, normalize_axes, normalize_axis

__all__ = [
    "batch_normalization", "celu", "clip", "conv_transpose", "depth_to_space", "element_count", "elu", "flatten",
    "full", "gelu", "group_normalization", "hard_sigmoid", "hard_swish", "in_float32", "instance_normalization",
    "layer_normalization", "leaky_relu", "log_softmax", "logsumexp", "lrn", "matmul", "mean", "mish", "one_hot",
    "prelu", "relu6", "rms_normalization", "selu", "softmax", "softsign", "space_to_depth", "split", "squeeze",
    "swish", "thresholded_relu", "tile", "trilu", "unsqueeze", "variance",
]  # fmt: skip

INT64, FLOAT32 = dtype_of("int64"), dtype_of("float32")

# ------------------------------------------------------------------------------------------------ rearrangements


def unsqueeze(x: Value, axes: Sequence[int]) -> Value:
    """`x` with axes of extent 1 inserted; `axes` count in the result."""
    rank = x.rank + len(axes)
    new = normalize_axes(axes, rank, "unsqueeze")
    old = iter(x.shape)
    return _reshape(x, tuple(1 if k in new else next(old) for k in range(rank)))


def squeeze(x: Value, axes: Sequence[int] | None = None) -> Value:
    """`x` without the given axes, all of extent 1; None drops every axis whose extent is known to be 1.

    Raises GraphTypeError when an axis has another extent.
    """
    drop = (
        tuple(k for k, d in enumerate(x.shape) if d == 1) if axes is None else normalize_axes(axes, x.rank, "squeeze")
    )
    for k in drop:
        if isinstance(x.shape[k], int) and x.shape[k] != 1:
            raise GraphTypeError(f"squeeze: axis {k} of {x.type} has extent {x.shape[k]}, not 1")
    return _reshape(x, tuple(d for k, d in enumerate(x.shape) if k not in drop))


def flatten(x: Value, axis: int = 1) -> Value:
    """`x` as a matrix: axes before `axis` make the rows, the others the columns. `axis` may equal the rank."""
    at = axis + x.rank if axis < 0 else axis
    if not 0 <= at <= x.rank:
        raise GraphTypeError(f"flatten: axis {axis} is out of range for {x.type}")
    return _reshape(x, (product(x.shape[:at]), product(x.shape[at:])))


def _reshape(x: Value, shape: Sequence[DimLike]) -> Value:
    return x if x.shape == tuple(shape) else reshape(x, shape=tuple(shape))


def full(number: complex, shape: Sequence[DimLike], dtype: DType) -> Value:
    """A tensor of one number; a broadcast, so nothing is stored."""
    return broadcast_to(constant(np.asarray(number).astype(dtype.numpy), dtype), shape=tuple(shape))


def split(x: Value, sizes: Sequence[DimLike], axis: int) -> tuple[Value, ...]:
    """Consecutive pieces of `x` along `axis`. Raises GraphTypeError when the sizes do not add up to its extent."""
    axis = normalize_axis(axis, x.rank, "split")
    total = sum(sizes)
    if isinstance(total, int) and isinstance(x.shape[axis], int) and total != x.shape[axis]:
        raise GraphTypeError(
            f"split: the sizes {list(sizes)} add up to {total}, axis {axis} of {x.type} has {x.shape[axis]}"
        )
    pieces, start = [], 0
    for size in sizes:
        starts, stops = [0] * x.rank, list(x.shape)
        starts[axis], stops[axis] = start, start + size
        pieces.append(slice_(x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * x.rank))
        start = start + size  # type: ignore[assignment]
    return tuple(pieces)


def tile(x: Value, repeats: Sequence[int]) -> Value:
    """`x` repeated repeats[k] times along axis k."""
    if len(repeats) != x.rank:
        raise GraphTypeError(f"tile: {len(repeats)} repeats for {x.type}")
    if all(n == 1 for n in repeats):
        return x
    apart = reshape(x, shape=tuple(d for pair in ((1, d) for d in x.shape) for d in pair))
    repeated = broadcast_to(apart, shape=tuple(d for pair in zip(repeats, x.shape, strict=True) for d in pair))
    return reshape(repeated, shape=tuple(n * d for n, d in zip(repeats, x.shape, strict=True)))


def depth_to_space(x: Value, block: int, mode: str = "DCR") -> Value:
    """Channels of x[N, C, H, W] spread over blocks of block x block pixels; `mode` DCR (block-major) or CRD."""
    n, c, h, w = x.shape
    if mode == "DCR":
        apart = reshape(x, shape=(n, block, block, c // (block * block), h, w))
        woven = transpose(apart, perm=(0, 3, 4, 1, 5, 2))
    else:
        apart = reshape(x, shape=(n, c // (block * block), block, block, h, w))
        woven = transpose(apart, perm=(0, 1, 4, 2, 5, 3))
    return reshape(woven, shape=(n, c // (block * block), h * block, w * block))


def space_to_depth(x: Value, block: int) -> Value:
    """The inverse of depth_to_space in mode DCR."""
    n, c, h, w = x.shape
    apart = reshape(x, shape=(n, c, h // block, block, w // block, block))
    return reshape(transpose(apart, perm=(0, 3, 5, 1, 2, 4)), shape=(n, c * block * block, h // block, w // block))


def trilu(x: Value, k: int | Value = 0, *, upper: bool = True) -> Value:
    """The upper (or lower) triangle of the last two axes, diagonal `k` included; the rest is 0."""
    shape = x.shape[-2:]
    distance = sub(iota(shape=shape, axis=1, dtype=INT64), iota(shape=shape, axis=0, dtype=INT64))
    keep = (ge if upper else le)(distance, k)
    return select(keep, x, np.zeros((), x.dtype.numpy))


def one_hot(indices: Value, depth: DimLike, on: Value, off: Value, *, axis: int = -1) -> Value:
    """`on` where the new axis's index equals the index, else `off`.

    Negative indices count from `depth`; those outside give `off` everywhere.
    """
    axis = normalize_axis(axis, indices.rank + 1, "one_hot")
    shape = (*indices.shape[:axis], depth, *indices.shape[axis:])
    places = unsqueeze(cast(indices, dtype=INT64), (axis,))
    if isinstance(depth, int):
        places = select(lt(places, 0), add(places, depth), places)
    return select(eq(iota(shape=shape, axis=axis, dtype=INT64), places), on, off)


# --------------------------------------------------------------------------------------------------- reductions


def _kept(reduced: Value, x: Value, axes: Sequence[int]) -> Value:
    """A reduction of `x` with the reduced axes put back, extent 1."""
    return _reshape(reduced, tuple(1 if k in axes else d for k, d in enumerate(x.shape)))


def element_count(x: Value, axes: Sequence[int], dtype: DType) -> Value:
    """How many elements a reduction over `axes` combines, of rank 0: a constant where the extents are known."""
    count = product(tuple(x.shape[k] for k in axes))
    if isinstance(count, int):
        return constant(np.asarray(count).astype(dtype.numpy), dtype)
    extents = gather(shape_of(x), np.array(axes, np.int64), axis=0)
    return cast(reduce_prod(extents, axes=(0,)), dtype=dtype)


def mean(x: Value, axes: Sequence[int] | int | None = None, *, keepdims: bool = False) -> Value:
    """The mean over `axes` (all by default); integers round towards zero."""
    over = normalize_axes(axes, x.rank, "mean")
    total = div(reduce_sum(x, axes=over), element_count(x, over, x.dtype))
    return _kept(total, x, over) if keepdims else total


def variance(x: Value, axes: Sequence[int] | int | None = None, *, keepdims: bool = False) -> Value:
    """The mean squared distance from the mean over `axes`."""
    centred = sub(x, mean(x, axes, keepdims=True))
    return mean(mul(centred, centred), axes, keepdims=keepdims)


def logsumexp(x: Value, axes: Sequence[int] | int | None = None, *, keepdims: bool = False) -> Value:
    """log(sum(exp(x))) over `axes` without overflow: the largest element is taken out first."""
    over = normalize_axes(axes, x.rank, "logsumexp")
    peak = _kept(reduce_max(x, axes=over), x, over)
    # an infinite peak would make inf - inf; 0 in its place gives the right infinity
    peak = select(lt(abs_(peak), math.inf), peak, np.zeros((), x.dtype.numpy))
    total = _kept(reduce_sum(exp(sub(x, peak)), axes=over), x, over)
    result = add(log(total), peak)
    return result if keepdims else squeeze(result, over)


def softmax(x: Value, *, axis: int = -1) -> Value:
    """exp(x) / sum(exp(x)) along `axis`, without overflow."""
    over = (normalize_axis(axis, x.rank, "softmax"),) if x.rank else ()
    exps = exp(sub(x, _kept(reduce_max(x, axes=over), x, over)))
    return div(exps, _kept(reduce_sum(exps, axes=over), x, over))


def log_softmax(x: Value, *, axis: int = -1) -> Value:
    """log(softmax(x)) along `axis`, accurate where the softmax underflows."""
    over = (normalize_axis(axis, x.rank, "log_softmax"),) if x.rank else ()
    shifted = sub(x, _kept(reduce_max(x, axes=over), x, over))
    return sub(shifted, log(_kept(reduce_sum(exp(shifted), axes=over), x, over)))


# -------------------------------------------------------------------------------------------------- activations


def clip(x: Value, low: Value | float | None = None, high: Value | float | None = None) -> Value:
    """min(max(x, low), high); `high` wins when the bounds cross, NaN stays."""
    raised = x if low is None else maximum(x, low)
    return raised if high is None else minimum(raised, high)


def _cut_off(x: Value, low: float, high: float) -> Value:
    """As `clip`, but with the derivative 0 at the bounds, like relu's: what JAX and PyTorch have for these activations."""
    return select(le(x, low), low, select(ge(x, high), high, x))


def relu6(x: Value) -> Value:
    """min(max(x, 0), 6); the derivative at 0 and at 6 is 0."""
    return _cut_off(x, 0.0, 6.0)


def leaky_relu(x: Value, *, alpha: float = 0.01) -> Value:
    """x, alpha * x below zero."""
    return select(lt(x, 0.0), mul(x, alpha), x)


def prelu(x: Value, slope: Value) -> Value:
    """x, slope * x below zero; the slope broadcasts to x."""
    return select(lt(x, np.zeros((), x.dtype.numpy)), mul(slope, x), x)


def thresholded_relu(x: Value, *, alpha: float = 1.0) -> Value:
    """x above alpha, else 0."""
    return select(gt(x, alpha), x, 0.0)


def elu(x: Value, *, alpha: float = 1.0) -> Value:
    """x, alpha * (exp(x) - 1) below zero."""
    return select(gt(x, 0.0), x, mul(expm1(x), alpha))


def selu(x: Value, *, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805) -> Value:
    """gamma * elu(x, alpha)."""
    return mul(elu(x, alpha=alpha), gamma)


def celu(x: Value, *, alpha: float = 1.0) -> Value:
    """x, alpha * (exp(x / alpha) - 1) below zero."""
    return select(gt(x, 0.0), x, mul(expm1(div(x, alpha)), alpha))


def gelu(x: Value, *, approximate: str = "none") -> Value:
    """x times the normal distribution function of x; "tanh" approximates that function."""
    if approximate == "tanh":
        inner = mul(add(x, mul(mul(mul(x, x), x), 0.044715)), math.sqrt(2 / math.pi))
        return mul(mul(x, 0.5), add(tanh(inner), 1.0))
    if approximate != "none":
        raise GraphTypeError(f"gelu: approximate is {approximate!r}; known are none and tanh")
    return mul(mul(x, 0.5), add(erf(mul(x, math.sqrt(0.5))), 1.0))


def swish(x: Value, *, alpha: float = 1.0) -> Value:
    """x * sigmoid(alpha * x); SiLU for alpha 1."""
    return mul(x, sigmoid(x if alpha == 1 else mul(x, alpha)))


def softsign(x: Value) -> Value:
    """x / (1 + |x|)."""
    return div(x, add(abs_(x), 1.0))


def mish(x: Value) -> Value:
    """x * tanh(softplus(x))."""
    return mul(x, tanh(softplus(x)))


def hard_sigmoid(x: Value, *, alpha: float = 0.2, beta: float = 0.5) -> Value:
    """alpha * x + beta, cut off at 0 and 1."""
    return _cut_off(add(mul(x, alpha), beta), 0.0, 1.0)


def hard_swish(x: Value) -> Value:
    """x * hard_sigmoid(x) with slope 1/6."""
    return mul(x, hard_sigmoid(x, alpha=1 / 6, beta=0.5))


# ---------------------------------------------------------------------------------------------- normalisations


def in_float32(x: Value) -> Value:
    """`x` in float32 when its type is narrower: sums of squares need the digits."""
    wide = x.dtype.computed_in
    return x if wide == x.dtype else cast(x, dtype=wide)


def _narrow(x: Value, dtype: DType) -> Value:
    return x if x.dtype == dtype else cast(x, dtype=dtype)


def _per_channel(v: Value, rank: int) -> Value:
    """A vector over channels shaped to go with x[N, C, *S]."""
    return _reshape(v, (1, v.shape[0], *(1,) * (rank - 2)))


def batch_normalization(
    x: Value, scale: Value, bias: Value, running_mean: Value, running_var: Value, *, epsilon: float = 1e-5
) -> Value:
    """Inference: (x - mean) / sqrt(var + epsilon) * scale + bias a channel, as one factor and one shift."""
    factor = div(scale, sqrt(add(running_var, epsilon)))
    shift = sub(bias, mul(running_mean, factor))
    return add(mul(x, _per_channel(factor, x.rank)), _per_channel(shift, x.rank))


def layer_normalization(
    x: Value, scale: Value, bias: Value | None = None, *, axis: int = -1, epsilon: float = 1e-5
) -> tuple[Value, Value, Value]:
    """Each slice of the axes from `axis` on, centred, scaled to variance 1, then times `scale` plus `bias`.

    Returns the result, and the mean and the inverse standard deviation of each slice (float32 for narrower types,
    axes kept with extent 1).
    """
    axes = tuple(range(normalize_axis(axis, x.rank, "layer_normalization"), x.rank))
    wide = in_float32(x)
    centre = mean(wide, axes, keepdims=True)
    centred = sub(wide, centre)
    inverse = rsqrt(add(mean(mul(centred, centred), axes, keepdims=True), epsilon))
    y = mul(_narrow(mul(centred, inverse), x.dtype), scale)
    return (y if bias is None else add(y, bias)), centre, inverse


def rms_normalization(x: Value, scale: Value, *, axis: int = -1, epsilon: float = 1e-5) -> Value:
    """Each slice of the axes from `axis` on divided by its root mean square, times `scale`."""
    axes = tuple(range(normalize_axis(axis, x.rank, "rms_normalization"), x.rank))
    wide = in_float32(x)
    inverse = rsqrt(add(mean(mul(wide, wide), axes, keepdims=True), epsilon))
    return mul(_narrow(mul(wide, inverse), x.dtype), scale)


def instance_normalization(x: Value, scale: Value, bias: Value, *, epsilon: float = 1e-5) -> Value:
    """Each channel of each item of x[N, C, *S], centred and scaled to variance 1, then times `scale` plus `bias`."""
    wide, axes = in_float32(x), tuple(range(2, x.rank))
    centred = sub(wide, mean(wide, axes, keepdims=True))
    normal = mul(centred, rsqrt(add(mean(mul(centred, centred), axes, keepdims=True), epsilon)))
    return add(mul(_narrow(normal, x.dtype), _per_channel(scale, x.rank)), _per_channel(bias, x.rank))


def group_normalization(x: Value, scale: Value, bias: Value, *, groups: int, epsilon: float = 1e-5) -> Value:
    """Each group of channels of each item of x[N, C, *S], centred and scaled to variance 1.

    `scale` and `bias` are vectors over channels.
    """
    wide = in_float32(x)
    grouped = reshape(wide, shape=(x.shape[0], groups, product(x.shape[1:]) // groups))
    centred = sub(grouped, mean(grouped, 2, keepdims=True))
    normal = mul(centred, rsqrt(add(mean(mul(centred, centred), 2, keepdims=True), epsilon)))
    normal = _narrow(reshape(normal, shape=x.shape), x.dtype)
    return add(mul(normal, _per_channel(scale, x.rank)), _per_channel(bias, x.rank))


def lrn(x: Value, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Value:
    """x / (bias + alpha / size * sum of squares over the `size` nearest channels) ** beta."""
    before = (size - 1) // 2
    sums = reduce_window(
        mul(x, x),
        combine="add",
        axes=(1,),
        window=(size,),
        strides=(1,),
        padding=((before, size - 1 - before),),
        dilation=(1,),
    )
    return div(x, pow_(add(mul(sums, alpha / size), bias), beta))


# ---------------------------------------------------------------------------------------------- matrix products


def matmul(a: Value, b: Value) -> Value:
    """NumPy's matmul: vectors are a row at the left and a column at the right, leading dimensions broadcast."""
    if not a.rank or not b.rank:
        raise GraphTypeError(f"matmul: the operands are {a.type} and {b.type}; rank 0 has no matrix product, mul it")
    left = unsqueeze(a, (0,)) if a.rank == 1 else a
    right = unsqueeze(b, (1,)) if b.rank == 1 else b
    if right.rank == 2 and left.rank > 2:  # one tall matrix against the one on the right
        flat = reshape(left, shape=(product(left.shape[:-1]), left.shape[-1]))
        y = reshape(dot(flat, right), shape=(*left.shape[:-1], right.shape[-1]))
    else:
        batch = broadcast_shapes(left.shape[:-2], right.shape[:-2], what="matmul")
        y = dot(_broadcast(left, (*batch, *left.shape[-2:])), _broadcast(right, (*batch, *right.shape[-2:])))
    dropped = [k for k, v in ((y.rank - 2, a), (y.rank - 1, b)) if v.rank == 1]
    return squeeze(y, dropped) if dropped else y


def _broadcast(x: Value, shape: tuple[DimLike, ...]) -> Value:
    return x if x.shape == shape else broadcast_to(x, shape=shape)
