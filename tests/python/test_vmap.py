"""vmap: functions of many cases, held against one case after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import convolutions, save

import graphc
from graphc import add, less, matmul, sin, take, tanh
from graphc import multiply as mul
from graphc import sum as total
from graphc.errors import GraphTypeError, TraceError
from graphc.ir.graph import Graph
from graphc.ir.interpret import run

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 3))
W = RNG.standard_normal((3, 4))


def stacked(function: Callable[..., Any], *columns: Any) -> Any:
    """The results of one call after the other, stacked (a tuple of stacks when the function returns a tuple)."""
    results = [function(*row) for row in zip(*columns, strict=True)]
    if isinstance(results[0], tuple):
        return tuple(np.stack(column) for column in zip(*results, strict=True))
    return np.stack(results)


def agree(found: Any, expected: Any) -> None:
    if isinstance(expected, tuple):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            agree(a, b)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def layer(w: Any, x: Any) -> Any:
    return tanh(matmul(x, w))


# ---------------------------------------------------------------------------------------------------------------- axes


def test_axes_of_arguments_and_results() -> None:
    expected = stacked(sin, X)
    agree(graphc.vmap(sin)(X), expected)
    agree(graphc.vmap(sin, in_axes=1)(X.T), expected)
    agree(graphc.vmap(sin, in_axes=-1, out_axes=-1)(X.T), expected.T)
    agree(graphc.vmap(sin, in_axes=(0,), out_axes=1)(X), expected.T)
    agree(graphc.vmap(mul, in_axes=(0, None))(X, 2.0), 2 * X)
    agree(graphc.vmap(lambda x, *, y: mul(x, y))(X, y=X[:, 0]), X * X[:, :1])
    cube = RNG.standard_normal((2, 5, 3))
    agree(graphc.vmap(matmul, in_axes=(1, 2), out_axes=1)(cube, RNG.standard_normal((3, 4, 5))).shape, (2, 5, 4))


@dataclass
class Pair:
    a: Any
    b: Any


def test_trees_of_axes() -> None:
    def function(tree: Any, z: Any) -> Any:
        return {"sum": add(tree["x"], tree["rest"][1]), "both": Pair(mul(tree["rest"][0], z), z)}

    tree = {"x": X, "rest": (X.T, X[0])}
    found = graphc.vmap(
        function,
        in_axes=({"x": 0, "rest": (1, None)}, None),
        out_axes={"sum": 1, "both": Pair(0, None)},
    )(tree, 2.0)
    agree(found["sum"], (X + X[0]).T)
    agree(found["both"].a, 2 * X)
    assert found["both"].b == 2.0
    agree(graphc.vmap(lambda p: add(p.a, p.b))(Pair(X, X)), 2 * X)


def test_results_that_do_not_depend_on_the_case() -> None:
    shared, repeated = graphc.vmap(lambda x: (1.0, 2.0), out_axes=(None, 0))(X)
    assert shared == 1.0
    agree(repeated, np.full(5, 2.0))
    agree(graphc.vmap(lambda: np.arange(2), axis_size=3)(), np.tile([0, 1], (3, 1)))


# ----------------------------------------------------------------------------------- with the other transformations


def test_nested() -> None:
    agree(graphc.vmap(graphc.vmap(mul, (None, 0)), (0, None))(X[:, 0], X[0]), np.outer(X[:, 0], X[0]))
    rows = graphc.vmap(lambda x: graphc.vmap(lambda y: mul(total(mul(x, y)), x))(X))(X)
    agree(rows, (X @ X.T)[:, :, None] * X[:, None, :])


def loss(w: Any, x: Any) -> Any:
    return total(mul(layer(w, x), layer(w, x)))


def test_gradients_of_every_example() -> None:
    gradient = graphc.grad(loss)
    agree(graphc.vmap(gradient, in_axes=(None, 0))(W, X), stacked(lambda x: gradient(W, x), X))


def test_gradient_of_a_batched_function() -> None:
    def batched(w: Any) -> Any:
        return total(graphc.vmap(loss, in_axes=(None, 0))(w, X))

    gradient = graphc.grad(loss)
    agree(graphc.grad(batched)(W), sum(gradient(W, x) for x in X))


def test_forward_mode() -> None:
    function = graphc.vmap(layer, in_axes=(None, 0))
    _, tangent = graphc.jvp(function, (W, X), (W, X))
    agree(tangent, stacked(lambda x: graphc.jvp(layer, (W, x), (W, x))[1], X))
    _, pull = graphc.vjp(sin, X[0])
    agree(graphc.vmap(pull)(np.eye(3))[0], np.diag(np.cos(X[0])))


def test_compiled() -> None:
    function = graphc.compile(graphc.vmap(graphc.value_and_grad(loss), in_axes=(None, 0)))
    w, x = W.astype(np.float32), X.astype(np.float32)
    values, gradients = function(w, x)
    assert gradients.dtype == np.float32
    np.testing.assert_allclose(values, stacked(lambda v: loss(W, v), X), rtol=1e-5)
    np.testing.assert_allclose(gradients, stacked(lambda v: graphc.grad(loss)(W, v), X), rtol=1e-4, atol=1e-5)


def test_a_product_with_shared_weights_stays_one_product() -> None:
    graph = graphc.trace(graphc.vmap(layer, in_axes=(None, 0)), W, RNG.standard_normal((5, 2, 3)))
    (product,) = [n for n in graph.nodes if n.op.name == "dot"]
    assert product.inputs[0].shape == (10, 3)
    assert product.inputs[1] is not None
    assert product.inputs[1].node.op.name == "input", "the weights are copied"


def test_what_is_the_same_in_all_cases_is_computed_once() -> None:
    graph = graphc.trace(graphc.vmap(lambda w, x: mul(sin(w), x), in_axes=(None, 0)), W, 2.0 * RNG.random((5, 3, 4)))
    (sine,) = [n for n in graph.nodes if n.op.name == "sin"]
    assert sine.types[0].shape == W.shape  # type: ignore[union-attr]


def test_symbolic_number_of_cases() -> None:
    graph = graphc.trace(
        graphc.vmap(graphc.value_and_grad(loss), in_axes=(None, 0)), W, graphc.spec(("n", 3), "float64")
    )
    assert isinstance(graph, Graph)
    for n in (1, 4):
        values, gradients = run(graph, W, X[:n])
        agree(values, stacked(lambda v: loss(W, v), X[:n]))
        agree(gradients, stacked(lambda v: graphc.grad(loss)(W, v), X[:n]))


# ------------------------------------------------------------------------------------------------------- control flow


def recurrence(w: Any, h: Any, xs: Any) -> Any:
    def step(h: Any, x: Any) -> Any:
        h = tanh(add(mul(w, h), x))
        return h, mul(h, x)

    return graphc.scan(step, h, xs)


@pytest.mark.parametrize("which", [(0,), (1,), (2,), (0, 1, 2)])
def test_scan(which: tuple[int, ...]) -> None:
    """Weights, the first carry or the inputs differ from case to case: the carry differs after a turn anyway."""
    cases: list[Any] = [RNG.standard_normal(5), RNG.standard_normal((5, 3)), RNG.standard_normal((5, 7, 3))]
    axes = tuple(0 if k in which else None for k in range(3))
    given = [c if k in which else c[0] for k, c in enumerate(cases)]
    columns = [c if k in which else [c[0]] * 5 for k, c in enumerate(cases)]
    agree(graphc.vmap(recurrence, in_axes=axes)(*given), stacked(recurrence, *columns))


def test_scan_with_other_places_of_the_cases() -> None:
    xs = RNG.standard_normal((7, 3, 5))
    found = graphc.vmap(lambda x: recurrence(0.5, np.zeros(3), x), in_axes=2, out_axes=(0, -1))(xs)
    last, ys = stacked(lambda x: recurrence(0.5, np.zeros(3), x), np.moveaxis(xs, 2, 0))
    agree(found, (last, np.moveaxis(ys, 0, -1)))


def test_gradients_through_time_of_every_example() -> None:
    def summed(w: Any, xs: Any) -> Any:
        last, ys = recurrence(w, np.zeros(3), xs)
        return add(total(last), total(ys))

    xs = RNG.standard_normal((4, 6, 3))
    gradient = graphc.grad(summed)
    agree(
        graphc.vmap(gradient, in_axes=(None, 0))(np.float64(0.5), xs),
        stacked(lambda x: gradient(np.float64(0.5), x), xs),
    )


def choose(flag: Any, x: Any) -> Any:
    return graphc.cond(flag, lambda v: (sin(v), v), lambda v: (mul(v, 2.0), mul(v, v)), x)


def test_cond() -> None:
    flags = np.array([True, False, True, True, False])
    agree(graphc.vmap(choose)(flags, X), stacked(choose, flags, X))
    agree(graphc.vmap(choose, in_axes=(None, 0))(True, X), stacked(choose, [True] * 5, X))
    kept = graphc.trace(graphc.vmap(choose, in_axes=(None, 0)), np.bool_(True), X)
    assert [n.op.name for n in kept.nodes].count("if_") == 1, "one choice for all cases still runs one branch"


@pytest.mark.parametrize("bound", [None, 12])
def test_while_loop(bound: int | None) -> None:
    """Cases that take different numbers of turns, one of them none: each keeps what it had when it was done."""

    def doubled(x: Any, limit: Any) -> Any:
        return graphc.while_loop(
            lambda v: less(v[0], limit), lambda v: (mul(v[0], 2.0), add(v[1], 1)), (x, 0), bound=bound
        )

    x, limits = np.array([1.0, 3.0, 0.7, 20.0]), np.array([10.0, 4.0, 100.0, 10.0])
    agree(graphc.vmap(doubled)(x, limits), stacked(doubled, x, limits))
    agree(graphc.vmap(doubled, in_axes=(0, None))(x, 10.0), stacked(doubled, x, [10.0] * 4))
    agree(graphc.vmap(doubled)(x[:0], limits[:0]), (np.zeros(0), np.zeros(0)))


def test_fori_loop_over_a_number_of_turns_of_its_own() -> None:
    sums = graphc.vmap(lambda n: graphc.fori_loop(0, n, lambda i, v: v + i, 0))(np.arange(5))
    agree(sums, np.array([0, 0, 1, 3, 6]))


def rows(table: Any, places: Any) -> Any:
    return take(table, places, axis=0)


def turns(x: Any) -> Any:
    return graphc.while_loop(lambda v: less(v[0], 10.0), lambda v: (mul(v[0], 2.0), add(v[1], 1)), (x, 0))


def test_nested_while_loops() -> None:
    """Loops of loops of cases; as many outside as inside, so that nothing but names tells their state apart."""
    starts, limits = np.array([1.0, 3.0, 20.0]), np.array([4.0, 10.0, 100.0])

    def until(x: Any, limit: Any) -> Any:
        return graphc.while_loop(lambda v: less(v, limit), lambda v: mul(v, 2.0), x)

    every = graphc.vmap(graphc.vmap(until, (0, None)), (None, 0))
    agree(every(starts, limits), np.stack([[until(x, limit) for x in starts] for limit in limits]))


COMPILED: dict[str, tuple[Callable[..., Any], tuple[np.ndarray, ...]]] = {
    "scan": (recurrence, (RNG.standard_normal(5), RNG.standard_normal((5, 3)), RNG.standard_normal((5, 7, 3)))),
    "cond": (choose, (np.array([True, False, True, True, False]), X)),
    "while": (turns, (np.array([1.0, 3.0, 0.7, 20.0]),)),
    "gather": (rows, (RNG.standard_normal((4, 6, 2)), RNG.integers(-6, 6, (4, 3)))),
    "product": (matmul, (RNG.standard_normal((4, 6, 2)), RNG.standard_normal((4, 2, 3)))),
    "gradient": (graphc.grad(lambda x, y: total(recurrence(x, y, W.T)[1])), (RNG.standard_normal(5), X)),
}


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_cases(name: str) -> None:
    function, columns = COMPILED[name]
    agree(graphc.compile(graphc.vmap(function))(*columns), stacked(function, *columns))


def test_custom_gradients_and_checkpoints() -> None:
    @graphc.custom_vjp
    def scaled(w: Any, x: Any) -> Any:
        return mul(w, x)

    scaled.defvjp(lambda w, x: (mul(w, x), (w, x)), lambda r, g: (mul(total(mul(g, r[1])), 3.0), mul(g, r[0])))

    def function(w: Any, x: Any) -> Any:
        return total(graphc.checkpoint(lambda v: sin(scaled(w, v)))(x))

    gradient = graphc.grad(function)
    found = graphc.vmap(gradient, in_axes=(None, 0))(np.float64(0.5), X)
    agree(found, 3 * np.sum(np.cos(0.5 * X) * X, 1))
    whole = graphc.grad(lambda w: total(graphc.vmap(function, in_axes=(None, 0))(w, X)))
    agree(whole(np.float64(0.5)), np.sum(found))


def test_imported_models(tmp_path: Path) -> None:
    """A model made for one image on many, and many sets of parameters, an ensemble, on one."""
    model = graphc.function(save(convolutions(), tmp_path / "model.onnx"))
    images = RNG.standard_normal((3, 1, 3, 16, 16)).astype(np.float32)
    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(graphc.vmap(model)(images), stacked(model, images), **close)
    scales = np.float32([0.5, 1, 2])
    ensemble = {name: np.multiply.outer(scales, np.asarray(value)) for name, value in model.params.items()}
    found = graphc.vmap(lambda params, x: model(x, params=params), in_axes=(0, None))(ensemble, images[0])
    members = [{name: values[k] for name, values in ensemble.items()} for k in range(3)]
    np.testing.assert_allclose(found, stacked(lambda params: model(images[0], params=params), members), **close)


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: graphc.vmap(mul)(X, X.T), r"'x2' is float64\[3, 5\] and has 3 cases along axis 0, but argument 'x1'"),
        (lambda: graphc.vmap(mul, in_axes=None)(X, X), "no argument has an axis of cases"),
        (lambda: graphc.vmap(mul)(X, 2.0), r"has no axis 0 to take the cases from; in_axes=None hands it on"),
        (lambda: graphc.vmap(sin, in_axes=2)(X), "argument 'x' is float64\\[5, 3\\], which has no axis 2"),
        (lambda: graphc.vmap(mul, in_axes=(0,))(X, X), r"in_axes is \(0,\), which does not fit"),
        (lambda: graphc.vmap(sin, in_axes=("0",))(X), "in_axes has '0' for an array; an int or None"),
        (lambda: graphc.vmap(sin, out_axes=None)(X), "result depends on the case, so it needs an axis"),
        (lambda: graphc.vmap(sin, out_axes=2)(X), r"result is float64\[5, 3\], in which out_axes cannot be 2"),
        (lambda: graphc.vmap(lambda x: {"y": x}, out_axes=(0,))(X), "out_axes is"),
        (lambda: graphc.vmap(sin, axis_size=4)(X), "5 cases along axis 0, but axis_size gives 4"),
    ],
)
def test_errors(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        call()


def test_the_gradient_of_loops_of_different_lengths_asks_for_a_bound() -> None:
    def grown(x: Any, **bound: int) -> Any:
        return total(graphc.while_loop(lambda c: total(c) < 10, lambda c: c * 2 + 1, x, **bound))

    rows = np.random.default_rng(0).standard_normal((4, 3))
    with pytest.raises(GraphTypeError, match="give the while_loop a `bound=`"):
        graphc.vmap(graphc.grad(grown))(rows)
    found = graphc.vmap(graphc.grad(lambda x: grown(x, bound=8)))(rows)
    np.testing.assert_allclose(found, [graphc.grad(grown)(row) for row in rows])
