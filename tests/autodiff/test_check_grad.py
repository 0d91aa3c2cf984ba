"""check_grad finds what is wrong and says where; it does not call right what it cannot tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import ops
from graphc.errors import GradientError
from graphc.frontends.python.tensor import Tensor
from graphc.ir.graph import Graph, Value, input_value, make
from graphc.ir.types import tensor
from graphc.ops import Kind, OpSpec
from graphc.ops.gradient import by_operand
from graphc.testing import check_grad, in_float64, slope_at_zero

X, W = input_value("x", tensor("float64", 3)), input_value("w", tensor("float64", 3))
AT_X, AT_W = np.array([0.5, -1.0, 2.0]), np.array([3.0, 0.25, -2.0])


def with_rules(*rules: Any) -> Graph:
    """x * w * w with the given rules for x and w."""
    op = OpSpec(
        name="xww",
        kind=Kind.ELEMENTWISE,
        infer=lambda x, w: x,
        reference=lambda x, w: x * w * w,
        gradient=by_operand(*rules),
    )
    return Graph([X, W], make(op, X, W), ["y"])


def right_x(g: Value, x: Value, w: Value, y: Value) -> Value:
    return ops.mul(g, ops.mul(w, w))  # type: ignore[no-any-return]


def right_w(g: Value, x: Value, w: Value, y: Value) -> Value:
    return ops.mul(g, ops.mul(ops.mul(x, w), 2.0))  # type: ignore[no-any-return]


def test_right_rules_pass() -> None:
    check_grad(with_rules(right_x, right_w), AT_X, AT_W, order=3)


@pytest.mark.parametrize("modes", [("reverse",), ("forward",)])
def test_a_wrong_rule_is_found_and_its_operand_named(modes: tuple[str, ...]) -> None:
    graph = with_rules(right_x, lambda g, x, w, y: ops.mul(g, ops.mul(x, w)))
    with pytest.raises(AssertionError, match=rf"of y with respect to 'w'.*by {modes[0]} mode: relative error 0.5"):
        check_grad(graph, AT_X, AT_W, modes=modes)
    check_grad(graph, AT_X, AT_W, wrt="x")
    check_grad(graph, AT_X, AT_W, wrt=X)
    check_grad(graph, AT_X, AT_W, wrt=0)
    with pytest.raises(AssertionError, match="'w'"):
        check_grad(graph, AT_X, AT_W, wrt=[0, 1])


def test_a_small_error_is_found() -> None:
    graph = with_rules(right_x, lambda g, x, w, y: ops.mul(right_w(g, x, w, y), 1 + 1e-6))
    with pytest.raises(AssertionError, match="relative error 1e-06"):
        check_grad(graph, AT_X, AT_W)
    check_grad(graph, AT_X, AT_W, rtol=1e-5)


def test_a_missing_cotangent_is_found() -> None:
    with pytest.raises(AssertionError, match="but 0 by reverse mode"):
        check_grad(with_rules(right_x, None), AT_X, AT_W)


def test_a_gradient_of_another_shape_is_found() -> None:
    """Multiplied with a direction it would be broadcast, and give the right number."""
    x = input_value("x", tensor("float64", 1))
    op = OpSpec(
        name="thrice",
        kind=Kind.INJECTIVE,
        infer=lambda t: t.with_shape((3,)),
        reference=lambda v: np.repeat(v, 3),
        gradient=by_operand(lambda g, x, y: g),
    )
    with pytest.raises(AssertionError, match=r"'x' has the shape \[1\], its gradient \[3\]"):
        check_grad(Graph([x], make(op, x)), np.array([2.0]))


def test_an_error_of_the_second_order_is_found_in_the_second_order() -> None:
    graph = with_rules(lambda g, x, w, y: ops.mul(g, ops.stop_gradient(ops.mul(w, w))), right_w)
    check_grad(graph, AT_X, AT_W)
    with pytest.raises(AssertionError, match=r"of grad_x, grad_w with respect to 'w'.*\(order 2\)"):
        check_grad(graph, AT_X, AT_W, order=2)


def test_a_rule_that_is_not_linear_is_found_by_forward_mode() -> None:
    graph = with_rules(lambda g, x, w, y: ops.mul(ops.mul(g, ops.abs(g)), ops.mul(w, w)), right_w)
    with pytest.raises(GradientError, match="linear in the cotangent"):
        check_grad(graph, AT_X, AT_W, modes=["forward"])


def test_a_kink_is_not_called_wrong() -> None:
    with pytest.raises(GradientError, match=r"do not settle.*is the point at a kink"):
        check_grad(Graph([X], [ops.relu(X)]), np.array([0.0, 1.0, 2.0]))


def test_outside_the_domain_is_not_called_wrong() -> None:
    with np.errstate(all="ignore"), pytest.raises(GradientError, match="do not settle"):
        check_grad(Graph([X], [ops.log(X)]), -AT_X)


def test_only_inputs_can_be_moved() -> None:
    n = input_value("n", tensor("int64", 3))
    graph = Graph([X, n], [ops.mul(X, ops.cast(n, dtype=X.dtype))])
    check_grad(graph, AT_X, np.array([1, 2, 3]))
    with pytest.raises(GradientError, match="floating point inputs only, and 'n' is none: they are x"):
        check_grad(graph, AT_X, np.array([1, 2, 3]), wrt="n")


@pytest.mark.parametrize(("options", "message"), [({"modes": ["sideways"]}, "known are"), ({"order": 0}, "order is 0")])
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_grad(Graph([X], [X]), AT_X, **options)


def test_narrow_floats_are_widened() -> None:
    x = input_value("x", tensor("float32", 3))
    narrow = ops.cast(ops.mul(x, np.float32(1 / 3)), dtype=ops.cast(x, dtype=x.dtype).dtype)
    graph = Graph([x], [ops.exp(narrow)])
    assert all(v.dtype.name == "float64" for node in in_float64(graph).nodes for v in node.outputs)
    check_grad(graph, AT_X.astype(np.float32), order=2)


def test_python_functions_are_traced() -> None:
    def loss(parameters: dict[str, Any], x: Any, labels: Any) -> Any:
        w, b, seen = parameters["w"].value, parameters["b"].value, x.value
        missed = ops.sub(ops.add(ops.mul(w, seen), b), ops.cast(labels.value, dtype=seen.dtype))
        return {"loss": Tensor(ops.reduce_sum(ops.mul(missed, ops.exp(missed)), axes=(0,)))}

    parameters, labels = {"w": AT_W, "b": AT_X}, np.array([1, 0, 2])
    check_grad(loss, parameters, AT_X, labels, order=2)
    check_grad(loss, parameters, AT_X, labels, wrt=[0])
    narrow = {name: v.astype(np.float32) for name, v in parameters.items()}
    check_grad(loss, narrow, AT_X.astype(np.float32), labels)
    with pytest.raises(GradientError, match=r"'labels' is none: they are parameters\.b, parameters\.w, x"):
        check_grad(loss, parameters, AT_X, labels, wrt=2)


def test_slopes_are_accurate() -> None:
    slope = slope_at_zero(lambda t: float(np.exp(np.sin(3 * t))))
    assert abs(slope.value - 3) < 1e-11
    assert slope.error < 1e-10


def test_steps_that_leave_the_domain_do_not_count() -> None:
    with np.errstate(all="ignore"):
        slope = slope_at_zero(lambda t: float(np.sqrt(t + 1e-3)))
    assert abs(slope.value - 0.5 / np.sqrt(1e-3)) < 1e-6
    assert slope_at_zero(lambda t: float("nan")).error == np.inf


@pytest.mark.parametrize("point", [np.zeros(3), np.array([1.0, 0.0, 2.0])])
def test_it_cannot_tell_at_a_kink_even_where_the_numbers_agree(point: np.ndarray) -> None:
    """Central differences of abs at 0 are 0, which its gradient is too."""
    with pytest.raises(GradientError, match="cannot tell"):
        check_grad(lambda x: graphc.sum(abs(x)), point)


@pytest.mark.parametrize(
    ("f", "point"), [(lambda x: x + 1, np.arange(3)), (lambda x: x > 1.0, np.ones(3)), (lambda x: x, np.zeros(0))]
)
def test_nothing_to_check_is_an_error(f: Any, point: np.ndarray) -> None:
    with pytest.raises(GradientError, match="nothing to check"):
        check_grad(f, point)
