"""Loops do no more than is read of them, and forward mode goes through the loops that gradients make."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from loops import count

import graphc
from graphc import ops
from graphc.autodiff.prune import pruned, tidied
from graphc.errors import GradientError
from graphc.ir.dims import Dim, Symbol
from graphc.ir.graph import Graph, Value, constant, input_value
from graphc.ir.interpret import run
from graphc.ir.types import tensor
from graphc.testing import check_grad

W, XS = np.random.default_rng(0).standard_normal((2, 3, 3))
START = np.zeros(3)


def vector(name: str) -> Value:
    return input_value(name, tensor("float64", 3))


def two_chains() -> tuple[Value, ...]:
    """A scan over three carries: a reads b, b reads itself, c reads a; and of a capture that c alone reads."""
    a, b, c, x, held = (vector(n) for n in ("a", "b", "c", "x", "held"))
    body = Graph([a, b, c, x, held], [ops.add(a, b), ops.mul(b, x), ops.mul(ops.add(c, a), held), ops.sin(c)])
    rows = input_value("rows", tensor("float64", 4, 3))
    return ops.scan(*(vector(f"{n}0") for n in "abc"), rows, vector("h"), body=body, carries=3, scanned=1)


@pytest.mark.parametrize(
    ("read", "carries", "operands"), [([1], 1, 2), ([0], 2, 3), ([2], 3, 5), ([3], 3, 5), ([0, 1, 2, 3], 3, 5)]
)
def test_a_scan_keeps_what_its_results_read(read: list[int], carries: int, operands: int) -> None:
    results = [two_chains()[k] for k in read]
    kept = pruned(results)
    assert kept[0].node.attrs["carries"] == carries
    assert len(kept[0].node.inputs) == operands
    names = ("a0", "b0", "c0", "rows", "h")
    inputs = [input_value(n, tensor("float64", *(4, 3) if n == "rows" else (3,))) for n in names]
    arguments = [np.random.default_rng(k).standard_normal(v.shape) for k, v in enumerate(inputs)]
    for before, after in zip(
        run(Graph(inputs, results), *arguments), run(Graph(inputs, kept), *arguments), strict=True
    ):
        np.testing.assert_array_equal(after, before)


def test_a_scan_without_rows_keeps_its_length() -> None:
    h, x, rows = vector("h"), vector("x"), input_value("rows", tensor("float64", 5, 3))
    last, _ = ops.scan(vector("h0"), rows, body=Graph([h, x], [ops.mul(h, 2.0), x]), carries=1, scanned=1)
    (kept,) = pruned([last])
    assert kept.node.attrs["scanned"] == 0
    assert run(Graph([vector("h0")], [kept]), np.ones(3))[0][0] == 2.0**5


def test_an_open_length_keeps_a_row() -> None:
    h, x, rows = vector("h"), vector("x"), input_value("rows", tensor("float64", Dim(Symbol("n")), 3))
    last, _ = ops.scan(vector("h0"), rows, body=Graph([h, x], [ops.mul(h, 2.0), x]), carries=1, scanned=1)
    (kept,) = pruned([last])
    assert run(Graph([vector("h0"), rows], [kept]), np.ones(3), np.zeros((4, 3)))[0][0] == 2.0**4


def test_branches_and_bodies_inside_of_bodies_are_pruned() -> None:
    x, y = vector("x"), vector("y")
    bodies = {"then_body": Graph([x, y], [ops.sin(x), y]), "else_body": Graph([x, y], [ops.cos(x), x])}
    inner = ops.if_(ops.gt(ops.reduce_sum(x, axes=(0,)), 0.0), x, y, **bodies)
    rows = input_value("rows", tensor("float64", 5, 3))
    out = ops.scan(vector("h"), rows, vector("w"), body=Graph([x, vector("r"), y], [inner[0], inner[1]]), carries=1,
                   scanned=1)  # fmt: skip
    (kept,) = pruned(out[:1])
    assert [v.node.attrs["name"] for v in kept.node.inputs] == ["h"]
    (branch,) = [n for n in kept.node.attrs["body"].nodes if n.op.name == "if_"]
    assert len(branch.inputs) == 2
    assert len(branch.types) == 1


def test_a_loop_keeps_its_condition_and_what_that_reads() -> None:
    i, go = input_value("i", tensor("int64")), input_value("go", tensor("bool"))
    a, b, c = vector("a"), vector("b"), vector("c")
    again = ops.lt(ops.reduce_sum(a, axes=(0,)), 20.0)
    body = Graph([i, go, a, b, c], [again, ops.add(a, 1.0), ops.add(b, 1.0), ops.mul(c, b), ops.sin(c)])
    starts = [vector(f"{n}0") for n in "abc"]
    results = ops.loop(constant(np.int64(100)), constant(True), *starts, body=body, carries=3)
    (kept,) = pruned(results[1:2])
    assert kept.node.attrs["carries"] == 2
    assert run(Graph(starts[:2], [kept]), np.zeros(3), np.zeros(3))[0][0] == 8  # as many as it takes to sum(a) >= 20


def test_a_graph_without_anything_to_prune_is_the_same_object() -> None:
    graph = graphc.trace(lambda w: graphc.scan(lambda h, x: (np.tanh(h @ w + x), None), START, XS)[0], W)
    assert tidied(graph) is graph


def test_what_no_cotangent_changes_is_not_computed_backwards() -> None:
    """The row that x is in x @ w is stacked by no loop."""
    f = graphc.trace(lambda w, xs: graphc.scan(lambda h, x: (h, x @ w), START, xs)[1], W, XS)
    pulled = graphc.vjp(f, wrt=["w"])
    (backward,) = [n for n in pulled.nodes if n.op.name == "scan" and n.attrs.get("reverse")]
    assert len(backward.types) == 1
    assert count(pulled, "scan") == 2


def cell(w: Any) -> Any:
    return lambda h, x: (np.tanh(h @ w + x @ w), None)


CASES: dict[str, Any] = {
    "product": lambda w, xs: graphc.scan(lambda h, x: (h + x @ w, None), START, xs)[0],
    "cell": lambda w, xs: graphc.scan(cell(w), START, xs)[0],
    "stacked": lambda w, xs: graphc.scan(lambda h, x: (h, np.tanh(x @ w)), START, xs)[1],
    "inner product": lambda w, xs: graphc.scan(lambda h, x: (h + x @ w[0], None), np.zeros(()), xs)[0],
    "reverse": lambda w, xs: graphc.scan(cell(w), START, xs, reverse=True)[0],
    "segments": lambda w, xs: graphc.scan(cell(w), START, xs, checkpoint=2)[0],
    "checkpoint": lambda w, xs: graphc.scan(graphc.checkpoint(cell(w)), START, xs)[0],
    "nested": lambda w, xs: graphc.scan(lambda h, x: (graphc.scan(cell(w), h, xs[:2])[0] + x, None), START, xs)[0],
    "branch": lambda w, xs: graphc.scan(
        lambda h, x: (graphc.cond(graphc.sum(h) > -9, lambda h: np.tanh(h @ w + x), lambda h: h, h), None), START, xs
    )[0],
    "while": lambda w, xs: graphc.while_loop(
        lambda c: c[0] < 3, lambda c: (c[0] + 1, np.tanh(c[1] @ w)), (0, xs[0]), bound=4
    )[1],
    "vmap": lambda w, xs: graphc.vmap(lambda s: graphc.scan(cell(w), START, xs * s)[0])(np.array([0.5, 2.0])),
}


@pytest.mark.parametrize("name", CASES)
def test_forward_mode_through_loops_with_products(name: str) -> None:
    for order in (1, 2):
        check_grad(CASES[name], W / 2, XS, order=order)


def test_reverse_over_forward_over_reverse() -> None:
    def curvature(w: Any) -> Any:
        loss = lambda v: graphc.sum(CASES["cell"](v, XS) ** 2)  # noqa: E731
        return graphc.sum(graphc.hessian_vector_product(loss, (w,), (W,)) * W)

    check_grad(curvature, W / 2)


def test_the_gradient_that_is_not_linear_is_named() -> None:
    @graphc.custom_vjp
    def odd(x: Any) -> Any:
        return np.sin(x)

    odd.defvjp(lambda x: (np.sin(x), x), lambda x, g: (g * g * x,))
    with pytest.raises(GradientError, match=r"custom_vjp \(at .*test_prune.*\) is not linear"):
        graphc.jvp(lambda x: graphc.scan(lambda h, r: (odd(h) + r, None), x, XS)[0], (START,), (START + 1,))
    with pytest.raises(AssertionError, match=r"not linear in the cotangent.*rule of custom_vjp"):
        check_grad(odd, W)
