"""Tensors of a model file as NumPy arrays: sizes checked against the data before anything is allocated."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
from onnx import SparseTensorProto, TensorProto

from graphc.errors import ModelError
from graphc.frontends.onnx.external import is_external, read_external
from graphc.ir.dtypes import DType, dtype_of

__all__ = ["decode_sparse", "decode_tensor", "element_number", "element_type"]

_NAMES = {
    TensorProto.FLOAT: "float32",
    TensorProto.UINT8: "uint8",
    TensorProto.INT8: "int8",
    TensorProto.UINT16: "uint16",
    TensorProto.INT16: "int16",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.STRING: "string",
    TensorProto.BOOL: "bool",
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
    TensorProto.UINT32: "uint32",
    TensorProto.UINT64: "uint64",
    TensorProto.COMPLEX64: "complex64",
    TensorProto.COMPLEX128: "complex128",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.FLOAT8E4M3FN: "float8_e4m3fn",
    TensorProto.FLOAT8E4M3FNUZ: "float8_e4m3fnuz",
    TensorProto.FLOAT8E5M2: "float8_e5m2",
    TensorProto.FLOAT8E5M2FNUZ: "float8_e5m2fnuz",
    TensorProto.UINT4: "uint4",
    TensorProto.INT4: "int4",
    TensorProto.FLOAT4E2M1: "float4_e2m1fn",
}
# names that older onnx packages lack
for _onnx, _name in (("FLOAT8E8M0", "float8_e8m0fnu"), ("UINT2", "uint2"), ("INT2", "int2")):
    if hasattr(TensorProto, _onnx):
        _NAMES[getattr(TensorProto, _onnx)] = _name

_DTYPES = {number: dtype_of(name) for number, name in _NAMES.items()}
# Typed fields: the elements are numbers, or in int32_data and uint64_data the bits of narrower ones.
_FIELDS = {
    "float32": "float_data",
    "complex64": "float_data",
    "float64": "double_data",
    "complex128": "double_data",
    "int64": "int64_data",
    "uint32": "uint64_data",
    "uint64": "uint64_data",
}


def element_type(number: int, what: str) -> DType:
    """The DType for ONNX's number of an element type. Raises ModelError when there is none."""
    try:
        return _DTYPES[number]
    except KeyError:
        raise ModelError(f"{what} has the element type {number}, which ONNX does not define") from None


def element_number(dtype: DType) -> int:
    """ONNX's number of an element type."""
    return next(number for number, d in _DTYPES.items() if d == dtype)


def decode_tensor(tensor: TensorProto, folder: Path | None = None, what: str = "") -> np.ndarray:
    """The tensor as a read-only array, without a copy where the bytes are stored as they are.

    `folder` is where external data may lie (see `read_external`). Raises ModelError when the data do not fit the shape.
    """
    what = what or f"tensor {tensor.name!r}"
    dtype = element_type(tensor.data_type, what)
    shape = tuple(tensor.dims)
    if any(d < 0 for d in shape):
        raise ModelError(f"{what} has the shape {list(shape)}")
    count = prod(shape)
    packed = dtype.bits if 0 < dtype.bits < 8 and dtype.kind != "bool" else 0
    nbytes = (count * packed + 7) // 8 if packed else count * dtype.itemsize
    if dtype.kind == "string":
        return _strings(tensor, count, shape, what)
    if is_external(tensor):
        data = read_external(tensor, folder, nbytes)
    elif tensor.HasField("raw_data"):
        data = np.frombuffer(tensor.raw_data, np.uint8)
        if len(data) != nbytes:
            raise ModelError(f"{what}: {dtype}{list(shape)} needs {nbytes} bytes of data but has {len(data)}")
    else:
        data = _typed_field(tensor, dtype, nbytes, what)
    if packed:
        return _unpack(data, dtype, count).reshape(shape)
    array = data.view(dtype.numpy).reshape(shape) if nbytes else np.zeros(shape, dtype.numpy)
    array.flags.writeable = False
    return array


def _typed_field(tensor: TensorProto, dtype: DType, nbytes: int, what: str) -> np.ndarray:
    """The bytes of a tensor whose elements stand in one of the typed repeated fields."""
    field = _FIELDS.get(dtype.name, "int32_data")
    stored = {"float_data": np.float32, "double_data": np.float64, "int32_data": np.int32, "int64_data": np.int64}.get(
        field, np.uint64
    )
    numbers = np.array(getattr(tensor, field), stored)
    if dtype.kind == "complex":
        data = numbers.view(np.uint8)
    else:
        # int32_data holds the *bits* of bool, small ints, float16 and bfloat16: keep the low bytes
        width = dtype.itemsize
        data = (
            numbers.astype(np.dtype(f"u{width}"), copy=False).view(np.uint8)
            if numbers.dtype.kind != "f"
            else numbers.view(np.uint8)
        )
    if len(data) != nbytes:
        raise ModelError(
            f"{what}: {dtype}{list(tensor.dims)} needs {nbytes} bytes of data but has {len(data)} in {field}"
        )
    return data


def _strings(tensor: TensorProto, count: int, shape: tuple[int, ...], what: str) -> np.ndarray:
    if is_external(tensor) or len(tensor.string_data) != count:
        raise ModelError(f"{what}: string{list(shape)} needs {count} strings but has {len(tensor.string_data)}")
    array = np.empty(count, object)
    try:
        array[:] = [s.decode() for s in tensor.string_data]
    except UnicodeDecodeError:
        raise ModelError(f"{what}: a string is not UTF-8") from None
    return array.reshape(shape)


def _unpack(data: np.ndarray, dtype: DType, count: int) -> np.ndarray:
    """Elements of 4 or 2 bits, stored low bits first, as one array element each."""
    bits = dtype.bits
    fields = np.stack([(data >> shift) & ((1 << bits) - 1) for shift in range(0, 8, bits)], axis=-1).reshape(-1)[:count]
    if dtype.kind == "float":
        return fields.view(dtype.numpy)  # ml_dtypes keeps the four bits in the low half of a byte
    if dtype.kind == "int":
        fields = (fields.astype(np.int8) ^ (1 << (bits - 1))) - (1 << (bits - 1))
    return fields.astype(dtype.numpy)


def decode_sparse(sparse: SparseTensorProto, folder: Path | None = None) -> np.ndarray:
    """A sparse tensor, dense. Indices are flat (`[n]`) or a row each (`[n, rank]`)."""
    what = f"sparse tensor {sparse.values.name!r}"
    shape = tuple(sparse.dims)
    values = decode_tensor(sparse.values, folder, f"values of {what}")
    indices = decode_tensor(sparse.indices, folder, f"indices of {what}")
    if any(d < 0 for d in shape) or prod(shape) > _DENSE_LIMIT:
        raise ModelError(f"{what} would be dense {list(shape)}, more than {_DENSE_LIMIT} elements")
    if (
        values.ndim != 1
        or indices.dtype != np.int64
        or indices.shape not in ((len(values),), (len(values), len(shape)))
    ):
        raise ModelError(f"{what} has values {values.shape} and indices {indices.dtype}{indices.shape}")
    limits = np.array(shape, np.int64) if indices.ndim == 2 else prod(shape)
    if len(values) and ((indices < 0) | (indices >= limits)).any():
        raise ModelError(f"{what} has an index outside its shape {list(shape)}")
    dense = np.zeros(shape, values.dtype)
    if indices.ndim == 2:
        dense[tuple(indices.T)] = values
    else:
        dense.reshape(-1)[indices] = values
    return dense


#: a sparse tensor's dense size is not bounded by its data, so it needs a bound of its own
_DENSE_LIMIT = 1 << 28
