"""Views move behind arithmetic, so that an anchor's kernel does it; and only where that is free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphc import ops
from graphc.ir.graph import Graph, Value, constant, input_value
from graphc.ir.trace import trace
from graphc.ir.types import tensor
from graphc.ops.convolution import conv_transpose
from graphc.passes.batch_norm import fold_batch_norm
from graphc.passes.fold import fold
from graphc.passes.simplify import simplify
from graphc.passes.views import sink_views

rng = np.random.default_rng(4)
a = input_value("a", tensor("float32", 6, 5))


def weights(*shape: int) -> Value:
    return constant(rng.uniform(-1, 1, shape).astype(np.float32))


def clean(graph: Graph) -> Graph:
    while (after := fold(simplify(graph))) is not graph:
        graph = after
    return graph


def behind_product(graph: Graph) -> list[str]:
    """The elementwise operations that follow the matrix product or convolution with no view between."""
    (anchor,) = [n for n in graph.nodes if n.op.name in ("dot", "conv")]
    names: list[str] = []
    value = anchor.outputs[0]
    while len(users := set(graph.users.get(value, ()))) == 1 and (node := users.pop()).op.name not in (
        "reshape",
        "transpose",
        "slice",
    ):
        names.append(node.op.name)
        value = node.outputs[0]
    return names


def product() -> Value:
    result: Value = ops.dot(a, weights(5, 8))
    return result


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (
            lambda y: ops.relu(ops.add(ops.reshape(y, shape=(2, 3, 8)), ops.broadcast_to(weights(8), shape=(2, 3, 8)))),
            ["add", "relu"],
        ),
        (lambda y: ops.relu(ops.mul(ops.transpose(y, perm=(1, 0)), 2.0)), ["mul", "relu"]),
        (lambda y: ops.add(ops.transpose(y, perm=(1, 0)), ops.broadcast_to(weights(8, 1), shape=(8, 6))), ["add"]),
        (lambda y: ops.neg(ops.slice(y, starts=(0, 0), stops=(5, 8), steps=(1, 1))), ["neg"]),
        (lambda y: ops.add(ops.reshape(y, shape=(48,)), weights(48)), ["add"]),
    ],
    ids=["reshape", "numbers behind a transpose", "constants behind a transpose", "slice", "any constant"],
)
def test_arithmetic_meets_the_product(
    build: Callable[[Value], Value], names: list[str], agree: Callable[..., None]
) -> None:
    graph = clean(Graph([a], [build(product())]))
    assert behind_product(graph) == []
    after = clean(sink_views(graph))
    assert behind_product(after) == names
    agree(graph, after)


def test_an_activation_that_reads_its_operand_twice(agree: Callable[..., None]) -> None:
    y = ops.reshape(product(), shape=(2, 3, 8))
    graph = Graph([a], [ops.mul(y, ops.sigmoid(y))])
    after = clean(sink_views(graph))
    assert after.outputs[0].node.op.name == "reshape"
    agree(graph, after)


def test_two_products_through_the_same_views(agree: Callable[..., None]) -> None:
    y, z = (ops.transpose(product(), perm=(1, 0)) for _ in range(2))
    graph = Graph([a], [ops.add(y, z)])
    after = clean(sink_views(graph))
    assert after.outputs[0].node.op.name == "transpose"
    agree(graph, after)


def test_what_would_cost_a_copy_stays(agree: Callable[..., None]) -> None:
    other = input_value("other", tensor("float32", 8, 6))
    graph = Graph([a, other], [ops.add(ops.transpose(product(), perm=(1, 0)), other)])
    with trace(explain=True) as t:
        assert sink_views(graph) is graph
    assert "input would have to be copied" in str(t)


def test_arithmetic_around_a_reduction_stays_with_it() -> None:
    y = ops.reshape(product(), shape=(2, 24))
    largest = ops.broadcast_to(ops.reshape(ops.reduce_max(y, axes=(1,)), shape=(2, 1)), shape=y.shape)
    graph = Graph([a], [ops.sub(y, largest)])
    assert sink_views(graph) is graph


def test_an_output_keeps_its_place(agree: Callable[..., None]) -> None:
    y = ops.reshape(product(), shape=(48,))
    graph = Graph([a], [y, ops.relu(y)])
    agree(graph, sink_views(graph))


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_normalisation_folds_behind_a_transposed_convolution(stride: int, agree: Callable[..., None]) -> None:
    x = input_value("x", tensor("float32", 1, 4, 5, 6))
    attrs: dict[str, Any] = {"strides": (stride, stride), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
    y = conv_transpose(x, weights(4, 3, stride, stride), **attrs)
    scale, shift = (ops.broadcast_to(weights(3, 1, 1), shape=y.shape) for _ in range(2))
    graph = clean(Graph([x], [ops.relu(ops.add(ops.mul(y, scale), shift))]))
    after = clean(fold_batch_norm(clean(sink_views(graph))))
    assert behind_product(after) == ["add", "relu"]
    agree(graph, after)
