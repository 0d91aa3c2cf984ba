"""Sums before the contractions that compute the pixels, and every guard of that."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphc import ops
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Value, constant, input_value, location, location_of
from graphc.ir.types import tensor
from graphc.passes.sums_first import sum_first

rng = np.random.default_rng(0)
x = input_value("x", tensor("float32", 2, 6, 8, 8))
rows = input_value("rows", tensor("float32", 3, 7, 5))
POINTWISE = {"strides": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
HALVING = {"axes": (2, 3), "combine": "add", "window": (2, 2), "strides": (2, 2), "padding": ((0, 0),) * 2}


def numbers(*shape: int) -> Value:
    return constant(rng.standard_normal(shape).astype(np.float32))


def conv(v: Value = x, kernel: int = 1, groups: int = 1, filters: int = 4, **changes: object) -> Value:
    w = numbers(filters, v.shape[1] // groups, kernel, kernel)
    result: Value = ops.conv(v, w, **{**POINTWISE, "groups": groups, **changes})
    return result


def pooled(v: Value, **changes: object) -> Value:
    result: Value = ops.reduce_window(v, **{"dilation": (1, 1), **HALVING, **changes})
    return result


def biased(v: Value, axis: int = 1) -> Value:
    bias = numbers(*(d if a == axis else 1 for a, d in enumerate(v.shape)))
    return ops.add(v, ops.broadcast_to(bias, shape=v.shape))


line = ops.conv(
    input_value("line", tensor("float32", 1, 6, 9)),
    numbers(4, 6, 1), strides=(1,), padding=((0, 0),), dilation=(1,), groups=1,
)  # fmt: skip

MOVED = {
    "window": pooled(conv()),
    "window of one axis": pooled(conv(), axes=(3,), window=(2,), strides=(2,), padding=((0, 0),), dilation=(1,)),
    "overlapping and padded window": pooled(conv(), window=(3, 3), padding=((1, 1), (1, 1))),
    "groups": pooled(conv(groups=2)),
    "bias": pooled(biased(conv())),
    "all pixels": ops.reduce_sum(conv(), axes=(2, 3)),
    "all pixels and a bias": ops.reduce_sum(biased(conv()), axes=(2, 3)),
    "pixels of a row": ops.reduce_sum(biased(conv()), axes=(3,)),
    "pixels of a line": ops.reduce_sum(biased(line), axes=(2,)),
    "rows of a product": ops.reduce_sum(biased(ops.dot(rows, numbers(3, 5, 9)), axis=2), axes=(1,)),
}


@pytest.mark.parametrize("y", MOVED.values(), ids=MOVED.keys())
def test_a_sum_moves_before_the_contraction(y: Value, agree: Callable[..., None]) -> None:
    graph = Graph([x, rows, line.node.inputs[0]], [y])
    after = sum_first(graph)
    order = [n.op.name for n in after.nodes if n.op.name in ("reduce_window", "reduce_sum", "conv", "dot")]
    assert order[-1] in ("conv", "dot")
    assert len(order) == 2
    agree(graph, after, rtol=1e-4, atol=1e-4)


def test_the_contraction_names_both_places() -> None:
    with location("conv1"):
        y = conv()
    with location("pool1"):
        y = pooled(y)
    after = sum_first(Graph([x], [y]))
    assert location_of(next(n for n in after.nodes if n.op.name == "conv")) == ("conv1", "pool1")


shared = conv()
KEPT = {
    "takes the maximum": [pooled(conv(), combine="maximum")],
    "not a convolution": [pooled(ops.relu(conv()))],
    "not pointwise": [pooled(conv(kernel=3))],
    "is not pointwise": [pooled(conv(strides=(2, 2)))],
    "another reader": [pooled(shared), ops.relu(shared)],
    "sums along": [ops.reduce_sum(conv(), axes=(1,))],
    "one number for each channel": [pooled(biased(conv(), axis=2))],
    "padding has no bias": [pooled(biased(conv()), padding=((1, 1), (1, 1)))],
    "not be less to compute": [pooled(conv(), window=(3, 3), strides=(1, 1), padding=((1, 1), (1, 1)))],
    "there would not be": [pooled(conv(filters=1), window=(7, 7), strides=(1, 1))],
    "of float16 would be rounded": [pooled(ops.cast(conv(), dtype=dtype_of("float16")))],
}


@pytest.mark.parametrize(("why", "outputs"), KEPT.items(), ids=KEPT.keys())
def test_guards(why: str, outputs: list[Value], refuses: Callable[..., None]) -> None:
    refuses(sum_first, Graph([x], outputs), why)
