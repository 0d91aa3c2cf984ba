"""Constant folding, its budget, and control flow whose course is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphc import ops
from graphc.ir.graph import Graph, constant, input_value
from graphc.ir.trace import trace
from graphc.ir.types import tensor
from graphc.passes.fold import fold

x = input_value("x", tensor("float32", 8, 4))


def test_constants_are_computed(agree: Callable[..., None]) -> None:
    total = ops.add(constant(np.arange(4, dtype=np.float32)), np.float32([1, 1, 1, 1]))
    graph = Graph([x], [ops.mul(x, ops.broadcast_to(total, shape=(8, 4)))])
    after = fold(graph)
    inner = after.outputs[0].node.inputs[1].node.inputs[0]
    assert inner.literal is not None
    assert inner.literal.tolist() == [1, 2, 3, 4]
    agree(graph, after)
    assert fold(after) is after


def test_the_name_of_the_data_stays() -> None:
    w = constant(np.arange(600, dtype=np.float32).reshape(20, 30), name="conv1.weight")
    after = fold(Graph([], [ops.transpose(ops.mul(w, 2.0), perm=(1, 0))]))
    assert after.outputs[0].node.attrs["data"].name == "conv1.weight"
    assert after.outputs[0].literal is not None
    np.testing.assert_array_equal(after.outputs[0].literal, 2 * w.literal.T)  # type: ignore[union-attr]


def test_a_large_broadcast_is_not_stored() -> None:
    big = ops.broadcast_to(constant(np.float32(2)), shape=(4096, 4096))
    graph = Graph([], [big])
    assert fold(graph) is graph
    halves = fold(Graph([], [ops.exp(ops.add(big, 1.0))])).outputs[0]
    assert halves.node.op.name == "broadcast_to"
    assert halves.node.inputs[0].shape == ()


def test_weights_are_scaled_channel_by_channel() -> None:
    w = constant(np.ones((64, 32, 3, 3), np.float32))
    scale = ops.broadcast_to(constant(np.arange(64, dtype=np.float32).reshape(64, 1, 1, 1)), shape=w.shape)
    after = fold(Graph([], [ops.mul(w, scale)]))
    assert after.outputs[0].literal is not None
    assert after.outputs[0].literal[5, 0, 0, 0] == 5


def test_an_outer_product_stays() -> None:
    column = ops.broadcast_to(constant(np.ones((2000, 1), np.float32)), shape=(2000, 2000))
    row = ops.broadcast_to(constant(np.ones((1, 2000), np.float32)), shape=(2000, 2000))
    graph = Graph([], [ops.add(column, row)])
    with trace(explain=True) as t:
        assert fold(graph) is graph
    assert "much larger than its operands" in str(t)


def test_packed_weights_are_stored_even_when_they_repeat() -> None:
    w = ops.broadcast_to(constant(np.float32(0.5)), shape=(512, 1024))
    after = fold(Graph([], [ops.pack_matrix(w, columns=16)]))
    assert after.outputs[0].literal is not None
    assert after.outputs[0].literal.shape == (64, 512, 16)


@pytest.mark.parametrize("taken", [True, False])
def test_a_known_condition_takes_its_branch(taken: bool, agree: Callable[..., None]) -> None:
    v = input_value("v", x.type)
    then, other = Graph([v], [ops.add(ops.exp(v), 1.0)]), Graph([v], [ops.neg(v)])
    graph = Graph([x], [ops.if_(constant(taken), x, then_body=then, else_body=other)])
    after = fold(graph)
    assert not any(n.bodies for n in after.nodes)
    agree(graph, after)


def test_bodies_are_folded(agree: Callable[..., None]) -> None:
    v, c = input_value("v", x.type), input_value("c", tensor("bool"))
    constant_sum = ops.broadcast_to(ops.add(constant(np.float32(1)), np.float32(2)), shape=v.shape)
    then, other = Graph([v], [ops.add(v, constant_sum)]), Graph([v], [ops.neg(v)])
    graph = Graph([c, x], [ops.if_(c, x, then_body=then, else_body=other)])
    after = fold(graph)
    body = after.outputs[0].node.attrs["then_body"]
    assert [n.op.name for n in body.nodes] == ["input", "constant", "broadcast_to", "add"]
    agree(graph, after)
