"""Discrete Fourier transforms, as products with the matrix of the transform."""

from __future__ import annotations

import numpy as np

from graphc import ops
from graphc.frontends.onnx.context import Context
from graphc.frontends.onnx.operators._common import FLOAT64, broadcast, reshape, scalar, to
from graphc.frontends.onnx.registry import importer
from graphc.ir.dims import Dim
from graphc.ir.graph import Value

__all__: list[str] = []

#: the matrix has length * length elements
_LONGEST = 4096


@importer("DFT", 17)
def dft_17(c: Context, x: Value, length: Value | None = None) -> Value:
    return _dft(c, x, length, c.axis(c.int("axis", 1), x.rank))


@importer("DFT", 20)
def dft(c: Context, x: Value, length: Value | None = None, axis: Value | None = None) -> Value:
    which = -2 if axis is None else c.concrete_ints(axis, "axis")[0]
    return _dft(c, x, length, c.axis(which, x.rank))


def _dft(c: Context, x: Value, length: Value | None, axis: int) -> Value:
    inverse, onesided = c.flag("inverse"), c.flag("onesided")
    extent = x.shape[axis]
    if isinstance(extent, Dim):
        c.unsupported("a transform over a symbolic extent; give the inputs' concrete shapes")
    to_real = inverse and onesided  # the spectrum's other half is its mirror image
    natural = 2 * (extent - 1) if to_real else extent
    size = natural if length is None else c.concrete_ints(length, "length of the transform")[0]
    if size > _LONGEST or size < 1:
        c.unsupported(f"transforms of length {size}; 1 to {_LONGEST} are")
    taken = size // 2 + 1 if to_real else size
    x = _fit(x, axis, taken)
    # the transformed axis last, behind it the parts: [..., taken, parts]
    order = (*(k for k in range(x.rank - 1) if k != axis), axis, x.rank - 1)
    moved = ops.transpose(x, perm=order) if order != tuple(range(x.rank)) else x
    # in float64, since the sums of a matrix product round more often than those of a fast transform
    y = to(_transform(c, to(moved, FLOAT64), size, inverse, onesided), x.dtype)
    back = tuple(int(k) for k in np.argsort(order))
    return ops.transpose(y, perm=back) if order != tuple(range(x.rank)) else y


def _fit(x: Value, axis: int, wanted: int) -> Value:
    """The axis cut or filled up with zeros to the length wanted."""
    missing = wanted - x.shape[axis]
    if not missing:
        return x
    high = tuple(missing if k == axis else 0 for k in range(x.rank))
    return ops.pad(x, scalar(0, x.dtype), low=(0,) * x.rank, high=high)


def _transform(c: Context, x: Value, size: int, inverse: bool, onesided: bool) -> Value:
    """x [..., taken, 1 or 2] -> [..., bins, 2], or [..., size, 1] for the inverse of a onesided spectrum."""
    *lead, taken, parts = x.shape
    bins = size // 2 + 1 if onesided and not inverse else size
    angle = 2 * np.pi * np.outer(np.arange(taken), np.arange(bins)) / size
    real, imaginary = np.cos(angle), np.sin(angle) * (1 if inverse else -1)
    if inverse:
        weight = np.full((taken, 1), 1 / size)
        if onesided:  # every bin but the first, and the middle one of an even size, stands for two
            weight[1 : (size + 1) // 2] *= 2
        real, imaginary = real * weight, imaginary * weight
    # (a + ib)(r + ii): the real part is a r - b i, the imaginary part a i + b r
    if inverse and onesided:
        matrix = np.stack([real, -imaginary])[:parts, :, :, None]
    else:
        matrix = np.stack([np.stack([real, imaginary], -1), np.stack([-imaginary, real], -1)])[:parts]
    out_parts = matrix.shape[-1]
    flat = matrix.transpose(1, 0, 2, 3).reshape(taken * parts, bins * out_parts)
    rows = int(np.prod(lead)) if not any(isinstance(d, Dim) for d in lead) else None
    if rows is None:
        c.unsupported("symbolic extents; give the inputs' concrete shapes")
    y = ops.dot(reshape(x, (rows, taken * parts)), c.constant(flat.astype(x.dtype.numpy)))
    return reshape(y, (*lead, bins, out_parts))


@importer("STFT", 17)
def stft(c: Context, x: Value, step: Value, window: Value | None = None, length: Value | None = None) -> Value:
    """Spectra of overlapping frames [batch, frames, bins, 2]."""
    onesided = c.flag("onesided", True)
    if x.rank == 2:
        x = reshape(x, (*x.shape, 1))
    extent = x.shape[1]
    if isinstance(extent, Dim):
        c.unsupported("a signal of symbolic length; give the inputs' concrete shapes")
    (hop,) = c.concrete_ints(step, "frame step")
    if length is not None:
        (size,) = c.concrete_ints(length, "frame length")
    elif window is not None and not isinstance(window.shape[0], Dim):
        size = window.shape[0]
    else:
        c.invalid("neither a window nor a frame length is given")
    if size > _LONGEST or size < 1 or hop < 1:
        c.unsupported(f"frames of {size} elements, {hop} apart")
    frames = (extent - size) // hop + 1
    places = np.arange(frames)[:, None] * hop + np.arange(size)
    cut = ops.gather(x, c.constant(places), axis=1)  # [batch, frames, size, parts]
    if window is not None:
        start = (size - window.shape[0]) // 2
        wide = ops.pad(window, scalar(0, window.dtype), low=(start,), high=(size - window.shape[0] - start,))
        cut = ops.mul(cut, broadcast(reshape(to(wide, x.dtype), (1, 1, size, 1)), cut.shape))
    return _transform(c, cut, size, False, onesided)
