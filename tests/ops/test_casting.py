"""Casts against ONNX's own conversion functions, over every pair of element types."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx.numpy_helper import saturate_cast, to_float8e8m0

from graphc.codegen.scalar import register_type
from graphc.errors import GraphTypeError
from graphc.ir.dims import Dim
from graphc.ir.dtypes import dtype_of
from graphc.ops.casting import convert, wide_type
from graphc.ops.reduce import accumulator

VALUES = np.array([0.0, -0.0, 0.47, 1e6, -1e6, 1e-7, np.nan, np.inf, -np.inf, 448, 464, 57344, 65504, 3.5], np.float32)
SATURATING = ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"]


def assert_same_bits(a: np.ndarray, b: np.ndarray) -> None:
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a.view(np.uint8), b.view(np.uint8))


@pytest.mark.parametrize("name", SATURATING)
def test_float8_saturates_as_onnx_does(name: str) -> None:
    dtype = dtype_of(name)
    assert_same_bits(convert(VALUES, dtype), saturate_cast(VALUES, dtype.numpy))
    with np.errstate(all="ignore"):
        assert_same_bits(convert(VALUES, dtype, saturate=False), VALUES.astype(dtype.numpy))


@pytest.mark.parametrize("rounding", ["up", "down", "nearest"])
@pytest.mark.parametrize("saturate", [True, False])
def test_exponents_round_as_onnx_does(rounding: str, saturate: bool) -> None:
    values = np.concatenate([np.abs(VALUES), np.float32([0.124, 0.25, 1.1, 1.5, 3.0, 3.0001, 1e-39, 3e38, 3.4e38])])
    expected = to_float8e8m0(values, saturate, rounding)
    found = convert(values, dtype_of("float8_e8m0fnu"), saturate=saturate, rounding=rounding)
    assert_same_bits(found, expected)


@pytest.mark.parametrize("name", ["int4", "uint4", "int2", "uint2"])
def test_small_integers_keep_the_low_bits(name: str) -> None:
    dtype = dtype_of(name)
    values = np.arange(-40, 40)
    modulus = 2**dtype.bits
    expected = values % modulus
    if dtype.kind == "int":
        expected = np.where(expected >= modulus // 2, expected - modulus, expected)
    for source in (values, values.astype(np.int8), values.astype(np.float32)):
        np.testing.assert_array_equal(convert(source, dtype).astype(np.int64), expected)


@pytest.mark.parametrize("source", ["float32", "bfloat16", "float16", "int32", "uint8", "int4", "bool", "float8_e5m2"])
@pytest.mark.parametrize(
    "target", ["float64", "bfloat16", "float16", "int32", "int8", "uint4", "bool", "complex64", "float4_e2m1fn"]
)
def test_small_values_survive_between_all_types(source: str, target: str) -> None:
    array = convert(np.array([0, 1, 1, 0]), dtype_of(source))
    result = convert(array, dtype_of(target))
    assert result.dtype == dtype_of(target).numpy
    np.testing.assert_array_equal(result.astype(np.complex64), [0, 1, 1, 0])


def test_strings_are_parsed_and_printed() -> None:
    text = np.array([["1.5", "NaN"], ["-INF", "1e3"]], object)
    np.testing.assert_array_equal(convert(text, dtype_of("float32")), np.float32([[1.5, np.nan], [-np.inf, 1000]]))
    np.testing.assert_array_equal(convert(np.array(["7", "-3"]), dtype_of("int64")), [7, -3])
    assert convert(text, dtype_of("bfloat16")).dtype == ml_dtypes.bfloat16
    assert convert(np.float32([0.47892547]), dtype_of("string")).tolist() == ["0.47892547"]


def test_bool_is_whether_it_differs_from_zero() -> None:
    np.testing.assert_array_equal(
        convert(np.float32([0, -0.0, 0.3, np.nan]), dtype_of("bool")), [False, False, True, True]
    )


def test_dimensions_stay_dimensions() -> None:
    shape = np.array([Dim("n"), 3], object)
    assert convert(shape, dtype_of("int64")).tolist() == [Dim("n"), 3]
    with pytest.raises(GraphTypeError, match="symbolic"):
        convert(shape, dtype_of("float32"))


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float8_e5m2"])
def test_narrow_floats_are_computed_in_float32(name: str) -> None:
    dtype, wide = dtype_of(name), dtype_of("float32")
    assert dtype.computed_in == wide
    assert (register_type(dtype), wide_type(dtype)) == (wide, wide.numpy)
    ones = np.ones(3000, np.float32).astype(dtype.numpy)  # added in the type itself they stop long before
    assert float(accumulator(ones).cumsum()[-1]) == 3000


@pytest.mark.parametrize("name", ["float32", "float64", "int8", "int32", "bool"])
def test_other_types_are_computed_in_themselves(name: str) -> None:
    dtype = dtype_of(name)
    assert dtype.computed_in == register_type(dtype) == dtype
    assert wide_type(dtype) == dtype.numpy
