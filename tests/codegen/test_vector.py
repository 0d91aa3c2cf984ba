"""The vector type of generated code: operations on vectors agree with NumPy, and with the same text on numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from codegen.launching import launch

from graphc.codegen.cpu.compile import compile_assembly
from graphc.codegen.cpu.templates.epilogue import Argument
from graphc.kernels.machine import host_machine

N = 37
_SOURCE = """
from numpy import float32, float64, int32, int64
from graphc.codegen.cpu import vector
from graphc.codegen.cpu.intrinsics import (
    bits_float32, bits_int32, ceil, float32 as as_float32, float64 as as_float64, floor, int32 as as_int32, isinf, isnan,
    minimum, rint, sqrt, trunc, uint8 as as_uint8,
)
from graphc.codegen.cpu.vector import absolute, fma, maximum, reduce_add, reduce_largest, reduce_max, select

load, store = vector.loader({lanes}, True), vector.storer({lanes}, True)
pointer = vector.argument_pointer("{dtype}")


def vectors(block, first, last, scratch):
    x, y, z = pointer(block, 0), pointer(block, 1), pointer(block, 2)
    for i in range(0, {n}, {lanes}):
        lanes = min({lanes}, {n} - i)
        a, b = load(x, i, lanes), load(y, i, lanes)
        store(z, i, {expression}, lanes)


def numbers(block, first, last, scratch):
    x, y, z = pointer(block, 0), pointer(block, 1), pointer(block, 2)
    for i in range({n}):
        a, b = x[i], y[i]
        z[i] = {expression}
"""
EXPRESSIONS: dict[str, Callable[..., Any]] = {
    "a + b": lambda a, b: a + b,
    "a - 2 * b": lambda a, b: a - 2 * b,
    "1.5 - a": lambda a, b: 1.5 - a,
    "a / b": lambda a, b: a / b,
    "-a": lambda a, b: -a,
    "maximum(a, b)": np.maximum,
    "minimum(a, b)": np.minimum,
    "maximum(a, 0)": lambda a, b: np.maximum(a, 0),
    "minimum(maximum(a, -1.0), 1.0)": lambda a, b: np.minimum(np.maximum(a, -1), 1),
    "select(a < b, a, b * b)": lambda a, b: np.where(a < b, a, b * b),
    "select((a <= b) & (b != 1), 1.0, 0.0)": lambda a, b: np.where((a <= b) & (b != 1), 1.0, 0.0),
    "select((a > b) | (a != a), 1.0, -1.0)": lambda a, b: np.where((a > b) | np.isnan(a), 1.0, -1.0),
    "select(isnan(a) | isinf(a), 7.0, a)": lambda a, b: np.where(np.isnan(a) | np.isinf(a), 7.0, a),
    "select(a >= 0, b, -b)": lambda a, b: np.where(a >= 0, b, -b),
    "fma(a, b, 3.0)": lambda a, b: a * b + 3,
    "absolute(a)": lambda a, b: np.abs(a),
    "sqrt(absolute(a))": lambda a, b: np.sqrt(np.abs(a)),
    "floor(a) + 10 * ceil(b)": lambda a, b: np.floor(a) + 10 * np.ceil(b),
    "rint(a) - trunc(b)": lambda a, b: np.rint(a) - np.trunc(b),
    "bits_float32(bits_int32(a))": lambda a, b: a,
}


def run(expression: str, function: str, dtype: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    z = np.full(N + 16, 99, dtype)
    source = _SOURCE.format(expression=expression, lanes=host_machine().isa.lanes(x.itemsize), n=N, dtype=dtype)
    names = ("x", "y", "z")
    launch(function, source, [Argument(n, dtype) for n in names], dict(zip(names, (x, y, z), strict=True)), 1, 0)
    assert (z[N:] == 99).all(), "lanes that do not exist were written"
    return z[:N]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_vectors_and_numbers_agree_with_numpy(expression: str) -> None:
    x = np.random.default_rng(0).uniform(-3, 3, N).astype("f")
    y = np.random.default_rng(1).uniform(-3, 3, N).astype("f")
    x[:8], y[:8] = [np.nan, 1, np.inf, -np.inf, 0, -0.0, 2.5, 1], [1, np.nan, 1, np.inf, 1, 0.5, -2.5, 1]
    with np.errstate(all="ignore"):
        expected = np.asarray(EXPRESSIONS[expression](x, y), "f")
    for function in ("vectors", "numbers"):
        np.testing.assert_allclose(run(expression, function, "float32", x, y), expected, rtol=1e-6)


@pytest.mark.parametrize("expression", ["a / b", "maximum(a, b)", "fma(a, b, 3.0)", "select(a < b, a, b * b)"])
def test_doubles(expression: str) -> None:
    x, y = np.random.default_rng(0).uniform(-3, 3, (2, N))
    np.testing.assert_allclose(run(expression, "vectors", "float64", x, y), EXPRESSIONS[expression](x, y), rtol=1e-15)


@pytest.mark.parametrize(
    ("expression", "reference"),
    [
        ("a + b * 3", lambda a, b: a + b * 3),
        ("(a & 7) ^ (b << 2)", lambda a, b: (a & 7) ^ (b << 2)),
        ("maximum(a >> 1, b)", lambda a, b: np.maximum(a >> 1, b)),
        ("select(a > b, ~a, -b)", lambda a, b: np.where(a > b, ~a, -b)),
        ("as_int32(as_float32(a) * 1.5)", lambda a, b: np.trunc(a * np.float32(1.5)).astype("i4")),
        ("as_int32(as_uint8(a))", lambda a, b: a.astype("u1").astype("i4")),
        ("as_int32(as_float64(a) + 0.5)", lambda a, b: np.trunc(a + 0.5).astype("i4")),
        ("as_int32(~(a > b))", lambda a, b: (a <= b).astype("i4")),
        ("as_int32(a > b)", lambda a, b: (a > b).astype("i4")),
    ],
)
def test_integers_and_conversions(expression: str, reference: Callable[..., np.ndarray]) -> None:
    x, y = np.random.default_rng(2).integers(-1000, 1000, (2, N)).astype("i4")
    np.testing.assert_array_equal(run(expression, "vectors", "int32", x, y), reference(x, y))


def test_reductions_over_the_lanes() -> None:
    x, y = np.random.default_rng(3).standard_normal((2, N)).astype("f")
    lanes = host_machine().isa.lanes(4)
    part, other = x[:lanes].astype(np.float64), y[:lanes].astype(np.float64)
    for largest in ("reduce_max", "reduce_largest"):
        got = run(f"a * 0 + reduce_add(a) + 10 * {largest}(b)", "vectors", "float32", x, y)
        np.testing.assert_allclose(got[:lanes], part.sum() + 10 * other.max(), rtol=1e-5)


def test_code_is_vector_code() -> None:
    """No lane is taken apart: the loop of a fused expression has packed arithmetic only."""
    lanes = host_machine().isa.lanes(4)
    source = _SOURCE.format(expression="maximum(a * 2 + b, 0)", lanes=lanes, n=lanes * 8, dtype="float32")
    assembly = compile_assembly("vectors", source)
    if host_machine().isa.name in ("avx2", "avx512"):
        assert "vmaxps" in assembly
        assert "vmaxss" not in assembly
        assert "vmulss" not in assembly


_TRANSPOSE = """
from graphc.codegen.cpu import vector

transpose = vector.transposer({lanes})
pointer = vector.argument_pointer("{dtype}")


def transposed(block, first, last, scratch):
    transpose(pointer(block, 1), pointer(block, 0), {lanes} + 1, {lanes} + 3)
"""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_transposed_square(dtype: str) -> None:
    lanes = host_machine().isa.lanes(np.dtype(dtype).itemsize)
    x = np.random.default_rng(0).standard_normal((lanes, lanes + 3)).astype(dtype)
    y = np.full((lanes, lanes + 1), 99, dtype)
    arguments = [Argument(n, dtype) for n in "xy"]
    launch("transposed", _TRANSPOSE.format(lanes=lanes, dtype=dtype), arguments, {"x": x, "y": y}, 1, 0)
    np.testing.assert_array_equal(y[:, :lanes], x[:, :lanes].T)
    assert (y[:, lanes:] == 99).all(), "elements behind the square were written"
