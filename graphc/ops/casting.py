"""Conversion of arrays between element types, as ONNX's Cast defines it where NumPy's `astype` does something else.

Out-of-range floats become the nearest finite 8-bit float when saturating (NaN stays NaN), float8_e8m0fnu keeps only
an exponent and so has rounding modes of its own, integers wrap to their low bits, and strings are parsed and printed.
A float outside the range of an integer type has no defined conversion: kernels and references may differ there.
"""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np

from graphc.errors import GraphTypeError
from graphc.ir.dtypes import DType, dtype_of

__all__ = ["ROUNDINGS", "convert", "keep_dtype", "wide_type"]

ROUNDINGS = ("up", "down", "nearest")
_SATURATING = {"float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"}


def convert(x: np.ndarray, dtype: DType, *, saturate: bool = True, rounding: str = "up") -> np.ndarray:
    """`x` as an array of `dtype`.

    `saturate` and `rounding` ("up", "down", "nearest") matter for the 8-bit floats only. An object array may hold
    strings, or symbolic dimensions, which stay as they are when the target is an integer type.
    """
    x = np.asarray(x)
    with np.errstate(all="ignore"):
        if dtype.kind == "string":
            return _to_string(x)
        if x.dtype.kind in "OUS":
            return _from_objects(x, dtype)
        if dtype.kind == "bool":
            return x != 0
        if x.dtype.kind == "c" and dtype.kind != "complex":
            x = x.real
        if dtype.name == "float8_e8m0fnu":
            return _to_exponent(x.astype(np.float32), saturate, rounding)
        if dtype.name in _SATURATING and saturate and dtype_of(x).is_float:
            info = ml_dtypes.finfo(dtype.numpy)
            x = np.clip(x.astype(np.float64), float(info.min), float(info.max)) if x.dtype.itemsize > 1 else x
        if dtype.is_integer and dtype.bits < 8:
            x = np.trunc(x.astype(np.float32)).astype(np.int32) if dtype_of(x).is_float else x
            return _wrap(x, dtype)
        return x.astype(dtype.numpy)


def _wrap(x: np.ndarray, dtype: DType) -> np.ndarray:
    """The low bits of integers as a 2- or 4-bit type."""
    low = np.bitwise_and(x.astype(np.int64), (1 << dtype.bits) - 1)
    if dtype.kind == "int":
        low = np.where(low >> (dtype.bits - 1), low - (1 << dtype.bits), low)
    return low.astype(np.int8).astype(dtype.numpy)


def _to_exponent(x: np.ndarray, saturate: bool, rounding: str) -> np.ndarray:
    """float32 to a bare power of two: the exponent, rounded by what the mantissa holds; NaN for NaN and infinity."""
    bits = x.view(np.uint32)
    exponent, mantissa = ((bits >> 23) & 0xFF).astype(np.int32), bits & 0x7FFFFF
    if rounding == "up":
        step = mantissa > 0
    elif rounding == "nearest":  # ties (mantissa one half) go up unless the exponent is already the smallest
        step = (mantissa > 0x400000) | ((mantissa == 0x400000) & (exponent > 0))
    else:
        step = np.zeros_like(mantissa, bool)
    rounded = exponent + (step & (exponent != 0xFF))
    if saturate:
        rounded = np.where(exponent == 0xFF, rounded, np.minimum(rounded, 0xFE))
    return rounded.astype(np.uint8).view(ml_dtypes.float8_e8m0fnu)


def _to_string(x: np.ndarray) -> np.ndarray:
    return np.array([str(v) for v in x.ravel()], object).reshape(x.shape)


def _from_objects(x: np.ndarray, dtype: DType) -> np.ndarray:
    if x.dtype.kind != "O" or all(isinstance(v, str | bytes) for v in x.flat):
        text = [v.decode() if isinstance(v, bytes) else str(v) for v in x.flat]
        if dtype.kind == "bool":
            return np.array([t.strip().lower() in ("true", "1") for t in text], bool).reshape(x.shape)
        parse: Callable[[str], object] = {"int": int, "uint": int, "complex": complex}.get(dtype.kind, float)
        if dtype.numpy.kind == "V":  # ml_dtypes types are not built from Python objects directly
            return convert(np.array([float(t) for t in text], np.float32).reshape(x.shape), dtype)
        return np.array([parse(t) for t in text], dtype.numpy).reshape(x.shape)
    if dtype.is_integer and dtype.bits >= 32:
        return x
    raise GraphTypeError(f"an array of symbolic dimensions cannot be cast to {dtype}")


def wide_type(dtype: DType) -> np.dtype:
    """The NumPy type in which references compute an element type, and sum it: int32 for integers of less than a byte."""
    return np.dtype(np.int32) if dtype.is_integer and dtype.bits < 8 else dtype.computed_in.numpy


def keep_dtype(compute: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """A NumPy function made to give the element type of its first operand, whatever that is, and no warnings.

    Types narrower than float32 or int8 are computed in a wider one and rounded (or wrapped) once; object arrays
    (symbolic dimensions) pass through.
    """

    def wrapped(*arrays: np.ndarray, **attrs: object) -> np.ndarray:
        arrays = tuple(map(np.asarray, arrays))
        if any(a.dtype.kind == "O" for a in arrays):
            return np.asarray(compute(*arrays, **attrs))
        dtype = dtype_of(arrays[0])
        wide = wide_type(dtype)
        if wide != dtype.numpy:
            arrays = tuple(a.astype(wide) for a in arrays)
        with np.errstate(all="ignore"):
            result = np.asarray(compute(*arrays, **attrs))
        return result if result.dtype == dtype.numpy else convert(result, dtype)

    return wrapped
