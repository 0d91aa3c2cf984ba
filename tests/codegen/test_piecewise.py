"""Functions of vectors by tables in registers: their errors, and that they are used where the machine has them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from codegen.launching import launch
from codegen.test_math import ulps

from graphc.codegen.cpu.compile import Target, compile_assembly
from graphc.codegen.cpu.piecewise import PIECEWISE, has_tables
from graphc.codegen.cpu.templates.epilogue import Argument
from graphc.kernels.machine import host_machine

_STRIDE = 2039
_SOURCE = """
from graphc.codegen.cpu import vector
from graphc.codegen.cpu.intrinsics import {name}

load, store = vector.loader({lanes}), vector.storer({lanes})
pointer = vector.argument_pointer("float32")


def vectors(block, first, last, scratch):
    x, z = pointer(block, 0), pointer(block, 1)
    for i in range(0, last, {lanes}):
        store(z, i, {name}(load(x, i, {lanes})), {lanes})
"""
_REFERENCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "erf": lambda x: np.frompyfunc(math.erf, 1, 1)(x).astype(np.float64),
    "tanh": np.tanh,
    "gate_tanh": np.tanh,
}
LANES = sorted({host_machine().isa.lanes(4), 8})


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("name", PIECEWISE)
def test_errors_of_vectors(name: str, lanes: int, request: pytest.FixtureRequest) -> None:
    """Wherever the table is not to be had, this measures `graphc.codegen.math` on vectors."""
    limit = 3 if name == "gate_tanh" else 2
    stride = 1 if request.config.getoption("--all-floats") else _STRIDE
    worst = 0.0
    for start in range(0, 1 << 32, (1 << 22) * stride):
        bits = np.arange(start, min(start + (1 << 22) * stride, 1 << 32), stride, dtype=np.int64)
        x = bits[: len(bits) // lanes * lanes].astype(np.uint32).view(np.float32)
        y = np.empty_like(x)
        source = _SOURCE.format(name=name, lanes=lanes)
        launch("vectors", source, [Argument(n, "float32") for n in ("x", "z")], {"x": x, "z": y}, x.size, 0)
        with np.errstate(all="ignore"):
            worst = max(worst, float(ulps(y, _REFERENCES[name](x.astype(np.float64))).max()))
    print(f"{name} of {lanes}: {worst:.3f}")
    assert worst <= limit


@pytest.mark.parametrize("name", PIECEWISE)
def test_ends_and_signs(name: str) -> None:
    (lanes, *_) = LANES
    x = np.resize(np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3e38], np.float32), 16 * lanes)
    y = np.empty_like(x)
    source = _SOURCE.format(name=name, lanes=lanes)
    launch("vectors", source, [Argument(n, "float32") for n in ("x", "z")], {"x": x, "z": y}, x.size, 0)
    expected = np.array([0.0, -0.0, 1, -1, np.nan, 1e-45, -1e-45, 1], np.float32)
    np.testing.assert_array_equal(y[:8], expected)
    np.testing.assert_array_equal(np.signbit(y[:4]), np.signbit(expected[:4]))


@pytest.mark.parametrize("lanes", [8, 16])
def test_tables_are_looked_up_where_the_processor_can(lanes: int) -> None:
    host = Target.host()
    if not host.triple.startswith("x86_64"):
        pytest.skip("code for another kind of processor")
    source = _SOURCE.format(name="erf", lanes=lanes)
    for target in (
        Target("skylake-avx512", "+avx512f,+avx512vl", host.triple),
        Target("haswell", "+avx2,+fma", host.triple),
    ):
        assembly = compile_assembly("vectors", source, target)
        found = "vperm" in assembly
        assert found == has_tables(lanes, {f[1:] for f in target.features.split(",")}), target.cpu
