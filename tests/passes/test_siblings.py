"""Products that share an operand: made one where each sibling can be read as a slice, left alone elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from graphc import ops
from graphc.ir.graph import Graph, Value, constant, input_value
from graphc.ir.trace import trace
from graphc.ir.types import tensor
from graphc.passes.siblings import merge_siblings

rng = np.random.default_rng(5)


def weights(*shape: int) -> Value:
    return constant(rng.uniform(-1, 1, shape).astype(np.float32))


def product(x: Value, columns: int) -> Value:
    result: Value = ops.dot(x, weights(x.shape[-1], columns))
    return result


def branch(x: Value, filters: int, kernel: int = 1) -> Value:
    pad = ((kernel // 2,) * 2,) * 2
    w = weights(filters, x.shape[1], kernel, kernel)
    y = ops.conv(x, w, strides=(1, 1), padding=pad, dilation=(1, 1), groups=1)
    return ops.relu(ops.add(y, ops.broadcast_to(weights(filters, 1, 1), shape=y.shape)))


def biased(v: Value) -> Value:
    return ops.add(v, ops.broadcast_to(weights(v.shape[-1]), shape=v.shape))


def heads(v: Value) -> Value:
    """As an attention reads it."""
    return ops.transpose(ops.reshape(v, shape=(v.shape[0], 2, v.shape[1] // 2)), perm=(1, 0, 2))


def rows(m: int = 5, k: int = 8) -> Value:
    return input_value("x", tensor("float32", m, k))


def image(c: int = 8) -> Value:
    return input_value("x", tensor("float32", 2, c, 4, 5))


def contractions(graph: Graph) -> int:
    names = Counter(n.op.name for n in graph.nodes)
    return names["dot"] + names["conv"]


def further(v: Value) -> Value:
    """A product of its own, which reads its operand as it lies."""
    if v.rank == 2:
        return product(v, 3)
    w = weights(3, v.shape[1], 1, 1)
    return ops.conv(v, w, strides=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1)


MERGED: dict[str, tuple[Callable[[], Value], Callable[[Value], list[Value]], int]] = {
    "queries, keys and values": (rows, lambda x: [heads(biased(product(x, n))) for n in (8, 8, 6)], 1),
    "without anything behind": (rows, lambda x: [heads(product(x, 4)), further(product(x, 7))], 2),
    "activations of one kind": (
        rows,
        lambda x: [further(ops.minimum(ops.relu(biased(product(x, n))), 6.0)) for n in (4, 9)],
        3,
    ),
    "branches of filters": (image, lambda x: [further(branch(x, n)) for n in (16, 32, 8)], 4),
    "branches of windows": (image, lambda x: [further(branch(x, 16, 3)), further(branch(x, 16, 3))], 3),
}


@pytest.mark.parametrize("name", MERGED)
def test_siblings_become_one(name: str, agree: Callable[..., None]) -> None:
    make, build, left = MERGED[name]
    x = make()
    graph = Graph([x], build(x))
    after = merge_siblings(graph)
    assert contractions(after) == left, after
    agree(graph, after)


ALONE: dict[str, tuple[Callable[[], Value], Callable[[Value], list[Value]]]] = {
    "outputs": (rows, lambda x: [product(x, 4), product(x, 4)]),
    "arithmetic that is not the same": (
        rows,
        lambda x: [ops.mul(ops.sigmoid(product(x, 8)), product(x, 8))],
    ),
    "parts of a concatenation": (image, lambda x: [ops.concat(branch(x, 16), branch(x, 16), axis=1)]),
    "a sum": (rows, lambda x: [ops.reduce_sum(product(x, 4), axes=(1,)), heads(product(x, 4))]),
    "arithmetic that varies along the rows": (
        rows,
        lambda x: [further(ops.mul(product(x, 4), ops.broadcast_to(weights(5, 1), shape=(5, 4)))) for _ in range(2)],
    ),
    "windows of different sizes, alike in all else": (
        image,
        lambda x: [
            further(ops.conv(x, weights(16, 8, k, k), strides=(1, 1), padding=((0, 0),) * 2, dilation=(1, 1), groups=1))
            for k in (1, 3)
        ],
    ),
    "windows of different sizes": (image, lambda x: [further(branch(x, 16)), further(branch(x, 16, 3))]),
    "filters that fill no blocks": (image, lambda x: [further(branch(x, 8)), further(branch(x, 24))]),
}


@pytest.mark.parametrize("name", ALONE)
def test_others_stay_alone(name: str) -> None:
    make, build = ALONE[name]
    x = make()
    graph = Graph([x], build(x))
    assert merge_siblings(graph) is graph


def test_weights_that_are_not_known_stay_alone() -> None:
    x, w = rows(), input_value("w", tensor("float32", 8, 4))
    graph = Graph([x, w], [heads(ops.dot(x, w)), heads(product(x, 4))])
    assert merge_siblings(graph) is graph


def test_families_behind_each_other(agree: Callable[..., None]) -> None:
    start = x = rows()
    for _ in range(3):
        a, b = heads(biased(product(x, 8))), heads(biased(product(x, 8)))
        mixed = ops.dot(a, ops.transpose(b, perm=(0, 2, 1)))  # [2, 5, 5]
        x = ops.mul(product(ops.reshape(mixed, shape=(5, 10)), 8), 0.1)
    graph = Graph([start], [x])
    after = merge_siblings(graph)
    assert contractions(after) == contractions(graph) - 3
    agree(graph, after, rtol=1e-4)


def test_it_says_why_not() -> None:
    x = rows()
    with trace(explain=True) as seen:
        merge_siblings(Graph([x], [product(x, 4), heads(product(x, 4)), heads(product(x, 4))]))
    assert [e.why for e in seen.events if e.why] == ["its result is an output, which is computed in its place"]
