"""Whole Jacobians and Hessians, and linearised functions: held against closed forms and finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import add, exp, matmul, sin
from graphc import multiply as mul
from graphc import sum as total
from graphc.errors import NotDifferentiableError, TraceError

RNG = np.random.default_rng(1)
W, X, Z = RNG.standard_normal((2, 3)), RNG.standard_normal(3), RNG.standard_normal(3)
JACOBIANS = [graphc.jacrev, graphc.jacfwd]
both = pytest.mark.parametrize("jacobian", JACOBIANS, ids=["reverse", "forward"])


def function(x: Any) -> Any:
    """R^3 to R^2."""
    return sin(matmul(W, x))


def closed_form(x: np.ndarray) -> np.ndarray:
    return np.cos(W @ x)[:, None] * W


def slopes(f: Callable[[np.ndarray], Any], x: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """The Jacobian by central differences, [*result, *x]."""
    columns = []
    for k in range(x.size):
        move = np.zeros(x.size)
        move[k] = step
        ahead, behind = (np.asarray(f(x + sign * move.reshape(x.shape))) for sign in (1, -1))
        columns.append((ahead - behind) / (2 * step))
    return np.stack(columns, -1).reshape(*np.shape(columns[0]), *x.shape)


@both
def test_closed_form(jacobian: Any) -> None:
    found = jacobian(function)(X)
    assert found.shape == (2, 3)
    np.testing.assert_allclose(found, closed_form(X), rtol=1e-13)


@both
def test_finite_differences_at_any_rank(jacobian: Any) -> None:
    a = RNG.standard_normal((2, 3))

    def f(a: Any) -> Any:
        return exp(matmul(a, mul(W.T, 0.5)))

    found = jacobian(f)(a)
    assert found.shape == (2, 2, 2, 3)
    np.testing.assert_allclose(found, slopes(f, a), rtol=1e-7, atol=1e-8)
    of_scalar = jacobian(lambda a: total(f(a)))(a)
    np.testing.assert_allclose(of_scalar, graphc.grad(lambda a: total(f(a)))(a), rtol=1e-13)
    np.testing.assert_allclose(jacobian(lambda s: mul(s, X))(np.float64(2.0)), X)


@both
def test_trees_of_arguments_and_results(jacobian: Any) -> None:
    def f(tree: Any, y: Any) -> Any:
        return {"a": function(tree["x"]), "b": [mul(tree["x"], y), total(y)]}

    by_tree, by_y = jacobian(f, argnums=(0, 1))({"x": X, "unused": np.ones((2, 2))}, Z)["a"]
    np.testing.assert_allclose(by_tree["x"], closed_form(X), rtol=1e-13)
    np.testing.assert_array_equal(by_tree["unused"], np.zeros((2, 2, 2)))
    np.testing.assert_array_equal(by_y, np.zeros((2, 3)))
    product, summed = jacobian(f, argnums=-1)({"x": X, "unused": np.ones(1)}, Z)["b"]
    np.testing.assert_allclose(product, np.diag(X))
    np.testing.assert_array_equal(summed, np.ones(3))


@both
def test_auxiliary_results(jacobian: Any) -> None:
    found, aux = jacobian(lambda x: (function(x), {"twice": mul(x, 2.0), "n": 3}), has_aux=True)(X)
    np.testing.assert_allclose(found, closed_form(X), rtol=1e-13)
    np.testing.assert_array_equal(aux["twice"], 2 * X)
    assert aux["n"] == 3


@both
def test_inside_other_transformations(jacobian: Any) -> None:
    points = RNG.standard_normal((4, 3))
    many = graphc.vmap(jacobian(function))(points)
    np.testing.assert_allclose(many, np.stack([closed_form(x) for x in points]), rtol=1e-13)
    of_batch = jacobian(graphc.vmap(function))(points)
    for i in range(4):
        for j in range(4):
            np.testing.assert_allclose(of_batch[i, :, j], closed_form(points[i]) * (i == j), rtol=1e-13)
    compiled = graphc.compile(jacobian(function))(X.astype(np.float32))
    np.testing.assert_allclose(compiled, closed_form(X), rtol=1e-5)

    def curvature(x: Any) -> Any:
        return total(mul(J := jacobian(function)(x), J))

    np.testing.assert_allclose(graphc.grad(curvature)(X), slopes(curvature, X), rtol=1e-6)


ROWS = RNG.standard_normal((4, 3))


@both
def test_through_a_loop(jacobian: Any) -> None:
    def f(x: Any) -> Any:
        return graphc.scan(lambda h, v: (add(sin(h), mul(v, x)), h), x, ROWS)[0]

    np.testing.assert_allclose(jacobian(f)(X), slopes(f, X), rtol=1e-7, atol=1e-8)


def quartic(x: Any, y: Any) -> Any:
    return total(mul(sin(mul(x, y)), exp(x)))


def test_hessian() -> None:
    np.testing.assert_allclose(
        graphc.hessian(lambda x: total(sin(mul(x, x))))(X),
        np.diag(2 * np.cos(X**2) - 4 * X**2 * np.sin(X**2)),
        rtol=1e-12,
        atol=1e-15,
    )
    curved, aux = graphc.hessian(lambda x: (total(mul(mul(x, x), x)), mul(x, 2.0)), has_aux=True)(X)
    np.testing.assert_allclose(curved, np.diag(6 * X), rtol=1e-13)
    np.testing.assert_array_equal(aux, 2 * X)
    table = graphc.hessian(quartic, argnums=(0, 1))(X, Z)
    gradients = [lambda x, y, k=k: graphc.grad(quartic, k)(x, y) for k in (0, 1)]
    for i, gradient in enumerate(gradients):
        np.testing.assert_allclose(table[i][0], slopes(lambda x, g=gradient: g(x, Z), X), rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(table[i][1], slopes(lambda y, g=gradient: g(X, y), Z), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(table[0][1], table[1][0].T, rtol=1e-12)
    np.testing.assert_allclose(table[0][0] @ Z, graphc.hessian_vector_product(lambda x: quartic(x, Z), (X,), (Z,)))


# ----------------------------------------------------------------------------------------------------------- linearize


def test_linearize() -> None:
    def f(tree: Any, y: Any) -> Any:
        return {"product": mul(sin(tree["x"]), y), "sum": total(y), "fixed": 1.0}

    value, push = graphc.linearize(f, {"x": X}, Z)
    np.testing.assert_allclose(value["product"], np.sin(X) * Z)
    for dx, dy in RNG.standard_normal((2, 2, 3)):
        moved = push({"x": dx}, dy)
        np.testing.assert_allclose(moved["product"], np.cos(X) * dx * Z + np.sin(X) * dy, rtol=1e-13)
        np.testing.assert_allclose(moved["sum"], dy.sum())
        assert moved["fixed"] == 0
    rows = graphc.vmap(push)({"x": np.eye(3)}, np.zeros((3, 3)))["product"]
    np.testing.assert_allclose(rows, np.diag(np.cos(X) * Z), rtol=1e-13)


def test_linearize_computes_what_is_fixed_once() -> None:
    def f(x: Any, tangents: Any) -> Any:
        _, push = graphc.linearize(lambda v: exp(sin(v)), x)
        return [push(t) for t in tangents]

    graph = graphc.trace(f, X, [Z, 2 * Z, X])
    assert [n.op.name for n in graph.nodes].count("exp") == 1
    push = graphc.linearize(lambda v: exp(sin(v)), X)[1]
    assert not {"sin", "exp", "cos"} & {n.op.name for n in graphc.trace(push, Z).nodes}


# -------------------------------------------------------------------------------------------------------------- errors


@both
def test_errors(jacobian: Any) -> None:
    with pytest.raises(NotDifferentiableError, match=r"'x', which is int64\[3\]"):
        jacobian(lambda x: mul(x, 2))(np.arange(3))
    with pytest.raises(NotDifferentiableError, match=r"a result is int64\[\].*has_aux=True"):
        jacobian(lambda x: (x, 3))(X)
    with pytest.raises(TraceError, match="with respect to argument 2, it was given 1"):
        jacobian(function, argnums=2)(X)
    with pytest.raises(TraceError, match="must return a pair"):
        jacobian(function, has_aux=True)(X)


def test_tangents_must_fit() -> None:
    _, push = graphc.linearize(function, X)
    with pytest.raises(TraceError, match=r"the tangent of function.* is float64\[2\]; float64\[3\] is needed"):
        push(np.ones(2))


def summed(w: Any, x: Any) -> Any:
    return total(np.tanh(x @ w))


@pytest.mark.parametrize(
    "derived",
    [graphc.grad, graphc.value_and_grad, graphc.jacrev, graphc.jacfwd, graphc.hessian,
     lambda f: graphc.vmap(graphc.grad(f), in_axes=None, axis_size=2)],
)  # fmt: skip
def test_derived_functions_keep_the_names_of_parameters(derived: Any) -> None:
    assert graphc.trace(derived(summed), graphc.spec((3, 3)), graphc.spec((5, 3))).input_names == ("w", "x")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda w, x: graphc.hessian_vector_product(summed)(w, x),
            r"no primals: .*\(summed, \(w, x,\), \(t_w, t_x,\)\)",
        ),
        (lambda w, x: graphc.vjp(summed), r"no primals: call it as vjp\(summed, w, x\)"),
        (lambda w, x: graphc.jvp(summed, (w, x)), r"jvp of summed is given no tangents"),
        (lambda w, x: graphc.jvp(summed, (w, x), w), r"tangents is an array; a tuple is needed"),
        (lambda w, x: graphc.hessian_vector_product(summed, w, w), r"primals is an array; a tuple is needed"),
    ],
)
def test_missing_primals_and_tangents_are_named(call: Any, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        call(np.ones((3, 3)), np.ones((5, 3)))


def test_an_eager_gradient_runs_its_loop_once() -> None:
    """The forward loop and one backwards: the loop that the value reads is the one whose turns the gradient keeps."""
    w = np.random.default_rng(0).standard_normal((3, 3))
    from graphc.ir import interpret

    seen: list[str] = []
    token = interpret._hook.set(lambda node, operands, results: seen.append(node.op.name))
    try:
        graphc.value_and_grad(lambda w: total(graphc.scan(lambda h, x: (np.tanh(h @ w), h), w[0], w)[0]))(w)
    finally:
        interpret._hook.reset(token)
    assert seen.count("scan") == 2
