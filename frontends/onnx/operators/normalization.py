"""Normalisations: over the batch, over channels, groups or trailing axes."""

from __future__ import annotations

from collections.abc import Sequence

from graphc import ops
from graphc.frontends.onnx.context import Context
from graphc.frontends.onnx.operators._common import broadcast, channelwise, reshape, scalar, to
from graphc.frontends.onnx.registry import importer
from graphc.frontends.onnx.tensors import element_type
from graphc.ir.dims import Dim, product
from graphc.ir.dtypes import DType
from graphc.ir.graph import Value

__all__: list[str] = []


def _kept(x: Value, axes: Sequence[int]) -> list[object]:
    return [1 if k in axes else d for k, d in enumerate(x.shape)]


def _mean(c: Context, x: Value, axes: Sequence[int]) -> Value:
    """The mean over axes, which stay with extent 1."""
    count = product(tuple(x.shape[a] for a in axes))
    if isinstance(count, Dim):
        c.unsupported("normalising over a symbolic extent; give the inputs' concrete shapes")
    total = ops.reduce_sum(x, axes=tuple(sorted(axes)))
    return reshape(ops.mul(total, scalar(1 / max(count, 1), x.dtype)), _kept(x, axes))  # type: ignore[arg-type]


def _standardise(c: Context, x: Value, axes: Sequence[int], epsilon: float) -> tuple[Value, Value, Value]:
    """(x - mean) / sqrt(variance + epsilon), the mean, and 1 / that root."""
    mean = _mean(c, x, axes)
    centred = ops.sub(x, broadcast(mean, x.shape))
    variance = _mean(c, ops.mul(centred, centred), axes)
    inverse = ops.rsqrt(ops.add(variance, scalar(epsilon, x.dtype)))
    return ops.mul(centred, broadcast(inverse, x.shape)), mean, inverse


def _affine(x: Value, scale: Value, shift: Value | None) -> Value:
    y = ops.mul(x, broadcast(scale, x.shape))
    return y if shift is None else ops.add(y, broadcast(shift, x.shape))


@importer("BatchNormalization", 6, 7, 9, 14, 15)
def batch_normalization(
    c: Context, x: Value, gamma: Value, beta: Value, mean: Value, variance: Value
) -> list[Value | None]:
    """y = x * scale + shift with one number a channel, so that a preceding convolution can take them in."""
    c.ignore("is_test", "consumed_inputs")
    if not c.flag("spatial", True):
        c.unsupported("spatial = 0 (one set of statistics an element)")
    epsilon, momentum = c.float("epsilon", 1e-5), c.float("momentum", 0.9)
    results: list[Value | None] = []
    if c.version >= 14 and c.flag("training_mode"):
        axes = [k for k in range(x.rank) if k != 1]
        batch_mean = _mean(c, x, axes)
        centred = ops.sub(x, broadcast(batch_mean, x.shape))
        batch_variance = _mean(c, ops.mul(centred, centred), axes)
        running = []
        for old, new in ((mean, batch_mean), (variance, batch_variance)):
            new = to(reshape(new, old.shape), old.dtype)
            kept = ops.mul(old, scalar(momentum, old.dtype))
            running.append(ops.add(kept, ops.mul(new, scalar(1 - momentum, old.dtype))))
            results.append(new)
        mean, variance = results  # type: ignore[assignment]
        results = running
    scale = ops.mul(to(gamma, variance.dtype), ops.rsqrt(ops.add(variance, scalar(epsilon, variance.dtype))))
    shift = ops.sub(to(beta, variance.dtype), ops.mul(mean, scale))
    wide = to(x, scale.dtype)
    y = _affine(wide, channelwise(scale, x.rank), channelwise(shift, x.rank))
    return [to(y, x.dtype), *results]


@importer("InstanceNormalization", 6, 22)
def instance_normalization(c: Context, x: Value, scale: Value, shift: Value) -> Value:
    c.ignore("consumed_inputs")
    y, _, _ = _standardise(c, x, range(2, x.rank), c.float("epsilon", 1e-5))
    return _affine(y, channelwise(scale, x.rank), channelwise(shift, x.rank))


@importer("GroupNormalization", 21)
def group_normalization(c: Context, x: Value, scale: Value, shift: Value) -> Value:
    groups, wide = c.int("num_groups"), _stash_type(c)
    n, channels, *space = x.shape
    grouped = to(reshape(x, (n, groups, channels // groups, *space)), wide)
    y, _, _ = _standardise(c, grouped, range(2, grouped.rank), c.float("epsilon", 1e-5))
    return _affine(to(reshape(y, x.shape), x.dtype), channelwise(scale, x.rank), channelwise(shift, x.rank))


def _stash_type(c: Context) -> DType:
    """The element type that statistics are computed in."""
    return element_type(c.int("stash_type", 1), f"node {c.name!r}: stash_type")


@importer("LayerNormalization", 17)
def layer_normalization(c: Context, x: Value, scale: Value, shift: Value | None = None) -> tuple[Value, Value, Value]:
    axis = c.axis(c.int("axis", -1), x.rank)
    y, mean, inverse = _standardise(c, to(x, _stash_type(c)), range(axis, x.rank), c.float("epsilon", 1e-5))
    return _affine(to(y, x.dtype), scale, shift), mean, inverse


@importer("RMSNormalization", 23)
def rms_normalization(c: Context, x: Value, scale: Value) -> Value:
    axis = c.axis(c.int("axis", -1), x.rank)
    wide = to(x, _stash_type(c))
    power = _mean(c, ops.mul(wide, wide), range(axis, x.rank))
    root = ops.rsqrt(ops.add(power, scalar(c.float("epsilon", 1e-5), wide.dtype)))
    y = to(ops.mul(wide, broadcast(root, x.shape)), scale.dtype)
    return ops.mul(y, broadcast(scale, x.shape))


@importer("LpNormalization", 1, 22)
def lp_normalization(c: Context, x: Value) -> Value:
    """x over its norm; a norm of 0 gives 0."""
    axis, p = c.axis(c.int("axis", -1), x.rank), c.int("p", 2)
    if p not in (1, 2):
        c.invalid(f"p is {p}; it must be 1 or 2")
    powers = ops.abs(x) if p == 1 else ops.mul(x, x)
    norm = ops.reduce_sum(powers, axes=(axis,))
    norm = reshape(norm if p == 1 else ops.sqrt(norm), _kept(x, [axis]))  # type: ignore[arg-type]
    empty = ops.eq(norm, scalar(0, x.dtype))
    quotient = ops.div(x, broadcast(ops.select(empty, scalar(1, x.dtype), norm), x.shape))
    return ops.select(broadcast(empty, x.shape), scalar(0, x.dtype), quotient)


@importer("LRN", 1, 13)
def local_response_normalization(c: Context, x: Value) -> Value:
    """x / (bias + alpha/size * the sum of squares over neighbouring channels) ** beta."""
    size = c.int("size")
    window = ops.reduce_window(
        ops.mul(x, x),
        combine="add",
        axes=(1,),
        window=(size,),
        strides=(1,),
        padding=(((size - 1) // 2, size // 2),),
        dilation=(1,),
    )
    base = ops.add(
        ops.mul(window, scalar(c.float("alpha", 1e-4) / size, x.dtype)), scalar(c.float("bias", 1.0), x.dtype)
    )
    return ops.mul(x, ops.pow(base, scalar(-c.float("beta", 0.75), x.dtype)))


@importer("MeanVarianceNormalization", 9, 13)
def mean_variance_normalization(c: Context, x: Value) -> Value:
    axes = c.axes(c.ints("axes", (0, 2, 3)), x.rank)
    mean = _mean(c, x, axes)
    centred = ops.sub(x, broadcast(mean, x.shape))
    deviation = ops.sqrt(_mean(c, ops.mul(centred, centred), axes))
    return ops.div(centred, broadcast(ops.add(deviation, scalar(1e-9, x.dtype)), x.shape))
