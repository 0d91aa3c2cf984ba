"""The operations' gradients: held against finite differences over every sample, and against conventions at kinks."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from cases import operands_of, results_of, type_of
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc import compile, ops
from graphc.autodiff.reverse import carries_gradient, pullback
from graphc.autodiff.transforms import grad, vjp
from graphc.ir.dims import Dim, substitute
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Value, constant, input_value, make
from graphc.ir.interpret import run
from graphc.ir.types import TensorType, tensor
from graphc.ops import REGISTRY, Kind, OpSpec
from graphc.ops.functions import clip
from graphc.ops.gradient import by_operand, zero
from graphc.ops.shapes import slice_bounds
from graphc.testing import check_grad, in_float64

# -------------------------------------------------------------------------------------------------- every operation


@pytest.mark.parametrize("name", REGISTRY)
def test_every_operation_has_a_gradient_or_says_why_not(name: str) -> None:
    spec = REGISTRY[name]
    if spec.kind is Kind.LEAF:
        return
    if spec.gradient is zero:
        assert spec.no_gradient, f"{name} is constant almost everywhere: say why"
    else:
        has_one = spec.gradient is not None or spec.decompose is not None
        assert has_one != bool(spec.no_gradient), f"{name} needs a gradient or a reason, not both"


def is_float(array: Any) -> bool:
    return isinstance(array, np.ndarray) and carries_gradient(type_of(array))


def _smooth_points(operands: list[Any], rng: np.random.Generator) -> Iterable[list[Any]]:
    """Random points near a sample's operands, in float64, without ties and away from 0 and whole numbers; then, for what is
    not defined there, positive ones, and ones above 1."""

    def near(x: np.ndarray, k: int, low: float) -> np.ndarray:
        inner = (0.85 - 0.17 * k) * np.clip(x.astype(np.float64), -4, 4)
        moved = inner + np.copysign(rng.uniform(0.07, 0.14, x.shape), inner + rng.uniform(-1e-3, 1e-3, x.shape))
        return moved if low < 0 else low + np.abs(moved)

    for low in (-1.0, 0.2, 1.2):
        yield [near(o, k, low) if is_float(o) else o for k, o in enumerate(operands)]


#: their gradients are not the derivatives of what they compute
_OTHERWISE = ("stop_gradient", "custom_vjp")


def _differentiable_samples() -> list[Any]:
    found = []
    for name, spec in REGISTRY.items():
        if spec.kind is Kind.LEAF or not (spec.gradient or spec.decompose) or name in _OTHERWISE:
            continue
        seen = set()
        for k, sample in enumerate(spec.samples()):
            operands = operands_of(sample)
            floats = [o for o in operands if is_float(o)]
            if not floats or not all(np.all(np.isfinite(o)) for o in floats):
                continue
            if not any(np.size(r) and is_float(r) for r in results_of(spec, sample)) or not any(o.size for o in floats):
                continue
            # once widened, the samples that differ in their element type alone are one
            key = repr(([(np.shape(o), is_float(o) or o.tobytes()) for o in operands], sample.attrs))
            if key not in seen:
                seen.add(key)
                found.append(pytest.param(spec, operands, sample.attrs, id=f"{name}-{k}"))
    return found


@pytest.mark.parametrize(("spec", "operands", "attrs"), _differentiable_samples())
def test_gradients_agree_with_finite_differences(spec: OpSpec, operands: list[Any], attrs: dict[str, Any]) -> None:
    rng = np.random.default_rng(zlib.crc32(spec.name.encode()))
    inputs = [input_value(f"x{k}", type_of(o)) for k, o in enumerate(operands)]
    graph = in_float64(Graph(inputs, make(spec, *inputs, **attrs)))
    for point in _smooth_points(operands, rng):
        with np.errstate(all="ignore"):
            results = run(graph, *point)
        if all(np.all(np.isfinite(r)) for r in results if is_float(r)):
            check_grad(graph, *point, order=2)
            return
    pytest.fail("no sample point lies where the operation is defined")


def test_stop_gradient_stops_and_says_so() -> None:
    (g,) = gradients("stop_gradient", [1.0, 2.0])
    np.testing.assert_array_equal(g, [0, 0])


# ------------------------------------------------------------------------------------------- kinks, borders and ties


def gradients(op: str, *operands: Any, **attrs: Any) -> list[np.ndarray]:
    """The cotangents of the floating point operands for a cotangent of ones."""
    arrays = [np.asarray(o) for o in operands]
    inputs = [input_value(f"x{k}", type_of(a)) for k, a in enumerate(arrays)]
    graph = Graph(inputs, make(REGISTRY[op], *inputs, **attrs))
    pulled = vjp(graph)
    ones = [np.ones(v.shape) for v in pulled.inputs[len(inputs) :]]
    with np.errstate(all="ignore"):
        return list(run(pulled, *arrays, *ones)[len(graph.outputs) :])


inf, nan, half = np.inf, np.nan, 0.5

#: (operation, operands, what JAX and torch give for each operand); see docs/gradients.md
SPECIAL: list[tuple[str, tuple[Any, ...], tuple[Any, ...]]] = [
    ("abs", ([-2.0, 0.0, -0.0, 2.0],), ([-1, 0, 0, 1],)),
    ("relu", ([-2.0, 0.0, -0.0, 2.0, nan],), ([0, 0, 0, 1, 0],)),
    ("sign", ([-2.0, 0.0, 2.0],), ([0, 0, 0],)),
    ("floor", ([-2.0, 0.5],), ([0, 0],)),
    ("floordiv", ([4.0, 0.5], [2.0, 3.0]), ([0, 0], [0, 0])),
    ("maximum", ([1.0, 2.0, 3.0], [2.0, 2.0, 2.0]), ([0, half, 1], [1, half, 0])),
    ("minimum", ([1.0, 2.0, 3.0], [2.0, 2.0, 2.0]), ([1, half, 0], [0, half, 1])),
    ("mod", ([5.0, -5.0], [3.0, 3.0]), ([1, 1], [-1, 2])),
    ("fmod", ([5.0, -5.0], [3.0, 3.0]), ([1, 1], [-1, 1])),
    ("sqrt", ([0.0, 4.0, -1.0],), ([inf, 0.25, nan],)),
    ("rsqrt", ([0.0, 4.0],), ([-inf, -0.0625],)),
    ("reciprocal", ([0.0, 2.0, inf],), ([-inf, -0.25, 0],)),
    ("div", ([1.0, 0.0], [0.0, 2.0]), ([inf, half], [-inf, 0])),
    ("log", ([0.0, 2.0],), ([inf, half],)),
    ("log1p", ([-1.0, 1e-20],), ([inf, 1],)),
    ("expm1", ([-1e3, 1e-20],), ([0, 1],)),
    ("asin", ([-1.0, 0.0, 1.0],), ([inf, 1, inf],)),
    ("acos", ([-1.0, 0.0, 1.0],), ([-inf, -1, -inf],)),
    ("acosh", ([1.0],), ([inf],)),
    ("atanh", ([-1.0, 0.0, 1.0],), ([inf, 1, inf],)),
    ("atan2", ([0.0, 1.0], [-1.0, 0.0]), ([-1, 0], [0, -1])),
    ("tanh", ([-1e3, 0.0, 1e3],), ([0, 1, 0],)),
    ("sigmoid", ([-1e3, 0.0, 1e3],), ([0, 0.25, 0],)),
    ("erf", ([-1e3, 0.0],), ([0, 2 / np.sqrt(np.pi)],)),
    ("select", ([True, False], [nan, 1.0], [1.0, inf]), ([1, 0], [0, 1])),
    (
        "pow",
        ([0.0, 0.0, 0.0, 0.0, 2.0, -2.0], [2.0, 1.0, 0.5, 0.0, 0.0, 3.0]),
        ([0, 1, inf, 0, 0, 12], [0, 0, 0, 0, np.log(2), nan]),
    ),
]


@pytest.mark.parametrize(("op", "operands", "expected"), [pytest.param(*row, id=row[0]) for row in SPECIAL])
def test_conventions_at_kinks_and_borders(op: str, operands: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    found = gradients(op, *operands)
    assert len(found) == len(expected)
    for g, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(g, np.asarray(e, np.float64), rtol=1e-15)


@pytest.mark.parametrize("exponent", [-1.0, 0.0, 0.5, 1.0, 2.0, 3.0])
def test_a_power_with_a_constant_exponent_needs_no_case_distinction(exponent: float) -> None:
    x = input_value("x", tensor("float64", 3))
    graph = vjp(Graph([x], [ops.pow(x, exponent)]))
    assert not any(node.op.name in ("select", "log") for node in graph.nodes)
    at = np.array([0.0, 1.5, -2.0])
    with np.errstate(all="ignore"):
        (_, g) = run(graph, at, np.ones(3))
        expected = exponent * at ** (exponent - 1) if exponent else np.zeros(3)
    np.testing.assert_allclose(g, expected, rtol=1e-15)


def test_largest_elements_that_are_equal_share() -> None:
    (g,) = gradients("reduce_max", [[3.0, 1.0, 3.0], [2.0, 1.0, 0.0]], axes=(1,))
    np.testing.assert_array_equal(g, [[half, 0, half], [1, 0, 0]])
    (g,) = gradients("reduce_min", [2.0, 1.0, 1.0, 1.0, 1.0], axes=(0,))
    np.testing.assert_array_equal(g, [0, 0.25, 0.25, 0.25, 0.25])


@pytest.mark.parametrize("combine", ["maximum", "minimum"])
def test_of_equals_in_a_window_the_first_takes_all(combine: str) -> None:
    x = np.array([5.0, 5.0, 5.0, 1.0]) * (1 if combine == "maximum" else -1)
    attrs = {"combine": combine, "axes": (0,), "window": (2,), "strides": (1,), "dilation": (1,)}
    (g,) = gradients("reduce_window", x, padding=((0, 0),), **attrs)
    np.testing.assert_array_equal(g, [1, 1, 1, 0])
    # a window that holds nothing but padding gives nothing to anyone
    (g,) = gradients("reduce_window", x, padding=((2, 0),), **attrs)
    np.testing.assert_array_equal(g, [2, 1, 1, 0])


def test_equal_elements_are_sorted_as_they_stand() -> None:
    x = input_value("x", tensor("float64", 4))
    (g,) = run(Graph([x], [pulled_by_weights(ops.sort(x, axis=0)[0], x)]), np.array([2.0, 1.0, 2.0, 1.0]))
    np.testing.assert_array_equal(g, [3, 1, 4, 2])
    (g,) = run(Graph([x], [pulled_by_weights(ops.top_k(x, k=2, axis=0)[0], x)]), np.array([2.0, 1.0, 2.0, 1.0]))
    np.testing.assert_array_equal(g, [1, 0, 2, 0])


def test_of_equal_elements_the_first_is_the_unique_one() -> None:
    x = input_value("x", tensor("float64", 5))
    total = ops.reduce_sum(ops.unique(x)[0], axes=(0,))
    (g,) = run(grad(Graph([x], [total])), np.array([2.0, 1.0, 2.0, 3.0, 1.0]))
    np.testing.assert_array_equal(g, [1, 1, 0, 1, 0])


def test_clipping_gives_half_at_its_bounds() -> None:
    x = input_value("x", tensor("float64", 5))
    g = run(vjp(Graph([x], [clip(x, -1.0, 1.0)])), np.array([-2.0, -1.0, 0.0, 1.0, 2.0]), np.ones(5))[-1]
    np.testing.assert_array_equal(g, [0, half, 1, half, 0])


def pulled_by_weights(y: Value, x: Value) -> Value:
    """The cotangent of x for the cotangent 1, 2, 3, ... of y."""
    (g,) = pullback([y], [constant(np.arange(1.0, 1 + y.shape[0]))], [x])
    assert g is not None
    return g


@pytest.mark.parametrize(
    "build",
    [
        lambda x: ops.gather_nd(x, np.zeros((2, 3, 0), np.int64)),  # no coordinates: all of x, six times
        lambda x: ops.unique(x, axis=1)[0],
    ],
    ids=["gather_nd of everything", "unique columns"],
)
def test_what_no_sample_shows(build: Any) -> None:
    x = input_value("x", tensor("float64", 2, 4))
    check_grad(Graph([x], [build(x)]), np.random.default_rng(0).standard_normal((2, 4)), order=2)


# --------------------------------------------------------------------------------------------- zeros among the factors


@pytest.mark.parametrize(
    ("x", "expected"), [([2.0, 0.0, 3.0], [0, 6, 0]), ([0.0, 0.0, 3.0], [0, 0, 0]), ([-2.0, 0.5, 3.0], [1.5, -6, -1])]
)
def test_products_of_the_others(x: list[float], expected: list[float]) -> None:
    np.testing.assert_array_equal(gradients("reduce_prod", x, axes=(0,))[0], expected)


def test_running_products_with_a_zero() -> None:
    np.testing.assert_array_equal(gradients("cumprod", [2.0, 0.0, 3.0], axis=0)[0], [1, 8, 0])


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("reduce_prod", {"axes": (0, 2)}),
        ("cumprod", {"axis": 1}),
        ("cumprod", {"axis": 1, "exclusive": True, "reverse": True}),
    ],
)
def test_derivatives_of_products_hold_at_zeros(op: str, attrs: dict[str, Any]) -> None:
    """Three orders: with zeros, a rule that divides or looks at one zero only goes wrong from the second on."""
    x = np.array([[[2.0, 0.0], [0.0, 0.0], [-1.5, 3.0], [0.5, 0.0]], [[0.0, 1.0], [2.0, 0.0], [0.0, 0.0], [1.0, 2.0]]])
    v = input_value("x", type_of(x))
    check_grad(Graph([v], make(REGISTRY[op], v, **attrs)), x, order=3)


# ----------------------------------------------------------------------------------------------------------- scatters


@pytest.mark.parametrize(
    ("reduction", "updates", "for_x", "for_updates"),
    [
        ("none", [10.0, 20.0, 30.0], [0, 1, 0], [0, 1, 1]),  # the last write is what is seen
        ("add", [10.0, 20.0, 30.0], [1, 1, 1], [1, 1, 1]),
        ("mul", [0.0, 5.0, 7.0], [0, 1, 7], [10, 0, 4]),
        ("mul", [0.0, 0.0, 7.0], [0, 1, 7], [0, 0, 4]),
        ("max", [2.0, 2.0, 30.0], [1 / 3, 1, 0], [1 / 3, 1 / 3, 1]),  # equals share
        ("min", [1.0, 2.0, 30.0], [0, 1, 1], [1, 0, 0]),
    ],
)
@pytest.mark.parametrize("op", ["scatter_elements", "scatter_nd"])
def test_several_updates_of_one_place(
    op: str, reduction: str, updates: list[float], for_x: list[float], for_updates: list[float]
) -> None:
    x, places = [2.0, 3.0, 4.0], np.array([0, -3, 2])
    where = {"axis": 0} if op == "scatter_elements" else {}
    indices = places if op == "scatter_elements" else places[:, None]
    g = gradients(op, x, indices, updates, reduction=reduction, **where)
    np.testing.assert_allclose(g[0], for_x, rtol=1e-15)
    np.testing.assert_allclose(g[1], for_updates, rtol=1e-15)


def test_second_derivatives_of_a_scattered_product_hold_at_a_zero() -> None:
    x, indices = np.array([2.0, 3.0]), np.array([0, 0, 1, 0])
    inputs = [input_value("x", tensor("float64", 2)), input_value("u", tensor("float64", 4))]
    out = ops.scatter_elements(inputs[0], constant(indices), inputs[1], axis=0, reduction="mul")
    check_grad(Graph(inputs, [out]), x, np.array([0.0, 5.0, 7.0, -2.0]), order=2)


# -------------------------------------------------------------------------------------------------------- other types


def test_the_gradient_of_a_cast_is_a_cast_back() -> None:
    x = input_value("x", tensor("float32", 2))
    y = ops.cast(x, dtype=dtype_of("float64"))
    graph = vjp(Graph([x], [y]))
    (_, g) = run(graph, np.array([1.5, -2.5], np.float32), np.array([1 / 3, 2.0]))
    assert g.dtype == np.float32
    np.testing.assert_array_equal(g, np.array([1 / 3, 2.0], np.float32))


def test_a_cast_that_saturates_passes_the_cotangent() -> None:
    x = input_value("x", tensor("float32", 3))
    y = ops.cast(ops.cast(x, dtype=dtype_of("float8_e4m3fn")), dtype=dtype_of("float32"))
    g = run(vjp(Graph([x], [y])), np.array([1.0, 1e6, -1e6], np.float32), np.ones(3, np.float32))[-1]
    np.testing.assert_array_equal(g, [1, 1, 1])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_rules_keep_the_element_type(dtype: str) -> None:
    """Every rule's constants take the operand's type, whatever it is; `pullback` would refuse another."""
    for name, spec in REGISTRY.items():
        if spec.kind in (Kind.LEAF, Kind.CONTROL) or spec.gradient is None:
            continue
        for sample in spec.samples():
            operands = [
                TensorType(dtype_of(dtype), np.shape(o)) if is_float(o) else type_of(o) for o in operands_of(sample)
            ]
            inputs = [input_value(f"x{k}", t) for k, t in enumerate(operands)]
            outputs = make(spec, *inputs, **sample.attrs)
            if any(carries_gradient(v.type) for v in inputs) and any(carries_gradient(v.type) for v in outputs):
                grads = vjp(Graph(inputs, outputs)).outputs[len(outputs) :]
                assert [g.type for g in grads] == [v.type for v in inputs if carries_gradient(v.type)], name


# ------------------------------------------------------------------------------------------------------ symbolic sizes

N, M = Dim("n"), Dim("m")
SYMBOLIC: dict[str, tuple[tuple[TensorType, ...], Any]] = {
    "reduce_sum": ((tensor("float64", N, 3),), lambda x: ops.reduce_sum(x, axes=(0,))),
    "reduce_prod": ((tensor("float64", 2, N),), lambda x: ops.reduce_prod(x, axes=(0, 1))),
    "reduce_max": ((tensor("float64", N, M),), lambda x: ops.reduce_max(x, axes=(1,))),
    "cumsum": ((tensor("float64", N),), lambda x: ops.cumsum(x, axis=0)),
    "cumprod": ((tensor("float64", M, N, 2),), lambda x: ops.cumprod(x, axis=1, exclusive=True)),
    "reshape": ((tensor("float64", N, 4),), lambda x: ops.reshape(x, shape=(N * 2, 2))),
    "transpose": ((tensor("float64", N, M),), lambda x: ops.transpose(x, perm=(1, 0))),
    "broadcast": ((tensor("float64", 1, M),), lambda x: ops.broadcast_to(x, shape=(2, N, M))),
    "slice": ((tensor("float64", N),), lambda x: ops.slice(x, starts=(1,), stops=(N,), steps=(2,))),
    "backwards": ((tensor("float64", N),), lambda x: ops.slice(x, starts=(N - 1,), stops=(-1,), steps=(-1,))),
    "concat": ((tensor("float64", N), tensor("float64", M)), lambda x, y: ops.concat(x, y, x, axis=0)),
    "pad": ((tensor("float64", N), tensor("float64")), lambda x, v: ops.pad(x, v, low=(M,), high=(1,))),
    "gather": ((tensor("float64", 3, N),), lambda x: ops.gather(x, np.array([[0, 1], [1, -1]]), axis=1)),
    "sort": ((tensor("float64", N, M),), lambda x: ops.sort(x, axis=1)[0]),
    "max pooling": (
        (tensor("float64", N, 5),),
        lambda x: ops.reduce_window(
            x, combine="maximum", axes=(1,), window=(3,), strides=(2,), padding=((1, 1),), dilation=(1,)
        ),
    ),
    "sum pooling": (
        (tensor("float64", N),),
        lambda x: ops.reduce_window(
            x, combine="add", axes=(0,), window=(2,), strides=(2,), padding=((1, 0),), dilation=(1,)
        ),
    ),
    "frames": ((tensor("float64", N),), lambda x: ops.frames(x, size=3, step=2)),
    "scatter": (
        (tensor("float64", N, 2), tensor("float64", 3, 2)),
        lambda x, u: ops.scatter_nd(x, np.array([[0], [1], [0]]), u),
    ),
}


@pytest.mark.parametrize("name", SYMBOLIC)
def test_gradients_over_symbolic_sizes(name: str) -> None:
    types, build = SYMBOLIC[name]
    inputs = [input_value(f"x{k}", t) for k, t in enumerate(types)]
    graph = Graph(inputs, [build(*inputs)])
    rng = np.random.default_rng(0)
    extents = {"n": 5, "m": 4}
    point = [rng.standard_normal([int(substitute(d, extents)) for d in t.shape]) for t in types]
    if name == "pad" or name == "broadcast":  # no operand shows one of the sizes
        graph = Graph(
            [*inputs, s := input_value("s", tensor("float64", N, M))], [ops.add(graph.outputs[0], size_of(s))]
        )
        point.append(rng.standard_normal((5, 4)))
    check_grad(graph, *point, order=2)


def size_of(s: Value) -> Value:
    return ops.mul(ops.reduce_sum(s, axes=(0, 1)), 0.0)


@pytest.mark.parametrize("n", [1, 4])
def test_a_size_that_may_be_one_is_summed_over_when_it_is(n: int) -> None:
    """x[n] and y[m] broadcast to each other when the sizes are equal or one of them is 1; the run tells which."""
    x, y = input_value("x", tensor("float64", 3, N)), input_value("y", tensor("float64", M))
    graph = Graph([x, y], [ops.mul(x, y)])
    rng = np.random.default_rng(n)
    check_grad(graph, rng.standard_normal((3, n)), rng.standard_normal(4), order=2)


@pytest.mark.parametrize("extent", [1, 4])
def test_pooling_runs_as_a_kernel_where_windows_hold_nothing_but_padding(extent: int) -> None:
    x = input_value("x", tensor("float64", extent))
    attrs = {"axes": (0,), "window": (2,), "strides": (1,), "dilation": (3,)}
    y = ops.reduce_window(x, combine="maximum", padding=((4, 4),), **attrs)
    graph = vjp(Graph([x], [y]))
    feeds = np.array([2.0, 5.0, 5.0, 1.0])[:extent], np.arange(1.0, 1 + y.shape[0])
    np.testing.assert_array_equal(compile(graph)(*feeds)[1], run(graph, *feeds)[1])


# ---------------------------------------------------------------------------------- windows and bounds of every kind


@st.composite
def windows(draw: st.DrawFn) -> tuple[int, dict[str, Any]]:
    """The extent of an axis, and a window over it: overlapping or not, dilated, wider than the padded axis or not."""
    window, stride, dilation = (draw(st.integers(1, n)) for n in (4, 4, 3))
    padding = draw(st.tuples(st.integers(0, 5), st.integers(0, 5)))
    extent = draw(st.integers(1, 12))
    return extent, {"window": (window,), "strides": (stride,), "padding": (padding,), "dilation": (dilation,)}


@settings(max_examples=60, deadline=None)
@given(windows(), st.sampled_from(["add", "maximum", "minimum"]), st.integers(0, 2))
def test_windows_of_every_kind(case: tuple[int, dict[str, Any]], combine: str, axis: int) -> None:
    extent, attrs = case
    x = input_value("x", tensor("float64", *(extent if k == axis else 2 for k in range(3))))
    y = ops.reduce_window(x, combine=combine, axes=(axis,), **attrs)
    real = ops.select(ops.isinf(y), 0.0, y)  # a window of padding alone gives an infinity
    check_grad(Graph([x], [real]), np.random.default_rng(0).permutation(x.type.size).reshape(x.shape) / 3)


@st.composite
def bounds(draw: st.DrawFn) -> tuple[int, tuple[int, int, int]]:
    extent = draw(st.integers(1, 9))
    step = draw(st.integers(-4, 4).filter(bool))
    start, stop = draw(st.integers(-10, 10) | st.none()), draw(st.integers(-10, 10) | st.none())
    first, last = slice_bounds(start, stop, step, extent)
    return extent, (first, last, step)  # type: ignore[return-value]


@settings(max_examples=60, deadline=None)
@given(bounds(), bounds())
def test_slices_of_every_kind(a: Any, b: Any) -> None:
    x = input_value("x", tensor("float64", a[0], b[0]))
    starts, stops, steps = zip(a[1], b[1], strict=True)
    y = ops.slice(x, starts=starts, stops=stops, steps=steps)
    check_grad(Graph([x], [ops.sin(y)]), np.random.default_rng(0).standard_normal(x.shape))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(-4, 4), st.integers(-4, 4)), min_size=1, max_size=3))
def test_pads_and_crops_of_every_kind(axes: list[tuple[int, int, int]]) -> None:
    shape, low, high = zip(*((d, max(a, -d), max(b, -d - min(a, 0))) for d, a, b in axes), strict=True)
    high = tuple(max(b, -d - a) for d, a, b in zip(shape, low, high, strict=True))
    x, v = input_value("x", tensor("float64", *shape)), input_value("v", tensor("float64"))
    rng = np.random.default_rng(0)
    check_grad(Graph([x, v], [ops.sin(ops.pad(x, v, low=low, high=high))]), rng.standard_normal(shape), 0.7)


# --------------------------------------------------------------------------------------------------------- native runs


def test_gradients_run_as_kernels() -> None:
    """One graph with the gradient of every operation: none falls to the host, and kernels agree with references."""
    inputs: list[Value] = []
    outputs: list[Value] = []
    feeds: list[Any] = []
    done = set()
    for case in _differentiable_samples():
        spec, operands, attrs = case.values
        if spec.kind in (Kind.HOST, Kind.CONTROL) or spec.gradient is None or spec.name in done:
            continue
        done.add(spec.name)
        rng = np.random.default_rng(zlib.crc32(spec.name.encode()))
        point = [*_smooth_points(operands, rng)][-1 if spec.name == "acosh" else 0]
        own = [input_value(f"{spec.name}_x{k}", type_of(o)) for k, o in enumerate(point)]
        results = [v for v in make(spec, *own, **attrs) if carries_gradient(v.type)]
        weights = [input_value(f"{spec.name}_ct{k}", v.type) for k, v in enumerate(results)]
        outputs += [g for g in pullback(results, weights, own) if g is not None]
        inputs += [*own, *weights]
        feeds += [*point, *(rng.standard_normal(v.shape) for v in weights)]
    graph = Graph(inputs, outputs)
    assert not [node for node in graph.nodes if node.op.kind is Kind.HOST]
    with np.errstate(all="ignore"):
        expected = run(graph, *feeds)
    found = compile(graph)(*feeds)
    for name, a, b in zip(graph.output_names, found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("op", [ops.reduce_max, ops.reduce_min])
def test_the_derivative_of_an_extreme_that_is_nan_is_nan(op: Any) -> None:
    x = input_value("x", tensor("float64", 2, 3))
    graph = vjp(Graph([x], [op(x, axes=(1,))]))
    _, g = run(graph, np.array([[1.0, nan, 3.0], [1.0, 1.0, 1.0]]), np.ones(2))
    np.testing.assert_allclose(g, [[nan] * 3, [1 / 3] * 3])


def test_a_rule_with_too_few_parameters_is_named() -> None:
    x = input_value("x", tensor("float64", 3))
    gradient = by_operand(lambda g, x: g)
    with pytest.raises(
        TypeError, match=r"sin: the gradient rule of operand 0 takes \(g, x\), .*\(g, operand 0, result\)"
    ):
        gradient(ops.sin(x).node, (x,), (True,))
