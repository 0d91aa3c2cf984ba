"""Errors of the generated transcendental functions, in units in the last place of float32.

A fixed sample runs through all of float32, every exponent and both signs; `--all-floats` takes every value.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from nests import execute, node_of, placed, run_node

import graphc
from graphc import ops
from graphc.codegen.math import exp_nonpositive
from graphc.ir import scalar as s
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, input_value
from graphc.ir.interpret import evaluate
from graphc.ir.scalar import COMPARISONS, temp
from graphc.ir.types import tensor
from graphc.kernels.ir import LoopNest, Map, Store
from graphc.kernels.lower import launches
from graphc.ops import REGISTRY, Kind, OpSpec

_STRIDE = 2039  # prime, so that all mantissa patterns occur
_PIECE = 1 << 22

_erf = np.frompyfunc(math.erf, 1, 1)
#: operation, float64 reference, largest error allowed, and the arguments that it holds for
CASES: list[tuple[str, Callable[[np.ndarray], np.ndarray], float, Callable[[np.ndarray], np.ndarray]]] = [
    ("exp", np.exp, 2, lambda x: x == x),
    ("tanh", np.tanh, 2, lambda x: x == x),
    ("sigmoid", lambda x: np.where(x < 0, np.exp(np.minimum(x, 0)), 1) / (1 + np.exp(-np.abs(x))), 2, lambda x: x == x),
    ("log", np.log, 2, lambda x: x >= 0),
    ("erf", lambda x: _erf(x).astype(np.float64), 2, lambda x: x == x),
    ("log2", np.log2, 2, lambda x: x >= 0),
    ("log1p", np.log1p, 2, lambda x: x >= -1),
    ("expm1", np.expm1, 2, lambda x: x == x),
    ("sin", np.sin, 2, lambda x: np.abs(x) < 2**26),
    ("cos", np.cos, 2, lambda x: np.abs(x) < 2**26),
    ("tan", np.tan, 2, lambda x: np.abs(x) < 2**26),
    ("asin", np.arcsin, 2, lambda x: np.abs(x) <= 1),
    ("acos", np.arccos, 2, lambda x: np.abs(x) <= 1),
    ("atan", np.arctan, 2, lambda x: x == x),
    ("sinh", np.sinh, 2, lambda x: x == x),
    ("cosh", np.cosh, 2, lambda x: x == x),
    ("asinh", np.arcsinh, 2, lambda x: x == x),
    ("acosh", np.arccosh, 2, lambda x: x >= 1),
    ("atanh", np.arctanh, 2, lambda x: np.abs(x) <= 1),
    ("rsqrt", lambda x: 1 / np.sqrt(x), 2, lambda x: x > 0),
    ("softplus", lambda x: np.logaddexp(0.0, x), 2, lambda x: x == x),
]
#: measured by tests of their own below, or why not
ELSEWHERE = {
    "pow": "test_power",
    "atan2": "test_angle_of_a_point",
    "hypot": "test_length_of_a_point",
    "logaddexp": "a result near 0 has no digits left of its operands",
}
#: scalar operations that are rounded once, or whose expansion is
EXACT = COMPARISONS | {
    "add", "sub", "mul", "div", "mod", "fmod", "maximum", "minimum", "neg", "abs", "sign", "reciprocal", "sqrt", "floor",
    "ceil", "round", "trunc", "isnan", "isinf", "isposinf", "isneginf", "and", "or", "xor", "not", "shl", "shr", "select", "cast",
}  # fmt: skip


def _rounds_more_than_once(spec: OpSpec) -> bool:
    """Whether the scalar form of a float32 operation is made of several steps, or of a function."""
    sample = next(iter(spec.samples()))
    e = spec.scalar(*(temp(k, dtype_of("float32")) for k, _ in enumerate(sample.operands)), **sample.attrs)  # type: ignore[misc]
    steps = [x.op for x in s.walk((e,)) if x.op not in ("temp", "const")]
    return any(op not in EXACT for op in steps) or sum(op in ("add", "sub", "mul", "div", "sqrt") for op in steps) > 1


def test_every_function_is_measured() -> None:
    """An operation whose scalar form is new belongs into `CASES`, or has a test of its own."""
    functions = {
        name
        for name, spec in REGISTRY.items()
        if spec.kind is Kind.ELEMENTWISE and spec.scalar is not None and _rounds_more_than_once(spec)
    }
    assert functions == {c[0] for c in CASES} | set(ELSEWHERE)


def ulps(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """How many float32 steps lie between a float32 result and the exact one; 0 for equal infinities and NaNs, else infinite."""
    rounded = exact.astype(np.float32)
    # 2**-149 is the step below the smallest normal number
    step = np.exp2(
        np.maximum(np.frexp(np.abs(np.where(np.isfinite(rounded), exact, 1)))[1] - 24, -149).astype(np.float64)
    )
    error = np.abs(got.astype(np.float64) - exact) / step
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    return np.where(same & ~np.isfinite(rounded), 0, np.where(np.isfinite(error), error, np.inf))


@pytest.mark.parametrize(("name", "reference", "limit", "valid"), CASES, ids=[c[0] for c in CASES])
def test_error(
    name: str,
    reference: Callable[..., np.ndarray],
    limit: float,
    valid: Callable[..., np.ndarray],
    request: pytest.FixtureRequest,
) -> None:
    stride = 1 if request.config.getoption("--all-floats") else _STRIDE
    worst, where = 0.0, 0.0
    for start in range(0, 1 << 32, _PIECE * stride):
        x = (
            np.arange(start, min(start + _PIECE * stride, 1 << 32), stride, dtype=np.int64)
            .astype(np.uint32)
            .view(np.float32)
        )
        with np.errstate(all="ignore"):
            x = x[valid(x)]
            if not x.size:
                continue
            (got,) = run_node(node_of(REGISTRY[name], x), x)
            error = ulps(got, reference(x.astype(np.float64)))
        k = int(np.argmax(error))
        if error[k] > worst:
            worst, where = float(error[k]), float(x[k])
    assert worst <= limit, f"{name}({where!r}) is {worst:.2f} units in the last place off"
    print(f"{name}: {worst:.3f} at {where!r}")


@pytest.mark.parametrize(("name", "reference"), [(c[0], c[1]) for c in CASES], ids=[c[0] for c in CASES])
def test_limits(name: str, reference: Callable[..., np.ndarray]) -> None:
    x = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1e-38, 3e38, -3e38], np.float32)
    if name in ("sin", "cos", "tan"):
        x = x[np.abs(x) < 1e30]
    with np.errstate(all="ignore"):
        (got,) = run_node(node_of(REGISTRY[name], x), x)
        assert (ulps(got, reference(x.astype(np.float64))) <= 2).all(), (x, got, reference(x.astype(np.float64)))


def test_power() -> None:
    """x**y: a lattice over both, dense where results are neither zero nor infinite, and C's special cases."""
    random = np.random.default_rng(1)
    x = np.exp2(random.uniform(-60, 60, 400_000)).astype(np.float32) * random.choice([-1, 1], 400_000).astype(
        np.float32
    )
    y = (random.uniform(-150, 150, x.size) / np.log2(np.abs(x))).astype(np.float32)
    whole = random.random(x.size) < 0.4
    y[whole] = np.rint(y[whole])
    special = np.array([0, -0.0, 1, -1, 0.5, -0.5, 2, 3, -2, -3, 1e-40, 3e38, np.inf, -np.inf, np.nan], np.float32)
    x = np.concatenate([x, np.repeat(special, special.size)])
    y = np.concatenate([y, np.tile(special, special.size)])
    with np.errstate(all="ignore"):
        (got,) = run_node(node_of(REGISTRY["pow"], x, y), x, y)
        exact = np.power(x.astype(np.float64), y.astype(np.float64))
        error = ulps(got, exact)
    k = int(np.argmax(error))
    assert error[k] <= 2, f"{x[k]!r}**{y[k]!r} is {got[k]!r}, {error[k]:.2f} units in the last place off"


def test_angle_of_a_point() -> None:
    """atan2: points of all magnitudes and in all quadrants."""
    random = np.random.default_rng(2)
    y, x = ((random.standard_normal(400_000) * np.exp2(random.uniform(-20, 20, 400_000))).astype("f") for _ in range(2))
    (got,) = run_node(node_of(REGISTRY["atan2"], y, x), y, x)
    assert ulps(got, np.arctan2(y.astype(np.float64), x.astype(np.float64))).max() <= 2


def test_length_of_a_point() -> None:
    """hypot: operands of all magnitudes, alike and far apart, whose squares leave the range."""
    random = np.random.default_rng(3)
    scale = np.exp2(random.uniform(-130, 126, 400_000))
    x, y = (
        (random.standard_normal(400_000) * scale * np.exp2(random.uniform(-14, 0, 400_000))).astype("f")
        for _ in range(2)
    )
    with np.errstate(all="ignore"):
        (got,) = run_node(node_of(REGISTRY["hypot"], x, y), x, y)
        assert ulps(got, np.hypot(x.astype(np.float64), y.astype(np.float64))).max() <= 2


def test_exp_of_what_is_not_positive() -> None:
    """The exp of attention weights: as exact as exp, 0 below the normal numbers, NaN stays NaN."""
    x = -np.abs(np.arange(0, 1 << 31, _STRIDE, dtype=np.int64).astype(np.uint32).view(np.float32))
    e = exp_nonpositive(temp(0, dtype_of("float32")))
    with np.errstate(all="ignore"):
        got = evaluate(e, temps={0: x})
        exact = np.exp(x.astype(np.float64))
    normal = ~(x < -87)
    assert ulps(got[normal], exact[normal]).max() <= 2
    assert (got[~normal] == 0).all()
    assert np.isnan(got[np.isnan(x)]).all()


@pytest.mark.parametrize(("name", "limit"), [("gate_sigmoid", 2), ("gate_tanh", 3)])
def test_gates(name: str, limit: float) -> None:
    """What recurrent layers use: wherever the result is a normal number, and never far from it."""
    x = np.arange(0, 1 << 32, _STRIDE, dtype=np.int64).astype(np.uint32).view(np.float32)
    y = np.empty_like(x)
    f32 = dtype_of("float32")
    element = s.scalar(name, s.load(0, s.index(0), f32))
    nest = LoopNest((f32, f32), 1, (s.const(x.size),), (Map((), (Store(1, s.index(0), element),)),))
    for launch in launches(nest, [placed(0, x), placed(1, y)], 1, (name,)):
        execute(launch, [x.ctypes.data, y.ctypes.data])
    reference = next(c[1] for c in CASES if c[0] == name.removeprefix("gate_"))
    with np.errstate(all="ignore"):
        exact = reference(x.astype(np.float64))
        tiny = np.abs(exact) < np.finfo(np.float32).tiny
        if name == "gate_tanh":  # as small as its argument
            tiny[:] = False
        worst = ulps(y[~tiny], exact[~tiny]).max()
        print(f"{name}: {worst:.3f}")
        assert worst <= limit
    assert (np.abs(y[tiny]) <= 1e-37).all()


@pytest.mark.parametrize("precision", ["strict", "float32"])
def test_division_is_rounded_once(precision: str) -> None:
    """Also by a number that a loop does not change, which is not taken for a multiplication with its reciprocal."""
    x, y = (input_value(name, tensor("float32", *shape)) for name, shape in (("x", (1000,)), ("y", ())))
    quotient = ops.div(x, ops.broadcast_to(y, shape=(1000,)))
    exe = graphc.compile(Graph([x, y], [quotient]), threads=1, precision=precision)
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.standard_normal(1000, np.float32), rng.standard_normal((), np.float32)
        np.testing.assert_array_equal(exe(a, b), a / b)
