"""Derivatives of whole graphs: what they are, that nothing is computed in vain, and what is said when there are none."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from graphc import ops
from graphc.autodiff.transforms import grad, hessian_vector_product, jvp, value_and_grad, vjp
from graphc.errors import GradientError, GradientNotWrittenError, NotConnectedError, NotDifferentiableError
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Node, Value, input_value, location, location_of, make
from graphc.ir.interpret import run
from graphc.ir.text import value_names
from graphc.ir.types import tensor
from graphc.ops import Kind, OpSpec

FLOAT = tensor("float64", 3)
X, W = input_value("x", FLOAT), input_value("w", FLOAT)
AT_X, AT_W = np.array([0.5, -1.0, 2.0]), np.array([3.0, 0.25, -2.0])


def total(v: Value) -> Value:
    return ops.reduce_sum(v, axes=tuple(range(v.rank)))


def names_of(graph: Graph) -> Counter[str]:
    return Counter(node.op.name for node in graph.nodes)


def unary_op(name: str, **facts: Any) -> OpSpec:
    """An operation that nobody knows, for what no real one shows."""
    return OpSpec(name=name, kind=Kind.ELEMENTWISE, infer=lambda t: t, **facts)


# ------------------------------------------------------------------------------------------------------ what they are


def test_gradient_of_a_product() -> None:
    graph = Graph([X, W], [total(ops.mul(ops.exp(X), W))], ["loss"])
    both = value_and_grad(graph)
    assert both.output_names == ("loss", "grad_x", "grad_w")
    assert both.inputs == graph.inputs
    loss, gx, gw = run(both, AT_X, AT_W)
    np.testing.assert_allclose(loss, np.sum(np.exp(AT_X) * AT_W))
    np.testing.assert_allclose(gx, np.exp(AT_X) * AT_W)
    np.testing.assert_allclose(gw, np.exp(AT_X))


def test_products_with_the_jacobian_from_both_sides() -> None:
    graph = Graph([X, W], [ops.mul(ops.sin(X), W), ops.add(X, 1.0)], ["y", "z"])
    pulled, pushed = vjp(graph, "x"), jvp(graph, "x", of="y")
    assert pulled.input_names == ("x", "w", "ct_y", "ct_z")
    assert pulled.output_names == ("y", "z", "grad_x")
    u, v = np.array([1.0, 2.0, 3.0]), np.array([-1.0, 0.5, 4.0])
    *_, g = run(pulled, AT_X, AT_W, u, v)
    np.testing.assert_allclose(g, np.cos(AT_X) * AT_W * u + v)
    assert pushed.input_names == ("x", "w", "t_x")
    assert pushed.output_names == ("y", "z", "t_y")
    *_, t = run(pushed, AT_X, AT_W, v)
    np.testing.assert_allclose(t, np.cos(AT_X) * AT_W * v)


def test_products_are_zero_where_nothing_leads() -> None:
    graph = Graph([X, W], [ops.sin(X)], ["y"])
    np.testing.assert_array_equal(run(vjp(graph, "w"), AT_X, AT_W, AT_X)[-1], np.zeros(3))
    np.testing.assert_array_equal(run(jvp(graph, "w"), AT_X, AT_W, AT_X)[-1], np.zeros(3))


def test_forward_mode_leaves_no_probe_behind() -> None:
    pushed = jvp(Graph([X], [ops.tanh(ops.mul(X, X))]))
    assert {n.attrs["name"] for n in pushed.nodes if n.op.name == "input"} == {"x", "t_x"}


def test_a_value_used_as_an_output_and_inside_gets_both_parts() -> None:
    y = ops.mul(X, X)
    graph = Graph([X], [y, ops.exp(y)], ["y", "z"])
    u, v = AT_W, np.array([1.0, -1.0, 0.5])
    np.testing.assert_allclose(run(vjp(graph), AT_X, u, v)[-1], 2 * AT_X * (u + v * np.exp(AT_X**2)))


@pytest.mark.parametrize("by_name", [True, False])
def test_with_respect_to_a_value_in_between(by_name: bool) -> None:
    hidden = ops.tanh(ops.mul(X, W))
    graph = Graph([X, W], [total(ops.mul(hidden, hidden))])
    asked: str | Value = "%" + value_names(graph)[hidden].removeprefix("%") if by_name else hidden
    (g,) = run(grad(graph, asked), AT_X, AT_W)
    np.testing.assert_allclose(g, 2 * np.tanh(AT_X * AT_W))
    # what lies behind the value is not walked: there is no tanh's 1 - y*y
    assert names_of(grad(graph, asked))["sub"] == 0


def test_with_respect_to_a_value_and_what_it_is_made_of() -> None:
    y = ops.mul(X, X)
    gx, gy = run(grad(Graph([X], [total(ops.mul(y, y))]), [X, y]), AT_X)
    np.testing.assert_allclose(gx, 4 * AT_X**3)
    np.testing.assert_allclose(gy, 2 * AT_X**2)


def test_gradient_of_a_value_in_between() -> None:
    y = total(ops.mul(X, X))
    graph = Graph([X], [ops.exp(y)])
    np.testing.assert_allclose(run(grad(graph, of=y), AT_X)[0], 2 * AT_X)


# ------------------------------------------------------------------------------------------------------- higher orders


def test_hessian_vector_product_of_a_cube() -> None:
    graph = Graph([X], [total(ops.mul(ops.mul(X, X), X))])
    product = hessian_vector_product(graph)
    assert (product.input_names, product.output_names) == (("x", "t_x"), ("hvp_x",))
    np.testing.assert_allclose(run(product, AT_X, AT_W)[0], 6 * AT_X * AT_W)


def test_hessian_vector_product_of_a_quadratic_form() -> None:
    a = np.random.default_rng(0).standard_normal((3, 3))
    row = ops.reshape(X, shape=(1, 3))
    graph = Graph([X, W], [total(ops.mul(ops.mul(row, a), ops.reshape(X, shape=(3, 1))))])
    (h,) = run(hessian_vector_product(graph, "x"), AT_X, AT_W, AT_W)
    np.testing.assert_allclose(h, (a + a.T) @ AT_W)


def test_hessian_of_a_function_of_two_inputs_couples_them() -> None:
    graph = Graph([X, W], [total(ops.mul(X, ops.exp(W)))])
    hx, hw = run(hessian_vector_product(graph), AT_X, AT_W, np.ones(3), np.zeros(3))
    np.testing.assert_array_equal(hx, np.zeros(3))
    np.testing.assert_allclose(hw, np.exp(AT_W))


def test_gradient_of_the_gradient_of_the_gradient() -> None:
    x = input_value("x", tensor("float64"))
    for f, third in [(ops.sin, lambda v: -np.cos(v)), (lambda v: ops.pow(v, 4.0), lambda v: 24 * v)]:
        graph = Graph([x], [f(x)])
        for _ in range(3):
            graph = grad(graph)
        np.testing.assert_allclose(run(graph, np.float64(0.7))[0], third(0.7), rtol=1e-14)


def test_derivatives_of_derivatives_have_names_of_their_own() -> None:
    graph = Graph([X], [ops.sin(X)], ["y"])
    twice, pushed = vjp(vjp(graph)), jvp(jvp(graph))
    assert twice.input_names == ("x", "ct_y", "ct2_y", "ct_grad_x")
    assert twice.output_names == ("y", "grad_x", "grad2_x", "grad_ct_y")
    assert pushed.input_names == ("x", "t_x", "t2_x", "t_t_x")
    assert pushed.output_names == ("y", "t_y", "t2_y", "t_t_y")
    t, s = np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.0, -1.0])
    *_, second = run(pushed, AT_X, t, s, np.zeros(3))
    np.testing.assert_allclose(second, -np.sin(AT_X) * t * s)


# -------------------------------------------------------------------------------------------------- nothing in vain


def test_only_what_is_asked_for_is_computed() -> None:
    graph = Graph([X, W], [total(ops.mul(ops.exp(X), ops.tanh(W)))])
    assert names_of(grad(graph, "x"))["sub"] == 0, "1 - y*y is the tanh's, which leads to w alone"
    assert names_of(grad(graph, "w"))["sub"] == 1


def test_rules_are_told_what_is_wanted() -> None:
    seen: list[tuple[bool, ...]] = []

    def rule(node: Node, cotangents: tuple[Value | None, ...], wanted: tuple[bool, ...]) -> list[Value | None]:
        seen.append(wanted)
        return [cotangents[0] if want else None for want in wanted]

    op = OpSpec(name="three", kind=Kind.ELEMENTWISE, infer=lambda *types: types[0], gradient=rule)
    n = input_value("n", tensor("int64", 3))
    grad(Graph([X, W, n], [total(make(op, ops.exp(X), ops.exp(W), n)[0])]), "x")
    assert seen == [(True, False, False)]


def test_a_branch_that_leads_nowhere_needs_no_gradient() -> None:
    strange = make(unary_op("strange"), ops.exp(W))[0]
    graph = Graph([X, W], [total(ops.mul(X, strange))])
    np.testing.assert_array_equal(names_of(grad(graph, "x"))["strange"], 1)
    with pytest.raises(GradientNotWrittenError, match="strange"):
        grad(graph, "w")


def test_a_shared_value_is_differentiated_once() -> None:
    calls: list[Node] = []

    def counted(node: Node, cotangents: tuple[Value | None, ...], wanted: tuple[bool, ...]) -> list[Value | None]:
        calls.append(node)
        return [cotangents[0]]

    y = make(unary_op("counted", gradient=counted), X)[0]
    grad(Graph([X], [total(ops.add(ops.mul(y, y), ops.mul(ops.sin(y), ops.cos(y))))]))
    assert len(calls) == 1


def test_the_gradient_grows_no_faster_than_the_graph() -> None:
    def nodes(depth: int) -> int:
        """Every value is used twice: there are 2**depth paths, but `depth` values."""
        v = X
        for _ in range(depth):
            v = ops.mul(v, ops.add(v, 1.0))
        return len(grad(Graph([X], [total(v)])).nodes)

    assert nodes(80) - nodes(40) == nodes(40) - nodes(0) - (nodes(1) - nodes(0) - (nodes(2) - nodes(1)))


def test_one_is_not_multiplied_with() -> None:
    """The seed of a sum's gradient is a broadcast one, which costs no kernel of its own."""
    graph = grad(Graph([X], [total(X)]))
    assert names_of(graph) == Counter(input=1, constant=1, reshape=1, broadcast_to=2)


def test_nodes_know_what_they_are_the_gradient_of() -> None:
    with location("layer1"):
        y = ops.tanh(X)
    graph = grad(Graph([X], [total(y)]))
    assert any(location_of(node) == ("gradient of layer1",) for node in graph.nodes)


# ------------------------------------------------------------------------------------------------------------- errors


def test_what_does_not_depend_is_not_connected() -> None:
    with pytest.raises(NotConnectedError, match="'out0' does not depend on 'w'"):
        grad(Graph([X, W], [total(X)]))


def test_what_stands_in_the_way_is_named() -> None:
    with location("line 7"):
        y = ops.floor(X)
    with pytest.raises(NotConnectedError, match=r"on the way stands floor \(at line 7\): .* almost everywhere"):
        grad(Graph([X], [total(y)]))
    with pytest.raises(NotConnectedError, match="stop_gradient: it was asked to"):
        grad(Graph([X], [total(ops.stop_gradient(X))]))
    whole = ops.cast(ops.cast(X, dtype=dtype_of("int32")), dtype=X.dtype)
    with pytest.raises(NotConnectedError, match=r"stands cast: it gives int32\[3\], and only floating point"):
        grad(Graph([X], [total(whole)]))


def test_stopped_on_one_way_but_not_on_the_other() -> None:
    (g,) = run(grad(Graph([X], [total(ops.mul(ops.stop_gradient(X), X))])), AT_X)
    np.testing.assert_array_equal(g, AT_X)


def test_integers_have_no_gradient() -> None:
    n = input_value("n", tensor("int64", 3))
    graph = Graph([X, n], [total(ops.mul(X, ops.cast(n, dtype=X.dtype))), total(n)], ["loss", "count"])
    with pytest.raises(NotDifferentiableError, match=r"with respect to 'n': it is int64\[3\]"):
        grad(graph, "n", of="loss")
    with pytest.raises(NotDifferentiableError, match=r"cannot differentiate 'count': it is int64\[\]"):
        grad(graph, "x", of="count")
    assert grad(graph).output_names == ("grad_x",), "by default, floating point inputs and outputs are meant"


def test_only_a_scalar_has_a_gradient() -> None:
    with pytest.raises(NotDifferentiableError, match=r"'out0' .*float64\[3\]: only a scalar .*a sum, a mean"):
        grad(Graph([X], [ops.exp(X)]))


def test_an_operation_without_derivative_says_why() -> None:
    with location("node5"):
        y = make(unary_op("lookup", no_gradient="it reads a table"), X)[0]
    with pytest.raises(NotDifferentiableError, match=r"lookup has no derivative \(at node5\): it reads a table"):
        grad(Graph([X], [total(y)]))


def test_an_operation_whose_gradient_is_not_written_says_so() -> None:
    y = make(unary_op("unfinished"), X)[0]
    with pytest.raises(GradientNotWrittenError, match="the gradient of unfinished is not written"):
        grad(Graph([X], [total(y)]))


def test_a_rule_that_gives_another_type_is_caught() -> None:
    wrong = unary_op("wrong", gradient=lambda node, cotangents, wanted: [total(cotangents[0])])
    with pytest.raises(AssertionError, match=r"wrong: the cotangent of operand 0 is float64\[\], .* float64\[3\]"):
        grad(Graph([X], [total(make(wrong, X)[0])]))


def test_unknown_names_are_listed() -> None:
    graph = Graph([X, W], [total(ops.mul(X, W))], ["loss"])
    with pytest.raises(GradientError, match=r"no value 'v' .* the inputs are x, w, the outputs loss"):
        grad(graph, "v")
    with pytest.raises(GradientError, match="2 floating point outputs"):
        grad(Graph([X], [total(X), total(ops.exp(X))]))
