"""Tracing: names and types of the graph, nesting, what bodies capture, and errors at the user's line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import GradientError, GraphTypeError, NotDifferentiableError, TraceError
from graphc.ir.graph import Graph, location_of
from graphc.ir.interpret import run
from graphc.ir.text import parse_graph

HERE = Path(__file__).name


@dataclass
class Dense:
    weight: Any
    bias: Any


def dense(layer: Dense, x: Any) -> Any:
    return x @ layer.weight + layer.bias


def body_of(graph: Graph, op: str) -> Graph:
    (node,) = [n for n in graph.nodes if n.op.name == op]
    return node.bodies[0]


def test_inputs_are_called_after_parameters_and_paths() -> None:
    layer = Dense(graphc.spec((3, 2)), graphc.spec((2,)))
    graph = graphc.trace(lambda layers, x: dense(layers[0], x), [layer], graphc.spec(("batch", 3)))
    assert graph.input_names == ("layers.0.weight", "layers.0.bias", "x")
    assert [str(v.type) for v in graph.inputs] == ["float32[3, 2]", "float32[2]", "float32[batch, 3]"]
    assert graph.output_names == ("out",)
    assert str(graph.outputs[0].type) == "float32[batch, 2]"


def test_outputs_are_called_after_the_result() -> None:
    assert graphc.trace(lambda x: (x, {"a": x + 1}), 1.0).output_names == ("out0", "out1.a")
    assert graphc.trace(lambda x: {"loss": x, "more": [x]}, 1.0).output_names == ("loss", "more.0")


def test_none_is_an_open_size_of_its_own() -> None:
    graph = graphc.trace(lambda a, b: graphc.sum(a) + graphc.sum(b), graphc.spec((None, 2)), graphc.spec((None, 2)))
    assert graph.inputs[0].shape[0] != graph.inputs[1].shape[0]
    x, y = np.ones((3, 2), np.float32), np.ones((5, 2), np.float32)
    assert run(graph, x, y)[0] == 16
    assert graphc.compile(graph)(x, y) == 16


def test_a_traced_graph_prints_and_parses_back() -> None:
    def f(x: Any, w: Any) -> Any:
        return graphc.scan(lambda c, r: (graphc.tanh(c @ w + r), c), x[0], x)

    graph = graphc.trace(f, graphc.spec((4, 3)), graphc.spec((3, 3)))
    assert parse_graph(str(graph)) == graph


def test_nodes_know_the_users_line() -> None:
    graph = graphc.trace(lambda x: graphc.tanh(x), 1.0)
    (where,) = location_of(graph.outputs[0].node)
    assert where.startswith(f"{HERE}:")


def test_an_error_names_operand_shapes_and_line() -> None:
    with pytest.raises(GraphTypeError) as error:
        graphc.trace(lambda a, b: a + b, graphc.spec((2, 3)), graphc.spec((4, 3)))
    text = str(error.value)
    assert "[2, 3]" in text
    assert "[4, 3]" in text
    assert HERE in text


@pytest.mark.parametrize(
    "function",
    [
        lambda x: 1 if x > 0 else 2,
        lambda x: bool(x),
        lambda x: float(x),
        lambda x: int(x),
        lambda x: x.item(),
        lambda x: [1, 2, 3][x],
        lambda x: max(x, 1.0),
        lambda x: not x,
        lambda x: np.array(x),
    ],
)
def test_what_needs_the_elements_says_what_to_do_instead(function: Any) -> None:
    with pytest.raises(TraceError, match=r"(?s)(float32|bool)\[\].*test_tracing.py:\d+.*known only when"):
        graphc.trace(function, graphc.spec(()))


def test_a_tensor_does_not_outlive_its_trace() -> None:
    kept = []

    def leak(x: Any) -> Any:
        kept.append(x)
        return x

    graphc.trace(leak, 1.0)
    with pytest.raises(TraceError, match="'leak' that made it has ended"):
        kept[0] + 1

    def leak_from_a_body(x: Any) -> Any:
        inner = []

        def turn(c: Any, _: Any) -> Any:
            inner.append(c * 2)
            return c, None

        graphc.scan(turn, x, None, length=3)
        return inner[0] + x

    with pytest.raises(TraceError, match="'turn' that made it has ended"):
        graphc.trace(leak_from_a_body, graphc.spec(()))


def test_a_loops_body_takes_what_it_reads_from_outside_as_operands() -> None:
    def f(x: Any, w: Any) -> Any:
        return graphc.scan(lambda c, r: (c * r + w.T[0, 0], None), x, graphc.arange(3.0))[0]

    graph = graphc.trace(f, graphc.spec(()), graphc.spec((2, 2)))
    body = body_of(graph, "scan")
    # what does not change from turn to turn is computed outside
    assert all(n.op.name != "transpose" for n in body.nodes)
    assert [str(v.type) for v in body.inputs] == ["float32[]", "float32[]", "float32[]"]


def test_a_branch_computes_inside_of_itself() -> None:
    def f(p: Any, x: Any) -> Any:
        return graphc.cond(p, lambda: graphc.exp(x), lambda: x)

    graph = graphc.trace(f, True, graphc.spec((2,)))
    assert all(n.op.name != "exp" for n in graph.nodes)
    np.testing.assert_allclose(run(graph, np.bool_(True), np.ones(2, np.float32))[0], np.exp(np.ones(2, np.float32)))


def test_bodies_of_bodies_read_from_every_level() -> None:
    def f(x: Any, y: Any) -> Any:
        def outer(c: Any, a: Any) -> Any:
            def inner(d: Any, b: Any) -> Any:
                return d + a * b * y + c, d

            return graphc.scan(inner, c, x)

        return graphc.scan(outer, graphc.zeros((), dtype=graphc.float64), x)

    x, y = np.arange(1.0, 4.0), np.float64(0.5)
    last, rows = graphc.compile(f)(x, y)
    c, expected = 0.0, []
    for a in x:
        d, row = c, []
        for b in x:
            row.append(d)
            d = d + a * b * y + c
        expected.append(row)
        c = d
    np.testing.assert_allclose(rows, expected)
    np.testing.assert_allclose(last, c)


def test_derivatives_inside_of_a_trace_do_not_mix_up_levels() -> None:
    """The inner derivative holds the outer variable fixed: d/dx (x * d/dy (x + y)) is 1, not 2."""
    f = graphc.grad(lambda x: x * graphc.grad(lambda y: x + y)(1.0))
    assert f(np.float64(1)) == 1.0
    assert graphc.compile(f)(np.float64(1)) == 1.0
    g = graphc.grad(lambda x: graphc.grad(lambda y: x * y * y)(x) * x)  # (2 x x) x
    assert g(np.float64(3)) == pytest.approx(6 * 9.0)


def test_a_derivative_of_the_value_around_it_is_not_taken() -> None:
    f = graphc.grad(lambda x: graphc.stop_gradient(x) * x)
    assert f(np.float64(3)) == 3.0


def test_grad_of_what_is_no_scalar_or_no_float() -> None:
    with pytest.raises(NotDifferentiableError, match=r"float64\[3\].*scalar"):
        graphc.grad(lambda x: x * x)(np.ones(3))
    with pytest.raises(NotDifferentiableError, match="'n', which is int64"):
        graphc.grad(lambda n: n * 1.0)(np.int64(3))
    with pytest.raises(NotDifferentiableError, match="only a scalar has a gradient"):
        graphc.grad(lambda x: (x, x))(1.0)


def test_the_rest_of_grad_behaves_as_jaxs() -> None:
    def f(a: Any, b: Any) -> Any:
        return graphc.sum(a["x"] * b), {"seen": b}

    a, b = {"x": np.array([1.0, 2.0])}, np.array([3.0, 4.0])
    (value, aux), (da, db) = graphc.value_and_grad(f, argnums=(0, 1), has_aux=True)(a, b)
    assert value == 11
    np.testing.assert_array_equal(aux["seen"], b)
    np.testing.assert_array_equal(da["x"], b)
    np.testing.assert_array_equal(db, a["x"])
    np.testing.assert_array_equal(graphc.grad(lambda x, y: graphc.sum(x), argnums=1)(b, b), np.zeros(2))  # unused
    np.testing.assert_array_equal(graphc.grad(lambda x, y: graphc.sum(y), argnums=-1)(b, b), np.ones(2))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda x: graphc.scan(lambda c, r: (c[None], None), x, x),
            r"carry is float32\[4\] before a turn and float32\[1, 4\]",
        ),
        (lambda x: graphc.scan(lambda c, r: (c > 0, None), x, x), "changes its type"),
        (lambda x: graphc.scan(lambda c, r: ((c, c), None), x, x), "arranged as"),
        (lambda x: graphc.scan(lambda c, r: c, x, x), r"must return a pair"),
        (lambda x: graphc.scan(lambda c, r: (c, r), x, (x, x[:2])), "2 slices, but xs.0 gives 4"),
        (lambda x: graphc.scan(lambda c, r: (c, r), x), "nothing to walk over"),
        (lambda x: graphc.scan(lambda c, r: (c, r), x, 1.0), "no leading axis"),
        (lambda x: graphc.cond(x > 0, lambda: x, lambda: x), "a scalar is needed"),
        (lambda x: graphc.cond(x[0] > 0, lambda: x, lambda: x[0]), "make them equal"),
        (lambda x: graphc.cond(x[0] > 0, lambda: x, lambda: (x, x)), "they must agree"),
        (lambda x: graphc.while_loop(lambda v: v > 0, lambda v: v - 1, x), "must return a scalar"),
        (lambda x: graphc.while_loop(lambda v: v[0] > 0, lambda v: v[0], x), "changes its type"),
    ],
)
def test_control_flow_says_what_does_not_fit(function: Any, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        graphc.trace(function, graphc.spec((4,)))


def test_a_carry_that_starts_as_a_number_takes_the_type_it_grows_into() -> None:
    def f(x: Any) -> Any:
        return graphc.scan(lambda c, r: (c + r, None), 0, x)[0]

    assert f(np.array([1.5, 2.0])) == 3.5
    assert graphc.compile(f)(np.array([1.5, 2.0], np.float32)).dtype == np.float32


def test_python_numbers_adapt_to_what_they_meet() -> None:
    graph = graphc.trace(lambda x, lr: x * lr * 2, graphc.spec((2,), "float16"), 0.1)
    assert str(graph.outputs[0].type) == "float16[2]"
    assert str(graphc.trace(lambda lr: lr * 0.5, 0.1).outputs[0].type) in ("float32[]", "float64[]")
    both = graphc.compile(lambda x, lr: x * (lr * 0.5))
    assert both(np.float32(2), 0.1).dtype == np.float32
    assert both(np.float64(2), 0.1) == 2 * (0.1 * 0.5)


def test_custom_vjp() -> None:
    @graphc.custom_vjp
    def clipped(x: Any, limit: Any) -> Any:
        return x * 1.0

    clipped.defvjp(lambda x, limit: (x * 1.0, limit), lambda limit, g: (graphc.clip(g, -limit, limit), None))
    x = np.array([1.0, 2.0])
    for wrap in (lambda f: f, graphc.compile):
        gradient = wrap(graphc.grad(lambda v: graphc.sum(clipped(v, 0.5) * np.array([0.1, 7.0]))))
        np.testing.assert_array_equal(gradient(x), [0.1, 0.5])
    np.testing.assert_array_equal(clipped(x, 0.5), x)


def test_checkpoint_gives_the_same_gradient() -> None:
    def block(x: Any) -> Any:
        return graphc.tanh(graphc.sin(x) * x)

    x = np.linspace(-1, 1, 5)
    plain = graphc.grad(lambda v: graphc.sum(block(block(v))))
    saved = graphc.grad(lambda v: graphc.sum(graphc.checkpoint(block)(graphc.checkpoint(block)(v))))
    np.testing.assert_allclose(graphc.compile(saved)(x), plain(x), rtol=1e-12)
    np.testing.assert_allclose(saved(x), plain(x), rtol=1e-12)
    activated = graphc.checkpoint(lambda v, f, by: f(v) * by["scale"])
    np.testing.assert_allclose(activated(x, graphc.sin, {"scale": 2.0, "name": "s"}), 2 * np.sin(x))


def test_debug_nans_names_the_operation_and_the_line() -> None:
    def f(x: Any) -> Any:
        y = x - 2.0
        return graphc.sum(graphc.log(y))  # the line

    line = next(k for k, text in enumerate(Path(__file__).read_text().splitlines(), 1) if text.endswith("# the line"))
    for function in (f, graphc.compile(f)):
        assert np.isnan(function(np.ones(3)))
        with graphc.debug_nans(), pytest.raises(FloatingPointError, match=rf"log at {HERE}:{line} "):
            function(np.ones(3))

    def looping(x: Any) -> Any:
        return graphc.scan(lambda c, r: (graphc.sqrt(c) - r, None), x[0], x)[0]

    with graphc.debug_nans(), pytest.raises(FloatingPointError, match="sqrt at"):
        graphc.compile(looping)(np.array([1.0, 5.0, 1.0]))


def test_inputs_of_equal_names_stay_apart() -> None:
    def f(x0: Any, *x: Any) -> Any:
        return x0 - x[0]

    assert graphc.compile(f)(5.0, 3.0) == 2
    assert graphc.trace(f, 1.0, 1.0).input_names == ("x0", "x0_2")
    assert graphc.compile(lambda p: p["a.b"] - p["a"]["b"])({"a.b": 5.0, "a": {"b": 3.0}}) == 2
    assert graphc.compile(lambda p: p[1] - p["1"])({1: 5.0, "1": 3.0}) == 2


def test_a_trace_keeps_the_arrays_it_saw() -> None:
    w = np.ones(1000)
    f = graphc.compile(lambda x: x + w)
    assert f(np.zeros(1000)).sum() == 1000
    w[:] = 5
    assert f(np.zeros(1000)).sum() == 1000


def test_the_cotangent_of_a_number_may_have_another_width() -> None:
    @graphc.custom_vjp
    def scaled(x: Any, by: Any) -> Any:
        return x * by

    scaled.defvjp(lambda x, by: (x * by, (x, by)), lambda kept, g: (g * kept[1], graphc.sum(g * kept[0])))
    x = np.ones(3, np.float32)
    dx, dby = graphc.grad(lambda v, b: graphc.sum(scaled(v, b)), argnums=(0, 1))(x, 2.0)
    np.testing.assert_array_equal(dx, [2, 2, 2])
    assert dby == 3


def test_a_loop_of_a_negative_length_is_refused() -> None:
    with pytest.raises(TraceError, match="length is -2"):
        graphc.scan(lambda c, _: (c, c), 0.0, None, length=-2)


def test_arguments_of_the_other_kind_of_derivative_are_refused() -> None:
    graph = graphc.trace(lambda x: x * x, graphc.spec(()))
    with pytest.raises(GradientError, match="wrt= names values of a Graph"):
        graphc.grad(lambda x: x, wrt="x")
    with pytest.raises(GradientError, match="of= names values"):
        graphc.jvp(lambda x: x, (1.0,), (1.0,), of="y")
    with pytest.raises(GradientError, match="argnums is for Python functions"):
        graphc.grad(graph, argnums=1)
    with pytest.raises(GradientError, match="primals is for Python functions"):
        graphc.vjp(graph, 1.0)


def test_a_pullback_keeps_the_arrays_it_was_made_at() -> None:
    x = np.full(3, 2.0)
    _, pull = graphc.vjp(lambda v: v * v, x)
    x[:] = 0
    np.testing.assert_array_equal(pull(np.ones(3))[0], [4, 4, 4])


def test_a_zero_gradient_of_an_open_size_is_zero_at_infinity_too() -> None:
    graph = graphc.trace(lambda x, y: graphc.sum(y), graphc.spec(("n",), "float64"), graphc.spec(("n",), "float64"))
    zero = graphc.vjp(graph, wrt="x")
    _, g = run(zero, np.array([np.inf, np.nan]), np.ones(2), np.float64(1))
    np.testing.assert_array_equal(g, [0, 0])
