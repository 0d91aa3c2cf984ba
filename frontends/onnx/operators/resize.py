"""Resize and Upsample: each axis is interpolated on its own, with positions and weights worked out while importing.

A nearest axis is a gather, or a repetition where every element appears equally often; an axis with two taps is a
weighted sum of two gathers; more taps are a product with the interpolation matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from graphc import ops
from graphc.frontends.onnx.context import Context
from graphc.frontends.onnx.operators._common import FLOAT32, broadcast, reshape, scalar, to
from graphc.frontends.onnx.registry import importer
from graphc.ir.dims import Dim
from graphc.ir.graph import Value

__all__: list[str] = []


class _Axis(NamedTuple):
    """One axis to interpolate: `extent` elements become `size`, `scale` apart; `region` is the crop of roi."""

    axis: int
    extent: int
    size: int
    scale: float
    region: tuple[float, float]


class _Taps(NamedTuple):
    """For each output element the elements it reads [size, taps], their weights, and whether it lies outside."""

    places: np.ndarray
    weights: np.ndarray
    outside: np.ndarray


@importer("Upsample", 7, 9)
def upsample(c: Context, x: Value, scales: Value | None = None) -> Value:
    factors = c.floats("scales") if scales is None else tuple(c.static(scales, "scales").ravel().tolist())
    return _resize(c, x, _scaled(c, x, range(x.rank), factors), "asymmetric", "simple")


@importer("Resize", 10)
def resize_10(c: Context, x: Value, scales: Value) -> Value:
    factors = tuple(c.static(scales, "scales").ravel().tolist())
    return _resize(c, x, _scaled(c, x, range(x.rank), factors), "asymmetric", "simple")


@importer("Resize", 11, 13, 18, 19)
def resize(
    c: Context, x: Value, roi: Value | None = None, scales: Value | None = None, sizes: Value | None = None
) -> Value:
    which = c.axes(c.ints("axes", tuple(range(x.rank))), x.rank)
    coordinates = c.string("coordinate_transformation_mode", "half_pixel")
    region: Sequence[float] | None = None
    if coordinates == "tf_crop_and_resize":
        if roi is None:
            c.invalid("tf_crop_and_resize needs the region of interest")
        region = c.static(roi, "region of interest").ravel().tolist()
    if scales is not None and scales.tensor.size != 0:
        factors = tuple(c.static(scales, "scales").ravel().tolist())
        axes = _scaled(c, x, which, factors, region)
    elif sizes is not None:
        axes = _sized(c, x, which, c.concrete_ints(sizes, "sizes"), region)
    else:
        c.invalid("neither scales nor sizes are given")
    return _resize(c, x, axes, coordinates, c.string("nearest_mode", "round_prefer_floor"))


def _extents(c: Context, x: Value, which: Sequence[int]) -> list[int]:
    extents = [x.shape[a] for a in which]
    if any(isinstance(d, Dim) for d in extents):
        c.unsupported("resizing a symbolic extent; give the inputs' concrete shapes")
    return extents


def _scaled(
    c: Context, x: Value, which: Sequence[int], factors: Sequence[float], region: Sequence[float] | None = None
) -> list[_Axis]:
    if len(factors) != len(which) or min(factors, default=1) <= 0:
        c.invalid(f"the scales {list(factors)} do not fit {len(which)} axes")
    touched = [k for k, s in enumerate(factors) if s != 1 or region is not None]
    extents = _extents(c, x, [which[k] for k in touched])
    n = len(which)
    return [
        _Axis(which[k], d, int(np.floor(d * factors[k])), factors[k], (region[k], region[n + k]) if region else (0, 1))
        for k, d in zip(touched, extents, strict=True)
    ]


def _sized(
    c: Context, x: Value, which: Sequence[int], sizes: Sequence[int], region: Sequence[float] | None
) -> list[_Axis]:
    if len(sizes) != len(which):
        c.invalid(f"there are {len(sizes)} sizes for {len(which)} axes")
    extents = _extents(c, x, which)
    factors = [m / d for m, d in zip(sizes, extents, strict=True)]
    policy = c.string("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        common = {"not_larger": min, "not_smaller": max}.get(policy)
        if common is None:
            c.invalid(f"keep_aspect_ratio_policy is {policy!r}; known are stretch, not_larger and not_smaller")
        factors = [common(factors)] * len(factors)
        sizes = [int(np.floor(d * f + 0.5)) for d, f in zip(extents, factors, strict=True)]
    n = len(which)
    return [
        _Axis(a, d, m, f, (region[k], region[n + k]) if region else (0, 1))
        for k, (a, d, m, f) in enumerate(zip(which, extents, sizes, factors, strict=True))
        if m != d or f != 1 or region is not None
    ]


def _resize(c: Context, x: Value, axes: Sequence[_Axis], coordinates: str, nearest: str) -> Value:
    mode = c.string("mode", "nearest")
    if mode not in ("nearest", "linear", "cubic"):
        c.invalid(f"the mode is {mode!r}; known are nearest, linear and cubic")
    a = c.float("cubic_coeff_a", -0.75)
    antialias, exclude = c.flag("antialias"), c.flag("exclude_outside")
    beyond = c.float("extrapolation_value", 0.0)
    dtype = x.dtype
    if mode != "nearest" and not (dtype.is_float and dtype.bits >= 32):
        x = to(x, FLOAT32)
    for axis in axes:
        positions = _positions(c, axis, coordinates)
        outside = (positions < 0) | (positions > axis.extent - 1) if coordinates == "tf_crop_and_resize" else None
        if mode == "nearest":
            x = _nearest(c, x, axis, positions, nearest)
        else:
            x = _interpolate(c, x, axis, _taps(axis, positions, mode, a, antialias, exclude))
        if outside is not None and outside.any():
            mask = c.constant(outside.reshape([-1 if k == axis.axis else 1 for k in range(x.rank)]))
            x = ops.select(broadcast(mask, x.shape), scalar(beyond, x.dtype), x)
    return to(x, dtype)


def _positions(c: Context, axis: _Axis, mode: str) -> np.ndarray:
    """Where each output element lies on the input's axis."""
    out = np.arange(axis.size, dtype=np.float64)
    scale, length = axis.scale, axis.scale * axis.extent  # the exact output length, before rounding to elements
    match mode:
        case "half_pixel":
            return (out + 0.5) / scale - 0.5
        case "half_pixel_symmetric":
            offset = axis.extent / 2 * (1 - axis.size / length)
            return offset + (out + 0.5) / scale - 0.5
        case "pytorch_half_pixel":
            return (out + 0.5) / scale - 0.5 if length > 1 else np.full(axis.size, -0.5)
        case "align_corners":
            return out * (axis.extent - 1) / (length - 1) if length != 1 else np.zeros(axis.size)
        case "asymmetric":
            return out / scale
        case "tf_half_pixel_for_nn":
            return (out + 0.5) / scale
        case "tf_crop_and_resize":
            start, end = axis.region
            span = (end - start) * (axis.extent - 1)
            moved = out * span / (length - 1) if length > 1 else np.full(axis.size, span / 2)
            return moved + start * (axis.extent - 1)
    return c.invalid(f"coordinate_transformation_mode {mode!r} is not known")


def _nearest(c: Context, x: Value, axis: _Axis, positions: np.ndarray, rounding: str) -> Value:
    below = np.ceil(positions) - 1  # the element on the left; a position on an element belongs to the right one
    ratio = positions - below
    if rounding == "round_prefer_floor":
        up = ratio > 0.5
    elif rounding == "round_prefer_ceil":
        up = ratio >= 0.5
    elif rounding == "simple":  # what onnxruntime does where older versions say nothing
        up = (ratio == 1) | (axis.scale < 1)
    elif rounding in ("floor", "ceil"):
        up = (ratio == 1) if rounding == "floor" else np.ones_like(ratio, bool)
    else:
        c.invalid(f"nearest_mode {rounding!r} is not known")
    places = np.clip(below + up, 0, axis.extent - 1).astype(np.int64)
    factor = axis.size // axis.extent if axis.extent else 0
    if factor * axis.extent == axis.size and (places == np.arange(axis.size) // max(factor, 1)).all():
        k = axis.axis
        apart = reshape(x, (*x.shape[: k + 1], 1, *x.shape[k + 1 :]))
        repeated = broadcast(apart, (*x.shape[: k + 1], factor, *x.shape[k + 1 :]))
        return reshape(repeated, (*x.shape[:k], axis.size, *x.shape[k + 1 :]))
    return ops.gather(x, c.constant(places), axis=axis.axis)


def _taps(axis: _Axis, positions: np.ndarray, mode: str, a: float, antialias: bool, exclude: bool) -> _Taps:
    base = np.ceil(positions) - 1
    ratio = positions - base  # in (0, 1]
    shrink = min(axis.scale, 1.0) if antialias else 1.0  # the filter widens when the axis gets shorter
    reach = 1 if mode == "linear" else 2
    first = int(np.floor(-reach / shrink)) + 1
    steps = np.arange(first, 2 - first)
    distance = np.abs(steps - ratio[:, None]) * shrink
    weights = np.clip(1 - distance, 0, 1) if mode == "linear" else _cubic(distance, a)
    places = (base[:, None] + steps).astype(np.int64)
    inside = (places >= 0) & (places < axis.extent)
    if exclude:
        weights = np.where(inside, weights, 0)
    if exclude or antialias:
        weights = weights / weights.sum(axis=1, keepdims=True)
    return _Taps(places.clip(0, axis.extent - 1), weights, ~inside)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _interpolate(c: Context, x: Value, axis: _Axis, taps: _Taps) -> Value:
    numpy = x.dtype.numpy
    if taps.places.shape[1] == 2:
        along = [-1 if k == axis.axis else 1 for k in range(x.rank)]
        parts = []
        for places, weights in zip(taps.places.T, taps.weights.T, strict=True):
            part = ops.gather(x, c.constant(np.ascontiguousarray(places)), axis=axis.axis)
            weight = c.constant(weights.astype(numpy).reshape(along))
            parts.append(ops.mul(part, broadcast(weight, part.shape)))
        return ops.add(*parts)
    matrix = np.zeros((axis.extent, axis.size))
    np.add.at(matrix, (taps.places, np.arange(axis.size)[:, None]), taps.weights)
    last = x.rank - 1
    perm = (*(k for k in range(x.rank) if k != axis.axis), axis.axis)
    moved = ops.transpose(x, perm=perm) if axis.axis != last else x
    flat = reshape(moved, (int(np.prod(moved.shape[:-1])), axis.extent))
    product = reshape(ops.dot(flat, c.constant(matrix.astype(numpy))), (*moved.shape[:-1], axis.size))
    return ops.transpose(product, perm=tuple(np.argsort(perm).tolist())) if axis.axis != last else product
