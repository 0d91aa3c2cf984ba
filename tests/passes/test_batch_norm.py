"""Batch-norm folding and every guard of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphc import ops
from graphc.ir.graph import Graph, Value, constant, input_value, location, location_of
from graphc.ir.trace import trace
from graphc.ir.types import tensor
from graphc.passes.batch_norm import fold_batch_norm
from graphc.passes.fold import fold
from graphc.passes.simplify import simplify

rng = np.random.default_rng(0)
x = input_value("x", tensor("float32", 2, 6, 5, 5))
ATTRS = {"strides": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1)}


def numbers(*shape: int) -> Value:
    return constant(rng.uniform(0.5, 1.5, shape).astype(np.float32))


def channels(count: int, like: Value, axis: int = 1) -> Value:
    shape = tuple(count if a == axis else 1 for a in range(like.rank))
    return ops.broadcast_to(numbers(*shape), shape=like.shape)


def conv(v: Value, filters: int = 8, groups: int = 1, w: Value | None = None, **changes: object) -> Value:
    weights = w if w is not None else numbers(filters, v.shape[1] // groups, 3, 3)
    result: Value = ops.conv(v, weights, **{**ATTRS, "groups": groups, **changes})
    return result


def folded(graph: Graph) -> Graph:
    while True:
        after = fold(simplify(fold_batch_norm(graph)))
        if after is graph:
            return graph
        graph = after


def names(graph: Graph) -> list[str]:
    return sorted(n.op.name for n in graph.nodes if n.op.name not in ("constant", "input", "broadcast_to", "reshape"))


@pytest.mark.parametrize("groups", [1, 2])
def test_scale_and_shift_behind_a_convolution(groups: int, agree: Callable[..., None]) -> None:
    with location("conv1"):
        y = conv(x, groups=groups)
    with location("bn1"):
        y = ops.add(ops.mul(y, channels(8, y)), channels(8, y))
    graph = Graph([x], [ops.relu(y)])
    after = folded(graph)
    assert names(after) == ["add", "conv", "relu"]
    assert location_of(next(n for n in after.nodes if n.op.name == "conv")) == ("conv1", "bn1")
    agree(graph, after, rtol=1e-4)


def test_a_bias_and_two_norms_become_one_bias(agree: Callable[..., None]) -> None:
    y = conv(x)
    y = ops.add(y, channels(8, y))
    for _ in range(2):
        y = ops.add(ops.mul(y, channels(8, y)), channels(8, y))
    graph = Graph([x], [y])
    after = folded(graph)
    assert names(after) == ["add", "conv"]
    agree(graph, after, rtol=1e-4)


def test_behind_a_matrix_product(agree: Callable[..., None]) -> None:
    a = input_value("a", tensor("float32", 3, 7))
    y = ops.dot(a, numbers(7, 5))
    graph = Graph([a], [ops.add(ops.mul(y, channels(5, y)), channels(5, y))])
    after = folded(graph)
    assert names(after) == ["add", "dot"]
    agree(graph, after)


@pytest.mark.parametrize("groups", [1, 3, 6])
def test_before_a_convolution_without_padding(groups: int, agree: Callable[..., None]) -> None:
    y = ops.add(ops.mul(x, channels(6, x)), channels(6, x))
    graph = Graph([x], [conv(y, filters=12, groups=groups, padding=((0, 0), (0, 0)))])
    after = folded(graph)
    assert names(after) == ["add", "conv"]
    agree(graph, after, rtol=1e-4)


def test_before_a_convolution_with_padding_only_the_scale_moves(agree: Callable[..., None]) -> None:
    scaled = Graph([x], [conv(ops.mul(x, channels(6, x)))])
    after = folded(scaled)
    assert names(after) == ["conv"]
    agree(scaled, after, rtol=1e-4)
    shifted = Graph([x], [conv(ops.add(ops.mul(x, channels(6, x)), channels(6, x)))])
    assert names(folded(shifted)) == ["add", "conv", "mul"]


def refusals(graph: Graph) -> str:
    graph = fold(simplify(graph))
    with trace(explain=True) as t:
        assert names(fold_batch_norm(graph)) == names(graph)
    return str(t)


def test_guards() -> None:
    w = input_value("w", tensor("float32", 8, 6, 3, 3))
    y = conv(x, w=w)
    assert "the weights are not constant" in refusals(Graph([x, w], [ops.mul(y, channels(8, y))]))
    y = conv(x)
    assert "has another reader" in refusals(Graph([x], [ops.mul(y, channels(8, y)), ops.exp(y)]))
    assert "is an output of the graph" in refusals(Graph([x], [ops.mul(y, channels(8, y)), y]))
    assert "varies along the axes [3]" in refusals(Graph([x], [ops.mul(y, channels(5, y, axis=3))]))
    s = input_value("s", tensor("float32", 8, 1, 1))
    assert "the factor is not a constant" in refusals(Graph([x, s], [ops.mul(y, ops.broadcast_to(s, shape=y.shape))]))
    i = input_value("i", tensor("int32", 2, 6, 5, 5))
    z = conv(i, w=constant(np.ones((8, 6, 3, 3), np.int32)))
    k = ops.broadcast_to(constant(np.arange(8, dtype=np.int32).reshape(8, 1, 1)), shape=z.shape)
    assert "the element type is int32" in refusals(Graph([i], [ops.mul(z, k)]))
